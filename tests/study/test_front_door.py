"""Thousands of mutated configurations and data files. Each is accepted, or refused in a few lines that name the key."""

import copy
import io
import pickle
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ntksim.study.config import headers
from ntksim.study.config.dataset import Dataset
from ntksim.study.config.study import Study, load_study, parse_study
from ntksim.study.data import dataset
from ntksim.study.errors import ConfigError, StageError
from ntksim.study.plan import jobs
from ntksim.study.plan.cost import NOMINAL

GOOD = {
    "dataset": {"name": "digits", "classes": [3, 8, 1], "train": 10, "test": 6, "target_scale": 2.0},
    "networks": {
        "tanh_2": {"activation": "tanh", "depth": 2, "sigma_w": 1.5, "sigma_b": 0.1, "output_bias": True,
                   "output_scale": [0.5, 2.0]},
        "free": {"activation": "relu", "depth": 1, "parameterization": "abc",
                 "abc": dict.fromkeys(("a_input", "a_hidden", "a_output", "b_input", "b_hidden", "b_output", "c"), 0.5)},
    },
    "initial": {"widths": [16, 32], "seeds": 6},
    "training": {"method": "gradient_descent", "widths": [16], "seeds": 3, "relative_time": 5.0, "snapshots": 4,
                 "relative_learning_rate": 0.1, "momentum": 0.5, "nesterov": True, "batch_size": 4,
                 "remove_initial_output": True},
    "precision": "float32",
    "seeds_per_shard": 4,
    "results": "results",
}  # fmt: skip
OWN = GOOD | {"dataset": {"file": "own.csv", "target": ["a", "b"], "train": 10, "test": 6, "scaling": "none"}}
NEW = {
    "dataset": {"name": "circle", "train": [4, 8], "test": 6, "seed": [0, 3], "density": "1 + 0.5 cos(theta)",
                "formula": "sin(2 theta) - 0.5 cos(theta)", "noise": 0.1, "noise_seed": 1, "evaluation": 12},
    "networks": {"erf": {"activation": "erf", "depth": [1, 2], "sigma_b": 0.1}},
    "initial": {"widths": [16, 32], "seeds": 6, "dispersion": {"relative_learning_rate": 0.5}, "continuum_degrees": 4},
    "training": {"widths": [16], "seeds": 3, "steps": 40, "learning_rate": 0.5, "rate_of": "mean_square", "tolerance": 1e-3,
                 "snapshot_times": [1.0, 4.0], "ridge": 0.1,
                 "measures": {"eigenvalues": 2, "eigenvectors": 1, "modes": {"frequencies": [1, 2]}, "couplings": True,
                              "regression": True, "profile": True, "predictions": True, "freeze_share": 0.1}},
    "laws_along": ["width", "train", "depth_over_width"],
    "results": "results",
}  # fmt: skip
FOLDER = Path(tempfile.mkdtemp(prefix="ntksim-front-door-"))
COMMON = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
MANY, SOME = settings(max_examples=1000, **COMMON), settings(max_examples=300, **COMMON)


