"""From a study to its jobs: cells (network, width), shards (a cell and a block of seeds), their files and their cost.

Shards are fixed blocks of seeds: block k holds seeds k B to (k+1) B - 1, cut at the last one asked for. So a file's
name says what is in it, and asking for more seeds, widths or networks leaves every full block as it is.

Like `config`, this module loads neither Numba nor pandas.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ntksim.study.config import FEATURES, Study, family, read_label

TABLES = ("initial", "convergence", "training", "layers", "modes", "final", "drift", "lazy", "spectrum", "scaling_laws")
# Every figure is a function of these tables, in this order.
FIGURES = {
    "convergence": ("convergence", "scaling_laws"),
    "spectrum": ("spectrum",),
    "drift": ("drift", "scaling_laws"),
    "drift_parts": ("drift", "scaling_laws"),
    "loss": ("training",),
    "lazy_or_rich": ("lazy",),
}
TRAINING_TABLES = ("training", "layers", "modes", "final", "drift", "lazy")

# Two cores of a current server reach about 100 (float64) and 200 (float32) GFLOP/s in GEMM, and a core draws a normal in
# a few nanoseconds. Plans take a fraction of that; they bound a job, they are no benchmark.
_FLOPS_PER_SECOND = {"float64": 2e10, "float32": 4e10}
_DRAWS_PER_SECOND = 1.5e8
_STARTUP_SECONDS, _STARTUP_MB = 3.0, 500.0


@dataclass(frozen=True)
class Shard:
    """Seeds first..last of one network at one width, in one stage ("initial" or "training")."""

    stage: str
    network: str
    width: int
    first: int
    last: int

    @property
    def file(self) -> str:
        """Path below the results folder."""
        return f"{self.stage}/{self.network}.width-{self.width}.seeds-{self.first}-{self.last}.parquet"

    @property
    def kernels_file(self) -> str:
        """Path of the kernels kept, below the results folder."""
        return f"kernels/{self.network}.width-{self.width}.seeds-{self.first}-{self.last}.parquet"

    @property
    def seeds(self) -> range:
        """The seeds."""
        return range(self.first, self.last + 1)


def shards(study: Study) -> list[Shard]:
    """Every shard of the study, the largest cells first so that the last jobs to run are short."""
    found = []
    for stage, section in (("initial", study.initial), ("training", study.training)):
        if section is None:
            continue
        for width in sorted(section.widths, reverse=True):
            for network in study.networks:
                for first in range(0, section.seeds, study.seeds_per_shard):
                    last = min(first + study.seeds_per_shard, section.seeds) - 1
                    found.append(Shard(stage, network, width, first, last))
    return found


def shard_files(study: Study, shard: Shard) -> list[str]:
    """Paths of a shard's files below the results folder."""
    kept = shard.stage == "training" and study.training is not None and study.training.keep_kernels
    return [shard.file, *([shard.kernels_file] if kept else [])]


def tables(study: Study) -> list[str]:
    """Names of the tables that the study makes."""
    return [name for name in TABLES if study.training is not None or name not in TRAINING_TABLES]


def figures(study: Study) -> list[str]:
    """Names of the figures that the study draws: those that its tables have something for."""
    families = [family(name) for name in study.networks]
    wanted = {
        "drift_parts": study.training is not None and study.training.remove_initial_output,
        "lazy_or_rich": len(set(families)) < len(families),
    }
    return [name for name, sources in FIGURES.items() if set(sources) <= set(tables(study)) and wanted.get(name, True)]


def looks(module: str) -> str:
    """Hash of the module that draws: what it draws is drawn again when its look has changed, and nothing else is."""
    return hashlib.sha256(Path(__file__).with_name(f"{module}.py").read_bytes()).hexdigest()[:16]


def limit_file(study: Study, network: str, width: int) -> str:
    """Path of a cell's limit below the results folder: one for all widths, where the limit does not depend on the width."""
    own = limit_width(study.networks[network].parameterization, width)
    return f"limit/{network}.npz" if own is None else f"limit/{network}.width-{own}.npz"


def limit_width(parameterization: str, width: int) -> int | None:
    """The width that infinite-width kernels still depend on, through powers of it outside the sums; None where on none.

    Those are computed at width 1, so that rounding does not tell which cell asked for them.
    """
    return None if parameterization in ("ntk", "notes") else width


