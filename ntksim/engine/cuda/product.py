"""Products of matrices on a GPU, with sums that depend on nothing but their terms.

Products go by tiles in shared memory; each thread keeps a square of sums in registers. Sums run over terms in ascending order,
fused, in pieces of ``PIECE``, as in `product`. So nothing depends on the size of tiles, on the batch, or on how a matrix is cut,
as long as it is cut between pieces.
"""

from numba import cuda, int64

from ntksim.engine.compiled.jit import multiply_add
from ntksim.engine.cpu.product import PIECE
from ntksim.engine.cuda.launch import SIMULATED, THREADS, device_function, launched, unsigned

# Rows and columns of a tile, terms that are loaded at a time, and sums of a thread, all squared powers of two: 64 sums and 16
# factors fit in a thread's registers, and tiny ones let tiny networks cross tiles in the simulator, where threads are Python's.
GPU_TILE = 64, 16, 8
TILE, DEPTH, SUMS = (4, 4, 2) if SIMULATED else GPU_TILE
LANES = TILE // SUMS
TILE_THREADS = LANES * LANES
_VECTOR = min(4, SUMS)  # consecutive sums: one load of 16 bytes
_STRIDE = TILE + 4  # of a tile's rows: a multiple of a load, and not of the number of banks
_SIZE, _ALIGNMENT = DEPTH * _STRIDE, 16  # of a tile: numbers, and bytes, which the simulator does not know


