"""Triangular factors of Gram matrices in the points' order, without pivoting: A = R'R with R upper triangular.

A direction belongs to the point that adds it. A point whose pivot is below the cut adds none: its row of R is zero. A pivoted
factor, or a library's, would make a different network of every tie and every rounding. So this is code of our own, in float64
whatever the precision of the network: plain loops over explicit fused multiply-adds, which every device rounds alike.
"""

import math

from ntksim.engine.compiled.jit import fma, jit_inline, jit_inner, wide_vectors


@jit_inline
def eliminated(value, factor, entry):
    """What is left of an entry without a factor's row, rounded once."""
    return fma(-factor, entry, value)


@jit_inline
def adds_no_direction(pivot, square, cut):
    """Whether a pivot counts as nothing beside its point's own square; NaN and infinities never do."""
    return pivot <= cut * square < math.inf


@jit_inner
def _subtract_products(factors, rows, target):
    """target <- target - factors' rows, row after row; four of them a pass, which changes no bit but reads target less often."""
    wide_vectors()
    done = factors.size // 4 * 4
    for i in range(0, done, 4):
        f0, f1, f2, f3 = factors[i], factors[i + 1], factors[i + 2], factors[i + 3]
        row0, row1, row2, row3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
        for j in range(target.size):
            two = eliminated(eliminated(target[j], f0, row0[j]), f1, row1[j])
            target[j] = eliminated(eliminated(two, f2, row2[j]), f3, row3[j])
    for i in range(done, factors.size):
        factor, row = factors[i], rows[i]
        for j in range(target.size):
            target[j] = eliminated(target[j], factor, row[j])


@jit_inner
def _divide(row, divisor):
    for j in range(row.size):
        row[j] = row[j] / divisor


@jit_inner
def factorise(gram, cut, r):
    """R of ``gram`` = R'R, both (n, n); only the upper half of ``gram`` is read, and of ``r`` all is written.

    The pivot of point j is what its diagonal entry A_jj has left after the points before it; at most ``cut`` A_jj counts as
    nothing. Infinities and NaN spread: they are never taken for nothing.
    """
    for k in range(gram.shape[0]):
        r[k, :k] = 0
        row, given = r[k, k:], gram[k, k:]
        for j in range(row.size):
            row[j] = given[j]
        _subtract_products(r[:k, k], r[:k, k:], row)
        if adds_no_direction(row[0], given[0], cut):
            row[:] = 0
        else:
            _divide(row, math.sqrt(row[0]))


@jit_inner
def invert(r, inverse):
    """R^+ (n, n), with which H R^+ has orthonormal columns for H'H = R'R, and a zero row and column for every zero row of R.

    The rest is the inverse of R without the rows and columns of points that add no direction.
    """
    for i in range(r.shape[0] - 1, -1, -1):
        row = inverse[i]
        row[:] = 0
        if r[i, i] != 0:
            row[i] = 1
            _subtract_products(r[i, i + 1 :], inverse[i + 1 :, i + 1 :], row[i + 1 :])
            _divide(row[i:], r[i, i])
