"""Kernels of training: they move parameters along a gradient, and measure how far. `kernels` says how arrays are laid out."""

import numpy as np
from numba import cuda, float32, float64

from ntksim.engine.cuda.launch import THREADS, device_function, launched
from ntksim.engine.formulas.layer import descended, pulled, residual

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
def count_sign_changes(a, b, bound, parts):
    """The number of entries of which one is above ``bound`` and the other is not, a share a block."""
    count, kind = 0.0, a.dtype.type
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, a.shape[1], cuda.gridDim.x * THREADS):
        if (a[0, e] > kind(bound)) != (b[0, e] > kind(bound)):
            count += 1.0
    count = _block_sum(count)
    if cuda.threadIdx.x == 0:
        parts[0, cuda.blockIdx.x] = count


@launched
def take_columns(values, at, out, cols, points):
    """out (rows, cols) <- the first ``cols`` of ``points`` columns of values, from ``at`` on."""
    for e in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, out.shape[1], cuda.gridDim.x * THREADS):
        out[0, e] = values[0, at + e // cols * points + e % cols]
