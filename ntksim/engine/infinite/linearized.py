"""Gradient descent of a network linearised at initialisation: a constant kernel, and any loss."""

import numpy as np

from ntksim.engine.arguments import finite_array, positive_integer
from ntksim.engine.formulas.losses import value_and_gradient
from ntksim.engine.infinite.decay import StepRule
from ntksim.engine.loss import Loss, loss_and_targets


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
    starts, labels = (start.ravel(), tests), targets.reshape(n, k)
    f, f_test = descended(objective, (own, across), starts, labels, rule, np.arange(steps + 1))
    return (f, f_test) if start.ndim == 1 else (f.reshape(-1, n, k), f_test.reshape(steps + 1, -1, k))


def descended(
    loss: Loss,
    kernels: tuple[np.ndarray, np.ndarray],
    starts: tuple[np.ndarray, np.ndarray],
    targets: np.ndarray,
    rule: StepRule,
    looks: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (T, n k) and (T, n* k) after ``looks`` steps (T,), which ascend, of `linearized_descent`.

    ``kernels`` of training points, and of test with training points, are those of all outputs, (n k, n k) and (n* k, n k), or
    those of one, (n, n) and (n*, n), which act on each; ``starts`` are outputs (n k,) and (n* k,) at the beginning, ``targets``
    (n, k) those of the loss (`loss_and_targets`). Steps add up in the span of gradients: f = f_0 - eta K s.
    """
    (own, across), (start, tests) = kernels, starts
    velocity = summed = np.zeros((len(own), targets.size // len(own)))
    f = start
    found, found_tests, taken = np.empty((len(looks), start.size)), np.empty((len(looks), tests.size)), 0
    with np.errstate(over="ignore", invalid="ignore"):
        for at, look in enumerate(looks):
            for _ in range(int(look) - taken):
                gradient = value_and_gradient(loss, f.reshape(targets.shape), targets)[1].reshape(summed.shape)
                velocity = rule.momentum * velocity + gradient
                summed = summed + (gradient + rule.momentum * velocity if rule.nesterov else velocity)
                f = start - rule.rate * (own @ summed).ravel()
            found[at], found_tests[at], taken = f, tests - rule.rate * (across @ summed).ravel(), int(look)
    return found, found_tests


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
