"""Training: full-batch gradient descent on the squared loss, with the kernel along the way.

Time is the notes' t: after k steps of gradient descent with learning rate eta, t = eta k. The loss is 1/2 sum r^2, with
no 1/n, so rates are eigenvalues of the kernel itself.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntksim.engine import descent_cpu
from ntksim.engine.arguments import points, precision, require_cpu, seed_array, targets
from ntksim.engine.blas import one_blas_thread
from ntksim.engine.empirical import layer_arguments, workers_for
from ntksim.engine.infinite import infinite_kernel
from ntksim.engine.network import Network

METHODS = ("gradient_descent", "gradient_flow")
SNAPSHOTS = 25  # of a run whose times are not given, beside t = 0


@dataclass(frozen=True)
class Trajectory:
    """Training of S seeds, seen at T times; float64 but for outputs and kernels, which have the run's dtype.

    ``times`` (T,) in the notes' t. ``outputs`` (S, T, n) and ``test_outputs`` (S, T, n*), None without test points.
    ``loss`` (S, T) = 1/2 sum r^2. ``kernel_drift`` (S, T) = ||K_t - K_0||_F / ||K_0||_F and ``parameter_drift`` (S, T) =
    ||theta_t - theta_0|| / ||theta_0|| over all stored parameters. ``evaluations`` (S,) counts forward-and-backward
    passes over the training points. ``kernels`` (S, T, n, n), None unless kept. ``status`` holds "finished" or
    "diverged" for each seed; what a diverged seed did not reach is NaN.
    """

    times: np.ndarray
    outputs: np.ndarray
    test_outputs: np.ndarray | None
    loss: np.ndarray
    kernel_drift: np.ndarray
    parameter_drift: np.ndarray
    evaluations: np.ndarray
    kernels: np.ndarray | None
    status: tuple[str, ...]
    learning_rate: float


def train(
    network: Network,
    x: np.ndarray,
    y: np.ndarray,
    *,
    seeds: Sequence[int],
    method: str = "gradient_flow",
    times: Sequence[float] | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    tolerance: float | None = None,
    x_test: np.ndarray | None = None,
    keep_kernels: bool = False,
    dtype: Any = "float64",
    device: str = "cpu",
) -> Trajectory:
    """Train one network per seed on the loss 1/2 sum (f - y)^2, all points at once.

    Parameters
    ----------
    x, y : points (n, d) and targets (n,); ``x_test`` (n*, d), observed only.
    method : ``"gradient_descent"``; ``"gradient_flow"`` is not in this version.
    times : when to look, ascending; each is moved to the nearest step. By default 0 and 25 log-spaced times up to the
        last step.
    steps : number of steps; by default up to the last of ``times``, or to t = 20 / lambda_min(K_infinity).
    learning_rate : eta; by default 1 / lambda_max(K_infinity). A warning is given from 2 / lambda_max on.
    keep_kernels : whether to return K_t, (S, T, n, n).

    Raises
    ------
    NotImplementedError for gradient flow; TypeError or ValueError naming any other argument that does not fit.

    The notes' assumption 1.1 and section 1.7.
    """
    require_cpu(device)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if method == "gradient_flow":
        raise NotImplementedError(
            "method='gradient_flow' is not in this version; use method='gradient_descent', which follows the flow for "
            "a learning_rate well below 2 / lambda_max"
        )
    if tolerance is not None:
        raise ValueError("tolerance belongs to gradient_flow; gradient_descent has learning_rate and steps")
    kind, seed_list = precision(dtype), seed_array(seeds)
    x = points("x", x)
    y = targets("y", y, len(x))
    tests = np.empty((0, x.shape[1])) if x_test is None else points("x_test", x_test, features=x.shape[1])
    rate, asked = _schedule(network, x, times, steps, learning_rate)
    # Step 0 is the reference of every drift, asked for or not; equal steps are computed once.
    shown, where = np.unique(np.concatenate([[0], asked]), return_inverse=True)
    where = where[1:]

    size, count, n = seed_list.size, shown.size, len(x)
    outputs, test_outputs = np.full((size, count, n), np.nan, kind), np.full((size, count, len(tests)), np.nan, kind)
    kernels = np.full((size, count if keep_kernels else 0, n, n), np.nan, kind)
    loss, kernel_drift, parameter_drift = (np.full((size, count), np.nan) for _ in range(3))
    evaluations, finite = np.zeros(size, np.int64), np.zeros(size, np.bool_)
    with one_blas_thread():
        descent_cpu.descend_seeds(
            workers_for(seed_list), seed_list, *layer_arguments(network, x.shape[1]),
            x.astype(kind), y.astype(kind), tests.astype(kind), rate, shown,
            outputs, test_outputs, loss, kernels, kernel_drift, parameter_drift, evaluations, finite,
        )  # fmt: skip
    return Trajectory(
        times=rate * asked,
        outputs=outputs[:, where],
        test_outputs=None if x_test is None else test_outputs[:, where],
        loss=loss[:, where],
        kernel_drift=kernel_drift[:, where],
        parameter_drift=parameter_drift[:, where],
        evaluations=evaluations,
        kernels=kernels[:, where] if keep_kernels else None,
        status=tuple("finished" if ok else "diverged" for ok in finite),
        learning_rate=rate,
    )


def _schedule(
    network: Network, x: np.ndarray, times: Sequence[float] | None, steps: int | None, learning_rate: float | None
) -> tuple[float, np.ndarray]:
    """Learning rate and the steps at which to look, ascending."""
    eigenvalues = np.linalg.eigvalsh(infinite_kernel(network, x).ntk)
    if learning_rate is None:
        learning_rate = 1 / eigenvalues[-1]
    elif not np.isfinite(learning_rate) or learning_rate <= 0:
        raise ValueError(f"learning_rate must be finite and positive; got {learning_rate!r}")
    elif learning_rate >= 2 / eigenvalues[-1]:
        warnings.warn(
            f"learning_rate {learning_rate:.4g} is at or above 2 / lambda_max(K_infinity) = {2 / eigenvalues[-1]:.4g}: "
            "gradient descent is expected to diverge; lower it",
            RuntimeWarning,
            stacklevel=3,
        )
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1):
        raise ValueError(f"steps must be an integer of at least 1; got {steps!r}")
    if times is not None:
        return float(learning_rate), _steps_of(np.asarray(times, dtype=np.float64), float(learning_rate), steps)
    if steps is None:
        if eigenvalues[0] <= 1e-12 * eigenvalues[-1]:
            raise ValueError("the infinite-width kernel is singular (are points repeated?): give times or steps")
        steps = int(np.ceil(20 / eigenvalues[0] / learning_rate))
    shown = np.unique(np.round(np.geomspace(1, steps, min(SNAPSHOTS, steps))).astype(np.int64))
    return float(learning_rate), np.concatenate([[0], shown])


def _steps_of(times: np.ndarray, learning_rate: float, steps: int | None) -> np.ndarray:
    if times.ndim != 1 or times.size == 0 or not np.isfinite(times).all() or (times < 0).any():
        raise ValueError("times must be a non-empty 1-D sequence of finite numbers of at least 0 for gradient descent")
    if (np.diff(times) < 0).any():
        raise ValueError("times must ascend")
    shown = np.round(times / learning_rate).astype(np.int64)
    if steps is not None and shown[-1] > steps:
        raise ValueError(f"times go up to step {shown[-1]} (time / learning_rate), beyond steps={steps}")
    return shown
