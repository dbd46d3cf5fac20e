"""The cosine. Neither it nor its slope tells whether z is above 0."""

import math

import numpy as np

from ntksim.engine.compiled.jit import jit, jit_inline
from ntksim.engine.formulas import elementary

ABOUT = {"smooth": True, "gate": None}


@jit_inline
def value_and_slope(z, parameter):
    """cos z and -sin z."""
    sine, cosine = elementary.sin_cos(np.float64(z))
    return cosine, -sine


@jit
def point(parameter, s):
    """s, and the root mean square sqrt((1 + e^(-2 s^2)) / 2)."""
    return s, 0.0, 0.0, 0.0, 0.0, math.sqrt(0.5 * (1 + math.exp(-2 * s * s)))


@jit
def duals(parameter, one, points, first, gap, slope):
    """E[cos u cos v] = e^(-(k11 + k22)/2) cosh k12, and E[sin u sin v], which has sinh k12."""
    for j in range(gap.size):
        gap[j], slope[j] = _dual(one[0], one[5], points[0, first + j], points[5, first + j], gap[j])


@jit
def _dual(s1, root1, s2, root2, gap):
    """e^(-(k11 + k22)/2) cosh k12 and sinh k12 of variances and covariance, with D = k11 + k22 - 2 |k12| in the exponents."""
    size, longer = abs(gap), s1 - s2
    covariance, distance = (s1 * (1 - size)) * s2, longer * longer + 2 * ((s1 * size) * s2)
    decay, sines = math.exp(-0.5 * distance), -math.expm1(-2 * covariance)
    roots, cosines = 2 * root1 * root2, 2 - sines
    if distance < 1:
        less = decay * _below(s1, s2, distance) / (roots * (roots + cosines)) - math.expm1(-0.5 * distance)
    else:
        less = 1 - decay * (cosines / roots)
    return max(less, 0.0), math.copysign(0.5 * decay * sines, gap)


@jit
def _below(s1, s2, distance):
    """(1 + e^(-2 k11)) (1 + e^(-2 k22)) - (1 + e^(-2 |k12|))^2."""
    power = s1 * s1 + s2 * s2
    if power > 80:
        return 0.0
    both, uneven = math.exp(-power), math.sinh(0.5 * (s1 - s2) * (s1 + s2))
    return 2 * both * (2 * uneven * uneven - math.expm1(distance)) - both * both * math.expm1(2 * distance)
