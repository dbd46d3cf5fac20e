"""Figures of what a study measures along training (`training.measures`), and of the dispersion at initialisation.

Like those of `figures`, each is a function of tables, and the captions in workflow/report explain it.
"""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ntksim.study.report import losses, panels
from ntksim.study.statistics.seeds import MOST_EXCLUDED

_LINES = 6  # in a panel, of modes and eigenvalues
_NAMES, _LEAST_COUPLING = 16, 1e-3  # of modes on an axis; the lower end of the scale
_NORMS = ("residual", "theory_residual", "limit_residual")
_SOLID: dict[str, Any] = {"linestyle": "-"}
_HOLLOW: dict[str, Any] = {"linestyle": "-.", "markerfacecolor": "white"}
_NORMAL = 1.96  # standard deviations that hold 95% of a normal distribution


def profile(table: pd.DataFrame) -> plt.Figure:
    """The kernel K_t(x_0, x) against the angle between x_0 and x, before and after training; a panel per network.

    ``table`` is the table ``profiles``, of which the widest network is drawn. Lines are medians over seeds, bands span the 0.05
    to 0.95 quantiles; the limit is dashed.
    """
    figure, filled = panels.per_network(table, legend_above=True)
    for axis, rows in filled:
        widest = rows[rows["width"] == rows["width"].max()]
        for line, time in enumerate(sorted(widest["time"].unique())[:: max(1, widest["time"].nunique() - 1)]):
            own = widest[widest["time"] == time].sort_values("separation")
            label = "before training" if line == 0 else f"after, {_times(own)}"
            _banded(axis, own, "separation", f"$m$ = {own['width'].iloc[0]}, {label}", line)
        own = widest[widest["time"] == widest["time"].min()].sort_values("separation")
        axis.plot(own["separation"], own["limit_profile"], "--", color="black", linewidth=1.2, label=r"$K_\infty$")
        _plain(axis, "angle between $x_0$ and $x$, in radians", r"$K_t(x_0, x)$, in units of the kernel")
    return figure


def predictions(table: pd.DataFrame) -> plt.Figure:
    """Outputs at the end of training and the target, of losses that compare the two; a panel per network.

    ``table`` is the table ``predictions``, of which the widest network and its first output are drawn, against the angle of
    points in the plane, elsewhere against the target. Lines are medians over seeds, bands span the 0.05 to 0.95 quantiles. The
    mean over infinitely wide networks is dashed, with a grey band that holds 95% of them, where it is known. Kernel regression
    with the kernels of the same networks at the same time is dash-dotted, where the study asks for it, without its band.
    Regression through noise may be far off between points: it widens the panel by the others' height on either side at most.
    """
    figure, filled = panels.per_network(table, legend_above=True)
    for axis, rows in filled:
        own = rows[(rows["width"] == rows["width"].max()) & (rows["time"] == rows["time"].max()) & (rows["output"] == 0)]
        x = "angle" if own["angle"].notna().all() else "target"
        own = own.sort_values(x)
        mean, reach = own["limit_prediction"], _NORMAL * own["limit_deviation"]
        if mean.notna().any():
            axis.fill_between(own[x], mean - reach, mean + reach, color="0.85", linewidth=0, label="95%, infinite width")
            axis.plot(own[x], mean, "--", color="0.3", linewidth=1.2, label="mean, infinite width")
        _banded(axis, own, x, f"$m$ = {own['width'].iloc[0]}, {_times(own)}", 0)
        if losses.has_units_of_targets(table.attrs):
            axis.plot(own[x], own["target"], color="black", linewidth=1.0, label="target")
        if "regression_prediction_median" in own:
            look: dict[str, Any] = {"color": panels.colour(1), "linewidth": 1.2, "label": "regression with $K_t$"}
            low, high = axis.get_ylim()
            axis.plot(own[x], own["regression_prediction_median"], "-.", **look)
            below, above = axis.get_ylim()
            axis.set_ylim(max(below, 2 * low - high), min(above, 2 * high - low))
        _plain(axis, "angle of $x$, in radians" if x == "angle" else "target $y(x)$", r"output $f_t(x)$")
    return figure


