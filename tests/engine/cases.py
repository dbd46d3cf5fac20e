"""Networks that tests run over, and their parameters in the oracle's form."""

import dataclasses
import itertools
import math

import naive
import numpy as np

import ntksim
from ntksim.engine.activation import names
from ntksim.engine.formulas.blocks import MEANS, block_of, closed_duals
from ntksim.engine.infinite import expectations as quadrature

# The ones that most tests go through; all of them: test_activations.
ACTIVATIONS = ("relu", "erf", "tanh", "linear", "leaky_relu", "abs", "gelu", "sin")


def _mish(z):
    return z * math.tanh(math.log1p(math.exp(z)))


def _cracked(z):
    return math.atan(z) if z > 0 else 0.5 * z


def _cracked_slope(z):
    return 1 / (1 + z * z) if z > 0 else 0.5


MISH = ntksim.Activation("mish", _mish)
CRACKED = ntksim.Activation("cracked", _cracked, _cracked_slope, smooth=False)
naive.PHI.update({own: naive.PHI[own.name] for own in (MISH, CRACKED)})
NUMBERED = ("leaky_relu(-0.3)", "elu(0.4)", "monomial(3)", "rectified_monomial(3)")
ACTIVATION_CASES = (*names(), *NUMBERED, MISH, CRACKED)

POINTS = np.random.default_rng(1).normal(size=(5, 3))
BIASES = ((None, False), (0.0, False), (0.4, False), (0.4, True))
# Exponents that no parameterization has; c is not 0.
ODD = ntksim.ABC(0.1, 0.3, 0.7, -0.2, 0.25, 0.05, 0.4)
ABC_KINDS = (("mup", None), ("mean_field", None), ("abc", ODD))
NETWORKS = [
    ntksim.Network(len(widths), widths, activation, kind, 1.3, 0.9, sigma_b, output_bias, 1.6)
    for activation, kind, widths, (sigma_b, output_bias) in itertools.product(
        ACTIVATIONS, ("ntk", "notes", "standard"), ((6,), (7, 12, 5)), BIASES
    )
    if not (output_bias and kind == "notes")
] + [
    ntksim.Network(depth, 7, activation, kind, 1.3, 0.9, sigma_b, False, 1.6, abc)
    for activation, (kind, abc), depth, sigma_b in itertools.product(("relu", "tanh"), ABC_KINDS, (1, 3), (None, 0.0, 0.4))
    if not (kind == "mean_field" and depth > 1)
]


def label(network):
    bias = "no_bias" if network.sigma_b is None else f"bias{network.sigma_b}" + "_out" * network.output_bias
    return f"{network.activation}-{network.parameterization}-depth{network.depth}-{bias}"


def powers(network):
    """The network's own exponents in the oracle's form."""
    return None if network.abc is None else dataclasses.astuple(network.abc)


def oracle_arguments(network, d, seed, dtype="float64"):
    """(g, beta, weights, biases, a, c) of the oracle from the package's stored parameters."""
    p = ntksim.sample_parameters(network, d, seed, dtype=dtype)
    g, beta = naive.multipliers(
        network.parameterization, d, network.widths, network.sigma_w, network.sigma_a, network.sigma_b,
        network.output_bias, network.output_scale, powers(network),
    )  # fmt: skip
    weights = [w.astype(float) for w in p.weights]
    biases = [np.zeros(n) for n in network.widths] if p.biases is None else [b.astype(float) for b in p.biases]
    return g, beta, weights, biases, p.readout.astype(float), 0.0 if p.output_bias is None else p.output_bias


def dual(phi, k11, k12, k22):
    """Both Gaussian expectations of a closed form, from two variances and a covariance."""
    points, gap, slope = np.zeros((6, 2)), gaps(k11, np.array([k12]), k22), np.ones(1)
    points[0] = math.sqrt(k11), math.sqrt(k22)
    block_of(phi.code).fill_points(phi.parameter, points)
    closed_duals(phi, tuple(points[:, 0]), points, 1, gap, slope)
    return points[5, 0] * points[5, 1] * float(correlations(gap)[0]), float(slope[0])


def gaps(k11, k12, k22):
    """1 - |rho| with the sign of rho."""
    size = np.sqrt(k11 * k22)
    rho = np.divide(k12, size, out=np.zeros_like(k12), where=size > 0)
    return np.copysign(np.maximum(1 - np.abs(rho), 0), rho)


def correlations(gap):
    """Correlations of gaps."""
    return np.copysign(1 - np.abs(gap), gap)


def expectations(phi, k11, k12, k22, product, symmetric, factors=MEANS):
    """By the series, in place: covariances k12 <- E[phi phi], product <- product E[phi' phi']; returns E[phi^2] of the points."""
    gap = gaps(k11[:, None], k12, k22[None])
    own1, own2 = quadrature.correlations(phi, np.sqrt(k11), gap, np.sqrt(k22), product, symmetric, factors)
    k12[:] = np.outer(own1[0], own2[0]) * correlations(gap)
    return own1[0] ** 2, own2[0] ** 2
