"""Loops of conditional sampling on the CPU: networks in law, without their weights (`conditional` says which and why).

A hidden matrix W^l (n_l x n_(l-1)) stands here as two factors of few columns, made of normals or of its own entries,

    z^l = B V + beta b,      V a function of T = N'H^(l-1),        B: n_l rows,      "left"
    W'delta^l = N C (+ H M), C a function of S = B'delta^l,        N: n_(l-1) rows,  "right"

so that one layer's rows need nothing of another layer's but the small matrices V, C and M:

    CONDITIONED  B = G, V = g s R; N fresh normals, C'C = s^2 D'D, M = s R^+ (G'D - R^+' (H'N) C)
    ROWS         B = W, V = g H;   N = 1, C = S = W'D                          the layer below is narrow
    COLUMNS      B = 1, V = g W H; N = W', C = S = D                           this layer is narrow

Rows of both factors are functions of counters. A sweep forward over a layer's neurons, panel by panel, adds up H'H and T for
the next layer; a sweep back makes the panel again, adds up D'D and S for the layer below. Nothing is as long as a layer
is wide, but panels of small networks, which are kept for the way back.

Sums over neurons are made chunk by chunk, and chunks are added in order, whichever thread made them: bits depend neither on
threads nor on how the seeds are split.
"""

import numpy as np
from numba import prange, types

from ntksim.engine.compiled.by_address import by_address, by_value
from ntksim.engine.compiled.jit import compiled_once, jit, jit_inner, jit_parallel
from ntksim.engine.compiled.slices import is_due
from ntksim.engine.conditional.layout import CHUNK, CONDITIONED, argument_types, fours
from ntksim.engine.conditional.panels import BACK, BOTH, FORWARD, add_gram, sum_chunk
from ntksim.engine.conditional.triangular import factorise, invert
from ntksim.engine.cpu.product import multiply
from ntksim.engine.formulas.layer import add_layer_kernel, add_readout_kernel
from ntksim.engine.formulas.normals import bias_code, draw_vector

_INDEX = types.intp


