"""Seeds as an ensemble: mean and variance of their outputs along training, beside those of infinitely wide networks.

With D_s = (f_t - mu) / sqrt(n) of seed s on n points, where mu is the mean at infinite width, the two parts of `drift_parts` are

    systematic^2 = mean over points of (E f_t - mu)^2,    random^2 = mean over points of Var f_t,

neither of them with a bias of finitely many seeds.
"""

from typing import Any

import numpy as np
import pandas as pd

from ntksim.study import drift_parts
from ntksim.study.seed_statistics import cells

_POINTS = {"train": "", "test": "test_"}  # and how a shard's columns of them begin
_THEORY = ("limit_mean", "limit_variance")
SHARD_COLUMNS = [start + name for start in _POINTS.values() for name in ("limit_difference", *_THEORY)]


def ensemble_rows(shards: pd.DataFrame) -> pd.DataFrame:
    """The rows of `ensemble`, one for every network, width, time and kind of points, from all rows of shards of training."""
    rows = []
    for cell, seeds in cells(shards, "width", "time", "relative_time"):
        finished = seeds[seeds["status"] == "finished"]
        for points, start in _POINTS.items():
            found = [values for values in finished[f"{start}limit_difference"] if np.isfinite(values).all()]
            counts = {"points": points, "count": len(found), "excluded": len(seeds) - len(found)}
            theory = {name: seeds[start + name].iloc[0] for name in _THEORY}
            rows.append(cell | counts | theory | _statistics(found))
    return pd.DataFrame(rows)


def _statistics(differences: list[np.ndarray]) -> dict[str, float]:
    """Distance of the seeds' mean from theory's, and their variance, with standard errors; NaN where there are too few."""
    gram = drift_parts.gram_matrix(differences) / (differences[0].size if differences else 1)
    (shared, resampled_shared), (variance, resampled_variance) = drift_parts.estimates(gram).values()
    return {
        "mean_difference": _root(shared),
        "mean_difference_error": _deviation(_root(resampled_shared)),
        "variance": max(variance, 0.0),  # of equal outputs rounding is left
        "variance_error": _deviation(resampled_variance),
    }


def _root(squares: Any) -> Any:
    """Roots of estimates of squares, which come out below zero where they are lost in the scatter."""
    return np.sqrt(np.maximum(squares, 0.0))


def _deviation(resampled: np.ndarray) -> float:
    return float(resampled.std(ddof=1)) if len(resampled) else np.nan
