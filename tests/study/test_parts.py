"""Plan, data, storage and statistics of a study."""

import dataclasses
import json
import re
import shlex
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from ntksim import cli
from ntksim.engine import measures
from ntksim.engine.compiled.folder import cache_folder
from ntksim.study.config.network import Exponents
from ntksim.study.config.study import parse_study
from ntksim.study.config.words import word
from ntksim.study.errors import ConfigError
from ntksim.study.files import storage
from ntksim.study.plan import calibration, cost, jobs
from ntksim.study.statistics import scaling_laws, tables


def study(**changes):
    content = {
        "dataset": {"name": "digits", "classes": [4, 9], "train": 8, "test": 4},
        "networks": {
            "relu_1": {"activation": "relu", "depth": 1},
            "std": {"activation": "tanh", "depth": 2, "parameterization": "standard"},
        },
        "initial": {"widths": [8, 16], "seeds": 10},
        "seeds_per_shard": 4,
    }
    return parse_study(content | changes)


def test_shards_are_fixed_blocks():
    files = {s.file for s in jobs.shards(study())}
    assert "initial/relu_1.width-8.seeds-0-3.parquet" in files
    assert "initial/relu_1.width-8.seeds-8-9.parquet" in files
    assert len(files) == 2 * 2 * 3
    more_seeds = {s.file for s in jobs.shards(study(initial={"widths": [8, 16, 32], "seeds": 12}))}
    assert {f for f in files if "8-9" not in f} < more_seeds
    covered = [seed for s in jobs.shards(study()) if (s.network, s.width) == ("std", 16) for seed in s.seeds]
    assert covered == list(range(10))


def test_shards_are_cut_by_predicted_minutes():
    """Blocks are halved, so that their boundaries stay the same. A single seed that still takes too long gets more threads."""
    wide = {"initial": {"widths": [8, 8192], "seeds": 32}, "seeds_per_shard": 32}
    whole = jobs.shards(study(**wide))
    cut = jobs.shards(study(**wide, shard_minutes=0.05))
    of_std = [s for s in cut if (s.network, s.width) == ("std", 8192)]
    assert 1 < len(of_std) < 32
    assert [s.first % len(s.seeds) for s in of_std] == [0] * len(of_std)
    assert all(len(s.seeds) == 32 for s in cut if s.width == 8)
    assert len(whole) == 4
    assert all(cost.NOMINAL.startup_seconds < jobs.cost(study(), s).seconds <= 3 for s in of_std)
    single = jobs.shards(study(**wide, shard_minutes=0.001))[1]
    assert (len(single.seeds), jobs.threads(study(**wide, shard_minutes=0.001), single)) == (1, 16)
    assert jobs.threads(study(**wide), whole[0]) == 1
    with pytest.raises(ConfigError, match="shard_minutes: the study would have more than 100000 jobs"):
        jobs.shards(study(initial={"widths": [8, 16], "seeds": 10**6}, shard_minutes=1e-6, seeds_per_shard=1000))


def test_blocks_of_finished_studies_do_not_change():
    """A failure means that shards of finished studies would get other names, and be computed again."""
    training = {"widths": [256, 1024, 4096, 16384], "seeds": 32, "relative_time": 100.0}
    content = {"initial": {"widths": [1024, 16384], "seeds": 64}, "training": training, "seeds_per_shard": 32}
    some = study(**content, shard_minutes=0.05)
    blocks = {(stage, name, width): jobs.seeds_in_block(some, stage, name, width) for stage, name, width in PINNED}
    assert blocks == PINNED


