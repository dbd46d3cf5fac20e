"""Singular kernels: null directions that do not move, whatever the precision, the time and the method; and ridges."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import expm

import ntksim
from ntksim.engine import measures
from ntksim.engine.infinite import ensembles
from ntksim.engine.infinite.ensembles import infinite_ensemble
from tests.tolerances import assert_close

LINE, SIGNS = np.array([[1.0], [2.0], [3.0]]), np.array([1.0, -1.0, 1.0])  # rank 1: their limit is x / 7
RNG = np.random.default_rng(0)
TWICE = RNG.normal(size=(4, 3))[[0, 1, 2, 3, 1, 0]]  # six points, two of them repeated
TARGETS, TESTS = RNG.normal(size=6), RNG.normal(size=(3, 3))
METHODS = [{}, {"learning_rate": None}, {"learning_rate": None, "momentum": 0.5}]  # the rate is the kernel's


def ids(options):
    return "-".join(options) or "flow"


@pytest.mark.parametrize("options", METHODS, ids=ids)
@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_kernel_of_rank_one(activation, dtype, options):
    """Float32 kernels, as they are or cast to float64 since, have rank 1 as float64's have."""
    network = ntksim.Network(1, 1, activation)
    kernel = ntksim.empirical_ntk(network, LINE, seeds=[2], dtype=dtype)[0]
    across = ntksim.empirical_ntk(network, [[0.5], [4.0]], LINE, seeds=[2], dtype=dtype)[0]
    if options:
        options = options | {"learning_rate": 1 / np.linalg.eigvalsh(kernel)[-1].item()}
    for own, other, precision in ((kernel, across, None), (kernel.astype(float), across.astype(float), dtype)):
        train, test = ntksim.closed_form(own, np.zeros(3), SIGNS, [np.inf], other, precision=precision, **options)
        assert np.abs(train[0] - LINE[:, 0] / 7).max() < 1e-6
        assert np.abs(test[0] - np.array([0.5, 4.0]) / 7).max() < 1e-6


def test_the_coarser_kernel_decides():
    """A float32 block of test points has noise on null directions that the float64 kernel knows as such: nothing comes of it."""
    kernel = ntksim.empirical_ntk(ntksim.Network(1, 1, "linear"), LINE, seeds=[2])[0]
    nearly = kernel + 1e-8 * np.diag([1.0, 2.0, 3.0])  # float32's rounding, put in by hand
    fine, coarse = (ntksim.closed_form(nearly, np.zeros(3), SIGNS, [np.inf], kernel.astype(t))[0][0] for t in (float, np.float32))
    assert np.abs(fine - SIGNS).max() < 1e-6
    assert np.abs(coarse - LINE[:, 0] / 7).max() < 1e-6


def merged(kernel, across, f0, f0_test, y, t):
    """Gradient flow on the four points alone, each that is there twice as the normalised sum of both: a regular kernel."""
    q = np.zeros((6, 4))
    q[np.arange(6), [0, 1, 2, 3, 1, 0]] = 1
    q /= np.linalg.norm(q, axis=0)
    own, residual = q.T @ kernel @ q, q.T @ (f0 - y)
    lost = residual - (expm(-own * t) @ residual if t * np.linalg.eigvalsh(own)[0] < 700 else 0.0)
    return f0 - q @ lost, f0_test - across @ q @ np.linalg.solve(own, lost)


@pytest.mark.parametrize("t", [0.3, 1e3, 1e10, 1e18, np.inf])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_repeated_points_do_not_move_test_points(dtype, t):
    """With different targets no time moves them apart."""
    network = ntksim.Network(2, 64, "tanh")
    both = ntksim.empirical_ntk(network, np.concatenate([TWICE, TESTS]), seeds=[1], dtype=dtype)[0]
    f0 = ntksim.network_outputs(network, np.concatenate([TWICE, TESTS]), seeds=[1])[0]
    kernel, across = both[:6, :6], both[6:, :6]
    expected = merged(kernel.astype(float), across.astype(float), f0[:6], f0[6:], TARGETS, t)
    found = ntksim.closed_form(kernel, f0[:6], TARGETS, [t], across, f0[6:])
    tolerance = 1e-9 if dtype == "float64" else 1e-4
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one[0] - other).max() < tolerance


