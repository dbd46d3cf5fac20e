"""Kernels of `numba.cuda`: launches' indices and guards around the CPU's own scalar formulas.

Arrays of networks have a row per network of a batch, `blockIdx.y` or `.z`; all else is laid out as on the CPU (`layout`), but for
sensitivities of k outputs: a neuron's row has the first output's for all points, then the second's, and so on. So has a row of
a kernel of all pairs of outputs, of which there is one for every output and point.

What blocks share is added in the order of blocks: nothing depends on the batch, and no atomic operation is needed.

Draws have the CPU's bits: no product in them is added to anything, but by a written fma, so that there is nothing for a
compiler to contract (a test looks into the PTX).
"""

import numpy as np
from numba import cuda, float32, float64

from ntksim.engine.compiled.jit import multiply_add
from ntksim.engine.cpu.product import PIECE
from ntksim.engine.cuda.launch import SIMULATED, THREADS, device_function, launched, unsigned
from ntksim.engine.formulas.activations import value_and_derivative
from ntksim.engine.formulas.layer import descended, features_kernel, pre_activation, pulled, readout_term, residual, sensitivity
from ntksim.engine.formulas.normals import ROWS_PER_BLOCK, scaled_normals, seed_words, weight_code

PANEL = 512 if SIMULATED else 8192  # float32 numbers of shared memory for the weights of a small network
GRAM_TERMS = PIECE // 2  # neurons that a block sums over: of few points there are no other blocks
READOUT_TERMS = 4 if SIMULATED else 128  # neurons that a thread sums over, one after the other

_f32 = np.float32


# --- parameters -------------------------------------------------------------------------------------------------------


