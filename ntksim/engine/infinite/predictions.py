"""What theory predicts of training: the constant-kernel solution of the notes' section 1.7.

Loss 1/2 sum r^2 (no 1/n) and r = f - y, so that eigenmode j of the kernel decays at the rate lambda_j itself.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntksim.engine.arguments import finite_array, momentum_options, numeric, ridge_number
from ntksim.engine.blas import one_blas_thread
from ntksim.engine.infinite.decay import StepRule, flow_decay
from ntksim.engine.rounding import null_level, relative_error


@one_blas_thread()
def closed_form(
    kernel: np.ndarray,
    f0: np.ndarray,
    y: np.ndarray,
    times: np.ndarray,
    kernel_test: np.ndarray | None = None,
    f0_test: np.ndarray | None = None,
    learning_rate: float | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    precision: Any = None,
    ridge: float = 0.0,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Outputs under training with a constant kernel.

    f_t = y + e^(-Kt) (f_0 - y) on training points and f_t(x*) = f_0(x*) - K* t phi_1(-Kt) (f_0 - y) on test points,
    with t phi_1(-lambda t) = (1 - e^(-lambda t)) / lambda: functions of the eigenvalues, never an inverse of K.

    With a ``ridge`` rho both are f_0(x) - K(x, X) t phi_1(-(K + rho)t) (f_0 - y): training on 1/2 sum r^2 plus
    rho/2 ||theta - theta_0||^2, and at t = infinity kernel ridge regression (Hu, Li & Yu 2020).

    Parameters
    ----------
    kernel : (n, n), symmetric positive semidefinite, training points with themselves; for k outputs (n, k, n, k), or (n, n)
        for one that all of them have apart from each other, as in the limit of infinite width.
    f0 : initial outputs, (n,) or (S, n); for k outputs (n, k) or (S, n, k).
    y : targets (n,), or (n, k) for k outputs.
    times : (T,), in units of 1 / eigenvalue, at least 0; infinity is allowed.
    kernel_test : (n*, n) or (n*, k, n, k), test points with training points; then a pair (training, test) is returned.
    f0_test : initial outputs on test points, (n*,) or (S, n*), or with a last axis of k outputs; zero if left out.
    learning_rate : eta, for gradient descent: (I - eta K)^k at the k = t / eta-th step instead of e^(-Kt).
    momentum, nesterov : mu of gradient descent and its form, as in `train`: the recursions of `descent`.
    precision : that in which the kernels were computed: ``"float64"``, ``"float32"``, or the relative error of their entries; by
        default the coarser of the two arrays' own types. Say so where a float32 kernel has been cast to float64 since, and give
        ``network.depth * 1e-10`` for an `infinite_kernel` of tanh, whose errors its type does not tell.
    ridge : rho, added to the kernel's diagonal, in its units; at least 0.

    Returns
    -------
    (..., T, n) float64, or (training, test) with test (..., T, n*); for k outputs with a last axis of them. Directions in
    which K + rho is singular to that precision move no output at any time: eigenvalues up to e min(n lambda_max, 2 tr K) for a
    relative error e of the entries, n eps lambda_max at least. Under a learning rate that is too large the result diverges.
    BLAS is held at one thread, so that the bits do not depend on how many there are.

    Raises
    ------
    TypeError or ValueError for shapes that do not fit, negative times, or times that are no whole number of steps.
    """
    given = [np.asarray(array) for array in (kernel, kernel_test) if array is not None]
    error, ridge = relative_error(precision, *given), ridge_number(ridge)
    problem = _Problem.checked(kernel, f0, y, kernel_test, f0_test)
    times, rule = _times(times), _step_rule(learning_rate, momentum, nesterov)
    rates, vectors = _modes(problem.kernel, ridge, error)
    decay, gain = flow_decay(rates, times) if rule is None else rule.decay(rates, times)
    if ridge:
        decay = decay + ridge * gain  # 1 - lambda gain, since 1 - decay = (lambda + rho) gain
    return problem.solution(vectors, decay, gain)


def _step_rule(learning_rate: object, momentum: object, nesterov: object) -> StepRule | None:
    """The rule of gradient descent, or None for gradient flow."""
    if learning_rate is not None:
        return StepRule.checked(learning_rate, momentum, nesterov)
    if momentum_options(momentum, nesterov)[0]:
        raise ValueError("momentum belongs to gradient descent: give learning_rate too")
    return None


def _modes(kernel: np.ndarray, ridge: float, error: float) -> tuple[np.ndarray, np.ndarray]:
    """The rates lambda + rho (n,), 0 where nothing moves, and the eigenvectors of a kernel with a relative ``error``."""
    values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
    if values[0] < -1e-3 * np.abs(values).max():
        raise ValueError(f"kernel must be positive semidefinite; its eigenvalues go from {values[0]:.3g} to {values[-1]:.3g}")
    rates = np.maximum(values, 0.0) + ridge
    # J v = 0 where v'Kv = 0, so that these directions move nothing, test points neither: what K* v is there is rounding.
    return np.where(rates > null_level(values, error), rates, 0.0), vectors