@pytest.mark.parametrize("momentum", [{}, {"momentum": 0.5}, {"momentum": 0.5, "nesterov": True}], ids=ids)
def test_no_number_of_steps_moves_them_either(momentum):
    network, every = ntksim.Network(2, 64, "tanh"), np.concatenate([TWICE, TESTS])
    both, f0 = ntksim.empirical_ntk(network, every, seeds=[1])[0], ntksim.network_outputs(network, every, seeds=[1])[0]
    rate = 1 / np.linalg.eigvalsh(both[:6, :6])[-1].item()
    expected = merged(both[:6, :6], both[6:, :6], f0[:6], f0[6:], TARGETS, np.inf)
    times = [rate * 2.0**40, rate * 2.0**60, np.inf]
    found = ntksim.closed_form(both[:6, :6], f0[:6], TARGETS, times, both[6:, :6], f0[6:], learning_rate=rate, **momentum)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one - other).max() < 1e-9


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("activation", "width"), [("linear", 64), ("relu", 64)])
def test_the_flow_settles_on_a_kernel_of_rank_one(activation, width, dtype):
    """The end is known however far the network moves: its outputs on the line stay proportional to x."""
    run = ntksim.train(
        ntksim.Network(1, width, activation), LINE, SIGNS, seeds=range(2, 5), times=[0, 1e3, 1e18, np.inf], x_test=[[1.5]],
        remove_initial_output=True, dtype=dtype,
    )  # fmt: skip
    assert set(run.status) == {"finished"}
    assert np.abs(run.outputs[:, 1:] - LINE[:, 0] / 7).max() < 1e-5
    assert np.abs(run.test_outputs[:, 1:] - 1.5 / 7).max() < 1e-5


def test_the_flow_settles_on_repeated_points():
    """In float32 where float64 does, in about as many passes, and at finite times however late."""
    network, options = ntksim.Network(2, 64, "tanh"), {"seeds": range(3), "x_test": TESTS}
    exact = ntksim.train(network, TWICE, TARGETS, times=[0, np.inf], **options)
    assert exact.outputs[:, 1, [0, 1]] == pytest.approx(exact.outputs[:, 1, [5, 4]], abs=1e-12)
    for dtype in ("float64", "float32"):
        run = ntksim.train(network, TWICE, TARGETS, times=[0, 1e6, 1e18, np.inf], dtype=dtype, **options)
        assert run.status == ("finished",) * 3
        assert np.abs(run.outputs[:, 1:] - exact.outputs[:, 1:]).max() < 1e-4
        assert np.abs(run.test_outputs[:, 1:] - exact.test_outputs[:, 1:]).max() < 1e-4
        assert (run.evaluations < 1.5 * exact.evaluations).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_modes_of_the_null_space_are_unknown(dtype):
    kernel = ntksim.empirical_ntk(ntksim.Network(1, 8, "linear"), LINE, seeds=[2], dtype=dtype)
    times = np.array([0.0, 0.01, 0.02])
    outputs = ntksim.closed_form(kernel[0], np.zeros(3), SIGNS, times)[None].astype(dtype)
    for own, precision in ((kernel, None), (kernel.astype(float), dtype)):
        modes = measures.residual_modes(own, outputs, SIGNS, times, precision=precision)
        assert np.isnan(modes.eigenvalues).tolist() == [[False, True, True]]
        assert np.isnan(modes.decay_rates).tolist() == [[False, True, True]]
        assert np.isnan(measures.resolved_spectrum(own, precision)).tolist() == [[False, True, True]]
        assert np.isfinite(modes.components).all()
    assert measures.kernel_statistics(kernel, kernel[0], SIGNS)["condition_number"] == np.inf


def test_kernels_that_are_constant_in_single_precision():
    """1 + rounding: nothing is left by centring, cast to float64 or not."""
    constant = (1 + 1e-7 * RNG.normal(size=(4, 4))).astype(np.float32)
    other = np.diag([1.0, 2.0, 3.0, 4.0])
    assert np.isnan(measures.centred_alignment(constant, other))
    assert np.isnan(measures.centred_alignment(constant.astype(float), other, "float32"))
    assert np.isnan(measures.centred_kernel_target_alignment(constant, TARGETS[:4]))
    assert np.isfinite(measures.centred_alignment(constant.astype(float), other))


