"""Batches of networks on a GPU: memory, launches, and as many networks at a time as there is memory for.

Small networks are a block each, and one launch evaluates a batch. Others go layer by layer, all of a batch at once; their
weights are drawn inside of the products, twice as on the CPU, so that a network of any width needs memory for its
activations alone. Where points fill more than one tile weights would be drawn once for each: there they are drawn into
panels, which stay in the second-level cache. Products with stored weights or panels go to cuBLAS where CuPy is installed
and they are large.

A batch's results stay on the device until all are there. Nothing depends on the size of batches.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import cuda

from ntksim.engine import kernels_cuda as kernels
from ntksim.engine.counter_rng import bias_code, weight_code
from ntksim.engine.kernels_cuda import GRAM_TERMS, TILE, TILE_THREADS
from ntksim.engine.layout import Net, Pairs, parameter_offsets
from ntksim.engine.product import PIECE

try:
    import cupy
except ImportError:
    cupy = None

# Widths and points up to which a network is evaluated by one block.
SMALL_WIDTH, SMALL_POINTS = PIECE, 32
_PANEL = 1 << 22  # weights of a panel: 16 or 32 MiB
_LARGE = 1 << 24  # multiplications of a product from which on it goes to cuBLAS
_MOST_BLOCKS = 4 if kernels.SIMULATED else 1024  # of a network, in launches over elements
_GRID_LIMIT = 65535  # of the second and third dimension
_SHARE = 0.8  # of the free memory, to use


class OutOfMemory(Exception):
    """The GPU's memory does not hold what was asked for; smaller batches may fit."""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise OutOfMemory for what Numba and CuPy raise."""
    try:
        yield
    except MemoryError:
        raise OutOfMemory from None
    except Exception as error:
        if "OUT_OF_MEMORY" in str(error) or "ALLOC_FAILED" in str(error):
            raise OutOfMemory from None
        raise


def allocate(shape: tuple[int, ...], kind: Any) -> Any:
    """An array on the device."""
    return cuda.device_array(shape, kind)


def zeros(shape: tuple[int, int], kind: Any) -> Any:
    """An array (networks, numbers) of zeros on the device."""
    array = allocate(shape, kind)
    if shape[1]:
        kernels.clear[over(shape[1], shape[0])](array)
    return array


