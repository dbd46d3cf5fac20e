"""Leaky ReLU, z above 0 and ``slope`` z below (Maas et al. 2013); the slope, 0.1 unless it is given, may have either sign."""

from ntksim.engine.compiled.jit import jit, jit_inline
from ntksim.engine.formulas.arc_cosine import piecewise_duals, piecewise_fourth_moments, piecewise_point

ABOUT = {"smooth": 1.0, "parameter": ("slope", 0.1, -1e6, 1e6)}


@jit_inline
def value_and_slope(z, parameter):
    """z and 1 above 0, a z and a up to 0, with a the parameter."""
    slope = 1.0 if z > 0 else parameter
    return slope * z, slope


def gate(parameter):
    """The value is above 0 where z is, unless a is below 0: then the slope is."""
    return "value" if parameter >= 0 else "slope"


@jit
def point(parameter, s):
    """s, and the root mean square s sqrt((1 + a^2) / 2)."""
    return piecewise_point(parameter, s)


@jit
def duals(parameter, one, points, first, gap, slope):
    """(1 + a)^2 / 4 E[u v] + (1 - a)^2 / 4 E|u v|, and the same of the slopes, with 1 and 2 asin(rho) / pi (see `abs`)."""
    piecewise_duals(parameter, parameter, one[0], points[0, first:], gap, slope)


@jit
def fourth_moments(parameter, s1, s2, gap):
    """(1 + a^4) J + 2 a^2 J', with J = E[u^2 v^2; u, v > 0] and J' that at -rho, and the duals of slope a^2."""
    return piecewise_fourth_moments(parameter, parameter, s1, s2, gap)
