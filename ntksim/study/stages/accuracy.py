"""What outputs are worth beside their loss: distances, and the share of test points that are told their class."""

import numpy as np

from ntksim.study.data.files import Data


def rms(values: np.ndarray) -> np.ndarray:
    """The root mean square over the last axis, infinite where it overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt(np.mean(values**2, axis=-1))


def accuracy(outputs: np.ndarray, data: Data) -> np.ndarray:
    """Share of the test points, outputs (..., n* k), that are told their class: by the sign, or the largest of k > 2 outputs.

    A point whose outputs prefer no class is told a wrong one. NaN where no point's do, as before f - f_0 is trained, where
    targets tell no classes, and of outputs that are not finite.
    """
    if not data.are_classes:
        return np.full(outputs.shape[:-1], np.nan)
    scores = outputs.reshape(*outputs.shape[:-1], *data.y_test.shape)
    if data.y_test.ndim == 1:
        told, classes, undecided = scores > 0, data.y_test > 0, scores == 0
    else:
        told, classes = scores.argmax(axis=-1), data.y_test.argmax(axis=-1)
        undecided = scores.max(axis=-1) == scores.min(axis=-1)
    known = np.isfinite(outputs).all(axis=-1) & ~undecided.all(axis=-1)
    return np.where(known, ((told == classes) & ~undecided).mean(axis=-1), np.nan)
