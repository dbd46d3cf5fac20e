"""Ensembles at infinite width: the published formulas, limits of time, affine images, and wide networks."""

import naive
import numpy as np
import pytest
from tolerances import assert_close

import ntksim
from ntksim.engine.infinite import ensembles

RNG = np.random.default_rng(8)
X, Y, X_TEST = RNG.normal(size=(5, 3)), RNG.normal(size=5), RNG.normal(size=(3, 3))
TIMES = np.array([0.0, 0.1, 1.0, 8.0, 200.0])
NETWORKS = [
    ntksim.Network(1, 1, "erf", sigma_w=1.4),
    ntksim.Network(3, 1, "relu", sigma_w=1.3, sigma_a=0.8, sigma_b=0.3, output_bias=True),
    ntksim.Network(2, 16, "tanh", "standard", 1.2, 0.9, 0.4),
    ntksim.Network(1, 64, "relu", "mean_field", 1.2, 0.9, 0.4),
]


def label(network):
    return f"{network.activation}-{network.parameterization}"


def kernels(network):
    """Effective NTK and NNGP of training points followed by test points."""
    kernel = ntksim.infinite_kernel(network, np.concatenate([X, X_TEST]))
    return network.learning_rate_scale * kernel.ntk, kernel.nngp


@pytest.mark.parametrize("network", NETWORKS, ids=label)
def test_against_the_published_formulas(network):
    ntk, nngp = kernels(network)
    found = ntksim.infinite_ensemble(network, X, Y, TIMES, X_TEST)
    for at, time in enumerate(TIMES):
        expected = naive.gaussian_training(ntk, nngp, Y, time)
        scale = np.abs(nngp).max()
        for value, reference in zip(
            (found.mean, found.covariance, found.test_mean, found.test_covariance), expected, strict=True
        ):
            assert np.abs(value[at] - reference).max() < 1e-10 * max(scale, np.abs(reference).max())


@pytest.mark.parametrize("network", NETWORKS, ids=label)
def test_limits_of_time(network):
    """t = 0: mean 0 and the NNGP. t = infinity: y without variance, and ridgeless regression with the NTK on test points."""
    ntk, nngp = kernels(network)
    found = ntksim.infinite_ensemble(network, X, Y, [0, np.inf], X_TEST)
    assert np.abs(found.mean[0]).max() < 1e-14
    assert (found.test_mean[0] == 0).all()
    assert_close(found.covariance[0], nngp[:5, :5], 1e-13)
    assert_close(found.test_covariance[0], nngp[5:, 5:], 1e-13)
    assert_close(found.mean[1], Y, 1e-13)
    assert np.abs(found.covariance[1]).max() < 1e-25 * np.abs(nngp).max()
    assert_close(found.test_mean[1], ntk[5:, :5] @ np.linalg.solve(ntk[:5, :5], Y), 1e-11)
    weights = np.linalg.solve(ntk[:5, :5], ntk[:5, 5:]).T
    lift = np.hstack([-weights, np.eye(3)])  # f(T) - weights f(X)
    assert_close(found.test_covariance[1], lift @ nngp @ lift.T, 1e-10)


@pytest.mark.parametrize(
    "descent", [{}, {"learning_rate": 0.1, "momentum": 0.5}, {"learning_rate": 0.1, "nesterov": True, "momentum": 0.5}]
)
def test_it_is_the_affine_image_of_gaussian_starts(descent):
    """f_t = offset + M f_0 with M read off by pushing basis vectors of (f_0(X), f_0(T)) through the closed form."""
    network = NETWORKS[1]
    ntk, nngp = kernels(network)
    basis = np.eye(8)
    zero = np.zeros((1, 8))
    both = np.concatenate([basis, zero])
    train, test = ntksim.closed_form(ntk[:5, :5], both[:, :5], Y, TIMES, ntk[5:, :5], both[:, 5:], **descent)
    found = ntksim.infinite_ensemble(network, X, Y, TIMES, X_TEST, **descent)
    for outputs, mean, covariance in ((train, found.mean, found.covariance), (test, found.test_mean, found.test_covariance)):
        offset = outputs[-1]
        maps = (outputs[:-1] - offset).transpose(1, 2, 0)  # (T, points, 8)
        assert_close(mean, offset, 1e-13)
        assert_close(covariance, maps @ nngp @ maps.transpose(0, 2, 1), 1e-12)


def test_a_kernel_that_is_known_is_not_computed_again(monkeypatch):
    network, options = NETWORKS[0], {"learning_rate": 0.1, "momentum": 0.5}
    expected = ntksim.infinite_ensemble(network, X, Y, TIMES, X_TEST, **options)
    kernel = ntksim.infinite_kernel(network, np.concatenate([X, X_TEST]))
    monkeypatch.setattr(ensembles, "infinite_kernel", lambda *_: pytest.fail("computed again"))
    found = ntksim.infinite_ensemble(network, X, Y, TIMES, X_TEST, **options, kernel=kernel)
    for name, values in vars(expected).items():
        assert (getattr(found, name) == values).all()


