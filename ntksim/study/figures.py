"""Figures: each a function of tables."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

from ntksim.study.storage import atomic

# Okabe & Ito's palette, told apart by readers with any colour vision; markers tell the lines apart in grey print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*"


def convergence(table: pd.DataFrame) -> plt.Figure:
    """Error of the empirical kernel to its limit against width, log-log, a panel per depth, beside the slope -1/2.

    ``table`` is ``convergence``. Points are root mean squares over seeds; bars span the 95% interval of the mean.
    """
    errors = table[table["quantity"] == "relative_frobenius_error"]
    depths = sorted(errors["depth"].unique())
    figure, axes = plt.subplots(
        1, len(depths), figsize=(4.2 * len(depths), 3.8), sharey=True, squeeze=False, layout="constrained"
    )
    names = list(dict.fromkeys(errors["network"]))
    for axis, depth in zip(axes[0], depths, strict=True):
        panel = errors[errors["depth"] == depth]
        for name in dict.fromkeys(panel["network"]):
            rows = panel[panel["network"] == name].sort_values("width")
            place = names.index(name)
            centre = rows["root_mean_square"].to_numpy()
            reach = (rows["interval_high"] - rows["mean"]).to_numpy()
            axis.errorbar(
                rows["width"], centre, yerr=reach, label=name, capsize=3, linewidth=1.2, markersize=5,
                color=_COLOURS[place % len(_COLOURS)], marker=_MARKERS[place % len(_MARKERS)],
            )  # fmt: skip
        widths = sorted(panel["width"].unique())
        top = panel.loc[panel["width"] == widths[0], "root_mean_square"].max() * 1.5
        guide = [top * (width / widths[0]) ** -0.5 for width in widths]
        axis.plot(widths, guide, color="0.4", linestyle="--", linewidth=1, label="slope −½")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(widths, [str(width) for width in widths], minor=False, rotation=45)
        axis.set_title(f"{depth} hidden layer{'s' if depth > 1 else ''}", fontsize=10)
        axis.set_xlabel("width $m$ (neurons per hidden layer)")
        axis.grid(visible=True, which="major", linewidth=0.4, color="0.85")
        axis.legend(fontsize=8, frameon=False)
    axes[0][0].set_ylabel(r"relative error $\|K_m - K_\infty\|_F\,/\,\|K_\infty\|_F$")
    return figure


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
