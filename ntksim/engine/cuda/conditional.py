"""Networks in law on GPUs: the sweeps of `conditional.sweeps`, of all networks of a batch at once, launch by launch.

The letters are those of `sweeps`. Here factors have no padding: B has n columns or the weights', N has k n, those of each output
behind those of the one before. Panels are long, and made again on the way back. Sums over neurons are shares of ``GRAM_TERMS``
of them, added in order: bits depend neither on the batch nor on the length of panels, but where cuBLAS multiplies.

What decides the draws is the processor's: counters, and the triangular factors' operations in their order (`cuda.triangular`).
"""

from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from ntksim.engine.conditional.layout import CONDITIONED, CUT, ROWS, fours
from ntksim.engine.conditional.sweeps import copy_kernel
from ntksim.engine.cuda import kernels, triangular
from ntksim.engine.cuda import library as gemm
from ntksim.engine.cuda.launch import GRID_LIMIT, THREADS, OutOfMemory, allocate, memory_errors, on_every_gpu, over, whole_rows
from ntksim.engine.cuda.passes import Weights, add_products, draw_block, draw_vector
from ntksim.engine.devices import GpuMemoryError
from ntksim.engine.formulas.normals import bias_code, left_code, right_code, weight_code
from ntksim.engine.layout import Net
from ntksim.engine.threads import advance, check

_SHARE = 0.8  # of the free memory, to use
_PANEL = 1 << 24  # numbers of a network's panel, about: enough work for the launches that it takes


class Law(NamedTuple):
    """How layers 1..L are sampled, and sizes; lists have an entry per layer, 0 unused.

    ``terms`` are the columns of B, ``columns`` those of N, ``wide`` = k n those of sensitivities; a panel has ``panel`` rows.
    """

    ways: list[int]
    terms: list[int]
    columns: list[int]
    points: int
    wide: int
    panel: int
    backward: bool