@launched
def draw_matrix(seeds, stream, code, scale, row0, rows, col0, cols, length, out, at):
    """Rows row0 (a multiple of four) to row0 + rows of a matrix, from column col0 on, zeros after ``cols`` columns.

    They become rows of ``length`` numbers. Grid: (blocks of columns, blocks of rows, networks).
    """
    net, col = cuda.blockIdx.z, cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if col >= length:
        return
    values, beyond = out[unsigned(net)], col0 + col >= cols
    low, high = seed_words(seeds[net])
    for r in range(cuda.blockIdx.y * ROWS_PER_BLOCK, rows, cuda.gridDim.y * ROWS_PER_BLOCK):
        drawn = scaled_normals(low, stream, code, high, (row0 + r) // ROWS_PER_BLOCK, col0 + col, scale)
        place = unsigned(at + r * length + col)
        for i in range(ROWS_PER_BLOCK):
            if r + i < rows:
                values[place] = out.dtype.type(0) if beyond else drawn[i]
            place += unsigned(length)


@launched
def draw_vector(seeds, stream, code, scale, index, size, out, at):
    """Vector number ``index`` of parameters, entry r in row r mod 4 and column r div 4 of its own; zero where the scale is.

    Grid: (blocks, networks).
    """
    net = cuda.blockIdx.y
    low, high = seed_words(seeds[net])
    columns = (size + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK
    for col in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, columns, cuda.gridDim.x * THREADS):
        drawn = scaled_normals(low, stream, code, high, index, col, scale)
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


@launched
def finish_layer(code, weight, bias, b, b_at, h, slope, at, rows, points):
    """h <- phi(g h + beta b) and slope <- phi'(...), where h holds W h."""
    net, kind = cuda.blockIdx.y, h.dtype.type
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, rows * points, cuda.gridDim.x * THREADS):
        z = pre_activation(kind(weight), kind(bias), h[net, at + e], b[net, b_at + e // points])
        h[net, at + e], slope[net, at + e] = value_and_derivative(code, kind(z))


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
def add_parts(parts, count, size, total, at):
    """total <- the sum of ``count`` parts of ``size`` numbers, in their order, in float64."""
    net = cuda.blockIdx.y
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, size, cuda.gridDim.x * THREADS):
        sums = 0.0
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


# --- a small network in a block ---------------------------------------------------------------------------------------


@device_function
def _draw_panel(panel, stride, low, stream, code, high, scale, row0, rows, cols):
    """Rows of W in shared memory, ``stride`` apart."""
    for e in range(cuda.threadIdx.x, (rows + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK * cols, THREADS):
        block, col = e // cols, e % cols
        drawn = scaled_normals(low, stream, code, high, row0 // ROWS_PER_BLOCK + block, col, scale)
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


@device_function
def _forward_small(
    panel, low, high, stream, code, net, widths, scales, points, h, slope, delta, at, vectors, vector_at, backward
):
    """h and slope of every layer, and if ``backward`` delta^L; h^0 is there."""
    last, kind = widths.size - 2, h.dtype.type
    for layer in range(1, last + 1):
        terms, weight, bias = widths[layer - 1], kind(scales[0, layer - 1]), kind(scales[2, layer - 1])
        stride = terms | 1  # odd: rows start in different banks
        step, below, here = panel_rows(stride), at[layer - 1], at[layer]
        for begin in range(0, widths[layer], step):
            count = min(step, widths[layer] - begin)
            _draw_panel(panel, stride, low, stream, weight_code(layer), high, _f32(scales[1, layer - 1]), begin, count, terms)
            cuda.syncthreads()
            for e in range(cuda.threadIdx.x, count * points, THREADS):
                r, p = e // points, e % points
                z = _sum_of_products(panel, r * stride, 1, h, net, below + p, points, terms, kind(0))
                z = pre_activation(weight, bias, kind(z), vectors[net, vector_at[2 * layer - 1] + begin + r])
                to = here + begin * points + e
                h[net, to], slope[net, to] = value_and_derivative(code, kind(z))
                if backward and layer == last:
                    a = vectors[net, vector_at[2 * layer] + begin + r]
                    delta[net, to] = sensitivity(kind(scales[0, last]), a, slope[net, to])
            cuda.syncthreads()


@device_function
def _backward_small(panel, low, high, stream, net, widths, scales, points, slope, delta, at):
    """delta of every layer from delta^L."""
    kind = delta.dtype.type
    for layer in range(widths.size - 2, 1, -1):
        terms, weight = widths[layer - 1], kind(scales[0, layer - 1])
        stride = terms | 1
        step, below, here = panel_rows(stride), at[layer - 1], at[layer]
        for begin in range(0, widths[layer], step):
            count = min(step, widths[layer] - begin)
            if layer < widths.size - 2 or count < widths[layer]:  # else the last panel of the way forward holds them
                _draw_panel(panel, stride, low, stream, weight_code(layer), high, _f32(scales[1, layer - 1]), begin, count, terms)
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


@launched
def evaluate_small(
    seeds, stream, code, widths, scales, columns, first, rows, cols, h, slope, delta, at, vectors, vector_at, shares,
    outputs, kernels, out,
):  # fmt: skip
    """Outputs or kernels of small networks, one a block, weights in shared memory; rows ``out``.. of the results are filled.

    Kernel rows are columns ``first``.. of ``columns`` (d, points), as in `layout.Pairs`. ``vectors`` holds biases and readout,
    drawn before, at ``vector_at``; ``shares`` (networks, (L+1) rows cols) is scratch. Without a kernel ``rows`` is 0.
    """
    panel = cuda.shared.array(PANEL, float32)
    net, points = cuda.blockIdx.x, columns.shape[1]
    low, high = seed_words(seeds[net])
    for e in range(cuda.threadIdx.x, widths[0] * points, THREADS):
        h[net, e] = columns[e // points, e % points]
    cuda.syncthreads()
    _forward_small(
        panel, low, high, stream, code, net, widths, scales, points, h, slope, delta, at, vectors, vector_at, rows > 0
    )  # fmt: skip
    if rows == 0:
        _outputs_small(net, widths, scales, points, h, at, vectors, vector_at, outputs, out + net)
        return
    _backward_small(panel, low, high, stream, net, widths, scales, points, slope, delta, at)
    _kernel_small(net, widths, scales, points, first, rows, cols, h, delta, at, shares, kernels, out + net)


# --- training ---------------------------------------------------------------------------------------------------------
# Of one network. A vector of outputs' values has k rows of ``points`` numbers, of which the first ``size`` count.


@launched
def residuals(outputs, y, order, step, rate, size, points, count, gradient, done):
    """gradient (k, points) <- rate (f - y) of the points of a step; done[0] <- step, once, if they are not finite. One block.

    Targets y are (n, k), k = ``count``.
    """
    bad = cuda.shared.array(1, float32)
    if cuda.threadIdx.x == 0:
        bad[0] = 0
    cuda.syncthreads()
    for e in range(cuda.threadIdx.x, size * count, THREADS):
        a, i = e // size, e % size
        off = residual(outputs[0, a * points + i], y[(i if order.size == 0 else order[i]) * count + a])
        gradient[0, a * points + i] = rate * off
        if not off * off < np.inf:
            bad[0] = 1  # whoever writes it, writes the same
    cuda.syncthreads()
    if cuda.threadIdx.x == 0 and bad[0] != 0 and done[0] < 0:
        done[0] = step


@launched
def weigh_sensitivity(weight, bias, v, delta, at, weighted, rows, points, count, size, b, b_at):
    """weighted (rows, size) <- -g sum_a v_a o delta_a and b <- b - beta sum_a delta_a v_a, a < ``count``; a thread has a row."""
    kind, columns = weighted.dtype.type, count * points
    for r in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, rows, cuda.gridDim.x * THREADS):
        total = kind(0)
        for i in range(size):
            share = kind(0)
            for a in range(count):
                d = delta[0, at + r * columns + a * points + i]
                share += pulled(kind(weight), v[0, a * points + i], d)
                total += v[0, a * points + i] * d
            weighted[0, r * size + i] = share
        b[0, b_at + r] = descended(b[0, b_at + r], kind(bias), total)


@launched
def pull_readout(weight, bias, v, h, at, theta, a_at, a_row, rows, points, count, size, c_at):
    """a <- a - g h v, and the outputs' biases; a thread has a neuron."""
    kind = theta.dtype.type
    for r in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, rows, cuda.gridDim.x * THREADS):
        for a in range(count):
            total = kind(0)
            for i in range(size):
                total += v[0, a * points + i] * h[0, at + r * points + i]
            to = a_at + a * a_row + r
            theta[0, to] = descended(theta[0, to], kind(weight), total)
            if r == 0:
                for i in range(size):
                    theta[0, c_at + a] = descended(theta[0, c_at + a], kind(bias), v[0, a * points + i])


@launched
def subtract_scaled(a, factor, b, b_factor):
    """a <- a - factor b, and b <- b_factor b after it."""
    kind = a.dtype.type
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, a.shape[1], cuda.gridDim.x * THREADS):
        before = b[0, e]
        a[0, e] = descended(a[0, e], kind(factor), before)
        b[0, e] = kind(b_factor) * before


@launched
def fill(a, value):
    """a <- value, of every network."""
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, a.shape[1], cuda.gridDim.x * THREADS):
        a[cuda.blockIdx.y, e] = value


