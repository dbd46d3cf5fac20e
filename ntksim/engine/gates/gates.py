"""A few gates of a network with kinks: how they move with the parameters, and which slopes hold them at 0.

A gate c is a triple of a hidden layer, a neuron of it, and a training point. Its pre-activation z_c has the gradient Z_c over the
parameters, and the outputs have the slope g_c = df/dh_c on its activation. With Z the gradients of some gates as rows, R the
layers' rates and J the outputs' Jacobian, all that gates do is told by

    B = J R Z',  C = Z R Z',  and  J(s) = J + M Z

for the network in which the gates have slopes s, not those of the side on which rounding left them: M has the row of c's point,
(s_c - phi'(z_c)) g_c, with g_c itself under the slopes s of the gates above. So no gate costs a pass, but one product with the
weights of the layers below it.
"""

from typing import NamedTuple

import numpy as np

from ntksim.engine.formulas.blocks import block_of, gated
from ntksim.engine.gates import block_loops
from ntksim.engine.gates.block_matrices import Blocks, Pattern
from ntksim.engine.layout import Net
from ntksim.engine.machine import Inside

_NEAR = 1e-12  # where slopes are those of the sides of 0
_KINK = 1e-6  # slopes of the sides that differ by less are those of a smooth function


def sides_of(net: Net) -> tuple[float, float] | None:
    """phi' below and above 0 of an activation with a kink there, whose values or slopes say the side; None for others."""
    if gated(net, 1, 1)[0] is None:
        return None
    z, slopes = np.array([-_NEAR, _NEAR]), np.empty(2)
    block_of(net.code).loop(net.parameter, z, slopes)
    below, above = map(float, slopes)
    return None if abs(above - below) < _KINK else (below, above)


def is_even(net: Net) -> bool:
    """Whether a network's activation has equal values at z and -z."""
    z = np.array([0.1, 0.7, 2.0, 5.0])
    values = z.copy(), -z
    for own in values:
        block_of(net.code).loop(net.parameter, own, np.empty(4))
    return bool((values[0] == values[1]).all())


def is_smooth(net: Net) -> bool:
    """Whether the slope of a network's activation is continuous."""
    smooth = block_of(net.code).about.smooth
    return smooth if isinstance(smooth, bool) else bool(net.parameter == smooth)


