"""The training stage: networks of a block of seeds, what is measured of them, and what theory says of each.

A network has as many outputs as a point has targets. For k > 1 of them arrays are flattened: n points are n k entries, and
kernels (n k, n k). A limit is one output's, (n, n), and acts on each.
"""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ntksim.engine import measures
from ntksim.engine.blas import one_blas_thread
from ntksim.engine.devices import chosen_device
from ntksim.engine.infinite.ensembles import infinite_ensemble
from ntksim.engine.infinite.kernel import kernel_error
from ntksim.engine.infinite.predictions import closed_form
from ntksim.engine.layer_rates import rated
from ntksim.engine.network import Network
from ntksim.engine.training.train import Trajectory, train
from ntksim.study.data import files as datasets
from ntksim.study.files.provenance import provenance
from ntksim.study.files.storage import CHECKPOINT, tensors, write_table
from ntksim.study.plan.identity import shard_identity
from ntksim.study.stages.initial import finiteness, infinite_kernels, read_limit

_KEPT_BYTES = 2**28  # of kernels along the way that are held at a time
_MOST_SEEDS = 8  # trained at a time, so that long shards show progress
# Columns that are taken from trajectories as they are, beside those that a network which diverged cannot have.
_OF_RUNS = ("kernel_distance", "feature_drift", "gates_flipped", "sliding_gates", "layer_drift", "layer_kernel_drift")


class _Moments(NamedTuple):
    """Mean and variance of outputs over networks, (T, n k) each."""

    mean: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class _Job:
    """What all seeds of a shard share.

    ``times`` (T,) are those of training, ``flow_times`` those at which gradient flow is as far on: t / (1 - mu) under momentum.
    ``limits`` holds the infinite-width kernels of one output, ``ensemble`` the moments over infinitely wide networks on training
    and on test points.
    """

    network: Network
    data: datasets.Data
    dtype: str
    schedule: Mapping[str, Any]
    options: dict[str, Any]
    relative_times: np.ndarray
    times: np.ndarray
    flow_times: np.ndarray
    limits: dict[str, np.ndarray]
    ensemble: tuple[_Moments, _Moments]
    checkpoint: Path
    device: str

    @property
    def targets(self) -> tuple[np.ndarray, np.ndarray]:
        """Of training points (n k,) and of test points (n* k,)."""
        return self.data.y_train.ravel(), self.data.y_test.ravel()

    def train(self, seeds: range, **options: Any) -> Trajectory:
        """Train some seeds."""
        return train(
            self.network, self.data.x_train, self.data.y_train, seeds=seeds, x_test=self.data.x_test, dtype=self.dtype,
            checkpoint=self.checkpoint, device=self.device, **self.options, **options,
        )  # fmt: skip


