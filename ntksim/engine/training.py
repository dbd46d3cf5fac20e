"""Training on the squared loss, all points at once: gradient flow and gradient descent, with the kernel along the way.

Time is the notes' t: that of the flow, and eta k after k steps of gradient descent with learning rate eta. The loss is
1/2 sum r^2, with no 1/n, so rates are eigenvalues of the kernel itself. In the abc parameterizations, whose learning rates
carry a factor n^(-c) (`Network.learning_rate_scale`; 1 in the others), they are those of the effective kernel n^(-c) K: the
flow is theta' = -n^(-c) grad L, and a step of descent eta n^(-c) grad L.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntksim.engine.arguments import points, precision, require_cpu, seed_array, targets
from ntksim.engine.descent_cpu import descend
from ntksim.engine.empirical import columns_of, compiled_network, is_wide
from ntksim.engine.flow import Points, Snapshots, flow_seed
from ntksim.engine.infinite import infinite_kernel
from ntksim.engine.kernels_cpu import group_rows
from ntksim.engine.layout import Net, aligned, make_room, parameter_offsets, stored_weights, without_kernel
from ntksim.engine.network import Network
from ntksim.engine.threads import one_blas_thread, spread

METHODS = ("gradient_descent", "gradient_flow")
SNAPSHOTS = 25  # of a run whose times are not given, beside t = 0


@dataclass(frozen=True)
class Trajectory:
    """Training of S seeds, seen at T times; float64 but for outputs and kernels, which have the run's dtype.

    ``times`` (T,) in the notes' t. ``outputs`` (S, T, n) and ``test_outputs`` (S, T, n*), None without test points.
    ``loss`` (S, T) = 1/2 sum r^2. ``kernel_drift`` (S, T) = ||K_t - K_0||_F / ||K_0||_F and ``parameter_drift`` (S, T) =
    ||theta_t - theta_0|| / ||theta_0|| over all stored parameters. ``evaluations`` (S,) counts forward-and-backward
    passes over the training points; the flow applies each one's gradient up to twice more, which is not counted.
    ``kernels`` (S, T, n, n), None unless kept, are plain Gram matrices, without n^(-c). ``status`` holds "finished",
    "diverged" or "step_limit" (the flow was given up after `flow.MAX_STEPS` steps, as it may be for ReLU at small
    tolerances: every kink costs a step) for each seed; what a seed did not reach is NaN. ``learning_rate`` is None for
    gradient flow.
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
    learning_rate: float | None


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
    method : ``"gradient_flow"``, theta' = -grad L to an error of ``tolerance``, or ``"gradient_descent"``; both with the
        parameterization's factor n^(-c) on the gradient. K_infinity below is the effective kernel, with that factor.
    times : when to look, ascending; infinity is allowed for the flow. For gradient descent each is moved to the nearest
        step. By default 0 and 25 log-spaced times up to the last of ``steps``, or to t = 20 / lambda_min(K_infinity).
    steps : number of steps of gradient descent; by default up to the last of ``times``.
    learning_rate : eta of gradient descent; by default 1 / lambda_max(K_infinity). A warning is given from
        2 / lambda_max on.
    tolerance : error of the outputs that a step of the flow may add, root mean square over training points, in units of
        the initial residual's; 1e-4 by default.
    keep_kernels : whether to return K_t, (S, T, n, n).

    Raises
    ------
    TypeError or ValueError naming any argument that does not fit.

    The notes' assumption 1.1 and section 1.7.
    """
    require_cpu(device)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    kind, seed_list = precision(dtype), seed_array(seeds)
    x = points("x", x)
    y = targets("y", y, len(x))
    tests = None if x_test is None else points("x_test", x_test, features=x.shape[1])
    rate: float | None = None
    if method == "gradient_flow":
        asked = _flow_times(network, x, times, steps, learning_rate)
        shown = network.learning_rate_scale * asked  # a flow that is n^(-c) as fast, seen as a plain one
    else:
        if tolerance is not None:
            raise ValueError("tolerance belongs to gradient_flow; gradient_descent has learning_rate and steps")
        rate, asked = _schedule(network, x, times, steps, learning_rate)
        # Step 0 is the reference of every drift, asked for or not.
        shown = np.concatenate([[0], asked])
    shown, where = np.unique(shown, return_inverse=True)  # equal times are computed once
    where = where[-len(asked) :]

    size, count, n = seed_list.size, shown.size, len(x)
    outputs = np.full((size, count, n), np.nan, kind)
    test_outputs = np.full((size, count, 0 if tests is None else len(tests)), np.nan, kind)
    kernels = np.full((size, count if keep_kernels else 0, n, n), np.nan, kind)
    loss, kernel_drift, parameter_drift = (np.full((size, count), np.nan) for _ in range(3))
    evaluations, status = np.zeros(size, np.int64), [""] * size
    net, inputs = compiled_network(network, x.shape[1]), columns_of(x, None, kind)
    test_inputs = None if tests is None else columns_of(tests, None, kind)
    rows = [
        Snapshots(*(a[s] for a in (outputs, test_outputs, loss, kernels, kernel_drift, parameter_drift))) for s in range(size)
    ]
    allowed = _tolerance(tolerance)

    def work(threads: int, first: int, end: int, step: int) -> None:
        for s in range(first, end, step):
            if rate is None:
                found = flow_seed(threads, seed_list[s], net, inputs, y, test_inputs, shown, allowed, rows[s])
            else:
                effective = network.learning_rate_scale * rate
                found = _descend(threads, seed_list[s], net, inputs, y, test_inputs, effective, shown, rows[s])
            status[s], evaluations[s] = found

    with one_blas_thread():
        spread(size, is_wide(network), work)
    return Trajectory(
        times=asked if rate is None else rate * asked,
        outputs=outputs[:, where],
        test_outputs=None if x_test is None else test_outputs[:, where],
        loss=loss[:, where],
        kernel_drift=kernel_drift[:, where],
        parameter_drift=parameter_drift[:, where],
        evaluations=evaluations,
        kernels=kernels[:, where] if keep_kernels else None,
        status=tuple(status),
        learning_rate=rate,
    )


def _descend(
    threads: int, seed: np.uint64, net: Net, x: Points, y: np.ndarray, x_test: Points | None, rate: float, steps: np.ndarray,
    rows: Snapshots,
) -> tuple[str, int]:  # fmt: skip
    """Gradient descent of one seed on some threads; returns its status and the number of passes."""
    columns, pairs = x
    room = make_room(net, columns, pairs, group_rows(threads, net), streamed=False, backward=True, kernel=True)
    test_columns, test_pairs = x if x_test is None else x_test
    tests = make_room(net, test_columns, test_pairs, group_rows(threads, net), streamed=False, backward=False, kernel=False)
    weights = stored_weights(net, aligned(parameter_offsets(net)[-1], columns.dtype))
    passes, stayed = descend(
        threads, seed, net, weights, room, without_kernel(room), pairs, tests, test_pairs, y, rate, steps,
        rows.outputs, rows.test_outputs, rows.loss, rows.kernels, rows.kernel_drift, rows.parameter_drift,
    )  # fmt: skip
    return "finished" if stayed else "diverged", passes


def _tolerance(tolerance: float | None) -> float:
    if tolerance is None:
        return 1e-4
    if not isinstance(tolerance, (int, float, np.floating)) or not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be a number between 0 and 1; got {tolerance!r}")
    return float(tolerance)


def _flow_times(
    network: Network, x: np.ndarray, times: Sequence[float] | None, steps: int | None, learning_rate: float | None
) -> np.ndarray:
    """When to look at a flow, ascending."""
    for name, value in (("steps", steps), ("learning_rate", learning_rate)):
        if value is not None:
            raise ValueError(f"{name} belongs to gradient_descent; gradient_flow has times and tolerance")
    if times is None:
        eigenvalues = _limit_rates(network, x)
        _check_regular(eigenvalues)
        return np.concatenate([[0.0], np.geomspace(1 / eigenvalues[-1], 20 / eigenvalues[0], SNAPSHOTS)])
    asked = np.asarray(times, dtype=np.float64)
    if asked.ndim != 1 or asked.size == 0 or np.isnan(asked).any() or (asked < 0).any():
        raise ValueError("times must be a non-empty 1-D sequence of numbers of at least 0 (infinity is allowed)")
    if not (asked[:-1] <= asked[1:]).all():
        raise ValueError("times must ascend")
    return asked


def _limit_rates(network: Network, x: np.ndarray) -> np.ndarray:
    """Ascending eigenvalues of n^(-c) K_infinity: rates in the units of learning rates and times as they are asked for."""
    return network.learning_rate_scale * np.linalg.eigvalsh(infinite_kernel(network, x).ntk)


def _check_regular(eigenvalues: np.ndarray) -> None:
    if eigenvalues[0] <= 1e-12 * eigenvalues[-1]:
        raise ValueError("the infinite-width kernel is singular (are points repeated?): give times or steps")


def _schedule(
    network: Network, x: np.ndarray, times: Sequence[float] | None, steps: int | None, learning_rate: float | None
) -> tuple[float, np.ndarray]:
    """Learning rate and the steps at which to look, ascending."""
    eigenvalues = _limit_rates(network, x)
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
        _check_regular(eigenvalues)
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
