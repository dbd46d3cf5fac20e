"""Training sets of several sizes, for learning curves: parts of the largest one, with the same test points.

All are scaled as the largest one is, so that the kernel of fewer points is a part of that of more.
"""

from dataclasses import replace

import numpy as np

from ntksim.study.config.dataset import Dataset
from ntksim.study.data import dataset
from ntksim.study.data.files import Data, write
from ntksim.study.data.synthetic import in_order

__all__ = ["load", "write"]


def load(options: Dataset, first: int | None = None) -> Data:
    """The data set of a configuration, as `dataset.load` has it, with the ``first`` training points alone if there is a number.

    The first are those drawn first, of classes in their proportions (`balanced`). Of evenly spaced points they are every
    (train / first)-th, which are evenly spaced too.

    Raises StageError if the data cannot be used.
    """
    if first is None:
        return dataset.load(options)
    data = dataset.load(options, sort=False)  # sorted, the first points of a grid would be those of an arc
    kept = _kept(options, data, first)
    data = replace(data, x_train=data.x_train[kept], y_train=data.y_train[kept])
    dataset.check_training(data)
    return data if options.grid is None else in_order(data)


def _kept(options: Dataset, data: Data, first: int) -> np.ndarray:
    if options.spacing == "even":
        return np.arange(0, len(data.x_train), len(data.x_train) // first)
    return (balanced(data.y_train) if data.are_classes else np.arange(len(data.x_train)))[:first]


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
