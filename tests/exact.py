"""Limits in many digits: the textbook formulas of covariances, in which digits may cancel. Shares no code with the package."""

import mpmath as mp


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


DUALS = {
    "relu": _piecewise(0),
    "leaky_relu": _piecewise(0.1),
    "abs": _piecewise(-1),
    "erf": _erf,
    "gelu": _gelu,
    "sin": _sin,
    "linear": lambda a, b, c: (b, mp.mpf(1)),
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
