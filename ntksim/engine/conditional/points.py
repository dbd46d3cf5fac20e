"""A piece of a layer, whose activations and sensitivities have a column per neuron: its draws, and loops over it."""

import numpy as np

from ntksim.engine.compiled.jit import jit
from ntksim.engine.formulas.blocks import activate
from ntksim.engine.formulas.layer import finish_sensitivity, pre_activation
from ntksim.engine.formulas.normals import ROWS_PER_BLOCK, fill_normals


@jit
def finish_points(net, weight, bias, b, z, slope):
    """z <- phi(g z + beta b) and slope <- phi'(...), in place; z (n, neurons) holds W h, and b (neurons,) the stored biases."""
    kind = z.dtype.type
    for i in range(z.shape[0]):
        row = z[i]
        for r in range(row.size):
            row[r] = pre_activation(kind(weight), kind(bias), row[r], b[r])
    activate(net, z.reshape(z.size), slope.reshape(z.size))


@jit
def finish_sensitivities(weight, slope, delta):
    """delta <- g delta phi'(z), in place: slope (n, neurons), and delta (n k, neurons) the product with W' of the layer above."""
    outputs = delta.shape[0] // slope.shape[0]
    for row in range(delta.shape[0]):
        finish_sensitivity(weight, slope[row // outputs], delta[row])


def normals(
    seed: np.uint64, stream: np.uint32, kind: np.dtype, code: int, row: int, column: int, rows: int, columns: int
) -> np.ndarray:
    """A block of a seed's normals, as explicit networks draw them."""
    low, high = np.uint32(int(seed) & 0xFFFFFFFF), np.uint32(int(seed) >> 32)
    out = np.empty((-(-rows // ROWS_PER_BLOCK) * ROWS_PER_BLOCK, columns), kind)
    fill_normals(low, stream, code, high, row, column, out)
    return out[:rows]
