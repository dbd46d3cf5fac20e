"""Scalar formulas of gaps, 1 - |rho| with the sign of a correlation rho: see `infinite.correlations`."""

import math

from ntksim.engine.compiled.jit import jit_inline


@jit_inline
def correlation(gap):
    """rho of a gap."""
    return math.copysign(1 - abs(gap), gap)


@jit_inline
def sine(gap):
    """sin t = sqrt(1 - rho^2) of a gap."""
    size = abs(gap)
    return math.sqrt(size * (2 - size))


@jit_inline
def gap_of(less, more):
    """The gap from 1 - rho and 1 + rho; the smaller of them has the digits. Rounding below 0 counts as 0."""
    return max(less, 0.0) if less <= more else -max(more, 0.0)


@jit_inline
def shared_gap(gap, along1, across1, along2, across2):
    """The gap of along1 u + across1 w and along2 v + across2 w, with w independent of the pair (u, v), all of variance 1.

    along^2 + across^2 = 1. It is what a bias makes of a correlation: 1 - rho^2 as a sum of squares, in which nothing cancels.
    """
    size, product = abs(gap), along1 * along2
    rho = math.copysign(1 - size, gap)
    less = size if math.copysign(1.0, gap) > 0 else 2 - size
    turn = along1 * across2 - along2 * across1
    square = product * product * size * (2 - size) + turn * turn + 2 * product * across1 * across2 * less
    inner = product * rho + across1 * across2
    return math.copysign(square / (1 + abs(inner)), inner)


@jit_inline
def through_layer(weight, bias, root):
    """Of weight u + bias w, with u of root mean square ``root`` and w of 1: standard deviation, and the shares of u and of w.

    It is what a layer makes of a point: z = g W h + beta b over all weights and biases. The shares are 0 where z is.
    """
    s = math.hypot(weight * root, bias)
    if s > 0:
        return s, weight * root / s, bias / s
    return s, 0.0, 0.0