def make_law(net: Net, ways: tuple[int, ...], points: int, backward: bool) -> Law:
    """Sizes for one network; a panel's rows are a function of them, in whole shares of sums."""
    wide, terms, columns = points * int(net.widths[-1]), [0], [0]
    for layer, way in enumerate(ways, 1):
        several = int(net.widths[layer - 1 if way == ROWS else layer])
        terms.append(points if way == CONDITIONED else several)
        columns.append(wide if way == CONDITIONED else several)
    columns[1] = 0  # nothing goes back through the first layer
    law, share = Law([ROWS, *ways], terms, columns, points, wide, 0, backward), kernels.GRAM_TERMS
    numbers = max(terms) + max(columns) + 2 * points + 3 * wide + sum(_share_sizes(law)) // share
    panel = min(max(1, _PANEL // (numbers * share)), -(-int(net.widths[1:-1].max()) // share)) * share
    return law._replace(panel=panel)


def _share_sizes(law: Law) -> tuple[int, int]:
    """Numbers of a share of sums of products, and of sums of a Gram matrix."""
    wide = law.wide if law.backward else 0
    return max(max(law.columns) * law.points, max(law.terms) * wide), max(law.points, wide) ** 2


def evaluate_seeds(
    net: Net,
    ways: tuple[int, ...],
    x: np.ndarray,
    rows: np.ndarray,
    cols: np.ndarray,
    seeds: np.ndarray,
    outputs: np.ndarray,
    kernels_out: np.ndarray,
) -> None:
    """Fill outputs (S, n1, k) and kernels (S, blocks, n1, n2), unless their second axis is empty.

    ``x`` (d, n) are distinct points, of which ``rows`` and ``cols`` are the kernel's rows and columns.

    Raises
    ------
    GpuMemoryError where not even one network fits.
    """
    backward = kernels_out.shape[1] > 0
    law = make_law(net, ways, x.shape[1], backward)

    def work(first: int, step: int) -> None:
        own, batch = np.arange(first, seeds.size, step), _fitting(net, law, x, len(range(first, seeds.size, step)))
        while True:
            try:
                with memory_errors():
                    evaluate(own, batch)
                return
            except OutOfMemory as error:
                said = str(error)  # and leave the handler: it holds on to what was allocated
            if batch == 1:
                raise GpuMemoryError(
                    f"a network of widths {net.widths[1:-1].tolist()} on {law.points} points does not fit in the GPU's memory: "
                    f"use fewer points, float32, or device='cpu' ({said})"
                )
            batch = -(-batch // 2)

    def evaluate(own: np.ndarray, batch: int) -> None:
        room = Batch(net, law, x, batch)
        for begin in range(0, own.size, batch):
            some = own[begin : begin + batch]
            totals, sums = room.evaluate(seeds[some])
            for s, total, kernel in zip(some, totals, sums, strict=True):
                if backward:
                    copy_kernel(kernel, law.points, int(net.widths[-1]), rows, cols, kernels_out[s])
                if outputs.shape[1] > 0:
                    outputs[s] = total.T[rows]
            advance(some.size)

    on_every_gpu(seeds.size, work)


def _fitting(net: Net, law: Law, x: np.ndarray, seeds: int) -> int:
    """An estimate of how many networks fit in the free memory."""
    n, wide, shares = law.points, law.wide if law.backward else 0, law.panel // kernels.GRAM_TERMS
    products, grams = _share_sizes(law)
    own = law.panel * (max(law.terms) + max(law.columns) + 2 * n + wide + int(net.widths[-1])) + shares * products
    own += sum(law.terms) * n + (max(law.columns) + n) * wide
    doubles = law.panel * max(n, wide) + shares * grams + n * (sum(law.columns) + 2 * len(law.ways) * n)
    doubles += (3 * wide + max(law.terms) + 3 * n) * wide
    free = _SHARE * cuda.current_context().get_memory_info()[0]
    return int(max(1, min(seeds, GRID_LIMIT // shares, free / (x.itemsize * own + 8 * doubles))))


class Batch:
    """Memory for ``networks`` networks at once, their sweeps, and what comes of these: outputs and kernels.

    Arrays are (networks, numbers). ``values`` are V of every layer, ``crossed`` T; ``features`` and ``factors`` are the Gram
    matrices of h^0..h^L and the factors R of all layers, one after another.
    """

    def __init__(self, net: Net, law: Law, x: np.ndarray, networks: int) -> None:
        self.net, self.law, self.x, self.kind, self.networks = net, law, x, x.dtype, networks
        self.last, self.outputs_count = net.widths.size - 2, int(net.widths[-1])
        n, wide, panel = law.points, law.wide if law.backward else 0, law.panel
        shares, (products, grams) = panel // kernels.GRAM_TERMS, _share_sizes(law)

        def array(size: int, kind: Any = np.float64) -> Any:
            return allocate((networks, whole_rows(max(1, int(size)))), kind)

        self.every = allocate((0,), np.int64)
        self.left, self.right = (array(panel * max(of), self.kind) for of in (law.terms, law.columns))
        self.h, self.slope = array(panel * n, self.kind), array(panel * n, self.kind)
        self.delta, self.vectors = array(panel * wide, self.kind), array((panel + 1) * self.outputs_count, self.kind)
        self.double = array(panel * max(n, wide)) if self.kind != np.float64 else None
        self.parts, self.gram_parts = array(shares * products, self.kind), array(shares * grams)
        self.output_parts = array(-(-panel // kernels.READOUT_TERMS) * law.wide)
        self.values = [array(terms * n, self.kind) for terms in law.terms]
        self.right_values, self.correction = array(max(law.columns) * wide, self.kind), array(n * wide, self.kind)
        self.crossed = [array(columns * n) for columns in law.columns]
        self.features, self.factors = array((self.last + 1) * n * n), array((self.last + 1) * n * n)
        self.sensitivities, self.kernel, self.c = array(wide * wide), array(wide * wide), array(wide * wide)
        self.pulled, self.product = array(max(law.terms) * wide), array(n * wide)
        self.inverse, self.known = array(n * n), array(wide * n)
        self.outputs, self.scratch = array(law.wide), gemm.Scratch()

    def evaluate(self, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outputs (S, k, n) and kernels (S, k n, k n), both float64, the latter of no size if none are wanted."""
        self.count, self.seeds = seeds.size, cuda.to_device(np.ascontiguousarray(seeds))
        law, last = self.law, self.last
        self._put_points()
        for layer in range(1, last + 1):
            self._prepare_forward(layer)
            self._sweep(layer, forward=True, back=law.backward and layer == last)
        totals = self.outputs[: self.count].copy_to_host()[:, : law.wide].reshape(self.count, -1, law.points)
        if not law.backward:
            return totals, np.empty((self.count, 0))
        self._add_kernel(last)
        for layer in range(last, 0, -1):
            if layer < last:
                self._prepare_back(layer + 1)
                self._sweep(layer, forward=False, back=True)
            self._add_kernel(layer - 1)
        kernel = self.kernel[: self.count].copy_to_host()[:, : law.wide**2]
        return totals, np.ascontiguousarray(kernel).reshape(self.count, law.wide, law.wide)

    # --- small matrices, between sweeps -------------------------------------------------------------------------------

    def _put_points(self) -> None:
        """The Gram matrix of the points, and V of the first layer if its rows are weights."""
        n, panel, depth = self.law.points, self.law.panel, len(self.x)
        for k in range(0, depth, panel):
            self._put(self.x[k : k + panel], self.h)
            self._add_gram(self.h, n, min(panel, depth - k), self.features, 0, k == 0)
        if self.law.ways[1] == ROWS:
            self._put((self.net.scales[0, 0] * self.x).astype(self.kind), self.values[1])

    def _put(self, columns: np.ndarray, out: Any) -> None:
        kernels.put_points[over(columns.size, self.count)](cuda.to_device(columns), self.every, out, self.law.points)

    def _narrow(self, factor: float, values: Any, size: int, out: Any, at: int = 0) -> None:
        triangular.narrow[over(size, self.count)](float(factor), values, at, size, out)

    def _factorise(self, gram: Any, at: int, size: int, out: Any, to: int) -> None:
        triangular.factorise[self.count, triangular.FACTOR_THREADS](gram, at, size, CUT[self.kind.name], out, to)

    def _prepare_forward(self, layer: int) -> None:
        """V of a layer, from sums over the layer below."""
        n, g, scale = self.law.points, self.net.scales[0, layer - 1], self.net.scales[1, layer - 1]
        if self.law.ways[layer] == CONDITIONED:
            self._factorise(self.features, (layer - 1) * n * n, n, self.factors, layer * n * n)
            self._narrow(g * scale, self.factors, n * n, self.values[layer], layer * n * n)
        elif layer > 1:
            self._narrow(g, self.crossed[layer], self.law.terms[layer] * n, self.values[layer])

    def _prepare_back(self, layer: int) -> None:
        """C and M of a layer, from sums over its own sensitivities: M = s R^+ (S - (R^+' H'N) C), all in float64."""
        n, wide, scale = self.law.points, self.law.wide, self.net.scales[1, layer - 1]
        if self.law.ways[layer] != CONDITIONED:
            self._narrow(1.0, self.pulled, self.law.terms[layer] * wide, self.right_values)
            return
        self._factorise(self.sensitivities, 0, wide, self.c, 0)
        self._narrow(scale, self.c, wide * wide, self.right_values)
        triangular.invert[over(n, self.count)](self.factors, layer * n * n, n, self.inverse)
        self._multiply(self.crossed[layer], (0, 1, n), self.inverse, n, self.known, (wide, n, n), True)
        self._narrow(-1.0, self.known, wide * n, self.known)
        self._multiply(self.known, (0, n, 1), self.c, wide, self.pulled, (n, wide, wide), False)
        self._multiply(self.inverse, (0, 1, n), self.pulled, wide, self.product, (n, wide, n), True)
        self._narrow(scale, self.product, n * wide, self.correction)

    def _multiply(self, b: Any, b_place: tuple[int, int, int], v: Any, wide: int, c: Any, shape: Any, first: bool) -> None:
        """c <- B V, or c <- c + that unless ``first``, for V and c of rows of ``wide`` numbers."""
        scratch = self.scratch if c.dtype == self.kind else None
        gemm.multiply(b, b_place, v, (0, wide, 1), c, (0, wide), shape, first, self.count, scratch)

    def _add_kernel(self, layer: int) -> None:
        """Add the share of the parameters above layer ``layer``, those of the readout on pairs of the same output alone."""
        n, wide, scales = self.law.points, self.law.wide, self.net.scales
        kernels.add_kernel[over(wide * wide, self.count)](
            scales[0, layer], scales[2, layer], self.sensitivities, self.features, layer * n * n, layer == self.last,
            self.kernel, 0, layer == self.last, n, n, wide, wide * wide,
        )  # fmt: skip

    # --- sweeps -------------------------------------------------------------------------------------------------------

    def _sweep(self, layer: int, forward: bool, back: bool) -> None:
        """One layer, panel by panel: sums over activations on the way forward, over sensitivities on the way back."""
        law, width, n = self.law, int(self.net.widths[layer]), self.law.points
        for r0 in range(0, width, law.panel):
            check()
            rows, first = min(law.panel, width - r0), r0 == 0
            self._activate(layer, r0, rows)
            if forward:
                self._add_gram(self.h, n, rows, self.features, layer * n * n, first)
            if layer == self.last:
                self._readout(r0, rows, back)
            elif law.backward or law.ways[layer + 1] != CONDITIONED:
                self._fill_right(layer + 1, r0, rows)
                if forward:
                    shape = law.columns[layer + 1], n, rows
                    self._add_products(self.right, (0, 1, rows), self.h, shape, self.crossed[layer + 1], first)
                else:
                    self._pull_back(layer, rows)
            if back:
                self._add_gram(self.delta, law.wide, rows, self.sensitivities, 0, first)
                if layer > 1:
                    term, row = self._left_strides(layer, rows)
                    shape = law.terms[layer], law.wide, rows
                    self._add_products(self.left, (0, row, term), self.delta, shape, self.pulled, first)

    def _left_strides(self, layer: int, rows: int) -> tuple[int, int]:
        """Strides of the terms and of the rows of B: weights stand a row after another, all else a column."""
        return (1, self.law.terms[layer]) if self.law.ways[layer] == ROWS else (rows, 1)

    def _add_gram(self, values: Any, columns: int, rows: int, total: Any, at: int, first: bool) -> None:
        """total += the Gram matrix of columns, in float64."""
        if self.double is not None:
            triangular.widen[over(rows * columns, self.count)](values, rows * columns, self.double)
            values = self.double
        place, shape = (0, columns, 1), (columns, columns, rows)
        add_products(values, place, values, place, shape, self.gram_parts, total, at, first, self.count)

    def _add_products(self, b: Any, b_place: tuple[int, int, int], v: Any, shape: Any, total: Any, first: bool) -> None:
        """total += B'V over a panel's neurons, for V of rows of as many numbers as there are columns."""
        add_products(b, b_place, v, (0, shape[1], 1), shape, self.parts, total, 0, first, self.count)

    def _draw(self, code: Any, scale: float, row: int, rows: int, col: int, cols: int, out: Any, at: int = 0) -> None:
        draw_block(self.net, self.seeds, code, scale, Weights(out, at, cols, row, rows, col, cols), self.count)

    def _draw_vector(self, code: Any, scale: float, index: int, r0: int, rows: int, at: int) -> None:
        draw_vector(self.net, self.seeds, code, scale, (index, r0, rows), self.vectors, at, self.count)

    def _fill_identity(self, columns: int, r0: int, rows: int, out: Any) -> None:
        triangular.fill_identity[over(columns * rows, self.count)](out, columns, r0, rows)

    def _fill_left(self, layer: int, r0: int, rows: int) -> None:
        """Rows of B."""
        way, terms = self.law.ways[layer], self.law.terms[layer]
        if way == CONDITIONED:
            self._draw(left_code(layer), 1.0, 0, terms, r0, rows, self.left)
        elif way == ROWS:
            self._draw(weight_code(layer), self.net.scales[1, layer - 1], r0, rows, 0, terms, self.left)
        else:
            self._fill_identity(terms, r0, rows, self.left)

    def _fill_right(self, layer: int, r0: int, rows: int) -> None:
        """Rows of N of the layer above the rows, ``layer``."""
        way, n = self.law.ways[layer], self.law.points
        if way == CONDITIONED:
            for a in range(self.outputs_count):  # whose normals begin with a block of four points
                self._draw(right_code(layer), 1.0, a * fours(n), n, r0, rows, self.right, a * n * rows)
        elif way == ROWS:
            self._fill_identity(self.law.columns[layer], r0, rows, self.right)
        else:
            self._draw(weight_code(layer), self.net.scales[1, layer - 1], 0, self.law.columns[layer], r0, rows, self.right)

    def _activate(self, layer: int, r0: int, rows: int) -> None:
        """Activations and slopes; V holds the multiplier g too."""
        n = self.law.points
        self._fill_left(layer, r0, rows)
        place = (0, *self._left_strides(layer, rows))
        self._multiply(self.left, place, self.values[layer], n, self.h, (rows, n, self.law.terms[layer]), True)
        beta, t = self.net.scales[2, layer - 1], self.net.scales[3, layer - 1]
        self._draw_vector(bias_code(layer), t, 0, r0, rows, 0)
        kernels.finish_layer(self.net.code)[over(rows * n, self.count)](
            self.net.parameter, 1.0, beta, self.vectors, 0, self.h, self.slope, 0, rows, n
        )

    def _readout(self, r0: int, rows: int, back: bool) -> None:
        """A panel's share of the outputs, and its sensitivities, in the last hidden layer."""
        n, wide, outputs, scales, last = self.law.points, self.law.wide, self.outputs_count, self.net.scales, self.last
        for a in range(outputs):
            self._draw_vector(weight_code(last + 1), scales[1, last], a, r0, rows, a * rows)
        if r0 == 0:
            self._draw_vector(bias_code(last + 1), scales[3, last], 0, 0, outputs, outputs * rows)
        parts = -(-rows // kernels.READOUT_TERMS)
        kernels.readout_parts[(parts, self.count), THREADS](
            scales[0, last], scales[2, last] if r0 == 0 else 0.0, self.vectors, 0, rows, outputs * rows,
            self.h, 0, rows, n, wide, self.output_parts,
        )  # fmt: skip
        kernels.add_parts[over(wide, self.count)](self.output_parts, parts, wide, self.outputs, 0, r0 == 0)
        if back:
            kernels.readout_sensitivity[over(rows * wide, self.count)](
                scales[0, last], self.vectors, 0, rows, self.slope, 0, self.delta, 0, rows, n, wide
            )

    def _pull_back(self, layer: int, rows: int) -> None:
        """Sensitivities of a panel, from the small matrices of the layer above."""
        n, wide, above = self.law.points, self.law.wide, layer + 1
        columns = self.law.columns[above]
        self._multiply(self.right, (0, rows, 1), self.right_values, wide, self.delta, (rows, wide, columns), True)
        if self.law.ways[above] == CONDITIONED:
            self._multiply(self.h, (0, 1, n), self.correction, wide, self.delta, (rows, wide, n), False)
        kernels.finish_sensitivity[over(rows * wide, self.count)](
            self.net.scales[0, layer], self.slope, 0, self.delta, 0, rows, n, wide
        )
