"""Gradient descent of networks with one hidden layer and few inputs, in one sweep over the neurons a step.

Activations of such a network are cheaper to compute anew than to fetch. With the gradient g of the loss in the outputs known, the
sweep takes a few neurons at a time, computes their activations, moves their parameters, and adds what they give to the outputs of
the next step. Nothing but parameters is read from memory or written to it.

A neuron's weights and bias are one row p of D = d + 1 numbers, its inputs those of X = [g_1 x; beta_1], (D, points), and

    z = p X,    f = c + sum_r g_2 a_r phi(z_r),    dL/dp_r = X (phi'(z_r) o g_2 a_r' g),    dL/da_r = g_2 phi(z_r) g'.

Outputs are added up over blocks of neurons in the type of the activations, over parts of the layer in float64, and then part by
part. Blocks and parts are functions of width and type, so bits depend neither on threads nor on where snapshots are taken.
"""

from typing import NamedTuple

import numpy as np
from numba import prange, typeof, types

from ntksim.engine.compiled.jit import compiled_once, jit, jit_inline, jit_inner, jit_parallel
from ntksim.engine.compiled.slices import is_due
from ntksim.engine.cpu.dots import dots, weighted_dots, whole_lanes
from ntksim.engine.cpu.draws import argument_types
from ntksim.engine.cpu.product import multiply
from ntksim.engine.formulas.blocks import activate
from ntksim.engine.formulas.layer import descended
from ntksim.engine.formulas.losses import point_gradient
from ntksim.engine.layout import Net, aligned
from ntksim.engine.machine import Step
from ntksim.engine.threads import window

FEW_INPUTS = 16  # so many at most: of more, activations are cheaper to keep
_BLOCK_BYTES = 48  # of a block's neurons at one point, six in float64: the first cache holds activations and slopes
_PARTS = 64  # of a layer at most, which threads share
_SHARED = 1 << 20  # neurons times points from which threads share a step: below, they would wait more than work
_LONG = 1 << 28  # neurons times points of a step that is made in several parts, between which a call can be stopped
FORWARD, BACK, BOTH = 0, 1, 2  # what a sweep does


class Sweep(NamedTuple):
    """Room for steps: of all points, or of batches.

    ``inputs`` (2, D points) holds X of this step and of the next one, alike where all points are taken. Each thread has a row of
    what concerns a block of neurons: ``rows`` p, ``slopes`` dL/dp, ``readout`` g_2 a, ``pulls`` dL/da, ``h`` phi, ``slope`` phi',
    ``back`` a'g and ``partial`` outputs. ``sums`` (parts, k, points) are outputs of each part of the layer, ``outputs`` (k,
    points) those of all. ``gradient`` (k points) is eta g, and ``exact`` (k, points) is g in float64.
    """

    inputs: np.ndarray
    rows: np.ndarray
    slopes: np.ndarray
    readout: np.ndarray
    pulls: np.ndarray
    h: np.ndarray
    slope: np.ndarray
    back: np.ndarray
    partial: np.ndarray
    sums: np.ndarray
    outputs: np.ndarray
    gradient: np.ndarray
    exact: np.ndarray
    window: np.ndarray


def is_shallow(net: Net) -> bool:
    """Whether a network has one hidden layer and few inputs."""
    return net.widths.size == 3 and int(net.widths[0]) <= FEW_INPUTS


def worth_sharing(net: Net, points: int) -> bool:
    """Whether a step of so many points is long enough for threads to share it."""
    return int(net.widths[1]) * points >= _SHARED


