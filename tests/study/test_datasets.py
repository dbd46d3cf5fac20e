"""Data sets: those of scikit-learn, synthetic ones, the user's files, and data that are refused."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.datasets
import sklearn.model_selection
import yaml

from ntksim import cli
from ntksim.study.config import headers
from ntksim.study.config.dataset import Dataset
from ntksim.study.config.words import word
from ntksim.study.data import dataset
from ntksim.study.errors import StageError

ROOT = Path(__file__).parents[2]


def data_of(**options):
    return dataset.load(Dataset(**({"train": 6, "test": 3} | options)))


def table(rows=12, features=3):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(rows, features)), columns=[f"f{i}" for i in range(features)])
    return frame.assign(target=rng.normal(size=rows))


@pytest.fixture
def folder(tmp_path):
    """A folder with the same data in every format."""
    frame = table()
    x, y = frame.drop(columns="target").to_numpy(), frame["target"].to_numpy()
    np.savez(tmp_path / "own.npz", x=x, y=y)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    frame.to_csv(tmp_path / "own.csv", index=False)
    frame.to_parquet(tmp_path / "own.parquet")
    np.savez(tmp_path / "text.npz", x=np.tile(x, (2, 1)) + np.arange(24)[:, None], y=np.array(["4", "9", "a b"] * 8))
    return tmp_path


def test_digits_are_centred_on_the_sphere():
    options = {"name": "digits", "classes": [4, 9], "train": 64, "test": 32}
    data = data_of(**options)
    assert data.x_train.shape == (64, 64)
    assert data.x_test.shape == (32, 64)
    assert np.allclose(np.linalg.norm(np.concatenate([data.x_train, data.x_test]), axis=1), 8, rtol=1e-14)
    assert sorted(np.unique(data.y_train, return_counts=True)[1]) == [32, 32]
    assert data.hash == data_of(**options).hash != data_of(**options, seed=1).hash
    # centred before scaling: recover the raw images' mean direction
    raw = dataset.Data(np.array([[1.0, 0.0], [3.0, 2.0]]), np.ones(2), np.array([[2.0, 2.0]]), np.ones(1), True)
    centred = dataset.on_sphere(raw)
    assert np.allclose(centred.x_train, [[-1, -1], [1, 1]])
    assert np.allclose(centred.x_test, [[0, np.sqrt(2)]])


def test_the_first_class_is_minus_one():
    raw = sklearn.datasets.load_wine()
    data = data_of(name="wine", classes=[2, 0], scaling="none", train=40, test=20)
    for x, y in zip(data.x_train, data.y_train, strict=True):
        label = raw.target[np.flatnonzero((raw.data == x).all(axis=1))[0]]
        assert label == (2 if y == -1 else 0)


def test_real_targets_are_standardized_with_the_training_points():
    raw = data_of(name="diabetes", scaling="none", train=50, test=20)
    data = data_of(name="diabetes", train=50, test=20)
    assert abs(data.y_train.mean()) < 1e-14
    assert data.y_train.std() == pytest.approx(1)
    assert data.y_test == pytest.approx((raw.y_test - raw.y_train.mean()) / raw.y_train.std())


def test_several_classes_are_one_hot_vectors_minus_their_mean():
    """Ten classes become -0.1 and 0.9. Columns are in the order of the labels. The split keeps the proportions of classes."""
    raw = sklearn.datasets.load_wine()
    data = data_of(name="wine", classes=[2, 0, 1], scaling="none", train=90, test=40)
    for x, y in zip(data.x_train, data.y_train, strict=True):
        label = raw.target[np.flatnonzero((raw.data == x).all(axis=1))[0]]
        assert y == pytest.approx(np.eye(3)[[2, 0, 1].index(label)] - 1 / 3, abs=1e-15)
    assert data.outputs == 3
    assert data.are_classes
    shares = np.array([np.mean(raw.target == label) for label in (2, 0, 1)])
    assert (data.y_train > 0).mean(axis=0) == pytest.approx(shares, abs=0.02)
    ten = data_of(name="digits", train=40, test=20)
    assert ten.hash == data_of(name="digits", classes=list(range(10)), train=40, test=20).hash
    assert set(np.unique(ten.y_train)) == {-0.1, 0.9}
    assert ten.y_train.argmax(axis=1).tolist() != sorted(ten.y_train.argmax(axis=1))
    assert np.linalg.norm(ten.x_train, axis=1) == pytest.approx(np.full(40, 8.0))


def test_two_classes_have_the_same_bits_as_in_earlier_versions():
    """Split, signs and scaling of two classes are written out here; every bit must agree."""
    raw = sklearn.datasets.load_digits()
    mine = (raw.target == 4) | (raw.target == 9)
    signs = np.where(raw.target == 4, -1.0, 1.0)[mine]
    parts = sklearn.model_selection.train_test_split(
        raw.data[mine], signs, train_size=30, test_size=12, random_state=3, stratify=signs
    )
    expected = dataset.on_sphere(dataset.Data(parts[0], parts[2], parts[1], parts[3], True))
    assert data_of(name="digits", classes=[4, 9], train=30, test=12, seed=3).hash == expected.hash


def test_target_scale_multiplies_the_targets():
    for options in ({"name": "digits", "train": 12, "test": 10}, {"name": "diabetes"}, {"name": "wine", "classes": [1, 2]}):
        plain, scaled = data_of(**options), data_of(**options, target_scale=2.5)
        assert (scaled.y_train == 2.5 * plain.y_train).all()
        assert (scaled.y_test == 2.5 * plain.y_test).all()
        assert (scaled.x_train == plain.x_train).all()
        assert plain.are_classes == scaled.are_classes == (options["name"] != "diabetes")
    # a scale of 1 appears in no command and no record
    assert "target_scale" not in Dataset(name="circle", train=4, test=2, target_scale=1.0).model_dump()
    assert "target" not in word(Dataset(name="circle", train=4, test=2))


def test_several_targets_in_every_format(tmp_path):
    frame = table(14).assign(second=np.arange(14.0) ** 2)
    x, y = frame[["f0", "f1", "f2"]].to_numpy(), frame[["second", "target"]].to_numpy()
    np.savez(tmp_path / "own.npz", x=x, y=y)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    frame.to_csv(tmp_path / "own.csv", index=False)
    frame.to_parquet(tmp_path / "own.parquet")
    arrays = [data_of(file=str(tmp_path / "own.npz")), data_of(file=[str(tmp_path / "x.npy"), str(tmp_path / "y.npy")])]
    tables = [data_of(file=str(tmp_path / name), target=["second", "target"]) for name in ("own.csv", "own.parquet")]
    assert len({data.hash for data in (*arrays, *tables)}) == 1
    data = arrays[0]
    assert (data.outputs, data.y_train.shape, data.are_classes) == (2, (6, 2), False)
    assert data.y_train.mean(axis=0) == pytest.approx([0, 0], abs=1e-14)
    assert data.y_train.std(axis=0) == pytest.approx([1, 1])
    # a single column has no axis of targets
    np.savez(tmp_path / "one.npz", x=x, y=y[:, 1:])
    np.savez(tmp_path / "flat.npz", x=x, y=y[:, 1])
    assert data_of(file=str(tmp_path / "one.npz")).hash == data_of(file=str(tmp_path / "flat.npz")).hash
    assert data_of(file=str(tmp_path / "one.npz")).y_train.shape == (6,)


def test_bad_target_columns_are_refused(tmp_path):
    frame = table(14).assign(second=1.0, word="a")
    frame.drop(columns="word").to_csv(tmp_path / "own.csv", index=False)
    np.savez(tmp_path / "own.npz", x=np.random.default_rng(0).normal(size=(12, 2)), y=np.ones((12, 3)))
    np.savez(tmp_path / "none.npz", x=np.ones((12, 2)), y=np.ones((12, 0)))
    frame.to_csv(tmp_path / "words.csv", index=False)
    for options, message in (
        ({"file": "own.csv", "target": ["target", "other"]}, "dataset.target: .* has no column 'other'; its first columns are"),
        ({"file": "own.csv", "target": ["target", "second"]}, r"the target number 1 \(counted from 0\) is 1 at every training"),
        (
            {"file": "words.csv", "target": ["target", "word"]},
            "the column 'word' does not hold numbers: row 0 .* is 'a'; give real numbers",
        ),
        ({"file": "own.npz", "classes": [0, 1]}, r"need one label per point, y of shape \(points,\); got \(12, 3\)"),
        ({"file": "none.npz"}, r"y of shape \(points,\) or \(points, targets\); got \(12, 2\) and \(12, 0\)"),
    ):
        with pytest.raises(StageError, match=message) as error:
            data_of(**options | {"file": str(tmp_path / options["file"])})
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["iris", "breast_cancer"])
def test_other_scikit_learn_data_sets(name):
    data = data_of(name=name, train=20, test=10, **({"classes": [0, 2]} if name == "iris" else {}))
    assert data.x_train.shape == (20, {"iris": 4, "breast_cancer": 30}[name])
    assert set(data.y_train) == {-1, 1}


def test_synthetic_points():
    for name, features, radius in (("circle", None, 1.0), ("sphere", 5, np.sqrt(5)), ("gaussian", 5, None)):
        data = data_of(name=name, features=features, train=400, test=5)
        norms = np.linalg.norm(data.x_train, axis=1)
        if radius:
            assert norms == pytest.approx(np.full(400, radius))
        else:
            # a chi-square of 2000 degrees of freedom: within 5 standard deviations (false alarm 6e-7)
            assert abs(np.sum(norms**2) - 2000) < 5 * np.sqrt(4000)
        assert data.y_train == pytest.approx(data.x_train[:, 0] * data.x_train[:, 1])
        assert data.hash != data_of(name=name, features=features, train=400, test=5, seed=1).hash


def test_every_format_gives_the_same_data(folder):
    hashes = {
        data_of(file=str(folder / "own.npz")).hash,
        data_of(file=[str(folder / "x.npy"), str(folder / "y.npy")]).hash,
        data_of(file=str(folder / "own.parquet")).hash,
        data_of(file=str(folder / "own.csv")).hash,
    }
    assert len(hashes) == 1
    counts = [headers.columns(str(folder / f), "x") for f in ("own.npz", "x.npy", "own.csv", "own.parquet", "none.npz")]
    assert counts == [3, 3, 4, 4, 1]


def test_a_text_column_as_two_classes(tmp_path):
    frame = table(20).rename(columns={"target": "kind"})
    frame["kind"] = ["cat", "dog", "cow", "dog", "cat"] * 4
    frame.to_csv(tmp_path / "pets.csv", index=False)
    data = data_of(file=str(tmp_path / "pets.csv"), target="kind", classes=["dog", "cat"], train=10, test=4)
    assert sorted(data.y_train) == [-1] * 5 + [1] * 5


def test_the_command_line_round_trips(folder):
    """The command of the rule `dataset` makes exactly the configuration's data set, for any names of columns and labels."""
    table(features=4).set_axis(["-price", "pri{ce} $x 'q'\n", "5", "[1]", "f"], axis=1).to_csv(folder / "odd.csv", index=False)
    x = np.random.default_rng(1).normal(size=(24, 2))
    np.savez(folder / "odd_labels.npz", x=x, y=np.array(["-a", "{c}", "--train", '"', "\n", "é"] * 4))
    np.savez(folder / "tiny_labels.npz", x=x, y=np.array([-1e-07, 1e30] * 12))
    for options in (
        Dataset(name="digits", classes=[4, 9], train=8, test=4),
        Dataset(name="gaussian", features=3, train=8, test=4, seed=5),
        Dataset(file=[str(folder / "x.npy"), str(folder / "y.npy")], train=6, test=3, scaling="none"),
        Dataset(file=str(folder / "own.csv"), target="target", train=6, test=3),
        Dataset(file=str(folder / "text.npz"), classes=["4", "9"], train=6, test=3),
        Dataset(file=str(folder / "text.npz"), classes=["a b", "9"], train=6, test=3),
        Dataset(file=str(folder / "text.npz"), classes=["a b", "9", "4"], train=6, test=3, target_scale=0.1234567890123456),
        Dataset(file=str(folder / "own.csv"), target=["target", "f2"], train=6, test=3),
        Dataset(name="iris", train=6, test=3),
        Dataset(file=str(folder / "odd.csv"), target="-price", train=6, test=3),
        Dataset(file=str(folder / "odd.csv"), target="pri{ce} $x 'q'\n", train=6, test=3),
        Dataset(file=str(folder / "odd.csv"), target=["5", "[1]"], train=6, test=3, seed=3),
        Dataset(file=str(folder / "odd.csv"), target="[1]", train=6, test=3),
        Dataset(file=str(folder / "odd.csv"), target="5", train=6, test=3),
        Dataset(file=str(folder / "odd_labels.npz"), classes=["-a", "{c}", "--train", '"', "\n", "é"], train=12, test=6),
        Dataset(file=str(folder / "tiny_labels.npz"), classes=[-1e-07, 1e30], train=6, test=3),
    ):
        words = ["dataset", "--dataset", *shlex.split(word(options)), "--output", str(folder / "out.npz")]
        assert cli.main(words) == 0
        read, loaded = dataset.read(folder / "out.npz"), dataset.load(options)
        assert (read.hash, read.are_classes) == (loaded.hash, loaded.are_classes)


