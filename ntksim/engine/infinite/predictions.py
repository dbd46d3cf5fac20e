"""What theory predicts of training: the constant-kernel solution of the notes' section 1.7.

Loss 1/2 sum r^2 (no 1/n) and r = f - y, so that eigenmode j of the kernel decays at the rate lambda_j itself.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntksim.engine.arguments import finite_array, momentum_options, numeric, positive_number, ridge_number
from ntksim.engine.blas import one_blas_thread
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
    error = relative_error(precision, *(np.asarray(given) for given in (kernel, kernel_test) if given is not None))
    ridge = ridge_number(ridge)
    y, kernel = finite_array("y", y, None), finite_array("kernel", kernel, None)
    if y.ndim not in (1, 2) or y.size == 0:
        raise ValueError(f"y must have shape (n,), or (n, k) for k outputs, neither of them 0; got {y.shape}")
    form = _Form(len(y), y.shape[1:], joint=kernel.ndim == 4)
    kernel = form.kernel("kernel", kernel, len(y))
    if not np.allclose(kernel, kernel.T, rtol=1e-5, atol=1e-6 * np.abs(kernel).max(initial=0)):
        raise ValueError("kernel must be symmetric; pass training points with training points, and the test block as kernel_test")
    start, target = form.outputs("f0", f0, len(y)), form.outputs("y", y, len(y))
    times, rate = _times(times), None if learning_rate is None else positive_number("learning_rate", learning_rate)
    mu, nesterov = momentum_options(momentum, nesterov)
    if rate is None and mu:
        raise ValueError("momentum belongs to gradient descent: give learning_rate too")
    tests = None
    if kernel_test is not None:
        kernel_test = finite_array("kernel_test", kernel_test, 4 if form.joint else 2)
        size = len(kernel_test)
        kernel_test = form.kernel("kernel_test", kernel_test, size)
        tests = form.outputs("f0_test", np.zeros((size, *form.extra)) if f0_test is None else f0_test, size)
        if f0_test is not None and np.shape(f0)[: -len(form.expected(0))] != np.shape(f0_test)[: -len(form.expected(0))]:
            raise ValueError(f"f0 and f0_test must be of as many seeds; got shapes {np.shape(f0)} and {np.shape(f0_test)}")
    elif f0_test is not None:
        raise ValueError("f0_test belongs to test points: give kernel_test too, or leave it out")
    values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
    if values[0] < -1e-3 * np.abs(values).max():
        raise ValueError(f"kernel must be positive semidefinite; its eigenvalues go from {values[0]:.3g} to {values[-1]:.3g}")
    rates = np.maximum(values, 0.0) + ridge
    # J v = 0 where v'Kv = 0, so that these directions move nothing, test points neither: what K* v is there is rounding.
    rates = np.where(rates > null_level(values, error), rates, 0.0)
    decay, gain = _flow(rates, times) if rate is None else _descent(rates, times, rate, mu, nesterov)
    if ridge:
        decay = decay + ridge * gain  # 1 - lambda gain, since 1 - decay = (lambda + rho) gain

    residual = (start - target) @ vectors
    with np.errstate(over="ignore", invalid="ignore"):  # a learning rate that diverges: infinite or NaN, as it is
        train = form.unfold(target[..., None, :] + (decay * residual[..., None, :]) @ vectors.T)
        if tests is None:
            return train
        return train, form.unfold(tests[..., None, :] - (gain * residual[..., None, :]) @ (kernel_test @ vectors).T)


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


def stable_rate(momentum: float, nesterov: bool) -> float:
    """eta lambda at which descent ceases to be stable along an eigenvector of a constant kernel."""
    return 2 * (1 + momentum) / (1 + 2 * momentum if nesterov else 1)


def _flow(values: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """e^(-lambda t) and (1 - e^(-lambda t)) / lambda, (T, n); 1 and 0 where lambda = 0: nothing moves."""
    still = values == 0
    with np.errstate(invalid="ignore"):  # 0 x infinity, replaced below
        exponent = np.where(still, 0.0, -values * times[:, None])
    gain = np.where(still, 0.0, -np.expm1(exponent) / np.where(still, 1.0, values))
    return np.exp(exponent), gain


def _descent(
    values: np.ndarray, times: np.ndarray, learning_rate: float, momentum: float, nesterov: bool
) -> tuple[np.ndarray, np.ndarray]:
    """p_k and (1 - p_k) / lambda, (T, n), p_k = (1 - eta lambda)^k or what momentum makes of it; 1 and 0 where lambda = 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        exact = times / learning_rate
        steps = np.round(exact)
        off = np.abs(exact - steps) > 1e-6 * np.maximum(steps, 1)
    if np.any(off & np.isfinite(times)):
        raise ValueError(f"times must be whole numbers of steps of {learning_rate}; got {times[off & np.isfinite(times)][0]}")
    if momentum:
        decay, gain = _with_momentum(learning_rate * values, steps, momentum, nesterov)
        return decay, learning_rate * gain
    factor = 1 - learning_rate * values
    still = values == 0
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        # log1p keeps the digits of slow modes; beyond one step's full decay the factor is negative
        small = learning_rate * values < 0.5
        exponent = np.where(steps[:, None] == 0, 0.0, steps[:, None] * np.log1p(np.where(small, -learning_rate * values, 0.0)))
        decay = np.where(small, np.exp(exponent), factor ** steps[:, None])
        decay[np.isinf(steps)[:, None] & (factor <= -1)] = np.nan  # neither here nor there
        lost = np.where(small, -np.expm1(exponent), 1 - decay)
    return np.where(still, 1.0, decay), np.where(still, 0.0, lost / np.where(still, 1.0, values))


