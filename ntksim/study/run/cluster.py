"""Cancelling the Slurm jobs that a killed run left behind.

A Slurm job survives the process that submitted it, and Snakemake does not recognise it afterwards: the next run would submit a
second job that writes the same file. Therefore all jobs of a study have a common name, derived from the path of its results
folder. A new run first cancels all jobs of this name and waits until they have ended.
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

_PATIENCE = 300.0  # seconds for cancelled jobs to end; Slurm kills jobs that ignore its signal after KillWait (default: 30)
_ANSWER = 60.0  # seconds for a Slurm command to answer


class Jobs:
    """The cluster jobs that write to one results folder.

    The file `.slurm` in this folder shows that Slurm jobs may still be running, also to a later run that does not use Slurm.
    """

    def __init__(self, results: Path, executor: str) -> None:
        self._results, self._marker = results, results / ".slurm"
        self._is_slurm = executor == "slurm"
        # Derived from the path, not stored in the folder: a run on a copy must not cancel the jobs of the original.
        self._name = f"ntksim-{hashlib.sha256(str(results.resolve()).encode()).hexdigest()[:16]}"

    def options(self) -> list[str]:
        """Options that make Snakemake give the jobs their common name."""
        return ["--slurm-jobname-prefix", self._name] if self._is_slurm else []

    def begin(self) -> None:
        """Record that jobs may be submitted from now on."""
        if self._is_slurm:
            self._marker.touch()

    def ended(self) -> None:
        """Record that all jobs of the last run have ended."""
        self._marker.unlink(missing_ok=True)

    def end_orphans(self) -> None:
        """Cancel the jobs of a run that was killed or interrupted, and wait until they have ended.

        Raises StageError if Slurm does not answer or the jobs do not end.
        """
        if not self._is_slurm and not self._marker.exists():
            return
        if not shutil.which("squeue"):
            raise StageError(
                f"{self._results}: Slurm jobs of a killed run may still write to this folder, and this machine has no squeue to "
                f"find them; run the same command on a login node, or remove {self._marker} if no such jobs are left"
            )
        deadline, announced = time.monotonic() + _PATIENCE, False
        while (jobs := self._running()) or self._is_submitting():
            if jobs and not announced:
                print(f"{self._results}: cancelling {len(jobs)} Slurm jobs of a killed run", file=sys.stderr, flush=True)
                announced = True
            names = ",".join(sorted(set(jobs))) or f"{self._name}*"
            if time.monotonic() > deadline:
                raise StageError(
                    f"{self._results}: Slurm jobs of a killed run do not end (see squeue --name={names}); run the same command "
                    "again when they have ended"
                )
            if jobs:
                _slurm("scancel", f"--user={os.getuid()}", f"--name={names}")
            time.sleep(1)
        self.ended()

    def _is_submitting(self) -> bool:
        """Whether an `sbatch` command of the killed run is still running on this machine."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if Path(os.fsdecode(words[0])).name == "sbatch" and any(self._name.encode() in word for word in words):
                    return True
        return False

    def _running(self) -> list[str]:
        """Names of this study's jobs that are waiting, running or ending. Snakemake appends the run's id to the common name."""
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
        f"Slurm does not answer ({why}), and jobs of a killed run may still write to the results folder; run again when it "
        "answers, or, if no such jobs are left, remove the file .slurm in the results folder and use a profile without Slurm"
    )
