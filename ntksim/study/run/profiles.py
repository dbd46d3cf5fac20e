"""What a study reads in a Snakemake profile: where its jobs run, and what the machine has for them."""

import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ntksim.study.config.yaml_text import read_yaml
from ntksim.study.errors import ConfigError, shown
from ntksim.study.run.project import CONSTRAINTS, profile_folder


@dataclass(frozen=True)
class Profile:
    """A profile's folder, its executor (local if it names none), and its limits of ``resources``, such as gpu=1."""

    folder: Path
    executor: str
    resources: tuple[str, ...]

    def options(self, megabytes: int) -> list[str]:
        """Snakemake's options: the executor, and on this machine no more memory than it has, unless the profile limits it."""
        options, limits = ["--executor", self.executor], list(self.resources)
        if self.executor != "local":
            return options
        if not any(re.match(r"mem(_\w+)?=", limit) for limit in limits):
            limits.append(f"mem_mb={megabytes}")
        return [*options, "--resources", *limits]  # an option replaces what a profile says


def read_profile(profile: str | Path) -> Profile:
    """Read a profile: a folder, or the name of one that ships with ntksim.

    Raises ConfigError for one that is not there or cannot be read, for a key that is there twice, and for an executor that is
    not installed.
    """
    folder = profile_folder(profile)
    path = folder / "profile.yaml"
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except ConfigError as error:
        raise ConfigError(f"--profile: {path}: {error}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--profile: {path} cannot be read as YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(content, dict | None):
        raise ConfigError(f"--profile: {path}: expected options of Snakemake by name, got {type(content).__name__}")
    content = content or {}
    executor = content.get("executor", "local")
    if not isinstance(executor, str) or not re.fullmatch("[a-z][a-z0-9-]*", executor) or executor in ("dryrun", "touch"):
        raise ConfigError(f"--profile: {path}: executor: expected a name such as local or slurm, got {shown(executor)}")
    if not _is_installed(executor):
        raise ConfigError(
            f"--profile: the executor {executor} of {path} is not installed; "
            + ('`make` installs it, and so does pip install "ntksim[slurm]"' if executor == "slurm" else
               f"pip install -c {os.path.relpath(CONSTRAINTS)} snakemake-executor-plugin-{executor}")
        )  # fmt: skip
    if executor == "slurm" and not shutil.which("sbatch"):
        raise ConfigError(f"--profile: {folder} submits to Slurm, but there is no sbatch here; run it on a login node")
    return Profile(folder, executor, tuple(_resources(path, content.get("resources") or [])))


def _resources(path: Path, limits: Any) -> list[str]:
    given = [f"{name}={value}" for name, value in limits.items()] if isinstance(limits, dict) else limits
    words = [word for limit in (given if isinstance(given, list) else [given]) for word in str(limit).split()]
    if not all(re.fullmatch(r"\w+=(?!None$)\S+", word) for word in words):
        raise ConfigError(f"--profile: {path}: resources: expected limits such as gpu=1, got {shown(limits)}")
    return words


def _is_installed(executor: str) -> bool:
    name = f"snakemake_executor_plugin_{executor.replace('-', '_')}"
    return executor == "local" or importlib.util.find_spec(name) is not None
