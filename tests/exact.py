"""Limits in many digits: the textbook formulas of covariances, in which digits may cancel. Shares no code with the package."""

import math

import mpmath as mp
import numpy as np


def _relu(a, b, c):
    rho = b / mp.sqrt(a * c)
    angle = mp.acos(min(max(rho, -1), 1))
    root = mp.sqrt(max(a * c - b * b, 0))
    return (root + (mp.pi - angle) * b) / (2 * mp.pi), (mp.pi - angle) / (2 * mp.pi)


def _piecewise(below):
    """phi(u) = relu(u) - below relu(-u), whose pairs are four pairs of ReLUs."""
    below = mp.mpf(below)

    def dual(a, b, c):
        (same, same_slope), (opposite, opposite_slope) = _relu(a, b, c), _relu(a, -b, c)
        return (
            (1 + below**2) * same - 2 * below * opposite,
            (1 + below**2) * same_slope + 2 * below * opposite_slope,
        )

    return dual


def _erf(a, b, c):
    both = (1 + 2 * a) * (1 + 2 * c)
    return 2 / mp.pi * mp.asin(2 * b / mp.sqrt(both)), 4 / mp.pi / mp.sqrt(both - 4 * b * b)


def _gelu(a, b, c):
    both = (1 + a) * (1 + c)
    delta = both - b * b
    angle = mp.mpf(1) / 4 + mp.asin(b / mp.sqrt(both)) / (2 * mp.pi)
    value = b * angle + (b * b + a * c * delta) / (both * mp.sqrt(delta)) / (2 * mp.pi)
    return value, angle + b / mp.sqrt(delta) * (1 / delta + (1 - a * c) / both + 1) / (2 * mp.pi)


def _sin(a, b, c):
    return mp.exp(-(a + c) / 2) * mp.sinh(b), mp.exp(-(a + c) / 2) * mp.cosh(b)


def _cos(a, b, c):
    return mp.exp(-(a + c) / 2) * mp.cosh(b), mp.exp(-(a + c) / 2) * mp.sinh(b)


def _gaussian(a, b, c):
    d = (1 + 2 * a) * (1 + 2 * c) - 4 * b * b
    return 1 / mp.sqrt(d), 4 * b / d ** mp.mpf(1.5)


def _exp(a, b, c):
    return (mp.exp((a + c) / 2 + b),) * 2


