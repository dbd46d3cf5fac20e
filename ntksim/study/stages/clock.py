"""Times and rates of a training job, from the units in which a configuration gives them.

t, rates and steps belong to the loss 1/2 sum r^2 over N residuals, of n training points with k outputs each. On the mean square
(1/N) sum r^2, which is 2/N times that loss, the same training has times and rates N/2 times as large. Relative ones are in units
of 1 / lambda_max(K_inf) of the half sum, whichever loss `rate_of` names. Training on another loss has t and rates of that loss,
and relative ones in units of 1 / (c lambda_max(K_inf)), where c bounds its second derivative in the outputs (`Loss.curvature`).
"""

from typing import Any, NamedTuple

import numpy as np

from ntksim.engine.loss import unit


class Clock(NamedTuple):
    """Times of training (T,), as t and relative to 1 / (c lambda_max(K_inf)), and the learning rate of gradient descent."""

    times: np.ndarray
    relative_times: np.ndarray
    learning_rate: float | None


def clock(schedule: Any, largest: float, residuals: int) -> Clock:
    """The clock of a schedule whose defaults are filled in; ``largest`` is c lambda_max(K_inf), ``residuals`` is N."""
    one = unit(schedule.rate_of, residuals)
    asked = None if schedule.snapshot_times is None else one * np.array(schedule.snapshot_times)
    if schedule.method == "gradient_descent":
        return _of_descent(schedule, largest, one, asked)
    if schedule.relative_time is not None:
        times = _flow_times(schedule.relative_time, 0.1, schedule.snapshots)
        return Clock(times / largest, times, None)
    end = one * schedule.time if schedule.time is not None else one * schedule.steps * schedule.learning_rate
    times = _flow_times(end, 0.1 / largest, schedule.snapshots)
    if asked is not None:
        times = np.concatenate([[0.0], asked[asked < end * (1 - 1e-12)], [end]])
    return Clock(times, times * largest, None)


def _of_descent(schedule: Any, largest: float, one: float, asked: np.ndarray | None) -> Clock:
    """Whole steps; in relative units where the rate is, so that its multiples are exact."""
    relative = schedule.learning_rate is None
    rate = schedule.relative_learning_rate if relative else one * schedule.learning_rate
    to_unit = largest if relative else 1.0  # from t to the unit of this rate
    if schedule.steps is not None:
        steps = schedule.steps
    elif schedule.relative_time is not None:
        steps = max(1, round(schedule.relative_time / (rate if relative else rate * largest)))
    else:
        steps = max(1, round(one * schedule.time * to_unit / rate))
    looks = _log_spaced(1, steps, schedule.snapshots) if asked is None else np.append(asked * to_unit / rate, steps)
    multiples = rate * np.concatenate([[0], np.unique(np.clip(np.round(looks), 1, steps))])
    if relative:
        return Clock(multiples / largest, multiples, rate / largest)
    return Clock(multiples, multiples * largest, rate)


def _flow_times(last: float, first: float, snapshots: int) -> np.ndarray:
    """0 and log-spaced times, from where the fastest mode begins to move."""
    return np.concatenate([[0], _log_spaced(min(first, last / 2), last, snapshots)])


def _log_spaced(first: float, last: float, number: int) -> np.ndarray:
    """``number`` values from ``first`` to ``last``; the last alone where it is one."""
    return np.append(np.geomspace(first, last, number)[:-1], last)
