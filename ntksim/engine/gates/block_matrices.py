"""Symmetric matrices with blocks on their diagonal, such as the Gram matrix of gates: different neurons of a first hidden layer
share no parameters. Every operation works on all blocks of one size at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

_NULL = 1e-10  # relative to the diagonal: what is added to it, since the gates of a neuron need not be independent
_AT_ONCE, _ROUNDS = 8, 500
_SLACK = 1e-7  # relative


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
        if len(self.pattern.counts) == 1:
            return self.dense() @ other
        return self.sparse @ other

    @cached_property
    def sparse(self) -> csr_array:
        """As a sparse matrix."""
        return csr_array((self.data, (self.pattern.rows, self.pattern.cols)), (len(self.pattern.order),) * 2)

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
    """`Blocks.least` for blocks (b, k, k) of one size: all violated conditions change sides at once (Judice & Pires 1994), a few
    times, and where that does not end, one after the other.
    """
    movable, margin = high > low, _SLACK * (high - low)
    slack = _SLACK * np.abs(v).max(axis=1, keepdims=True)  # of what cannot be told: gates of one neuron may depend on each other
    at, q, todo = np.zeros(v.shape, np.int64), np.zeros(v.shape), np.arange(len(v))
    for _ in range(_AT_ONCE):
        free = movable[todo] & (at[todo] == 0)
        q[todo] = _rest(c[todo], v[todo], free, np.where(at[todo] < 0, low[todo], high[todo]))
        back = movable[todo] & (at[todo] * _pull(c[todo], q[todo], v[todo]) > slack[todo])
        beyond = (q[todo] > (high + margin)[todo]).astype(np.int64) - (q[todo] < (low - margin)[todo])
        now = np.where(free, beyond, np.where(back, 0, at[todo]))
        wrong = now != at[todo]
        at[todo] = now
        todo = todo[wrong.any(axis=1)]
        if not len(todo):
            break
    if len(todo):
        q[todo], at[todo] = _descended(c[todo], v[todo], low[todo], high[todo], q[todo])
    return np.clip(q, low, high), np.where(movable, at, np.where(_pull(c, q, v) < 0, 1, -1))


def _pull(c: np.ndarray, q: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.einsum("bij,bj->bi", c, q) - v


def _rest(c: np.ndarray, v: np.ndarray, free: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """The q (b, k) that is at rest where it is ``free``, and ``fixed`` elsewhere."""
    fixed = np.where(free, 0.0, fixed)
    right = np.where(free, -_pull(c, fixed, v), 0.0)
    return fixed + np.linalg.solve(_filled(c, free), right[:, :, None])[:, :, 0]


def _descended(c: np.ndarray, v: np.ndarray, low: np.ndarray, high: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`_least` from some q on by steps that stay in the box and always descend: one bound is met, or left, at a time."""
    slack, q, todo = _SLACK * np.abs(v).max(axis=1), np.clip(q, low, high), np.arange(len(v))
    at = np.where(q <= low, -1, np.where(q >= high, 1, 0))
    for _ in range(_ROUNDS):
        own, rows = q[todo], np.arange(len(todo))
        free = (at[todo] == 0) & (high > low)[todo]
        step = np.where(free, _rest(c[todo], v[todo], free, own) - own, 0.0)
        room = np.where(step > 0, high[todo], low[todo]) - own
        reach = np.where(step != 0, room / np.where(step != 0, step, 1.0), np.inf)
        first = reach.argmin(axis=1)
        share = reach[rows, first]
        own = own + np.minimum(share, 1.0)[:, None] * step
        worst = np.where((high > low)[todo], at[todo] * _pull(c[todo], own, v[todo]), -np.inf)
        leaves = worst.argmax(axis=1)
        met, left = share < 1, (share >= 1) & (worst[rows, leaves] > slack[todo])
        at[todo[met], first[met]] = np.sign(step[rows, first])[met]
        own[rows[met], first[met]] = np.where(step[rows, first] > 0, high[todo, first], low[todo, first])[met]
        at[todo[left], leaves[left]] = 0
        q[todo] = own
        todo = todo[met | left]
        if not len(todo):
            break
    return q, at
