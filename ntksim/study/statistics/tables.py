"""The tables of a study: tidy Parquet files with typed columns, descriptions, units and provenance."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from ntksim.engine.blas import one_blas_thread
from ntksim.engine.loss import is_squared, time_on_squares, unit
from ntksim.study.config.dataset import FILES
from ntksim.study.config.study import Study
from ntksim.study.data import files
from ntksim.study.data.treatment import remarks, treatment
from ntksim.study.files.provenance import code_identity, provenance
from ntksim.study.files.storage import DESCRIPTION, in_pandas, read_arrow, read_npz, write_table
from ntksim.study.plan import identity, jobs
from ntksim.study.statistics import drift_parts
from ntksim.study.statistics.columns import COLUMNS, LAYERS, QUANTITIES, quantities
from ntksim.study.statistics.continuum import continuum_table
from ntksim.study.statistics.dispersion import SHARD_COLUMNS as DISPERSION_COLUMNS
from ntksim.study.statistics.dispersion import dispersion_table
from ntksim.study.statistics.ensemble import SHARD_COLUMNS, ensemble_rows
from ntksim.study.statistics.laws import laws
from ntksim.study.statistics.laziness import lazy_table
from ntksim.study.statistics.measure_columns import MEASURE_COLUMNS
from ntksim.study.statistics.measures import SHARD_COLUMNS as MEASURED_COLUMNS
from ntksim.study.statistics.measures import measure_tables
from ntksim.study.statistics.scaling_laws import Grams
from ntksim.study.statistics.seeds import DATA, NETWORK, cells, counts, described, key, moments, usable


# One BLAS thread makes sums over seeds independent of the number of threads. They are too small to gain from several.
@one_blas_thread()
def make_tables(study: Study, output: str | Path) -> None:
    """Collect all shards of a study and write its tables to the folder ``output``.

    Raises StageError for a shard that is missing, damaged, or computed from other inputs than the study asks for.
    """
    results = Path(study.results)
    every = {label: files.read(results / jobs.dataset_file(label)) for label in study.data_sets}
    hashes, data = {label: data.hash for label, data in every.items()}, every[study.shown_label]
    devices, limits = set[str](), _Limits(study, hashes)
    initial, error_grams = _read_initial(study, hashes, devices)
    made = {"spectrum": _spectrum(limits, initial)}
    initial = initial.drop(columns="eigenvalues")
    statistics = [summarise(initial, quantities("convergence")), _parts(initial, error_grams, drift_parts.ERROR_PARTS)]
    if study.initial.dispersion is not None:
        made["dispersion"] = dispersion_table(study, initial)
        initial = initial.drop(columns=list(DISPERSION_COLUMNS))
    if study.initial.continuum_degrees is not None:
        made["continuum"] = continuum_table(study, data, study.initial.continuum_degrees)
    made |= {"initial": initial, "convergence": _with_exact_law(limits, pd.concat(statistics, ignore_index=True))}
    final, grams = None, None
    if study.training is not None:
        training, ensemble, grams, measured = _read_training(study, every, devices)
        training = _with_clock(study, training, data.outputs)
        squared = is_squared(study.training.loss)  # targets of others tell classes, and outputs have units of their own
        ends = [
            at_the_end(rows, every[str(label)].y_train if squared else np.ones(1))
            for label, rows in training.groupby(_labels(study, training), sort=False)
        ]
        final, lists = pd.concat(ends).sort_index(), [*LAYERS, *quantities("modes")]
        drift = summarise(final, quantities("drift"), len(data.x_test))
        made |= {
            "ensemble": ensemble,
            "layers": _layers(training),
            "modes": _modes(final),
            "lazy": _with_stops(lazy_table(study, final), final),
            "drift": _with_stops(pd.concat([drift, _parts(final, grams, drift_parts.PARTS)], ignore_index=True), final),
            "final": final.drop(columns=lists),
            "training": training.drop(columns=[*lists, *quantities("run")]),
            **measured,
        }
    made["scaling_laws"] = laws(study.laws_along, initial, final, grams, study.training, error_grams, made.get("dispersion"))
    sizes = sorted({len(own.x_train) for own in every.values()})
    chosen = {} if study.training is None else study.training.chosen(study.precision)
    metadata = {
        "config_hash": study.science_hash(),
        "config": _config(study),
        "dataset_hash": identity.data_hash(hashes),
        "data": {"train": sizes if len(sizes) > 1 else sizes[0], "test": len(data.x_test), "outputs": data.outputs}
        | {"treatment": treatment(study.dataset, data), "remarks": remarks(data)},
        "provenance": provenance() | {"device": "; ".join(sorted(devices))} | chosen,
        **code_identity("tables"),
    }
    for name, frame in made.items():
        _write(Path(output) / f"{name}.parquet", frame, {"table": name, **metadata})


def _config(study: Study) -> dict[str, Any]:
    """The configuration without this machine's folders, so that a study writes equal tables on every machine."""
    config = study.model_dump(exclude={"results"})
    for which in FILES:
        if names := [Path(path).name for path in study.dataset.paths(which)]:
            config["dataset"][which] = names if isinstance(config["dataset"][which], list) else names[0]
    return config


