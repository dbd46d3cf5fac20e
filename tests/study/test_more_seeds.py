"""Existing shards are kept when a study grows or its blocks change: only missing seeds are computed."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import ntksim
import studies
from ntksim import cli
from ntksim.study.config.study import parse_study
from ntksim.study.files import storage
from ntksim.study.plan import identity, jobs
from ntksim.study.run import integrity

CONTENT = {
    "dataset": {"name": "circle", "train": 5, "test": 3},
    "networks": {"tanh": {"activation": "tanh", "depth": 1}},
    "initial": {"widths": [8], "seeds": 8},
    "training": {"widths": [8], "seeds": 8, "relative_time": 5.0, "snapshots": 2, "keep_kernels": True},
}


def with_seeds(count, **more):
    return CONTENT | {stage: CONTENT[stage] | {"seeds": count} for stage in ("initial", "training")} | more


def shard_files(results):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for kind in KINDS for path in (results / kind).glob("*.parquet")}


KINDS = ("initial", "training", "kernels")


def test_growing_from_8_to_12_seeds_computes_4(tmp_path):
    """The sizes of old and new blocks do not matter. The tables equal those of a study with all seeds, and are verified."""
    status, text = studies.run(tmp_path, CONTENT | {"seeds_per_shard": 5})
    assert status == 0, text
    results, content = tmp_path / "results", with_seeds(12)
    before = shard_files(results)
    assert {path.name for path in before} == {f"tanh.width-8.seeds-{seeds}.parquet" for seeds in ("0-4", "5-7")}
    status, text = studies.run(tmp_path, content)
    assert status == 0, text
    after = shard_files(results)
    assert {path: after[path] for path in before} == before
    assert {str(path.relative_to(results)) for path in after.keys() - before.keys()} == {
        f"{kind}/tanh.width-8.seeds-8-11.parquet" for kind in KINDS
    }
    whole = studies.computed(content, tmp_path / "whole")
    assert [len(shard.seeds) for shard in jobs.shards(whole)] == [12, 12]
    for name in jobs.tables(whole):
        assert ntksim.read_table(results, name).equals(ntksim.read_table(whole.results, name)), name
    kernels = [ntksim.read_kernels(folder, "tanh", 8).kernels for folder in (results, whole.results)]
    assert kernels[0].shape[0] == 12
    assert (kernels[0] == kernels[1]).all()
    assert cli.main(["verify", str(results), "--fraction", "1"]) == 0


def there(study, ranges, **other):
    """Write shards at initialisation with the identity that a study asks for, changed by ``other``; return their paths."""
    paths = []
    for first, last in ranges:
        shard = jobs.Shard("initial", "tanh", 8, first, last)
        path = f"{study.results}/{shard.file}"
        storage.write_table(path, EMPTY, {"identity": identity.of_shard(study, shard, "data") | other})
        paths.append(path)
    return paths


EMPTY = pa.table({"seed": [0]})


def seeds_of(study):
    return [(shard.first, shard.last) for shard in jobs.shards(study) if shard.stage == "initial"]


def study_at(folder, seeds, block):
    return parse_study({key: value for key, value in with_seeds(seeds).items() if key != "training"}
                       | {"results": str(folder), "seeds_per_shard": block})  # fmt: skip


@pytest.mark.parametrize(
    ("ranges", "seeds", "block", "expected"),
    [
        ([(0, 7)], 12, 32, [(0, 7), (8, 11)]),
        ([(0, 7)], 8, 4, [(0, 7)]),
        ([(0, 1), (2, 3)], 12, 8, [(0, 1), (2, 3), (4, 7), (8, 11)]),
        ([(4, 7)], 12, 32, [(0, 3), (4, 7), (8, 11)]),
        ([(0, 11)], 8, 32, [(0, 7)]),  # the shard has more seeds than the study asks for
        ([(0, 7), (0, 11)], 12, 32, [(0, 11)]),
        ([(0, 11), (0, 7), (8, 15)], 16, 32, [(0, 7), (8, 15)]),
        ([], 5, 2, [(0, 1), (2, 3), (4, 4)]),
    ],
)
def test_only_seeds_without_a_shard_are_planned(tmp_path, ranges, seeds, block, expected):
    study = study_at(tmp_path, seeds, block)
    there(study, ranges)
    for name in ("tanh.width-8.seeds-0-99999.parquet.x", "tanh.width-8.seeds-00-2.parquet", "tanh.width-8.seeds-5-2.parquet"):
        (tmp_path / "initial").mkdir(exist_ok=True)
        (tmp_path / "initial" / name).touch()
    assert seeds_of(study) == expected


def test_the_plan_does_not_change_as_its_shards_appear(tmp_path):
    """The order in which shards appear does not matter, since cluster jobs may read the plan at any moment.

    The plan contains every seed once, and keeps as many existing seeds as possible.
    """
    rng = np.random.default_rng(0)
    for _ in range(300):
        seeds, block = int(rng.integers(2, 14)), int(rng.integers(1, 9))
        every = [range(*sorted(pair)) for pair in rng.integers(0, seeds + 1, (rng.integers(0, 6), 2)).tolist()]
        files = [own for own in every if len(own)]
        kept = jobs._most_seeds(files)
        best = max(
            sum(map(len, some)) for count in range(len(files) + 1) for some in itertools.combinations(files, count)
            if len(set(itertools.chain(*some))) == sum(map(len, some))
        )  # fmt: skip
        assert sum(map(len, kept)) == best
        planned = list(jobs._filled(kept, seeds, block))
        assert list(itertools.chain(*planned)) == list(range(seeds))
        new = [own for own in planned if own not in kept]
        for place in rng.permutation(len(new)):
            files.append(new[place])
            assert list(jobs._filled(jobs._most_seeds(files), seeds, block)) == planned


def test_a_shard_with_a_wrong_identity_is_replaced(tmp_path, capsys):
    """The plan trusts file names. A shard with a wrong identity is removed; then other shards for its seeds are checked too."""
    study = study_at(tmp_path, 12, 32)
    (wide,) = there(study, [(0, 11)], dtype="float32")
    (low,) = there(study, [(0, 7)])
    (high,) = there(study, [(8, 11)], dataset="another")
    assert seeds_of(study) == [(0, 11)]
    faults = {str(fault.path): fault.kind for fault in integrity.mend(study, {"": "data"}, recompute=False)}
    assert [faults.get(path) for path in (wide, low, high)] == ["configuration", None, "configuration"]
    assert seeds_of(study) == [(0, 7), (8, 11)]
    assert [Path(path).exists() for path in (wide, low, high)] == [False, True, False]
    said = capsys.readouterr().err
    assert said.count("computed again") == 2
