"""Learning rates per layer: against the oracle's plain loop and integrator, and the units in which everything is said."""

import naive
import numpy as np
import pytest
from cases import POINTS, label, oracle_arguments, powers
from test_flow import oracle_flow
from tolerances import assert_close

import ntksim
from ntksim.engine.batches import batches

TARGETS = np.array([1.0, -1.0, 0.5, 0.0, -0.3])
TEST_POINTS = np.random.default_rng(9).normal(size=(2, 3))
RATES = (0.3, 2.0, 1.1)
FROZEN = [(0.0, 2.0, 1.1), (0.3, 0.0, 1.1), (0.3, 2.0, 0.0), (0.0, 0.0, 1.0)]
NETWORKS = [
    ntksim.Network(2, (7, 6), "tanh", "ntk", 1.2, 0.9, 0.3, True, 1.3),
    ntksim.Network(2, 8, "erf", "standard", 1.2, 0.9, None),
    ntksim.Network(2, 7, "tanh", "mup", 1.2, 0.9, 0.3),
]


@pytest.mark.parametrize("network", NETWORKS, ids=label)
@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_descent_follows_the_oracle(network, momentum, dtype, tolerance):
    run = ntksim.train(
        network, POINTS, TARGETS, seeds=[4], method="gradient_descent", learning_rate=5e-3, momentum=momentum, steps=60,
        times=[0.0, 0.005, 0.05, 0.3], layer_rates=RATES, keep_kernels=True, dtype=dtype,
    )  # fmt: skip
    rate = 5e-3 * naive.rate_factor(network.parameterization, network.widths, powers(network))
    history = naive.descent(
        network.activation, *oracle_arguments(network, 3, 4), POINTS, TARGETS, rate, 60, network.sigma_b is not None,
        network.output_bias, momentum, layer_rates=RATES,
    )  # fmt: skip
    for t, step in enumerate((0, 1, 10, 60)):
        f, kernel, theta = history[step]
        assert_close(run.outputs[0, t], f, tolerance)
        assert_close(run.kernels[0, t], kernel, tolerance)
        moved = np.linalg.norm(theta - history[0][2]) / np.linalg.norm(history[0][2])
        assert run.parameter_drift[0, t] == pytest.approx(moved, rel=1e-3 if dtype == "float32" else 1e-9)


@pytest.mark.parametrize("network", NETWORKS, ids=label)
def test_flow_follows_an_explicit_integrator(network):
    times = [0.0, 0.05, 0.3, 1.0]
    outputs, tests, kernels, theta = oracle_flow(network, POINTS, TARGETS, TEST_POINTS, times, 3, RATES)
    run = ntksim.train(
        network, POINTS, TARGETS, seeds=[3], times=times, tolerance=1e-6, x_test=TEST_POINTS, keep_kernels=True, layer_rates=RATES
    )
    assert np.abs(run.outputs[0] - outputs).max() < 1e-4
    assert np.abs(run.test_outputs[0] - tests).max() < 1e-4
    assert np.abs(run.kernels[0] - kernels).max() < 1e-4 * np.abs(kernels).max()
    drift = np.linalg.norm(theta - theta[0], axis=1) / np.linalg.norm(theta[0])
    assert run.parameter_drift[0] == pytest.approx(drift, rel=1e-4)


@pytest.mark.parametrize("method", ["gradient_flow", "gradient_descent"])
def test_equal_rates_are_a_learning_rate(method):
    """Rates of 1 change no bit; rates of 4, whose square root is exact, are four times the time."""
    network, common = NETWORKS[0], {"seeds": [0, 5], "method": method, "x_test": TEST_POINTS}
    options = {"learning_rate": 0.02} if method == "gradient_descent" else {}
    plain = ntksim.train(network, POINTS, TARGETS, times=[0, 0.4, 2.0], **options, **common)
    ones = ntksim.train(network, POINTS, TARGETS, times=[0, 0.4, 2.0], layer_rates=[1, 1, 1], **options, **common)
    assert (ones.outputs == plain.outputs).all()
    options = {"learning_rate": 0.005} if method == "gradient_descent" else {}
    fast = ntksim.train(network, POINTS, TARGETS, times=[0, 0.1, 0.5], layer_rates=[4, 4, 4], **options, **common)
    assert (fast.outputs[:, 0] == plain.outputs[:, 0]).all()
    assert_close(fast.outputs, plain.outputs, 1e-9)
    assert_close(fast.test_outputs, plain.test_outputs, 1e-9)
    assert fast.parameter_drift == pytest.approx(plain.parameter_drift, rel=1e-8)


def test_kernels_are_weighted_sums_over_layers():
    """At initialisation: linear in the rates, with the plain kernel at rates of 1."""
    network, common = NETWORKS[0], {"seeds": [1], "times": [0.0], "keep_kernels": True}
    total = sum(
        ntksim.train(network, POINTS, TARGETS, layer_rates=[1 + (i == layer) for i in range(3)], **common).kernels[0, 0]
        for layer in range(3)
    )
    assert_close(total, 4 * ntksim.empirical_ntk(network, POINTS, seeds=[1])[0], 1e-12)


