"""Expectations of u -> u above 0 and ``below`` u below, from the arc-cosine kernels (Cho & Saul 2009).

ReLU, leaky ReLU and the absolute value are such functions. What `formulas.duals` says of gaps holds here.
"""

import math

from ntksim.engine.compiled.jit import jit, jit_inline, wide_vectors
from ntksim.engine.formulas import elementary
from ntksim.engine.formulas.gaps import correlation, gap_of, sine


@jit
def piecewise_point(below, s):
    """What the duals know of a point: see `formulas.duals`."""
    gain = math.sqrt(0.5 * (1 + below * below))
    return s, gain, 0.0, 0.0, 0.0, s * gain


@jit_inline
def piecewise_dual(below, gap):
    """Of variances above 0: p u + q |u|, from the arc-cosine kernels."""
    p, q = 0.25 * (1 + below) * (1 + below), 0.25 * (1 - below) * (1 - below)
    size, across = abs(gap), sine(gap)
    angle = elementary.angle(across, 1 - size)
    even = q * (1 - 2 / math.pi * angle)
    # the correlation of |u| and |v| is above |rho| by 2 (sin t - t cos t) / pi
    more = 2 * q / (p + q) * max(across - (1 - size) * angle, 0.0) / math.pi
    share, positive = (q - p) / (p + q), math.copysign(1.0, gap) > 0
    opposite = gap_of(2 * p / (p + q) + share * size - more, 2 * q / (p + q) - share * size + more)
    return max(size - more, 0.0) if positive else opposite, p + even if positive else p - even


@jit_inline
def _slope_at_zero(below, at_zero, s1, s2):
    """E[phi'(u) phi'(v)] of it where a variance is 0, and phi'(0) = ``at_zero``."""
    mean = 0.5 * (1 + below)
    return (at_zero if s1 == 0 else mean) * (at_zero if s2 == 0 else mean)


@jit
def _piecewise_row(below, gap, slope):
    wide_vectors()
    for j in range(gap.size):
        gap[j], slope[j] = piecewise_dual(below, gap[j])


@jit
def piecewise_duals(below, at_zero, s1, s, gap, slope):
    """A row of pairs of points of standard deviations ``s1`` and ``s``, in place: see `formulas.duals`."""
    _piecewise_row(below, gap, slope)
    for j in range(gap.size):
        if s1 == 0 or s[j] == 0:
            gap[j], slope[j] = 1.0, _slope_at_zero(below, at_zero, s1, s[j])


@jit
def piecewise_fourth_moments(below, at_zero, s1, s2, gap):
    """E[phi^2 phi^2], E[phi phi' phi phi'] and E[phi'^2 phi'^2] of a pair."""
    square, size = below * below, s1 * s2
    cross, slopes = piecewise_dual(square, gap)
    if s1 == 0 or s2 == 0:
        slopes = _slope_at_zero(square, at_zero * at_zero, s1, s2)
    same, opposite = _positive_squares(gap), _positive_squares(-gap)
    squares = (1 + square * square) * same + 2 * square * opposite
    return squares * size * size, 0.5 * (1 + square * square) * correlation(cross) * size, slopes


@jit
def _positive_squares(gap):
    """E[u^2 v^2] over u, v > 0 of unit variances: half the arc-cosine kernel of order 2 (Cho & Saul 2009)."""
    across, rho = sine(gap), correlation(gap)
    return (3 * across * rho + (math.pi - math.atan2(across, rho)) * (1 + 2 * rho * rho)) / (2 * math.pi)