def modes(table: pd.DataFrame) -> plt.Figure:
    """The residual on modes against time, with theory's decays; a panel per network.

    ``table`` is the table ``mode_residuals``, of which the widest network is drawn: its named functions, those of one order
    together, or else the eigenvectors of K_0. Lines are medians over seeds and bands quartiles. Theory from the same start:
    decay at n lambda_k of the limit as an operator on uniform points, or at the eigenvalue of K_0 (dashed), and training with
    K_infinity (dotted); where they are known.
    """
    named = table["basis"].isin(["fourier", "degree"])
    figure, filled = panels.per_network(table[named if named.any() else table["basis"] == "initial_eigenvectors"])
    for axis, rows in filled:
        own = rows[(rows["width"] == rows["width"].max()) & (rows["status"] == "finished") & (rows["relative_time"] > 0)]
        word = "$j$" if not named.any() else "$k$"
        norms = (own.set_index(["order", "seed", "relative_time"])[list(_NORMS)] ** 2).groupby(level=[0, 1, 2]).sum() ** 0.5
        for line, order in enumerate(own["order"].unique()[:_LINES]):
            _quartiles(axis, norms.loc[order]["residual"], f"{word} = {order}", line)
            for name, style in (("theory_residual", "--"), ("limit_residual", ":")):
                theory = norms.loc[order][name].groupby("relative_time").median()
                axis.plot(theory.index, theory.where(theory > 0), style, color=panels.colour(line), linewidth=1.2)
        shown = norms["residual"][norms["residual"] > 0]  # theory's decays go on below, down to rounding
        if rows["theory_residual"].notna().any():
            axis.plot([], [], "--", color="0.3", linewidth=1.2, label=r"$n\lambda_k$" if named.any() else r"$\lambda_j(K_0)$")
        if rows["limit_residual"].notna().any():
            axis.plot([], [], ":", color="0.3", linewidth=1.2, label=r"training with $K_\infty$")
        panels.logarithmic(axis, panels.time_label(table), "norm of the residual on the mode")
        if len(shown) and axis.get_yscale() == "log":
            axis.set_ylim(shown.min() / 3, 3 * shown.max())
    return figure


