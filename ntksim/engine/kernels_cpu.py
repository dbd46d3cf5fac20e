"""Loops over seeds, layers and tiles on the CPU: forward and backward passes, and the empirical kernel.

Structured form (Novak et al. 2022, for fully-connected networks): with delta^l = df/dz^l,

    K = g_(L+1)^2 H^L H^L' + beta_(L+1)^2 + sum_l (delta^l delta^l') o (g_l^2 H^(l-1) H^(l-1)' + beta_l^2),

so a kernel costs two passes over every weight matrix and two Gram matrices a layer, never a Jacobian. A weight matrix
is visited in tiles that stay in cache. A tile is a view where the weights are stored (training), and drawn into scratch
where they are not (initial kernels), which therefore never hold an m x m matrix. Tile sizes are fixed and
partial sums are added in tile order: bits depend neither on threads nor on how the seeds are split.

Arrays of all layers are flat: layer l's activations (n, n_l) start at n * starts[l], its parameters at ``offsets``.
"""

import numpy as np
from numba import prange

from ntksim.engine.blas import gemm, syrk
from ntksim.engine.counter_rng import fill_scaled, fill_vector
from ntksim.engine.jit import jit, jit_parallel
from ntksim.engine.layer_rules import (
    add_layer_kernel,
    add_readout_kernel,
    finish_layer,
    finish_sensitivity,
    readout_output,
    readout_sensitivity,
)

# A tile of 256 x 512 float32 numbers is 512 KiB: it stays in the second-level cache between generator and GEMM.
TILE_ROWS = 256
TILE_COLS = 512
GRAM_COLS = 8192

_u32, _f32 = np.uint32, np.float32


# --- parameters -------------------------------------------------------------------------------------------------------


@jit
def weight_code(layer):
    """The generator's code for the weights of a layer (1..L, and L+1 for the readout)."""
    return _u32(2 * layer)


@jit
def bias_code(layer):
    """The generator's code for the biases of a layer."""
    return _u32(2 * layer + 1)


@jit
def seed_words(seed):
    """Low and high 32 bits of a seed."""
    return _u32(seed & np.uint64(0xFFFFFFFF)), _u32(seed >> np.uint64(32))


@jit
def parameter_offsets(widths):
    """Where each layer's weights and biases start in a flat parameter vector; the last entry is its length.

    ``widths`` is (n_0, ..., n_L, 1). Entry 2(l-1) is the start of layer l's weights, 2(l-1)+1 that of its biases.
    """
    layers = widths.size - 1
    offsets = np.zeros(2 * layers + 1, np.int64)
    for layer in range(layers):
        offsets[2 * layer + 1] = offsets[2 * layer] + widths[layer] * widths[layer + 1]
        offsets[2 * layer + 2] = offsets[2 * layer + 1] + widths[layer + 1]
    return offsets


@jit
def draw_parameters(seed, stream, widths, weight_init, bias_init, theta):
    """Fill the flat vector ``theta`` with a seed's parameters, as stored."""
    low, high = seed_words(seed)
    offsets = parameter_offsets(widths)
    layers = widths.size - 1
    for layer in range(1, layers + 1):
        weights = theta[offsets[2 * layer - 2] : offsets[2 * layer - 1]]
        scale = _f32(weight_init[layer - 1])
        if layer == layers:
            fill_vector(low, stream, weight_code(layer), high, scale, weights)
        else:
            matrix = weights.reshape(widths[layer], widths[layer - 1])
            fill_scaled(low, stream, weight_code(layer), high, 0, 0, scale, matrix)
        biases = theta[offsets[2 * layer - 1] : offsets[2 * layer]]
        fill_vector(low, stream, bias_code(layer), high, _f32(bias_init[layer - 1]), biases)


@jit
def _vector(seed, stream, code, scale, theta, start, size):
    """A bias or readout vector: a view of ``theta`` where parameters are stored, drawn where it is empty."""
    if theta.size:
        return theta[start : start + size]
    out = np.empty(size, theta.dtype)
    low, high = seed_words(seed)
    fill_vector(low, stream, code, high, _f32(scale), out)
    return out


@jit
def _tile(seed, stream, layer, scale, theta, start, columns, i0, i1, j0, j1, scratch):
    """Rows i0..i1 and columns j0..j1 of W^layer: a view of ``theta``, or drawn into ``scratch`` where it is empty."""
    if theta.size:
        return theta[start + i0 * columns : start + i1 * columns].reshape(i1 - i0, columns)[:, j0:j1]
    tile = scratch[: (i1 - i0) * (j1 - j0)].reshape(i1 - i0, j1 - j0)
    low, high = seed_words(seed)
    fill_scaled(low, stream, weight_code(layer), high, i0, j0, _f32(scale), tile)
    return tile[:, :]


