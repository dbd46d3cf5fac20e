"""Files of a study: atomic writes, content hashes and provenance."""

import hashlib
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

METADATA_KEY = b"ntksim"
_PACKAGES = ("ntksim", "numba", "llvmlite", "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "snakemake")


class StageError(Exception):
    """A stage cannot go on; the message names the file or value and the remedy."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place, synced to disk, when the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(path: str | Path, **arrays: Any) -> None:
    """Write named arrays as .npz, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as out:
        np.savez(out, **arrays)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read what :func:`write_arrays` wrote. Raises StageError for a file that is missing or damaged."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise StageError(f"{path}: no such file; run the stage that writes it first") from None
    except Exception as error:
        raise StageError(f"{path}: damaged or not written by ntksim ({error}); delete it and run the study again") from None


def write_table(path: str | Path, table: pa.Table, metadata: Mapping[str, Any]) -> None:
    """Write an Arrow table as Parquet with ``metadata`` as JSON in its schema, atomically."""
    encoded = json.dumps(metadata, sort_keys=True).encode()
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata({METADATA_KEY: encoded}), temporary)


def read_arrow(path: str | Path) -> tuple[pa.Table, dict[str, Any]]:
    """An Arrow table and its metadata. Raises StageError for a file that is missing or damaged."""
    try:
        table = pq.read_table(path)
        return table, json.loads(table.schema.metadata[METADATA_KEY])
    except FileNotFoundError:
        raise StageError(f"{path}: no such file; run the study to make it") from None
    except Exception as error:
        raise StageError(f"{path}: damaged or not written by ntksim ({error}); delete it and run the study again") from None


def content_hash(*arrays: np.ndarray) -> str:
    """Hash of arrays' shapes, types and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def provenance() -> dict[str, Any]:
    """Where results come from: package versions, Python, processor and git commit. No time: equal runs, equal files."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "device": f"cpu ({_processor()})",
        "git_commit": _git_commit(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """The commit of the package's own checkout, or None for an installed copy."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