def make_sweep(net: Net, columns: np.ndarray, points: int, threads: int) -> Sweep:
    """Room for steps of ``points`` points among ``columns`` (d, all points), where threads share them."""
    kind, outputs, terms = columns.dtype, int(net.widths[2]), len(columns) + 1
    lanes = whole_lanes(points, kind.itemsize)

    def own(size: int) -> np.ndarray:
        size = whole_lanes(size, kind.itemsize)  # rows of threads start on cache lines
        return aligned(threads * size, kind).reshape(threads, size)

    block = _BLOCK_BYTES // kind.itemsize
    blocks = -(-int(net.widths[1]) // block)
    return Sweep(
        aligned(2 * terms * lanes, kind).reshape(2, -1), own(block * terms), own(block * terms), own(block * outputs),
        own(block * outputs), own(block * lanes), own(block * lanes), own(block * lanes if outputs > 1 else 0),
        own(outputs * lanes), np.zeros((min(_PARTS, blocks), outputs, lanes)), np.zeros((outputs, lanes)),
        aligned(outputs * lanes, kind), np.zeros((outputs, lanes)), window(),
    )  # fmt: skip


def operations(net: Net, points: int) -> float:
    """Floating-point operations that a step takes the time of, about."""
    return float(net.widths[1]) * points * (40 + 8 * float(net.widths[0] + net.widths[2]))


@jit_inline
def move(theta, velocity, at, change, decay, rule):
    """Move a parameter by a step: ``change`` is eta times the gradient's part, ``decay`` eta lambda."""
    kind = theta.dtype.type
    change += kind(decay) * theta[at]
    if velocity.size == 0:
        theta[at] = descended(theta[at], kind(1), change)
        return
    moved = descended(theta[at], kind(rule.before), velocity[at])
    velocity[at] = kind(rule.momentum) * velocity[at] - change
    theta[at] = descended(moved, -kind(rule.after), velocity[at])


@jit_inner
def _get(net, theta, offsets, r0, r1, rows, readout):
    """Parameters of neurons r0..r1: rows p, and g_2 a, (k, block)."""
    d, length, kind, block = net.widths[0], net.lengths[0], theta.dtype.type, _BLOCK_BYTES // theta.itemsize
    for r in range(r1 - r0):
        at = offsets[0] + (r0 + r) * length
        for j in range(d):
            rows[r * (d + 1) + j] = theta[at + j]
        rows[r * (d + 1) + d] = theta[offsets[1] + r0 + r]
        for a in range(net.widths[2]):
            readout[a * block + r] = kind(net.scales[0, 1]) * theta[offsets[2] + a * net.lengths[1] + r0 + r]


@jit_inner
def _move_rows(net, theta, velocity, offsets, r0, r1, slopes, readout, pulls, rule):
    """Move the parameters of neurons r0..r1 by their sums over points."""
    d, k, length, kind = net.widths[0], net.widths[2], net.lengths[0], theta.dtype.type
    first, last = kind(net.scales[4, 0]), kind(net.scales[4, 1])
    for r in range(r1 - r0):
        factor = first * readout[r] if k == 1 else first
        at = offsets[0] + (r0 + r) * length
        for j in range(d):
            move(theta, velocity, at + j, factor * slopes[r * (d + 1) + j], net.scales[4, 0] * rule.decay, rule)
        move(theta, velocity, offsets[1] + r0 + r, factor * slopes[r * (d + 1) + d], net.scales[4, 0] * rule.decay, rule)
        for a in range(k):
            at, change = offsets[2] + a * net.lengths[1] + r0 + r, last * kind(net.scales[0, 1]) * pulls[r * k + a]
            move(theta, velocity, at, change, net.scales[4, 1] * rule.decay, rule)


def _part_types(real):
    net, weights = argument_types(real)[1:3]
    flat, matrix = np.empty(0, real.name), np.empty((0, 0), real.name)
    stack, sums, integers = np.empty((0, 0, 0)), np.empty((0, 0)), np.empty(0, np.int64)
    sweep = Sweep(matrix, matrix, matrix, matrix, matrix, matrix, matrix, matrix, matrix, stack, sums, flat, sums, integers)
    rule = Step(0.0, 0.0, 0.0, 0.0, 0.0, 0)
    return types.intp, types.intp, types.intp, net, weights, weights, typeof(sweep), typeof(rule)


@compiled_once(_part_types)
def _sweep_part(what, thread, part, net, weights, moving, room, rule):
    """Go over one part of the layer: activations of this step and a move of parameters, outputs of the next step, or both."""
    theta, velocity, offsets = weights.flat, moving.flat, weights.offsets
    width, k, terms, lanes = net.widths[1], net.widths[2], net.widths[0] + 1, room.outputs.shape[1]
    rows, slopes, readout, pulls = room.rows[thread], room.slopes[thread], room.readout[thread], room.pulls[thread]
    h, slope, partial = room.h[thread], room.slope[thread], room.partial[thread]
    back, back_row = (room.gradient, 0) if k == 1 else (room.back[thread], lanes)
    parts, block = room.sums.shape[0], _BLOCK_BYTES // theta.itemsize
    blocks = (width + block - 1) // block
    if what != BACK:
        room.sums[part] = 0
    for number in range(blocks * part // parts, blocks * (part + 1) // parts):
        r0 = number * block
        r1 = min(r0 + block, width)
        size = (r1 - r0) * lanes
        _get(net, theta, offsets, r0, r1, rows, readout)
        if what != FORWARD:
            multiply(rows, 0, 1, terms, room.inputs[0], 0, lanes, lanes, h, 0, lanes, r1 - r0, terms, True)
            activate(net, h[:size], slope[:size])
            if k > 1:
                multiply(readout, 0, block, 1, room.gradient, 0, lanes, lanes, back, 0, lanes, r1 - r0, k, True)
            weighted_dots(back, 0, back_row, slope, 0, lanes, room.inputs[0], 0, lanes, lanes, slopes, 0, terms, r1 - r0, terms)
            dots(h, 0, lanes, room.gradient, 0, lanes, lanes, pulls, 0, k, r1 - r0, k)
            _move_rows(net, theta, velocity, offsets, r0, r1, slopes, readout, pulls, rule)
            _get(net, theta, offsets, r0, r1, rows, readout)
        if what != BACK:
            multiply(rows, 0, 1, terms, room.inputs[1], 0, lanes, lanes, h, 0, lanes, r1 - r0, terms, True)
            activate(net, h[:size], slope[:size])
            multiply(readout, 0, 1, block, h, 0, lanes, lanes, partial, 0, lanes, k, r1 - r0, True)
            for a in range(k):
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
    """X of the chosen points; what pads them is the first one, whose activations are as finite as theirs."""
    d, kind = columns.shape[0], inputs.dtype.type
    for i in range(lanes):
        point = chosen[i if i < chosen.size else 0]
        for j in range(d):
            inputs[j * lanes + i] = kind(net.scales[0, 0]) * columns[j, point]
        inputs[d * lanes + i] = kind(net.scales[2, 0])


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
