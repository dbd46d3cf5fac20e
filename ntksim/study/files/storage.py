"""Files of a study: atomic writes, a checksum inside each file, hashes of arrays.

Every Parquet and .npz file of a study contains the SHA-256 digest of all its bytes (`write_table`, `write_arrays`). It is stored
in Parquet's key-value metadata or in the zip's comment, so other programs can read the file as usual. The digest is computed with
zeros at the position where it is then written. It is checked before anything is decoded, so a flipped bit is found anywhere in
the file, not only in values.
"""

import errno
import hashlib
import io
import json
import math
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
DESCRIPTION = b"description"  # of a column, in the metadata of its field
PARTIAL = ".*.partial.*"  # pattern of the unfinished files that a killed process leaves behind
CHECKPOINT = "checkpoint"  # suffix of the folder with checkpoints beside a file that is being computed
_SEAL_KEY, _SEAL = b"ntksim-seal", b"ntksim-sha256:"
_OPEN = b"0" * 64  # zeros that the digest replaces
_REMEDIES = {
    errno.EROFS: "make it writable, or set the key results to another folder",
    errno.ENOSPC: "free some space, or set the key results to a folder on another disk",
}
_REMEDIES |= dict.fromkeys((errno.EACCES, errno.EPERM), _REMEDIES[errno.EROFS])
_REMEDIES |= dict.fromkeys((errno.EDQUOT, errno.EFBIG), _REMEDIES[errno.ENOSPC])


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``, and rename it to ``path`` when the block ends without an exception.

    File and folder are synced to disk. Raises StageError, with the remedy, if the disk is full or the folder cannot be written.
    An existing file stays unchanged if anything fails.
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
    """The StageError for a file or folder that cannot be written, with the remedy."""
    remedy = _REMEDIES.get(error.errno or 0, "check the file system")
    why = os.strerror(error.errno) if error.errno else str(error)
    return StageError(f"{path}: cannot be written ({why}); {remedy}, and run the same command again; nothing is lost")


def _sync(path: Path) -> None:
    """Wait until a file's content or a folder's entries are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(handle)


def write_arrays(path: str | Path, metadata: Mapping[str, Any] | None = None, /, **arrays: Any) -> None:
    """Write named arrays atomically to an .npz file, with a checksum, and with ``metadata`` as JSON in the zip's comment."""
    with atomic(path) as temporary:
        with temporary.open("wb") as out:
            np.savez(out, **arrays)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.comment = json.dumps(metadata or {}, sort_keys=True).encode() + b"\n" + _SEAL + _OPEN
        _seal(temporary)


def write_table(path: str | Path, table: pa.Table, metadata: Mapping[str, Any]) -> None:
    """Write an Arrow table atomically to a Parquet file, with a checksum, and with ``metadata`` as JSON in its schema."""
    encoded = json.dumps(metadata, sort_keys=True).encode()
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata({METADATA_KEY: encoded, _SEAL_KEY: _SEAL + _OPEN}), temporary)
        _seal(temporary)


def column(values: Any, known: np.ndarray | None = None) -> pa.Array:
    """An Arrow array of numbers (rows,), of lists of numbers (rows, n), or of words; with nulls where ``known`` (rows,) is False.

    The values are then those that are known, in their order. Unknown lists take no room. It is made of buffers, since
    `pyarrow.array` imports pandas (pyarrow 26.0), which takes a job a third of a second.
    """
    array = np.asarray(values)
    known = np.ones(len(array), bool) if known is None else known
    rows, missing = len(known), int(np.sum(~known))
    mask = _bits(known) if missing else None
    if array.dtype.kind in "OU":
        words = [str(word).encode() for word in array]
        ends = _ends(known, [len(word) for word in words])
        return pa.Array.from_buffers(pa.string(), rows, [mask, ends, pa.py_buffer(b"".join(words))], missing)
    if array.ndim == 1:
        spread = np.zeros(rows, array.dtype)
        spread[known] = array
        return _numbers(spread, mask, missing)
    flat, ends = _numbers(np.ascontiguousarray(array).ravel()), _ends(known, np.full(len(array), array.shape[1]))
    return pa.Array.from_buffers(pa.list_(flat.type), rows, [mask, ends], missing, children=[flat])


def _numbers(values: np.ndarray, mask: pa.Buffer | None = None, missing: int = 0) -> pa.Array:
    """Numbers, or truth values, which Arrow packs into bits."""
    content = _bits(values) if values.dtype == bool else pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [mask, content], missing)


def _bits(values: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))


def _ends(known: np.ndarray, lengths: Any) -> pa.Buffer:
    """Where words or lists start, and where the last one ends, in Arrow's 32 bits; unknown ones are empty."""
    every = np.zeros(len(known) + 1, np.int64)
    every[1:][known] = lengths
    ends = np.cumsum(every)
    if ends[-1] > np.iinfo(np.int32).max:
        raise StageError(f"a column of {ends[-1]} numbers does not fit into one file; set seeds_per_shard to fewer seeds")
    return pa.py_buffer(ends.astype(np.int32))


