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

from ntksim.study.statistics.columns import QUANTITIES, quantities
from ntksim.study.statistics.scaling_laws import Sample, excluded, law, sample, scaling_laws, table
from ntksim.study.statistics.seeds import FEWEST, NETWORK, UNKNOWN, cells, has_logarithm, jackknife, mean_interval, usable

_EIGENVALUES = ("smallest_eigenvalue", "largest_eigenvalue", "trace")


def laws(along: Sequence[str], initial: pd.DataFrame, final: pd.DataFrame | None, *options: Any) -> pd.DataFrame:
    """The table ``scaling_laws`` along each of some variables; ``options`` are the others of `scaling_laws`."""
    found = []
    for variable in along:
        if variable == "width":
            found.append(scaling_laws(initial, final, *options))
        else:
            rows = along_points if variable == "train" else along_depth
            frames = ((initial, quantities("convergence")), (final, quantities("drift")))
            found.append(table([row for frame, names in frames if frame is not None for row in rows(frame, names)]))
    filled = [own for own in found if len(own)] or found[:1]
    return filled[0] if len(filled) == 1 else pd.concat(filled, ignore_index=True)


def along_points(frame: pd.DataFrame, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Laws in the number of training points, a row for each network, seed of the data, width and quantity.

    Quantities are those with a law in the width, losses and eigenvalues. There is none if a quantity is not positive at some
    number of points, or without one of the seeds.
    """
    chosen = [name for name in names if QUANTITIES[name].law or name.endswith("loss") or name in _EIGENVALUES]
    for cell, group in cells(frame.assign(train_points=np.nan), "width"):
        sizes = frame.loc[group.index, "train_points"]
        by_size = {int(size): group[(sizes == size).to_numpy()] for size in sorted(sizes.unique())}
        for name in chosen if len(by_size) > 1 else ():
            values = [_by_seed(rows, name) for rows in by_size.values()]
            common = sorted(set.intersection(*(set(own) for own in values)))
            numbers = np.array([[own[seed] for seed in common] for own in values]).reshape(len(values), -1)
            row = _paired(list(by_size), numbers, mean=name.endswith("loss"))
            if row is not None:
                left = {size: Sample(len(own), np.nan, np.nan) for size, own in zip(by_size, values, strict=True)}
                about = {"along": "train", "quantity": name, "widths_fitted": len(by_size)}
                yield cell | about | excluded(left, {size: len(rows) for size, rows in by_size.items()}) | row


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
    return {
        "prefactor": float(np.exp(intercept)),
        "prefactor_low": float(np.exp(of_intercept.low)),
        "prefactor_high": float(np.exp(of_intercept.high)),
        "exponent": float(slope),
        "standard_error": of_slope.error,
        "interval_low": of_slope.low,
        "interval_high": of_slope.high,
        "theory_exponent": np.nan,
        "z_score": np.nan,
    }


def along_depth(frame: pd.DataFrame, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Laws in depth / width, a row for each quantity with a law in the width and all networks that are equal but for their depth.

    Its network is called as they are, without their depths.
    """
    chosen = [name for name in names if QUANTITIES[name].law]
    same = [name for name in NETWORK if name not in ("network", "depth")]
    for _, group in frame.groupby(same, sort=False, dropna=False):
        if group["depth"].nunique() < 2:
            continue
        by_cell = dict(iter(group.groupby(["depth", "width", "network"], sort=False)))
        first = {name: group[name].iloc[0] for name in same}
        cell = {"network": _stem(group)} | first | {"depth": np.nan, "along": "depth_over_width"}
        seeds = {key: len(rows) for key, rows in by_cell.items()}
        for name in chosen:
            samples = {key: sample(usable(rows, name)) for key, rows in by_cell.items()}
            yield from law(cell, name, samples, seeds, known=False, at=lambda key: key[0] / key[1])


def _stem(group: pd.DataFrame) -> str:
    """The names of networks without their depths where that leaves one, else all of them."""
    names = dict(zip(group["network"], group["depth"], strict=True))
    stems = {f"{name}_".replace(f"_depth{depth}_", "_", 1).removesuffix("_") for name, depth in names.items()}
    return stems.pop() if len(stems) == 1 else " ".join(names)
