"""max(z, 0)^p, the square unless p is given: the arc-cosine kernels of order p (Cho & Saul 2009)."""

import math

import numpy as np

from ntksim.engine.compiled.jit import jit, jit_inline
from ntksim.engine.formulas import elementary
from ntksim.engine.formulas.gaps import correlation, sine

ABOUT = {
    "smooth": True, "analytic": False, "gate": "value", "parameter": ("power", 2.0, 2.0, 10.0), "integer": True,
}  # fmt: skip

# Gaps below this come from an integral over the angle, by Gauss-Legendre's rule, which is exact to rounding there.
_CLOSE = 0.1
_NODES, _WEIGHTS = (tuple(map(float, row)) for row in np.polynomial.legendre.leggauss(12))


@jit_inline
def value_and_slope(z, parameter):
    """max(z, 0)^p and p max(z, 0)^(p - 1)."""
    x = max(z, z * 0)
    below = x
    for _ in range(2, int(parameter)):
        below = below * x
    return below * x, parameter * below


@jit
def _arc_cosine(p, angle, rest, cosine, across):
    """J_p of Cho & Saul at an angle, ``rest`` = pi - angle, by J_(p+1) = (2 p + 1) cos J_p + p^2 sin^2 J_(p-1)."""
    before, now = rest, across + rest * cosine
    for k in range(1, p):
        before, now = now, (2 * k + 1) * cosine * now + k * k * (across * across) * before
    return now


@jit
def _at_zero(p):
    """J_p(0) = pi (2 p - 1)!!."""
    product = math.pi
    for k in range(3, 2 * p, 2):
        product *= k
    return product


@jit
def _angles(gap):
    """The angle and pi - angle of a gap."""
    angle = elementary.angle(sine(gap), 1 - abs(gap))
    return (angle, math.pi - angle) if math.copysign(1.0, gap) > 0 else (math.pi - angle, angle)


@jit
def _moment(p, s1, s2, gap):
    """E[u^p v^p] over u, v > 0."""
    angle, rest = _angles(gap)
    return (s1 * s2) ** p * _arc_cosine(p, angle, rest, correlation(gap), sine(gap)) / (2 * math.pi)


@jit
def _less(p, gap):
    """What the correlation lacks of 1: J_p(0) - J_p is the integral of p^2 J_(p-1) sin."""
    angle, rest = _angles(gap)
    if not 0 <= gap < _CLOSE:
        return 1 - _arc_cosine(p, angle, rest, correlation(gap), sine(gap)) / _at_zero(p)
    total = 0.0
    for k in range(12):
        t = 0.5 * angle * (1 + _NODES[k])
        across = math.sin(t)
        below = _arc_cosine(p - 1, t, math.pi - t, math.cos(t), across)
        total += 0.5 * angle * _WEIGHTS[k] * below * across
    return p * p * total / _at_zero(p)


@jit
def point(parameter, s):
    """s, and the root mean square sqrt((2 p - 1)!! / 2) s^p."""
    p = int(parameter)
    gain = math.sqrt(_at_zero(p) / (2 * math.pi)) * s ** (p - 1)
    return s, gain, 0.0, 0.0, 0.0, gain * s


@jit
def duals(parameter, one, points, first, gap, slope):
    """(s1 s2)^p J_p / (2 pi) and p^2 (s1 s2)^(p - 1) J_(p-1) / (2 pi)."""
    p = int(parameter)
    for j in range(gap.size):
        s = points[0, first + j]
        slope[j] = parameter * parameter * _moment(p - 1, one[0], s, gap[j])
        gap[j] = max(_less(p, gap[j]), 0.0) if one[0] > 0 and s > 0 else 1.0


@jit
def fourth_moments(parameter, s1, s2, gap):
    """(s1 s2)^q J_q / (2 pi) for q = 2 p; times p^2 for 2 p - 1; times p^4 for 2 p - 2."""
    p, square = int(parameter), parameter * parameter
    squares, cross = _moment(2 * p, s1, s2, gap), square * _moment(2 * p - 1, s1, s2, gap)
    return squares, cross, square * square * _moment(2 * p - 2, s1, s2, gap)
