"""Formulas of one layer: from pre-activation sums to activations, and from Gram matrices to the kernel.

First the formulas, of one neuron and point or of one pair of points: the CPU's loops, below, and the GPU's call them. Arrays of
activations and sensitivities have a row per neuron and a column per point.
"""

import numpy as np

from ntksim.engine.compiled.jit import jit_inline, jit_inner
from ntksim.engine.formulas.blocks import activate


@jit_inline
def pre_activation(weight, bias, product, b):
    """z = g W h + beta b."""
    return weight * product + bias * b


@jit_inline
def readout_term(weight, a, h):
    """g a h, a neuron's share of an output, in float64."""
    return np.float64(weight) * np.float64(a) * np.float64(h)


@jit_inline
def sensitivity(weight, back, slope):
    """delta = g (W' delta) phi'(z), of the layer below W; with the readout a in place of W' delta in the last hidden layer."""
    return weight * back * slope


@jit_inline
def pulled(weight, v, delta):
    """-g v delta: with h, what a weight moves by in theta <- theta - J' v."""
    return -weight * v * delta


@jit_inline
def residual(output, target):
    """r = f - y."""
    return output - target


@jit_inline
def descended(parameter, factor, change):
    """theta - c v: what pull-backs do to biases and readouts, and momentum to all parameters."""
    return parameter - factor * change


@jit_inline
def begin_step(theta, velocity, at, decay, step):
    """What a `machine.Step` does to a parameter before its gradient is subtracted from it, or from w where there is momentum."""
    kind, old = theta.dtype.type, theta[at]
    if step.momentum == 0:
        theta[at] = descended(old, kind(decay), old)
        return
    theta[at] = descended(old, kind(step.before), velocity[at])
    velocity[at] = descended(kind(step.momentum) * velocity[at], kind(decay), old)


@jit_inline
def end_step(theta, velocity, at, step):
    """What it does afterwards, where there is momentum."""
    theta[at] = descended(theta[at], -theta.dtype.type(step.after), velocity[at])


@jit_inline
def features_kernel(weight, bias, features):
    """g^2 H H' + beta^2: kernel of a layer's parameters but for the sensitivities that it is multiplied with."""
    return weight * weight * features + bias * bias


@jit_inner
def _dot(v, row):
    """v.row, over the points that v has: rows are padded. In eight sums, each of which waits for its own additions only."""
    zero = v.dtype.type(0)
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    whole = v.size // 8 * 8
    for i in range(0, whole, 8):
        a += v[i] * row[i]
        b += v[i + 1] * row[i + 1]
        c += v[i + 2] * row[i + 2]
        d += v[i + 3] * row[i + 3]
        e += v[i + 4] * row[i + 4]
        f += v[i + 5] * row[i + 5]
        g += v[i + 6] * row[i + 6]
        h += v[i + 7] * row[i + 7]
    for i in range(whole, v.size):
        a += v[i] * row[i]
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@jit_inner
def finish_layer(phi, weight, bias, b, z, derivative):
    """z <- phi(g z + beta b) and derivative <- phi'(...), in place; z holds W h (m, n), b the stored biases (m,)."""
    kind = z.dtype.type
    for r in range(z.shape[0]):
        row = z[r]
        for i in range(row.size):
            row[i] = pre_activation(kind(weight), kind(bias), row[i], b[r])
    activate(phi, z.reshape(z.size), derivative.reshape(z.size))


@jit_inner
def add_readout(weight, a, h, total):
    """total (n,) += g a'h in float64, for some neurons' activations h (m, n) and readout weights a (m,)."""
    for r in range(a.size):
        row = h[r]
        for i in range(row.size):
            total[i] += readout_term(weight, a[r], row[i])


@jit_inner
def readout_sensitivity(weight, a, derivative, delta):
    """delta^L = g a phi'(z^L) of one neuron, (n,)."""
    for i in range(delta.size):
        delta[i] = sensitivity(delta.dtype.type(weight), a, derivative[i])


@jit_inner
def finish_sensitivity(weight, derivative, delta):
    """delta^l <- (g W^(l+1)' delta^(l+1)) phi'(z^l), in place, flat; delta holds the product with W."""
    factor = delta.dtype.type(weight)
    for i in range(delta.size):
        delta[i] = sensitivity(factor, delta[i], derivative[i])


@jit_inner
def add_readout_pull(weight, v, h, a):
    """a <- a - g h v: the readout's part of theta <- theta - J' v, for points' values v (n,) and activations h (m, n)."""
    for r in range(a.size):
        a[r] = descended(a[r], a.dtype.type(weight), _dot(v, h[r]))


@jit_inner
def weigh_sensitivity(weight, v, delta, weighted):
    """weighted <- weighted - g v o delta of one neuron, (n,), whose product with h' is what its weights move by."""
    for i in range(v.size):
        weighted[i] += pulled(delta.dtype.type(weight), v[i], delta[i])


@jit_inner
def add_bias_pull(bias, v, delta, b, at):
    """b <- b - beta v.delta, for the bias of one neuron, which stands at ``at``."""
    b[at] = descended(b[at], delta.dtype.type(bias), _dot(v, delta))


@jit_inner
def add_readout_kernel(weight, bias, features, kernel):
    """kernel += g^2 H H' + beta^2, flat: the readout's share, from the Gram matrix of the last layer's activations."""
    for j in range(kernel.size):
        kernel[j] += features_kernel(weight, bias, features[j])


@jit_inner
def add_layer_kernel(weight, bias, sensitivities, features, kernel):
    """kernel += (delta delta') o (g^2 H H' + beta^2), flat: the share of a layer's weights and biases."""
    for j in range(kernel.size):
        kernel[j] += sensitivities[j] * features_kernel(weight, bias, features[j])
