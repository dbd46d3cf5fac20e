"""The error function; its expectations are arc-sine kernels (Williams 1997)."""

import math

import numpy as np

from ntksim.engine.compiled.jit import jit, jit_inline, wide_vectors
from ntksim.engine.formulas import elementary
from ntksim.engine.formulas.duals import TINY, cosine_of, smooth_duals
from ntksim.engine.formulas.gaps import sine

ABOUT = {"smooth": True, "gate": "value"}

# The root is taken here: on a GPU a compiler would leave it to every thread.
_TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)


@jit_inline
def value_and_slope(z, parameter):
    """erf z = 2 / sqrt(pi) times the integral of e^(-t^2) from 0 to z, and 2 / sqrt(pi) e^(-z^2)."""
    value, gaussian = elementary.erf(np.float64(z))
    return value, _TWO_OVER_SQRT_PI * gaussian


# What is known of a point beside s and the gain: the shares `along` and `across` of sqrt(2) s and 1 in the vector (sqrt(2) s, 1)
# at length 1, and sqrt(asin(along^2)) / along.


@jit
def point(parameter, s):
    """s, and the root mean square sqrt(2/pi asin(2 s^2 / (1 + 2 s^2)))."""
    across = 1 / math.hypot(1.0, math.sqrt(2.0) * s)
    along = math.sqrt(2.0) * s * across
    square = along * along
    root = math.sqrt(math.atan2(square, across * math.sqrt(1 + square)) / square) if square > TINY else 1.0
    gain = 2 / math.sqrt(math.pi) * across * root
    return s, gain, along, across, root, s * gain


@jit_inline
def _dual(along1, across1, root1, along2, across2, root2, gap):
    """Arc-sine kernel, 2/pi asin(along1 along2 rho), and that of the derivative."""
    size, product, roots = abs(gap), along1 * along2, root1 * root2
    cosine = cosine_of(along1, across1, across2, product * sine(gap))
    inner = product * (1 - size)
    ratio = elementary.angle(inner, cosine) / (inner if inner > TINY else 1.0)
    ratio = ratio if inner > TINY else 1.0
    slope = 4 / math.pi * (across1 / cosine) * across2
    return math.copysign(max((roots - ratio) + size * ratio, 0.0) / roots, gap), slope


@jit
def _row(one, points, gap, slope):
    wide_vectors()
    along, across, root = points[2], points[3], points[4]
    for j in range(gap.size):
        gap[j], slope[j] = _dual(one[2], one[3], one[4], along[j], across[j], root[j], gap[j])


@jit
def _close_gap(one, two, gap):
    """The gap by 2 (sqrt(A11 A22) - A12) of the arcs, A11 + A22 - 2 A12 less the square of sqrt(A11) - sqrt(A22)."""
    along1, across1, root1 = one[2], one[3], one[4]
    along2, across2, root2 = two[2], two[3], two[4]
    size, product, roots = abs(gap), along1 * along2, root1 * root2
    rho, longer = 1 - size, along1 - along2
    if product > 0.5:  # both are close to 1, and what they lack has the digits
        longer = (across2 - across1) * (across2 + across1) / (along1 + along2)
    if product < TINY:
        return math.copysign(((roots - 1) + size) / roots, gap)
    cosine = cosine_of(along1, across1, across2, product * sine(gap))
    less = _arc_above(along1, across1, along2 * rho, longer + along2 * size, cosine)
    less += _arc_above(along2, across2, along1 * rho, along1 * size - longer, cosine)
    uneven = along1 * root1 - along2 * root2
    return math.copysign(max(0.5 * (less - uneven * uneven), 0.0) / (product * roots), gap)


@jit
def _arc_above(along, across, other, above, cosine):
    """asin(along^2) - asin(along other), with ``above`` = along - other and ``cosine`` that of the second arc."""
    own, square = across * math.sqrt(1 + along * along), along * along
    sines = along * above * (along + other) / (along * cosine + other * own)
    return math.atan2(sines, own * cosine + square * (along * other))


duals = smooth_duals(_row, _close_gap)
