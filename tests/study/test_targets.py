"""Targets: what tells classes, whatever is drawn from it, labels in every format, and what is refused of both."""

import dataclasses
import datetime
import decimal

import numpy as np
import pandas as pd
import pytest

from ntksim.study.config.dataset import Dataset
from ntksim.study.data import dataset, targets
from ntksim.study.errors import StageError

X = np.random.default_rng(0).normal(size=(60, 3))


def data_of(file, **options):
    return dataset.load(Dataset(**({"file": str(file), "train": 20, "test": 10} | options)))


def refused(file, **options):
    with pytest.raises(StageError) as error:
        data_of(file, **options)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.fixture
def arrays(tmp_path):
    """A file of the points with the targets that it is called with."""

    def write(y):
        np.savez(tmp_path / "own.npz", x=X, y=y)
        return tmp_path / "own.npz"

    return write


@pytest.fixture(params=["csv", "parquet"])
def table(tmp_path, request):
    """A table of the points with the columns that it is called with."""

    def write(**columns):
        frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(**columns)
        path = tmp_path / f"own.{request.param}"
        frame.to_csv(path, index=False) if request.param == "csv" else frame.to_parquet(path)
        return path

    return write


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([1.0, -1.0, 1.0], True),
        ([0.5, -0.5, -0.5], True),
        ([0.0, 1.0, 1.0], False),  # a sign does not tell them
        ([1.0, -1.0, 2.0], False),
        ([[0, 1, 0], [1, 0, 0], [0, 0, 1]], True),
        ([[0, 1, 1], [1, 0, 0], [0, 0, 1]], False),
        ([[0, 1, 0], [2, 0, 0], [0, 0, 1]], False),
        ([[0, 1, 0], [1, 0, 0.5], [0, 0, 1]], False),
        ([[0, 0], [0, 1], [1, 0]], False),
    ],
)
def test_targets_that_tell_classes(y, expected):
    assert targets.encode_classes(np.array(y, dtype=np.float64)) is expected


def test_classes_are_those_of_all_points_whatever_is_drawn(arrays):
    """Signs and one-hot targets stay what they are; numbers that merely look like signs, in a draw or scaled, are none."""
    rng = np.random.default_rng(1)
    signs, hot = rng.choice([-1, 1], 60), np.eye(3)[rng.integers(3, size=60)]
    for y in (signs, 0.5 * signs, hot, hot - 1 / 3):
        file = arrays(y)
        for seed in range(20):
            data = data_of(file, seed=seed)
            assert data.are_classes
            assert set(np.unique(data.y_train)) == set(np.unique(y))
            assert set(np.unique(data.y_test)) <= set(np.unique(y))
            assert data.hash != dataclasses.replace(data, are_classes=False).hash
    nearly, several = signs.astype(float), np.stack([signs, -signs], axis=1)
    nearly[7], several[7] = 3.0, [0, 0]
    for y in (nearly, several):
        for scaling in ("none", "sphere"):
            assert not any(data_of(arrays(y), seed=seed, scaling=scaling).are_classes for seed in range(20))


def test_labels_that_are_not_named(arrays, capsys):
    """Two values are refused where they would be standardized; a few whole numbers are told; counts and the like are left."""
    for y, values in (
        (np.arange(60) % 2, (0, 1)),
        (np.arange(60) % 2 == 0, (0, 1)),
        (np.where(np.arange(60) % 2, 2.5, 7), (2.5, 7)),
    ):
        first, last = values
        assert refused(arrays(y)) == (
            f"dataset.classes: the targets take only the values {first} and {last}; list them as classes (classes: [{first}, "
            f"{last}]), or leave points and targets unscaled (scaling: none)"
        )
        assert not data_of(arrays(y), scaling="none").are_classes
        assert data_of(arrays(y), classes=[first, last]).are_classes
    assert capsys.readouterr().err == ""
    for y in (np.arange(60) % 3, 1 + np.arange(60) % 10):
        data = data_of(arrays(y))
        assert data.y_train.std() == pytest.approx(1)
        warning = capsys.readouterr().err
        assert f"the targets are the whole numbers {y.min()} to {y.max()}, and are used as real numbers; if they are" in warning
        assert len(warning.splitlines()) == 1
    for y in (np.arange(60), np.arange(60) % 30, 2 * (np.arange(60) % 3), np.arange(60) % 3 / 2, 3 + np.arange(60) % 3):
        data_of(arrays(y))
    data_of(arrays(np.arange(60) % 3), scaling="none")
    assert capsys.readouterr().err == ""