def _labels(study: Study, frame: pd.DataFrame) -> pd.Series:
    """The data set of every row (`Study.data_sets`)."""
    labels = {(own.dataset.train, own.dataset.seed): label for label, own in study.data_sets.items()}
    keys = zip(*(frame[name] for name in DATA), strict=True)
    return pd.Series([labels[one] for one in keys], index=frame.index)


def at_the_end(training: pd.DataFrame, targets: np.ndarray) -> pd.DataFrame:
    """The rows of ``training`` at the last time, with columns that describe the whole run.

    These are the largest deviations from theory, the one from the linearised network also in units of the training ``targets``
    (n,) or (n, k), or of 1 where these are; the share of the loss that is left; and the time up to which numbers are finite.
    """
    run = ["network", "sampling", *(name for name in DATA if name in training), "width", "seed"]
    runs = training.groupby(run, sort=False)
    final = training[runs["time"].transform("max") == training["time"]].copy()
    for name in quantities("drift"):
        if name.startswith("largest_"):
            # NaN for a run that diverged
            final[name] = runs[name.removeprefix("largest_")].transform(lambda values: values.max(skipna=False))
    deviation = final[["largest_linearized_deviation", "largest_test_linearized_deviation"]].max(axis=1, skipna=False)
    final["relative_linearized_deviation"] = deviation / (float(np.sqrt(np.mean(np.square(targets)))) or 1.0)
    final["loss_left"] = final["loss"] / runs["loss"].transform("first")
    finite = np.isfinite(training[["loss", "test_loss", "kernel_drift", "parameter_drift"]].to_numpy()).all(axis=1)
    finite_so_far = training[run].assign(finite=finite).groupby(run, sort=False)["finite"].cummin()
    stopped = final.get("time_reached")  # of the flow, which may stop between two snapshots
    for name in ("time", "relative_time"):
        reached = training[run].assign(reached=training[name].where(finite_so_far)).groupby(run, sort=False)["reached"]
        final[f"{name}_reached"] = reached.transform("max").fillna(0.0)
    if stopped is not None:
        between = stopped > final["time_reached"]
        final.loc[between, "relative_time_reached"] = (stopped * final["relative_time"] / final["time"])[between]
        final.loc[between, "time_reached"] = stopped[between]
    return final


