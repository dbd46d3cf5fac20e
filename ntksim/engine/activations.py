"""Activations: each one's value, derivative and Gaussian expectations in one place.

A dual gives E[phi(u) phi(v)] and E[phi'(u) phi'(v)] for centred Gaussian (u, v) with variances k11, k22 and covariance
k12. ReLU: Cho & Saul (2009), and from it leaky ReLU and the absolute value; erf: Williams (1997). The closed forms are
written with atan2 of a determinant: an arccos or arcsin of the correlation would lose half of the digits on the diagonal.
tanh has no closed form: see `quadrature`.
"""

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


@jit
def _root_determinant(k11, k12, k22):
    """sqrt(k11 k22 - k12^2), and 0 within rounding of parallel: there the root would turn an error of 1e-16 into 1e-8."""
    determinant = k11 * k22 - k12 * k12
    return math.sqrt(determinant) if determinant > 4e-15 * k11 * k22 else 0.0


@jit
def relu_dual(k11, k12, k22):
    """Arc-cosine kernels of order 1 and 0. A variance of zero means u = 0, where the derivative is 0."""
    if k11 == 0 or k22 == 0:
        return 0.0, 0.0
    root = _root_determinant(k11, k12, k22)
    angle = math.pi - math.atan2(root, k12)
    return (root + k12 * angle) / (2 * math.pi), angle / (2 * math.pi)


@jit
def piecewise_dual(below, at_zero, k11, k12, k22):
    """Of u -> u above 0 and ``below`` u below, whose derivative at 0 is ``at_zero``: p u + q |u|, from ReLU's dual."""
    p, q = 0.5 * (1 + below), 0.5 * (1 - below)
    if k11 == 0 or k22 == 0:
        return 0.0, (at_zero if k11 == 0 else p) * (at_zero if k22 == 0 else p)
    value, slope = relu_dual(k11, k12, k22)
    return p * p * k12 + q * q * (4 * value - k12), p * p + q * q * (4 * slope - 1)


@jit
def erf_dual(k11, k12, k22):
    """Arc-sine kernel and that of the derivative."""
    # (1 + 2 k11)(1 + 2 k22) - 4 k12^2, without cancelling the large products
    root = math.sqrt(1 + 2 * (k11 + k22) + 4 * max(k11 * k22 - k12 * k12, 0.0))
    return 2 / math.pi * math.atan2(2 * k12, root), 4 / math.pi / root


@jit
def gelu_dual(k11, k12, k22):
    """By Gaussian integration by parts, with Delta = (1 + k11)(1 + k22) - k12^2 (Tsuchida et al. 2020)."""
    product, both = k11 * k22, (1 + k11) * (1 + k22)
    delta = 1 + k11 + k22 + max(product - k12 * k12, 0.0)
    root = math.sqrt(delta)
    angle = 0.25 + math.atan2(k12, root) / (2 * math.pi)
    value = k12 * angle + (k12 * k12 + product * delta) / (both * root) / (2 * math.pi)
    return value, angle + k12 / root * (1 / delta + (1 - product) / both + 1) / (2 * math.pi)


@jit
def sin_dual(k11, k12, k22):
    """e^(-(k11 + k22)/2) sinh k12 and cosh k12: the smaller exponential is at most the larger, which is at most 1."""
    size = abs(k12)
    larger = 0.5 * math.exp(size - 0.5 * (k11 + k22))
    ratio = math.expm1(-2 * size)
    return math.copysign(-larger * ratio, k12), larger * (2 + ratio)


@jit
def closed_dual(code, k11, k12, k22):
    """The two Gaussian expectations of an activation that has a closed form (all but tanh)."""
    if code == RELU:
        return relu_dual(k11, k12, k22)
    if code == ERF:
        return erf_dual(k11, k12, k22)
    if code == LEAKY_RELU:
        return piecewise_dual(LEAK, LEAK, k11, k12, k22)
    if code == ABS:
        return piecewise_dual(-1.0, 0.0, k11, k12, k22)
    if code == GELU:
        return gelu_dual(k11, k12, k22)
    if code == SIN:
        return sin_dual(k11, k12, k22)
    return k12, 1.0


def has_closed_dual(code: int) -> bool:
    """Whether :func:`closed_dual` knows the activation."""
    return code != TANH


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


@jit
def piecewise_fourth_moments(below, at_zero, k11, k12, k22):
    """E[phi^2 phi^2], E[phi phi' phi phi'] and E[phi'^2 phi'^2] of u above 0 and ``below`` u below."""
    square = below * below
    cross, slopes = piecewise_dual(square, at_zero * at_zero, k11, k12, k22)
    same, opposite = _positive_squares(k11, k12, k22), _positive_squares(k11, -k12, k22)
    return (1 + square * square) * same + 2 * square * opposite, cross, slopes


@jit
def _positive_squares(k11, k12, k22):
    """E[u^2 v^2] over u, v > 0: half the arc-cosine kernel of order 2 (Cho & Saul 2009)."""
    root = _root_determinant(k11, k12, k22)
    angle = math.pi - math.atan2(root, k12) if k11 * k22 > 0 else 0.0
    return (3 * root * k12 + angle * (k11 * k22 + 2 * k12 * k12)) / (2 * math.pi)
