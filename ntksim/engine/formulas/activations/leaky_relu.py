"""Leaky ReLU, z above 0 and ``slope`` z below (Maas et al. 2013); the slope, 0.1 unless it is given, may have either sign."""

from ntksim.engine.compiled.jit import jit, jit_inline
from ntksim.engine.formulas.arc_cosine import piecewise_duals, piecewise_fourth_moments, piecewise_point

ABOUT = {"smooth": 1.0, "parameter": ("slope", 0.1, -1e6, 1e6)}


@jit_inline
def value_and_slope(z, parameter):
    """The slope at 0 is that below."""
    slope = 1.0 if z > 0 else parameter
    return slope * z, slope


def gate(parameter):
    return "value" if parameter >= 0 else "slope"


@jit
def point(parameter, s):
    return piecewise_point(parameter, s)


@jit
def duals(parameter, one, points, first, gap, slope):
    piecewise_duals(parameter, parameter, one[0], points[0, first:], gap, slope)


@jit
def fourth_moments(parameter, s1, s2, gap):
    return piecewise_fourth_moments(parameter, parameter, s1, s2, gap)
