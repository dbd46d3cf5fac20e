"""scikit-learn's own checks of the estimators, and their predictions against formulas in NumPy."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks
from tolerances import assert_close

import ntksim
from ntksim.engine.infinite import kernel as kernel_module

RNG = np.random.default_rng(0)
X, X_TEST = RNG.normal(size=(12, 3)), RNG.normal(size=(5, 3))
Y = RNG.normal(size=(12, 2))
OPTIONS = {"depth": 2, "activation": "erf", "sigma_w": 1.4, "sigma_a": 0.9, "sigma_b": 0.3}
NETWORK = ntksim.Network(width=8, **OPTIONS)


@parametrize_with_checks([ntksim.NTKRegressor(), ntksim.NTKClassifier(), ntksim.NNGPRegressor(alpha=1e-6)])
def test_scikit_learn_accepts(estimator, check):
    check(estimator)


@pytest.mark.parametrize("y", [Y, Y[:, 0]], ids=["two outputs", "one output"])
def test_ntk_regression_is_kernel_ridge_regression(y):
    kernel, mixed = ntksim.infinite_kernel(NETWORK, X).ntk, ntksim.infinite_kernel(NETWORK, X_TEST, X).ntk
    found = ntksim.NTKRegressor(**OPTIONS, ridge=0.1).fit(X, y).predict(X_TEST)
    assert_close(found, mixed @ np.linalg.solve(kernel + 0.1 * np.eye(12), y), 1e-10)
    values, vectors = np.linalg.eigh(kernel)
    early = mixed @ vectors @ (((1 - np.exp(-values * 3)) / values)[:, None] * (vectors.T @ Y))
    assert_close(ntksim.NTKRegressor(**OPTIONS, time=3.0).fit(X, Y).predict(X_TEST), early, 1e-10)


def test_what_the_errors_of_a_series_hide_moves_nothing():
    """Two points so close that the eigenvalue of their difference is below the error of a tanh kernel, but above rounding."""
    x, y = X.copy(), Y[:, 0]
    x[1] = x[0] + 3e-6
    model = ntksim.NTKRegressor(depth=2, activation="tanh").fit(x, y)
    network = ntksim.Network(2, 1, "tanh")
    kernel = ntksim.infinite_kernel(network, x).ntk
    values, vectors = np.linalg.eigh(kernel)
    assert 12 * np.finfo(float).eps < values[0] / values[-1] < 2e-10
    assert_close(model.dual_coef_, vectors[:, 1:] @ ((vectors[:, 1:].T @ y) / values[1:]), 1e-6)


def test_classes_are_trained_one_against_the_rest():
    labels = np.array(["a", "b", "c"])[np.arange(12) % 3]
    model = ntksim.NTKClassifier(**OPTIONS).fit(X, labels)
    targets = np.where(labels[:, None] == np.array(["a", "b", "c"]), 1.0, -1.0)
    expected = ntksim.NTKRegressor(**OPTIONS).fit(X, targets).predict(X_TEST)
    assert_close(model.decision_function(X_TEST), expected, 1e-12)
    assert list(model.predict(X)) == list(labels)


def test_nngp_posterior():
    kernel, mixed = ntksim.infinite_kernel(NETWORK, X).nngp + 0.2 * np.eye(12), ntksim.infinite_kernel(NETWORK, X_TEST, X).nngp
    own = ntksim.infinite_kernel(NETWORK, X_TEST).nngp
    mean, covariance = ntksim.NNGPRegressor(**OPTIONS, alpha=0.2).fit(X, Y[:, 0]).predict(X_TEST, return_cov=True)
    assert_close(mean, mixed @ np.linalg.solve(kernel, Y[:, 0]), 1e-10)
    assert_close(covariance, own - mixed @ np.linalg.solve(kernel, mixed.T), 1e-10)


@pytest.mark.parametrize("kind", ["nngp", "ntk"])
@pytest.mark.parametrize("activation", ["relu", "erf", "gelu"])
def test_gradients_of_scales(kind, activation):
    """Against Richardson's extrapolation of central differences, of other steps than the kernel's own."""
    kernel = ntksim.NetworkKernel(kind, 3, activation, "ntk", 1.3, 0.9, 0.4)
    _, gradient = kernel(X, eval_gradient=True)
    assert gradient.shape == (12, 12, 3)
    for index in range(3):

        def difference(step, index=index):
            shift = step * np.eye(3)[index]
            ahead, behind = (kernel.clone_with_theta(kernel.theta + sign * shift)(X) for sign in (1, -1))
            return (ahead - behind) / (2 * step)

        halves = [difference(0.04 / 2**k) for k in range(4)]
        for order in range(1, 4):
            halves = [(4**order * b - a) / (4**order - 1) for a, b in zip(halves, halves[1:], strict=False)]
        assert_close(gradient[..., index], halves[0], 1e-8)


def test_a_gaussian_process_learns_scales():
    """The likelihood at the optimum is at least that of the scales which made the data."""
    true = ntksim.NetworkKernel("nngp", 1, "erf", sigma_w=2.0, sigma_a=1.5)
    x = RNG.normal(size=(40, 2))
    y = np.linalg.cholesky(true(x) + 0.01 * np.eye(40)) @ RNG.normal(size=40)
    start = ntksim.NetworkKernel("nngp", 1, "erf") + WhiteKernel(0.1)
    model = GaussianProcessRegressor(start).fit(x, y)
    assert model.log_marginal_likelihood_value_ >= GaussianProcessRegressor(true + WhiteKernel(0.01)).fit(
        x, y
    ).log_marginal_likelihood((true + WhiteKernel(0.01)).theta)


def test_a_grid_search():
    x = RNG.normal(size=(60, 2))
    y = np.sin(2 * x[:, 0])
    search = GridSearchCV(ntksim.NTKRegressor(ridge=1e-3), {"depth": [1, 2], "sigma_b": [None, 0.5]}, cv=3).fit(x, y)
    assert search.best_score_ > 0.5
    assert search.best_params_["sigma_b"] == 0.5  # without biases kernels are even or odd, and the sine's mean is not learnt


def test_kernel_ridge_takes_the_kernel():
    found = KernelRidge(alpha=0.1, kernel=ntksim.NetworkKernel("ntk", **OPTIONS)).fit(X, Y).predict(X_TEST)
    assert_close(found, ntksim.NTKRegressor(**OPTIONS, ridge=0.1).fit(X, Y).predict(X_TEST), 1e-10)


def test_pairwise_calls_are_told_of_precomputed():
    """scikit-learn calls a function for a kernel with one pair of points at a time."""
    with pytest.raises(ValueError, match="pass kernel='precomputed' and the matrix"):
        KernelRidge(kernel=lambda a, b: ntksim.infinite_kernel(NETWORK, a, b).ntk).fit(X, Y)


@pytest.mark.parametrize("kind", ["nngp", "ntk"])
@pytest.mark.parametrize("activation", ["relu", "erf", "tanh", "elu"])
def test_the_diagonal_alone(kind, activation):
    """Closed forms come in blocks of points, series point by point; a zero point among them."""
    x = np.vstack([np.random.default_rng(1).normal(size=(80, 3)), np.zeros(3)])
    kernel = ntksim.NetworkKernel(kind, 2, activation, "standard", 1.3, 0.9, 0.4, output_bias=True)
    found, some = kernel.diag(x), [0, 63, 64, 80]
    assert found.shape == (81,)
    assert_close(found[some], [kernel(x[[own]])[0, 0] for own in some], 1e-14)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_diagonal_asks_for_few_pairs(activation, monkeypatch):
    asked = []

    def counted(network, phi, x, *others, of_pairs=kernel_module._kernel):
        asked.append(len(x))
        return of_pairs(network, phi, x, *others)

    monkeypatch.setattr(kernel_module, "_kernel", counted)
    ntksim.NetworkKernel("ntk", 2, activation).diag(np.random.default_rng(1).normal(size=(300, 3)))
    assert asked == ([64] * 4 + [44] if activation == "relu" else [])


def test_bad_values():
    with pytest.raises(ValueError, match="kind must be 'nngp' or 'ntk'; got 'NTK'"):
        ntksim.NetworkKernel("NTK")(X)
    with pytest.raises(ValueError, match="leave out Y"):
        ntksim.NetworkKernel()(X, X_TEST, eval_gradient=True)
