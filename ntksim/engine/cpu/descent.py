"""Training on the CPU: the pull-back of a vector of outputs to the parameters, and steps of gradient descent.

A step is theta <- theta - eta J' g, where g are the loss's derivatives with respect to the outputs, r for 1/2 sum_i r_i^2; each
layer's part of it times the layer's rate (`layer_rates`). Of one output, row i of J in layer l is the sensitivity delta^l_i times
the activations below: with both at hand, J' v is one product a layer, and a snapshot of the kernel costs its Gram matrices and no
further pass. For several outputs a step goes back once, with g.f in place of f.
"""

import numpy as np
from numba import prange, types

from ntksim.engine.compiled.by_address import by_address, by_value
from ntksim.engine.compiled.jit import compiled_once, jit, jit_allocating, jit_inner, jit_parallel
from ntksim.engine.compiled.slices import is_due
from ntksim.engine.cpu.draws import argument_types
from ntksim.engine.cpu.passes import evaluate, go_back, gram_of_points, sensitivity_columns, share
from ntksim.engine.cpu.product import multiply
from ntksim.engine.formulas.layer import add_bias_pull, add_readout_pull, begin_step, descended, end_step, weigh_sensitivity
from ntksim.engine.formulas.losses import point_gradient

_INDEX = types.intp
_ROWS = 96  # rows of a weight matrix that a thread updates at a time
_PULLED = 1 << 31  # multiply-adds of rows that are updated in one part of the work, by each thread


@jit_allocating
def _pull_rows(net, weights, room, pairs, layer, vector, below, r0, r1):
    """W <- W - rate g (v o delta)' h^(l-1), b <- b - rate beta v.delta of neurons r0..r1; ``below`` (n, length) is h^(l-1)'."""
    rate = net.scales[4, layer - 1]
    weight, bias = rate * net.scales[0, layer - 1], rate * net.scales[2, layer - 1]
    columns, n, length = sensitivity_columns(room, pairs), vector.shape[1], net.lengths[layer - 1]
    theta, offsets = weights.flat, weights.offsets
    weighted = np.empty((min(_ROWS, r1 - r0), n), theta.dtype)
    for begin in range(r0, r1, _ROWS):
        end = min(begin + _ROWS, r1)
        weighted[:] = 0
        for r in range(begin, end):
            for a in range(vector.shape[0]):
                at = room.delta_at[layer] + r * columns + a * pairs.points
                delta = room.delta[at : at + n]
                weigh_sensitivity(weight, vector[a], delta, weighted[r - begin])
                add_bias_pull(bias, vector[a], delta, theta, offsets[2 * layer - 1] + r)
        at = offsets[2 * layer - 2] + begin * length
        multiply(weighted.reshape(weighted.size), 0, 1, n, below, 0, length, length, theta, at, length, end - begin, n, False)


@jit_parallel
def _pull_shared(threads, net, weights, room, pairs, layer, vector, below, begin, end):
    for thread in prange(threads):
        r0, r1 = share(begin, end, threads, thread)
        if r0 < r1:
            _pull_rows(*by_address((net, weights, room, pairs)), layer, vector, below, r0, r1)


