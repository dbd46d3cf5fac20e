"""How many passes over the training points a network takes in training, as far as the configuration tells."""

import math

from ntksim.engine.activation import is_smooth
from ntksim.engine.loss import curvature, unit
from ntksim.study.config.network import RICH
from ntksim.study.config.study import Study

_MAX_STEPS, _PASSES_PER_STEP = 5000, 3.0  # of gradient flow: `flow.MAX_STEPS`
_TRACE = 5.0  # of a kernel, as it is guessed, over its largest eigenvalue


def passes_of_training(study: Study, network: str, width: int, features: int) -> float:
    """Over the training points: of a flow those of snapshots too, of descent its steps."""
    assert study.training is not None
    schedule = study.training.filled
    if schedule.method == "gradient_descent":
        return schedule.known_steps or max(1.0, _relative_time(study, network) / _relative_rate(study, network))
    most = _PASSES_PER_STEP * (schedule.max_steps or _MAX_STEPS)
    return min(most, 5.0 + snapshots(study) + passes_of_flow(study, network, width, features))


def passes_of_flow(study: Study, network: str, width: int, features: int) -> float:
    """Passes of gradient flow but for those of snapshots: fitted to the default study, whose kernel moves as 1 / sqrt(width).

    They follow the kernel's change, and every kink of a ReLU costs a step. Beyond a time of 100 modes of ever smaller
    eigenvalues move, and gates with them, until the smallest have decayed: the condition number of a ReLU's kernel on n points
    in d dimensions is about n^(d/(d-1)), and movement ends some time after; that of smooth ones is larger. The powers were
    fitted to some twenty runs, of widths 100 to 2,048 and times to 10^6, and are mostly right to a factor of 2. Neither targets
    nor noise are in here: easy targets on the circle, which flip few gates, take up to 4 times fewer from t = 10^4 on.
    """
    assert study.training is not None
    schedule, options = study.training.filled, study.networks[network]
    kinks = 260.0 if is_smooth(options.function) else 2800.0
    moves = 1.0 if options.parameterization in RICH else width**-0.5
    to_100 = (10 + kinks * moves) * (1e-4 / schedule.tolerance) ** (1 / 3)
    time = _relative_time(study, network)
    growth = _growth(time, study.dataset.train, features)
    return to_100 * (max(growth, (time / 100) ** 0.2) if is_smooth(options.function) else growth)


def _growth(time: float, points: int, features: int) -> float:
    """How passes grow with the time, as a factor on those to t = 100."""
    if time <= 100:
        return (time / 100) ** 0.2
    last = points ** ((features + 0.5) / (features - 1)) if features > 1 else math.inf
    return max(1.0, min(time, last) / 100) ** 0.45


def _relative_time(study: Study, network: str) -> float:
    """The end of training in units of 1 / lambda_max(K_inf)."""
    assert study.training is not None
    schedule = study.training.filled
    if schedule.relative_time is not None:
        return float(schedule.relative_time)
    if schedule.time is not None:
        return float(schedule.time * _relative_unit(study, network))
    return float(schedule.steps * _relative_rate(study, network))


def _relative_rate(study: Study, network: str) -> float:
    """The learning rate in the same units."""
    assert study.training is not None
    schedule = study.training.filled
    if schedule.learning_rate is None:
        return float(schedule.relative_learning_rate)
    return float(schedule.learning_rate * _relative_unit(study, network))


def _relative_unit(study: Study, network: str) -> float:
    """A unit of time as the configuration gives it, times lambda_max(K_inf) and the loss's curvature. For the former there is a
    guess: a share of the trace of a kernel to whose entries each layer adds one (measured: 0.07 to 0.3).
    """
    assert study.training is not None
    options, n = study.networks[network], study.dataset.train
    one = unit(study.training.rate_of, n * study.dataset.outputs)
    one *= curvature(study.training.loss, n, study.dataset.outputs)
    return one * n * (options.depth + 1) * options.output_scale**2 / _TRACE


def snapshots(study: Study) -> int:
    """Looks along training, beside that at its start."""
    return study.training.looks if study.training else 0
