"""Mean and variance of the outputs over seeds along training, compared with infinitely wide networks.

Let D_s = (f_t - mu) / sqrt(n) for seed s on n points, where mu is the mean of f_t at infinite width. Then the two parts of
`drift_parts` are

    systematic^2 = mean over points of (E f_t - mu)^2,    random^2 = mean over points of Var f_t.

The estimates of both squares are unbiased for any number of seeds.
"""

import numpy as np
import pandas as pd

from ntksim.study.statistics import drift_parts
from ntksim.study.statistics.seeds import cells, counts

_PREFIXES = {"train": "", "test": "test_"}  # of a shard's columns for training and test points
_THEORY = ("limit_mean", "limit_variance")
SHARD_COLUMNS = [prefix + name for prefix in _PREFIXES.values() for name in ("limit_difference", *_THEORY)]


def ensemble_rows(shards: pd.DataFrame, known: bool = True) -> pd.DataFrame:
    """Rows of the table `ensemble`, one per network, width, time and kind of points, from all rows of the training shards.

    ``known`` says whether theory has a mean mu: without, there is the seeds' variance alone.
    """
    rows = []
    for cell, seeds in cells(shards, "width", "time", "relative_time"):
        finished = seeds[seeds["status"] == "finished"]
        for points, prefix in _PREFIXES.items():
            found = [values for values in finished[f"{prefix}limit_difference"] if np.isfinite(values).all()]
            theory = {name: seeds[prefix + name].iloc[0] for name in _THEORY}
            rows.append(cell | {"points": points} | counts(len(found), len(seeds)) | theory | _statistics(found, known))
    return pd.DataFrame(rows)


def _statistics(differences: list[np.ndarray], known: bool) -> dict[str, float]:
    """Distance of the seeds' mean from theory's mean, and the seeds' variance, with errors and intervals; NaN for few seeds, and
    the distance where theory's mean is not known.
    """
    gram = drift_parts.gram_matrix(differences) / (differences[0].size if differences else 1)
    systematic, random = drift_parts.estimates(gram).values()
    distance = systematic.root, systematic.of_root.error, systematic.of_root.low, systematic.of_root.high
    names = ("mean_difference", "mean_difference_error", "mean_difference_low", "mean_difference_high")
    return dict(zip(names, distance if known else (np.nan,) * 4, strict=True)) | {
        "variance": max(random.square, 0.0),  # if all outputs are equal, rounding may leave a negative number
        "variance_error": random.interval.error,
        "variance_low": random.interval.low,
        "variance_high": random.interval.high,
    }
