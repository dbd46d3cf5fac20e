"""The settings that a study reads from a Snakemake profile: where jobs run, and which resources they may use."""

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
    """A profile: its folder, its executor (local by default), and its limits under ``resources``, such as gpu=1."""

    folder: Path
    executor: str
    resources: tuple[str, ...]

    def options(self, megabytes: int) -> list[str]:
        """Snakemake's options for the executor and its resources.

        On this machine jobs together get at most ``megabytes`` of memory, unless the profile sets another limit.
        """
        options, limits = ["--executor", self.executor], list(self.resources)
        if self.executor != "local":
            return options
        if not any(re.match(r"mem(_\w+)?=", limit) for limit in limits):
            limits.append(f"mem_mb={megabytes}")
        return [*options, "--resources", *limits]  # this option replaces the profile's own limits


def read_profile(profile: str | Path) -> Profile:
    """Read a profile, given by its folder or by the name of a profile that ships with ntksim.

    Raises ConfigError if the profile does not exist, cannot be read, repeats a key, or names an executor that is not installed.
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
        raise ConfigError(f"--profile: {path}: expected a mapping of Snakemake options, got {type(content).__name__}")
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
        raise ConfigError(f"--profile: {folder} submits to Slurm, but this machine has no sbatch; run it on a login node")
    return Profile(folder, executor, tuple(_resources(path, content.get("resources") or [])))


def _resources(path: Path, limits: Any) -> list[str]:
    listed = [f"{name}={value}" for name, value in limits.items()] if isinstance(limits, dict) else limits
    settings = [setting for limit in (listed if isinstance(listed, list) else [listed]) for setting in str(limit).split()]
    if not all(re.fullmatch(r"\w+=(?!None$)\S+", setting) for setting in settings):
        raise ConfigError(f"--profile: {path}: resources: expected limits such as gpu=1, got {shown(limits)}")
    return settings


def _is_installed(executor: str) -> bool:
    name = f"snakemake_executor_plugin_{executor.replace('-', '_')}"
    return executor == "local" or importlib.util.find_spec(name) is not None
