"""ELU, z above 0 and alpha (e^z - 1) below (Clevert et al. 2016); alpha is 1, which makes the slope continuous, unless given."""

import numpy as np

from ntksim.engine.compiled.jit import jit_inline
from ntksim.engine.formulas import elementary

ABOUT = {"smooth": 1.0, "analytic": False, "gate": "value", "parameter": ("alpha", 1.0, 1e-6, 1e6)}


@jit_inline
def value_and_slope(z, parameter):
    """z and 1 above 0, alpha (e^z - 1) and alpha e^z up to 0."""
    wide = np.float64(z)
    below = elementary.expm1(max(min(wide, 0.0), -700.0))
    return (wide if wide > 0 else parameter * below), (1.0 if wide > 0 else parameter * (1 + below))
