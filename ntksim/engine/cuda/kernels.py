"""Kernels of layers and draws: launches' indices and guards around the CPU's own scalar formulas.

Arrays of networks have a row per network of a batch, `blockIdx.y` or `.z`; all else is laid out as on the CPU (`layout`), but for
sensitivities of k outputs: a neuron's row has the first output's for all points, then the second's, and so on. So has a row of
a kernel of all pairs of outputs, of which there is one for every output and point.

What blocks share is added in the order of blocks: nothing depends on the batch, and no atomic operation is needed.

Draws have the CPU's bits: no product in them is added to anything, but by a written fma, so that there is nothing for a
compiler to contract (a test looks into the PTX).
"""

from functools import cache

import numpy as np
from numba import cuda

from ntksim.engine.cpu.product import PIECE
from ntksim.engine.cuda.launch import SIMULATED, THREADS, launched, unsigned
from ntksim.engine.formulas.blocks import block_of
from ntksim.engine.formulas.layer import features_kernel, pre_activation, readout_term, sensitivity
from ntksim.engine.formulas.normals import ROWS_PER_BLOCK, scaled_weights, seed_words

GRAM_TERMS = PIECE // 2  # neurons that a block sums over: of few points there are no other blocks
READOUT_TERMS = 4 if SIMULATED else 128  # neurons that a thread sums over, one after the other

_f32 = np.float32


# --- parameters -------------------------------------------------------------------------------------------------------


