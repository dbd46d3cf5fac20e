"""Gradient descent of a network linearised at initialisation: a constant kernel, any loss, and weight decay.

The linearised network is f_0 + J_0 (theta - theta_0). Gradients move theta in the span of J_0', and weight decay along theta
itself, so that theta - theta_0 = (s - 1) theta_0 + J_0' a for a number s and a vector a over training points. Outputs are then

    f = f_0 + (s - 1) J_0 theta_0 + K_0 a,    and on test points alike with K_0*.

Both s and a descend by the same rule: the gradient is lambda s along theta_0, and dL/df + lambda a along J_0'.
"""

import math

import numpy as np

from ntksim.engine.arguments import decay_number, finite_array, positive_integer
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
    weight_decay: float = 0.0,
    radial: np.ndarray | None = None,
    radial_test: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs after 0, 1, ..., ``steps`` steps of full-batch descent with a constant kernel.

    f <- f - eta K g(f) with g = dL/df, on test points f* <- f* - eta K* g(f), and momentum as in `train`. It is the network
    linearised at theta_0 for K = K_0 and f_0 of one seed, and the limit of infinite width for K_infinity. With weight decay it
    descends on the loss plus lambda/2 ||theta||^2, and J_0 theta_0 says how outputs move along theta:

        f = f_0 + (s - 1) J_0 theta_0 + K a,  a <- a - eta (g(f) + lambda a),  s <- s - eta lambda s,  from a = 0 and s = 1,

    with momentum for s and a alike. A network follows it to first order in 1 - s at best, however wide it is: decay moves kernels
    too.

    Parameters
    ----------
    kernel : (n, n), or (n, k, n, k) for k outputs; (n, n) stands for outputs that have it apart from each other.
    f0 : initial outputs (n,), or (n, k).
    y, loss : targets and loss, as in `train`.
    steps, learning_rate, momentum, nesterov : as in `train`; in `mup` and its like ``learning_rate`` takes the factor n^(-c).
    weight_decay : lambda, as in `train`. With layer rates that are r or 0 it takes the factor r, as the kernel does.
    kernel_test, f0_test : (n*, n) or (n*, k, n, k), test with training points, and outputs (n*,) or (n*, k), 0 if left out.
    radial, radial_test : J_0 theta_0 on training points, (n,) or (n, k), and on test points, (n*,) or (n*, k), as
        `radial_derivative` has them, of the layers that train; needed for weight decay alone.

    Returns
    -------
    Outputs on training points (steps + 1, n) and test points (steps + 1, n*), n* = 0 without any; for k outputs with a last axis
    of them. They are infinite or NaN where descent diverges.

    Raises
    ------
    TypeError or ValueError for shapes that do not fit, arguments that `train` would refuse, and weight decay without ``radial``.
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
    decay = decay_number(weight_decay)
    shapes = start.shape, (len(across) // k, *start.shape[1:])
    along = _radial("radial", radial, shapes[0], decay, "x"), _radial("radial_test", radial_test, shapes[1], decay, "x_test")
    starts, labels = (start.ravel(), tests), targets.reshape(n, k)
    f, f_test = descended(objective, (own, across), starts, labels, rule, np.arange(steps + 1), decay, along)
    return (f, f_test) if start.ndim == 1 else (f.reshape(-1, n, k), f_test.reshape(steps + 1, -1, k))


def descended(
    loss: Loss,
    kernels: tuple[np.ndarray, np.ndarray],
    starts: tuple[np.ndarray, np.ndarray],
    targets: np.ndarray,
    rule: StepRule,
    looks: np.ndarray,
    decay: float = 0.0,
    radial: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (T, n k) and (T, n* k) after ``looks`` steps (T,), which ascend, of `linearized_descent`.

    ``kernels`` of training points, and of test with training points, are those of all outputs, (n k, n k) and (n* k, n k), or
    those of one, (n, n) and (n*, n), which act on each; ``starts`` are outputs (n k,) and (n* k,) at the beginning, ``targets``
    (n, k) those of the loss (`loss_and_targets`). ``radial`` are J_0 theta_0 (n k,) and (n* k,), which ``decay`` needs.

    Steps add up: a = -eta ``summed`` and s = 1 - eta ``lost``.
    """
    (own, across), (start, tests), (along, tests_along) = kernels, starts, radial or (np.zeros(1), np.zeros(1))
    velocity = summed = np.zeros((len(own), targets.size // len(own)))
    pull = lost = np.zeros(1)
    shrinkage, f = rule.rate * decay, start
    found, found_tests, taken = np.empty((len(looks), start.size)), np.empty((len(looks), tests.size)), 0
    with np.errstate(over="ignore", invalid="ignore"):
        for at, look in enumerate(looks):
            for _ in range(int(look) - taken):
                gradient = value_and_gradient(loss, f.reshape(targets.shape), targets)[1].reshape(summed.shape)
                if decay:
                    gradient = gradient - shrinkage * summed
                    pull, lost = _stepped(rule, pull, lost, decay - shrinkage * lost)
                velocity, summed = _stepped(rule, velocity, summed, gradient)
                f = start - rule.rate * ((own @ summed).ravel() + lost * along)
            found[at], taken = f, int(look)
            found_tests[at] = tests - rule.rate * ((across @ summed).ravel() + lost * tests_along)
    return found, found_tests


def _stepped(rule: StepRule, velocity: np.ndarray, summed: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Velocity, and the sum of all steps over -eta, after one step more."""
    velocity = rule.momentum * velocity + gradient
    return velocity, summed + (gradient + rule.momentum * velocity if rule.nesterov else velocity)


def _radial(name: str, value: object, shape: tuple[int, ...], decay: float, where: str) -> np.ndarray:
    """J_0 theta_0 of outputs of a shape, flat; zeros where there is no decay, or are no points."""
    if value is not None:
        array = finite_array(name, value, None)
        if array.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, that of the outputs; got shape {array.shape}")
        return array.ravel()
    if decay and 0 not in shape:
        raise ValueError(
            f"weight_decay needs {name}, J_0 theta_0, without which outputs do not say how the network moves: give "
            f"{name}=ntksim.radial_derivative(network, {where}, seeds=[seed])[0]"
        )
    return np.zeros(math.prod(shape))


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
