"""Data sets: points with one target or several, from scikit-learn, from files of one's own, or synthetic."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from ntksim.study.dataset_options import Dataset
from ntksim.study.errors import DamagedFile, StageError, shown
from ntksim.study.provenance import provenance
from ntksim.study.storage import content_hash, read_arrays, write_arrays


@dataclass(frozen=True)
class Data:
    """Training and test points, (n, d) and (n*, d), with targets (n,) and (n*,), or (n, k) and (n*, k), all float64."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def hash(self) -> str:
        """Hash of every number."""
        return content_hash(self.x_train, self.y_train, self.x_test, self.y_test)

    @property
    def outputs(self) -> int:
        """Targets of a point: the outputs of its networks."""
        return math.prod(self.y_train.shape[1:])

    @property
    def are_classes(self) -> bool:
        """Whether targets tell classes: -c and c, or k numbers of which one, that of the class, is above the equal others."""
        y = np.concatenate([self.y_train, self.y_test])
        if y.ndim == 1:
            return len(np.unique(np.abs(y))) == 1
        low, high = y.min(axis=1, keepdims=True), y.max(axis=1, keepdims=True)
        one_each = np.all((y == high).sum(axis=1) == 1) and np.all((y == low) | (y == high))
        return bool(one_each and np.ptp(low) == np.ptp(high) == 0)


def load(options: Dataset) -> Data:
    """The data set of a configuration: selected, split and scaled.

    Two classes become the targets -1 and +1; k > 2 become k targets, one-hot vectors less 1 / k, which for ten are the -0.1
    and 0.9 of Lee et al. (2019). Both parts have the classes in their own proportions. Other targets are real numbers.
    ``scaling: sphere`` centres the points with the training mean, brings each to the norm sqrt(features), and brings each
    real-valued target to mean 0 and variance 1 over the training points. ``target_scale`` multiplies targets at the end.

    Raises StageError for data that cannot be used; the message names the key of the configuration and the remedy.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # looked for at the end
            data = _chosen(options)
            if options.scaling_or_default == "sphere":
                data = on_sphere(data, standardize_targets=options.classes_or_default is None)
            if options.target_scale != 1:
                data = replace(data, **{name: options.target_scale * getattr(data, name) for name in ("y_train", "y_test")})
            _check_training(data)
    except MemoryError:
        raise StageError("dataset: more numbers than this machine's memory holds; ask for fewer points or features") from None
    return data


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
    return Data(x[:n], y[:n], x[n:], y[n:])


def _sklearn(name: str) -> tuple[np.ndarray, np.ndarray]:
    import sklearn.datasets

    loaded = getattr(sklearn.datasets, f"load_{name}")()
    return loaded.data, loaded.target


def _own(options: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, d), finite, and targets (n,) or (n, k) of any type, from the files of the key ``file``."""
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
            return _columns(options, pd.read_csv(paths[0]) if paths[0].suffix == ".csv" else pd.read_parquet(paths[0]))
    except FileNotFoundError as error:
        raise StageError(f"dataset.file: {error.filename}: no such file; give the path from the folder you run in") from None
    except (StageError, MemoryError):
        raise
    except Exception as error:  # whatever the readers of four formats make of bytes that are none of them
        raise StageError(f"{_place(options)}: cannot be read ({' '.join(str(error).split())[:200]})") from None
    if x.ndim != 2 or y.ndim not in (1, 2) or len(y) != len(x) or 0 in (*x.shape, *y.shape):
        raise StageError(
            f"{_place(options)}: expected x of shape (points, features) and y of shape (points,) or (points, targets); "
            f"got {x.shape} and {y.shape}"
        )
    if x.dtype.kind not in "fiub":
        raise StageError(f"{_place(options)}: x must hold real numbers; got {x.dtype}")
    return _finite(options, x), _one_axis(y)


