"""Running a whole study through Snakemake: lock the results folder, remove unusable files, run the jobs, make the report."""

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

from ntksim.study.config.study import Study, load_study
from ntksim.study.errors import EXTRA, ConfigError, StageError
from ntksim.study.plan import jobs as plan
from ntksim.study.plan.memory import machine_megabytes
from ntksim.study.run import cluster, integrity, progress, project
from ntksim.study.run.lock import only_writer
from ntksim.study.run.profiles import read_profile
from ntksim.study.run.record import write_record

if TYPE_CHECKING:
    from ntksim.study.data.files import Data

_REPORT_DATA = re.compile('<script id="(results|categories|rules)">.*?</script>', re.DOTALL)  # in Snakemake's report
_REPORT = "snakemake-report.html"  # its file: jobs, their times and rules; `report.html` is the study's
_LITTLE_SPACE = 20e6  # bytes; if less is free, a full disk is named as the cause of a failure


def run_study(config: str, cores: str, profile: str, *, recompute: bool = False, verbose: bool = False) -> int:
    """Run the study of a configuration file and return Snakemake's exit status.

    With ``recompute`` files of another version of ntksim are replaced. What is printed is a line a job, or with ``verbose`` all
    that Snakemake says.

    Raises ConfigError for a bad configuration or profile; ModuleNotFoundError if the extra `study` is not installed; StageError
    if another run is writing to the same folder, if the folder cannot be written or holds files of another version, or if the
    jobs of a killed run do not end.
    """
    for module in EXTRA:  # figures come last: a missing module must not be found out only after hours of computing
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(name=module)
    study = load_study(config)
    results = Path(study.results)
    settings = read_profile(profile)
    local = settings.executor == "local"
    uses_gpu = local and _finds_gpu(study)
    jobs = cluster.Jobs(results, settings.executor)
    hashes = _check_data(study)
    if local and (remark := plan.memory_remark(study, machine_megabytes())):
        print(f"ntksim: warning: {remark}", file=sys.stderr)
    signal.signal(signal.SIGTERM, _terminate)
    with only_writer(results) as lock:
        jobs.end_orphans()
        jobs.begin()
        # These options name the executor, so that no other profile of the user can set one whose jobs are not tracked.
        options = ["--workflow-profile", str(settings.folder), *settings.options(machine_megabytes()), *jobs.options()]
        snakemake = _Snakemake(config, cores, options, lock.fileno(), uses_gpu, verbose)
        status = _run(study, hashes, snakemake, recompute)
        if status >= 0:  # Snakemake was not killed, so all its jobs have ended
            integrity.remove_partial(results)
            jobs.ended()
    if status and (free := shutil.disk_usage(results).free) < _LITTLE_SPACE:
        raise StageError(f"{results}: the disk is full ({free / 1e6:.0f} MB left); free some space and run the same command")
    return status


def _finds_gpu(study: Study) -> bool:
    """Whether jobs on this machine will use a GPU. Raises ConfigError if the configuration asks for a GPU that is missing."""
    if study.device == "cpu":
        return False
    from ntksim.engine.devices import DeviceError, chosen_device

    try:
        return chosen_device(study.device) == "cuda"
    except DeviceError as error:
        raise ConfigError(f"device: {error}") from None


def _run(study: Study, hashes: dict[str, str], snakemake: "_Snakemake", recompute: bool) -> int:
    results = Path(study.results)
    integrity.remove_partial(results)
    faults = integrity.mend(study, hashes, recompute=recompute)
    if restore := integrity.inputs_to_restore(study, faults):
        if status := snakemake.run(*restore, first=True).returncode:
            return status
        integrity.make_older(study)
    complete = not faults and (results / "report.html").is_file()  # which comes last
    if complete and snakemake.has_nothing_to_do():
        print(f"Nothing to do: {results} is up to date with {snakemake.config}.")
        if _report_is_current(results):
            return 0
    else:
        integrity.unseal_drawn(results)
        write_record(study, snakemake.config)
        # Snakemake does not notice that a shard is missing if the tables made from it exist.
        if status := snakemake.run(*(["--forcerun", "tables"] if faults else [])).returncode:
            return status
    return _write_report(study, snakemake)


def _report_is_current(results: Path) -> bool:
    report, contents = results / _REPORT, [results / "report.html", *results.glob("figures/*.svg")]
    return report.is_file() and all(report.stat().st_mtime >= file.stat().st_mtime for file in contents)


