"""ReLU, z above 0 and 0 below."""

import numpy as np

from ntksim.engine.compiled.jit import jit, jit_inline
from ntksim.engine.formulas.arc_cosine import piecewise_duals, piecewise_fourth_moments, piecewise_point

ABOUT = {"smooth": False, "gate": "value"}


@jit_inline
def value_and_slope(z, parameter):
    """The slope is 0 at 0."""
    zero = z * np.float32(0)  # of z's own type: an integer 0 would make it float64
    return max(z, zero), zero + np.float32(z > 0)


@jit
def point(parameter, s):
    return piecewise_point(0.0, s)


@jit
def duals(parameter, one, points, first, gap, slope):
    piecewise_duals(0.0, 0.0, one[0], points[0, first:], gap, slope)


@jit
def fourth_moments(parameter, s1, s2, gap):
    return piecewise_fourth_moments(0.0, 0.0, s1, s2, gap)