def _columns(options: Dataset, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    missing = [name for name in options.targets if name not in frame.columns]
    if missing:
        known = ", ".join(map(shown, frame.columns[:8]))
        raise StageError(f"dataset.target: {_place(options)} has no column {missing[0]!r}; its columns begin with {known}")
    features = frame.drop(columns=options.targets)
    if features.shape[1] == 0 or frame.empty:
        raise StageError(f"{_place(options)}: expected rows with feature columns beside {', '.join(map(repr, options.targets))}")
    words = [str(c) for c in features.columns if not pd.api.types.is_numeric_dtype(features[c])]
    if words:
        raise StageError(
            f"{_place(options)}: columns that are not numbers: {', '.join(map(shown, words[:8]))}; drop or encode them"
        )
    targets = np.column_stack([frame[name].to_numpy() for name in options.targets])
    return _finite(options, features.to_numpy(np.float64, na_value=np.nan)), _one_axis(targets)


def _one_axis(y: np.ndarray) -> np.ndarray:
    """Targets (n, k); of one column (n,)."""
    return y.reshape(-1) if y.size == len(y) else y


def _place(options: Dataset) -> str:
    return f"dataset.file: {', '.join(options.files)}"


def _finite(options: Dataset, x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        raise StageError(
            f"{_place(options)}: {len(bad)} values are missing, NaN or infinite, the first in row {bad[0][0]} and feature "
            f"{bad[0][1]} (counted from 0); remove those rows or fill them in"
        )
    return x


def _split(options: Dataset, x: np.ndarray, y: np.ndarray) -> Data:
    from sklearn.model_selection import train_test_split

    classes = options.classes_or_default
    what = f"the classes {classes}" if classes else "the data"
    x, y = _labelled(options, classes, x, y) if classes else (x, _real_targets(options, y))
    if options.train + options.test > len(x):
        raise StageError(
            f"dataset.train + dataset.test = {options.train + options.test} points are asked for, but {what} have {len(x)}; "
            "ask for fewer"
        )
    try:
        parts = train_test_split(
            x, y, train_size=options.train, test_size=options.test, random_state=options.seed,
            stratify=y if classes else None,
        )  # fmt: skip
    except ValueError as error:  # such as a class with a single point
        raise StageError(f"dataset.classes: cannot be split into training and test points: {error}") from None
    y_train, y_test = (_targets_of_classes(part, len(classes)) if classes else part for part in parts[2:])
    return Data(parts[0], y_train, parts[1], y_test)


def _labelled(options: Dataset, classes: list[Any], x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points of the classes, and the place of each one's label among them."""
    if y.ndim != 1:
        raise StageError(f"{_place(options)}: classes need y of shape (points,), labels; got {y.shape}: leave classes out")
    place = np.full(len(y), -1)
    for at, label in enumerate(classes):
        mine = y == label
        if not np.any(mine):
            known = ", ".join(repr(v) for v in pd.unique(pd.Series(y)).tolist()[:10])
            raise StageError(f"dataset.classes: no point has the label {label!r}; the labels begin with {known}")
        place[mine] = at
    return x[place >= 0], place[place >= 0]


def _targets_of_classes(place: np.ndarray, count: int) -> np.ndarray:
    """-1 and +1 for two classes; for k > 2 one-hot vectors (n, k) less their mean 1 / k."""
    return 2.0 * place - 1.0 if count == 2 else np.eye(count)[place] - 1 / count


def _real_targets(options: Dataset, y: np.ndarray) -> np.ndarray:
    if y.dtype.kind not in "fiub":
        raise StageError("dataset.classes: the targets are not numbers; name their labels, or give numbers")
    y = y.astype(np.float64)
    bad = np.argwhere(~np.isfinite(y))
    if len(bad):
        row = bad[0][0]
        raise StageError(f"{_place(options)}: {len(bad)} targets are NaN or infinite, first in row {row}; remove those rows")
    return y


def on_sphere(data: Data, *, standardize_targets: bool = False) -> Data:
    """Centre all points with the training mean and scale each to norm sqrt(d).

    Raises StageError for a point at the mean, and for constant targets that are to be standardised.
    """
    mean = data.x_train.mean(axis=0)
    x_train, x_test = (_scaled(points - mean) for points in (data.x_train, data.x_test))
    y_train, y_test = data.y_train, data.y_test
    if standardize_targets:
        _check_training(data)
        centre, spread = y_train.mean(axis=0), y_train.std(axis=0)
        y_train, y_test = (y_train - centre) / spread, (y_test - centre) / spread
    return Data(x_train, y_train, x_test, y_test)


def _scaled(points: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    if not norms.all():
        raise StageError(
            "dataset: a point equals the training mean and has no direction (is the data constant?); remove it, change "
            "dataset.seed, or set dataset.scaling to none"
        )
    return points * (np.sqrt(points.shape[1]) / norms)


def _check_training(data: Data) -> None:
    """Refuse numbers that overflow when scaled, and what would make every kernel singular or every fit trivial."""
    if not all(np.isfinite(values).all() for values in (data.x_train, data.x_test, data.y_train, data.y_test)):
        raise StageError("dataset: points or targets overflow when centred and scaled; bring them to ordinary sizes in the file")
    _, place, count = np.unique(np.round(data.x_train, 10), axis=0, return_index=True, return_counts=True)
    if len(place) < len(data.x_train):
        repeated = int(np.sum(count[count > 1]))
        raise StageError(
            f"dataset: {repeated} of {len(data.x_train)} training points repeat others (after scaling), so every kernel "
            "would be singular; remove duplicates, or change dataset.seed"
        )
    columns = data.y_train.reshape(len(data.y_train), -1)
    if len(still := np.flatnonzero(np.ptp(columns, axis=0) == 0)):
        which = "" if columns.shape[1] == 1 else f" number {still[0]} (counted from 0)"
        raise StageError(
            f"dataset: every training target{which} is {columns[0, still[0]]:g}; give data whose targets vary, or more points"
        )


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


def write(path: str | Path, data: Data) -> None:
    """Write a data set as .npz, atomically."""
    identity = {"stage": "dataset", "dataset": data.hash}
    metadata = {"identity": identity, "provenance": provenance()}
    write_arrays(path, metadata, x_train=data.x_train, y_train=data.y_train, x_test=data.x_test, y_test=data.y_test)


def read(path: str | Path) -> Data:
    """Read a data set. Raises StageError for a file that is missing or damaged."""
    arrays = read_arrays(path)
    try:
        return Data(**arrays)
    except TypeError:
        raise DamagedFile(f"{path}: not a data set of ntksim; delete it and run the study again") from None