@launched
def draw_matrix(seeds, stream, code, law, scale, row0, rows, col0, cols, length, out, at):
    """Rows row0 (a multiple of four) to row0 + rows of a matrix, from column col0 on, zeros after ``cols`` columns.

    They become rows of ``length`` numbers. Grid: (blocks of columns, blocks of rows, networks).
    """
    net, col = cuda.blockIdx.z, cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if col >= length:
        return
    values, beyond = out[unsigned(net)], col0 + col >= cols
    low, high = seed_words(seeds[net])
    for r in range(cuda.blockIdx.y * ROWS_PER_BLOCK, rows, cuda.gridDim.y * ROWS_PER_BLOCK):
        drawn = scaled_weights(low, stream, code, high, law, (row0 + r) // ROWS_PER_BLOCK, col0 + col, scale)
        place = unsigned(at + r * length + col)
        for i in range(ROWS_PER_BLOCK):
            if r + i < rows:
                values[place] = out.dtype.type(0) if beyond else drawn[i]
            place += unsigned(length)


@launched
def draw_vector(seeds, stream, code, law, scale, index, first, size, out, at):
    """Entries ``first`` (a multiple of four).. of vector number ``index`` of parameters; zero where the scale is.

    Entry r stands in row r mod 4 and column r div 4 of the vector's own. Grid: (blocks, networks).
    """
    net = cuda.blockIdx.y
    low, high = seed_words(seeds[net])
    columns = (size + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK
    for col in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, columns, cuda.gridDim.x * THREADS):
        drawn = scaled_weights(low, stream, code, high, law, index, first // ROWS_PER_BLOCK + col, scale)
        for i in range(ROWS_PER_BLOCK):
            if ROWS_PER_BLOCK * col + i < size:
                out[net, at + ROWS_PER_BLOCK * col + i] = drawn[i] if scale != 0 else _f32(0)


# --- layers -----------------------------------------------------------------------------------------------------------


# Grid: (blocks, networks). A thread has elements of a (rows, points) array, blockDim.x gridDim.x apart.


@launched
def put_points(columns, chosen, h, points):
    """h^0: the ``chosen`` points, or all if there are none, of ``columns`` (d, n); the others keep what they hold."""
    net, count = cuda.blockIdx.y, chosen.size
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, columns.shape[0] * points, cuda.gridDim.x * THREADS):
        d, i = e // points, e % points
        if count == 0:
            h[net, e] = columns[d, i]
        elif i < count:
            h[net, e] = columns[d, chosen[i]]


@cache
def finish_layer(code):
    """The kernel h <- phi(g h + beta b) and slope <- phi'(...), where h holds W h, of an activation."""
    value_and_slope = block_of(code).value_and_slope

    @launched
    def finish_layer(parameter, weight, bias, b, b_at, h, slope, at, rows, points):
        net, kind = cuda.blockIdx.y, h.dtype.type
        for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, rows * points, cuda.gridDim.x * THREADS):
            z = pre_activation(kind(weight), kind(bias), h[net, at + e], b[net, b_at + e // points])
            h[net, at + e], slope[net, at + e] = value_and_slope(kind(z), parameter)

    return finish_layer


@launched
def readout_sensitivity(weight, a, a_at, a_row, slope, at, delta, delta_at, rows, points, columns):
    """delta^L = g a phi'(z^L), of ``columns`` = k points; the readouts' rows are ``a_row`` apart."""
    net, kind = cuda.blockIdx.y, delta.dtype.type
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, rows * columns, cuda.gridDim.x * THREADS):
        r, column = e // columns, e % columns
        back = a[net, a_at + column // points * a_row + r]
        delta[net, delta_at + e] = sensitivity(kind(weight), back, slope[net, at + r * points + column % points])


@launched
def finish_sensitivity(weight, slope, at, delta, delta_at, rows, points, columns):
    """delta <- g delta phi'(z), where delta holds the product with the weights above."""
    net, kind = cuda.blockIdx.y, delta.dtype.type
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, rows * columns, cuda.gridDim.x * THREADS):
        place = at + (e // columns) * points + (e % columns) % points
        delta[net, delta_at + e] = sensitivity(kind(weight), delta[net, delta_at + e], slope[net, place])


@launched
def readout_parts(weight, bias, a, a_at, a_row, c_at, h, at, rows, points, columns, parts):
    """Shares of the outputs of ``READOUT_TERMS`` neurons each, float64, the biases in the first. Grid: (parts, networks)."""
    net, part = cuda.blockIdx.y, cuda.blockIdx.x
    for column in range(cuda.threadIdx.x, columns, THREADS):
        output, p = column // points, column % points
        total = np.float64(bias) * np.float64(a[net, c_at + output]) if part == 0 else 0.0
        for r in range(part * READOUT_TERMS, min((part + 1) * READOUT_TERMS, rows)):
            total += readout_term(weight, a[net, a_at + output * a_row + r], h[net, at + r * points + p])
        parts[net, part * columns + column] = total


@launched
def add_parts(parts, count, size, total, at, fresh):
    """total += ``count`` parts of ``size`` numbers, in their order, in float64; if ``fresh`` total <- their sum."""
    net = cuda.blockIdx.y
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, size, cuda.gridDim.x * THREADS):
        sums = 0.0 if fresh else total[net, at + e]
        for part in range(count):
            sums += parts[net, part * size + e]
        total[net, at + e] = sums


@launched
def add_kernel(weight, bias, sensitivities, features, at, readout, total, to, fresh, rows, across, wide, size):
    """total += (delta delta') o (g^2 H H' + beta^2), of the readout without sensitivities, or if ``fresh`` total <- that.

    ``features`` (rows, across) are the same for all outputs; ``total`` has ``rows`` rows of ``wide`` numbers for every output,
    those that it has with itself (``wide`` is ``across``), or with every output in turn.
    """
    net = cuda.blockIdx.y
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, size, cuda.gridDim.x * THREADS):
        row, column = e // wide, e % wide
        share = features_kernel(weight, bias, features[net, at + row % rows * across + column % across])
        if readout:
            share = share if wide == across or row // rows == column // across else 0.0
        else:
            share *= sensitivities[net, e]
        total[net, to + e] = share if fresh else total[net, to + e] + share


@launched
def copy_outputs(total, out, first, points, outputs):
    """Rows ``first``.. of ``out``, n times k numbers each, <- outputs (k, points), rounded."""
    net, size = cuda.blockIdx.y, out.shape[1]
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, size, cuda.gridDim.x * THREADS):
        out[first + net, e] = total[net, e % outputs * points + e // outputs]


@launched
def copy_kernel(total, at, out, first, rows, cols, across, outputs, joint, symmetric):
    """Rows ``first``.. of ``out`` <- the kernel that `add_kernel` makes, rounded; the lower half from the upper one if symmetric.

    ``out`` has a row for every point's every output and a column likewise where ``joint``, else a block for every output.
    """
    net, size = cuda.blockIdx.y, out.shape[1]
    wide = outputs * across if joint else across
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, size, cuda.gridDim.x * THREADS):
        if joint:
            row, column = e // (cols * outputs), e % (cols * outputs)
            a, i, b, j = row % outputs, row // outputs, column % outputs, column // outputs
        else:
            a, i, j = e // (rows * cols), e // cols % rows, e % cols
            b = a
        if symmetric and (b < a or (b == a and j < i)):
            a, i, b, j = b, j, a, i
        out[first + net, e] = total[net, at + (a * rows + i) * wide + j + (b * across if joint else 0)]
