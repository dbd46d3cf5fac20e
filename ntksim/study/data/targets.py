"""Targets as a data set holds them: labels of classes, or real numbers. Which they are, and what is wrong with them.

They come as a data frame whose columns are called what messages call them, such as "the column 'price'".
"""

import re
import sys
from contextlib import suppress
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd

from ntksim.study.errors import StageError, shown

DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+(?:[eE][-+]?\d+)?\s*")  # a number as it is written where commas are points
_FEW = 20  # whole numbers from 0 or 1 on look like labels, if there are no more than this, and some repeat


def tell_classes(y: np.ndarray) -> bool:
    """Whether numbers tell classes: -c and c, or k numbers of which one, that of the class, is above the equal others."""
    if y.ndim == 1:
        return len(np.unique(np.abs(y))) == 1
    low, high = y.min(axis=1, keepdims=True), y.max(axis=1, keepdims=True)
    one_each = np.all((y == high).sum(axis=1) == 1) and np.all((y == low) | (y == high))
    return bool(one_each and np.ptp(low) == np.ptp(high) == 0)


def of_classes(place: np.ndarray, count: int) -> np.ndarray:
    """-1 and +1 for two classes; for k > 2 one-hot vectors (n, k) less their mean 1 / k."""
    return 2.0 * place - 1.0 if count == 2 else np.eye(count)[place] - 1 / count


def places(where: str, classes: list[Any], y: pd.DataFrame) -> np.ndarray:
    """The place of each point's label among the classes, -1 if it is none of them; ``where`` starts messages of the file."""
    if y.shape[1] > 1:
        raise StageError(f"{where}: classes need y of shape (points,), labels; got {y.shape}: leave classes out")
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
                f"{where}: labels are text or numbers, but row {row} of {name} (counted from 0) is {shown(value)}; "
                "write them as such"
            )
    place_of = {label: place for place, label in enumerate(classes)}
    found = np.array([place_of.get(value, -1) for value in column])
    for place, label in enumerate(classes):
        if place not in found:
            known = ", ".join(map(shown, column.unique().tolist()[:10]))
            raise StageError(f"dataset.classes: no point has the label {shown(label)}; the labels begin with {known}")
    return found


def real(where: str, y: pd.DataFrame) -> np.ndarray:
    """Real numbers (n, k), or of one column (n,), all finite."""
    for name, column in y.items():
        if not pd.api.types.is_numeric_dtype(column):
            row, value = next((at for at in enumerate(column) if not _reads_as_number(at[1])), (0, column.iloc[0]))
            are_labels = isinstance(value, str) and y.shape[1] == 1
            comma = ", with points in place of decimal commas" if DECIMAL_COMMA.fullmatch(str(value)) else ""
            raise StageError(
                f"{where}: {name} does not hold numbers: row {row} (counted from 0) is {shown(value)}; "
                + ("name its labels in dataset.classes, or give numbers" + comma if are_labels else "give real numbers" + comma)
            )
    numbers = finite(where, "targets", y)
    return numbers[:, 0] if y.shape[1] == 1 else numbers


def _reads_as_number(value: object) -> bool:
    with suppress(TypeError, ValueError, OverflowError):
        float(value)  # type: ignore[arg-type]
        return True
    return False


def finite(where: str, what: str, frame: pd.DataFrame) -> np.ndarray:
    """Columns of numbers as an array (n, k), float64, all finite."""
    numbers = frame.to_numpy(np.float64, na_value=np.nan)
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        row, column = bad[0]
        raise StageError(
            f"{where}: {len(bad)} {what} are missing, NaN or infinite, the first in row {row} of {frame.columns[column]} "
            "(counted from 0); remove those rows or fill them in"
        )
    return numbers


def look_for_labels(where: str, y: np.ndarray) -> None:
    """Of real numbers (n,) that are to be standardized: refuse two values, and say it of a few whole numbers 0, 1, ..."""
    values = np.unique(y)
    first, last = (repr(value).removesuffix(".0") for value in (values.tolist()[0], values.tolist()[-1]))
    if len(values) == 2:
        raise StageError(
            f"dataset.classes: the targets are {first} and {last} alone; name these labels (classes: [{first}, {last}]), or take "
            "all numbers as they are (scaling: none)"
        )
    if len(values) <= min(_FEW, len(y) - 1) and values[0] in (0, 1) and (np.diff(values) == 1).all():
        print(
            f"{where}: the targets are the whole numbers {first} to {last}, and are taken for real ones; "
            "if they are labels, name them in dataset.classes",
            file=sys.stderr,
        )
