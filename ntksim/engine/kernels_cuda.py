"""Kernels of `numba.cuda`: launches' indices and guards around the CPU's own scalar formulas.

Arrays of networks have a row per network of a batch, `blockIdx.z` or a part of it in products; all else is laid out as on the CPU
(`layout`). Products go by tiles in shared memory; each thread keeps a square of sums in registers. The tiles of a product with
weights that are not stored are drawn rather than loaded, one block of the generator a thread and turn: no weight matrix is
ever written to memory.

Sums run over terms in ascending order, fused, in pieces of ``PIECE``, whatever the size of tiles, as in `product`; what blocks
share is added by one thread in their order. So nothing depends on the batch, and no atomic operation is needed.

Draws have the CPU's bits: no product in them is added to anything, but by a written fma, so that there is nothing for a
compiler to contract (a test looks into the PTX).
"""

import numpy as np
from numba import config, cuda, float32

from ntksim.engine.activations import value_and_derivative
from ntksim.engine.counter_rng import ROWS_PER_BLOCK, scaled_normals, seed_words, weight_code
from ntksim.engine.jit import multiply_add
from ntksim.engine.layer_rules import features_kernel, pre_activation, pulled, readout_term, sensitivity
from ntksim.engine.product import PIECE

SIMULATED = bool(config.ENABLE_CUDASIM)
# Rows and points of a tile, terms that are loaded at a time, and sums of a thread, all squared powers of two: 64 sums and 16
# factors fit in a thread's registers, and tiny ones let tiny networks cross tiles in the simulator, where threads are Python's.
TILE, DEPTH, SUMS = (8, 8, 2) if SIMULATED else (64, 16, 8)
LANES = TILE // SUMS
TILE_THREADS = LANES * LANES
_VECTOR = min(4, SUMS)  # consecutive sums: one load of 16 bytes
_STRIDE = TILE + 4  # of a tile's rows: a multiple of a load, and not of the number of banks
_SHAPE, _ALIGNMENT = (DEPTH, _STRIDE), 16  # of tiles; bytes, which the simulator does not know
THREADS = 16 if SIMULATED else 128
PANEL = 512 if SIMULATED else 8192  # float32 numbers of shared memory for the weights of a small network
GRAM_TERMS = 2 * PIECE  # neurons that a block sums over

_device = cuda.jit(device=True) if SIMULATED else cuda.jit(device=True, forceinline=True)
# An index of this type is not looked at for being negative, which would mean counting from the end.
_f32, _unsigned = np.float32, np.uint64


# --- products ---------------------------------------------------------------------------------------------------------


