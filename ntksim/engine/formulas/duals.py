"""What closed forms of Gaussian expectations, E[phi(u) phi(v)] and E[phi'(u) phi'(v)] of centred Gaussian (u, v), have in common.

Correlations go in and come out as the gaps of `infinite.correlations`, 1 - |rho|, and formulas are written so that these do not
cancel: points that are nearly the same, or nearly opposite, keep the digits of the angle between them through all layers.

A dual knows six numbers of a point: the standard deviation s of its pre-activation; the gain, the root mean square of phi
over s (its limit at s = 0); three numbers that the activation's file explains; and the root mean square of phi. Its function
``duals(parameter, one, points, first, gap, slope)`` fills a row of pairs in place. There ``one`` is what is known of a point, and
``points`` (6, n) what is known of others, from the column ``first`` on; ``gap`` goes from that of u and v to that of phi(u) and
phi(v), and ``slope`` becomes E[phi'(u) phi'(v)].
"""

import math
from typing import Any

from ntksim.engine.compiled.jit import jit, jit_inline

# Formulas are of pairs; those without a branch fill rows, which vectorise, and pairs whose gap is below _CLOSE, whose 1 - rho has
# lost digits, take it one by one from differences.
_CLOSE = 1e-3
TINY = 1e-20  # functions of arguments below this are linear to rounding


def smooth_duals(fill: Any, close_gap: Any) -> Any:
    """The ``duals`` of a smooth phi with phi(0) = 0, of ``fill(one, points, gap, slope)`` and ``close_gap(one, two, gap)``."""

    @jit
    def duals(parameter, one, points, first, gap, slope):
        before, others = gap.copy(), points[:, first:]
        fill(one, others, gap, slope)
        for j in range(gap.size):
            if one[0] == 0 or others[0, j] == 0:
                gap[j] = 1.0
            elif abs(before[j]) < _CLOSE:
                two = others[0, j], others[1, j], others[2, j], others[3, j], others[4, j], others[5, j]
                gap[j] = close_gap(one, two, before[j])

    return duals


@jit_inline
def cosine_of(along1, across1, across2, turned):
    """sqrt(1 - (along1 along2 rho)^2) as a sum of squares, none of which underflows; ``turned`` is along1 along2 sin t."""
    other = along1 * across2
    unit = max(max(across1, other), turned)
    a, b, c = across1 / unit, other / unit, turned / unit
    return unit * math.sqrt(a * a + b * b + c * c)
