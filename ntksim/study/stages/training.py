"""The training stage: networks of a block of seeds, and what is measured of them.

A network has as many outputs as a point has targets. For k > 1 of them arrays are flattened: n points are n k entries, and
kernels (n k, n k). A limit is one output's, (n, n), and acts on each.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ntksim.engine import measures
from ntksim.engine.blas import one_blas_thread
from ntksim.engine.training.trajectory import Trajectory
from ntksim.study.files.provenance import provenance
from ntksim.study.plan.identity import shard_identity
from ntksim.study.stages.accuracy import accuracy
from ntksim.study.stages.kernels import finiteness
from ntksim.study.stages.measures import measured, of_tests
from ntksim.study.stages.shard import ShardJob
from ntksim.study.stages.theory import beside_ensemble, beside_theory, solved
from ntksim.study.stages.training_files import write_kernels, write_shard
from ntksim.study.stages.training_job import Job, make_job

if TYPE_CHECKING:  # what shards depend on of the configuration is in their identities
    from ntksim.study.config.stages import Schedule

_KEPT_BYTES = 2**28  # of kernels along the way that are held at a time
_MOST_SEEDS = 8  # trained at a time, so that long shards show progress
# Columns that are taken from trajectories as they are, beside those that a network which diverged cannot have.
_OF_RUNS = ("kernel_distance", "feature_drift", "gates_flipped", "sliding_gates", "layer_drift", "layer_kernel_drift")


# LAPACK's bits may depend on its threads; Numba's loops of the engine do not.
@one_blas_thread()
def training_shard(shard: ShardJob, schedule: "Schedule", kernels_output: str | Path | None = None) -> None:
    """Write the training of every seed, a row per seed and time; rates and times in units of 1 / lambda_max(K_inf), K_inf
    being the effective kernel (`Network.learning_rate_scale`, and layer rates).

    What belongs to a whole run stands in the row of its last time. With ``kernels_output`` the kernel of every row is written
    there too, as Arrow tensors (n, n), or (n, k, n, k).
    A job that is killed goes on from where it was, about a minute before.
    """
    job, seeds = make_job(shard, schedule), shard.seeds
    identity = shard_identity("training", job.network, seeds, job.data.hash, dtype=job.dtype, **schedule.identity_in(job.dtype))
    metadata = {"identity": identity, "provenance": provenance(job.device) | schedule.chosen(job.dtype)}
    blocks, kept = [], []
    rows = job.data.y_train.size + job.keeps_test_kernels * len(job.observed) * job.data.outputs
    held = len(job.times) * job.data.y_train.size * rows * np.dtype(job.dtype).itemsize
    size = max(1, min(_MOST_SEEDS, _KEPT_BYTES // held))
    for first in range(seeds.start, seeds.stop, size):
        block = range(first, min(first + size, seeds.stop))
        columns, kernels = _columns(job, block)
        blocks.append(columns)
        if kernels_output is not None:
            kept.append(kernels)
        print(f"width {job.network.width}: {block.stop - seeds.start} of {len(seeds)} seeds trained", flush=True)
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    write_shard(shard.output, columns, metadata)
    if kernels_output is not None:
        write_kernels(kernels_output, (shard.name, job.network.widths[0]), columns, kept, metadata)
    shutil.rmtree(job.checkpoint, ignore_errors=True)


def _columns(job: Job, seeds: range) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every column of some seeds, (S, T, ...) or of whole runs (S, 1, ...), and their kernels, as `train` has them."""
    trained = job.train(seeds)
    seen = _flat(trained)
    run = of_tests(job, seen)
    assert trained.kernels is not None
    assert run.kernels is not None
    assert run.test_outputs is not None
    shape = (len(seeds), len(job.times))
    columns = {
        "seed": np.repeat(np.asarray(seeds, dtype=np.int64)[:, None], shape[1], axis=1),
        "time": np.broadcast_to(run.times, shape),
        "relative_time": np.broadcast_to(job.relative_times, shape),
        "loss": run.loss,
        "test_loss": job.objectives[1].of(run.test_outputs.astype(np.float64)),
        "kernel_drift": run.kernel_drift,
        "parameter_drift": run.parameter_drift,
    }
    if job.schedule.method == "gradient_flow":
        columns["time_reached"] = run.time_reached[:, None]
    status = np.array(run.status, dtype=object)
    status = np.where(status == "finished", finiteness(columns.values()), status)
    columns |= {name: getattr(run, name) for name in _OF_RUNS}
    kernels = run.kernels.astype(np.float64)
    with np.errstate(all="ignore"):  # kernels of networks that are dead or diverge: NaN
        columns |= _kernel_columns(kernels, run.times, job.data.y_train, job.dtype)
        columns["test_accuracy"] = accuracy(run.test_outputs, job.data)
        if job.schedule.remove_initial_output:  # only then has it a part that all seeds share
            change = (kernels[:, -1] - kernels[:, 0]) / measures.frobenius_norm(kernels[:, 0])[:, None, None]
            columns["relative_kernel_change"] = change.reshape(len(seeds), 1, -1)
        columns |= measured(job, seen)
    columns |= beside_theory(job, run, job.radial(seeds) if job.decay else None)
    columns |= beside_ensemble("", job, 0, run.outputs)
    columns |= beside_ensemble("test_", job, 1, run.test_outputs)
    if job.schedule.sampling == "conditional":
        columns["rank"] = np.full((len(seeds), 1), np.nan) if run.rank is None else run.rank[:, None].astype(np.float64)
    columns["status"] = np.repeat(status[:, None], shape[1], axis=1)
    return columns, trained.kernels


def _flat(run: Trajectory) -> Trajectory:
    """The run with points and outputs in one axis."""
    if run.outputs.ndim == 3:
        return run
    outputs = {name: getattr(run, name) for name in ("outputs", "test_outputs")}
    names = ("kernels", "kernel", "test_kernels", "kept_test_kernels")
    kernels = {name: array for name in names if (array := getattr(run, name)) is not None}
    flat = {name: array.reshape(*array.shape[:2], -1) for name, array in outputs.items()}
    columns = flat["outputs"].shape[-1]
    return replace(run, **flat, **{name: array.reshape(*array.shape[:-4], -1, columns) for name, array in kernels.items()})


def _kernel_columns(kernels: np.ndarray, times: np.ndarray, targets: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """Measures of kernels (S, T, n k, n k) along the way, computed in ``dtype``, (S, T) each; NaN where an eigen-solver fails.

    Alignments are of kernels over points, to be compared with YY': those of several outputs are summed.
    """
    velocity = measures.kernel_velocity(kernels, times)
    shape = (*kernels.shape[:2], *(len(targets), kernels.shape[-1] // len(targets)) * 2)
    points = kernels if kernels.shape[-1] == len(targets) else np.trace(kernels.reshape(shape), axis1=-3, axis2=-1)
    return {
        "kernel_velocity": np.concatenate([np.full((len(kernels), 1), np.nan), velocity], axis=1),
        "kernel_target_alignment": measures.kernel_target_alignment(points, targets),
        "centred_kernel_target_alignment": measures.centred_kernel_target_alignment(points, targets, dtype),
        "centred_alignment": measures.centred_alignment(points, points[:, :1], dtype),
        "effective_rank": np.stack([solved(measures.effective_rank, own, np.full(len(own), np.nan)) for own in kernels]),
    }