def test_words_for_missing_values_are_labels(table):
    words = np.array(["NA", "None", "null", "nan", "N/A"] * 12)
    data = data_of(table(kind=words), target="kind", classes=["NA", "None", "null", "nan", "N/A"], train=20, test=20)
    assert data.outputs == 5
    assert data.y_train.sum(axis=0) == pytest.approx(np.zeros(5), abs=1e-12)


def test_labels_that_are_missing_are_refused(table, arrays):
    words, numbers = np.array(["x", "y"] * 30, dtype=object), np.array([0.0, 1.0] * 30)
    words[[4, 9]], numbers[3] = None, np.nan
    assert "2 labels are missing, the first in row 4 of the column 'kind' (counted from 0); remove" in refused(
        table(kind=words), target="kind", classes=["x", "y"]
    )
    assert "1 labels are missing, the first in row 3 of the column 'k'" in refused(table(k=numbers), target="k", classes=[0, 1])
    assert "1 labels are missing, the first in row 3 of y" in refused(arrays(numbers), classes=[0, 1])


def test_booleans_have_the_labels_0_and_1(table, arrays):
    flags = np.arange(60) % 3 == 0
    expected = data_of(arrays(flags.astype(int)), classes=[0, 1])
    for file in (arrays(flags), table(target=flags), table(target=pd.array(flags, dtype="boolean"))):
        assert data_of(file, classes=[0, 1]).hash == expected.hash


def test_columns_that_are_neither_labels_nor_numbers(tmp_path):
    def written(values):
        pd.DataFrame(X, columns=["a", "b", "c"]).assign(d=1.5 * X[:, 0], odd=values).to_parquet(tmp_path / "own.parquet")
        return tmp_path / "own.parquet"

    days = [datetime.date(2020, 1, 1 + at % 2) for at in range(60)]
    for values, shown in (
        ([[1, 2]] * 60, "array([1, 2])"),
        (days, "datetime.date(2020, 1, 1)"),
        (pd.to_datetime(days), "Timestamp('2020-01-01 00:00:00')"),
    ):
        file = written(values)
        message = refused(file, target="odd", classes=["x", "y"])
        assert f"labels must be text or numbers, but row 0 of the column 'odd' (counted from 0) is {shown}; convert" in message
        for columns in ("odd", ["d", "odd"]):
            message = refused(file, target=columns)
            assert f"the column 'odd' does not hold numbers: row 0 (counted from 0) is {shown}; give real numbers" in message
    file = written([decimal.Decimal(at % 2) for at in range(60)])
    assert "row 0 (counted from 0) is Decimal('0'); give real numbers" in refused(file, target="odd")
    assert data_of(file, target="odd", classes=[0, 1]).are_classes
    # the row that keeps a column from being numbers
    file = written([*map(str, X[:57, 0]), "1,5", "2", "3"])
    message = refused(file, target="odd")
    assert "the column 'odd' does not hold numbers: row 57 (counted from 0) is '1,5'; list its labels in" in message


def test_a_class_without_a_training_point_is_named(table):
    kinds = np.array(["x"] * 3 + ["y"] * 30 + ["z"] * 27)
    message = refused(table(kind=kinds), target="kind", classes=["z", "x", "y"], train=6, test=6)
    assert message == (
        "dataset.train: none of the 6 training points has the class 'x', which has 3 of all 60 points; raise train or leave this "
        "class out of classes"
    )
    message = refused(table(kind=kinds), target="kind", classes=["x", "y"], train=5, test=6)
    assert message.endswith("none of the 5 training points has the class 'x', which has 3 of all 33 points; raise train")


def test_long_lists_and_labels_are_cut(arrays, tmp_path):
    message = refused(arrays(np.arange(60) % 12), classes=list(range(12)), train=1000)
    assert "but the classes [0, 1, 2, 3, 4, 5, ...] have only 60 points; lower" in message
    long = np.array(["a" * 500, "b"] * 30)
    assert len(refused(arrays(long), classes=["c" * 500, "b"])) < 400
    assert "no point has the label 1" in refused(arrays(long), classes=[1, 10**400])
