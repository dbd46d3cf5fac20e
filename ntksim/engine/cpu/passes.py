"""Loops over seeds, layers and panels on the CPU: forward and backward passes, and the empirical kernel.

Structured form (Novak et al. 2022, for fully-connected networks): with delta^l = df/dz^l,

    K = g_(L+1)^2 H^L H^L' + beta_(L+1)^2 + sum_l (delta^l delta^l') o (g_l^2 H^(l-1) H^(l-1)' + beta_l^2),

so a kernel costs two passes over every weight matrix and two Gram matrices a layer, never a Jacobian. A weight matrix
is visited in panels of rows. Where weights are not stored (initial kernels), a panel is drawn into scratch: no m x m matrix
is ever held, but where it is small. A panel of the last hidden layer gives the sensitivities of its own neurons at once,
since delta^L = g a phi'(z^L) needs nothing else: its weights are drawn once and serve both passes, and none of the layer's
activations need be kept. So one hidden layer of any width takes the memory of a panel.

Each thread has seeds of its own, or for one wide network all share a panel's rows going forward and its columns going back.
Panels are added in order either way: bits depend neither on threads nor on how the seeds are split.
"""

import numpy as np
from numba import prange, types

from ntksim.engine.compiled.by_address import by_address, by_value
from ntksim.engine.compiled.jit import compiled_once, jit, jit_inner, jit_parallel
from ntksim.engine.compiled.slices import is_due
from ntksim.engine.cpu.draws import argument_types, draw_rows, get_biases, get_readout
from ntksim.engine.cpu.product import multiply
from ntksim.engine.formulas.layer import (
    add_layer_kernel,
    add_readout,
    add_readout_kernel,
    finish_layer,
    finish_sensitivity,
    readout_sensitivity,
)
from ntksim.engine.layout import LONGEST_VECTOR, Pairs

# Rows of a panel. The longer, the fewer times the sums below are read and written; the shorter, the more stays in cache.
PANEL = 96
# Middle layers of a network with at most so many weights are drawn once and kept; more are cheaper to draw than to fetch.
KEPT = 1 << 20
_CACHED = 1 << 21  # numbers that a processor's last cache holds for sure
_UNIT = 12  # threads share rows in multiples of the generator's four and the product's six
_GRAM_ROWS = 24  # of a kernel, at a time: the fewer, the less of the lower half is computed beside the upper one
FORWARD, BACK, BOTH = 0, 1, 2  # what a sweep over a layer does

_f32 = np.float32


# --- a panel ----------------------------------------------------------------------------------------------------------


@jit_inner
def share(begin, end, threads, thread):
    """The part of begin..end that a thread takes, in multiples of ``_UNIT``."""
    units = (end - begin + _UNIT - 1) // _UNIT
    first, last = units * thread // threads, units * (thread + 1) // threads
    return min(begin + first * _UNIT, end), min(begin + last * _UNIT, end)


