"""The identity: a deep linear network."""

from ntksim.engine.compiled.jit import jit, jit_inline

ABOUT = {"smooth": True, "gate": "value"}


@jit_inline
def value_and_slope(z, parameter):
    return z, 1.0


@jit
def point(parameter, s):
    return s, 1.0, 0.0, 0.0, 0.0, s


@jit
def duals(parameter, one, points, first, gap, slope):
    slope[:] = 1.0
