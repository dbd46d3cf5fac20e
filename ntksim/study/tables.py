"""The tables of a study: tidy, typed Parquet files with units and provenance."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

from ntksim.study import datasets, identity, plan
from ntksim.study.config import Study
from ntksim.study.errors import StageError
from ntksim.study.provenance import code_identity, provenance
from ntksim.study.scaling_laws import scaling_laws, usable
from ntksim.study.storage import read_arrays, read_arrow, read_metadata, write_table

INITIAL_QUANTITIES = (
    "relative_frobenius_error",
    "relative_operator_error",
    "smallest_eigenvalue",
    "largest_eigenvalue",
    "condition_number",
    "trace",
    "kernel_target_alignment",
    "limit_alignment",
)
DRIFT_QUANTITIES = (
    "kernel_drift",
    "parameter_drift",
    "loss",
    "test_loss",
    "largest_linearized_deviation",
    "largest_test_linearized_deviation",
    "largest_limit_closed_form_deviation",
)
CONFIDENCE = 0.95

# Units and meaning of every column, kept in the Parquet schema.
COLUMNS = {
    "network": "name of the network in the configuration",
    "activation": "activation of the hidden layers",
    "depth": "number of hidden layers",
    "parameterization": "where the 1/sqrt(width) stands",
    "width": "neurons per hidden layer",
    "seed": "seed of the network",
    "relative_frobenius_error": "||K_m - K_inf||_F / ||K_inf||_F",
    "relative_operator_error": "||K_m - K_inf||_2 / ||K_inf||_2",
    "smallest_eigenvalue": "of K_m, units of the kernel",
    "largest_eigenvalue": "of K_m, units of the kernel",
    "condition_number": "largest over smallest eigenvalue of K_m",
    "trace": "of K_m, units of the kernel",
    "kernel_target_alignment": "y'Ky / (||K||_F ||y||^2)",
    "limit_alignment": "cosine of K_m and K_inf in the Frobenius inner product",
    "quantity": "the column of the per-seed table that is summarised",
    "count": "seeds in the statistics",
    "excluded": "seeds left out (of all widths in scaling_laws): they did not finish (see status), or the value is not finite",
    "mean": "over seeds",
    "root_mean_square": "over seeds",
    "exact_root_mean_square": "what the exact law of one hidden layer gives for the root mean square; NaN where none is known",
    "standard_deviation": "over seeds, n - 1 in the denominator",
    "standard_error": "of the mean, or of the exponent (bootstrap over seeds)",
    "interval_low": "95% interval: t of the mean, or bootstrap over seeds of the exponent",
    "interval_high": "95% interval: t of the mean, or bootstrap over seeds of the exponent",
    "time": "t of the flow, or learning rate x steps; units of 1 / eigenvalue of the kernel",
    "relative_time": "t times lambda_max(K_inf)",
    "loss": "1/2 sum of squared residuals on training points",
    "test_loss": "1/2 sum of squared residuals on test points",
    "kernel_drift": "||K_t - K_0||_F / ||K_0||_F",
    "parameter_drift": "||theta_t - theta_0|| / ||theta_0||",
    "linearized_loss": "loss of the network linearised at theta_0 under the same training; (I - eta K_0)^k for descent",
    "closed_form_loss": "loss of gradient flow with the constant kernel K_0, e^(-K_0 t), from the network's own f_0",
    "limit_closed_form_loss": "loss of gradient flow with the constant kernel K_inf, from the network's own f_0",
    "linearized_deviation": "root mean square over training points of f_t minus the linearised network",
    "closed_form_deviation": "root mean square over training points of f_t minus e^(-K_0 t)",
    "limit_closed_form_deviation": "root mean square over training points of f_t minus e^(-K_inf t)",
    "test_linearized_deviation": "the same over test points",
    "test_closed_form_deviation": "the same over test points",
    "test_limit_closed_form_deviation": "the same over test points",
    "status": "of the whole run: finished; overflow or nan: a value is infinite or NaN; eigensolver_failed; in training also "
    "diverged, or step_limit (see Trajectory)",
    "widths_fitted": "widths in the fit",
    "prefactor": "c in c x width^exponent, fitted to the root mean square over seeds",
    "prefactor_low": "95% interval of the prefactor, bootstrap over seeds",
    "prefactor_high": "95% interval of the prefactor, bootstrap over seeds",
    "exponent": "of the width, least squares in logarithms",
    "theory_exponent": "of the width, for this activation, depth and parameterization; NaN where theory gives none",
    "z_score": "(exponent - theory_exponent) / standard_error",
    "index": "0 for the largest eigenvalue",
    "limit_eigenvalue": "of K_inf, units of the kernel",
}


def read_table(results: str | Path, name: str) -> pd.DataFrame:
    """A table of a study as a data frame, its provenance in ``frame.attrs``.

    Parameters
    ----------
    results : the study's results folder.
    name : initial, convergence, training, drift, spectrum or scaling_laws.

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
        table, metadata = read_arrow(path)
    except StageError as error:
        raise ValueError(str(error)) from None
    frame = table.to_pandas()
    frame.attrs.update(metadata)
    return frame


