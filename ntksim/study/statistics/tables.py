"""The tables of a study: tidy, typed Parquet files with units and provenance."""

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ntksim.engine.blas import one_blas_thread
from ntksim.study.config.study import Study
from ntksim.study.data import files
from ntksim.study.data.treatment import remarks, treatment
from ntksim.study.errors import StageError
from ntksim.study.files.provenance import code_identity, provenance
from ntksim.study.files.storage import read_arrays, read_arrow, read_frame, read_metadata, write_table
from ntksim.study.plan import identity, jobs
from ntksim.study.statistics import drift_parts
from ntksim.study.statistics.columns import COLUMNS, LAYERS, QUANTITIES, quantities
from ntksim.study.statistics.ensemble import SHARD_COLUMNS, ensemble_rows
from ntksim.study.statistics.laziness import lazy_table
from ntksim.study.statistics.scaling_laws import scaling_laws
from ntksim.study.statistics.seeds import cells, counts, moments, usable


def read_table(results: str | Path, name: str) -> pd.DataFrame:
    """A table of a study as a data frame, its provenance in ``frame.attrs``.

    Parameters
    ----------
    results : the study's results folder.
    name : initial, convergence, spectrum, scaling_laws, and with training: training, ensemble, layers, modes, final, drift or
        lazy.

    Raises
    ------
    FileNotFoundError that lists the tables there are; ValueError for a damaged one.
    """
    folder = Path(results) / "tables"
    path = folder / f"{name}.parquet"
    if not path.is_file():
        present = sorted(p.stem for p in folder.glob("*.parquet"))
        known = f"there are {', '.join(present)}" if present else f"{folder} holds no tables; run the study first"
        raise FileNotFoundError(f"no table {name!r} in {results}: {known}")
    try:
        return read_frame(path)
    except StageError as error:
        raise ValueError(str(error)) from None


# Sums of products over seeds have the bits of one thread, and are too small for more.
@one_blas_thread()
def make_tables(study: Study, output: str | Path) -> None:
    """Collect every shard of a study into its tables, in the folder ``output``.

    Raises StageError for a shard that is missing, damaged, or computed from something else than the study asks for.
    """
    results = Path(study.results)
    data = files.read(results / "dataset.npz")
    devices: set[str] = set()
    initial = pd.concat(
        [_read_shard(study, shard, data.hash, devices) for shard in _ordered(study, "initial")], ignore_index=True
    )
    made = {"spectrum": _spectrum(study, initial, data.hash)}
    initial = initial.drop(columns="eigenvalues")
    made |= {"initial": initial, "convergence": _with_exact_law(study, summarise(initial, quantities("convergence")), data.hash)}
    final, grams = None, None
    if study.training is not None:
        training, ensemble, grams = _read_training(study, data.hash, devices)
        final, lists = at_the_end(training, data.y_train), [*LAYERS, *quantities("modes")]
        drift = summarise(final, quantities("drift"), len(data.x_test))
        made |= {
            "ensemble": ensemble,
            "layers": _layers(training),
            "modes": _modes(final),
            "lazy": _with_stops(lazy_table(study, final), final),
            "drift": _with_stops(pd.concat([drift, _parts(final, grams)], ignore_index=True), final),
            "final": final.drop(columns=lists),
            "training": training.drop(columns=[*lists, *quantities("run")]),
        }
    made["scaling_laws"] = scaling_laws(initial, final, grams, study.trains_in_batches)
    metadata = {
        "config_hash": study.science_hash(),
        "config": _config(study),
        "dataset_hash": data.hash,
        "data": {"train": len(data.x_train), "test": len(data.x_test), "outputs": data.outputs}
        | {"treatment": treatment(study.dataset, data), "remarks": remarks(data)},
        "provenance": provenance() | {"device": "; ".join(sorted(devices))},
        **code_identity("tables"),
    }
    for name, frame in made.items():
        _write(Path(output) / f"{name}.parquet", frame, {"table": name, **metadata})


def _config(study: Study) -> dict[str, Any]:
    """The configuration without the folders of this machine: equal studies have equal tables, wherever they are."""
    config, file = study.model_dump(exclude={"results"}), study.dataset.file
    if file is not None:
        names = [Path(path).name for path in study.dataset.files]
        config["dataset"]["file"] = names if isinstance(file, list) else names[0]
    return config