def _with_clock(study: Study, training: pd.DataFrame, outputs: int) -> pd.DataFrame:
    """Add to ``training`` its times on the mean square, of squared losses, steps, and the learning rate of both."""
    assert study.training is not None
    schedule, residuals = study.training.filled, training["train_points"] * outputs
    if schedule.learning_rate is not None:
        rate = schedule.learning_rate * unit(schedule.rate_of, residuals) + 0.0 * training["time"]
        steps = training["time"] / rate
    else:  # of the flow there is no rate
        relative = schedule.relative_learning_rate or np.nan
        steps, one = training["relative_time"] / relative, training["time"] / training["relative_time"]
        rate = relative * one.groupby([training[name] for name in ("network", "width", *DATA)], dropna=False).transform("max")
    if schedule.method == "gradient_descent":
        steps = steps.round()  # but for rounding errors they are whole
    position = list(training).index("relative_time") + 1
    factors = training["train_points"].map(lambda points: time_on_squares(schedule.loss, points, outputs))
    on_mean_square = factors * residuals / 2
    training.insert(position, "mean_square_time", on_mean_square * training["time"])
    training.insert(position + 1, "steps", steps)
    training.insert(position + 2, "learning_rate", rate)
    training.insert(position + 3, "mean_square_learning_rate", on_mean_square * rate)
    return training


def _with_stops(table: pd.DataFrame, final: pd.DataFrame) -> pd.DataFrame:
    """Add to ``table`` the times at which the first and the last seed of each network and width stopped early."""
    cell = ["network", "sampling", *DATA, "width"]
    stopped = final[final["status"] != "finished"].groupby(cell)["relative_time_reached"]
    return table.merge(stopped.agg(earliest_stop="min", latest_stop="max").reset_index(), on=cell, how="left")


def _with_exact_law(limits: "_Limits", convergence: pd.DataFrame) -> pd.DataFrame:
    """Add to ``convergence`` the exact law for one hidden layer, E||K_m - K_inf||_F^2 = (sum over i, j of v_ij) / m.

    v_ij / m is the variance of the entry K_m(x_i, x_j); the limit's file holds v. There is no bias, so all of it is scatter.
    """
    bias, scatter = drift_parts.ERROR_PARTS
    shallow = convergence["depth"] == 1
    exact = np.where(shallow & (convergence["quantity"] == bias), 0.0, np.nan)
    for row in np.flatnonzero(shallow & convergence["quantity"].isin(["relative_frobenius_error", scatter])):
        cell = convergence.iloc[row]
        limit = limits.of(cell)
        exact[row] = np.sqrt(limit.variance / int(cell["width"])) / limit.norm
    convergence.insert(list(convergence).index("root_mean_square") + 1, "exact_root_mean_square", exact)
    return convergence


def summarise(frame: pd.DataFrame, quantities: Iterable[str], test_points: int = 0) -> pd.DataFrame:
    """Statistics over seeds, a row per network, width and quantity.

    Seeds that did not finish, and values that are not finite, are counted in ``excluded`` and enter no statistic. A row without
    any value is NaN. With ``test_points`` accuracies are known to be multiples of 1 / ``test_points``.
    """
    rows = []
    for cell, group in cells(frame, "width"):
        for name in quantities:
            finite, share = usable(group, name), QUANTITIES[name].share
            step = 1 / test_points if test_points and name.endswith("accuracy") else 0.0
            numbers = moments(finite, share=share, step=step)
            rows.append(cell | {"quantity": name} | counts(len(finite), len(group)) | numbers)
    return pd.DataFrame(rows)


def _cell(shard: jobs.Shard) -> tuple[str, str, int]:
    return shard.network, shard.data, shard.width


def _ordered(study: Study, stage: str) -> list[jobs.Shard]:
    """A stage's shards: networks in the order of the configuration, widths and seeds ascending."""
    shards = [shard for shard in jobs.shards(study) if shard.stage == stage]
    networks, data = list(study.networks), list(study.data_sets)
    return sorted(shards, key=lambda s: (networks.index(s.network), data.index(s.data), s.width, s.first))


def _read_initial(study: Study, hashes: Mapping[str, str], devices: set[str]) -> tuple[pd.DataFrame, Grams]:
    """Read all shards at initialisation.

    Returns their rows, and by cell (`seeds.key`) the Gram matrix of the differences from the limit, which are dropped from the
    rows one network and width at a time.
    """
    frames, grams = [], {}
    for _, shards in groupby(_ordered(study, "initial"), key=_cell):
        frame = pd.concat([_read_shard(study, shard, hashes, devices) for shard in shards], ignore_index=True)
        grams[key(frame.iloc[0])] = _gram_matrix(frame, "relative_limit_difference")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True), grams


