"""Loops over gates, and over the blocks of their Gram matrix, most of which are of one or two rows: `block_matrices` and `gates`
have the algebra.

A matrix is a flat array ``data`` of its blocks, one after the other and each row by row; ``counts`` are their sizes, and
``order`` their members. Where members of a block depend on each other, as gates of a neuron may, its matrix is singular:
``NULL`` times its diagonal is added to it before it is solved with.
"""

from typing import NamedTuple

import numpy as np

from ntksim.engine.compiled.jit import jit, jit_inner

NULL = 1e-10
_AT_ONCE, _ROUNDS = 8, 500
_SLACK = 1e-7  # relative


@jit
def product(order, counts, data, turned, x, given, out, wanted):
    """out <- D x, or D' x if ``turned``: member c's row of x is ``given[c]`` and of out ``wanted[c]``; negative for none."""
    first, at = 0, 0
    for k in counts:
        for i in range(k):
            to = wanted[order[first + i]]
            if to < 0:
                continue
            row = out[to]
            row[:] = 0
            for j in range(k):
                source = given[order[first + j]]
                factor = data[at + (j * k + i if turned else i * k + j)]
                if source >= 0 and factor != 0:
                    own = x[source]
                    for n in range(row.size):
                        row[n] += factor * own[n]
        first, at = first + k, at + k * k


@jit
def block_products(counts, a, turned, b, out):
    """out <- A B, or A' B if ``turned``, block by block."""
    at = 0
    for k in counts:
        end = at + k * k
        own, left, right = out[at:end].reshape(k, k), a[at:end].reshape(k, k), b[at:end].reshape(k, k)
        own[:] = 0
        for i in range(k):
            row = own[i]
            for j in range(k):
                factor = left[j, i] if turned else left[i, j]
                if factor != 0:
                    for n in range(k):
                        row[n] += factor * right[j, n]
        at = end


@jit
def mix(order, counts, data, m, point, b, both, added, other):
    """both += C M' for the M with ``m[a, c]`` in row ``point[c]`` k + a of column c; added += M both, other += M B."""
    outputs, first, at = len(m), 0, 0
    for k in counts:
        for j in range(k):
            c = order[first + j]
            for a in range(outputs):
                for i in range(k if m[a, c] != 0 else 0):
                    both[order[first + i], point[c] * outputs + a] += data[at + i * k + j] * m[a, c]
        first, at = first + k, at + k * k
    for c in range(len(b)):
        for a in range(outputs):
            factor, row, own = m[a, c], added[point[c] * outputs + a], both[c]
            for n in range(row.size if factor != 0 else 0):
                row[n] += factor * own[n]
            row, own = other[point[c] * outputs + a], b[c]
            for n in range(row.size if factor != 0 else 0):
                row[n] += factor * own[n]


@jit
def sensitivities_times_gram(delta, neuron, point, gram, out):
    """out[c, i, a] = delta[j, a, i] gram[l, i] for the neuron j and the point l of every gate c."""
    for c in range(len(out)):
        own, row = delta[neuron[c]], gram[point[c]]
        for i in range(row.size):
            for a in range(len(own)):
                out[c, i, a] = own[a, i] * row[i]


@jit
def add_rows(factors, neuron, point, h, out):
    """out[j] += factors[c] h[l] for the neuron j and the point l of every gate c."""
    for c in range(factors.size):
        row, own = out[neuron[c]], h[point[c]]
        for i in range(row.size if factors[c] != 0 else 0):
            row[i] += factors[c] * own[i]


