"""Networks in law: exactly the networks of their draws, in law those of weights, and bits that nothing but the inputs changes."""

import itertools

import naive
import numpy as np
import pytest
from cases import NETWORKS, POINTS, label, oracle_arguments, powers
from tolerances import ROUND_OFF, assert_close

import ntksim
from ntksim.engine import conditional
from ntksim.engine.conditional_layout import COLUMNS, CONDITIONED, CUT, ROWS

# Relative, for Gram matrices of condition numbers up to 1e5; beyond, 1e-15 times those where that is more.
EXACT = {"float64": 1e-10, "float32": 1e-4}
SEVERAL = [
    ntksim.Network(1, 9, "relu", "notes", 1.3, 0.9, outputs=3),
    ntksim.Network(3, (17, 22, 15), "tanh", "ntk", 1.3, 0.9, 0.4, True, 1.6, outputs=3),
    ntksim.Network(2, (15, 8), "erf", "standard", 1.3, 0.9, 0.0, True, outputs=3),
    ntksim.Network(2, 7, "gelu", "mup", 1.3, 0.9, 0.4, outputs=2),
]


def sample(network, x1, x2=None, *, seeds, dtype="float64", form="full", force=None):
    """Outputs (S, n1, k), kernels (S, blocks, n1, n2) and the ways of layers."""
    k, rows, cols = network.outputs, len(x1), len(x1 if x2 is None else x2)
    outputs = np.empty((len(seeds), rows, k), dtype)
    kernels = np.empty((len(seeds), 1, k * rows, k * cols) if form == "full" else (len(seeds), k, rows, cols), dtype)
    ways = conditional.evaluate(network, x1, x2, np.array(seeds, np.uint64), outputs, kernels, force)
    return outputs, kernels, ways


def exact(network, x, seed, ways, dtype):
    """Assert that the sampled outputs and kernel are those of explicit matrices that have the sampler's draws."""
    outputs, kernels, ran = sample(network, x, seeds=[seed], dtype=dtype, force=ways)
    assert ran == ways
    (*shared, readouts, c), condition = explicit(network, x, seed, ways, dtype)
    tolerance = max(EXACT[dtype], 1e-15 * condition)
    values = [naive.output(naive.PHI[network.activation][0], *shared, a, b, x) for a, b in zip(readouts, c, strict=True)]
    assert_close(outputs[0], np.array(values).T, tolerance)
    bias, own = network.sigma_b is not None, readouts.shape[1] + network.output_bias
    jacobians = np.array(
        [
            naive.jacobian(network.activation, *shared, a, b, x, bias, network.output_bias)
            for a, b in zip(readouts, c, strict=True)
        ]
    )
    kernel = np.einsum("aip,bjp->iajb", jacobians[..., own:], jacobians[..., own:])
    for a, j in enumerate(jacobians[..., :own]):
        kernel[:, a, :, a] += j @ j.T
    assert_close(kernels[0, 0], kernel.reshape(kernels.shape[2:]), tolerance)


def explicit(network, x, seed, ways, dtype):
    """The oracle's arguments of a network that the draws leave possible, and the worst condition number of a Gram matrix."""
    g, beta, weights, biases, readouts, c = oracle_arguments(network, x.shape[1], seed)
    readouts, cut, worst = readouts.reshape(network.outputs, -1), CUT[dtype], 1.0
    scales = naive.initial_scales(
        network.parameterization, x.shape[1], network.widths, network.sigma_w, network.sigma_a, powers(network)
    )
    phi, slope = naive.PHI[network.activation]
    rng = np.random.default_rng(seed)
    rests = [rng.normal(size=w.shape) for w in weights]
    h, slopes, draws = [x.T], [], []
    for layer, way in enumerate(ways, 1):
        draws.append(conditional.draws(network, layer, len(x), seed))
        if way == CONDITIONED:
            r, _, condition = naive.orthonormal(h[-1], cut)
            product = scales[layer - 1] * draws[-1][0] @ r
            worst = max(worst, condition)
        else:
            product = weights[layer - 1] @ h[-1]
        z = g[layer - 1] * product + beta[layer - 1] * biases[layer - 1][:, None]
        h.append(phi(z))
        slopes.append(slope(z))
    delta = np.concatenate([g[-1] * a[:, None] * slopes[-1] for a in readouts], axis=1)
    for layer in range(len(ways), 0, -1):
        if ways[layer - 1] == CONDITIONED:
            left, right = draws[layer - 1]
            if layer == 1:
                delta, right = np.zeros((len(left), 1)), np.zeros((x.shape[1], 1))
            w, condition = naive.matrix_of_draws(left, right, h[layer - 1], delta, rests[layer - 1], cut)
            weights[layer - 1], worst = scales[layer - 1] * w, max(worst, condition)
        if layer > 1:
            delta = g[layer - 1] * (weights[layer - 1].T @ delta) * np.tile(slopes[layer - 2], network.outputs)
    return (g, beta, weights, biases, readouts, np.broadcast_to(c, network.outputs)), worst


