"""Parameters on the CPU: drawn as functions of a seed, or copied from a vector that is stored."""

import numpy as np
from numba import typeof, types

from ntksim.engine.compiled.by_address import Address, by_address
from ntksim.engine.compiled.jit import compiled_once, jit, jit_inner
from ntksim.engine.formulas.normals import bias_code, draw_vector, fill_scaled, seed_words, weight_code
from ntksim.engine.layout import Net, Pairs, Room, Weights

_f32 = np.float32


def argument_types(real):
    """Types of (seed, net, weights, room, pairs), which compiled functions hand on, for a type of reals."""
    flat, integers = np.empty(0, real.name), np.empty(0, np.int64)
    net = Net(np.uint32(0), 0, 0.0, 0, 0, integers, integers, np.empty((5, 1)), 0)
    weights = Weights(flat, integers, np.empty(0, np.bool_), integers, True)
    matrix, stack = np.empty((0, 0)), np.empty((0, 0, 0))
    own = matrix.astype(real.name)
    flags = True, True, True, True, True, True
    room = Room(flat, flat, flat, integers, integers, *flags, flat, own, matrix, stack, stack, stack[None], flat, own, integers)
    return types.uint64, *(Address(typeof(example)) for example in (net, weights, room, Pairs(0, 0, 0, 0, 0, True)))


@jit_inner
def draw_rows(seed, net, layer, begin, end, flat, at):
    """Draw rows begin..end of W^layer into ``flat``, the first of them at ``at``; what pads a row is drawn too."""
    low, high = seed_words(seed)
    length, scale = net.lengths[layer - 1], _f32(net.scales[1, layer - 1])
    fill_scaled(low, net.stream, weight_code(layer), high, net.law, begin, 0, end - begin, length, scale, flat, at, length)


@compiled_once(lambda real: (*argument_types(real)[:3],))
def draw_parameters(seed, net, weights):
    """Fill the parameter vector ``weights.flat`` with a seed's parameters, as stored, and zeros between them."""
    theta, offsets, last = weights.flat, weights.offsets, net.widths.size - 1
    theta[:] = 0
    for layer in range(1, last + 1):
        start, size = offsets[2 * layer - 2], net.widths[layer - 1]
        if layer == last:
            for a in range(net.widths[last]):
                row = start + a * net.lengths[layer - 1]
                draw_vector(seed, net, weight_code(layer), net.scales[1, layer - 1], a, 0, theta[row : row + size])
        else:
            draw_rows(seed, net, layer, 0, net.widths[layer], theta, start)
            for r in range(net.widths[layer]):
                row = start + r * net.lengths[layer - 1]
                theta[row + size : row + net.lengths[layer - 1]] = 0
        biases = theta[offsets[2 * layer - 1] : offsets[2 * layer - 1] + net.widths[layer]]
        draw_vector(seed, net, bias_code(layer), net.scales[3, layer - 1], 0, 0, biases)


@jit
def draw_into(seed, net, weights):
    """:func:`draw_parameters`, for Python."""
    draw_parameters(seed, *by_address((net, weights)))


@jit_inner
def _copy_entries(source, at, out):
    for r in range(out.size):
        out[r] = source[at + r]


@jit_inner
def get_biases(seed, net, weights, layer, begin, out):
    """Biases of a layer (1..L, and L+1 for the outputs') from neuron ``begin`` on: copied, or drawn."""
    if weights.stored:
        _copy_entries(weights.flat, weights.offsets[2 * layer - 1] + begin, out)
    else:
        draw_vector(seed, net, bias_code(layer), net.scales[3, layer - 1], 0, begin, out)


@jit_inner
def get_readout(seed, net, weights, begin, size, out, at):
    """Weights of every output on ``size`` neurons from ``begin`` on, into rows of ``out`` from ``at`` on: copied, or drawn."""
    last = net.widths.size - 1
    for a in range(out.shape[0]):
        row = out[a][at : at + size]
        if weights.stored:
            _copy_entries(weights.flat, weights.offsets[2 * last - 2] + a * net.lengths[last - 1] + begin, row)
        else:
            draw_vector(seed, net, weight_code(last), net.scales[1, last - 1], net.first + a, begin, row)
