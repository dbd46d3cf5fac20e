"""The figure of learning curves: test loss at the end of training against the number of training points."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ntksim.study.report import losses, panels


def learning_curve(table: pd.DataFrame, final: pd.DataFrame, laws: pd.DataFrame) -> plt.Figure:
    """Mean test loss at the end of training against the number of training points; a panel per network, a line per width.

    The tables are ``drift``, ``final`` and ``scaling_laws``; the first seed of the data is shown.
    Bars are 95% intervals, solid lines fitted power laws. The dashed line is the expected loss over infinitely wide networks,
    where it is known.
    """
    table, final, laws = (own[own["dataset_seed"] == table["dataset_seed"].min()] for own in (table, final, laws))
    ends = table[table["quantity"] == "test_loss"]
    laws = laws[(laws["along"] == "train") & (laws["quantity"] == "test_loss")]
    figure, filled = panels.per_network(ends)
    for axis, rows in filled:
        name = rows["network"].iloc[0]
        for line, (width, at_width) in enumerate(rows.sort_values("train_points").groupby("width")):
            label, fit = f"$m$ = {width}", laws[(laws["network"] == name) & (laws["width"] == width)]
            sizes, mean = at_width["train_points"], at_width["mean"]
            if len(fit):
                own = fit.iloc[0]
                interval = "" if np.isnan(own["interval_low"]) else f" [{own['interval_low']:.2f}, {own['interval_high']:.2f}]"
                label = f"{label}: $n^{{{own['exponent']:.2f}}}${interval}".replace("-", "−")
                axis.plot(sizes, own["prefactor"] * sizes ** own["exponent"], color=panels.colour(line), linewidth=1.0)
            shifted = sizes * 1.03**line  # so that the bars of widths do not overlap
            bars = panels.bars(mean, at_width["interval_low"], at_width["interval_high"])
            axis.errorbar(shifted, mean, bars, label=label, capsize=3, linestyle="none", markersize=5, **panels.style(line))
            panels.mark(axis, shifted, mean, at_width["marked"])
        limit = final[(final["network"] == name) & (final["width"] == rows["width"].max())]
        limit = limit.groupby("train_points")["test_ensemble_loss"].median()
        if limit.notna().any():
            axis.plot(limit.index, limit, "--", color="black", linewidth=1.2, label="infinitely wide networks")
        panels.logarithmic(axis, "training points $n$", f"test loss: {losses.formula(table.attrs)}")
        axis.set_xticks(sorted(rows["train_points"].unique()), labels=sorted(rows["train_points"].unique()))
        axis.minorticks_off()
    return figure
