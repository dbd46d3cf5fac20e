"""When to look at training, and how to train: checks and defaults of the arguments of `training.train`.

Rates in the defaults are eigenvalues of n^(-c) K_infinity, in the units in which learning rates and times are asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ntksim.engine.arguments import momentum_options, numeric, positive_number, warn
from ntksim.engine.infinite.decay import StepRule, stable_rate
from ntksim.engine.infinite.kernel import infinite_kernel, kernel_error
from ntksim.engine.initialisers import NORMAL, without_limit
from ntksim.engine.loss import SQUARED, SQUARED_LOSS, Loss
from ntksim.engine.network import Network, RatedNetwork
from ntksim.engine.rounding import null_level
from ntksim.engine.training.descent import Descent
from ntksim.engine.training.flow import MAX_STEPS, Flow

_MOST_STEPS = 2**53  # beyond, floats are no step numbers
SNAPSHOTS = 25  # of a run whose times are not given, beside t = 0


@dataclass(frozen=True)
class Options:
    """The arguments of `train` that say when to look and how to train, as they were given."""

    times: Sequence[float] | None
    steps: int | None
    learning_rate: float | None
    momentum: float
    nesterov: bool
    batch_size: int | None
    tolerance: float | None
    max_steps: int | None
    loss: Loss
    weight_decay: float


@dataclass(frozen=True)
class Schedule:
    """A plan, the times (T,) asked for, and where each stands among the plan's own; the learning rate before n^(-c), if any."""

    plan: Flow | Descent
    times: np.ndarray
    where: np.ndarray
    learning_rate: float | None

    @property
    def looks(self) -> int:
        """How often the plan looks at a network."""
        return (self.plan.times if isinstance(self.plan, Flow) else self.plan.steps).size


def flow_schedule(network: Network, x: np.ndarray, options: Options) -> Schedule:
    """A flow, whose own times are those of theta' = -grad L."""
    if options.loss != SQUARED_LOSS or options.weight_decay:
        what = f"loss={options.loss.name!r}" if options.loss != SQUARED_LOSS else "weight_decay"
        raise ValueError(f"{what} belongs to gradient_descent: gradient_flow follows the loss 'squared' alone; set method")
    for name in ("steps", "learning_rate", "momentum", "nesterov", "batch_size"):
        if getattr(options, name) is not None and np.any(getattr(options, name) != 0):
            raise ValueError(f"{name} belongs to gradient_descent; gradient_flow has times, tolerance and max_steps")
    asked = _flow_times(network, x, options.times)
    shown, where = np.unique(network.learning_rate_scale * asked, return_inverse=True)
    return Schedule(Flow(shown, _tolerance(options.tolerance), _most_steps(options.max_steps)), asked, where, None)


def descent_schedule(network: Network, x: np.ndarray, options: Options) -> Schedule:
    """A descent, whose own times are numbers of steps."""
    if options.tolerance is not None:
        raise ValueError("tolerance belongs to gradient_flow; gradient_descent has learning_rate and steps")
    if options.max_steps is not None:
        raise ValueError("max_steps belongs to gradient_flow; gradient_descent has steps")
    momentum, nesterov = momentum_options(options.momentum, options.nesterov)
    batch_size = _batch_size(options.batch_size, len(x))
    given = options.learning_rate is not None and (options.times is not None or options.steps is not None)
    values = np.zeros(0)  # eigenvalues of the limit, if there is one or need be
    if not given or (network.law == NORMAL and options.loss.kind == SQUARED):
        try:
            kernel = _limit_kernel(network, x, "learning_rate and times or steps")
            values = np.linalg.eigvalsh(kernel)
        except ValueError:  # a limit that cannot be computed: what is given needs it for no more than a warning
            if not given:
                raise
    # Curvatures in the space of parameters: the loss's own times the kernel's eigenvalues, and weight decay.
    bend, decay = options.loss.curvature, _decay_of(network, options.weight_decay)
    top = float(values[-1]) if values.size else 0.0
    # Where the loss bends less than its bound, as far from its minimum, descent may be stable beyond.
    sharpest = bend * top + decay if options.loss.kind == SQUARED else decay
    what = "lambda_max(K_infinity)" if sharpest == top else "the largest curvature, of loss and weight decay,"
    rate = _learning_rate(options.learning_rate, sharpest, stable_rate(momentum, nesterov), what)
    if rate is None and not top > 0:
        raise ValueError("the infinite-width kernel is zero (are all inputs zero?): nothing would train")
    if rate is None:
        largest = top if batch_size is None else _stiffest_batch(kernel, top, batch_size)
        rate = 1 / float(bend * largest + decay)
    steps = options.steps
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1):
        raise ValueError(f"steps must be an integer of at least 1; got {steps!r}")
    if options.times is not None:
        asked = _steps_of(numeric("times", options.times), rate, steps)
    else:
        if steps is None:
            if options.loss.kind != SQUARED:
                raise ValueError(f"loss={options.loss.name!r} has no time at which it has converged: give steps or times")
            _check_regular(network, values)
            # Modes that momentum makes oscillate decay by sqrt(mu) a step, however large their eigenvalues are.
            slowest = 40 / (1 - momentum) if momentum else 0
            steps = int(np.ceil(max(20 / (bend * values[0]) / rate, slowest)))
        log_spaced = np.unique(np.round(np.geomspace(1, steps, min(SNAPSHOTS, steps))).astype(np.int64))
        asked = np.concatenate([[0], log_spaced])
    # Step 0 is the reference of every drift, asked for or not.
    shown, where = np.unique(np.concatenate([[0], asked]), return_inverse=True)
    rule = StepRule(network.learning_rate_scale * rate, momentum, nesterov)
    return Schedule(Descent(shown, rule, batch_size, options.weight_decay), rate * asked, where[1:], rate)


