"""From a study to its jobs: cells (network, data set, width), shards (a cell and a block of seeds), their files and their cost.

Shards that the results folder holds stay, whatever blocks of seeds they were cut into: their names say what is in them, and
`integrity` removes those that hold something else. Only seeds that none of them has are planned anew, in blocks: block k holds
seeds k B to (k+1) B - 1, cut where a shard is there and at the last seed asked for. B is `seeds_per_shard`, halved until a shard
takes at most `shard_minutes` on a nominal machine, the same whatever the real one. As planned shards appear, the plan stays.

Like `config`, this module loads neither Numba nor pandas.
"""

import itertools
import math
import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ntksim.study.config.axes import family
from ntksim.study.config.network import NetworkOptions
from ntksim.study.config.section import MOST_SHARDS
from ntksim.study.config.study import Study
from ntksim.study.errors import ConfigError
from ntksim.study.plan.cost import NOMINAL, Cost, Rates, cost_of, limit_cost, nominal_seconds, others
from ntksim.study.plan.identity import limit_width

TABLES = ("initial", "convergence", "spectrum", "scaling_laws")
AT_INITIALISATION = (*TABLES, "dispersion", "continuum")  # all that a study may have without training
TRAINING_TABLES = ("training", "ensemble", "layers", "modes", "final", "drift", "lazy")
# Every figure is a function of these tables, in this order.
FIGURES = {
    "convergence": ("convergence", "scaling_laws"),
    "spectrum": ("spectrum",),
    "drift": ("drift", "scaling_laws"),
    "drift_parts": ("drift", "scaling_laws"),
    "loss": ("training",),
    "test_loss": ("drift", "final"),
    "accuracy": ("drift",),
    "lazy_or_rich": ("lazy", "final"),
    "learning_curve": ("drift", "final", "scaling_laws"),
    "dispersion": ("dispersion",),
    "eigenvalues": ("eigenvalues",),
    "modes": ("mode_residuals",),
    "couplings": ("couplings",),
    "profile": ("profiles",),
    "predictions": ("predictions",),
    "regression": ("regression", "final"),
    "freeze": ("freeze",),
}
FORMATS = ("svg", "png", "pdf")  # of every figure

_MOST_THREADS = 16  # of a job


@dataclass(frozen=True)
class Shard:
    """Seeds first..last of one network at one width, in one stage ("initial" or "training").

    ``data`` says which data set it is of, where a study has several (`Study.data_sets`).
    """

    stage: str
    network: str
    width: int
    first: int
    last: int
    data: str = ""

    @property
    def file(self) -> str:
        """Path below the results folder."""
        return f"{self.stage}/{self._name}"

    @property
    def kernels_file(self) -> str:
        """Path of the kernels kept, below the results folder."""
        return f"kernels/{self._name}"

    @property
    def _name(self) -> str:
        return f"{named(self.network, self.data)}.width-{self.width}.seeds-{self.first}-{self.last}.parquet"

    @property
    def seeds(self) -> range:
        """The seeds."""
        return range(self.first, self.last + 1)


def named(name: str, data: str) -> str:
    """What a file is called after: a network, or ``dataset``, with its data set where there are several."""
    return f"{name}.{data}" if data else name


def shards(study: Study) -> list[Shard]:
    """Every shard of the study, there or yet to make, the largest cells first so that the last jobs to run are short."""
    found: list[Shard] = []
    studies = dict(reversed(study.data_sets.items()))
    for stage, section in (("initial", study.initial), ("training", study.training)):
        if section is None:
            continue
        there = _there(Path(study.results) / stage)
        for width, network, data in itertools.product(sorted(section.widths, reverse=True), study.networks, studies):
            block = seeds_in_block(studies[data], stage, network, width)
            if len(found) + section.seeds / block > MOST_SHARDS:
                raise ConfigError(
                    f"shard_minutes: the study would have more than {MOST_SHARDS} jobs; raise it, or ask for fewer seeds"
                )
            kept = _most_seeds([own for own in there.get((network, data, width), []) if own.stop <= section.seeds])
            found += [Shard(stage, network, width, own[0], own[-1], data) for own in _filled(kept, section.seeds, block)]
    return found


_NAME = re.compile(r"(\w+)(?:\.([\w.-]+?))?\.width-(\d+)\.seeds-(\d+)-(\d+)\.parquet")


def _there(folder: Path) -> dict[tuple[str, str, int], list[range]]:
    """Seeds of every shard in a folder, by network, data set and width, as files are called."""
    found: dict[tuple[str, str, int], list[range]] = {}
    with suppress(OSError):
        for entry in os.scandir(folder):
            if name := _NAME.fullmatch(entry.name):
                network, data, (width, first, last) = name[1], name[2] or "", map(int, name.groups()[2:])
                if entry.name == Path(Shard("", network, width, first, last, data).file).name and first <= last:
                    found.setdefault((network, data, width), []).append(range(first, last + 1))
    return found


