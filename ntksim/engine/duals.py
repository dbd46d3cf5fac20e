"""Gaussian expectations of activations in closed form: E[phi(u) phi(v)] and E[phi'(u) phi'(v)] for centred Gaussian (u, v).

ReLU: Cho & Saul (2009), and from it leaky ReLU and the absolute value; erf: Williams (1997). Correlations go in and come out as
the gaps of `correlations`, 1 - |rho|, and formulas are written so that these do not cancel: points that are nearly the same, or
nearly opposite, keep the digits of the angle between them through any number of layers. tanh has no closed form: see
`quadrature`.
"""

import math

from ntksim.engine import elementary
from ntksim.engine.activations import ABS, ERF, GELU, LEAK, LEAKY_RELU, LINEAR, RELU, SIN, TANH
from ntksim.engine.correlations import correlation, gap_of, sine
from ntksim.engine.jit import jit, jit_inline, wide_vectors

# What a dual knows of a point, `point_of`: the standard deviation s of its pre-activation; the gain, the root mean square of phi
# over s (its limit at s = 0); for erf, of sqrt(2) s, and for GELU, of s, the shares `along` and `across` of s and 1 in the vector
# (s, 1) at length 1; and a number that the dual explains. Formulas are of pairs; those without a branch fill rows, which
# vectorise, and pairs whose gap is below _CLOSE, whose 1 - rho has lost digits, take it one by one from differences.
_CLOSE = 1e-3
_TINY = 1e-20  # functions of arguments below this are linear to rounding


@jit
def kinks(code):
    """Slopes below 0, and at 0, of ReLU, leaky ReLU and the absolute value."""
    if code == LEAKY_RELU:
        return LEAK, LEAK
    return (-1.0, 0.0) if code == ABS else (0.0, 0.0)


@jit
def point_of(code, s):
    """s, gain, along, across and one number more of a point, for `closed_duals`."""
    if code in (RELU, LEAKY_RELU, ABS):
        below, _ = kinks(code)
        return s, math.sqrt(0.5 * (1 + below * below)), 0.0, 0.0, 0.0
    if code == ERF:
        return _erf_point(s)
    if code == GELU:
        return _gelu_point(s)
    if code == SIN:
        twice = 2 * s * s
        return s, math.sqrt(-0.5 * math.expm1(-twice)) / s if twice > _TINY else 1.0, 0.0, 0.0, 0.0
    return s, 1.0, 0.0, 0.0, 0.0


@jit_inline
def piecewise_dual(below, gap):
    """Of u -> u above 0 and ``below`` u below, of variances above 0: p u + q |u|, from the arc-cosine kernels."""
    p, q = 0.25 * (1 + below) * (1 + below), 0.25 * (1 - below) * (1 - below)
    size, across = abs(gap), sine(gap)
    angle = elementary.angle(across, 1 - size)
    even = q * (1 - 2 / math.pi * angle)
    # the correlation of |u| and |v| is above |rho| by 2 (sin t - t cos t) / pi
    more = 2 * q / (p + q) * max(across - (1 - size) * angle, 0.0) / math.pi
    share, positive = (q - p) / (p + q), math.copysign(1.0, gap) > 0
    opposite = gap_of(2 * p / (p + q) + share * size - more, 2 * q / (p + q) - share * size + more)
    return max(size - more, 0.0) if positive else opposite, p + even if positive else p - even


@jit_inline
def slope_at_zero(below, at_zero, s1, s2):
    """E[phi'(u) phi'(v)] of it where a variance is 0."""
    mean = 0.5 * (1 + below)
    return (at_zero if s1 == 0 else mean) * (at_zero if s2 == 0 else mean)


@jit
def _piecewise_row(below, gap, slope):
    wide_vectors()
    for j in range(gap.size):
        gap[j], slope[j] = piecewise_dual(below, gap[j])


