"""Statistics over seeds: which values enter them, their moments, and resampling."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 1000
FEWEST = 5  # seeds of a bootstrap; fewer have hardly other samples than themselves
TAIL = 100 * (1 - CONFIDENCE) / 2  # percent on either side of an interval


def cells(frame: pd.DataFrame, *more: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """What tells networks apart, by name, and their rows; with the columns ``more``, such as the width, each of their values."""
    key = ["network", "activation", "depth", "parameterization", *more]
    for values, group in frame.groupby(key, sort=False):
        yield dict(zip(key, values, strict=True)), group


def usable(group: pd.DataFrame, quantity: str) -> np.ndarray:
    """The values of a quantity that enter statistics: those of seeds that finished, and finite."""
    values = group[quantity].to_numpy()
    return values[(group["status"] == "finished").to_numpy() & np.isfinite(values)]


def moments(values: np.ndarray) -> dict[str, float]:
    """Mean, root mean square, standard deviation and error, and the interval of the mean; NaN where there are too few."""
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


def resamples(rng: np.random.Generator, size: int) -> np.ndarray:
    """Indices (RESAMPLES, size) of bootstrap samples of ``size`` seeds."""
    return rng.integers(0, size, (RESAMPLES, size))
