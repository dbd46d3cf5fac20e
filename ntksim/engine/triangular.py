"""Triangular factors of Gram matrices in the points' order, without pivoting: A = R'R with R upper triangular.

A direction belongs to the point that adds it. A point whose pivot is below the cut adds none: its row of R is zero. A pivoted
factor, or a library's, would make a different network of every tie and every rounding. So this is code of our own, in float64
whatever the precision of the network: plain loops over explicit fused multiply-adds, which every device rounds alike.
"""

import math

from ntksim.engine.jit import fma, jit_inner, wide_vectors


@jit_inner
def _subtract_multiple(factor, row, target):
    """target <- target - factor row."""
    wide_vectors()
    for j in range(target.size):
        target[j] = fma(-factor, row[j], target[j])


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
    n = gram.shape[0]
    for i in range(n):
        r[i, :i] = 0
        for j in range(i, n):
            r[i, j] = gram[i, j]
    for k in range(n):
        pivot, row = r[k, k], r[k, k:]
        if pivot <= cut * gram[k, k] < math.inf:
            row[:] = 0
            continue
        _divide(row, math.sqrt(pivot))
        for i in range(k + 1, n):
            _subtract_multiple(r[k, i], r[k, i:], r[i, i:])


@jit_inner
def invert(r, inverse):
    """R^+ (n, n), with which H R^+ has orthonormal columns for H'H = R'R, and a zero column for every zero row of R.

    It is the inverse of R without the rows and columns of points that add no direction.
    """
    n = r.shape[0]
    for i in range(n - 1, -1, -1):
        row = inverse[i]
        row[:] = 0
        if r[i, i] == 0:
            continue
        for k in range(i + 1, n):
            if r[k, k] != 0:
                _subtract_multiple(r[i, k], inverse[k, k:], row[k:])
        row[i] = 1
        _divide(row[i:], r[i, i])
