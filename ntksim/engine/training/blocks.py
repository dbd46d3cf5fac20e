"""Symmetric matrices with blocks on their diagonal, such as the Gram matrix of gates: those of different neurons of a first hidden
layer share no parameters. Every operation works on all blocks of one size at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_NULL = 1e-10  # relative to the diagonal: what is added to it, since the gates of a neuron need not be independent
_PATIENCE = 5  # rounds of the active set in which violations need not get fewer
_ROUNDS = 500


@dataclass(frozen=True)
class Pattern:
    """Where p members of groups meet: entries (e,) at ``rows`` and ``cols``, block after block, each in the order of its members."""

    rows: np.ndarray
    cols: np.ndarray
    order: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray) -> "Pattern":
        """That of members (p,) with these labels of their groups."""
        order = np.argsort(labels, kind="stable")
        counts = np.unique(labels, return_counts=True)[1]
        starts = np.cumsum(counts) - counts
        lengths = np.repeat(counts, counts)  # of each row
        rows = np.repeat(order, lengths)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return cls(rows, order[np.repeat(np.repeat(starts, counts), lengths) + within], order, counts)

    @cached_property
    def sizes(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Members (b, k) and entries (b, k, k) of all blocks of each size k."""
        members, entries = np.cumsum(self.counts) - self.counts, np.cumsum(self.counts**2) - self.counts**2
        found = []
        for k in np.unique(self.counts):
            own = self.counts == k
            at = (entries[own][:, None] + np.arange(k * k)).reshape(-1, k, k)
            found.append((self.order[members[own][:, None] + np.arange(k)], at))
        return found


@dataclass(frozen=True)
class Blocks:
    """A symmetric matrix (p, p) by its ``data`` (e,) on a pattern."""

    pattern: Pattern
    data: np.ndarray

    def stacks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Members (b, k), entries (b, k, k), and the blocks themselves."""
        for members, at in self.pattern.sizes:
            yield members, at, self.data[at]

    def __matmul__(self, other: np.ndarray) -> np.ndarray:
        found = np.zeros(other.shape)
        for members, _, c in self.stacks():
            own = other[members]
            found[members] = c @ own if other.ndim == 2 else np.einsum("bij,bj->bi", c, own)
        return found

    def dense(self) -> np.ndarray:
        """As an array (p, p)."""
        found = np.zeros((len(self.pattern.order),) * 2)
        found[self.pattern.rows, self.pattern.cols] = self.data
        return found

    @cached_property
    def unit(self) -> np.ndarray:
        """One over the roots of the diagonal (p,)."""
        found = np.empty(len(self.pattern.order))
        for members, _, c in self.stacks():
            found[members] = 1 / np.sqrt(np.maximum(np.einsum("bii->bi", c), np.finfo(np.float64).tiny))
        return found

    def inverse(self, chosen: np.ndarray) -> "Blocks":
        """The inverse of the part of the ``chosen`` members (p,), 0 elsewhere."""
        found = np.zeros_like(self.data)
        for members, at, c in self.stacks():
            unit = np.where(chosen[members], self.unit[members], 0.0)
            some = unit.any(axis=1)
            if some.any():
                scale = unit[some][:, :, None] * unit[some][:, None]
                found[at[some]] = scale * np.linalg.inv(_filled(c[some] * scale, unit[some] > 0))
        return Blocks(self.pattern, found)

    def without(self, inverse: "Blocks") -> "Blocks":
        """C - C P C, with the ``inverse`` P of a part."""
        found = self.data.copy()
        for _, at, c in self.stacks():
            p = inverse.data[at]
            some = p.any(axis=(1, 2))
            found[at[some]] -= c[some] @ p[some] @ c[some]
        return Blocks(self.pattern, found)

    def least(self, v: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The q (p,) between ``low`` and ``high`` with the least q'C q / 2 - v'q, and where it is: -1, 0 between, 1 (p,).

        What a gate still moves by, v - C q, is then 0 between, at most 0 at ``low`` and at least 0 at ``high``.
        """
        q, where, unit = np.empty(len(v)), np.empty(len(v), np.int64), self.unit
        for members, _, c in self.stacks():
            own = unit[members]
            scaled = c * own[:, :, None] * own[:, None]
            found, where[members] = _least(scaled, v[members] * own, low[members] / own, high[members] / own)
            q[members] = found * own
        return q, where


def _filled(c: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Blocks (b, k, k) of unit diagonal that are those of the ``chosen`` (b, k), and those of the identity elsewhere."""
    found = np.where(chosen[:, :, None] & chosen[:, None], c, 0.0)
    return found + np.where(chosen, _NULL, 1.0)[:, :, None] * np.eye(c.shape[-1])


def _least(c: np.ndarray, v: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`Blocks.least` for blocks (b, k, k) of one size: all violated conditions change sides at once while that makes them fewer,
    and else the last of them alone, which always ends (Murty 1974; Judice & Pires 1994).
    """
    movable = high > low
    at, q = np.zeros(v.shape, np.int64), np.zeros(v.shape)
    fewest, patience = np.full(len(v), v.shape[1] + 1), np.full(len(v), _PATIENCE)
    todo = np.arange(len(v))
    for _ in range(_ROUNDS):
        own, free = c[todo], movable[todo] & (at[todo] == 0)
        rest = np.where(free, 0.0, np.where(at[todo] < 0, low[todo], high[todo]))
        right = np.where(free, v[todo] - np.einsum("bij,bj->bi", own, rest), 0.0)
        q[todo] = rest + np.linalg.solve(_filled(own, free), right[:, :, None])[:, :, 0]
        pull = np.einsum("bij,bj->bi", own, q[todo]) - v[todo]
        back = movable[todo] & (at[todo] * pull > 0)
        now = np.where(free, np.where(q[todo] < low[todo], -1, np.where(q[todo] > high[todo], 1, 0)), np.where(back, 0, at[todo]))
        wrong = now != at[todo]
        number = wrong.sum(axis=1)
        fewer = number < fewest[todo]
        fewest[todo] = np.where(fewer, number, fewest[todo])
        patience[todo] = np.where(fewer, _PATIENCE, patience[todo] - 1)
        last = wrong & (np.cumsum(wrong[:, ::-1], axis=1)[:, ::-1] == 1)
        at[todo] = np.where(np.where(patience[todo, None] > 0, wrong, last), now, at[todo])
        todo = todo[number > 0]
        if not len(todo):
            break
    left = v - np.einsum("bij,bj->bi", c, q)
    return np.clip(q, low, high), np.where(movable, at, np.where(left > 0, 1, -1))
