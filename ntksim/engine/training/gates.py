"""A few gates of a network with kinks: how they move with the parameters, and which slopes hold them at 0.

A gate c is a triple of a hidden layer, a neuron of it, and a training point. Its pre-activation z_c has the gradient Z_c over the
parameters, and the outputs have the slope g_c = df/dh_c on its activation. With Z the gradients of some gates as rows, R the
layers' rates and J the outputs' Jacobian, all that gates do is told by

    B = J R Z',  C = Z R Z',  and  J(s) = J + M Z

for the network in which the gates have slopes s, not those of the side on which rounding left them: M has the row of c's point,
(s_c - phi'(z_c)) g_c, with g_c itself under the slopes s of the gates above. So no gate costs a pass, but one product with the
weights of the layers below it.
"""

import numpy as np
from scipy.optimize import lsq_linear

from ntksim.engine.formulas.blocks import block_of, gated
from ntksim.engine.layout import Net
from ntksim.engine.machine import Inside

_NEAR = 1e-12  # where slopes are those of the sides of 0
_KINK = 1e-6  # slopes of the sides that differ by less are those of a smooth function
_NULL = 1e-9  # relative, of eigenvalues of C: the gates of a neuron whose weights are 0 are not independent
_ROUNDS = 50  # of the active set, which has never been seen to take more than a few


def sides_of(net: Net) -> tuple[float, float] | None:
    """phi' below and above 0 of an activation with a kink there, whose values or slopes say the side; None for others."""
    if gated(net, 1, 1)[0] is None:
        return None
    z, slopes = np.array([-_NEAR, _NEAR]), np.empty(2)
    block_of(net.code).loop(net.parameter, z, slopes)
    below, above = map(float, slopes)
    return None if abs(above - below) < _KINK else (below, above)


def is_smooth(net: Net) -> bool:
    """Whether the slope of a network's activation is continuous."""
    smooth = block_of(net.code).about.smooth
    return smooth if isinstance(smooth, bool) else bool(net.parameter == smooth)


