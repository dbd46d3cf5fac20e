"""GELU's tanh form, z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2 (Hendrycks & Gimpel 2016), with a kernel of its own."""

import math

import numpy as np

from ntksim.engine.compiled.jit import jit_inline
from ntksim.engine.formulas import elementary

ABOUT = {"smooth": True, "gate": "value"}

_TWICE, _CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715


@jit_inline
def value_and_slope(z, parameter):
    """z h and h + z h', with h = (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2."""
    x = max(min(np.float64(z), 30.0), -30.0)  # beyond, the share is 1 or 0 to the last bit, and cubes may overflow
    share, rest = elementary.sigmoid(_TWICE * (x + _CUBIC * (x * x * x)))  # (1 + tanh(t)) / 2 without cancellation
    return z * share, share + x * (share * rest) * (_TWICE * (1 + 3 * _CUBIC * (x * x)))
