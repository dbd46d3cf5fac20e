"""Figures: each a function of tables."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from ntksim.study.storage import atomic

# Okabe & Ito's palette, told apart by readers with any colour vision; markers tell the lines apart in grey print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*"


def convergence(table: pd.DataFrame) -> plt.Figure:
    """Error of the empirical kernel to its limit against width, a panel per depth, beside the slope -1/2.

    ``table`` is ``convergence``.
    """
    return _against_width(
        table,
        {"relative_frobenius_error": r"relative error $\|K_m - K_\infty\|_F\,/\,\|K_\infty\|_F$"},
        {"slope −½": -0.5},
    )


def drift(table: pd.DataFrame) -> plt.Figure:
    """Kernel drift and parameter movement at the end of training against width, a column per depth.

    ``table`` is ``drift``. The guides are the slopes of theory: see `scaling_laws.theory_exponent`.
    """
    labels = {
        "kernel_drift": r"kernel drift $\|K_t - K_0\|_F\,/\,\|K_0\|_F$",
        "parameter_drift": r"parameter drift $\|\theta_t - \theta_0\|\,/\,\|\theta_0\|$",
    }
    return _against_width(table, labels, {"slope −½": -0.5, "slope −1": -1.0})


FIGURES = {"convergence": convergence, "drift": drift}


def _against_width(table: pd.DataFrame, labels: dict[str, str], guides: dict[str, float]) -> plt.Figure:
    """Root mean squares over seeds against width, log-log; a row per quantity and a column per depth.

    Bars span the 95% interval of the mean, moved to the point.
    """
    depths, names = sorted(table["depth"].unique()), list(dict.fromkeys(table["network"]))
    figure, axes = plt.subplots(
        len(labels),
        len(depths),
        figsize=(4.2 * len(depths), 3.5 * len(labels)),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for row, (quantity, label) in enumerate(labels.items()):
        for axis, depth in zip(axes[row], depths, strict=True):
            panel = table[(table["quantity"] == quantity) & (table["depth"] == depth)]
            for name in dict.fromkeys(panel["network"]):
                _line(axis, panel[panel["network"] == name].sort_values("width"), name, names.index(name))
            _guides(axis, panel, guides)
            axis.set_title(f"{depth} hidden layer{'s' if depth > 1 else ''}", fontsize=10)
            axis.set_xlabel("width $m$ (neurons per hidden layer)")
            axis.grid(visible=True, which="major", linewidth=0.4, color="0.85")
            axis.legend(fontsize=8, frameon=False, loc="best")
        axes[row][0].set_ylabel(label)
    return figure


def _line(axis: Axes, rows: pd.DataFrame, name: str, place: int) -> None:
    axis.errorbar(
        rows["width"], rows["root_mean_square"], yerr=rows["interval_high"] - rows["mean"], label=name, capsize=3,
        linewidth=1.2, markersize=5, color=_COLOURS[place % len(_COLOURS)], marker=_MARKERS[place % len(_MARKERS)],
    )  # fmt: skip


def _guides(axis: Axes, panel: pd.DataFrame, guides: dict[str, float]) -> None:
    """Lines of given slopes above the data, and ticks at the widths."""
    widths = sorted(panel["width"].unique())
    top = panel.loc[panel["width"] == widths[0], "root_mean_square"].max() * 1.5
    for (label, slope), style in zip(guides.items(), ("--", ":"), strict=False):
        axis.plot(widths, [top * (width / widths[0]) ** slope for width in widths], color="0.4", linestyle=style, label=label)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(widths, [str(width) for width in widths], minor=False, rotation=45)


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
