"""Networks on a GPU, all of a batch at once: their memory, the draws of their parameters, and launches layer by layer.

Parameters are drawn into memory, once, if it holds those of a network; else weights are drawn into panels, twice as on the CPU,
so that a network of any width needs memory for its activations alone. Which of the two changes no bit, but where cuBLAS
multiplies, which adds up a panel's terms in an order of its own.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from ntksim.engine.cpu.product import PIECE
from ntksim.engine.cuda import descent, kernels
from ntksim.engine.cuda import library as gemm
from ntksim.engine.cuda import product as products
from ntksim.engine.cuda.launch import THREADS, allocate, blocks, over, whole_rows
from ntksim.engine.formulas.normals import ROWS_PER_BLOCK, bias_code, weight_code
from ntksim.engine.layout import Net, Pairs, parameter_offsets

_PANEL = 1 << 27  # bytes of a panel: enough work for the launches that it takes


def zeros(shape: tuple[int, int], kind: Any) -> Any:
    """An array (networks, numbers) of zeros on the device."""
    array = allocate(shape, kind)
    if shape[1]:
        descent.fill[over(shape[1], shape[0])](array, 0)
    return array


class Wanted(NamedTuple):
    """What is wanted of networks: outputs; ``backward``, sensitivities; a ``kernel``.

    That is one of all pairs of outputs if ``joint``, and every layer's ``by_layer``.
    """

    backward: bool
    kernel: bool
    joint: bool = True
    by_layer: bool = False


class Batch:
    """Memory for ``networks`` networks at once: activations, slopes, sensitivities, and what becomes outputs and kernels.

    ``theta`` holds their parameters (networks, numbers). It is None where they are drawn, and :meth:`draw` makes room for them:
    whole where ``kept``, else for vectors and one panel of weights.
    """

    def __init__(self, net: Net, columns: np.ndarray, pairs: Pairs, networks: int, wanted: Wanted, kept: bool = True) -> None:
        self.net, self.pairs, self.networks, self.kind, self.wanted, self.kept = net, pairs, networks, columns.dtype, wanted, kept
        self.last, self.outputs_count = net.widths.size - 2, int(net.widths[-1])
        self.wide = pairs.points * self.outputs_count  # columns of sensitivities
        self.at, self.vector_at = places(net, pairs.points)
        self.delta_at = [max(0, place - self.at[1]) * self.outputs_count for place in self.at]
        self.across, self.row = kernel_rows(pairs, self.outputs_count, wanted.joint)
        self.size = self.outputs_count * pairs.rows * self.row if wanted.kernel else 0
        self.columns, self.every = cuda.to_device(columns), allocate((0,), np.int64)
        self.h, self.slope = (zeros((networks, whole_rows(self.at[-1])), self.kind) for _ in range(2))
        self.delta = allocate((networks, whole_rows(self.delta_at[-1] if wanted.backward else 1)), self.kind)
        piece = pairs.rows * self.across if wanted.kernel else 0
        self.outputs = allocate((networks, self.wide), np.float64)
        self.output_parts = allocate((networks, readout_parts(net) * self.wide), np.float64)
        self.gram_parts = allocate((networks, max(1, gram_parts(net) * (self.size // self.outputs_count))), self.kind)
        self.features = allocate((networks, max(1, (self.last + 1) * piece)), np.float64)
        self.sensitivities = allocate((networks, max(1, self.size)), np.float64)
        self.kernel = allocate((networks, max(1, self.size * (self.last + 1 if wanted.by_layer else 1))), np.float64)
        self.offsets, self.scratch = parameter_offsets(net).tolist(), gemm.Scratch()
        self.theta: Any = None
        self.vectors: Any = None
        self.panel: Any = None
        self.weighted: Any = None  # training's sensitivities times a vector, made when they are needed

    # What follows is of the first ``count`` networks.

    def draw(self, seeds: Any, count: int) -> None:
        """Take these seeds' networks: draw their parameters, or what of them is not drawn when it is needed."""
        self.seeds = seeds
        if self.kept:
            if self.theta is None:
                self.theta = allocate((self.networks, whole_rows(self.offsets[-1])), self.kind)
            draw_parameters(self.net, seeds, self.theta, count)
            return
        if self.vectors is None:
            self.vectors = allocate((self.networks, self.vector_at[-1]), self.kind)
            self.panel = allocate((self.networks, whole_rows(panel_size(self.net, self.kind))), self.kind)
        draw_vectors(self.net, seeds, self.vectors, self.vector_at, count)

    def put_points(self, count: int, chosen: Any = None) -> None:
        """h^0 of the points, or of those chosen."""
        chosen = self.every if chosen is None else chosen
        size = self.columns.shape[0] * self.pairs.points
        kernels.put_points[over(size, count)](self.columns, chosen, self.h, self.pairs.points)

    def evaluate(self, count: int) -> None:
        """Outputs, and as far as they are wanted sensitivities and kernel; h^0 is there."""
        self.forward(count)
        if not self.wanted.backward:
            return
        if self.size:
            piece, points = self.pairs.rows * self.across, self.pairs.points
            for layer, at in enumerate(self.at[:-1]):
                self._gram(self.h, at + self.pairs.first, at, points, layer, self.across, self.features, layer * piece, count)
            self._add_kernel(self.last, count)
        a, a_at = self._vector(2 * self.last)
        rows, points = int(self.net.widths[self.last]), self.pairs.points
        kernels.readout_sensitivity[over(rows * self.wide, count)](
            self.net.scales[0, self.last], a, a_at, int(self.net.lengths[self.last]), self.slope, self.at[self.last],
            self.delta, self.delta_at[self.last], rows, points, self.wide,
        )  # fmt: skip
        for layer in range(self.last, 0, -1):
            if layer < self.last:
                self._back(layer, count, self.wide)
            if self.size:
                self._add_sensitivities(layer, count)
                self._add_kernel(layer - 1, count)

    def forward(self, count: int) -> None:
        """Activations and outputs."""
        last, points, scales = self.last, self.pairs.points, self.net.scales
        a, a_at = self._vector(2 * last)
        for layer in range(1, last + 1):
            self._forward(layer, count)
        rows = int(self.net.widths[last])
        parts = readout_parts(self.net)
        kernels.readout_parts[(parts, count), THREADS](
            scales[0, last], scales[2, last], a, a_at, int(self.net.lengths[last]), self._vector(2 * last + 1)[1],
            self.h, self.at[last], rows, points, self.wide, self.output_parts,
        )  # fmt: skip
        kernels.add_parts[over(self.wide, count)](self.output_parts, parts, self.wide, self.outputs, 0, True)

    def go_back(self, vector: Any) -> None:
        """Sensitivities of v.f of one network, for a vector v (1, k points): as many columns as there are points."""
        last, points = self.last, self.pairs.points
        rows = int(self.net.widths[last])
        gemm.multiply(
            self.theta, (self.offsets[2 * last], int(self.net.lengths[last]), 1), vector, (0, points, 1),
            self.delta, (self.sensitivities_at(last, points), points), (rows, points, self.outputs_count), True,
        )  # fmt: skip
        self._finish_sensitivity(last, 1, points)
        for layer in range(last - 1, 0, -1):
            self._back(layer, 1, points)

    def sensitivities_at(self, layer: int, columns: int) -> int:
        """Where a layer's sensitivities start, if a neuron has so many."""
        return self.delta_at[layer] // self.wide * columns

    def _vector(self, index: int) -> tuple[Any, int]:
        """Where biases and readout stand: among the parameters, or drawn."""
        if self.theta is not None:
            return self.theta, self.offsets[index]
        return self.vectors, int(self.vector_at[index])

    def _gram(self, values, left, right, stride, layer, wide, total, to, count) -> None:
        """Products of columns of a layer's values: kernel rows, from ``left`` on, with ``wide`` ones from ``right`` on."""
        shape = self.pairs.rows, wide, int(self.net.widths[layer])
        add_products(values, (left, stride, 1), values, (right, stride, 1), shape, self.gram_parts, total, to, True, count)

    def _add_sensitivities(self, layer: int, count: int) -> None:
        """Products of every output's sensitivities with its own, or with those of all outputs."""
        for a in range(self.outputs_count):
            own = self.delta_at[layer] + a * self.pairs.points
            right = own if self.row == self.across else self.delta_at[layer]
            to = a * self.pairs.rows * self.row
            self._gram(self.delta, own + self.pairs.first, right, self.wide, layer, self.row, self.sensitivities, to, count)

    def _add_kernel(self, layer: int, count: int) -> None:
        weight, bias, rows, by_layer = self.net.scales[0, layer], self.net.scales[2, layer], self.pairs.rows, self.wanted.by_layer
        kernels.add_kernel[over(self.size, count)](
            weight, bias, self.sensitivities, self.features, layer * rows * self.across, layer == self.last,
            self.kernel, layer * self.size if by_layer else 0, by_layer or layer == self.last,
            rows, self.across, self.row, self.size,
        )  # fmt: skip

    def copy_results(self, out: Any, first: int, count: int, layer: int = 0) -> None:
        """Rows ``first``.. of ``out`` (networks, numbers) <- kernels, a layer's if there are many, or outputs; rounded."""
        pairs, outputs = self.pairs, self.outputs_count
        if self.size:
            kernels.copy_kernel[over(out.shape[1], count)](
                self.kernel, layer * self.size, out, first, pairs.rows, pairs.cols, self.across, outputs, self.wanted.joint,
                pairs.symmetric,
            )  # fmt: skip
        else:
            kernels.copy_outputs[over(out.shape[1], count)](self.outputs, out, first, pairs.points, outputs)

    def _forward(self, layer: int, count: int) -> None:
        rows, points, here = int(self.net.widths[layer]), self.pairs.points, self.at[layer]
        for w in self._weights(layer, count):
            gemm.multiply(
                w.array, (w.at, 1, w.stride), self.h, (self.at[layer - 1] + w.col * points, points, 1),
                self.h, (here + w.row * points, points), (w.rows, points, w.cols), w.col == 0, count,
                self.scratch,
            )  # fmt: skip
        b, b_at = self._vector(2 * layer - 1)
        weight, bias = self.net.scales[0, layer - 1], self.net.scales[2, layer - 1]
        kernels.finish_layer(self.net.code)[over(rows * points, count)](
            self.net.parameter, weight, bias, b, b_at, self.h, self.slope, here, rows, points
        )

    def _back(self, layer: int, count: int, columns: int) -> None:
        """Sensitivities of a layer from those of the layer above, ``columns`` a neuron."""
        above, here = (self.sensitivities_at(i, columns) for i in (layer + 1, layer))
        for w in self._weights(layer + 1, count):
            gemm.multiply(
                w.array, (w.at, w.stride, 1), self.delta, (above + w.row * columns, columns, 1),
                self.delta, (here + w.col * columns, columns), (w.cols, columns, w.rows), w.row == 0, count,
                self.scratch,
            )  # fmt: skip
        self._finish_sensitivity(layer, count, columns)

    def _finish_sensitivity(self, layer: int, count: int, columns: int) -> None:
        rows = int(self.net.widths[layer])
        kernels.finish_sensitivity[over(rows * columns, count)](
            self.net.scales[0, layer], self.slope, self.at[layer], self.delta, self.sensitivities_at(layer, columns),
            rows, self.pairs.points, columns,
        )  # fmt: skip

    def _weights(self, layer: int, count: int) -> "Iterator[Weights]":
        """A layer's weights: all of them where they are stored, or panel by panel, each drawn over the one before."""
        rows, cols = int(self.net.widths[layer]), int(self.net.widths[layer - 1])
        if self.theta is not None:
            yield _stored(self.net, layer, self.theta)
            return
        high, wide = _panel_shape(self.net, layer, self.kind)
        for row in range(0, rows, high):
            for col in range(0, cols, wide):
                panel = Weights(self.panel, 0, min(wide, cols - col), row, min(high, rows - row), col, min(wide, cols - col))
                draw_matrix(self.net, self.seeds, layer, panel, count)
                yield panel


