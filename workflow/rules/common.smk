"""The study behind the rules, and what they ask of it. Nothing heavy is imported here: every job parses this file."""

import os
import re

from ntksim.study.plan import calibration, jobs
from ntksim.study.config.study import load_study
from ntksim.study.plan.cost import NOMINAL
from ntksim.study.plan.rules import Rules
from ntksim.study.errors import ConfigError
from ntksim.study.files.source import digest_of, digest_of_files
from ntksim.study.run.project import CAPTIONS

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
# Rates of this machine, if `ntksim plan` has measured them.
plan = Rules(study, calibration.known() or NOMINAL)
KEEP_KERNELS = (
    " --kernels {output.kernels:q} --name {params.name}"
    if study.training and study.training.keep_kernels
    else ""
)
FIRST_STEP = (
    f" --first-step {study.initial.first_step!r}"
    if study.initial.first_step is not None
    else ""
)
ALLOWANCE = jobs.allowance(study.networks.values())
# Of a shard. Like the device a resource, and no parameter, whose change would compute shards again. Of device auto
# `ntksim study` knows whether there is one, and says so by this variable: an option would replace a profile's own.
GPUS = 1 if study.device == "cuda" or os.environ.get("NTKSIM_GPU") == "1" else 0


wildcard_constraints:
    network="|".join(map(re.escape, plan.names())),
    data=r"(\.[\w.-]+)?",
    width=r"\d+",
    first=r"\d+",
    last=r"\d+",
    cell=r"[^/]+",
