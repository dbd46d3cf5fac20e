"""The identity: a deep linear network."""

from ntksim.engine.compiled.jit import jit, jit_inline

ABOUT = {"smooth": True, "gate": "value"}


@jit_inline
def value_and_slope(z, parameter):
    """z and 1."""
    return z, 1.0


@jit
def point(parameter, s):
    """s, and the root mean square s."""
    return s, 1.0, 0.0, 0.0, 0.0, s


@jit
def duals(parameter, one, points, first, gap, slope):
    """E[u v] has the correlation that u and v have; the slopes are 1."""
    slope[:] = 1.0
