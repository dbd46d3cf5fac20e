"""The sine. Neither it nor its slope tells whether z is above 0."""

import math

import numpy as np

from ntksim.engine.compiled.jit import jit, jit_inline, wide_vectors
from ntksim.engine.formulas import elementary
from ntksim.engine.formulas.duals import TINY, smooth_duals

ABOUT = {"smooth": True, "gate": None}


@jit_inline
def value_and_slope(z, parameter):
    """sin z and cos z."""
    return elementary.sin_cos(np.float64(z))


@jit
def point(parameter, s):
    """s, and the root mean square sqrt((1 - e^(-2 s^2)) / 2)."""
    twice = 2 * s * s
    gain = math.sqrt(-0.5 * math.expm1(-twice)) / s if twice > TINY else 1.0
    return s, gain, 0.0, 0.0, 0.0, s * gain


@jit_inline
def _dual(s1, gain1, s2, gain2, gap):
    """e^(-(k11 + k22)/2) sinh k12 and cosh k12 of variances and |covariance|, with D = k11 + k22 - 2 k12 in the exponents."""
    size, longer = abs(gap), s1 - s2
    covariance = (s1 * (1 - size)) * s2
    decay = elementary.exp(-0.5 * (longer * longer + 2 * ((s1 * size) * s2)))
    above = covariance > TINY
    sines = -elementary.expm1(max(-2 * covariance, -700.0))
    ratio = (sines if above else 1 - size) / (2 * (s1 * gain1) * (s2 * gain2) if above else gain1 * gain2)
    return math.copysign(max(1 - decay * ratio, 0.0), gap), 0.5 * decay * (2 - sines)


@jit
def _row(one, points, gap, slope):
    wide_vectors()
    s, gain = points[0], points[1]
    for j in range(gap.size):
        gap[j], slope[j] = _dual(one[0], one[1], s[j], gain[j], gap[j])


@jit
def _close_gap(one, two, gap):
    """1 - e^(-D/2) ratio as (1 - e^(-D/2)) + e^(-D/2) (1 - ratio)."""
    s1, s2, gains = one[0], two[0], one[1] * two[1]
    size, longer = abs(gap), s1 - s2
    covariance, distance = (s1 * (1 - size)) * s2, longer * longer + 2 * ((s1 * size) * s2)
    if covariance <= TINY:
        below = ((gains - 1) + size) / gains
    elif distance < 1 and longer * longer < 0.01 * s1 * s2:
        roots, sines = 2 * (s1 * one[1]) * (s2 * two[1]), -math.expm1(-2 * covariance)
        below = _below(s1, s2, distance) / (roots * (roots + sines))
    else:
        return _dual(s1, one[1], s2, two[1], gap)[0]
    return math.copysign(max(math.exp(-0.5 * distance) * below - math.expm1(-0.5 * distance), 0.0), gap)


@jit
def _below(s1, s2, distance):
    """(1 - e^(-2 k11)) (1 - e^(-2 k22)) - (1 - e^(-2 k12))^2."""
    power = s1 * s1 + s2 * s2
    if power > 80:
        return 0.0
    both, apart, uneven = math.exp(-power), math.expm1(distance), math.sinh(0.5 * (s1 - s2) * (s1 + s2))
    return both * (apart * (-2 * math.expm1(-power) - both * apart) - 4 * uneven * uneven)


duals = smooth_duals(_row, _close_gap)
