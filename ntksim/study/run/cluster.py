"""What a study asks of a cluster beside Snakemake: the end of jobs that a killed run left.

A job of Slurm lives on when the process that submitted it is killed, and Snakemake does not know it again: the next run would
submit a second one beside it, for the same file. So the jobs of a study bear a name that is made of the path of its results,
and whoever goes on with these results first cancels all jobs of that name and waits until they have ended.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from ntksim.study.errors import StageError

_PATIENCE = 300.0  # seconds for cancelled jobs to end: Slurm kills what ignores its signal after KillWait, by default 30
_ANSWER = 60.0  # seconds for Slurm to answer


class Jobs:
    """The jobs on a cluster that write one results folder. A file in it, `.slurm`, tells runs that submit none of them."""

    def __init__(self, results: Path, executor: str) -> None:
        self._results, self._mark = results, results / ".slurm"
        self._is_slurm = executor == "slurm"
        # The path, not a number kept in the folder: a copy of the folder must not end the jobs of the original.
        self._name = f"ntksim-{hashlib.sha256(str(results.resolve()).encode()).hexdigest()[:16]}"

    def options(self) -> list[str]:
        """Snakemake's options that give the jobs their name."""
        return ["--slurm-jobname-prefix", self._name] if self._is_slurm else []

    def begin(self) -> None:
        """Say that jobs may be submitted from now on."""
        if self._is_slurm:
            self._mark.touch()

    def ended(self) -> None:
        """Say that the last run has seen the end of all its jobs."""
        self._mark.unlink(missing_ok=True)

    def end_orphans(self) -> None:
        """Cancel the jobs of a run that was killed or interrupted, and wait for their end.

        Raises StageError if Slurm does not answer, or the jobs do not end.
        """
        if not self._is_slurm and not self._mark.exists():
            return
        if not shutil.which("squeue"):
            raise StageError(
                f"{self._results}: Slurm jobs of a killed run may still write there, and there is no squeue here to end them: "
                f"run the same command on a login node, or remove {self._mark} if you know of none"
            )
        deadline, told = time.monotonic() + _PATIENCE, False
        while (jobs := self._running()) or self._is_submitting():
            if jobs and not told:
                print(f"{self._results}: cancelling {len(jobs)} Slurm jobs that a killed run left", file=sys.stderr, flush=True)
                told = True
            names = ",".join(sorted(set(jobs))) or f"{self._name}*"
            if time.monotonic() > deadline:
                raise StageError(
                    f"{self._results}: Slurm jobs of a killed run do not end (squeue --name={names}); when they have, run the "
                    "same command again"
                )
            if jobs:
                _slurm("scancel", f"--user={os.getuid()}", f"--name={names}")
            time.sleep(1)
        self.ended()

    def _is_submitting(self) -> bool:
        """Whether an `sbatch` of the killed run is still under way on this machine."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if Path(os.fsdecode(words[0])).name == "sbatch" and any(self._name.encode() in word for word in words):
                    return True
        return False

    def _running(self) -> list[str]:
        """The name of every job of this study that waits, runs or is about to end: Snakemake adds an id of the run."""
        names = _slurm("squeue", "--noheader", f"--user={os.getuid()}", "--format=%j").split()
        return [name for name in names if name.startswith(self._name)]


def _slurm(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_ANSWER).stdout
    except subprocess.CalledProcessError as error:
        why = " ".join(error.stderr.split())[:200]
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)[:200]
    raise StageError(
        f"Slurm does not answer, and jobs of a killed run may still write ({why}); run again when it does, or, if you know of "
        "none, remove the file .slurm in the results folder and use a profile without Slurm"
    )
