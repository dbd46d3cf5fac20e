"""A lock that allows one writer per results folder and ends with the processes that hold it.

It is a flock on the file `.lock` in the results folder, so no stale lock can remain. `ntksim study` holds the lock, and Snakemake
inherits it. If only `ntksim study` is killed, Snakemake still holds the lock. The next run then ends this orphan before it
begins, so two runs never write the same files.
"""

import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from ntksim.study.errors import StageError
from ntksim.study.files.storage import unwritable

_PATIENCE = 60.0  # seconds for orphans to end; after a third of this time they are killed


@contextmanager
def only_writer(results: Path) -> Iterator[IO[str]]:
    """Lock the results folder, and yield the open lock file for child processes to inherit.

    Raises StageError if another run holds the lock (the message names it) or if the folder cannot be written.
    """
    path = results / ".lock"
    try:
        results.mkdir(parents=True, exist_ok=True)
        handle = path.open("a+")
    except OSError as error:
        raise unwritable(results, error) from None
    with handle:
        if not _acquired(handle, results):
            holder = _holder(handle)
            if not _is_gone(holder) or not _taken_from_orphans(handle, path):
                who = f"process {holder['pid']} on {holder['host']} since {holder['since']}" if holder else "an unknown process"
                raise StageError(f"{results}: another run is writing this study ({who}); wait for it to end, or stop it first")
        _sign(handle, results)
        yield handle


def _acquired(handle: IO[str], results: Path) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StageError(
            f"{results}: the file system has no locks ({error.strerror}); set the key results to a folder on another file system"
        ) from None
    return True


def _sign(handle: IO[str], results: Path) -> None:
    """Write into the lock file which process holds it, for the error message of a second run."""
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        handle.truncate(0)
        handle.write(json.dumps(holder))
        handle.flush()
    except OSError as error:
        raise unwritable(results, error) from None


def _holder(handle: IO[str]) -> dict[str, Any]:
    handle.seek(0)
    try:
        found = json.loads(handle.read())
        return {"pid": int(found["pid"]), "host": str(found["host"]), "since": str(found["since"])}
    except (ValueError, KeyError, TypeError):
        return {}


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the process that took the lock ran on this machine and has ended, so that only its orphans hold the lock."""
    if not holder or holder["host"] != socket.gethostname():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # a process of another user, which psutil may not see
        return False
    return has_ended(holder["pid"])


def _taken_from_orphans(handle: IO[str], path: Path) -> bool:
    """End the orphans that hold the lock, and take it; whether this worked in time.

    They are interrupted first, since Snakemake then cancels its cluster jobs.
    """
    print(f"{path.parent}: ending the processes of a killed run", file=sys.stderr, flush=True)
    start = time.monotonic()
    _signal_orphans(path, signal.SIGINT)
    while (waited := time.monotonic() - start) < _PATIENCE:
        if _acquired(handle, path.parent):
            return True
        if waited > _PATIENCE / 3:
            _signal_orphans(path, signal.SIGKILL)
        time.sleep(0.1)
    return False


def _signal_orphans(path: Path, sent: signal.Signals) -> None:
    """Send a signal to the processes that hold the lock, and terminate the jobs that they started on this machine.

    psutil identifies a process by its number and its start time, so a process that reuses a number is never signalled.
    """
    holders = [process for process in psutil.process_iter() if process.pid != os.getpid() and _has_open(process, path)]
    jobs: set[psutil.Process] = set()
    for holder in holders:
        with suppress(psutil.Error):
            jobs.update(holder.children(recursive=True))
    for processes, signum in ((holders, sent), (jobs, signal.SIGTERM)):
        for process in processes:
            with suppress(psutil.Error):
                process.send_signal(signum)


def _has_open(process: psutil.Process, path: Path) -> bool:
    """Whether a process has the file open, under any name."""
    with suppress(psutil.Error, OSError):
        wanted = path.stat()
        return any(_is_same(opened.path, wanted) for opened in process.open_files())
    return False


def _is_same(name: str, wanted: os.stat_result) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.stat(name), wanted)
    return False


def has_ended(pid: int) -> bool:
    """Whether there is no such process, or only a zombie, which has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