@jit_parallel
def _wave(threads, first, count, what, layer, seed, net, law, room):
    for thread in prange(threads):
        for slot in range(count * thread // threads, count * (thread + 1) // threads):
            sum_chunk(thread, slot, first + slot, what, layer, seed, *by_address((net, law, room)))


# --- one seed ---------------------------------------------------------------------------------------------------------


@jit_inner
def _add(part, total, size, first):
    """total (+)= a chunk's part, in float64."""
    a, b = part[:size], total[:size]
    if first:
        for j in range(size):
            b[j] = a[j]
    else:
        for j in range(size):
            b[j] += a[j]


@jit_inner
def _add_chunk(net, law, room, slot, what, layer, first):
    """Add a chunk's sums to the network's."""
    lanes, wide, last = law.lanes, law.outputs * law.lanes, net.widths.size - 2
    if what != BACK:
        _add(room.features_part[slot], room.features[layer], law.points * lanes, first)
        if layer == last:
            _add(room.outputs_part[slot], room.outputs.reshape(wide), wide, first)
        elif law.backward or law.ways[layer + 1] != CONDITIONED:
            _add(room.crossed_part[slot], room.crossed[layer + 1], law.columns[layer + 1] * lanes, first)
    if what != FORWARD:
        _add(room.sensitivities_part[slot], room.sensitivities, wide * wide, first)
        if layer > 1:
            _add(room.pulled_part[slot], room.pulled, law.terms[layer] * wide, first)


@jit_inner
def _sweep(threads, seed, net, law, room, what, layer):
    """One layer, chunk by chunk."""
    chunks, slots = (net.widths[layer] + CHUNK - 1) // CHUNK, room.features_part.shape[0]
    for begin in range(0, chunks, slots):
        count = min(slots, chunks - begin)
        if not is_due(room.window):
            continue
        if threads > 1:
            _wave(threads, begin, count, what, layer, seed, *by_value((net, law, room)))
        else:
            for slot in range(count):
                sum_chunk(0, slot, begin + slot, what, layer, seed, net, law, room)
        for slot in range(count):
            _add_chunk(net, law, room, slot, what, layer, begin + slot == 0)


@jit_inner
def _copy_scaled(scale, source, target):
    for j in range(target.size):
        target[j] = target.dtype.type(scale * source[j])


@jit_inner
def _gather(values, outputs, points, lanes, gram):
    """The Gram matrix of columns without their padding: points of the first output, then of the second, and so on."""
    for a, b in np.ndindex(outputs, outputs):
        for i in range(points):
            row = values[(a * lanes + i) * outputs * lanes + b * lanes :]
            for j in range(points):
                gram[a * points + i, b * points + j] = row[j]


@jit_inner
def _prepare_forward(net, law, room, layer, cut):
    """V of a layer, from sums over the layer below."""
    n, lanes, at = law.points, law.lanes, room.values_at[layer]
    if law.ways[layer] != CONDITIONED:
        size = law.terms[layer] * lanes
        _copy_scaled(net.scales[0, layer - 1], room.crossed[layer][:size], room.values[at : at + size])
        return
    gram, factor = room.gram[:n, :n], room.factor[layer]
    _gather(room.features[layer - 1], 1, n, lanes, gram)
    factorise(gram, cut, factor)
    scale = net.scales[0, layer - 1] * net.scales[1, layer - 1]
    for i in range(n):
        _copy_scaled(scale, factor[i], room.values[at + i * lanes : at + i * lanes + n])


@jit_inner
def _prepare_back(net, law, room, layer, cut):
    """C and M of a layer, from sums over its own sensitivities.

    M = s R^+ (S - (Q'N) C) with Q'N = R^+' H'N, all in float64.
    """
    n, lanes, outputs = law.points, law.lanes, law.outputs
    wide, columns, four = outputs * lanes, law.columns[layer], fours(law.points)
    if law.ways[layer] != CONDITIONED:
        size = law.terms[layer] * wide
        _copy_scaled(1.0, room.pulled[:size], room.right_values[:size])
        return
    scale, q = net.scales[1, layer - 1], outputs * n
    gram, factor = room.gram[:q, :q], room.inverse[:q, :q]
    _gather(room.sensitivities, outputs, n, lanes, gram)
    factorise(gram, cut, factor)
    c, inverse, known = room.scratch[0][: columns * wide], room.scratch[1][: n * lanes], room.scratch[2][: columns * lanes]
    c[:] = 0
    for a, b in np.ndindex(outputs, outputs):
        for i in range(n):
            at = (a * four + i) * wide + b * lanes
            _copy_scaled(1.0, factor[a * n + i, b * n : b * n + n], c[at : at + n])
    _copy_scaled(scale, c, room.right_values[: columns * wide])
    own = room.inverse[:n, :n]
    invert(room.factor[layer], own)
    inverse[:] = 0
    for i in range(n):
        _copy_scaled(1.0, own[i], inverse[i * lanes : i * lanes + n])
    multiply(room.crossed[layer], 0, 1, lanes, inverse, 0, lanes, lanes, known, 0, lanes, columns, n, True)
    for j in range(known.size):
        known[j] = -known[j]
    rest = room.pulled[: n * wide]
    multiply(known, 0, lanes, 1, c, 0, wide, wide, rest, 0, wide, n, columns, False)
    product = room.scratch[2][: n * wide]
    multiply(inverse, 0, 1, lanes, rest, 0, wide, wide, product, 0, wide, n, n, True)
    _copy_scaled(scale, product, room.correction[: n * wide])


@jit_inner
def _mirror(values, points, lanes):
    for i in range(points):
        for j in range(i):
            values[i * lanes + j] = values[j * lanes + i]


@jit_inner
def _add_to_kernel(net, law, room, layer):
    """Add a layer's share to the upper half of the kernel: that of the readout on pairs of the same output alone."""
    n, lanes, readout = law.points, law.lanes, layer == net.widths.size - 1
    weight, bias, features = net.scales[0, layer - 1], net.scales[2, layer - 1], room.features[layer - 1]
    wide = law.outputs * lanes
    for a in range(law.outputs):
        for b in range(a, a + 1 if readout else law.outputs):
            for i in range(n):
                row, known = a * lanes + i, features[i * lanes : (i + 1) * lanes]
                kernel = room.kernel[row, b * lanes : (b + 1) * lanes]
                if readout:
                    add_readout_kernel(weight, bias, known, kernel)
                else:
                    products = room.sensitivities[row * wide + b * lanes : row * wide + (b + 1) * lanes]
                    add_layer_kernel(weight, bias, products, known, kernel)


@jit_inner
def _add_output_biases(seed, net, law, room):
    last, c = net.widths.size - 2, room.vector[0][: law.outputs]
    draw_vector(seed, net, bias_code(last + 1), net.scales[3, last], 0, 0, c)
    for a in range(c.size):
        for i in range(law.points):
            room.outputs[a, i] += net.scales[2, last] * np.float64(c[a])


@compiled_once(lambda real: (_INDEX, types.float64, *argument_types(real)))
def _evaluate(threads, cut, seed, net, law, room):
    """Outputs of one seed, and its kernel if ``law.backward``; the Gram matrix of the points and V of layer 1 are there."""
    last, parts = net.widths.size - 2, room.window
    for layer in range(1, last + 1):
        if layer > 1 and is_due(parts):
            _prepare_forward(net, law, room, layer, cut)
        _sweep(threads, seed, net, law, room, BOTH if law.backward and layer == last else FORWARD, layer)
        if law.backward and is_due(parts):
            _mirror(room.features[layer], law.points, law.lanes)
    if is_due(parts):
        _add_output_biases(seed, net, law, room)
    if not law.backward:
        return
    if is_due(parts):
        room.kernel[:] = 0
        _add_to_kernel(net, law, room, last + 1)
    for layer in range(last, 0, -1):
        if layer < last:
            if is_due(parts):
                _prepare_back(net, law, room, layer + 1, cut)
            _sweep(threads, seed, net, law, room, BACK, layer)
        if is_due(parts):
            _add_to_kernel(net, law, room, layer)


@jit
def copy_kernel(kernel, lanes, total, rows, cols, out):
    """The kernel of points ``rows`` and ``cols``: one block of all pairs of outputs, a block of each output, or their sum.

    ``kernel`` has ``lanes`` rows and columns for each of ``total`` outputs; its upper half is read.
    """
    outputs = out.shape[1] // rows.size
    summed = total // (out.shape[0] * outputs)
    for block, i, a, j, b in np.ndindex(out.shape[0], rows.size, outputs, cols.size, outputs):
        entry = 0.0
        for c in range(summed):
            row, column = (block + a + c) * lanes + rows[i], (block + b + c) * lanes + cols[j]
            entry += kernel[min(row, column), max(row, column)]
        out[block, i * outputs + a, j * outputs + b] = entry


@jit_inner
def _evaluate_seeds(threads, first, step, seeds, net, law, room, x, cut, rows, cols, outputs, kernels):
    if is_due(room.window):
        for k in range(0, net.widths[0], law.panel):
            some = min(law.panel, net.widths[0] - k)
            add_gram(x, k * law.lanes, some, law.lanes, law.points, room.wide[0], room.features[0], k == 0)
        _mirror(room.features[0], law.points, law.lanes)
        if law.ways[1] == CONDITIONED:
            _prepare_forward(net, law, room, 1, cut)
    for s in range(first, seeds.size, step):
        _evaluate(threads, cut, seeds[s], net, law, room)
        if not is_due(room.window):
            continue
        for i in range(outputs.shape[1]):
            for a in range(outputs.shape[2]):
                outputs[s, i, a] = room.outputs[a, rows[i]]
        if kernels.shape[1] > 0:
            copy_kernel(room.kernel, law.lanes, law.outputs, rows, cols, kernels[s])


@jit
def evaluate_seeds(threads, first, step, seeds, net, law, room, x, cut, rows, cols, outputs, kernels):
    """Outputs (S, n, k) and kernels (S, blocks, rows, columns) of seeds first, first + step, ..., one after the other.

    ``outputs`` or ``kernels`` with an empty second axis are not filled. ``rows`` and ``cols`` are the points, among the
    distinct ones, of the kernel's rows and columns; outputs are those of ``rows``. Parts that ``window`` chooses from are waves
    of chunks, and what is between sweeps.
    """
    _evaluate_seeds(threads, first, step, seeds, *by_address((net, law, room)), x, cut, rows, cols, outputs, kernels)
