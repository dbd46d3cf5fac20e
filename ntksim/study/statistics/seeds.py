"""Statistics over seeds: which values are used, their moments, and 95% intervals.

The interval of a mean is the hull of two intervals: Student's, which is exact for normal values, and Hall's (1992), whose cubic
transformation of the studentised mean removes the skewness. All other estimates become means by the jackknife: their
pseudo-values are n estimate - (n - 1) (estimate without seed s) (Tukey 1958). Positive quantities are treated by their
logarithms. Linear combinations over independent widths have Student's interval with the degrees of freedom of Welch (1947) and
Satterthwaite (1946). No method is random. docs/statistics.md gives the measured coverage of the intervals.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit, stdtrit

from ntksim.engine.activation import name_of
from ntksim.study.config.network import NetworkOptions

CONFIDENCE = 0.95
# Fewest seeds for all intervals other than Student's interval of a mean. Fewer do not show the skewness, and their logarithms
# scatter too much.
FEWEST = 5
MOST_EXCLUDED = 0.1  # a statistic is marked if a larger share of its seeds is left out


DATA = ("train_points", "dataset_seed")  # columns that tell data sets apart
_CELL = ("network", "sampling", *DATA)  # the same seed drawn by weights and conditionally gives two unrelated networks
_FIRST = ("activation", "depth", "parameterization")
# Columns that describe a network and its data: every key of the configuration that may be an axis of a study.
NETWORK = ("network", *_FIRST, "sampling", *(name for name in NetworkOptions.model_fields if name not in _FIRST), *DATA)

SEEDS, DATA_SETS = "seeds", "seeds and data sets"  # what a law may be averaged over


class Interval(NamedTuple):
    """Standard error and ends of a 95% interval; NaN if there are too few seeds."""

    error: float
    low: float
    high: float


UNKNOWN = Interval(np.nan, np.nan, np.nan)


def cells(frame: pd.DataFrame, *more: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Split a table by network and data set, and by the columns ``more``, such as the width.

    Yields the values of these columns and of those that describe the network, by name, with the rows that have them.
    """
    for _, group in frame.groupby([name for name in (*_CELL, *more) if name in frame], sort=False, dropna=False):
        yield {name: group[name].iloc[0] for name in (*NETWORK, *more) if name in group}, group


def key(cell: "Mapping[str, Any] | pd.Series[Any]") -> tuple[Any, ...]:
    """What tells a cell from others: network, data set and width."""
    return tuple(cell.get(name) for name in ("network", *DATA, "width"))


