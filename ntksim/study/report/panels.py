"""Layout that all figures share, and the writing of figures to files.

The colours are those of Okabe & Ito, which readers with any colour vision can distinguish. Markers also distinguish the lines in
black-and-white print.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from ntksim.study.files.storage import atomic
from ntksim.study.report import losses
from ntksim.study.statistics.columns import QUANTITIES, quantities
from ntksim.study.statistics.scaling_laws import is_asymptotic, theory_exponent
from ntksim.study.statistics.seeds import MOST_EXCLUDED

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*X"  # one more than the colours, so that 56 lines get different pairs of colour and marker
_DODGE = 0.025  # the shift between neighbouring lines, as a share of the axis
STARRED = f"more than {MOST_EXCLUDED:.0%} of the seeds left out"


def colour(line: int) -> str:
    """Colour of a line, given its index in the panel."""
    return _COLOURS[line % len(_COLOURS)]


def style(line: int) -> dict[str, Any]:
    """Colour and marker of a line, given its index in the panel."""
    return {"color": colour(line), "marker": _MARKERS[line % len(_MARKERS)]}


def per_network(
    table: pd.DataFrame, *, legend_columns: int = 1, legend_above: bool = False
) -> tuple[plt.Figure, Iterator[tuple[Axes, pd.DataFrame]]]:
    """A figure with a panel per network, at most three in a row, and pairs of a panel and the network's rows in the table.

    Titles and legends are added while the pairs are iterated over.
    """
    names = list(dict.fromkeys(table["network"]))
    columns = len(names) if len(names) <= 3 else 2 if len(names) == 4 else 3
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.2 * columns, 3.4 * lines), squeeze=False, layout="constrained")
    for axis in axes.flat[len(names) :]:
        axis.remove()

    def fill() -> Iterator[tuple[Axes, pd.DataFrame]]:
        for axis, name in zip(axes.flat, names, strict=False):
            yield axis, table[table["network"] == name]
            axis.set_title(name, fontsize=10)
            legend(axis, above=legend_above, columns=legend_columns)

    return figure, fill()


def logarithmic(axis: Axes, x_label: str, y_label: str) -> None:
    """Make both axes logarithmic and label them; write a note instead if no point in the panel is positive."""
    drawn = [np.asarray(line.get_xydata(), np.float64) for line in axis.get_lines()]
    if any((points > 0).all(axis=1).any() for points in drawn):
        axis.set_xscale("log")
        axis.set_yscale("log")
    else:
        note(axis)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(visible=True, which="major", linewidth=0.4, color="0.85")


def time_label(table: pd.DataFrame) -> str:
    """What an axis of relative times says."""
    return f"time ${losses.scaled_time(table.attrs)}$, dimensionless"


def legend(axis: Axes, *, above: bool = False, columns: int = 1) -> None:
    """Add a legend where it covers least of the panel, framed so that lines behind it are not mistaken for its entries.

    With ``above`` it is placed over the panel, without a frame, below the panel's title.
    """
    if not axis.get_legend_handles_labels()[0]:
        return
    if not above:
        axis.legend(fontsize=8, loc="best", ncols=columns)
        return
    earlier = axis.get_legend()
    title = axis.get_title() or (earlier.get_title().get_text() if earlier else "")
    axis.set_title("")
    axis.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), frameon=False, title=title, title_fontsize=10,
                alignment="left", ncols=columns)  # fmt: skip


def whole_numbers(axis: Axes, last: int) -> None:
    """Put ticks at whole numbers on a logarithmic axis from 1 to ``last``: at all of them up to 6, else at 1, 2, 5, 10, ..."""
    decades = [step * 10**power for power in range(len(str(last))) for step in (1, 2, 5)]
    ticks = range(1, last + 1) if last <= 6 else [tick for tick in decades if tick <= last]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.xaxis.set_minor_locator(NullLocator())


def note(axis: Axes, text: str = "no values to draw") -> None:
    """Say in the panel why nothing is drawn."""
    axis.text(0.5, 0.5, text, ha="center", transform=axis.transAxes)


def rounding(precision: str) -> float:
    """The largest relative error or change that may be rounding alone, such as that of a model that is linear from the start."""
    return 16 * float(np.finfo(precision).eps)


def dodged(widths: pd.Series, every: Iterable[int], line: int, lines: int) -> pd.Series:
    """Widths at which to draw one of several lines, shifted by a factor so that markers at the same width lie side by side.

    ``every``: all widths on the axis. The shifts are symmetric, and all of them together stay closer than neighbouring widths.
    """
    at = np.log(sorted(set(every)))
    span, gap = (at[-1] - at[0], np.diff(at).min()) if len(at) > 1 else (np.log(2.0), np.log(2.0))
    step = min(_DODGE * span, 0.6 * gap / lines)
    return widths * np.exp(step * (line - (lines - 1) / 2))


def against_width(table: pd.DataFrame, laws: pd.DataFrame, labels: dict[str, str], *, one_scale: bool = False) -> plt.Figure:
    """Root mean squares over seeds against width, with power-law fits, log-log; a row per quantity and a column per depth.

    ``labels`` gives the quantities and their axis labels. Bars are 95% intervals, which are missing if there are too few seeds.
    Each network has the slope of its theory as a dotted line of its colour, through its widest point. Values that may be
    rounding alone (`rounding`) are marked at the foot of the panel. Each row has a scale, or with ``one_scale`` all rows share
    one.
    """
    depths, names = sorted(table["depth"].unique()), list(dict.fromkeys(table["network"]))
    size = (4.7 * len(depths), 4.0 * len(labels))
    figure, axes = plt.subplots(
        len(labels), len(depths), figsize=size, sharey="all" if one_scale else "row", squeeze=False, layout="constrained"
    )
    floor = rounding(table.attrs["config"]["precision"])
    for row, (quantity, label) in enumerate(labels.items()):
        known = not losses.decays(table.attrs) or quantity in quantities("convergence")
        has_points = (table.loc[table["quantity"] == quantity, "root_mean_square"] > floor).any()
        for axis, depth in zip(axes[row], depths, strict=True):
            panel = table[(table["quantity"] == quantity) & (table["depth"] == depth)]
            shown = list(dict.fromkeys(panel["network"]))
            for name in shown:
                law = laws[(laws["network"] == name) & (laws["quantity"] == quantity) & (laws["along"] == "width")]
                rows = panel[panel["network"] == name].sort_values("width")
                at = dodged(rows["width"], panel["width"], shown.index(name), len(shown))
                _line(axis, rows.assign(at=at), law, names.index(name), floor, known)
            if has_points:
                axis.set_yscale("log")
            if not (panel["root_mean_square"] > floor).any():
                note(axis, "0 up to rounding" if (panel["root_mean_square"] <= floor).any() else "no values to draw")
            if len(panel):
                width_axis(axis, panel)
            axis.set_title(f"{depth} hidden layer{'s' if depth > 1 else ''}", fontsize=10)
            axis.grid(visible=True, which="major", linewidth=0.4, color="0.85")
            legend(axis, above=True)
        axes[row][0].set_ylabel(label)
        if not has_points:
            axes[row][0].set_yticks([], minor=False)
            axes[row][0].set_yticks([], minor=True)
    return figure


def _line(axis: Axes, rows: pd.DataFrame, law: pd.DataFrame, line: int, floor: float, known: bool) -> None:
    """Draw one network's points with intervals, its fitted power law if there is one, and the slope of its theory if it is known.

    ``rows`` has the places of the points in a column ``at``.
    """
    label, widths = str(rows["network"].iloc[0]), rows["width"]
    point = rows["root_mean_square"].where(rows["root_mean_square"] > floor)
    if len(law) and point.notna().all():
        fit = law.iloc[0]
        interval = "" if np.isnan(fit["interval_low"]) else f" [{fit['interval_low']:.2f}, {fit['interval_high']:.2f}]"
        label = f"{label}: $m^{{{fit['exponent']:.2f}}}${interval}".replace("-", "−")
        axis.plot(widths, fit["prefactor"] * widths ** fit["exponent"], color=colour(line), linewidth=1.0)
    slope, drawn = _theory(rows, law) if known else np.nan, point.notna()
    if not np.isnan(slope) and drawn.any():
        quantity, parameterization = rows.iloc[0][["quantity", "parameterization"]]
        far = " (asymptotic)" if is_asymptotic(quantity, slope, parameterization) else ""
        label += f"; theory $m^{{{slope:.3g}}}${far}".replace("-", "−")
        widest = point[drawn].index[-1]
        axis.plot(widths, point[widest] * (widths / widths[widest]) ** slope, ":", color=colour(line), linewidth=1.2)
    reach = bars(point, rows["root_mean_square_low"], rows["root_mean_square_high"])
    axis.errorbar(rows["at"], point, yerr=reach, label=label, capsize=2, linestyle="none", markersize=4, **style(line))
    mark(axis, rows["at"], point, rows["marked"])
    for place in rows.loc[rows["root_mean_square"] <= floor, "at"]:  # 0 or rounding: a hollow marker at the lower end instead
        foot = axis.get_xaxis_transform()
        axis.plot(place, 0.0, transform=foot, clip_on=False, zorder=3, markersize=5, markerfacecolor="white", **style(line))


def _theory(rows: pd.DataFrame, law: pd.DataFrame) -> float:
    """Theory's exponent for the quantity of one network's rows, also where no law could be fitted; NaN if there is none."""
    if len(law):
        return float(law.iloc[0]["theory_exponent"])
    quantity, activation, depth, parameterization = rows.iloc[0][["quantity", "activation", "depth", "parameterization"]]
    if QUANTITIES[quantity].law is None or quantity.endswith("_deviation"):  # which has none if training uses batches
        return np.nan
    return theory_exponent(quantity, activation, depth, parameterization)


def bars(point: pd.Series, low: pd.Series, high: pd.Series) -> np.ndarray:
    """Lengths of the error bars below and above each point, (2, points)."""
    return np.maximum([point - low, high - point], 0.0)


def mark(axis: Axes, x: pd.Series, y: pd.Series, marked: pd.Series) -> None:
    """Put a star to the left of every point that leaves out too many seeds (``marked``), and explain it in the legend."""
    points = np.stack([x, y], axis=1)[marked.to_numpy(dtype=bool)]
    for point in points[np.isfinite(points).all(axis=1)]:
        axis.annotate("*", point, xytext=(-8, -6), textcoords="offset points", ha="center", fontsize=12, annotation_clip=False)
    if len(points) and STARRED not in axis.get_legend_handles_labels()[1]:
        axis.plot([], [], linestyle="none", marker="$*$", color="black", label=STARRED)


def width_axis(axis: Axes, rows: pd.DataFrame) -> None:
    """Make the horizontal axis one of widths: logarithmic, with ticks at the widths of the rows."""
    widths = sorted(rows["width"].unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(widths, [str(width) for width in widths], minor=False, rotation=45)
    axis.set_xlabel("width $m$ (neurons per hidden layer)")


def save(figure: plt.Figure, paths: Iterable[str | Path]) -> None:
    """Write a figure atomically to .svg, .pdf or .png files (200 dots per inch) and close it.

    The files hold no date, so equal tables give equal files.
    """
    undated: dict[str, dict[str, Any]] = {
        ".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {"Software": None}
    }  # fmt: skip
    with matplotlib.rc_context({"svg.hashsalt": "ntksim", "svg.fonttype": "path", "pdf.fonttype": 42}):
        for path in paths:
            with atomic(path) as temporary:
                figure.savefig(temporary, dpi=200, metadata=undated[Path(path).suffix])
            figure.set_layout_engine("none")  # panels stay where they are: to place them takes a third of the time
    plt.close(figure)