def at_the_end(training: pd.DataFrame, targets: np.ndarray) -> pd.DataFrame:
    """The rows of ``training`` at the last time, with what the whole run tells beside them: the largest deviations from theory,
    that from the linearised network also in units of the training ``targets``, the share of the loss that is left, and the time
    up to which there are numbers.
    """
    run = ["network", "width", "seed"]
    runs = training.groupby(run, sort=False)
    final = training[runs["time"].transform("max") == training["time"]].copy()
    for name in quantities("drift"):
        if name.startswith("largest_"):
            # a run that diverged has no largest deviation
            final[name] = runs[name.removeprefix("largest_")].transform(lambda values: values.max(skipna=False))
    apart = final[["largest_linearized_deviation", "largest_test_linearized_deviation"]].max(axis=1, skipna=False)
    final["relative_linearized_deviation"] = apart / (float(np.sqrt(np.mean(np.square(targets)))) or 1.0)
    final["loss_left"] = final["loss"] / runs["loss"].transform("first")
    finite = np.isfinite(training[["loss", "test_loss", "kernel_drift", "parameter_drift"]].to_numpy()).all(axis=1)
    up_to = training[run].assign(whole=finite).groupby(run, sort=False)["whole"].cummin()
    stopped = final.get("time_reached")  # of the flow, which may stop between two snapshots
    for name in ("time", "relative_time"):
        reached = training[run].assign(reached=training[name].where(up_to)).groupby(run, sort=False)["reached"]
        final[f"{name}_reached"] = reached.transform("max").fillna(0.0)
    if stopped is not None:
        between = stopped > final["time_reached"]
        final.loc[between, "relative_time_reached"] = (stopped * final["relative_time"] / final["time"])[between]
        final.loc[between, "time_reached"] = stopped[between]
    return final


def _with_stops(table: pd.DataFrame, final: pd.DataFrame) -> pd.DataFrame:
    """``table`` with the times at which seeds that did not finish stopped, the first and the last of a network and width."""
    stopped = final[final["status"] != "finished"].groupby(["network", "width"])["relative_time_reached"]
    return table.merge(stopped.agg(earliest_stop="min", latest_stop="max").reset_index(), on=["network", "width"], how="left")


def _with_exact_law(study: Study, convergence: pd.DataFrame, dataset_hash: str) -> pd.DataFrame:
    """``convergence`` with the exact law of one hidden layer, E||K_m - K_inf||_F^2 = (sum of variances) / m."""
    exact = np.full(len(convergence), np.nan)
    errors = convergence["quantity"] == "relative_frobenius_error"
    for row in np.flatnonzero(errors & (convergence["depth"] == 1)):
        network, width = str(convergence["network"].iloc[row]), int(convergence["width"].iloc[row])
        limits = _read_limit(study, network, width, dataset_hash)
        exact[row] = np.sqrt(limits["kernel_variance"].sum() / width) / np.linalg.norm(limits["ntk"])
    convergence.insert(list(convergence).index("root_mean_square") + 1, "exact_root_mean_square", exact)
    return convergence


def summarise(frame: pd.DataFrame, quantities: Iterable[str], test_points: int = 0) -> pd.DataFrame:
    """Statistics over seeds of each quantity per network and width, a row each; accuracies are multiples of 1 / ``test_points``.

    Seeds that did not finish, and values that are not finite, are counted in ``excluded`` and enter no statistic. A row
    without any value holds NaN.
    """
    rows = []
    for cell, group in cells(frame, "width"):
        for name in quantities:
            finite, share = usable(group, name), QUANTITIES[name].share
            step = 1 / test_points if test_points and name.endswith("accuracy") else 0.0
            numbers = moments(finite, share=share, step=step)
            rows.append(cell | {"quantity": name} | counts(len(finite), len(group)) | numbers)
    return pd.DataFrame(rows)


def _ordered(study: Study, stage: str) -> list[jobs.Shard]:
    """A stage's shards: networks as in the configuration, widths and seeds ascending."""
    mine = [shard for shard in jobs.shards(study) if shard.stage == stage]
    return sorted(mine, key=lambda s: (list(study.networks).index(s.network), s.width, s.first))


def _read_training(
    study: Study, dataset_hash: str, devices: set[str]
) -> tuple[pd.DataFrame, pd.DataFrame, dict[tuple[str, int], np.ndarray]]:
    """All shards of training; the rows of `ensemble`; and per network and width the Gram matrix of the kernel's changes, where
    r_0 is the same.

    What is large, outputs and changes of kernels, is taken from the frames a cell at a time.
    """
    frames, ensembles, grams = [], [], {}
    for cell, shards in groupby(_ordered(study, "training"), key=lambda shard: (shard.network, shard.width)):
        frame = pd.concat([_read_shard(study, shard, dataset_hash, devices) for shard in shards], ignore_index=True)
        if "relative_kernel_change" in frame:
            changes = frame.pop("relative_kernel_change")
            last = changes.notna() & (frame["status"] == "finished")
            grams[cell] = drift_parts.gram_matrix([change for change in changes[last] if np.isfinite(change).all()])
        ensembles.append(ensemble_rows(frame))
        frames.append(frame.drop(columns=SHARD_COLUMNS))
    return pd.concat(frames, ignore_index=True), pd.concat(ensembles, ignore_index=True), grams


