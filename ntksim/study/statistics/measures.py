"""Tables of what is measured along training, from the lists that shards hold, and of when kernels freeze."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ntksim.engine.training.residual_modes import freeze_index
from ntksim.study.config.measures import Measures
from ntksim.study.config.study import Study
from ntksim.study.data.files import Data
from ntksim.study.statistics.seeds import NETWORK, cells, counts

QUANTILES = {"quantile_05": 0.05, "quantile_25": 0.25, "median": 0.5, "quantile_75": 0.75, "quantile_95": 0.95}
_RUN = [*NETWORK, "width", "seed"]
_ROW = [*_RUN, "time", "relative_time"]
_MODES = (
    "residual", "mode_rate", "measured_rate", "leakage", "theory_rate", "theory_residual", "sample_rate", "limit_residual",
)  # fmt: skip
_COUPLING = "coupling"
_LOSSES = ("regression_test_loss", "regression_evaluation_loss", "evaluation_loss")
_POINTS = {"profiles": ("profile", "limit_profile"), "predictions": ("prediction", "limit_prediction", "limit_deviation")}
_REGRESSION = "regression_prediction"  # of kernels, where regression and predictions are both asked for
# Columns of shards that no other table has.
SHARD_COLUMNS = (
    "leading_eigenvalue", *_MODES, _COUPLING, *_LOSSES, _REGRESSION, *(name for names in _POINTS.values() for name in names),
)  # fmt: skip


def measure_tables(study: Study, data: Data, training: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables that the study asks for, by name, from all rows of some training shards."""
    asked = study.training.measures if study.training else None
    if asked is None:
        return {}
    made = {
        "eigenvalues": lambda: _eigenvalues(training),
        "mode_residuals": lambda: _mode_residuals(asked, training, study.dataset.density is None),
        "couplings": lambda: _couplings(asked, training),
        "regression": lambda: _regression(training),
        "profiles": lambda: _profiles(data, training),
        "predictions": lambda: _predictions(data, training),
        "freeze": lambda: _freeze(asked.freeze_share, training),
    }
    return {name: made[name]() for name in asked.tables}


def _exploded(training: pd.DataFrame, columns: list[str], entries: dict[str, Any]) -> pd.DataFrame:
    """A row for every entry of lists, which ``entries`` name, with the columns of the network's run."""
    frame = training[[*_ROW, *columns, "status"]].copy()
    for position, (name, values) in enumerate(entries.items(), len(_ROW)):
        frame.insert(position, name, [list(values)] * len(frame))
    frame = frame.explode([*entries, *columns], ignore_index=True)
    return frame.astype(dict.fromkeys(columns, np.float64))


def _eigenvalues(training: pd.DataFrame) -> pd.DataFrame:
    number = len(training["leading_eigenvalue"].iloc[0])
    return _exploded(training, ["leading_eigenvalue"], {"index": range(number)}).astype({"index": np.int64})


def _mode_residuals(asked: Measures, training: pd.DataFrame, is_uniform: bool) -> pd.DataFrame:
    """Shards have theory's rates of named functions for uniform points. Under another density these are no eigenfunctions of the
    operator, and have no rate.
    """
    entries = dict(zip(("basis", "mode", "order"), zip(*asked.labels, strict=True), strict=True))
    frame = _exploded(training, list(_MODES), entries).astype({"order": np.int64})
    if not is_uniform:
        frame.loc[frame["basis"].isin(["fourier", "degree"]), ["theory_rate", "theory_residual"]] = np.nan
    return frame


def _couplings(asked: Measures, training: pd.DataFrame) -> pd.DataFrame:
    names = ("basis", "mode", "order", "other_mode", "other_order")
    entries = dict(zip(names, zip(*asked.coupled, strict=True), strict=True))
    return _exploded(training, [_COUPLING], entries).astype({"order": np.int64, "other_order": np.int64})


def _regression(training: pd.DataFrame) -> pd.DataFrame:
    frame = training[[*_ROW, "test_loss", "regression_test_loss"]].copy()
    for name in ("evaluation_loss", "regression_evaluation_loss"):
        frame[name] = training.get(name, np.nan)
    frame["status"] = training["status"]
    return frame


