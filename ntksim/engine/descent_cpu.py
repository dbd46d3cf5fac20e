"""Full-batch gradient descent on the CPU, one network per seed: loops only.

Loss 1/2 sum_i r_i^2, so a step is theta <- theta - eta sum_i r_i df(x_i)/dtheta. Since the output is a scalar, the
gradient is the sensitivity delta^l of the kernel with its rows weighted by the residuals: a snapshot of the kernel costs
its Gram matrices and no further pass.
"""

import numpy as np
from numba import prange

from ntksim.engine.blas import gemm
from ntksim.engine.jit import jit, jit_parallel
from ntksim.engine.kernels_cpu import (
    add_layer_share,
    add_readout_share,
    draw_parameters,
    forward,
    layer_starts,
    layer_view,
    parameter_offsets,
    sensitivity_below,
    top_sensitivity,
)


@jit
def _residuals(outputs, y, residual):
    """r = f - y, and the loss 1/2 sum r^2 in float64."""
    loss = 0.0
    for i in range(y.size):
        residual[i] = outputs[i] - y[i]
        loss += 0.5 * np.float64(residual[i]) * np.float64(residual[i])
    return loss


@jit
def _step_readout(rate, widths, scales, theta, h, residual):
    """a <- a - eta g sum_i r_i h^L_i, c <- c - eta beta sum_i r_i."""
    n, last = residual.size, widths.size - 1
    offsets = parameter_offsets(widths)
    top = layer_view(h, layer_starts(widths), widths, last - 1, n)
    a = theta[offsets[2 * last - 2] : offsets[2 * last - 1]]
    c = theta[offsets[2 * last - 1] :]
    for i in range(n):
        shift = rate * scales[0, last - 1] * residual[i]
        for j in range(a.size):
            a[j] -= shift * top[i, j]
        c[0] -= rate * scales[2, last - 1] * residual[i]


@jit
def _step_layer(layer, rate, widths, scales, theta, h, residual, delta):
    """W <- W - eta g (r o delta)' h^(l-1), b <- b - eta beta sum_i r_i delta_i; weights ``delta`` by r in place."""
    n, start = residual.size, 2 * layer - 2
    offsets = parameter_offsets(widths)
    weighted = delta[: n * widths[layer]].reshape(n, widths[layer])
    b = theta[offsets[start + 1] : offsets[start + 2]]
    for i in range(n):
        for j in range(b.size):
            weighted[i, j] *= residual[i]
            b[j] -= rate * scales[2, layer - 1] * weighted[i, j]
    matrix = theta[offsets[start] : offsets[start + 1]].reshape(widths[layer], widths[layer - 1])
    below = layer_view(h, layer_starts(widths), widths, layer - 1, n)
    gemm(-rate * scales[0, layer - 1], weighted, True, below, False, 1, matrix)


@jit
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
def pull_back(seed, stream, widths, scales, theta, h, derivative, delta, below, vector, out):
    """out <- out - J' vector, with J = df/dtheta at ``theta``, whose forward pass has filled ``h`` and ``derivative``."""
    top_sensitivity(seed, stream, widths, scales, theta, derivative, vector.size, delta)
    _step_readout(1.0, widths, scales, out, h, vector)
    for layer in range(widths.size - 2, 0, -1):
        if layer > 1:
            sensitivity_below(seed, stream, layer, widths, scales, theta, derivative, vector.size, delta, below)
        _step_layer(layer, 1.0, widths, scales, out, h, vector, delta)
        delta, below = below, delta


@jit
def _descend(
    seed, stream, code, widths, scales, x, y, x_test, rate, steps,
    outputs, test_outputs, loss, kernels, kernel_drift, parameter_drift,
):  # fmt: skip
    """Train one seed; fills the rows of its snapshots, at ascending ``steps``. Returns (passes, whether it stayed finite)."""
    n, room, widest = x.shape[0], np.sum(widths[:-1]), np.max(widths)
    theta = np.empty(parameter_offsets(widths)[-1], x.dtype)
    draw_parameters(seed, stream, widths, scales[1], scales[3], theta)
    initial = theta.copy()
    h, derivative = np.empty(n * room, x.dtype), np.empty(n * room, x.dtype)
    delta, below = np.empty(n * widest, x.dtype), np.empty(n * widest, x.dtype)
    h_test, derivative_test = np.empty(x_test.shape[0] * room, x.dtype), np.empty(x_test.shape[0] * room, x.dtype)
    h[: x.size] = x.ravel()
    h_test[: x_test.size] = x_test.ravel()
    f, residual = np.empty(n, x.dtype), np.empty(n, x.dtype)
    grams, first, kernel = np.empty((3, n, n), x.dtype), np.empty((n, n), x.dtype), np.empty((n, n), x.dtype)

    at = 0
    for step in range(steps[-1] + 1):
        forward(seed, stream, code, widths, scales, theta, h, derivative, f)
        now = _residuals(f, y, residual)
        if not np.isfinite(now):
            return step + 1, False
        snapshot = step == steps[at]
        last_pass = step == steps[-1]
        if snapshot:
            outputs[at] = f
            loss[at] = now
            parameter_drift[at] = relative_distance(theta, initial)
            if x_test.shape[0] > 0:
                forward(seed, stream, code, widths, scales, theta, h_test, derivative_test, test_outputs[at])
            kernel[:] = 0
            add_readout_share(widths, scales, h, n, 0, grams[0], grams[2], kernel)
        # Backward: each layer's weights are needed for the sensitivity below before they are updated.
        top_sensitivity(seed, stream, widths, scales, theta, derivative, n, delta)
        if not last_pass:
            _step_readout(rate, widths, scales, theta, h, residual)
        for layer in range(widths.size - 2, 0, -1):
            if snapshot:
                add_layer_share(layer, widths, scales, h, delta, n, 0, grams[0], grams[1], grams[2], kernel)
            if layer > 1:
                sensitivity_below(seed, stream, layer, widths, scales, theta, derivative, n, delta, below)
            if not last_pass:
                _step_layer(layer, rate, widths, scales, theta, h, residual, delta)
            delta, below = below, delta
        if snapshot:
            if at == 0:
                first[:] = kernel
            kernel_drift[at] = relative_distance(kernel.ravel(), first.ravel())
            if kernels.shape[0] > 0:
                kernels[at] = kernel
            at += 1
    return steps[-1] + 1, True


@jit_parallel
def descend_seeds(
    workers, seeds, stream, code, widths, scales, x, y, x_test, rate, steps,
    outputs, test_outputs, loss, kernels, kernel_drift, parameter_drift, evaluations, finite,
):  # fmt: skip
    """Gradient descent of every seed; arrays have a leading axis of seeds. ``steps`` ascends and starts at 0."""
    for worker in prange(workers):
        for s in range(worker, seeds.size, workers):
            passes, stayed = _descend(
                seeds[s], stream, code, widths, scales, x, y, x_test, rate, steps,
                outputs[s], test_outputs[s], loss[s], kernels[s], kernel_drift[s], parameter_drift[s],
            )  # fmt: skip
            evaluations[s] = passes
            finite[s] = stayed
