"""Provenance of results: versions, machine, commit, and a digest of the code that computed them."""

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
    """Provenance of results: versions of packages and Python, processor or GPU, git commit.

    It holds no time, so equal runs write equal files. ``device`` is "cpu" or "cuda", as :func:`engine.devices.chosen_device`
    returns it.
    """
    device_versions = device_identity(device)
    name = device_versions.pop("device")
    return {
        "versions": {package: installed_version(package) for package in _PACKAGES} | device_versions,
        "python": platform.python_version(),
        "device": f"{device} ({processor() if device == 'cpu' else name})",
        "git_commit": git("rev-parse", "HEAD") if (_PACKAGE.parent / ".git").exists() else _installed_commit(),
    }


def code_identity(kind: str = "package") -> dict[str, str]:
    """The version of ntksim, and a digest of the code behind a kind of result (a key of `source.MODULES`; by default all code).

    Code with equal digests computes equal numbers. Code with different digests may compute equal numbers too.
    """
    return {"version": ntksim.__version__, "source": digest_of(kind)}


def processor() -> str:
    """The processor's name.

    On Linux it is read by hand, since neither `platform` nor psutil knows it there.
    """
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _installed_commit() -> str | None:
    """The commit that the package was installed from, if pip installed it from a repository (PEP 610); else None."""
    try:
        found = distribution("ntksim")
        origin = json.loads(found.read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, OSError, ValueError):
        return None
    is_ours = Path(str(found.locate_file("ntksim"))).resolve() == _PACKAGE.resolve()
    return origin.get("vcs_info", {}).get("commit_id") if is_ours else None


def git(*arguments: str) -> str | None:
    """Output of a git command in the package's checkout; None for an installed copy, or if git fails."""
    here = _PACKAGE.parent
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
