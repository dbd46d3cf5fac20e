"""Points and targets of the user's files: .npz, pairs of .npy, .csv and .parquet; and what of them is refused."""

import csv
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ntksim.engine.arguments import flattened, flattening
from ntksim.study.config.dataset import Dataset
from ntksim.study.data import targets
from ntksim.study.errors import StageError, shown
from ntksim.study.files.storage import in_pandas, parquet

_COUNTER = re.compile(r"unnamed: ?\d+|(row[ _]?)?(index|id)|level_\d+|__index_level_\d+__", re.IGNORECASE)
_SPLIT = ("x_train", "y_train", "x_test", "y_test")  # arrays of an .npz file that is split into training and test points


class Source(NamedTuple):
    """Finite points (n, d), and targets of any type, in no columns where points have none.

    ``where`` starts messages about them, ``features`` are the names of features in a table.
    """

    where: str
    x: np.ndarray
    y: pd.DataFrame
    features: list[str] | None = None


class Sources(NamedTuple):
    """What the files of a data set hold: training points, and test points unless they are to be drawn; evaluation points."""

    train: Source
    test: Source | None
    evaluation: Source | None


def sources(options: Dataset) -> Sources:
    """The points and targets that ``file``, or ``train_file`` and ``test_file``, name; and those of ``evaluation_file``.

    Raises StageError if a file cannot be used, or if the files have different features or numbers of targets.
    """
    if options.train_file is not None:
        found = Sources(_source(options, "train_file"), _source(options, "test_file"), None)
    elif options.files[0].endswith(".npz"):
        found = _of_arrays(_where(options, "file"), _arrays(options, "file"))
    else:
        found = Sources(_source(options, "file"), None, None)
    if options.evaluation_file is not None:
        if found.evaluation is not None:
            raise StageError(f"{found.evaluation.where}: stands beside dataset.evaluation_file; leave one of the two out")
        found = found._replace(evaluation=evaluation(options))
    return Sources(found.train, *(part and _matched(found.train, part) for part in found[1:]))


def evaluation(options: Dataset) -> Source | None:
    """The points of ``evaluation_file``: None without."""
    return None if options.evaluation_file is None else _source(options, "evaluation_file", has_targets=False)


def check_features(where: str, wanted: int, found: int) -> None:
    """Raise StageError unless points have as many features as those of training."""
    if found != wanted:
        raise StageError(f"{where}: its points have {found} features, but the training points have {wanted}; give them the same")


def _matched(train: Source, part: Source) -> Source:
    """Other points with the features of the training points, in their order where both stand in tables."""
    if train.features is not None and part.features is not None and train.features != part.features:
        for name in train.features:
            if name not in part.features:
                raise StageError(f"{part.where}: has no column {shown(name)}, a feature of the training points; add it")
        for name in part.features:
            if name not in train.features:
                raise StageError(f"{part.where}: has the column {shown(name)}, which the training points lack; drop it")
        part = part._replace(x=part.x[:, [part.features.index(name) for name in train.features]])
    check_features(part.where, train.x.shape[1], part.x.shape[1])
    if part.y.shape[1] not in (0, train.y.shape[1]):
        raise StageError(
            f"{part.where}: its points have {part.y.shape[1]} targets, but the training points have {train.y.shape[1]}; "
            "give them the same"
        )
    return part


