"""Where conditional sampling keeps its numbers: which factors every layer has, and memory for panels, sums and small matrices.

`sweeps` says what the letters mean.
"""

from typing import NamedTuple

import numpy as np
from numba import typeof, types

from ntksim.engine.compiled.by_address import Address
from ntksim.engine.compiled.jit import jit_inline
from ntksim.engine.formulas.normals import ROWS_PER_BLOCK
from ntksim.engine.layout import Net, aligned, padded
from ntksim.engine.threads import window

CONDITIONED, ROWS, COLUMNS = 0, 1, 2  # how a layer is sampled
PANEL = 128  # rows of a panel, at most
CHUNK = 512  # rows that are added up by themselves
_SLOTS = 8  # chunks a thread between two waits for the others, at most, while their sums take no more than some numbers:
_SUMS = 1 << 22
# Numbers of a seed's panels, at most, that are kept rather than made again: 8 and 4 MiB (measured in benchmarks/README.md).
KEPT = {"float32": 1 << 21, "float64": 1 << 19}
# Pivots that count as nothing, as parts of a point's own square: points closer than the roots, 3e-5 and 1e-6, are not told apart.
# Rounding leaves up to some 1e-13 where a direction is missing; in float32, products with R^+ lose digits like the root.
CUT = {"float32": 2.0**-30, "float64": 2.0**-40}


class Law(NamedTuple):
    """How layers 1..L are sampled, and the sizes of their factors; arrays have an entry per layer, 0 unused.

    ``terms`` are the columns of B, ``columns`` those of N: if conditioned the points, and the points padded to four for every
    one of several outputs. A panel of layer l is ``size[l]`` numbers, ``left[l]`` of them B and ``right[l]`` N of the layer
    above. Panels stand at ``place[l]`` one after another if ``kept``, or else in a thread's scratch.
    """

    ways: np.ndarray
    terms: np.ndarray
    columns: np.ndarray
    left: np.ndarray
    right: np.ndarray
    place: np.ndarray
    size: np.ndarray
    kept: np.ndarray
    points: int
    lanes: int
    outputs: int
    panel: int
    longest: int
    backward: bool


class Room(NamedTuple):
    """Memory: a thread's scratch and a chunk's sums (first axis), and small matrices and sums of a network.

    ``panels`` holds, for each panel, B and N, and activations and slopes with a row per neuron and a column per point, padded
    to ``lanes``. ``values`` are V of all layers, those of layer l from ``values_at[l]``; ``crossed`` are T alike. Sums over all
    neurons are float64; those of a chunk end with ``_part`` and have an axis of slots. ``window`` is that of `threads`.
    """

    panels: np.ndarray
    values: np.ndarray
    values_at: np.ndarray
    right_values: np.ndarray
    correction: np.ndarray
    delta: np.ndarray
    wide: np.ndarray
    vector: np.ndarray
    features: np.ndarray
    crossed: np.ndarray
    sensitivities: np.ndarray
    pulled: np.ndarray
    outputs: np.ndarray
    kernel: np.ndarray
    features_part: np.ndarray
    crossed_part: np.ndarray
    sensitivities_part: np.ndarray
    pulled_part: np.ndarray
    outputs_part: np.ndarray
    gram: np.ndarray
    factor: np.ndarray
    inverse: np.ndarray
    scratch: np.ndarray
    window: np.ndarray


