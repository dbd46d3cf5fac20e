"""What each rule of the workflow runs: functions of paths and values.

A file carries what it was computed from (`identity`), and a stage reads no file that was computed from something else.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ntksim.engine import measures
from ntksim.engine.devices import chosen_device
from ntksim.engine.empirical import empirical_ntk
from ntksim.engine.finite_width import one_hidden_layer_variance
from ntksim.engine.infinite import infinite_kernel
from ntksim.engine.network import Network
from ntksim.engine.predictions import closed_form
from ntksim.engine.threads import one_blas_thread
from ntksim.engine.training import Trajectory, train
from ntksim.study import datasets
from ntksim.study.errors import StageError
from ntksim.study.identity import limit_identity, require, shard_identity
from ntksim.study.provenance import provenance
from ntksim.study.storage import read_arrays, read_metadata, write_arrays, write_table


# LAPACK's bits may depend on its threads; Numba's loops of the engine do not.
@one_blas_thread()
def limit(dataset: str | Path, network: Network, output: str | Path) -> None:
    """Write the infinite-width kernels: NNGP and NTK of the training points, and NTK of test with training points.

    For one hidden layer also ``kernel_variance``, the exact variance of every entry of the empirical NTK times the width.
    """
    data = datasets.read(dataset)
    train_kernel = infinite_kernel(network, data.x_train)
    test_kernel = infinite_kernel(network, data.x_test, data.x_train)
    arrays = {"nngp": train_kernel.nngp, "ntk": train_kernel.ntk, "ntk_test": test_kernel.ntk}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise StageError(
            f"{output}: the infinite-width kernel of this network overflows; lower sigma_w, sigma_a, sigma_b or output_scale"
        )
    if network.depth == 1:
        arrays["kernel_variance"] = network.widths[0] * one_hidden_layer_variance(network, data.x_train)
    metadata = {"identity": limit_identity(network, data.hash), "provenance": provenance()}
    write_arrays(output, metadata, **arrays)


@one_blas_thread()
def initial_shard(
    dataset: str | Path,
    limit_path: str | Path,
    network: Network,
    seeds: range,
    dtype: str,
    output: str | Path,
    device: str = "cpu",
) -> None:
    """Write the statistics of empirical kernels at initialisation, a row per seed, with their eigenvalues and a status."""
    data = datasets.read(dataset)
    reference = _limits(limit_path, network, data)["ntk"]
    device = chosen_device(device, network)
    kernels = _kernels(network, data.x_train, seeds, dtype, device)
    columns: dict[str, Any] = {"seed": np.asarray(seeds, dtype=np.int64)}
    columns |= kernel_columns(kernels, reference, data.y_train)
    identity = shard_identity("initial", network, seeds, data.hash, dtype=dtype)
    write_table(output, pa.table(columns), {"identity": identity, "provenance": provenance(device)})


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
    status = np.where(failed, "eigensolver_failed", _finiteness(checked))
    return columns | {"eigenvalues": list(columns["eigenvalues"]), "status": list(status)}


def _finiteness(columns: Iterable[np.ndarray]) -> np.ndarray:
    """A word per row of arrays of as many rows: overflow if any value is infinite, else nan if any is NaN, else finished."""
    flat = [np.reshape(column, (len(column), -1)) for column in columns]
    infinite = np.any([np.isinf(column).any(axis=1) for column in flat], axis=0)
    unknown = np.any([np.isnan(column).any(axis=1) for column in flat], axis=0)
    return np.where(infinite, "overflow", np.where(unknown, "nan", "finished"))


def _kernels(network: Network, x: np.ndarray, seeds: range, dtype: str, device: str) -> np.ndarray:
    """Kernels (S, n, n), on the CPU a few seeds at a time so that long shards show progress."""
    if device == "cuda":
        return empirical_ntk(network, x, seeds=seeds, dtype=dtype, device=device)
    every = []
    for first in range(seeds.start, seeds.stop, 8):
        block = range(first, min(first + 8, seeds.stop))
        every.append(empirical_ntk(network, x, seeds=block, dtype=dtype))
        print(f"width {network.width}: kernels of {block.stop - seeds.start} of {len(seeds)} seeds", flush=True)
    return np.concatenate(every)


@one_blas_thread()
def training_shard(
    dataset: str | Path,
    limit_path: str | Path,
    network: Network,
    seeds: range,
    dtype: str,
    output: str | Path,
    schedule: Mapping[str, Any],
    device: str = "cpu",
) -> None:
    """Write the training of every seed, a row per seed and time; rates and times in units of 1 / lambda_max(K_inf), K_inf
    being the effective kernel (`Network.learning_rate_scale`).

    ``schedule`` is that of the configuration (`config.Training.schedule`).
    """
    data = datasets.read(dataset)
    limits = _limits(limit_path, network, data)
    largest = network.learning_rate_scale * np.linalg.eigvalsh(limits["ntk"])[-1]
    last, snapshots = schedule["relative_time"], schedule["snapshots"]
    if schedule["method"] == "gradient_flow":
        # from where the fastest mode begins to move
        relative_times = np.concatenate([[0], np.geomspace(min(0.1, last / 2), last, snapshots)])
        options = {"tolerance": schedule["tolerance"]}
    else:
        rate = schedule["relative_learning_rate"]
        steps = max(1, round(last / rate))
        relative_times = rate * np.concatenate([[0], np.unique(np.round(np.geomspace(1, steps, snapshots)))])
        options = {"learning_rate": rate / largest}
    device = chosen_device(device, network)
    trajectory = train(
        network, data.x_train, data.y_train, seeds=seeds, method=schedule["method"], times=relative_times / largest,
        x_test=data.x_test, dtype=dtype, device=device, **options,
    )  # fmt: skip
    assert trajectory.test_outputs is not None
    test_residual = trajectory.test_outputs.astype(np.float64) - data.y_test
    per_seed, times = len(trajectory.times), trajectory.times
    columns: dict[str, Any] = {
        "seed": np.repeat(np.asarray(seeds, dtype=np.int64), per_seed),
        "time": np.tile(times, len(seeds)),
        "relative_time": np.tile(relative_times, len(seeds)),
        "loss": trajectory.loss.ravel(),
        "test_loss": 0.5 * np.sum(test_residual**2, axis=-1).ravel(),
        "kernel_drift": trajectory.kernel_drift.ravel(),
        "parameter_drift": trajectory.parameter_drift.ravel(),
    }
    finiteness = _finiteness(column.reshape(len(seeds), per_seed) for column in columns.values())
    columns |= _beside_theory(trajectory, network, data, seeds, dtype, limits)
    status = np.array(trajectory.status, dtype=object)
    columns["status"] = np.repeat(np.where(status == "finished", finiteness, status), per_seed)
    identity = shard_identity("training", network, seeds, data.hash, dtype=dtype, **schedule)
    write_table(output, pa.table(columns), {"identity": identity, "provenance": provenance(device)})


def _beside_theory(
    trajectory: Trajectory, network: Network, data: datasets.Data, seeds: range, dtype: str, limits: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What constant-kernel theory predicts of every network from its own f_0, and how far the network is from it.

    Per prediction the loss on training points and the root mean square of f_t - prediction over training and over test
    points, each (S T,). ``linearized``: the network linearised at theta_0 under the same training: (I - eta K_0)^k for
    gradient descent, and the closed form for the flow.
    ``closed_form``: gradient flow with K_0, e^(-K_0 t); ``limit_closed_form``: with K_infinity.
    """
    count, times = len(data.x_train), trajectory.times
    outputs = trajectory.outputs.astype(np.float64)
    assert trajectory.test_outputs is not None
    tests = trajectory.test_outputs.astype(np.float64)
    every = np.concatenate([data.x_train, data.x_test])
    columns: dict[str, list[np.ndarray]] = {}
    for s, seed in enumerate(seeds):
        start = (outputs[s, 0], tests[s, 0])
        kernel = empirical_ntk(network, every, data.x_train, seeds=[seed], dtype=dtype)[0].astype(np.float64)
        predictions: dict[str, tuple[np.ndarray, np.ndarray, float | None]] = {
            "linearized": (kernel[:count], kernel[count:], trajectory.learning_rate),
            "closed_form": (kernel[:count], kernel[count:], None),
            "limit_closed_form": (limits["ntk"], limits["ntk_test"], None),
        }
        for name, (own, across, rate) in predictions.items():
            f, f_test = _prediction(network, own, across, start, data.y_train, times, rate)
            columns.setdefault(f"{name}_loss", []).append(0.5 * np.sum((f - data.y_train) ** 2, axis=-1))
            columns.setdefault(f"{name}_deviation", []).append(_root_mean_square(outputs[s] - f))
            columns.setdefault(f"test_{name}_deviation", []).append(_root_mean_square(tests[s] - f_test))
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def _prediction(
    network: Network,
    own: np.ndarray,
    across: np.ndarray,
    start: tuple[np.ndarray, np.ndarray],
    targets: np.ndarray,
    times: np.ndarray,
    rate: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (T, n) and (T, n*) that a kernel predicts; NaN if kernel or start are not finite, or the eigen-solver fails."""
    scale = network.learning_rate_scale
    if all(np.isfinite(values).all() for values in (own, across, *start)):
        with suppress(np.linalg.LinAlgError):
            f, f_test = closed_form(scale * own, start[0], targets, times, scale * across, start[1], rate)
            return f, f_test
    return np.full((len(times), len(start[0])), np.nan), np.full((len(times), len(start[1])), np.nan)


def _root_mean_square(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(values**2, axis=-1))


def _limits(path: str | Path, network: Network, data: datasets.Data) -> dict[str, np.ndarray]:
    require(path, read_metadata(path).get("identity"), limit_identity(network, data.hash))
    return read_arrays(path)
