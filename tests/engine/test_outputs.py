"""Several outputs: kernels, training and theory against the oracle, one output after another."""

import subprocess
import sys

import naive
import numpy as np
import pytest
from cases import POINTS, label, oracle_arguments
from test_empirical import threads
from tolerances import ROUND_OFF, assert_close

import ntksim
from ntksim.engine.training.batches import batches

K = 3
NETWORKS = [
    ntksim.Network(1, 9, "relu", "notes", 1.3, 0.9, outputs=K),
    ntksim.Network(3, (7, 12, 5), "tanh", "ntk", 1.3, 0.9, 0.4, True, 1.6, outputs=K),
    ntksim.Network(2, (5, 8), "erf", "standard", 1.3, 0.9, 0.0, True, outputs=K),
    ntksim.Network(2, 7, "gelu", "mup", 1.3, 0.9, 0.4, outputs=K),
]
TARGETS = np.random.default_rng(2).normal(size=(5, K))
TEST_POINTS = np.random.default_rng(9).normal(size=(2, 3))


def _oracle(network, seed):
    """(g, beta, weights, biases, readouts, output biases) of the oracle."""
    g, beta, weights, biases, readouts, c = oracle_arguments(network, 3, seed)
    return g, beta, weights, biases, readouts, np.broadcast_to(c, (K,)).copy()


def _outputs(network, oracle, x):
    *shared, readouts, c = oracle
    return np.stack([naive.output(naive.PHI[network.activation][0], *shared, readouts[a], c[a], x) for a in range(K)], axis=1)


def _jacobian(network, oracle, x):
    """(n, k, parameters): each output's own readout (and bias) first, then what they share."""
    *shared, readouts, c = oracle
    own = readouts.shape[1] + network.output_bias
    bias = network.sigma_b is not None
    blocks = [naive.jacobian(network.activation, *shared, readouts[a], c[a], x, bias, network.output_bias) for a in range(K)]
    wide = np.zeros((len(x), K, K * own + blocks[0].shape[1] - own))
    for a, j in enumerate(blocks):
        wide[:, a, a * own : (a + 1) * own] = j[:, :own]
        wide[:, a, K * own :] = j[:, own:]
    return wide


def _move(network, oracle, update):
    """The oracle's parameters plus ``update``, in the order of :func:`_jacobian`."""
    g, beta, weights, biases, readouts, c = oracle
    own = readouts.shape[1] + network.output_bias
    heads, rest = update[: K * own].reshape(K, own), update[K * own :]
    readouts = readouts + heads[:, : readouts.shape[1]]
    c = c + heads[:, -1] if network.output_bias else c
    weights, biases, at = list(weights), list(biases), 0
    for layer in reversed(range(len(weights))):
        size, rows = weights[layer].size, len(weights[layer])
        weights[layer] = weights[layer] + rest[at : at + size].reshape(weights[layer].shape)
        at += size
        if network.sigma_b is not None:
            biases[layer] = biases[layer] + rest[at : at + rows]
            at += rows
    return g, beta, weights, biases, readouts, c


def _descent(network, oracle, y, rate, steps, momentum=0.0, batches=None):
    """Outputs, kernels (n, k, n, k) and test outputs before each step."""
    history, velocity = [], 0.0
    for step in range(steps + 1):
        f, j = _outputs(network, oracle, POINTS), _jacobian(network, oracle, POINTS)
        history.append((f, np.einsum("iap,jbp->iajb", j, j), _outputs(network, oracle, TEST_POINTS)))
        chosen = np.arange(len(POINTS)) if batches is None or step == steps else batches[step]
        gradient = len(POINTS) / len(chosen) * np.einsum("iap,ia->p", j[chosen], (f - y)[chosen])
        velocity = momentum * velocity + gradient
        oracle = _move(network, oracle, -rate * velocity)
    return history


