"""Gaussian expectations of functions that are analytic on either side of 0 and not across it, such as ELU.

Mehler's series of such a function falls like a power of its terms. In polar coordinates the two arguments are

    u = s1 r sin d,   v = s2 r sin e,   d + e = pi - t  where they have one sign, and d + e = t where they have two,

t the angle of the points: four sectors, in each of which both arguments keep their signs and the integrand is analytic.
Trapezoidal sums in double-exponential variables (Takahasi & Mori 1974) take its radius and its angle, and are exact to rounding
whatever happens at the edges: where s is large functions change within 1 / s of them.
"""

import math

import numpy as np
from numba import get_num_threads, prange

from ntksim.engine.activation import Phi
from ntksim.engine.compiled.jit import jit, jit_parallel
from ntksim.engine.formulas.blocks import pair_factors
from ntksim.engine.threads import runs

_CHANGE = 1e-9  # of a correlation when the step is cut to two thirds, which squares its error and more: what is left is rounding
_OPERATIONS = 200.0  # for a node in radius and angle of the four sectors
_STEPS = 0.15, 0.1, 0.0667, 0.0444  # of the variables, whose ranges are some 7


def _radii(step: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes x in (0, 40) and weights of the integral of e^(-x^2/2) f(x) over x > 0: x = exp(t - exp(-t))."""
    t = step * np.arange(-math.ceil(3.7 / step), math.ceil(3.7 / step) + 1)
    x = np.exp(t - np.exp(-t))
    return x, step * x * (1 + np.exp(-t)) * np.exp(-0.5 * x * x)


def _shares(step: float) -> np.ndarray:
    """Nodes and weights (3, m) of an integral over (0, 1): x, 1 - x and the weight, with x = (1 + tanh(pi/2 sinh t)) / 2."""
    t = step * np.arange(-math.ceil(3.1 / step), math.ceil(3.1 / step) + 1)
    q = math.pi * np.sinh(t)
    x, rest = 1 / (1 + np.exp(-q)), 1 / (1 + np.exp(q))
    return np.stack([x, rest, step * math.pi * np.cosh(t) * x * rest])


def sector_roots(factors: int, phi: Phi, s: np.ndarray) -> tuple[np.ndarray, int]:
    """Root mean squares of both functions of ``blocks.pair_factors`` for standard deviations s (n,), (2, n); how many failed."""
    own, failed = np.zeros((2, s.size)), s.size
    for step in _STEPS:
        before, own = own, np.empty((2, s.size))
        _fill_roots(factors, phi, s, *_radii(step), own)
        failed = s.size - int((np.abs(own - before) <= _CHANGE * own).all(axis=0).sum())
        if not failed:
            break
    return own, failed


@jit
def _fill_roots(factors, phi, s, x, weight, own):
    for i in range(s.size):
        own[:, i] = 0
        for side in (-1.0, 1.0):
            g = np.empty((2, x.size))
            for k in range(x.size):
                g[0, k] = side * (s[i] * x[k])
            pair_factors(factors, phi, g[0], g[1])
            for f in range(2):
                for k in range(x.size):
                    own[f, i] += weight[k] * g[f, k] * g[f, k]
        own[0, i], own[1, i] = math.sqrt(own[0, i] / math.sqrt(2 * math.pi)), math.sqrt(own[1, i] / math.sqrt(2 * math.pi))


def sector_correlations(factors: int, phi: Phi, s: np.ndarray, rho: np.ndarray) -> np.ndarray | None:
    """E[g(u) g(v)] over the root mean squares of both, for p standard deviations and q correlations, (2, p, p, q).

    None if sums do not settle.
    """
    own, failed = sector_roots(factors, phi, s)
    first, second = np.triu_indices(s.size)
    one, other = (np.stack([s, *own])[:, np.repeat(chosen, rho.size)] for chosen in (first, second))
    pairs = None if failed else sector_pairs(factors, phi, one, other, np.tile(np.arccos(rho), first.size))
    if pairs is None:
        return None
    values = np.empty((2, s.size, s.size, rho.size))
    values[:, first, second] = values[:, second, first] = pairs.reshape(2, first.size, rho.size)
    return values


def sector_pairs(factors: int, phi: Phi, points1: np.ndarray, points2: np.ndarray, angles: np.ndarray) -> np.ndarray | None:
    """The same for pairs of points in a row at these ``angles`` (n,), (2, n); ``points`` (3, n) hold s and root mean squares."""
    unit = np.where(points1[1:] > 0, points1[1:], 1.0) * np.where(points2[1:] > 0, points2[1:], 1.0)
    pairs = np.full((2, angles.size), np.inf)
    for step in _STEPS:
        before, pairs = pairs, np.empty((2, angles.size))
        rule = *_radii(step), _shares(step)
        for some in runs(0, angles.size, 1, _OPERATIONS * rule[0].size * rule[2].shape[1], get_num_threads()):
            _fill_pairs(*some, factors, phi, points1[0], points2[0], angles, *rule, pairs)
        pairs /= unit
        if np.abs(pairs - before).max(initial=0) <= _CHANGE:
            return pairs
    return None


@jit_parallel
def _fill_pairs(first, end, factors, phi, s1, s2, angles, x, weight, shares, pairs):
    for k in prange(first, end):
        pairs[0, k], pairs[1, k] = _pair(factors, phi, s1[k], s2[k], angles[k], x, weight, shares)


@jit
def _pair(factors, phi, s1, s2, angle, x, weight, shares):
    """Both expectations of a pair, sector by sector."""
    value, slope = 0.0, 0.0
    u, v = np.empty((2, x.size)), np.empty((2, x.size))
    for sector in range(4):
        one, two = 1.0 if sector < 2 else -1.0, 1.0 if sector % 2 == 0 else -1.0
        width = math.pi - angle if one == two else angle
        for m in range(shares.shape[1]):
            scale1, scale2 = one * s1 * math.sin(width * shares[0, m]), two * s2 * math.sin(width * shares[1, m])
            for k in range(x.size):
                u[0, k], v[0, k] = scale1 * x[k], scale2 * x[k]
            pair_factors(factors, phi, u[0], u[1])
            pair_factors(factors, phi, v[0], v[1])
            inner, inner_slope = 0.0, 0.0
            for k in range(x.size):
                inner += weight[k] * x[k] * (u[0, k] * v[0, k])
                inner_slope += weight[k] * x[k] * (u[1, k] * v[1, k])
            value += width * shares[2, m] * inner
            slope += width * shares[2, m] * inner_slope
    return value / (2 * math.pi), slope / (2 * math.pi)
