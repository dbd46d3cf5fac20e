"""The files beside the code: the workflow with its profiles, the default study, the pins.

In a checkout they lie at its top. An installed package carries a copy of them, which `setup.py` puts into the folder `project`.
Only the standard library is imported.
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
_PROFILES = ROOT / "workflow" / "profiles"

_HEADER = """\
# A study of ntksim. Change this file, then, in this folder:
#
#     ntksim plan config.yaml     shows the jobs with their time and memory; computes nothing
#     ntksim study config.yaml    runs them; called again after a change, it computes only what is new
#
# Tables, figures and report.html are written to the folder `results`. `ntksim schema` describes every key.
# As it stands, this is ntksim's default study, of some minutes:

"""


def profiles() -> list[str]:
    """Names of the profiles that ship with ntksim."""
    return sorted(path.parent.name for path in _PROFILES.glob("*/profile.yaml"))


def profile_folder(profile: str | Path) -> Path:
    """The folder of a profile that is named by its path, or is one that ships with ntksim; a folder of that name goes first.

    Raises ConfigError if there is no such profile.
    """
    for folder in (Path(profile), _PROFILES / profile):
        if (folder / "profile.yaml").is_file():
            return folder
    raise ConfigError(
        f"--profile: {profile} holds no profile.yaml; give the folder of one, or the name of one that ships with ntksim: "
        f"{', '.join(profiles())}"
    )


def new_study(folder: str | Path, profile: str | None = None) -> Path:
    """Write the default study into a folder, to be changed, and a copy of ``profile`` if one is named; returns its path.

    Raises ConfigError, before anything is written, where a file would be overwritten.
    """
    folder = Path(folder)
    config, ignored = folder / "config.yaml", folder / ".gitignore"
    copies = [folder / profile] if profile else []
    for path in (config, *copies):
        if path.exists():
            raise ConfigError(f"{path} is there already, and is not overwritten; name another folder, or remove it first")
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(_HEADER + _without_header((ROOT / "config.yaml").read_text(encoding="utf-8")), encoding="utf-8")
    for copy in copies:
        shutil.copytree(_PROFILES / copy.name, copy)
    if not ignored.exists():
        ignored.write_text("results/\n.snakemake/\n", encoding="utf-8")
    return config


def _without_header(text: str) -> str:
    """A configuration without the comment that it begins with."""
    lines = text.splitlines(keepends=True)
    first = next(place for place, line in enumerate(lines) if line.strip() and not line.startswith("#"))
    return "".join(lines[first:])
