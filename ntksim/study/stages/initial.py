"""What the rules of the workflow run, but for `stages.training`: functions of paths and values.

A file carries what it was computed from (`identity`), and a stage reads no file that was computed from something else.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ntksim.engine import measures
from ntksim.engine.blas import one_blas_thread
from ntksim.engine.devices import chosen_device
from ntksim.engine.finite.empirical import empirical_ntk
from ntksim.engine.infinite.kernel import infinite_kernel
from ntksim.engine.infinite.variance import one_hidden_layer_variance
from ntksim.engine.network import Network
from ntksim.engine.training.train import train
from ntksim.study.data import files
from ntksim.study.errors import StageError
from ntksim.study.files.provenance import provenance
from ntksim.study.files.storage import read_arrays, read_metadata, write_arrays, write_table
from ntksim.study.plan.identity import initial_identity, limit_identity, require, shard_identity
from ntksim.study.stages.shard import ShardJob


@one_blas_thread()
def limit(dataset: str | Path, network: Network, output: str | Path) -> None:
    """Write the infinite-width kernels: NNGP and NTK of the training points, and NTK of test with training points.

    For one hidden layer also ``kernel_variance``, the exact variance of every entry of the empirical NTK times the width.
    """
    data = files.read(dataset)
    try:
        arrays = infinite_kernels(network, data)
        if network.depth == 1:
            arrays["kernel_variance"] = network.widths[0] * one_hidden_layer_variance(network, data.x_train)
    except ValueError as error:
        raise StageError(f"{output}: {error}") from error
    metadata = {"identity": limit_identity(network, data.hash), "provenance": provenance()}
    write_arrays(output, metadata, **arrays)


@one_blas_thread()
def initial_shard(job: ShardJob, sampling: str = "weights", first_step: float | None = None) -> None:
    """Write the statistics of empirical kernels at initialisation, a row per seed, with their eigenvalues, their relative
    difference from the limit, and a status; ``sampling`` is that of `empirical_ntk`.

    With ``first_step`` also the kernels' diagonals, and their relative change by one step of gradient descent at this learning
    rate, in units of 1 / lambda_max of the limit.
    """
    data = files.read(job.dataset)
    reference = read_limit(job.limit, job.network, data)["ntk"]
    device = chosen_device(job.device)
    with np.errstate(over="ignore", invalid="ignore"):  # the status says it
        kernels = _kernels(job, data.x_train, device, sampling)
        differences = triangles((kernels - reference) / np.linalg.norm(reference))
    columns: dict[str, Any] = {"seed": np.asarray(job.seeds, dtype=np.int64)}
    columns |= kernel_columns(kernels, reference, data.y_train)
    columns["relative_limit_difference"] = list(differences)
    if first_step is not None:
        columns["diagonal"] = list(np.diagonal(kernels, axis1=-2, axis2=-1).astype(np.float64))
        columns["first_step_change"] = first_step_changes(job, data, reference, sampling, first_step)
    options = initial_identity(sampling, first_step)
    identity = shard_identity("initial", job.network, job.seeds, data.hash, dtype=job.dtype, **options)
    write_table(job.output, pa.table(columns), {"identity": identity, "provenance": provenance(device)})


def first_step_changes(job: ShardJob, data: files.Data, reference: np.ndarray, sampling: str, relative_rate: float) -> np.ndarray:
    """||K_1 - K_0||_F / ||K_0||_F (S,) after one step of full-batch gradient descent of one output, on its targets.

    The learning rate is ``relative_rate`` / lambda_max of the limit's kernel ``reference``, that of training.
    """
    rate = relative_rate / (job.network.learning_rate_scale * float(np.linalg.eigvalsh(reference)[-1]))
    y = data.y_train if data.y_train.ndim == 1 else data.y_train[:, 0]
    device = "cpu" if sampling == "conditional" else job.device
    run = train(
        job.network, data.x_train, y, seeds=job.seeds, method="gradient_descent", learning_rate=rate, times=[0.0, rate],
        sampling=sampling, dtype=job.dtype, device=device,
    )  # fmt: skip
    return run.kernel_drift[:, -1]


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


def infinite_kernels(network: Network, data: files.Data) -> dict[str, np.ndarray]:
    """NNGP and NTK of the training points, and NTK of test with training points."""
    train_kernel = infinite_kernel(network, data.x_train)
    test_kernel = infinite_kernel(network, data.x_test, data.x_train)
    return {"nngp": train_kernel.nngp, "ntk": train_kernel.ntk, "ntk_test": test_kernel.ntk}


def read_limit(path: str | Path, network: Network, data: files.Data) -> dict[str, np.ndarray]:
    """What :func:`limit` wrote for a network. Raises StageError unless it is of this network and these data."""
    require(path, read_metadata(path).get("identity"), limit_identity(network, data.hash))
    return read_arrays(path)
