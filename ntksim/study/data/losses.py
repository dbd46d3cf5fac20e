"""The loss that networks are trained on, on a data set's training and test points: its targets, and what outputs are worth."""

from typing import NamedTuple

import numpy as np

from ntksim.engine.formulas.losses import value_and_gradient
from ntksim.engine.loss import LOGISTIC, SQUARED, Loss, is_squared, loss_and_targets, loss_of
from ntksim.study.data.files import Data
from ntksim.study.errors import StageError


class Objective(NamedTuple):
    """A loss on n points, and its targets (n, k): of a mean it is the mean over these points."""

    loss: Loss
    targets: np.ndarray

    def of(self, outputs: np.ndarray) -> np.ndarray:
        """The loss (...) of outputs (..., n k), infinite where it overflows, and NaN where an output is NaN."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self.loss.kind == SQUARED:
                return self.loss.factor * (0.5 * np.sum((outputs - self.targets.ravel()) ** 2, axis=-1))
            found = np.full(outputs.shape[:-1], np.nan)
            for at in np.ndindex(found.shape):
                if not np.isnan(outputs[at]).any():
                    found[at] = value_and_gradient(self.loss, outputs[at].reshape(self.targets.shape), self.targets)[0]
            return found


def objective(name: str, targets: np.ndarray) -> Objective:
    """The loss of a name on points with targets (n,) or (n, k): numbers of any kind, or those that tell classes.

    Raises ValueError for targets that the loss does not take, as `train` does.
    """
    rows = targets.reshape(len(targets), -1)
    if is_squared(name):
        return Objective(loss_of(name, *rows.shape), rows)
    loss, values = loss_and_targets(name, targets, *rows.shape)
    return Objective(loss, values.reshape(rows.shape))


def objectives(name: str, data: Data) -> tuple[Objective, Objective]:
    """The loss of a name on training points, and on test points.

    Raises StageError in one line for targets that it does not take.
    """
    try:
        return objective(name, data.y_train), objective(name, data.y_test)
    except ValueError as error:
        got = str(error).rpartition("; got ")[2].partition(": set outputs")[0]
        if loss_of(name, 1, 2).kind == LOGISTIC:
            needs, others, got = "targets 1 and -1, those of two classes", "softmax_cross_entropy", f"the target {got}"
            own = "1 and -1"
        else:
            needs, others = "three classes or more, or rows of probabilities", "logistic"
            got, own = "targets of one output" if data.outputs == 1 else got, "probabilities"
        # Real targets are standardized by default. Of one column 1 and -1 alone tell classes, which are not scaled.
        is_real = data.outputs > 1 and not data.are_classes
        unscaled = f"set dataset.scaling to none if the file has {own} already, " if is_real else ""
        raise StageError(
            f"training.loss: {name} needs {needs}, and dataset has {got}; list labels in dataset.classes, {unscaled}or take "
            f"{others} or a squared loss"
        ) from None
