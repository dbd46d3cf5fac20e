"""Run a whole study through Snakemake: one writer per results folder, faults of files mended, a report at the end."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ntksim.study import cluster, integrity, plan, project
from ntksim.study.config import Study, load_study
from ntksim.study.errors import EXTRA, ConfigError, StageError
from ntksim.study.lock import only_writer
from ntksim.study.memory import machine_megabytes
from ntksim.study.profiles import read_profile
from ntksim.study.record import write_record

if TYPE_CHECKING:
    from ntksim.study.dataset_files import Data

_REPORT_DATA = re.compile('<script id="(results|categories|rules)">.*?</script>', re.DOTALL)  # in Snakemake's report
_LITTLE_SPACE = 20e6  # bytes; with less left, a failed study is put down to the full disk


def run_study(config: str, cores: str, profile: str, *, recompute: bool = False) -> int:
    """Run the study of a configuration file and return Snakemake's exit status.

    ``recompute`` allows files of another version of ntksim to be replaced.

    Raises ConfigError for a bad configuration or profile; ModuleNotFoundError if the extra `study` is not installed; StageError
    if another run writes the same folder, if it cannot be written, if it holds files of another version, or if jobs of a killed
    run do not end.
    """
    for module in EXTRA:  # figures come last, and would be missed after everything has been computed
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(name=module)
    study = load_study(config)
    results = Path(study.results)
    settings = read_profile(profile)
    local = settings.executor == "local"
    uses_gpu = local and _finds_gpu(study)
    jobs = cluster.Jobs(results, settings.executor)
    dataset_hash = _check_data(study)
    if local and (remark := plan.memory_remark(study, machine_megabytes())):
        print(f"ntksim: warning: {remark}", file=sys.stderr)
    signal.signal(signal.SIGTERM, _terminate)
    with only_writer(results) as lock:
        jobs.end_orphans()
        jobs.begin()
        # The executor is said here, lest a profile of the user's own choose another, whose jobs would not be known.
        options = ["--workflow-profile", str(settings.folder), *settings.options(machine_megabytes()), *jobs.options()]
        snakemake = _Snakemake(config, cores, options, lock.fileno(), uses_gpu)
        status = _run(study, dataset_hash, snakemake, recompute)
        if status >= 0:  # Snakemake was not killed, and has seen the end of all its jobs
            integrity.remove_partial(results)
            jobs.ended()
    if status and (free := shutil.disk_usage(results).free) < _LITTLE_SPACE:
        raise StageError(f"{results}: the disk is full ({free / 1e6:.0f} MB left); free some space and run the same command")
    return status


def _finds_gpu(study: Study) -> bool:
    """Whether this machine's jobs will use a GPU. Raises ConfigError, in one line, if they ask for one that is not there."""
    if study.device == "cpu":
        return False
    from ntksim.engine.devices import DeviceError, chosen_device

    try:
        return chosen_device(study.device) == "cuda"
    except DeviceError as error:
        raise ConfigError(f"device: {error}") from None


def _run(study: Study, dataset_hash: str, snakemake: "_Snakemake", recompute: bool) -> int:
    results = Path(study.results)
    integrity.remove_partial(results)
    faults = integrity.mend(study, dataset_hash, recompute=recompute)
    if restore := integrity.inputs_to_restore(study, faults):
        if status := snakemake.run(*restore, first=True).returncode:
            return status
        integrity.make_older(study)
    if not faults and snakemake.has_nothing_to_do():
        print(f"Nothing to do: {results} is up to date with {snakemake.config}.")
        if _report_is_current(results):
            return 0
    else:
        integrity.unseal_drawn(results)
        write_record(study, snakemake.config)
        # Snakemake would not miss a shard whose tables are there.
        if status := snakemake.run(*(["--forcerun", "tables"] if faults else [])).returncode:
            return status
    return _write_report(study, snakemake)


def _report_is_current(results: Path) -> bool:
    report, shown = results / "report.html", [results / "summary.html", *results.glob("figures/*.svg")]
    return report.is_file() and all(report.stat().st_mtime >= file.stat().st_mtime for file in shown)


