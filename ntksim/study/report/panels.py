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
from ntksim.study.statistics.seeds import MOST_EXCLUDED

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*X"  # one more than the colours, so that 56 lines get different pairs of colour and marker
STARRED = f"more than {MOST_EXCLUDED:.0%} of the seeds left out"


def colour(line: int) -> str:
    """Colour of a line, given its index in the panel."""
    return _COLOURS[line % len(_COLOURS)]


def style(line: int) -> dict[str, Any]:
    """Colour and marker of a line, given its index in the panel."""
    return {"color": colour(line), "marker": _MARKERS[line % len(_MARKERS)]}


def per_network(table: pd.DataFrame) -> tuple[plt.Figure, Iterator[tuple[Axes, pd.DataFrame]]]:
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
            legend(axis)

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


def legend(axis: Axes, *, beside: bool = False) -> None:
    """Add a legend where it covers least of the panel, framed so that lines behind it are not mistaken for its entries.

    With ``beside`` it is placed to the right of the panel, without a frame.
    """
    if axis.get_legend_handles_labels()[0]:
        position: dict[str, Any] = (
            {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False} if beside else {"loc": "best"}
        )
        axis.legend(fontsize=7, **position)


def whole_numbers(axis: Axes, last: int) -> None:
    """Put ticks at whole numbers on a logarithmic axis from 1 to ``last``: at all of them up to 6, else at 1, 2, 5, 10, ..."""
    decades = [step * 10**power for power in range(len(str(last))) for step in (1, 2, 5)]
    ticks = range(1, last + 1) if last <= 6 else [tick for tick in decades if tick <= last]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.xaxis.set_minor_locator(NullLocator())


def note(axis: Axes) -> None:
    """Say in the panel that there is nothing to draw."""
    axis.text(0.5, 0.5, "no values to draw", ha="center", transform=axis.transAxes)


def against_width(
    table: pd.DataFrame, laws: pd.DataFrame, labels: dict[str, str], guides: dict[str, float], *, one_scale: bool = False
) -> plt.Figure:
    """Root mean squares over seeds against width, with power-law fits, log-log; a row per quantity and a column per depth.

    ``labels`` gives the quantities and their axis labels, ``guides`` the labels and slopes of theory's lines. Bars are 95%
    intervals, which are missing if there are too few seeds. Each row has a scale, or with ``one_scale`` all rows share one.
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
                law = laws[(laws["network"] == name) & (laws["quantity"] == quantity) & (laws["along"] == "width")]
                _line(axis, panel[panel["network"] == name].sort_values("width"), law, name, names.index(name))
            _guides(axis, panel, guides)
            axis.set_title(f"{depth} hidden layer{'s' if depth > 1 else ''}", fontsize=10)
            axis.grid(visible=True, which="major", linewidth=0.4, color="0.85")
            legend(axis, beside=True)
        axes[row][0].set_ylabel(label)
    return figure


def _line(axis: Axes, rows: pd.DataFrame, law: pd.DataFrame, name: str, line: int) -> None:
    """Draw one network's points with intervals, and its fitted power law if there is one."""
    label = name
    if len(law):
        fit = law.iloc[0]
        interval = "" if np.isnan(fit["interval_low"]) else f" [{fit['interval_low']:.2f}, {fit['interval_high']:.2f}]"
        label = f"{name}: $m^{{{fit['exponent']:.2f}}}${interval}".replace("-", "−")
        axis.plot(rows["width"], fit["prefactor"] * rows["width"] ** fit["exponent"], color=colour(line), linewidth=1.0)
    point = rows["root_mean_square"]
    reach = bars(point, rows["root_mean_square_low"], rows["root_mean_square_high"])
    axis.errorbar(rows["width"], point, yerr=reach, label=label, capsize=3, linestyle="none", markersize=5, **style(line))
    mark(axis, rows["width"], point, rows["marked"])
    for width in rows.loc[point == 0, "width"]:  # a logarithmic axis has no 0: a hollow marker at its lower end instead
        foot = axis.get_xaxis_transform()
        axis.plot(width, 0.0, transform=foot, clip_on=False, zorder=3, markersize=5, markerfacecolor="white", **style(line))


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


def _guides(axis: Axes, panel: pd.DataFrame, guides: dict[str, float]) -> None:
    """Draw lines of given slopes above the data, on logarithmic axes; write a note if no point is positive."""
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
    """Make the horizontal axis one of widths: logarithmic, with ticks at the widths of the rows."""
    widths = sorted(rows["width"].unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(widths, [str(width) for width in widths], minor=False, rotation=45)
    axis.set_xlabel("width $m$ (neurons per hidden layer)")


def save(figure: plt.Figure, paths: Iterable[str | Path]) -> None:
    """Write a figure atomically to .svg or .png files (200 dots per inch) and close it.

    The files hold no date, so equal tables give equal files.
    """
    with matplotlib.rc_context({"svg.hashsalt": "ntksim", "svg.fonttype": "path"}):
        for path in paths:
            vector = Path(path).suffix == ".svg"
            with atomic(path) as temporary:
                figure.savefig(temporary, dpi=200, metadata={"Date": None} if vector else {"Software": None})
    plt.close(figure)