def add_products(b, b_place, v, v_place, shape, parts, total, at, fresh, count) -> None:
    """total += sum_k b[k, a] v[k, l] over neurons k, shares of ``GRAM_TERMS`` of them in ``parts`` and their sum in float64.

    Places and ``shape`` are those of `library.multiply`; if ``fresh`` total <- the sum.
    """
    rows, cols, terms = shape
    size, shares = rows * cols, -(-terms // kernels.GRAM_TERMS)
    products.multiply[gemm.tiles(rows, cols, count * shares)](
        b, *b_place, v, *v_place, parts, 0, size, cols, rows, cols, terms, kernels.GRAM_TERMS, True
    )
    kernels.add_parts[over(size, count)](parts, shares, size, total, at, fresh)


class Weights(NamedTuple):
    """Some of a layer's weights: ``rows`` of them from ``row`` on and ``cols`` from ``col`` on, rows ``stride`` apart."""

    array: Any
    at: int
    stride: int
    row: int
    rows: int
    col: int
    cols: int


def _stored(net: Net, layer: int, theta: Any) -> Weights:
    """All of a layer's weights, among parameters."""
    rows, cols = int(net.widths[layer]), int(net.widths[layer - 1])
    return Weights(theta, int(parameter_offsets(net)[2 * layer - 2]), int(net.lengths[layer - 1]), 0, rows, 0, cols)


def places(net: Net, points: int) -> tuple[list[int], list[int]]:
    """Where layers start in activations, and vectors of parameters, by their index in `parameter_offsets`, if alone."""
    sizes = [int(width) for width in net.widths]
    at = [0, *np.cumsum([width * points for width in sizes[:-1]]).tolist()]
    vectors = [0] * (2 * len(sizes) - 1)
    used, last = 0, len(sizes) - 1
    for layer in range(1, last + 1):
        if layer == last:
            vectors[2 * layer - 2], used = used, used + sizes[last] * int(net.lengths[last - 1])
        vectors[2 * layer - 1], used = used, used + sizes[layer]
    vectors[-1] = used
    return at, vectors


def kernel_rows(pairs: Pairs, outputs: int, joint: bool) -> tuple[int, int]:
    """Points in a row of a kernel's block, and numbers: of pairs of outputs blocks stand side by side, of all points."""
    several = joint and outputs > 1
    across = pairs.points if several else pairs.cols
    return across, across * (outputs if several else 1)


def gram_parts(net: Net) -> int:
    """Shares that the widest layer's products of columns are added up from."""
    return -(-int(net.widths[:-1].max()) // kernels.GRAM_TERMS)


def readout_parts(net: Net) -> int:
    """Shares that an output is added up from."""
    return -(-int(net.widths[-2]) // kernels.READOUT_TERMS)


def _panel_shape(net: Net, layer: int, kind: np.dtype) -> tuple[int, int]:
    """Rows and columns of a layer's panels: whole pieces of sums both ways, so that these do not depend on it.

    Squares, as far as the layer is as large: a pass has its rows in one direction, and sums over them in the other.
    """
    rows, cols, most = int(net.widths[layer]), int(net.widths[layer - 1]), _PANEL // kind.itemsize
    wide = min(cols, math.isqrt(most) // PIECE * PIECE)
    return min(rows, most // wide // PIECE * PIECE), wide


def panel_size(net: Net, kind: np.dtype) -> int:
    """Numbers of the largest panel."""
    return max(high * wide for high, wide in (_panel_shape(net, i, kind) for i in range(1, net.widths.size - 1)))


def draw_matrix(net: Net, seeds: Any, layer: int, weights: Weights, count: int) -> None:
    """Draw some of a layer's weights in place, rows filled up with zeros."""
    draw_block(net, seeds, weight_code(layer), net.scales[1, layer - 1], weights, count)


def draw_block(net: Net, seeds: Any, code: Any, scale: float, block: Weights, count: int) -> None:
    """The same of any matrix of normals, by its code."""
    columns, quarters = -(-block.stride // THREADS), -(-block.rows // ROWS_PER_BLOCK)
    kernels.draw_matrix[(columns, -(-blocks(columns * quarters) // columns), count), THREADS](
        seeds, np.uint32(net.stream), np.uint32(code), net.law, np.float32(scale),
        block.row, block.rows, block.col, block.col + block.cols, block.stride, block.array, block.at,
    )  # fmt: skip


def draw_vector(net: Net, seeds: Any, code: Any, scale: float, place: tuple[int, ...], out: Any, at: int, count: int) -> None:
    """A vector of parameters, or some of it: ``place`` is (its index, the first entry, how many)."""
    kernels.draw_vector[over(-(-place[2] // ROWS_PER_BLOCK), count)](
        seeds, np.uint32(net.stream), np.uint32(code), net.law, np.float32(scale), *place, out, at
    )


def draw_vectors(net: Net, seeds: Any, out: Any, places: Any, count: int) -> None:
    """Biases and readouts of seeds, at ``places`` by their index in `parameter_offsets`; zeros where there are none."""
    last = net.widths.size - 1
    for layer in range(1, last + 1):
        size, at = int(net.widths[layer]), int(places[2 * layer - 1])
        draw_vector(net, seeds, bias_code(layer), net.scales[3, layer - 1], (0, 0, size), out, at, count)
    for a in range(int(net.widths[last])):
        at, size = int(places[2 * last - 2]) + a * int(net.lengths[last - 1]), int(net.widths[last - 1])
        draw_vector(net, seeds, weight_code(last), net.scales[1, last - 1], (net.first + a, 0, size), out, at, count)


def draw_parameters(net: Net, seeds: Any, theta: Any, count: int) -> None:
    """Parameter vectors (networks, numbers) of seeds, as `cpu.draws.draw_parameters` fills them.

    What lies between readouts and vectors stays as it is: zeros, for training, whose norms run over it.
    """
    offsets = parameter_offsets(net)
    draw_vectors(net, seeds, theta, offsets, count)
    for layer in range(1, net.widths.size - 1):
        draw_matrix(net, seeds, layer, _stored(net, layer, theta), count)
