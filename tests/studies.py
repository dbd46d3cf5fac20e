"""Studies run as a user runs them, for tests: through the command, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from ntksim.study.config.study import parse_study
from ntksim.study.data import nested
from ntksim.study.plan import jobs
from ntksim.study.plan.identity import limit_width
from ntksim.study.stages import initial
from ntksim.study.stages.shard import ShardJob
from ntksim.study.stages.training import training_shard
from ntksim.study.statistics import tables

ROOT = Path(__file__).parents[1]
TINY = {
    "dataset": {"name": "circle", "train": 6, "test": 3},
    "networks": {"tanh": {"activation": "tanh", "depth": 1}},
    "initial": {"widths": [8, 16], "seeds": 4},
    "seeds_per_shard": 2,
}


def command(folder, content, *options):
    """Write the configuration into ``folder``, and return the command that runs it with the results beside it."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content | {"results": str(folder / "results")}))
    return [sys.executable, "-m", "ntksim.cli", "study", str(path), "--cores", "2", *options]


def environment(**more):
    """The environment in which every process of a study runs the code of this checkout, whatever is installed."""
    before = os.environ.get("PYTHONPATH")
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), *([before] if before else [])])}
    return os.environ | paths | {"MATPLOTLIBRC": str(ROOT / "tests" / "matplotlibrc")} | more


def run(folder, content, *options, **variables):
    """Run a study, with more environment; returns its exit status and what it printed. The time allows for a busy machine."""
    done = subprocess.run(
        command(folder, content, *options), cwd=ROOT, env=environment(**variables), capture_output=True, text=True, timeout=600
    )
    return done.returncode, done.stdout + done.stderr


def numbers(results):
    """The bytes of every file that holds numbers, by its path below the results."""
    kinds = ("dataset*.npz", "limit/*", "initial/*", "training/*", "tables/*")
    return {str(path.relative_to(results)): path.read_bytes() for kind in kinds for path in sorted(results.glob(kind))}


def compute(study):
    """All stages of a study in this process, without figures."""
    results = Path(study.results)
    for label in study.data_sets:
        nested.write(results / jobs.dataset_file(label), nested.load(*study.drawn(label)))
    for shard in jobs.shards(study):
        data = results / jobs.dataset_file(shard.data)
        network = study.networks[shard.network].network(shard.width)
        limit = results / jobs.limit_file(study, shard.network, shard.width, shard.data)
        if not limit.exists():
            options = study.networks[shard.network]
            initial.limit(data, options.network(limit_width(options.parameterization, shard.width) or 1), limit)
        job = ShardJob(data, limit, network, shard.seeds, results / shard.file, study.precision, name=shard.network)
        if shard.stage == "initial":
            initial.initial_shard(job, study.initial.sampling, study.initial.first_step)
        else:
            kernels = results / shard.kernels_file if study.training.keep_kernels else None
            training_shard(job, study.training, kernels)
    tables.make_tables(study, results / "tables")


def computed(content, folder, **changes):
    """The study of a configuration with changes, all stages computed in this process, in a folder."""
    study = parse_study(content | {"results": str(folder)} | changes)
    compute(study)
    return study
