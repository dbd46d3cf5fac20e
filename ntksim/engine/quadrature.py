"""Gaussian expectations of activations without a closed form, by a trapezoidal rule that controls its error.

For an analytic integrand that decays like a Gaussian the trapezoidal rule on the whole line converges like
exp(-2 pi a / h), a the distance of the nearest pole (Trefethen & Weideman 2014). For tanh(s x) that is a = pi / (2 s):
the rule starts at a step that suits s and halves it until the results settle. Fixed-order Gauss-Hermite, which does not
know about the poles, is wrong by 25% for tanh on inputs of ordinary size.
"""

import math

import numpy as np
from numba import prange

from ntksim.engine.activations import MEANS, pair_factors
from ntksim.engine.jit import jit, jit_parallel

TOLERANCE = 1e-10  # relative to the expectation of the absolute value
# Halving the step squares the error, but for a factor that grows like a power of 1/step (a pole of order four, for the
# derivative of tanh squared): once a halving changes the result by less than this, what is left is below TOLERANCE.
_CHANGE = 1e-7
_REACH = 8.7  # standard deviations: the weight beyond is below 1e-17
_MAX_NODES = 1 << 13
_TABLE_NODES = (32, 64, 128, 256)  # of the interpolation in the angle
_SAME = 1e-12  # variances that differ by less, relatively, count as one


@jit
def _trapezoid(factors, code, s1, s2, rho, nodes):
    """E[g(u) g(v)] of the two functions g of ``pair_factors``, and their absolute values, on nodes^2 points.

    u = s1 x and v = s2 (rho x + r y), with independent normal x and y.
    """
    step = 2 * _REACH / nodes
    weights = np.empty(nodes + 1)
    for i in range(nodes + 1):
        y = -_REACH + step * i
        weights[i] = math.exp(-0.5 * y * y) * step / math.sqrt(2 * math.pi)
    across = math.sqrt(max(1 - rho * rho, 0.0))
    total, total_slope, size, size_slope = 0.0, 0.0, 0.0, 0.0
    for i in range(nodes + 1):
        x = -_REACH + step * i
        phi_u, slope_u = pair_factors(factors, code, s1 * x)
        inner, inner_slope, inner_size, inner_size_slope = 0.0, 0.0, 0.0, 0.0
        if across == 0:
            phi_v, slope_v = pair_factors(factors, code, s2 * rho * x)
            inner, inner_slope, inner_size, inner_size_slope = phi_v, slope_v, abs(phi_v), abs(slope_v)
        else:
            for j in range(nodes + 1):
                y = -_REACH + step * j
                weight = weights[j]
                phi_v, slope_v = pair_factors(factors, code, s2 * (rho * x + across * y))
                inner += weight * phi_v
                inner_slope += weight * slope_v
                inner_size += weight * abs(phi_v)
                inner_size_slope += weight * abs(slope_v)
        weight = weights[i]
        total += weight * phi_u * inner
        total_slope += weight * slope_u * inner_slope
        size += weight * abs(phi_u) * inner_size
        size_slope += weight * abs(slope_u) * inner_size_slope
    return total, total_slope, size, size_slope


@jit
def gaussian_expectations(factors, code, k11, k12, k22):
    """(E[g(u) g(v)] of both functions g of ``pair_factors``, whether both reached ``TOLERANCE``)."""
    s1, s2 = math.sqrt(k11), math.sqrt(k22)
    rho = 0.0
    if k11 > 0 and k22 > 0:
        rho = min(max(k12 / (s1 * s2), -1.0), 1.0)
        if rho * rho > 1 - 4e-16:  # one rounding away from parallel: the second integral has no width
            rho = math.copysign(1.0, rho)
    # Step 0.7/s leaves about 1e-6, so that the first halving, which squares it, is accepted.
    nodes = 2 * int(math.ceil(_REACH * max(2.0, max(s1, s2) / 0.7)))
    if 2 * nodes > _MAX_NODES:
        return np.nan, np.nan, False
    value, slope, _, _ = _trapezoid(factors, code, s1, s2, rho, nodes)
    while 2 * nodes <= _MAX_NODES:
        nodes *= 2
        finer, finer_slope, size, size_slope = _trapezoid(factors, code, s1, s2, rho, nodes)
        settled = abs(finer - value) <= _CHANGE * size and abs(finer_slope - slope) <= _CHANGE * size_slope
        value, slope = finer, finer_slope
        if settled:
            return value, slope, True
    return value, slope, False


