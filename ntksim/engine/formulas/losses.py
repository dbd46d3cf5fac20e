"""The sums that losses are multiples of (`engine.loss`): values, and derivatives with respect to outputs, in float64."""

import numpy as np

from ntksim.engine.compiled.jit import jit, jit_inner
from ntksim.engine.formulas.layer import residual
from ntksim.engine.loss import LOGISTIC, SQUARED, Loss


@jit_inner
def point_gradient(kind, outputs, i, targets, gradient):
    """Fill column i of ``gradient`` (k, points) with the derivatives of a sum's term of one point; returns the term.

    ``outputs`` (k, points) has the point in column i, ``targets`` (k,) are its own.
    """
    value, count = 0.0, targets.size
    if kind == SQUARED:
        for a in range(count):
            off = residual(outputs[a, i], targets[a])
            value += off * off
            gradient[a, i] = off
        return 0.5 * value
    if kind == LOGISTIC:
        for a in range(count):
            margin = targets[a] * outputs[a, i]
            small = np.exp(-abs(margin))
            value += max(-margin, 0.0) + np.log1p(small)
            gradient[a, i] = -targets[a] * (small if margin > 0 else 1.0) / (1 + small)
        return value
    largest, total = np.float64(outputs[0, i]), 0.0
    for a in range(1, count):
        largest = max(largest, np.float64(outputs[a, i]))
    for a in range(count):
        total += np.exp(np.float64(outputs[a, i]) - largest)
    for a in range(count):
        shifted = np.float64(outputs[a, i]) - largest
        value += targets[a] * (np.log(total) - shifted)
        gradient[a, i] = np.exp(shifted) / total - targets[a]
    return value


@jit
def _value_and_gradient(kind, outputs, targets, gradient):
    total = 0.0
    for i in range(targets.shape[0]):
        total += point_gradient(kind, outputs, i, targets[i], gradient)
    return total


def value_and_gradient(loss: Loss, outputs: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """A loss of outputs and targets (n, k), and its derivatives with respect to the outputs (n, k); all float64."""
    columns = np.ascontiguousarray(outputs.T, np.float64)
    gradient = np.empty_like(columns)
    value = _value_and_gradient(loss.kind, columns, np.ascontiguousarray(targets, np.float64), gradient)
    return loss.factor * value, loss.factor * gradient.T
