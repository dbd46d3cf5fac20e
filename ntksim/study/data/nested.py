"""Training sets of several sizes, for learning curves: the first points of the largest one, with the same test points.

All are scaled as the largest one is, so that the kernel of fewer points is a part of that of more.
"""

from dataclasses import replace

import numpy as np

from ntksim.study.config.dataset import Dataset
from ntksim.study.data import dataset
from ntksim.study.data.files import Data, write

__all__ = ["load", "write"]


def load(options: Dataset, first: int | None = None) -> Data:
    """The data set of a configuration, as `dataset.load` has it, with the ``first`` training points alone if there is a number.

    Raises StageError if the data cannot be used.
    """
    data = dataset.load(options)
    if first is None:
        return data
    kept = balanced(data.y_train)[:first]
    data = replace(data, x_train=data.x_train[kept], y_train=data.y_train[kept])
    dataset.check_training(data)
    return data


def balanced(targets: np.ndarray) -> np.ndarray:
    """An order of points (n,) in which the first of any number have equal targets, such as classes, in about the proportions of
    all: each next point is of the target that lacks most. Points of one target, and all where no two are equal, keep their order.
    """
    _, kind, counts = np.unique(targets, axis=0, return_inverse=True, return_counts=True)
    kind = kind.reshape(-1)
    of_kind = [list(np.flatnonzero(kind == own)) for own in range(len(counts))]
    if len(counts) == len(kind):
        return np.arange(len(kind))
    used, order = np.zeros(len(counts)), []
    for position in range(1, len(kind) + 1):
        lacking = np.where(used < counts, counts * position / len(kind) - used, -np.inf)
        own = int(np.argmax(lacking))
        order.append(of_kind[own][int(used[own])])
        used[own] += 1
    return np.array(order)
