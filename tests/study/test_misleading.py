"""Input that is easily misread is refused, or gives a warning, in one line with a remedy. Also: descriptions of the scaling."""

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import yaml

import ntksim
import studies
from ntksim import cli
from ntksim.study.config.dataset import Dataset
from ntksim.study.config.study import load_study
from ntksim.study.config.yaml_text import read_yaml
from ntksim.study.data import dataset as datasets
from ntksim.study.data.treatment import remarks, treatment
from ntksim.study.errors import ConfigError, StageError
from ntksim.study.plan.cost import NOMINAL
from ntksim.study.report import summary
from ntksim.study.report.page import write_html

X = np.random.default_rng(0).normal(size=(20, 3))
FRAME = pd.DataFrame(X, columns=["a", "b", "target"])


def data_of(file=None, **options):
    own = {"file": str(file)} if file else {}
    return datasets.load(Dataset(**(own | {"train": 10, "test": 5} | options)))


def refused(file, **options):
    with pytest.raises(StageError) as error:
        data_of(file, **options)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


# --- the configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "networks:\n  relu_1: {depth: 1}\n  tanh: {depth: 1}\n  relu_1: {depth: 2}\n",
            "'relu_1' is there twice, in lines 2 and 4",
        ),
        ("precision: float64\ndevice: cpu\nprecision: float32\n", "'precision' is there twice, in lines 1 and 3"),
        ("dataset: {train: 5, test: 3, train: 6}\n", "'train' is there twice, in line 1"),
        ("dataset:\n  - 'a': 1\n    a: 2\n", "'a' is there twice, in lines 2 and 3"),
    ],
)
def test_a_repeated_key_is_named_with_its_lines(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_study(tmp_path / "c.yaml")
    assert str(error.value).startswith(f"{tmp_path / 'c.yaml'}: the key {message}, and one would replace the other; rename or")


def test_merged_mappings_may_repeat_keys():
    assert read_yaml("a: &a {p: 1, q: 2}\nb: &b {<<: *a, p: 3}\nc: {<<: [*a, *b], q: 4}") == {
        "a": {"p": 1, "q": 2}, "b": {"p": 3, "q": 2}, "c": {"p": 1, "q": 4},
    }  # fmt: skip


def test_numbers_with_exponents_are_numbers():
    found = read_yaml("[1e-5, 1E5, +2e3, -1.5e3, .5e1, 1e400, '1e5', 1e, 0x1e5, 1.0e-1]")
    assert found == [1e-5, 100000, 2000, -1500.0, 5.0, float("inf"), "1e5", "1e", 0x1E5, 0.1]
    assert isinstance(found[1], int)


def test_a_study_accepts_such_numbers_for_every_key(tmp_path):
    (tmp_path / "c.yaml").write_text("""
dataset: {name: gaussian, features: 1e1, train: 1E1, test: 5, target_scale: 5e-1}
networks: {n: {activation: relu, depth: 1, sigma_b: 1e-2, output_scale: [1e-1, 1e0]}}
initial: {widths: [1e3, 2E3], seeds: 1e1}
training: {widths: [1e2], seeds: 2, relative_time: 1e2, tolerance: 1e-5, layer_rates: [1e-12, 1]}
shard_minutes: 1e-3
""")
    study = load_study(tmp_path / "c.yaml")
    assert study.initial.widths == [1000, 2000]
    assert study.training.tolerance == 1e-5
    assert study.dataset.target_scale == 0.5
    assert study.networks["n_scale_0p1"].sigma_b == 0.01


# --- the files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Unnamed: 0", "index", "Id", "ID", "row_id"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_that_number_the_rows_are_refused(tmp_path, name, suffix, capsys):
    path = tmp_path / f"own.{suffix}"

    def write(values, name=name):
        frame = FRAME.assign(**{name: values})
        frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)

    for numbers in (np.arange(20), np.arange(1, 21), 3 * np.arange(20.0)):
        write(numbers)
        counts = f"the column '{name}' counts up with the rows, from {numbers[0]:g} to {numbers[-1]:g}, "
        assert f"{counts}and has the name of an index" in refused(path)
    write(np.arange(20) % 7)
    assert data_of(path).x_train.shape == (10, 3)
    write(np.arange(20), "day")
    assert data_of(path).x_train.shape == (10, 3)
    assert "the column 'day' counts up with the rows, from 0 to 19, and is used as a feature" in capsys.readouterr().err


