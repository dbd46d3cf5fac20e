"""Where numbers come from: versions, machine, commit, and a digest of the code they depend on."""

import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import ntksim
from ntksim.engine.devices import device_identity, installed_version
from ntksim.study.files.source import digest_of

_PACKAGES = ("ntksim", "numba", "llvmlite", "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "snakemake")
_PACKAGE = Path(ntksim.__file__).parent


def provenance(device: str = "cpu") -> dict[str, Any]:
    """Where results come from: package versions, Python, processor or GPU, git commit. No time: equal runs, equal files.

    ``device`` is "cpu" or "cuda", as :func:`engine.devices.chosen_device` gives it.
    """
    own = device_identity(device)
    name = own.pop("device")
    return {
        "versions": {package: installed_version(package) for package in _PACKAGES} | own,
        "python": platform.python_version(),
        "device": f"{device} ({processor() if device == 'cpu' else name})",
        "git_commit": git("rev-parse", "HEAD") if (_PACKAGE.parent / ".git").exists() else _installed_commit(),
    }


def code_identity(kind: str = "package") -> dict[str, str]:
    """The version of ntksim, and a digest of the code behind a kind of result (`source.MODULES`), or of all of it.

    A new digest may well give the same numbers, an equal one surely does.
    """
    return {"version": ntksim.__version__, "source": digest_of(kind)}


def processor() -> str:
    """The processor's name.

    By hand on Linux: `platform` does not know it there, nor does psutil.
    """
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _installed_commit() -> str | None:
    """The commit that the package was installed from, where pip took it from a repository (PEP 610); else None."""
    try:
        found = distribution("ntksim")
        origin = json.loads(found.read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, OSError, ValueError):
        return None
    is_ours = Path(str(found.locate_file("ntksim"))).resolve() == _PACKAGE.resolve()
    return origin.get("vcs_info", {}).get("commit_id") if is_ours else None


def git(*arguments: str) -> str | None:
    """What git says of the package's own checkout, or None for an installed copy."""
    here = _PACKAGE.parent
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
