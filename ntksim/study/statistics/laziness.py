"""Lazy or rich: a verdict on every network and width, with the numbers behind it.

A network is lazy if training hardly changes its kernel, so that it stays close to its linearisation (Chizat et al. 2019). It is
rich if training changes its kernel by as much as the kernel's norm. Between the two lies a crossover; in the ntk and notes
parameterizations its variable is sqrt(width) x output_scale (Geiger et al. 2020). A network that has hardly trained has hardly
moved; it is called untrained, not lazy.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ntksim.study.config.axes import family
from ntksim.study.config.stages import in_batches
from ntksim.study.config.study import Study
from ntksim.study.statistics.columns import QUANTITIES, quantities
from ntksim.study.statistics.seeds import cells, counts, usable

# A seed is lazy if its kernel drift, and its distance from the linearised network in units of the targets, are below this.
LAZY = 0.1
# A seed is rich if its kernel drift is at least this: the kernel has changed by as much as its norm.
RICH = 1.0
UNTRAINED = 0.5  # a seed is untrained if a larger share of its initial loss is left
UNDECIDED = 0.25  # a network and width is undecided if a larger share of its seeds did not finish
_SEED_VERDICTS = ("rich", "untrained", "lazy")  # verdicts that need more than half of the seeds
VERDICTS = (*_SEED_VERDICTS, "between", "undecided", "none")


def verdict(kernel_drift: float, deviation: float, loss_left: float) -> str:
    """Verdict on one seed: rich, untrained, lazy or between; none if a number is not finite.

    ``kernel_drift`` is ||K_T - K_0|| / ||K_0||. ``deviation`` is the largest distance from the linearised network during
    training, root mean square over points, in units of the targets' root mean square, or of 1 under logistic and softmax losses.
    ``loss_left`` is the final loss divided by the initial loss. A seed whose kernel has changed this much is rich even if most of
    its loss is left, so rich is tested first.
    """
    if not np.isfinite([kernel_drift, deviation, loss_left]).all():
        return "none"
    if kernel_drift >= RICH:
        return "rich"
    if loss_left > UNTRAINED:
        return "untrained"
    return "lazy" if max(kernel_drift, deviation) < LAZY else "between"


def lazy_table(study: Study, final: pd.DataFrame) -> pd.DataFrame:
    """A row per network and width: coordinates in the phase diagram, measures of movement, test losses, and the verdict.

    The verdict is rich, untrained or lazy if more than half of the finished seeds are; otherwise it is between. It is undecided
    if a share of more than `UNDECIDED` of the seeds did not finish, since those are often the rich ones. If training uses
    batches, lazy depends on the kernel drift alone, since the linearised network is trained without the noise of the batches.
    So it does with weight decay and layer rates that differ, under which the linearised network is not known.

    ``final`` is the table ``final``.
    """
    return pd.DataFrame([cell | _row(study, cell, group) for cell, group in cells(final, "width")])


def _row(study: Study, cell: Mapping[str, Any], group: pd.DataFrame) -> dict[str, object]:
    scale = study.networks[cell["network"]].output_scale
    scaled = np.sqrt(cell["width"]) * scale if cell["parameterization"] in ("ntk", "notes") else np.nan
    seeds = group[group["status"] == "finished"]
    assert study.training is not None
    batches = in_batches(study.training.batch_size, cell["train_points"])  # the smallest data set may train on all points at once
    alone = batches or not study.training.has_linearized
    deviations = 0.0 * seeds["kernel_drift"] if alone else seeds["relative_linearized_deviation"]
    verdicts = [verdict(*numbers) for numbers in zip(seeds["kernel_drift"], deviations, seeds["loss_left"], strict=True)]
    known = [word for word in verdicts if word != "none"]
    shares = {word: known.count(word) / len(known) if known else np.nan for word in _SEED_VERDICTS}
    found = next((word for word, share in shares.items() if share > 0.5), "between" if known else "none")
    undecided = 0 < len(seeds) < (1 - UNDECIDED) * len(group)
    return {
        "family": family(cell["network"]),
        "scaled_width": scaled,
        "verdict": "undecided" if undecided else found,
        **{f"{word}_share": share for word, share in shares.items()},
        **counts(len(seeds), len(group)),
        **{name: _STATISTICS[QUANTITIES[name].statistic](usable(group, name)) for name in quantities("lazy")},
    }


def _over_seeds(statistic: Callable[..., Any]) -> Callable[[np.ndarray], float]:
    return lambda values: float(statistic(values)) if len(values) else np.nan


_STATISTICS = {"mean": _over_seeds(np.mean), "median": _over_seeds(np.median)}
