"""Losses of training by name.

A loss is a number times one of three sums over points i and outputs a, of outputs f and targets y:

    SQUARED    1/2 sum (f_ia - y_ia)^2
    LOGISTIC   sum log(1 + exp(-y_ia f_ia)),  y = 1 or -1
    SOFTMAX    -sum_i sum_a y_ia log p_ia,    p_i = softmax(f_i), y_i the probabilities of the classes

`formulas.losses` computes them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ntksim.engine.arguments import targets

SQUARED, LOGISTIC, SOFTMAX = 0, 1, 2
_CURVATURES = 1.0, 0.25, 0.5  # the most that each sum bends: bounds on the eigenvalues of its Hessian with respect to f


class Loss(NamedTuple):
    """A loss by name: a ``factor`` times the sum of a ``kind``."""

    name: str
    kind: int
    factor: float

    @property
    def curvature(self) -> float:
        """A bound on the eigenvalues of the Hessian with respect to the outputs; exact for squared losses."""
        return self.factor * _CURVATURES[self.kind]


_SUM = 1e-9  # of probabilities, off 1
SQUARED_LOSS = Loss("squared", SQUARED, 1.0)
# The kind, and the factor for n points and k outputs: what frameworks divide by.
LOSSES: dict[str, tuple[int, Callable[[int, int], float]]] = {
    "squared": (SQUARED, lambda n, k: 1.0),
    "mean_squared": (SQUARED, lambda n, k: 2 / (n * k)),
    "half_mean_squared": (SQUARED, lambda n, k: 1 / n),
    "logistic": (LOGISTIC, lambda n, k: 1.0),
    "mean_logistic": (LOGISTIC, lambda n, k: 1 / (n * k)),
    "softmax_cross_entropy": (SOFTMAX, lambda n, k: 1.0),
    "mean_softmax_cross_entropy": (SOFTMAX, lambda n, k: 1 / n),
}


def is_squared(name: str) -> bool:
    """Whether the loss of a name is a multiple of the squared one, under which the residual f - y drives training."""
    return LOSSES[name][0] == SQUARED


def time_on_squares(name: str, points: int, outputs: int) -> float:
    """What a unit of time on the loss of a name is on the squared loss; NaN for losses of classes."""
    return LOSSES[name][1](points, outputs) if is_squared(name) else np.nan


def unit(rate_of: str, residuals: Any) -> Any:
    """What one unit of time or learning rate on a loss, of N residuals (a number, or a column), is on the half sum."""
    return 1.0 if rate_of == "half_sum" else 2.0 / residuals


def curvature(name: str, points: int, outputs: int) -> float:
    """A bound on the eigenvalues of the Hessian of a loss with respect to the outputs (`Loss.curvature`)."""
    kind, factor = LOSSES[name]
    return Loss(name, kind, factor(points, outputs)).curvature


def loss_of(name: object, points: int, outputs: int) -> Loss:
    """The loss of a name, for a number of points and outputs.

    Raises
    ------
    ValueError for a name that is not known, and for a softmax of one output.
    """
    if not isinstance(name, str) or name not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {name!r}")
    kind, factor = LOSSES[name]
    if kind == SOFTMAX and outputs == 1:
        raise ValueError(f"loss={name!r} needs a network of at least 2 outputs; got 1: set outputs, or take 'logistic'")
    return Loss(name, kind, factor(points, outputs))


def loss_and_targets(name: object, y: object, points: int, outputs: int) -> tuple[Loss, np.ndarray]:
    """The loss of a name and its targets, (n k,): of softmax cross-entropy the probabilities of the classes."""
    loss = loss_of(name, points, outputs)
    given = np.asarray(y)
    if loss.kind == SOFTMAX and given.ndim == 1 and given.dtype.kind in "biuf":
        wrong = given[(given < 0) | (given >= outputs) | (given != np.round(given))]
        if given.shape != (points,) or wrong.size:
            got = f"{wrong[0]:g}" if wrong.size else f"{given.size} of them"
            raise ValueError(f"y must hold {points} classes from 0 to {outputs - 1} for loss={loss.name!r}; got {got}")
        y = np.eye(outputs)[given.astype(np.int64)]
    values = targets("y", y, points, outputs)
    if loss.kind == LOGISTIC and not (np.abs(values) == 1).all():
        raise ValueError(f"y must be 1 or -1 for loss={loss.name!r}; got {values[np.abs(values) != 1][0]:g}")
    if loss.kind == SOFTMAX:
        if np.allclose(values.sum(axis=1), 0, rtol=0, atol=_SUM):  # one-hot less 1/k
            values = values + 1 / outputs
        wrong = (values < -_SUM).any(axis=1) | (np.abs(values.sum(axis=1) - 1) > _SUM)
        if wrong.any():
            raise ValueError(
                f"y must be classes, or a row of probabilities for each point, or that less 1/k, for loss={loss.name!r}; "
                f"got the row {values[wrong][0].tolist()}"
            )
    return loss, values.ravel()