PINNED = {
    ("initial", "relu_1", 1024): 32,
    ("initial", "relu_1", 16384): 32,
    ("initial", "std", 1024): 32,
    ("initial", "std", 16384): 2,
    ("training", "relu_1", 256): 8,
    ("training", "relu_1", 1024): 16,
    ("training", "relu_1", 4096): 8,
    ("training", "relu_1", 16384): 4,
    ("training", "std", 256): 32,
    ("training", "std", 1024): 8,
    ("training", "std", 4096): 1,
    ("training", "std", 16384): 1,
}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders for caches")
def test_caches_stay_where_they_were(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, folder in (("", ".cache/ntksim"), (str(tmp_path / "own"), "own/ntksim")):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == calibration._file().parent == tmp_path / folder
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "ntksim"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["null", "{}", '{"flops": {}}', '{"flops": 0, "draws": {}}', "[" * 100_000, "\x00"])
def test_a_damaged_calibration_counts_as_missing(tmp_path, monkeypatch, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = calibration._file()
    path.parent.mkdir()
    path.write_text(json.dumps(dataclasses.asdict(cost.NOMINAL)))
    assert calibration.known() == cost.NOMINAL
    negative = dataclasses.asdict(cost.NOMINAL) | {"pass_seconds": -1.0}
    for damaged in (content, json.dumps(negative), json.dumps(dataclasses.asdict(cost.NOMINAL) | {"flops": {"float64": 1e10}})):
        path.write_text(damaged)
        assert calibration.known() is None


def test_predictions_follow_rates_and_name_every_job():
    training = {"widths": [8], "seeds": 4, "relative_time": 10.0}
    content = study(training=training)
    fast = dataclasses.replace(cost.NOMINAL, startup_seconds=0.0, pass_seconds=0.0, eigen_seconds=0.0, eigen_entry_seconds=0.0)
    faster = dataclasses.replace(fast, **{
        name: {kind: 2 * rate for kind, rate in getattr(fast, name).items()} for name in ("flops", "training_flops", "draws")
    })  # fmt: skip
    for shard in jobs.shards(content):
        assert jobs.cost(content, shard, faster).seconds == pytest.approx(jobs.cost(content, shard, fast).seconds / 2)
        assert jobs.cost(content, shard).memory_mb > 0
    named = jobs.predicted_seconds(content, cost.NOMINAL)
    assert {"dataset.jsonl", "limit/relu_1.jsonl", "training/std.width-8.seeds-0-3.jsonl", "figures.jsonl"} < set(named)
    text = jobs.describe(content, cost.NOMINAL)
    assert f"{len(jobs.shards(content)) + 3}" in text.splitlines()[-2]  # jobs include the limits; std has one for each width
    seconds = sum(named[name] for name in named if name.startswith(("limit", "initial", "training")))
    assert f" {seconds:.0f} " in text.splitlines()[-2]


def test_plans_price_the_first_step_of_descent():
    """It holds all weights several times over, or in law what it reveals of them, and costs as training of one step does."""
    networks = {"tanh_3": {"activation": "tanh", "depth": 3}}

    def cost_at(width, sampling, **changes):
        own = study(networks=networks, initial={"widths": [width], "seeds": 2, "sampling": sampling} | changes)
        return cost.cost_of(own, "initial", "tanh_3", width, 1)

    weights = 8 * (64 * 2**14 + 2 * 2**28) / 1e6
    without, of_step = cost_at(2**14, "weights"), cost_at(2**14, "weights", dispersion={})
    assert 5 * weights < of_step.memory_mb - without.memory_mb < 7 * weights
    one = {"method": "gradient_descent", "relative_learning_rate": 1.0, "relative_time": 1.0, "snapshots": 1}
    training = study(networks=networks, training={"widths": [2**14], "seeds": 2} | one)
    trained = cost.cost_of(training, "training", "tanh_3", 2**14, 1)
    assert 0.2 < (of_step.seconds - without.seconds) / trained.seconds < 2
    law = [cost_at(width, "conditional", dispersion={}) for width in (2**16, 2**18, 2**20)]
    assert law[0].memory_mb < of_step.memory_mb / 20
    for name in ("seconds", "memory_mb"):
        small, middle, large = (getattr(own, name) for own in law)
        assert (large - middle) / (middle - small) == pytest.approx(4, rel=0.05)
        assert large > getattr(cost_at(2**20, "conditional"), name)


def test_plans_count_evaluation_points_of_files(tmp_path):
    """As many on a grid cost as much as those of a file."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 2)), rng.normal(size=40)
    np.savez(tmp_path / "e.npz", x=x[:17])
    np.save(tmp_path / "e.npy", x[:17])
    pd.DataFrame(x[:17]).to_csv(tmp_path / "e.csv", index=False)
    np.savez(tmp_path / "split.npz", x_train=x[:8], y_train=y[:8], x_test=x[8:12], y_test=y[8:12], x_evaluation=x[12:29])
    training = {"widths": [8], "seeds": 2, "relative_time": 1.0, "measures": {"predictions": True, "profile": True}}
    circle = {"name": "circle", "train": 8, "test": 4}

    def own(data):
        return cost.cost_of(study(dataset=data, training=training), "training", "std", 8, 2)

    wanted = own(circle | {"evaluation": 17})
    assert wanted.disk_mb > own(circle).disk_mb
    for data in [circle | {"evaluation_file": str(tmp_path / f"e.{kind}")} for kind in ("npz", "npy", "csv")]:
        assert own(data) == wanted
    assert own({"file": str(tmp_path / "split.npz"), "train": 8, "test": 4, "scaling": "none"}) == wanted


def test_a_job_larger_than_the_memory_gives_a_warning():
    content = study(training={"widths": [8, 16], "seeds": 4, "relative_time": 10.0})
    largest = max(jobs.cost(content, shard).memory_mb for shard in jobs.shards(content))
    assert jobs.memory_remark(content, int(largest) + 1) is None
    remark = jobs.memory_remark(content, 100)
    assert re.search(r"training of \w+, width 16\) needs about .* more than the 0.1 GB .*: lower training.widths, ", remark)
    assert "conditional" not in remark  # small networks in law need no less
    wide = {"widths": [2**15], "seeds": 4, "relative_time": 10.0}
    remark = jobs.memory_remark(study(training=wide | {"tolerance": 0.01}), 100)
    assert re.search(r"width 32768\) needs .*; or set training.sampling to conditional, which needs", remark)
    assert "conditional" not in jobs.memory_remark(study(training=wide | {"tolerance": 1e-9}), 100)  # which is refused in law
    decayed = wide | {"method": "gradient_descent", "weight_decay": 0.1}
    assert "conditional" not in jobs.memory_remark(study(training=decayed), 100)


def test_out_of_memory_is_a_one_line_error(monkeypatch, capsys):
    def fail(results):
        np.empty(2**55)

    monkeypatch.setattr("ntksim.study.report.summary.summary", fail)
    assert cli.main(["show", "results"]) == 1
    assert re.search(r"^ntksim: error: out of memory: Unable to allocate .*; fewer training points", capsys.readouterr().err)


def test_only_the_limits_of_ntk_and_notes_do_not_depend_on_the_width():
    kinds = dict.fromkeys(("ntk", "notes", "standard", "mup", "mean_field"), {})
    kinds["abc"] = {"abc": dict.fromkeys(Exponents.model_fields, 0.5)}
    networks = {kind: {"activation": "relu", "depth": 1, "parameterization": kind} | more for kind, more in kinds.items()}
    files = {kind: {jobs.limit_file(study(networks=networks), kind, width) for width in (8, 16)} for kind in kinds}
    assert {kind for kind in kinds if len(files[kind]) == 1} == {"ntk", "notes"}


def test_writes_are_atomic(tmp_path):
    path = tmp_path / "a" / "x.npz"
    storage.write_arrays(path, a=np.arange(3))
    with pytest.raises(RuntimeError), storage.atomic(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert storage.read_arrays(path)["a"].tolist() == [0, 1, 2]
    assert [p.name for p in path.parent.iterdir()] == ["x.npz"]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(storage.StageError, match="damaged"):
        storage.read_arrays(path)


def test_statistics_over_seeds():
    keys = {"network": "a", "activation": "relu", "depth": 1, "parameterization": "ntk", "sampling": "weights", "width": 8}
    frame = pd.DataFrame([keys | {"seed": s, "loss": v} for s, v in enumerate([1.0, 2.0, 6.0, np.nan, np.inf])])
    frame["status"] = "finished"
    unfinished = pd.DataFrame([keys | {"seed": 5, "loss": 1e9, "status": "diverged"}])
    row = tables.summarise(pd.concat([frame, unfinished]), ["loss"]).iloc[0]
    assert (row["count"], row["excluded"]) == (3, 3)
    assert row["mean"] == 3.0
    assert row["root_mean_square"] == pytest.approx(np.sqrt(41 / 3))
    assert row["standard_deviation"] == pytest.approx(np.sqrt(7))
    assert row["standard_error"] == pytest.approx(np.sqrt(7 / 3))
    low, high = stats.ttest_1samp([1.0, 2.0, 6.0], 0).confidence_interval(0.95)
    assert (row["interval_low"], row["interval_high"]) == pytest.approx((low, high))


def test_scaling_laws_recover_a_power_law():
    """Seeds scatter by 10% around 3 m^-0.7 at 5 widths. The exponent is right within 4 standard errors (1e-4)."""
    rng, rows = np.random.default_rng(5), []
    for width in (64, 128, 256, 512, 1024):
        for seed, noise in enumerate(rng.normal(1, 0.1, 32)):
            error = 3 * width**-0.7 * noise
            rows.append({"network": "a", "activation": "relu", "depth": 1, "parameterization": "ntk", "sampling": "weights",
                         "width": width, "seed": seed, "relative_frobenius_error": error,
                         "relative_operator_error": np.nan})  # fmt: skip
    unfinished = [row | {"relative_frobenius_error": 1e9, "status": "overflow"} for row in rows[:2]]
    laws = scaling_laws.scaling_laws(pd.DataFrame([row | {"status": "finished"} for row in rows] + unfinished), None)
    assert laws["quantity"].to_list() == ["relative_frobenius_error"]  # no finite value, so no law
    law = laws.iloc[0]
    assert law["excluded"] == 2
    assert abs(law["exponent"] + 0.7) < 4 * law["standard_error"]
    assert law["standard_error"] == pytest.approx(0.1 / np.sqrt(32) / np.sqrt(10 * np.log(2) ** 2), rel=0.3)
    assert law["interval_low"] < law["exponent"] < law["interval_high"]
    assert law["prefactor"] == pytest.approx(3, rel=0.1)
    assert law["prefactor_low"] < law["prefactor"] < law["prefactor_high"]
    # the intercept's error: that of the slope times the distance of the mean logarithm from 0
    half = law["standard_error"] * np.log(256) * 1.96
    assert np.log(law["prefactor_high"] / law["prefactor_low"]) == pytest.approx(2 * half, rel=0.3)
    assert law["theory_exponent"] == -0.5
    assert law["z_score"] == pytest.approx((law["exponent"] + 0.5) / law["standard_error"])
    assert scaling_laws.theory_exponent("kernel_drift", "tanh", 3, "ntk") == -1
    assert np.isnan(scaling_laws.theory_exponent("kernel_drift", "tanh", 3, "standard"))
    assert scaling_laws.theory_exponent("kernel_drift", "tanh", 3, "mup") == 0
    assert np.isnan(scaling_laws.theory_exponent("kernel_drift", "tanh", 3, "abc"))


def test_measures_on_diagonal_kernels():
    kernels, reference = np.array([np.diag([4.0, 1.0]), np.diag([2.0, 0.0]), np.diag([np.nan, 1.0])]), np.diag([2.0, 1.0])
    found = measures.kernel_statistics(kernels, reference, np.array([1.0, 1.0]))
    assert found["relative_frobenius_error"][:2] == pytest.approx([2 / np.sqrt(5), 1 / np.sqrt(5)])
    assert found["relative_operator_error"][:2] == pytest.approx([1.0, 0.5])
    assert found["largest_eigenvalue"][:2].tolist() == [4, 2]
    assert found["smallest_eigenvalue"][:2].tolist() == [1, 0]
    assert found["condition_number"][:2].tolist() == [4, np.inf]
    assert found["trace"][:2].tolist() == [5, 2]
    assert found["limit_alignment"][:2] == pytest.approx([9 / np.sqrt(17 * 5), 2 / np.sqrt(5)])
    assert found["kernel_target_alignment"][:2] == pytest.approx([5 / (np.sqrt(17) * 2), 0.5])
    assert all(np.isnan(values[2]) for values in found.values())


@pytest.mark.parametrize(
    "network",
    [
        "{activation: erf, depth: 2, sigma_w: 1.1234567890123456, sigma_b: 0.0, output_bias: true}",
        "{activation: erf, depth: 2, parameterization: mup, sigma_b: 0.3}",
        "{activation: erf, depth: 2, parameterization: abc, abc: {a_input: -0.5, a_hidden: 0, a_output: 0.1234567890123456, "
        "b_input: 1, b_hidden: -1, b_output: -1.0e-7, c: -1.5}}",
    ],
)
def test_network_arguments_round_trip(network):
    """The command line of a job reproduces the configuration's network exactly, and a shard's identity is valid JSON."""
    from ntksim import cli
    from ntksim.study.plan.identity import shard_identity

    options = parse_study(
        yaml.safe_load(f"""
        dataset: {{name: digits, classes: [1, 2], train: 4, test: 2}}
        networks: {{n: {network}}}
        initial: {{widths: [4], seeds: 2}}
        """)
    ).networks["n"]
    words = ["limit", "--network", *shlex.split(word(options)), "--width", "4", "--dataset", "d", "--output", "o"]
    assert cli._network(cli._parser(words).parse_args(words)) == options.network(4)
    identity = shard_identity("initial", options.network(4), range(2), "hash")
    assert tables.json_ready(identity) == identity
    assert identity["network"] == options.model_dump()
