"""Run a whole study through Snakemake: one writer per results folder, stale locks cleared, and a summary at the end."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ntksim.study.config import ConfigError, Study, load_study
from ntksim.study.storage import StageError

SNAKEFILE = Path("Snakefile")


def run_study(config: str, cores: str, profile: str) -> int:
    """Run the study of a configuration file and return Snakemake's exit status.

    Raises ConfigError for a bad configuration or a missing Snakefile, StageError if another run writes the same folder.
    """
    study = load_study(config)
    if not SNAKEFILE.is_file():
        raise ConfigError("there is no Snakefile in this folder; run from the root of the project")
    if not (Path(profile) / "profile.yaml").is_file():
        raise ConfigError(f"--profile: {profile} holds no profile.yaml; give a folder such as workflow/profiles/default")
    results = Path(study.results)
    _check_data(study)
    with only_writer(results):
        # The lock above is ours, so a lock of Snakemake's was left by a run that was killed.
        if _snakemake(config, cores, profile, "--unlock", quiet=True).returncode:
            return _snakemake(config, cores, profile, "--dry-run").returncode or 1
        pending = _snakemake(config, cores, profile, "--dry-run", "--quiet", quiet=True)
        if pending.returncode == 0 and "Nothing to be done" in pending.stdout + pending.stderr:
            print(f"Nothing to do: {results} is up to date with {config}.")
            if _report_is_current(results):
                return 0
        elif status := _snakemake(config, cores, profile).returncode:
            return status
        return _write_report(results, config, cores, profile)


def _report_is_current(results: Path) -> bool:
    report, shown = results / "report.html", [results / "summary.html", *results.glob("figures/*.svg")]
    return report.is_file() and all(report.stat().st_mtime >= file.stat().st_mtime for file in shown)


def _write_report(results: Path, config: str, cores: str, profile: str) -> int:
    """Make report.html, whole or not at all; what Snakemake says is shown if it fails. Returns its exit status."""
    unfinished = results / ".report.html"  # Snakemake tells the format by the suffix
    made = _snakemake(config, cores, profile, "--report", str(unfinished), quiet=True)
    if made.returncode:
        print(made.stdout + made.stderr, file=sys.stderr)
    else:
        os.replace(unfinished, results / "report.html")
    return made.returncode


def _check_data(study: Study) -> None:
    """Make the data set once in memory: what is wrong with it is said now, in one line, not by a failed job."""
    from ntksim.study.datasets import load

    try:
        load(study.dataset)
    except StageError as error:
        raise ConfigError(str(error)) from None


@contextmanager
def only_writer(results: Path) -> Iterator[None]:
    """Hold the results folder for this process. Raises StageError if another holds it or it cannot be written."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        handle = (results / ".lock").open("a")
    except OSError as error:
        raise StageError(f"{results}: cannot be written ({error.strerror}); set the key results to another folder") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StageError(f"{results}: another run is writing this study; wait for it or stop it first") from None
        yield


def _snakemake(config: str, cores: str, profile: str, *options: str, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--cores", cores, "--workflow-profile", profile]
    command += ["--configfile", config, *options]
    # The jobs' commands begin with `ntksim`: the one of this environment.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=quiet, text=True)