def _write_report(study: Study, snakemake: "_Snakemake") -> int:
    """Make report.html, whole or not at all; what Snakemake says is shown if it fails. Returns its exit status."""
    results = Path(study.results)
    unfinished = results / ".report.html"  # Snakemake tells the format by the suffix
    made = snakemake.run("--report", str(unfinished), quiet=True)
    if made.returncode:
        print(made.stdout + made.stderr, file=sys.stderr)
    else:
        page = unfinished.read_text(encoding="utf-8")
        unfinished.write_text(without_places(page, [str(results), *study.dataset.files]), encoding="utf-8")
        os.replace(unfinished, results / "report.html")
        integrity.seal_drawn(results)
    return made.returncode


def without_places(page: str, paths: Iterable[str]) -> str:
    """A report of Snakemake's that names none of the absolute ``paths``: each becomes its last part.

    Only Snakemake's data is touched: the scripts beside it are libraries, which may hold a text such as "/data" too.
    """
    names = {json.dumps(path)[1:-1]: json.dumps(Path(path).name)[1:-1] for path in paths if os.path.isabs(path)}
    if not names:
        return page
    # neither a part of a longer path, nor by chance in a figure's base64
    place = re.compile(rf"(?<![\w/+.-])({'|'.join(map(re.escape, sorted(names, reverse=True)))})(?![\w.-])")
    return _REPORT_DATA.sub(lambda data: place.sub(lambda path: names[path[0]], data[0]), page)


def _check_data(study: Study) -> str:
    """Make the data set once in memory: what is wrong or unwise about it is said now, a line each, not by a failed job.

    Returns its hash.
    """
    from ntksim.study.treatment import remarks

    data = load_data(study)
    for remark in remarks(data):
        print(f"ntksim: warning: {remark}", file=sys.stderr)
    return data.hash


def load_data(study: Study) -> "Data":
    """The data set of a study. Raises ConfigError for one that cannot be used."""
    from ntksim.study.datasets import load

    try:
        return load(study.dataset)
    except StageError as error:
        raise ConfigError(str(error)) from None


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which unlike a terminal's interrupt has reached this process alone."""


def _terminate(*_: object) -> NoReturn:
    raise _Terminated


class _Snakemake:
    """Snakemake on one study. It inherits the lock, and holds it should this process be killed."""

    def __init__(self, config: str, cores: str, options: list[str], lock: int, uses_gpu: bool) -> None:
        self.config, self._lock = config, lock
        # The jobs' commands begin with `ntksim`: the one of this environment. On a GPU shards take turns, with device auto too.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        self._environment = os.environ | {"PATH": path, "NTKSIM_GPU": str(int(uses_gpu))}
        # The results folder has a lock of our own, so Snakemake's, which a killed run would leave behind, is not needed.
        self._options = ["--snakefile", str(project.SNAKEFILE), "--nolock", "--cores", cores, "--configfile", config, *options]

    def run(self, *options: str, first: bool = False, quiet: bool = False) -> subprocess.CompletedProcess[str]:
        """Run it with more options; with ``first`` they stand before all others, as targets must."""
        command = [sys.executable, "-m", "snakemake", *(options if first else ()), *self._options]
        command += () if first else options
        kept = subprocess.PIPE if quiet else None
        with subprocess.Popen(
            command, env=self._environment, stdout=kept, stderr=kept, text=True, pass_fds=[self._lock]
        ) as process:
            try:
                out, err = process.communicate()
            except KeyboardInterrupt as interrupt:
                if isinstance(interrupt, _Terminated):
                    process.send_signal(signal.SIGINT)
                self._await(process)
                raise
        return subprocess.CompletedProcess(command, process.returncode, out or "", err or "")

    def has_nothing_to_do(self) -> bool:
        """Whether Snakemake finds everything there, of these parameters and in this order."""
        pending = self.run("--dry-run", "--quiet", quiet=True)
        return pending.returncode == 0 and "Nothing to be done" in pending.stdout + pending.stderr

    @staticmethod
    def _await(process: subprocess.Popen[str]) -> None:
        """Let Snakemake cancel its jobs, on a cluster as well; a second interrupt kills it."""
        try:
            process.wait()
        except KeyboardInterrupt:
            process.kill()
