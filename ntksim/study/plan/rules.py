"""What the rules of the workflow ask of a study: the files, words, threads, memory and time of jobs, by a rule's wildcards.

Snakemake looks at the names of arguments (``wildcards``, ``attempt``, ``threads``) for what to pass. Of a shard the wildcards are
network (with its data set, where there are several), width, first and last (seed), of a limit its cell, and of a data set what
its file says of it: nothing, or .train-8.
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
        network, data = _network_and_data(wildcards.network)
        return jobs.Shard(stage, network, int(wildcards.width), int(wildcards.first), int(wildcards.last), data)

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
        network, data = _network_and_data(wildcards.network)
        return self._path(jobs.limit_file(self.study, network, int(wildcards.width), data))

    def dataset_files(self) -> list[str]:
        """Every data set."""
        return [self._path(jobs.dataset_file(data)) for data in self.study.data_sets]

    def dataset_file(self, wildcards: Any) -> str:
        """The data set that a shard reads."""
        return self._path(jobs.dataset_file(_network_and_data(wildcards.network)[1]))

    def dataset_of_limit(self, wildcards: Any) -> str:
        """The data set that a limit is computed on."""
        return self._path(jobs.dataset_file(_cell(wildcards)[1]))

    def names(self) -> list[str]:
        """What the wildcard network may be."""
        return [jobs.named(network, data) for network in self.study.networks for data in self.study.data_sets]

    def stop(self, wildcards: Any) -> int:
        """The first seed behind those of a shard."""
        return int(wildcards.last) + 1

    def dataset(self, wildcards: Any) -> str:
        """A data set, as a word, and how many of its training points are kept if not all."""
        drawn, first = self.study.drawn(wildcards.data[1:])
        return word(drawn) + ("" if first is None else f" --first {first}")

    def network(self, wildcards: Any) -> str:
        """A shard's network, as a word, and whether the job may import its activation."""
        return self._network(_network_and_data(wildcards.network)[0])

    def name(self, wildcards: Any) -> str:
        """The name of a shard's network in the configuration."""
        return _network_and_data(wildcards.network)[0]

    def network_of_limit(self, wildcards: Any) -> str:
        """A limit's network, likewise."""
        return self._network(_cell(wildcards)[0])

    def width_of_limit(self, wildcards: Any) -> int:
        """The width that a limit is computed for."""
        return _cell(wildcards)[2]

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
        return megabytes(self._limit_cost(wildcards), attempt)

    def runtime_of_limit(self, wildcards: Any, attempt: int) -> int:
        """Minutes of a limit."""
        return minutes(self._limit_cost(wildcards), attempt)

    def _network(self, name: str) -> str:
        own = self.study.networks[name]
        return word(own) + jobs.allowance([own])

    def _cost(self, stage: str, wildcards: Any) -> Cost:
        return jobs.cost(self.study, self.shard(stage, wildcards), self.rates)

    def _limit_cost(self, wildcards: Any) -> Cost:
        network, data, _ = _cell(wildcards)
        return limit_cost(self.study.data_set(data), network, self.rates)

    def _path(self, file: str) -> str:
        return f"{self.study.results}/{file}"


def _network_and_data(name: str) -> tuple[str, str]:
    """The network and the data set that a file is called after (`jobs.named`)."""
    network, _, data = name.partition(".")
    return network, data


def _cell(wildcards: Any) -> tuple[str, str, int]:
    """Network, data set and width of a limit: one file for all widths, or of one width, which the cell then names
    (`jobs.limit_file`).
    """
    name, _, width = wildcards.cell.partition(".width-")
    return *_network_and_data(name), int(width or 1)