@jit_parallel
def expectations_of_pairs(factors, code, k11, k12, k22, value, slope):
    """Fill the arrays ``value`` and ``slope`` for pairs of covariances; all arguments 1-D. Returns the failures."""
    failed = 0
    for i in prange(k12.size):
        a, b, settled = gaussian_expectations(factors, code, k11[i], k12[i], k22[i])
        value[i], slope[i] = a, b
        if not settled:
            failed += 1
    return failed


def expectations(
    code: int, k11: np.ndarray, k12: np.ndarray, k22: np.ndarray, factors: int = MEANS
) -> tuple[np.ndarray, np.ndarray]:
    """E[phi(u) phi(v)] and E[phi'(u) phi'(v)] entry by entry, float64, to a relative error of ``TOLERANCE``.

    With ``factors`` the same of the other functions of ``activations.pair_factors``.

    Points on a sphere share one variance, and their expectations are interpolated in the angle. Otherwise equal triples
    are computed once: a symmetric kernel has half of its pairs.

    Raises ValueError where the error could not be brought below the tolerance (inputs of enormous norm).
    """
    shape = k12.shape
    low, high = np.minimum(k11, k22), np.maximum(k11, k22)
    if k12.size > 2 * _TABLE_NODES[-1] and np.ptp(low) + np.ptp(high) + (high.max() - low.min()) <= _SAME * high.max():
        tabulated = _by_angle(code, float(high.max()), k12, factors)
        if tabulated is not None:
            return tabulated
    triples, back = np.unique(np.stack([a.ravel() for a in (low, k12, high)], axis=1), axis=0, return_inverse=True)
    value, slope = _of_triples(code, triples, factors)
    back = back.ravel()
    return value[back].reshape(shape), slope[back].reshape(shape)


def _of_triples(code: int, triples: np.ndarray, factors: int) -> tuple[np.ndarray, np.ndarray]:
    """The expectations of rows (k11, k12, k22)."""
    value, slope = np.empty(len(triples)), np.empty(len(triples))
    columns = [np.ascontiguousarray(triples[:, i]) for i in range(3)]
    failed = expectations_of_pairs(factors, code, *columns, value, slope)
    if failed:
        raise ValueError(
            f"the infinite-width limit did not reach a relative error of {TOLERANCE:g} for {failed} of {len(triples)} "
            f"pairs of points: pre-activations have variances up to {triples.max():.3g}; scale the inputs or sigma_w down"
        )
    return value, slope


def _by_angle(code: int, variance: float, k12: np.ndarray, factors: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The expectations of pairs of one variance, by Chebyshev interpolation in the angle between them.

    They are smooth functions of the angle, with all derivatives, up to both ends. Nodes are doubled until the last eighth of
    the coefficients is below a tenth of ``TOLERANCE`` of the largest value; None if the last doubling does not get there.
    """
    for nodes in _TABLE_NODES:
        at = np.polynomial.chebyshev.chebpts1(nodes)
        cosines = np.cos((at + 1) * np.pi / 2)
        triples = np.stack([np.full(nodes, variance), variance * cosines, np.full(nodes, variance)], axis=1)
        series = [np.polynomial.chebyshev.chebfit(at, values, nodes - 1) for values in _of_triples(code, triples, factors)]
        if all(np.abs(c[-nodes // 8 :]).max() <= 0.1 * TOLERANCE * np.abs(c).max() for c in series):
            value, slope = np.empty(k12.shape), np.empty(k12.shape)
            _interpolate(np.stack(series), variance, k12.ravel(), value.ravel(), slope.ravel())
            return value, slope
    return None


@jit_parallel
def _interpolate(series, variance, k12, value, slope):
    """Both Chebyshev series (2, N) at the angle of every pair, by Clenshaw's recurrence."""
    for i in prange(k12.size):
        x = math.atan2(math.sqrt(max(variance * variance - k12[i] * k12[i], 0.0)), k12[i]) * (2 / math.pi) - 1
        a1, a2, b1, b2 = 0.0, 0.0, 0.0, 0.0
        for k in range(series.shape[1] - 1, 0, -1):
            a1, a2 = series[0, k] + 2 * x * a1 - a2, a1
            b1, b2 = series[1, k] + 2 * x * b1 - b2, b1
        value[i] = series[0, 0] + x * a1 - a2
        slope[i] = series[1, 0] + x * b1 - b2