# LAPACK's bits may depend on its threads; Numba's loops of the engine do not.
@one_blas_thread()
def training_shard(
    dataset: str | Path,
    limit_path: str | Path,
    network: Network,
    seeds: range,
    dtype: str,
    output: str | Path,
    schedule: Mapping[str, Any],
    kernels_output: str | Path | None = None,
    device: str = "cpu",
) -> None:
    """Write the training of every seed, a row per seed and time; rates and times in units of 1 / lambda_max(K_inf), K_inf
    being the effective kernel (`Network.learning_rate_scale`, and layer rates).

    ``schedule`` is that of the configuration (`stages.Training.schedule`). What belongs to a whole run stands in the row
    of its last time. With ``kernels_output`` the kernel of every row is written there too, as Arrow tensors (n, n), or
    (n, k, n, k).
    A job that is killed goes on from where it was, about a minute before.
    """
    data = datasets.read(dataset)
    checkpoint = Path(output).parent / f".{Path(output).stem}.{CHECKPOINT}"
    limits = read_limit(limit_path, network, data)
    network = replace(network, outputs=data.outputs)
    job = _job(network, data, limits, dtype, schedule, checkpoint, chosen_device(device))
    identity = shard_identity("training", network, seeds, data.hash, dtype=dtype, **schedule)
    metadata = {"identity": identity, "provenance": provenance(job.device)}
    blocks, kept = [], []
    held = len(job.times) * data.y_train.size**2 * np.dtype(dtype).itemsize
    size = max(1, min(_MOST_SEEDS, _KEPT_BYTES // held))
    for first in range(seeds.start, seeds.stop, size):
        block = range(first, min(first + size, seeds.stop))
        columns, kernels = _columns(job, block)
        blocks.append(columns)
        if kernels_output is not None:
            kept.append(kernels)
        print(f"width {network.width}: {block.stop - seeds.start} of {len(seeds)} seeds trained", flush=True)
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    write_table(output, _table(columns, len(job.times)), metadata)
    if kernels_output is not None:
        rows = {name: columns[name].ravel() for name in ("seed", "time", "relative_time")}
        rows["kernel"] = tensors(np.concatenate(kept).reshape(-1, *kept[0].shape[2:]))
        write_table(kernels_output, pa.table(rows), metadata)
    shutil.rmtree(checkpoint, ignore_errors=True)


def _table(columns: Mapping[str, np.ndarray], times: int) -> pa.Table:
    """Columns (S, T, ...) of every row, and those (S, 1, ...) of a run in the row of its last time, nulls in the others."""
    arrays: dict[str, Any] = {}
    for name, values in columns.items():
        if values.shape[1] == 1:
            rows: Any = [value for (own,) in values for value in (*[None] * (times - 1), own)]
        else:
            rows = list(values.reshape(-1, *values.shape[2:])) if values.ndim == 3 else values.ravel()
        # of lists of any length, unlike tensors of one shape, nulls take no room
        arrays[name] = pa.array(rows, pa.list_(pa.float64()) if values.ndim == 3 else None)
    return pa.table(arrays)


def _job(
    network: Network,
    data: datasets.Data,
    limits: dict[str, np.ndarray],
    dtype: str,
    schedule: Mapping[str, Any],
    checkpoint: Path,
    device: str,
) -> _Job:
    """The times of a schedule, the arguments of `train`, and what theory says of all seeds together."""
    if schedule["layer_rates"] is not None:  # sums over layers with their rates, in place of plain sums
        limits = infinite_kernels(rated(network, schedule["layer_rates"]), data)
    largest = network.learning_rate_scale * np.linalg.eigvalsh(limits["ntk"])[-1]
    last, snapshots = schedule["relative_time"], schedule["snapshots"]
    common = {name: schedule[name] for name in ("method", "layer_rates", "remove_initial_output")}
    if schedule["method"] == "gradient_flow":
        # from where the fastest mode begins to move
        relative_times = np.concatenate([[0], _log_spaced(min(0.1, last / 2), last, snapshots)])
        options, descent = {name: schedule.get(name) for name in ("tolerance", "max_steps")}, {}
    else:
        rate = schedule["relative_learning_rate"]
        steps = max(1, round(last / rate))
        relative_times = rate * np.concatenate([[0], np.unique(np.round(_log_spaced(1, steps, snapshots)))])
        descent = {"learning_rate": rate / largest} | {name: schedule[name] for name in ("momentum", "nesterov")}
        options = descent | {"batch_size": schedule["batch_size"]}
    times = relative_times / largest
    flow_times = times / (1 - descent.get("momentum", 0.0))
    ensemble = _ensemble(network, data, limits, times, schedule, descent)
    return _Job(
        network, data, dtype, schedule, common | options, relative_times, times, flow_times, limits, ensemble, checkpoint, device
    )


def _log_spaced(first: float, last: float, number: int) -> np.ndarray:
    """``number`` values from ``first`` to ``last``; the last alone where it is one."""
    return np.append(np.geomspace(first, last, number)[:-1], last)


def _ensemble(
    network: Network,
    data: datasets.Data,
    limits: dict[str, np.ndarray],
    times: np.ndarray,
    schedule: Mapping[str, Any],
    descent: dict[str, Any],
) -> tuple[_Moments, _Moments]:
    """Of the outputs of infinitely wide networks under the same training, on training and on test points."""
    if schedule["remove_initial_output"]:
        targets = data.y_train.ravel(), data.y_test.ravel()
        kernels = limits["ntk"], limits["ntk_test"]
        options = descent | {"precision": kernel_error(network)}
        means = _prediction(network, kernels, _zeros(targets), targets[0], times, **options)
        return _Moments(means[0], np.zeros_like(means[0])), _Moments(means[1], np.zeros_like(means[1]))
    own = rated(network, schedule["layer_rates"])
    every = infinite_ensemble(own, data.x_train, data.y_train, times, data.x_test, **descent)
    assert every.test_mean is not None
    assert every.test_covariance is not None
    return _moments(every.mean, every.covariance), _moments(every.test_mean, every.test_covariance)


def _moments(mean: np.ndarray, covariance: np.ndarray) -> _Moments:
    """From a mean (T, n) or (T, n, k), and the covariance (T, n, n) that every output has."""
    variance = np.diagonal(covariance, axis1=-2, axis2=-1)
    return _Moments(mean.reshape(len(mean), -1), np.repeat(variance, mean[0].size // variance.shape[-1], axis=-1))


def _zeros(arrays: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros_like(arrays[0]), np.zeros_like(arrays[1])


def _columns(job: _Job, seeds: range) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every column of some seeds, (S, T, ...) or of whole runs (S, 1, ...), and their kernels, as `train` has them."""
    trained = job.train(seeds, times=job.times, keep_kernels=True)
    run = _flat(trained)
    assert trained.kernels is not None
    assert run.kernels is not None
    assert run.test_outputs is not None
    shape = (len(seeds), len(job.times))
    columns = {
        "seed": np.repeat(np.asarray(seeds, dtype=np.int64)[:, None], shape[1], axis=1),
        "time": np.broadcast_to(run.times, shape),
        "relative_time": np.broadcast_to(job.relative_times, shape),
        "loss": run.loss,
        "test_loss": _losses(run.test_outputs.astype(np.float64), job.targets[1]),
        "kernel_drift": run.kernel_drift,
        "parameter_drift": run.parameter_drift,
    }
    if job.schedule["method"] == "gradient_flow":
        columns["time_reached"] = run.time_reached[:, None]
    status = np.array(run.status, dtype=object)
    status = np.where(status == "finished", finiteness(columns.values()), status)
    columns |= {name: getattr(run, name) for name in _OF_RUNS}
    kernels = run.kernels.astype(np.float64)
    with np.errstate(all="ignore"):  # kernels of networks that are dead or diverge: NaN
        columns |= _kernel_columns(kernels, run.times, job.data.y_train, job.dtype)
        columns["test_accuracy"] = _accuracy(run.test_outputs, job.data)
        if job.schedule["remove_initial_output"]:  # only then has it a part that all seeds share
            change = (kernels[:, -1] - kernels[:, 0]) / measures.frobenius_norm(kernels[:, 0])[:, None, None]
            columns["relative_kernel_change"] = change.reshape(len(seeds), 1, -1)
    columns |= _beside_theory(job, run)
    columns |= _beside_ensemble("", job.ensemble[0], run.outputs, job.targets[0])
    columns |= _beside_ensemble("test_", job.ensemble[1], run.test_outputs, job.targets[1])
    columns["status"] = np.repeat(status[:, None], shape[1], axis=1)
    return columns, trained.kernels


def _flat(run: Trajectory) -> Trajectory:
    """The run with points and outputs in one axis."""
    if run.outputs.ndim == 3:
        return run
    outputs = {name: getattr(run, name) for name in ("outputs", "test_outputs")}
    kernels = {name: getattr(run, name) for name in ("kernels", "kernel", "test_kernels")}
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
        "effective_rank": np.stack([_solved(measures.effective_rank, own, np.full(len(own), np.nan)) for own in kernels]),
    }


def _solved(function: Any, argument: Any, otherwise: np.ndarray) -> np.ndarray:
    """A function that solves eigenproblems, or what stands for its value where it fails."""
    with suppress(np.linalg.LinAlgError):
        return function(argument)
    return otherwise


def _beside_theory(job: _Job, run: Trajectory) -> dict[str, np.ndarray]:
    """What constant-kernel theory predicts of every network from its own f_0, and how far the network is from it.

    Per prediction losses on training and test points, the root mean square of f_t - prediction over either, and the accuracy on
    test points, (S, T) each.
    ``linearized``: the network linearised at theta_0 under the same training: (I - eta K_0)^k for gradient descent, what
    momentum makes of it, and the closed form for the flow; of batches, that of all points at once.
    ``limit_closed_form``: the same training with K_infinity. ``closed_form``: gradient flow with K_0, e^(-K_0 t).
    """
    (y, y_test), limits = job.targets, job.limits
    assert run.kernels is not None
    assert run.test_outputs is not None
    assert run.test_kernels is not None
    descent: dict[str, Any] = {}
    if run.learning_rate is not None:
        descent = {"learning_rate": run.learning_rate} | {name: job.schedule[name] for name in ("momentum", "nesterov")}
    own_times = run.times if descent else job.flow_times
    ridge = job.schedule.get("ridge", 0.0)
    computed, of_limit = {"precision": job.dtype}, {"precision": kernel_error(job.network)}
    columns: dict[str, list[np.ndarray]] = {}
    for s in range(len(run.outputs)):
        outputs, tests = run.outputs[s].astype(np.float64), run.test_outputs[s].astype(np.float64)
        across = run.test_kernels[s].astype(np.float64)
        initial = run.kernels[s, 0].astype(np.float64), across[0]
        after = run.kernel[s].astype(np.float64), across[1]
        limit = limits["ntk"], limits["ntk_test"]
        found: dict[str, np.ndarray] = {}
        for name, kernels, times, options in (
            ("linearized", initial, own_times, computed | descent),
            ("closed_form", initial, job.flow_times, computed),
            ("limit_closed_form", limit, own_times, of_limit | descent),
        ):
            f, f_test = _prediction(job.network, kernels, (outputs[0], tests[0]), y, times, **options)
            found[f"{name}_loss"], found[f"test_{name}_loss"] = _losses(f, y), _losses(f_test, y_test)
            found[f"{name}_deviation"], found[f"test_{name}_deviation"] = _rms(outputs - f), _rms(tests - f_test)
            found[f"test_{name}_accuracy"] = _accuracy(f_test, job.data)
        for name, kernels, options in (
            ("initial_kernel", initial, computed),
            ("after_kernel", after, computed),
            ("limit_kernel", limit, of_limit),
        ):
            _, f_test = _prediction(job.network, kernels, _zeros(job.targets), y, np.array([np.inf]), ridge=ridge, **options)
            found[f"{name}_regression_test_loss"] = _losses(f_test, y_test)
        for name, values in (found | _modes(job, run.kernels[s], after[0], outputs)).items():
            columns.setdefault(name, []).append(values)
    return {name: np.stack(values) for name, values in columns.items()}


def _beside_ensemble(start: str, theory: _Moments, outputs: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs (S, T, n k) less the mean over infinitely wide networks; of these their expected loss, and over points the root
    mean square of their mean, and the mean of their variance, (S, T) each. Names begin with ``start``.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        common = {
            "ensemble_loss": _losses(theory.mean, targets) + 0.5 * np.sum(theory.variance, axis=-1),
            "limit_mean": _rms(theory.mean),
            "limit_variance": np.mean(theory.variance, axis=-1),
        }
        columns = {"limit_difference": outputs - theory.mean}
    columns |= {name: np.broadcast_to(values, outputs.shape[:2]) for name, values in common.items()}
    return {start + name: values for name, values in columns.items()}


def _modes(job: _Job, kernels: np.ndarray, after: np.ndarray, outputs: np.ndarray) -> dict[str, np.ndarray]:
    """Eigenvalues of K_0 and of K at the end, as rates, and the residual's shares and fitted decay rates along those of K_0.

    ``kernels`` (T, n k, n k) are those along the way, the first K_0.

    NaN where an eigenvalue is not told from 0 in the job's precision. Under momentum modes above critical damping oscillate, and
    have no rate.
    """
    scale, unknown = job.network.learning_rate_scale, np.full((1, kernels.shape[-1]), np.nan)
    floor = None
    if "tolerance" in job.schedule:  # what the integrator may have added
        floor = job.schedule["tolerance"] * float(np.linalg.norm(outputs[0] - job.targets[0]))
        floor = floor if floor > 0 else None

    critical, mu = np.inf, job.schedule.get("momentum")
    if mu:  # where the roots of the recursion become complex (`predictions._with_momentum`)
        root = 1 + (mu if job.schedule["nesterov"] else np.sqrt(mu))
        critical = ((1 - mu) / root) ** 2 / job.options["learning_rate"]

    def fitted(kernel: np.ndarray) -> np.ndarray:
        modes = measures.residual_modes(
            kernel, outputs, job.targets[0], job.flow_times, floor, kernels=kernels, precision=job.dtype
        )
        damped = modes.eigenvalues <= critical
        return np.stack([modes.eigenvalues, modes.initial_shares, np.where(damped, modes.decay_rates, np.nan)])

    eigenvalues, shares, rates = _solved(fitted, scale * kernels[0].astype(np.float64), np.concatenate([unknown] * 3))
    return {
        "eigenvalue": eigenvalues[None],
        "after_eigenvalue": _solved(partial(measures.resolved_spectrum, precision=job.dtype), scale * after[None], unknown),
        "initial_share": shares[None],
        "decay_rate": rates[None],
    }


def _prediction(
    network: Network,
    kernels: tuple[np.ndarray, np.ndarray],
    start: tuple[np.ndarray, np.ndarray],
    targets: np.ndarray,
    times: np.ndarray,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (T, n k) and (T, n* k) that kernels predict from ``start``: those of all outputs, (n k, n k) and (n* k, n k), or
    those of one, (n, n) and (n*, n), which act on each; ``options`` of `closed_form`.

    NaN if one of these is not finite, or the eigen-solver fails.
    """
    scale, (own, across) = network.learning_rate_scale, kernels
    if all(np.isfinite(values).all() for values in (*kernels, *start)):
        k = len(targets) // len(own)
        f0, f0_test, y = (flat if k == 1 else flat.reshape(-1, k) for flat in (*start, targets))
        with suppress(np.linalg.LinAlgError):
            f, f_test = closed_form(scale * own, f0, y, times, scale * across, f0_test, **options)
            return f.reshape(len(f), -1), f_test.reshape(len(f_test), -1)
    return np.full((len(times), len(start[0])), np.nan), np.full((len(times), len(start[1])), np.nan)


def _losses(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return 0.5 * np.sum((outputs - targets) ** 2, axis=-1)


def _accuracy(outputs: np.ndarray, data: datasets.Data) -> np.ndarray:
    """Share of the test points, outputs (..., n* k), that are told their class: by the sign, or the largest of k > 2 outputs.

    A point whose outputs prefer no class is told a wrong one. NaN where no point's do, as before f - f_0 is trained, where
    targets tell no classes, and of outputs that are not finite.
    """
    if not data.are_classes:
        return np.full(outputs.shape[:-1], np.nan)
    scores = outputs.reshape(*outputs.shape[:-1], *data.y_test.shape)
    if data.y_test.ndim == 1:
        told, classes, undecided = scores > 0, data.y_test > 0, scores == 0
    else:
        told, classes = scores.argmax(axis=-1), data.y_test.argmax(axis=-1)
        undecided = scores.max(axis=-1) == scores.min(axis=-1)
    known = np.isfinite(outputs).all(axis=-1) & ~undecided.all(axis=-1)
    return np.where(known, ((told == classes) & ~undecided).mean(axis=-1), np.nan)


def _rms(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt(np.mean(values**2, axis=-1))
