"""How much kernels scatter at initialisation, and how far a first step moves them, with intervals for heavy tails.

Kernels of deep narrow networks are products over layers: their logarithms scatter like sums, and most of E[K^2] may lie in
networks that are too rare to be among the seeds. An interval from the scatter of those that are there then ends too low. Where
fewer than `ENOUGH` seeds carry the sum that is estimated, it is therefore joined with the interval of the lognormal distribution
that has the seeds' mean and variance of logarithms, whose tail is that of theory and, for ReLU, heavier than the networks'.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ntksim.engine.infinite.dispersion import depth_over_width, dispersion_law
from ntksim.study.config.study import Study
from ntksim.study.statistics.along import by_depths
from ntksim.study.statistics.scaling_laws import Sample, excluded, power_law
from ntksim.study.statistics.seeds import (
    FEWEST,
    SEEDS,
    Interval,
    cells,
    counts,
    jackknife,
    mean_interval,
    positive_interval,
    quantile,
)

SHARD_COLUMNS = ("diagonal", "first_step_change")
# Quantities of the table, what they are in a law, and what is taken from them there: networks of infinite width have 0.
_LAWS = {"kernel_dispersion": ("kernel_dispersion_minus_1", 1.0), "first_step_change": ("first_step_change", 0.0)}
# Effective seeds from which the jackknife alone covers what it should (docs/statistics.md#dispersion).
ENOUGH = 50


class Estimate(NamedTuple):
    """An estimate, the ends of its 95% interval, and the number of seeds that carry it: (sum w)^2 / sum w^2 of their weights."""

    value: float
    low: float
    high: float
    effective: float


def dispersion(kernels: np.ndarray) -> Estimate:
    """E[K^2] / E[K]^2 of positive numbers (S, n), by the mean over n points of the seeds' ratios."""
    n, first, second = len(kernels), kernels.sum(axis=0), np.square(kernels).sum(axis=0)
    value = float(np.mean(n * second / first**2))
    without = np.mean((n - 1) * (second - kernels**2) / (first - kernels) ** 2, axis=-1)
    carried = float(np.mean(second**2 / np.sum(kernels**4, axis=0)))
    return _joined(value, without, carried, kernels, lambda mean, variance: np.log(np.mean(np.exp(variance), axis=-1)), -1)


def mean(values: np.ndarray) -> Estimate:
    """E[X] of positive numbers (S,)."""
    n, total = len(values), values.sum()
    value, without = float(total / n), (total - values) / (n - 1)
    carried = float(total**2 / np.sum(values**2))
    return _joined(value, without, carried, values[:, None], lambda mean, variance: (mean + variance / 2)[..., 0], 1)


def _joined(
    value: float,
    without: np.ndarray,
    carried: float,
    numbers: np.ndarray,
    logarithm: Callable[[np.ndarray, np.ndarray], np.ndarray],
    power: int,
) -> Estimate:
    """The jackknife's interval, from the estimates ``without`` each seed, joined with the lognormal one where few carry it.

    ``logarithm`` gives the logarithm of the estimate from means and variances of logarithms. Numbers of 0, of dead networks, have
    none: a share p of the seeds that is not dead multiplies the estimate by p^power.
    """
    if len(numbers) < FEWEST or not np.isfinite(value):
        return Estimate(value, np.nan, np.nan, carried)
    _, low, high = positive_interval(value, without)
    alive = numbers[(numbers > 0).all(axis=1)]
    if carried < ENOUGH and len(alive) >= FEWEST:
        logs, factor = np.log(alive), (len(alive) / len(numbers)) ** power
        n, centre = len(logs), logs.mean(axis=0)
        squares = np.sum((logs - centre) ** 2, axis=0)
        means = centre + (centre - logs) / (n - 1)  # without each seed
        variances = (squares - (logs - centre) ** 2 * n / (n - 1)) / (n - 2)
        estimate = float(logarithm(centre, squares / (n - 1)))
        _, *ends = mean_interval(jackknife(estimate, logarithm(means, variances)), estimate)
        with np.errstate(over="ignore"):
            low, high = min(low, factor * np.exp(ends[0])), max(high, factor * np.exp(ends[1]))
    return Estimate(value, float(low), float(high), carried)


