"""The table `scaling_laws`: laws along every variable, of each data set alone and, where there are several, of their average.

The law of one data set says nothing of another. In the average of data sets a quantity's mean square over seeds (along training
points the mean of a loss) is averaged over data sets too, at every width, number of training points, or depth and width.

Its interval counts how data sets differ and how networks do. All widths see the same data sets, so that the estimate without one
of them leaves it out everywhere at once: that jackknife gives an interval. Another one comes from the jackknife over seeds, each
of which is left out on all data sets: at one width after another, whose networks are independent, as in the law of one data set,
and along training points at all their numbers at once. The distances of the two intervals' ends from the estimate are joined as
the root of the sum of squares (Zou & Donner 2008). What a seed does on one data set alone is counted in both: the joined interval
is then too wide, never too narrow (Cameron, Gelbach & Miller 2011 take it off, which may leave less than nothing).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ntksim.study.config.stages import Training
from ntksim.study.statistics.along import (
    along_depth,
    along_points,
    by_depths,
    by_points,
    depth_over_width,
    quantities_along,
)
from ntksim.study.statistics.columns import quantities
from ntksim.study.statistics.dispersion import dispersion_laws
from ntksim.study.statistics.drift_parts import ERROR_PARTS, PARTS, estimates
from ntksim.study.statistics.scaling_laws import (
    Grams,
    Sample,
    excluded,
    has_theory,
    power_law,
    scaling_laws,
    table,
    theory_exponent,
)
from ntksim.study.statistics.seeds import (
    DATA_SETS,
    FEWEST,
    UNKNOWN,
    Interval,
    cells,
    combined,
    has_logarithm,
    jackknife,
    key,
    mean_interval,
)


def laws(
    along: Sequence[str],
    initial: pd.DataFrame,
    final: pd.DataFrame | None,
    grams: Grams | None = None,
    training: Training | None = None,
    error_grams: Grams | None = None,
    dispersion: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The table ``scaling_laws`` along each of some variables; ``dispersion`` is the table of this name, where there is one, and
    the other arguments are those of `scaling_laws`.
    """
    stages = [_Stage(initial, quantities("convergence"), ERROR_PARTS, error_grams or {})]
    if final is not None:
        stages.append(_Stage(final, quantities("drift"), PARTS, grams or {}))
    found = []
    for variable in along:
        if variable == "width":
            found.append(scaling_laws(initial, final, grams, training, error_grams))
        else:
            rows = along_points if variable == "train" else along_depth
            found.append(table([row for stage in stages for row in rows(stage.frame, stage.names)]))
        found.append(table([row for stage in stages for row in average_laws(variable, stage, training)]))
    if dispersion is not None:
        found.append(table(dispersion_laws(along, dispersion)))
    filled = [own for own in found if len(own)] or found[:1]
    return filled[0] if len(filled) == 1 else pd.concat(filled, ignore_index=True)


class _Stage(NamedTuple):
    """A table of single seeds, the quantities in it, and the parts of a matrix that `grams` tells of."""

    frame: pd.DataFrame
    names: Sequence[str]
    parts: Sequence[str]
    grams: Grams


class Averaged(NamedTuple):
    """A quantity to the power that is averaged, at X values of a variable on D data sets: means over seeds (X, D), means
    without each of the seeds (X, D, S), and whether the seed is in the mean.
    """

    means: np.ndarray
    without: np.ndarray
    used: np.ndarray


def average_laws(variable: str, stage: _Stage, training: Training | None) -> Iterator[dict[str, Any]]:
    """Laws of averages over data sets; none in a study of one seed of the data."""
    data = stage.frame.get("dataset_seed")
    if data is None or data.nunique() < 2:
        return
    for cell, groups, at in _groups(variable, stage.frame.assign(dataset_seed=np.nan)):
        cell = cell | {"averaged_over": DATA_SETS}
        for name in quantities_along(variable, stage.names):
            values = np.stack([_by_seed(rows.assign(dataset_seed=data), name) for rows in groups.values()])
            row = _average_law(list(groups), values, at, power=1 if variable == "train" and name.endswith("loss") else 2,
                               paired=variable == "train")  # fmt: skip
            if row is not None:
                yield cell | {"quantity": name} | row | _beside_theory(name, cell, row, training)
        if variable == "width":
            yield from _of_parts(cell, groups, sorted(data.unique()), stage, training)


def _groups(
    variable: str, frame: pd.DataFrame
) -> Iterator[tuple[dict[str, Any], dict[Any, pd.DataFrame], Callable[[Any], float]]]:
    """What laws in a variable have in common, their rows by what tells its values apart, and the value there."""
    if variable == "width":
        for cell, group in cells(frame):
            yield cell | {"along": "width"}, {int(str(width)): rows for width, rows in group.groupby("width")}, float
    elif variable == "train":
        yield from ((*found, float) for found in by_points(frame))
    else:
        yield from ((*found, depth_over_width) for found in by_depths(frame))


def _by_seed(rows: pd.DataFrame, name: str) -> np.ndarray:
    """Values of a quantity (data sets, seeds), NaN where `seeds.usable` leaves them out."""
    there = (rows["status"] == "finished") & np.isfinite(rows[name])
    values = rows[name].where(there).astype(float)
    return values.set_axis(pd.MultiIndex.from_frame(rows[["dataset_seed", "seed"]])).unstack().to_numpy()