@jit_inline
def _cosine(along1, across1, across2, turned):
    """sqrt(1 - (along1 along2 rho)^2) as a sum of squares, none of which underflows; ``turned`` is along1 along2 sin t."""
    other = along1 * across2
    unit = max(max(across1, other), turned)
    a, b, c = across1 / unit, other / unit, turned / unit
    return unit * math.sqrt(a * a + b * b + c * c)


@jit
def _erf_point(s):
    """The last number is sqrt(asin(along^2)) / along."""
    across = 1 / math.hypot(1.0, math.sqrt(2.0) * s)
    along = math.sqrt(2.0) * s * across
    square = along * along
    root = math.sqrt(math.atan2(square, across * math.sqrt(1 + square)) / square) if square > _TINY else 1.0
    return s, 2 / math.sqrt(math.pi) * across * root, along, across, root


@jit_inline
def erf_dual(along1, across1, root1, along2, across2, root2, gap):
    """Arc-sine kernel, 2/pi asin(along1 along2 rho), and that of the derivative."""
    size, product, roots = abs(gap), along1 * along2, root1 * root2
    cosine = _cosine(along1, across1, across2, product * sine(gap))
    inner = product * (1 - size)
    ratio = elementary.angle(inner, cosine) / (inner if inner > _TINY else 1.0)
    ratio = ratio if inner > _TINY else 1.0
    slope = 4 / math.pi * (across1 / cosine) * across2
    return math.copysign(max((roots - ratio) + size * ratio, 0.0) / roots, gap), slope


@jit
def _erf_row(one, along, across, root, gap, slope):
    wide_vectors()
    for j in range(gap.size):
        gap[j], slope[j] = erf_dual(one[2], one[3], one[4], along[j], across[j], root[j], gap[j])


@jit
def _close_erf(one, two, gap):
    """The gap by 2 (sqrt(A11 A22) - A12) of the arcs, A11 + A22 - 2 A12 less the square of sqrt(A11) - sqrt(A22)."""
    along1, across1, root1 = one[2], one[3], one[4]
    along2, across2, root2 = two[2], two[3], two[4]
    size, product, roots = abs(gap), along1 * along2, root1 * root2
    rho, longer = 1 - size, along1 - along2
    if product > 0.5:  # both are close to 1, and what they lack has the digits
        longer = (across2 - across1) * (across2 + across1) / (along1 + along2)
    if product < _TINY:
        return math.copysign(((roots - 1) + size) / roots, gap)
    cosine = _cosine(along1, across1, across2, product * sine(gap))
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


@jit
def _gelu_point(s):
    """The last number is what E[phi^2] / s^2 lacks of 1/2."""
    across = 1 / math.hypot(1.0, s)
    along = s * across
    lack = _gelu_lack(along * along, across * across, across * math.sqrt(1 + along * along))
    return s, math.sqrt(0.5 - lack), along, across, lack


@jit
def _gelu_lack(product, both, parallel):
    """What E[phi phi] / (s1 s2) of two parallel points lacks of 1/2, little where they are large; ``parallel`` is sqrt(d)."""
    return (math.atan2(parallel, product) - product * (both / parallel * both + parallel)) / (2 * math.pi)


@jit_inline
def _gelu_parts(along1, across1, along2, across2, gap):
    """E[phi phi] / (s1 s2) without its odd part, rho / 4, and E[phi' phi'], by `gelu_dual`."""
    product, both = along1 * along2, across1 * across2
    rho = correlation(gap)
    cosine = _cosine(along1, across1, across2, product * sine(gap))
    arc, tilt = elementary.angle(product * rho, cosine), both / cosine
    even = rho * arc + product * (rho * rho * tilt * both + cosine)
    slope = arc + product * rho * (tilt * tilt + across1 * across1 + across2 * across2) / cosine
    return even / (2 * math.pi), 0.25 + slope / (2 * math.pi)


