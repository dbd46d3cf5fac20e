"""A small network in a block: all of its layers in one launch. `kernels` says how arrays are laid out."""

from functools import cache

import numpy as np
from numba import cuda, float32

from ntksim.engine.compiled.jit import multiply_add
from ntksim.engine.cuda.launch import SIMULATED, THREADS, device_function, launched, unsigned
from ntksim.engine.formulas.blocks import block_of
from ntksim.engine.formulas.layer import features_kernel, pre_activation, readout_term, sensitivity
from ntksim.engine.formulas.normals import ROWS_PER_BLOCK, scaled_weights, seed_words, weight_code

PANEL = 512 if SIMULATED else 8192  # float32 numbers of shared memory for the weights

_f32 = np.float32


@device_function
def _draw_panel(panel, stride, low, stream, code, high, law, scale, row0, rows, cols):
    """Rows of W in shared memory, ``stride`` apart."""
    for e in range(cuda.threadIdx.x, (rows + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK * cols, THREADS):
        block, col = e // cols, e % cols
        drawn = scaled_weights(low, stream, code, high, law, row0 // ROWS_PER_BLOCK + block, col, scale)
        for i in range(ROWS_PER_BLOCK):
            panel[(ROWS_PER_BLOCK * block + i) * stride + col] = drawn[i]


@device_function
def panel_rows(stride):
    """Rows of weights that fit in shared memory."""
    return PANEL // stride // ROWS_PER_BLOCK * ROWS_PER_BLOCK


@device_function
def _sum_of_products(panel, at, step, values, net, place, points, terms, total):
    """total + sum_k w_k v_k, ascending and fused; w_k are in ``panel`` and v_k in a row of ``values``, at equal distances."""
    kind, own = values.dtype.type, values[unsigned(net)]
    w, v, w_step, v_step = unsigned(at), unsigned(place), unsigned(step), unsigned(points)
    for _ in range(terms):
        total = multiply_add(kind(panel[w]), own[v], kind(total))
        w, v = w + w_step, v + v_step
    return total


# What follows is of network ``net`` of a batch, by all threads of its block.


@cache
def _forward_small(code):
    """The way forward of networks of an activation."""
    value_and_slope = block_of(code).value_and_slope

    @device_function
    def forward(
        panel, low, high, stream, law, parameter, net, widths, scales, points, h, slope, delta, at, vectors, vector_at, backward
    ):
        """h and slope of every layer, and if ``backward`` delta^L; h^0 is there."""
        last, kind = widths.size - 2, h.dtype.type
        for layer in range(1, last + 1):
            terms, weight, bias = widths[layer - 1], kind(scales[0, layer - 1]), kind(scales[2, layer - 1])
            stride = terms | 1  # odd: rows start in different banks
            step, below, here = panel_rows(stride), at[layer - 1], at[layer]
            for begin in range(0, widths[layer], step):
                count = min(step, widths[layer] - begin)
                _draw_panel(
                    panel, stride, low, stream, weight_code(layer), high, law, _f32(scales[1, layer - 1]), begin, count, terms
                )
                cuda.syncthreads()
                for e in range(cuda.threadIdx.x, count * points, THREADS):
                    r, p = e // points, e % points
                    z = _sum_of_products(panel, r * stride, 1, h, net, below + p, points, terms, kind(0))
                    z = pre_activation(weight, bias, kind(z), vectors[net, vector_at[2 * layer - 1] + begin + r])
                    to = here + begin * points + e
                    h[net, to], slope[net, to] = value_and_slope(kind(z), parameter)
                    if backward and layer == last:
                        a = vectors[net, vector_at[2 * layer] + begin + r]
                        delta[net, to] = sensitivity(kind(scales[0, last]), a, slope[net, to])
                cuda.syncthreads()

    return forward


@device_function
def _backward_small(panel, low, high, stream, law, net, widths, scales, points, slope, delta, at):
    """delta of every layer from delta^L."""
    kind = delta.dtype.type
    for layer in range(widths.size - 2, 1, -1):
        terms, weight = widths[layer - 1], kind(scales[0, layer - 1])
        stride = terms | 1
        step, below, here = panel_rows(stride), at[layer - 1], at[layer]
        for begin in range(0, widths[layer], step):
            count = min(step, widths[layer] - begin)
            if layer < widths.size - 2 or count < widths[layer]:  # else the last panel of the way forward holds them
                _draw_panel(
                    panel, stride, low, stream, weight_code(layer), high, law, _f32(scales[1, layer - 1]), begin, count, terms
                )
            cuda.syncthreads()
            for e in range(cuda.threadIdx.x, terms * points, THREADS):
                col, p = e // points, e % points
                back = kind(0) if begin == 0 else delta[net, below + e]
                back = _sum_of_products(panel, col, stride, delta, net, here + begin * points + p, points, count, kind(back))
                if begin + count == widths[layer]:
                    back = sensitivity(weight, kind(back), slope[net, below + e])
                delta[net, below + e] = back
            cuda.syncthreads()


@device_function
def _outputs_small(net, widths, scales, points, h, at, vectors, vector_at, outputs, out):
    """Row ``out`` of the outputs."""
    last = widths.size - 2
    for p in range(cuda.threadIdx.x, outputs.shape[1], THREADS):
        total = 0.0
        for r in range(widths[last]):
            a = vectors[net, vector_at[2 * last] + r]
            total += readout_term(scales[0, last], a, h[net, at[last] + r * points + p])
        outputs[out, p] = total + scales[2, last] * np.float64(vectors[net, vector_at[2 * last + 1]])


@device_function
def _column_product(values, net, at, rows, points, i, j):
    """Columns i and j of a layer's values, multiplied in float64."""
    total, own, step = 0.0, values[unsigned(net)], unsigned(points)
    left, right = unsigned(at + i), unsigned(at + j)
    for _ in range(rows):
        total += np.float64(own[left]) * np.float64(own[right])
        left, right = left + step, right + step
    return total


@device_function
def _kernel_small(net, widths, scales, points, first, rows, cols, h, delta, at, shares, kernels, out):
    """Row ``out`` of the kernels: every layer's share, then their sum from the last layer on."""
    thread, last, pairs = cuda.threadIdx.x, widths.size - 2, rows * cols
    for e in range(thread, (last + 1) * pairs, THREADS):
        layer, i, j = e // pairs, first + e % pairs // cols, e % cols
        share = features_kernel(
            scales[0, layer], scales[2, layer], _column_product(h, net, at[layer], widths[layer], points, i, j)
        )
        if layer < last:
            share *= _column_product(delta, net, at[layer + 1], widths[layer + 1], points, i, j)
        shares[net, e] = share
    cuda.syncthreads()
    for e in range(thread, pairs, THREADS):
        total = 0.0
        for layer in range(last, -1, -1):
            total += shares[net, layer * pairs + e]
        kernels[out, e] = total


@cache
def evaluate_small(code):
    """The kernel that gives outputs or kernels of small networks of an activation, one a block, weights in shared memory.

    Rows ``out``.. of the results are filled.

    Kernel rows are columns ``first``.. of ``columns`` (d, points), as in `layout.Pairs`. ``vectors`` holds biases and readout,
    drawn before, at ``vector_at``; ``shares`` (networks, (L+1) rows cols) is scratch. Without a kernel ``rows`` is 0.
    """
    forward = _forward_small(code)

    @launched
    def evaluate_small(
        seeds, stream, law, parameter, widths, scales, columns, first, rows, cols, h, slope, delta, at, vectors, vector_at,
        shares, outputs, kernels, out,
    ):  # fmt: skip
        panel = cuda.shared.array(PANEL, float32)
        net, points = cuda.blockIdx.x, columns.shape[1]
        low, high = seed_words(seeds[net])
        for e in range(cuda.threadIdx.x, widths[0] * points, THREADS):
            h[net, e] = columns[e // points, e % points]
        cuda.syncthreads()
        forward(
            panel, low, high, stream, law, parameter, net, widths, scales, points, h, slope, delta, at, vectors, vector_at,
            rows > 0,
        )  # fmt: skip
        if rows == 0:
            _outputs_small(net, widths, scales, points, h, at, vectors, vector_at, outputs, out + net)
            return
        _backward_small(panel, low, high, stream, law, net, widths, scales, points, slope, delta, at)
        _kernel_small(net, widths, scales, points, first, rows, cols, h, delta, at, shares, kernels, out + net)

    return evaluate_small
