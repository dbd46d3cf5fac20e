"""Where numbers stand in memory: parameters, activations and sensitivities of networks, in flat arrays.

A weight matrix has a row per neuron, padded to whole vectors; activations and sensitivities have a row per neuron and a
column per point, points padded to vectors or parts of one. A row is summed over, or added to, by vector instructions from end
to end.
"""

import math
from typing import NamedTuple

import numpy as np

from ntksim.engine.initialisers import NORMAL
from ntksim.engine.threads import window

LONGEST_VECTOR = 16  # numbers, of the smallest type: a multiple of every vector that there is
_DRAW = 80  # operations that a normal, drawn twice, takes the time of
_ALIGNMENT = 64  # bytes: a vector that straddles cache lines costs two loads


class Net(NamedTuple):
    """A network as compiled code knows it.

    ``stream`` is the generator's key; ``code``, ``parameter``, ``single`` and ``double`` are the activation's (`Phi`). ``widths``
    (n_0, ..., n_L, k) are with k outputs, ``lengths`` the same padded: the length of a row of the next layer's weights;
    ``scales`` (5, L+1) holds g, s, beta, t and the layer's rate. ``first`` is the row of the whole readout that is this network's
    first: above 0 if k of more outputs are looked at, for their kernels alone. ``law`` is the distribution of parameters
    (`initialisers`).
    """

    stream: np.uint32
    code: int
    parameter: float
    single: int
    double: int
    widths: np.ndarray
    lengths: np.ndarray
    scales: np.ndarray
    first: int
    law: int = NORMAL


class Pairs(NamedTuple):
    """Which pairs of columns of an array of activations make the kernel.

    Kernel rows are the ``rows`` columns from ``first`` on, kernel columns the first ``cols``, padded to ``lanes``; there are
    ``points`` columns in all. ``symmetric``: they are the same points, and the upper half is enough.
    """

    first: int
    rows: int
    cols: int
    lanes: int
    points: int
    symmetric: bool


class Weights(NamedTuple):
    """A network's weights: stored in full, or drawn into scratch panel by panel whenever they are needed.

    ``flat`` is the parameter vector (``stored``), or scratch. Layer l's matrix starts at ``place[l]``; where ``whole[l]`` is
    false there is room for one group of panels only, which the next one overwrites. ``offsets`` are the parameter vector's.
    """

    flat: np.ndarray
    place: np.ndarray
    whole: np.ndarray
    offsets: np.ndarray
    stored: bool


class Room(NamedTuple):
    """Activations, phi'(z) and sensitivities of all layers, and scratch for Gram matrices.

    Layer l's rows start at ``at[l]`` in ``h`` and ``slope``, and at ``delta_at[l]`` in ``delta``, which is there if ``backward``:
    else there are forward passes alone. Where ``streamed``, the last hidden layer has room for one group of panels only.
    ``biases`` and ``readout`` (k, group) are scratch for a group's vectors of parameters. ``outputs`` (k, points), the Gram
    matrices ``features`` (L+1, rows, lanes) of h^0..h^L and ``sensitivities`` of one delta, and the ``kernel`` are sums in
    float64; ``partial`` is one panel's share. The kernel is one of all layers, or every layer's, (L+1, ...), if ``by_layer``.
    Unless it is ``with_kernel``, these have no rows.

    Sensitivities are those of k outputs: a neuron's row has the first output's for all points, then the second's, and so on,
    the kernel's columns before its rows if they are different points. The kernel has a block of all pairs of several outputs, (1,
    k rows padded, k lanes), if ``joint``, or blocks of the pairs of equal ones, (k, rows, lanes), and so have products of
    sensitivities. If ``pulled``, sensitivities are instead those of the one number v.f(x) a point, for the ``vector`` v (k,
    points).
    """

    h: np.ndarray
    slope: np.ndarray
    delta: np.ndarray
    at: np.ndarray
    delta_at: np.ndarray
    streamed: bool
    backward: bool
    with_kernel: bool
    joint: bool
    by_layer: bool
    pulled: bool
    biases: np.ndarray
    readout: np.ndarray
    outputs: np.ndarray
    features: np.ndarray
    sensitivities: np.ndarray
    kernel: np.ndarray
    partial: np.ndarray
    vector: np.ndarray
    window: np.ndarray