def arguments(options: BaseModel | Mapping[str, Any]) -> str:
    """A section of the configuration, or a part of one, as the command line of a job takes it."""
    words = []
    for key, value in (options.model_dump() if isinstance(options, BaseModel) else options).items():
        if value is None or value is False:
            continue
        words.append("--" + key.replace("_", "-"))
        if isinstance(value, dict):  # exponents: numbers, in the order of their keys
            value = list(value.values())
        if value is not True:
            words += [shlex.quote(_word(v)) for v in value] if isinstance(value, list) else [shlex.quote(str(value))]
    return " ".join(words)


def _word(value: object) -> str:
    """A word that :func:`config.read_label` reads back: text that looks like a number is put in quotes."""
    return json.dumps(value) if isinstance(value, str) and read_label(value) != value else str(value)


@dataclass(frozen=True)
class Cost:
    """Estimated seconds on one core, and peak memory in MB."""

    seconds: float
    memory_mb: float


def _features(study: Study) -> int:
    data = study.dataset
    return _features_of_file(data.files[0]) if data.files else FEATURES.get(str(data.name)) or data.features or 2


@cache
def _features_of_file(path: str) -> int:
    from ntksim.study.datasets import feature_count  # pandas, for the sake of such files alone

    return feature_count(path)


def cost(study: Study, shard: Shard) -> Cost:
    """A shard's cost from its flops, draws and bytes."""
    depth, m = study.networks[shard.network].depth, shard.width
    n, d = study.dataset.train, _features(study)
    parameters = d * m + (depth - 1) * m * m + m
    itemsize = 8 if study.precision == "float64" else 4
    if shard.stage == "initial":
        flops, draws = float(4 * n * parameters + 4 * n * n * m * depth), 2 * parameters
        held = 4 * n * (d + depth * m) + (8 + len(shard.seeds)) * n * n
    else:
        assert study.training is not None
        schedule = study.training.schedule
        if schedule["method"] == "gradient_descent":
            passes = schedule["relative_time"] / schedule["relative_learning_rate"]
        else:  # tens of steps of some five passes, whatever the time, and three passes a snapshot
            passes = 150.0 + 3 * schedule["snapshots"]
        flops, draws = 6 * n * parameters * passes, parameters
        # a step of the flow holds the network at four places
        held = 4 * parameters + 12 * n * (d + depth * m) + 20 * n * n
        # kernels along the way, of a few seeds at a time (`training_shards`), and what is computed from them
        held += 4 * min(min(len(shard.seeds), 8) * (schedule["snapshots"] + 1) * n * n, 2**28 // itemsize)
    each = flops / _FLOPS_PER_SECOND[study.precision] + draws / _DRAWS_PER_SECOND
    return Cost(_STARTUP_SECONDS + len(shard.seeds) * each, _STARTUP_MB + held * itemsize / 1e6)


def describe(study: Study) -> str:
    """The plan as text: shards, estimated core seconds and the largest job's memory, per stage and network."""
    lines = [f"{'stage':<10} {'network':<16} {'widths':<16} {'seeds':>6} {'jobs':>5} {'core seconds':>13} {'memory MB':>10}"]
    every = shards(study)
    for stage in ("initial", "training"):
        for network in study.networks:
            mine = [s for s in every if s.stage == stage and s.network == network]
            if not mine:
                continue
            costs = [cost(study, s) for s in mine]
            widths = f"{min(s.width for s in mine)}..{max(s.width for s in mine)}"
            seconds, memory = sum(c.seconds for c in costs), max(c.memory_mb for c in costs)
            seeds = 1 + max(s.last for s in mine)
            lines.append(f"{stage:<10} {network:<16} {widths:<16} {seeds:>6} {len(mine):>5} {seconds:>13.0f} {memory:>10.0f}")
    total = sum(cost(study, s).seconds for s in every)
    lines.append(f"{len(every)} jobs of kernels and training: about {total:.0f} core seconds; results in {Path(study.results)}/")
    return "\n".join(lines)


def training_arguments(study: Study) -> str:
    """The options of a training job that are the same for all networks."""
    if study.training is None:
        return ""
    return arguments(study.training.schedule)
