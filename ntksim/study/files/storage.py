"""Files of a study: atomic writes, a checksum inside each file, content hashes.

Every Parquet and .npz file of a study carries the SHA-256 of all its bytes (`write_table`, `write_arrays`), in Parquet's
key-value metadata or in the zip's comment, so that the file stays what it is to every other reader. It is taken with
zeros in the digest's own place, and checked before anything is decoded: a flipped bit anywhere is found, not only in values.
"""

import errno
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ntksim.study.errors import DamagedFile, ForeignFile, StageError

if TYPE_CHECKING:
    import pandas as pd

METADATA_KEY = b"ntksim"
PARTIAL = ".*.partial.*"  # what a killed writer leaves behind
CHECKPOINT = "checkpoint"  # ends the name of the folder beside a file that is being computed
_SEAL_KEY, _SEAL = b"ntksim-seal", b"ntksim-sha256:"
_OPEN = b"0" * 64  # stands where the digest goes
_REMEDIES = {
    errno.EROFS: "make it writable, or set the key results to another folder",
    errno.ENOSPC: "free some space, or set the key results to a folder on another disk",
}
_REMEDIES |= dict.fromkeys((errno.EACCES, errno.EPERM), _REMEDIES[errno.EROFS])
_REMEDIES |= dict.fromkeys((errno.EDQUOT, errno.EFBIG), _REMEDIES[errno.ENOSPC])


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place, file and folder synced to disk, when the block ends well.

    Raises StageError, with the remedy, if the disk is full or the folder cannot be written; what was there stays.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".partial{path.suffix}", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def unwritable(path: str | Path, error: OSError) -> StageError:
    """The error for a file or folder that cannot be written, with the remedy."""
    remedy = _REMEDIES.get(error.errno or 0, "see to the file system")
    why = os.strerror(error.errno) if error.errno else str(error)
    return StageError(f"{path}: cannot be written ({why}); {remedy}, and run the same command again; nothing is lost")


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(handle)


def write_arrays(path: str | Path, metadata: Mapping[str, Any] | None = None, /, **arrays: Any) -> None:
    """Write named arrays as .npz with ``metadata`` as JSON in its comment, sealed and atomically."""
    with atomic(path) as temporary:
        with temporary.open("wb") as out:
            np.savez(out, **arrays)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.comment = json.dumps(metadata or {}, sort_keys=True).encode() + b"\n" + _SEAL + _OPEN
        _seal(temporary)


def write_table(path: str | Path, table: pa.Table, metadata: Mapping[str, Any]) -> None:
    """Write an Arrow table as Parquet with ``metadata`` as JSON in its schema, sealed and atomically."""
    encoded = json.dumps(metadata, sort_keys=True).encode()
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata({METADATA_KEY: encoded, _SEAL_KEY: _SEAL + _OPEN}), temporary)
        _seal(temporary)


def tensors(values: np.ndarray) -> pa.ExtensionArray:
    """Arrays (rows, ...) as a column of Arrow tensors of one shape."""
    shape = values.shape[1:]
    rows = list(values.reshape(len(values), -1))
    flat = pa.array(rows, pa.list_(pa.from_numpy_dtype(values.dtype), len(rows[0])))
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(flat.type.value_type, shape), flat)


def read_npz(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays that :func:`write_arrays` wrote and their metadata, read and hashed once.

    Raises StageError for a file that is missing, DamagedFile for a damaged one.
    """
    content = _sealed_content(path)
    with _decoding(path), np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}, _npz_metadata(content)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of :func:`read_npz` alone."""
    return read_npz(path)[0]


def read_arrow(path: str | Path) -> tuple[pa.Table, dict[str, Any]]:
    """An Arrow table and its metadata. Raises StageError for a file that is missing, DamagedFile for a damaged one."""
    content = _sealed_content(path)
    with _decoding(path):
        table = pq.read_table(pa.BufferReader(content))
        return table, json.loads(table.schema.metadata[METADATA_KEY])


def read_frame(path: str | Path) -> "pd.DataFrame":
    """A table as a data frame, its metadata in ``frame.attrs``. Raises what :func:`read_arrow` does."""
    table, metadata = read_arrow(path)
    frame = table.to_pandas()
    frame.attrs.update(metadata)
    return frame


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a file of either kind, its checksum checked. Raises like :func:`read_arrow`."""
    content = _sealed_content(path)
    with _decoding(path):
        if Path(path).suffix == ".npz":
            return _npz_metadata(content)
        return json.loads(pq.read_schema(pa.BufferReader(content)).metadata[METADATA_KEY])


def _npz_metadata(content: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return json.loads(archive.comment.split(b"\n")[0])


def _seal(path: Path) -> None:
    """Put the digest of a file's bytes in its place."""
    content = path.read_bytes()
    place = content.rindex(_SEAL + _OPEN) + len(_SEAL)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(hashlib.sha256(content).hexdigest().encode())


def _sealed_content(path: str | Path) -> bytes:
    """A file's bytes, once they fit the digest among them."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise StageError(f"{path}: no such file; run the study to make it") from None
    except OSError as error:
        raise StageError(f"{path}: cannot be read ({error.strerror}); see to the file system and run again") from None
    start = content.rfind(_SEAL) + len(_SEAL)
    found, rest = content[start : start + len(_OPEN)], content[start + len(_OPEN) :]
    if start < len(_SEAL):
        # whole to its format's last byte: a Parquet footer, or the end of a zip without a comment
        if (content.endswith(b"PAR1") and len(content) > 12) or (content[-22:-18] == b"PK\x05\x06" and content[-2:] == b"\0\0"):
            raise ForeignFile(
                f"{path}: written without a checksum, by another version of ntksim; delete it and run the study again"
            )
        raise _damaged(path, "it holds no checksum, and is cut short")
    digest = hashlib.sha256(content[:start])
    digest.update(_OPEN)
    digest.update(rest)
    if digest.hexdigest().encode() != found:
        raise _damaged(path, "its bytes do not fit their checksum")
    return content


def _damaged(path: str | Path, why: str) -> DamagedFile:
    return DamagedFile(f"{path}: damaged ({why}); `ntksim study` computes it again")


@contextmanager
def _decoding(path: str | Path) -> Iterator[None]:
    """Whole bytes that are no file of ours all the same: say so in one line."""
    try:
        yield
    except Exception as error:
        raise _damaged(path, f"not a file of ntksim: {' '.join(str(error).split())[:200]}") from None


def content_hash(*arrays: np.ndarray) -> str:
    """Hash of arrays' shapes, types and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