@jit_inline
def gelu_dual(gain1, along1, across1, gain2, along2, across2, gap):
    """By Gaussian integration by parts (Tsuchida et al. 2020), everything over the standard deviations.

    With r = along1 along2 rho and d = 1 - r^2, E[phi phi] / (s1 s2) is

        rho (1/4 + asin(r) / 2 pi) + along1 along2 (rho^2 (across1 across2)^2 / sqrt(d) + sqrt(d)) / 2 pi.
    """
    even, slope = _gelu_parts(along1, across1, along2, across2, gap)
    correlated = (0.25 * correlation(gap) + even) / (gain1 * gain2)
    return gap_of(1 - correlated, 1 + correlated), slope


@jit
def _gelu_row(one, gain, along, across, gap, slope):
    wide_vectors()
    for j in range(gap.size):
        gap[j], slope[j] = gelu_dual(one[1], one[2], one[3], gain[j], along[j], across[j], gap[j])


@jit
def _close_gelu(one, two, gap):
    """The gap as a sum of what the angle, and what the ratio of the sizes, takes from a correlation of 1."""
    s1, gain1, along1, across1, lack1 = one
    s2, gain2, along2, across2, lack2 = two
    size, product, gains, both = abs(gap), along1 * along2, gain1 * gain2, across1 * across2
    cosine = _cosine(along1, across1, across2, product * sine(gap))
    parallel = _cosine(along1, across1, across2, 0.0)
    less = _gelu_below(product, both, cosine, parallel, size)
    if s1 != s2:
        # E[phi phi] is below the root of the product of E[phi^2], and that by the last term below their mean
        uneven = (lack1 - lack2) / (gain1 + gain2)
        less += max(_gelu_lack(product, both, parallel) - 0.5 * (lack1 + lack2 + uneven * uneven), 0.0)
    less /= gains
    if math.copysign(1.0, gap) > 0:
        return less
    more = less + 2 * _gelu_parts(along1, across1, along2, across2, gap)[0] / gains
    return gap_of(2 - more, more)


@jit
def _gelu_below(product, both, cosine, parallel, size):
    """By how much E[phi phi] / (s1 s2) of a pair is below that at rho = 1, where ``parallel`` is sqrt(d)."""
    rho, square = 1 - size, size * (2 - size)
    sines = product * square / (cosine + rho * parallel)  # of the difference of the arcs
    arcs = math.atan2(sines, cosine * parallel + product * product * rho)
    lost = product * product * square / (cosine + parallel)
    rest = both * (square / cosine + lost / cosine / parallel) * both - lost
    return size * (0.25 + math.atan2(product, parallel) / (2 * math.pi)) + (rho * arcs + product * rest) / (2 * math.pi)


@jit_inline
def sin_dual(s1, gain1, s2, gain2, gap):
    """e^(-(k11 + k22)/2) sinh k12 and cosh k12 of variances and |covariance|, with D = k11 + k22 - 2 k12 in the exponents."""
    size, longer = abs(gap), s1 - s2
    covariance = (s1 * (1 - size)) * s2
    decay = elementary.exp(-0.5 * (longer * longer + 2 * ((s1 * size) * s2)))
    above = covariance > _TINY
    sines = -elementary.expm1(max(-2 * covariance, -700.0))
    ratio = (sines if above else 1 - size) / (2 * (s1 * gain1) * (s2 * gain2) if above else gain1 * gain2)
    return math.copysign(max(1 - decay * ratio, 0.0), gap), 0.5 * decay * (2 - sines)


@jit
def _sin_row(one, s, gain, gap, slope):
    wide_vectors()
    for j in range(gap.size):
        gap[j], slope[j] = sin_dual(one[0], one[1], s[j], gain[j], gap[j])


