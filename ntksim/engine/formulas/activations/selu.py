"""SELU (Klambauer et al. 2017): 1.0507 times ELU with alpha 1.6733, under which mean 0 and variance 1 are a fixed point."""

import numpy as np

from ntksim.engine.compiled.jit import jit_inline
from ntksim.engine.formulas import elementary

ABOUT = {"smooth": False, "gate": "value"}

_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772


@jit_inline
def value_and_slope(z, parameter):
    """c z and c above 0, c alpha (e^z - 1) and c alpha e^z up to 0."""
    wide = np.float64(z)
    below = elementary.expm1(max(min(wide, 0.0), -700.0))
    return _SCALE * (wide if wide > 0 else _ALPHA * below), _SCALE * (1.0 if wide > 0 else _ALPHA * (1 + below))