def _gram_matrix(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Drop a column of lists from the frame; returns the Gram matrix of the finite lists of seeds that finished."""
    values = frame.pop(column)
    there = values[values.notna() & (frame["status"] == "finished")]
    return drift_parts.gram_matrix([changes for changes in there if np.isfinite(changes).all()])


def _read_training(
    study: Study, every: Mapping[str, files.Data], devices: set[str]
) -> tuple[pd.DataFrame, pd.DataFrame, Grams, dict[str, pd.DataFrame]]:
    """Read all training shards; ``every`` has the data sets by label.

    Returns their rows, the rows of the table `ensemble`, the Gram matrix of the kernel's changes by cell (only if all seeds
    start from the same residual), and the tables of what else is measured. Outputs, kernel changes and measures are large, so
    they are reduced and dropped one network and width at a time.
    """
    hashes = {label: data.hash for label, data in every.items()}
    frames, ensembles, measured, grams = [], [], [], {}
    for (_, label, _), shards in groupby(_ordered(study, "training"), key=_cell):
        frame = pd.concat([_read_shard(study, shard, hashes, devices) for shard in shards], ignore_index=True)
        if "relative_kernel_change" in frame:
            grams[key(frame.iloc[0])] = _gram_matrix(frame, "relative_kernel_change")
        ensembles.append(ensemble_rows(frame, known=study.training is None or study.training.has_closed_forms))
        if "rank" not in frame:  # of networks by their weights, of which all directions are known
            frame.insert(list(frame).index("status"), "rank", np.nan)
        measured.append(measure_tables(study, every[label], frame))
        frames.append(frame.drop(columns=[*SHARD_COLUMNS, *(name for name in MEASURED_COLUMNS if name in frame)]))
    tables = {name: pd.concat([own[name] for own in measured], ignore_index=True) for name in measured[0]}
    return pd.concat(frames, ignore_index=True), pd.concat(ensembles, ignore_index=True), grams, tables


def _layers(training: pd.DataFrame) -> pd.DataFrame:
    """The table `layers`: a row per network, width, seed, time and layer."""
    layers = training[[*NETWORK, "width", "seed", "time", "relative_time", "status"]].copy()
    lists = training[list(LAYERS)].rename(columns=LAYERS)
    layers.insert(len(NETWORK) + 4, "layer", [np.arange(1, len(drifts) + 1) for drifts in lists.iloc[:, 0]])
    for position, name in enumerate(lists, len(NETWORK) + 5):
        layers.insert(position, name, lists[name])
    layers = layers.explode(["layer", *lists], ignore_index=True)
    return layers.astype({"layer": np.int64} | dict.fromkeys(lists, np.float64))


def _modes(final: pd.DataFrame) -> pd.DataFrame:
    """The table `modes`: a row per network, width, seed and eigenvector of K_0, the largest eigenvalue first."""
    lists = list(quantities("modes"))
    modes = final[[*NETWORK, "width", "seed", "status", *lists]].copy()
    modes.insert(len(NETWORK) + 2, "index", [np.arange(len(values)) for values in modes["eigenvalue"]])
    modes = modes.explode(["index", *lists], ignore_index=True)
    modes = modes.astype({"index": np.int64} | dict.fromkeys(lists, np.float64))
    modes["relative_rate_difference"] = (modes["decay_rate"] - modes["eigenvalue"]) / modes["eigenvalue"].where(
        modes["eigenvalue"] > 0
    )
    return modes


def _parts(frame: pd.DataFrame, grams: Grams, names: Sequence[str]) -> pd.DataFrame:
    """Rows of the table `drift` for the parts of the kernel drift, or of `convergence` for bias and scatter."""
    rows = []
    for cell, group in cells(frame, "width"):
        gram = grams.get(key(cell))
        if gram is not None:
            for quantity, numbers in drift_parts.parts(gram, names).items():
                rows.append(cell | {"quantity": quantity} | counts(len(gram), len(group)) | numbers)
    return pd.DataFrame(rows)


def _read_shard(study: Study, shard: jobs.Shard, hashes: Mapping[str, str], devices: set[str]) -> pd.DataFrame:
    """Read a shard's rows, and add the device that computed them to ``devices``."""
    path = Path(study.results) / shard.file
    table, metadata = read_arrow(path)
    identity.require(path, metadata.get("identity"), identity.of_shard(study, shard, hashes[shard.data]))
    frame = in_pandas(table)
    data = study.data_set(shard.data).dataset
    description = described(study.networks[shard.network]) | {
        "network": shard.network, "sampling": getattr(study, shard.stage).sampling, "width": shard.width,
        "train_points": data.train, "dataset_seed": data.seed,
    }  # fmt: skip
    for position, name in enumerate((*NETWORK, "width")):
        frame.insert(position, name, description[name])
    devices.add(str(metadata["provenance"]["device"]))
    return frame


