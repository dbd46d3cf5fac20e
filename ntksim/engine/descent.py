"""Gradient descent theta <- theta - eta J' r, with momentum: from snapshot to snapshot in one compiled loop.

With g = J' r and v_0 = 0 a step is

    v <- mu v + g,    theta <- theta - eta v               heavy ball (Polyak 1964),
                      theta <- theta - eta (g + mu v)      Nesterov (1983), in the form of Bengio et al. (2013), where theta is
                                                           the point at which gradients are taken.

Along an eigenvector of a constant kernel, a = eta lambda, both are recursions of two terms,

    r_(k+1) = (1 + mu - a) r_k - mu r_(k-1)   and   r_(k+1) = (1 - a) ((1 + mu) r_k - mu r_(k-1)),

which are stable for a < 2 (1 + mu) and a < 2 (1 + mu) / (1 + 2 mu). Slow modes decay as under eta / (1 - mu).
"""

from dataclasses import dataclass

import numpy as np

from ntksim.engine.descent_cpu import advance
from ntksim.engine.layout import aligned, stored_weights, without_kernel
from ntksim.engine.snapshots import Snapshots, Watch


@dataclass(frozen=True)
class Descent:
    """How to descend: the ascending ``steps`` (T,) at which to look, the first of them 0; eta, mu and the kind of momentum."""

    steps: np.ndarray
    learning_rate: float
    momentum: float
    nesterov: bool


def stable_rate(momentum: float, nesterov: bool) -> float:
    """eta lambda at which descent ceases to be stable along an eigenvector of a constant kernel."""
    return 2 * (1 + momentum) / (1 + 2 * momentum if nesterov else 1)


def descend_seed(watch: Watch, descent: Descent, rows: Snapshots) -> str:
    """Train one seed and fill its rows; returns its status."""
    room, theta, velocity = watch.make_room(), _copy(watch.start), _copy(watch.start[:0])
    if descent.momentum:
        velocity = aligned(theta.size, theta.dtype)  # minus eta v, so that a step adds it
    lean = without_kernel(room)
    weights, moving = stored_weights(watch.net, theta), stored_weights(watch.net, velocity)
    for at, step in enumerate(descent.steps):
        state = watch.look(theta, room)
        if not np.isfinite(watch.loss(state)):
            return "diverged"
        watch.record(at, state, rows)
        if at + 1 == len(descent.steps):
            break
        count = int(descent.steps[at + 1] - step)
        done = advance(
            watch.threads, watch.seed, watch.net, weights, moving, lean, watch.pairs, watch.y,
            descent.learning_rate, descent.momentum, descent.nesterov, count,
        )  # fmt: skip
        watch.passes += min(done, count - 1)  # the first step goes from the snapshot's pass
        if done < count:
            return "diverged"
    return "finished"


def _copy(theta: np.ndarray) -> np.ndarray:
    copy = aligned(theta.size, theta.dtype)
    copy[:] = theta
    return copy
