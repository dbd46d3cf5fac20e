"""Activations: each one's value and derivative, and what of them Gaussian expectations take; for those see `duals`."""

import math
from typing import Any

import numpy as np
from numba import types

from ntksim.engine import elementary
from ntksim.engine.jit import compiled_once, jit, jit_inline, wide_vectors
from ntksim.engine.network import ACTIVATIONS

RELU, ERF, TANH, LINEAR, LEAKY_RELU, ABS, GELU, SIN = range(len(ACTIVATIONS))
LEAK = 0.1  # slope of leaky_relu below 0

# Roots are taken here: on a GPU a compiler would leave them to every thread.
_TWO_OVER_SQRT_PI, _ROOT_HALF, _ROOT_2_PI = 2 / math.sqrt(math.pi), math.sqrt(0.5), math.sqrt(2 * math.pi)


def activation_code(name: str) -> int:
    """The integer by which compiled code knows an activation."""
    return ACTIVATIONS.index(name)


@jit_inline
def relu(z):
    """ReLU and its derivative, which is 0 at 0."""
    return max(z, z * 0), z * 0 + (z > 0)


@jit_inline
def leaky_relu(z):
    """z above 0 and LEAK z below; the derivative at 0 is LEAK."""
    slope = LEAK + (1 - LEAK) * (z > 0)
    return slope * z, slope


@jit_inline
def absolute(z):
    """The absolute value and its derivative, which is 0 at 0."""
    return abs(z), z * 0 + (z > 0) - (z < 0)


@jit_inline
def erf(z):
    """The error function and its derivative."""
    value, gaussian = elementary.erf(np.float64(z))
    return value, _TWO_OVER_SQRT_PI * gaussian


@jit_inline
def tanh(z):
    """The hyperbolic tangent and its derivative."""
    t = elementary.tanh(np.float64(z))
    return t, 1 - t * t


@jit_inline
def gelu(z):
    """z Phi(z) with Phi the normal distribution function (Hendrycks & Gimpel 2016), not its tanh approximation."""
    value, gaussian = elementary.erf(np.float64(z) * _ROOT_HALF)
    probability = 0.5 + 0.5 * value
    return z * probability, probability + z * gaussian / _ROOT_2_PI


@jit_inline
def sin(z):
    """The sine and the cosine."""
    return elementary.sin_cos(np.float64(z))


@jit
def value_and_derivative(code, z):
    """phi(z) and phi'(z) of a scalar."""
    if code == RELU:
        return relu(z)
    if code == ERF:
        return erf(z)
    if code == TANH:
        return tanh(z)
    if code == LEAKY_RELU:
        return leaky_relu(z)
    if code == ABS:
        return absolute(z)
    if code == GELU:
        return gelu(z)
    if code == SIN:
        return sin(z)
    return z, z * 0 + 1


def _each(function):
    """A vectorised loop that replaces z by the function's value and fills the derivative."""

    def loop(z, derivative):
        wide_vectors()
        for j in range(z.size):
            z[j], derivative[j] = function(z[j])

    return jit(loop)


_each_relu, _each_erf, _each_tanh, _each_leaky_relu = _each(relu), _each(erf), _each(tanh), _each(leaky_relu)
_each_absolute, _each_gelu, _each_sin = _each(absolute), _each(gelu), _each(sin)


@compiled_once(lambda real: (types.intp, real[::1], real[::1]))
def activate(code, z, derivative):
    """Replace the flat array ``z`` by phi(z), and fill ``derivative`` with phi'(z); a loop of its own, which vectorises, each."""
    if code == RELU:
        _each_relu(z, derivative)
    elif code == ERF:
        _each_erf(z, derivative)
    elif code == TANH:
        _each_tanh(z, derivative)
    elif code == LEAKY_RELU:
        _each_leaky_relu(z, derivative)
    elif code == ABS:
        _each_absolute(z, derivative)
    elif code == GELU:
        _each_gelu(z, derivative)
    elif code == SIN:
        _each_sin(z, derivative)
    else:
        derivative[:] = 1


def gated(code: int, values: Any, slopes: Any) -> Any:
    """Of phi(z) and phi'(z) the one that is above 0 where z is; None for the sine, of which neither is."""
    if code == SIN:
        return None
    return slopes if code == ABS else values


# What a pair expectation E[g(u) g(v)] integrates: the activation and its slope, or the factors of a kernel's variance.
MEANS, SQUARES, CROSS = 0, 1, 2


@jit
def pair_factors(factors, code, z):
    """Two functions g of z: phi and phi' (MEANS), their squares (SQUARES), or phi phi' twice (CROSS)."""
    value, slope = value_and_derivative(code, z)
    if factors == SQUARES:
        return value * value, slope * slope
    if factors == CROSS:
        return value * slope, value * slope
    return value, slope