@pytest.fixture(scope="module", autouse=True)
def only_there(tmp_path_factory):
    """Run the tests in a new folder, in which no files other than those of the tests may appear."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(FOLDER)
        yield
    for path in FOLDER.iterdir():
        path.unlink()
    FOLDER.rmdir()


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(10**40), 10**40), st.floats(), st.text(max_size=20), st.dates(),
    st.binary(max_size=8), st.sampled_from(["../../x", "/", "{network}", "a\n", "a b", "--help", "abc", "", "~", "\0"]),
)  # fmt: skip
KEYS = st.text(max_size=8) | st.integers()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)


def places(content, prefix=()):
    found = [prefix] if prefix else []
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return found + [place for key, value in items for place in places(value, (*prefix, key))]


@st.composite
def mutated(draw):
    """A good configuration with one to four of its values replaced, removed, or renamed."""
    content = copy.deepcopy(draw(st.sampled_from([GOOD, OWN, NEW, NEW])))
    for _ in range(draw(st.integers(1, 4))):
        *parents, last = draw(st.sampled_from(places(content)))
        inside = content
        for key in parents:
            inside = inside[key]
        change = draw(st.sampled_from(["replace", "replace", "remove", "rename"]))
        value = draw(VALUES) if change == "replace" else inside[last]
        if change == "rename" and isinstance(inside, dict):
            inside[draw(SCALARS)] = value
        if change == "replace":
            inside[last] = value
        elif isinstance(inside, dict) or len(inside) > 1:
            del inside[last]
        if not content:
            break
    return content


def check_message(error, source):
    lines = str(error).splitlines()
    assert 1 <= len(lines) <= 40
    assert all(line.startswith(source) and len(line) < 700 for line in lines), lines


def check(load):
    try:
        study = load()
    except ConfigError as error:
        return check_message(error, "config")
    assert isinstance(study, Study)
    try:
        shards = jobs.shards(study)
    except ConfigError as error:
        return check_message(error, "shard_minutes")
    for file in [shard.file for shard in shards[:3]]:
        assert Path(study.results, file).resolve().is_relative_to(Path(study.results).resolve())
    assert jobs.describe(study, NOMINAL)
    return None


@pytest.mark.parametrize("content", [GOOD, OWN, NEW])
def test_configurations_that_are_mutated_are_good_ones(content):
    assert parse_study(content)


@MANY
@given(mutated())
def test_mutated_configurations(content):
    check(lambda: parse_study(content))


@MANY
@given(st.text(max_size=60), st.integers(0, 700), st.integers(0, 40))
def test_mutated_text(inserted, place, cut):
    """The text of the file, with a part replaced by arbitrary text."""
    text = yaml.safe_dump(NEW if place % 2 else GOOD)
    place = min(place, len(text))
    Path("config.yaml").write_text(text[:place] + inserted + text[place + cut :], encoding="utf-8", errors="replace")
    check(lambda: load_study("config.yaml"))


NEXT = zip("abcdefghij", "bcdefghijk", strict=True)
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in NEXT)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "{a: " * 5000,
        "&a [*a]",
        "dataset: &a [*a]\nnetworks: *a\ninitial: *a",
        BOMB,
        BOMB + "dataset: *k\nnetworks: {n: *k}\ninitial: {widths: *k, seeds: *k}",
        "!!python/object/apply:os.system ['touch owned']",
        "networks: !!python/name:os.system",
        "? {a: b}\n: c",
        "dataset: 2020-13-45",
        "dataset: " + "9" * 5000,
        "\x00\x01",
        "--- a\n--- b",
        "",
    ],
)
def test_malicious_yaml_is_refused(text):
    Path("config.yaml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_study("config.yaml")
    check_message(refused.value, "config.yaml")
    assert not Path("owned").exists()


def table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(12, 3)).round(3), columns=["a", "b", "c"])
    return frame.assign(target=rng.normal(size=12).round(3), kind=["x", "y"] * 6)


@cache
def contents():
    """A small file of each format, as bytes."""
    frame = table()
    x, y = frame[["a", "b", "c"]].to_numpy(), frame["target"].to_numpy()
    made = {}
    for name, write in {
        "d.csv": lambda out: out.write(frame.drop(columns="kind").to_csv(index=False).encode()),
        "d.parquet": lambda out: frame.drop(columns="kind").to_parquet(out),
        "d.npz": lambda out: np.savez(out, x=x, y=y),
        "two.npz": lambda out: np.savez(out, x=x, y=np.stack([y, y**2], axis=1)),
        "x.npy": lambda out: np.save(out, x),
    }.items():
        out = io.BytesIO()
        write(out)
        made[name] = out.getvalue()
    np.save("y.npy", y)
    return made


def load_data(file, **options):
    file = [file, "y.npy"] if str(file).endswith(".npy") else file
    try:
        data = dataset.load(Dataset(**({"file": file, "train": 6, "test": 3} | options)))
    except StageError as refused:
        message = str(refused)
    else:
        message = ""
    if message:
        assert len(message.splitlines()) == 1, message
        assert message.startswith("dataset")
        return message
    for values in (data.x_train, data.x_test, data.y_train, data.y_test):
        assert np.isfinite(values).all()
    return ""


@pytest.mark.parametrize("name", ["d.csv", "d.parquet", "d.npz", "two.npz", "x.npy"])
@SOME
@given(st.data())
def test_mutated_data_files(name, data):
    """A few bytes of the file are changed, removed or inserted."""
    content = bytearray(contents()[name])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        cut = data.draw(st.sampled_from([0, 1, 1, 4, 10**6]))
        content[place : place + cut] = data.draw(st.binary(max_size=4))
    Path(name).write_bytes(content)
    load_data(name)
    assert 1 <= headers.columns(name, "y") < 2**31


@SOME
@given(st.data())
def test_mutated_splits(data):
    """The numbers of points, where they are left out, are read from the header of the damaged file."""
    arrays, points = io.BytesIO(), np.random.default_rng(0).normal(size=(8, 3))
    np.savez(arrays, x_train=points[:5], y_train=points[:5, 0], x_test=points[5:], y_test=points[5:, 1])
    content = bytearray(arrays.getvalue())
    for _ in range(data.draw(st.integers(0, 2))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    Path("split.npz").write_bytes(content)
    with suppress(ValidationError):
        load_data("split.npz", train=None, test=None)


NUMBERS = ["1", "2.5", "", "nan", "inf", "-inf", "1e308", "-1e308", "1e-320", "x", "true", "2020-01-01", "1j", '"', "9" * 30]
CELLS = st.sampled_from(NUMBERS) | st.text(alphabet="0123456789.,eE-+x \"'\n", max_size=6)


@SOME
@given(
    st.lists(st.lists(CELLS, min_size=2, max_size=3), min_size=0, max_size=14),
    st.sampled_from([{}, {"classes": ["x", 1]}, {"classes": ["x", 1, 2.5]}, {"target": ["target", "a"]}, {"target_scale": 1e8}]),
    st.sampled_from(["sphere", "none"]),
)
def test_arbitrary_tables(rows, targets, scaling):
    Path("d.csv").write_text("target,a,b\n" + "\n".join(",".join(row) for row in rows), encoding="utf-8")
    load_data("d.csv", scaling=scaling, **targets)


WORDS = [
    "theta",
    "x1",
    "x3",
    "pi",
    "sin(",
    "exp(",
    "gegenbauer(",
    "2",
    "0.5",
    "1e400",
    "^",
    "+",
    "-",
    "*",
    "/",
    "(",
    ")",
    ",",
    " ",
    "²",
]


@SOME
@given(st.lists(st.sampled_from(WORDS), max_size=12).map("".join) | st.text(max_size=8), st.sampled_from(["circle", "sphere"]))
def test_arbitrary_formulas(text, name):
    features = 3 if name == "sphere" else None
    for options in ({"formula": text}, {"density": text} if name == "circle" else {}):
        load_data(None, name=name, features=features, **options)


class Harm:
    def __reduce__(self):
        return (open, ("owned", "w"))


def test_control_characters_in_a_column_name_do_not_break_the_message():
    Path("d.csv").write_bytes(b"\x0b\x00,a\n1,2\n3,4\n")
    assert "first columns are '\\x0b" in load_data("d.csv")


def test_pickles_are_not_loaded():
    harm = np.empty(12, dtype=object)
    harm[:] = [Harm() for _ in range(12)]
    np.savez("d.npz", x=np.ones((12, 2)), y=harm)
    assert "cannot be read" in load_data("d.npz")
    np.save("x.npy", harm)
    assert "cannot be read" in load_data("x.npy")
    Path("x.npy").write_bytes(pickle.dumps(Harm()))
    assert "cannot be read" in load_data("x.npy")
    assert not Path("owned").exists()


def test_an_array_larger_than_memory_is_refused():
    np.save("x.npy", np.ones((2, 2)))
    content = Path("x.npy").read_bytes()
    Path("x.npy").write_bytes(content.replace(b"(2, 2), }        ", b"(2, 99999999999)}"))
    assert load_data("x.npy")
