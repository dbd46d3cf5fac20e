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

from ntksim.engine.batches import batches
from ntksim.engine.layout import Pairs, Room
from ntksim.engine.snapshots import Snapshots, Watch

_INDICES = 1 << 16  # points of batches that are chosen at a time


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


def descend_seed(watch: Watch, descent: Descent, rows: Snapshots) -> str:
    """Train one seed and fill its rows; returns its status."""
    room, theta, velocity = watch.make_room(), watch.copy(watch.start), watch.velocity(descent.momentum)
    small, pairs = watch.room_of_steps(room, descent.batch_size)
    for at, step in enumerate(descent.steps):
        state = watch.look(theta, room)
        if not np.isfinite(watch.loss(state)):
            return "diverged"
        watch.record(at, state, rows)
        if at + 1 < len(descent.steps) and not _advance(
            watch, descent, theta, velocity, small, pairs, int(step), int(descent.steps[at + 1])
        ):
            return "diverged"
    return "finished"


def _advance(
    watch: Watch, descent: Descent, theta: np.ndarray, velocity: np.ndarray, room: Room, pairs: Pairs, first: int, end: int
) -> bool:
    """Take steps ``first`` .. ``end`` from where the network has just been looked at; whether its outputs stayed finite."""
    order, size = np.empty((0, 0), np.int64), descent.batch_size
    most = end - first if size is None else max(1, _INDICES // size)
    for begin in range(first, end, most):
        count = min(most, end - begin)
        if size is not None:
            order = batches(watch.seed, begin, count, len(watch.y), size)
        done = watch.advance(
            theta, velocity, room, pairs, order, count, descent.learning_rate, descent.momentum, descent.nesterov
        )
        # A full step goes from a pass that has been made: that of the look, if it is the first.
        watch.passes += min(done, count - 1) if size is None else min(done + 1, count)
        if done < count:
            return False
    return True
