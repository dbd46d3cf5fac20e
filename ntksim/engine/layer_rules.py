"""Formulas of one layer: from pre-activation sums to activations, and from Gram matrices to the kernel.

Arrays of activations and sensitivities have a row per neuron and a column per point.
"""

import numpy as np

from ntksim.engine.activations import activate
from ntksim.engine.jit import jit_inner


@jit_inner
def _dot(v, row):
    """v.row, over the points that v has: rows are padded."""
    total = v.dtype.type(0)
    for i in range(v.size):
        total += v[i] * row[i]
    return total


@jit_inner
def finish_layer(code, weight, bias, b, z, derivative):
    """z <- phi(g z + beta b) and derivative <- phi'(...), in place; z holds W h (m, n), b the stored biases (m,)."""
    kind = z.dtype.type
    for r in range(z.shape[0]):
        row, factor, shift = z[r], kind(weight), kind(bias) * b[r]
        for i in range(row.size):
            row[i] = factor * row[i] + shift
    activate(code, z.reshape(z.size), derivative.reshape(z.size))


@jit_inner
def add_readout(weight, a, h, total):
    """total (n,) += g a'h in float64, for some neurons' activations h (m, n) and readout weights a (m,)."""
    for r in range(a.size):
        row, factor = h[r], np.float64(weight) * np.float64(a[r])
        for i in range(row.size):
            total[i] += factor * np.float64(row[i])


@jit_inner
def readout_sensitivity(weight, a, derivative, delta):
    """delta^L = g a phi'(z^L) of one neuron, (n,)."""
    factor = delta.dtype.type(weight) * a
    for i in range(delta.size):
        delta[i] = factor * derivative[i]


@jit_inner
def finish_sensitivity(weight, derivative, delta):
    """delta^l <- (g W^(l+1)' delta^(l+1)) phi'(z^l), in place, flat; delta holds the product with W."""
    factor = delta.dtype.type(weight)
    for i in range(delta.size):
        delta[i] = factor * delta[i] * derivative[i]


@jit_inner
def add_readout_pull(weight, v, h, a):
    """a <- a - g h v: the readout's part of theta <- theta - J' v, for points' values v (n,) and activations h (m, n)."""
    for r in range(a.size):
        a[r] -= a.dtype.type(weight) * _dot(v, h[r])


@jit_inner
def weigh_sensitivity(weight, v, delta, weighted):
    """weighted <- weighted - g v o delta of one neuron, (n,), whose product with h' is what its weights move by."""
    for i in range(v.size):
        weighted[i] += delta.dtype.type(-weight) * v[i] * delta[i]


@jit_inner
def bias_pull(bias, v, delta):
    """beta v.delta, by which the bias of one neuron moves."""
    return delta.dtype.type(bias) * _dot(v, delta)


@jit_inner
def add_readout_kernel(weight, bias, features, kernel):
    """kernel += g^2 H H' + beta^2, flat: the readout's share, from the Gram matrix of the last layer's activations."""
    for j in range(kernel.size):
        kernel[j] += weight * weight * features[j] + bias * bias


@jit_inner
def add_layer_kernel(weight, bias, sensitivities, features, kernel):
    """kernel += (delta delta') o (g^2 H H' + beta^2), flat: the share of a layer's weights and biases."""
    for j in range(kernel.size):
        kernel[j] += sensitivities[j] * (weight * weight * features[j] + bias * bias)
