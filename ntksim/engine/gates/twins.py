"""Gates that open and close as one: those of a neuron at equal points, and at opposite points of a first layer without biases.

Their pre-activations are equal, or opposite, all along; above such a layer they are equal where activations are even. So is the
slope of a kink that is smoothed a little: with the slopes ``below`` and ``above`` it, and ``middle`` between, s' - middle =
sign (s - middle). Motions of parameters tell only what all of them do together, so that the first one's slope stands for all.
"""

from typing import NamedTuple

import numpy as np

from ntksim.engine.gates.gates import Inputs

_EQUAL = 1e-12  # relative: distances that rounding leaves of equal or opposite points
_NEAR = 1e-6  # relative: what products of points may be off by that are looked at


class Points(NamedTuple):
    """For every point of a layer the ``first`` one (n,) that is equal or opposite to it, and the ``sign`` (n,) of the two."""

    first: np.ndarray
    sign: np.ndarray

    @classmethod
    def of(cls, inputs: Inputs, opposite: bool) -> "Points":
        """Those of a network's inputs; ``opposite`` ones count as well or do not."""
        rows, products = inputs
        first, sign = np.arange(len(rows)), np.ones(len(rows))
        with np.errstate(over="ignore", invalid="ignore"):  # of enormous points, which no network takes
            squares = products.diagonal()
            near = np.abs(np.abs(products) - squares) <= _NEAR * squares  # of one length and along one line, or not far from it
            for i in np.flatnonzero(np.tril(near, -1).any(axis=1)).tolist():
                others = np.flatnonzero(near[i, :i] & (first[:i] == np.arange(i)))
                own = np.where(products[i, others] < 0, -1.0, 1.0)
                equal = np.linalg.norm(rows[i] - own[:, None] * rows[others], axis=1) <= _EQUAL * np.sqrt(squares[others])
                equal &= opposite | (own > 0)
                if equal.any():
                    first[i], sign[i] = others[equal][0], own[equal][0]
        return cls(first, sign)

    @classmethod
    def of_layers(cls, inputs: Inputs, depth: int, biases: bool, even: bool) -> "list[Points]":
        """Those of every hidden layer, the first with ``biases`` or without, of an activation that is ``even`` or not."""
        both = cls.of(inputs, opposite=not biases)
        above = both if biases or depth == 1 else cls(both.first, np.abs(both.sign)) if even else cls.of(inputs, opposite=False)
        return [both] + [above] * (depth - 1)

    @property
    def alone(self) -> bool:
        """Whether no point has another."""
        return bool((self.first == np.arange(len(self.first))).all())


class Twins(NamedTuple):
    """For every gate the number of the ``first`` one (p,) that it moves with, and the ``sign`` (p,) of the two."""

    first: np.ndarray
    sign: np.ndarray
    middle: float

    @classmethod
    def of(cls, ids: np.ndarray, layers: list[Points], middle: float) -> "Twins":
        """Those of gates (p, 3), by the points of every hidden layer."""
        if all(points.alone for points in layers):
            return cls(np.arange(len(ids)), np.ones(len(ids)), middle)
        keys, sign = ids.copy(), np.ones(len(ids))
        for layer, points in enumerate(layers, 1):
            own = ids[:, 0] == layer
            keys[own, 2], sign[own] = points.first[ids[own, 2]], points.sign[ids[own, 2]]
        _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        first = first[group.ravel()]
        return cls(first, sign * sign[first], middle)

    def total(self, values: np.ndarray) -> np.ndarray:
        """What motions (p,) are together, each along its own gate, at the first one; 0 at others."""
        return np.bincount(self.first, self.sign * values, len(values))

    def slopes(self, slopes: np.ndarray) -> np.ndarray:
        """Every gate's slope (p,), by those of the first ones."""
        return np.asarray(self.middle + self.sign * (slopes[self.first] - self.middle))


def with_twins(ids: np.ndarray, layers: list[Points]) -> np.ndarray:
    """Gates (p, 3), and behind them those that move with them."""
    known = set(map(tuple, ids.tolist()))
    added: list[tuple[int, int, int]] = []
    for layer, points in enumerate(layers, 1):
        if points.alone:
            continue
        for _, neuron, point in ids[ids[:, 0] == layer].tolist():
            for other in np.flatnonzero(points.first == points.first[point]).tolist():
                if (layer, neuron, other) not in known:
                    known.add((layer, neuron, other))
                    added.append((layer, neuron, other))
    return np.concatenate([ids, np.array(added, ids.dtype).reshape(-1, 3)])