def over(size: int, networks: int = 1) -> tuple[tuple[int, int], int]:
    """The launch of a thread for each of ``size`` elements of every network, or of some threads with several."""
    return (max(1, min(-(-size // kernels.THREADS), _MOST_BLOCKS)), networks), kernels.THREADS


def _tiles(rows: int, cols: int, units: int) -> tuple[tuple[int, int, int], int]:
    return (-(-rows // TILE), -(-cols // TILE), units), TILE_THREADS


def multiply(b, b_place, v, v_place, c, c_place, shape, first, networks=1):
    """:func:`kernels_cuda.multiply` in one part, or cuBLAS; places are (start, stride of terms, of rows or columns).

    ``c_place`` is (start, stride of rows) and ``shape`` (rows, columns, terms).
    """
    rows, cols, terms = shape
    if cupy is not None and rows * cols * terms >= _LARGE:
        for net in range(networks):
            _library_product(b[net], b_place, v[net], v_place, c[net], c_place, shape, first)
        return
    kernels.multiply[_tiles(rows, cols, networks)](
        b, *b_place, v, *v_place, c, c_place[0], 0, c_place[1], rows, cols, terms, terms + -terms % PIECE, first
    )


def _address(array: Any) -> int:
    return array.__cuda_array_interface__["data"][0]


def _library_product(b, b_place, v, v_place, c, c_place, shape, first) -> None:
    """The same of one network by cuBLAS, which stores columns: c' = v' b, c' (columns, rows)."""
    rows, cols, terms = shape
    double = c.dtype.itemsize == 8
    gemm = cupy.cuda.cublas.dgemm if double else cupy.cuda.cublas.sgemm
    one, old = np.ones(1, c.dtype), np.full(1, 0 if first else 1, c.dtype)

    def operand(array, place, neighbours):
        """Whether it is to be transposed, its address and the distance of its columns; ``neighbours`` are terms as they stand."""
        start, term, other = place
        address = _address(array) + start * array.dtype.itemsize
        plain = (term == 1) == neighbours
        return (0 if plain else 1), address, (other if term == 1 else term)

    v_flip, v_address, v_gap = operand(v, v_place, False)
    b_flip, b_address, b_gap = operand(b, b_place, True)
    c_address = _address(c) + c_place[0] * c.dtype.itemsize
    gemm(
        cupy.cuda.device.get_cublas_handle(), v_flip, b_flip, cols, rows, terms, one.ctypes.data,
        v_address, v_gap, b_address, b_gap, old.ctypes.data, c_address, c_place[1],
    )  # fmt: skip


class Batch:
    """Memory for ``networks`` networks at once: activations, slopes, sensitivities, and what becomes outputs and kernels.

    ``theta`` holds stored weights (networks, numbers), or is None where they are drawn.
    """

    def __init__(self, net: Net, columns: np.ndarray, pairs: Pairs, networks: int, *, backward: bool, kernel: bool) -> None:
        self.net, self.pairs, self.networks, self.kind = net, pairs, networks, columns.dtype
        self.last = net.widths.size - 2
        self.at, self.delta_at, self.vector_at = _places(net, pairs.points)
        self.backward, self.size = backward, pairs.rows * pairs.cols if kernel else 0
        self.columns, self.every = cuda.to_device(columns), allocate((0,), np.int64)
        self.h, self.slope = (zeros((networks, self.at[-1]), self.kind) for _ in range(2))
        self.delta = allocate((networks, self.delta_at[-1] if backward else 1), self.kind)
        parts = _parts(net)
        self.outputs = allocate((networks, pairs.points), np.float64)
        self.output_parts = allocate((networks, parts * pairs.points), np.float64)
        self.gram_parts = allocate((networks, max(1, parts * self.size)), self.kind)
        self.features = allocate((networks, max(1, (self.last + 1) * self.size)), np.float64)
        self.sensitivities = allocate((networks, max(1, self.size)), np.float64)
        self.kernel = allocate((networks, max(1, self.size)), np.float64)
        self.vectors: Any = None
        self.panel: Any = None
        self.theta: Any = None

    # What follows is of the first ``count`` networks.

    def draw(self, seeds: Any, count: int) -> None:
        """Take these seeds' networks: draw biases and readouts, weights when they are needed."""
        self.seeds = seeds
        if self.vectors is None:
            self.vectors = allocate((self.networks, self.vector_at[-1]), self.kind)
            if _needs_panels(self.pairs.points, self.kind):
                self.panel = allocate((self.networks, _panel_size(self.net)), self.kind)
        draw_vectors(self.net, seeds, self.vectors, self.vector_at, count)

    def put_points(self, count: int, chosen: Any = None) -> None:
        """h^0 of the points, or of those chosen."""
        chosen = self.every if chosen is None else chosen
        size = self.columns.shape[0] * self.pairs.points
        kernels.put_points[over(size, count)](self.columns, chosen, self.h, self.pairs.points)

    def evaluate(self, count: int) -> None:
        """Outputs, and as far as there is room sensitivities and kernel; h^0 is there."""
        last, points, scales = self.last, self.pairs.points, self.net.scales
        a, a_at = self._vector(2 * last)
        c, c_at = self._vector(2 * last + 1)
        for layer in range(1, last + 1):
            self._forward(layer, count)
        rows = int(self.net.widths[last])
        parts = -(-rows // GRAM_TERMS)
        kernels.readout_parts[(parts, count), kernels.THREADS](
            scales[0, last], a, a_at, self.h, self.at[last], rows, points, self.output_parts
        )
        kernels.add_parts[over(points, count)](self.output_parts, parts, points, self.outputs, 0, scales[2, last], c, c_at)
        if not self.backward:
            return
        if self.size:
            for layer in range(last + 1):
                self._gram(self.h, self.at[layer], layer, self.features, layer * self.size, count)
            self._add_kernel(last, True, count)
        kernels.readout_sensitivity[over(rows * points, count)](
            scales[0, last], a, a_at, self.slope, self.delta, self.at[last], self.delta_at[last], rows, points
        )
        for layer in range(last, 0, -1):
            if layer < last:
                self._back(layer, count)
            if self.size:
                self._gram(self.delta, self.delta_at[layer], layer, self.sensitivities, 0, count)
                self._add_kernel(layer - 1, False, count)

    def _vector(self, index: int) -> tuple[Any, int]:
        """Where biases and readout stand: among the parameters, or drawn."""
        if self.theta is not None:
            return self.theta, int(parameter_offsets(self.net)[index])
        return self.vectors, int(self.vector_at[index])

    def _gram(self, values: Any, at: int, layer: int, total: Any, to: int, count: int) -> None:
        """The Gram matrix of a layer's values, summed over its neurons in parts."""
        pairs, rows = self.pairs, int(self.net.widths[layer])
        parts = -(-rows // GRAM_TERMS)
        kernels.multiply[_tiles(pairs.rows, pairs.cols, count * parts)](
            values, at + pairs.first, pairs.points, 1, values, at, pairs.points, 1,
            self.gram_parts, 0, self.size, pairs.cols, pairs.rows, pairs.cols, rows, GRAM_TERMS, True,
        )  # fmt: skip
        kernels.add_parts[over(self.size, count)](self.gram_parts, parts, self.size, total, to, 0.0, self.gram_parts, 0)

    def _add_kernel(self, layer: int, first: bool, count: int) -> None:
        weight, bias = self.net.scales[0, layer], self.net.scales[2, layer]
        kernels.add_kernel[over(self.size, count)](
            weight, bias, self.sensitivities, self.features, layer * self.size, first, self.kernel, self.size
        )

    def _forward(self, layer: int, count: int) -> None:
        rows, terms = int(self.net.widths[layer]), int(self.net.widths[layer - 1])
        points, below, here = self.pairs.points, self.at[layer - 1], self.at[layer]
        if self.theta is None and self.panel is None:
            kernels.multiply_drawn[_tiles(rows, points, count)](
                *self._draws(layer), self.h, below, self.h, here, rows, points, terms
            )
        for w, at, begin, end in self._panels(layer, count):
            multiply(
                w, (at, 1, int(self.net.lengths[layer - 1])), self.h, (below, points, 1), self.h, (here + begin * points, points),
                (end - begin, points, terms), True, count,
            )  # fmt: skip
        b, b_at = self._vector(2 * layer - 1)
        weight, bias = self.net.scales[0, layer - 1], self.net.scales[2, layer - 1]
        kernels.finish_layer[over(rows * points, count)](
            self.net.code, weight, bias, b, b_at, self.h, self.slope, here, rows, points
        )

    def _back(self, layer: int, count: int) -> None:
        """Sensitivities of a layer from those of the layer above."""
        rows, terms = int(self.net.widths[layer]), int(self.net.widths[layer + 1])
        points, above, here = self.pairs.points, self.delta_at[layer + 1], self.delta_at[layer]
        if self.theta is None and self.panel is None:
            kernels.multiply_drawn_transposed[_tiles(rows, points, count)](
                *self._draws(layer + 1), self.delta, above, self.delta, here, rows, points, terms
            )
        for w, at, begin, end in self._panels(layer + 1, count):
            multiply(
                w, (at, int(self.net.lengths[layer]), 1), self.delta, (above + begin * points, points, 1),
                self.delta, (here, points), (rows, points, end - begin), begin == 0, count,
            )  # fmt: skip
        kernels.finish_sensitivity[over(rows * points, count)](
            self.net.scales[0, layer], self.slope, self.delta, self.at[layer], here, rows * points
        )

    def _draws(self, layer: int) -> tuple[Any, ...]:
        code, scale = np.uint32(weight_code(layer)), np.float32(self.net.scales[1, layer - 1])
        return self.seeds, np.uint32(self.net.stream), code, scale

    def _panels(self, layer: int, count: int) -> Iterator[tuple[Any, int, int, int]]:
        """A layer's weights: array, start, and which rows they are; panels are drawn one over the other."""
        rows, length = int(self.net.widths[layer]), int(self.net.lengths[layer - 1])
        if self.theta is not None:
            yield self.theta, int(parameter_offsets(self.net)[2 * layer - 2]), 0, rows
        elif self.panel is not None:
            step = _panel_rows(length)
            for begin in range(0, rows, step):
                end = min(begin + step, rows)
                kernels.draw_matrix[over((end - begin) * length // 4, count)](
                    *self._draws(layer), begin, end - begin, int(self.net.widths[layer - 1]), length, self.panel, 0
                )
                yield self.panel, 0, begin, end


def _places(net: Net, points: int) -> tuple[list[int], list[int], list[int]]:
    """Where layers start in activations and in sensitivities, and vectors of parameters by their index in `parameter_offsets`."""
    sizes = [int(width) for width in net.widths]
    at = [0, *np.cumsum([width * points for width in sizes[:-1]]).tolist()]
    delta_at = [max(0, place - at[1]) for place in at]
    vectors = [0] * (2 * len(sizes) - 1)
    used = 0
    for layer in range(1, len(sizes)):
        if layer == len(sizes) - 1:
            vectors[2 * layer - 2], used = used, used + sizes[layer - 1]
        vectors[2 * layer - 1], used = used, used + sizes[layer]
    vectors[-1] = used
    return at, delta_at, vectors


def _parts(net: Net) -> int:
    return -(-int(net.widths.max()) // GRAM_TERMS)


def _needs_panels(points: int, kind: np.dtype) -> bool:
    """Whether weights would be drawn more than once a pass, or cuBLAS has faster units than a kernel can name."""
    return points > TILE or (cupy is not None and kind.itemsize == 8)


def _panel_rows(length: int) -> int:
    """Rows of a panel: of its sums' pieces a whole number, so that their bits do not depend on it."""
    return max(1, _PANEL // length // PIECE) * PIECE


def _panel_size(net: Net) -> int:
    layers = range(1, net.widths.size - 1)
    return max(min(_panel_rows(int(net.lengths[i - 1])), int(net.widths[i])) * int(net.lengths[i - 1]) for i in layers)


def draw_vectors(net: Net, seeds: Any, out: Any, places: Any, count: int) -> None:
    """Biases and readouts of seeds, at ``places`` by their index in `parameter_offsets`; zeros where there are none."""
    last = net.widths.size - 1
    for layer in range(1, last + 1):
        vectors = [(2 * layer - 1, bias_code(layer), net.scales[3, layer - 1], int(net.widths[layer]))]
        if layer == last:
            vectors.append((2 * layer - 2, weight_code(layer), net.scales[1, layer - 1], int(net.widths[layer - 1])))
        for index, code, scale, size in vectors:
            kernels.draw_vector[over(-(-size // 4), count)](
                seeds, np.uint32(net.stream), np.uint32(code), np.float32(scale), size, out, int(places[index])
            )


def draw_parameters(net: Net, seeds: Any, theta: Any, count: int) -> None:
    """Parameter vectors (networks, numbers) of seeds, as `kernels_cpu.draw_parameters` fills them; they are zeros before."""
    offsets = parameter_offsets(net)
    draw_vectors(net, seeds, theta, offsets, count)
    for layer in range(1, net.widths.size - 1):
        rows, cols, length = int(net.widths[layer]), int(net.widths[layer - 1]), int(net.lengths[layer - 1])
        code, scale = np.uint32(weight_code(layer)), np.float32(net.scales[1, layer - 1])
        kernels.draw_matrix[over(rows * length // 4, count)](
            seeds, np.uint32(net.stream), code, scale, 0, rows, cols, length, theta, int(offsets[2 * layer - 2])
        )


# --- many seeds -------------------------------------------------------------------------------------------------------


def evaluate_seeds(
    net: Net, columns: np.ndarray, pairs: Pairs, seeds: np.ndarray, outputs: np.ndarray, kernels_out: np.ndarray
) -> None:
    """Fill outputs (S, n, 1) and kernels (S, 1, rows, cols), unless their second axis is empty; every visible GPU has some seeds.

    Raises
    ------
    MemoryError where not even one network fits.
    """
    wanted = kernels_out.shape[1] > 0
    results = (kernels_out if wanted else outputs).reshape(seeds.size, -1)
    gpus = list(cuda.gpus)
    there = []
    # Launches return at once: all GPUs are at work before the first result is waited for.
    for i, gpu in enumerate(gpus[: seeds.size]):
        with gpu:
            there.append(_evaluate(net, columns, pairs, seeds[i :: len(gpus)], results.shape[1], wanted))
    for i, gpu in enumerate(gpus[: seeds.size]):
        with gpu:
            results[i :: len(gpus)] = there[i].copy_to_host()


def _evaluate(net: Net, columns: np.ndarray, pairs: Pairs, seeds: np.ndarray, size: int, wanted: bool) -> Any:
    """Outputs or kernels (S, size) on the device, of as many networks at a time as there is memory for."""
    small = is_small(net, pairs)
    batch = _fitting(net, columns, pairs, seeds.size, size, wanted)
    work: Callable[..., Any] = _evaluate_small if small else _evaluate_layers
    while True:
        try:
            with memory_errors():
                return work(net, columns, pairs, seeds, size, wanted, batch)
        except OutOfMemory:
            pass  # leave the handler first: it holds on to what was allocated
        if batch == 1:
            raise MemoryError(
                f"a network of widths {net.widths[1:-1].tolist()} on {pairs.points} points, and {seeds.size} results, do not fit "
                "in the GPU's memory: use fewer points or seeds a call, float32, or device='cpu'"
            )
        batch = -(-batch // 2)


def _fitting(net: Net, columns: np.ndarray, pairs: Pairs, seeds: int, size: int, wanted: bool) -> int:
    """An estimate of how many networks fit in the free memory."""
    item, rows, parts, pairs_size = columns.itemsize, int(net.widths[:-1].sum()), _parts(net), size if wanted else 0
    each = item * (
        rows * (3 if wanted else 2) * pairs.points
        + parts * pairs_size
        + (_panel_size(net) if _needs_panels(pairs.points, columns.dtype) else 0)
    )
    each += 8 * (parts * pairs.points + (net.widths.size + 3) * pairs_size)
    free = _SHARE * cuda.current_context().get_memory_info()[0] - seeds * size * item
    return int(max(1, min(seeds, _GRID_LIMIT // parts, free / each)))


def is_small(net: Net, pairs: Pairs) -> bool:
    """Whether a block evaluates a network."""
    return int(net.widths.max()) <= min(SMALL_WIDTH, kernels.PANEL // 4 - 1) and pairs.points <= SMALL_POINTS


def _evaluate_small(net: Net, columns: np.ndarray, pairs: Pairs, seeds: np.ndarray, size: int, wanted: bool, batch: int) -> Any:
    at, _, vector_at = _places(net, pairs.points)
    kind, numbers = columns.dtype, at[-1]
    out, none = allocate((seeds.size, size), kind), allocate((1, 1), kind)
    h, slope = allocate((batch, numbers), kind), allocate((batch, numbers), kind)
    delta = allocate((batch, numbers if wanted else 1), kind)
    vectors, shares = allocate((batch, vector_at[-1]), kind), allocate((batch, (net.widths.size - 1) * size), np.float64)
    shape = [
        cuda.to_device(np.ascontiguousarray(a)) for a in (net.widths, net.scales, columns, np.array(at), np.array(vector_at))
    ]
    widths, scales, points, places, vector_places = shape
    for begin in range(0, seeds.size, batch):
        some = cuda.to_device(seeds[begin : begin + batch].copy())
        count = min(batch, seeds.size - begin)
        draw_vectors(net, some, vectors, vector_at, count)
        kernels.evaluate_small[count, kernels.THREADS](
            some, np.uint32(net.stream), net.code, widths, scales, points, pairs.first, pairs.rows if wanted else 0, pairs.cols,
            h, slope, delta, places, vectors, vector_places, shares, none if wanted else out, out if wanted else none, begin,
        )  # fmt: skip
    return out


def _evaluate_layers(net: Net, columns: np.ndarray, pairs: Pairs, seeds: np.ndarray, size: int, wanted: bool, batch: int) -> Any:
    out = allocate((seeds.size, size), columns.dtype)
    room = Batch(net, columns, pairs, batch, backward=wanted, kernel=wanted)
    room.put_points(batch)
    for begin in range(0, seeds.size, batch):
        some = cuda.to_device(seeds[begin : begin + batch].copy())
        count = min(batch, seeds.size - begin)
        room.draw(some, count)
        room.evaluate(count)
        total, width = (room.kernel, pairs.cols) if wanted else (room.outputs, size)
        kernels.copy_out[over(size, count)](total, out, begin, width, wanted and pairs.symmetric)
    return out
