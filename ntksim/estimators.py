"""Infinitely wide networks as scikit-learn's estimators, and their kernels as those of its Gaussian processes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted, validate_data

from ntksim.engine.arguments import without_pixels
from ntksim.engine.infinite.kernel import Kernel as Kernels
from ntksim.engine.infinite.kernel import infinite_diagonal, infinite_kernel, kernel_error
from ntksim.engine.infinite.predictions import closed_form
from ntksim.engine.network import Network

_BOUNDS = (1e-3, 1e3)
_STEP = 1e-2  # of the logarithm of a scale: differences of eighth order then lose 1e-13 to the step and 1e-14 / 1e-2 to rounding
_DIFFERENCES = (4 / 5, -1 / 5, 4 / 105, -1 / 280)  # (f(h) - f(-h)), (f(2h) - f(-2h)), ..., over h


class NetworkKernel(Kernel):
    """The NNGP kernel or the NTK of an infinitely wide network, as a kernel of ``sklearn.gaussian_process``.

    Its hyperparameters are ``sigma_w``, ``sigma_a`` and, unless it is None or 0, ``sigma_b``: theta holds their logarithms,
    within ``..._bounds`` ("fixed" keeps one as it is). Gradients with respect to theta are differences of eighth order, right to
    about 1e-11 of the kernel. ``KernelRidge``, ``SVR`` and their like take it as their ``kernel`` too.

    Parameters
    ----------
    kind : ``"nngp"`` or ``"ntk"``.
    depth, activation, parameterization, sigma_w, sigma_a, sigma_b, output_bias : as in `Network`.
    """

    def __init__(
        self,
        kind: str = "nngp",
        depth: int = 1,
        activation: str = "relu",
        parameterization: str = "ntk",
        sigma_w: float = 1.0,
        sigma_a: float = 1.0,
        sigma_b: float | None = None,
        output_bias: bool = False,
        sigma_w_bounds: Any = _BOUNDS,
        sigma_a_bounds: Any = _BOUNDS,
        sigma_b_bounds: Any = _BOUNDS,
    ) -> None:
        self.kind, self.depth, self.activation, self.parameterization = kind, depth, activation, parameterization
        self.sigma_w, self.sigma_a, self.sigma_b, self.output_bias = sigma_w, sigma_a, sigma_b, output_bias
        self.sigma_w_bounds, self.sigma_a_bounds, self.sigma_b_bounds = sigma_w_bounds, sigma_a_bounds, sigma_b_bounds

    # scikit-learn collects hyperparameters by these names.
    @property
    def hyperparameter_sigma_w(self) -> Hyperparameter:
        return Hyperparameter("sigma_w", "numeric", self.sigma_w_bounds)

    @property
    def hyperparameter_sigma_a(self) -> Hyperparameter:
        return Hyperparameter("sigma_a", "numeric", self.sigma_a_bounds)

    @property
    def hyperparameter_sigma_b(self) -> Hyperparameter:
        return Hyperparameter("sigma_b", "numeric", self.sigma_b_bounds if self.sigma_b else "fixed")

    def __call__(self, X: Any, Y: Any = None, eval_gradient: bool = False) -> Any:
        """The kernel (n1, n2), and with ``eval_gradient`` its derivatives with respect to theta, (n1, n1, hyperparameters)."""
        values = self._values(self.theta, X, Y)
        if not eval_gradient:
            return values
        if Y is not None:
            raise ValueError("the gradient is that of the kernel of X with itself: leave out Y, or eval_gradient")
        gradient = np.empty((*values.shape, self.theta.size))
        for index in range(self.theta.size):
            shift = np.eye(self.theta.size)[index] * _STEP
            gradient[..., index] = (
                sum(
                    weight * (self._values(self.theta + k * shift, X, None) - self._values(self.theta - k * shift, X, None))
                    for k, weight in enumerate(_DIFFERENCES, 1)
                )
                / _STEP
            )
        return values, gradient

    def _values(self, theta: np.ndarray, X: Any, Y: Any) -> np.ndarray:
        return _matrix(self.clone_with_theta(theta), X, Y)

    def diag(self, X: Any) -> np.ndarray:
        """K(x, x) of every point, (n,)."""
        return _kernel_of(self, infinite_diagonal(_network(self), X))

    def is_stationary(self) -> bool:
        """False: the kernel depends on the lengths of its arguments."""
        return False

    def __repr__(self) -> str:
        scales = f"sigma_w={self.sigma_w:.3g}, sigma_a={self.sigma_a:.3g}" + (
            f", sigma_b={self.sigma_b:.3g}" if self.sigma_b else ""
        )
        return f"NetworkKernel({self.kind!r}, depth={self.depth}, activation={self.activation!r}, {scales})"


def _network(options: Any) -> Network:
    return Network(
        depth=options.depth, width=1, activation=options.activation, parameterization=options.parameterization,
        sigma_w=options.sigma_w, sigma_a=options.sigma_a, sigma_b=options.sigma_b, output_bias=options.output_bias,
    )  # fmt: skip


def _matrix(options: Any, X: Any, Y: Any) -> np.ndarray:
    return _kernel_of(options, infinite_kernel(_network(options), X, Y))


def _kernel_of(options: Any, kernels: Kernels) -> np.ndarray:
    if options.kind not in ("nngp", "ntk"):
        raise ValueError(f"kind must be 'nngp' or 'ntk'; got {options.kind!r}")
    return kernels.nngp if options.kind == "nngp" else kernels.ntk


def _points(X: Any) -> Any:
    """Images as one row each, with a warning; all else as it is, for scikit-learn's own checks."""
    ndim = np.asarray(X).ndim if isinstance(X, list) else getattr(X, "ndim", None)  # np.ndim asks others' arrays to compute
    return without_pixels("X", np.asarray(X)) if ndim in (3, 4) else X


