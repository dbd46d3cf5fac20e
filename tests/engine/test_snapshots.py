"""What a trajectory tells of a network's movement, against explicit networks."""

import naive
import numpy as np
import pytest
from cases import ACTIVATIONS, POINTS, oracle_arguments

import ntksim

TARGETS = np.array([1.0, -1.0, 0.5, 0.0, -0.3])


def hidden(network, arguments, x):
    """Pre-activations and activations of every hidden layer, (neurons, n) each."""
    g, beta, weights, biases, _, _ = arguments
    h, zs, hs = x.T, [], []
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        zs.append(g[layer] * w @ h + beta[layer] * b[:, None])
        h = naive.PHI[network.activation][0](zs[-1])
        hs.append(h)
    return zs, hs


def unpack(flat, arguments, with_biases, with_output_bias):
    """The oracle's arguments with the flat parameters of `naive.descent`: weights, readout, biases, output bias."""
    g, beta, weights, biases, a, c = arguments
    at, found = 0, []
    for part in (*weights, a, *(biases if with_biases else []), *([np.array(c)] if with_output_bias else [])):
        found.append(flat[at : at + np.size(part)].reshape(np.shape(part)))
        at += np.size(part)
    ws, a, rest = found[: len(weights)], found[len(weights)], found[len(weights) + 1 :]
    bs = rest[: len(biases)] if with_biases else biases
    return g, beta, ws, bs, a, float(rest[-1]) if with_output_bias else c


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("sigma_b", "output_bias", "rates"), [(0.3, True, None), (None, False, (0.5, 2.0, 1.0))])
def test_movement_is_that_of_explicit_networks(activation, sigma_b, output_bias, rates):
    network = ntksim.Network(2, (9, 7), activation, "ntk", 1.2, 0.9, sigma_b, output_bias)
    run = ntksim.train(
        network, POINTS, TARGETS, seeds=[2], method="gradient_descent", learning_rate=0.05, times=[0.0, 0.05, 2.0],
        layer_rates=rates, keep_kernels=True,
    )  # fmt: skip
    arguments, has_bias = oracle_arguments(network, 3, 2), sigma_b is not None
    history = naive.descent(activation, *arguments, POINTS, TARGETS, 0.05, 40, has_bias, output_bias, layer_rates=rates)
    z0, h0 = hidden(network, arguments, POINTS)
    for t, step in enumerate((0, 1, 40)):
        now = unpack(history[step][2], arguments, has_bias, output_bias)
        z, h = hidden(network, now, POINTS)
        assert run.feature_drift[0, t] == pytest.approx(np.linalg.norm(h[-1] - h0[-1]) / np.linalg.norm(h0[-1]), rel=1e-8)
        flipped = np.mean(np.concatenate([(after > 0) != (before > 0) for after, before in zip(z, z0, strict=True)]))
        if activation == "sin":
            assert np.isnan(run.gates_flipped[0, t])
        else:
            assert run.gates_flipped[0, t] == pytest.approx(flipped, abs=1e-15)
        jacobians = [naive.jacobian(activation, *p, POINTS, has_bias, output_bias) for p in (now, arguments)]
        for layer in range(3):
            own = naive.parameter_rates(np.eye(3)[layer], now[2], has_bias, output_bias)
            kernels = [(jacobian * own) @ jacobian.T for jacobian in jacobians]
            drift = np.linalg.norm(kernels[0] - kernels[1]) / np.linalg.norm(kernels[1])
            assert run.layer_kernel_drift[0, t, layer] == pytest.approx(drift, rel=1e-8, abs=1e-14)
            parts = [(p[2][layer], p[3][layer]) if layer < 2 else (p[4], np.array([p[5]])) for p in (now, arguments)]
            after, before = (np.concatenate([np.ravel(part) for part in pair]) for pair in parts)
            drift = np.linalg.norm(after - before) / np.linalg.norm(before)
            assert run.layer_drift[0, t, layer] == pytest.approx(drift, rel=1e-8)
        distance = 1 - naive.cosine(history[step][1], history[0][1])
        assert run.kernel_distance[0, t] == pytest.approx(distance, abs=1e-14)
    assert (run.kernel == run.kernels[:, -1]).all()
    assert run.kernel_drift[0, -1] > 0.01  # it moves


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_flow_and_descent_of_small_steps_move_alike(dtype):
    network, options = ntksim.Network(2, 40, "tanh", sigma_b=0.1), {"seeds": [0, 1], "times": [0.5, 3.0], "dtype": dtype}
    flow = ntksim.train(network, POINTS, TARGETS, tolerance=1e-5, **options)
    descent = ntksim.train(network, POINTS, TARGETS, method="gradient_descent", learning_rate=1e-3, **options)
    assert flow.kernel.dtype == dtype
    for name in (
        "kernel_drift",
        "kernel_distance",
        "parameter_drift",
        "layer_drift",
        "layer_kernel_drift",
        "feature_drift",
        "kernel",
    ):
        assert getattr(flow, name) == pytest.approx(getattr(descent, name), rel=0.02), name
    assert flow.gates_flipped == pytest.approx(descent.gates_flipped, abs=2 / 400)


