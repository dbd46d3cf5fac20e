"""The hyperbolic tangent, whose expectations have no closed form."""

import numpy as np

from ntksim.engine.compiled.jit import jit_inline
from ntksim.engine.formulas import elementary

ABOUT = {"smooth": True, "gate": "value"}


@jit_inline
def value_and_slope(z, parameter):
    """tanh z and 1 - tanh(z)^2."""
    t = elementary.tanh(np.float64(z))
    return t, 1 - t * t
