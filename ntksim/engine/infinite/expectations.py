"""Gaussian expectations of activations without a closed form: some pairs by Mehler's series, all by a Chebyshev series.

For Gaussian (u, v) of standard deviations s1, s2 and correlation rho, and Hermite coefficients c(s) of the function g(s x),

    E[g(u) g(v)] = sum_m c_m(s1) c_m(s2) rho^m,    E[g(u)^2] = sum_m c_m(s1)^2      (Mehler 1866),

so that what the second sum lacks of the second moment bounds the error of the first, whatever rho is. tanh and its derivative
take about 150 s^2 terms. Over the root mean squares of both points the expectation is an analytic function of s1, s2 and the
angle between the points: a Chebyshev series, known from pairs at its nodes, gives it for all pairs. Where s is constant, on a
sphere, a pair costs a few dozen multiplications. Fixed-order Gauss-Hermite quadrature, which does not know how steep g(s x)
is, is wrong by 25% for tanh on inputs of ordinary size.
Functions that are not analytic at 0 have `sectors` in place of Mehler's series, and where pairs are fewer than the integrals of
a Chebyshev series, no series: an integral for each pair.
"""

import math

import numpy as np
from numba import get_num_threads
from numpy.polynomial.chebyshev import chebvander

from ntksim.engine.activation import Phi
from ntksim.engine.blas import one_blas_thread
from ntksim.engine.compiled.jit import jit, wide_vectors
from ntksim.engine.formulas.blocks import MEANS, block_of, pair_factors
from ntksim.engine.infinite.pair_sums import TAIL, TOLERANCE, by_parity, in_columns, keep_pairs, sum_rows
from ntksim.engine.infinite.sectors import sector_correlations, sector_pairs, sector_roots
from ntksim.engine.threads import check, runs

_REST = 1e-14  # share of a second moment that a Hermite series may lack
_REACH = 8.7  # standard deviations: the weight beyond is below 1e-17
_FARTHEST = 38.0  # beyond, it is nothing; so far goes the rule for functions that grow fast
_ENDS = 1e-13  # share of a sum that its last terms may have
# Halving the trapezoidal rule's step squares its error, but for a factor that grows like a power of 1/step (a pole of order
# four, for the derivative of tanh squared): if a halving changes a moment by less than this, 1e-12 is left (measured).
_CHANGE, _OWN_CHANGE = 1e-5, 1e-12  # of a user's own function nobody knows how smooth it is
_MAX_POINTS = 1 << 12  # on either side of 0: tanh of standard deviations up to 100
_MAX_TERMS = 1 << 22  # of a Hermite series
_MAX_SIZES = 128, 2048  # of a Chebyshev series in a standard deviation and in the angle
_SMALL = 1e-3  # standard deviations below which functions are squared in units of their values there: squares underflow
_FLAT = 1e-6  # standard deviations of which the smaller change correlations by 1e-12 at most
_SAME = 1e-13  # standard deviations that differ by less count as one
_CHUNK = 128  # Hermite polynomials at a time


