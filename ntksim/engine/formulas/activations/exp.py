"""The exponential function, which is above 1 where z is above 0. Its kernels overflow from pre-activations of size 26 on."""

import math

import numpy as np

from ntksim.engine.compiled.jit import jit, jit_inline
from ntksim.engine.formulas import elementary

ABOUT = {"smooth": True, "gate": 1.0}


@jit_inline
def value_and_slope(z, parameter):
    """e^z and e^z."""
    value = elementary.exp(np.float64(z))
    return value, value


@jit
def point(parameter, s):
    """s, and the root mean square e^(s^2)."""
    return s, 0.0, 0.0, 0.0, 0.0, math.exp(s * s)


@jit
def _distance(s1, s2, gap):
    """E[(u - v)^2], from differences."""
    longer, less = s1 - s2, gap if math.copysign(1.0, gap) > 0 else 2 + gap
    return longer * longer + 2 * ((s1 * less) * s2)


@jit
def duals(parameter, one, points, first, gap, slope):
    """E[e^(u + v)] = e^(k11 + k22 - E[(u - v)^2] / 2); the slope is the function itself."""
    for j in range(gap.size):
        distance = _distance(one[0], points[0, first + j], gap[j])
        gap[j], slope[j] = -math.expm1(-0.5 * distance), one[5] * (points[5, first + j] * math.exp(-0.5 * distance))


@jit
def fourth_moments(parameter, s1, s2, gap):
    """All three are E[e^(2 u + 2 v)] = e^(2 (k11 + k22 + 2 k12))."""
    value = math.exp(4 * (s1 * s1 + s2 * s2) - 2 * _distance(s1, s2, gap))
    return value, value, value
