"""The absolute value."""

from ntksim.engine.compiled.jit import jit, jit_inline
from ntksim.engine.formulas.arc_cosine import piecewise_duals, piecewise_fourth_moments, piecewise_point

ABOUT = {"smooth": False, "gate": "slope"}


@jit_inline
def value_and_slope(z, parameter):
    """|z|, and 1 above 0, -1 below, 0 at 0."""
    return abs(z), z * 0 + (z > 0) - (z < 0)


@jit
def point(parameter, s):
    """s, and the root mean square s."""
    return piecewise_point(-1.0, s)


@jit
def duals(parameter, one, points, first, gap, slope):
    """E|u v| = 2 s1 s2 (sqrt(1 - rho^2) + rho asin(rho)) / pi, and 2 asin(rho) / pi of the slopes, the signs."""
    piecewise_duals(-1.0, 0.0, one[0], points[0, first:], gap, slope)


@jit
def fourth_moments(parameter, s1, s2, gap):
    """E[u^2 v^2] = (s1 s2)^2 (1 + 2 rho^2), E[u v] = s1 s2 rho, and 1."""
    return piecewise_fourth_moments(-1.0, 0.0, s1, s2, gap)
