"""Gradient descent theta <- theta - eta J' r, with momentum: from snapshot to snapshot in one compiled loop.

With g = J' r and v_0 = 0 a step is

    v <- mu v + g,    theta <- theta - eta v               heavy ball (Polyak 1964),
                      theta <- theta - eta (g + mu v)      Nesterov (1983), in the form of Bengio et al. (2013), where theta is
                                                           the point at which gradients are taken.

Along an eigenvector of a constant kernel, a = eta lambda, both are recursions of two terms,

    r_(k+1) = (1 + mu - a) r_k - mu r_(k-1)   and   r_(k+1) = (1 - a) ((1 + mu) r_k - mu r_(k-1)),

which are stable for a < 2 (1 + mu) and a < 2 (1 + mu) / (1 + 2 mu). Slow modes decay as under eta / (1 - mu).

With batches B of b points, g = (n / b) J_B' r_B, whose mean over the batches is the full gradient.
"""

from dataclasses import dataclass

import numpy as np

from ntksim.engine.layout import Pairs, Room
from ntksim.engine.training.batches import batches
from ntksim.engine.training.checkpoints import SeedCheckpoint
from ntksim.engine.training.watch import Watch

_INDICES = 1 << 16  # points of batches that are chosen at a time
_WORK = 1 << 33  # multiply-adds of a forward pass that are done at a time


@dataclass(frozen=True)
class Descent:
    """How to descend.

    ``steps`` (T,) are those at which to look, ascending, the first of them 0; ``batch_size`` is None for all points at once.
    """

    steps: np.ndarray
    learning_rate: float
    momentum: float
    nesterov: bool
    batch_size: int | None


def descend_seed(watch: Watch, descent: Descent, checkpoint: SeedCheckpoint) -> str:
    """Train one seed, from its checkpoint on if there is one, and fill its rows; returns its status."""
    room, theta, velocity = watch.make_room(), watch.copy(watch.start), watch.velocity(descent.momentum)
    small, pairs = watch.make_descent_room(room, descent.batch_size)
    most, step, at = _steps_at_a_time(watch, descent), 0, 0  # snapshots before number ``at`` are taken
    if (kept := checkpoint.resume()) is not None:
        watch.look(theta, room)  # at initialisation, which drifts refer to
        theta, velocity = watch.copy(kept["theta"]), watch.copy(kept["velocity"])
        step, at, watch.passes = int(kept["step"]), int(kept["at"]), int(kept["passes"])
    while True:
        looked = step == descent.steps[at]
        if looked:
            state = watch.look(theta, room)
            if not np.isfinite(watch.loss(state)):
                return "diverged"
            watch.record(at, step * descent.learning_rate, state, checkpoint.rows)
            checkpoint.rows.time_reached[...] = step * descent.learning_rate
            at += 1
            if at == len(descent.steps):
                return "finished"
        count = min(most, int(descent.steps[at]) - step)
        if not _advance(watch, descent, theta, velocity, small, pairs, step, count, looked):
            return "diverged"
        step += count
        checkpoint.keep(theta=theta, velocity=velocity, step=step, at=at, passes=watch.passes)


def _steps_at_a_time(watch: Watch, descent: Descent) -> int:
    """Steps between two chances to write a checkpoint: so many that they cost next to nothing, and take about a second."""
    points = len(watch.targets) if descent.batch_size is None else descent.batch_size
    longest = _INDICES // points if descent.batch_size is not None else _WORK
    return max(1, min(longest, _WORK // (watch.start.size * points)))


def _momentum_factors(descent: Descent) -> tuple[float, float, float]:
    """mu, ``before`` and ``after`` in theta <- theta - before w, w <- mu w - eta g, theta <- theta + after w, with w = -eta v.

    Nesterov's -eta (g + mu v) is (1 + mu) w less mu times the w before: one pull-back, into w, serves both kinds.
    """
    mu = descent.momentum
    return (mu, mu, 1 + mu) if descent.nesterov else (mu, 0.0, 1.0)


def _advance(
    watch: Watch,
    descent: Descent,
    theta: np.ndarray,
    velocity: np.ndarray,
    room: Room,
    pairs: Pairs,
    first: int,
    count: int,
    looked: bool,
) -> bool:
    """Take ``count`` steps from number ``first`` on; whether outputs stayed finite.

    ``looked`` says that the network has just been looked at, so that a full step can go from there.
    """
    order, size = np.empty((0, 0), np.int64), descent.batch_size
    if size is not None:
        order = batches(watch.seed, first, count, len(watch.targets), size)
    ready = looked and size is None
    done = watch.advance(theta, velocity, room, pairs, order, count, ready, descent.learning_rate, *_momentum_factors(descent))
    watch.passes += min(done + 1, count) - ready
    return bool(done == count)
