"""The study behind the rules. Nothing heavy is imported here: every job parses this file."""

import os

from ntksim.study.plan import calibration, jobs
from ntksim.study.config.study import load_study
from ntksim.study.plan.cost import NOMINAL, limit_cost
from ntksim.study.errors import ConfigError
from ntksim.study.files.source import digest_of

# One file is the whole study. Snakemake's own `configfile:` would merge a user's file into the default one, networks and
# all, so the Snakefile has none; a study of one's own is `snakemake --configfile FILE` (or `ntksim study FILE`).
configfiles = workflow.configfiles or ["config.yaml"]
CONFIG_PATH = os.path.relpath(configfiles[0])
try:
    study = load_study(CONFIG_PATH)
    if len(configfiles) > 1 or workflow.config_settings.config:
        raise ConfigError(
            f"{CONFIG_PATH}: a study is one file: leave out --config and all but one --configfile, and edit the file instead"
        )
except ConfigError as error:
    raise WorkflowError(str(error))

RESULTS = study.results
# Of this machine, if `ntksim plan` has measured it.
rates = calibration.known() or NOMINAL
KEEP_KERNELS = (
    " --kernels {output.kernels:q}"
    if study.training and study.training.keep_kernels
    else ""
)
ALLOWANCE = jobs.allowance(study.networks.values())
# Of a shard. Like the device a resource, and no parameter, whose change would compute shards again. Of device auto
# `ntksim study` knows whether there is one, and says so by this variable: an option would replace a profile's own.
GPUS = 1 if study.device == "cuda" or os.environ.get("NTKSIM_GPU") == "1" else 0


wildcard_constraints:
    network="|".join(study.networks),
    width=r"\d+",
    first=r"\d+",
    last=r"\d+",
    cell=r"[^/]+",


def shard_of(stage, wildcards):
    first, last = int(wildcards.first), int(wildcards.last)
    return jobs.Shard(stage, wildcards.network, int(wildcards.width), first, last)


def shard_files(stage):
    return [
        f"{RESULTS}/{file}"
        for shard in jobs.shards(study)
        if shard.stage == stage
        for file in jobs.shard_files(study, shard)
    ]


def training_files():
    """What a training job writes: its shard, and the kernels where they are kept."""
    shard = jobs.Shard("training", "{network}", "{width}", "{first}", "{last}")
    names = ("shard", "kernels")
    files = jobs.shard_files(study, shard)
    return {name: f"{RESULTS}/{file}" for name, file in zip(names, files, strict=False)}


def limit_of(wildcards):
    return (
        f"{RESULTS}/{jobs.limit_file(study, wildcards.network, int(wildcards.width))}"
    )


def width_of_limit(cell):
    """A limit is one file for all widths, or of one width, which the cell then names (`jobs.limit_file`)."""
    network, _, width = cell.partition(".width-")
    return network, int(width or 1)


def network_options(wildcards):
    own = study.networks[wildcards.network]
    return jobs.arguments(own) + jobs.allowance([own])


def shard_threads(stage):
    return lambda wildcards: jobs.threads(study, shard_of(stage, wildcards))


def megabytes(cost, attempt):
    """Of a job, with half as much again, and what Snakemake itself takes on a node; more with every attempt."""
    return int(attempt * (300 + 1.5 * cost.memory_mb))


def minutes(cost, attempt, threads=1):
    """Of a job, three times over, and what it takes to begin; more with every attempt."""
    return int(attempt * min(15 + cost.seconds / 20 / threads, 1e6))


def shard_memory(stage):
    return lambda wildcards, attempt: megabytes(
        jobs.cost(study, shard_of(stage, wildcards), rates), attempt
    )


def shard_runtime(stage):
    return lambda wildcards, threads, attempt: minutes(
        jobs.cost(study, shard_of(stage, wildcards), rates), attempt, threads
    )


def cost_of_limit(wildcards):
    return limit_cost(study, width_of_limit(wildcards.cell)[0], rates)