def _average_law(
    keys: list[Any], values: np.ndarray, at: Callable[[Any], float], *, power: int, paired: bool
) -> dict[str, Any] | None:
    """A row from values (X, D, S), NaN where seeds are left out, if ``paired`` of all X; None if there is no law.

    X of which some data set has fewer than two seeds are left out.
    """
    used = ~np.isnan(values)
    left = {own: Sample(int(there.sum()), np.nan, np.nan) for own, there in zip(keys, used, strict=True)}
    if paired:
        used = used & used.all(axis=0)
    count = used.sum(axis=-1)
    enough = (count > 1).all(axis=-1)
    powers = np.where(used, values, 0.0)[enough] ** power
    used, count = used[enough], count[enough]
    means = powers.sum(axis=-1) / count
    without = np.where(used, (powers.sum(axis=-1, keepdims=True) - powers) / (count - 1)[..., None], means[..., None])
    sizes = [at(own) for own, there in zip(keys, enough, strict=True) if there]
    row = average_fit(sizes, Averaged(means, without, used), power, paired=paired)
    return row and {"widths_fitted": len(sizes)} | excluded(left, dict.fromkeys(keys, values[0].size)) | row


def _of_parts(
    cell: dict[str, Any], groups: Mapping[int, pd.DataFrame], data: Sequence[int], stage: _Stage, training: Training | None
) -> Iterator[dict[str, Any]]:
    """Laws of the parts of a matrix, where all seeds finished and all parts are told from 0."""
    grams = [[stage.grams.get(key(cell | {"width": width, "dataset_seed": one})) for one in data] for width in groups]
    seeds = {width: len(rows) for width, rows in groups.items()}
    flat = [gram for row in grams for gram in row]
    if not all(gram is not None and len(gram) * len(data) == seeds[min(seeds)] for gram in flat):
        return
    for name, part in zip(stage.parts, PARTS, strict=True):
        found = [[estimates(gram)[part] for gram in row if gram is not None] for row in grams]
        if not all(own.interval.low > 0 for row in found for own in row):
            continue
        means, without = ([[getattr(own, what) for own in row] for row in found] for what in ("square", "without"))
        averaged = Averaged(np.array(means), np.array(without), np.ones(np.shape(without), bool))
        row = average_fit([float(width) for width in groups], averaged, 2)
        if row is not None:
            all_there = excluded({width: Sample(count, np.nan, np.nan) for width, count in seeds.items()}, seeds)
            about = {"quantity": name, "widths_fitted": len(groups)} | all_there
            yield cell | about | row | _beside_theory(name, cell, row, training)


def average_fit(sizes: Sequence[float], averaged: Averaged, power: int, *, paired: bool = False) -> dict[str, float] | None:
    """Exponent and prefactor with their intervals; None for fewer than two sizes, and for what has no logarithm.

    ``paired`` says whether a seed is one network at all sizes. Intervals are NaN if a mean is over fewer than `FEWEST` seeds.
    Seeds that are in no mean of a size say nothing there.
    """
    means, without, used = averaged
    data_sets, total = means.shape[1], means.mean(axis=1)
    if len(sizes) < 2:
        return None
    of_data, of_seeds = (means.sum(axis=1, keepdims=True) - means) / (data_sets - 1), without.mean(axis=1)
    if not all(has_logarithm(own, np.append(*others)) for own, *others in zip(total, of_data, of_seeds, strict=True)):
        return None
    log_size, enough = np.log(np.array(sizes)), used.sum(axis=-1).min() >= FEWEST
    weights = np.linalg.pinv(np.stack([log_size, np.ones_like(log_size)], axis=1))
    logs, of_data, of_seeds = (np.log(own) / power for own in (total, of_data, of_seeds))
    there = np.asarray(used.any(axis=1))
    left_out = [own[seeds] for own, seeds in zip(of_seeds, there, strict=True)]
    of_slope, of_intercept = (_interval(own, logs, of_data, left_out, paired) if enough else UNKNOWN for own in weights)
    slope, intercept = weights @ logs
    return power_law(slope, intercept, of_slope, of_intercept)


def _interval(weights: np.ndarray, logs: np.ndarray, of_data: np.ndarray, of_seeds: list[np.ndarray], paired: bool) -> Interval:
    """Of sum(weights x logs), from logarithms (X,), those without each data set (X, D), and at each of X without each seed."""
    estimate = float(weights @ logs)
    over_data = mean_interval(jackknife(estimate, weights @ of_data), estimate)
    if paired:
        over_seeds = mean_interval(jackknife(estimate, weights @ np.array(of_seeds)), estimate)
    else:
        errors = [mean_interval(jackknife(float(own), others)).error for own, others in zip(logs, of_seeds, strict=True)]
        over_seeds = combined(weights, logs, np.array(errors), np.array([len(others) for others in of_seeds]))
    return joined(estimate, over_data, over_seeds)


def joined(estimate: float, *intervals: Interval) -> Interval:
    """The interval of an estimate with several independent errors, each of which has an interval of its own alone."""
    error, low, high = (
        float(np.sqrt(np.sum(np.square(own))))
        for own in zip(*((own.error, estimate - own.low, own.high - estimate) for own in intervals), strict=True)
    )
    return Interval(error, estimate - low, estimate + high)


def _beside_theory(name: str, cell: Mapping[str, Any], row: Mapping[str, float], training: Training | None) -> dict[str, float]:
    """Theory's exponent of the width, and how many standard errors the row's is away from it."""
    known = cell["along"] == "width" and has_theory(name, cell, training)
    theory = theory_exponent(name, cell["activation"], cell["depth"], cell["parameterization"]) if known else np.nan
    error = row["standard_error"]
    return {"theory_exponent": theory, "z_score": (row["exponent"] - theory) / error if error > 0 else np.nan}
