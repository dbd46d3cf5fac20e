"""Statistics over seeds: which values enter them, their moments, and 95% intervals.

Means have the wider end, on either side, of two intervals: Student's, which is exact for normal values, and that of Hall (1992),
whose cubic transformation of the studentised mean takes out the skewness. Whatever else is estimated is turned into a mean by the
jackknife: n estimate - (n - 1) (estimate without seed s) are its pseudo-values (Tukey 1958). Positive quantities are
treated by their logarithms. Combinations over independent widths have Student's interval with the degrees of freedom
of Welch (1947) and Satterthwaite (1946). Nothing is drawn at random. What the intervals cover is measured in docs/statistics.md.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit, stdtrit

CONFIDENCE = 0.95
FEWEST = 5  # seeds of all intervals but Student's of a mean: fewer tell no skewness, and logarithms of fewer scatter too much
MOST_EXCLUDED = 0.1  # of the seeds behind a statistic that is not marked


# What tells networks apart. One seed drawn by weights and conditionally is two networks that have nothing in common.
NETWORK = ("network", "activation", "depth", "parameterization", "sampling")


class Interval(NamedTuple):
    """Standard error and ends of an interval, NaN where there are too few seeds."""

    error: float
    low: float
    high: float


UNKNOWN = Interval(np.nan, np.nan, np.nan)


def cells(frame: pd.DataFrame, *more: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """What tells networks apart, by name, and their rows; with the columns ``more``, such as the width, each of their values."""
    key = [*NETWORK, *more]
    for values, group in frame.groupby(key, sort=False):
        yield dict(zip(key, values, strict=True)), group


def usable(group: pd.DataFrame, quantity: str) -> np.ndarray:
    """The values of a quantity that enter statistics: those of seeds that finished, and finite."""
    values = group[quantity].to_numpy()
    return values[(group["status"] == "finished").to_numpy() & np.isfinite(values)]


def counts(used: int, seeds: int) -> dict[str, Any]:
    """How many of the seeds are in a statistic, how many are not, and whether it is marked for that."""
    share = (seeds - used) / seeds if seeds else 0.0
    return {"count": used, "excluded": seeds - used, "excluded_share": share, "marked": share > MOST_EXCLUDED}


def quantile(freedom: float) -> float:
    """Of Student's distribution: how many standard errors an interval reaches to either side."""
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def moments(values: np.ndarray, *, share: bool = False, step: float = 0.0) -> dict[str, float]:
    """Mean, root mean square, standard deviation and error, and intervals of the first two; NaN where there are too few.

    A ``share`` lies in [0, 1], and so do its intervals; ``step`` is the least by which seeds may differ in it, 0 if unknown.
    """
    n = len(values)
    deviation = values.std(ddof=1) if n > 1 else np.nan
    low, high = (_share_ends(values, step) if share else mean_interval(values)[1:]) if n > 1 else (np.nan, np.nan)
    squares = values**2
    square = np.mean(squares) if n else np.nan
    _, *ends = positive_interval(square, (squares.sum() - squares) / (n - 1)) if n >= FEWEST else UNKNOWN
    root_low, root_high = np.sqrt(ends)
    if share and n >= FEWEST:  # of equal shares the root mean square is the mean
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
    """Of the mean of independent values (n,), or of an ``estimate`` with these pseudo-values; Hall's ends need 5 values.

    With a = skewness / sqrt(n), Hall's transformation T + a T^2 / 3 + a^2 T^3 / 27 + a / 6 of T = (estimate - truth) / error
    is nearly Student's. Its inverse is 3 (cbrt(1 + a (t - a / 6)) - 1) / a.
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
        if abs(a) > 1e-6:  # else the transformation is the identity to rounding
            below, above = 3 * (np.cbrt(1 + a * (np.array([reach, -reach]) - a / 6)) - 1) / a
            low, high = min(low, estimate - error * below), max(high, estimate - error * above)
    return Interval(error, low, high)


def jackknife(estimate: float, without: np.ndarray) -> np.ndarray:
    """The pseudo-values (n,) of an estimate from n seeds, and of those ``without`` each of them (n,)."""
    return len(without) * estimate - (len(without) - 1) * without


def has_logarithm(estimate: float, without: np.ndarray) -> bool:
    """Whether an estimate of a positive quantity, also without any one of its seeds (n,), is positive and finite."""
    every = np.append(without, estimate)
    return bool((np.isfinite(every) & (every > 0)).all())


def positive_interval(estimate: float, without: np.ndarray) -> Interval:
    """Of a quantity that is not negative, from the estimates ``without`` each seed (n,).

    In logarithms; where one of the estimates has none, not in logarithms, and cut at 0.
    """
    if not has_logarithm(estimate, without):
        error, low, high = mean_interval(jackknife(estimate, without), estimate)
        return Interval(error, max(low, 0.0), max(high, 0.0))
    error, low, high = mean_interval(jackknife(np.log(estimate), np.log(without)), np.log(estimate))
    return Interval(estimate * error, float(np.exp(low)), float(np.exp(high)))


def _share_ends(values: np.ndarray, step: float) -> tuple[float, float]:
    """Of the mean of shares: Student's interval for its logit, by the delta method.

    Of n equal shares no scatter is known. An outcome that none of them has shown has a probability of at most
    1 - 0.025^(1/n) (Clopper & Pearson 1934), and moves a share by one ``step``, or by more, which nothing here tells.
    NaN where they are equal and the step is not known (0).
    """
    n, mean = len(values), float(np.mean(values))
    if np.ptp(values) == 0:  # their standard deviation may be rounding
        if not step > 0:
            return np.nan, np.nan
        reach = step * (1 - ((1 - CONFIDENCE) / 2) ** (1 / n))
        return max(mean - reach, 0.0), min(mean + reach, 1.0)
    error = values.std(ddof=1) / np.sqrt(n)
    reach = quantile(n - 1) * error / (mean * (1 - mean))
    return float(expit(logit(mean) - reach)), float(expit(logit(mean) + reach))


def combined(weights: np.ndarray, estimates: np.ndarray, errors: np.ndarray, sizes: np.ndarray) -> Interval:
    """Of sum(weights x estimates) over independent samples, whose estimates have standard errors from so many seeds."""
    estimate, variances = float(weights @ estimates), (weights * errors) ** 2
    error = float(np.sqrt(variances.sum()))
    if not error > 0:
        return Interval(error, estimate, estimate)
    shares = variances / variances.sum()
    reach = quantile(1 / float(np.sum(shares**2 / (sizes - 1)))) * error
    return Interval(error, estimate - reach, estimate + reach)
