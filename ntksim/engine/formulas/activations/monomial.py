"""The powers z^p, the square unless p is given: expectations are finite sums of Hermite coefficients."""

import math

from ntksim.engine.compiled.jit import jit, jit_inline

ABOUT = {"smooth": True, "parameter": ("power", 2.0, 2.0, 10.0), "integer": True}


@jit_inline
def value_and_slope(z, parameter):
    """z^p and p z^(p - 1)."""
    below = z
    for _ in range(2, int(parameter)):
        below = below * z
    return below * z, parameter * below


def gate(parameter):
    """Of odd powers the value is above 0 where z is, of even ones the slope."""
    return "value" if parameter % 2 == 1 else "slope"


@jit
def _double_factorial(p):
    """(2 p - 1)!! = E[u^(2 p)] of variance 1."""
    product = 1.0
    for k in range(3, 2 * p, 2):
        product *= k
    return product


@jit
def _less(p, size):
    """What the correlation of u^p and v^p lacks of 1 at a correlation of 1 - size: the sum of w_j (1 - (1 - size)^j).

    w_j is the share of the Hermite polynomial of degree j in E[u^(2 p)].
    """
    factorial, weight, total = _double_factorial(p), 1.0, 0.0
    for k in range(2, p + 1):
        weight *= k
    weight /= factorial
    for j in range(p, 0, -2):
        powers = 0.0  # 1 + (1 - size) + ... + (1 - size)^(j - 1)
        for _ in range(j):
            powers = powers * (1 - size) + 1
        total += weight * powers
        steps = (p - j) // 2 + 1
        weight *= j * (j - 1) / (4.0 * steps * steps)
    return size * total


@jit
def _moment(p, s1, s2, gap):
    """E[u^p v^p]."""
    value = _double_factorial(p) * ((s1 * s2) ** p * (1 - _less(p, abs(gap))))
    return math.copysign(value, gap) if p % 2 == 1 else value


@jit
def point(parameter, s):
    """s, and the root mean square sqrt((2 p - 1)!!) s^p."""
    p = int(parameter)
    gain = math.sqrt(_double_factorial(p)) * s ** (p - 1)
    return s, gain, 0.0, 0.0, 0.0, gain * s


@jit
def duals(parameter, one, points, first, gap, slope):
    """E[u^p v^p] and p^2 E[u^(p-1) v^(p-1)]."""
    p = int(parameter)
    for j in range(gap.size):
        s = points[0, first + j]
        slope[j] = parameter * parameter * _moment(p - 1, one[0], s, gap[j])
        less = _less(p, abs(gap[j])) if one[0] > 0 and s > 0 else 1.0
        gap[j] = math.copysign(less, gap[j]) if p % 2 == 1 else less


@jit
def fourth_moments(parameter, s1, s2, gap):
    """E[(u v)^(2 p)], p^2 E[(u v)^(2 p - 1)] and p^4 E[(u v)^(2 p - 2)]."""
    p, square = int(parameter), parameter * parameter
    squares, cross = _moment(2 * p, s1, s2, gap), square * _moment(2 * p - 1, s1, s2, gap)
    return squares, cross, square * square * _moment(2 * p - 2, s1, s2, gap)
