"""ReLU, z above 0 and 0 below."""

import numpy as np

from ntksim.engine.compiled.jit import jit, jit_inline
from ntksim.engine.formulas.arc_cosine import piecewise_duals, piecewise_fourth_moments, piecewise_point

ABOUT = {"smooth": False, "gate": "value"}


@jit_inline
def value_and_slope(z, parameter):
    """max(z, 0), and 1 above 0, else 0; of an infinite z the slope is not a number, so that divergence is noticed."""
    zero, one = np.float32(0), np.float32(1)  # integers would make float32 numbers float64
    return (zero if z < zero else z), (one if z > zero else zero) + z * zero


@jit
def point(parameter, s):
    """s, and the root mean square s / sqrt(2)."""
    return piecewise_point(0.0, s)


@jit
def duals(parameter, one, points, first, gap, slope):
    """s1 s2 (sin t + (pi - t) cos t) / (2 pi) and (pi - t) / (2 pi), with t the angle, cos t = rho."""
    piecewise_duals(0.0, 0.0, one[0], points[0, first:], gap, slope)


@jit
def fourth_moments(parameter, s1, s2, gap):
    """(s1 s2)^q J_q / (2 pi) for q = 2, 1, 0, with J_q of `rectified_monomial`."""
    return piecewise_fourth_moments(0.0, 0.0, s1, s2, gap)
