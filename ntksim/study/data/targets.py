"""Targets of a data set: whether they are class labels or real numbers, checks of both, and the encoding of classes.

Targets come as a data frame. Its columns are named as in messages, such as "the column 'price'". The argument ``where`` begins
messages; it gives the configuration's key and the file.
"""

import re
import sys
from contextlib import suppress
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd

from ntksim.study.errors import StageError, shown

DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+(?:[eE][-+]?\d+)?\s*")  # a number with a decimal comma
_FEW = 20  # whole numbers 0, 1, ... or 1, 2, ... look like labels if there are at most so many values and some repeat


def encode_classes(y: np.ndarray) -> bool:
    """Whether numbers encode classes.

    One target (n,) encodes two classes if it takes only values -c and c. Targets (n, k) encode k classes if in every row one
    number, that of the class, exceeds all others, these others are equal, and the two values are the same in every row.
    """
    if y.ndim == 1:
        return len(np.unique(np.abs(y))) == 1
    low, high = y.min(axis=1, keepdims=True), y.max(axis=1, keepdims=True)
    one_each = np.all((y == high).sum(axis=1) == 1) and np.all((y == low) | (y == high))
    return bool(one_each and np.ptp(low) == np.ptp(high) == 0)


def class_targets(indices: np.ndarray, count: int) -> np.ndarray:
    """Targets of classes 0, 1, ...: -1 and +1 (n,) for two classes; for k > 2 one-hot vectors (n, k) minus their mean 1 / k."""
    return 2.0 * indices - 1.0 if count == 2 else np.eye(count)[indices] - 1 / count


def class_indices(where: str, classes: list[Any], y: pd.DataFrame) -> np.ndarray:
    """Index of each point's label in the list of classes (n,); -1 if the label is not in the list."""
    if y.shape[1] > 1:
        raise StageError(f"{where}: classes need one label per point, y of shape (points,); got {y.shape}; leave classes out")
    name, column = y.columns[0], y.iloc[:, 0]
    missing = np.flatnonzero(column.isna())
    if len(missing):
        raise StageError(
            f"{where}: {len(missing)} labels are missing, the first in row {missing[0]} of {name} (counted from 0); "
            "remove those rows or fill them in"
        )
    for row, value in enumerate(column):
        if not isinstance(value, (str, Number, np.bool_)):
            raise StageError(
                f"{where}: labels must be text or numbers, but row {row} of {name} (counted from 0) is {shown(value)}; "
                "convert the labels"
            )
    index_of = {label: index for index, label in enumerate(classes)}
    return np.array([index_of.get(value, -1) for value in column])


def check_presence(classes: list[Any], indices: np.ndarray, labels: pd.Series) -> None:
    """Refuse a class that no point has; ``indices`` and ``labels`` are those of all points."""
    for index, label in enumerate(classes):
        if index not in indices:
            known = ", ".join(map(shown, labels.unique().tolist()[:10]))
            raise StageError(f"dataset.classes: no point has the label {shown(label)}; the first labels are {known}")


def real(where: str, y: pd.DataFrame) -> np.ndarray:
    """Targets as finite real numbers, (n, k), or (n,) for one column."""
    for name, column in y.items():
        if not pd.api.types.is_numeric_dtype(column):
            row, value = next((pair for pair in enumerate(column) if not _reads_as_number(pair[1])), (0, column.iloc[0]))
            may_be_labels = isinstance(value, str) and y.shape[1] == 1
            comma = " with decimal points in place of commas" if DECIMAL_COMMA.fullmatch(str(value)) else ""
            remedy = "list its labels in dataset.classes, or give numbers" if may_be_labels else "give real numbers"
            raise StageError(
                f"{where}: {name} does not hold numbers: row {row} (counted from 0) is {shown(value)}; {remedy}{comma}"
            )
    numbers = finite(where, "targets", y)
    return numbers[:, 0] if y.shape[1] == 1 else numbers


def _reads_as_number(value: object) -> bool:
    with suppress(TypeError, ValueError, OverflowError):
        float(value)  # type: ignore[arg-type]
        return True
    return False


def finite(where: str, what: str, frame: pd.DataFrame) -> np.ndarray:
    """Columns of numbers as a float64 array (n, k). Raises StageError, which calls them ``what``, if any is not finite."""
    numbers = frame.to_numpy(np.float64, na_value=np.nan)
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        row, column = bad[0]
        raise StageError(
            f"{where}: {len(bad)} {what} are missing, NaN or infinite, the first in row {row} of {frame.columns[column]} "
            "(counted from 0); remove those rows or fill them in"
        )
    return numbers


def check_unnamed_labels(where: str, y: np.ndarray) -> None:
    """Check that real targets (n,), which are about to be standardized, are not labels.

    Targets with only two values are refused. Targets that are a few whole numbers 0, 1, ... give a warning.
    """
    values = np.unique(y)
    first, last = (repr(value).removesuffix(".0") for value in (values.tolist()[0], values.tolist()[-1]))
    if len(values) == 2:
        raise StageError(
            f"dataset.classes: the targets take only the values {first} and {last}; list them as classes (classes: [{first}, "
            f"{last}]), or leave points and targets unscaled (scaling: none)"
        )
    if len(values) <= min(_FEW, len(y) - 1) and values[0] in (0, 1) and (np.diff(values) == 1).all():
        print(
            f"{where}: the targets are the whole numbers {first} to {last}, and are used as real numbers; "
            "if they are labels, list them in dataset.classes",
            file=sys.stderr,
        )
