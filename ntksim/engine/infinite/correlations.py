"""Correlations of pairs of points that keep the digits of small angles, whatever the sizes of the points are.

A pair of points, or of Gaussian variables, is held as two root mean squares and a *gap*: 1 - |rho| of their correlation rho,
with the sign of rho (a zero has one too). No product of two variances is ever taken, so that none overflows or underflows.
An angle t near 0 or pi is sqrt(2 |gap|): from rho itself it would have an error of sqrt(eps) = 1e-8, from the gap it has the
relative error of the gap.
"""

import math

import numpy as np
from numba import get_num_threads, prange

from ntksim.engine.blas import one_blas_thread
from ntksim.engine.compiled.jit import fma, jit, jit_parallel
from ntksim.engine.threads import runs

# Pairs whose gap is below this take it from the difference of the points; above, a rounding of rho moves the angle by 1e-13.
_NEAR = 1e-4


def roots_and_gaps(x1: np.ndarray, x2: np.ndarray, symmetric: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Root mean squares (n1,) and (n2,) of points over their features, and gaps (n1, n2); the upper half if ``symmetric``.

    Gaps have an error of a few eps in the angle t, and of a few eps relative to t where the points are that close; those of
    equal rows are 0, those of opposite rows -0. A zero point is uncorrelated to all.
    """
    x1, norms1, roots1 = _scaled(x1)
    x2, norms2, roots2 = (x1, norms1, roots1) if symmetric else _scaled(x2)
    with one_blas_thread():  # more threads would add up in another order
        gaps = x1 @ x2.T
    for rows in runs(0, len(x1), 1, 20.0 * gaps.shape[1], get_num_threads()):
        _fill_gaps(*rows, symmetric, x1, x2, norms1, norms2, gaps)
    return roots1, roots2, gaps


def root_mean_squares(x: np.ndarray) -> np.ndarray:
    """Root mean squares (n,) of points over their features, as `roots_and_gaps` has them."""
    return _scaled(x)[2]


def _scaled(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points times powers of two that bring them to ordinary sizes, their norms, and the root mean squares of the points."""
    exponents = np.frexp(np.abs(x).max(axis=1))[1]
    x = np.ldexp(x, -exponents[:, None])
    norms = np.empty(len(x))
    _fill_norms(x, norms)
    with np.errstate(over="ignore"):  # infinite: the caller refuses it
        return x, norms, np.ldexp(norms / math.sqrt(x.shape[1]), exponents)


@jit
def _fill_norms(x, norms):
    for i in range(norms.size):
        norms[i] = math.sqrt(_dot(x[i], x[i]))


@jit
def _dot(u, v):
    """u.v in a fixed order, by four sums side by side."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    whole = u.size - u.size % 4
    for k in range(0, whole, 4):
        a += u[k] * v[k]
        b += u[k + 1] * v[k + 1]
        c += u[k + 2] * v[k + 2]
        d += u[k + 3] * v[k + 3]
    for k in range(whole, u.size):
        a += u[k] * v[k]
    return (a + b) + (c + d)


@jit_parallel
def _fill_gaps(first, end, symmetric, x1, x2, norms1, norms2, gaps):
    """Inner products -> gaps, in place: rows first..end in an order in which long and short ones take turns."""
    rows = gaps.shape[0]
    for r in prange(first, end):
        i = r // 2 if r % 2 == 0 else rows - 1 - r // 2
        _gaps_row(i, symmetric, x1, x2, norms1, norms2, gaps)


@jit
def _gaps_row(i, symmetric, x1, x2, norms1, norms2, gaps):
    for j in range(i if symmetric else 0, gaps.shape[1]):
        size = norms1[i] * norms2[j]
        if size == 0:
            gaps[i, j] = 1.0
            continue
        rho = gaps[i, j] / size
        gap = 1 - abs(rho)
        if gap < _NEAR:
            gap = _near_gap(x1[i], x2[j])
        gaps[i, j] = math.copysign(gap, rho)


@jit
def _near_gap(u, v):
    """|gap| of nearly parallel or opposite points, from what u - c v with c = u.v / v.v has across v: no digits cancel in it."""
    square = _dot(v, v)
    factor = _dot(u, v) / square
    across, along = 0.0, 0.0
    for k in range(u.size):
        rest = fma(-factor, v[k], u[k])
        across += rest * rest
        along += rest * v[k]
    square = min(max(across - along * along / square, 0.0) / _dot(u, u), 1.0)  # of the sine
    return square / (1 + math.sqrt(1 - square))