def problem(n=5, rank=5):
    rng = np.random.default_rng(3)
    factor = rng.normal(size=(n + 2, rank))
    joint = factor @ factor.T
    return joint[:n, :n], joint[n:, :n], rng.normal(size=n), rng.normal(size=2), rng.normal(size=n)


@pytest.mark.parametrize("rank", [5, 3])
@pytest.mark.parametrize("ridge", [1e-3, 0.7])
def test_a_ridge_is_kernel_ridge_regression(ridge, rank):
    """At t = infinity, on training and test points; at others f(x) = f_0(x) - K(x, X) a, a' = f_0 - y - (K + ridge) a."""
    kernel, across, f0, f0_test, y = problem(rank=rank)
    full = kernel + ridge * np.eye(5)
    train, test = ntksim.closed_form(kernel, f0, y, [0.0, 0.3, np.inf], across, f0_test, ridge=ridge)
    for at, t in enumerate([0.0, 0.3]):
        a = np.linalg.solve(full, (np.eye(5) - expm(-full * t)) @ (f0 - y))
        assert np.abs(train[at] - (f0 - kernel @ a)).max() < 1e-11
        assert np.abs(test[at] - (f0_test - across @ a)).max() < 1e-11
    a = np.linalg.solve(full, f0 - y)
    assert np.abs(train[2] - (f0 - kernel @ a)).max() < 1e-11
    assert np.abs(test[2] - (f0_test - across @ a)).max() < 1e-11


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.8, False), (0.8, True)])
def test_descent_with_a_ridge_is_the_iteration(momentum, nesterov):
    kernel, across, f0, f0_test, y = problem(rank=3)
    ridge, rate = 0.2, 0.3 / np.linalg.eigvalsh(kernel)[-1].item()
    times = rate * np.arange(31)
    train, test = ntksim.closed_form(
        kernel, f0, y, times, across, f0_test, learning_rate=rate, momentum=momentum, nesterov=nesterov, ridge=ridge
    )
    a, velocity = np.zeros(5), np.zeros(5)
    for k in range(31):
        assert np.abs(train[k] - (f0 - kernel @ a)).max() < 1e-10
        assert np.abs(test[k] - (f0_test - across @ a)).max() < 1e-10
        gradient = kernel @ a + ridge * a - (f0 - y)
        velocity = momentum * velocity + gradient
        a = a - rate * (gradient + momentum * velocity if nesterov else velocity)


def test_a_ridge_in_single_precision():
    """A ridge above float32's rounding makes the float32 kernel as good as the float64 one."""
    network = ntksim.Network(1, 1, "linear")
    own, across = (ntksim.empirical_ntk(network, x, LINE, seeds=[2]) for x in (LINE, [[0.5], [4.0]]))
    expected = across[0] @ np.linalg.solve(own[0] + 0.1 * np.eye(3), SIGNS)
    found = ntksim.closed_form(
        own[0].astype(np.float32), np.zeros(3), SIGNS, [np.inf], across[0].astype(np.float32), ridge=0.1
    )  # fmt: skip
    assert found[1][0] == pytest.approx(expected, abs=1e-5)


def test_ensembles_with_a_ridge():
    """Mean and covariance at t = infinity, and test points that are training points."""
    network, x, y, ridge = ntksim.Network(2, 1, "erf", sigma_w=1.4), TWICE[:4], TARGETS[:4], 0.3
    kernel = ntksim.infinite_kernel(network, np.concatenate([x, TESTS]))
    found = infinite_ensemble(network, x, y, [0.5, np.inf], np.concatenate([TESTS, x]), ridge=ridge)
    weights = np.linalg.solve(kernel.ntk[:4, :4] + ridge * np.eye(4), kernel.ntk[:4]).T
    assert found.test_mean[1] == pytest.approx((weights @ y)[[4, 5, 6, 0, 1, 2, 3]])
    assert found.mean[1] == pytest.approx(weights[:4] @ y)
    lift = np.hstack([-weights, np.zeros((7, 3))]) + np.eye(7)
    assert_close(found.covariance[1], (lift @ kernel.nngp @ lift.T)[:4, :4], 1e-10)
    assert_close(found.test_covariance[:, 3:, 3:], found.covariance, 1e-10)
    assert_close(found.test_mean[:, 3:], found.mean, 1e-12)