@jit
def _close_sin(one, two, gap):
    """1 - e^(-D/2) ratio as (1 - e^(-D/2)) + e^(-D/2) (1 - ratio)."""
    s1, s2, gains = one[0], two[0], one[1] * two[1]
    size, longer = abs(gap), s1 - s2
    covariance, distance = (s1 * (1 - size)) * s2, longer * longer + 2 * ((s1 * size) * s2)
    if covariance <= _TINY:
        below = ((gains - 1) + size) / gains
    elif distance < 1 and longer * longer < 0.01 * s1 * s2:
        roots, sines = 2 * (s1 * one[1]) * (s2 * two[1]), -math.expm1(-2 * covariance)
        below = _sin_below(s1, s2, distance) / (roots * (roots + sines))
    else:
        return sin_dual(s1, one[1], s2, two[1], gap)[0]
    return math.copysign(max(math.exp(-0.5 * distance) * below - math.expm1(-0.5 * distance), 0.0), gap)


@jit
def _sin_below(s1, s2, distance):
    """(1 - e^(-2 k11)) (1 - e^(-2 k22)) - (1 - e^(-2 k12))^2."""
    power = s1 * s1 + s2 * s2
    if power > 80:
        return 0.0
    both, apart, uneven = math.exp(-power), math.expm1(distance), math.sinh(0.5 * (s1 - s2) * (s1 + s2))
    return both * (apart * (-2 * math.expm1(-power) - both * apart) - 4 * uneven * uneven)


@jit
def closed_duals(code, one, points, first, gap, slope):
    """A row of pairs of an activation with a closed form (all but tanh), in place.

    ``one`` is what `point_of` gives of a point, ``points`` (5, n) what it gives of others, from the column ``first`` on;
    ``gap`` goes from that of u and v to that of phi(u) and phi(v), and ``slope`` becomes E[phi'(u) phi'(v)].
    """
    if code in (RELU, LEAKY_RELU, ABS):
        below, at_zero = kinks(code)
        _piecewise_row(below, gap, slope)
        s = points[0][first:]
        for j in range(gap.size):
            if one[0] == 0 or s[j] == 0:
                gap[j], slope[j] = 1.0, slope_at_zero(below, at_zero, one[0], s[j])
        return
    if code == LINEAR:
        slope[:] = 1.0
        return
    before = gap.copy()
    s, gain, along, across, last = points[0][first:], points[1][first:], points[2][first:], points[3][first:], points[4][first:]
    if code == ERF:
        _erf_row(one, along, across, last, gap, slope)
    elif code == GELU:
        _gelu_row(one, gain, along, across, gap, slope)
    else:
        _sin_row(one, s, gain, gap, slope)
    for j in range(gap.size):
        if one[0] == 0 or s[j] == 0:
            gap[j] = 1.0
        elif abs(before[j]) < _CLOSE:
            two = s[j], gain[j], along[j], across[j], last[j]
            gap[j] = _close_gap(code, one, two, before[j])


@jit
def _close_gap(code, one, two, gap):
    if code == ERF:
        return _close_erf(one, two, gap)
    return _close_gelu(one, two, gap) if code == GELU else _close_sin(one, two, gap)


def has_closed_dual(code: int) -> bool:
    """Whether :func:`closed_duals` knows the activation."""
    return code != TANH


@jit
def piecewise_fourth_moments(below, at_zero, s1, s2, gap):
    """E[phi^2 phi^2] / (s1 s2)^2, E[phi phi' phi phi'] / (s1 s2) and E[phi'^2 phi'^2] of u above 0 and ``below`` u below."""
    square = below * below
    cross, slopes = piecewise_dual(square, gap)
    if s1 == 0 or s2 == 0:
        slopes = slope_at_zero(square, at_zero * at_zero, s1, s2)
    same, opposite = _positive_squares(gap), _positive_squares(-gap)
    return (1 + square * square) * same + 2 * square * opposite, 0.5 * (1 + square * square) * correlation(cross), slopes


@jit
def _positive_squares(gap):
    """E[u^2 v^2] over u, v > 0 of unit variances: half the arc-cosine kernel of order 2 (Cho & Saul 2009)."""
    across, rho = sine(gap), correlation(gap)
    return (3 * across * rho + (math.pi - math.atan2(across, rho)) * (1 + 2 * rho * rho)) / (2 * math.pi)
