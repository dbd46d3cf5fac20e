"""The numbers of a data set, and the file from which the stages read them. `data.dataset` makes them from a configuration."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ntksim.study.errors import DamagedFile
from ntksim.study.files.provenance import provenance
from ntksim.study.files.storage import content_hash, read_arrays, write_arrays


@dataclass(frozen=True)
class Data:
    """Training and test points, (n, d) and (n*, d), with targets (n,) and (n*,), or (n, k) and (n*, k), all float64.

    ``are_classes`` says whether the targets encode classes (:func:`targets.encode_classes`). It is determined from all targets of
    the source, before points are selected and scaled: a few real targets could look like classes by chance.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    are_classes: bool

    @property
    def hash(self) -> str:
        """Hash of all numbers and of ``are_classes``."""
        return content_hash(self.x_train, self.y_train, self.x_test, self.y_test, np.array(self.are_classes))

    @property
    def outputs(self) -> int:
        """Number of targets of a point, which is the number of network outputs."""
        return math.prod(self.y_train.shape[1:])


def write(path: str | Path, data: Data) -> None:
    """Write a data set atomically as an .npz file."""
    identity = {"stage": "dataset", "dataset": data.hash}
    metadata = {"identity": identity, "provenance": provenance()}
    write_arrays(path, metadata, **{name: np.asarray(value) for name, value in vars(data).items()})


def read(path: str | Path) -> Data:
    """Read a data set. Raises StageError if the file is missing or damaged."""
    arrays = read_arrays(path)
    try:
        return Data(are_classes=bool(arrays.pop("are_classes")), **arrays)
    except (TypeError, KeyError):
        raise DamagedFile(f"{path}: not a data set of ntksim; delete it and run the study again") from None