@pytest.mark.parametrize("network", NETWORKS, ids=label)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_forms_of_the_kernel(network, dtype):
    seeds = (0, 7, 2**40 + 3)
    kernels = ntksim.empirical_ntk(network, POINTS, seeds=seeds, dtype=dtype)
    outputs = ntksim.network_outputs(network, POINTS, seeds=seeds, dtype=dtype)
    assert kernels.shape == (3, 5, K, 5, K)
    assert outputs.shape == (3, 5, K)
    assert kernels.dtype == outputs.dtype == dtype
    for seed, kernel, output in zip(seeds, kernels, outputs, strict=True):
        oracle = _oracle(network, seed)
        j = _jacobian(network, oracle, POINTS)
        assert_close(kernel, np.einsum("iap,jbp->iajb", j, j), ROUND_OFF[dtype])
        assert_close(output, _outputs(network, oracle, POINTS), 10 * ROUND_OFF[dtype])
    assert (kernels == kernels.transpose(0, 3, 4, 1, 2)).all()
    diagonal = ntksim.empirical_ntk(network, POINTS, seeds=seeds, dtype=dtype, form="diagonal")
    assert_close(diagonal, np.einsum("siaja->sija", kernels), ROUND_OFF[dtype])
    trace = ntksim.empirical_ntk(network, POINTS, seeds=seeds, dtype=dtype, form="trace")
    assert_close(trace, np.einsum("siaja->sij", kernels), ROUND_OFF[dtype])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_trace_has_the_bits_of_its_outputs_kernels(dtype, monkeypatch):
    """Added up one output after another, however many of them are computed at a time, and for how many seeds."""
    network = ntksim.Network(2, (40, 23), "tanh", sigma_b=0.1, output_bias=True, outputs=19)
    for points in ((POINTS,), (POINTS, TEST_POINTS)):
        own = ntksim.empirical_ntk(network, *points, seeds=range(5), dtype=dtype, form="diagonal")
        expected = np.zeros_like(own[..., 0])
        for a in range(19):
            expected += own[..., a]
        for few, numbers in ((8, 1 << 18), (1, 1), (3, 200), (19, 1)):
            monkeypatch.setattr("ntksim.engine.finite.empirical._FEW", few)
            monkeypatch.setattr("ntksim.engine.finite.empirical._TRACED", numbers)
            trace = ntksim.empirical_ntk(network, *points, seeds=range(5), dtype=dtype, form="trace")
            assert trace.dtype == dtype
            assert (trace == expected).all()


