"""What a study found, in sentences. All are made from the study's tables, so none can contradict a table."""

import numpy as np
import pandas as pd

from ntksim.study.report import losses
from ntksim.study.statistics import laziness
from ntksim.study.statistics.columns import REMEDIES
from ntksim.study.statistics.drift_parts import ERROR_PARTS, PARTS
from ntksim.study.statistics.scaling_laws import is_asymptotic
from ntksim.study.statistics.seeds import DATA, MOST_EXCLUDED

# What theory says about kinked activations, and why a fit at finite widths need not agree with it.
FLIPS = (
    "(asymptotic): where gates flip (activations with a kink, such as ReLU), theory's exponents hold for very large widths only. "
    "Three parts add up at finite widths. The flips move the kernel by a random part with exponent -3/4. Gates do not close as "
    "often as they open, which moves it by a systematic part with exponent -1/2, the same for all seeds; this part dominates at "
    "very large widths. The part that smooth activations have too falls with exponent -1. Which part dominates at which width "
    "depends on the data, and a fit mixes them. A large z-score here shows that the study's widths are not yet asymptotic, not "
    "that theory fails."
)
_OVER_DEPTHS = {
    "relative_frobenius_error": "kernel's distance from its infinite-width limit",
    "kernel_drift": "kernel's drift",
    "kernel_dispersion_minus_1": "kernel's dispersion E[K^2] / E[K]^2 - 1 on the diagonal",
    "first_step_change": "kernel's mean relative change by a first step",
}
_MEANINGS = (
    f"rich: kernel drift of {laziness.RICH:g} or more; untrained: more than {laziness.UNTRAINED:g} of the loss left; lazy: "
    f"kernel drift and, where it is known and training uses no batches, distance from the linearised network below "
    f"{laziness.LAZY:g}; between: none of these"
)


def mark(row: pd.Series) -> str:
    """A star, to be written after a number, if its row leaves out too many seeds (column ``marked``); else nothing."""
    return "*" if row["marked"] else ""


def stops(initial: pd.DataFrame, final: pd.DataFrame | None) -> list[str]:
    """Lines on the networks that did not finish and are left out of all statistics; empty if all finished.

    For each stage the lines give their number, why and when they stopped, and their names and widths. Then come the remedies.
    ``initial`` and ``final`` are the tables of these names; ``final`` is None in a study without training.
    """
    lines, statuses = [], []
    for table, stage in ((initial, "at initialisation"), (final, "in training")):
        bad = None if table is None else table[table["status"] != "finished"]
        if table is None or bad is None or bad.empty:
            continue
        statuses += list(bad["status"])
        why = ", ".join(f"{count} {status}" for status, count in bad["status"].value_counts().items())
        lines.append(
            f"Left out of the statistics {stage}: {len(bad)} of {len(table)} networks ({why}){_when(bad)}: {_cells(bad)}"
        )
        shares = (table["status"] != "finished").groupby([table[name] for name in (*DATA, "network", "width")]).transform("mean")
        if (shares > MOST_EXCLUDED).any():
            lines.append(
                f"* more than {MOST_EXCLUDED:.0%} of the seeds are left out of {_cells(table[shares > MOST_EXCLUDED])}. Seeds "
                "that stop early are often those that move most: without them numbers are biased, and intervals do not show this "
                "bias."
            )
    remedies = {status: REMEDIES[status] for status in dict.fromkeys(statuses) if status in REMEDIES}
    return lines + [f"For {status}: {remedy}." for status, remedy in remedies.items()]


def _cells(rows: pd.DataFrame) -> str:
    """The networks and widths in some rows: the first five by name, the others as a number."""
    cells = [f"{network} at width {width}" for network, width in dict.fromkeys(zip(rows["network"], rows["width"], strict=True))]
    return ", ".join(cells[:5]) + (f" and {len(cells) - 5} more cells" if len(cells) > 5 else "")


def _when(bad: pd.DataFrame) -> str:
    """When the seeds stopped, if their table is one of training."""
    if "relative_time_reached" not in bad:
        return ""
    first, last = (f"{end:.3g}" for end in (bad["relative_time_reached"].min(), bad["relative_time_reached"].max()))
    return f", which stopped after t = {first if first == last else f'{first} to {last}'} / {losses.unit(bad.attrs)}"


def has_asymptotic_laws(laws: pd.DataFrame) -> bool:
    """Whether any law's theory is asymptotic, so that `FLIPS` is needed to explain it."""
    keys = laws[["quantity", "theory_exponent", "parameterization"]].itertuples(index=False)
    return any(is_asymptotic(*key) for key in keys)