# --- how far training has moved ---------------------------------------------------------------------------------------


@device_function
def _block_sum(value):
    """The sum of all threads' values, for thread 0: halves are added to halves."""
    sums = cuda.shared.array(THREADS, float64)
    thread, half = cuda.threadIdx.x, THREADS // 2
    sums[thread] = value
    cuda.syncthreads()
    while half > 0:
        if thread < half:
            sums[thread] += sums[thread + half]
        cuda.syncthreads()
        half //= 2
    total = sums[0]
    cuda.syncthreads()
    return total


@launched
def square_distance_parts(a, b, begin, end, parts):
    """Shares of ||a - b||^2 and ||b||^2 over entries begin..end, float64: a pair a block."""
    distance, norm = 0.0, 0.0
    for e in range(begin + cuda.blockIdx.x * THREADS + cuda.threadIdx.x, end, cuda.gridDim.x * THREADS):
        d = np.float64(a[0, e]) - np.float64(b[0, e])
        distance += d * d
        norm += np.float64(b[0, e]) * np.float64(b[0, e])
    distance, norm = _block_sum(distance), _block_sum(norm)
    if cuda.threadIdx.x == 0:
        parts[0, 2 * cuda.blockIdx.x], parts[0, 2 * cuda.blockIdx.x + 1] = distance, norm


@launched
def count_sign_changes(a, b, parts):
    """The number of entries of which one is above 0 and the other is not, a share a block."""
    count = 0.0
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, a.shape[1], cuda.gridDim.x * THREADS):
        if (a[0, e] > 0) != (b[0, e] > 0):
            count += 1.0
    count = _block_sum(count)
    if cuda.threadIdx.x == 0:
        parts[0, cuda.blockIdx.x] = count


@launched
def take_columns(values, at, out, cols, points):
    """out (rows, cols) <- the first ``cols`` of ``points`` columns of values, from ``at`` on."""
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, out.shape[1], cuda.gridDim.x * THREADS):
        out[0, e] = values[0, at + e // cols * points + e % cols]
