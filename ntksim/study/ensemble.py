"""Seeds as an ensemble: mean and variance of their outputs along training, beside those of infinitely wide networks.

With D_s = (f_t - mu) / sqrt(n) of seed s on n points, where mu is the mean at infinite width, the two parts of `drift_parts` are

    systematic^2 = mean over points of (E f_t - mu)^2,    random^2 = mean over points of Var f_t,

neither of them with a bias of finitely many seeds.
"""

import numpy as np
import pandas as pd

from ntksim.study import drift_parts
from ntksim.study.seed_statistics import cells, counts

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
            theory = {name: seeds[start + name].iloc[0] for name in _THEORY}
            rows.append(cell | {"points": points} | counts(len(found), len(seeds)) | theory | _statistics(found))
    return pd.DataFrame(rows)


def _statistics(differences: list[np.ndarray]) -> dict[str, float]:
    """Distance of the seeds' mean from theory's, and their variance, with errors and intervals; NaN where there are too few."""
    gram = drift_parts.gram_matrix(differences) / (differences[0].size if differences else 1)
    shared, scatter = drift_parts.estimates(gram).values()
    return {
        "mean_difference": shared.root,
        "mean_difference_error": shared.of_root.error,
        "mean_difference_low": shared.of_root.low,
        "mean_difference_high": shared.of_root.high,
        "variance": max(scatter.square, 0.0),  # of equal outputs rounding is left
        "variance_error": scatter.interval.error,
        "variance_low": scatter.interval.low,
        "variance_high": scatter.interval.high,
    }
