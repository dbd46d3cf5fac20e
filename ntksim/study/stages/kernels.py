"""Shards of kernels at initialisation: a row of statistics per seed.

This module does not load the engine of training, so that changes there leave its shards up to date; `stages.initial` does.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from ntksim.engine import measures
from ntksim.engine.blas import one_blas_thread
from ntksim.engine.devices import chosen_device
from ntksim.engine.finite.empirical import empirical_ntk
from ntksim.study.data import files
from ntksim.study.files.provenance import provenance
from ntksim.study.files.storage import column, write_table
from ntksim.study.plan.identity import initial_identity, shard_identity
from ntksim.study.stages.limit import read_limit
from ntksim.study.stages.shard import ShardJob

Changes = Callable[[ShardJob, files.Data, np.ndarray, str, float], np.ndarray]  # `initial.first_step_changes`


@one_blas_thread()
def write_kernels(job: ShardJob, sampling: str, first_step: float | None = None, changes: Changes | None = None) -> None:
    """What `initial.initial_shard` writes; ``changes`` computes the effect of a first step, if there is one."""
    data = files.read(job.dataset)
    reference = read_limit(job.limit, job.network, data)["ntk"]
    device = chosen_device(job.device)
    with np.errstate(over="ignore", invalid="ignore"):  # the status says it
        kernels = _kernels(job, data.x_train, device, sampling)
        differences = triangles((kernels - reference) / np.linalg.norm(reference))
    columns: dict[str, Any] = {"seed": np.asarray(job.seeds, dtype=np.int64)}
    columns |= kernel_columns(kernels, reference, data.y_train)
    columns["relative_limit_difference"] = list(differences)
    if first_step is not None and changes is not None:
        columns["diagonal"] = list(np.diagonal(kernels, axis1=-2, axis2=-1).astype(np.float64))
        columns["first_step_change"] = changes(job, data, reference, sampling, first_step)
    options = initial_identity(sampling, first_step)
    identity = shard_identity("initial", job.network, job.seeds, data.hash, dtype=job.dtype, **options)
    table = pa.table({name: column(values) for name, values in columns.items()})
    write_table(job.output, table, {"identity": identity, "provenance": provenance(device)})


def kernel_columns(kernels: np.ndarray, reference: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """Statistics of kernels (S, n, n), eigenvalues and status: a value per seed, NaN where an eigen-solver failed.

    The status is ``finished``; ``overflow`` or ``nan`` where the kernel or a statistic is infinite or NaN (but for the
    condition number, which of a singular kernel is infinite); or ``eigensolver_failed``.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the status says it
        try:
            columns = measures.kernel_statistics(kernels, reference, targets) | {"eigenvalues": measures.spectrum(kernels)}
            failed = np.zeros(len(kernels), bool)
        except np.linalg.LinAlgError:
            if len(kernels) > 1:
                parts = [kernel_columns(kernels[s : s + 1], reference, targets) for s in range(len(kernels))]
                return {name: [value for part in parts for value in part[name]] for name in parts[0]}
            unknown = np.full_like(kernels, np.nan)
            columns = measures.kernel_statistics(unknown, reference, targets) | {"eigenvalues": measures.spectrum(unknown)}
            failed = np.ones(1, bool)
    checked = [kernels, *(value for name, value in columns.items() if name != "condition_number")]
    status = np.where(failed, "eigensolver_failed", finiteness(checked))
    return columns | {"eigenvalues": list(columns["eigenvalues"]), "status": list(status)}


def finiteness(columns: Iterable[np.ndarray]) -> np.ndarray:
    """A word per row of arrays of as many rows: overflow if any value is infinite, else nan if any is NaN, else finished."""
    flat = [np.reshape(column, (len(column), -1)) for column in columns]
    infinite = np.any([np.isinf(column).any(axis=1) for column in flat], axis=0)
    unknown = np.any([np.isnan(column).any(axis=1) for column in flat], axis=0)
    return np.where(infinite, "overflow", np.where(unknown, "nan", "finished"))


def triangles(matrices: np.ndarray) -> np.ndarray:
    """Symmetric matrices (S, n, n) as vectors (S, n (n + 1) / 2) with the same inner products."""
    rows, columns = np.triu_indices(matrices.shape[-1])
    return matrices[:, rows, columns].astype(np.float64) * np.where(rows == columns, 1.0, np.sqrt(2.0))


def _kernels(job: ShardJob, x: np.ndarray, device: str, sampling: str) -> np.ndarray:
    """Kernels (S, n, n), on the CPU a few seeds at a time so that long shards show progress."""
    network, seeds = job.network, job.seeds
    if device == "cuda":
        return empirical_ntk(network, x, seeds=seeds, dtype=job.dtype, device=device, sampling=sampling)
    every = []
    for first in range(seeds.start, seeds.stop, 8):
        block = range(first, min(first + 8, seeds.stop))
        every.append(empirical_ntk(network, x, seeds=block, dtype=job.dtype, sampling=sampling))
        print(f"width {network.width}: kernels of {block.stop - seeds.start} of {len(seeds)} seeds", flush=True)
    return np.concatenate(every)