# --- exactly the networks of their draws ------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS, ids=label)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_network_is_that_of_its_draws(network, dtype):
    """Fewer points than inputs and neurons, and more points than inputs and, with the sets below, than neurons."""
    for x in (np.random.default_rng(2).normal(size=(3, 6)), POINTS):
        exact(network, x, 7, (CONDITIONED,) * network.depth, dtype)


@pytest.mark.parametrize("network", SEVERAL, ids=label)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_several_outputs(network, dtype):
    exact(network, POINTS, 2**40 + 3, (CONDITIONED,) * network.depth, dtype)
    several, first = network, ntksim.Network(
        network.depth, network.width, network.activation, network.parameterization, network.sigma_w, network.sigma_a,
        network.sigma_b, network.output_bias, network.output_scale,
    )  # fmt: skip
    options = {"seeds": range(3), "dtype": dtype, "force": (CONDITIONED,) * network.depth}
    f, kernels, _ = sample(several, POINTS, form="diagonal", **options)
    full = sample(several, POINTS, **options)[1].reshape(3, 5, network.outputs, 5, network.outputs)
    assert (np.einsum("siaja->saij", full) == kernels).all()
    assert (full == full.transpose(0, 3, 4, 1, 2)).all()
    g, alone, _ = sample(first, POINTS, **options)
    assert_close(f[..., :1], g, ROUND_OFF[dtype])
    assert_close(kernels[:, 0], alone[:, 0], ROUND_OFF[dtype])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "ways", list(itertools.product((CONDITIONED, ROWS), (CONDITIONED, ROWS, COLUMNS), (CONDITIONED, COLUMNS)))
)
def test_layers_by_weights_beside_conditioned_ones(ways, dtype):
    exact(ntksim.Network(3, (14, 9, 33), "gelu", sigma_b=0.3, outputs=2), POINTS[:4], 5, ways, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("ways", [(ROWS, ROWS, ROWS), (ROWS, COLUMNS, ROWS), (ROWS, ROWS, COLUMNS)])
def test_weights_in_every_layer_are_the_network_of_weights(ways, dtype):
    """Over panels and chunks with ragged ends, these sweeps give what the other ones do."""
    network = ntksim.Network(3, (140, 30, 1100), "tanh", sigma_b=0.2, outputs=2)
    outputs, kernels, _ = sample(network, POINTS, seeds=[3, 4], dtype=dtype, force=ways)
    expected = ntksim.empirical_ntk(network, POINTS, seeds=[3, 4], dtype=dtype)
    assert_close(kernels[:, 0], expected.reshape(2, 10, 10), ROUND_OFF[dtype])
    assert_close(outputs, ntksim.network_outputs(network, POINTS, seeds=[3, 4], dtype=dtype), 10 * ROUND_OFF[dtype])


def test_wide_layers_cross_panels_and_chunks():
    exact(ntksim.Network(2, (1030, 517), "erf", sigma_b=0.2), POINTS, 11, (CONDITIONED, CONDITIONED), "float64")


RNG = np.random.default_rng(8)
SETS = {
    "single": RNG.normal(size=(1, 3)),
    "zero": np.concatenate([np.zeros((1, 3)), RNG.normal(size=(3, 3))]),
    "all_zero": np.zeros((1, 3)),
    "nearly_parallel": RNG.normal(size=(1, 3)) * np.array([[1.0], [1.0 + 1e-9], [2.0], [1e-7]]) + 1e-4 * RNG.normal(size=(4, 3)),
    "more_than_neurons": RNG.normal(size=(30, 3)),
}


@pytest.mark.parametrize("points", SETS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "linear"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_awkward_points(points, activation, dtype):
    exact(ntksim.Network(3, (12, 9, 14), activation, sigma_w=1.4, sigma_b=0.2), SETS[points], 3, (CONDITIONED,) * 3, dtype)
    exact(ntksim.Network(2, (12, 9), activation, sigma_w=1.4), SETS[points], 3, (CONDITIONED,) * 2, dtype)