class _Limit(NamedTuple):
    """An infinite-width NTK: eigenvalues (n,), descending, and Frobenius norm; ``variance`` is the sum of v_ij of
    :func:`_with_exact_law`, NaN for more than one hidden layer.
    """

    eigenvalues: np.ndarray
    norm: float
    variance: float


class _Limits:
    """The infinite-width kernels of a study's networks. Widths may share a file, which is read only once."""

    def __init__(self, study: Study, hashes: Mapping[str, str]) -> None:
        self._study, self._hashes = study, hashes
        self._labels = {(own.dataset.train, own.dataset.seed): label for label, own in study.data_sets.items()}
        self._read: dict[Path, _Limit] = {}

    def of(self, cell: Mapping[str, Any] | pd.Series) -> _Limit:
        """The kernel of a cell. Raises StageError if the file is of another network or of other data."""
        network, width, data = (
            str(cell["network"]),
            int(cell["width"]),
            self._labels[int(cell["train_points"]), int(cell["dataset_seed"])],
        )
        path = Path(self._study.results) / jobs.limit_file(self._study, network, width, data)
        if path not in self._read:
            arrays, metadata = read_npz(path)
            wanted = identity.limit_identity(self._study.networks[network].network(width), self._hashes[data])
            identity.require(path, metadata.get("identity"), wanted)
            ntk, variance = arrays["ntk"], arrays.get("kernel_variance", np.array(np.nan))
            values = np.linalg.eigvalsh(ntk)[::-1]
            self._read[path] = _Limit(values, float(np.linalg.norm(ntk)), float(variance.sum()))
        return self._read[path]


def _spectrum(limits: _Limits, initial: pd.DataFrame) -> pd.DataFrame:
    parts = []
    for cell, group in cells(initial, "width"):
        values = np.stack(group["eigenvalues"].to_list())
        finite = values[np.isfinite(values).all(axis=1) & (group["status"] == "finished").to_numpy()]
        n = values.shape[1]
        enough = len(finite) > 1
        part = pd.DataFrame({
            **cell,
            "index": np.arange(n),
            "limit_eigenvalue": limits.of(cell).eigenvalues,
            "mean": finite.mean(axis=0) if len(finite) else np.full(n, np.nan),
            "standard_deviation": finite.std(axis=0, ddof=1) if enough else np.full(n, np.nan),
            **counts(len(finite), len(values)),
        })  # fmt: skip
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


_MEANINGS = COLUMNS | MEASURE_COLUMNS
_KINDS = {"f": pa.float64(), "i": pa.int64(), "b": pa.bool_()}  # Arrow types by kind of NumPy type; all others are strings


def _write(path: Path, frame: pd.DataFrame, metadata: dict[str, Any]) -> None:
    fields = []
    for name, dtype in frame.dtypes.items():
        kind = _KINDS.get(dtype.kind, pa.string())
        fields.append(pa.field(str(name), kind, metadata={DESCRIPTION: _MEANINGS[str(name)]}))
    write_table(path, pa.Table.from_pandas(frame, schema=pa.schema(fields), preserve_index=False), json_ready(metadata))


def json_ready(value: Any) -> Any:
    """The value as it comes back from JSON: tuples become lists."""
    return json.loads(json.dumps(value))