@_device
def _place(lane, i):
    """Where in a tile a thread's i-th row or column stands: vectors of neighbours, which lanes share out in turn."""
    return lane * _VECTOR + (i & (_VECTOR - 1)) + (i // _VECTOR) * (TILE // (SUMS // _VECTOR))


@_device
def _load(tile, source, net, at, term, row, row0, rows, term0, terms):
    """tile[k, r] = entry (term0 + k, row0 + r), zero beyond the ends; neighbours in memory go to neighbouring threads."""
    thread = cuda.threadIdx.x & (TILE_THREADS - 1)
    k, r, k_step, r_step = thread // TILE, thread % TILE, TILE_THREADS // TILE, 0
    if term == 1:
        k, r, k_step, r_step = thread % DEPTH, thread // DEPTH, 0, TILE_THREADS // DEPTH
    index, step = at + (term0 + k) * term + (row0 + r) * row, k_step * term + r_step * row
    for _ in range(DEPTH * TILE // TILE_THREADS):
        value = source.dtype.type(0)
        if row0 + r < rows and term0 + k < terms:
            value = source[_unsigned(net), _unsigned(index)]
        tile[_unsigned(k), _unsigned(r)] = value
        k, r, index = k + k_step, r + r_step, index + step


@_device
def _draw_rows(tile, low, stream, code, high, scale, row0, term0):
    """tile[k, r] = W[row0 + r, term0 + k]; beyond the ends, whatever the generator has there."""
    thread = cuda.threadIdx.x & (TILE_THREADS - 1)
    for q in range(DEPTH * TILE // ROWS_PER_BLOCK // TILE_THREADS):
        e = q * TILE_THREADS + thread
        k, block = e // (TILE // ROWS_PER_BLOCK), e % (TILE // ROWS_PER_BLOCK)
        drawn = scaled_normals(low, stream, code, high, row0 // ROWS_PER_BLOCK + block, term0 + k, scale)
        for i in range(ROWS_PER_BLOCK):
            tile[k, ROWS_PER_BLOCK * block + i] = drawn[i]


@_device
def _draw_columns(tile, low, stream, code, high, scale, row0, term0):
    """tile[k, r] = W[term0 + k, row0 + r]."""
    thread = cuda.threadIdx.x & (TILE_THREADS - 1)
    for q in range(DEPTH * TILE // ROWS_PER_BLOCK // TILE_THREADS):
        e = q * TILE_THREADS + thread
        block, r = e // TILE, e % TILE
        drawn = scaled_normals(low, stream, code, high, term0 // ROWS_PER_BLOCK + block, row0 + r, scale)
        for i in range(ROWS_PER_BLOCK):
            tile[ROWS_PER_BLOCK * block + i, r] = drawn[i]


@_device
def _clear(sums):
    for i in range(SUMS):
        for j in range(SUMS):
            sums[i, j] = 0


@_device
def _add_tile(left, right, sums):
    """sums += left' right, of the rows and columns that are this thread's."""
    # Masks tell the compiler that no index is negative, and thus that four neighbours can be loaded at once.
    thread = cuda.threadIdx.x & (TILE_THREADS - 1)
    row, col = thread // LANES, thread % LANES
    x, y = cuda.local.array(SUMS, sums.dtype), cuda.local.array(SUMS, sums.dtype)
    for k in range(DEPTH):
        for i in range(SUMS):
            x[i] = left[k, _place(row, i)]
            y[i] = right[k, _place(col, i)]
        for i in range(SUMS):
            for j in range(SUMS):
                sums[i, j] = multiply_add(x[i], y[j], sums[i, j])


@_device
def _store(sums, c, net, at, row_stride, row0, rows, col0, cols, first):
    """c <- sums, or c <- c + sums."""
    thread = cuda.threadIdx.x & (TILE_THREADS - 1)
    row, col = thread // LANES, thread % LANES
    for i in range(SUMS):
        for j in range(SUMS):
            r, l = row0 + _place(row, i), col0 + _place(col, j)  # noqa: E741
            if r < rows and l < cols:
                place = _unsigned(net), _unsigned(at + r * row_stride + l)
                c[place] = sums[i, j] if first else c[place] + sums[i, j]


@cuda.jit
def multiply(b, b_at, b_term, b_row, v, v_at, v_term, v_col, c, c_at, c_part, c_row, rows, cols, terms, part_terms, first):
    """c[a, l] <- sum_k b[k, a] v[k, l], or c <- c + that unless ``first``, of every network.

    Arrays are (networks, numbers), each with the index of its first entry and its strides. Parts of ``part_terms`` terms
    (a multiple of ``PIECE``) go to blocks and places ``c_part`` apart of their own; terms of one part are all of them.
    Grid: (tiles of rows, tiles of columns, networks times parts).
    """
    left = cuda.shared.array(_SHAPE, c.dtype) if SIMULATED else cuda.shared.array(_SHAPE, c.dtype, _ALIGNMENT)
    right = cuda.shared.array(_SHAPE, c.dtype) if SIMULATED else cuda.shared.array(_SHAPE, c.dtype, _ALIGNMENT)
    sums = cuda.local.array((SUMS, SUMS), c.dtype)
    parts = (terms + part_terms - 1) // part_terms
    net, part = cuda.blockIdx.z // parts, cuda.blockIdx.z % parts
    row0, col0, end = cuda.blockIdx.x * TILE, cuda.blockIdx.y * TILE, min((part + 1) * part_terms, terms)
    for begin in range(part * part_terms, end, PIECE):
        _clear(sums)
        for k in range(begin, min(begin + PIECE, end), DEPTH):
            _load(left, b, net, b_at, b_term, b_row, row0, rows, k, end)
            _load(right, v, net, v_at, v_term, v_col, col0, cols, k, end)
            cuda.syncthreads()
            _add_tile(left, right, sums)
            cuda.syncthreads()
        _store(sums, c, net, c_at + part * c_part, c_row, row0, rows, col0, cols, first and begin == part * part_terms)


def _drawn_product(fill):
    """c[a, l] <- sum_k b[k, a] v[k, l] with b = W' or W of a layer, drawn by ``fill`` as it is needed.

    c and v have rows of ``points`` numbers. Grid: (tiles of rows, tiles of points, networks).
    """

    @cuda.jit
    def product(seeds, stream, code, scale, v, v_at, c, c_at, rows, points, terms):
        left = cuda.shared.array(_SHAPE, c.dtype) if SIMULATED else cuda.shared.array(_SHAPE, c.dtype, _ALIGNMENT)
        right = cuda.shared.array(_SHAPE, c.dtype) if SIMULATED else cuda.shared.array(_SHAPE, c.dtype, _ALIGNMENT)
        sums = cuda.local.array((SUMS, SUMS), c.dtype)
        net, row0, col0 = cuda.blockIdx.z, cuda.blockIdx.x * TILE, cuda.blockIdx.y * TILE
        low, high = seed_words(seeds[net])
        for begin in range(0, terms, PIECE):
            end = min(begin + PIECE, terms)
            _clear(sums)
            for k in range(begin, end, DEPTH):
                fill(left, low, stream, code, high, scale, row0, k)
                _load(right, v, net, v_at, points, 1, col0, points, k, end)
                cuda.syncthreads()
                _add_tile(left, right, sums)
                cuda.syncthreads()
            _store(sums, c, net, c_at, points, row0, rows, col0, points, begin == 0)

    return product


multiply_drawn = _drawn_product(_draw_rows)
multiply_drawn_transposed = _drawn_product(_draw_columns)


# --- parameters -------------------------------------------------------------------------------------------------------


@cuda.jit
def draw_matrix(seeds, stream, code, scale, row0, rows, cols, length, out, at):
    """Rows row0 (a multiple of four) to row0 + rows of a matrix as rows of ``length`` numbers, zeros after ``cols``.

    Grid: (blocks, networks).
    """
    net = cuda.blockIdx.y
    low, high = seed_words(seeds[net])
    blocks = (rows + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, blocks * length, cuda.gridDim.x * THREADS):
        block, col = e // length, e % length
        drawn = scaled_normals(low, stream, code, high, row0 // ROWS_PER_BLOCK + block, col, scale)
        for i in range(ROWS_PER_BLOCK):
            r = ROWS_PER_BLOCK * block + i
            if r < rows:
                out[net, at + r * length + col] = drawn[i] if col < cols else out.dtype.type(0)


@cuda.jit
def draw_vector(seeds, stream, code, scale, size, out, at):
    """A vector of parameters, entry r in row r mod 4 and column r div 4; zero where the scale is. Grid: (blocks, networks)."""
    net = cuda.blockIdx.y
    low, high = seed_words(seeds[net])
    columns = (size + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK
    for col in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, columns, cuda.gridDim.x * THREADS):
        drawn = scaled_normals(low, stream, code, high, 0, col, scale)
        for i in range(ROWS_PER_BLOCK):
            if ROWS_PER_BLOCK * col + i < size:
                out[net, at + ROWS_PER_BLOCK * col + i] = drawn[i] if scale != 0 else _f32(0)


# --- layers -----------------------------------------------------------------------------------------------------------
# Grid: (blocks, networks). A thread has elements of a (rows, points) array, blockDim.x gridDim.x apart.


@cuda.jit
def put_points(columns, chosen, h, points):
    """h^0: the ``chosen`` points, or all if there are none, of ``columns`` (d, n); the others keep what they hold."""
    net, count = cuda.blockIdx.y, chosen.size
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, columns.shape[0] * points, cuda.gridDim.x * THREADS):
        d, i = e // points, e % points
        if count == 0:
            h[net, e] = columns[d, i]
        elif i < count:
            h[net, e] = columns[d, chosen[i]]


@cuda.jit
def finish_layer(code, weight, bias, b, b_at, h, slope, at, rows, points):
    """h <- phi(g h + beta b) and slope <- phi'(...), where h holds W h."""
    net, kind = cuda.blockIdx.y, h.dtype.type
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, rows * points, cuda.gridDim.x * THREADS):
        z = pre_activation(kind(weight), kind(bias), h[net, at + e], b[net, b_at + e // points])
        h[net, at + e], slope[net, at + e] = value_and_derivative(code, kind(z))


@cuda.jit
def readout_sensitivity(weight, a, a_at, slope, delta, at, delta_at, rows, points):
    """delta^L = g a phi'(z^L)."""
    net, kind = cuda.blockIdx.y, delta.dtype.type
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, rows * points, cuda.gridDim.x * THREADS):
        delta[net, delta_at + e] = sensitivity(kind(weight), a[net, a_at + e // points], slope[net, at + e])


@cuda.jit
def finish_sensitivity(weight, slope, delta, at, delta_at, size):
    """delta <- g delta phi'(z), where delta holds the product with the weights above."""
    net, kind = cuda.blockIdx.y, delta.dtype.type
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, size, cuda.gridDim.x * THREADS):
        delta[net, delta_at + e] = sensitivity(kind(weight), delta[net, delta_at + e], slope[net, at + e])


@cuda.jit
def readout_parts(weight, a, a_at, h, at, rows, points, parts):
    """Shares of the outputs of ``GRAM_TERMS`` neurons each, float64. Grid: (parts, networks); a thread has a point."""
    net, part = cuda.blockIdx.y, cuda.blockIdx.x
    for p in range(cuda.threadIdx.x, points, THREADS):
        total = 0.0
        for r in range(part * GRAM_TERMS, min((part + 1) * GRAM_TERMS, rows)):
            total += readout_term(weight, a[net, a_at + r], h[net, at + r * points + p])
        parts[net, part * points + p] = total


@cuda.jit
def add_parts(parts, count, size, total, at, constant, c, c_at):
    """total <- the sum of ``count`` parts of ``size`` numbers, in their order, and constant times c's entry, in float64."""
    net = cuda.blockIdx.y
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, size, cuda.gridDim.x * THREADS):
        sums = 0.0
        for part in range(count):
            sums += parts[net, part * size + e]
        total[net, at + e] = sums if constant == 0 else sums + constant * np.float64(c[net, c_at])


@cuda.jit
def add_kernel(weight, bias, sensitivities, features, at, first, total, size):
    """total += (delta delta') o (g^2 H H' + beta^2); if ``first``, total <- the readout's share, without sensitivities."""
    net = cuda.blockIdx.y
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, size, cuda.gridDim.x * THREADS):
        share = features_kernel(weight, bias, features[net, at + e])
        total[net, e] = share if first else total[net, e] + sensitivities[net, e] * share


@cuda.jit
def copy_out(total, out, first, width, symmetric):
    """Rows ``first``.. of ``out`` <- total, rounded; of a symmetric kernel the lower half is the upper one."""
    net, size = cuda.blockIdx.y, out.shape[1]
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, size, cuda.gridDim.x * THREADS):
        i, j = e // width, e % width
        out[first + net, e] = total[net, j * width + i if symmetric and j < i else e]


# --- a small network in a block ---------------------------------------------------------------------------------------


@_device
def _draw_panel(panel, stride, low, stream, code, high, scale, row0, rows, cols):
    """Rows of W in shared memory, ``stride`` apart."""
    for e in range(cuda.threadIdx.x, (rows + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK * cols, THREADS):
        block, col = e // cols, e % cols
        drawn = scaled_normals(low, stream, code, high, row0 // ROWS_PER_BLOCK + block, col, scale)
        for i in range(ROWS_PER_BLOCK):
            panel[(ROWS_PER_BLOCK * block + i) * stride + col] = drawn[i]


@_device
def panel_rows(stride):
    """Rows of weights that fit in shared memory."""
    return PANEL // stride // ROWS_PER_BLOCK * ROWS_PER_BLOCK


@cuda.jit
def evaluate_small(
    seeds, stream, code, widths, scales, columns, first, rows, cols, h, slope, delta, at, vectors, vector_at, shares,
    outputs, kernels, out,
):  # fmt: skip
    """Outputs or kernels of small networks, one a block, weights in shared memory; rows ``out``.. of the results are filled.

    Kernel rows are columns ``first``.. of ``columns`` (d, points), as in `layout.Pairs`. ``vectors`` holds biases and readout,
    drawn before, at ``vector_at``; ``shares`` (networks, (L+1) rows cols) is scratch. Without a kernel ``rows`` is 0.
    """
    panel = cuda.shared.array(PANEL, float32)
    net, thread, kind = cuda.blockIdx.x, cuda.threadIdx.x, h.dtype.type
    low, high = seed_words(seeds[net])
    points, last, pairs = columns.shape[1], widths.size - 2, rows * cols
    for e in range(thread, widths[0] * points, THREADS):
        h[net, e] = columns[e // points, e % points]
    cuda.syncthreads()
    for layer in range(1, last + 1):
        terms, weight, bias = widths[layer - 1], kind(scales[0, layer - 1]), kind(scales[2, layer - 1])
        stride = terms | 1  # odd: rows start in different banks
        step, below, here = panel_rows(stride), at[layer - 1], at[layer]
        for begin in range(0, widths[layer], step):
            count = min(step, widths[layer] - begin)
            _draw_panel(panel, stride, low, stream, weight_code(layer), high, _f32(scales[1, layer - 1]), begin, count, terms)
            cuda.syncthreads()
            for e in range(thread, count * points, THREADS):
                r, p = e // points, e % points
                z = kind(0)
                for k in range(terms):
                    z = multiply_add(kind(panel[r * stride + k]), h[net, below + k * points + p], kind(z))
                z = pre_activation(weight, bias, kind(z), vectors[net, vector_at[2 * layer - 1] + begin + r])
                to = here + begin * points + e
                h[net, to], slope[net, to] = value_and_derivative(code, kind(z))
                if pairs > 0 and layer == last:
                    a = vectors[net, vector_at[2 * layer] + begin + r]
                    delta[net, to] = sensitivity(kind(scales[0, last]), a, slope[net, to])
            cuda.syncthreads()
    if pairs == 0:
        for p in range(thread, points, THREADS):
            total = 0.0
            for r in range(widths[last]):
                a = vectors[net, vector_at[2 * last] + r]
                total += readout_term(scales[0, last], a, h[net, at[last] + r * points + p])
            if p < outputs.shape[1]:
                outputs[out + net, p] = total + scales[2, last] * np.float64(vectors[net, vector_at[2 * last + 1]])
        return
    for layer in range(last, 1, -1):
        terms, weight = widths[layer - 1], kind(scales[0, layer - 1])
        stride = terms | 1
        step, below, here = panel_rows(stride), at[layer - 1], at[layer]
        for begin in range(0, widths[layer], step):
            count = min(step, widths[layer] - begin)
            _draw_panel(panel, stride, low, stream, weight_code(layer), high, _f32(scales[1, layer - 1]), begin, count, terms)
            cuda.syncthreads()
            for e in range(thread, terms * points, THREADS):
                col, p = e // points, e % points
                back = kind(0) if begin == 0 else delta[net, below + e]
                for r in range(count):
                    back = multiply_add(kind(panel[r * stride + col]), delta[net, here + (begin + r) * points + p], kind(back))
                if begin + count == widths[layer]:
                    back = sensitivity(weight, kind(back), slope[net, below + e])
                delta[net, below + e] = back
            cuda.syncthreads()
    for e in range(thread, (last + 1) * pairs, THREADS):
        layer, i, j = e // pairs, e % pairs // cols, e % cols
        features, own = 0.0, 1.0
        for r in range(widths[layer]):
            row = at[layer] + r * points
            features += np.float64(h[net, row + first + i]) * np.float64(h[net, row + j])
        if layer < last:
            own = 0.0
            for r in range(widths[layer + 1]):
                row = at[layer + 1] + r * points
                own += np.float64(delta[net, row + first + i]) * np.float64(delta[net, row + j])
        shares[net, e] = own * features_kernel(scales[0, layer], scales[2, layer], features)
    cuda.syncthreads()
    for e in range(thread, pairs, THREADS):
        total = 0.0
        for layer in range(last, -1, -1):
            total += shares[net, layer * pairs + e]
        kernels[out + net, e] = total


# --- training ---------------------------------------------------------------------------------------------------------


@cuda.jit
def residuals(outputs, y, order, step, rate, gradient, done):
    """gradient <- rate (f - y) of the points of a step; done[0] <- step, once, if they are not finite. One block."""
    bad = cuda.shared.array(1, float32)
    if cuda.threadIdx.x == 0:
        bad[0] = 0
    cuda.syncthreads()
    for i in range(cuda.threadIdx.x, gradient.size, THREADS):
        residual = outputs[0, i] - y[i if order.size == 0 else order[i]]
        gradient[i] = rate * residual
        if not residual * residual < np.inf:
            bad[0] = 1  # whoever writes it, writes the same
    cuda.syncthreads()
    if cuda.threadIdx.x == 0 and bad[0] != 0 and done[0] < 0:
        done[0] = step


@cuda.jit
def weigh_sensitivity(weight, bias, v, delta, at, weighted, rows, points, b, b_at):
    """weighted (rows, n) <- -g v o delta and b <- b - beta delta v; a thread has a row."""
    kind, size = weighted.dtype.type, v.size
    for r in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, rows, cuda.gridDim.x * THREADS):
        total = kind(0)
        for i in range(size):
            d = delta[0, at + r * points + i]
            weighted[0, r * size + i] = pulled(kind(weight), v[i], d)
            total += v[i] * d
        b[0, b_at + r] -= kind(bias) * total


@cuda.jit
def pull_readout(weight, bias, v, h, at, a, a_at, rows, points, c_at):
    """a <- a - g h v, and the output's bias; a thread has a neuron."""
    kind = a.dtype.type
    for r in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, rows, cuda.gridDim.x * THREADS):
        total = kind(0)
        for i in range(v.size):
            total += v[i] * h[0, at + r * points + i]
        a[0, a_at + r] -= kind(weight) * total
        if r == 0:
            for i in range(v.size):
                a[0, c_at] -= kind(bias) * v[i]


@cuda.jit
def add_scaled(a, factor, b, b_factor):
    """a <- a + factor b, and b <- b_factor b after it."""
    kind = a.dtype.type
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, a.shape[1], cuda.gridDim.x * THREADS):
        before = b[0, e]
        a[0, e] += kind(factor) * before
        b[0, e] = kind(b_factor) * before


@cuda.jit
def clear(a):
    """a <- 0, of every network."""
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, a.shape[1], cuda.gridDim.x * THREADS):
        a[cuda.blockIdx.y, e] = 0


@cuda.jit
def scale(a, begin, end, factor):
    """a <- a / factor, from entry ``begin`` to ``end``."""
    for e in range(begin + cuda.blockIdx.x * THREADS + cuda.threadIdx.x, end, cuda.gridDim.x * THREADS):
        a[0, e] = np.float64(a[0, e]) / np.float64(factor)  # rounded once, as on the CPU


@cuda.jit
def square_distance_parts(a, b, begin, end, parts):
    """Shares of ||a - b||^2 and ||b||^2 over entries begin..end, float64: a pair a thread."""
    thread, threads = cuda.blockIdx.x * THREADS + cuda.threadIdx.x, cuda.gridDim.x * THREADS
    distance, norm = 0.0, 0.0
    for e in range(begin + thread, end, threads):
        d = np.float64(a[0, e]) - np.float64(b[0, e])
        distance += d * d
        norm += np.float64(b[0, e]) * np.float64(b[0, e])
    parts[0, 2 * thread], parts[0, 2 * thread + 1] = distance, norm