def correlations(
    phi: Phi, s1: np.ndarray, gap: np.ndarray, s2: np.ndarray, product: np.ndarray, symmetric: bool, factors: int = MEANS
) -> tuple[np.ndarray, np.ndarray]:
    """In place: gap <- that of phi(u) and phi(v), product <- product E[phi'(u) phi'(v)], for all pairs of two sets of points.

    Parameters
    ----------
    s1, s2 : standard deviations (n1,) and (n2,).
    gap, product : gaps of (u, v), as `correlations` has them, and what to multiply, (n1, n2) float64.
    symmetric : the sets are one; only the upper half is read and written.
    factors : other functions of ``blocks.pair_factors`` in the place of phi and phi'.

    Returns the root mean squares of both functions, (2, n1) and (2, n2). The errors of correlations are ``TOLERANCE``;
    points of one size at a gap of 0 keep it.

    Raises ValueError where the error could not be brought below the tolerance (inputs of enormous norm).
    """
    own1 = roots(factors, phi, s1)
    own2 = own1 if symmetric else roots(factors, phi, s2)
    diagonal = product.diagonal() * (own1[1] * own1[1]) if symmetric else None
    # Below, correlations are what they are in the limit s = 0, to rounding.
    points1, points2 = np.stack([np.maximum(s1, _FLAT), *own1]), np.stack([np.maximum(s2, _FLAT), *own2])
    p, q = _first_sizes(_span(points1, points2))
    integrals = p * (p + 1) // 2 * q  # of a series; those of functions that Mehler's does not suit are dear
    every = not block_of(phi.code).analytic and (gap.size // 2 if symmetric else gap.size) <= integrals
    (_pair_by_pair if every else _all_at_once)(factors, phi, symmetric, points1, points2, gap, product)
    if symmetric:
        np.fill_diagonal(gap, 0.0)
        np.fill_diagonal(product, diagonal)
    return own1, own2


def _all_at_once(
    factors: int, phi: Phi, symmetric: bool, points1: np.ndarray, points2: np.ndarray, gap: np.ndarray, product: np.ndarray
) -> None:
    """`correlations` by a Chebyshev series; ``points`` (3, n) hold s and the root mean squares of both functions."""
    span = _span(points1, points2)
    series = _series(factors, phi, span)
    parts, lengths, groups = by_parity(series)
    left, right = _basis(points1[0], span, series.shape[1]), _basis(points2[0], span, series.shape[1])
    # A pair takes a fused operation for every term of the series, and some for the rest.
    operations = 2 * (int((1 + 4 * groups).sum()) + 100)
    columns = in_columns(right, parts.shape[3])
    for rows in runs(0, len(gap), 1, operations * gap.shape[1], get_num_threads()):
        sum_rows(*rows, symmetric, parts, lengths, groups, left, columns, points1, points2, gap, product)


def _pair_by_pair(
    factors: int, phi: Phi, symmetric: bool, points1: np.ndarray, points2: np.ndarray, gap: np.ndarray, product: np.ndarray
) -> None:
    """`correlations` by an integral for each pair."""
    i, j = np.triu_indices(len(gap), 1) if symmetric else np.indices(gap.shape).reshape(2, -1)
    half = 2 * np.arcsin(np.sqrt(np.abs(gap[i, j]) / 2))
    angles = np.where(np.signbit(gap[i, j]), np.pi - half, half)
    # Root mean squares at the standard deviations of the integrals, which are not below _FLAT.
    own1, own2 = (np.stack([points[0], *roots(factors, phi, points[0])]) for points in (points1, points2))
    pairs = sector_pairs(factors, phi, own1[:, i], own2[:, j], angles)
    if pairs is None:
        raise ValueError(_refusal(max(points1[0].max(), points2[0].max()), "all pairs of points"))
    keep_pairs(i, j, *pairs, points1, points2, gap, product)


def roots(factors: int, phi: Phi, s: np.ndarray) -> np.ndarray:
    """Root mean squares of both functions g of ``pair_factors`` for standard deviations ``s`` (n,); (2, n)."""
    block = block_of(phi.code)
    if block.analytic:
        own = np.empty((2, s.size))
        failed = _fill_roots(factors, phi, s, _CHANGE if block.shipped else _OWN_CHANGE, own)
    else:
        own, failed = sector_roots(factors, phi, s)
    if failed:
        raise ValueError(_refusal(s.max(), f"{failed} of {s.size} points"))
    return own


def _refusal(largest: float, what: str) -> str:
    return (
        f"the infinite-width limit did not reach a relative error of {TOLERANCE:g} for {what}: pre-activations have "
        f"standard deviations up to {largest:.3g}; scale the inputs or sigma_w down"
    )


@jit
def _fill_roots(factors, phi, s, change, own):
    failed = 0
    for i in range(s.size):
        own[0, i], own[1, i], settled = _root(factors, phi, s[i], change)
        failed += not settled
    return failed


@jit
def _root(factors, phi, s, change):
    """Both root mean squares of one point by a trapezoidal rule, and whether they settled.

    On an analytic function that decays like a Gaussian it converges like exp(-2 pi a / h), a the distance of the nearest
    pole, pi / (2 s) for tanh (Trefethen & Weideman 2014). The first step suits tanh, and is halved until the sums settle.
    """
    g = np.full((2, 1), s)
    pair_factors(factors, phi, g[0], g[1])
    value_unit = abs(g[0, 0]) if s < _SMALL and g[0, 0] != 0 else 1.0
    slope_unit = abs(g[1, 0]) if s < _SMALL and g[1, 0] != 0 else 1.0
    reach = _REACH
    count = int(_REACH / 0.22 * max(1.0, s)) if s < _MAX_POINTS else _MAX_POINTS + 1
    while count <= _MAX_POINTS:
        step = reach / count
        g = np.empty((2, 2 * count + 1))
        for i in range(-count, count + 1):
            g[0, count + i] = s * (step * i)
        pair_factors(factors, phi, g[0], g[1])
        value, slope, coarse_value, coarse_slope = 0.0, 0.0, 0.0, 0.0
        for i in range(-count, count + 1):
            x = step * i
            weight = math.exp(-0.5 * x * x) * (step / math.sqrt(2 * math.pi))
            a, b = g[0, count + i] / value_unit, g[1, count + i] / slope_unit
            value += weight * a * a
            slope += weight * b * b
            if i % 2 == 0:
                coarse_value += 2 * weight * a * a
                coarse_slope += 2 * weight * b * b
        ends, slope_ends = _ends(g[0], value_unit), _ends(g[1], slope_unit)
        weight = math.exp(-0.5 * reach * reach) * (step / math.sqrt(2 * math.pi))
        if (weight * ends > _ENDS * value or weight * slope_ends > _ENDS * slope) and reach < _FARTHEST:
            count, reach = 2 * count, min(2 * reach, _FARTHEST)
            continue
        if abs(value - coarse_value) <= change * value and abs(slope - coarse_slope) <= change * slope:
            return value_unit * math.sqrt(value), slope_unit * math.sqrt(slope), True
        count *= 2
    return np.nan, np.nan, False


@jit
def _ends(g, unit):
    """The sum of squares of the first and last value."""
    return (g[0] / unit) * (g[0] / unit) + (g[-1] / unit) * (g[-1] / unit)


def _nodes(n: int) -> np.ndarray:
    """Chebyshev points in (-1, 1), in the order of the cosine transform."""
    return np.cos((np.arange(n) + 0.5) * (np.pi / n))


def _span(points1: np.ndarray, points2: np.ndarray) -> np.ndarray:
    """arsinh of the least and of the largest standard deviation."""
    return np.arcsinh([min(points1[0].min(), points2[0].min()), max(points1[0].max(), points2[0].max())])


def _first_sizes(span: np.ndarray) -> tuple[int, int]:
    """Guesses of a series' sizes: singularities at a distance of 1.4 (pi/2 for tanh), and the terms in the angle of tanh."""
    width = (span[1] - span[0]) / 2
    p = 3 + int(27.6 / math.asinh(1.4 / width)) if width > _SAME else 1
    return p, 8 + 2 * int(17 * math.sqrt(math.sinh(span[1])))


def _series(factors: int, phi: Phi, span: np.ndarray) -> np.ndarray:
    """Chebyshev coefficients (2, p, p, q) of both correlations in arsinh s1, arsinh s2 and z.

    arsinh is log where s is large and linear down to a point without variance; z = cos(t/2) - sin(t/2) of the angle t is
    smooth in t, odd in the correlation, which is z sqrt(2 - z^2), and takes no arccosine. Sizes grow until the last two
    terms in each direction add to less than ``TAIL``.
    """
    from scipy.fft import dctn  # a quarter of a second, which networks with closed forms do not need

    width = (span[1] - span[0]) / 2
    p, q = _first_sizes(span)
    while p <= _MAX_SIZES[0] and q <= _MAX_SIZES[1]:
        z = _nodes(q)
        with one_blas_thread():  # the products are small
            values = _correlations(factors, phi, np.sinh(span.mean() + width * _nodes(p)), z * np.sqrt(2 - z * z))
        if values is None:
            break
        series = dctn(values, axes=(1, 2, 3)) / (p * p * q)
        series[:, 0] /= 2
        series[:, :, 0] /= 2
        series[..., 0] /= 2
        sizes = np.abs(series)
        wide = p == 1 or sizes[:, :, -2:].sum(axis=(1, 2, 3)).max() <= TAIL
        long = sizes[..., -2:].sum(axis=(1, 2, 3)).max() <= TAIL
        if wide and long:
            return series
        p, q = p if wide else p + p // 2, q if long else 2 * (3 * q // 4)
    raise ValueError(_refusal(math.sinh(span[1]), "all pairs of points"))


def _correlations(factors: int, phi: Phi, s: np.ndarray, rho: np.ndarray) -> np.ndarray | None:
    """E[g(u) g(v)] over the root mean squares of both, for p standard deviations and q correlations, (2, p, p, q).

    None if that takes more than ``_MAX_TERMS`` terms of Mehler's series, or sums do not settle.
    """
    if not block_of(phi.code).analytic:
        return sector_correlations(factors, phi, s, rho)
    first, second = np.triu_indices(s.size)
    capacity = 2 * _CHUNK * int(1 + s.max() ** 2)
    while capacity <= _MAX_TERMS:
        folded = _folded(factors, phi, s, capacity)
        if folded is None:
            return None
        x, parts, whole = folded
        rest, upper = whole.copy(), np.zeros((2, first.size, rho.size))
        rows, powers = np.zeros((_CHUNK + 2, x.size)), rho ** np.arange(_CHUNK)[:, None]
        rows[1] = 1.0
        for degree in range(0, capacity, _CHUNK):
            check()
            _hermite(degree, x, rows)
            alive = np.abs(powers[0]) > 1e-18
            for f, odd in np.ndindex(2, 2):
                c = parts[f, odd] @ rows[1 + odd : -1 : 2].T
                if c.any():
                    upper[f][:, alive] += (c[first] * c[second]) @ powers[odd::2, alive]
                    rest[f] -= (c * c).sum(axis=1)
            if (rest <= _REST * whole).all():
                values, root = np.empty((2, s.size, s.size, rho.size)), np.sqrt(np.where(whole > 0, whole, 1.0))
                values[:, first, second] = values[:, second, first] = upper / (root[:, first] * root[:, second])[:, :, None]
                return values
            rows[:2], powers = rows[-2:], powers * rho**_CHUNK
        capacity *= 2
    return None


def _folded(factors: int, phi: Phi, s: np.ndarray, terms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Half of a trapezoidal rule for as many Hermite coefficients of the functions of s x, and their second moments (2, p).

    Points x > 0, and the functions' even and odd parts on them with weights, (2, 2, p, points). The step resolves the
    product of the last Hermite polynomial, which has frequencies up to sqrt(terms), and of a function that so many terms
    represent. Half of the Gaussian weight belongs to the polynomial, hence a longer reach. None if functions grow beyond it.
    """
    step = 2 * math.pi / (4 * math.sqrt(terms) + 10)
    for reach in (12.5, 25.0):
        x = step * (np.arange(int(reach / step)) + 0.5)
        right, left = np.empty((2, s.size, x.size)), np.empty((2, s.size, x.size))
        _evaluate(factors, phi, s, x, right)
        _evaluate(factors, phi, s, -x, left)
        weights = np.exp(-0.5 * x * x) * (step / math.sqrt(2 * math.pi))
        whole = (weights * (right * right + left * left)).sum(axis=2)
        ends = np.exp(-0.25 * x[-1] * x[-1]) * np.maximum(np.abs(right[..., -1]), np.abs(left[..., -1]))
        if (ends <= _ENDS * np.sqrt(whole)).all():
            return x, np.stack([weights * (right + left), weights * (right - left)], axis=1), whole
    return None


@jit
def _evaluate(factors, phi, s, x, g):
    for a in range(s.size):
        for i in range(x.size):
            g[0, a, i] = s[a] * x[i]
        pair_factors(factors, phi, g[0, a], g[1, a])


@jit
def _hermite(first, x, rows):
    """From the normalised Hermite polynomials of degrees first - 1 and first, in rows 0 and 1, those of the next degrees."""
    wide_vectors()
    for r in range(2, rows.shape[0]):
        degree = first + r - 2
        forward, back = 1 / math.sqrt(degree + 1), math.sqrt(degree / (degree + 1))
        for i in range(x.size):
            rows[r, i] = forward * x[i] * rows[r - 1, i] - back * rows[r - 2, i]


def _basis(s: np.ndarray, span: np.ndarray, p: int) -> np.ndarray:
    """Chebyshev polynomials in arsinh s, (n, p)."""
    width = (span[1] - span[0]) / 2
    at = np.clip((np.arcsinh(s) - span.mean()) / width, -1, 1) if p > 1 else np.zeros_like(s)
    return np.ascontiguousarray(chebvander(at, p - 1))