@jit
def first_zeros(marks, values, slopes, halvings, out):
    """When functions of time are first at or below 0: cubics between ``marks`` (T,) with these ``values`` and ``slopes`` (p, T).

    What is above 0 at every mark is looked for in the last interval.
    """
    for c in range(len(out)):
        k = 1
        while k < marks.size - 1 and values[c, k] > 0:
            k += 1
        low, high, length = marks[k - 1], marks[k], marks[k] - marks[k - 1]
        first, change = values[c, k - 1], values[c, k] - values[c, k - 1]
        rising, falling = slopes[c, k - 1] * length - change, change - slopes[c, k] * length
        for _ in range(halvings):
            middle = 0.5 * (low + high)
            s = (middle - marks[k - 1]) / length
            if first + s * (change + (1 - s) * ((1 - s) * rising + s * falling)) > 0:
                low = middle
            else:
                high = middle
        out[c] = 0.5 * (low + high)


@jit_inner
def _factor(a, k):
    """The upper factor U of the first ``k`` rows of a symmetric matrix, a = U'U, in its place."""
    for j in range(k):
        row = a[j]
        pivot = np.sqrt(max(row[j], NULL))
        for n in range(j, k):
            row[n] /= pivot
        for i in range(j + 1, k):
            own, factor = a[i], row[i]
            for n in range(i, k):
                own[n] -= factor * row[n]


@jit_inner
def _unit(c):
    """One over the root of a number of the diagonal."""
    return 1 / np.sqrt(max(c, np.finfo(np.float64).tiny))


@jit
def roots(order, counts, data, chosen, out):
    """R with R'R the inverse of the part of the ``chosen`` members, 0 elsewhere: on its lower triangles, of chosen members."""
    longest = counts.max()
    a, root = np.empty((longest, longest)), np.empty((longest, longest))
    members, unit = np.empty(longest, np.int64), np.empty(longest)
    first, at = 0, 0
    for k in counts:
        size = 0
        for i in range(k):
            if chosen[order[first + i]]:
                members[size], unit[size] = i, _unit(data[at + i * k + i])
                size += 1
        for i in range(k * k):
            out[at + i] = 0
        for i in range(size):
            for j in range(size):
                a[i, j] = data[at + members[i] * k + members[j]] * unit[i] * unit[j]
            a[i, i] += NULL
        _factor(a, size)
        for i in range(size):  # the factor's inverse, row by row
            row = root[i]
            for n in range(i):
                row[n] = 0
            row[i] = unit[i]
            for j in range(i):
                other, factor = root[j], a[j, i]
                for n in range(j + 1):
                    row[n] -= factor * other[n]
            for n in range(i + 1):
                out[at + members[i] * k + members[n]] = row[n] = row[n] / a[i, i]
        first, at = first + k, at + k * k


class _Box(NamedTuple):
    """The least q'C q / 2 - v'q in a box: one block of it, of unit diagonal, in arrays that have room for the largest block.

    ``at`` is -1 where q is at ``low``, 1 at ``high`` and 0 between; ``pulls`` are C q - v; what is free is solved for in ``a``
    and ``x``, and ``free`` are its numbers.
    """

    c: np.ndarray
    v: np.ndarray
    low: np.ndarray
    high: np.ndarray
    q: np.ndarray
    at: np.ndarray
    pulls: np.ndarray
    goal: np.ndarray
    a: np.ndarray
    x: np.ndarray
    free: np.ndarray


@jit
def least(order, counts, data, v, low, high, q, where):
    """`Blocks.least`, block by block."""
    longest = counts.max()
    flat, square, integers = np.empty((7, longest)), np.empty((2, longest, longest)), np.empty((2, longest), np.int64)
    box = _Box(
        square[0], flat[0], flat[1], flat[2], flat[3], integers[0], flat[4], flat[5], square[1], flat[6], integers[1]
    )  # fmt: skip
    first, at = 0, 0
    for k in counts:
        for i in range(k):
            member, own = order[first + i], _unit(data[at + i * k + i])
            box.v[i], box.low[i], box.high[i] = v[member] * own, low[member] / own, high[member] / own
            for j in range(k):
                box.c[i, j] = data[at + i * k + j] * own * _unit(data[at + j * k + j])
        _least(box, k)
        for i in range(k):
            member = order[first + i]
            q[member], where[member] = box.q[i] * _unit(data[at + i * k + i]), box.at[i]
        first, at = first + k, at + k * k


