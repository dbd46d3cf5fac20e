"""Gradient descent with momentum: from snapshot to snapshot in one compiled loop.

With g = J' dL/df + lambda theta, which is J' r for the squared loss without weight decay lambda, and v_0 = 0 a step is

    v <- mu v + g,    theta <- theta - eta v               heavy ball (Polyak 1964),
                      theta <- theta - eta (g + mu v)      Nesterov (1983), in the form of Bengio et al. (2013), where theta is
                                                           the point at which gradients are taken.

Under the squared loss, along an eigenvector of a constant kernel, a = eta lambda, both are recursions of two terms,

    r_(k+1) = (1 + mu - a) r_k - mu r_(k-1)   and   r_(k+1) = (1 - a) ((1 + mu) r_k - mu r_(k-1)),

which are stable for a < 2 (1 + mu) and a < 2 (1 + mu) / (1 + 2 mu). Slow modes decay as under eta / (1 - mu).

With batches B of b points the loss is n / b times their part of it, whose mean over the batches is the full loss.
"""

from dataclasses import dataclass

import numpy as np

from ntksim.engine.infinite.decay import StepRule
from ntksim.engine.loss import Loss
from ntksim.engine.machine import Room, Step, Theta
from ntksim.engine.threads import check
from ntksim.engine.training.batches import batches
from ntksim.engine.training.checkpoints import SeedCheckpoint
from ntksim.engine.training.watch import Watch

_INDICES = 1 << 16  # points of batches that are chosen at a time
_WORK = 1 << 33  # multiply-adds of a forward pass that are done at a time
_STEP = 1 << 13  # multiply-adds that a step of the smallest network takes the time of


@dataclass(frozen=True)
class Descent:
    """How to descend.

    ``steps`` (T,) are those at which to look, ascending, the first of them 0; ``batch_size`` is None for all points at once.
    ``weight_decay`` is lambda.
    """

    steps: np.ndarray
    rule: StepRule
    batch_size: int | None
    weight_decay: float = 0.0


def descend_seed(watch: Watch, descent: Descent, checkpoint: SeedCheckpoint) -> str:
    """Train one seed, from its checkpoint on if there is one, and fill its rows; returns its status."""
    machine = watch.machine
    room, theta, velocity = machine.make_room(), machine.copy(watch.start), machine.zeros() if descent.rule.momentum else None
    small = machine.make_descent_room(room, descent.batch_size)
    most, step, at = _steps_at_a_time(watch, descent), 0, 0  # snapshots before number ``at`` are taken
    if (kept := checkpoint.resume()) is not None:
        watch.look(theta, room)  # at initialisation, which drifts refer to
        theta, velocity = machine.unpack(kept["theta"]), machine.unpack(kept["velocity"]) if "velocity" in kept else None
        step, at, watch.passes = int(kept["step"]), int(kept["at"]), int(kept["passes"])
    while True:
        looked = step == descent.steps[at]
        if looked:
            state = watch.look(theta, room)
            if not np.isfinite(watch.loss(state)):
                return "diverged"
            watch.record(at, step * descent.rule.rate, state, checkpoint.rows)
            checkpoint.rows.time_reached[...] = step * descent.rule.rate
            at += 1
            if at == len(descent.steps):
                return "finished"
        check()
        count = min(most, int(descent.steps[at]) - step)
        if not _advance(watch, descent, theta, velocity, small, range(step, step + count), looked):
            return "diverged"
        step += count
        checkpoint.reach(step / int(descent.steps[-1]), descent.rule.rate * step)
        if checkpoint.is_due() and (packed := machine.pack(theta)) is not None:
            moving = {} if velocity is None else {"velocity": machine.pack(velocity)}
            checkpoint.keep(theta=packed, **moving, step=step, at=at, passes=watch.passes)


def _steps_at_a_time(watch: Watch, descent: Descent) -> int:
    """Steps between two chances to write a checkpoint: so many that they cost next to nothing, and take about a second."""
    points = watch.machine.points if descent.batch_size is None else descent.batch_size
    longest = _INDICES // points if descent.batch_size is not None else _WORK
    return max(1, min(longest, _WORK // (watch.machine.numbers * points + _STEP)))


def _step(descent: Descent, loss: Loss) -> Step:
    """A step with w = -eta v: theta <- theta - before w, w <- mu w - eta g, theta <- theta + after w.

    Nesterov's -eta (g + mu v) is (1 + mu) w less mu times the w before: one pull-back, into w, serves both kinds.
    """
    rate, mu = float(descent.rule.rate), float(descent.rule.momentum)
    before, after = (mu, 1 + mu) if descent.rule.nesterov else (0.0, 1.0)
    return Step(loss.factor * rate, mu, before, after, rate * descent.weight_decay, loss.kind)


def _advance(
    watch: Watch, descent: Descent, theta: Theta, velocity: Theta | None, room: Room, steps: range, looked: bool
) -> bool:
    """Take the ``steps``, by their numbers; whether outputs stayed finite.

    ``looked`` says that the network has just been looked at, so that a full step can go from there.
    """
    machine, size, count = watch.machine, descent.batch_size, len(steps)
    order = None if size is None else batches(machine.seed, steps.start, count, machine.points, size)
    ready = looked and size is None
    done = machine.descend(theta, velocity, room, watch.y, order, _step(descent, watch.loss_kind), count, ready)
    watch.passes += min(done + 1, count) - ready
    return done == count