def couplings(table: pd.DataFrame) -> plt.Figure:
    """What K_t makes of each mode, shared out among modes, before and after training; two panels per network.

    ``table`` is the table ``couplings``, of which the widest network is drawn: its named functions, or else the eigenvectors of
    K_0. A column is a mode, a row one that a share of it goes to; colours are medians over the seeds that finished. All panels
    have one scale: shares below it, as those of rounding, have the colour of its end, and NaN is white.
    """
    named = table["basis"].isin(["fourier", "degree"])
    shown = table[named if named.any() else table["basis"] == "initial_eigenvectors"]
    names, norm = list(dict.fromkeys(shown["network"])), LogNorm(_LEAST_COUPLING, 1.0)
    figure, axes = plt.subplots(len(names), 2, figsize=(8.4, 3.4 * len(names)), squeeze=False, layout="constrained")
    for line, name in zip(axes, names, strict=True):
        rows = shown[shown["network"] == name]
        rows = rows[rows["width"] == rows["width"].max()]
        for axis, time in zip(line, (rows["time"].min(), rows["time"].max()), strict=True):
            own, modes = rows[rows["time"] == time], list(dict.fromkeys(rows["mode"]))
            finished = own[own["status"] == "finished"]
            middle = finished.pivot_table("coupling", "other_mode", "mode", "median").reindex(index=modes, columns=modes)
            image = axis.imshow(middle.clip(lower=_LEAST_COUPLING / 10), norm=norm)  # the logarithm of 0 would be white
            when = f"after, {_times(own)}" if time else "before training"
            axis.set_title(f"{name}\n$m$ = {own['width'].iloc[0]}, {when}", fontsize=10)
            places = range(0, len(modes), -(-len(modes) // _NAMES))
            axis.set_xticks(places, [modes[at] for at in places], rotation=90, fontsize=8)
            axis.set_yticks(places, [modes[at] for at in places], fontsize=8)
            axis.set_xlabel("mode $j$")
            axis.set_ylabel("mode $i$")
            if middle.isna().all(axis=None):
                panels.note(axis)
    figure.colorbar(image, ax=axes, label="share of $K_t Q_j$ in mode $i$", extend="min")
    return figure


def eigenvalues(table: pd.DataFrame) -> plt.Figure:
    """Leading eigenvalues of K_t against time; a panel per network.

    ``table`` is the table ``eigenvalues``, of which the widest network is drawn. Lines are medians over seeds, bands quartiles.
    """
    figure, filled = panels.per_network(table, legend_columns=3)
    for axis, rows in filled:
        own = rows[(rows["width"] == rows["width"].max()) & (rows["status"] == "finished") & (rows["relative_time"] > 0)]
        for line, index in enumerate(sorted(own["index"].unique())[:_LINES]):
            values = own[own["index"] == index].set_index(["seed", "relative_time"])["leading_eigenvalue"]
            _quartiles(axis, values, f"$j$ = {index + 1}", line)
        panels.logarithmic(axis, panels.time_label(table), r"eigenvalue $\lambda_j(t)$ of $K_t$, as a rate")
        axis.margins(y=0.25)  # room for the legend
        _ticks(axis.yaxis)
    return figure


def regression(table: pd.DataFrame, final: pd.DataFrame) -> plt.Figure:
    """Test loss of kernel regression with K_t against time, beside the network's own; a panel per network, a colour per width.

    ``table`` is the table ``regression``, of which at most three widths are drawn, ``final`` is ``final``. Lines are medians over
    seeds, bands quartiles. The level is that of regression with K_infinity of the widest network, dashed.
    """
    figure, filled = panels.per_network(table, legend_columns=2, legend_above=True)
    for axis, rows in filled:
        finished = rows["status"] == "finished"
        left_out = (~finished).groupby(rows["width"]).mean()
        own = rows[finished & (rows["relative_time"] > 0)].set_index(["seed", "relative_time"])
        widths = sorted(own["width"].unique())
        shown = dict.fromkeys([widths[0], widths[len(widths) // 2], widths[-1]] if widths else [])
        for line, width in enumerate(shown):
            with_kernel = own.loc[own["width"] == width, "regression_test_loss"]
            _quartiles(axis, with_kernel, f"$m$ = {width}", line)
            _quartiles(axis, own.loc[own["width"] == width, "test_loss"], None, line, hollow=True)
            median = with_kernel.groupby("relative_time").median()[:1]
            panels.mark(axis, median.index.to_series(), median, left_out[[width]] > MOST_EXCLUDED)
        for label, look in (("regression with $K_t$", _SOLID), ("network", _HOLLOW)):
            axis.plot([], [], label=label, color="0.3", marker="o", markersize=3, linewidth=1.0, **look)
        same = (final["network"] == rows["network"].iloc[0]) & (final["width"] == rows["width"].max())
        level = final.loc[same, "limit_kernel_regression_test_loss"].median()  # all seeds have one limit
        if widths and level > 0:
            axis.axhline(level, color="black", linestyle="--", linewidth=1.2, label=r"regression with $K_\infty$")
        panels.logarithmic(axis, panels.time_label(table), f"test loss: {losses.formula(table.attrs)}")
        _ticks(axis.yaxis)
    return figure


def freeze(table: pd.DataFrame) -> plt.Figure:
    """When the kernel froze, against width; a panel per network.

    ``table`` is the table ``freeze``. Points are medians over the seeds that froze, bars quartiles; a line of text says how many
    of the others there are.
    """
    figure, filled = panels.per_network(table)
    times = table.loc[table["freeze_status"] == "frozen", "relative_freeze_time"]
    for axis, rows in filled:
        frozen = rows[rows["freeze_status"] == "frozen"].groupby("width")["relative_freeze_time"]
        median, low, high = frozen.median(), frozen.quantile(0.25), frozen.quantile(0.75)
        if len(median):
            label = f"speed at or below {rows['freeze_share'].iloc[0]:g} of its first"
            reach = panels.bars(median, low, high)
            axis.errorbar(median.index, median, reach, capsize=3, label=label, linewidth=0.8, **panels.style(0))
        for width in sorted(rows["width"].unique()):
            own = rows[rows["width"] == width]
            never, unknown = ((own["freeze_status"] == word).sum() for word in ("never", "unknown"))
            words = [f"{count} of {len(own)} {word}" for count, word in ((never, "never"), (unknown, "unknown")) if count]
            axis.text(width, 0.97, "\n".join(words), transform=axis.get_xaxis_transform(), fontsize=6, ha="center", va="top")
        axis.set_yscale("log")
        panels.width_axis(axis, rows)
        axis.set_ylabel(f"freeze time ${losses.scaled_time(table.attrs)}$")
        axis.grid(visible=True, which="major", linewidth=0.4, color="0.85")
        axis.margins(y=0.25)
        axis.set_xlim(rows["width"].min() / 1.5, 1.5 * rows["width"].max())  # there is room for the text where none froze, too
        _ticks(axis.yaxis)
        if times.notna().any():  # one scale, so that networks can be compared
            axis.set_ylim(times.min() / 2, 3 * times.max())
        else:
            axis.set_yticks([], minor=False)
            axis.set_yticks([], minor=True)
            panels.note(axis)
    return figure


def dispersion(table: pd.DataFrame) -> plt.Figure:
    """E[K^2] / E[K]^2 - 1 on the diagonal, and the mean change of K by a first step, against depth over width.

    ``table`` is the table ``dispersion``. Points have 95% intervals; theory to leading order is dashed.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.8), layout="constrained")
    names = list(dict.fromkeys(table["network"]))
    for axis, (quantity, label, origin) in zip(
        axes,
        (
            ("kernel_dispersion", r"$E[K^2]\,/\,E[K]^2 - 1$ on the diagonal", 1.0),
            ("first_step_change", r"mean $\|K_1 - K_0\|_F\,/\,\|K_0\|_F$ of a first step", 0.0),
        ),
        strict=True,
    ):
        for line, name in enumerate(names):
            rows = table[(table["quantity"] == quantity) & (table["network"] == name)].sort_values("beta")
            value, low = rows["value"] - origin, (rows["value_low"] - origin).clip(lower=1e-12)
            reach = panels.bars(value, low, rows["value_high"] - origin)
            at = panels.dodged(rows["beta"], table["beta"], line, len(names))
            axis.errorbar(at, value, reach, capsize=3, linestyle="none", markersize=5, label=name, **panels.style(line))
            panels.mark(axis, at, value, rows["marked"])
            if rows["leading_order"].notna().any():
                axis.plot(at, rows["leading_order"] - origin, "--", color=panels.colour(line), linewidth=1.0)
        if table.loc[table["quantity"] == quantity, "leading_order"].notna().any():
            axis.plot([], [], "--", color="0.3", linewidth=1.0, label="leading order in depth over width")
        panels.logarithmic(axis, r"depth over width $\beta = \sum_l 1/n_l$", label)
        _ticks(axis.xaxis)
        panels.legend(axis)
    return figure


def _ticks(axis: Axis) -> None:
    """Ticks at 1, 2 and 5 in every decade of a logarithmic axis, as plain numbers: of a decade or two others would overlap."""
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _times(rows: pd.DataFrame) -> str:
    time = losses.scaled_time(rows.attrs).removesuffix(r"(K_\infty)")
    return f"${time}$ = {rows['relative_time'].iloc[0]:.4g}"


def _plain(axis: Axes, x_label: str, y_label: str) -> None:
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(visible=True, which="major", linewidth=0.4, color="0.85")


def _banded(axis: Axes, rows: pd.DataFrame, x: str, label: str, line: int) -> None:
    """A median with the band from the 0.05 to the 0.95 quantile, of rows that are sorted."""
    axis.plot(rows[x], rows["median"], color=panels.colour(line), linewidth=1.2, label=label)
    axis.fill_between(rows[x], rows["quantile_05"], rows["quantile_95"], color=panels.colour(line), alpha=0.2, linewidth=0)
    if rows["excluded_share"].iloc[0] > MOST_EXCLUDED:
        panels.mark(axis, rows[x][:1], rows["median"][:1], rows["marked"][:1])


def _quartiles(axis: Axes, values: pd.Series, label: str | None, line: int, *, hollow: bool = False) -> None:
    """Medians over seeds against time, with the band of their quartiles, of values by seed and time."""
    over, look = values.groupby("relative_time"), panels.style(line) | (_HOLLOW if hollow else _SOLID)
    middle = over.median()
    axis.plot(middle.index, middle.where(middle > 0), markersize=3, linewidth=1.0, label=label, **look)
    axis.fill_between(middle.index, over.quantile(0.25), over.quantile(0.75), color=panels.colour(line), alpha=0.2, linewidth=0)
