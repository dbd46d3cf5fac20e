"""SiLU or swish, z / (1 + e^-z) (Elfwing et al. 2018)."""

import numpy as np

from ntksim.engine.compiled.jit import jit_inline
from ntksim.engine.formulas import elementary

ABOUT = {"smooth": True, "gate": "value"}


@jit_inline
def value_and_slope(z, parameter):
    """z h and h + z h (1 - h), with h = 1 / (1 + e^-z)."""
    share, rest = elementary.sigmoid(np.float64(z))
    return z * share, share + z * (share * rest)
