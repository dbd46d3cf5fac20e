"""The files of a training job: its shard, and the kernels where they are kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ntksim.study.files.storage import column, tensors, write_table


def write_shard(output: str | Path, columns: Mapping[str, np.ndarray], metadata: dict[str, Any]) -> None:
    """Columns (S, T, ...) of every row, and those (S, 1, ...) of a run in the row of its last time, nulls in the others."""
    seeds, times = columns["time"].shape
    is_last = np.tile(np.arange(times) == times - 1, seeds)
    arrays = {}
    for name, values in columns.items():
        arrays[name] = column(values.reshape(-1, *values.shape[2:]), is_last if values.shape[1] == 1 else None)
    write_table(output, pa.table(arrays), metadata)


def write_kernels(
    output: str | Path,
    cell: tuple[str, int],
    columns: Mapping[str, np.ndarray],
    kernels: Sequence[np.ndarray],
    metadata: dict[str, Any],
) -> None:
    """The kernel of every row, as Arrow tensors (n, n), or (n, k, n, k), from those (S, T, ...) of blocks of seeds.

    ``cell`` is the network's name and width: files of many cells can be read together.
    """
    count, (network, width) = columns["seed"].size, cell
    rows: dict[str, Any] = {"network": column([network] * count), "width": column(np.full(count, width, np.int64))}
    rows |= {name: column(columns[name].ravel()) for name in ("seed", "time", "relative_time")}
    rows["kernel"] = tensors(np.concatenate(kernels).reshape(-1, *kernels[0].shape[2:]))
    write_table(output, pa.table(rows), metadata)