class _Regressor(RegressorMixin):
    """A regressor that takes several outputs."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class _NTK(BaseEstimator):
    """The mean over infinitely wide networks after training, which is kernel regression with the NTK."""

    kind = "ntk"

    def __init__(
        self,
        depth: int = 1,
        activation: str = "relu",
        parameterization: str = "ntk",
        sigma_w: float = 1.0,
        sigma_a: float = 1.0,
        sigma_b: float | None = None,
        output_bias: bool = False,
        ridge: float = 0.0,
        time: float = np.inf,
    ) -> None:
        self.depth, self.activation, self.parameterization = depth, activation, parameterization
        self.sigma_w, self.sigma_a, self.sigma_b, self.output_bias = sigma_w, sigma_a, sigma_b, output_bias
        self.ridge, self.time = ridge, time

    def _solve(self, X: np.ndarray, targets: np.ndarray) -> None:
        self.X_fit_ = X
        kernel = _matrix(self, X, None)
        # With the identity for test points the closed form gives the coefficients of the training points.
        _, coefficients = closed_form(
            kernel, np.zeros_like(targets), targets, np.array([self.time]), kernel_test=np.eye(len(X)), ridge=self.ridge,
            precision=kernel_error(_network(self)),
        )  # fmt: skip
        self.dual_coef_ = coefficients[0]

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, _points(X), reset=False, dtype=np.float64)
        return _matrix(self, X, self.X_fit_) @ self.dual_coef_


class NTKRegressor(_Regressor, _NTK):
    """Regression with an infinitely wide network: the mean over networks of their outputs after gradient flow.

    f(x) = K(x, X) (1 - e^(-(K + ridge) t)) / (K + ridge) y with K the infinite-width NTK, for t = infinity kernel (ridge)
    regression (Jacot et al. 2018; Lee et al. 2019, with initial outputs of mean 0; Hu, Li & Yu 2020 for the ridge).

    Parameters
    ----------
    depth, activation, parameterization, sigma_w, sigma_a, sigma_b, output_bias : as in `Network`.
    ridge : added to the kernel's diagonal, in its units.
    time : end of training in units of 1 / eigenvalue of the kernel, on the loss 1/2 sum r^2; infinity by default.

    ``fit`` takes X (n, d) and y (n,) or (n, k), which share the kernel. After it ``X_fit_`` and ``dual_coef_`` (n,) or (n, k)
    give predictions ``K(x, X_fit_) dual_coef_``. Targets are not centred: without biases a network's output at x = 0 is 0.
    """

    def fit(self, X: Any, y: Any) -> "NTKRegressor":
        """Fit to points (n, d), or images (n, h, w[, c]), and targets (n,) or (n, k)."""
        X, y = validate_data(self, _points(X), y, dtype=np.float64, multi_output=True, y_numeric=True)
        self._solve(X, np.asarray(y, np.float64))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predictions (n,) or (n, k)."""
        return self._outputs(X)


