"""Gradient descent of a network linearised at initialisation: a constant kernel, and any loss."""

import numpy as np

from ntksim.engine.arguments import finite_array, positive_integer
from ntksim.engine.formulas.losses import value_and_gradient
from ntksim.engine.infinite.decay import StepRule
from ntksim.engine.loss import loss_and_targets


def linearized_descent(
    kernel: np.ndarray,
    f0: np.ndarray,
    y: np.ndarray,
    steps: int,
    learning_rate: float,
    loss: str = "squared",
    momentum: float = 0.0,
    nesterov: bool = False,
    kernel_test: np.ndarray | None = None,
    f0_test: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs after 0, 1, ..., ``steps`` steps of full-batch descent with a constant kernel.

    f <- f - eta K g(f) with g = dL/df, on test points f* <- f* - eta K* g(f), and momentum as in `train`. It is the network
    linearised at theta_0 for K = K_0 and f_0 of one seed, and the limit of infinite width for K_infinity. With weight decay
    outputs alone do not say how the linearised network moves, so that there is none here.

    Parameters
    ----------
    kernel : (n, n), or (n, k, n, k) for k outputs; (n, n) stands for outputs that have it apart from each other.
    f0 : initial outputs (n,), or (n, k).
    y, loss : targets and loss, as in `train`.
    steps, learning_rate, momentum, nesterov : as in `train`; in `mup` and its like ``learning_rate`` takes the factor n^(-c).
    kernel_test, f0_test : (n*, n) or (n*, k, n, k), test with training points, and outputs (n*,) or (n*, k), 0 if left out.

    Returns
    -------
    Outputs on training points (steps + 1, n) and test points (steps + 1, n*), n* = 0 without any; for k outputs with a last axis
    of them. They are infinite or NaN where descent diverges.

    Raises
    ------
    TypeError or ValueError for shapes that do not fit, and arguments that `train` would refuse.
    """
    start = finite_array("f0", f0, None)
    if start.ndim not in (1, 2) or not start.size:
        raise ValueError(f"f0 must have shape (n,), or (n, k) for k outputs; got shape {start.shape}")
    n, k = len(start), 1 if start.ndim == 1 else start.shape[1]
    objective, targets = loss_and_targets(loss, np.ravel(y) if k == 1 else y, n, k)
    rule, steps = StepRule.checked(learning_rate, momentum, nesterov), positive_integer("steps", steps)
    own = _matrix("kernel", kernel, n, k)
    across = np.zeros((0, n * k)) if kernel_test is None else _matrix("kernel_test", kernel_test, n, k)
    tests = np.zeros(len(across)) if f0_test is None else finite_array("f0_test", f0_test, None).ravel()
    if tests.size != len(across):
        raise ValueError(f"f0_test must have {len(across)} outputs, those of kernel_test's rows; got {tests.size}")
    joint, f, velocity = np.concatenate([own, across]), np.concatenate([start.ravel(), tests]), 0.0
    found = np.empty((steps + 1, f.size))
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(steps + 1):
            found[step] = f
            gradient = value_and_gradient(objective, f[: n * k].reshape(n, k), targets.reshape(n, k))[1]
            pulled = joint @ gradient.ravel()
            velocity = rule.momentum * velocity + pulled
            f = f - rule.rate * (pulled + rule.momentum * velocity if rule.nesterov else velocity)
    parts = found[:, : n * k], found[:, n * k :]
    return parts if start.ndim == 1 else (parts[0].reshape(-1, n, k), parts[1].reshape(steps + 1, -1, k))


def _matrix(name: str, kernel: object, n: int, k: int) -> np.ndarray:
    """A kernel of all outputs as a matrix of n k columns."""
    array = finite_array(name, kernel, None)
    rows = len(array) if array.ndim else 0
    if array.shape == (rows, n):
        array = np.einsum("ij,ab->iajb", array, np.eye(k))
    elif array.shape != (rows, k, n, k):
        raise ValueError(
            f"{name} must have {n} columns, one per training point, or shape (rows, {k}, {n}, {k}); got shape {array.shape}"
        )
    if name == "kernel" and rows != n:
        raise ValueError(f"kernel must have {n} rows, one per training point; got {rows}")
    return array.reshape(rows * k, n * k)