def tensors(values: np.ndarray) -> pa.ExtensionArray:
    """A column of Arrow tensors, all of the same shape, from an array (rows, ...)."""
    kind, shape = pa.from_numpy_dtype(values.dtype), values.shape[1:]
    flat = _numbers(values.ravel())
    stored = pa.Array.from_buffers(pa.list_(kind, math.prod(shape)), len(values), [None], children=[flat])
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(kind, shape), stored)


def read_npz(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays that :func:`write_arrays` wrote, and their metadata; the file is read and hashed once.

    Raises StageError if the file is missing, DamagedFile if it is damaged.
    """
    content = _sealed_content(path)
    with _decoding(path), np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}, _npz_metadata(content)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of :func:`read_npz` alone."""
    return read_npz(path)[0]


def read_arrow(path: str | Path) -> tuple[pa.Table, dict[str, Any]]:
    """Read an Arrow table and its metadata. Raises StageError if the file is missing, DamagedFile if it is damaged."""
    content = _sealed_content(path)
    with _decoding(path):
        table = parquet(content)
        return table, json.loads(table.schema.metadata[METADATA_KEY])


def parquet(content: bytes) -> pa.Table:
    """The table of a Parquet file, read in this thread alone.

    Threads of Arrow's may still be at work while Python ends, and then abort a process whose own work is done: 13 of 480 short
    processes under load (pyarrow 26.0; its issue 34314).
    """
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        return file.read(use_threads=False)


def in_pandas(table: pa.Table) -> "pd.DataFrame":
    """An Arrow table as a data frame, made in this thread alone: see `parquet`."""
    return table.to_pandas(use_threads=False)


def read_frame(path: str | Path) -> "pd.DataFrame":
    """Read a table as a data frame, with its metadata in ``frame.attrs``, and there under ``columns`` what each column means.

    Raises the same errors as :func:`read_arrow`.
    """
    table, metadata = read_arrow(path)
    frame = in_pandas(table)
    frame.attrs.update(metadata)
    described = [(field.name, (field.metadata or {}).get(DESCRIPTION)) for field in table.schema]
    frame.attrs["columns"] = {name: text.decode() for name, text in described if text is not None}
    return frame


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata of a Parquet or .npz file and verify its checksum. Raises the same errors as :func:`read_arrow`."""
    content = _sealed_content(path)
    with _decoding(path):
        if Path(path).suffix == ".npz":
            return _npz_metadata(content)
        return json.loads(pq.read_schema(pa.BufferReader(content)).metadata[METADATA_KEY])


def _npz_metadata(content: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return json.loads(archive.comment.split(b"\n")[0])


def _seal(path: Path) -> None:
    """Write the digest of a file's bytes over the zeros that were reserved for it."""
    content = path.read_bytes()
    position = content.rindex(_SEAL + _OPEN) + len(_SEAL)
    with path.open("r+b") as file:
        file.seek(position)
        file.write(hashlib.sha256(content).hexdigest().encode())


def _sealed_content(path: str | Path) -> bytes:
    """Read a file's bytes, and verify them against the digest that they contain."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise StageError(f"{path}: no such file; run the study to make it") from None
    except OSError as error:
        raise StageError(f"{path}: cannot be read ({error.strerror}); check the file system and run again") from None
    start = content.rfind(_SEAL) + len(_SEAL)
    found, rest = content[start : start + len(_OPEN)], content[start + len(_OPEN) :]
    if start < len(_SEAL):
        # The file is complete, but has no checksum: it ends in a Parquet footer, or as a zip without a comment.
        if (content.endswith(b"PAR1") and len(content) > 12) or (content[-22:-18] == b"PK\x05\x06" and content[-2:] == b"\0\0"):
            raise ForeignFile(
                f"{path}: written without a checksum, by another version of ntksim; delete it and run the study again"
            )
        raise _damaged(path, "it is truncated and holds no checksum")
    digest = hashlib.sha256(content[:start])
    digest.update(_OPEN)
    digest.update(rest)
    if digest.hexdigest().encode() != found:
        raise _damaged(path, "its bytes do not match its checksum")
    return content


def _damaged(path: str | Path, why: str) -> DamagedFile:
    return DamagedFile(f"{path}: damaged ({why}); `ntksim study` computes it again")


@contextmanager
def _decoding(path: str | Path) -> Iterator[None]:
    """Turn any error in decoding a file whose checksum is right into a one-line DamagedFile: ntksim did not write the file."""
    try:
        yield
    except Exception as error:
        raise _damaged(path, f"not a file that ntksim wrote: {' '.join(str(error).split())[:200]}") from None


def content_hash(*arrays: np.ndarray) -> str:
    """Hash of the shapes, types and values of arrays: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
