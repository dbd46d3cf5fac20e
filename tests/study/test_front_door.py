"""Thousands of broken configurations and data files: each is accepted, or refused in a few lines that name the key."""

import copy
import io
import pickle
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
FOLDER = Path(tempfile.mkdtemp(prefix="ntksim-front-door-"))
COMMON = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
MANY, SOME = settings(max_examples=1000, **COMMON), settings(max_examples=300, **COMMON)


@pytest.fixture(scope="module", autouse=True)
def only_there(tmp_path_factory):
    """Work in a folder of its own, where nothing but the files of the tests may appear."""
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
    content = copy.deepcopy(draw(st.sampled_from([GOOD, OWN])))
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


@MANY
@given(mutated())
def test_mutated_configurations(content):
    check(lambda: parse_study(content))


@MANY
@given(st.text(max_size=60), st.integers(0, 700), st.integers(0, 40))
def test_mutated_text(inserted, place, cut):
    """The text of the file, with some of it replaced by anything."""
    text = yaml.safe_dump(GOOD)
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
def test_texts_that_mean_harm(text):
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


def load_data(name, **options):
    file = [name, "y.npy"] if name.endswith(".npy") else name
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
    """A few bytes changed, cut out, or put in."""
    content = bytearray(contents()[name])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        cut = data.draw(st.sampled_from([0, 1, 1, 4, 10**6]))
        content[place : place + cut] = data.draw(st.binary(max_size=4))
    Path(name).write_bytes(content)
    load_data(name)
    assert 1 <= dataset.columns_in_file(name, "y") < 2**31


NUMBERS = ["1", "2.5", "", "nan", "inf", "-inf", "1e308", "-1e308", "1e-320", "x", "true", "2020-01-01", "1j", '"', "9" * 30]
CELLS = st.sampled_from(NUMBERS) | st.text(alphabet="0123456789.,eE-+x \"'\n", max_size=6)


@SOME
@given(
    st.lists(st.lists(CELLS, min_size=2, max_size=3), min_size=0, max_size=14),
    st.sampled_from([{}, {"classes": ["x", 1]}, {"classes": ["x", 1, 2.5]}, {"target": ["target", "a"]}, {"target_scale": 1e8}]),
    st.sampled_from(["sphere", "none"]),
)
def test_tables_of_anything(rows, targets, scaling):
    Path("d.csv").write_text("target,a,b\n" + "\n".join(",".join(row) for row in rows), encoding="utf-8")
    load_data("d.csv", scaling=scaling, **targets)


class Harm:
    def __reduce__(self):
        return (open, ("owned", "w"))


def test_a_column_named_by_control_characters_stays_on_one_line():
    Path("d.csv").write_bytes(b"\x0b\x00,a\n1,2\n3,4\n")
    assert "first columns are '\\x0b" in load_data("d.csv")


def test_no_pickle_is_opened():
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