def _decay_of(network: Network, weight_decay: float) -> float:
    """The largest rate at which weight decay moves parameters, in the units of learning rates."""
    rates = network.layer_rates if isinstance(network, RatedNetwork) else (1.0,)
    return network.learning_rate_scale * weight_decay * max(rates)


def _tolerance(tolerance: float | None) -> float:
    if tolerance is None:
        return 1e-4
    if not isinstance(tolerance, (int, float, np.floating)) or not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be a number between 0 and 1; got {tolerance!r}")
    return float(tolerance)


def _most_steps(max_steps: int | None) -> int:
    if max_steps is None:
        return MAX_STEPS
    if isinstance(max_steps, bool) or not isinstance(max_steps, (int, np.integer)) or max_steps < 1:
        raise ValueError(f"max_steps must be an integer of at least 1; got {max_steps!r}")
    return int(max_steps)


def _flow_times(network: Network, x: np.ndarray, times: Sequence[float] | None) -> np.ndarray:
    """When to look at a flow, ascending."""
    if times is None:
        eigenvalues = np.linalg.eigvalsh(_limit_kernel(network, x, "times"))
        _check_regular(network, eigenvalues)
        return np.concatenate([[0.0], np.geomspace(1 / eigenvalues[-1], 20 / eigenvalues[0], SNAPSHOTS)])
    asked = numeric("times", times)
    if asked.ndim != 1 or asked.size == 0 or np.isnan(asked).any() or (asked < 0).any():
        raise ValueError("times must be a non-empty 1-D sequence of numbers of at least 0 (infinity is allowed)")
    if not (asked[:-1] <= asked[1:]).all():
        raise ValueError("times must ascend")
    return asked


def _limit_kernel(network: Network, x: np.ndarray, arguments: str) -> np.ndarray:
    """n^(-c) K_infinity, for defaults of ``arguments``."""
    if network.law != NORMAL:
        raise ValueError(f"{without_limit(network.initialiser)}; give {arguments}, whose defaults come from the limit")
    return network.effective(infinite_kernel(network, x).ntk)


def _stiffest_batch(kernel: np.ndarray, largest: float, size: int) -> float:
    """A bound on (n / size) lambda_max(K_BB) over batches B of ``size`` points: K_BB is part of K, and at most its trace."""
    return min(len(kernel) / size * largest, len(kernel) * float(np.max(np.diagonal(kernel))))


def _check_regular(network: Network, eigenvalues: np.ndarray) -> None:
    if eigenvalues[0] <= max(1e-12 * eigenvalues[-1], null_level(eigenvalues, kernel_error(network))[0]):
        raise ValueError("the infinite-width kernel is singular (are points repeated?): give times or steps")


def _batch_size(batch_size: int | None, points: int) -> int | None:
    if batch_size is None:
        return None
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or not 1 <= batch_size <= points:
        raise ValueError(
            f"batch_size must be an integer from 1 to the number of points, {points}, or None for all at once; got {batch_size!r}"
        )
    return int(batch_size)


def _learning_rate(learning_rate: float | None, largest: float, stable: float, what: str) -> float | None:
    """The learning rate as given; a warning where even a constant kernel makes its mean over batches diverge."""
    if learning_rate is None:
        return None
    learning_rate = positive_number("learning_rate", learning_rate)
    if largest > 0 and learning_rate >= stable / largest:
        warn(
            f"learning_rate {learning_rate:.4g} is at or above {stable:.4g} / {what} = {stable / largest:.4g}: "
            "gradient descent is expected to diverge; lower it",
            RuntimeWarning,
        )
    return learning_rate


def _steps_of(times: np.ndarray, learning_rate: float, steps: int | None) -> np.ndarray:
    if times.ndim != 1 or times.size == 0 or not np.isfinite(times).all() or (times < 0).any():
        raise ValueError("times must be a non-empty 1-D sequence of finite numbers of at least 0 for gradient descent")
    if (np.diff(times) < 0).any():
        raise ValueError("times must ascend")
    exact = np.round(times / learning_rate)
    if exact[-1] > _MOST_STEPS:
        raise ValueError(f"times go up to step {exact[-1]:.3g} (time / learning_rate): raise learning_rate or end sooner")
    shown = exact.astype(np.int64)
    if steps is not None and shown[-1] > steps:
        raise ValueError(f"times go up to step {shown[-1]} (time / learning_rate), beyond steps={steps}")
    return shown
