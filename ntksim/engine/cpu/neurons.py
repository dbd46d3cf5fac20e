"""Blocks of neurons of one hidden layer: their gradient, summed over points, and what they add to the outputs.

A block's numbers stand in rows of ``BLOCK``, a row for each parameter of a neuron: its d weights, its bias and its k weights in
the outputs. The gradient, summed over points, has as many rows. A neuron's activation at a point is computed where it is
needed and kept in no array: what is done with it is worth less than to store and fetch it.

The innermost axis is always one that is not summed over: neurons where sums are over points, points where they are over neurons.
Every sum thus runs in ascending order, fused, with as many sums side by side as a processor's vectors hold, and its bits depend
on none of that. Loops are compiled for each activation, d and k, which are small, when they are first asked for: there are no
loops over inputs and outputs in them.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import from_dtype, types

from ntksim.engine.compiled.jit import CalledByAddress, fma, jit_inline, jit_inner, no_overlap, wide_vectors
from ntksim.engine.formulas.blocks import block_of

BLOCK = 64  # neurons of a block: the first cache holds their numbers and the sums
PIECE = 256  # points summed before the sum is added to the others: longer float32 sums would lose digits, and leave the cache
_POINTS, _NEURONS = 2, 2  # taken at once in a sum over points, and over neurons: sums are stored half as often

_LOOPS = CalledByAddress(lambda real: (types.float64, real[::1], types.intp, real[::1], types.intp, real[::1]))
#: compiled code's way to call either: ``call_loop(address, (parameter, neurons, count, inputs, lanes, gradient or outputs))``
call_loop = _LOOPS.call


def loops_of(code: int, inputs: int, outputs: int, kind: np.dtype) -> tuple[int, int]:
    """Addresses of an activation's two loops, compiled the first time: see `_sum_over_points`, `_sum_over_neurons`."""
    real = from_dtype(kind)
    over_points, over_neurons = _made(code, inputs, outputs)
    return _LOOPS.address(over_points, real), _LOOPS.address(over_neurons, real)


@cache
def _made(code: int, inputs: int, outputs: int) -> tuple[Any, Any]:
    value_and_slope = block_of(code).value_and_slope
    pre_activation = _pre_activation(inputs)
    return (
        _sum_over_points(value_and_slope, pre_activation, inputs, outputs),
        _sum_over_neurons(value_and_slope, pre_activation, inputs, outputs),
    )


@jit_inline
def _at(row, length, i):
    """Index of a number in flat rows: without a sign, as Numba would ask of every index whether it counts from the end."""
    return np.uintp(row * length + i)


def _pre_activation(d: int) -> Any:
    def pre_activation(neurons, r, inputs, lanes, i):
        """z of a neuron and a point."""
        z = neurons[_at(d, BLOCK, r)]
        for j in range(d):
            z = fma(neurons[_at(j, BLOCK, r)], inputs[_at(j, lanes, i)], z)
        return z

    return jit_inline(pre_activation)


def _sum_over_points(value_and_slope: Any, pre_activation: Any, d: int, k: int) -> Any:
    rows = d + 1 + k

    @jit_inline
    def add_point(parameter, neurons, r, inputs, lanes, i, gradient):
        kind = neurons.dtype.type
        value, slope = value_and_slope(pre_activation(neurons, r, inputs, lanes, i), parameter)
        back = gradient[_at(0, lanes, i)] if k == 1 else kind(0)
        for a in range(k):
            g, to = gradient[_at(a, lanes, i)], _at(rows + d + 1 + a, BLOCK, r)
            neurons[to] = fma(kind(value), g, neurons[to])
            if k > 1:
                back = fma(neurons[_at(d + 1 + a, BLOCK, r)], g, back)
        back *= kind(slope)
        for j in range(d):
            to = _at(rows + j, BLOCK, r)
            neurons[to] = fma(back, inputs[_at(j, lanes, i)], neurons[to])
        neurons[_at(rows + d, BLOCK, r)] += back

    def loop(parameter, neurons, count, inputs, lanes, gradient):
        """Sums over points of phi'(z) b (x, 1) and of phi(z) g, with b = a'g, or g where there is one output.

        ``neurons`` (3 rows, BLOCK) holds parameters, scratch and, filled here, the sums; ``count`` neurons are there.
        """
        wide_vectors()
        no_overlap()
        for row in range(rows):
            for r in range(count):
                neurons[_at(2 * rows + row, BLOCK, r)] = 0
        for first in range(0, lanes, PIECE):
            for row in range(rows):
                for r in range(count):
                    neurons[_at(rows + row, BLOCK, r)] = 0
            for i in range(first, min(first + PIECE, lanes), _POINTS):
                for r in range(count):
                    for other in range(_POINTS):
                        add_point(parameter, neurons, r, inputs, lanes, i + other, gradient)
            for row in range(rows):
                for r in range(count):
                    neurons[_at(2 * rows + row, BLOCK, r)] += neurons[_at(rows + row, BLOCK, r)]

    return jit_inner(loop)


def _sum_over_neurons(value_and_slope: Any, pre_activation: Any, d: int, k: int) -> Any:
    def loop(parameter, neurons, count, inputs, lanes, outputs):
        """Fill ``outputs`` (k, lanes) with sum_r a_r phi(z_r)."""
        wide_vectors()
        no_overlap()
        kind = neurons.dtype.type
        for e in range(k * lanes):
            outputs[e] = 0
        for first in range(0, lanes, PIECE):
            for r in range(0, count, _NEURONS):
                for i in range(first, min(first + PIECE, lanes)):
                    for other in range(_NEURONS):
                        value, _ = value_and_slope(pre_activation(neurons, r + other, inputs, lanes, i), parameter)
                        for a in range(k):
                            to = _at(a, lanes, i)
                            outputs[to] = fma(neurons[_at(d + 1 + a, BLOCK, r + other)], kind(value), outputs[to])

    return jit_inner(loop)