@jit_inline
def fours(size):
    """``size`` rounded up to the four rows that the generator makes at a time."""
    return (size + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK * ROWS_PER_BLOCK


def make_law(net, ways, points, lanes, backward, kind):
    """Sizes for one network in a type of reals, a NumPy one."""
    last, outputs = net.widths.size - 2, int(net.widths[-1])
    panel = min(PANEL, max(int(length) for length in net.lengths[1:-1]))
    terms, columns, left, right, size = (np.zeros(last + 2, np.int64) for _ in range(5))
    for layer in range(1, last + 1):
        if ways[layer] == CONDITIONED:
            terms[layer], columns[layer] = points, points if outputs == 1 else outputs * fours(points)
        else:
            terms[layer] = columns[layer] = net.widths[layer - 1 if ways[layer] == ROWS else layer]
        left[layer] = panel * (net.lengths[layer - 1] if ways[layer] == ROWS else fours(terms[layer]))
    columns[1] = 0  # nothing goes back through the first layer
    place, kept, used = np.zeros(last + 1, np.int64), np.zeros(last + 1, np.bool_), 0
    for layer in range(1, last + 1):
        right[layer] = panel * fours(columns[layer + 1])
        size[layer] = left[layer] + right[layer] + 2 * lanes * panel
        whole = -(-net.widths[layer] // panel) * size[layer]
        if backward and layer < last and used + whole <= KEPT[kind.name]:
            place[layer], kept[layer] = used, True
            used += whole
    place[~kept] = used
    return Law(ways, terms, columns, left, right, place, size, kept, points, lanes, outputs, panel, int(size.max()), backward)


def make_room(net, law, x, threads):
    """Room for ``threads`` threads and the points ``x`` (d, lanes)."""
    last, kind, sums, lanes = net.widths.size - 2, x.dtype, np.dtype(np.float64), law.lanes
    wide = law.outputs * lanes if law.backward else 0
    terms, columns = int(law.terms.max()), int(law.columns.max())
    n, q = law.points, law.outputs * law.points if law.backward else 0
    values_at = np.concatenate([[0], np.cumsum(law.terms * lanes)]).astype(np.int64)[: last + 2]
    crossed = np.zeros((last + 1, columns * lanes))

    numbers = (n + columns) * lanes + (wide + terms) * wide
    slots = 1 if threads == 1 else threads * min(_SLOTS, max(1, _SUMS // (threads * numbers)))

    def part(size, of, count=slots):
        return aligned(count * padded(size), of).reshape(count, padded(size))

    room = Room(
        aligned(int(law.place.max(initial=0)) + threads * int(law.size.max()), kind),
        aligned(int(values_at[-1]), kind),
        values_at,
        aligned(columns * wide, kind),
        aligned(n * wide, kind),
        part(law.panel * wide, kind, threads),
        part(law.panel * max(lanes, wide), sums, threads),
        part(max(law.panel, law.outputs), kind, threads),
        np.zeros((last + 1, n * lanes)),
        crossed,
        np.zeros(wide * wide),
        np.zeros(terms * wide),
        np.zeros((law.outputs, lanes)),
        np.zeros((wide, wide)),
        part(n * lanes, sums),
        part(columns * lanes, kind),
        part(wide * wide, sums),
        part(terms * wide, kind),
        part(law.outputs * lanes, sums),
        np.zeros((max(n, q), max(n, q))),
        np.zeros((last + 1, n, n)),
        np.zeros((max(n, q), max(n, q))),
        np.zeros((3, max(columns * max(lanes, wide), n * max(wide, lanes)))),
        window(),
    )
    if law.ways[1] == ROWS:
        room.values[: x.size] = net.scales[0, 0] * x.ravel()
    return room


def argument_types(real):
    """Types of (seed, net, law, room), which compiled functions hand on, for a type of reals."""
    flat, integers = np.empty(0, real.name), np.empty(0, np.int64)
    net = Net(np.uint32(0), 0, 0.0, 0, 0, integers, integers, np.empty((5, 1)), 0)
    kept = np.empty(0, np.bool_)
    law = Law(integers, integers, integers, integers, integers, integers, integers, kept, 0, 0, 0, 0, 0, True)
    own, sums, matrix, stack = np.empty((0, 0), real.name), np.empty(0), np.empty((0, 0)), np.empty((0, 0, 0))
    room = Room(
        flat, flat, integers, flat, flat, own, matrix, own, matrix, matrix, sums, sums, matrix, matrix,
        matrix, own, matrix, own, matrix, matrix, stack, matrix, matrix, integers,
    )  # fmt: skip
    return types.uint64, *(Address(typeof(example)) for example in (net, law, room))
