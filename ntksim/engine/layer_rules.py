"""Formulas of one layer: from pre-activation sums to activations, and from Gram matrices to the kernel."""

import numpy as np

from ntksim.engine.activations import activate
from ntksim.engine.jit import jit


@jit
def finish_layer(code, weight, bias, b, z, derivative):
    """z <- phi(g z + beta b) and derivative <- phi'(...), in place; z holds h W' (n, m), b the stored biases (m,)."""
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] = weight * z[i, j] + bias * b[j]
    activate(code, z, derivative)


@jit
def readout_output(weight, bias, a, c, h):
    """g a.h + beta c of one point, summed in float64."""
    total = 0.0
    for j in range(a.size):
        total += np.float64(a[j]) * np.float64(h[j])
    return weight * total + bias * c


@jit
def readout_sensitivity(weight, a, derivative, delta):
    """delta^L = g a phi'(z^L), (n, m)."""
    for i in range(delta.shape[0]):
        for j in range(delta.shape[1]):
            delta[i, j] = weight * a[j] * derivative[i, j]


@jit
def finish_sensitivity(weight, derivative, delta):
    """delta^l <- (g delta^(l+1) W^(l+1)) phi'(z^l), in place; delta holds the product with W."""
    for i in range(delta.shape[0]):
        for j in range(delta.shape[1]):
            delta[i, j] = weight * delta[i, j] * derivative[i, j]


@jit
def add_readout_kernel(weight, bias, features, kernel):
    """kernel += g^2 H H' + beta^2: the readout's share, from the Gram matrix of the last layer's activations."""
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            kernel[i, j] += weight * weight * features[i, j] + bias * bias


@jit
def add_layer_kernel(weight, bias, sensitivities, features, kernel):
    """kernel += (delta delta') o (g^2 H H' + beta^2): the share of a layer's weights and biases."""
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            kernel[i, j] += sensitivities[i, j] * (weight * weight * features[i, j] + bias * bias)
