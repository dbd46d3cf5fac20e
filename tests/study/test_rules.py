"""What the workflow asks of a study: words and files of jobs, what they are allotted, and identities that must not change."""

import json
import shlex
from types import SimpleNamespace

import pytest

from ntksim.engine.training.train import METHODS
from ntksim.study.config.network import NetworkOptions
from ntksim.study.config.stages import Schedule, Training
from ntksim.study.config.study import json_schema, parse_study
from ntksim.study.config.words import section_of, word
from ntksim.study.errors import ConfigError
from ntksim.study.plan import cost, identity, jobs
from ntksim.study.plan.rules import Rules, megabytes, minutes
from ntksim.study.stages import training

CONTENT = {
    "dataset": {"name": "digits", "classes": [4, 9], "train": 8, "test": 4},
    "networks": {
        "relu": {"activation": "relu", "depth": 1},
        "std": {"activation": "tanh", "depth": 1, "parameterization": "standard", "sigma_b": 0.1, "output_bias": True},
    },
    "initial": {"widths": [8, 16], "seeds": 6},
    "training": {"widths": [8], "seeds": 3, "relative_time": 7.5, "keep_kernels": True},
    "seeds_per_shard": 4,
    "results": "out",
}
ASKED = Rules(parse_study(CONTENT), cost.NOMINAL)
SHARD = SimpleNamespace(network="std", width="16", first="4", last="5")


def test_files_are_those_of_the_plan():
    study = ASKED.study
    every = [f"out/{file}" for shard in jobs.shards(study) for file in jobs.shard_files(study, shard)]
    assert sorted(ASKED.shard_files("initial") + ASKED.shard_files("training")) == sorted(every)
    files = {name: file.format(network="std", width=8, first=0, last=2) for name, file in ASKED.training_files().items()}
    assert files == {
        "shard": "out/training/std.width-8.seeds-0-2.parquet",
        "kernels": "out/kernels/std.width-8.seeds-0-2.parquet",
    }
    assert set(files.values()) < set(every)
    without = parse_study(CONTENT | {"training": CONTENT["training"] | {"keep_kernels": False}})
    assert list(Rules(without, cost.NOMINAL).training_files()) == ["shard"]


def test_limits_are_found_by_their_cells():
    assert ASKED.limit_file(SHARD) == "out/limit/std.width-16.npz"
    cell = SimpleNamespace(cell="std.width-16")
    assert ASKED.width_of_limit(cell) == 16
    options = ASKED.study.networks["std"]
    assert section_of(*shlex.split(ASKED.network_of_limit(cell)), NetworkOptions, "n") == options
    assert ASKED.limit_file(SimpleNamespace(network="relu", width="16")) == "out/limit/relu.npz"
    assert ASKED.width_of_limit(SimpleNamespace(cell="relu")) == 1


def test_jobs_are_told_what_the_study_says():
    assert ASKED.shard("initial", SHARD) == jobs.Shard("initial", "std", 16, 4, 5)
    assert ASKED.stop(SHARD) == 6
    assert section_of(*shlex.split(ASKED.network(SHARD)), NetworkOptions, "n") == ASKED.study.networks["std"]
    assert section_of(*shlex.split(ASKED.schedule(SHARD)), Schedule, "s") == ASKED.study.training.schedule


def test_a_key_at_its_default_is_in_no_command():
    """So a new key starts no job anew: Snakemake compares commands' words."""
    assert word(NetworkOptions(depth=1, activation="relu", sigma_w=1.0)) == """'{"depth":1,"activation":"relu"}'"""


