"""GELU, z Phi(z) with Phi the normal distribution function (Hendrycks & Gimpel 2016); its tanh form is `gelu_tanh`."""

import math

import numpy as np

from ntksim.engine.compiled.jit import jit, jit_inline, wide_vectors
from ntksim.engine.formulas import elementary
from ntksim.engine.formulas.duals import cosine_of, smooth_duals
from ntksim.engine.formulas.gaps import correlation, gap_of, sine

ABOUT = {"smooth": True, "gate": "value"}

# Roots are taken here: on a GPU a compiler would leave them to every thread.
_ROOT_HALF, _ROOT_2_PI = math.sqrt(0.5), math.sqrt(2 * math.pi)


@jit_inline
def value_and_slope(z, parameter):
    """z Phi(z) and Phi(z) + z e^(-z^2 / 2) / sqrt(2 pi), with Phi(z) = (1 + erf(z / sqrt(2))) / 2."""
    value, gaussian = elementary.erf(np.float64(z) * _ROOT_HALF)
    probability = 0.5 + 0.5 * value
    return z * probability, probability + z * gaussian / _ROOT_2_PI


# What is known of a point beside s and the gain: the shares `along` and `across` of s and 1 in the vector (s, 1) at length 1, and
# what E[phi^2] / s^2 lacks of 1/2.


@jit
def point(parameter, s):
    """s, and the root mean square s sqrt(1/2 - lack)."""
    across = 1 / math.hypot(1.0, s)
    along = s * across
    lack = _lack(along * along, across * across, across * math.sqrt(1 + along * along))
    gain = math.sqrt(0.5 - lack)
    return s, gain, along, across, lack, s * gain


@jit
def _lack(product, both, parallel):
    """What E[phi phi] / (s1 s2) of two parallel points lacks of 1/2, little where they are large; ``parallel`` is sqrt(d)."""
    return (math.atan2(parallel, product) - product * (both / parallel * both + parallel)) / (2 * math.pi)


@jit_inline
def _parts(along1, across1, along2, across2, gap):
    """E[phi phi] / (s1 s2) without its odd part, rho / 4, and E[phi' phi'], by `_dual`."""
    product, both = along1 * along2, across1 * across2
    rho = correlation(gap)
    cosine = cosine_of(along1, across1, across2, product * sine(gap))
    arc, tilt = elementary.angle(product * rho, cosine), both / cosine
    even = rho * arc + product * (rho * rho * tilt * both + cosine)
    slope = arc + product * rho * (tilt * tilt + across1 * across1 + across2 * across2) / cosine
    return even / (2 * math.pi), 0.25 + slope / (2 * math.pi)


@jit_inline
def _dual(gain1, along1, across1, gain2, along2, across2, gap):
    """By Gaussian integration by parts (Tsuchida et al. 2020), everything over the standard deviations.

    With r = along1 along2 rho and d = 1 - r^2, E[phi phi] / (s1 s2) is

        rho (1/4 + asin(r) / 2 pi) + along1 along2 (rho^2 (across1 across2)^2 / sqrt(d) + sqrt(d)) / 2 pi.
    """
    even, slope = _parts(along1, across1, along2, across2, gap)
    correlated = (0.25 * correlation(gap) + even) / (gain1 * gain2)
    return gap_of(1 - correlated, 1 + correlated), slope


@jit
def _row(one, points, gap, slope):
    wide_vectors()
    gain, along, across = points[1], points[2], points[3]
    for j in range(gap.size):
        gap[j], slope[j] = _dual(one[1], one[2], one[3], gain[j], along[j], across[j], gap[j])


@jit
def _close_gap(one, two, gap):
    """The gap as a sum of what the angle, and what the ratio of the sizes, takes from a correlation of 1."""
    s1, gain1, along1, across1, lack1, _ = one
    s2, gain2, along2, across2, lack2, _ = two
    size, product, gains, both = abs(gap), along1 * along2, gain1 * gain2, across1 * across2
    cosine = cosine_of(along1, across1, across2, product * sine(gap))
    parallel = cosine_of(along1, across1, across2, 0.0)
    less = _below(product, both, cosine, parallel, size)
    if s1 != s2:
        # E[phi phi] is below the root of the product of E[phi^2], and that by the last term below their mean
        uneven = (lack1 - lack2) / (gain1 + gain2)
        less += max(_lack(product, both, parallel) - 0.5 * (lack1 + lack2 + uneven * uneven), 0.0)
    less /= gains
    if math.copysign(1.0, gap) > 0:
        return less
    more = less + 2 * _parts(along1, across1, along2, across2, gap)[0] / gains
    return gap_of(2 - more, more)


@jit
def _below(product, both, cosine, parallel, size):
    """By how much E[phi phi] / (s1 s2) of a pair is below that at rho = 1, where ``parallel`` is sqrt(d)."""
    rho, square = 1 - size, size * (2 - size)
    sines = product * square / (cosine + rho * parallel)  # of the difference of the arcs
    arcs = math.atan2(sines, cosine * parallel + product * product * rho)
    lost = product * product * square / (cosine + parallel)
    rest = both * (square / cosine + lost / cosine / parallel) * both - lost
    return size * (0.25 + math.atan2(product, parallel) / (2 * math.pi)) + (rho * arcs + product * rest) / (2 * math.pi)


duals = smooth_duals(_row, _close_gap)