class NTKClassifier(ClassifierMixin, _NTK):
    """Classification with an infinitely wide network that is trained on targets of 1 for a point's own class and -1 else.

    Parameters are those of `NTKRegressor`. Two classes have one output, more have one each on the same kernel.
    """

    def fit(self, X: Any, y: Any) -> "NTKClassifier":
        """Fit to points (n, d), or images (n, h, w[, c]), and labels (n,)."""
        X, y = validate_data(self, _points(X), y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_ = unique_labels(y)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have at least two classes; got one class: {self.classes_[0]!r}")
        targets = np.where(np.asarray(y)[:, None] == self.classes_[None, :], 1.0, -1.0)
        self._solve(X, targets[:, 1] if len(self.classes_) == 2 else targets)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Outputs: (n,) for two classes, above 0 for the second; else (n, classes)."""
        return self._outputs(X)

    def predict(self, X: Any) -> np.ndarray:
        """The label with the largest output, (n,)."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)]


class NNGPRegressor(_Regressor, BaseEstimator):
    """Bayesian regression with an infinitely wide network: a Gaussian process with the NNGP kernel (Lee et al. 2018).

    Parameters
    ----------
    depth, activation, parameterization, sigma_w, sigma_a, sigma_b, output_bias : as in `Network`.
    alpha : variance of the noise of targets, added to the kernel's diagonal.
    optimizer : None keeps the scales as they are; ``"fmin_l_bfgs_b"`` maximises the marginal likelihood over sigma_w, sigma_a and
        sigma_b, starting from them (``kernel_`` then holds what was found).

    A thin layer over ``sklearn.gaussian_process.GaussianProcessRegressor``, which ``regressor_`` holds after ``fit``.
    """

    def __init__(
        self,
        depth: int = 1,
        activation: str = "relu",
        parameterization: str = "ntk",
        sigma_w: float = 1.0,
        sigma_a: float = 1.0,
        sigma_b: float | None = None,
        output_bias: bool = False,
        alpha: float = 1e-10,
        optimizer: str | Callable[..., Any] | None = None,
    ) -> None:
        self.depth, self.activation, self.parameterization = depth, activation, parameterization
        self.sigma_w, self.sigma_a, self.sigma_b, self.output_bias = sigma_w, sigma_a, sigma_b, output_bias
        self.alpha, self.optimizer = alpha, optimizer

    def fit(self, X: Any, y: Any) -> "NNGPRegressor":
        """Fit to points (n, d), or images (n, h, w[, c]), and targets (n,) or (n, k)."""
        X, y = validate_data(self, _points(X), y, dtype=np.float64, multi_output=True, y_numeric=True)
        kernel = NetworkKernel(
            "nngp", self.depth, self.activation, self.parameterization, self.sigma_w, self.sigma_a, self.sigma_b, self.output_bias
        )
        self.regressor_ = GaussianProcessRegressor(kernel, alpha=self.alpha, optimizer=self.optimizer).fit(X, y)
        self.kernel_ = self.regressor_.kernel_
        return self

    def predict(self, X: Any, return_std: bool = False, return_cov: bool = False) -> Any:
        """The posterior's mean (n,) or (n, k), and its standard deviation or covariance where asked."""
        check_is_fitted(self)
        X = validate_data(self, _points(X), reset=False, dtype=np.float64)
        return self.regressor_.predict(X, return_std=return_std, return_cov=return_cov)
