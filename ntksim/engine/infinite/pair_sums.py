"""Chebyshev series of the correlations of pairs of points, summed for all pairs, and where the correlations of a pair are kept.

What is summed is a series in arsinh s1, arsinh s2 and z = cos(t/2) - sin(t/2) of the angle t (`expectations`).
"""

import math

import numpy as np
from numba import prange

from ntksim.engine.compiled.jit import fma, jit, jit_parallel, wide_vectors

TOLERANCE = 1e-10  # relative to the root of the product of both points' second moments
TAIL = 0.01 * TOLERANCE  # what the last terms of a series may add to, and what is left out of it
_COLUMNS = 256  # pairs side by side: what a row works on stays in the first-level cache


@jit
def keep_pairs(i, j, values, slopes, points1, points2, gap, product):
    """The correlations of pairs i, j (n,) -> their places in gaps and products."""
    for k in range(i.size):
        _keep_pair(values[k], slopes[k], points1[:, i[k]], points2[:, j[k]], gap[i[k]], product[i[k]], j[k])


@jit
def _keep_pair(value, slope, one, other, gap, product, j):
    """A pair's correlations -> its place in rows of gaps and products."""
    if gap[j] == 0 and one[0] == other[0]:  # g(u) and g(u), or g(-u): whatever errors layers would amplify
        value, slope = _settled(value), _settled(slope)
    gap[j] = math.copysign(max(1 - abs(value), 0.0), value) if one[1] * other[1] > 0 else 1.0
    product[j] *= one[2] * other[2] * slope


def by_parity(series: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The series in the order of its summation, without what adds to less than ``TAIL``.

    Returns coefficients (p, 4, q/2, 1 + a multiple of 4) by term in arsinh s1, function and parity in z, term in z, and
    term in arsinh s2; the number of terms in z of each function and parity, (4,); and how many groups of four terms in
    arsinh s2, beyond the first one, matter at each of them, (4, q/2).
    """
    p, q = series.shape[1], series.shape[3]
    beyond = np.cumsum(np.abs(series).sum(axis=1)[:, ::-1], axis=1)[:, ::-1]  # what the terms from each one on add to
    needed = (beyond > TAIL / q).sum(axis=1).reshape(2, q // 2, 2).transpose(0, 2, 1).reshape(4, q // 2)
    lengths = ((needed > 0) * np.arange(1, q // 2 + 1)).max(axis=1)
    groups = (needed + 2) // 4
    parts = np.zeros((p, 4, lengths.max(), 1 + 4 * groups.max()))
    ordered = series.reshape(2, p, p, q // 2, 2).transpose(1, 0, 4, 3, 2).reshape(p, 4, q // 2, p)
    count = min(p, parts.shape[3])
    parts[..., :count] = ordered[:, :, : parts.shape[2], :count]
    return parts, lengths, groups


def in_columns(right: np.ndarray, count: int) -> np.ndarray:
    """All but the first of ``count`` polynomials, (blocks, count - 1, _COLUMNS), padded with zeros."""
    blocks = -(-len(right) // _COLUMNS)
    padded = np.zeros((blocks * _COLUMNS, count - 1))
    padded[: len(right), : right.shape[1] - 1] = right[:, 1:count]
    return padded.reshape(blocks, _COLUMNS, count - 1).transpose(0, 2, 1).copy()


@jit_parallel
def sum_rows(first, end, symmetric, parts, lengths, groups, left, right, points1, points2, gap, product):
    """``correlations`` from the series; ``points`` hold s and the root mean squares of both functions.

    Rows number first..end in an order in which long and short ones take turns, for the balance of threads and slices.
    """
    rows = gap.shape[0]
    for r in prange(first, end):
        i = r // 2 if r % 2 == 0 else rows - 1 - r // 2
        _row(i, i if symmetric else 0, parts, lengths, groups, left, right, points1, points2, gap, product)


@jit
def _row(i, first, parts, lengths, groups, left, right, points1, points2, gap, product):
    left, point, gap, product = left[i], points1[:, i], gap[i], product[i]
    mixed = np.zeros(parts.shape[1:])
    for part in range(4):
        for a in range(left.size if lengths[part] > 0 else 0):
            _add(left[a], parts[a, part].ravel(), mixed[part].ravel())
    for block in range(first // _COLUMNS, right.shape[0]):
        start = block * _COLUMNS
        begin, stop = max(first, start), min(start + _COLUMNS, gap.size)
        work = np.empty((7, stop - begin))
        z, twice = work[0], work[1]
        _half_angle(gap[begin:stop], z, twice)
        for f in range(2):
            _sum(2 * f, mixed, lengths, groups, right[block], begin - start, z, twice, work[2 + f], work)
        for j in range(begin, stop):
            _keep_pair(work[2, j - begin], work[3, j - begin], point, points2[:, j], gap, product, j)


@jit
def _settled(value):
    """1 or -1 where a correlation is one of them but for the error of its series."""
    return math.copysign(1.0, value) if abs(abs(value) - 1) < TOLERANCE else value


@jit
def _half_angle(gap, z, twice):
    """z = cos(t/2) - sin(t/2) of the angle t, and 2 (2 z^2 - 1)."""
    wide_vectors()
    for j in range(gap.size):
        size = abs(gap[j])
        z[j] = math.copysign(math.sqrt(0.5) * (math.sqrt(2 - size) - math.sqrt(size)), gap[j])
        twice[j] = 4 * z[j] * z[j] - 2


@jit
def _sum(part, mixed, lengths, groups, right, offset, z, twice, total, work):
    """Both parities' series at z, by Clenshaw's recurrence in 2 z^2 - 1; ``right`` from the column ``offset`` on."""
    total[:] = 0
    for odd in range(2):
        last, before, now = work[4], work[5], work[6]
        last[:] = 0
        before[:] = 0
        for m in range(lengths[part + odd] - 1, -1, -1):
            terms = mixed[part + odd, m]
            _recur(terms[0], twice, last, before, now)
            for g in range(groups[part + odd, m]):
                _add_four(terms[1 + 4 * g :], right[4 * g : 4 * g + 4], offset, now)
            last, before, now = now, last, before
        for j in range(total.size):
            total[j] += z[j] * (last[j] - before[j]) if odd else last[j] - 0.5 * twice[j] * before[j]


@jit
def _recur(first, twice, last, before, now):
    wide_vectors()
    for j in range(now.size):
        now[j] = fma(twice[j], last[j], first - before[j])


@jit
def _add_four(factors, rows, offset, total):
    wide_vectors()
    f0, f1, f2, f3 = factors[0], factors[1], factors[2], factors[3]
    r0, r1, r2, r3 = rows[0][offset:], rows[1][offset:], rows[2][offset:], rows[3][offset:]
    for j in range(total.size):
        total[j] = fma(f3, r3[j], fma(f2, r2[j], fma(f1, r1[j], fma(f0, r0[j], total[j]))))


@jit
def _add(factor, values, total):
    wide_vectors()
    for i in range(total.size):
        total[i] = fma(factor, values[i], total[i])