def test_test_points_that_are_training_points():
    """They train as what they are, joint covariances included; the order of points does not count."""
    network, order = NETWORKS[0], [3, 0, 4, 1, 2]
    found = ntksim.infinite_ensemble(network, X, Y, [0, 0.5, 3.0], X[order])
    assert_close(found.test_mean, found.mean[:, order], 1e-12)
    assert_close(found.test_covariance, found.covariance[:, order][:, :, order], 1e-11)
    alone = ntksim.infinite_ensemble(network, X[order], Y[order], [0, 0.5, 3.0])
    assert_close(alone.covariance, found.test_covariance, 1e-11)
    assert alone.test_mean is None
    assert alone.test_covariance is None


@pytest.mark.parametrize("network", NETWORKS, ids=label)
def test_covariances_are_symmetric_and_positive_and_shrink(network):
    found = ntksim.infinite_ensemble(network, X, Y, [*TIMES, np.inf], np.concatenate([X_TEST, X[:2] + 1e-9]))
    for covariance in (found.covariance, found.test_covariance):
        assert (covariance == covariance.transpose(0, 2, 1)).all()
        assert (np.diagonal(covariance, axis1=1, axis2=2) >= 0).all()
        assert np.linalg.eigvalsh(covariance).min() > -1e-14 * covariance.max()
    # half the squared norm of f_t - mean over training points never grows under gradient flow
    assert (np.diff(np.trace(found.covariance, axis1=1, axis2=2)) <= 0).all()


def test_repeated_points_keep_the_share_that_cannot_move():
    """Two copies of a point with targets 1 and 0: the mean settles at 1/2 on both, without variance."""
    found = ntksim.infinite_ensemble(NETWORKS[0], X[[0, 0, 1]], np.array([1.0, 0.0, 2.0]), [np.inf])
    assert found.mean[0] == pytest.approx([0.5, 0.5, 2.0], abs=1e-7)
    assert np.abs(found.covariance).max() < 1e-14


def test_gradient_descent_is_the_power_of_its_step():
    network, rate = NETWORKS[1], 0.05
    ntk, nngp = kernels(network)
    found = ntksim.infinite_ensemble(network, X, Y, rate * np.arange(4), learning_rate=rate)
    step = np.eye(5) - rate * ntk[:5, :5]
    for k in range(4):
        power = np.linalg.matrix_power(step, k)
        assert_close(found.covariance[k], power @ nngp[:5, :5] @ power.T, 1e-12)
        assert np.abs(found.mean[k] - (Y - power @ Y)).max() < 1e-12


def assert_same_gaussian(samples, mean, covariance, z, bias=0.0):
    """Means and second moments about ``mean`` of samples (S, n), entry by entry, beyond ``bias`` relative to the largest."""
    count, variances = len(samples), np.diag(covariance)
    assert (np.abs(samples.mean(axis=0) - mean) < z * np.sqrt(variances / count) + bias).all()
    spread = np.sqrt((np.outer(variances, variances) + covariance**2) / count)
    deviations = samples - mean
    assert (np.abs(deviations.T @ deviations / count - covariance) < z * spread + bias * np.abs(covariance).max()).all()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_wide_networks_under_the_limit_kernel(activation):
    """20,000 starts of width 512, whose covariance is the NNGP at any width for one hidden layer, pushed through the limit.

    z-scores below 5.5 over some 200 entries: false alarm 1e-5 for normal ones.
    """
    network = ntksim.Network(1, 512, activation, sigma_w=1.4, sigma_b=0.2)
    ntk, _ = kernels(network)
    starts = ntksim.network_outputs(network, np.concatenate([X, X_TEST]), seeds=range(20_000))
    train, test = ntksim.closed_form(ntk[:5, :5], starts[:, :5], Y, TIMES[:4], ntk[5:, :5], starts[:, 5:])
    found = ntksim.infinite_ensemble(network, X, Y, TIMES[:4], X_TEST)
    for at in range(4):
        assert_same_gaussian(train[:, at], found.mean[at], found.covariance[at], 5.5)
        assert_same_gaussian(test[:, at], found.test_mean[at], found.test_covariance[at], 5.5)


def test_trained_wide_networks():
    """200 networks of width 2,048 trained by the flow: z-scores below 5 beyond 3% for the finite width; false alarm 3e-5."""
    network = ntksim.Network(1, 2048, "tanh", sigma_w=1.5)
    times = np.array([0, 0.3, 2.0, np.inf])
    run = ntksim.train(network, X, Y, seeds=range(200), times=times, tolerance=1e-3, x_test=X_TEST)
    found = ntksim.infinite_ensemble(network, X, Y, times, X_TEST)
    for at in range(3):
        assert_same_gaussian(run.outputs[:, at], found.mean[at], found.covariance[at], 5, 0.03)
    for at in range(4):
        assert_same_gaussian(run.test_outputs[:, at], found.test_mean[at], found.test_covariance[at], 5, 0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": Y[:4]}, "y must have shape"),
        ({"x_test": X_TEST[:, :2]}, "x_test must have 3 features"),
        ({"times": [-1.0]}, "times must be a 1-D array of numbers of at least 0"),
        ({"learning_rate": 0.3}, "times must be whole numbers of steps"),
        ({"kernel": np.eye(5)}, "kernel must be a ntksim.Kernel, as infinite_kernel returns it; got ndarray"),
        ({"kernel": ntksim.Kernel(np.eye(3), np.eye(3))}, r"kernel must have arrays of shape \(5, 5\).* got \(3, 3\)"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ntksim.infinite_ensemble(NETWORKS[0], **({"x": X, "y": Y, "times": [1.0]} | arguments))