def of_one_data_set(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table that are of the largest training set and the first seed of the data, and those of all training sets.

    Laws of averages over data sets are not among them.
    """
    if "averaged_over" in frame:
        frame = frame[frame["averaged_over"] == SEEDS]
    for name, value in zip(DATA, ("max", "min"), strict=True):
        if name in frame:
            frame = frame[frame[name].isna() | (frame[name] == frame[name].agg(value))]
    return frame


def described(options: NetworkOptions) -> dict[str, Any]:
    """What the columns `NETWORK` say of a network, but for its name, how it is drawn, and its data."""
    found = {name: getattr(options, name) for name in NetworkOptions.model_fields}
    exponents = options.abc and ", ".join(f"{name} {value:g}" for name, value in options.abc.model_dump().items())
    sigma_b = np.nan if options.sigma_b is None else options.sigma_b
    return found | {"activation": name_of(options.function), "sigma_b": sigma_b, "abc": exponents}


def usable(group: pd.DataFrame, quantity: str) -> np.ndarray:
    """The values of a quantity that enter statistics: finite values of seeds that finished."""
    values = group[quantity].to_numpy()
    return values[(group["status"] == "finished").to_numpy() & np.isfinite(values)]


def counts(used: int, seeds: int) -> dict[str, Any]:
    """The columns that count seeds: how many a statistic uses and leaves out, and whether it is marked for leaving out many."""
    share = (seeds - used) / seeds if seeds else 0.0
    return {"count": used, "excluded": seeds - used, "excluded_share": share, "marked": share > MOST_EXCLUDED}


def quantile(freedom: float) -> float:
    """Quantile of Student's distribution: the number of standard errors from an estimate to the ends of its interval."""
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def moments(values: np.ndarray, *, share: bool = False, step: float = 0.0) -> dict[str, float]:
    """Mean, root mean square, standard deviation, standard error, and intervals of the first two; NaN for too few values.

    Values of a ``share`` are in [0, 1], and so are its intervals. ``step`` is the smallest difference between two possible values
    of the share, such as 1 / (test points) for an accuracy; 0 if unknown.
    """
    n = len(values)
    deviation = values.std(ddof=1) if n > 1 else np.nan
    low, high = (_share_ends(values, step) if share else mean_interval(values)[1:]) if n > 1 else (np.nan, np.nan)
    squares = values**2
    square = np.mean(squares) if n else np.nan
    _, *ends = positive_interval(square, (squares.sum() - squares) / (n - 1)) if n >= FEWEST else UNKNOWN
    root_low, root_high = np.sqrt(ends)
    if share and n >= FEWEST:  # if all shares are equal, the root mean square is the mean
        root_low, root_high = (low, high) if np.ptp(values) == 0 else (root_low, min(root_high, 1.0))
    return {
        "mean": values.mean() if n else np.nan,
        "root_mean_square": np.sqrt(square),
        "standard_deviation": deviation,
        "standard_error": deviation / np.sqrt(n) if n else np.nan,
        "interval_low": low,
        "interval_high": high,
        "root_mean_square_low": root_low,
        "root_mean_square_high": root_high,
    }


def mean_interval(values: np.ndarray, estimate: float | None = None) -> Interval:
    """Interval of the mean of independent values (n,), or of an ``estimate`` with these pseudo-values.

    It is the hull of Student's and Hall's interval; Hall's needs `FEWEST` values. With a = skewness / sqrt(n), Hall's
    transformation T + a T^2 / 3 + a^2 T^3 / 27 + a / 6 of T = (estimate - truth) / error has nearly Student's distribution. Its
    inverse is 3 (cbrt(1 + a (t - a / 6)) - 1) / a.
    """
    n, centre = len(values), float(np.mean(values))
    estimate = centre if estimate is None else estimate
    second = np.sum((values - centre) ** 2)
    error = float(np.sqrt(second / (n - 1) / n))
    reach = quantile(n - 1)
    low, high = estimate - reach * error, estimate + reach * error
    if n >= FEWEST and error > 0:
        scaled = (values - centre) / np.sqrt(second / n)
        a = float(np.mean(scaled**3)) * np.sqrt(n - 1) / (n - 2)  # the skewness G1 (Joanes & Gill 1998) over sqrt(n)
        if abs(a) > 1e-6:  # otherwise the transformation is the identity up to rounding
            below, above = 3 * (np.cbrt(1 + a * (np.array([reach, -reach]) - a / 6)) - 1) / a
            low, high = min(low, estimate - error * below), max(high, estimate - error * above)
    return Interval(error, low, high)


def jackknife(estimate: float, without: np.ndarray) -> np.ndarray:
    """Pseudo-values (n,) of an estimate from n seeds, given the estimates ``without`` each seed (n,)."""
    return len(without) * estimate - (len(without) - 1) * without


def has_logarithm(estimate: float, without: np.ndarray) -> bool:
    """Whether an estimate, and the estimates ``without`` each seed (n,), are all positive and finite."""
    estimates = np.append(without, estimate)
    return bool((np.isfinite(estimates) & (estimates > 0)).all())


def positive_interval(estimate: float, without: np.ndarray) -> Interval:
    """Interval of a quantity that cannot be negative, from its estimate and the estimates ``without`` each seed (n,).

    It is computed in logarithms. If any of the estimates is not positive, it is computed without logarithms and cut off at 0.
    """
    if not has_logarithm(estimate, without):
        error, low, high = mean_interval(jackknife(estimate, without), estimate)
        return Interval(error, max(low, 0.0), max(high, 0.0))
    error, low, high = mean_interval(jackknife(np.log(estimate), np.log(without)), np.log(estimate))
    return Interval(estimate * error, float(np.exp(low)), float(np.exp(high)))


def _share_ends(values: np.ndarray, step: float) -> tuple[float, float]:
    """Ends of the interval of a mean of shares: Student's interval of its logit, by the delta method.

    If all n shares are equal, their scatter is unknown. A different value, which none of n seeds has taken, has a probability of
    at most 1 - 0.025^(1/n) (Clopper & Pearson 1934). It is assumed to differ by one ``step``; the data cannot show whether it
    differs by more. The ends are NaN if all shares are equal and the step is unknown (0).
    """
    n, mean = len(values), float(np.mean(values))
    if np.ptp(values) == 0:  # rounding may make the standard deviation of equal values positive
        if not step > 0:
            return np.nan, np.nan
        reach = step * (1 - ((1 - CONFIDENCE) / 2) ** (1 / n))
        return max(mean - reach, 0.0), min(mean + reach, 1.0)
    error = values.std(ddof=1) / np.sqrt(n)
    reach = quantile(n - 1) * error / (mean * (1 - mean))
    return float(expit(logit(mean) - reach)), float(expit(logit(mean) + reach))


def combined(weights: np.ndarray, estimates: np.ndarray, errors: np.ndarray, sizes: np.ndarray) -> Interval:
    """Interval of sum(weights x estimates), where the estimates are independent.

    ``errors`` are the standard errors of the estimates, ``sizes`` the numbers of seeds behind them.
    """
    estimate, variances = float(weights @ estimates), (weights * errors) ** 2
    error = float(np.sqrt(variances.sum()))
    if not error > 0:
        return Interval(error, estimate, estimate)
    shares = variances / variances.sum()
    reach = quantile(1 / float(np.sum(shares**2 / (sizes - 1)))) * error
    return Interval(error, estimate - reach, estimate + reach)
