"""Gradient descent of networks with one hidden layer, few inputs and few outputs, in one sweep over the neurons a step.

Activations of such a network are cheaper to compute anew than to fetch. With the gradient g of the loss in the outputs known, the
sweep takes a block of neurons at a time, sums their gradient over the points, moves their parameters, and adds what they give to
the outputs of the next step (`neurons`). Nothing but parameters is read from memory or written to it.

With the inputs x scaled by g_1, a neuron's numbers are its weights w, its bias beta_1 b and its readout g_2 a, and

    z = w x + b,    f = c + sum_r a_r phi(z_r),    dL/d(w_r, b_r) = sum phi'(z_r) a_r'g (x, 1),    dL/da_r = sum phi(z_r) g.

Outputs are added up over blocks of neurons in the type of the activations, over parts of the layer in float64, and then part by
part. Blocks and parts are functions of the width, so bits depend neither on threads nor on where snapshots are taken.
"""

from typing import NamedTuple

import numpy as np
from numba import prange, typeof, types

from ntksim.engine.compiled.jit import compiled_once, jit, jit_inline, jit_inner, jit_parallel, no_overlap
from ntksim.engine.compiled.slices import is_due
from ntksim.engine.cpu.draws import argument_types
from ntksim.engine.cpu.neurons import BLOCK, call_loop, loops_of
from ntksim.engine.formulas.layer import begin_step, end_step
from ntksim.engine.formulas.losses import point_gradient
from ntksim.engine.layout import Net, aligned, padded
from ntksim.engine.machine import Step
from ntksim.engine.threads import window

FEW = 16  # inputs at most, and outputs: of more, activations are cheaper to keep
_PARTS = 64  # of a layer at most, which threads share
_SHARED = 1 << 20  # neurons times points from which threads share a step: below, they would wait more than work
_LONG = 1 << 28  # neurons times points of a step that is made in several parts, between which a call can be stopped
FORWARD, BACK, BOTH = 0, 1, 2  # what a sweep does


class Sweep(NamedTuple):
    """Room for steps: of all points, or of batches.

    ``over_points`` and ``over_neurons`` are addresses of the activation's loops (`neurons`). ``inputs`` (2, d points) holds g_1 x
    of this step and of the next one, alike where all points are taken. Each thread has a row of ``neurons``, a block's parameters
    and gradient, and of ``partial``, what a block adds to the outputs. ``sums`` (parts, k, points) are outputs of each part of
    the layer, ``outputs`` (k, points) those of all. ``gradient`` (k points) is eta g, and ``exact`` (k, points) is g in float64.
    """

    over_points: int
    over_neurons: int
    inputs: np.ndarray
    neurons: np.ndarray
    partial: np.ndarray
    sums: np.ndarray
    outputs: np.ndarray
    gradient: np.ndarray
    exact: np.ndarray
    window: np.ndarray


def is_shallow(net: Net) -> bool:
    """Whether a network has one hidden layer, few inputs and few outputs."""
    return net.widths.size == 3 and max(net.widths[0], net.widths[2]) <= FEW


def worth_sharing(net: Net, points: int) -> bool:
    """Whether a step of so many points is long enough for threads to share it."""
    return int(net.widths[1]) * points >= _SHARED


