"""Softplus, log(1 + e^z), which is above log 2 where z is above 0."""

import numpy as np

from ntksim.engine.compiled.jit import jit_inline
from ntksim.engine.formulas import elementary

ABOUT = {"smooth": True, "gate": 0.6931471805599453}


@jit_inline
def value_and_slope(z, parameter):
    """log(1 + e^z) and 1 / (1 + e^-z)."""
    wide = np.float64(z)
    slope, _ = elementary.sigmoid(wide)
    return max(wide, 0.0) + elementary.log1p(elementary.exp(-abs(wide))), slope
