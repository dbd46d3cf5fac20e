"""One writer per results folder: a lock that dies with the processes that hold it.

It is flock's, on `.lock` in the results folder, so nothing stale is ever left. `ntksim study` holds it and hands it on to
Snakemake: if the former alone is killed, the lock lives on with Snakemake, and the next run ends that orphan before it
begins, so that no two runs write the same files.
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

_PATIENCE = 60.0  # seconds for orphans to end; after a third of it they are killed


@contextmanager
def only_writer(results: Path) -> Iterator[IO[str]]:
    """Hold the results folder; yields the lock's file, for children to inherit.

    Raises StageError if another run holds it, with who that is, or if the folder cannot be written.
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
            if not _is_gone(holder) or not _outlived(handle, path):
                who = f"process {holder['pid']} on {holder['host']} since {holder['since']}" if holder else "an unknown process"
                raise StageError(f"{results}: another run is writing this study ({who}); wait for it, or stop it first")
        _sign(handle, results)
        yield handle


def _acquired(handle: IO[str], results: Path) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StageError(
            f"{results}: its file system has no locks ({error.strerror}); set the key results to a folder on another"
        ) from None
    return True


def _sign(handle: IO[str], results: Path) -> None:
    """Write down who holds the lock, for the message of whoever comes next."""
    me = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        handle.truncate(0)
        handle.write(json.dumps(me))
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
    """Whether the holder ran on this machine and has ended: what still holds its lock are its orphans."""
    if not holder or holder["host"] != socket.gethostname():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's, of which psutil may see nothing
        return False
    return has_ended(holder["pid"])


def _outlived(handle: IO[str], path: Path) -> bool:
    """End the orphans that hold the lock, and take it. Snakemake cancels cluster jobs when interrupted."""
    print(f"{path.parent}: ending what a killed run left running", file=sys.stderr, flush=True)
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
    """Signal the processes that hold the lock, and end the jobs that they started on this machine.

    psutil tells a process by its number and the time when it started: none that has taken a number since is signalled.
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
    """Whether a process has the file open, by whatever name it knows it."""
    with suppress(psutil.Error, OSError):
        wanted = path.stat()
        return any(_is_same(opened.path, wanted) for opened in process.open_files())
    return False


def _is_same(name: str, wanted: os.stat_result) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.stat(name), wanted)
    return False


def has_ended(pid: int) -> bool:
    """Whether there is no such process, or one that has ended and waits for its parent to notice (a zombie)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
