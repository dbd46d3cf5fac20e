"""What theory predicts of training: the constant-kernel solution of the notes' section 1.7.

Loss 1/2 sum r^2 (no 1/n) and r = f - y, so that eigenmode j of the kernel decays at the rate lambda_j itself.
"""

import numpy as np

from ntksim.engine.arguments import finite_array, targets


def closed_form(
    kernel: np.ndarray,
    f0: np.ndarray,
    y: np.ndarray,
    times: np.ndarray,
    kernel_test: np.ndarray | None = None,
    f0_test: np.ndarray | None = None,
    learning_rate: float | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Outputs under training with a constant kernel.

    f_t = y + e^(-Kt) (f_0 - y) on training points and f_t(x*) = f_0(x*) - K* t phi_1(-Kt) (f_0 - y) on test points,
    with t phi_1(-lambda t) = (1 - e^(-lambda t)) / lambda: functions of the eigenvalues, never an inverse of K.

    Parameters
    ----------
    kernel : (n, n), symmetric positive semidefinite, training points with themselves.
    f0 : initial outputs, (n,) or (S, n).
    y : targets (n,).
    times : (T,), in units of 1 / eigenvalue, at least 0; infinity is allowed.
    kernel_test : (n*, n), test points with training points; then a pair (training, test) is returned.
    f0_test : initial outputs on test points, (n*,) or (S, n*); zero if left out.
    learning_rate : eta, for gradient descent: (I - eta K)^k at the k = t / eta-th step instead of e^(-Kt).

    Returns
    -------
    (..., T, n) float64, or (training, test) with test (..., T, n*). Directions in which the kernel is singular to
    working precision do not move at t = infinity; under a learning rate that is too large the result diverges.

    Raises
    ------
    TypeError or ValueError for shapes that do not fit, negative times, or times that are no whole number of steps.
    """
    kernel = finite_array("kernel", kernel, 2)
    n = len(kernel)
    if kernel.shape != (n, n):
        raise ValueError(f"kernel must be square; got shape {kernel.shape}")
    if not np.allclose(kernel, kernel.T, rtol=1e-5, atol=1e-6 * np.abs(kernel).max(initial=0)):
        raise ValueError("kernel must be symmetric; pass training points with training points, and the test block as kernel_test")
    y = targets("y", y, n)
    f0 = _outputs("f0", f0, n)
    times = _times(times)
    values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
    # Rounding leaves eigenvalues of a singular kernel at +- n eps lambda_max: they are zeros.
    values = np.where(values > n * np.finfo(np.float64).eps * np.abs(values).max(initial=0), values, 0.0)
    decay, gain = _flow(values, times) if learning_rate is None else _descent(values, times, learning_rate)

    residual = (f0 - y) @ vectors
    with np.errstate(over="ignore", invalid="ignore"):  # a learning rate that diverges: infinite or NaN, as it is
        train = y + (decay * residual[..., None, :]) @ vectors.T
    if kernel_test is None:
        return train
    kernel_test = finite_array("kernel_test", kernel_test, 2)
    if kernel_test.shape[1] != n:
        raise ValueError(f"kernel_test must have shape (n*, {n}), test points by training points; got {kernel_test.shape}")
    start = np.zeros(len(kernel_test)) if f0_test is None else _outputs("f0_test", f0_test, len(kernel_test))
    with np.errstate(over="ignore", invalid="ignore"):
        return train, start[..., None, :] - (gain * residual[..., None, :]) @ (kernel_test @ vectors).T


def _flow(values: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """e^(-lambda t) and (1 - e^(-lambda t)) / lambda, (T, n)."""
    still = values == 0
    with np.errstate(invalid="ignore"):  # 0 x infinity, replaced below
        exponent = np.where(still, 0.0, -values * times[:, None])
    limit = np.where(np.isinf(times), 0.0, times)[:, None]
    gain = np.where(still, limit, -np.expm1(exponent) / np.where(still, 1.0, values))
    return np.exp(exponent), gain


def _descent(values: np.ndarray, times: np.ndarray, learning_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """(1 - eta lambda)^k and (1 - (1 - eta lambda)^k) / lambda, (T, n)."""
    if not np.isfinite(learning_rate) or learning_rate <= 0:
        raise ValueError(f"learning_rate must be finite and positive; got {learning_rate!r}")
    exact = times / learning_rate
    steps = np.round(exact)
    with np.errstate(invalid="ignore"):
        off = np.abs(exact - steps) > 1e-6 * np.maximum(steps, 1)
    if np.any(off & np.isfinite(times)):
        raise ValueError(f"times must be whole numbers of steps of {learning_rate}; got {times[off & np.isfinite(times)][0]}")
    factor = 1 - learning_rate * values
    still = values == 0
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        # log1p keeps the digits of slow modes; beyond one step's full decay the factor is negative
        small = learning_rate * values < 0.5
        exponent = np.where(steps[:, None] == 0, 0.0, steps[:, None] * np.log1p(np.where(small, -learning_rate * values, 0.0)))
        decay = np.where(small, np.exp(exponent), factor ** steps[:, None])
        lost = np.where(small, -np.expm1(exponent), 1 - decay)
    decay, lost = np.where(still, 1.0, decay), np.where(still, 0.0, lost)
    limit = np.where(np.isinf(times), 0.0, times)[:, None]
    return decay, np.where(still, limit, lost / np.where(still, 1.0, values))


def _outputs(name: str, value: object, n: int) -> np.ndarray:
    array = finite_array(name, value, None)
    if array.ndim not in (1, 2) or array.shape[-1] != n:
        raise ValueError(f"{name} must have shape ({n},) or (seeds, {n}); got {array.shape}")
    return array


def _times(value: object) -> np.ndarray:
    times = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if times.ndim != 1 or np.isnan(times).any() or (times < 0).any():
        raise ValueError("times must be a 1-D array of numbers of at least 0 (infinity is allowed)")
    return times