def broken(folder, kind):
    """Write a file with one fault, and return the options of its data set."""
    frame, path = table(), folder / "bad.csv"
    options = {"file": str(path)}
    if kind == "missing":
        return options
    if kind == "words":
        frame["f1"] = "red"
    elif kind == "nan":
        frame.loc[4, "f2"] = np.nan
    elif kind == "infinite target":
        frame.loc[2, "target"] = np.inf
    elif kind == "no such column":
        options["target"] = "label"
    elif kind == "constant":
        frame[["f0", "f1", "f2"]] = 1.0
    elif kind == "constant target":
        frame["target"] = 2.0
    elif kind == "duplicates":
        frame = pd.concat([frame.iloc[:5]] * 3)
    elif kind == "too few":
        frame = frame.iloc[:8]
    elif kind == "unknown class":
        options["classes"] = [0, 7]
    elif kind == "lone class":
        frame["target"] = [0] * 11 + [1]
        options["classes"] = [0, 1]
    elif kind == "text targets":
        frame["target"] = ["a", "b"] * 6
    elif kind == "empty":
        frame = frame.iloc[:0]
    elif kind == "one name twice":
        frame = pd.concat([frame, frame["target"]], axis=1)
    elif kind == "a feature twice":
        frame = pd.concat([frame["f1"], frame], axis=1)
    frame.to_csv(path, index=kind == "index")
    if kind == "longer rows":
        path.write_text(path.read_text().replace("f0,", "", 1))
    if kind == "binary":
        path.write_bytes(bytes(range(256)) * 8)
    if kind == "nothing":
        path.write_text("")
    return options