class Gates:
    """Gates ``ids`` (p, 3) of layer, neuron and point, of a network with ``scales`` (5, L+1) as in `layout.Net`.

    ``z`` (p,) and the ``base`` slopes phi'(z) (p,) of the network as it is; per layer and in all, with its rates, ``B`` (n k, p)
    and ``C`` (p, p).
    """

    def __init__(self, inside: Inside, scales: np.ndarray, ids: np.ndarray) -> None:
        self.ids, self.inside, self.scales = ids, inside, scales
        self.layer, self.neuron, self.point = ids.T
        self.depth, (_, self.outputs, self.points) = len(inside.slopes), inside.sensitivities[0].shape
        self.z, self.base = pre_activations(inside, scales, ids), np.empty(len(ids))
        self._g = np.zeros((self.outputs, len(ids)))
        self._above = np.zeros((len(ids), len(ids)))  # of a gate on the activation of one below it, at the same point
        for layer in range(1, self.depth + 1):
            own = self.layer == layer
            self.base[own] = inside.slopes[layer - 1][self.neuron[own], self.point[own]]
            weights = inside.weights[layer][:, self.neuron[own]]
            if layer == self.depth:
                self._g[:, own] = scales[0, layer] * weights
            else:
                above = inside.sensitivities[layer][:, :, self.point[own]]
                self._g[:, own] = scales[0, layer] * np.einsum("mc,mkc->kc", weights, above)
        self._gradients = self._go_back()
        products = [self._products(layer) for layer in range(1, self.depth + 1)]
        nothing = np.zeros((self.points * self.outputs, len(ids))), np.zeros((len(ids), len(ids)))
        self.layer_B, self.layer_C = (np.stack(parts) for parts in zip(*products, nothing, strict=True))
        self.B, self.C = (np.tensordot(scales[4], parts, 1) for parts in (self.layer_B, self.layer_C))

    def _go_back(self) -> list[np.ndarray]:
        """dz_c / dz^l of every hidden layer l, (p, n_l) each; 0 where c lies below."""
        gradients: list[np.ndarray] = []
        for layer in range(self.depth, 0, -1):
            found = np.zeros((len(self.ids), len(self.inside.slopes[layer - 1])))
            own, higher = np.flatnonzero(self.layer == layer), np.flatnonzero(self.layer > layer)
            found[own, self.neuron[own]] = 1
            if higher.size:
                back = self.scales[0, layer] * (gradients[0][higher] @ self.inside.weights[layer])
                same = self.point[higher][:, None] == self.point[own]
                self._above[np.ix_(higher, own)] = np.where(same, back[:, self.neuron[own]], 0)
                found[higher] = back * self.inside.slopes[layer - 1][:, self.point[higher]].T
            gradients.insert(0, found)
        return gradients

    def _products(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """B and C of one layer's parameters."""
        weight, bias = self.scales[0, layer - 1], self.scales[2, layer - 1]
        h, found = self.inside.features[layer - 1].astype(np.float64), self._gradients[layer - 1]
        at_gates = weight**2 * (h.T @ h[:, self.point]) + bias**2
        delta = self.inside.sensitivities[layer - 1]
        parts = delta.reshape(len(delta), -1).T @ found.T  # rows (output, point)
        by_output = parts.reshape(self.outputs, self.points, -1) * at_gates
        return by_output.transpose(1, 0, 2).reshape(-1, len(self.ids)), (found @ found.T) * at_gates[self.point]

    def slopes_of_outputs(self, change: np.ndarray) -> np.ndarray:
        """g (k, p) where gates' slopes are ``change`` (p,) from their base."""
        g = self._g.copy()
        for layer in range(self.depth - 1, 0, -1):
            own = self.layer == layer
            g[:, own] += (change * g) @ self._above[:, own]
        return g

    def mixing(self, change: np.ndarray) -> np.ndarray:
        """M (n k, p)."""
        found = np.zeros((self.points, self.outputs, len(self.ids)))
        found[self.point, :, np.arange(len(self.ids))] = (change * self.slopes_of_outputs(change)).T
        return found.reshape(-1, len(self.ids))

    def pressure(self, vectors: np.ndarray, change: np.ndarray) -> np.ndarray:
        """r.g at each gate's point, (p,), for residuals (n k,), or those of each gate (p, n k)."""
        own = np.broadcast_to(vectors, (len(self.ids), self.points * self.outputs)).reshape(len(self.ids), self.points, -1)
        return np.einsum("kp,pk->p", self.slopes_of_outputs(change), own[np.arange(len(self.ids)), self.point])

    def kernels(self, layers: np.ndarray, change: np.ndarray) -> np.ndarray:
        """J(s) J(s)' of every layer's parameters, (L+1, n k, n k), from those of the base slopes."""
        m = self.mixing(change)
        mixed = m @ self.layer_B.transpose(0, 2, 1)
        return layers + mixed + mixed.transpose(0, 2, 1) + m @ self.layer_C @ m.T

    def motion(self, along: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """R Z' along (p,): changes of the weights and biases of every hidden layer, empty where there are none."""
        weights, biases = [], []
        for layer in range(1, self.depth + 1):
            rate, g, beta = (self.scales[row, layer - 1] for row in (4, 0, 2))
            part = along[:, None] * self._gradients[layer - 1]
            used = rate > 0 and part.any()
            h = self.inside.features[layer - 1][:, self.point]
            weights.append(rate * g * (part.T @ h.T) if used else np.empty(0))
            biases.append(rate * beta * part.sum(axis=0) if used else np.empty(0))
        return weights, biases


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


def scaled_inverse(c: np.ndarray) -> np.ndarray:
    """The pseudo-inverse of a C (p, p), whose gates are of any size."""
    unit = 1 / np.sqrt(np.maximum(np.diag(c), np.finfo(np.float64).tiny))
    values, vectors = np.linalg.eigh(c * np.outer(unit, unit))
    inverse = np.where(values > _NULL * max(values[-1:], default=1.0), 1 / np.maximum(values, _NULL), 0.0)
    return unit[:, None] * ((vectors * inverse) @ vectors.T) * unit


def box_minimum(c: np.ndarray, v: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The q (p,) between ``low`` and ``high`` with the least q'C q / 2 - v'q, and where it is: -1, 0 between, 1 (p,).

    What a gate still moves by, v - C q, is then 0 between, at most 0 at ``low`` and at least 0 at ``high``.
    """
    unit = 1 / np.sqrt(np.maximum(np.diag(c), np.finfo(np.float64).tiny))
    c, v, low, high = c * np.outer(unit, unit), v * unit, low / unit, high / unit
    at = np.zeros(len(v), np.int64)
    for _ in range(_ROUNDS):
        free = at == 0
        q = np.where(at < 0, low, high)
        if free.any():
            own = c[np.ix_(free, free)] + 1e-12 * np.eye(int(np.count_nonzero(free)))
            q[free] = np.linalg.solve(own, v[free] - c[np.ix_(free, ~free)] @ q[~free])
        pull = c @ q - v
        now = np.where(free, np.where(q < low, -1, np.where(q > high, 1, 0)), np.where(at * pull > 0, 0, at))
        if (now == at).all():
            return q * unit, at
        at = now
    values, vectors = np.linalg.eigh(c)
    root = np.sqrt(np.maximum(values, 1e-12))
    width = np.maximum(high, np.nextafter(low, np.inf))
    found = lsq_linear((vectors * root) @ vectors.T, vectors @ ((vectors.T @ v) / root), (low, width), method="bvls")
    return found.x * unit, found.active_mask