@pytest.mark.parametrize("rates", FROZEN)
@pytest.mark.parametrize("options", [{}, {"momentum": 0.8}, {"momentum": 0.8, "nesterov": True}, {"batch_size": 2}])
def test_frozen_layers_in_descent(rates, options):
    """Against the oracle, whose kernel they have no part in; what is frozen does not move by a bit."""
    network, rate = NETWORKS[0], 5e-3
    run = ntksim.train(
        network, POINTS, TARGETS, seeds=[4], method="gradient_descent", learning_rate=rate, steps=20, times=[0.0, 0.1],
        layer_rates=rates, keep_kernels=True, x_test=TEST_POINTS, **options,
    )  # fmt: skip
    order = batches(4, 0, 20, 5, options["batch_size"]) if "batch_size" in options else None
    history = naive.descent(
        network.activation, *oracle_arguments(network, 3, 4), POINTS, TARGETS, rate, 20, True, True,
        options.get("momentum", 0.0), options.get("nesterov", False), order, rates,
    )  # fmt: skip
    for t, step in enumerate((0, 20)):
        f, kernel, theta = history[step]
        assert_close(run.outputs[0, t], f, 1e-10)
        assert_close(run.kernels[0, t], kernel, 1e-10)
    moved = np.linalg.norm(theta - history[0][2]) / np.linalg.norm(history[0][2])
    assert run.parameter_drift[0, 1] == pytest.approx(moved, rel=1e-9)
    assert (run.layer_drift[0, 1] == 0).tolist() == [frozen == 0 for frozen in rates]
    # the part of a frozen layer in the plain kernel moves with the layers around it
    assert (run.layer_kernel_drift[0, 1] > 0).tolist() == [rates[:2] != (0, 0) or layer < 2 for layer in range(3)]


@pytest.mark.parametrize("rates", FROZEN[:3])
def test_frozen_layers_in_the_flow(rates):
    times = [0.0, 0.05, 0.3, 1.0]
    outputs, tests, kernels, _ = oracle_flow(NETWORKS[0], POINTS, TARGETS, TEST_POINTS, times, 3, rates)
    run = ntksim.train(
        NETWORKS[0], POINTS, TARGETS, seeds=[3], times=times, tolerance=1e-6, x_test=TEST_POINTS, keep_kernels=True,
        layer_rates=rates,
    )  # fmt: skip
    assert np.abs(run.outputs[0] - outputs).max() < 1e-4
    assert np.abs(run.test_outputs[0] - tests).max() < 1e-4
    assert np.abs(run.kernels[0] - kernels).max() < 1e-4 * np.abs(kernels).max()
    assert (run.layer_drift[0, -1] == 0).tolist() == [rate == 0 for rate in rates]


@pytest.mark.parametrize("rates", [None, RATES, (1e-12, 1.0, 1.0), (0.0, 1.0, 0.0)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rates_leave_the_network_as_it_is(rates, dtype):
    """Outputs at t = 0 have the bits of `network_outputs`; K_0(test, train) is that network's, with its rates."""
    network, every = NETWORKS[0], np.concatenate([POINTS, TEST_POINTS])
    run = ntksim.train(
        network, POINTS, TARGETS, seeds=[4, 2], times=[0.5, 1.0], x_test=every, layer_rates=rates, keep_kernels=True, dtype=dtype
    )
    first = ntksim.train(network, POINTS, TARGETS, seeds=[4, 2], times=[0.0], x_test=every, layer_rates=rates, dtype=dtype)
    assert first.outputs.tobytes() == ntksim.network_outputs(network, POINTS, seeds=[4, 2], dtype=dtype).tobytes()
    assert run.test_kernels.shape == (2, 2, 7, 5)
    tolerance = 1e-12 if dtype == "float64" else 1e-6
    assert_close(run.test_kernels[:, 0, :5], first.kernel, tolerance)
    assert_close(run.test_kernels[:, 1, :5], run.kernel, tolerance)
    assert run.test_kernel.tobytes() == run.test_kernels[:, 1].tobytes()
    if rates is None:
        initial = ntksim.empirical_ntk(network, every, POINTS, seeds=[4, 2], dtype=dtype)
        assert_close(run.test_kernels[:, 0], initial, tolerance)


@pytest.mark.parametrize("rates", [(1e-12, 1.0), (0.0, 1.0)])
def test_defaults_go_by_the_rates(rates):
    """1 / lambda_max and 20 / lambda_min of sum_l rate_l K_l: a readout that alone learns has the NNGP kernel."""
    network = ntksim.Network(1, 4096, "erf")
    values = np.linalg.eigvalsh(ntksim.infinite_kernel(network, POINTS[:3]).nngp)
    run = ntksim.train(network, POINTS[:3], TARGETS[:3], seeds=[0], method="gradient_descent", layer_rates=rates)
    assert run.learning_rate == pytest.approx(1 / values[-1])
    assert run.times[-1] == pytest.approx(20 / values[0], rel=0.1)
    assert run.loss[0, -1] < 1e-10 * run.loss[0, 0]
    assert run.kernel_drift[0, -1] < 1e-6  # random features do not move


@pytest.mark.parametrize("rates", [(1.0, 1.0), (1.0, -1.0, 1.0), (1.0, np.inf, 1.0), "fast", 2.0])
def test_bad_rates_are_refused(rates):
    with pytest.raises(ValueError, match="layer_rates must be 3 numbers from 1e-30 to 1e30"):
        ntksim.train(NETWORKS[0], POINTS, TARGETS, seeds=[0], layer_rates=rates)


def test_something_must_learn():
    with pytest.raises(ValueError, match="layer_rates must not all be 0, which trains nothing"):
        ntksim.train(NETWORKS[0], POINTS, TARGETS, seeds=[0], layer_rates=[0, 0, 0])
