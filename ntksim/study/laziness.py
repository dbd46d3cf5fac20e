"""Lazy or rich: a verdict for every network and width, and the numbers behind it.

A network is lazy where training leaves its kernel, and with it its linearisation, as they were (Chizat et al. 2019), and rich
where the kernel it ends with is another one. Between the two lies a crossover, which in the ntk and notes
parameterizations is one in sqrt(width) x output_scale (Geiger et al. 2020).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ntksim.study.columns import QUANTITIES, quantities
from ntksim.study.config import Study
from ntksim.study.network_options import family
from ntksim.study.seed_statistics import cells, usable

# Of the kernel drift, and of the distance from the linearised network in units of the targets: below the first is lazy.
LAZY = 0.1
# Kernel drift from which on a network is rich: its kernel has changed by as much as it was.
RICH = 1.0
MOST_EXCLUDED = 0.25  # of the seeds of a network and width that has a verdict


def verdict(kernel_drift: float, deviation: float) -> str:
    """Of a seed: lazy, rich or between; none where the numbers are not finite.

    ``kernel_drift`` is ||K_T - K_0|| / ||K_0||, ``deviation`` the largest distance from the linearised network, root mean
    square over points, in units of the targets' root mean square.
    """
    if not np.isfinite([kernel_drift, deviation]).all():
        return "none"
    if kernel_drift >= RICH:
        return "rich"
    return "lazy" if max(kernel_drift, deviation) < LAZY else "between"


def lazy_table(study: Study, final: pd.DataFrame, targets: np.ndarray) -> pd.DataFrame:
    """A row per network and width: the coordinates of the phase diagram, what moved, test losses, and the verdict.

    The verdict is lazy or rich where more than half of the seeds that finished are, and else between: a single seed decides
    nothing. It is undecided where more than `MOST_EXCLUDED` of the seeds did not finish: those are the rich ones. Under
    batches, whose noise no linearised network shares, it rests on the kernel drift alone.

    ``final`` is the table of that name and ``targets`` (n,) or (n, k) those of training.
    """
    unit = float(np.sqrt(np.mean(np.square(targets)))) or 1.0
    rows = []
    for cell, group in cells(final, "width"):
        rows.append(cell | _row(study, cell, group, unit))
    return pd.DataFrame(rows)


def _row(study: Study, cell: Mapping[str, Any], group: pd.DataFrame, unit: float) -> dict[str, object]:
    scale = study.networks[cell["network"]].output_scale
    scaled = np.sqrt(cell["width"]) * scale if cell["parameterization"] in ("ntk", "notes") else np.nan
    seeds = group[group["status"] == "finished"]
    apart = seeds[["largest_linearized_deviation", "largest_test_linearized_deviation"]].max(axis=1, skipna=False) / unit
    of_seeds = [
        verdict(drift, 0.0 if study.trains_in_batches else deviation)
        for drift, deviation in zip(seeds["kernel_drift"], apart, strict=True)
    ]
    known = [word for word in of_seeds if word != "none"]
    shares = {word: known.count(word) / len(known) if known else np.nan for word in ("lazy", "rich")}
    found = next((word for word, share in shares.items() if share > 0.5), "between" if known else "none")
    undecided = 0 < len(seeds) < (1 - MOST_EXCLUDED) * len(group)
    return {
        "family": family(cell["network"]),
        "output_scale": scale,
        "scaled_width": scaled,
        "verdict": "undecided" if undecided else found,
        **{f"{word}_share": share for word, share in shares.items()},
        "count": len(seeds),
        "excluded": len(group) - len(seeds),
        **{name: _STATISTICS[QUANTITIES[name].statistic](usable(group, name)) for name in quantities("lazy")},
    }


def _over_seeds(statistic: Callable[..., Any]) -> Callable[[np.ndarray], float]:
    return lambda values: float(statistic(values)) if len(values) else np.nan


_STATISTICS = {"mean": _over_seeds(np.mean), "median": _over_seeds(np.median)}
