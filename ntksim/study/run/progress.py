"""What a study prints while Snakemake runs: a line for every job, a bar with the time left, and at the end what failed and why.

`python -m ntksim.study.run.progress` is Snakemake with this module as its logger plugin. A plugin is otherwise a package of its
own, found by its name. Snakemake's complete log is written to `.snakemake/log` in any case.
"""

import logging
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from tqdm import tqdm

from ntksim.study.config.study import load_study
from ntksim.study.plan import calibration, jobs
from ntksim.study.plan.cost import NOMINAL

NAME = "ntksim"  # of the plugin
_ALL = "all"  # Snakemake's rule that has nothing to do
_OURS = "ntksim: error: "
_INTERRUPTED = "interrupted"  # begins the command's message too
_BAR = 20  # characters
_STAGES = ("limit", "initial", "training")


class Progress:
    """The lines and the bar of one run, told by Snakemake's events.

    ``predicted`` has the seconds that each job may take, by the path of its benchmark; only their ratios matter. On a terminal
    the bar stays at the bottom, and is drawn again every second. Elsewhere every line has its own, and nothing is written
    over.
    """

    def __init__(self, stream: TextIO, predicted: dict[str, float] | None = None) -> None:
        self._stream, self._predicted = stream, predicted or {}
        self._jobs: dict[int, dict[str, Any]] = {}  # what Snakemake said of a job when it began
        self._began: dict[int, float] = {}
        self._failures: dict[int, str] = {}
        self._left, self._total, self._done, self._share = dict(self._predicted), 0, 0, 0.0
        self._start = time.monotonic()
        self._status = ""
        self._bar: tqdm | None = None
        self._closed = threading.Event()

    def total(self, stats: dict[str, int]) -> None:
        """Begin: the number of jobs of each rule."""
        self._total = sum(count for rule, count in stats.items() if rule not in (_ALL, "total"))
        self._start = time.monotonic()
        if self._stream.isatty():
            form = "{percentage:3.0f}% |{bar:20}| {desc}"
            self._bar = tqdm(total=1.0, file=self._stream, bar_format=form, leave=False, dynamic_ncols=True)
            threading.Thread(target=self._redraw, daemon=True).start()

    def begins(self, job: dict[str, Any]) -> None:
        """A job begins."""
        self._jobs[job["jobid"]] = job
        self._began[job["jobid"]] = time.monotonic()
        self._show()

    def ends(self, jobid: int) -> None:
        """A job has finished: its line."""
        job = self._jobs.get(jobid)
        if job is None or job["rule_name"] == _ALL:
            return
        self._failures.pop(jobid, None)  # it failed before, and was tried again
        seconds = time.monotonic() - self._began.pop(jobid)
        if self._left.pop(_benchmark(job), None) is None:  # its file was there and is made anew: jobs are counted from now on
            self._predicted = {}
        self._done += 1
        self._share = self._done / max(self._total, self._done)
        if everything := sum(self._predicted.values()):
            self._share = 1 - sum(self._left.values()) / everything
        count = f"{self._done:{len(str(self._total))}d} of {self._total}"
        if self._bar is None:
            filled = int(_BAR * self._share + 1e-9)
            count += f" [{'#' * filled}{'-' * (_BAR - filled)}] {self._time_left()}"
        self._write(f"{count}: {job_in_words(job)} ({_duration(seconds)})")
        self._show()

    def fails(self, job: dict[str, Any]) -> None:
        """A job has failed. It may be tried again, so the reason is kept for the end."""
        jobid, log = job["jobid"], next(iter(job["log"]), None)
        self._began.pop(jobid, None)
        said = job["rule_msg"] or self._status
        words, why = job_in_words(self._jobs.get(jobid, job)), reason(log, said)
        if why.startswith(_INTERRUPTED):  # as the study is: no fault of the job
            return
        self._failures[jobid] = f"  {words}\n    reason: {why}\n    log:    {log or 'none'}"
        self._write(f"failed: {words}")

    def says(self, text: str) -> None:
        """A message of Snakemake, such as an error in the configuration. How a job failed is kept for its reason."""
        if re.search(r"CalledProcessError|SpawnedJobError", text):
            self._status = text
        elif "At least one job did not complete successfully" not in text:  # which the digest says better
            self._write(text.strip())

    def close(self) -> None:
        """End: remove the bar, and say what has failed."""
        self._closed.set()
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._failures:
            count = len(self._failures)
            self._write("\n".join([f"{count} job{'s' if count > 1 else ''} failed:", *self._failures.values()]))
            self._failures = {}

    def _time_left(self) -> str:
        if self._done >= self._total:
            return "done"
        if self._share <= 0:
            return "time left unknown"
        return f"about {_duration((time.monotonic() - self._start) * (1 / self._share - 1))} left"

    def _write(self, text: str) -> None:
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.write(text, file=self._stream)

    def _show(self) -> None:
        if self._bar is None:
            return
        running = [job_in_words(self._jobs[jobid]) for jobid in self._began if self._jobs[jobid]["rule_name"] != _ALL]
        self._bar.n = min(self._share, 1.0)
        more = f" and {len(running) - 1} more" if len(running) > 1 else ""
        now = f"; now {running[0]}{more}" if running else ""
        self._bar.set_description_str(f"{self._done} of {self._total} jobs, {self._time_left()}{now}", refresh=True)

    def _redraw(self) -> None:
        while not self._closed.wait(1.0):
            with suppress(AttributeError, RuntimeError):  # a job begins, or the bar is closed, at this moment
                self._show()