def _freeze(share: float, training: pd.DataFrame) -> pd.DataFrame:
    """A row per network, width and seed, from the column ``kernel_velocity``, whose first is that of the second snapshot.

    That velocity v is half the squared distance of normalised kernels over the interval d, and so proportional to d, which
    grows along training. The speed of the normalised kernel is sqrt(2 v / d), whatever the spacing.
    """
    rows = []
    for run, group in cells(training, "width", "seed"):
        times = group[["time", "relative_time"]].to_numpy()
        speeds = np.sqrt(2 * group["kernel_velocity"].to_numpy()[1:] / np.diff(times[:, 0]))
        found = freeze_index(speeds, share)
        time, relative = times[found + 1] if found >= 0 else (np.nan, np.nan)
        ended = group["status"].iloc[0]
        status = "unknown" if ended != "finished" else "frozen" if found >= 0 else "never"
        if status == "unknown":
            time = relative = np.nan
        rows.append(run | {
            "freeze_share": share, "freeze_time": time, "relative_freeze_time": relative, "freeze_status": status,
            "status": ended,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _over_seeds(training: pd.DataFrame, names: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], list[np.ndarray], dict]]:
    """For each network, width and time: its columns, arrays (seeds, entries) of the lists ``names``, and counts of seeds."""
    for cell, group in cells(training, "width", "time", "relative_time"):
        seeds = group[group["status"] == "finished"]
        values = np.array(seeds[names[0]].to_list(), np.float64).reshape(len(seeds), np.size(group[names[0]].iloc[0]))
        finite = np.isfinite(values).all(axis=1)
        theory = [np.asarray(group[name].iloc[0], np.float64) for name in names[1:]]
        yield cell, [values[finite], *theory], counts(int(finite.sum()), len(group))


def _statistics(values: np.ndarray, entries: int) -> dict[str, np.ndarray]:
    """Mean and quantiles over seeds (entries,); NaN where there are no seeds."""
    if not len(values):
        return dict.fromkeys(("mean", *QUANTILES), np.full(entries, np.nan))
    return {"mean": values.mean(axis=0)} | {name: np.quantile(values, share, axis=0) for name, share in QUANTILES.items()}


def _profiles(data: Data, training: pd.DataFrame) -> pd.DataFrame:
    (x, _), frames = _evaluation(data), []
    for cell, (values, limit), number in _over_seeds(training, _POINTS["profiles"]):
        where = {"point": np.arange(len(x)), "separation": _separations(data.x_train[0], x)}
        frames.append(pd.DataFrame(cell | where | {"limit_profile": limit} | _statistics(values, len(x)) | number))
    return pd.concat(frames, ignore_index=True)


def _predictions(data: Data, training: pd.DataFrame) -> pd.DataFrame:
    (x, y), k, frames = _evaluation(data), data.outputs, []
    where = {
        "point": np.repeat(np.arange(len(x)), k),
        "output": np.tile(np.arange(k), len(x)),
        "angle": np.repeat(np.arctan2(x[:, 1], x[:, 0]) if x.shape[1] == 2 else np.full(len(x), np.nan), k),
        "target": np.full(len(x) * k, np.nan) if y is None else y.ravel(),
    }
    for cell, (values, mean, deviation), number in _over_seeds(training, _POINTS["predictions"]):
        theory = {"limit_prediction": mean, "limit_deviation": deviation}
        frames.append(pd.DataFrame(cell | where | theory | _statistics(values, len(x) * k) | number))
    if _REGRESSION in training:
        for frame, (_, (values,), _) in zip(frames, _over_seeds(training, (_REGRESSION,)), strict=True):
            of_kernels = {f"{_REGRESSION}_{name}": own for name, own in _statistics(values, len(x) * k).items()}
            position = list(frame.columns).index("count")
            for name in reversed(of_kernels):
                frame.insert(position, name, of_kernels[name])
    return pd.concat(frames, ignore_index=True)


def _evaluation(data: Data) -> tuple[np.ndarray, np.ndarray | None]:
    """The evaluation points and their targets, or test points where there are none (`stages.measures.evaluation`)."""
    return (data.x_test, data.y_test) if data.x_evaluation is None else (data.x_evaluation, data.y_evaluation)


def _separations(first: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Angles (m,) from a point to points (m, d), as seen from 0: in the plane from -pi to pi, elsewhere from 0 to pi."""
    if x.shape[1] == 2:
        return np.arctan2(first[0] * x[:, 1] - first[1] * x[:, 0], x @ first)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(first)
    with np.errstate(invalid="ignore", divide="ignore"):  # of a point at 0
        return np.arccos(np.clip(x @ first / lengths, -1.0, 1.0))