def _layers(training: pd.DataFrame) -> pd.DataFrame:
    """A row per network, width, seed, time and layer."""
    layers = training[["network", "width", "seed", "time", "relative_time", "status"]].copy()
    own = training[list(LAYERS)].rename(columns=LAYERS)
    layers.insert(5, "layer", [np.arange(1, len(drifts) + 1) for drifts in own.iloc[:, 0]])
    for place, name in enumerate(own, 6):
        layers.insert(place, name, own[name])
    layers = layers.explode(["layer", *own], ignore_index=True)
    return layers.astype({"layer": np.int64} | dict.fromkeys(own, np.float64))


def _modes(final: pd.DataFrame) -> pd.DataFrame:
    """A row per network, width, seed and eigenvector of K_0, the largest eigenvalue first."""
    own = list(quantities("modes"))
    modes = final[["network", "width", "seed", "status", *own]].copy()
    modes.insert(3, "index", [np.arange(len(values)) for values in modes["eigenvalue"]])
    modes = modes.explode(["index", *own], ignore_index=True)
    modes = modes.astype({"index": np.int64} | dict.fromkeys(own, np.float64))
    modes["relative_rate_difference"] = (modes["decay_rate"] - modes["eigenvalue"]) / modes["eigenvalue"].where(
        modes["eigenvalue"] > 0
    )
    return modes


def _parts(final: pd.DataFrame, grams: Mapping[tuple[str, int], np.ndarray]) -> pd.DataFrame:
    """Rows of `drift` for the systematic and the random part of the kernel drift."""
    rows = []
    for cell, group in cells(final, "width"):
        gram = grams.get((cell["network"], cell["width"]))
        if gram is not None:
            for quantity, numbers in drift_parts.parts(gram).items():
                rows.append(cell | {"quantity": quantity} | counts(len(gram), len(group)) | numbers)
    return pd.DataFrame(rows)


def _read_shard(study: Study, shard: jobs.Shard, dataset_hash: str, devices: set[str]) -> pd.DataFrame:
    """A shard's rows; the device that computed them is added to ``devices``."""
    path = Path(study.results) / shard.file
    table, metadata = read_arrow(path)
    options = study.networks[shard.network]
    identity.require(path, metadata.get("identity"), identity.of_shard(study, shard, dataset_hash))
    frame = table.to_pandas()
    description = {
        "network": shard.network,
        "activation": options.activation,
        "depth": options.depth,
        "parameterization": options.parameterization,
        "width": shard.width,
    }
    for position, (name, value) in enumerate(description.items()):
        frame.insert(position, name, value)
    devices.add(str(metadata["provenance"]["device"]))
    return frame


def _read_limit(study: Study, network: str, width: int, dataset_hash: str) -> dict[str, np.ndarray]:
    path = Path(study.results) / jobs.limit_file(study, network, width)
    wanted = identity.limit_identity(study.networks[network].network(width), dataset_hash)
    identity.require(path, read_metadata(path).get("identity"), wanted)
    return read_arrays(path)


def _spectrum(study: Study, initial: pd.DataFrame, dataset_hash: str) -> pd.DataFrame:
    parts = []
    for _, group in initial.groupby(["network", "width"], sort=False):
        network, width = str(group["network"].iloc[0]), int(group["width"].iloc[0])
        reference = _read_limit(study, network, width, dataset_hash)["ntk"]
        values = np.stack(group["eigenvalues"].to_list())
        finite = values[np.isfinite(values).all(axis=1) & (group["status"] == "finished").to_numpy()]
        n = values.shape[1]
        enough = len(finite) > 1
        part = pd.DataFrame({
            "network": network,
            "width": width,
            "index": np.arange(n),
            "limit_eigenvalue": np.linalg.eigvalsh(reference)[::-1],
            "mean": finite.mean(axis=0) if len(finite) else np.full(n, np.nan),
            "standard_deviation": finite.std(axis=0, ddof=1) if enough else np.full(n, np.nan),
            **counts(len(finite), len(values)),
        })  # fmt: skip
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


_KINDS = {"f": pa.float64(), "i": pa.int64(), "b": pa.bool_()}  # of columns; of all others strings


def _write(path: Path, frame: pd.DataFrame, metadata: dict[str, Any]) -> None:
    fields = []
    for name, dtype in frame.dtypes.items():
        kind = _KINDS.get(dtype.kind, pa.string())
        fields.append(pa.field(str(name), kind, metadata={"description": COLUMNS[str(name)]}))
    write_table(path, pa.Table.from_pandas(frame, schema=pa.schema(fields), preserve_index=False), json_ready(metadata))


def json_ready(value: Any) -> Any:
    """The value as JSON would give it back (tuples become lists)."""
    return json.loads(json.dumps(value))