def job_in_words(job: dict[str, Any]) -> str:
    """A job as its rule's message says it, such as "Training: relu_3, width 256, seeds 0 to 31"."""
    return " ".join(str(job.get("rule_msg") or f"rule {job['rule_name']}").split())


def reason(log: str | Path | None, status: str = "") -> str:
    """Why a job failed: our error, which ends its log, or else the signal that ended it, or the last thing that the log says.

    ``status`` is what Snakemake says of it: the exit status of its shell, or the state of its job on a cluster.
    """
    lines: list[str] = []
    with suppress(OSError):
        lines = [
            line.strip() for line in Path(log or "").read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
    if lines and lines[-1].startswith(_OURS):
        return lines[-1].removeprefix(_OURS)
    if state := re.search(r"status is: '?([\w ]+)", status):
        return f"Slurm says {state[1].strip()}"
    last = f"; the log ends with: {lines[-1]}" if lines else ""
    if killed := re.search(r"exit status (\d+)|<Signals\.(\w+)", status):
        number = int(killed[1]) - 128 if killed[1] else signal.Signals[killed[2]].value
        if number == signal.SIGINT:
            return _INTERRUPTED
        if number > 0:
            memory = ", perhaps for lack of memory" if number == signal.SIGKILL else ""
            return f"killed by signal {number}{memory}{last}"
    return lines[-1] if lines else f"it said nothing ({' '.join(status.split())[:200] or 'no exit status'})"


def _benchmark(job: dict[str, Any]) -> str:
    return str(job.get("benchmark") or "").partition("/benchmarks/")[2]


def _duration(seconds: float) -> str:
    """Seconds in words of at most two units."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def pending(config: str | Path) -> dict[str, float]:
    """Predicted seconds of the jobs whose files are missing, by their benchmarks' paths, and of tables, figures and report."""
    study = load_study(config)
    results = Path(study.results)
    predicted = jobs.predicted_seconds(study, calibration.known() or NOMINAL)
    made = {str(path.relative_to(results).with_suffix(".jsonl")) for stage in _STAGES for path in (results / stage).glob("*.*")}
    data = [Path(jobs.dataset_file(label)) for label in study.data_sets]
    made |= {str(path.with_suffix(".jsonl")) for path in data if (results / path).is_file()}
    return {name: seconds for name, seconds in predicted.items() if name not in made}


class LogHandler(LogHandlerBase):
    """The plugin: it passes Snakemake's events on to `Progress`."""

    def __post_init__(self) -> None:
        self._progress, self._quiet = Progress(sys.stderr), bool(self.common_settings.dryrun)

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on. A failure of it must not end the run."""
        if self._quiet:
            return
        try:
            self._pass_on(record)
        except BrokenPipeError:
            self._quiet = True
        except Exception:
            self.handleError(record)

    def _pass_on(self, record: logging.LogRecord) -> None:
        event, found = getattr(record, "event", None), record.__dict__
        if event == LogEvent.WORKFLOW_STARTED:
            self._progress = Progress(sys.stderr, pending(next(iter(found["configfiles"]))))
        elif event == LogEvent.RUN_INFO and found.get("stats"):
            self._progress.total(found["stats"])
        elif event == LogEvent.JOB_INFO:
            self._progress.begins(found)
        elif event == LogEvent.JOB_FINISHED:
            self._progress.ends(found["job_id"])
        elif event == LogEvent.JOB_ERROR:
            self._progress.fails(found)
        elif record.levelno >= logging.WARNING:
            self._progress.says(record.getMessage())

    def close(self) -> None:
        """Say what has failed."""
        with suppress(BrokenPipeError):
            self._progress.close()
        super().close()

    writes_to_stream = has_filter = has_formatter = True
    writes_to_file = needs_rulegraph = False


def main() -> None:
    """Snakemake's command line, with the plugin registered."""
    from snakemake.cli import main
    from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

    LoggerPluginRegistry().register_plugin(NAME, sys.modules[__name__])
    main()


if __name__ == "__main__":
    main()