@jit_inner
def _transpose(h, length, out):
    """Rows of ``length`` numbers, one for each of as many points as ``out`` has room for in all, zeros at their ends."""
    out[:] = 0
    points = min(h.shape[1], out.size // length)
    for r0 in range(0, h.shape[0], 16):
        r1 = min(r0 + 16, h.shape[0])
        for i in range(points):
            for r in range(r0, r1):
                out[i * length + r] = h[r, i]


@compiled_once(lambda real: (_INDEX, *argument_types(real)[1:], real[:, ::1]), jit_allocating)
def pull_back(threads, net, weights, room, pairs, vector):
    """theta <- theta - rate J' vector, for the theta in ``weights`` and J where ``room`` has been evaluated, perhaps elsewhere.

    ``vector`` is (k, n); where sensitivities are those of a vector's product, it must be that one. Frozen layers, of rate 0, are
    left as they are.
    """
    last, n, points = net.widths.size - 2, vector.shape[1], pairs.points
    theta, offsets, kind = weights.flat, weights.offsets, vector.dtype.type
    h = room.h[room.at[last] : room.at[last] + net.widths[last] * points].reshape(net.widths[last], points)
    rates = net.scales[4]
    for a in range(vector.shape[0] if rates[last] > 0 and is_due(room.window) else 0):
        at = offsets[2 * last] + a * net.lengths[last]
        add_readout_pull(rates[last] * net.scales[0, last], vector[a], h, theta[at : at + net.widths[last]])
        for i in range(n):
            at = offsets[2 * last + 1] + a
            theta[at] = descended(theta[at], kind(rates[last] * net.scales[2, last]), vector[a, i])
    factors = np.ones((1, n), vector.dtype) if room.pulled else vector
    below = np.zeros(n * np.max(net.lengths[: last + 1]), theta.dtype)
    for layer in range(1, last + 1):
        if rates[layer - 1] == 0:
            continue
        length, at, ready = net.lengths[layer - 1], room.at[layer - 1], False
        some = net.widths[layer]
        if some * n * length > threads * _PULLED:
            some = threads * _ROWS * max(1, _PULLED // (_ROWS * n * length))
        for begin in range(0, net.widths[layer], some):
            if not is_due(room.window):
                continue
            if not ready:
                _transpose(room.h[at : at + net.widths[layer - 1] * points].reshape(net.widths[layer - 1], points), length, below)
                ready = True
            end = min(begin + some, net.widths[layer])
            if threads > 1:
                _pull_shared(threads, *by_value((net, weights, room, pairs)), layer, factors, below, begin, end)
            else:
                _pull_rows(net, weights, room, pairs, layer, factors, below, begin, end)


@jit
def square_distance_and_norm(a, b):
    """||a - b||^2 and ||b||^2 of flat arrays, in float64."""
    distance, norm = 0.0, 0.0
    for i in range(a.size):
        d = np.float64(a[i]) - np.float64(b[i])
        distance += d * d
        norm += np.float64(b[i]) * np.float64(b[i])
    return distance, norm


@jit
def relative_distance(a, b):
    """||a - b|| / ||b|| of flat arrays, in float64; 0 if they are equal, zeros too."""
    distance, norm = square_distance_and_norm(a, b)
    return np.sqrt(distance) / np.sqrt(norm) if distance != 0 else 0.0


@jit
def evaluate_at(threads, seed, net, weights, room, pairs):
    """:func:`cpu.passes.evaluate`, for Python, the Gram matrix of the points included."""
    own_net, own_weights, own_room, own_pairs = by_address((net, weights, room, pairs))
    if is_due(room.window):
        gram_of_points(own_net, own_room, own_pairs)
    evaluate(threads, seed, own_net, own_weights, own_room, own_pairs)


@jit
def pull_back_at(threads, net, weights, room, pairs, vector):
    """:func:`pull_back`, for Python."""
    pull_back(threads, *by_address((net, weights, room, pairs)), vector)


@jit_allocating
def _step(threads, net, weights, moving, room, pairs, gradient, step):
    """A `machine.Step`, where J' ``gradient`` = rate g, and ``moving`` holds w = -eta v."""
    theta, velocity, offsets = weights.flat, moving.flat, weights.offsets
    if is_due(room.window) and (step.momentum != 0 or step.decay != 0):
        for layer in range(net.widths.size - 1):
            for i in range(offsets[2 * layer], offsets[2 * layer + 2]):
                begin_step(theta, velocity, i, step.decay * net.scales[4, layer], step)
    pull_back(threads, net, weights if step.momentum == 0 else moving, room, pairs, gradient)
    for i in range(theta.size if step.momentum != 0 and is_due(room.window) else 0):
        end_step(theta, velocity, i, step)


@jit_inner
def _gather(columns, chosen, room, pairs):
    """Put the ``chosen`` points of ``columns`` in place as h^0."""
    for d in range(columns.shape[0]):
        row = room.h[d * pairs.points : (d + 1) * pairs.points]
        for i in range(chosen.size):
            row[i] = columns[d, chosen[i]]


@jit_allocating
def _advance(threads, seed, net, weights, moving, room, pairs, columns, y, gradient, whole, order, step, steps, ready):
    size = y.shape[0] if whole else order.shape[1]
    scaled, exact = step.rate * y.shape[0] / size, np.empty(gradient.shape)
    for number in range(steps):
        if not whole and is_due(room.window):
            _gather(columns, order[number], room, pairs)
        if number > 0 or not ready:
            evaluate(threads, seed, net, weights, room, pairs)
        if is_due(room.window):
            loss = 0.0
            for i in range(size):
                loss += point_gradient(step.loss, room.outputs, i, y[i if whole else order[number, i]], exact)
            if not np.isfinite(loss):
                return number
            for a in range(y.shape[1]):
                for i in range(size):
                    gradient[a, i] = scaled * exact[a, i]
            if room.pulled:
                room.vector[:, :size] = gradient
        if room.pulled:
            go_back(threads, seed, net, weights, room, pairs)
        _step(threads, net, weights, moving, room, pairs, gradient, step)
    return steps


@jit
def advance(threads, seed, net, weights, moving, room, pairs, columns, y, gradient, whole, order, step, steps, ready):
    """Take some steps of gradient descent in place; returns their number, below ``steps`` if outputs ceased to be finite.

    Steps are ``whole`` ones, of all points; ``ready`` says that the network has been evaluated in ``room``. Otherwise
    ``order`` (steps, size) holds the points of each step among ``columns`` (d, n), and ``room`` is one for so many. Targets ``y``
    are (n, k). ``moving`` holds -eta v in the layout of the parameters, and nothing without momentum. ``gradient`` (k, size) is
    scratch, which stays where a step is made in parts.
    """
    return _advance(
        threads, seed, *by_address((net, weights, moving, room, pairs)), columns, y, gradient, whole, order, step, steps, ready
    )
