"""Triangular factors of Gram matrices on a GPU, as in `conditional.triangular`, and copies of matrices between precisions.

Every entry takes the processor's operations in the processor's order, each rounded as there: equal Gram matrices have equal
factors to the last bit, and drop the same directions. Matrices of a network stand in a row of an array (networks, numbers).
"""

import math

from numba import cuda

from ntksim.engine.conditional.triangular import adds_no_direction, eliminated
from ntksim.engine.cuda.launch import SIMULATED, THREADS, launched, unsigned

FACTOR_THREADS = 4 if SIMULATED else 512  # of the one block that a factor has: they wait for memory, and hide it


@launched
def factorise(gram, gram_at, n, cut, r, r_at):
    """R, upper triangular, of A = R'R, both (n, n): `conditional.triangular.factorise`. Grid: networks."""
    net, threads = cuda.blockIdx.x, cuda.blockDim.x
    own, step = r[unsigned(net)], unsigned(n)
    for k in range(n):
        for j in range(cuda.threadIdx.x, n, threads):
            value = 0.0
            if j >= k:
                value = gram[net, gram_at + k * n + j]
                left, right = unsigned(r_at + k), unsigned(r_at + j)
                for _ in range(k):
                    value = eliminated(value, own[left], own[right])
                    left, right = left + step, right + step
            own[unsigned(r_at + k * n + j)] = value
        cuda.syncthreads()
        pivot = own[unsigned(r_at + k * n + k)]
        cuda.syncthreads()
        nothing = adds_no_direction(pivot, gram[net, gram_at + k * n + k], cut)
        root = math.sqrt(pivot) if pivot >= 0.0 else math.nan
        for j in range(k + cuda.threadIdx.x, n, threads):
            place = unsigned(r_at + k * n + j)
            own[place] = 0.0 if nothing else own[place] / root
        cuda.syncthreads()


@launched
def invert(r, r_at, n, inverse):
    """R^+ (n, n): `conditional.triangular.invert`; a thread has a column. Grid: (blocks, networks)."""
    net = cuda.blockIdx.y
    given, own, step = r[unsigned(net)], inverse[unsigned(net)], unsigned(n)
    for j in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, n, cuda.gridDim.x * THREADS):
        for i in range(n - 1, -1, -1):
            pivot, value = given[unsigned(r_at + i * n + i)], 1.0 if i == j else 0.0
            if i < j:
                left, right = unsigned(r_at + i * n + i + 1), unsigned((i + 1) * n + j)
                for _ in range(i + 1, n):
                    value = eliminated(value, given[left], own[right])
                    left, right = left + unsigned(1), right + step
            own[unsigned(i * n + j)] = value / pivot if i <= j and pivot != 0.0 else 0.0


@launched
def widen(values, size, out):
    """out <- the first ``size`` values, in float64. Grid: (blocks, networks)."""
    net = cuda.blockIdx.y
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, size, cuda.gridDim.x * THREADS):
        out[net, e] = values[net, e]


@launched
def narrow(factor, values, at, size, out):
    """out <- factor times ``size`` values from ``at`` on, rounded. Grid: (blocks, networks)."""
    net = cuda.blockIdx.y
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, size, cuda.gridDim.x * THREADS):
        out[net, e] = factor * values[net, at + e]


@launched
def fill_identity(out, columns, row0, rows):
    """Rows ``row0``.. of the identity, a column after another. Grid: (blocks, networks)."""
    net = cuda.blockIdx.y
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, columns * rows, cuda.gridDim.x * THREADS):
        out[net, e] = 1 if e // rows == row0 + e % rows else 0
