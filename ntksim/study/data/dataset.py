"""Data sets: points with one target or several, from scikit-learn, from files of one's own, or synthetic."""

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

from ntksim.engine.arguments import flattening
from ntksim.study.config.dataset import Dataset
from ntksim.study.data import targets
from ntksim.study.data.files import Data, read, write
from ntksim.study.errors import StageError, shown

__all__ = ["Data", "columns_in_file", "load", "on_sphere", "read", "write"]

_CONSTANT = 1e-12  # relative range of a feature below which it is rounding
_COUNTER = re.compile(r"unnamed: ?\d+|(row[ _]?)?(index|id)|level_\d+|__index_level_\d+__", re.IGNORECASE)


def load(options: Dataset) -> Data:
    """The data set of a configuration: selected, split and scaled.

    Two classes become the targets -1 and +1; k > 2 become k targets, one-hot vectors less 1 / k, which for ten are the -0.1
    and 0.9 of Lee et al. (2019). Both parts have the classes in their own proportions. Other targets are real numbers.
    ``scaling: sphere`` centres the points with the training mean, brings each to the norm sqrt(features), and brings each
    target that tells no class to mean 0 and variance 1 over the training points. ``standardize`` does the same, but brings each
    feature to variance 1 over the training points in between. ``target_scale`` multiplies targets at the end.

    Raises StageError for data that cannot be used; the message names the key of the configuration and the remedy.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # looked for by the checks
            data = _chosen(options)
            if options.scaling_or_default != "none":
                equal = options.scaling_or_default == "standardize"
                data = on_sphere(data, standardize_targets=not data.are_classes, equal_features=equal)
            _check_finite(data, "dataset: points or targets overflow when centred and scaled; bring them to ordinary sizes")
            if options.target_scale != 1:
                data = replace(data, **{name: options.target_scale * getattr(data, name) for name in ("y_train", "y_test")})
                _check_finite(data, f"dataset.target_scale: {options.target_scale:g} times the targets overflows; lower it")
            _check_training(data)
            return data
    except MemoryError:
        raise StageError("dataset: more numbers than this machine's memory holds; ask for fewer points or features") from None


def _chosen(options: Dataset) -> Data:
    if options.is_synthetic:
        return _synthetic(options)
    x, y = _own(options) if options.file is not None else _sklearn(str(options.name))
    return _split(options, x, y)


def _synthetic(options: Dataset) -> Data:
    """Independent points with the targets f(x) = x_1 x_2, those of Jacot et al. (2018) on the unit circle."""
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


def _own(options: Dataset) -> tuple[np.ndarray, pd.DataFrame]:
    """Points (n, d), finite, and targets of any type, from the files of the key ``file``."""
    paths = [Path(p) for p in options.files]
    try:
        if len(paths) == 2:
            x, y = (np.load(path, allow_pickle=False) for path in paths)
        elif paths[0].suffix == ".npz":
            with paths[0].open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                if not {"x", "y"} <= set(arrays.files):
                    raise StageError(
                        f"{_place(options)}: expected arrays x and y, found {', '.join(map(shown, arrays.files[:8])) or 'none'}"
                    )
                x, y = arrays["x"], arrays["y"]
        else:
            return _columns(options, _table(options, paths[0]))
    except FileNotFoundError as error:
        raise StageError(f"dataset.file: {error.filename}: no such file; give the path from the folder you run in") from None
    except (StageError, MemoryError):
        raise
    except Exception as error:  # whatever the readers of four formats make of bytes that are none of them
        raise StageError(f"{_place(options)}: cannot be read ({' '.join(str(error).split())[:200]})") from None
    if x.ndim > 2 and x.size:
        raise StageError(
            f"{_place(options)}: expected x of shape (points, features), got {x.shape}; {flattening(x.shape)}, and save it again"
        )
    if x.ndim != 2 or y.ndim not in (1, 2) or len(y) != len(x) or 0 in (*x.shape, *y.shape):
        raise StageError(
            f"{_place(options)}: expected x of shape (points, features) and y of shape (points,) or (points, targets); "
            f"got {x.shape} and {y.shape}"
        )
    if x.dtype.kind not in "fiub":
        raise StageError(f"{_place(options)}: x must hold real numbers; got {x.dtype}")
    if y.dtype.kind not in "fiubU":
        raise StageError(f"{_place(options)}: y must hold real numbers, or labels that are text; got {y.dtype}")
    return targets.finite(_place(options), "values", _named("x", x)), _named("y", y)


def _named(name: str, array: np.ndarray) -> pd.DataFrame:
    """The columns of an array, called as NumPy writes them; a vector is one column."""
    frame = pd.DataFrame(array)
    return frame.set_axis([name] if frame.shape[1] == 1 else [f"{name}[:, {j}]" for j in range(frame.shape[1])], axis=1)


def _table(options: Dataset, path: Path) -> pd.DataFrame:
    """A table as its file has it: pandas would rename columns without a name, or of one name, and read labels as missing."""
    if path.suffix == ".parquet":
        _check_names(options, pq.read_schema(path).names)
        return pd.read_parquet(path)
    names = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].tolist()
    _check_separator(options, path, names)
    _check_names(options, names)
    frame = pd.read_csv(path, low_memory=False)
    if not isinstance(frame.index, pd.RangeIndex):
        raise StageError(f"{_place(options)}: rows have more values than the header has names; give each column a name")
    target = options.targets[0]
    if options.classes is not None and target in frame.columns:
        # NA, None and null are labels like others
        labels = pd.read_csv(path, usecols=[target], keep_default_na=False, na_values=[""], low_memory=False)
        frame[target] = labels[target]
    return frame


def _check_separator(options: Dataset, path: Path, names: list[str]) -> None:
    """Refuse a file whose columns commas do not separate: its header holds another mark, and no comma or its rows as many."""
    for other in (mark for mark in ";\t|" if any(mark in name for name in names)):
        header, rows = _first_rows(path, other)
        as_many = rows and len(header) > 1 and all(len(row) == len(header) for row in rows)
        if not header or (len(names) > 1 and not as_many):  # no text, which is said elsewhere, or a mark within a name
            continue
        commas = any(targets.DECIMAL_COMMA.fullmatch(word) for row in rows for word in row)
        decimals = ", and its numbers have decimal commas" if commas else ""
        how = f"sep={other!r}" + (", decimal=','" if commas else "")
        raise StageError(
            f"{_place(options)}: its columns are separated by {shown(other)}{decimals}; write it with commas between columns and "
            f"points in numbers, as pandas.read_csv(file, {how}).to_csv(file, index=False) does"
        )


def _first_rows(path: Path, mark: str) -> tuple[list[str], list[list[str]]]:
    """The header and a few rows of a table whose columns a mark separates; nothing where it cannot be read as such."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            header, *rows = (row for row in islice(csv.reader(lines, delimiter=mark), 10) if row)
    except (csv.Error, ValueError):
        return [], []
    return header, rows