BAD = {
    "missing": "bad.csv: no such file",
    "words": "these columns are not numbers: 'f1'; drop or encode them",
    "nan": "1 values are missing, NaN or infinite, the first in row 4 of the column 'f2'",
    "infinite target": "1 targets are missing, NaN or infinite, the first in row 2 of the column 'target'",
    "no such column": "dataset.target: .* has no column 'label'; its first columns are 'f0', 'f1', 'f2', 'target'",
    "constant": "equals the training mean.*is the data constant",
    "constant target": "the target is 2 at every training point",
    "duplicates": "training points equal another one to ten digits .* singular; remove duplicates",
    "too few": r"dataset.train \+ dataset.test = 9, but the data have only 8 points; lower one of the two",
    "unknown class": "dataset.classes: no point has the label 0; the first labels are",
    "lone class": "dataset.classes: cannot be split",
    "text targets": r"the column 'target' does not hold numbers: row 0 .* is 'a'; list its labels in dataset.classes",
    "empty": "expected rows, and feature columns in addition to 'target'",
    "one name twice": "dataset.file: .*bad.csv: two columns are named 'target'; rename or drop one",
    "a feature twice": "dataset.file: .*bad.csv: two columns are named 'f1'; rename or drop one",
    "index": r"column 0 \(counted from 0\) has no name, like the index .* write the file with index=False, or give the column",
    "longer rows": "rows have more values than the header has names; give each column a name",
    "binary": "dataset.file: .*bad.csv: cannot be read",
    "nothing": "dataset.file: .*bad.csv: cannot be read",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_data_is_refused(tmp_path, kind):
    with pytest.raises(StageError, match=BAD[kind]) as error:
        data_of(**broken(tmp_path, kind))
    assert len(str(error.value).splitlines()) == 1


def test_a_parquet_table_with_a_repeated_column_name_is_refused(tmp_path):
    columns = [pa.array(table()[name]) for name in ("f0", "target", "target")]
    pq.write_table(pa.table(columns, names=["f0", "target", "target"]), tmp_path / "twice.parquet")
    with pytest.raises(StageError, match=r"twice.parquet: two columns are named 'target'; rename or drop one"):
        data_of(file=str(tmp_path / "twice.parquet"))


def test_column_names_are_not_changed(tmp_path):
    """Names that pandas might invent, such as "Unnamed: 1", are ordinary names."""
    frame = table().rename(columns={"f0": "target.1", "f1": "Unnamed: 1"})
    frame.to_csv(tmp_path / "own.csv", index=False)
    assert data_of(file=str(tmp_path / "own.csv")).x_train.shape == (6, 3)


def test_targets_that_overflow_are_refused(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(12, 2)), np.linspace(-1, 1, 12)
    for size, scale, message in (
        (1e305, 1e8, r"dataset.target_scale: targets overflow if multiplied by 1e\+08; lower it"),
        (1e308, 1.0, "dataset: points or targets overflow when they are centred and scaled"),
        (1e308, 1e8, "dataset: points or targets overflow when they are centred and scaled"),
    ):
        np.savez(tmp_path / "own.npz", x=x, y=size * y)
        with pytest.raises(StageError, match=message):
            data_of(file=str(tmp_path / "own.npz"), target_scale=scale, scaling="none" if size < 1e308 else None)


def test_bad_arrays_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    for arrays, message in (
        ({"x": np.ones((4, 2))}, "expected arrays x and y, found 'x'"),
        ({"x": np.ones(4), "y": np.ones(4)}, r"expected x of shape \(points, features\)"),
        ({"x": np.ones((4, 2)), "y": np.ones(3)}, r"got \(4, 2\) and \(3,\)"),
        ({"x": np.array([["a", "b"]] * 4), "y": np.ones(4)}, "x must hold real numbers"),
        ({"x": np.array([[{}]] * 4), "y": np.ones(4)}, "cannot be read"),  # pickles are not loaded
        ({"x": np.array([[1, 2]] * 3 + [[1, np.inf]]), "y": np.ones(4)}, r"the first in row 3 of x\[:, 1\] \(counted from 0\)"),
        ({"x": np.ones((4, 2)), "y": np.array([[1, 2]] * 3 + [[np.nan, 2]])}, r"the first in row 3 of y\[:, 0\] \(counted"),
        ({"x": np.ones((4, 2)), "y": np.array([1, 2, 3, np.nan])}, r"the first in row 3 of y \(counted from 0\)"),
        ({"x": np.ones((4, 2)), "y": np.ones(4) * 1j}, "y must hold real numbers or text labels; got complex128"),
        ({"x": np.ones((4, 2)), "y": np.zeros(4, "M8[s]")}, r"y must hold .*; got datetime64\[s\]"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(StageError, match=message):
            data_of(file=str(path))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(StageError, match="cannot be read"):
        data_of(file=str(path))


@pytest.mark.parametrize("kind", ["missing", "nan", "duplicates", "too few"])
def test_the_study_refuses_bad_data_before_any_job(tmp_path, kind):
    content = {
        "dataset": {"train": 6, "test": 3} | broken(tmp_path, kind),
        "networks": {"a": {"depth": 1, "activation": "relu"}},
        "initial": {"widths": [8], "seeds": 2},
        "results": str(tmp_path / "results"),
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "ntksim.cli", "study", str(tmp_path / "c.yaml")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1
    assert "dataset" in run.stderr
    assert not (tmp_path / "results").exists()