def _write_report(study: Study, snakemake: "_Snakemake") -> int:
    """Make Snakemake's own report atomically, and return its exit status. If Snakemake fails, its messages are printed."""
    results = Path(study.results)
    unfinished = results / f".{_REPORT}"  # Snakemake takes the format from the suffix
    made = snakemake.run("--report", str(unfinished), quiet=True)
    if made.returncode:
        print(made.stdout + made.stderr, file=sys.stderr)
    else:
        page = unfinished.read_text(encoding="utf-8")
        unfinished.write_text(without_folders(page, [str(results), *study.dataset.files]), encoding="utf-8")
        os.replace(unfinished, results / _REPORT)
        integrity.seal_drawn(results)
    return made.returncode


def without_folders(page: str, paths: Iterable[str]) -> str:
    """Snakemake's report with each of the absolute ``paths`` shortened to its last component.

    Only Snakemake's data in the page is changed. The other scripts are libraries, which may contain a text such as "/data" too.
    """
    names = {json.dumps(path)[1:-1]: json.dumps(Path(path).name)[1:-1] for path in paths if os.path.isabs(path)}
    if not names:
        return page
    # The path must not be a part of a longer path, or occur by chance in the base64 text of a figure.
    pattern = re.compile(rf"(?<![\w/+.-])({'|'.join(map(re.escape, sorted(names, reverse=True)))})(?![\w.-])")
    return _REPORT_DATA.sub(lambda data: pattern.sub(lambda path: names[path[0]], data[0]), page)


def _check_data(study: Study) -> dict[str, str]:
    """Load the data sets, print a warning for everything unwise about them, and return the hash of each.

    So errors in the data appear before any job starts.
    """
    from ntksim.study.data.treatment import remarks

    every = load_data(study)
    for remark in dict.fromkeys(remark for data in every.values() for remark in remarks(data)):
        print(f"ntksim: warning: {remark}", file=sys.stderr)
    return {label: data.hash for label, data in every.items()}


def load_data(study: Study) -> dict[str, "Data"]:
    """The data sets of a study (`Study.data_sets`). Raises ConfigError if one cannot be used, for loss and measures too."""
    from ntksim.study.data.losses import objectives
    from ntksim.study.data.modes import named_modes
    from ntksim.study.data.nested import load

    measures = study.training.measures if study.training else None
    try:
        found = {label: load(*study.drawn(label)) for label in study.data_sets}
        if study.training is not None:
            for data in found.values():
                objectives(study.training.loss, data)
        if measures is not None and measures.modes is not None:
            for data in found.values():
                named_modes(measures.modes, data.x_train)
        return found
    except StageError as error:
        raise ConfigError(str(error)) from None


class _Terminated(KeyboardInterrupt):
    """A SIGTERM. Unlike Ctrl-C in a terminal, it reaches only this process and not its children."""


def _terminate(*_: object) -> NoReturn:
    raise _Terminated


class _Snakemake:
    """Snakemake for one study. It inherits the lock, and keeps it if this process is killed."""

    def __init__(self, config: str, cores: str, options: list[str], lock: int, uses_gpu: bool, verbose: bool) -> None:
        self.config, self._lock, self._verbose = config, lock, verbose
        # Jobs call `ntksim`, which must be that of this environment. NTKSIM_GPU makes the shards take turns on the GPU.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        self._environment = os.environ | {"PATH": path, "NTKSIM_GPU": str(int(uses_gpu))}
        # `only_writer` locks the results folder. Snakemake's own lock is off, since a killed run would leave it behind.
        self._options = ["--snakefile", str(project.SNAKEFILE), "--nolock", "--cores", cores, "--configfile", config, *options]

    def run(self, *options: str, first: bool = False, quiet: bool = False) -> subprocess.CompletedProcess[str]:
        """Run Snakemake with additional options, which come ``first`` if they are targets. ``quiet`` captures its output."""
        own = [] if quiet or self._verbose else ["--logger", progress.NAME]
        module = progress.__name__ if own else "snakemake"
        command = [sys.executable, "-m", module, *(options if first else ()), *own, *self._options]
        command += () if first else options
        output = subprocess.PIPE if quiet else None
        with subprocess.Popen(
            command, env=self._environment, stdout=output, stderr=output, text=True, pass_fds=[self._lock]
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
        """Whether Snakemake finds every file present and up to date."""
        pending = self.run("--dry-run", "--quiet", quiet=True)
        return pending.returncode == 0 and "Nothing to be done" in pending.stdout + pending.stderr

    @staticmethod
    def _await(process: subprocess.Popen[str]) -> None:
        """Wait while Snakemake cancels its jobs, including those on a cluster; a second interrupt kills it."""
        try:
            process.wait()
        except KeyboardInterrupt:
            process.kill()