def make_sweep(net: Net, columns: np.ndarray, points: int, threads: int) -> Sweep:
    """Room for steps of ``points`` points among ``columns`` (d, all points), where threads share them."""
    kind, inputs, outputs, lanes = columns.dtype, len(columns), int(net.widths[2]), padded(points)

    def own(size: int) -> np.ndarray:
        size = padded(size)  # rows of threads start on cache lines
        return aligned(threads * size, kind).reshape(threads, size)

    blocks = -(-int(net.widths[1]) // BLOCK)
    return Sweep(
        *loops_of(net.code, inputs, outputs, kind), aligned(2 * inputs * lanes, kind).reshape(2, -1),
        own(3 * (inputs + 1 + outputs) * BLOCK), own(outputs * lanes), np.zeros((min(_PARTS, blocks), outputs, lanes)),
        np.zeros((outputs, lanes)), aligned(outputs * lanes, kind), np.zeros((outputs, lanes)), window(),
    )  # fmt: skip


def operations(net: Net, points: int) -> float:
    """Floating-point operations that a step takes the time of, about."""
    return float(net.widths[1]) * points * (40 + 8 * float(net.widths[0] + net.widths[2]))


@jit_inline
def move(theta, velocity, at, change, decay, rule):
    """Move a parameter by a step: ``change`` is eta times the gradient's part, ``decay`` eta lambda."""
    begin_step(theta, velocity, at, decay, rule)
    if rule.momentum == 0:
        theta[at] -= change
        return
    velocity[at] -= change
    end_step(theta, velocity, at, rule)


@jit_inline
def _row(net, offsets, row, r0):
    """Where the parameters of a row of neurons stand: the first one, the next one's distance, their factor and their layer."""
    d = net.widths[0]
    if row < d:
        return offsets[0] + r0 * net.lengths[0] + row, net.lengths[0], 1.0, 0
    if row == d:
        return offsets[1] + r0, 1, net.scales[2, 0], 0
    return offsets[2] + (row - d - 1) * net.lengths[1] + r0, 1, net.scales[0, 1], 1


@jit_inner
def _get(net, theta, offsets, r0, count, neurons):
    """Numbers of ``count`` neurons from r0 on; those past the last one are that one again, and add nothing to outputs."""
    real, kind = min(count, net.widths[1] - r0), theta.dtype.type
    for row in range(net.widths[0] + 1 + net.widths[2]):
        first, distance, scale, layer = _row(net, offsets, row, r0)
        for r in range(real):
            neurons[row * BLOCK + r] = kind(scale) * theta[first + r * distance]
        for r in range(real, count):
            neurons[row * BLOCK + r] = kind(0) if layer == 1 else neurons[row * BLOCK + real - 1]


@jit_inner
def _move_neurons(net, theta, velocity, offsets, r0, neurons, rule):
    """Move the parameters of a block of neurons by their sums over points, where they stand and in the block."""
    no_overlap()
    d, k, kind = net.widths[0], net.widths[2], theta.dtype.type
    rows = d + 1 + k
    for row in range(rows):  # readouts last: with one output, the other rows' gradients have them as they were as a factor
        first, distance, scale, layer = _row(net, offsets, row, r0)
        rate, decay, scale = kind(net.scales[4, layer] * scale), net.scales[4, layer] * rule.decay, kind(scale)
        for r in range(min(BLOCK, net.widths[1] - r0)):
            here, at = np.uintp(row * BLOCK + r), np.uintp(first + r * distance)
            factor = rate * neurons[np.uintp((d + 1) * BLOCK + r)] if k == 1 and layer == 0 else rate
            move(theta, velocity, at, factor * neurons[np.uintp((2 * rows + row) * BLOCK + r)], decay, rule)
            neurons[here] = scale * theta[at]


def _part_types(real):
    net, weights = (address.kind for address in argument_types(real)[1:3])
    flat, matrix = np.empty(0, real.name), np.empty((0, 0), real.name)
    stack, sums, integers = np.empty((0, 0, 0)), np.empty((0, 0)), np.empty(0, np.int64)
    sweep = Sweep(0, 0, matrix, matrix, matrix, stack, sums, flat, sums, integers)
    rule = Step(0.0, 0.0, 0.0, 0.0, 0.0, 0)
    return types.intp, types.intp, types.intp, net, weights, weights, typeof(sweep), typeof(rule)


@compiled_once(_part_types)
def _sweep_part(what, thread, part, net, weights, moving, room, rule):
    """Go over one part of the layer: activations of this step and a move of parameters, outputs of the next step, or both."""
    theta, velocity, offsets, lanes = weights.flat, moving.flat, weights.offsets, room.outputs.shape[1]
    neurons, partial, parts = room.neurons[thread], room.partial[thread], room.sums.shape[0]
    blocks = (net.widths[1] + BLOCK - 1) // BLOCK
    if what != BACK:
        room.sums[part] = 0
    for number in range(blocks * part // parts, blocks * (part + 1) // parts):
        r0 = number * BLOCK
        count = min(BLOCK, net.lengths[1] - r0)
        _get(net, theta, offsets, r0, count, neurons)
        if what != FORWARD:
            call_loop(room.over_points, (net.parameter, neurons, count, room.inputs[0], lanes, room.gradient))
            _move_neurons(net, theta, velocity, offsets, r0, neurons, rule)
        if what != BACK:
            call_loop(room.over_neurons, (net.parameter, neurons, count, room.inputs[1], lanes, partial))
            for a in range(net.widths[2]):
                total, own = room.sums[part, a], partial[a * lanes : (a + 1) * lanes]
                for i in range(lanes):
                    total[i] += own[i]


@jit_parallel
def _sweep_shared(threads, what, first, end, net, weights, moving, room, rule):
    for thread in prange(threads):
        for part in range(first + (end - first) * thread // threads, first + (end - first) * (thread + 1) // threads):
            _sweep_part(what, thread, part, net, weights, moving, room, rule)


@jit_inner
def _put(net, columns, chosen, lanes, inputs):
    """Inputs of the chosen points; what pads them is the first one, whose activations are as finite as theirs."""
    kind = inputs.dtype.type
    for i in range(lanes):
        point = chosen[i if i < chosen.size else 0]
        for j in range(columns.shape[0]):
            inputs[j * lanes + i] = kind(net.scales[0, 0]) * columns[j, point]


@jit_inner
def _settle(net, weights, moving, room, y, chosen, rule):
    """Add up the outputs, fill in the gradient, and move the output's biases; returns whether outputs are finite."""
    k, size, lanes, theta = net.widths[2], chosen.size, room.outputs.shape[1], weights.flat
    scaled, loss = rule.rate * y.shape[0] / size, 0.0
    for a in range(k):
        room.outputs[a] = net.scales[2, 1] * np.float64(theta[weights.offsets[3] + a])
        for part in range(room.sums.shape[0]):
            total, own = room.outputs[a], room.sums[part, a]
            for i in range(lanes):
                total[i] += own[i]
    for i in range(size):
        loss += point_gradient(rule.loss, room.outputs, i, y[chosen[i]], room.exact)
    if not np.isfinite(loss):
        return False
    for a in range(k):
        change = 0.0
        for i in range(size):
            room.gradient[a * lanes + i] = scaled * room.exact[a, i]
            change += room.exact[a, i]
        change *= scaled * net.scales[4, 1] * net.scales[2, 1]
        move(theta, moving.flat, weights.offsets[3] + a, theta.dtype.type(change), net.scales[4, 1] * rule.decay, rule)
    return True


@jit
def advance(threads, net, weights, moving, room, columns, y, order, rule, steps):
    """Take some steps of gradient descent in place; returns their number, below ``steps`` if outputs ceased to be finite.

    ``order`` (steps, size) holds the points of each step among ``columns`` (d, n), or one row where all steps have the same.
    Targets ``y`` are (n, k). ``moving`` holds -eta v in the layout of the parameters, and nothing without momentum.
    """
    parts, several = room.sums.shape[0], order.shape[0] > 1
    some = parts if net.widths[1] * order.shape[1] <= threads * _LONG else threads
    for step in range(steps + 1):
        what = FORWARD if step == 0 else BACK if step == steps else BOTH
        if is_due(room.window):
            if step > 0:
                if not _settle(net, weights, moving, room, y, order[step - 1 if several else 0], rule):
                    return step - 1
                room.inputs[0] = room.inputs[1]
            if step == 0 or (several and step < steps):
                _put(net, columns, order[step], room.outputs.shape[1], room.inputs[1])
        for first in range(0, parts, some):
            if not is_due(room.window):
                continue
            end = min(first + some, parts)
            if threads > 1:
                _sweep_shared(threads, what, first, end, net, weights, moving, room, rule)
            else:
                for part in range(first, end):
                    _sweep_part(what, 0, part, net, weights, moving, room, rule)
    return steps