def overtaking(drift: pd.DataFrame) -> str | None:
    """At which widths the systematic part of a network's kernel drift exceeds the random part; None if there are no parts.

    ``drift`` holds this network's rows of the table ``drift``.
    """
    parts = [drift[drift["quantity"] == name].set_index("width").sort_index() for name in PARTS]
    systematic, random = (part[part["root_mean_square"].notna()] for part in parts)
    if systematic.empty:
        return None
    larger = systematic["root_mean_square"] > random["root_mean_square"]
    apart = systematic["interval_low"] > random["interval_high"]
    has_intervals = systematic["interval_low"].notna().any()  # few seeds have none
    beyond = f" (95% intervals apart {_where(apart)})" if larger.any() and has_intervals else ""
    return f"its systematic part is larger than the random one {_where(larger)}{beyond}"


def bias(convergence: pd.DataFrame) -> str | None:
    """How much of one network's error is bias, at the narrowest width, and where it is told from 0; None of few seeds.

    ``convergence`` holds that network's rows of the table.
    """
    rows = [convergence[convergence["quantity"] == name].set_index("width").sort_index() for name in ERROR_PARTS]
    own, scatter = (part[part["interval_low"].notna()] for part in rows)
    if own.empty or scatter.empty:
        return None
    first = own.iloc[0]
    size, low, high = first["root_mean_square"], first["interval_low"], first["interval_high"]
    share = size**2 / (size**2 + scatter["root_mean_square"].iloc[0] ** 2)
    exact = ", in theory 0" if first["exact_root_mean_square"] == 0 else ""
    return (
        f"its bias at width {own.index[0]} is {size:.2g} [{low:.2g}, {high:.2g}], {share:.0%} of the squared error{exact}; it is "
        f"told from 0 at {(own['interval_low'] > 0).sum()} of {len(own)} widths (by chance alone at 1 in 20)"
    )


def off_theory(convergence: pd.DataFrame, laws: pd.DataFrame) -> str | None:
    """Whether the bias moves the fitted power of one network's error off theory's; None where intervals do not tell.

    The arguments hold that network's rows of the tables. Squares of bias and scatter add up to the error's, so a scatter that
    misses theory too shows that it is not the bias alone. Of one hidden layer the power is exact and there is no bias: None.
    """
    own = convergence[convergence["quantity"] == ERROR_PARTS[0]].sort_values("width")
    if (own["exact_root_mean_square"] == 0).any():
        return None
    known = {law["quantity"]: law for _, law in laws[laws["along"] == "width"].iterrows()}
    if not {"relative_frobenius_error", ERROR_PARTS[1]} <= set(known):
        return None
    error, scatter = known["relative_frobenius_error"], known[ERROR_PARTS[1]]
    if not _side(error) or np.isnan(scatter["interval_low"]):
        return None
    without = f"the scatter without it scales as the width to the power {_power(scatter)}"
    if _side(scatter) == _side(error):
        return f"bias alone does not explain the power {error['exponent']:+.2f}: {without}"
    # A bias that falls faster than the scatter makes the error steeper, never flatter.
    if _side(scatter) or _side(error) > 0 or not own["interval_low"].iloc[0] > 0:
        return None
    falls = f"to the power {_power(known[ERROR_PARTS[0]])}" if ERROR_PARTS[0] in known else "in theory as 1/width"
    return f"bias explains the power {error['exponent']:+.2f}: {without}, as in theory; the bias falls {falls}"


def _side(law: pd.Series) -> int:
    """On which side of theory's exponent the interval of a law lies: -1 below, 1 above, 0 if it holds it or is missing."""
    return int(law["interval_low"] > law["theory_exponent"]) - int(law["interval_high"] < law["theory_exponent"])


def _where(holds: pd.Series) -> str:
    """Say at which widths a condition holds; ``holds`` is indexed by width."""
    widths = [int(width) for width in holds.index[holds]]
    if not widths:
        return "at no width"
    if len(widths) == 1:
        return f"at width {widths[0]}"
    if len(widths) == len(holds):
        return "at every width"
    if holds.to_numpy()[-len(widths) :].all():
        return f"from width {widths[0]} on"
    return f"at widths {', '.join(map(str, widths[:-1]))} and {widths[-1]}"


def verdicts(lazy: pd.DataFrame) -> list[str]:
    """A line that explains the verdicts and says of which loss, then a line per verdict with the networks and widths that have
    it.
    """
    loss = f"; trained on {losses.words(losses.name(lazy.attrs))}" if "config" in lazy.attrs else ""
    lines = [f"Verdicts ({_MEANINGS}{loss}):"]
    for word in laziness.VERDICTS:
        holds = {
            name: rows.set_index("width")["verdict"].sort_index() == word for name, rows in lazy.groupby("network", sort=False)
        }
        cells = [f"{network!s} {_where(at_widths)}" for network, at_widths in holds.items() if at_widths.any()]
        lines += [f"{word}: {'; '.join(cells)}"] if cells else []
    return lines


