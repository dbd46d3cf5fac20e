"""Gradient descent against the oracle's plain loop, and the constant-kernel theory against itself and against training."""

import naive
import numba
import numpy as np
import pytest
from cases import ODD, POINTS, label, oracle_arguments, powers
from tolerances import assert_close

import ntksim

TARGETS = np.array([1.0, -1.0, 0.5, 0.0, -0.3])
TEST_POINTS = np.random.default_rng(9).normal(size=(2, 3))
NETWORKS = [
    ntksim.Network(2, (7, 6), activation, kind, 1.2, 0.9, sigma_b, output_bias, 1.3)
    for activation, kind, sigma_b, output_bias in [
        ("tanh", "ntk", None, False), ("tanh", "ntk", 0.3, True), ("erf", "notes", 0.3, False), ("relu", "notes", None, False),
        ("tanh", "standard", 0.3, True), ("linear", "standard", 0.0, False),
    ]
] + [
    ntksim.Network(1, 7, "tanh", "mean_field", 1.2, 0.9, 0.3),
    ntksim.Network(2, 7, "tanh", "mup", 1.2, 0.9, None, False, 1.3),
    ntksim.Network(2, 7, "erf", "abc", 1.2, 0.9, 0.3, False, 1.3, ODD),
]  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS, ids=label)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 1e-4)])
def test_descent_follows_the_oracle(network, dtype, tolerance):
    run = ntksim.train(
        network, POINTS, TARGETS, seeds=[4, 9], method="gradient_descent", learning_rate=5e-3, steps=60,
        times=[0.0, 0.005, 0.05, 0.3], x_test=TEST_POINTS, keep_kernels=True, dtype=dtype,
    )  # fmt: skip
    assert run.times == pytest.approx([0, 0.005, 0.05, 0.3])
    assert run.status == ("finished", "finished")
    for s, seed in enumerate((4, 9)):
        arguments = oracle_arguments(network, 3, seed)
        has_bias = network.sigma_b is not None
        rate = 5e-3 * naive.rate_factor(network.parameterization, network.widths, powers(network))
        history = naive.descent(network.activation, *arguments, POINTS, TARGETS, rate, 60, has_bias, network.output_bias)
        _, k0, theta0 = history[0]
        for t, step in enumerate((0, 1, 10, 60)):
            f, kernel, theta = history[step]
            assert_close(run.outputs[s, t], f, tolerance)
            assert_close(run.kernels[s, t], kernel, tolerance)
            assert run.loss[s, t] == pytest.approx(0.5 * np.sum((f - TARGETS) ** 2), rel=tolerance)
            drift = np.linalg.norm(kernel - k0) / np.linalg.norm(k0)
            assert run.kernel_drift[s, t] == pytest.approx(drift, rel=1e-3 if dtype == "float32" else 1e-9, abs=1e-6)
            moved = np.linalg.norm(theta - theta0) / np.linalg.norm(theta0)
            assert run.parameter_drift[s, t] == pytest.approx(moved, rel=1e-3 if dtype == "float32" else 1e-9, abs=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("network", [NETWORKS[1], NETWORKS[-1]], ids=label)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_momentum_follows_the_oracle(network, dtype, tolerance, nesterov):
    run = ntksim.train(
        network, POINTS, TARGETS, seeds=[4], method="gradient_descent", learning_rate=5e-3, momentum=0.9, nesterov=nesterov,
        steps=60, times=[0.0, 0.005, 0.01, 0.05, 0.3], keep_kernels=True, dtype=dtype,
    )  # fmt: skip
    assert run.times == pytest.approx([0, 0.005, 0.01, 0.05, 0.3])
    rate = 5e-3 * naive.rate_factor(network.parameterization, network.widths, powers(network))
    history = naive.descent(
        network.activation, *oracle_arguments(network, 3, 4), POINTS, TARGETS, rate, 60, network.sigma_b is not None,
        network.output_bias, 0.9, nesterov,
    )  # fmt: skip
    for t, step in enumerate((0, 1, 2, 10, 60)):
        f, kernel, theta = history[step]
        assert_close(run.outputs[0, t], f, tolerance)
        assert_close(run.kernels[0, t], kernel, tolerance)
        moved = np.linalg.norm(theta - history[0][2]) / np.linalg.norm(history[0][2])
        assert run.parameter_drift[0, t] == pytest.approx(moved, rel=1e-3 if dtype == "float32" else 1e-9)
    assert run.evaluations.tolist() == [61]


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_of_a_wide_network_is_the_recursion_of_a_constant_kernel(nesterov):
    """A network of width 16,384 against r and v under its own K_0, on training and test points; the error is O(1 / width)."""
    network = ntksim.Network(1, 16384, "tanh", sigma_w=1.5)
    run = ntksim.train(
        network, POINTS, TARGETS, seeds=[0], method="gradient_descent", learning_rate=0.1, steps=100, momentum=0.8,
        nesterov=nesterov, x_test=TEST_POINTS,
    )  # fmt: skip
    joint = ntksim.empirical_ntk(network, np.concatenate([POINTS, TEST_POINTS]), POINTS, seeds=[0])[0]
    f, v = np.concatenate([run.outputs[0, 0], run.test_outputs[0, 0]]), np.zeros(7)
    for step in range(101):
        if step in np.round(run.times / 0.1):
            at = int(np.flatnonzero(np.round(run.times / 0.1) == step)[0])
            assert np.abs(np.concatenate([run.outputs[0, at], run.test_outputs[0, at]]) - f).max() < 2e-3
        gradient = joint @ (f[:5] - TARGETS)
        v = 0.8 * v + gradient
        f = f - 0.1 * (gradient + 0.8 * v if nesterov else v)


@pytest.mark.parametrize(("nesterov", "bound"), [(False, 3.6), (True, 3.6 / 2.6)])
def test_momentum_is_stable_up_to_its_bound(nesterov, bound):
    """Heavy ball 2 (1 + mu), Nesterov that over 1 + 2 mu, in units of 1 / lambda_max.

    Below it training converges; above it the loss grows until it is so large that the kernel gives way (Lewkowycz et al. 2020).
    """
    network = ntksim.Network(1, 4096, "linear")
    largest = np.linalg.eigvalsh(ntksim.infinite_kernel(network, POINTS[:3]).ntk)[-1]
    common = {"seeds": [0], "method": "gradient_descent", "momentum": 0.8, "nesterov": nesterov, "steps": 300}
    # Finite width and the kernel's drift move lambda_max by a few hundredths.
    below = ntksim.train(network, POINTS[:3], TARGETS[:3], learning_rate=0.9 * bound / largest, **common)
    assert below.loss[0].max() < 1.5 * below.loss[0, 0]
    assert below.loss[0, -1] < 1e-2 * below.loss[0, 0]
    with pytest.warns(RuntimeWarning, match=f"at or above {bound:.4g} / lambda_max") as caught:
        above = ntksim.train(network, POINTS[:3], TARGETS[:3], learning_rate=1.1 * bound / largest, **common)
    assert caught[0].filename == __file__
    assert np.nanmax(above.loss[0]) > 30 * above.loss[0, 0]


def test_default_steps_with_momentum_reach_convergence():
    """Points of equal eigenvalues, all of them oscillating: decay by sqrt(mu) a step sets the number."""
    run = ntksim.train(ntksim.Network(1, 512, "erf"), np.eye(3), np.ones(3), seeds=[0], method="gradient_descent", momentum=0.75)
    assert round(run.times[-1] / run.learning_rate) == 160
    assert run.loss[0, -1] < 1e-12 * run.loss[0, 0]


def test_training_starts_from_the_initial_network():
    network = ntksim.Network(3, 50, "tanh", sigma_b=0.1)
    run = ntksim.train(
        network, POINTS, TARGETS, seeds=[3, 1], method="gradient_descent", steps=3, x_test=TEST_POINTS, keep_kernels=True
    )
    assert (run.kernels[:, 0] == ntksim.empirical_ntk(network, POINTS, seeds=[3, 1])).all()
    assert (run.outputs[:, 0] == ntksim.network_outputs(network, POINTS, seeds=[3, 1])).all()
    assert (run.test_outputs[:, 0] == ntksim.network_outputs(network, TEST_POINTS, seeds=[3, 1])).all()
    assert run.kernel_drift[:, 0].tolist() == run.parameter_drift[:, 0].tolist() == [0, 0]
    assert run.evaluations.tolist() == [4, 4]
    alone = ntksim.train(network, POINTS, TARGETS, seeds=[1], method="gradient_descent", steps=3)
    assert (alone.outputs[0] == run.outputs[1]).all()


def test_times_need_not_start_at_zero_or_differ():
    """Drift refers to step 0 even if nobody looks at it, and two times that fall on one step are that step twice."""
    network, common = ntksim.Network(1, 30, "tanh"), {"seeds": [2], "method": "gradient_descent", "learning_rate": 0.01}
    full = ntksim.train(network, POINTS, TARGETS, times=[0.0, 0.1, 0.2], **common)
    late = ntksim.train(network, POINTS, TARGETS, times=[0.1, 0.101, 0.2], **common)
    assert late.times == pytest.approx([0.1, 0.1, 0.2])
    for name in ("outputs", "loss", "kernel_drift", "parameter_drift"):
        assert (getattr(late, name) == getattr(full, name)[:, [1, 1, 2]]).all()


def test_defaults_reach_convergence():
    x = np.eye(3)
    run = ntksim.train(ntksim.Network(1, 2000, "erf"), x, np.ones(3), seeds=[0], method="gradient_descent")
    assert run.loss[0, -1] < 1e-12 * run.loss[0, 0]
    values = np.linalg.eigvalsh(ntksim.infinite_kernel(ntksim.Network(1, 1, "erf"), x).ntk)
    assert run.learning_rate == pytest.approx(1 / values[-1])
    assert run.times[-1] == pytest.approx(20 / values[0], rel=0.1)
    assert (np.diff(run.loss[0]) <= 1e-30 * run.loss[0, 0]).all()  # down to the square of a rounding error


def test_wide_network_is_lazy():
    """Deviation from the linearised prediction on training and test points falls by about 4 when the width grows 4 times."""
    deviations = []
    for width in (256, 1024, 4096):
        network = ntksim.Network(1, width, "tanh", sigma_w=1.5)
        run = ntksim.train(
            network, POINTS, TARGETS, seeds=range(8), method="gradient_descent", learning_rate=0.05, steps=400, x_test=TEST_POINTS
        )
        worst = []
        for s in range(8):
            joint = ntksim.empirical_ntk(network, np.concatenate([POINTS, TEST_POINTS]), seeds=[s])[0]
            train, test = ntksim.closed_form(
                joint[:5, :5], run.outputs[s, 0], TARGETS, run.times, joint[5:, :5], run.test_outputs[s, 0], run.learning_rate
            )
            worst.append(max(np.abs(train - run.outputs[s]).max(), np.abs(test - run.test_outputs[s]).max()))
        deviations.append(np.mean(worst))
    slope = np.polyfit(np.log([256, 1024, 4096]), np.log(deviations), 1)[0]
    assert -1.25 < slope < -0.75


@pytest.mark.parametrize("method", ["gradient_descent", "gradient_flow"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_bits_do_not_depend_on_threads(method, dtype):
    """Three seeds on two threads: the last one is shared. On one thread none is."""
    network = ntksim.Network(2, (530, 600), "tanh", sigma_b=0.1)
    options = {"method": method, "times": [0.0, 0.02, 0.1], "x_test": TEST_POINTS, "keep_kernels": True, "dtype": dtype}
    if method == "gradient_descent":
        options["learning_rate"] = 0.01
    run = ntksim.train(network, POINTS, TARGETS, seeds=range(3), **options)
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        alone = ntksim.train(network, POINTS, TARGETS, seeds=range(3), **options)
    finally:
        numba.set_num_threads(before)
    moved = ("kernel_drift", "kernel_distance", "parameter_drift", "layer_drift", "feature_drift", "gates_flipped")
    for name in ("outputs", "test_outputs", "loss", "kernels", "kernel", *moved):
        assert (getattr(run, name) == getattr(alone, name)).all()


def test_where_nothing_moves_training_is_finished():
    x, y = np.zeros((2, 3)), np.array([1.0, 2.0])
    run = ntksim.train(ntksim.Network(1, 30, "tanh"), x, y, seeds=[0], times=[0, 1, np.inf])
    assert run.status == ("finished",)
    assert (run.outputs == 0).all()
    assert (run.kernel_drift == 0).all()
    with pytest.raises(ValueError, match="kernel is zero"):
        ntksim.train(ntksim.Network(1, 30, "tanh"), x, y, seeds=[0], method="gradient_descent", steps=5)


@pytest.mark.parametrize(
    "options",
    [
        {"tolerance": 1e-6, "times": [0.3, 2.0]},
        {"method": "gradient_descent", "learning_rate": 0.05, "times": [0.3, 2.0]},
        {"method": "gradient_descent", "learning_rate": 0.01, "batch_size": 2, "momentum": 0.5, "times": [0.3, 2.0]},
    ],
    ids=["flow", "descent", "batches"],
)
def test_removing_the_initial_output_moves_targets(options):
    """f - f_0 on targets y is f on targets y + f_0; at t = 0 it is zero, with the kernel of f."""
    network = ntksim.Network(2, 12, "tanh", sigma_b=0.2, output_scale=2.0)
    common = options | {"x_test": TEST_POINTS}
    removed = ntksim.train(network, POINTS, TARGETS, seeds=[0, 7], remove_initial_output=True, **common)
    for s, seed in enumerate((0, 7)):
        start, test_start = (ntksim.network_outputs(network, x, seeds=[seed])[0] for x in (POINTS, TEST_POINTS))
        moved = ntksim.train(network, POINTS, TARGETS + start, seeds=[seed], **common)
        assert_close(removed.outputs[s] + start, moved.outputs[0], 1e-12)
        assert_close(removed.test_outputs[s] + test_start, moved.test_outputs[0], 1e-12)
        for name in ("kernel", "loss", "layer_drift", "evaluations"):
            assert_close(getattr(removed, name)[s], getattr(moved, name)[0], 1e-11)
    at_start = ntksim.train(network, POINTS, TARGETS, seeds=[0, 7], times=[0.0], remove_initial_output=True, x_test=TEST_POINTS)
    assert (at_start.outputs == 0).all()
    assert (at_start.test_outputs == 0).all()
    assert (at_start.kernel == ntksim.empirical_ntk(network, POINTS, seeds=[0, 7])).all()
    assert at_start.loss == pytest.approx(0.5 * np.sum(TARGETS**2))


def test_large_output_scales_are_lazy():
    """Without f_0 and at width 64, movement falls like 1 / alpha: by about 4 between alpha = 4 and 16 (Chizat et al. 2019)."""
    features, kernels = [], []
    for alpha in (4.0, 16.0):
        network = ntksim.Network(1, 64, "tanh", output_scale=alpha)
        run = ntksim.train(network, POINTS, TARGETS, seeds=range(4), times=[0, np.inf], remove_initial_output=True)
        features.append(run.feature_drift[:, -1].mean())
        kernels.append(run.kernel_drift[:, -1].mean())
    assert 3.2 < features[0] / features[1] < 4.8
    assert 3.2 < kernels[0] / kernels[1] < 4.8


def test_divergence_is_a_status():
    network = ntksim.Network(2, 20, "relu")
    with pytest.warns(RuntimeWarning, match="2 / lambda_max"):
        run = ntksim.train(network, POINTS, TARGETS, seeds=[0, 1], method="gradient_descent", learning_rate=100.0, steps=200)
    assert run.status == ("diverged", "diverged")
    assert np.isnan(run.loss[:, -1]).all()
    assert np.isfinite(run.loss[:, 0]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": np.ones(4)}, "y must have shape"),
        ({"y": np.full(5, np.nan)}, "y must be finite"),
        ({"method": "adam"}, "method must be one of"),
        ({"network": "relu"}, r"network must be a ntksim.Network, such as .*; got 'relu'"),
        ({"sampling": np.array(["weights", "conditional"])}, "sampling must be one of weights, conditional; got array"),
        ({"method": np.array(["gradient_flow"] * 2)}, "method must be one of"),
        ({"device": np.array(["cpu", "cpu"])}, "device must be one of"),
        ({"learning_rate": 0.0}, "learning_rate must be finite and positive"),
        ({"steps": 0}, "steps must be an integer"),
        ({"times": [1.0, 0.5]}, "times must ascend"),
        ({"times": [np.inf]}, "finite numbers"),
        ({"times": [0.0, 1.0], "learning_rate": 1e-20}, "go up to step 1e.20"),
        ({"times": [1.0], "steps": 1, "learning_rate": 0.1}, "beyond steps=1"),
        ({"tolerance": 1e-3}, "tolerance belongs to gradient_flow"),
        ({"max_steps": 10}, "max_steps belongs to gradient_flow"),
        ({"batch_size": 0}, "batch_size must be an integer from 1 to the number of points, 5"),
        ({"batch_size": 6}, "batch_size must be an integer from 1"),
        ({"batch_size": 2.0}, "batch_size must be an integer from 1"),
        ({"method": "gradient_flow", "batch_size": 2}, "batch_size belongs to gradient_descent"),
        ({"remove_initial_output": 1}, "remove_initial_output must be True or False; got 1"),
        ({"momentum": 1.0}, "momentum must be a number of at least 0 and below 1; got 1.0"),
        ({"momentum": "x"}, "momentum must be a number"),
        ({"nesterov": True}, "nesterov=True needs momentum"),
        ({"momentum": 0.9, "nesterov": 1}, "nesterov must be True or False"),
        ({"method": "gradient_flow", "momentum": 0.9}, "momentum belongs to gradient_descent"),
        ({"x_test": np.ones((1, 2))}, "x_test must have 3 features"),
        ({"x": np.ones((5, 3)), "learning_rate": None}, "singular"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    good = {"network": ntksim.Network(1, 4), "x": POINTS, "y": TARGETS, "seeds": [0], "method": "gradient_descent"}
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        ntksim.train(**(good | arguments))
    assert "\n" not in str(caught.value)


def test_what_is_no_network_is_named_everywhere():
    calls = [
        lambda network: ntksim.empirical_ntk(network, POINTS, seeds=[0]),
        lambda network: ntksim.network_outputs(network, POINTS, seeds=[0]),
        lambda network: ntksim.sample_parameters(network, 3, 0),
        lambda network: ntksim.infinite_kernel(network, POINTS),
        lambda network: ntksim.one_hidden_layer_variance(network, POINTS),
        lambda network: ntksim.infinite_ensemble(network, POINTS, TARGETS, [1.0]),
        lambda network: ntksim.continuum_spectrum(network, degrees=2),
    ]
    for call in calls:
        for given in ("relu", ntksim.Network):
            with pytest.raises(TypeError, match="^network must be a ntksim.Network, such as"):
                call(given)
