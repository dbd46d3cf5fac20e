"""Points that are chosen and targets that are given: splits of one's own, evaluation points, grids, densities, noise."""

import math
import shlex

import numpy as np
import pandas as pd
import pytest

from ntksim import cli
from ntksim.study.config import headers
from ntksim.study.config.dataset import Dataset
from ntksim.study.config.study import parse_study
from ntksim.study.config.words import word
from ntksim.study.data import dataset
from ntksim.study.data.treatment import treatment
from ntksim.study.errors import ConfigError, StageError

REST = {"networks": {"a": {"depth": 1, "activation": "relu"}}, "initial": {"widths": [8], "seeds": 2}}
NAMES = ("x_train", "y_train", "x_test", "y_test")


def data_of(**options):
    return dataset.load(Dataset(**options))


def circle(**options):
    return data_of(**({"name": "circle", "train": 16, "test": 8} | options))


def refused(message, **options):
    """A configuration that is refused in one line, by the models or when the data are loaded."""
    with pytest.raises((ConfigError, StageError), match=message) as error:
        dataset.load(parse_study({"dataset": options, **REST}).dataset)
    assert len(str(error.value).splitlines()) == 1


@pytest.fixture
def split(tmp_path, monkeypatch):
    """The arrays of a split, and a folder with it in every format."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 9), ("test", 5)):
        x, y = rng.normal(size=(count, 3)), rng.normal(size=count)
        arrays |= {f"x_{part}": x, f"y_{part}": y}
        np.savez(f"{part}.npz", x=x, y=y)
        np.save(f"x_{part}.npy", x)
        np.save(f"y_{part}.npy", y)
        frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(target=y)
        frame.to_csv(f"{part}.csv", index=False)
        frame[["c", "target", "a", "b"]].to_parquet(f"{part}.parquet")  # columns are told by their names
    np.savez("split.npz", **arrays)
    return arrays


def written(name, **arrays):
    np.savez(name, **arrays)
    return name


# Splits of one's own


FORMATS = [
    {"file": "split.npz"},
    {"train_file": "train.npz", "test_file": "test.npz"},
    {"train_file": "train.csv", "test_file": "test.csv"},
    {"train_file": "train.csv", "test_file": "test.parquet"},
    {"train_file": ["x_train.npy", "y_train.npy"], "test_file": "test.npz"},
]


@pytest.mark.parametrize("options", FORMATS)
def test_a_split_gives_exactly_its_numbers(split, options, tmp_path):
    """All points if nothing is said, else the first; and through the command of a job, which is told how many there are."""
    data = data_of(**options, scaling="none")
    assert all((getattr(data, name) == split[name]).all() for name in NAMES)
    some = data_of(**options, scaling="none", train=4, test=3)
    assert all((getattr(some, name) == split[name][: len(getattr(some, name))]).all() for name in NAMES)
    assert (len(some.y_train), len(some.y_test)) == (4, 3)
    own = Dataset(**options, scaling="none")
    assert (own.train, own.test) == (9, 5)
    assert '"train":9,"test":5' in word(own)
    assert cli.main(["dataset", "--dataset", *shlex.split(word(own)), "--output", "out.npz"]) == 0
    assert dataset.read(tmp_path / "out.npz").hash == data.hash


def test_scaling_is_fitted_to_the_training_points(split):
    """Written out here for the points of training, test and evaluation."""
    data = data_of(file=written("all.npz", **split, x_evaluation=2 * split["x_test"]), scaling="standardize")
    mean, spread = split["x_train"].mean(axis=0), split["x_train"].std(axis=0)
    for found, points in ((data.x_test, split["x_test"]), (data.x_evaluation, 2 * split["x_test"])):
        scaled = (points - mean) / spread
        assert np.allclose(found, scaled * np.sqrt(3) / np.linalg.norm(scaled, axis=1)[:, None], rtol=1e-13)
    assert np.allclose(data.y_test, (split["y_test"] - split["y_train"].mean()) / split["y_train"].std(), rtol=1e-13)
    assert data.y_evaluation is None


def test_the_points_of_a_split_count_from_its_headers(split):
    assert [headers.rows(f"train.{kind}", "x") for kind in ("npz", "csv", "parquet")] == [9] * 3
    assert [headers.columns(f"train.{kind}", "x") for kind in ("npz", "csv", "parquet")] == [3, 4, 4]
    assert [headers.rows("split.npz", name) for name in NAMES] == [9, 9, 5, 5]
    assert headers.rows("none.npz", "x") is headers.rows("split.npz", "x") is None
    np.save("images.npy", np.zeros((4, 3, 5)))
    assert headers.columns("images.npy") == 15


def test_classes_of_a_split(split):
    labels = np.array(["a", "b", "c"] * 3)
    written("train.npz", x=split["x_train"], y=labels)
    written("test.npz", x=split["x_test"], y=labels[[0, 0, 1, 0, 2]])
    files = {"train_file": "train.npz", "test_file": "test.npz", "scaling": "none"}
    data = data_of(**files, classes=["b", "a"], train=6, test=4)
    assert data.are_classes
    assert data.y_train.tolist() == [1, -1] * 3
    assert data.y_test.tolist() == [1, 1, -1, 1]
    assert (data.x_test == split["x_test"][:4]).all()
    assert data_of(**files, classes=["a", "b", "c"]).y_train == pytest.approx(np.tile(np.eye(3) - 1 / 3, (3, 1)), abs=1e-15)
    refused(r"train: 9 points are asked for \(all .*\), but train.npz has only 6 of the classes \['b', 'a'\]; lower it", **files,
            classes=["b", "a"])  # fmt: skip
    refused("none of the 2 training points has the class 'c', which has 3 of all 9 points", **files, classes=list("abc"), train=2)


def test_evaluation_points_of_every_format(split):
    points = split["x_test"] + 1
    written("e.npz", x=points)
    np.save("e.npy", points)
    frame = pd.DataFrame(points, columns=["a", "b", "c"])
    frame[["b", "c", "a"]].to_csv("e.csv", index=False)
    frame.to_parquet("e.parquet")
    for name in ("e.npz", "e.npy", "e.csv", "e.parquet"):
        data = data_of(train_file="train.csv", test_file="test.csv", evaluation_file=name, scaling="none")
        assert (data.x_evaluation == points).all()
        assert data.y_evaluation is None
        assert data.hash != data_of(train_file="train.csv", test_file="test.csv", scaling="none").hash
    assert (data_of(file="train.npz", train=4, test=3, evaluation_file="e.npz", scaling="none").x_evaluation == points).all()
    own = data_of(name="gaussian", features=3, train=4, test=3, evaluation_file="e.npy", formula="x1^2 - x3", noise=1.0)
    assert own.y_evaluation == pytest.approx(points[:, 0] ** 2 - points[:, 2], rel=1e-15)
    dataset.write("out.npz", own)
    assert dataset.read("out.npz").hash == own.hash


BAD_FILES = {
    "one file": ({"train_file": "train.npz"}, "dataset: test_file: train_file needs it; give both, or file"),
    "the other": ({"test_file": "train.npz"}, "dataset: train_file: test_file needs it"),
    "both": ({"file": "split.npz", "train_file": "train.npz", "test_file": "test.npz"}, "give either file, or train_file and"),
    "a name too": ({"name": "iris", "train_file": "train.npz", "test_file": "test.npz"}, "give either name .* and not both"),
    "a format": ({"train_file": "train.txt", "test_file": "test.npz"}, "train_file: expected one .npz, .csv or .parquet file"),
    "a pair": ({"file": "split.npz", "evaluation_file": ["a.npy"]}, r"evaluation_file: expected the path of one .npz, .npy, "),
    "no file": ({"train_file": "train.npz", "test_file": "none.npz"},
                "dataset.test: expected a number, since none.npz is missing, damaged or without an array x, got None; it is: "),
    "nothing": ({"train_file": "train.npz", "test_file": "none.npz", "test": 3}, "dataset.test_file: none.npz: no such file"),
    "no points": ({"file": "train.npz", "test": 3}, r"dataset.train: this key is missing; add it \(it is: training points"),
    "no array": ({"train_file": "train.npz", "test_file": "points.npz"}, "points.npz: expected arrays x and y, found 'x'$"),
    "no arrays": ({"file": "part.npz", "test": 3}, "expected arrays x_train, y_train, x_test and y_test, found 'x_train', 'y_"),
    "no x": ({"file": "split.npz", "evaluation_file": "part.npz"}, "evaluation_file: part.npz: expected an array x, found 'x_tr"),
    "shapes": ({"file": "shapes.npz"}, r"expected x_test of .* and y_test of .*; got \(5, 3\) and \(9,\)"),
    "features": ({"train_file": "train.npz", "test_file": "two.npz"},
                 "test_file: two.npz: its points have 2 features, but the training points have 3; give them the same"),
    "targets": ({"train_file": "train.npz", "test_file": "several.npz"}, "its points have 2 targets, but the training points"),
    "evaluation": ({"file": "split.npz", "evaluation_file": "two.npz"}, "evaluation_file: two.npz: its points have 2 features"),
    "flat": ({"file": "split.npz", "evaluation_file": "flat.npy"}, r"expected x of shape \(points, features\); got \(5,\)"),
    "NaN": ({"file": "split.npz", "evaluation_file": "nan.npz"}, "1 values are missing, NaN or infinite, the first in row 0 of"),
    "twice": ({"file": "evaluated.npz", "evaluation_file": "points.npz"}, "stands beside dataset.evaluation_file; leave one"),
    "a column": ({"train_file": "train.csv", "test_file": "other.csv"}, "other.csv: has no column 'a', a feature of the"),
    "a new one": ({"train_file": "train.csv", "test_file": "test.csv", "evaluation_file": "test.csv"},
                  "test.csv: has the column 'target', which the training points lack; drop it"),
    "a seed": ({"file": "split.npz", "seed": 1}, "dataset.seed: the points of split.npz are taken in their order; leave it out"),
    "too many": ({"file": "split.npz", "test": 6}, "dataset.test: 6 points are asked for .* split.npz has only 5; lower it"),
    "too few": ({"train_file": "single.npz", "test_file": "test.npz"}, r"dataset.train: 2 points .* at least 2.* has only 1; "),
    "of a set": ({"name": "wine", "train": 9, "test": 9, "evaluation_file": "two.npz"}, "2 features, but .* have 13"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_splits_are_refused(split, kind):
    x, y = split["x_test"], split["y_test"]
    written("points.npz", x=x)
    written("part.npz", **{name: split[name] for name in NAMES[:2]})
    written("shapes.npz", **split | {"y_test": split["y_train"]})
    written("two.npz", x=x[:, :2], y=y)
    written("several.npz", x=x, y=np.stack([y, y], axis=1))
    written("nan.npz", x=np.where(x == x[0, 1], np.nan, x))
    written("evaluated.npz", **split, x_evaluation=x)
    written("single.npz", x=x[:1], y=y[:1])
    np.save("flat.npy", y)
    pd.DataFrame(x, columns=["z", "b", "c"]).assign(target=y).to_csv("other.csv", index=False)
    options, message = BAD_FILES[kind]
    refused(message, **options)


def test_arrays_x_and_y_win_over_others(split):
    """A file that earlier versions read is read as before."""
    written("both.npz", x=split["x_train"], y=split["y_train"], x_train=np.array([{}]), y_test=np.ones(2))
    assert data_of(file="both.npz", train=4, test=3).hash == data_of(file="train.npz", train=4, test=3).hash


# Points of the circle


def test_points_without_keys_of_their_own_have_the_bits_of_earlier_versions():
    """Written out here; and no record names a key that does nothing."""
    for name, features, radius in (("circle", None, 1.0), ("sphere", 4, 2.0), ("gaussian", 3, None)):
        x = np.random.default_rng(5).normal(size=(24, features or 2))
        x *= radius / np.linalg.norm(x, axis=1, keepdims=True) if radius else 1.0
        data = data_of(name=name, features=features, train=16, test=8, seed=5)
        assert (np.concatenate([data.x_train, data.x_test]) == x).all()
        assert (np.concatenate([data.y_train, data.y_test]) == x[:, 0] * x[:, 1]).all()
    keys = ["classes", "features", "file", "name", "scaling", "seed", "target", "test", "train"]
    assert sorted(Dataset(name="circle", train=16, test=8).model_dump()) == keys


def test_evenly_spaced_points():
    data = circle(spacing="even", evaluation=12)
    assert data.angles == pytest.approx(2 * np.pi * np.arange(16) / 16, abs=1e-15)
    assert data.evaluation_angles == pytest.approx(2 * np.pi * np.arange(12) / 12, abs=1e-15)
    assert data.y_evaluation == pytest.approx(np.sin(2 * data.evaluation_angles) / 2, abs=1e-15)
    assert circle().x_evaluation is circle().evaluation_angles is None
    # the test points depend on the seed alone
    assert (circle(spacing="even", train=32).x_test == data.x_test).all()
    assert (circle(spacing="even", seed=1).x_test != data.x_test).all()
    assert data_of(name="sphere", features=3, train=4, test=3).angles is None
    assert data_of(name="gaussian", features=2, train=4, test=3).angles is None


def test_points_of_a_grid():
    """Sorted, without repetition, disjoint from test points. More training points keep the first, their noise, and the test."""
    few, many, all_ = (circle(grid=48, train=train, test=12, noise=0.3) for train in (12, 24, 36))
    places = [np.round(data.angles * 48 / (2 * np.pi)).astype(int) for data in (few, many, all_)]
    for data, own in zip((few, many, all_), places, strict=True):
        assert data.angles == pytest.approx(2 * np.pi * own / 48, abs=1e-14)
        assert (np.diff(own) > 0).all()
        assert (data.x_test == few.x_test).all()
    assert set(places[0]) < set(places[1]) < set(places[2])
    tests = np.round(np.arctan2(few.x_test[:, 1], few.x_test[:, 0]) * 48 / (2 * np.pi)) % 48
    assert {*places[2], *tests} == set(range(48))
    assert (many.y_train[np.isin(places[1], places[0])] == few.y_train).all()
    assert (circle(grid=48, train=12, test=12, seed=1).angles != few.angles).any()


def test_points_of_a_density():
    """Moments of 1 + a cos theta are E cos theta = a / 2, E sin theta = 0, E cos^2 theta = 1 / 2.

    Each mean of 20000 points is within 5 standard errors (of variance at most 1 / 2): false alarm below 6e-7 a moment.
    """
    data = circle(density="3 + 1.5 cos(theta)", train=20000)
    angles, error = data.angles, 5 * math.sqrt(0.5 / 20000)
    for found, expected in ((np.cos(angles), 0.25), (np.sin(angles), 0.0), (np.cos(angles) ** 2, 0.5)):
        assert found.mean() == pytest.approx(expected, abs=error)
    # The distribution function takes the points to those of a uniform density: both are made from the same random numbers.
    uniform = circle(density="1", train=20000).angles
    assert (angles + 0.5 * np.sin(angles)) == pytest.approx(uniform, abs=1e-8)
    more = circle(density="3 + 1.5 cos(theta)", train=20001)
    assert (more.x_train[:-1] == data.x_train).all()
    assert (more.x_test == data.x_test).all()
    half = circle(density="sin(theta)^2 * (1 + sin(theta)) * (1 - sin(theta)) + 0 x1", train=200)
    assert np.abs(half.y_train).min() > 1e-4


# Noise


def test_noise_is_on_the_training_targets_alone():
    """Its mean and variance are within 5 standard errors (false alarm 6e-7 each); it is not the numbers that made the points."""
    plain, noisy = (circle(train=10000, noise=noise, evaluation=4) for noise in (0.0, 0.25))
    noise = noisy.y_train - plain.y_train
    assert noise.mean() == pytest.approx(0, abs=5 * 0.25 / 100)
    assert noise.var() == pytest.approx(0.0625, abs=5 * 0.0625 * math.sqrt(2 / 10000))
    assert abs(np.corrcoef(noise, plain.x_train[:, 0])[0, 1]) < 0.05
    for name in ("x_train", "x_test", "y_test", "x_evaluation", "y_evaluation"):
        assert (getattr(noisy, name) == getattr(plain, name)).all()
    other = circle(train=10000, noise=0.25, noise_seed=1)
    assert (other.y_train != noisy.y_train).all()
    assert (other.x_train == noisy.x_train).all()
    assert "noise" not in Dataset(name="circle", train=4, test=3, noise=0.0).model_dump()


def test_noise_of_files_is_in_the_units_of_their_targets(split):
    plain, noisy = (data_of(file="split.npz", noise=noise, scaling="none") for noise in (0.0, 0.1))
    scaled = data_of(file="split.npz", noise=0.1)
    assert scaled.y_train == pytest.approx((noisy.y_train - noisy.y_train.mean()) / noisy.y_train.std(), rel=1e-12)
    assert scaled.y_test == pytest.approx((plain.y_test - noisy.y_train.mean()) / noisy.y_train.std(), rel=1e-12)


BAD_KEYS = [
    ({"formula": "theta", "name": "sphere", "features": 3}, "column 1: expected a number, x1 to x3, .*, got 'theta', which only"),
    (
        {"formula": "1 / (x1 - x1)"},
        r"'1 / \(x1 - x1\)' is inf at 4 of 4 points, for example at \[.*; give a formula",
    ),
    ({"formula": "2"}, "the target is 2 at every training point"),
    ({"formula": "x1", "name": "iris"}, "formula: belongs to the synthetic sets, gaussian, sphere, circle; leave it out here"),
    ({"formula": 1}, "dataset.formula: expected a valid string, got 1"),
    ({"noise": -1.0}, "dataset.noise: expected greater than or equal to 0, got -1.0"),
    ({"noise": 0.1, "name": "iris"}, "noise: is added to real targets, and these are classes; leave it out"),
    ({"noise_seed": 1}, "noise_seed: does nothing without noise; set noise above 0, or leave it out"),
    ({"spacing": "odd"}, "dataset.spacing: expected 'random' or 'even', got 'odd'"),
    ({"spacing": "even", "name": "sphere", "features": 3}, "spacing: belongs to name: circle, and to no other set; leave it out"),
    ({"grid": 6}, r"grid: expected at least train \+ test = 7 points, got 6; raise it"),
    ({"spacing": "even"}, "the target x_1 x_2 is constant at the 4 training points but for rounding, .* change train, or choose"),
    ({"grid": 9, "spacing": "even"}, "grid: spacing says already where points lie; leave one of the two out"),
    ({"grid": 9, "density": "1"}, "density: grid says already where points lie"),
    ({"density": "1", "name": "gaussian", "features": 2}, "density: belongs to name: circle"),
    ({"density": "cos(theta)"}, r"dataset.density: expected a formula of at least 0, got -1 at theta = 3.14.*; add to it"),
    ({"density": "0"}, "dataset.density: its integral over the circle is 0; expected a number above 0"),
    ({"density": "1 +"}, "dataset.density: column 4: expected a number, theta, "),
    ({"evaluation": 9, "name": "iris"}, "evaluation: belongs to name: circle, .*; evaluation_file gives"),
    ({"evaluation": 9, "evaluation_file": "e.npz"}, "evaluation: evaluation_file gives evaluation points already; leave one"),
    ({"evaluation": 0}, "dataset.evaluation: expected greater than or equal to 1, got 0"),
]


@pytest.mark.parametrize(("options", "message"), BAD_KEYS)
def test_bad_keys_are_refused(options, message):
    refused(message, **{"name": "circle", "train": 4, "test": 3} | options)


def test_noise_on_signs_of_a_file_is_refused(split):
    written("signs.npz", **split | {"y_train": np.sign(split["y_train"]), "y_test": np.sign(split["y_test"])})
    refused("dataset.noise: the targets encode classes, and noise is for real numbers; leave it out", file="signs.npz", noise=0.1)


def test_what_was_made_is_said():
    for options, lines in (
        ({"spacing": "even", "formula": "cos(theta)", "noise": 0.5, "evaluation": 5},
         ["Points: training points evenly spaced, used unchanged (scaling: none)",
          "Targets: cos(theta), with noise of standard deviation 0.5 on the training targets",
          "Evaluation points: 5, evenly spaced on the circle"]),
        ({"grid": 30, "target_scale": 2.0}, ["Points: drawn from 30 evenly spaced ones, used unchanged (scaling: none)",
                                             "Targets: x_1 x_2, times 2"]),
        ({"density": "1", "scaling": "sphere", "formula": "x1"},
         ["Points: of density 1, centred with the training mean, and each scaled to norm sqrt(2) (scaling: sphere)",
          "Targets: x1, scaled to mean 0 and variance 1 over the training points"]),
    ):  # fmt: skip
        own = Dataset(**{"name": "circle", "train": 16, "test": 8} | options)
        assert treatment(own, dataset.load(own)) == lines