def _check_names(options: Dataset, names: list[str]) -> None:
    if "" in names:
        raise StageError(
            f"{_place(options)}: column {names.index('')} (counted from 0) has no name, like the index that frame.to_csv() "
            "writes; write the file with index=False, or give the column a name"
        )
    if again := [name for name, count in Counter(names).items() if count > 1]:
        raise StageError(f"{_place(options)}: the column {shown(again[0])} is there twice; rename or drop one")


def _columns(options: Dataset, frame: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    missing = [name for name in options.targets if name not in frame.columns]
    if missing:
        known = ", ".join(map(shown, frame.columns[:8]))
        raise StageError(f"dataset.target: {_place(options)} has no column {missing[0]!r}; its columns begin with {known}")
    features = frame.drop(columns=options.targets)
    if features.shape[1] == 0 or frame.empty:
        raise StageError(f"{_place(options)}: expected rows with feature columns beside {', '.join(map(repr, options.targets))}")
    words = [str(c) for c in features.columns if not pd.api.types.is_numeric_dtype(features[c])]
    if words:
        first = features[words[0]].astype(str)
        if (with_comma := first.str.fullmatch(targets.DECIMAL_COMMA)).any():
            raise StageError(
                f"{_place(options)}: the column {shown(words[0])} has decimal commas, as in {shown(first[with_comma].iloc[0])}; "
                "write numbers with points, as pandas.read_csv(file, decimal=',').to_csv(file, index=False) does"
            )
        raise StageError(
            f"{_place(options)}: columns that are not numbers: {', '.join(map(shown, words[:8]))}; drop or encode them"
        )
    for name in features:
        _look_for_counter(options, str(name), features[name].to_numpy(np.float64, na_value=np.nan))
    points, y = (part.rename(columns=lambda name: f"the column {shown(name)}") for part in (features, frame[options.targets]))
    return targets.finite(_place(options), "values", points), y


def _look_for_counter(options: Dataset, name: str, values: np.ndarray) -> None:
    """Refuse a column that numbers the rows, by its name and numbers; one that does by its numbers alone is said."""
    steps = np.diff(values)
    if len(steps) == 0 or not (values == np.round(values)).all() or not (steps > 0).all():
        return
    counts = f"{_place(options)}: the column {shown(name)} counts up with the rows, {values[0]:g} to {values[-1]:g}, "
    if _COUNTER.fullmatch(name):
        raise StageError(f"{counts}as an index does, and would be a feature; drop it, or rename it if it is one")
    if (steps == 1).all():
        print(f"{counts}and is taken for a feature; if it numbers the rows, drop it", file=sys.stderr)


def _place(options: Dataset) -> str:
    return f"dataset.file: {', '.join(options.files)}"


def _split(options: Dataset, x: np.ndarray, y: pd.DataFrame) -> Data:
    from sklearn.model_selection import train_test_split

    classes = options.classes_or_default
    if classes:
        place = targets.places(_place(options), classes, y)
        x, numbers, are_classes = x[place >= 0], place[place >= 0], True
    else:
        numbers = targets.real(_place(options), y)
        are_classes = targets.tell_classes(numbers)
        if options.scaling_or_default != "none" and numbers.ndim == 1 and not are_classes:
            targets.look_for_labels(_place(options), numbers)
    if options.train + options.test > len(x):
        what = f"the classes {shown(classes)}" if classes else "the data"
        raise StageError(
            f"dataset.train + dataset.test = {options.train + options.test} points are asked for, but {what} have {len(x)}; "
            "ask for fewer"
        )
    try:
        x_train, x_test, y_train, y_test = train_test_split(
            x, numbers, train_size=options.train, test_size=options.test, random_state=options.seed,
            stratify=numbers if classes else None,
        )  # fmt: skip
    except ValueError as error:  # such as a class with a single point
        raise StageError(f"dataset.classes: cannot be split into training and test points: {error}") from None
    if classes:
        _check_classes(classes, numbers, y_train)
        y_train, y_test = (targets.of_classes(part, len(classes)) for part in (y_train, y_test))
    return Data(x_train, y_train, x_test, y_test, are_classes)


def _check_classes(classes: list[Any], place: np.ndarray, place_train: np.ndarray) -> None:
    """Refuse a class that has no training point."""
    counts, of_training = (np.bincount(part, minlength=len(classes)) for part in (place, place_train))
    if len(without := np.flatnonzero(of_training == 0)):
        rare = without[0]
        raise StageError(
            f"dataset.train: no point of the class {shown(classes[rare])} ({counts[rare]} of {len(place)}) falls among the "
            f"{len(place_train)} training points; raise train" + (" or leave it out of classes" if len(classes) > 2 else "")
        )


def on_sphere(data: Data, *, standardize_targets: bool = False, equal_features: bool = False) -> Data:
    """Centre all points with the training mean and scale each to norm sqrt(d).

    With ``equal_features`` each feature is first brought to variance 1 over the training points. One that is constant there, to
    rounding, becomes 0 everywhere: nothing tells how much its values on other points mean.

    Raises StageError for a single feature, for a point at the mean, and for constant targets that are to be standardised.
    """
    if data.x_train.shape[1] == 1:
        raise StageError(
            "dataset.scaling: with one feature every point would become -1 or 1 on the sphere; set scaling: none, which takes "
            "numbers as they are"
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
        _check_training(data)
        centre, spread = y_train.mean(axis=0), y_train.std(axis=0)
        spread = np.where(np.isfinite(spread), spread, np.nan)  # what overflows is to be seen, not divided to 0
        y_train, y_test = (y_train - centre) / spread, (y_test - centre) / spread
    return replace(data, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def _scaled(points: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    if not norms.all():
        raise StageError(
            "dataset: a point equals the training mean and has no direction (is the data constant?); remove it, change "
            "dataset.seed, or set dataset.scaling to none"
        )
    return points * (np.sqrt(points.shape[1]) / norms)


def _check_finite(data: Data, message: str) -> None:
    if not all(np.isfinite(values).all() for values in (data.x_train, data.x_test, data.y_train, data.y_test)):
        raise StageError(message)


def _check_training(data: Data) -> None:
    """Refuse what would make every kernel singular or every fit trivial."""
    _, count = np.unique(_rounded(data.x_train), axis=0, return_counts=True)
    if len(count) < len(data.x_train):
        repeated = int(np.sum(count[count > 1]))
        raise StageError(
            f"dataset: {repeated} of {len(data.x_train)} training points agree to ten digits with others (after scaling), so "
            "every kernel would be singular; remove duplicates, or change dataset.seed"
        )
    columns = data.y_train.reshape(len(data.y_train), -1)
    if len(still := np.flatnonzero(np.ptp(columns, axis=0) == 0)):
        which = "" if columns.shape[1] == 1 else f" number {still[0]} (counted from 0)"
        raise StageError(
            f"dataset: every training target{which} is {columns[0, still[0]]:g}; give data whose targets vary, or more points"
        )


def _rounded(points: np.ndarray) -> np.ndarray:
    """A row for every point, its direction and the logarithm of its norm: equal for points that agree to ten digits."""
    largest = np.abs(points).max(axis=1, keepdims=True)
    scaled = np.divide(points, largest, out=np.zeros_like(points), where=largest > 0)  # squares of it do not underflow
    norm = np.linalg.norm(scaled, axis=1, keepdims=True)
    direction = np.divide(scaled, norm, out=scaled, where=norm > 0)
    with np.errstate(divide="ignore"):
        size = np.log(norm) + np.log(largest)
    return np.round(np.hstack([direction, size]), 10) + 0.0  # no -0


def columns_in_file(path: str, array: str = "x") -> int:
    """Columns of a file of one's own, from its head: of a table, or of an array, x or y in an .npz file, or in its own file.

    1 if it cannot be read, which :func:`load` then explains.
    """
    try:
        if path.endswith(".csv"):
            return pd.read_csv(path, nrows=0).shape[1]
        if path.endswith(".parquet"):
            return len(pq.read_schema(path))
        if path.endswith(".npy"):
            return _second(np.load(path, mmap_mode="r", allow_pickle=False))
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return _second(arrays[array])
    except Exception:
        return 1


def _second(array: np.ndarray) -> int:
    return array.shape[1] if array.ndim > 1 else 1
