"""What other programs see of results: the recipes of docs/results.md, run as they stand, and what the files hold for them."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import ntksim
import studies
from ntksim.study.statistics.columns import COLUMNS

ROOT = Path(__file__).parents[2]
WIDTHS = [16, 64]
CONTENT = studies.TINY | {
    "networks": {name: {"activation": activation, "depth": 1} for name, activation in (("relu_1", "relu"), ("tanh_3", "tanh"))},
    "initial": {"widths": WIDTHS, "seeds": 2},
    "training": {"method": "gradient_descent", "widths": WIDTHS, "seeds": 2, "relative_time": 2.0, "snapshots": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with results of two seeds, too few for most intervals."""
    there = tmp_path_factory.mktemp("study")
    studies.computed(CONTENT | {"training": CONTENT["training"] | {"keep_kernels": True}}, there / "results")
    return there


def recipe(word):
    """The example of docs/results.md that has a word, of those for other programs."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    section = text.partition("## How do I read the files in other programs?")[2].partition("\n## ")[0]
    (found,) = [block for block in re.findall(r"(?:^    .*\n)+", section, re.MULTILINE) if word in block]
    return re.sub(r"^    ", "", found, flags=re.MULTILINE)


def run(package, folder, monkeypatch):
    """The names that a recipe leaves."""
    monkeypatch.chdir(folder)
    names = {}
    exec(compile(recipe(f"import {package}"), package, "exec"), names)
    return names


def test_files_of_kernels_name_network_and_width(folder):
    for network in CONTENT["networks"]:
        for width in WIDTHS:
            (path,) = folder.glob(f"results/kernels/{network}.width-{width}.*.parquet")
            table = pq.read_table(path)
            assert set(table["network"].to_pylist()) == {network}
            assert set(table["width"].to_pylist()) == {width}
            kept = ntksim.read_kernels(folder / "results", network, width)
            assert table["kernel"].combine_chunks().to_numpy_ndarray().tobytes() == kept.kernels.tobytes()


def test_data_frames_say_what_their_columns_mean(folder):
    for path in (folder / "results" / "tables").glob("*.parquet"):
        frame = ntksim.read_table(folder / "results", path.stem)
        assert frame.attrs["columns"] == {name: COLUMNS[name] for name in frame}


def test_missing_values_are_null_in_files_and_nan_in_pandas(folder):
    seen = 0
    for path in (folder / "results" / "tables").glob("*.parquet"):
        table, frame = pq.read_table(path), ntksim.read_table(folder / "results", path.stem)
        for name in table.column_names:
            assert table[name].null_count == frame[name].isna().sum()
            if frame[name].dtype.kind == "f":
                assert not np.isnan(np.array([value for value in table[name].to_pylist() if value is not None], float)).any()
            seen += table[name].null_count
    assert seen > 20


def test_no_description_has_another_word_for_what_is_missing():
    words = {name: re.findall(r"\bNaN\b|\b[nN]ull\b", text) for name, text in COLUMNS.items() if name != "status"}
    assert {name: found for name, found in words.items() if found} == {}


def test_polars(folder, monkeypatch):
    pytest.importorskip("polars")
    found = run("polars", folder, monkeypatch)
    kept = ntksim.read_kernels(folder / "results", "relu_1", 64).kernels
    assert found["kernels"].tobytes() == kept.tobytes()
    assert found["kernels"].shape == (kept.shape[0] * kept.shape[1], kept.shape[2] ** 2)
    frame = ntksim.read_table(folder / "results", "convergence")
    assert found["convergence"]["interval_low"].null_count() == frame["interval_low"].isna().sum()


def test_duckdb(folder, monkeypatch):
    pytest.importorskip("duckdb")
    found = run("duckdb", folder, monkeypatch)
    frame = ntksim.read_table(folder / "results", "drift")
    rows = frame[frame["quantity"] == "kernel_drift"]
    assert (
        found["drift"].set_index(["network", "width"])["mean"].to_dict() == rows.set_index(["network", "width"])["mean"].to_dict()
    )
    first = found["first"].set_index(["network", "width", "seed", "time"])["entry"]
    kept = ntksim.read_kernels(folder / "results", "tanh_3", 16)
    for s, seed in enumerate(kept.seeds):
        assert first[("tanh_3", 16, seed)].sort_index().tolist() == kept.kernels[s, :, 0, 0].tolist()


def test_r(folder):
    """R prints what the recipe leaves: how many values are missing, the rows of kernels, and a kernel row by row."""
    rscript = shutil.which("Rscript")
    if rscript is None:
        pytest.skip("R is not installed, so its recipe is not run (on Debian: apt install r-base-core)")
    code = recipe("arrow::")
    used = sorted(set(re.findall(r"(\w+)::", code)))
    listed = f"cat(Filter(Negate(requireNamespace), c({', '.join(map(repr, used))})))"
    missing = subprocess.run([rscript, "--vanilla", "-e", listed], capture_output=True, text=True, check=True).stdout
    if missing:
        pytest.skip(f"R has no package {missing}, so its recipe is not run")
    code += 'cat(sum(is.na(convergence$interval_low)), nrow(kept), dim(kernel), "\\n"); cat(sprintf("%.17g", t(kernel)))'
    done = subprocess.run([rscript, "--vanilla", "-e", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts, entries = done.stdout.splitlines()
    unknown = ntksim.read_table(folder / "results", "convergence")["interval_low"].isna().sum()
    kept = ntksim.read_kernels(folder / "results", "relu_1", 64).kernels
    assert counts.split() == [str(count) for count in (unknown, kept[..., 0, 0].size, *kept.shape[2:])]
    assert [float(entry) for entry in entries.split()] == kept[0, 0].ravel().tolist()


def test_latex(folder, monkeypatch, capsys):
    run("ntksim", folder, monkeypatch)
    printed = capsys.readouterr().out
    assert printed.startswith(r"\begin{tabular}")
    assert r"relu\_1" in printed
    frame = ntksim.read_table(folder / "results", "drift").query("quantity == 'kernel_drift'")
    assert all(f"{value:.3f}" in printed for value in frame["mean"])
