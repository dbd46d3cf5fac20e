"""The Gaussian e^(-z^2); its expectations are those of the error function's slope. Its gates are not told: far out it is 0."""

import math

import numpy as np

from ntksim.engine.compiled.jit import fma, jit, jit_inline
from ntksim.engine.formulas import elementary
from ntksim.engine.formulas.duals import cosine_of
from ntksim.engine.formulas.gaps import correlation, sine

ABOUT = {"smooth": True, "gate": None}


@jit_inline
def value_and_slope(z, parameter):
    """e^(-z^2) and -2 z e^(-z^2)."""
    x = max(min(np.float64(z), 28.0), -28.0)  # beyond, it is 0
    square = x * x
    value = elementary.exp(-square)
    value -= value * fma(x, x, -square)  # what rounding took from the square
    return value, -2 * x * value


# What is known of a point: the shares `along` and `across` of sqrt(2) s and 1 in the vector (sqrt(2) s, 1) at length 1.


@jit
def point(parameter, s):
    """s, and the root mean square (1 + 4 s^2)^(-1/4)."""
    across = 1 / math.hypot(1.0, math.sqrt(2.0) * s)
    along = math.sqrt(2.0) * s * across
    return s, 0.0, along, across, 0.0, math.sqrt(across / math.sqrt(1 + along * along))


@jit
def duals(parameter, one, points, first, gap, slope):
    """d^(-1/2) and 4 k12 d^(-3/2), with d = (1 + 2 k11) (1 + 2 k22) - 4 k12^2."""
    for j in range(gap.size):
        gap[j], slope[j] = _dual(one[2], one[3], one[5], points[2, first + j], points[3, first + j], points[5, first + j], gap[j])


@jit
def _dual(along1, across1, root1, along2, across2, root2, gap):
    """With r = along1 along2 rho and d = 1 - r^2, E[phi phi] = across1 across2 / sqrt(d).

    The fourth power of the correlation is (1 - along1^4) (1 - along2^4) / d^2, and what it lacks of 1 a sum of squares.
    """
    product = along1 * along2
    turned = product * sine(gap)
    cosine = cosine_of(along1, across1, across2, turned)
    a, b, c, turn = across1 / cosine, across2 / cosine, along1 * across2 / cosine, turned / cosine
    uneven = (b - a) * ((across2 + across1) / cosine)
    less = min(uneven * uneven + turn * turn * (1 + a * a + c * c), 1.0)
    cross = a * across2 / (root1 * root2)  # the correlation, and with its digits where it is small
    return less / ((1 + cross) * (1 + cross * cross)), 2 * product * correlation(gap) * (a * b) * (a * across2)
