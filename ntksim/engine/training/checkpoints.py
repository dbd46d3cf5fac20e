"""Training that can be killed at any moment and goes on with the same bits: what is kept on disk while it runs.

A folder holds, per run, one file with all seeds that are done and one per seed under way: parameters, velocity, where the
integrator stands, and the snapshots taken so far. Names carry a digest of all that numbers depend on, the engine's sources
and the libraries' versions included, so that another run's files are never taken up. Files are replaced whole, and begin with
the SHA-256 of all that follows: one that is damaged counts as missing.
"""

import hashlib
import os
import threading
import time
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numba
import numpy as np

from ntksim.engine.arguments import warn
from ntksim.engine.compiled.code_cache import SOURCE_DIGEST
from ntksim.engine.threads import advance
from ntksim.engine.training.snapshots import Snapshots

INTERVAL = 60.0  # seconds
_SUM = 32  # bytes of a SHA-256


def digest(*parts: object) -> str:
    """A digest of arrays, numbers, texts, None, and tuples and data classes of them."""
    found = hashlib.sha256(f"{SOURCE_DIGEST} {numba.__version__} {np.__version__}".encode())

    def add(part: object) -> None:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype} {part.shape} ".encode() + part.tobytes())
        elif is_dataclass(part) and not isinstance(part, type):
            found.update(type(part).__name__.encode())
            for field in fields(part):
                add(getattr(part, field.name))
        elif isinstance(part, tuple):
            found.update(f"{len(part)} ".encode())
            for entry in part:
                add(entry)
        else:
            found.update(f"{part!r} ".encode())

    add(parts)
    return found.hexdigest()[:16]


class Checkpoints:
    """The checkpoints of one run, in ``folder``; nothing is kept, and nothing found, where that is None.

    A seed under way is written at most every ``interval`` seconds, and so are the seeds that are done.
    """

    def __init__(self, folder: str | Path | None, run: str, seeds: np.ndarray, snapshots: Snapshots, interval: float) -> None:
        self.folder, self.run, self.interval = None if folder is None else Path(folder), run, interval
        self._seeds, self._snapshots, self._lock = seeds, snapshots, threading.Lock()
        self._status: dict[int, tuple[str, int]] = {}
        self._removed: set[int] = set()  # seeds whose own files are no longer needed, and gone
        self._written = time.monotonic()
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                why = f"checkpoint must be a folder, or a path where one can be made; {folder}: {error.strerror}"
                raise ValueError(why) from None
            self._read_done()

    def of(self, s: int) -> "SeedCheckpoint":
        """That of seed number ``s``."""
        return SeedCheckpoint(self, self._seed_path(s), self._snapshots.of(s))

    def done(self, s: int) -> tuple[str, int] | None:
        """Status and number of passes of seed number ``s`` if it is done; its snapshots are in place."""
        return self._status.get(s)

    def finish(self, s: int, status: str, passes: int) -> None:
        """Note that seed number ``s`` is done."""
        if self.folder is not None:
            with self._lock:
                self._status[s] = (status, passes)
                if time.monotonic() - self._written >= self.interval:
                    self._write_done()

    def close(self) -> None:
        """Write what is done, so that the same run need do nothing of it."""
        if self.folder is not None and self._status:
            with self._lock:
                self._write_done()

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}.{self.run}.checkpoint"

    def _seed_path(self, s: int) -> Path | None:
        return self._path(f"{s}-seed-{self._seeds[s]}")  # a seed may be there twice

    def _write_done(self) -> None:
        done = np.array(sorted(self._status), np.int64)
        status, passes = ([self._status[s][i] for s in done] for i in range(2))
        rows = {name: array[done] for name, array in _arrays(self._snapshots).items()}
        self._written = time.monotonic()
        if write(self._path("done"), {"done": done, "status": np.array(status), "passes": np.array(passes), **rows}):
            for s in set(done) - self._removed:
                path = self._seed_path(s)
                assert path is not None
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                self._removed.add(s)

    def _read_done(self) -> None:
        found = read(self._path("done"))
        if found is not None:
            for s, status, passes in zip(found["done"], found["status"], found["passes"], strict=True):
                self._status[int(s)] = (str(status), int(passes))
            for name, array in _arrays(self._snapshots).items():
                array[found["done"]] = found[name]


class SeedCheckpoint:
    """The checkpoint of one seed whose snapshots are ``rows``."""

    def __init__(self, run: Checkpoints, path: Path | None, rows: Snapshots) -> None:
        self.path, self.rows, self._interval, self._written = path, rows, run.interval, time.monotonic()
        self._share = 0.0

    def resume(self) -> dict[str, Any] | None:
        """What was last kept, numbers as arrays without axes, and the snapshots put in place; None if nothing was."""
        found = read(self.path)
        if found is not None:
            for name, array in _arrays(self.rows).items():
                array[...] = found.pop(f"rows_{name}")
        return found

    def reach(self, share: float, at: float | None = None) -> None:
        """Tell that so much of the seed is done, up to a time."""
        advance(share - self._share, at)
        self._share = share

    def is_due(self) -> bool:
        """Whether the last time that anything was kept is long enough ago."""
        return self.path is not None and time.monotonic() - self._written >= self._interval

    def keep(self, **state: Any) -> None:
        """Write arrays and numbers."""
        write(self.path, state | {f"rows_{name}": array for name, array in _arrays(self.rows).items()})
        self._written = time.monotonic()


def _arrays(rows: Snapshots) -> dict[str, np.ndarray]:
    return {field.name: getattr(rows, field.name) for field in fields(rows)}


def write(path: Path | None, arrays: dict[str, Any]) -> bool:
    """Write arrays to a file that takes its place whole, and is on disk when it does; whether that went well.

    What cannot be written is a warning: the numbers themselves are not at stake.
    """
    assert path is not None
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w+b") as handle:
            handle.write(bytes(_SUM))
            np.savez(handle, **arrays)
            sum_of_rest = _digest(handle)
            handle.seek(0)
            handle.write(sum_of_rest)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, path)
        return True
    except OSError as error:
        why = f"{path} cannot be written ({error.strerror}); training goes on without checkpoint"
        warn(why, RuntimeWarning)
        return False
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def read(path: Path | None) -> dict[str, np.ndarray] | None:
    """The arrays of a file; None if it is missing or damaged."""
    if path is None:
        return None
    try:
        with open(path, "rb") as handle:
            whole = handle.read(_SUM) == _digest(handle)
            handle.seek(_SUM)
            return dict(np.load(handle, allow_pickle=False)) if whole else None
    except OSError:
        return None


def _digest(handle: BinaryIO) -> bytes:
    """The SHA-256 of what follows the place of one at the start of a file."""
    handle.seek(_SUM)
    found = hashlib.sha256()
    while some := handle.read(1 << 20):
        found.update(some)
    return found.digest()
