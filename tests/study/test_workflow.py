"""A minimal study, run end to end through Snakemake, and checks of its files."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

import ntksim
import studies
from ntksim.study.config.study import load_study
from ntksim.study.data import dataset as datasets
from ntksim.study.plan import jobs

ROOT = Path(__file__).parents[2]
CONTENT = {
    "dataset": {"name": "digits", "classes": [3, 8], "train": 10, "test": 6},
    "networks": {
        "tanh_2": {"activation": "tanh", "depth": 2, "sigma_w": 1.5, "sigma_b": 0.1},
        "relu_std": {"activation": "relu", "depth": 1, "parameterization": "standard"},
    },
    "initial": {"widths": [16, 32], "seeds": 6},
    "training": {"method": "gradient_descent", "widths": [16], "seeds": 3, "relative_time": 5.0, "snapshots": 4},
    "seeds_per_shard": 4,
}


def run(folder, content):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content | {"results": str(folder / "results")}))
    command = [sys.executable, "-m", "ntksim.cli", "study", str(path), "--cores", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    status, text = run(folder, CONTENT)
    assert status == 0, text
    return folder, text


def test_tables_contain_the_numbers_of_the_engine(finished):
    folder, text = finished
    results = folder / "results"
    assert "exponent" in text
    assert str(results / "figures") in text
    initial = ntksim.read_table(results, "initial")
    assert len(initial) == 2 * 2 * 6
    assert initial["width"].dtype == np.int64
    data = datasets.read(results / "dataset.npz")
    network = ntksim.Network(2, 32, "tanh", sigma_w=1.5, sigma_b=0.1)
    kernel = ntksim.empirical_ntk(network, data.x_train, seeds=[5])[0]
    limit = ntksim.infinite_kernel(network, data.x_train).ntk
    row = initial[(initial["network"] == "tanh_2") & (initial["width"] == 32) & (initial["seed"] == 5)].iloc[0]
    assert row["relative_frobenius_error"] == pytest.approx(np.linalg.norm(kernel - limit) / np.linalg.norm(limit), rel=1e-12)
    assert row["trace"] == pytest.approx(np.trace(kernel), rel=1e-12)

    training = ntksim.read_table(results, "training")
    assert set(training["status"]) == {"finished"}
    assert (training.groupby(["network", "seed"])["time"].min() == 0).all()
    assert (training[training["time"] == 0][["kernel_drift", "parameter_drift"]] == 0).all(axis=None)
    spectrum = ntksim.read_table(results, "spectrum")
    assert spectrum[(spectrum["network"] == "tanh_2") & (spectrum["width"] == 32)][
        "limit_eigenvalue"
    ].to_numpy() == pytest.approx(np.linalg.eigvalsh(limit)[::-1], rel=1e-9)
    convergence = ntksim.read_table(results, "convergence")
    mine = initial[(initial["network"] == "relu_std") & (initial["width"] == 16)]["trace"]
    found = convergence.query("network == 'relu_std' and width == 16 and quantity == 'trace'").iloc[0]
    assert found["mean"] == pytest.approx(mine.mean())
    drift = ntksim.read_table(results, "drift")
    assert (drift["count"] + drift["excluded"]).eq(3).all()
    assert drift.query("quantity == 'kernel_drift'")["count"].eq(3).all()


def test_a_study_depends_on_its_configuration_only(finished):
    """The default study has no influence on another study, and exactly the jobs of `ntksim plan` run."""
    results = finished[0] / "results"
    planned = {shard.file for shard in jobs.shards(load_study(finished[0] / "config.yaml"))}
    assert planned == {str(p.relative_to(results)) for kind in ("initial", "training") for p in (results / kind).iterdir()}
    assert {p.name for p in (results / "limit").iterdir()} == {"tanh_2.npz", "relu_std.width-16.npz", "relu_std.width-32.npz"}
    command = [sys.executable, "-m", "snakemake", "-n", "--configfile", str(finished[0] / "config.yaml"), "--config", "depth=1"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "a study is one file" in refused.stdout + refused.stderr


@pytest.mark.parametrize("options", [{"target": "pri{ce} $x 'q'"}, {"target": "-kind", "classes": ["{c}", "-a"]}])
def test_any_names_of_columns_and_labels_reach_the_job(tmp_path, options):
    """Snakemake does not take braces for wildcards, options may begin with dashes, and the shell does not change a name."""
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(12, 3)), columns=["a", "b", "pri{ce} $x 'q'"])
    (frame if "classes" not in options else frame.assign(**{"-kind": ["{c}", "-a"] * 6})).to_csv(
        tmp_path / "own.csv", index=False
    )
    dataset = {"file": str(tmp_path / "own.csv"), "train": 6, "test": 3} | options
    studies.command(tmp_path, studies.TINY | {"dataset": dataset})
    study = load_study(tmp_path / "config.yaml")
    file = f"{study.results}/dataset.npz"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", str(tmp_path / "config.yaml"), "--", file]
    done = subprocess.run(command, cwd=ROOT, env=studies.environment(PATH=path), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert datasets.read(file).hash == datasets.load(study.dataset).hash


def test_tables_contain_their_provenance(finished):
    results = finished[0] / "results"
    for name in (*jobs.TABLES, *jobs.TRAINING_TABLES):
        frame = ntksim.read_table(results, name)
        assert frame.attrs["config_hash"]
        assert frame.attrs["config"]["initial"]["seeds"] == 6
        assert frame.attrs["provenance"]["versions"]["numba"]
        schema = pq.read_schema(results / "tables" / f"{name}.parquet")
        assert all(schema.field(column).metadata[b"description"] for column in schema.names)
    with pytest.raises(
        FileNotFoundError, match="its tables are convergence, drift, ensemble, final, initial, layers, lazy, modes, scaling"
    ):
        ntksim.read_table(results, "nothing")


def test_figures_and_report(finished):
    """Every figure exists in three formats. Both reports contain all figures with captions, and load nothing from the web."""
    results = finished[0] / "results"
    drawn = jobs.figures(load_study(finished[0] / "config.yaml"))
    assert set(drawn) == {"convergence", "spectrum", "drift", "loss", "test_loss", "accuracy"}
    for suffix in jobs.FORMATS:
        for figure in drawn:
            assert (results / "figures" / f"{figure}.{suffix}").stat().st_size > 5000
    page, own = ((results / name).read_text() for name in ("report.html", "snakemake-report.html"))
    for figure in drawn:
        caption = (ROOT / "workflow" / "report" / f"{figure}.rst").read_text()
        assert caption.split(".")[0].splitlines()[0] in own
        assert caption.split(".")[0].splitlines()[0] in page
        assert f'<figure id="{figure}">' in page
        assert f"results/figures/{figure}.svg" in own
    assert not re.search(r"""(src|href)=["']https?://[^"']*\.(js|css|woff)""", own)
    for path in [*results.glob("*.html"), *results.glob("figures/*"), *results.glob("tables/*")]:
        assert str(finished[0]).encode() not in path.read_bytes(), f"{path} tells the folder that it was made in"
    assert "scaling_laws" not in page
    assert "relative frobenius error" in page
    assert "digits, classes 3 and 8: 10 training and 6 test points, 1 output" in page.replace("Digits", "digits")
    assert "At initialisation 6 seeds at each width" in page
    assert "In training 3 seeds at each width" in page
    assert "loss left" in page
    assert ntksim.read_table(results, "scaling_laws").attrs["config_hash"] in page


def test_training_is_compared_with_theory(finished):
    """The predictions in the table are those of the engine for the same network, K_0 and f_0."""
    results = finished[0] / "results"
    training = ntksim.read_table(results, "training")
    data = datasets.read(results / "dataset.npz")
    network = ntksim.Network(2, 16, "tanh", sigma_w=1.5, sigma_b=0.1)
    rows = training[(training["network"] == "tanh_2") & (training["seed"] == 1)]
    start = ntksim.network_outputs(network, data.x_train, seeds=[1])[0]
    start_test = ntksim.network_outputs(network, data.x_test, seeds=[1])[0]
    kernel = ntksim.empirical_ntk(network, data.x_train, seeds=[1])[0]
    across = ntksim.empirical_ntk(network, data.x_test, data.x_train, seeds=[1])[0]
    limit = ntksim.infinite_kernel(network, data.x_train).ntk
    limit_across = ntksim.infinite_kernel(network, data.x_test, data.x_train).ntk
    rate = rows["time"].max() / round(rows["relative_time"].max() / 0.5)
    run = ntksim.train(
        network, data.x_train, data.y_train, seeds=[1], method="gradient_descent", times=rows["time"].to_numpy(),
        learning_rate=rate, x_test=data.x_test,
    )  # fmt: skip
    for name, own, test_kernel, step in (
        ("linearized", kernel, across, rate),
        ("closed_form", kernel, across, None),
        ("limit_closed_form", limit, limit_across, rate),
    ):
        f, f_test = ntksim.closed_form(own, start, data.y_train, rows["time"].to_numpy(), test_kernel, start_test, step)
        assert rows[f"{name}_loss"].to_numpy() == pytest.approx(0.5 * ((f - data.y_train) ** 2).sum(axis=1), rel=1e-9)
        apart, apart_test = run.outputs[0] - f, run.test_outputs[0] - f_test
        assert rows[f"{name}_deviation"].to_numpy() == pytest.approx(np.sqrt((apart**2).mean(axis=1)), rel=1e-7, abs=1e-11)
        assert rows[f"test_{name}_deviation"].to_numpy() == pytest.approx(
            np.sqrt((apart_test**2).mean(axis=1)), rel=1e-7, abs=1e-11
        )
    drift = ntksim.read_table(results, "drift").query("network == 'tanh_2' and quantity == 'largest_linearized_deviation'")
    largest = training[training["network"] == "tanh_2"].groupby("seed")["linearized_deviation"].max()
    assert drift["mean"].item() == pytest.approx(largest.mean())


def test_the_exact_law_is_in_the_table_of_errors(finished):
    results = finished[0] / "results"
    x = datasets.read(results / "dataset.npz").x_train
    network = ntksim.Network(1, 32, "relu", "standard")
    errors = ntksim.read_table(results, "convergence").query("quantity == 'relative_frobenius_error'")
    expected = np.sqrt(ntksim.one_hidden_layer_variance(network, x).sum()) / np.linalg.norm(
        ntksim.infinite_kernel(network, x).ntk
    )
    row = errors.query("network == 'relu_std' and width == 32").iloc[0]
    assert row["exact_root_mean_square"] == pytest.approx(expected, rel=1e-12)
    assert row["root_mean_square"] == pytest.approx(expected, rel=0.8)
    assert errors.query("network == 'tanh_2'")["exact_root_mean_square"].isna().all()


def test_a_study_of_the_flow(tmp_path):
    """Gradient flow on synthetic points, checked against the engine, with two output scales."""
    content = {
        "dataset": {"name": "circle", "train": 6, "test": 3},
        "networks": {"gelu": {"activation": "gelu", "depth": 1, "sigma_b": 0.5, "output_scale": [1.0, 0.25]}},
        "initial": {"widths": [32], "seeds": 2},
        "training": {"widths": [32], "seeds": 2, "relative_time": 30.0, "snapshots": 3, "tolerance": 1e-5,
                     "remove_initial_output": True, "keep_kernels": True},
    }  # fmt: skip
    status, text = run(tmp_path, content)
    assert status == 0, text
    training = ntksim.read_table(tmp_path / "results", "training")
    data = datasets.read(tmp_path / "results" / "dataset.npz")
    largest = np.linalg.eigvalsh(ntksim.infinite_kernel(ntksim.Network(1, 32, "gelu", sigma_b=0.5), data.x_train).ntk)[-1]
    rows = training[(training["seed"] == 1) & (training["network"] == "gelu_scale_1")]
    assert rows["relative_time"].to_numpy() == pytest.approx(rows["time"].to_numpy() * largest)
    assert rows["relative_time"].max() == pytest.approx(30)
    network = ntksim.Network(1, 32, "gelu", sigma_b=0.5)
    flow = ntksim.train(
        network, data.x_train, data.y_train, seeds=[1], times=rows["time"].to_numpy(), tolerance=1e-5,
        remove_initial_output=True, keep_kernels=True,
    )  # fmt: skip
    assert rows["loss"].to_numpy() == pytest.approx(flow.loss[0], rel=1e-6)
    assert rows["linearized_loss"].to_numpy() == pytest.approx(rows["closed_form_loss"].to_numpy())
    kept = ntksim.read_kernels(tmp_path / "results", "gelu_scale_1", 32)
    assert kept.kernels[1] == pytest.approx(flow.kernels[0], rel=1e-9)
    for figure in ("drift_parts", "lazy_or_rich"):
        assert (tmp_path / "results" / "figures" / f"{figure}.png").stat().st_size > 5000
    (tmp_path / "results" / "kernels" / "gelu_scale_1.width-32.seeds-0-1.parquet").unlink()
    status, text = run(tmp_path, content)
    assert status == 0, text
    assert (ntksim.read_kernels(tmp_path / "results", "gelu_scale_1", 32).kernels == kept.kernels).all()


def test_only_missing_results_are_computed(finished):
    folder, _ = finished
    shards = {p: p.stat().st_mtime_ns for kind in ("initial", "training") for p in (folder / "results" / kind).iterdir()}
    status, text = run(folder, CONTENT)
    assert status == 0
    assert "Nothing to do" in text
    changed = {"relu_std": CONTENT["networks"]["relu_std"] | {"sigma_w": 1.2}}
    wider = {"initial": {"widths": [16, 32, 24], "seeds": 6}, "networks": CONTENT["networks"] | changed}
    status, text = run(folder, CONTENT | wider)
    assert status == 0, text
    again = {p for p in shards if p.stat().st_mtime_ns != shards[p]}
    assert again == {p for p in shards if p.name.startswith("relu_std")}
    assert set(ntksim.read_table(folder / "results", "initial")["width"]) == {16, 24, 32}


def test_a_damaged_shard_is_named(finished):
    folder, _ = finished
    shard = folder / "results" / "initial" / "tanh_2.width-16.seeds-0-3.parquet"
    kept = shard.read_bytes()
    try:
        shard.write_bytes(kept[:100])
        config = folder / "config.yaml"
        command = [sys.executable, "-m", "ntksim.cli", "tables", str(config), "--output", str(folder / "other")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        assert shard.name in done.stderr
        assert "damaged" in done.stderr
        assert "computes it again" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        shard.write_bytes(kept)


def test_the_workflow_passes_snakemakes_linter():
    done = subprocess.run([sys.executable, "-m", "snakemake", "--lint"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shards_use_the_device_of_the_configuration(tmp_path):
    for device in ("cuda", "cpu"):
        path = tmp_path / f"{device}.yaml"
        path.write_text(yaml.safe_dump(studies.TINY | {"results": str(tmp_path / device), "device": device}))
        command = [sys.executable, "-m", "snakemake", "--dry-run", "--printshellcmds", "--nolock", "--configfile", str(path)]
        command += ["--workflow-profile", "workflow/profiles/default", "--cores", "1"]
        done = subprocess.run(command, cwd=studies.ROOT, env=studies.environment(), capture_output=True, text=True, check=True)
        assert f"--device {device} --output" in done.stdout


def test_device_auto_uses_a_gpu_one_shard_at_a_time(tmp_path):
    """A study on the GPU simulator runs one shard at a time, for any number of cores. `ntksim verify` uses the GPU too."""
    content = studies.TINY | {"device": "auto", "initial": {"widths": [4], "seeds": 2}, "seeds_per_shard": 1}
    status, text = studies.run(tmp_path, content, "--verbose", NUMBA_ENABLE_CUDASIM="1")
    assert status == 0, text
    assert ntksim.read_table(tmp_path / "results", "initial").attrs["provenance"]["device"] == "cuda (simulator)"
    assert re.findall("Kernels at init|Rule: initial_shard", text) == ["Kernels at init", "Rule: initial_shard"] * 2
    command = [sys.executable, "-m", "ntksim.cli", "verify", str(tmp_path / "results"), "--fraction", "1"]
    environment = studies.environment(NUMBA_ENABLE_CUDASIM="1")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal bits") >= 3