def _where(options: Dataset, key: str) -> str:
    """The start of messages about a file: the configuration's key and the file's path."""
    return f"dataset.{key}: {', '.join(options.paths(key))}"


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn what the readers of the formats raise into a StageError."""
    try:
        yield
    except FileNotFoundError as error:
        key = where.partition(":")[0]
        raise StageError(
            f"{key}: {error.filename}: no such file; give a path relative to the current folder, or an absolute path"
        ) from None
    except (StageError, MemoryError):
        raise
    except Exception as error:  # a damaged file can make the readers of the four formats raise almost anything
        raise StageError(f"{where}: cannot be read ({' '.join(str(error).split())[:200]})") from None


def _source(options: Dataset, key: str, *, has_targets: bool = True) -> Source:
    """Points and targets, or points alone, of the files that a key of the configuration names."""
    where = _where(options, key)
    if options.paths(key)[0].endswith((".csv", ".parquet")):
        with _reading(where):
            frame = _table(options, where, Path(options.paths(key)[0]))
            return _columns(where, frame, options.targets if has_targets else [])
    arrays = _arrays(options, key)
    _require(where, arrays, ("x", "y") if has_targets else ("x",))
    return _checked(where, arrays["x"], arrays["y"] if has_targets else None)


def _arrays(options: Dataset, key: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, or x and y of .npy files."""
    paths = [Path(path) for path in options.paths(key)]
    with _reading(_where(options, key)):
        if paths[0].suffix == ".npy":
            return {name: np.load(path, allow_pickle=False) for name, path in zip("xy", paths, strict=False)}
        with paths[0].open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            wanted = ("x", "y") if {"x", "y"} <= set(arrays.files) else ("x", *_SPLIT)
            known = [name for name in (*wanted, "x_evaluation") if name in arrays.files]
            # others are named in messages, and may be of types that cannot be read
            return {name: arrays[name] if name in known else np.empty(0) for name in arrays.files}


def _of_arrays(where: str, arrays: dict[str, np.ndarray]) -> Sources:
    """The parts of an .npz file: x and y, or x_train, y_train, x_test and y_test; x_evaluation beside either."""
    evaluated = _checked(where, arrays["x_evaluation"], None, "_evaluation") if "x_evaluation" in arrays else None
    if {"x", "y"} <= set(arrays) or not set(_SPLIT) & set(arrays):
        _require(where, arrays, ("x", "y"))
        return Sources(_checked(where, arrays["x"], arrays["y"]), None, evaluated)
    _require(where, arrays, _SPLIT)
    train, test = (_checked(where, arrays[f"x{part}"], arrays[f"y{part}"], part) for part in ("_train", "_test"))
    return Sources(train, test, evaluated)


def _require(where: str, arrays: dict[str, np.ndarray], names: Sequence[str]) -> None:
    if not set(names) <= set(arrays):
        wanted = f"arrays {', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else f"an array {names[0]}"
        raise StageError(f"{where}: expected {wanted}, found {', '.join(map(shown, list(arrays)[:8])) or 'none'}")


def _checked(where: str, x: np.ndarray, y: np.ndarray | None, part: str = "") -> Source:
    """Arrays as a source; ``part`` ends their names, such as _train."""
    name_x, name_y = f"x{part}", f"y{part}"
    if x.ndim in (3, 4) and x.size:
        print(f"ntksim: note: {where}: {flattening(x.shape)}", file=sys.stderr)
        x = flattened(x)
    points_fit = x.ndim == 2 and 0 not in x.shape
    if y is None and not points_fit:
        raise StageError(f"{where}: expected {name_x} of shape (points, features); got {x.shape}")
    if y is not None and (not points_fit or y.ndim not in (1, 2) or len(y) != len(x) or 0 in y.shape):
        raise StageError(
            f"{where}: expected {name_x} of shape (points, features) and {name_y} of shape (points,) or (points, targets); "
            f"got {x.shape} and {y.shape}"
        )
    if x.dtype.kind not in "fiub":
        raise StageError(f"{where}: {name_x} must hold real numbers; got {x.dtype}")
    if y is not None and y.dtype.kind not in "fiubU":
        raise StageError(f"{where}: {name_y} must hold real numbers or text labels; got {y.dtype}")
    points = targets.finite(where, "values", named(name_x, x))
    return Source(where, points, pd.DataFrame(index=range(len(points))) if y is None else named(name_y, y))


