"""Training on the CPU: the pull-back of a vector of outputs to the parameters, and full-batch gradient descent.

Loss 1/2 sum_i r_i^2, so a step is theta <- theta - eta J' r. Since the output is a scalar, row i of J in layer l is the
sensitivity delta^l_i times the activations below: with both at hand, J' v is one product a layer, and a snapshot of the
kernel costs its Gram matrices and no further pass.
"""

import numpy as np
from numba import prange, types

from ntksim.engine.jit import compiled_once, jit, jit_allocating, jit_inner, jit_parallel
from ntksim.engine.kernels_cpu import (
    argument_types,
    copy_kernel,
    draw_parameters,
    evaluate,
    gram_of_points,
    share,
)
from ntksim.engine.product import multiply

_INDEX = types.intp
_ROWS = 96  # rows of a weight matrix that a thread updates at a time


@jit_allocating
def _pull_rows(net, weights, room, pairs, layer, vector, below, r0, r1):
    """W <- W - g (v o delta)' h^(l-1) and b <- b - beta v.delta of neurons r0..r1; ``below`` (n, length) is h^(l-1)'."""
    points, n, length = pairs.points, vector.size, net.lengths[layer - 1]
    theta, offsets = weights.flat, weights.offsets
    weighted = np.empty(min(_ROWS, r1 - r0) * n, theta.dtype)
    factor, bias = theta.dtype.type(-net.scales[0, layer - 1]), theta.dtype.type(net.scales[2, layer - 1])
    for begin in range(r0, r1, _ROWS):
        end = min(begin + _ROWS, r1)
        for r in range(begin, end):
            at, total = room.delta_at[layer] + r * points, vector.dtype.type(0)
            row, to = room.delta[at : at + n], weighted[(r - begin) * n : (r - begin + 1) * n]
            for i in range(n):
                to[i] = factor * vector[i] * row[i]
            for i in range(n):
                total += vector[i] * row[i]
            theta[offsets[2 * layer - 1] + r] -= bias * total
        at = offsets[2 * layer - 2] + begin * length
        multiply(weighted, 0, 1, n, below, 0, length, length, theta, at, length, end - begin, n, False)


@jit_parallel
def _pull_shared(threads, net, weights, room, pairs, layer, vector, below):
    for thread in prange(threads):
        r0, r1 = share(0, net.widths[layer], threads, thread)
        if r0 < r1:
            _pull_rows(net, weights, room, pairs, layer, vector, below, r0, r1)


@jit_inner
def _transpose(h, length, out):
    """Rows of ``length`` numbers, one for each of as many points as ``out`` has room for in all, zeros at their ends."""
    out[:] = 0
    points = min(h.shape[1], out.size // length)
    for r0 in range(0, h.shape[0], 16):
        r1 = min(r0 + 16, h.shape[0])
        for i in range(points):
            for r in range(r0, r1):
                out[i * length + r] = h[r, i]


@compiled_once(lambda real: (_INDEX, *argument_types(real)[1:], real[::1]), jit_allocating)
def pull_back(threads, net, weights, room, pairs, vector):
    """theta <- theta - J' vector, for the theta in ``weights`` and J where ``room`` has been evaluated, perhaps elsewhere."""
    last, n, points = net.widths.size - 2, vector.size, pairs.points
    theta, offsets, kind = weights.flat, weights.offsets, vector.dtype.type
    for r in range(net.widths[last]):
        at, total = room.at[last] + r * points, kind(0)
        row = room.h[at : at + n]
        for i in range(n):
            total += vector[i] * row[i]
        theta[offsets[2 * last] + r] -= kind(net.scales[0, last]) * total
    for i in range(n):
        theta[offsets[2 * last + 1]] -= kind(net.scales[2, last]) * vector[i]
    below = np.zeros(n * np.max(net.lengths[: last + 1]), theta.dtype)
    for layer in range(1, last + 1):
        length, at = net.lengths[layer - 1], room.at[layer - 1]
        _transpose(room.h[at : at + net.widths[layer - 1] * points].reshape(net.widths[layer - 1], points), length, below)
        if threads > 1:
            _pull_shared(threads, net, weights, room, pairs, layer, vector, below)
        else:
            _pull_rows(net, weights, room, pairs, layer, vector, below, 0, net.widths[layer])


@jit_inner
def _distance(a, b):
    total = 0.0
    for i in range(a.size):
        d = np.float64(a[i]) - np.float64(b[i])
        total += d * d
    return np.sqrt(total)


@jit
def relative_distance(a, b):
    """||a - b|| / ||b|| of flat arrays, in float64."""
    norm = 0.0
    for i in range(b.size):
        norm += np.float64(b[i]) * np.float64(b[i])
    return _distance(a, b) / np.sqrt(norm)


@jit
def evaluate_at(threads, seed, net, weights, room, pairs):
    """:func:`kernels_cpu.evaluate`, for Python, the Gram matrix of the points included."""
    gram_of_points(net, room, pairs)
    evaluate(threads, seed, net, weights, room, pairs)


@jit
def pull_back_at(threads, net, weights, room, pairs, vector):
    """:func:`pull_back`, for Python."""
    pull_back(threads, net, weights, room, pairs, vector)


@jit
def descend(
    threads, seed, net, weights, room, lean, pairs, tests, test_pairs, y, rate, steps,
    outputs, test_outputs, loss, kernels, kernel_drift, parameter_drift,
):  # fmt: skip
    """Train one seed; fills the rows of its snapshots, at ascending ``steps`` from 0 on.

    ``lean`` is ``room`` without a kernel, for the steps between. Returns (passes, whether it stayed finite).
    """
    draw_parameters(seed, net, weights)
    initial, first, kernel = weights.flat.copy(), np.empty((y.size, y.size)), np.empty((y.size, y.size))
    residual = np.empty(y.size, weights.flat.dtype)
    gram_of_points(net, room, pairs)
    at = 0
    for step in range(steps[-1] + 1):
        snapshot = step == steps[at]
        evaluate(threads, seed, net, weights, room if snapshot else lean, pairs)
        now = 0.0
        for i in range(y.size):
            r = lean.outputs[i] - y[i]
            now += 0.5 * r * r
            residual[i] = rate * r
        if not np.isfinite(now):
            return step + 1, False
        if snapshot:
            loss[at], parameter_drift[at] = now, relative_distance(weights.flat, initial)
            outputs[at] = room.outputs[: y.size]
            if test_outputs.shape[1] > 0:
                evaluate(threads, seed, net, weights, tests, test_pairs)
                test_outputs[at] = tests.outputs[: test_outputs.shape[1]]
            copy_kernel(room.kernel, pairs, kernel)
            if at == 0:
                first[:] = kernel
            kernel_drift[at] = relative_distance(kernel.ravel(), first.ravel())
            if kernels.shape[0] > 0:
                kernels[at] = kernel
            at += 1
        if step < steps[-1]:
            pull_back(threads, net, weights, lean, pairs, residual)
    return steps[-1] + 1, True