@pytest.mark.parametrize("depth", [1, 2])
def test_a_trace_takes_no_more_memory_for_more_outputs(depth):
    """Of 1,000 outputs and 200 points: all of their kernels would be 320 MB, their sensitivities 100 MB."""
    code = f"""
import resource, sys, ntksim, numpy as np
x = np.random.default_rng(0).normal(size=(200, 3))
def peak(outputs):
    ntksim.empirical_ntk(ntksim.Network({depth}, 64, outputs=outputs), x, seeds=[0], form="trace")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak(20)
sys.exit(peak(1000) - before > 20)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("form", ["full", "diagonal", "trace"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_kernel_between_different_points(form, dtype):
    """Numbers of points that vectors do not divide, on both sides."""
    x = np.random.default_rng(3).normal(size=(30, 4))
    network = ntksim.Network(2, (40, 23), "tanh", sigma_b=0.1, output_bias=True, outputs=K)
    whole = ntksim.empirical_ntk(network, x, seeds=range(2), dtype=dtype, form=form)
    for split in (3, 9, 19):
        cross = ntksim.empirical_ntk(network, x[:split], x[split:], seeds=range(2), dtype=dtype, form=form)
        expected = whole[:, :split, :, split:] if form == "full" else whole[:, :split, split:]
        assert_close(cross, expected, ROUND_OFF[dtype])


def test_the_first_output_is_the_network_of_one():
    scalar, several = (ntksim.Network(2, (40, 33), "relu", sigma_b=0.3, output_bias=True, outputs=k) for k in (1, K))
    outputs = ntksim.network_outputs(several, POINTS, seeds=[1, 2])
    assert (outputs[..., 0] == ntksim.network_outputs(scalar, POINTS, seeds=[1, 2])).all()
    assert len({row.tobytes() for row in outputs[0].T}) == K
    one, all_of_them = (ntksim.sample_parameters(network, 3, 5) for network in (scalar, several))
    assert all_of_them.readout.shape == (K, 33)
    assert (all_of_them.readout[0] == one.readout).all()
    assert all_of_them.output_bias.shape == (K,)
    assert all_of_them.output_bias[0] == one.output_bias
    kernel = ntksim.empirical_ntk(several, POINTS, seeds=[1])[0, :, 0, :, 0]
    assert_close(kernel, ntksim.empirical_ntk(scalar, POINTS, seeds=[1])[0], ROUND_OFF["float64"])


@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_bits_do_not_depend_on_threads_or_split(form):
    x = np.random.default_rng(5).normal(size=(21, 4))
    network = ntksim.Network(2, (530, 701), "tanh", sigma_b=0.1, outputs=K)
    whole = ntksim.empirical_ntk(network, x, seeds=range(3), form=form)
    crossed = ntksim.empirical_ntk(network, x[:13], x, seeds=range(3), form=form)
    run = ntksim.train(network, x, np.ones((21, K)), seeds=range(3), method="gradient_descent", steps=5)
    with threads(1):
        assert (ntksim.empirical_ntk(network, x, seeds=range(3), form=form) == whole).all()
        assert (ntksim.empirical_ntk(network, x[:13], x, seeds=range(3), form=form) == crossed).all()
        again = ntksim.train(network, x, np.ones((21, K)), seeds=range(3), method="gradient_descent", steps=5)
    assert (again.outputs == run.outputs).all()
    assert (again.kernel == run.kernel).all()
    assert (ntksim.empirical_ntk(network, x, seeds=[2], form=form)[0] == whole[2]).all()


def test_wide_kernels_come_near_the_limit():
    """16 networks of width 4,096: each entry's mean over seeds is within 6 standard errors (false alarm below 1e-6)."""
    network = ntksim.Network(2, 4096, "tanh", sigma_w=1.5, sigma_b=0.2, outputs=2)
    kernels = ntksim.empirical_ntk(network, POINTS, seeds=range(16))
    limit = np.einsum("ij,ab->iajb", ntksim.infinite_kernel(network, POINTS).ntk, np.eye(2))
    error = np.abs(kernels.mean(0) - limit) / (kernels.std(0, ddof=1) / 4)
    assert error.max() < 6


@pytest.mark.parametrize("network", NETWORKS, ids=label)
@pytest.mark.parametrize(("momentum", "batch_size"), [(0.0, None), (0.8, None), (0.8, 2)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 2e-4)])
def test_descent_follows_the_oracle(network, momentum, batch_size, dtype, tolerance):
    run = ntksim.train(
        network, POINTS, TARGETS, seeds=[4], method="gradient_descent", learning_rate=5e-3, steps=30, momentum=momentum,
        batch_size=batch_size, times=[0.0, 0.005, 0.05, 0.15], x_test=TEST_POINTS, keep_kernels=True, dtype=dtype,
    )  # fmt: skip
    assert run.outputs.shape == (1, 4, 5, K)
    assert run.test_outputs.shape == (1, 4, 2, K)
    assert run.kernels.shape == (1, 4, 5, K, 5, K)
    rate = 5e-3 * naive.rate_factor(network.parameterization, network.widths)
    chosen = None
    if batch_size is not None:
        chosen = batches(np.uint64(4), 0, 30, 5, batch_size)
    history = _descent(network, _oracle(network, 4), TARGETS, rate, 30, momentum, chosen)
    for t, step in enumerate((0, 1, 10, 30)):
        f, kernel, test = history[step]
        assert_close(run.outputs[0, t], f, tolerance)
        assert_close(run.kernels[0, t], kernel, tolerance)
        assert_close(run.test_outputs[0, t], test, tolerance)
        assert run.loss[0, t] == pytest.approx(0.5 * np.sum((f - TARGETS) ** 2), rel=tolerance)
    assert_close(run.kernel[0], history[30][1], tolerance)


