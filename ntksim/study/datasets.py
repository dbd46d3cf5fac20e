"""Data sets: points on the sphere of radius sqrt(features) and scalar targets."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ntksim.study.storage import StageError, content_hash, read_arrays, write_arrays


@dataclass(frozen=True)
class Data:
    """Training and test points, (n, d) and (n*, d), with targets (n,) and (n*,), all float64."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def hash(self) -> str:
        """Hash of every number."""
        return content_hash(self.x_train, self.y_train, self.x_test, self.y_test)


def digits(classes: tuple[int, int], train: int, test: int, seed: int) -> Data:
    """Two classes of scikit-learn's handwritten digits (8 x 8 pixels), targets -1 and +1, both classes equally often.

    Raises StageError if more points are asked for than there are.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images = load_digits()
    chosen = np.isin(images.target, classes)
    x, y = images.data[chosen], np.where(images.target[chosen] == classes[0], -1.0, 1.0)
    if train + test > len(x):
        raise StageError(
            f"train + test = {train + test} points are asked for, but the digits "
            f"{classes[0]} and {classes[1]} have {len(x)}; ask for fewer"
        )
    x_train, x_test, y_train, y_test = train_test_split(x, y, train_size=train, test_size=test, stratify=y, random_state=seed)
    return on_sphere(Data(x_train, y_train, x_test, y_test))


def on_sphere(data: Data) -> Data:
    """Centre all points with the training mean and scale each to norm sqrt(d).

    Raises StageError for constant data and for repeated training points, whose kernel would be singular.
    """
    mean = data.x_train.mean(axis=0)
    x_train, x_test = (_scaled(points - mean) for points in (data.x_train, data.x_test))
    if len(np.unique(x_train, axis=0)) < len(x_train):
        raise StageError("training points repeat, so every kernel would be singular; remove duplicates or change dataset.seed")
    return Data(x_train, data.y_train, x_test, data.y_test)


def _scaled(points: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    if not norms.all():
        raise StageError("a point equals the training mean and has no direction; remove it or change dataset.seed")
    return points * (np.sqrt(points.shape[1]) / norms)


def write(path: str | Path, data: Data) -> None:
    """Write a data set as .npz, atomically."""
    write_arrays(path, x_train=data.x_train, y_train=data.y_train, x_test=data.x_test, y_test=data.y_test)


def read(path: str | Path) -> Data:
    """Read a data set. Raises StageError for a file that is missing or damaged."""
    arrays = read_arrays(path)
    try:
        return Data(**arrays)
    except TypeError:
        raise StageError(f"{path}: not a data set of ntksim; delete it and run the study again") from None