@jit_inner
def _least(box, k):
    """`Blocks.least` of one block: all violated conditions change sides at once (Judice & Pires 1994), a few times, and where
    that does not end, one after the other.
    """
    q, at, low, high, slack, settled = box.q, box.at, box.low, box.high, 0.0, False
    for i in range(k):
        # of what cannot be told: gates of one neuron may depend on each other
        slack, at[i] = max(slack, _SLACK * abs(box.v[i])), 0
    for _ in range(_AT_ONCE):
        for i in range(k):
            q[i] = low[i] if at[i] < 0 else high[i]
        _rest(box, k, q)
        _pull(box, k, q)
        settled = True
        for i in range(k):
            now, margin = at[i], _SLACK * (high[i] - low[i])
            if high[i] > low[i] and now == 0:
                now = 1 if q[i] > high[i] + margin else -1 if q[i] < low[i] - margin else 0
            elif high[i] > low[i] and now * box.pulls[i] > slack:
                now = 0
            if now != at[i]:
                at[i], settled = now, False
        if settled:
            break
    if not settled:
        _descend(box, k, slack)
        _pull(box, k, q)
    for i in range(k):
        q[i] = min(max(q[i], low[i]), high[i])
        if not high[i] > low[i]:
            at[i] = 1 if box.pulls[i] < 0 else -1


@jit_inner
def _pull(box, k, q):
    """Fill in C q - v."""
    for i in range(k):
        box.pulls[i] = -box.v[i]
    for j in range(k):
        row, own = box.c[j], q[j]
        for i in range(k):
            box.pulls[i] += row[i] * own


@jit_inner
def _rest(box, k, q):
    """Put what is free in q, neither at a bound nor unable to move, to where it is at rest while the others stay."""
    a, x, free, size = box.a, box.x, box.free, 0
    for i in range(k):
        if box.at[i] == 0 and box.high[i] > box.low[i]:
            q[i], free[size] = 0, i
            size += 1
    _pull(box, k, q)
    for i in range(size):
        x[i] = -box.pulls[free[i]]
        for j in range(size):
            a[i, j] = box.c[free[i], free[j]]
        a[i, i] += NULL
    _factor(a, size)
    for i in range(size):
        x[i] /= a[i, i]
        for n in range(i + 1, size):
            x[n] -= a[i, n] * x[i]
    for i in range(size - 1, -1, -1):
        for n in range(i + 1, size):
            x[i] -= a[i, n] * x[n]
        x[i] /= a[i, i]
        q[free[i]] = x[i]


@jit_inner
def _descend(box, k, slack):
    """`_least` from some q on by steps that stay in the box and always descend: one bound is met, or left, at a time."""
    q, at, low, high, goal = box.q, box.at, box.low, box.high, box.goal
    for i in range(k):
        q[i] = min(max(q[i], low[i]), high[i])
        at[i] = -1 if q[i] <= low[i] else 1 if q[i] >= high[i] else 0
    for _ in range(_ROUNDS):
        for i in range(k):
            goal[i] = q[i]
        _rest(box, k, goal)
        share, first = 1.0, -1
        for i in range(k):
            step = goal[i] - q[i]
            reach = ((high[i] if step > 0 else low[i]) - q[i]) / step if step != 0 else np.inf
            if reach < share:
                share, first = reach, i
        for i in range(k):
            goal[i] -= q[i]
            q[i] += share * goal[i]
        if first >= 0:
            q[first], at[first] = (high[first], 1) if goal[first] > 0 else (low[first], -1)
            continue
        _pull(box, k, q)
        worst, leaves = slack, -1
        for i in range(k):
            if high[i] > low[i] and at[i] * box.pulls[i] > worst:
                worst, leaves = at[i] * box.pulls[i], i
        if leaves < 0:
            return
        at[leaves] = 0
