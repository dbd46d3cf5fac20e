"""What the rules of the workflow ask of a study: the files, words, threads, memory and time of jobs, by a rule's wildcards.

Snakemake looks at the names of arguments (``wildcards``, ``attempt``, ``threads``) for what to pass. Of a shard the wildcards are
network, width, first and last (seed), and of a limit its cell.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ntksim.study.config.study import Study
from ntksim.study.config.words import word
from ntksim.study.plan import jobs
from ntksim.study.plan.cost import Cost, Rates, limit_cost


def megabytes(cost: Cost, attempt: int) -> int:
    """Memory to ask for: half as much again, and what Snakemake itself takes on a node; more with every attempt."""
    return int(attempt * (300 + 1.5 * cost.memory_mb))


def minutes(cost: Cost, attempt: int, threads: int = 1) -> int:
    """Time to ask for: three times over, and what it takes to begin; more with every attempt."""
    return int(attempt * min(15 + cost.seconds / 20 / threads, 1e6))


@dataclass(frozen=True)
class Rules:
    """The answers for one study, with costs at some rates."""

    study: Study
    rates: Rates

    def shard(self, stage: str, wildcards: Any) -> jobs.Shard:
        """The shard of a job."""
        return jobs.Shard(stage, wildcards.network, int(wildcards.width), int(wildcards.first), int(wildcards.last))

    def shard_files(self, stage: str) -> list[str]:
        """What all jobs of a stage write."""
        mine = (shard for shard in jobs.shards(self.study) if shard.stage == stage)
        return [self._path(file) for shard in mine for file in jobs.shard_files(self.study, shard)]

    def training_files(self) -> dict[str, str]:
        """What a job of training writes, with wildcards in the names: its shard, and the kernels where they are kept."""
        pattern = jobs.Shard("training", "{network}", "{width}", "{first}", "{last}")  # type: ignore[arg-type]
        return dict(zip(("shard", "kernels"), map(self._path, jobs.shard_files(self.study, pattern)), strict=False))

    def limit_file(self, wildcards: Any) -> str:
        """The limit that a shard reads."""
        return self._path(jobs.limit_file(self.study, wildcards.network, int(wildcards.width)))

    def stop(self, wildcards: Any) -> int:
        """The first seed behind those of a shard."""
        return int(wildcards.last) + 1

    def dataset(self, wildcards: Any) -> str:
        """The data set, as a word."""
        return word(self.study.dataset)

    def network(self, wildcards: Any) -> str:
        """A shard's network, as a word, and whether the job may import its activation."""
        return self._network(wildcards.network)

    def network_of_limit(self, wildcards: Any) -> str:
        """A limit's network, likewise."""
        return self._network(_cell(wildcards)[0])

    def width_of_limit(self, wildcards: Any) -> int:
        """The width that a limit is computed for."""
        return _cell(wildcards)[1]

    def schedule(self, wildcards: Any) -> str:
        """The schedule of training, as a word."""
        assert self.study.training is not None
        return word(self.study.training.schedule)

    def threads(self, stage: str) -> Callable[..., int]:
        """Threads of a stage's shards."""
        return lambda wildcards: jobs.threads(self.study, self.shard(stage, wildcards))

    def memory(self, stage: str) -> Callable[..., int]:
        """Megabytes of a stage's shards."""
        return lambda wildcards, attempt: megabytes(self._cost(stage, wildcards), attempt)

    def runtime(self, stage: str) -> Callable[..., int]:
        """Minutes of a stage's shards."""
        return lambda wildcards, threads, attempt: minutes(self._cost(stage, wildcards), attempt, threads)

    def memory_of_limit(self, wildcards: Any, attempt: int) -> int:
        """Megabytes of a limit."""
        return megabytes(limit_cost(self.study, _cell(wildcards)[0], self.rates), attempt)

    def runtime_of_limit(self, wildcards: Any, attempt: int) -> int:
        """Minutes of a limit."""
        return minutes(limit_cost(self.study, _cell(wildcards)[0], self.rates), attempt)

    def _network(self, name: str) -> str:
        own = self.study.networks[name]
        return word(own) + jobs.allowance([own])

    def _cost(self, stage: str, wildcards: Any) -> Cost:
        return jobs.cost(self.study, self.shard(stage, wildcards), self.rates)

    def _path(self, file: str) -> str:
        return f"{self.study.results}/{file}"


def _cell(wildcards: Any) -> tuple[str, int]:
    """Network and width of a limit: one file for all widths, or of one width, which the cell then names (`jobs.limit_file`)."""
    network, _, width = wildcards.cell.partition(".width-")
    return network, int(width or 1)
