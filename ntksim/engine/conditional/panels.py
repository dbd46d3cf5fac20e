"""One panel of a layer's neurons in conditional sampling: its factors' rows, activations, sensitivities, and what they add up to.

`sweeps` says what the letters mean.
"""

import numpy as np
from numba import types

from ntksim.engine.compiled.jit import compiled_once, jit_inner
from ntksim.engine.conditional.layout import CHUNK, CONDITIONED, ROWS, argument_types, fours
from ntksim.engine.cpu.product import multiply
from ntksim.engine.formulas.blocks import activate
from ntksim.engine.formulas.layer import add_readout, finish_layer, finish_sensitivity, readout_sensitivity
from ntksim.engine.formulas.normals import bias_code, draw_vector, fill_scaled, left_code, right_code, seed_words, weight_code
from ntksim.engine.initialisers import NORMAL
from ntksim.engine.layout import LONGEST_VECTOR

_STRIP = 32  # columns of a triangular factor at a time: their terms end with the last one's
_GRAM_ROWS = 24  # of a Gram matrix, at a time: the fewer, the less of the lower half is computed beside the upper one
FORWARD, BACK, BOTH = 0, 1, 2  # what a sweep over a layer does
_f32 = np.float32


@jit_inner
def _fill_identity(flat, at, columns, panel, r0):
    """Rows r0.. of the identity, a column after another."""
    flat[at : at + columns * panel] = 0
    for c in range(max(r0, 0), min(r0 + panel, columns)):
        flat[at + c * panel + c - r0] = 1


@jit_inner
def _draw_columns(seed, net, code, scale, columns, r0, rows, panel, flat, at):
    """Rows r0.. of a factor whose transpose the generator draws, a column after another: vectors run along neurons."""
    low, high = seed_words(seed)
    filled = (rows + LONGEST_VECTOR - 1) // LONGEST_VECTOR * LONGEST_VECTOR
    made = 2 if columns <= 2 else fours(columns)
    fill_scaled(low, net.stream, code, high, NORMAL, 0, r0, made, filled, _f32(scale), flat, at, panel)


@jit_inner
def _fill_left(seed, net, law, room, layer, r0, rows, at):
    """Rows of B."""
    if law.ways[layer] == CONDITIONED:
        _draw_columns(seed, net, left_code(layer), 1.0, law.points, r0, rows, law.panel, room.panels, at)
    elif law.ways[layer] == ROWS:
        low, high = seed_words(seed)
        length, scale = net.lengths[layer - 1], _f32(net.scales[1, layer - 1])
        fill_scaled(low, net.stream, weight_code(layer), high, NORMAL, r0, 0, rows, length, scale, room.panels, at, length)
    else:
        _fill_identity(room.panels, at, law.terms[layer], law.panel, r0)


@jit_inner
def _fill_right(seed, net, law, room, layer, r0, rows, at):
    """Rows of N of the layer above the rows, ``layer``."""
    if law.ways[layer] == CONDITIONED:
        _draw_columns(seed, net, right_code(layer), 1.0, law.columns[layer], r0, rows, law.panel, room.panels, at)
    elif law.ways[layer] == ROWS:
        _fill_identity(room.panels, at, law.columns[layer], law.panel, r0)
    else:
        scale = net.scales[1, layer - 1]
        _draw_columns(seed, net, weight_code(layer), scale, net.widths[layer], r0, rows, law.panel, room.panels, at)


@jit_inner
def _times_triangle(law, terms, b, b_at, v, v_at, points, c, c_at, rows):
    """c <- B V for factors B that stand a column after another, V (terms, points) upper triangular between points."""
    four = fours(law.points)
    for begin in range(0, points, _STRIP):
        size = min(_STRIP, points - begin)
        block, within = (begin + size - 1) // law.lanes, (begin + size - 1) % law.lanes + 1
        some = min(terms, block * four + min(within, four))
        multiply(b, b_at, law.panel, 1, v, v_at + begin, points, size, c, c_at + begin, points, rows, some, True)


@jit_inner
def _activate(seed, net, law, room, thread, layer, r0, rows, at, h_at):
    """Activations and slopes; V holds the multiplier g too."""
    lanes, size = law.lanes, rows * law.lanes
    if law.ways[layer] == CONDITIONED:
        values_at, terms = room.values_at[layer], law.terms[layer]
        _times_triangle(law, terms, room.panels, at, room.values, values_at, lanes, room.panels, h_at, rows)
    else:
        term, row = (1, net.lengths[layer - 1]) if law.ways[layer] == ROWS else (law.panel, 1)
        multiply(
            room.panels, at, term, row, room.values, room.values_at[layer], lanes, lanes,
            room.panels, h_at, lanes, rows, law.terms[layer], True,
        )  # fmt: skip
    slope_at, beta = h_at + law.panel * lanes, net.scales[2, layer - 1]
    h, slope = room.panels[h_at : h_at + size], room.panels[slope_at : slope_at + size]
    if beta * net.scales[3, layer - 1] == 0:
        activate(net, h, slope)
    else:
        b = room.vector[thread][:rows]
        draw_vector(seed, net, bias_code(layer), net.scales[3, layer - 1], 0, r0, b)
        finish_layer(net, 1.0, beta, b, h.reshape(rows, lanes), slope.reshape(rows, lanes))


