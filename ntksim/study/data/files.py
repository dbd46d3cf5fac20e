"""The numbers of a data set, and the file from which the stages read them. `data.dataset` makes them from a configuration."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ntksim.engine.infinite.harmonics import circle_angles
from ntksim.study.errors import DamagedFile
from ntksim.study.files.provenance import provenance
from ntksim.study.files.storage import content_hash, read_arrays, write_arrays

_ROUND = 1e-9  # points whose distances from 0 differ by less, relative to the largest, lie on a circle


@dataclass(frozen=True)
class Data:
    """Training and test points, (n, d) and (n*, d), with targets (n,) and (n*,), or (n, k) and (n*, k), all float64.

    ``x_evaluation`` (m, d) are points at which kernels and predictions are looked at, beside those of the test: None without.
    ``y_evaluation`` are their targets, (m,) or (m, k), without noise: None where they are not known.

    ``are_classes`` says whether the targets encode classes (:func:`targets.encode_classes`). It is determined from all targets of
    the source, before points are selected and scaled: a few real targets could look like classes by chance.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    are_classes: bool
    x_evaluation: np.ndarray | None = None
    y_evaluation: np.ndarray | None = None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Points and targets by name: all that are not None."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    def with_arrays(self, arrays: dict[str, np.ndarray]) -> "Data":
        """The data set with other arrays in place of those of the same names."""
        return Data(**{**vars(self), **arrays})

    @property
    def hash(self) -> str:
        """Hash of all numbers and of ``are_classes``."""
        evaluation = (values for values in (self.x_evaluation, self.y_evaluation) if values is not None)
        return content_hash(self.x_train, self.y_train, self.x_test, self.y_test, np.array(self.are_classes), *evaluation)

    @property
    def angles(self) -> np.ndarray | None:
        """Angles of the training points (n,), from 0 to below 2 pi; None where points do not lie on a circle about 0."""
        return _angles(self.x_train)

    @property
    def evaluation_angles(self) -> np.ndarray | None:
        """Angles of the evaluation points (m,), as ``angles``; None also where there are none."""
        return None if self.x_evaluation is None else _angles(self.x_evaluation)

    @property
    def outputs(self) -> int:
        """Number of targets of a point, which is the number of network outputs."""
        return math.prod(self.y_train.shape[1:])


def _angles(points: np.ndarray) -> np.ndarray | None:
    if points.shape[1] != 2 or np.ptp(radii := np.hypot(*points.T)) > _ROUND * radii.max():
        return None
    return circle_angles(points)


def write(path: str | Path, data: Data) -> None:
    """Write a data set atomically as an .npz file."""
    identity = {"stage": "dataset", "dataset": data.hash}
    metadata = {"identity": identity, "provenance": provenance()}
    write_arrays(path, metadata, **data.arrays, are_classes=np.array(data.are_classes))


def read(path: str | Path) -> Data:
    """Read a data set. Raises StageError if the file is missing or damaged."""
    arrays = read_arrays(path)
    try:
        return Data(are_classes=bool(arrays.pop("are_classes")), **arrays)
    except (TypeError, KeyError):
        raise DamagedFile(f"{path}: not a data set of ntksim; delete it and run the study again") from None