@jit
def _scratch(theta, rows, cols):
    """Room for a tile, if tiles are to be drawn."""
    size = 0 if theta.size else min(rows, TILE_ROWS) * min(cols, TILE_COLS)
    return np.empty(size, theta.dtype)


# --- one layer --------------------------------------------------------------------------------------------------------


@jit
def _forward_layer(seed, stream, layer, scale, theta, start, inputs, outputs):
    """outputs (n, m) = inputs (n, k) W^layer'."""
    rows, cols = outputs.shape[1], inputs.shape[1]
    scratch = _scratch(theta, rows, cols)
    for i0 in range(0, rows, TILE_ROWS):
        i1 = min(i0 + TILE_ROWS, rows)
        for j0 in range(0, cols, TILE_COLS):
            j1 = min(j0 + TILE_COLS, cols)
            tile = _tile(seed, stream, layer, scale, theta, start, cols, i0, i1, j0, j1, scratch)
            gemm(1, inputs[:, j0:j1], False, tile, True, 0 if j0 == 0 else 1, outputs[:, i0:i1])


@jit
def _backward_layer(seed, stream, layer, scale, theta, start, delta, below):
    """below (n, k) = delta (n, m) W^layer."""
    rows, cols = delta.shape[1], below.shape[1]
    scratch = _scratch(theta, rows, cols)
    for j0 in range(0, cols, TILE_COLS):
        j1 = min(j0 + TILE_COLS, cols)
        for i0 in range(0, rows, TILE_ROWS):
            i1 = min(i0 + TILE_ROWS, rows)
            tile = _tile(seed, stream, layer, scale, theta, start, cols, i0, i1, j0, j1, scratch)
            gemm(1, delta[:, i0:i1], False, tile, False, 0 if i0 == 0 else 1, below[:, j0:j1])


@jit
def gram(a, split, partial, out):
    """out = a a' (split 0), or the Gram matrix of the first ``split`` rows of a with the others."""
    out[:] = 0
    for j0 in range(0, a.shape[1], GRAM_COLS):
        j1 = min(j0 + GRAM_COLS, a.shape[1])
        if split == 0:
            syrk(a[:, j0:j1], partial)
        else:
            gemm(1, a[:split, j0:j1], False, a[split:, j0:j1], True, 0, partial)
        for i in range(out.shape[0]):
            for j in range(out.shape[1]):
                out[i, j] += partial[i, j]


# --- one seed ---------------------------------------------------------------------------------------------------------


@jit
def layer_view(flat, starts, widths, layer, n):
    """Layer ``layer``'s part (n, n_layer) of a flat buffer."""
    begin = n * starts[layer]
    return flat[begin : begin + n * widths[layer]].reshape(n, widths[layer])


@jit
def layer_starts(widths):
    """Cumulated widths: where layer l starts in a buffer of activations, in units of points."""
    starts = np.zeros(widths.size, np.int64)
    for layer in range(1, widths.size):
        starts[layer] = starts[layer - 1] + widths[layer - 1]
    return starts


@jit
def forward(seed, stream, code, widths, scales, theta, h, derivative, outputs):
    """Forward pass of one seed: fills h^1..h^L, phi'(z^1)..phi'(z^L) and the outputs (n,).

    ``h`` and ``derivative`` are flat buffers; h^0, the inputs, stands in ``h`` already. ``scales`` (4, L+1) holds g, s,
    beta and t. ``theta`` holds the parameters, or is empty where they are to be drawn.
    """
    n, last = outputs.size, widths.size - 1
    starts, offsets = layer_starts(widths), parameter_offsets(widths)
    for layer in range(1, last):
        below, above = layer_view(h, starts, widths, layer - 1, n), layer_view(h, starts, widths, layer, n)
        start, after = offsets[2 * layer - 2], offsets[2 * layer - 1]
        _forward_layer(seed, stream, layer, scales[1, layer - 1], theta, start, below, above)
        b = _vector(seed, stream, bias_code(layer), scales[3, layer - 1], theta, after, widths[layer])
        slope = layer_view(derivative, starts, widths, layer, n)
        finish_layer(code, scales[0, layer - 1], scales[2, layer - 1], b, above, slope)
    a = _vector(seed, stream, weight_code(last), scales[1, last - 1], theta, offsets[2 * last - 2], widths[last - 1])
    c = _vector(seed, stream, bias_code(last), scales[3, last - 1], theta, offsets[2 * last - 1], 1)
    top = layer_view(h, starts, widths, last - 1, n)
    for i in range(n):
        outputs[i] = readout_output(scales[0, last - 1], scales[2, last - 1], a, c[0], top[i])


