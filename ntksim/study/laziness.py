"""Lazy or rich: a verdict for every network and width, and the numbers behind it.

A network is lazy where training leaves its kernel, and with it its linearisation, as they were (Chizat et al. 2019), and rich
where the kernel it ends with is another one. Between the two lies a crossover, which in the ntk and notes
parameterizations is one in sqrt(width) x output_scale (Geiger et al. 2020). Whatever has hardly trained has hardly moved, and
is no more lazy for that: it is untrained.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ntksim.study.columns import QUANTITIES, quantities
from ntksim.study.config import Study
from ntksim.study.network_options import family
from ntksim.study.seed_statistics import cells, counts, usable

# Of the kernel drift, and of the distance from the linearised network in units of the targets: below the first is lazy.
LAZY = 0.1
# Kernel drift from which on a network is rich: its kernel has changed by as much as its own norm.
RICH = 1.0
UNTRAINED = 0.5  # more of the loss than this share is left
UNDECIDED = 0.25  # no verdict on a network and width of which a larger share of seeds did not finish
_OF_SEEDS = ("rich", "untrained", "lazy")  # what more than half of the seeds have to be
VERDICTS = (*_OF_SEEDS, "between", "undecided", "none")


def verdict(kernel_drift: float, deviation: float, loss_left: float) -> str:
    """Of a seed: rich, untrained, lazy or between; none where the numbers are not finite.

    ``kernel_drift`` is ||K_T - K_0|| / ||K_0||, ``deviation`` the largest distance from the linearised network, root mean
    square over points, in units of the targets' root mean square, ``loss_left`` the loss at the end over that at the start.
    A kernel that has become another one has, however much of the loss is left: rich comes first.
    """
    if not np.isfinite([kernel_drift, deviation, loss_left]).all():
        return "none"
    if kernel_drift >= RICH:
        return "rich"
    if loss_left > UNTRAINED:
        return "untrained"
    return "lazy" if max(kernel_drift, deviation) < LAZY else "between"


def lazy_table(study: Study, final: pd.DataFrame) -> pd.DataFrame:
    """A row per network and width: the coordinates of the phase diagram, what moved, test losses, and the verdict.

    The verdict is rich, untrained or lazy where more than half of the seeds that finished are, and else between: a single seed
    decides nothing. It is undecided where more than `UNDECIDED` of the seeds did not finish: those are the rich ones. Under
    batches, whose noise no linearised network shares, lazy rests on the kernel drift alone.

    ``final`` is the table of that name.
    """
    return pd.DataFrame([cell | _row(study, cell, group) for cell, group in cells(final, "width")])


def _row(study: Study, cell: Mapping[str, Any], group: pd.DataFrame) -> dict[str, object]:
    scale = study.networks[cell["network"]].output_scale
    scaled = np.sqrt(cell["width"]) * scale if cell["parameterization"] in ("ntk", "notes") else np.nan
    seeds = group[group["status"] == "finished"]
    apart = 0.0 * seeds["kernel_drift"] if study.trains_in_batches else seeds["relative_linearized_deviation"]
    of_seeds = [verdict(*numbers) for numbers in zip(seeds["kernel_drift"], apart, seeds["loss_left"], strict=True)]
    known = [word for word in of_seeds if word != "none"]
    shares = {word: known.count(word) / len(known) if known else np.nan for word in _OF_SEEDS}
    found = next((word for word, share in shares.items() if share > 0.5), "between" if known else "none")
    undecided = 0 < len(seeds) < (1 - UNDECIDED) * len(group)
    return {
        "family": family(cell["network"]),
        "output_scale": scale,
        "scaled_width": scaled,
        "verdict": "undecided" if undecided else found,
        **{f"{word}_share": share for word, share in shares.items()},
        **counts(len(seeds), len(group)),
        **{name: _STATISTICS[QUANTITIES[name].statistic](usable(group, name)) for name in quantities("lazy")},
    }


def _over_seeds(statistic: Callable[..., Any]) -> Callable[[np.ndarray], float]:
    return lambda values: float(statistic(values)) if len(values) else np.nan


_STATISTICS = {"mean": _over_seeds(np.mean), "median": _over_seeds(np.median)}