def theory(law: pd.Series, asymptotically: str = " (asymptotic)") -> str:
    """Theory's exponent of a law, "none" if there is none; ``asymptotically`` follows what holds at very large widths only."""
    if np.isnan(law["theory_exponent"]):
        return "none"
    asymptotic = is_asymptotic(law["quantity"], law["theory_exponent"], law["parameterization"])
    return f"{law['theory_exponent']:+.2g}{asymptotically if asymptotic else ''}"


def in_words(
    convergence: pd.DataFrame,
    laws: pd.DataFrame,
    drift: pd.DataFrame | None = None,
    lazy: pd.DataFrame | None = None,
    averages: pd.DataFrame | None = None,
) -> dict[str, list[str]]:
    """Sentences on every network: how far its kernel is from the limit, how far training moves it, verdicts and accuracies.

    The arguments are the tables of these names, two of them None in a study without training, and the laws of averages over data
    sets.
    """
    found: dict[str, list[str]] = {}
    for network in dict.fromkeys(convergence["network"]):
        errors, own_laws = convergence[convergence["network"] == network], laws[laws["network"] == network]
        split = bias(errors)
        said: list[str | None] = [_distance(errors, own_laws), split and f"the error's{split.removeprefix('its')}"]
        said.append(off_theory(errors, own_laws))
        if drift is not None and lazy is not None:
            moved = drift[drift["network"] == network]
            parts = overtaking(moved)
            said += [_movement(moved, own_laws), parts and f"of this movement the{parts.removeprefix('its')}"]
            said += [_verdicts_of(lazy[lazy["network"] == network]), accuracies(moved, drift.attrs["data"]["test"])]
        found[network] = [sentence for sentence in [*said, learning(own_laws)] if sentence]
    for more in (over_depths(laws), {} if averages is None else over_data_sets(averages)):
        for network, sentences in more.items():
            found[network] = found.get(network, []) + sentences
    return {network: [f"{sentence[:1].upper()}{sentence[1:]}." for sentence in sentences] for network, sentences in found.items()}


def _distance(convergence: pd.DataFrame, laws: pd.DataFrame) -> str:
    rows = convergence[convergence["quantity"] == "relative_frobenius_error"].sort_values("width")
    ends = [rows.iloc[index] for index in dict.fromkeys([0, len(rows) - 1])]
    sizes = " and ".join(f"{_share(row)} at width {row['width']}" for row in ends)
    return f"the kernel at initialisation differs from its infinite-width limit by {sizes}{_scaling(laws, rows)}"


def _movement(drift: pd.DataFrame, laws: pd.DataFrame) -> str:
    rows = drift[drift["quantity"] == "kernel_drift"].sort_values("width")
    widest = rows.iloc[-1]
    return f"training moves the kernel by {_share(widest)} at width {widest['width']}{_scaling(laws, rows)}"


def _share(row: pd.Series) -> str:
    """A root mean square of relative changes, in percent."""
    return f"{100 * row['root_mean_square']:.3g}%{mark(row)}" if row["count"] else "an unknown amount (no seed finished)"


def _scaling(laws: pd.DataFrame, rows: pd.DataFrame) -> str:
    """How the quantity of some rows scales with the width, as a clause; nothing if it has no law."""
    found = laws[(laws["quantity"] == rows["quantity"].iloc[0]) & (laws["along"] == "width")]
    if found.empty:
        return ""
    law = found.iloc[0]
    expected = theory(law, ", at very large widths only")
    return f". This scales as the width to the power {_power(law)} (theory: {expected}){_bend(law, rows)}"


def _bend(law: pd.Series, rows: pd.DataFrame) -> str:
    """The power between the two widest widths, as a sentence, if a law that misses theory's exponent bends there.

    Theory is of large widths, so that a fit to all widths need not meet it. ``rows`` are the law's, by width. The ends of the
    interval are joined from those at the two widths (Zou & Donner 2008). A law bends if they leave its exponent out.
    """
    usable = rows[rows["root_mean_square_low"] > 0]
    agrees = law["interval_low"] <= law["theory_exponent"] <= law["interval_high"]
    if agrees or np.isnan(law["theory_exponent"]) or np.isnan(law["interval_low"]) or len(usable) < 3:
        return ""
    size, low, high = (np.log(usable[f"root_mean_square{end}"].to_numpy()[-2:]) for end in ("", "_low", "_high"))
    below, above = size - low, high - size
    widths = usable["width"].to_numpy()[-2:]
    span = np.log(widths[1] / widths[0])
    power = (size[1] - size[0]) / span
    first, last = power - np.hypot(below[1], above[0]) / span, power + np.hypot(above[1], below[0]) / span
    if first <= law["exponent"] <= last:
        return ""
    star = max(mark(row) for _, row in usable.iloc[-2:].iterrows())
    interval = f"with a 95% interval of {first:+.2f} to {last:+.2f}"
    return f". Between widths {widths[0]} and {widths[1]} alone the power is {power:+.2f}{star}, {interval}"