def test_features_of_wide_networks_move_less():
    """Layers, features and gates are lazy: all move by about half as much, or less, at four times the width."""
    runs = [
        ntksim.train(ntksim.Network(2, width, "tanh"), POINTS, TARGETS, seeds=range(6), times=[10.0]) for width in (256, 1024)
    ]
    for name in ("feature_drift", "gates_flipped"):
        narrow, wide = (getattr(run, name).mean() for run in runs)
        assert narrow / wide > 1.6, name


def test_what_is_not_reached_has_no_kernel():
    with pytest.warns(RuntimeWarning, match="lambda_max"):
        run = ntksim.train(
            ntksim.Network(2, 20, "relu"), POINTS, TARGETS, seeds=[0], method="gradient_descent", learning_rate=100.0, steps=50
        )
    assert np.isnan(run.kernel).all()
    assert (run.layer_drift[0, 0] == 0).all()
    assert np.isnan(run.layer_drift[0, -1]).all()


def test_a_dead_network_does_not_move():
    """ReLU without biases at the origin: features of zero norm, and a kernel of zeros."""
    run = ntksim.train(ntksim.Network(1, 4), np.zeros((1, 2)), np.ones(1), seeds=[0], times=[0.0, 1.0])
    assert run.status == ("finished",)
    for name in ("feature_drift", "parameter_drift", "kernel_drift", "gates_flipped"):
        assert (getattr(run, name) == 0).all(), name


def test_kernels_beyond_float32_are_infinite():
    """Outputs near 1e20 and kernels near 1e40: a run says so without a warning, and without an error in its threads."""
    options = {"seeds": [0, 1], "dtype": "float32", "keep_kernels": True, "method": "gradient_descent"}
    run = ntksim.train(ntksim.Network(1, 64, sigma_a=1e20), POINTS, TARGETS, times=[0.0], learning_rate=1e-42, **options)
    assert np.isfinite(run.outputs).all()
    assert np.isinf(np.diagonal(run.kernel, axis1=1, axis2=2)).any()
    assert (run.kernels[:, 0] == run.kernel).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_kernel_of_test_with_training_points(dtype):
    """On points of both kinds it is the kernel of training points; at t = 0 the empirical one; after training neither moved."""
    network, test = ntksim.Network(2, 40, "tanh", sigma_b=0.1), np.concatenate([POINTS[1:3], -POINTS[:1]])
    options = {"seeds": [0, 3], "x_test": test, "dtype": dtype}
    start = ntksim.train(network, POINTS, TARGETS, times=[0.0], **options)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    initial = ntksim.empirical_ntk(network, test, POINTS, seeds=[0, 3], dtype=dtype)
    assert start.test_kernel == pytest.approx(initial, rel=tolerance)
    end = ntksim.train(network, POINTS, TARGETS, times=[3.0], **options)
    assert end.test_kernel[:, :2] == pytest.approx(end.kernel[:, 1:3], rel=tolerance)
    assert np.abs(end.test_kernel / start.test_kernel - 1).max() > 0.01
    assert ntksim.train(network, POINTS, TARGETS, seeds=[0], times=[3.0]).test_kernel is None
    several = ntksim.Network(2, 40, "tanh", sigma_b=0.1, outputs=2)
    end = ntksim.train(several, POINTS, np.stack([TARGETS, -TARGETS], axis=1), times=[3.0], **options)
    assert end.test_kernel.shape == (2, 3, 2, 5, 2)
    assert end.test_kernel[:, :2] == pytest.approx(end.kernel[:, 1:3], rel=tolerance, abs=tolerance)
