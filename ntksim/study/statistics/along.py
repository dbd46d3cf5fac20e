"""Power laws in other variables than the width: the number of training points, and depth / width.

Along training points the same networks (seeds) are fitted at every number of points, and training sets are nested, so values at
unlike numbers of points are not independent. The exponent's interval is therefore the jackknife's over seeds: a seed is left out
at all numbers of points at once. Losses are averaged over seeds, other quantities have their root mean squares.
Along depth / width cells are independent, as along the width.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ntksim.study.statistics.columns import QUANTITIES
from ntksim.study.statistics.scaling_laws import Sample, excluded, law, power_law, sample
from ntksim.study.statistics.seeds import FEWEST, NETWORK, SEEDS, UNKNOWN, cells, has_logarithm, jackknife, mean_interval, usable

_EIGENVALUES = ("smallest_eigenvalue", "largest_eigenvalue", "trace")


def along_points(frame: pd.DataFrame, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Laws in the number of training points, a row for each network, seed of the data, width and quantity.

    Quantities are those with a law in the width, losses and eigenvalues. There is none if a quantity is not positive at some
    number of points, or without one of the seeds.
    """
    for cell, by_size in by_points(frame):
        for name in quantities_along("train", names) if len(by_size) > 1 else ():
            values = [_by_seed(rows, name) for rows in by_size.values()]
            common = sorted(set.intersection(*(set(own) for own in values)))
            numbers = np.array([[own[seed] for seed in common] for own in values]).reshape(len(values), -1)
            row = _paired(list(by_size), numbers, mean=name.endswith("loss"))
            if row is not None:
                left = {size: Sample(len(own), np.nan, np.nan) for size, own in zip(by_size, values, strict=True)}
                about = {"averaged_over": SEEDS, "quantity": name, "widths_fitted": len(by_size)}
                yield cell | about | excluded(left, {size: len(rows) for size, rows in by_size.items()}) | row


def by_points(frame: pd.DataFrame) -> Iterator[tuple[dict[str, Any], dict[int, pd.DataFrame]]]:
    """What laws in the number of training points have in common, and their rows by that number."""
    for cell, group in cells(frame.assign(train_points=np.nan), "width"):
        sizes = frame.loc[group.index, "train_points"]
        yield cell | {"along": "train"}, {int(size): group[(sizes == size).to_numpy()] for size in sorted(sizes.unique())}


def quantities_along(variable: str, names: Sequence[str]) -> list[str]:
    """Those of some quantities that have laws in a variable: along training points losses and eigenvalues too."""
    of_points = [name for name in names if variable == "train" and (name.endswith("loss") or name in _EIGENVALUES)]
    return [name for name in names if QUANTITIES[name].law or name in of_points]


def _by_seed(rows: pd.DataFrame, name: str) -> dict[int, float]:
    """The values that statistics may use, by seed (`seeds.usable`)."""
    there = rows[(rows["status"] == "finished") & np.isfinite(rows[name])]
    return dict(zip(there["seed"].astype(int), there[name].astype(float), strict=True))


def _paired(sizes: list[int], values: np.ndarray, *, mean: bool) -> dict[str, float] | None:
    """Exponent and prefactor, with intervals, of values (sizes, seeds) of the same seeds; None if these have no logarithms."""
    power, seeds = 1 if mean else 2, values.shape[1]
    if seeds < 2:
        return None
    totals = (values**power).sum(axis=1)
    without = (totals[:, None] - values**power) / (seeds - 1)
    if not all(has_logarithm(total, others) for total, others in zip(totals, without, strict=True)):
        return None
    log_size = np.log(np.array(sizes, dtype=np.float64))
    weights = np.linalg.pinv(np.stack([log_size, np.ones_like(log_size)], axis=1))
    (slope, intercept), others = weights @ np.log(totals / seeds) / power, weights @ np.log(without) / power
    of_slope, of_intercept = (
        mean_interval(jackknife(float(estimate), own), float(estimate)) if seeds >= FEWEST else UNKNOWN
        for estimate, own in zip((slope, intercept), others, strict=True)
    )
    return power_law(slope, intercept, of_slope, of_intercept) | {"theory_exponent": np.nan, "z_score": np.nan}


def along_depth(frame: pd.DataFrame, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Laws in depth / width, a row for each quantity with a law in the width and all networks that are equal but for their depth.

    Its network is called as they are, without their depths.
    """
    for cell, by_cell in by_depths(frame):
        seeds = {key: len(rows) for key, rows in by_cell.items()}
        for name in quantities_along("depth_over_width", names):
            samples = {key: sample(usable(rows, name)) for key, rows in by_cell.items()}
            for row in law(cell, name, samples, seeds, known=False, at=depth_over_width):
                yield row | {"averaged_over": SEEDS}


def by_depths(frame: pd.DataFrame) -> Iterator[tuple[dict[str, Any], dict[Any, pd.DataFrame]]]:
    """What laws in depth / width have in common, and their rows by depth, width and network."""
    same = [name for name in NETWORK if name not in ("network", "depth")]
    for _, group in frame.groupby(same, sort=False, dropna=False):
        if group["depth"].nunique() > 1:
            first = {name: group[name].iloc[0] for name in same}
            cell = {"network": _stem(group)} | first | {"depth": np.nan, "along": "depth_over_width"}
            yield cell, dict(iter(group.groupby(["depth", "width", "network"], sort=False)))


def depth_over_width(key: tuple[int, int, str]) -> float:
    """Depth / width of a key of `by_depths`."""
    return key[0] / key[1]


def _stem(group: pd.DataFrame) -> str:
    """The names of networks without their depths where that leaves one, else all of them."""
    names = dict(zip(group["network"], group["depth"], strict=True))
    stems = {f"{name}_".replace(f"_depth{depth}_", "_", 1).removesuffix("_") for name, depth in names.items()}
    return stems.pop() if len(stems) == 1 else " ".join(names)
