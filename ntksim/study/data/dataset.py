"""Data sets: points with one or several targets, from scikit-learn, from the user's files, or synthetic."""

import csv
import re
import sys
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from ntksim.engine.arguments import flattened, flattening
from ntksim.study.config.dataset import Dataset
from ntksim.study.data import targets
from ntksim.study.data.files import Data, read, write
from ntksim.study.errors import StageError, shown

__all__ = ["Data", "columns_in_file", "load", "on_sphere", "read", "write"]

_CONSTANT = 1e-12  # a feature whose range is smaller, relative to its largest value, is constant up to rounding
_COUNTER = re.compile(r"unnamed: ?\d+|(row[ _]?)?(index|id)|level_\d+|__index_level_\d+__", re.IGNORECASE)


def load(options: Dataset) -> Data:
    """The data set of a configuration: read, split into training and test points, and scaled.

    Targets: two classes become -1 and +1. k > 2 classes become k targets, one-hot vectors minus 1 / k; for ten classes these are
    the -0.1 and 0.9 of Lee et al. (2019). Training and test points have the classes in the same proportions as the whole data.
    All other targets are real numbers.

    Scaling: ``sphere`` subtracts the training mean from all points and scales each point to norm sqrt(features). Targets that are
    not classes are scaled to mean 0 and variance 1 over the training points. ``standardize`` does the same, but after centring it
    also scales each feature to variance 1 over the training points. ``target_scale`` finally multiplies all targets.

    Raises StageError if the data cannot be used; the message names the key of the configuration and the remedy.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the checks below find what overflowed
            data = _unscaled(options)
            if options.scaling_or_default != "none":
                equal = options.scaling_or_default == "standardize"
                data = on_sphere(data, standardize_targets=not data.are_classes, equal_features=equal)
            _check_finite(data, "dataset: points or targets overflow when they are centred and scaled; give smaller numbers")
            if options.target_scale != 1:
                data = replace(data, **{name: options.target_scale * getattr(data, name) for name in ("y_train", "y_test")})
                _check_finite(data, f"dataset.target_scale: targets overflow if multiplied by {options.target_scale:g}; lower it")
            check_training(data)
            return data
    except MemoryError:
        raise StageError("dataset: does not fit into this machine's memory; use fewer points or features") from None


def _unscaled(options: Dataset) -> Data:
    if options.is_synthetic:
        return _synthetic(options)
    x, y = _from_file(options) if options.file is not None else _sklearn(str(options.name))
    return _split(options, x, y)


def _synthetic(options: Dataset) -> Data:
    """Independent random points with targets f(x) = x_1 x_2, the function that Jacot et al. (2018) use on the unit circle."""
    rng = np.random.default_rng(options.seed)
    x = rng.normal(size=(options.train + options.test, options.features or 2))
    if options.name != "gaussian":
        radius = 1.0 if options.name == "circle" else np.sqrt(x.shape[1])
        x *= radius / np.linalg.norm(x, axis=1, keepdims=True)
    y, n = x[:, 0] * x[:, 1], options.train
    return Data(x[:n], y[:n], x[n:], y[n:], are_classes=False)


def _sklearn(name: str) -> tuple[np.ndarray, pd.DataFrame]:
    import sklearn.datasets

    loaded = getattr(sklearn.datasets, f"load_{name}")()
    return loaded.data, _named("y", loaded.target)


def _from_file(options: Dataset) -> tuple[np.ndarray, pd.DataFrame]:
    """Finite points (n, d), and targets of any type, from the files that the key ``file`` names."""
    paths = [Path(p) for p in options.files]
    try:
        if len(paths) == 2:
            x, y = (np.load(path, allow_pickle=False) for path in paths)
        elif paths[0].suffix == ".npz":
            with paths[0].open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                if not {"x", "y"} <= set(arrays.files):
                    raise StageError(
                        f"{_key(options)}: expected arrays x and y, found {', '.join(map(shown, arrays.files[:8])) or 'none'}"
                    )
                x, y = arrays["x"], arrays["y"]
        else:
            return _columns(options, _table(options, paths[0]))
    except FileNotFoundError as error:
        raise StageError(
            f"dataset.file: {error.filename}: no such file; give a path relative to the current folder, or an absolute path"
        ) from None
    except (StageError, MemoryError):
        raise
    except Exception as error:  # a damaged file can make the readers of the four formats raise almost anything
        raise StageError(f"{_key(options)}: cannot be read ({' '.join(str(error).split())[:200]})") from None
    if x.ndim in (3, 4) and x.size:
        print(f"ntksim: note: {_key(options)}: {flattening(x.shape)}", file=sys.stderr)
        x = flattened(x)
    if x.ndim != 2 or y.ndim not in (1, 2) or len(y) != len(x) or 0 in (*x.shape, *y.shape):
        raise StageError(
            f"{_key(options)}: expected x of shape (points, features) and y of shape (points,) or (points, targets); "
            f"got {x.shape} and {y.shape}"
        )
    if x.dtype.kind not in "fiub":
        raise StageError(f"{_key(options)}: x must hold real numbers; got {x.dtype}")
    if y.dtype.kind not in "fiubU":
        raise StageError(f"{_key(options)}: y must hold real numbers or text labels; got {y.dtype}")
    return targets.finite(_key(options), "values", _named("x", x)), _named("y", y)


def _named(name: str, array: np.ndarray) -> pd.DataFrame:
    """An array as a data frame whose columns are named in NumPy notation, such as x[:, 2]. A vector becomes one column."""
    frame = pd.DataFrame(array)
    return frame.set_axis([name] if frame.shape[1] == 1 else [f"{name}[:, {j}]" for j in range(frame.shape[1])], axis=1)


def _table(options: Dataset, path: Path) -> pd.DataFrame:
    """Read a table without pandas' silent changes to it.

    Pandas would rename columns that have no name or a repeated name; such files are refused. It would also read labels such as
    NA and null as missing values; here they stay text.
    """
    if path.suffix == ".parquet":
        _check_names(options, pq.read_schema(path).names)
        return pd.read_parquet(path)
    names = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].tolist()
    _check_separator(options, path, names)
    _check_names(options, names)
    frame = pd.read_csv(path, low_memory=False)
    if not isinstance(frame.index, pd.RangeIndex):
        raise StageError(f"{_key(options)}: rows have more values than the header has names; give each column a name")
    target = options.targets[0]
    if options.classes is not None and target in frame.columns:
        # NA, None and null are ordinary labels
        labels = pd.read_csv(path, usecols=[target], keep_default_na=False, na_values=[""], low_memory=False)
        frame[target] = labels[target]
    return frame


def _check_separator(options: Dataset, path: Path, names: list[str]) -> None:
    """Refuse a file whose columns are separated by something else than commas.

    Another separator must occur in the header; and either the header has no comma, or the separator splits the header and all of
    the first rows into equally many columns.
    """
    for separator in (character for character in ";\t|" if any(character in name for name in names)):
        header, rows = _first_rows(path, separator)
        splits_evenly = rows and len(header) > 1 and all(len(row) == len(header) for row in rows)
        # Either the file is not text, which another check reports, or the character belongs to a column's name.
        if not header or (len(names) > 1 and not splits_evenly):
            continue
        commas = any(targets.DECIMAL_COMMA.fullmatch(word) for row in rows for word in row)
        decimals = ", and its numbers have decimal commas" if commas else ""
        how = f"sep={separator!r}" + (", decimal=','" if commas else "")
        raise StageError(
            f"{_key(options)}: its columns are separated by {shown(separator)}{decimals}; write it with commas between columns "
            f"and decimal points in numbers, for example with pandas.read_csv(file, {how}).to_csv(file, index=False)"
        )


def _first_rows(path: Path, separator: str) -> tuple[list[str], list[list[str]]]:
    """The header and the first rows of a table with this separator; both empty if the file cannot be read as such a table."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            header, *rows = (row for row in islice(csv.reader(lines, delimiter=separator), 10) if row)
    except (csv.Error, ValueError):
        return [], []
    return header, rows