def _with_momentum(a: np.ndarray, steps: np.ndarray, mu: float, nesterov: bool) -> tuple[np.ndarray, np.ndarray]:
    """p_k and s_k = (1 - p_k) / a at the given numbers of steps, (T, n), for a = eta lambda, (n,).

    The recursions of `descent` have p_0 = 1, p_1 = 1 - first a, and two roots, of sum 2 ``half`` and ``product``, half their
    difference squared ``square``; (1 - root)(1 - other root) = a. Each is written so that nothing cancels, in slow modes too.
    """
    if nesterov:
        first, half, product = 1 + mu, (1 - a) * (1 + mu) / 2, (1 - a) * mu
        square, ahead = (1 - a) * ((1 - mu) ** 2 - a * (1 + mu) ** 2) / 4, (1 - mu - a * (1 + mu)) / 2
    else:
        root = math.sqrt(mu)
        first, half, product = 1.0, (1 + mu - a) / 2, np.full_like(a, mu)
        square, ahead = (((1 - mu) / (1 + root)) ** 2 - a) * ((1 + root) ** 2 - a) / 4, (1 - mu - a) / 2
    still, stable = a == 0, a < stable_rate(mu, nesterov)
    decay, gain = np.ones((steps.size, a.size)), np.zeros((steps.size, a.size))
    with np.errstate(all="ignore"):  # each form is taken where it holds; what diverges is infinite or NaN, as it is
        for at, k in enumerate(steps):
            if np.isinf(k):
                decay[at] = np.where(still, 1.0, np.where(stable, 0.0, np.nan))
                gain[at] = np.where(still, 0.0, np.where(stable, 1 / a, np.nan))
            elif k > 0:
                far, p, lost = _apart(a, k, half, product, square, ahead, first)
                near = _together(k, half, product, square, ahead)
                decay[at] = np.where(still, 1.0, np.where(far, p, near))
                gain[at] = np.where(still, 0.0, np.where(far, lost, 1 - near) / a)
    return decay, gain


def _apart(
    a: np.ndarray, k: float, half: np.ndarray, product: np.ndarray, square: np.ndarray, ahead: np.ndarray, first: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where k-th powers of two real roots differ, p_k and 1 - p_k as sums of them."""
    difference = np.sqrt(square)
    large = half + np.copysign(difference, half)
    small = product / large
    slow = half > 0  # the large root is 1 - rate
    rate = a / (1 - small)
    weight = -np.where(slow, a * (1 / (1 - small) - first), ahead + difference) / (large - small)  # of the small root
    lost = np.where(slow, -np.expm1(k * np.log1p(-rate)), 1 - large**k)
    lost = (1 - weight) * lost + weight * (1 - small**k)
    p = (1 - weight) * np.where(slow, np.exp(k * np.log1p(-rate)), large**k) + weight * small**k
    angle = np.arcsinh(difference / np.sqrt(np.maximum(product, 0)))
    return (square > 0) & ~(slow & (product > 0) & (k * angle < 1)), p, lost


def _together(k: float, half: np.ndarray, product: np.ndarray, square: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """p_k where the roots are complex, or so close that their k-th powers hardly differ."""
    radius, difference = np.sqrt(np.maximum(product, 0)), np.sqrt(np.abs(square))
    turn, grow = np.arctan2(difference, half), np.where(difference > 0, np.arcsinh(difference / radius), 0.0)
    sine = np.where(square < 0, np.sin(k * turn), np.sinh(k * grow))
    cosine = np.where(square < 0, np.cos(k * turn), np.cosh(k * grow))
    ratio = np.where(difference > 0, sine * radius / difference, k)
    return radius ** (k - 1) * (ahead * ratio + radius * cosine)


def _times(value: object) -> np.ndarray:
    times = np.atleast_1d(numeric("times", value))
    if times.ndim != 1 or np.isnan(times).any() or (times < 0).any():
        raise ValueError("times must be a 1-D array of numbers of at least 0 (infinity is allowed)")
    return times