@device_function
def _place(lane, i):
    """Where in a tile a thread's i-th row or column stands: vectors of neighbours, which lanes share out in turn."""
    return lane * _VECTOR + (i & (_VECTOR - 1)) + (i // _VECTOR) * (TILE // (SUMS // _VECTOR))


@device_function
def _load(tile, source, net, shape, operand, row0, term0, terms):
    """tile[k, r] = entry (term0 + k, row0 + r), zero beyond the ends; neighbours in memory go to neighbouring threads."""
    thread, values = cuda.threadIdx.x & (TILE_THREADS - 1), source[unsigned(net)]
    at, term, row, rows = shape[operand, 0], shape[operand, 1], shape[operand, 2], shape[operand, 3]
    k, r = thread // TILE, thread & (TILE - 1)
    if term == 1:
        k, r = thread & (DEPTH - 1), thread // DEPTH
    index = unsigned(at + (term0 + k) * term + (row0 + r) * row)
    if row0 + TILE > rows or term0 + DEPTH > terms:
        k_step, r_step = (0, TILE_THREADS // DEPTH) if term == 1 else (TILE_THREADS // TILE, 0)
        step = unsigned(k_step * term + r_step * row)
        for _ in range(thread, DEPTH * TILE, TILE_THREADS):  # a number of turns that the compiler does not see, nor unroll
            value = source.dtype.type(0)
            if row0 + r < rows and term0 + k < terms:
                value = values[index]
            tile[unsigned(k * _STRIDE + r)] = value
            k, r, index = k + k_step, r + r_step, index + step
    elif term == 1:
        step = unsigned(TILE_THREADS // DEPTH * row)
        for q in range(DEPTH * TILE // TILE_THREADS):
            tile[unsigned(k * _STRIDE + r + q * (TILE_THREADS // DEPTH))] = values[index]
            index += step
    else:
        step = unsigned(TILE_THREADS // TILE * term)
        for q in range(DEPTH * TILE // TILE_THREADS):
            tile[unsigned((k + q * (TILE_THREADS // TILE)) * _STRIDE + r)] = values[index]
            index += step


@device_function
def _add_term(left, right, k, row, col, x, y, sums):
    """sums += left[k]' right[k], of the rows and columns that are this thread's; x and y are registers."""
    for i in range(SUMS):
        x[i] = left[unsigned(k * _STRIDE + _place(row, i))]
        y[i] = right[unsigned(k * _STRIDE + _place(col, i))]
    for i in range(SUMS):
        for j in range(SUMS):
            sums[i, j] = multiply_add(x[i], y[j], sums[i, j])


@device_function
def _add_tile(left, right, sums):
    """sums += left' right, of the rows and columns that are this thread's."""
    # Masks tell the compiler that no index is negative, and thus that four neighbours can be loaded at once.
    thread = cuda.threadIdx.x & (TILE_THREADS - 1)
    row, col = thread // LANES, thread & (LANES - 1)
    x, y = cuda.local.array(SUMS, sums.dtype), cuda.local.array(SUMS, sums.dtype)
    # Four terms a turn: the compiler unrolls no loop of this size, and a quarter of the instructions would be those of the loop.
    for k in range(0, DEPTH, 4):
        _add_term(left, right, k, row, col, x, y, sums)
        _add_term(left, right, k + 1, row, col, x, y, sums)
        _add_term(left, right, k + 2, row, col, x, y, sums)
        _add_term(left, right, k + 3, row, col, x, y, sums)


@device_function
def _store(sums, c, net, shape, row0, col0, first):
    """c <- sums, or c <- c + sums."""
    thread, values = cuda.threadIdx.x & (TILE_THREADS - 1), c[unsigned(net)]
    row, col = thread // LANES, thread & (LANES - 1)
    at, row_stride, rows, cols = shape[2, 0], shape[2, 1], shape[0, 3], shape[1, 3]
    for i in range(SUMS):
        r = row0 + _place(row, i)
        if r < rows:
            for j in range(SUMS):
                l = col0 + _place(col, j)  # noqa: E741
                if l < cols:
                    place = unsigned(at + r * row_stride + l)
                    values[place] = sums[i, j] if first else values[place] + sums[i, j]


@launched
def multiply(b, b_at, b_term, b_row, v, v_at, v_term, v_col, c, c_at, c_part, c_row, rows, cols, terms, part_terms, first):
    """c[a, l] <- sum_k b[k, a] v[k, l], or c <- c + that unless ``first``, of every network.

    Arrays are (networks, numbers), each with the index of its first entry and its strides. Parts of ``part_terms`` terms
    (a multiple of ``PIECE``, or less than it) go to blocks and places ``c_part`` apart of their own; terms of one part are all
    of them.
    Grid: (tiles, row by row; 1; networks times parts).
    """
    left = cuda.shared.array(_SIZE, c.dtype) if SIMULATED else cuda.shared.array(_SIZE, c.dtype, _ALIGNMENT)
    right = cuda.shared.array(_SIZE, c.dtype) if SIMULATED else cuda.shared.array(_SIZE, c.dtype, _ALIGNMENT)
    sums = cuda.local.array((SUMS, SUMS), c.dtype)
    parts = (terms + part_terms - 1) // part_terms
    net, part = cuda.blockIdx.z // parts, cuda.blockIdx.z % parts
    across = (cols + TILE - 1) // TILE
    row0, col0, end = cuda.blockIdx.x // across * TILE, cuda.blockIdx.x % across * TILE, min((part + 1) * part_terms, terms)
    # Per operand the first entry, strides and length. From registers the compiler would make all addresses before the loop, and
    # keep them in a hundred registers; what stands in memory it reads again after every barrier.
    shape = cuda.shared.array((3, 4), int64)
    if cuda.threadIdx.x == 0:
        shape[0, 0], shape[0, 1], shape[0, 2], shape[0, 3] = b_at, b_term, b_row, rows
        shape[1, 0], shape[1, 1], shape[1, 2], shape[1, 3] = v_at, v_term, v_col, cols
        shape[2, 0], shape[2, 1] = c_at + part * c_part, c_row
    cuda.syncthreads()
    for begin in range(part * part_terms, end, PIECE):
        for i in range(SUMS):
            for j in range(SUMS):
                sums[i, j] = 0
        for k in range(begin, min(begin + PIECE, end), DEPTH):
            _load(left, b, net, shape, 0, row0, k, end)
            _load(right, v, net, shape, 1, col0, k, end)
            cuda.syncthreads()
            _add_tile(left, right, sums)
            cuda.syncthreads()
        _store(sums, c, net, shape, row0, col0, first and begin == part * part_terms)


@launched
def add_pieces(pieces, count, size, c, c_at, first):
    """c <- the sum of ``count`` pieces of ``size`` numbers, or c <- c + that: what `multiply` gives in one part, bit by bit.

    Grid: (blocks, networks).
    """
    net = cuda.blockIdx.y
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, size, cuda.gridDim.x * THREADS):
        total = c.dtype.type(0) if first else c[net, c_at + e]
        for piece in range(count):
            total += pieces[net, piece * size + e]
        c[net, c_at + e] = total
