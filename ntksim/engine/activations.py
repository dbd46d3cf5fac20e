"""Activations: each one's value, derivative and Gaussian expectations in one place.

A dual gives E[phi(u) phi(v)] and E[phi'(u) phi'(v)] for centred Gaussian (u, v) with variances k11, k22 and covariance
k12. ReLU: Cho & Saul (2009); erf: Williams (1997). The closed forms are written with atan2 of a determinant: an arccos
or arcsin of the correlation would lose half of the digits on the diagonal. tanh has no closed form: see `quadrature`.
"""

import math

from ntksim.engine.jit import jit
from ntksim.engine.network import ACTIVATIONS

RELU, ERF, TANH, LINEAR = (ACTIVATIONS.index(name) for name in ("relu", "erf", "tanh", "linear"))

_TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)


def activation_code(name: str) -> int:
    """The integer by which compiled code knows an activation."""
    return ACTIVATIONS.index(name)


@jit
def relu(z):
    """ReLU and its derivative, which is 0 at 0."""
    return max(z, z * 0), z * 0 + (z > 0)


@jit
def erf(z):
    """The error function and its derivative."""
    return math.erf(z), _TWO_OVER_SQRT_PI * math.exp(-z * z)


@jit
def tanh(z):
    """The hyperbolic tangent and its derivative."""
    t = math.tanh(z)
    return t, 1 - t * t


@jit
def activate(code, z, derivative):
    """Replace the array ``z`` by phi(z), and fill ``derivative`` with phi'(z); one loop per activation."""
    rows, cols = z.shape
    for i in range(rows):
        if code == RELU:
            for j in range(cols):
                z[i, j], derivative[i, j] = relu(z[i, j])
        elif code == ERF:
            for j in range(cols):
                z[i, j], derivative[i, j] = erf(z[i, j])
        elif code == TANH:
            for j in range(cols):
                z[i, j], derivative[i, j] = tanh(z[i, j])
        else:
            derivative[i, :] = 1


@jit
def _root_determinant(k11, k12, k22):
    return math.sqrt(max(k11 * k22 - k12 * k12, 0.0))


@jit
def relu_dual(k11, k12, k22):
    """Arc-cosine kernels of order 1 and 0. A variance of zero means u = 0, where the derivative is 0."""
    if k11 == 0 or k22 == 0:
        return 0.0, 0.0
    root = _root_determinant(k11, k12, k22)
    angle = math.pi - math.atan2(root, k12)
    return (root + k12 * angle) / (2 * math.pi), angle / (2 * math.pi)


@jit
def erf_dual(k11, k12, k22):
    """Arc-sine kernel and that of the derivative."""
    # (1 + 2 k11)(1 + 2 k22) - 4 k12^2, without cancelling the large products
    root = math.sqrt(1 + 2 * (k11 + k22) + 4 * max(k11 * k22 - k12 * k12, 0.0))
    return 2 / math.pi * math.atan2(2 * k12, root), 4 / math.pi / root


@jit
def closed_dual(code, k11, k12, k22):
    """The two Gaussian expectations of an activation that has a closed form (all but tanh)."""
    if code == RELU:
        return relu_dual(k11, k12, k22)
    if code == ERF:
        return erf_dual(k11, k12, k22)
    return k12, 1.0


def has_closed_dual(code: int) -> bool:
    """Whether :func:`closed_dual` knows the activation."""
    return code != TANH


@jit
def value_and_derivative(code, z):
    """phi(z) and phi'(z) of a scalar."""
    if code == RELU:
        return relu(z)
    if code == ERF:
        return erf(z)
    if code == TANH:
        return tanh(z)
    return z, z * 0 + 1


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
def relu_squares_dual(k11, k12, k22):
    """E[phi(u)^2 phi(v)^2] of ReLU: half the arc-cosine kernel of order 2 (Cho & Saul 2009)."""
    root = _root_determinant(k11, k12, k22)
    angle = math.pi - math.atan2(root, k12) if k11 * k22 > 0 else 0.0
    return (3 * root * k12 + angle * (k11 * k22 + 2 * k12 * k12)) / (2 * math.pi)