@jit_inner
def add_gram(values, at, rows, width, count, wide, total, first):
    """total (count, width) += the Gram matrix of columns, in float64: its upper half, and of the lower what blocks hold."""
    source = values[at : at + rows * width]
    for j in range(source.size):
        wide[j] = source[j]
    for i in range(0, count, _GRAM_ROWS):
        lane = i // LONGEST_VECTOR * LONGEST_VECTOR
        multiply(
            wide, i, width, 1, wide, lane, width, width - lane,
            total, i * width + lane, width, min(_GRAM_ROWS, count - i), rows, first,
        )  # fmt: skip


@jit_inner
def _add_back(net, law, room, thread, slot, layer, rows, at, first):
    """Sums over sensitivities of a panel: D'D, and B'D for the layer below."""
    wide, delta = law.outputs * law.lanes, room.delta[thread]
    count = law.points if law.outputs == 1 else wide
    add_gram(delta, 0, rows, wide, count, room.wide[thread], room.sensitivities_part[slot], first)
    if layer > 1:
        term, row = (1, net.lengths[layer - 1]) if law.ways[layer] == ROWS else (law.panel, 1)
        multiply(
            room.panels, at, row, term, delta, 0, wide, wide,
            room.pulled_part[slot], 0, wide, law.terms[layer], rows, first,
        )  # fmt: skip


@jit_inner
def _readout(seed, net, law, room, thread, slot, backward, r0, rows, h_at):
    """A panel's share of the outputs, and its sensitivities, in the last hidden layer."""
    last, lanes = net.widths.size - 2, law.lanes
    slope_at, wide, a = h_at + law.panel * lanes, law.outputs * lanes, room.vector[thread][:rows]
    h = room.panels[h_at : h_at + rows * lanes].reshape(rows, lanes)
    for output in range(law.outputs):
        draw_vector(seed, net, weight_code(last + 1), net.scales[1, last], output, r0, a)
        add_readout(net.scales[0, last], a, h, room.outputs_part[slot][output * lanes : (output + 1) * lanes])
        if backward:
            for r in range(rows):
                slope = room.panels[slope_at + r * lanes : slope_at + (r + 1) * lanes]
                at = r * wide + output * lanes
                readout_sensitivity(net.scales[0, last], a[r], slope, room.delta[thread][at : at + lanes])


@jit_inner
def _pull_back(net, law, room, thread, layer, rows, right_at, h_at):
    """Sensitivities of a panel, from the small matrices of the layer above."""
    lanes, wide, above = law.lanes, law.outputs * law.lanes, layer + 1
    slope_at, delta = h_at + law.panel * lanes, room.delta[thread]
    c, m = room.right_values, room.correction
    if law.ways[above] == CONDITIONED:
        _times_triangle(law, law.columns[above], room.panels, right_at, c, 0, wide, delta, 0, rows)
        multiply(room.panels, h_at, 1, lanes, m, 0, wide, wide, delta, 0, wide, rows, law.points, False)
    else:
        terms = law.terms[above]
        multiply(room.panels, right_at, law.panel, 1, c, 0, wide, wide, delta, 0, wide, rows, terms, True)
    weight = net.scales[0, layer]
    if law.outputs == 1:
        finish_sensitivity(weight, room.panels[slope_at : slope_at + rows * lanes], delta[: rows * lanes])
        return
    for r in range(rows):
        slope = room.panels[slope_at + r * lanes : slope_at + (r + 1) * lanes]
        for output in range(law.outputs):
            at = r * wide + output * lanes
            finish_sensitivity(weight, slope, delta[at : at + lanes])


_INDEX = types.intp


@compiled_once(lambda real: (*[_INDEX] * 5, *argument_types(real)))
def sum_chunk(thread, slot, chunk, what, layer, seed, net, law, room):
    """A chunk of a layer's rows, panel by panel in the thread's scratch, and its sums in a slot of their own."""
    begin, lanes, last = chunk * CHUNK, law.lanes, net.widths.size - 2
    end = min(begin + CHUNK, net.widths[layer])
    if what != BACK and layer == last:
        room.outputs_part[slot][:] = 0
    for r0 in range(begin, end, law.panel):
        rows, first = min(law.panel, end - r0), r0 == begin
        at = law.place[layer] + (r0 // law.panel * law.size[layer] if law.kept[layer] else thread * law.longest)
        right_at = at + law.left[layer]
        h_at = right_at + law.right[layer]
        fresh = what != BACK or not law.kept[layer]
        if fresh:
            _fill_left(seed, net, law, room, layer, r0, rows, at)
            _activate(seed, net, law, room, thread, layer, r0, rows, at, h_at)
        if what != BACK:
            add_gram(room.panels, h_at, rows, lanes, law.points, room.wide[thread], room.features_part[slot], first)
        if layer == last:
            _readout(seed, net, law, room, thread, slot, what == BOTH, r0, rows, h_at)
        elif law.backward or law.ways[layer + 1] != CONDITIONED:
            if fresh:
                _fill_right(seed, net, law, room, layer + 1, r0, rows, right_at)
            if what == FORWARD:
                multiply(
                    room.panels, right_at, 1, law.panel, room.panels, h_at, lanes, lanes,
                    room.crossed_part[slot], 0, lanes, law.columns[layer + 1], rows, first,
                )  # fmt: skip
        if what == BACK:
            _pull_back(net, law, room, thread, layer, rows, right_at, h_at)
        if what != FORWARD:
            _add_back(net, law, room, thread, slot, layer, rows, at, first)
