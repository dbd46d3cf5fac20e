"""How large the arrays and tables of a user's files are, read from their headers; loading says what is wrong with a file."""

import math
import zipfile
from contextlib import suppress
from typing import IO

from numpy.lib import format as npy

from ntksim.study.config.section import MOST


def rows(path: str, *arrays: str) -> int | None:
    """Points in a file: rows of a table, or of the first of the ``arrays`` that an .npz file has; None if it cannot be read."""
    with suppress(Exception):  # a damaged file can make the readers of the formats raise almost anything
        if path.endswith(".csv"):  # has no header that tells
            from pandas import read_csv

            return len(read_csv(path, usecols=[0], low_memory=False))
        if path.endswith(".parquet"):
            from pyarrow import parquet

            return int(parquet.read_metadata(path).num_rows)
        return _shape(path, arrays)[0]
    return None


def columns(path: str, *arrays: str) -> int:
    """Columns of a table, or numbers of a point in an array (as for ``rows``); 1 if the file cannot be read."""
    with suppress(Exception):
        if path.endswith(".csv"):
            from pandas import read_csv

            return read_csv(path, nrows=0).shape[1]
        if path.endswith(".parquet"):
            from pyarrow import parquet

            return len(parquet.read_schema(path))
        return math.prod(_shape(path, arrays)[1:])
    return 1


def _shape(path: str, arrays: tuple[str, ...]) -> tuple[int, ...]:
    """Of an .npy file, or of the first of the arrays that an .npz file has."""
    if path.endswith(".npy"):
        with open(path, "rb") as opened:
            return _header(opened)
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in arrays if f"{name}.npy" in archive.namelist())
        with archive.open(f"{name}.npy") as opened:
            return _header(opened)


def _header(opened: IO[bytes]) -> tuple[int, ...]:
    version = npy.read_magic(opened)
    shape = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(opened)[0]
    if not 1 <= shape[0] <= math.prod(shape) < MOST:
        raise ValueError("an array that is empty, or larger than any machine's memory")
    return shape