def test_other_separators_and_decimal_commas_are_refused(tmp_path):
    path = tmp_path / "own.csv"
    for mark in ";\t|":
        FRAME.to_csv(path, index=False, sep=mark)
        message = refused(path)
        assert f"its columns are separated by {mark!r}; write it with commas between columns" in message
        assert f"pandas.read_csv(file, sep={mark!r}).to_csv(file, index=False)" in message
    FRAME.to_csv(path, index=False, sep=";", decimal=",")
    assert "separated by ';', and its numbers have decimal commas; write it with" in refused(path)
    pd.read_csv(path, sep=";", decimal=",").to_csv(path, index=False)  # as the message says
    assert data_of(path).x_train.shape == (10, 2)
    for decimal in ".,":  # the header also has a comma
        FRAME.rename(columns={"a": "a,1"}).to_csv(path, index=False, sep=";", decimal=decimal)
        message = refused(path)
        assert "its columns are separated by ';'" in message
        assert ("its numbers have decimal commas" in message) == (decimal == ",")
    for name in ("a;1", "a\t1|"):  # a separator character in a name
        FRAME.rename(columns={"a": name}).to_csv(path, index=False)
        assert data_of(path).x_train.shape == (10, 2)
    FRAME.to_csv(path, index=False, decimal=",")
    assert "the column 'a' has decimal commas, such as '0,1" in refused(path)
    FRAME.astype({"target": str}).assign(target=lambda f: f["target"].str.replace(".", ",")).to_csv(path, index=False)
    assert "does not hold numbers: row 0" in refused(path)
    assert refused(path).endswith("or give numbers with decimal points in place of commas")
    FRAME.assign(target=[" -1,5e3"] * len(FRAME)).to_csv(path, index=False)  # as for features
    assert refused(path).endswith("or give numbers with decimal points in place of commas")


def test_images_are_flattened_with_a_note(tmp_path, capsys):
    x = np.random.default_rng(2).normal(size=(20, 4, 5))
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(20.0))
    np.savez(tmp_path / "flat.npz", x=x.reshape(20, 20), y=np.arange(20.0))
    found = data_of(tmp_path / "own.npz")
    assert "dataset.file: " in (said := capsys.readouterr().err)
    assert "images of shape (4, 5) are flattened to 20 features each" in said
    np.testing.assert_array_equal(found.x_train, data_of(tmp_path / "flat.npz").x_train)


def test_small_points_are_not_taken_for_duplicates(tmp_path):
    path = tmp_path / "own.npz"
    y = np.arange(20.0) ** 2
    for size in (1e-12, 1e-200, 1e200):
        np.savez(path, x=size * X, y=y)
        assert (data_of(path, scaling="none").x_train < 2.5 * size).all()
        repeated = size * np.where(np.arange(20)[:, None] < 10, X, np.roll(X, 10, axis=0) * (1 + 1e-13))
        np.savez(path, x=repeated, y=y)
        assert "training points equal another one to ten digits" in refused(path, scaling="none", train=15)
    # points in one direction with different norms
    np.savez(path, x=np.outer(10.0 ** -np.arange(20), [1.0, 1.0]), y=y)
    assert data_of(path, scaling="none").x_train.shape == (10, 2)


def test_one_feature_cannot_be_scaled_to_the_sphere(tmp_path):
    np.savez(tmp_path / "own.npz", x=X[:, :1], y=X[:, 1])
    for scaling in (None, "sphere", "standardize"):
        assert "with one feature every point would become -1 or 1 on the sphere; set scaling: none" in refused(
            tmp_path / "own.npz", scaling=scaling
        )
    assert data_of(tmp_path / "own.npz", scaling="none").x_train.shape == (10, 1)


# --- scaling of points and targets ------------------------------------------------------------------------------------


def test_standardized_features_have_equal_variance(tmp_path):
    """Compared with a computation by hand. A feature that is constant on the training points is 0 on test points too."""
    x = np.hstack([X * [1, 1e3, 1e-9] + [0, 5, 7e-8], np.full((20, 1), 0.1)])
    np.savez(tmp_path / "own.npz", x=x, y=X[:, 0])
    raw, made = (data_of(tmp_path / "own.npz", scaling=scaling) for scaling in ("none", "standardize"))
    spread = np.append(raw.x_train[:, :3].std(axis=0), np.inf)
    for before, after in ((raw.x_train, made.x_train), (raw.x_test, made.x_test)):
        scaled = (before - raw.x_train.mean(axis=0)) / spread
        assert after == pytest.approx(scaled * 2 / np.linalg.norm(scaled, axis=1, keepdims=True), rel=1e-7)
    assert made.y_train.std() == pytest.approx(1)
    np.savez(tmp_path / "own.npz", x=x * [1e-4, 30, 1e6, 0], y=X[:, 0])  # units of features do not matter
    assert data_of(tmp_path / "own.npz", scaling="standardize").x_train == pytest.approx(made.x_train, rel=1e-7)
    changed = made.x_test.copy()
    x[:, 3] = np.where(np.isin(x[:, 0], raw.x_train[:, 0]), 0.1, 1e6)
    np.savez(tmp_path / "own.npz", x=x, y=X[:, 0])
    assert data_of(tmp_path / "own.npz", scaling="standardize").x_test == pytest.approx(changed, rel=1e-7)


