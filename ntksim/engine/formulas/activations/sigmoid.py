"""The logistic function, 1 / (1 + e^-z), which is above 1/2 where z is above 0."""

import numpy as np

from ntksim.engine.compiled.jit import jit_inline
from ntksim.engine.formulas import elementary

ABOUT = {"smooth": True, "gate": 0.5}


@jit_inline
def value_and_slope(z, parameter):
    """h = 1 / (1 + e^-z) and h (1 - h)."""
    value, rest = elementary.sigmoid(np.float64(z))
    return value, value * rest
