"""Panels: what all figures are laid out with, and how they are written.

Colours are Okabe & Ito's, told apart by readers with any colour vision; markers tell the same lines apart in grey print.
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

from ntksim.study.seed_statistics import MOST_EXCLUDED
from ntksim.study.storage import atomic

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*X"  # one more than colours, so that both together tell 56 lines apart
STARRED = f"more than {MOST_EXCLUDED:.0%} of the seeds left out"


def colour(place: int) -> str:
    """Of the line in a place, from 0."""
    return _COLOURS[place % len(_COLOURS)]


def style(place: int) -> dict[str, Any]:
    """Colour and marker of the line in a place."""
    return {"color": colour(place), "marker": _MARKERS[place % len(_MARKERS)]}


def per_network(table: pd.DataFrame) -> tuple[plt.Figure, Iterator[tuple[Axes, pd.DataFrame]]]:
    """A figure with a panel per network, at most three in a row, and (panel, its rows)."""
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
            legend(axis)

    return figure, fill()


def logarithmic(axis: Axes, x_label: str, y_label: str) -> None:
    """Logarithmic axes with labels; a note in place of them where nothing that was drawn has a logarithm."""
    drawn = [np.asarray(line.get_xydata(), np.float64) for line in axis.get_lines()]
    if any((points > 0).all(axis=1).any() for points in drawn):
        axis.set_xscale("log")
        axis.set_yscale("log")
    else:
        note(axis)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(visible=True, which="major", linewidth=0.4, color="0.85")


def legend(axis: Axes, *, beside: bool = False) -> None:
    """On the panel where it covers least, in a frame, through which lines are not read as its own; or beside it."""
    if axis.get_legend_handles_labels()[0]:
        place: dict[str, Any] = (
            {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False} if beside else {"loc": "best"}
        )
        axis.legend(fontsize=7, **place)


def whole_numbers(axis: Axes, last: int) -> None:
    """Ticks on a logarithmic axis from 1 to ``last``: all of a few, else 1, 2, 5, 10, ..."""
    decades = [step * 10**power for power in range(len(str(last))) for step in (1, 2, 5)]
    ticks = range(1, last + 1) if last <= 6 else [tick for tick in decades if tick <= last]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.xaxis.set_minor_locator(NullLocator())


def note(axis: Axes) -> None:
    """In place of what cannot be drawn."""
    axis.text(0.5, 0.5, "no values to draw", ha="center", transform=axis.transAxes)


def against_width(
    table: pd.DataFrame, laws: pd.DataFrame, labels: dict[str, str], guides: dict[str, float], *, one_scale: bool = False
) -> plt.Figure:
    """Root mean squares over seeds against width with their fits, log-log; a row per quantity and a column per depth.

    Bars are their 95% intervals; there are none of few seeds. Rows have a scale each, or all one.
    """
    depths, names = sorted(table["depth"].unique()), list(dict.fromkeys(table["network"]))
    size = (6.2 * len(depths), 3.6 * len(labels))
    figure, axes = plt.subplots(
        len(labels), len(depths), figsize=size, sharey="all" if one_scale else "row", squeeze=False, layout="constrained"
    )
    for row, (quantity, label) in enumerate(labels.items()):
        for axis, depth in zip(axes[row], depths, strict=True):
            panel = table[(table["quantity"] == quantity) & (table["depth"] == depth)]
            for name in dict.fromkeys(panel["network"]):
                law = laws[(laws["network"] == name) & (laws["quantity"] == quantity)]
                _line(axis, panel[panel["network"] == name].sort_values("width"), law, name, names.index(name))
            _guides(axis, panel, guides)
            axis.set_title(f"{depth} hidden layer{'s' if depth > 1 else ''}", fontsize=10)
            axis.grid(visible=True, which="major", linewidth=0.4, color="0.85")
            legend(axis, beside=True)
        axes[row][0].set_ylabel(label)
    return figure


def _line(axis: Axes, rows: pd.DataFrame, law: pd.DataFrame, name: str, place: int) -> None:
    """One network's points with intervals, and its fitted power law where there is one."""
    label = name
    if len(law):
        fit = law.iloc[0]
        interval = "" if np.isnan(fit["interval_low"]) else f" [{fit['interval_low']:.2f}, {fit['interval_high']:.2f}]"
        label = f"{name}: $m^{{{fit['exponent']:.2f}}}${interval}".replace("-", "−")
        axis.plot(rows["width"], fit["prefactor"] * rows["width"] ** fit["exponent"], color=colour(place), linewidth=1.0)
    point = rows["root_mean_square"]
    reach = bars(point, rows["root_mean_square_low"], rows["root_mean_square_high"])
    axis.errorbar(rows["width"], point, yerr=reach, label=label, capsize=3, linestyle="none", markersize=5, **style(place))
    mark(axis, rows["width"], point, rows["marked"])
    for width in rows.loc[point == 0, "width"]:  # which no logarithmic axis holds: hollow, at its foot
        foot = axis.get_xaxis_transform()
        axis.plot(width, 0.0, transform=foot, clip_on=False, zorder=3, markersize=5, markerfacecolor="white", **style(place))


def bars(point: pd.Series, low: pd.Series, high: pd.Series) -> np.ndarray:
    """Lengths of the bars below and above points (2, points)."""
    return np.maximum([point - low, high - point], 0.0)


def mark(axis: Axes, x: pd.Series, y: pd.Series, marked: pd.Series) -> None:
    """A star above the points of marked statistics, explained in the legend."""
    places = np.stack([x, y], axis=1)[marked.to_numpy(dtype=bool)]
    for place in places[np.isfinite(places).all(axis=1)]:
        axis.annotate("*", place, xytext=(0, 4), textcoords="offset points", ha="center", fontsize=12, annotation_clip=False)
    if len(places) and STARRED not in axis.get_legend_handles_labels()[1]:
        axis.plot([], [], linestyle="none", marker="$*$", color="black", label=STARRED)


def _guides(axis: Axes, panel: pd.DataFrame, guides: dict[str, float]) -> None:
    """Lines of given slopes above the data, on logarithmic axes; a note where nothing has a logarithm."""
    if not (panel["root_mean_square"] > 0).any():
        note(axis)
        return
    widths = sorted(panel["width"].unique())
    top = panel.loc[panel["width"] == widths[0], "root_mean_square"].max() * 1.5
    for (label, slope), style in zip(guides.items(), (":", "--", "-."), strict=False):
        axis.plot(widths, [top * (width / widths[0]) ** slope for width in widths], color="0.4", linestyle=style, label=label)
    axis.set_yscale("log")
    width_axis(axis, panel)


def width_axis(axis: Axes, rows: pd.DataFrame) -> None:
    """A logarithmic axis of widths, with ticks at those of the rows."""
    widths = sorted(rows["width"].unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(widths, [str(width) for width in widths], minor=False, rotation=45)
    axis.set_xlabel("width $m$ (neurons per hidden layer)")


def save(figure: plt.Figure, paths: Iterable[str | Path]) -> None:
    """Write a figure to files ending in .svg or .png (200 dots per inch), atomically.

    No date is written, so that equal tables give equal files.
    """
    with matplotlib.rc_context({"svg.hashsalt": "ntksim", "svg.fonttype": "path"}):
        for path in paths:
            vector = Path(path).suffix == ".svg"
            with atomic(path) as temporary:
                figure.savefig(temporary, dpi=200, metadata={"Date": None} if vector else {"Software": None})
    plt.close(figure)