def _check_names(options: Dataset, names: list[str]) -> None:
    if "" in names:
        raise StageError(
            f"{_key(options)}: column {names.index('')} (counted from 0) has no name, like the index column that frame.to_csv() "
            "writes; write the file with index=False, or give the column a name"
        )
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise StageError(f"{_key(options)}: two columns are named {shown(repeated[0])}; rename or drop one")


def _columns(options: Dataset, frame: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    missing = [name for name in options.targets if name not in frame.columns]
    if missing:
        known = ", ".join(map(shown, frame.columns[:8]))
        raise StageError(f"dataset.target: {_key(options)} has no column {missing[0]!r}; its first columns are {known}")
    features = frame.drop(columns=options.targets)
    if features.shape[1] == 0 or frame.empty:
        raise StageError(
            f"{_key(options)}: expected rows, and feature columns in addition to {', '.join(map(repr, options.targets))}"
        )
    not_numeric = [str(c) for c in features.columns if not pd.api.types.is_numeric_dtype(features[c])]
    if not_numeric:
        first = features[not_numeric[0]].astype(str)
        if (with_comma := first.str.fullmatch(targets.DECIMAL_COMMA)).any():
            raise StageError(
                f"{_key(options)}: the column {shown(not_numeric[0])} has decimal commas, such as "
                f"{shown(first[with_comma].iloc[0])}; write numbers with decimal points, for example with "
                "pandas.read_csv(file, decimal=',').to_csv(file, index=False)"
            )
        raise StageError(
            f"{_key(options)}: these columns are not numbers: {', '.join(map(shown, not_numeric[:8]))}; drop or encode them"
        )
    for name in features:
        _check_row_numbers(options, str(name), features[name].to_numpy(np.float64, na_value=np.nan))
    points, y = (part.rename(columns=lambda name: f"the column {shown(name)}") for part in (features, frame[options.targets]))
    return targets.finite(_key(options), "values", points), y


def _check_row_numbers(options: Dataset, name: str, values: np.ndarray) -> None:
    """Refuse a column that has increasing whole numbers and the name of an index; warn about one with row numbers only."""
    steps = np.diff(values)
    if len(steps) == 0 or not (values == np.round(values)).all() or not (steps > 0).all():
        return
    counts = f"{_key(options)}: the column {shown(name)} counts up with the rows, from {values[0]:g} to {values[-1]:g}, "
    if _COUNTER.fullmatch(name):
        raise StageError(f"{counts}and has the name of an index; drop it, or rename it if it is a feature")
    if (steps == 1).all():
        print(f"{counts}and is used as a feature; drop it if it only numbers the rows", file=sys.stderr)


def _key(options: Dataset) -> str:
    """The start of messages about a file: the configuration's key and the file's path."""
    return f"dataset.file: {', '.join(options.files)}"


def _split(options: Dataset, x: np.ndarray, y: pd.DataFrame) -> Data:
    from sklearn.model_selection import train_test_split

    classes = options.classes_or_default
    if classes:
        indices = targets.class_indices(_key(options), classes, y)
        x, numbers, are_classes = x[indices >= 0], indices[indices >= 0], True
    else:
        numbers = targets.real(_key(options), y)
        are_classes = targets.encode_classes(numbers)
        if options.scaling_or_default != "none" and numbers.ndim == 1 and not are_classes:
            targets.check_unnamed_labels(_key(options), numbers)
    if options.train + options.test > len(x):
        source = f"the classes {shown(classes)}" if classes else "the data"
        raise StageError(
            f"dataset.train + dataset.test = {options.train + options.test}, but {source} have only {len(x)} points; "
            "lower one of the two"
        )
    try:
        x_train, x_test, y_train, y_test = train_test_split(
            x, numbers, train_size=options.train, test_size=options.test, random_state=options.seed,
            stratify=numbers if classes else None,
        )  # fmt: skip
    except ValueError as error:  # for example a class with a single point
        raise StageError(f"dataset.classes: cannot be split into training and test points: {error}") from None
    if classes:
        _check_classes(classes, numbers, y_train)
        y_train, y_test = (targets.class_targets(part, len(classes)) for part in (y_train, y_test))
    return Data(x_train, y_train, x_test, y_test, are_classes)


def _check_classes(classes: list[Any], indices: np.ndarray, training_indices: np.ndarray) -> None:
    """Refuse a class that has no training point."""
    counts, training_counts = (np.bincount(part, minlength=len(classes)) for part in (indices, training_indices))
    if len(missing := np.flatnonzero(training_counts == 0)):
        rare = missing[0]
        raise StageError(
            f"dataset.train: none of the {len(training_indices)} training points has the class {shown(classes[rare])}, which has "
            f"{counts[rare]} of all {len(indices)} points; raise train"
            + (" or leave this class out of classes" if len(classes) > 2 else "")
        )


def on_sphere(data: Data, *, standardize_targets: bool = False, equal_features: bool = False) -> Data:
    """Subtract the training mean from all points (n, d) and scale each point to norm sqrt(d).

    With ``equal_features`` each centred feature is first scaled to variance 1 over the training points. A feature that is
    constant on the training points, up to rounding, becomes 0 on all points, since its scale is unknown. With
    ``standardize_targets`` each target is scaled to mean 0 and variance 1 over the training points.

    Raises StageError for a single feature, for a point at the mean, and for constant targets that should be standardized.
    """
    if data.x_train.shape[1] == 1:
        raise StageError(
            "dataset.scaling: with one feature every point would become -1 or 1 on the sphere; set scaling: none, which leaves "
            "numbers unchanged"
        )
    mean = data.x_train.mean(axis=0)
    x_train, x_test = data.x_train - mean, data.x_test - mean
    if equal_features:
        varies = np.ptp(data.x_train, axis=0) > _CONSTANT * np.abs(data.x_train).max(axis=0)
        factors = np.divide(1.0, x_train.std(axis=0), out=np.zeros(len(mean)), where=varies)
        x_train, x_test = x_train * factors, x_test * factors
    x_train, x_test = _scaled(x_train), _scaled(x_test)
    y_train, y_test = data.y_train, data.y_test
    if standardize_targets:
        check_training(data)
        centre, spread = y_train.mean(axis=0), y_train.std(axis=0)
        spread = np.where(np.isfinite(spread), spread, np.nan)  # division by inf would hide an overflow as 0
        y_train, y_test = (y_train - centre) / spread, (y_test - centre) / spread
    return replace(data, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def _scaled(points: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    if not norms.all():
        raise StageError(
            "dataset: a point equals the training mean, so it cannot be scaled to the sphere (is the data constant?); remove the "
            "point, change dataset.seed, or set dataset.scaling to none"
        )
    return points * (np.sqrt(points.shape[1]) / norms)


def _check_finite(data: Data, message: str) -> None:
    if not all(np.isfinite(values).all() for values in (data.x_train, data.x_test, data.y_train, data.y_test)):
        raise StageError(message)


def check_training(data: Data) -> None:
    """Refuse repeated training points, which make every kernel singular, and constant targets, which make every fit trivial."""
    _, count = np.unique(_rounded(data.x_train), axis=0, return_counts=True)
    if len(count) < len(data.x_train):
        repeated = int(np.sum(count[count > 1]))
        raise StageError(
            f"dataset: {repeated} of {len(data.x_train)} training points equal another one to ten digits after scaling, so every "
            "kernel would be singular; remove duplicates, or change dataset.seed"
        )
    columns = data.y_train.reshape(len(data.y_train), -1)
    if len(constant := np.flatnonzero(np.ptp(columns, axis=0) == 0)):
        number = "" if columns.shape[1] == 1 else f" number {constant[0]} (counted from 0)"
        raise StageError(
            f"dataset: the target{number} is {columns[0, constant[0]]:g} at every training point; "
            "give targets that vary, or more points"
        )


def _rounded(points: np.ndarray) -> np.ndarray:
    """A row for every point with its direction and the logarithm of its norm, both rounded to ten digits.

    Rows are equal if the points are equal to ten digits, whatever their size.
    """
    largest = np.abs(points).max(axis=1, keepdims=True)
    scaled = np.divide(points, largest, out=np.zeros_like(points), where=largest > 0)  # so that squares do not underflow
    norm = np.linalg.norm(scaled, axis=1, keepdims=True)
    direction = np.divide(scaled, norm, out=scaled, where=norm > 0)
    with np.errstate(divide="ignore"):
        size = np.log(norm) + np.log(largest)
    return np.round(np.hstack([direction, size]), 10) + 0.0  # turns -0 into 0


def columns_in_file(path: str, array: str = "x") -> int:
    """Number of columns in a user's file, read from its header.

    For a .csv or .parquet file these are the columns of the table; for a .npy file those of its array; for an .npz file those of
    ``array``, which is x or y. The number is 1 if the file cannot be read; :func:`load` then explains why.
    """
    try:
        if path.endswith(".csv"):
            return pd.read_csv(path, nrows=0).shape[1]
        if path.endswith(".parquet"):
            return len(pq.read_schema(path))
        if path.endswith(".npy"):
            return _columns_of(np.load(path, mmap_mode="r", allow_pickle=False))
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return _columns_of(arrays[array])
    except Exception:
        return 1


def _columns_of(array: np.ndarray) -> int:
    return array.shape[1] if array.ndim > 1 else 1