def test_errors_of_the_limit_of_tanh_are_warned_of():
    """Even targets on a symmetric grid: an odd network does not learn them, but for the errors of its kernel."""
    x = np.linspace(-10 * np.pi, 10 * np.pi, 20)[:, None]
    even, network = np.cos(x[:, 0] / 10), ntksim.Network(1, 1, "tanh")
    with pytest.warns(RuntimeWarning, match="eigenvalues of the infinite-width kernel are below its own errors") as caught:
        late = infinite_ensemble(network, x, even, [1e14, np.inf])
    assert caught[0].filename == __file__
    assert np.abs(late.mean).max() < 1e-4
    right = infinite_ensemble(network, x, even, [1e3, np.inf], ridge=1e-3)  # warnings are errors here
    assert np.abs(right.mean).max() < 1e-6
    assert np.abs(infinite_ensemble(network, x, even, [0.0, 10.0]).mean).max() < 1e-6


@pytest.mark.parametrize("times", [[1e14], [np.inf]])
def test_ensembles_do_not_move_along_errors_of_the_limit(monkeypatch, times):
    """An even part of 1e-11 of the kernel, put in by hand: below the error that tanh kernels may have."""
    x, original = np.array([[-2.0], [-1.0], [1.0], [2.0]]), ensembles.infinite_kernel

    def off(*arguments):
        kernel = original(*arguments)
        return replace(kernel, ntk=kernel.ntk + 1e-11 * kernel.ntk.max())

    monkeypatch.setattr(ensembles, "infinite_kernel", off)
    with pytest.warns(RuntimeWarning, match="are below its own errors"):
        found = infinite_ensemble(ntksim.Network(1, 1, "tanh"), x, [1.0, 0.5, 0.5, 1.0], times, [[-0.5], [0.0]])
    assert np.abs(found.mean).max() < 1e-6
    assert np.abs(found.test_mean).max() < 1e-6


def test_default_times_know_what_a_limit_does_not():
    """Points 1e-6 apart: K_infinity of tanh has an eigenvalue that its errors hide, and so no last time."""
    x = np.array([[1.0, 0.3], [1.0, 0.3 + 1e-6]])
    assert ntksim.train(ntksim.Network(1, 4, "erf"), x, [1.0, 0.0], seeds=[0], method="gradient_descent", steps=1).loss.size
    with pytest.raises(ValueError, match="the infinite-width kernel is singular"):
        ntksim.train(ntksim.Network(1, 4, "tanh"), x, [1.0, 0.0], seeds=[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "half"}, "precision must be float64, float32, or the relative error of a kernel's entries"),
        ({"precision": 2.0}, "precision must be float64, float32"),
        ({"precision": True}, "precision must be float64, float32"),
        ({"ridge": -1.0}, "ridge must be finite and at least 0"),
        ({"ridge": np.nan}, "ridge must be finite and at least 0"),
        ({"ridge": np.inf}, "ridge must be finite and at least 0"),
        ({"ridge": "small"}, "ridge must be finite and at least 0"),
        ({"ridge": True}, "ridge must be finite and at least 0"),
    ],
)
def test_bad_precisions_and_ridges_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ntksim.closed_form(np.eye(2), np.zeros(2), np.ones(2), [1.0], **arguments)
    if "ridge" in arguments:
        with pytest.raises(ValueError, match=message):
            infinite_ensemble(ntksim.Network(1, 1, "erf"), LINE[:2], SIGNS[:2], [1.0], **arguments)


def test_a_precision_may_be_a_relative_error():
    kernel, y = np.diag([1.0, 1e-5]), np.ones(2)
    moved = [ntksim.closed_form(kernel, np.zeros(2), y, [np.inf], precision=error)[0, 1] for error in (1e-8, 1e-4, "float32")]
    assert moved == [1.0, 0.0, 1.0]
