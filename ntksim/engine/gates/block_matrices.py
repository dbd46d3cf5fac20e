"""Symmetric matrices with blocks on their diagonal, such as the Gram matrix of gates: different neurons of a first hidden layer
share no parameters.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ntksim.engine.gates import block_loops


@dataclass(frozen=True)
class Pattern:
    """Where p members of groups meet: entries (e,) at ``rows`` and ``cols``, block after block, each in its members' order."""

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
    def numbers(self) -> np.ndarray:
        """0, 1, ..., p - 1."""
        return np.arange(len(self.order))

    def places(self, chosen: np.ndarray | None) -> np.ndarray:
        """Where members (p,) stand among the ``chosen`` ones, a mask (p,), None for all; -1 for others."""
        return self.numbers if chosen is None else np.where(chosen, np.cumsum(chosen) - 1, -1)


@dataclass(frozen=True)
class Blocks:
    """A matrix (p, p) by its ``data`` (e,) on a pattern, or what is ``turned``, its transpose."""

    pattern: Pattern
    data: np.ndarray
    turned: bool = False

    @property
    def T(self) -> "Blocks":
        """The transpose."""
        return Blocks(self.pattern, self.data, not self.turned)

    def dense(self) -> np.ndarray:
        """As an array (p, p)."""
        found = np.zeros((len(self.pattern.order),) * 2)
        found[self.pattern.rows, self.pattern.cols] = self.data
        return found.T if self.turned else found

    def __matmul__(self, other: np.ndarray) -> np.ndarray:
        return self.product(other[:, None])[:, 0] if other.ndim == 1 else self.product(other)

    def product(self, x: np.ndarray, given: np.ndarray | None = None, wanted: np.ndarray | None = None) -> np.ndarray:
        """The rows ``wanted`` of the product with a matrix whose rows ``given`` are x and whose others are 0: masks (p,)."""
        if len(self.pattern.counts) == 1:
            every = slice(None)
            part = self.dense()[every if wanted is None else wanted][:, every if given is None else given]
            return np.asarray(part @ x)
        out = np.empty((len(self.pattern.order) if wanted is None else np.count_nonzero(wanted), x.shape[1]))
        places = self.pattern.places(given), self.pattern.places(wanted)
        own = self.pattern.order, self.pattern.counts, self.data, self.turned
        block_loops.product(*own, np.ascontiguousarray(x), places[0], out, places[1])
        return out

    def times(self, other: "Blocks") -> "Blocks":
        """The product with a matrix of the same pattern, which is not turned."""
        if len(self.pattern.counts) == 1:
            found = np.asarray(self.dense() @ other.dense())[self.pattern.rows, self.pattern.cols]
        else:
            found = np.empty_like(self.data)
            block_loops.block_products(self.pattern.counts, self.data, self.turned, other.data, found)
        return Blocks(self.pattern, found)

    def root(self, chosen: np.ndarray) -> "Blocks":
        """R with R'R the inverse of the part of the ``chosen`` members (p,), 0 elsewhere."""
        found = np.empty_like(self.data)
        block_loops.roots(self.pattern.order, self.pattern.counts, self.data, chosen, found)
        return Blocks(self.pattern, found)

    def least(self, v: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The q (p,) between ``low`` and ``high`` with the least q'C q / 2 - v'q, and where it is: -1, 0 between, 1 (p,).

        What a gate still moves by, v - C q, is then 0 between, at most 0 at ``low`` and at least 0 at ``high``.
        """
        q, where = np.empty(len(v)), np.empty(len(v), np.int64)
        block_loops.least(self.pattern.order, self.pattern.counts, self.data, v, low, high, q, where)
        return q, where