def test_allotments_follow_costs_and_grow_with_attempts():
    shard = jobs.Shard("initial", "std", 16, 4, 5)
    known = jobs.cost(ASKED.study, shard, cost.NOMINAL)
    for attempt in (1, 2):
        assert ASKED.memory("initial")(SHARD, attempt) == megabytes(known, attempt)
        assert ASKED.runtime("initial")(SHARD, 2, attempt) == minutes(known, attempt, 2)
        limit = cost.limit_cost(ASKED.study, "std", cost.NOMINAL)
        assert ASKED.memory_of_limit(SimpleNamespace(cell="std.width-16"), attempt) == megabytes(limit, attempt)
        assert ASKED.runtime_of_limit(SimpleNamespace(cell="std.width-16"), attempt) == minutes(limit, attempt)
    assert ASKED.threads("initial")(SHARD) == 1
    job = cost.Cost(seconds=1200.0, memory_mb=1000.0, disk_mb=1.0)
    assert [megabytes(job, attempt) for attempt in (1, 2)] == [1800, 3600]
    assert [minutes(job, 1), minutes(job, 2), minutes(job, 1, threads=2)] == [75, 150, 45]


def test_memory_is_planned_for_what_the_stage_holds():
    assert (cost._TRAINED_TOGETHER, cost._KEPT_BYTES) == (training._MOST_SEEDS, training._KEPT_BYTES)


@pytest.mark.parametrize("text", ["relu", "[1]", "3", "", "{", "[" * 100_000])
def test_words_that_are_no_sections_are_refused(text):
    with pytest.raises(ConfigError, match=r"^--network: expected keys and values in JSON, such as \{.*; got '"):
        section_of(text, NetworkOptions, "--network")


def test_lists_of_words_are_those_of_the_engine():
    keys = json_schema()["$defs"]
    assert keys["Training"]["properties"]["method"]["enum"] == list(METHODS)
    assert set(Training.model_fields) == {*Schedule.model_fields, "widths", "seeds", "keep_kernels"}


# Of shards that studies have computed: a difference here says that all of them would be computed again.
NETWORK = {
    "depth": 1, "activation": "relu", "parameterization": "ntk", "sigma_w": 1.0, "sigma_a": 1.0, "sigma_b": None,
    "output_bias": False, "output_scale": 1.0, "abc": None,
}  # fmt: skip
FLOW = {
    "method": "gradient_flow", "relative_time": 7.5, "snapshots": 20, "layer_rates": None, "remove_initial_output": False,
    "tolerance": 1e-4,
}  # fmt: skip
DESCENT = FLOW | {
    "method": "gradient_descent", "relative_learning_rate": 0.5, "momentum": 0.0, "nesterov": False, "batch_size": None,
}  # fmt: skip
del DESCENT["tolerance"]


@pytest.mark.parametrize(
    ("options", "schedule"),
    [
        ({}, FLOW),
        (
            {"tolerance": 1e-3, "snapshots": 7, "remove_initial_output": True, "keep_kernels": True, "layer_rates": [1.0, 0.0]},
            FLOW | {"tolerance": 1e-3, "snapshots": 7, "remove_initial_output": True, "layer_rates": [1.0, 0.0]},
        ),
        ({"ridge": 1e-3, "momentum": 0.0}, FLOW | {"ridge": 1e-3}),
        ({"method": "gradient_descent"}, DESCENT),
        (
            {"method": "gradient_descent", "relative_learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "batch_size": 4},
            DESCENT | {"relative_learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "batch_size": 4},
        ),
    ],
)
def test_identities_stay_what_they_were(options, schedule):
    study = parse_study(CONTENT | {"training": CONTENT["training"] | options})
    found = {stage: identity.of_shard(study, jobs.Shard(stage, "relu", 8, 0, 2), "hash") for stage in ("initial", "training")}
    for own in found.values():
        assert {"version", "source"} < set(own)
        del own["version"], own["source"]
    common = {"network": NETWORK, "width": 8, "seeds": [0, 2], "dataset": "hash", "dtype": "float64"}
    assert found["initial"] == {"stage": "initial"} | common
    assert found["training"] == {"stage": "training"} | common | schedule
    assert json.loads(json.dumps(found)) == found