def _power(law: pd.Series) -> str:
    """A law's exponent with its interval, as a clause."""
    interval = f", with a 95% interval of {law['interval_low']:+.2f} to {law['interval_high']:+.2f}"
    return f"{law['exponent']:+.2f}{mark(law)}{'' if np.isnan(law['interval_low']) else interval}"


def learning(laws: pd.DataFrame) -> str | None:
    """How a network's test loss scales with the number of training points, at each width; None if the study has no such laws.

    ``laws`` holds this network's rows of the table ``scaling_laws``.
    """
    rows = laws[(laws["along"] == "train") & (laws["quantity"] == "test_loss")].sort_values("width")
    powers = [f"{_power(law)}, at width {law['width']:.0f}" for _, law in rows.iterrows()]
    loss = f" ({losses.words(losses.name(laws.attrs))})" if powers else ""
    return f"the test loss{loss} scales as the number of training points to the power {'; '.join(powers)}" if powers else None


def over_depths(laws: pd.DataFrame) -> dict[str, list[str]]:
    """Sentences on how errors and movements scale with depth over width, by what networks are called without their depths."""
    found: dict[str, list[str]] = {}
    for _, law in laws[laws["along"] == "depth_over_width"].iterrows():
        if law["quantity"] in _OVER_DEPTHS:
            sentence = f"{_OVER_DEPTHS[law['quantity']]} scales as depth over width to the power {_power(law)}"
            found.setdefault(law["network"], []).append(f"over all depths, the {sentence}")
    return found


def over_data_sets(averages: pd.DataFrame) -> dict[str, list[str]]:
    """Sentences on laws of averages over data sets, by network: of errors and movements in the width, and of test losses."""
    found: dict[str, list[str]] = {}
    if averages.empty:
        return found
    start = f"on average over {len(averages.attrs['config']['dataset']['seed'])} data sets"
    for _, law in averages[averages["along"] != "depth_over_width"].iterrows():
        sentence = None
        if law["along"] == "width" and law["quantity"] in _OVER_DEPTHS:
            sentence = f"the {_OVER_DEPTHS[law['quantity']]} scales as the width to the power {_power(law)}"
        elif law["along"] == "train" and law["quantity"] == "test_loss":
            at = f", at width {law['width']:.0f}"
            sentence = f"the test loss scales as the number of training points to the power {_power(law)}{at}"
        if sentence is not None:
            found.setdefault(law["network"], []).append(f"{start} {sentence}")
    return found


def _verdicts_of(lazy: pd.DataFrame) -> str:
    """The verdicts on one network; ``lazy`` holds its rows of the table."""
    by_width = lazy.set_index("width")["verdict"].sort_index()
    return "verdict: " + ", ".join(f"{word} {_where(by_width == word)}" for word in laziness.VERDICTS if (by_width == word).any())


def accuracies(drift: pd.DataFrame, test_points: int) -> str | None:
    """Test accuracies of one network at its largest width; None if the targets are not classes.

    ``drift`` holds this network's rows of the table ``drift``.
    """
    widest = drift[drift["width"] == drift["width"].max()].set_index("quantity")
    count = int(widest["count"].get("test_accuracy", 0))
    if not count:
        return None
    names = ("test_accuracy", "test_linearized_accuracy", "test_limit_closed_form_accuracy")
    trained, linearized, limit = (f"{widest.loc[name, 'mean']:.3f}" for name in names)
    # not known with weight decay and layer rates that differ
    theory = "" if limit == "nan" else f"; linearised {linearized}, with K_inf {limit}"
    row = widest.loc["test_accuracy"]
    spread = ""
    if not np.isnan(row["interval_low"]):
        interval = f"{row['interval_low']:.3f} to {row['interval_high']:.3f}"
        spread = f" (standard error {row['standard_error']:.2g}, 95% interval {interval})"
    return f"mean test accuracy {trained}{mark(row)}{spread} over {count} seeds, on {test_points} test points{theory}"