def test_flow_is_descent_of_small_steps():
    network = NETWORKS[1]
    times = [0.0, 0.05, 0.2]
    flow = ntksim.train(network, POINTS, TARGETS, seeds=[4], times=times, tolerance=1e-7, x_test=TEST_POINTS)
    errors = []
    for steps in (200, 400):
        rate = 0.2 / steps
        run = ntksim.train(
            network, POINTS, TARGETS, seeds=[4], method="gradient_descent", learning_rate=rate, times=times, x_test=TEST_POINTS
        )
        errors.append(np.abs(run.outputs - flow.outputs).max() + np.abs(run.test_outputs - flow.test_outputs).max())
    assert errors[1] < 0.02
    assert 1.9 < errors[0] / errors[1] < 2.1  # first order in the step


def test_wide_networks_follow_the_closed_form():
    network = ntksim.Network(1, 16384, "tanh", sigma_w=1.5, outputs=K)
    run = ntksim.train(network, POINTS, TARGETS, seeds=[0], times=[0.0, 0.5, 3.0, np.inf], x_test=TEST_POINTS)
    kernel = ntksim.empirical_ntk(network, POINTS, seeds=[0])[0]
    cross = ntksim.empirical_ntk(network, TEST_POINTS, POINTS, seeds=[0])[0]
    train, test = ntksim.closed_form(kernel, run.outputs[0, 0], TARGETS, run.times, cross, run.test_outputs[0, 0])
    assert np.abs(run.outputs[0] - train).max() < 2e-3
    assert np.abs(run.test_outputs[0] - test).max() < 2e-3


def test_outputs_of_the_ensemble_are_scalar_ones():
    scalar, several = (ntksim.Network(2, 8, "relu", sigma_b=0.1, outputs=k) for k in (1, K))
    ensemble = ntksim.infinite_ensemble(several, POINTS, TARGETS, [0.0, 0.3, np.inf], TEST_POINTS)
    assert ensemble.mean.shape == (3, 5, K)
    assert ensemble.test_mean.shape == (3, 2, K)
    for a in range(K):
        alone = ntksim.infinite_ensemble(scalar, POINTS, TARGETS[:, a], [0.0, 0.3, np.inf], TEST_POINTS)
        assert_close(ensemble.mean[..., a], alone.mean, 1e-13)
        assert_close(ensemble.test_mean[..., a], alone.test_mean, 1e-13)
        assert_close(ensemble.covariance, alone.covariance, 1e-13)


def test_alignment_with_targets_of_several_outputs():
    kernel = np.random.default_rng(0).normal(size=(5, 5))
    kernel = kernel @ kernel.T
    expected = np.sum(kernel * (TARGETS @ TARGETS.T)) / np.linalg.norm(kernel) / np.linalg.norm(TARGETS @ TARGETS.T)
    assert ntksim.measures.kernel_target_alignment(kernel, TARGETS) == pytest.approx(expected, rel=1e-13)


def test_bad_arguments_are_named():
    network = NETWORKS[0]
    with pytest.raises(ValueError, match=r"y must have shape \(5, 3\), one target per point and output; got shape \(5,\)"):
        ntksim.train(network, POINTS, TARGETS[:, 0], seeds=[0], times=[1.0])
    with pytest.raises(ValueError, match="form must be one of full, diagonal, trace; got 'mean'"):
        ntksim.empirical_ntk(network, POINTS, seeds=[0], form="mean")
    with pytest.raises(ValueError, match="outputs must be at least 1, got 0"):
        ntksim.Network(1, 4, outputs=0)
