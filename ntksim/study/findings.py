"""What a study found, in sentences that are made from its tables: none of them stands where a table says otherwise."""

import numpy as np
import pandas as pd

from ntksim.study import laziness
from ntksim.study.drift_parts import PARTS
from ntksim.study.scaling_laws import is_asymptotic

# What theory says, and why no fit at finite widths need agree with it.
FLIPS = (
    "(asymptotic): where gates flip (relu, leaky_relu, abs) theory's exponents are those of very large widths. Flips move the "
    "kernel by a random part, -3/4, and since gates do not shut as often as they open, by one that all seeds share, -1/2, which "
    "wins in the end; the part of smooth networks, -1, is there besides. At which widths which of them wins depends on the data: "
    "fits mix them, and a z-score says how far the study's widths are from the end, not that theory fails."
)
_MEANINGS = (
    f"rich: kernel drift of {laziness.RICH:g} or more; untrained: more than {laziness.UNTRAINED:g} of the loss left; lazy: "
    f"kernel drift and, but for batches, distance from the linearised network below {laziness.LAZY:g}"
)


def has_asymptotic_laws(laws: pd.DataFrame) -> bool:
    """Whether `FLIPS` has to be said."""
    keys = laws[["quantity", "activation", "parameterization"]].itertuples(index=False)
    return any(is_asymptotic(*key) for key in keys)


def overtaking(drift: pd.DataFrame) -> str | None:
    """Where the systematic part of one network's kernel drift is the larger one; None if it has no parts.

    ``drift`` holds that network's rows of the table.
    """
    parts = [drift[drift["quantity"] == name].set_index("width").sort_index() for name in PARTS]
    systematic, random = (part[part["root_mean_square"].notna()] for part in parts)
    if systematic.empty:
        return None
    larger = systematic["root_mean_square"] > random["root_mean_square"]
    apart = systematic["interval_low"] > random["interval_high"]
    told = larger.any() and systematic["interval_low"].notna().any()  # of few seeds there are no intervals
    beyond = f" (95% intervals apart {_where(apart)})" if told else ""
    return f"its systematic part is larger than the random one {_where(larger)}{beyond}"


def _where(holds: pd.Series) -> str:
    """At which widths, the index, something holds."""
    widths = [int(width) for width in holds.index[holds]]
    if not widths:
        return "at no width"
    if len(widths) == 1:
        return f"at width {widths[0]}"
    if len(widths) == len(holds):
        return "at every width"
    if holds.to_numpy()[-len(widths) :].all():
        return f"from width {widths[0]} on"
    return f"at widths {', '.join(map(str, widths))}"


def verdicts(lazy: pd.DataFrame) -> list[str]:
    """The verdicts and their meaning, then a line per verdict: the networks and widths that have it."""
    lines = [f"Verdicts ({_MEANINGS}):"]
    for word in laziness.VERDICTS:
        holds = {
            name: own.set_index("width")["verdict"].sort_index() == word for name, own in lazy.groupby("network", sort=False)
        }
        cells = [f"{network!s} {_where(own)}" for network, own in holds.items() if own.any()]
        lines += [f"{word}: {'; '.join(cells)}"] if cells else []
    return lines


def accuracies(drift: pd.DataFrame, test_points: int) -> str | None:
    """The share of test points told their class at the largest width of one network; None where targets are no classes."""
    widest = drift[drift["width"] == drift["width"].max()].set_index("quantity")
    count = int(widest["count"].get("test_accuracy", 0))
    if not count:
        return None
    names = ("test_accuracy", "test_linearized_accuracy", "test_limit_closed_form_accuracy")
    own, linearized, limit = (f"{widest.loc[name, 'mean']:.3f}" for name in names)
    error = widest.loc["test_accuracy", "standard_error"]
    spread = "" if np.isnan(error) else f" (standard error {error:.2g})"
    return (
        f"mean test accuracy {own}{spread} over {count} seeds, on {test_points} test points; linearised {linearized}, "
        f"with K_inf {limit}"
    )