def _most_seeds(there: list[range]) -> list[range]:
    """Of ranges of seeds those that hold the most seeds without meeting, ascending.

    Of choices that hold as many the one with the range that begins first, then the longest: so a choice does not change when
    ranges are added that meet none of it.
    """
    there = sorted(there, key=lambda own: (own.start, -own.stop))
    starts = [own.start for own in there]
    behind = [bisect_left(starts, own.stop) for own in there]
    most = [0] * (len(there) + 1)  # seeds among the ranges from here on
    for i in reversed(range(len(there))):
        most[i] = max(most[i + 1], len(there[i]) + most[behind[i]])
    kept, i = [], 0
    while i < len(there):
        takes = len(there[i]) + most[behind[i]] == most[i]
        kept += [there[i]] if takes else []
        i = behind[i] if takes else i + 1
    return kept


def _filled(kept: list[range], seeds: int, block: int) -> Iterator[range]:
    """Ranges of all seeds below ``seeds``: the ``kept`` ones, which ascend, and blocks, or parts of them, between."""
    at = 0
    for own in [*kept, range(seeds, seeds)]:
        while at < own.start:
            end = min((at // block + 1) * block, own.start)
            yield range(at, end)
            at = end
        if own:
            yield own
            at = own.stop


def seeds_in_block(study: Study, stage: str, network: str, width: int) -> int:
    """Seeds of a full shard of a cell."""
    block = study.seeds_per_shard
    while block > 1 and nominal_seconds(study, stage, network, width, block) > 60 * study.shard_minutes:
        block = (block + 1) // 2
    return block


def threads(study: Study, shard: Shard) -> int:
    """Threads of a shard's job: one, but for a single network that takes longer than a shard should."""
    seconds = nominal_seconds(study.data_set(shard.data), shard.stage, shard.network, shard.width, 1)
    if len(shard.seeds) > 1 or seconds <= 60 * study.shard_minutes:
        return 1
    return min(_MOST_THREADS, math.ceil(min(seconds, 1e9) / (60 * study.shard_minutes)))


def shard_files(study: Study, shard: Shard) -> list[str]:
    """Paths of a shard's files below the results folder."""
    kept = shard.stage == "training" and study.training is not None and study.training.keep_kernels
    return [shard.file, *([shard.kernels_file] if kept else [])]


def tables(study: Study) -> list[str]:
    """Names of the tables that the study makes."""
    training = study.training
    asked = training.measures.tables if training is not None and training.measures is not None else []
    at_initialisation = {"dispersion": study.initial.dispersion, "continuum": study.initial.continuum_degrees}
    asked = [*(name for name, key in at_initialisation.items() if key is not None), *asked]
    return [*TABLES, *(TRAINING_TABLES if training is not None else ()), *asked]


def figures(study: Study) -> list[str]:
    """Names of the figures that the study draws: those that its tables have something for (accuracy where classes are named)."""
    families = [family(name) for name in study.networks]
    wanted = {
        "drift_parts": study.training is not None and study.training.remove_initial_output,
        "accuracy": study.dataset.classes_or_default is not None,
        "lazy_or_rich": len(set(families)) < len(families),
        "learning_curve": "train" in study.laws_along,
    }
    return [name for name, sources in FIGURES.items() if set(sources) <= set(tables(study)) and wanted.get(name, True)]


def drawn_tables(study: Study) -> list[str]:
    """Names of the tables that its figures are drawn from."""
    return sorted({table for name in figures(study) for table in FIGURES[name]})


def dataset_file(data: str = "") -> str:
    """Path of a data set below the results folder."""
    return f"{named('dataset', data)}.npz"


def limit_file(study: Study, network: str, width: int, data: str = "") -> str:
    """Path of a cell's limit below the results folder: one for all widths, where the limit does not depend on the width."""
    own = limit_width(study.networks[network].parameterization, width)
    return f"limit/{named(network, data)}.npz" if own is None else f"limit/{named(network, data)}.width-{own}.npz"


def limits(study: Study) -> dict[str, Shard]:
    """A shard that reads it, by the path of every limit below the results folder."""
    return {limit_file(study, shard.network, shard.width, shard.data): shard for shard in shards(study)}


def allowance(networks: Iterable[NetworkOptions]) -> str:
    """The option that lets a job import the networks' activations, if any is imported."""
    return " --allow-imports" if any(isinstance(own.activation, dict) for own in networks) else ""


def cost(study: Study, shard: Shard, rates: Rates = NOMINAL) -> Cost:
    """A shard's cost."""
    return cost_of(study.data_set(shard.data), shard.stage, shard.network, shard.width, len(shard.seeds), rates)


def describe(study: Study, rates: Rates) -> str:
    """The plan as text: cells, jobs, and what they are predicted to take at ``rates``, with totals."""
    every = shards(study)
    names = [named(network, data) for network in study.networks for data in study.data_sets]
    row = partial(_row, max(16, *map(len, names)))
    lines = [row("stage", "network", "widths", "seeds", "cells", "jobs", "core seconds", "longest", "memory MB", "disk MB")]
    jobs = [("limit", named(own.network, own.data), _limit_cost(study, own, rates)) for own in limits(study).values()]
    jobs += [(shard.stage, named(shard.network, shard.data), cost(study, shard, rates)) for shard in every]
    costs_of: dict[tuple[str, str], list[Cost]] = {}
    shards_of: dict[tuple[str, str], list[Shard]] = {}
    for kind, name, cost_ in jobs:
        costs_of.setdefault((kind, name), []).append(cost_)
    for shard in every:
        shards_of.setdefault((shard.stage, named(shard.network, shard.data)), []).append(shard)
    for stage in ("limit", "initial", "training"):
        for name in names:
            if costs := costs_of.get((stage, name), []):
                mine = shards_of.get((stage, name), [])
                widths = sorted({shard.width for shard in mine})
                about = (
                    (f"{widths[0]}..{widths[-1]}", 1 + max(shard.last for shard in mine), len(widths)) if mine else ("", "", "")
                )
                lines.append(row(stage, name, *about, len(costs), *_sums(costs)))
        if costs := [cost for kind, _, cost in jobs if kind == stage]:
            cells = len({(shard.network, shard.data, shard.width) for shard in every if shard.stage == stage})
            lines.append(row(stage, "all", "", "", cells or "", len(costs), *_sums(costs)))
    lines.append(row("all", "", "", "", "", len(jobs), *_sums([cost for _, _, cost in jobs])))
    rest = others(study, rates, len(figures(study)))
    seconds = sum(rest.values()) + (len(study.data_sets) - 1) * rest["dataset"]
    lines.append(f"Data, tables, figures and report take {seconds:.0f} core seconds more. Results in {study.results}/")
    return "\n".join(lines)


def _limit_cost(study: Study, shard: Shard, rates: Rates) -> Cost:
    return limit_cost(study.data_set(shard.data), shard.network, rates)


def memory_remark(study: Study, megabytes: int) -> str | None:
    """A warning if a machine of so much memory does not hold the largest job; None if it does."""
    costs = ((cost(study, shard, NOMINAL), shard) for shard in shards(study))
    largest, shard = max(costs, key=lambda pair: pair[0].memory_mb)
    if largest.memory_mb <= megabytes:
        return None
    less = f"{shard.stage}.widths, dataset.train, seeds_per_shard" + (", training.snapshots" if shard.stage == "training" else "")
    in_law = _in_law(study)
    if shard.stage == "training" and in_law and (need := cost(in_law, shard, NOMINAL).memory_mb) < largest.memory_mb / 2:
        less += f"; or set training.sampling to conditional, which needs about {need / 1e3:.3g} GB"
    return (
        f"the largest job ({shard.stage} of {shard.network}, width {shard.width}) needs about {largest.memory_mb / 1e3:.3g} GB "
        f"of memory, more than the {megabytes / 1e3:.3g} GB that this machine has, and may be killed if it runs here: "
        f"lower {less}"
    )


def _in_law(study: Study) -> Study | None:
    """The study with training in law; None without training by gradient flow, or where its other keys do not allow that."""
    training = study.training
    if training is None or training.method != "gradient_flow" or study.device == "cuda":
        return None
    try:
        in_law = type(training).model_validate(training.model_dump(exclude_defaults=True) | {"sampling": "conditional"})
    except ValueError:
        return None
    return study.model_copy(update={"training": in_law})


def predicted_seconds(study: Study, rates: Rates) -> dict[str, float]:
    """Predicted seconds of every job, by the path of its benchmark below the results' folder of them."""
    rest = others(study, rates, len(figures(study)))
    found = {_benchmark(dataset_file(data)): rest["dataset"] for data in study.data_sets}
    found |= {f"{name}.jsonl": rest[name] for name in ("tables", "figures", "report")}
    found |= {_benchmark(file): _limit_cost(study, shard, rates).seconds for file, shard in limits(study).items()}
    return found | {_benchmark(shard.file): cost(study, shard, rates).seconds for shard in shards(study)}


def _benchmark(file: str) -> str:
    return str(Path(file).with_suffix(".jsonl"))


def _row(longest: int, *cells: object) -> str:
    widths = (-9, -longest, -12, 8, 6, 6, 13, 8, 10, 9)
    return " ".join(f"{cell!s:{'<' if width < 0 else '>'}{abs(width)}}" for cell, width in zip(cells, widths, strict=True))


def _sums(costs: list[Cost]) -> list[str]:
    """Seconds in all and of the longest job, memory of the largest, disk in all."""
    seconds = [cost.seconds for cost in costs]
    memory, disk = max(cost.memory_mb for cost in costs), sum(cost.disk_mb for cost in costs)
    return [f"{sum(seconds):.0f}", f"{max(seconds):.0f}", f"{memory:.0f}", f"{disk:.1f}"]
