"""Networks in law at initialisation, without their weights: kernels and outputs in O(m n^2) for m neurons a layer and n points.

A hidden matrix W (standard normal; scales apart) enters outputs and kernels through W H and W'D alone: H holds the activations
below it, a column per point, and D the sensitivities above it, a column per point and output; D depends on W through W H
only. Given W H = Y, W is still Gaussian where H does not reach (Bolthausen's conditioning, the proof device of Tensor
Programs; as an algorithm: Lu 2021, "Householder Dice", arXiv 2101.07464). So with H'H = R'R, D'D = C'C and normals G and N

    W H = G R,    W'D = N C + H M,    M = R^+ (G'D - R^+' (H'N) C)

has exactly the law of an explicit matrix, at every width: nothing is asymptotic, and H M, which makes W' the transpose of W,
is not left out. R and C are triangular factors in the points' order (`triangular`): a column of G or N belongs to a point.

    counter = (block of four points, neuron, left_code or right_code of the layer, high word of the seed),  key as for weights

A layer is drawn by its weights where that is cheaper, which has the same law. `sweeps` holds the sweeps.
"""

from collections.abc import Callable

import numpy as np

from ntksim.engine.conditional import sweeps
from ntksim.engine.conditional.layout import CHUNK, COLUMNS, CONDITIONED, CUT, ROWS, fours, make_law, make_room
from ntksim.engine.cpu.compiled_network import check_size, compiled_network
from ntksim.engine.cpu.product import padded_points
from ntksim.engine.formulas.normals import fill_normals, left_code, right_code
from ntksim.engine.layout import Net
from ntksim.engine.network import Network
from ntksim.engine.threads import seeds_in_slices, spread

# Conditioned layers must be cheaper by this factor in the count below, which leaves out the small matrices (measured: from there
# on they are faster, at 2 to 256 points in both precisions).
_ADVANTAGE = 4
_DRAW = 80  # operations that a normal, drawn twice, takes the time of


def chosen_ways(network: Network, input_dim: int, points: int) -> tuple[int, ...]:
    """How layers 1..L are sampled for a number of distinct points: CONDITIONED, or by weights, ROWS or COLUMNS at a time.

    A formula of shapes. A matrix of n_l rows and n_(l-1) columns takes work in proportion to n_l n_(l-1) by weights, and to
    n_l n + n_(l-1) n k conditioned, for n points and k outputs. The first layer has a forward pass only.
    """
    ways = [CONDITIONED if points < input_dim else ROWS]
    for below, width in zip(network.widths[:-1], network.widths[1:], strict=True):
        if _ADVANTAGE * points * (width + below * network.outputs) <= width * below:
            ways.append(CONDITIONED)
        else:
            ways.append(ROWS if below <= width else COLUMNS)
    return tuple(ways)


def evaluate(
    network: Network,
    x1: np.ndarray,
    x2: np.ndarray | None,
    seeds: np.ndarray,
    outputs: np.ndarray,
    kernels: np.ndarray,
    force: tuple[int, ...] | None = None,
    evaluate_seeds: Callable[..., None] | None = None,
) -> tuple[int, ...]:
    """Fill ``outputs`` (S, n1, k) and ``kernels`` (S, blocks, n1, n2), unless their second axis is empty; give layers' ways.

    Where every layer behind the first is cheaper by its weights nothing is filled, and () is given: the caller draws them. Tests
    ``force`` ways. A GPU's ``evaluate_seeds`` takes the place of `_evaluate_seeds`.
    """
    kind = outputs.dtype
    check_size([x1] if x2 is None else [x1, x2], kind)
    x, rows, cols = _distinct(x1, x2)
    ways = force or chosen_ways(network, x.shape[1], len(x))
    if force is None and CONDITIONED not in (ways[1:] or ways):
        return ()
    net = compiled_network(network, x.shape[1])
    (evaluate_seeds or _evaluate_seeds)(net, ways, np.ascontiguousarray(x.T, kind), rows, cols, seeds, outputs, kernels)
    return ways


def _evaluate_seeds(
    net: Net,
    ways: tuple[int, ...],
    x: np.ndarray,
    rows: np.ndarray,
    cols: np.ndarray,
    seeds: np.ndarray,
    outputs: np.ndarray,
    kernels: np.ndarray,
) -> None:
    """The same for distinct points ``x`` (d, n), of which ``rows`` and ``cols`` are the kernel's rows and columns."""
    kind, lanes = x.dtype, padded_points(x.shape[1], x.itemsize)
    columns = np.zeros((len(x), lanes), kind)
    columns[:, : x.shape[1]] = x
    law = make_law(net, np.array([ROWS, *ways]), x.shape[1], lanes, kernels.shape[1] > 0, kind)

    wide = lanes * (law.outputs if law.backward else 1)
    operations = float(net.widths[1:-1].sum()) * (lanes + wide) * (6 * wide + _DRAW)

    def work(threads: int, first: int, end: int, step: int) -> None:
        room = make_room(net, law, columns, threads)

        def some(begin: int, stop: int) -> None:
            sweeps.evaluate_seeds(
                threads, begin, step, seeds[:stop], net, law, room, columns.ravel(), CUT[kind.name], rows, cols, outputs, kernels
            )

        seeds_in_slices(range(first, end, step), room.window, some, operations, threads)

    spread(seeds.size, int(net.widths[1:-1].max()) > CHUNK, work)


def draws(network: Network, layer: int, points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The normals G (n_l, n) and N (n_(l-1), k n) of a conditioned layer, for tests; N of layer 1 means nothing."""
    padded, k = int(fours(points)), network.outputs
    words = np.uint32(seed & 0xFFFFFFFF), np.uint32(network.stream)
    left = np.empty((padded, network.widths[layer - 1]))
    right = np.empty((k * padded, network.widths[layer - 2]))
    for code, out in ((left_code(layer), left), (right_code(layer), right)):
        fill_normals(*words, code, np.uint32(seed >> 32), 0, 0, out)
    return left[:points].T, np.concatenate([right[a * padded : a * padded + points] for a in range(k)]).T


def _distinct(x1: np.ndarray, x2: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Different points in the order of their first appearance, and which of them the rows of ``x1`` and of ``x2`` are."""
    both = (x1 if x2 is None else np.concatenate([x1, x2])) + 0.0  # -0 is 0
    _, first, inverse = np.unique(both, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    which = place[inverse.ravel()]
    return both[first[order]], which[: len(x1)], which if x2 is None else which[len(x1) :]
