"""Loops over a piece of a layer, whose activations and sensitivities have a column per neuron."""

from ntksim.engine.compiled.jit import jit
from ntksim.engine.formulas.blocks import activate
from ntksim.engine.formulas.layer import finish_sensitivity, pre_activation


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
