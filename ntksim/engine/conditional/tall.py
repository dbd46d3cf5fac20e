"""Tall arrays: a few rows as long as a layer is wide, kept in pieces of neighbouring neurons.

Work goes from piece to piece, so that what it needs stays in cache, and threads share the pieces. Sums over neurons are those of
the pieces, added up in order in float64: their bits do not depend on the number of threads.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from ntksim.engine.threads import check, together

PIECE = 2048  # neurons
_SPARE = 64  # rows, at least: room for fewer is copied more often
T = TypeVar("T")
Tall = list[np.ndarray]  # (rows, neurons of a piece) each


class Team:
    """Threads that share pieces."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def map(self, work: Callable[[int], T], pieces: int) -> list[T]:
        """``work`` of every piece, in order; Ctrl-C, and the end of the call that this is part of, end it between two pieces."""
        count = min(self.threads, pieces)

        def share(first: int) -> list[T]:
            with np.errstate(over="ignore", invalid="ignore"):  # of a network that diverges, as it is
                return [self._checked(work, piece) for piece in range(first, pieces, count)]

        pool = self._pool
        if pool is None or count == 1:
            return share(0)
        done = together(count, lambda _: pool, share)
        return [done[piece % count][piece // count] for piece in range(pieces)]

    def _checked(self, work: Callable[[int], T], piece: int) -> T:
        check()
        return work(piece)

    def sum(self, work: Callable[[int], np.ndarray], pieces: int) -> np.ndarray:
        """The sum over pieces, in order, in float64."""
        parts = self.map(work, pieces)
        total = parts[0].astype(np.float64)
        for part in parts[1:]:
            total += part
        return total

    def gram(self, a: Tall, b: Tall) -> np.ndarray:
        """Products a b' of rows, added up in float64 whatever their type: for what cancels."""
        return self.sum(lambda p: a[p].astype(np.float64, copy=False) @ b[p].astype(np.float64, copy=False).T, len(a))

    def product(self, a: Tall, b: Tall) -> np.ndarray:
        """Products a b' of rows, in their own type within a piece."""
        return self.sum(lambda p: a[p] @ b[p].T, len(a))


class Growing:
    """A tall array to which rows are appended, with room for some more."""

    def __init__(self, width: int, kind: np.dtype) -> None:
        self.rows = 0
        self._room = [np.empty((0, end - begin), kind) for begin, end in pieces_of(width)]

    @property
    def pieces(self) -> Tall:
        """The rows that there are."""
        return [piece[: self.rows] for piece in self._room]

    def append(self, rows: Tall) -> None:
        """Add rows behind the others."""
        total = self.rows + len(rows[0])
        for p, piece in enumerate(self._room):
            if total > len(piece):
                self._room[p] = np.empty((total + max(_SPARE, total // 8), piece.shape[1]), piece.dtype)
                self._room[p][: self.rows] = piece[: self.rows]
            self._room[p][self.rows : total] = rows[p]
        self.rows = total


def pieces_of(width: int) -> list[tuple[int, int]]:
    """Where the pieces of a layer begin and end."""
    return [(begin, min(begin + PIECE, width)) for begin in range(0, width, PIECE)]


def joined(tall: Tall) -> np.ndarray:
    """All pieces side by side."""
    return np.concatenate(tall, axis=1)


def split(array: np.ndarray) -> Tall:
    """An array (rows, width) in pieces."""
    return [np.ascontiguousarray(array[:, begin:end]) for begin, end in pieces_of(array.shape[1])]