@dataclass(frozen=True)
class _Form:
    """How outputs of n points, ``extra`` = () or (k,) of each, lie along an axis: all of them (``joint``), or each on its own."""

    n: int
    extra: tuple[int, ...]
    joint: bool

    def expected(self, rows: int) -> tuple[int, ...]:
        """The shape of one network's outputs."""
        return (rows, *self.extra)

    def kernel(self, name: str, value: object, rows: int) -> np.ndarray:
        """A kernel of ``rows`` points with the training points as a matrix."""
        array = finite_array(name, value, None)
        expected = (rows, *self.extra, self.n, *self.extra) if self.joint else (rows, self.n)
        if array.shape != expected:
            meaning = "training points twice" if name == "kernel" else "test points by training points"
            raise ValueError(f"{name} must have shape {expected}, {meaning}; got {array.shape}")
        return array.reshape(rows * math.prod(self.extra), -1) if self.joint else array

    def outputs(self, name: str, value: object, rows: int) -> np.ndarray:
        """Outputs (..., rows) or (..., rows, k) with one axis that the kernel acts on, the last."""
        array, expected = finite_array(name, value, None), self.expected(rows)
        if array.ndim not in (len(expected), len(expected) + 1) or array.shape[-len(expected) :] != expected:
            seeds = ", ".join(map(str, ("seeds", *expected)))
            raise ValueError(f"{name} must have shape {expected} or ({seeds}); got {array.shape}")
        if not self.extra:
            return array
        return array.reshape(*array.shape[:-2], -1) if self.joint else np.swapaxes(array, -1, -2)

    def unfold(self, array: np.ndarray) -> np.ndarray:
        """Back from that axis, behind one of times, to (..., T, rows) or (..., T, rows, k)."""
        if not self.extra:
            return array
        return array.reshape(*array.shape[:-1], -1, *self.extra) if self.joint else np.moveaxis(array, -3, -1)


@dataclass(frozen=True)
class _Problem:
    """Kernels, initial outputs and targets, checked, along the axis that ``form`` describes; None without test points."""

    form: _Form
    kernel: np.ndarray
    start: np.ndarray
    target: np.ndarray
    kernel_test: np.ndarray | None
    start_test: np.ndarray | None

    @classmethod
    def checked(cls, kernel: object, f0: Any, y: object, kernel_test: object, f0_test: Any) -> "_Problem":
        """Of the arguments of `closed_form`. Raises ValueError or TypeError naming the one that does not fit."""
        y, kernel = finite_array("y", y, None), finite_array("kernel", kernel, None)
        if y.ndim not in (1, 2) or y.size == 0:
            raise ValueError(f"y must have shape (n,), or (n, k) for k outputs, neither of them 0; got {y.shape}")
        form = _Form(len(y), y.shape[1:], joint=kernel.ndim == 4)
        kernel = form.kernel("kernel", kernel, len(y))
        if not np.allclose(kernel, kernel.T, rtol=1e-5, atol=1e-6 * np.abs(kernel).max(initial=0)):
            raise ValueError(
                "kernel must be symmetric; pass training points with training points, and the test block as kernel_test"
            )
        start, target = form.outputs("f0", f0, len(y)), form.outputs("y", y, len(y))
        if kernel_test is None:
            if f0_test is not None:
                raise ValueError("f0_test belongs to test points: give kernel_test too, or leave it out")
            return cls(form, kernel, start, target, None, None)
        across = finite_array("kernel_test", kernel_test, 4 if form.joint else 2)
        size = len(across)
        across = form.kernel("kernel_test", across, size)
        tests = form.outputs("f0_test", np.zeros((size, *form.extra)) if f0_test is None else f0_test, size)
        if f0_test is not None and np.shape(f0)[: -len(form.expected(0))] != np.shape(f0_test)[: -len(form.expected(0))]:
            raise ValueError(f"f0 and f0_test must be of as many seeds; got shapes {np.shape(f0)} and {np.shape(f0_test)}")
        return cls(form, kernel, start, target, across, tests)

    def solution(self, vectors: np.ndarray, decay: np.ndarray, gain: np.ndarray) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Outputs from the decay and the gain (T, n) of every eigenvector, of training points, or with those of test points."""
        residual = (self.start - self.target) @ vectors
        with np.errstate(over="ignore", invalid="ignore"):  # a learning rate that diverges: infinite or NaN, as it is
            train = self.form.unfold(self.target[..., None, :] + (decay * residual[..., None, :]) @ vectors.T)
            if self.kernel_test is None or self.start_test is None:
                return train
            moved = (gain * residual[..., None, :]) @ (self.kernel_test @ vectors).T
            return train, self.form.unfold(self.start_test[..., None, :] - moved)


def _times(value: object) -> np.ndarray:
    times = np.atleast_1d(numeric("times", value))
    if times.ndim != 1 or np.isnan(times).any() or (times < 0).any():
        raise ValueError("times must be a 1-D array of numbers of at least 0 (infinity is allowed)")
    return times