def make_tables(study: Study, output: str | Path) -> None:
    """Collect every shard of a study into its tables, in the folder ``output``.

    Raises StageError for a shard that is missing, damaged, or computed from something else than the study asks for.
    """
    results = Path(study.results)
    dataset_hash = datasets.read(results / "dataset.npz").hash
    every = plan.shards(study)
    ordered = sorted(every, key=lambda s: (list(study.networks).index(s.network), s.width, s.first))
    frames: dict[str, list[pd.DataFrame]] = {"initial": [], "training": []}
    used = set()
    for shard in ordered:
        frame, device = _read_shard(study, shard, dataset_hash)
        frames[shard.stage].append(frame)
        used.add(device)
    initial = pd.concat(frames["initial"], ignore_index=True)
    made = {"spectrum": _spectrum(study, initial, dataset_hash)}
    initial = initial.drop(columns="eigenvalues")
    made |= {"initial": initial, "convergence": _with_exact_law(study, summarise(initial, INITIAL_QUANTITIES), dataset_hash)}
    final = None
    if study.training is not None:
        training = pd.concat(frames["training"], ignore_index=True)
        final = at_the_end(training)
        made |= {"training": training, "drift": summarise(final, DRIFT_QUANTITIES)}
    made["scaling_laws"] = scaling_laws(initial, final)
    metadata = {
        "config_hash": study.science_hash(),
        "config": study.model_dump(exclude={"results"}),  # equal studies, equal files, wherever they are
        "dataset_hash": dataset_hash,
        "provenance": provenance() | {"device": "; ".join(sorted(used))},
        **code_identity(),
    }
    for name, frame in made.items():
        _write(Path(output) / f"{name}.parquet", frame, {"table": name, **metadata})


def at_the_end(training: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``training`` at the last time, with the largest deviations from theory of the whole run beside them."""
    runs = training.groupby(["network", "width", "seed"], sort=False)
    final = training[runs["time"].transform("max") == training["time"]].copy()
    for name in ("linearized_deviation", "test_linearized_deviation", "limit_closed_form_deviation"):
        # a run that diverged has no largest deviation
        final[f"largest_{name}"] = runs[name].transform(lambda values: values.max(skipna=False))
    return final


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


def summarise(frame: pd.DataFrame, quantities: Iterable[str]) -> pd.DataFrame:
    """Statistics over seeds of each quantity per network and width, a row each.

    Seeds that did not finish, and values that are not finite, are counted in ``excluded`` and enter no statistic. A row
    without any value holds NaN.
    """
    keys = ["network", "activation", "depth", "parameterization", "width"]
    rows = []
    for key, group in frame.groupby(keys, sort=False):
        for quantity in quantities:
            finite = usable(group, quantity)
            excluded = len(group) - len(finite)
            row = dict(zip(keys, key, strict=True)) | {"quantity": quantity, "count": len(finite), "excluded": excluded}
            rows.append(row | _statistics(finite))
    return pd.DataFrame(rows)


def _statistics(values: np.ndarray) -> dict[str, float]:
    n = len(values)
    mean = values.mean() if n else np.nan
    deviation = values.std(ddof=1) if n > 1 else np.nan
    error = deviation / np.sqrt(n) if n else np.nan
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * error if n > 1 else np.nan
    return {
        "mean": mean,
        "root_mean_square": np.sqrt(np.mean(values**2)) if n else np.nan,
        "standard_deviation": deviation,
        "standard_error": error,
        "interval_low": mean - reach,
        "interval_high": mean + reach,
    }


def _read_shard(study: Study, shard: plan.Shard, dataset_hash: str) -> tuple[pd.DataFrame, str]:
    """A shard's rows, and the device that computed them."""
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
    return frame, str(metadata["provenance"]["device"])


def _read_limit(study: Study, network: str, width: int, dataset_hash: str) -> dict[str, np.ndarray]:
    path = Path(study.results) / plan.limit_file(study, network, width)
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
            "count": len(finite),
            "excluded": len(values) - len(finite),
        })  # fmt: skip
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _write(path: Path, frame: pd.DataFrame, metadata: dict[str, Any]) -> None:
    fields = []
    for name, dtype in frame.dtypes.items():
        kind = pa.float64() if dtype.kind == "f" else pa.int64() if dtype.kind == "i" else pa.string()
        fields.append(pa.field(str(name), kind, metadata={"description": COLUMNS[str(name)]}))
    write_table(path, pa.Table.from_pandas(frame, schema=pa.schema(fields), preserve_index=False), json_ready(metadata))


def json_ready(value: Any) -> Any:
    """The value as JSON would give it back (tuples become lists)."""
    return json.loads(json.dumps(value))