@jit
def top_sensitivity(seed, stream, widths, scales, theta, derivative, n, delta):
    """delta^L (n, n_L) of one seed, into the flat buffer ``delta``."""
    last = widths.size - 1
    starts, offsets = layer_starts(widths), parameter_offsets(widths)
    a = _vector(seed, stream, weight_code(last), scales[1, last - 1], theta, offsets[2 * last - 2], widths[last - 1])
    slope = layer_view(derivative, starts, widths, last - 1, n)
    readout_sensitivity(scales[0, last - 1], a, slope, delta[: slope.size].reshape(n, widths[last - 1]))


@jit
def sensitivity_below(seed, stream, layer, widths, scales, theta, derivative, n, delta, below):
    """delta^(layer-1) from delta^layer, both in flat buffers."""
    starts, offsets = layer_starts(widths), parameter_offsets(widths)
    above = delta[: n * widths[layer]].reshape(n, widths[layer])
    slope = layer_view(derivative, starts, widths, layer - 1, n)
    out = below[: slope.size].reshape(n, widths[layer - 1])
    _backward_layer(seed, stream, layer, scales[1, layer - 1], theta, offsets[2 * layer - 2], above, out)
    finish_sensitivity(scales[0, layer - 1], slope, out)


@jit
def add_readout_share(widths, scales, h, n, split, features, partial, kernel):
    """Add the readout's share of the kernel; ``features`` and ``partial`` are scratch of the kernel's shape."""
    last = widths.size - 1
    gram(layer_view(h, layer_starts(widths), widths, last - 1, n), split, partial, features)
    add_readout_kernel(scales[0, last - 1], scales[2, last - 1], features, kernel)


@jit
def add_layer_share(layer, widths, scales, h, delta, n, split, features, sensitivities, partial, kernel):
    """Add a hidden layer's share of the kernel, from delta^layer in the flat buffer ``delta``."""
    gram(layer_view(h, layer_starts(widths), widths, layer - 1, n), split, partial, features)
    gram(delta[: n * widths[layer]].reshape(n, widths[layer]), split, partial, sensitivities)
    add_layer_kernel(scales[0, layer - 1], scales[2, layer - 1], sensitivities, features, kernel)


@jit
def kernel_of_seed(seed, stream, code, widths, scales, theta, split, h, derivative, delta, below, outputs, grams, kernel):
    """Outputs (n,) and kernel of one seed; h, derivative, delta and below are flat buffers, ``grams`` (3, ...) scratch."""
    n = outputs.size
    forward(seed, stream, code, widths, scales, theta, h, derivative, outputs)
    kernel[:] = 0
    add_readout_share(widths, scales, h, n, split, grams[0], grams[2], kernel)
    top_sensitivity(seed, stream, widths, scales, theta, derivative, n, delta)
    for layer in range(widths.size - 2, 0, -1):
        add_layer_share(layer, widths, scales, h, delta, n, split, grams[0], grams[1], grams[2], kernel)
        if layer > 1:
            sensitivity_below(seed, stream, layer, widths, scales, theta, derivative, n, delta, below)
            delta, below = below, delta


# --- many seeds -------------------------------------------------------------------------------------------------------


@jit_parallel
def outputs_of_seeds(workers, seeds, stream, code, widths, scales, x, out):
    """Outputs at initialisation, (S, n); worker w takes seeds w, w + workers, ..."""
    n, room = x.shape[0], np.sum(widths[:-1])
    for worker in prange(workers):
        h, derivative = np.empty(n * room, x.dtype), np.empty(n * room, x.dtype)
        h[: x.size] = x.ravel()
        drawn = np.empty(0, x.dtype)
        for s in range(worker, seeds.size, workers):
            forward(seeds[s], stream, code, widths, scales, drawn, h, derivative, out[s])


@jit_parallel
def kernels_of_seeds(workers, seeds, stream, code, widths, scales, x, split, out):
    """Empirical kernels at initialisation, (S, n, n); with ``split`` > 0 those of the first ``split`` rows of x with
    the others, (S, split, n - split)."""
    n, room, widest = x.shape[0], np.sum(widths[:-1]), np.max(widths)
    for worker in prange(workers):
        h, derivative = np.empty(n * room, x.dtype), np.empty(n * room, x.dtype)
        delta, below = np.empty(n * widest, x.dtype), np.empty(n * widest, x.dtype)
        outputs, grams = np.empty(n, x.dtype), np.empty((3, out.shape[1], out.shape[2]), x.dtype)
        h[: x.size] = x.ravel()
        drawn = np.empty(0, x.dtype)
        for s in range(worker, seeds.size, workers):
            kernel_of_seed(
                seeds[s], stream, code, widths, scales, drawn, split, h, derivative, delta, below, outputs, grams, out[s]
            )