@jit
def group_rows(threads, net):
    """Rows that are worked on at a time: a panel, or for several threads some more, that they may wait less for each other.

    Each should have two units, or better two panels as long as the group's weights stay in cache.
    """
    if threads == 1:
        return PANEL
    longest = 0
    for layer in range(net.lengths.size - 2):  # the last two are the readout's and the output's
        longest = max(longest, net.lengths[layer])
    least = (2 * _UNIT * threads + PANEL - 1) // PANEL
    return PANEL * max(least, min(2 * threads, _CACHED // (PANEL * longest)))


@jit_inner
def _weights_at(net, weights, layer, r, begin):
    """Where row ``r`` of W^layer, in the group of panels that starts at ``begin``, stands."""
    return weights.place[layer] + (r if weights.whole[layer] else r - begin) * net.lengths[layer - 1]


@jit_inner
def _row_at(net, room, pairs, layer, r, begin):
    """Where neuron ``r`` of a layer, in the group of panels that starts at ``begin``, stands behind the layer's start."""
    return (r - begin if room.streamed and layer == net.widths.size - 2 else r) * pairs.points


@jit_inner
def sensitivity_columns(room, pairs):
    """Columns of an array of sensitivities: the points, once for every output, or once for a vector's product."""
    return pairs.points if room.pulled else room.outputs.shape[0] * pairs.points


@jit_inner
def parts_of_points(pairs, outputs):
    """Parts in which an output's sensitivities stand: points of the kernel's columns and of its rows, if they are apart."""
    return 1 if outputs == 1 or pairs.symmetric else 2


@jit_inner
def part_of_points(pairs, outputs, a, part):
    """Where a part of an output's sensitivities stands in a row: its first point, their number, and their first column."""
    if part == 0:
        count = pairs.points if outputs == 1 else pairs.lanes
        return 0, count, a * count
    rest = pairs.points - pairs.lanes
    return pairs.lanes, rest, outputs * pairs.lanes + a * rest


@jit_inner
def _feature_pairs(room, pairs):
    """Pairs of points: both halves where the upper half of the kernel has blocks, of different outputs, that need them."""
    symmetric = pairs.symmetric and not room.joint
    return Pairs(pairs.first, pairs.rows, pairs.cols, pairs.lanes, pairs.points, symmetric)


@jit_inner
def _sensitivity_pairs(room, pairs, block):
    """The first column of a block of the kernel among sensitivities, and the pairs behind it."""
    outputs, rest = room.outputs.shape[0], pairs.points - pairs.first
    lanes, points = pairs.lanes, outputs * pairs.points
    if room.joint:
        return 0, Pairs(outputs * pairs.first, outputs * rest, outputs * lanes, outputs * lanes, points, pairs.symmetric)
    first = 0 if pairs.symmetric else outputs * lanes + block * (rest - lanes)
    return block * lanes, Pairs(first, pairs.rows, pairs.cols, lanes, points, pairs.symmetric)


@jit_inner
def _forward_rows(seed, net, weights, room, pairs, layer, begin, r0, r1):
    """Activations and slopes of neurons r0..r1; in the last hidden layer their sensitivities too, if there is room."""
    source, points = _weights_at(net, weights, layer, r0, begin), pairs.points
    if not weights.stored:
        draw_rows(seed, net, layer, r0, r1, weights.flat, source)
    offset, size = _row_at(net, room, pairs, layer, r0, begin), (r1 - r0) * points
    at = room.at[layer] + offset
    multiply(
        weights.flat, source, 1, net.lengths[layer - 1], room.h, room.at[layer - 1], points, points, room.h, at, points,
        r1 - r0, net.widths[layer - 1], True,
    )  # fmt: skip
    h, slope = room.h[at : at + size].reshape(r1 - r0, points), room.slope[at : at + size].reshape(r1 - r0, points)
    b = room.biases[r0 - begin : r1 - begin]
    get_biases(seed, net, weights, layer, r0, b)
    finish_layer(net, net.scales[0, layer - 1], net.scales[2, layer - 1], b, h, slope)
    if layer == net.widths.size - 2 and room.backward and not room.pulled:
        outputs, at = room.outputs.shape[0], room.delta_at[layer] + offset * room.outputs.shape[0]
        get_readout(seed, net, weights, r0, r1 - r0, room.readout, r0 - begin)
        for r in range(r1 - r0):
            for a in range(outputs):
                for part in range(parts_of_points(pairs, outputs)):
                    i, count, column = part_of_points(pairs, outputs, a, part)
                    row = room.delta[at + r * outputs * points + column : at + r * outputs * points + column + count]
                    readout_sensitivity(net.scales[0, layer], room.readout[a, r0 - begin + r], slope[r][i : i + count], row)


@jit_inner
def _backward_rows(seed, net, weights, room, pairs, layer, begin, r0, r1):
    """Complete delta of neurons r0..r1, which holds the product with W^(layer+1), and draw their weights anew if need be."""
    columns = sensitivity_columns(room, pairs)
    outputs = columns // pairs.points
    at, delta_at = room.at[layer] + r0 * pairs.points, room.delta_at[layer] + r0 * columns
    if outputs == 1:
        size = (r1 - r0) * columns
        finish_sensitivity(net.scales[0, layer], room.slope[at : at + size], room.delta[delta_at : delta_at + size])
    else:
        for _ in range(r0, r1):
            for a in range(outputs):
                for part in range(parts_of_points(pairs, outputs)):
                    i, count, column = part_of_points(pairs, outputs, a, part)
                    delta = room.delta[delta_at + column : delta_at + column + count]
                    finish_sensitivity(net.scales[0, layer], room.slope[at + i : at + i + count], delta)
            at, delta_at = at + pairs.points, delta_at + columns
    if layer > 1 and not weights.stored and not weights.whole[layer]:
        draw_rows(seed, net, layer, r0, r1, weights.flat, _weights_at(net, weights, layer, r0, begin))


@jit_inner
def _backward_columns(net, weights, room, pairs, layer, begin, r0, r1, c0, c1):
    """Neurons c0..c1 of the layer below: delta += W' delta, over rows r0..r1."""
    columns = sensitivity_columns(room, pairs)
    source = room.delta_at[layer] + _row_at(net, room, pairs, layer, r0, begin) // pairs.points * columns
    multiply(
        weights.flat, _weights_at(net, weights, layer, r0, begin) + c0, net.lengths[layer - 1], 1,
        room.delta, source, columns, columns,
        room.delta, room.delta_at[layer - 1] + c0 * columns, columns, c1 - c0, r1 - r0, r0 == 0,
    )  # fmt: skip


@jit_inner
def _gram_rows(values, at, terms, pairs, i0, i1, partial, total):
    """total[i] += sum over ``terms`` neurons of values_i values_j, for kernel rows i0..i1: the upper half if symmetric."""
    for i in range(i0, i1, _GRAM_ROWS):
        end = min(i + _GRAM_ROWS, i1)
        lane = i // LONGEST_VECTOR * LONGEST_VECTOR if pairs.symmetric else 0
        multiply(
            values, at + pairs.first + i, pairs.points, 1, values, at + lane, pairs.points, pairs.lanes - lane,
            partial, i * pairs.lanes + lane, pairs.lanes, end - i, terms, True,
        )  # fmt: skip
        for k in range(i, end):
            source, sums = partial[k * pairs.lanes : (k + 1) * pairs.lanes], total[k]
            for j in range(lane, pairs.lanes):
                sums[j] += source[j]


_INDEX = types.intp


@compiled_once(lambda real: (_INDEX, _INDEX, _INDEX, *argument_types(real), _INDEX, _INDEX, _INDEX, _INDEX))
def _part(phase, threads, thread, seed, net, weights, room, pairs, what, layer, begin, end):
    """A thread's part of a group of panels: in phase 0 its rows of activations or sensitivities, in phase 1 sums over rows."""
    if phase == 0:
        r0, r1 = share(begin, end, threads, thread)
        if r0 < r1 and what == BACK:
            _backward_rows(seed, net, weights, room, pairs, layer, begin, r0, r1)
        elif r0 < r1:
            _forward_rows(seed, net, weights, room, pairs, layer, begin, r0, r1)
        return
    c0, c1 = share(0, net.widths[layer - 1], threads, thread)
    i0, i1 = share(0, room.features.shape[1], threads, thread)
    k0, k1 = share(0, room.sensitivities.shape[1], threads, thread)
    features = _feature_pairs(room, pairs)
    for r0 in range(begin, end, PANEL):
        r1, at = min(r0 + PANEL, end), _row_at(net, room, pairs, layer, r0, begin)
        if what != FORWARD and layer > 1 and c0 < c1:
            _backward_columns(net, weights, room, pairs, layer, begin, r0, r1, c0, c1)
        if what != BACK:
            _gram_rows(room.h, room.at[layer] + at, r1 - r0, features, i0, i1, room.partial, room.features[layer])
        if what != FORWARD:
            at = room.delta_at[layer] + at // pairs.points * sensitivity_columns(room, pairs)
            # Where rows are not those of activations threads must not meet in scratch: it has a part of its own.
            partial = room.partial[room.partial.size - room.sensitivities[0].size :]
            for block in range(room.sensitivities.shape[0]):
                column, own = _sensitivity_pairs(room, pairs, block)
                _gram_rows(room.delta, at + column, r1 - r0, own, k0, k1, partial, room.sensitivities[block])


@jit_parallel
def _shared(phase, threads, seed, net, weights, room, pairs, what, layer, begin, end):
    for thread in prange(threads):
        _part(phase, threads, thread, seed, *by_address((net, weights, room, pairs)), what, layer, begin, end)


# --- one seed ---------------------------------------------------------------------------------------------------------


@jit_inner
def _sweep(threads, seed, net, weights, room, pairs, what, layer):
    """One layer, panel by panel: forward, back, or for the last hidden layer both at once."""
    for begin in range(0, net.widths[layer], group_rows(threads, net)):
        if not is_due(room.window):
            continue
        if begin == 0:
            room.sensitivities[:] = 0
        end = min(begin + group_rows(threads, net), net.widths[layer])
        for phase in range(2):
            if threads > 1:
                _shared(phase, threads, seed, *by_value((net, weights, room, pairs)), what, layer, begin, end)
            else:
                _part(phase, 1, 0, seed, net, weights, room, pairs, what, layer, begin, end)
        if what != BACK and layer == net.widths.size - 2:
            at = room.at[layer] + _row_at(net, room, pairs, layer, begin, begin)
            h = room.h[at : at + (end - begin) * pairs.points].reshape(end - begin, pairs.points)
            if what == FORWARD:  # else the sensitivities needed it too
                get_readout(seed, net, weights, begin, end - begin, room.readout, 0)
            for a in range(room.outputs.shape[0]):
                add_readout(net.scales[0, layer], room.readout[a][: end - begin], h, room.outputs[a])


@jit_inner
def _add_to_kernel(net, layer, room, pairs):
    """Add a layer's share to the kernel: that of the readout on pairs of the same output alone."""
    outputs, joint, readout = room.outputs.shape[0], room.joint, layer == net.widths.size - 1
    if not room.with_kernel:
        return
    weight, bias, features = net.scales[0, layer - 1], net.scales[2, layer - 1], room.features[layer - 1]
    own = room.kernel[layer - 1 if room.by_layer else 0]
    known, kernel, products = features.reshape(features.size), own.reshape(own.size), room.sensitivities.reshape(-1)
    # Blocks of the kernel stand one after another; in a joint one, rows of a block do.
    stretch = pairs.lanes if joint else features.size
    for a, b in np.ndindex(outputs, outputs):
        if a == b or (joint and not readout):
            for i in range(0, features.size, stretch):
                row = a * (pairs.points - pairs.first) + i // stretch
                at = (row * outputs + b) * stretch if joint else a * stretch
                if readout:
                    add_readout_kernel(weight, bias, known[i : i + stretch], kernel[at : at + stretch])
                else:
                    add_layer_kernel(weight, bias, products[at : at + stretch], known[i : i + stretch], kernel[at : at + stretch])


@compiled_once(lambda real: (_INDEX, *argument_types(real)))
def evaluate(threads, seed, net, weights, room, pairs):
    """Outputs of one seed, and as far as there is room its sensitivities and kernel; h^0 and its Gram matrix are there.

    Sensitivities of a vector's product are left to :func:`go_back`: the vector may depend on the outputs. Parts that ``window``
    chooses from are groups of panels, and what is between sweeps.
    """
    last, parts = net.widths.size - 2, room.window
    if is_due(parts):
        room.outputs[:] = 0
        room.features[1:] = 0
    backward = room.backward and not room.pulled
    for layer in range(1, last + 1):
        _sweep(threads, seed, net, weights, room, pairs, BOTH if backward and layer == last else FORWARD, layer)
    if is_due(parts):
        c = room.biases[: room.outputs.shape[0]]
        get_biases(seed, net, weights, last + 1, 0, c)
        for a in range(c.size):
            for i in range(pairs.points):
                room.outputs[a, i] += net.scales[2, last] * np.float64(c[a])
    if not backward:
        return
    if is_due(parts):
        room.kernel[:] = 0
        _add_to_kernel(net, last + 1, room, pairs)
    for layer in range(last, 0, -1):
        if layer < last:
            _sweep(threads, seed, net, weights, room, pairs, BACK, layer)
        if is_due(parts):
            _add_to_kernel(net, layer, room, pairs)


@compiled_once(lambda real: (_INDEX, *argument_types(real)))
def go_back(threads, seed, net, weights, room, pairs):
    """Sensitivities of v.f for the ``vector`` v in ``room``, which has been evaluated; weights are stored."""
    last, points = net.widths.size - 2, pairs.points
    if is_due(room.window):
        vector = room.vector.reshape(room.vector.size)
        multiply(
            weights.flat, weights.offsets[2 * last], net.lengths[last], 1, vector, 0, points, points,
            room.delta, room.delta_at[last], points, net.widths[last], net.widths[last + 1], True,
        )  # fmt: skip
    for layer in range(last, 0, -1):
        _sweep(threads, seed, net, weights, room, pairs, BACK, layer)


@jit_inner
def gram_of_points(net, room, pairs):
    """The Gram matrix of h^0, which all seeds share."""
    room.features[0] = 0
    own = _feature_pairs(room, pairs)
    _gram_rows(room.h, room.at[0], net.widths[0], own, 0, room.features.shape[1], room.partial, room.features[0])


@jit_inner
def copy_kernel(kernel, pairs, out):
    """The kernel without its padding; the lower half from the upper one if symmetric.

    ``out`` (blocks, rows, columns) has a row for every point's every output where the kernel has one block of all outputs.
    """
    outputs = out.shape[1] // pairs.rows
    for block, i, a, b in np.ndindex(out.shape[0], pairs.rows, outputs, outputs):
        source, to = kernel[block], out[block, i * outputs + a]
        row, first = a * (pairs.points - pairs.first) + i, b * pairs.lanes
        for j in range(pairs.cols):
            column = first + j
            to[j * outputs + b] = source[column, row] if pairs.symmetric and column < row else source[row, column]


@jit
def read_kernel(kernel, pairs, out):
    """:func:`copy_kernel`, for Python."""
    copy_kernel(kernel, pairs, out)


# --- many seeds -------------------------------------------------------------------------------------------------------


@jit_inner
def _evaluate_seeds(threads, first, step, seeds, net, weights, room, pairs, outputs, kernels):
    if is_due(room.window):
        gram_of_points(net, room, pairs)
    for s in range(first, seeds.size, step):
        evaluate(threads, seeds[s], net, weights, room, pairs)
        if not is_due(room.window):
            continue
        for i in range(outputs.shape[1]):
            for a in range(outputs.shape[2]):
                outputs[s, i, a] = room.outputs[a, i]
        copy_kernel(room.kernel[0], pairs, kernels[s])


@jit
def evaluate_seeds(threads, first, step, seeds, net, weights, room, pairs, outputs, kernels):
    """Outputs (S, n, k) and kernels (S, blocks, rows, columns) of seeds first, first + step, ..., one after the other.

    ``outputs`` or ``kernels`` with an empty second axis are not filled.
    """
    _evaluate_seeds(threads, first, step, seeds, *by_address((net, weights, room, pairs)), outputs, kernels)