def power_moment(p, a, b, c):
    """E[u^p v^p]: k pairings of a u with a v, for all k."""
    total = mp.mpf(0)
    for k in range(p % 2, p + 1, 2):
        within = mp.factorial(p) / (mp.mpf(2) ** ((p - k) // 2) * mp.factorial((p - k) // 2))
        total += within**2 / mp.factorial(k) * b**k * (a * c) ** ((p - k) // 2)
    return total


def _monomial(p):
    return lambda a, b, c: (power_moment(p, a, b, c), p * p * power_moment(p - 1, a, b, c))


def _rectified(p):
    """By the polynomials of Cho & Saul (2009) of orders 0 to 3."""

    def moment(n, a, b, c):
        rho = min(max(b / mp.sqrt(a * c), -1), 1)
        rest, across = mp.pi - mp.acos(rho), mp.sqrt(1 - rho * rho)
        j = [
            rest,
            across + rest * rho,
            3 * across * rho + rest * (1 + 2 * rho**2),
            4 * across**3 + 15 * across * rho**2 + rest * (9 * rho + 6 * rho**3),
        ]
        return mp.sqrt(a * c) ** n * j[n] / (2 * mp.pi)

    return lambda a, b, c: (moment(p, a, b, c), p * p * moment(p - 1, a, b, c))


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_EDGES = (-12.0, -6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0, 12.0)


def _rule(more=()):
    """Nodes and weights for the normal distribution, panel by panel: to some 1e-15."""
    edges = sorted({*_EDGES, *more})
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            x = (low + high + (high - low) * node) / 2
            yield mp.mpf(x), mp.mpf((high - low) / 2 * weight * math.exp(-x * x / 2) / math.sqrt(2 * math.pi))


def expectation(f, a, b, c, kinked):
    """E[f(u) f(v)] by nested quadrature, cut where an argument is 0 if f is ``kinked`` there."""
    along, rest = b / mp.sqrt(a), mp.sqrt(max(c - b * b / a, 0))

    def inner(x):
        if rest == 0:
            return f(along * x)
        kink = float(-along * x / rest)
        return mp.fsum(w * f(along * x + rest * t) for t, w in _rule([kink] if kinked and abs(kink) < 12 else []))

    return mp.fsum(w * f(mp.sqrt(a) * x) * inner(x) for x, w in _rule())


def _by_quadrature(phi, slope, kinked):
    return lambda a, b, c: (expectation(phi, a, b, c, kinked), expectation(slope, a, b, c, kinked))


def _sigmoid(z):
    return 1 / (1 + mp.exp(-z))


def _elu(alpha):
    return lambda z: z if z > 0 else alpha * mp.expm1(z), lambda z: mp.mpf(1) if z > 0 else alpha * mp.exp(z)


def _selu():
    scale, (value, slope) = mp.mpf(1.0507009873554805), _elu(mp.mpf(1.6732632423543772))
    return lambda z: scale * value(z), lambda z: scale * slope(z)


def _gelu_tanh(z):
    return z / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (z + mp.mpf(0.044715) * z**3)))


def _gelu_tanh_slope(z):
    inner = mp.sqrt(2 / mp.pi) * (z + mp.mpf(0.044715) * z**3)
    return (1 + mp.tanh(inner)) / 2 + z / 2 * mp.sech(inner) ** 2 * mp.sqrt(2 / mp.pi) * (1 + 3 * mp.mpf(0.044715) * z**2)


def _mish(z):
    return z * mp.tanh(mp.log1p(mp.exp(z)))


def _mish_slope(z):
    t = mp.log1p(mp.exp(z))
    return mp.tanh(t) + z * mp.sech(t) ** 2 * _sigmoid(z)


# Those without a closed form.
SERIES = {
    "tanh": _by_quadrature(mp.tanh, lambda z: mp.sech(z) ** 2, False),
    "sigmoid": _by_quadrature(_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z), False),
    "silu": _by_quadrature(lambda z: z * _sigmoid(z), lambda z: _sigmoid(z) * (1 + z * _sigmoid(-z)), False),
    "softplus": _by_quadrature(lambda z: mp.log1p(mp.exp(z)), _sigmoid, False),
    "gelu_tanh": _by_quadrature(_gelu_tanh, _gelu_tanh_slope, False),
    "elu": _by_quadrature(*_elu(1), True),
    "elu(0.4)": _by_quadrature(*_elu(mp.mpf(0.4)), True),
    "selu": _by_quadrature(*_selu(), True),
    "mish": _by_quadrature(_mish, _mish_slope, False),
    "cracked": _by_quadrature(
        lambda z: mp.atan(z) if z > 0 else z / 2, lambda z: 1 / (1 + z * z) if z > 0 else mp.mpf(1) / 2, True
    ),
}
DUALS = {
    "relu": _piecewise(0),
    "leaky_relu": _piecewise(0.1),
    "abs": _piecewise(-1),
    "erf": _erf,
    "gelu": _gelu,
    "sin": _sin,
    "linear": lambda a, b, c: (b, mp.mpf(1)),
    "leaky_relu(-0.3)": _piecewise(-0.3),
    "cos": _cos,
    "gaussian": _gaussian,
    "exp": _exp,
    "monomial": _monomial(2),
    "monomial(3)": _monomial(3),
    "rectified_monomial": _rectified(2),
    "rectified_monomial(3)": _rectified(3),
}


def pair_kernels(activation, u, v, depth, sigma_w, sigma_b):
    """NNGP and NTK of two points in the ``ntk`` parameterization, readout of variance 1; sigma_b = 0 for no biases.

    In as many digits as ``mpmath.workdps`` says.
    """
    d, weight, bias = len(u), mp.mpf(float(sigma_w)) ** 2, mp.mpf(float(sigma_b)) ** 2
    u, v = [mp.mpf(float(t)) for t in u], [mp.mpf(float(t)) for t in v]
    a, b, c = (mp.fsum(s * t for s, t in zip(p, q, strict=True)) / d for p, q in ((u, u), (u, v), (v, v)))
    ntk, dual = mp.mpf(0), DUALS[activation]
    for layer in range(depth):
        a, b, c = weight * a + bias, weight * b + bias, weight * c + bias
        value, slope = dual(a, b, c)
        ntk = slope * (b + (weight * ntk if layer else 0))
        a, b, c = dual(a, a, a)[0], value, dual(c, c, c)[0]
    return b, b + ntk
