"""What each rule of the workflow runs: functions of paths and values.

A file carries what it was computed from (`identity`), and a stage reads no file that was computed from something else.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ntksim.engine import measures
from ntksim.engine.empirical import empirical_ntk
from ntksim.engine.finite_width import one_hidden_layer_variance
from ntksim.engine.infinite import infinite_kernel
from ntksim.engine.network import Network
from ntksim.engine.predictions import closed_form
from ntksim.engine.training import Trajectory, train
from ntksim.study import datasets
from ntksim.study.identity import limit_identity, require, shard_identity
from ntksim.study.provenance import provenance
from ntksim.study.storage import read_arrays, read_metadata, write_arrays, write_table


def limit(dataset: str | Path, network: Network, output: str | Path) -> None:
    """Write the infinite-width kernels: NNGP and NTK of the training points, and NTK of test with training points.

    For one hidden layer also ``kernel_variance``, the exact variance of every entry of the empirical NTK times the width.
    """
    data = datasets.read(dataset)
    train_kernel = infinite_kernel(network, data.x_train)
    test_kernel = infinite_kernel(network, data.x_test, data.x_train)
    arrays = {"nngp": train_kernel.nngp, "ntk": train_kernel.ntk, "ntk_test": test_kernel.ntk}
    if network.depth == 1:
        arrays["kernel_variance"] = network.widths[0] * one_hidden_layer_variance(network, data.x_train)
    metadata = {"identity": limit_identity(network, data.hash), "provenance": provenance()}
    write_arrays(output, metadata, **arrays)


def initial_shard(
    dataset: str | Path, limit_path: str | Path, network: Network, seeds: range, dtype: str, output: str | Path
) -> None:
    """Write the statistics of empirical kernels at initialisation, a row per seed, with their eigenvalues."""
    data = datasets.read(dataset)
    reference = _limits(limit_path, network, data)["ntk"]
    kernels = _kernels(network, data.x_train, seeds, dtype)
    columns: dict[str, Any] = {"seed": np.asarray(seeds, dtype=np.int64)}
    columns |= measures.kernel_statistics(kernels, reference, data.y_train)
    columns["eigenvalues"] = list(measures.spectrum(kernels))
    identity = shard_identity("initial", network, seeds, data.hash, dtype=dtype)
    write_table(output, pa.table(columns), {"identity": identity, "provenance": provenance()})


def _kernels(network: Network, x: np.ndarray, seeds: range, dtype: str) -> np.ndarray:
    """Kernels (S, n, n), a few seeds at a time so that long shards show progress."""
    every = []
    for first in range(seeds.start, seeds.stop, 8):
        block = range(first, min(first + 8, seeds.stop))
        every.append(empirical_ntk(network, x, seeds=block, dtype=dtype))
        print(f"width {network.width}: kernels of {block.stop - seeds.start} of {len(seeds)} seeds", flush=True)
    return np.concatenate(every)


def training_shard(
    dataset: str | Path,
    limit_path: str | Path,
    network: Network,
    seeds: range,
    dtype: str,
    output: str | Path,
    schedule: Mapping[str, Any],
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
    trajectory = train(
        network, data.x_train, data.y_train, seeds=seeds, method=schedule["method"], times=relative_times / largest,
        x_test=data.x_test, dtype=dtype, **options,
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
        "status": np.repeat(np.array(trajectory.status, dtype=object), per_seed),
    }
    columns |= _beside_theory(trajectory, network, data, seeds, dtype, limits)
    identity = shard_identity("training", network, seeds, data.hash, dtype=dtype, **schedule)
    write_table(output, pa.table(columns), {"identity": identity, "provenance": provenance()})


def _beside_theory(
    trajectory: Trajectory, network: Network, data: datasets.Data, seeds: range, dtype: str, limits: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What constant-kernel theory predicts of every network from its own f_0, and how far the network is from it.

    Per prediction the loss on training points and the root mean square of f_t - prediction over training and over test
    points, each (S T,). ``linearized``: the network linearised at theta_0 under the same training: (I - eta K_0)^k for
    gradient descent, and the closed form for the flow.
    ``closed_form``: gradient flow with K_0, e^(-K_0 t); ``limit_closed_form``: with K_infinity.
    """
    count, times, scale = len(data.x_train), trajectory.times, network.learning_rate_scale
    outputs = trajectory.outputs.astype(np.float64)
    assert trajectory.test_outputs is not None
    tests = trajectory.test_outputs.astype(np.float64)
    every = np.concatenate([data.x_train, data.x_test])
    columns: dict[str, list[np.ndarray]] = {}
    for s, seed in enumerate(seeds):
        start = np.isfinite(outputs[s, 0]).all() and np.isfinite(tests[s, 0]).all()
        kernel = empirical_ntk(network, every, data.x_train, seeds=[seed], dtype=dtype)[0].astype(np.float64)
        predictions: dict[str, tuple[np.ndarray, np.ndarray, float | None]] = {
            "linearized": (kernel[:count], kernel[count:], trajectory.learning_rate),
            "closed_form": (kernel[:count], kernel[count:], None),
            "limit_closed_form": (limits["ntk"], limits["ntk_test"], None),
        }
        for name, (own, across, rate) in predictions.items():
            if start:
                f, f_test = closed_form(scale * own, outputs[s, 0], data.y_train, times, scale * across, tests[s, 0], rate)
            else:  # a network that overflows before the first step has no prediction
                f, f_test = np.full_like(outputs[s], np.nan), np.full_like(tests[s], np.nan)
            columns.setdefault(f"{name}_loss", []).append(0.5 * np.sum((f - data.y_train) ** 2, axis=-1))
            columns.setdefault(f"{name}_deviation", []).append(_root_mean_square(outputs[s] - f))
            columns.setdefault(f"test_{name}_deviation", []).append(_root_mean_square(tests[s] - f_test))
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def _root_mean_square(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(values**2, axis=-1))


def _limits(path: str | Path, network: Network, data: datasets.Data) -> dict[str, np.ndarray]:
    require(path, read_metadata(path).get("identity"), limit_identity(network, data.hash))
    return read_arrays(path)