def dispersion_table(study: Study, initial: pd.DataFrame) -> pd.DataFrame:
    """Rows of the table `dispersion`, two for every network and width, from rows with the columns `SHARD_COLUMNS`.

    Dead networks, whose kernel is 0 and which have no other statistics, count; those that overflow do not.
    """
    rows = []
    for cell, group in cells(initial, "width"):
        network = study.networks[cell["network"]].network(cell["width"])
        diagonals, changes = np.array(group["diagonal"].to_list(), np.float64), group["first_step_change"].to_numpy()
        vanishes = network.parameterization in ("ntk", "notes", "standard")
        for quantity, values, of, law, limit in (
            ("kernel_dispersion", diagonals, dispersion, dispersion_law(network), 1.0),
            ("first_step_change", changes[:, None], lambda own: mean(own[:, 0]), np.nan, 0.0 if vanishes else np.nan),
        ):
            rows.append(
                cell | {"beta": depth_over_width(network), "quantity": quantity}
                | _numbers(values, of) | {"leading_order": law, "limit": limit}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _numbers(values: np.ndarray, of: Callable[[np.ndarray], Estimate]) -> dict[str, Any]:
    finite = values[np.isfinite(values).all(axis=1)]
    with np.errstate(all="ignore"):  # where all are 0, or there are none
        found = of(finite) if len(finite) > 1 else Estimate(np.nan, np.nan, np.nan, np.nan)
    return {
        "value": found.value, "value_low": found.low, "value_high": found.high, "effective_seeds": found.effective,
    } | counts(len(finite), len(values))  # fmt: skip


def dispersion_laws(along: Sequence[str], frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of the table `scaling_laws` from those of the table `dispersion`, in the width and in depth over width.

    There is no law if an interval holds the value of infinite width, and none in the number of training points.
    """
    for (quantity, (name, origin)), variable in ((law, own) for law in _LAWS.items() for own in along if own != "train"):
        own = frame[frame["quantity"] == quantity]
        if variable == "width":
            groups = ((cell | {"along": "width"}, rows, rows["width"]) for cell, rows in cells(own))
        else:
            joined = ((cell, pd.concat(by_cell.values())) for cell, by_cell in by_depths(own))
            groups = ((cell, rows, rows["depth"] / rows["width"]) for cell, rows in joined)
        for cell, rows, at in groups:
            numbers = (rows[["value", "value_low", "value_high"]] - origin).to_numpy()
            if len(rows) > 1 and (np.isnan(numbers) | (numbers > 0)).all() and np.isfinite(numbers[:, 0]).all():
                seeds = dict(enumerate(rows["count"] + rows["excluded"]))
                left = {cell: Sample(count, np.nan, np.nan) for cell, count in enumerate(rows["count"])}
                about = {"averaged_over": SEEDS, "quantity": name, "widths_fitted": len(rows)} | excluded(left, seeds)
                theory = {"theory_exponent": np.nan, "z_score": np.nan}
                yield cell | about | _fit(np.log(at.to_numpy(np.float64)), np.log(numbers)) | theory


def _fit(at: np.ndarray, logs: np.ndarray) -> dict[str, float]:
    """Exponent and prefactor by least squares from logarithms (X,) of the variable, and (X, 3) of values and their ends.

    Heavy tails make intervals lopsided, and sums of independent estimates keep that: their distances to the lower ends add up as
    squares, and those to the upper ends (Zou & Donner 2008).
    """
    values, below, above = logs[:, 0], logs[:, 0] - logs[:, 1], logs[:, 2] - logs[:, 0]
    weights = np.linalg.pinv(np.stack([at, np.ones_like(at)], axis=1))
    intervals = []
    for own in weights:
        estimate = float(own @ values)
        low, high = (
            float(np.linalg.norm(np.where(own > 0, own * rising, -own * falling)))
            for rising, falling in ((below, above), (above, below))
        )
        intervals.append(Interval((low + high) / (2 * quantile(np.inf)), estimate - low, estimate + high))
    slope, intercept = weights @ values
    return power_law(slope, intercept, *intervals)