def named(name: str, array: np.ndarray) -> pd.DataFrame:
    """An array as a data frame whose columns are named in NumPy notation, such as x[:, 2]. A vector becomes one column."""
    frame = pd.DataFrame(array)
    return frame.set_axis([name] if frame.shape[1] == 1 else [f"{name}[:, {j}]" for j in range(frame.shape[1])], axis=1)


def _table(options: Dataset, where: str, path: Path) -> pd.DataFrame:
    """Read a table without pandas' silent changes to it.

    Pandas would rename columns that have no name or a repeated name; such files are refused. It would also read labels such as
    NA and null as missing values; here they stay text.
    """
    if path.suffix == ".parquet":
        table = parquet(path.read_bytes())
        _check_names(where, table.column_names)
        return in_pandas(table)
    names = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].tolist()
    _check_separator(where, path, names)
    _check_names(where, names)
    frame = pd.read_csv(path, low_memory=False)
    if not isinstance(frame.index, pd.RangeIndex):
        raise StageError(f"{where}: rows have more values than the header has names; give each column a name")
    target = options.targets[0]
    if options.classes is not None and target in frame.columns:
        # NA, None and null are ordinary labels
        labels = pd.read_csv(path, usecols=[target], keep_default_na=False, na_values=[""], low_memory=False)
        frame[target] = labels[target]
    return frame


def _check_separator(where: str, path: Path, names: list[str]) -> None:
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
            f"{where}: its columns are separated by {shown(separator)}{decimals}; write it with commas between columns "
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


def _check_names(where: str, names: list[str]) -> None:
    if "" in names:
        raise StageError(
            f"{where}: column {names.index('')} (counted from 0) has no name, like the index column that frame.to_csv() "
            "writes; write the file with index=False, or give the column a name"
        )
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise StageError(f"{where}: two columns are named {shown(repeated[0])}; rename or drop one")


def _columns(where: str, frame: pd.DataFrame, names: list[str]) -> Source:
    """A table as a source; ``names`` are its target columns."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        known = ", ".join(map(shown, frame.columns[:8]))
        raise StageError(f"dataset.target: {where} has no column {missing[0]!r}; its first columns are {known}")
    features = frame.drop(columns=names)
    if features.shape[1] == 0 or frame.empty:
        beside = f" in addition to {', '.join(map(repr, names))}" if names else ""
        raise StageError(f"{where}: expected rows, and feature columns{beside}")
    not_numeric = [str(c) for c in features.columns if not pd.api.types.is_numeric_dtype(features[c])]
    if not_numeric:
        first = features[not_numeric[0]].astype(str)
        if (with_comma := first.str.fullmatch(targets.DECIMAL_COMMA)).any():
            raise StageError(
                f"{where}: the column {shown(not_numeric[0])} has decimal commas, such as "
                f"{shown(first[with_comma].iloc[0])}; write numbers with decimal points, for example with "
                "pandas.read_csv(file, decimal=',').to_csv(file, index=False)"
            )
        raise StageError(f"{where}: these columns are not numbers: {', '.join(map(shown, not_numeric[:8]))}; drop or encode them")
    for name in features:
        _check_row_numbers(where, str(name), features[name].to_numpy(np.float64, na_value=np.nan))
    points, y = (part.rename(columns=lambda name: f"the column {shown(name)}") for part in (features, frame[names]))
    return Source(where, targets.finite(where, "values", points), y, list(map(str, features.columns)))


def _check_row_numbers(where: str, name: str, values: np.ndarray) -> None:
    """Refuse a column that has increasing whole numbers and the name of an index; warn about one with row numbers only."""
    steps = np.diff(values)
    if len(steps) == 0 or not (values == np.round(values)).all() or not (steps > 0).all():
        return
    counts = f"{where}: the column {shown(name)} counts up with the rows, from {values[0]:g} to {values[-1]:g}, "
    if _COUNTER.fullmatch(name):
        raise StageError(f"{counts}and has the name of an index; drop it, or rename it if it is a feature")
    if (steps == 1).all():
        print(f"{counts}and is used as a feature; drop it if it only numbers the rows", file=sys.stderr)