class Inputs(NamedTuple):
    """The training points as a first hidden layer takes them, in rows (n, d), and their products with each other (n, n)."""

    rows: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, columns: np.ndarray) -> "Inputs":
        """Those of points in columns (d, n)."""
        rows = np.ascontiguousarray(columns.T, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # of enormous points, which no network takes
            return cls(rows, rows @ rows.T)


class Gates:
    """Gates ``ids`` (p, 3) of layer, neuron and point, of a network with ``scales`` (5, L+1) as in `layout.Net`.

    ``z`` (p,) and the ``base`` slopes phi'(z) (p,) of the network as it is; per layer and in all, with its rates, ``B`` (p, n k),
    a row a gate, and ``C`` (p, p). Gates of the first hidden layer alone are coupled within a neuron only. ``inputs`` are those
    of ``inside``, if they are known.
    """

    def __init__(self, inside: Inside, scales: np.ndarray, ids: np.ndarray, inputs: Inputs | None = None) -> None:
        self.ids, self.inside, self.scales = ids, inside, scales
        self.inputs = Inputs.of(inside.features[0]) if inputs is None else inputs
        self.layer, self.neuron, self.point = np.ascontiguousarray(ids.T)
        self.depth, (_, self.outputs, self.points) = len(inside.slopes), inside.sensitivities[0].shape
        self.z, self.base = pre_activations(inside, scales, ids), np.empty(len(ids))
        self._g = np.zeros((self.outputs, len(ids)))
        for layer in range(1, self.depth + 1):
            own = self.layer == layer
            self.base[own] = inside.slopes[layer - 1][self.neuron[own], self.point[own]]
            weights = inside.weights[layer][:, self.neuron[own]]
            if layer == self.depth:
                self._g[:, own] = scales[0, layer] * weights
            else:
                above = inside.sensitivities[layer][:, :, self.point[own]]
                self._g[:, own] = scales[0, layer] * np.einsum("mc,mkc->kc", weights, above)
        self.pattern = Pattern.of(self.neuron if (self.layer == 1).all() else np.zeros(len(ids), np.int64))
        self._own = [np.flatnonzero(self.layer == layer) for layer in range(1, self.depth + 1)]
        self._above: np.ndarray | None = None  # (p, p), of a gate on the activation of one below it, at the same point
        self._back = self._go_back()
        self.layers = [self._products(layer) for layer in range(1, self.depth + 1)]
        (self.B, c), rates = self.layers[0], scales[4, : self.depth]
        if (rates != np.eye(self.depth)[0]).any():  # else there is one hidden layer, of rate 1
            self.B, c = (np.tensordot(rates, np.stack(parts), 1) for parts in zip(*self.layers, strict=True))
        self.C = Blocks(self.pattern, c)

    def _go_back(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For every hidden layer l the gates c that lie above it, and dz_c / dz^l of each (c, n_l)."""
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for layer in range(self.depth, 0, -1):
            higher, own = np.flatnonzero(self.layer > layer), self._own[layer - 1]
            back = np.zeros((len(higher), len(self.inside.slopes[layer - 1])))
            if higher.size:
                from_above = np.zeros((len(higher), len(self.inside.slopes[layer])))
                at = np.searchsorted(higher, self._own[layer])
                from_above[at, self.neuron[self._own[layer]]] = 1
                from_above[np.searchsorted(higher, found[0][0])] = found[0][1]
                back = self.scales[0, layer] * (from_above @ self.inside.weights[layer])
                if self._above is None:
                    self._above = np.zeros((len(self.ids), len(self.ids)))
                same = self.point[higher][:, None] == self.point[own]
                self._above[np.ix_(higher, own)] = np.where(same, back[:, self.neuron[own]], 0)
                back = back * self.inside.slopes[layer - 1][:, self.point[higher]].T
            found.insert(0, (higher, back))
        return found

    def _gram(self, layer: int, products: np.ndarray) -> np.ndarray:
        """What points share in a layer's parameters, from the ``products`` of its inputs."""
        return np.asarray(self.scales[0, layer - 1] ** 2 * products + self.scales[2, layer - 1] ** 2)

    def _along(self, layer: int, delta: np.ndarray, gram: np.ndarray) -> np.ndarray:
        """J Z' over one layer's parameters (p, n k), J of points with sensitivities ``delta`` and a ``gram`` with the gates'."""
        own, (higher, back) = self._own[layer - 1], self._back[layer - 1]
        by_point = np.empty((len(self.ids), gram.shape[1], self.outputs))
        if len(own) == len(self.ids):
            delta = np.ascontiguousarray(delta)  # whether points are padded or not: one type, and one variant to compile
            block_loops.sensitivities_times_gram(delta, self.neuron, self.point, gram, by_point)
        else:
            by_point[:] = 0
            by_point[own] = delta[self.neuron[own]].transpose(0, 2, 1)
            parts = (back @ delta.reshape(len(delta), -1)).reshape(-1, self.outputs, gram.shape[1])
            by_point[higher] = parts.transpose(0, 2, 1)
            by_point *= gram[self.point, :, None]
        return by_point.reshape(len(self.ids), -1)

    def _products(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """B, and C on its pattern, of one layer's parameters."""
        own, (higher, back) = self._own[layer - 1], self._back[layer - 1]
        delta, products = self.inside.sensitivities[layer - 1], self.inputs.products
        if layer > 1:
            h = self.inside.features[layer - 1].astype(np.float64)
            products = h.T @ h
        gram = self._gram(layer, products)
        rows, cols = self.pattern.rows, self.pattern.cols
        if higher.size:
            found = np.zeros((len(self.ids), len(delta)))
            found[own, self.neuron[own]] = 1
            found[higher] = back
            same = (found @ found.T)[rows, cols]
        elif len(self.pattern.counts) > 1:
            same = np.full(len(rows), layer == 1)  # blocks are neurons of the first layer
        else:
            same = (self.layer[rows] == layer) & (self.layer[cols] == layer) & (self.neuron[rows] == self.neuron[cols])
        return self._along(layer, delta, gram), same * gram[self.point[rows], self.point[cols]]

    def slopes_of_outputs(self, change: np.ndarray) -> np.ndarray:
        """g (k, p) where gates' slopes are ``change`` (p,) from their base."""
        g = self._g.copy()
        if self._above is not None:
            for own in self._own[-2::-1]:
                g[:, own] += (change * g) @ self._above[:, own]
        return g

    def mixing(self, change: np.ndarray) -> np.ndarray:
        """What M has (k, p): an entry for each output at a gate's point in the gate's column."""
        return np.ascontiguousarray(change * self.slopes_of_outputs(change))

    def mixed(self, mixing: np.ndarray, b: np.ndarray, c: Blocks) -> tuple[np.ndarray, np.ndarray]:
        """B of J + M Z, and what M Z adds to the kernel: M B' + B M' + M C M'."""
        both, (added, other) = b.copy(), np.zeros((2, b.shape[1], b.shape[1]))
        block_loops.mix(c.pattern.order, c.pattern.counts, c.data, mixing, self.point, b, both, added, other)
        return both, added + other.T

    def pressure(self, vectors: np.ndarray, change: np.ndarray) -> np.ndarray:
        """r.g at each gate's point (p,), for its residuals there (p, k)."""
        return along_outputs(self.slopes_of_outputs(change), vectors)

    def at_points(self, vector: np.ndarray) -> np.ndarray:
        """A vector over points (n k,) at each gate's point (p, k)."""
        return vector.reshape(self.points, self.outputs)[self.point]

    def kernels(self, layers: np.ndarray, change: np.ndarray) -> np.ndarray:
        """J(s) J(s)' of every layer's parameters, (L+1, n k, n k), from those of the base slopes."""
        m, found = self.mixing(change), layers.copy()
        for own, (b, c) in zip(found, self.layers, strict=False):  # not the readout's
            own += self.mixed(m, b, Blocks(self.pattern, c))[1]
        return found

    def test_kernels(self, layers: np.ndarray, change: np.ndarray, tests: Inside, training: np.ndarray) -> np.ndarray:
        """J* J(s)' of every layer's parameters, (L+1, n* k, n k), from those of the base slopes: ``tests`` have their own slopes.

        A test point that is a training point has its gates, and its rows of ``training``, the kernels of training points.
        """
        mixing, found = np.zeros((len(self.ids), self.points, self.outputs)), layers.copy()
        mixing[np.arange(len(self.ids)), self.point] = self.mixing(change).T
        for layer in range(1, self.depth + 1):  # not the readout's
            products = self.inside.features[layer - 1].T.astype(np.float64) @ tests.features[layer - 1]
            along = self._along(layer, tests.sensitivities[layer - 1], self._gram(layer, products))
            found[layer - 1] += along.T @ mixing.reshape(len(self.ids), -1)
        known = {(row + 0.0).tobytes(): point for point, row in enumerate(self.inputs.rows)}  # + 0: of either sign
        for at, row in enumerate(np.ascontiguousarray(tests.features[0].T, np.float64)):
            if (point := known.get((row + 0.0).tobytes())) is not None:
                rows, own = (slice(i * self.outputs, (i + 1) * self.outputs) for i in (at, point))
                found[:, rows] = training[:, own]
        return found

    def motion(self, along: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """R Z' along (p,): changes of the weights and biases of every hidden layer, empty where there are none."""
        weights, biases = [], []
        for layer in range(1, self.depth + 1):
            rate, g, beta = (self.scales[row, layer - 1] for row in (4, 0, 2))
            own, (higher, back) = self._own[layer - 1], self._back[layer - 1]
            used = rate > 0 and (along[own].any() or along[higher].any())
            if not used:
                weights.append(np.empty(0))
                biases.append(np.empty(0))
                continue
            rows = self.inputs.rows if layer == 1 else np.ascontiguousarray(self.inside.features[layer - 1].T, np.float64)
            width = len(self.inside.slopes[layer - 1])
            part = along[higher][:, None] * back
            moved = part.T @ rows[self.point[higher]]
            block_loops.add_rows(along[own], self.neuron[own], self.point[own], rows, moved)
            weights.append(rate * g * moved)
            biases.append(rate * beta * (np.bincount(self.neuron[own], along[own], width) + part.sum(axis=0)))
        return weights, biases


class Held(NamedTuple):
    """Gates that are held at 0, and by how much the slopes that hold them differ from their base (p,)."""

    gates: Gates
    change: np.ndarray

    def kernels(self, layers: np.ndarray) -> np.ndarray:
        """`Gates.kernels` with these slopes."""
        return self.gates.kernels(layers, self.change)

    def test_kernels(self, layers: np.ndarray, tests: Inside, training: np.ndarray) -> np.ndarray:
        """`Gates.test_kernels` with these slopes."""
        return self.gates.test_kernels(layers, self.change, tests, training)


def along_outputs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products (p,) of vectors over outputs, (k, p) and (p, k)."""
    return np.asarray(np.einsum("kp,pk->p", a, b))


def pre_activations(inside: Inside, scales: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """z (p,) of gates."""
    z = np.empty(len(ids))
    for layer in np.unique(ids[:, 0]):
        own = ids[:, 0] == layer
        _, neuron, point = ids[own].T
        weights, h = inside.weights[layer - 1][neuron].astype(np.float64), inside.features[layer - 1][:, point]
        z[own] = scales[0, layer - 1] * np.sum(weights * h.T, axis=1)
        z[own] += scales[2, layer - 1] * inside.biases[layer - 1][neuron]
    return z