def padded(size: int) -> int:
    """``size`` rounded up to whole vectors, whatever the processor and the type."""
    return -(-size // LONGEST_VECTOR) * LONGEST_VECTOR


def aligned(size: int, kind: np.dtype) -> np.ndarray:
    """A flat array of zeros that starts on a cache line."""
    spare = _ALIGNMENT // kind.itemsize
    room = np.zeros(size + spare, kind)
    skip = (-room.ctypes.data % _ALIGNMENT) // kind.itemsize
    return room[skip : skip + size]


def parameter_offsets(net: Net) -> np.ndarray:
    """Where each layer's weights and biases start in a flat parameter vector, and its length.

    Entry 2(l-1) is the start of layer l's weights (n_l rows of padded length), 2(l-1)+1 that of its biases (n_l); the last
    layer's weights are the readout, a row per output, and its biases those of the outputs.
    """
    sizes = [part for i in range(1, net.widths.size) for part in (net.widths[i] * net.lengths[i - 1], net.lengths[i])]
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def stored_weights(net: Net, theta: np.ndarray) -> Weights:
    """The weights of a parameter vector."""
    offsets = parameter_offsets(net)
    place = np.concatenate([[0], offsets[:-3:2]])
    return Weights(theta, place, np.ones(place.size, np.bool_), offsets, True)


def drawn_weights(net: Net, rows: int, keep: int, kind: np.dtype) -> Weights:
    """Scratch for weights that are drawn, ``rows`` at a time, or whole where needed twice and fit for ``keep`` numbers."""
    last = net.widths.size - 2
    place, whole, used, longest = np.zeros(last + 1, np.int64), np.zeros(last + 1, np.bool_), 0, 0
    for layer in range(1, last + 1):
        size = int(net.widths[layer] * net.lengths[layer - 1])
        # The first layer's weights serve the forward pass only, and the last one's both passes at once.
        if 1 < layer < last and used + size <= keep:
            place[layer], whole[layer] = used, True
            used += size
        else:
            longest = max(longest, min(rows, int(net.widths[layer])) * int(net.lengths[layer - 1]))
    place[~whole] = used
    return Weights(aligned(used + longest, kind), place, whole, parameter_offsets(net), False)


def make_room(
    net: Net,
    columns: np.ndarray,
    pairs: Pairs,
    group: int,
    *,
    streamed: bool,
    backward: bool,
    kernel: bool,
    joint: bool = True,
    by_layer: bool = False,
    pulled: bool = False,
) -> Room:
    """Room for the points ``columns`` (d, points), which are put in place.

    Where ``streamed``, the last layer has room for ``group`` rows, and sensitivities for two layers, in turn, beside it.
    The kernel is one of all pairs of outputs where ``joint``, and every layer's ``by_layer``; sensitivities are those of a
    vector's product where ``pulled``.
    """
    last, kind, outputs = net.widths.size - 2, columns.dtype, int(net.widths[-1])
    joint, pulled = joint and outputs > 1, pulled and outputs > 1  # of one output there is one pair, and v is but a factor
    wide = pairs.points * (1 if pulled else outputs)  # columns of sensitivities
    rows = net.widths[: last + 1].copy()
    if streamed:
        rows[last] = min(group, rows[last])
    at = np.concatenate([[0], np.cumsum(rows)]) * pairs.points
    if streamed:
        widest = int(rows[1:last].max(initial=0)) * wide
        delta_at = np.array([(last - 1 - layer) % 2 * widest for layer in range(last)] + [min(2, last - 1) * widest])
        size = delta_at[last] + rows[last] * wide
    else:
        delta_at = (at[: last + 1] - at[1]) // pairs.points * wide
        size = (at[-1] - at[1]) // pairs.points * wide
    shape = (pairs.rows if kernel else 0, pairs.lanes)
    blocks = (outputs, *shape)
    if joint:
        blocks = (1, outputs * (pairs.points - pairs.first) if kernel else 0, outputs * pairs.lanes)
    h = aligned(at[-1], kind)
    h[: columns.size] = columns.ravel()
    slope, delta = aligned(at[-1], kind), aligned(size if backward else 0, kind)
    biases, readout = aligned(max(group, outputs), kind), np.zeros((outputs, group), kind)
    sums = (
        np.zeros((outputs, pairs.points)),
        np.zeros((last + 1, *shape)),
        np.zeros(blocks),
        np.zeros((last + 1 if by_layer else 1, *blocks)),
    )
    partial = np.zeros(math.prod(shape) + (math.prod(blocks[1:]) if blocks[0] < outputs else 0), kind)
    vector = np.zeros((outputs if pulled else 0, pairs.points), kind)
    flags = streamed, backward, kernel, joint, by_layer, pulled
    return Room(h, slope, delta, at, delta_at, *flags, biases, readout, *sums, partial, vector, window())


def operations_of_pass(net: Net, room: Room, pairs: Pairs) -> float:
    """Floating-point operations of a pass through a network, draws and Gram matrices included, about."""
    weights, outputs = float(np.sum(net.widths[1:-1] * net.lengths[:-2])), int(net.widths[-1])
    back = 0 if not room.backward else 1 if room.pulled else outputs
    squares = 1 + (back**2 if room.joint else back)
    grams = 2.0 * float(net.widths.sum()) * pairs.rows * pairs.lanes * squares if room.with_kernel else 0.0
    return weights * (2 * pairs.points * (1 + back) + _DRAW) + grams


def for_descent(room: Room) -> Room:
    """The same room without its kernel: passes through it compute no Gram matrices, and for several outputs go back once."""
    outputs, points = room.outputs.shape
    features, blocks = (np.zeros((len(kept), 0, kept.shape[2])) for kept in (room.features, room.sensitivities))
    return room._replace(
        with_kernel=False,
        by_layer=False,
        pulled=outputs > 1,
        features=features,
        sensitivities=blocks,
        kernel=blocks[None],
        partial=room.partial[:0],
        vector=np.zeros((outputs if outputs > 1 else 0, points), room.h.dtype),
    )
