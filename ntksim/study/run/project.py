"""Paths of the project's files outside the package: the workflow with its profiles, the default study, the pinned versions.

In a checkout they are in its top folder. An installed package has a copy in its folder `project`, made by `setup.py`. This module
imports only the standard library.
"""

import shutil
from pathlib import Path

import ntksim
from ntksim.study.errors import ConfigError

_PACKAGE = Path(ntksim.__file__).parent
_CARRIED = _PACKAGE / "project"
ROOT = _CARRIED if _CARRIED.is_dir() else _PACKAGE.parent
SNAKEFILE = ROOT / "Snakefile"
CONSTRAINTS = ROOT / "constraints.txt"
CAPTIONS = ROOT / "workflow" / "report"  # of the figures
_PROFILES = ROOT / "workflow" / "profiles"

_HEADER = """\
# A study with ntksim. Change this file, then run in this folder:
#
#     ntksim plan config.yaml     shows the jobs with their time and memory; computes nothing
#     ntksim study config.yaml    runs the jobs; run it again after a change, and it computes only what is new
#
# Tables, figures and report.html are written to the folder `results`. `ntksim schema` describes every key.
# This is ntksim's default study, which takes some minutes:

"""


def profiles() -> list[str]:
    """Names of the Snakemake profiles that ship with ntksim."""
    return sorted(path.parent.name for path in _PROFILES.glob("*/profile.yaml"))


def profile_folder(profile: str | Path) -> Path:
    """The folder of a profile, given by its path or by the name of a profile that ships with ntksim; the path is tried first.

    Raises ConfigError if there is no such profile.
    """
    for folder in (Path(profile), _PROFILES / profile):
        if (folder / "profile.yaml").is_file():
            return folder
    raise ConfigError(
        f"--profile: {profile} holds no profile.yaml; give a folder that does, or the name of a profile that ships with ntksim: "
        f"{', '.join(profiles())}"
    )


def new_study(folder: str | Path, profile: str | None = None) -> Path:
    """Write the default study, for the user to change, into a folder, and return the path of its configuration.

    With ``profile`` the profile of this name is copied too. Raises ConfigError, before anything is written, if a file would be
    overwritten.
    """
    folder = Path(folder)
    config, ignored = folder / "config.yaml", folder / ".gitignore"
    copies = [folder / profile] if profile else []
    for path in (config, *copies):
        if path.exists():
            raise ConfigError(f"{path} exists already and is not overwritten; name another folder, or remove it first")
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(_HEADER + _without_header((ROOT / "config.yaml").read_text(encoding="utf-8")), encoding="utf-8")
    for copy in copies:
        shutil.copytree(_PROFILES / copy.name, copy)
    if not ignored.exists():
        ignored.write_text("results/\n.snakemake/\n", encoding="utf-8")
    return config


def _without_header(text: str) -> str:
    """The text of a configuration without its leading comment."""
    lines = text.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.strip() and not line.startswith("#"))
    return "".join(lines[first:])
