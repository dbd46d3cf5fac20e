"""The exact variance of the kernel of one hidden layer: quadrature of the oracle, golden values, and Monte Carlo."""

import math

import numpy as np
import pytest
from naive import PHI, gaussian_pair

import ntksim
from ntksim.engine.infinite.dispersion import dispersion_law

X = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 2.0], [-0.3, 0.1, 0.2]])


@pytest.mark.parametrize("activation", ["relu", "tanh", "erf", "leaky_relu", "abs", "gelu", "sin"])
@pytest.mark.parametrize("sigma_b", [None, 0.5])
def test_against_nested_quadrature(activation, sigma_b):
    """Every entry from its definition, off the diagonal too, in the notes' parameterization at width 1."""
    sigma_w, sigma_a, x = 1.3, 0.8, X[:2]
    found = ntksim.one_hidden_layer_variance(ntksim.Network(1, 1, activation, "notes", sigma_w, sigma_a, sigma_b), x)
    phi, slope = PHI[activation]
    q = sigma_w**2 * x @ x.T / 3 + (sigma_b or 0.0) ** 2
    c = x @ x.T + (sigma_b is not None)
    for i, j in ((0, 0), (0, 1), (1, 1)):

        def term(u, v, power, c=c[i, j]):
            values, slopes = float(phi(u) * phi(v)), c * float(slope(u) * slope(v))
            if power == 1:
                return values + sigma_a**2 * slopes
            return values**2 + 2 * sigma_a**2 * values * slopes + 3 * sigma_a**4 * slopes**2

        # the diagonal is a limit of pairs: a correlation of 1 is one integral, which the oracle does with a tiny rest
        covariance = q[i, j] if i != j else q[i, i] * (1 - 1e-12)
        mean, square = (gaussian_pair(lambda u, v, p=p: term(u, v, p), q[i, i], covariance, q[j, j]) for p in (1, 2))
        assert found[i, j] == pytest.approx(square - mean**2, rel=1e-4 if i == j else 1e-7)
    assert (found == found.T).all()


def test_golden_relu_diagonal():
    """Bias-free ReLU: m Var / E^2 is 3 in `ntk`, and [5 (q^2 + s^2) + 2 q s] / (q + s)^2 in `notes`."""
    for kind in ("ntk", "notes"):
        network = ntksim.Network(1, 7, "relu", kind, 1.3, 0.8)
        relative = (
            7 * np.diag(ntksim.one_hidden_layer_variance(network, X)) / np.diag(ntksim.infinite_kernel(network, X).ntk) ** 2
        )
        square = (X**2).sum(axis=1)
        q, s = 1.69 * square / 3, 0.64 * square
        expected = np.full(3, 3.0) if kind == "ntk" else (5 * (q * q + s * s) + 2 * q * s) / (q + s) ** 2
        assert relative == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["ntk", "notes", "standard"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "linear"])
def test_measured_variance(kind, activation):
    """Entry by entry over 40,000 networks of width 16; z below 6 for 9 entries and 9 cells: false alarm 2e-7."""
    bias = {"sigma_b": 0.4, "output_bias": kind != "notes"}
    network = ntksim.Network(1, 16, activation, kind, 1.2, 0.9, output_scale=1.3, **bias)
    kernels = ntksim.empirical_ntk(network, X, seeds=range(40_000))
    deviations = (kernels - ntksim.infinite_kernel(network, X).ntk) ** 2
    expected = ntksim.one_hidden_layer_variance(network, X)
    error = deviations.std(axis=0) / math.sqrt(40_000)
    assert (np.abs(deviations.mean(axis=0) - expected) < 6 * error).all()


def test_deeper_networks_are_refused():
    with pytest.raises(ValueError, match="one hidden layer; got a network of depth 2"):
        ntksim.one_hidden_layer_variance(ntksim.Network(2, 8), X)


def test_dispersion_of_deep_relu_networks_to_leading_order():
    """The values at width 32 are those of the formula by hand; 11 beta / 3 is its slope at small beta, 5 its growth at large."""
    he = np.sqrt(2.0)
    found = [32 * (dispersion_law(ntksim.Network(depth, 32, sigma_w=he)) - 1) for depth in (1, 2, 3, 4)]
    assert found == pytest.approx([3.0, 6.8, 11.1, 16.1], abs=0.05)
    assert dispersion_law(ntksim.Network(16, 16, sigma_w=he)) == pytest.approx(31.7, abs=0.05)
    assert (dispersion_law(ntksim.Network(2000, 10**7, sigma_w=he)) - 1) / 2e-4 == pytest.approx(11 / 3, rel=1e-2)
    deep = [np.log(dispersion_law(ntksim.Network(depth, 100, sigma_w=he))) for depth in (1000, 1100)]
    assert deep[1] - deep[0] == pytest.approx(100 * np.log1p(5 / 100) - np.log(1.1), rel=1e-2)
    for other in (
        ntksim.Network(2, 32, sigma_w=1.4), ntksim.Network(2, 32, "tanh", sigma_w=he), ntksim.Network(2, (8, 9), sigma_w=he),
        ntksim.Network(2, 32, sigma_w=he, sigma_b=0.0), ntksim.Network(2, 32, parameterization="notes", sigma_w=he),
    ):  # fmt: skip
        assert np.isnan(dispersion_law(other))


def test_dispersion_of_networks_is_that_of_the_leading_order():
    """Width 32, depth 2, 4,000 seeds: n times the relative variance is 6.85 (simulated), by the law 6.8; four errors are 1.0."""
    network = ntksim.Network(2, 32, sigma_w=np.sqrt(2.0))
    kernels = ntksim.empirical_ntk(network, np.array([[0.6, 0.8]]), seeds=range(4000))[:, 0, 0]
    found = 32 * (np.mean(kernels**2) / np.mean(kernels) ** 2 - 1)
    assert found == pytest.approx(32 * (dispersion_law(network) - 1), abs=1.0)