@pytest.mark.parametrize(
    ("options", "which", "share"),
    [
        ({"name": "wine", "classes": [0, 1]}, "feature 12 holds", (0.94, 0.99)),
        ({"name": "wine"}, "feature 12 holds", (0.92, 0.99)),
        ({"name": "breast_cancer"}, "features 3, 23 hold", (0.96, 0.99)),
    ],
)
def test_dominant_features_give_a_warning(options, which, share):
    data = data_of(**options, train=60, test=30)
    (remark,) = remarks(data)
    squares = np.square(data.x_train).sum(axis=0)
    found = np.sort(squares)[::-1][: len(which.split(","))].sum() / squares.sum()
    assert share[0] < found < share[1]
    assert f"{which} {found:.1%} of the points' squared norm" in remark
    assert remark.endswith("dataset.scaling: standardize gives all features the same variance")
    assert remarks(data_of(**options, train=60, test=30, scaling="standardize")) == []


def test_other_data_sets_give_no_warning():
    for options in ({"name": "iris"}, {"name": "digits"}, {"name": "diabetes"}, {"name": "circle"}):
        assert remarks(data_of(**options, train=40, test=20)) == []


def test_standardized_features_improve_the_accuracy_on_wine():
    """Accuracy of kernel regression with the infinite-width kernel, over ten splits."""
    accuracy = {}
    for scaling in ("sphere", "standardize"):
        right = []
        for seed in range(10):
            data = data_of(name="wine", train=118, test=60, seed=seed, scaling=scaling)
            kernel = ntksim.infinite_kernel(ntksim.Network(1, 8, sigma_w=2**0.5, sigma_b=0.1), data.x_train).ntk
            across = ntksim.infinite_kernel(ntksim.Network(1, 8, sigma_w=2**0.5, sigma_b=0.1), data.x_test, data.x_train).ntk
            found = across @ np.linalg.solve(kernel, data.y_train)
            right.append(np.mean(found.argmax(axis=1) == data.y_test.argmax(axis=1)))
        accuracy[scaling] = np.mean(right)
    assert accuracy["sphere"] < 0.9
    assert accuracy["standardize"] > 0.96


@pytest.mark.parametrize(
    ("options", "points", "targets"),
    [
        ({"name": "circle"}, "used unchanged (scaling: none)", "x_1 x_2"),
        ({"name": "wine", "classes": [2, 0]}, "centred with the training mean, and each scaled to norm sqrt(13)",
         "class 2 is -1, class 0 is +1"),
        ({"name": "digits", "train": 30, "test": 20, "target_scale": 2.5}, "scaled to norm sqrt(64)",
         "10 classes, one-hot vectors minus 1/10, times 2.5"),
        ({"name": "diabetes"}, "sqrt(10)", "real numbers, scaled to mean 0 and variance 1 over the training points"),
        ({"name": "diabetes", "scaling": "none"}, "used unchanged", "real numbers, used unchanged"),
        ({"name": "digits", "classes": [4, 9], "scaling": "standardize"}, "variance 1 over the training points (19 constant",
         "class 4 is -1"),
    ],
)  # fmt: skip
def test_the_scaling_is_described(options, points, targets):
    options = Dataset(**({"train": 10, "test": 5} | options))
    first, second = treatment(options, datasets.load(options))
    assert points in first
    assert targets in second


def test_plan_and_summary_describe_the_scaling(tmp_path, capsys, monkeypatch):
    """The plan describes the data that it reads. Summary and page use the metadata of the tables."""
    monkeypatch.setattr("ntksim.study.plan.calibration.measured", lambda: NOMINAL)
    dataset = {"name": "wine", "classes": [0, 2], "train": 8, "test": 4}
    studies.command(tmp_path, studies.TINY | {"dataset": dataset})
    assert cli.main(["plan", str(tmp_path / "config.yaml")]) == 0
    said = capsys.readouterr()
    points = "Points: centred with the training mean, and each scaled to norm sqrt(13) (scaling: sphere)"
    for line in (points, "Targets: class 0 is -1, class 2 is +1"):
        assert line in said.out.splitlines()
    assert said.err.startswith("ntksim: warning: feature 12 holds 9")
    study = studies.computed(studies.TINY | {"dataset": dataset}, tmp_path / "results")
    text = summary.summary(study.results)
    assert points in text.splitlines()
    assert "\nWarning: feature 12 holds 9" in text
    write_html(study.results, tmp_path / "page.html")
    assert points in (tmp_path / "page.html").read_text()


def test_a_plan_with_unusable_data_is_an_error(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(studies.TINY | {"dataset": {"file": "none.csv", "train": 5, "test": 3}}))
    assert cli.main(["plan", str(tmp_path / "c.yaml")]) == 2
    assert capsys.readouterr().err == (
        "ntksim: error: dataset.file: none.csv: no such file; give a path relative to the current folder, or an absolute path\n"
    )


def test_dominance_of_features_in_the_documentation():
    """Shares of single features in the squared distances from the mean, before any scaling, as the documentation gives them."""
    wine, cancer = (
        np.sort(load().data.var(axis=0))[::-1] for load in (sklearn.datasets.load_wine, sklearn.datasets.load_breast_cancer)
    )
    assert wine[0] / wine.sum() == pytest.approx(0.998, abs=1e-3)
    assert cancer[:2].sum() / cancer.sum() == pytest.approx(0.990, abs=2e-3)
