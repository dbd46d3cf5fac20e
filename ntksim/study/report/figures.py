"""Figures. Each is a function of tables.

Measurements have markers and error bars, which the captions in workflow/report explain. Fits are solid lines. Theory is dashed
or dotted. A line below the panels gives the data and the number of seeds.
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ntksim.study.config.stages import in_batches
from ntksim.study.errors import StageError
from ntksim.study.files.storage import read_frame
from ntksim.study.plan import jobs
from ntksim.study.report import description, losses, measure_figures, panels
from ntksim.study.report.learning_curve import learning_curve
from ntksim.study.statistics import laziness
from ntksim.study.statistics.drift_parts import ERROR_PARTS
from ntksim.study.statistics.seeds import MOST_EXCLUDED, of_one_data_set

_CHARACTERS_PER_INCH = 17  # in the line below the panels
_VERDICT_MARKERS = dict(zip(laziness.VERDICTS, "^voDsX", strict=True))


def convergence(table: pd.DataFrame, laws: pd.DataFrame) -> plt.Figure:
    """Relative error of the empirical kernel, compared with its infinite-width limit, against width; a column per depth.

    ``table`` is the table ``convergence``, ``laws`` is ``scaling_laws``. The legend gives each fitted exponent and its interval.
    The exact law for one hidden layer is dashed. The slope -1/2 of the central limit theorem is dotted, in each network's colour.
    Below stands the bias, faint (`_bias`). The scatter, which is the rest of the error, would lie on the points.
    """
    labels = {"relative_frobenius_error": r"relative error $\|K_m - K_\infty\|_F\,/\,\|K_\infty\|_F$"}
    figure = panels.against_width(table, laws, labels)
    names = list(dict.fromkeys(table["network"]))
    for axis, depth in zip(figure.axes, sorted(table["depth"].unique()), strict=True):
        own = table[(table["depth"] == depth) & table["quantity"].isin(labels)]
        exact = own[own["exact_root_mean_square"].notna()]
        for name, rows in exact.groupby("network", sort=False):
            rows = rows.sort_values("width")
            colour = panels.colour(names.index(name))
            axis.plot(rows["width"], rows["exact_root_mean_square"], "--", color=colour, label=f"{name}: exact law")
        _bias(axis, table[table["depth"] == depth], names)
        panels.legend(axis, above=True)
    return figure


def _bias(axis: Axes, table: pd.DataFrame, names: Sequence[str]) -> None:
    """The bias of a panel's networks against width, faint: the bias with its interval where that leaves out 0, else its end.

    Ends are marked by triangles that point down, to where the bias may be. Few seeds have no interval, and nothing is drawn.
    """
    floor = panels.rounding(table.attrs["config"]["precision"])
    own = table[(table["quantity"] == ERROR_PARTS[0]) & (table["interval_high"] > floor)]
    shown, told = list(dict.fromkeys(own["network"])), own["interval_low"] > floor
    look: dict[str, Any] = {"markerfacecolor": "white", "markersize": 4, "linestyle": "none"}
    for marker, size, there in (("o", "root_mean_square", told), ("v", "interval_high", ~told)):
        for name, rows in own[there].groupby("network", sort=False):
            at = panels.dodged(rows["width"], own["width"], shown.index(name), len(shown))
            colour = panels.colour(names.index(name))
            low = rows["interval_low"].clip(lower=rows[size] / (10 if marker == "o" else 1))  # the axis is not stretched
            reach = panels.bars(rows[size], low, rows["interval_high"])
            axis.errorbar(at, rows[size], reach, color=colour, marker=marker, linewidth=0.8, alpha=0.5, **look)
    if len(own):
        words = "bias at most" if not told.any() else "bias" if told.all() else "bias (\N{WHITE DOWN-POINTING TRIANGLE} at most)"
        axis.plot([], [], color="0.5", marker="o" if told.any() else "v", label=words, **look)


def drift(table: pd.DataFrame, laws: pd.DataFrame) -> plt.Figure:
    """Movement in training against width: kernel drift, parameter drift, and distance from the linearised network.

    Each quantity has a row of panels and each depth a column. ``table`` is the table ``drift``, ``laws`` is ``scaling_laws``.
    Dotted lines have the slopes of each network's theory (`scaling_laws.theory_exponent`). Horizontal lines mark the drift and
    the distance below which a network is lazy. With weight decay and layer rates that differ, under which the linearised network
    is not known, there is no distance.
    """
    labels = {
        "kernel_drift": r"kernel drift $\|K_t - K_0\|_F\,/\,\|K_0\|_F$",
        "parameter_drift": r"parameter drift $\|\theta_t - \theta_0\|\,/\,\|\theta_0\|$",
        "relative_linearized_deviation": r"$\sup_t\ \mathrm{rms}\,(f_t - f_t^{\mathrm{lin}})\,/\,\mathrm{rms}\,y$",
    }
    if not losses.has_units_of_targets(table.attrs):
        labels["relative_linearized_deviation"] = r"$\sup_t\ \mathrm{rms}\,(f_t - f_t^{\mathrm{lin}})$"
    if not losses.has_linearized(table.attrs):
        del labels["relative_linearized_deviation"]
    figure = panels.against_width(table, laws, labels)
    columns = table["depth"].nunique()
    judged = figure.axes[:columns]
    batch_size = table.attrs["config"]["training"]["batch_size"]
    # verdicts ignore the distance of training in batches
    if "relative_linearized_deviation" in labels and not in_batches(batch_size, int(table["train_points"].max())):
        judged += figure.axes[-columns:]
    for axis in (axis for axis in judged if axis.get_yscale() == "log"):  # where there are points
        axis.axhline(laziness.LAZY, color="0.4", linewidth=0.8, label=f"lazy below {laziness.LAZY:g}")
        panels.legend(axis, above=True)
    return figure


def drift_parts(table: pd.DataFrame, laws: pd.DataFrame) -> plt.Figure:
    """Systematic and random part of the kernel drift against width, a column per depth.

    ``table`` is the table ``drift``, ``laws`` is ``scaling_laws``. Bars are 95% intervals; they reach 0 if a part is
    indistinguishable from 0. All panels share one scale, so that the parts can be compared.
    """
    labels = {
        "systematic_kernel_drift": r"systematic: $\|\mathrm{mean}_s\,(K_T - K_0)\,/\,\|K_0\|\,\|_F$",
        "random_kernel_drift": r"random: rms deviation from that mean",
    }
    return panels.against_width(table, laws, labels, one_scale=True)


def accuracy(table: pd.DataFrame) -> plt.Figure:
    """Test accuracy at the end of training against width, of networks and of their linearisations; a panel per network.

    ``table`` is the table ``drift``. Points are means over seeds and bars their 95% intervals. The dashed level is the accuracy
    of the same training with the constant kernel K_infinity of the widest network.
    """
    figure, filled = panels.per_network(table)
    for axis, rows in filled:
        limit = rows[rows["quantity"] == "test_limit_closed_form_accuracy"].sort_values("width")["mean"].iloc[-1]
        _trained_and_linearised(axis, rows, ("test_accuracy", "test_linearized_accuracy"), limit)
        axis.set_ylabel("test accuracy (share of test points)")
    return figure


def test_loss(table: pd.DataFrame, final: pd.DataFrame) -> plt.Figure:
    """Test loss at the end of training against width, of networks and of their linearisations; a panel per network.

    ``table`` is the table ``drift``, ``final`` is ``final``. Points are means over seeds and bars their 95% intervals. The dashed
    level is the mean over seeds of the loss of the same training with the constant kernel K_infinity of the widest network.
    """
    figure, filled = panels.per_network(table)
    for axis, rows in filled:
        own = final[(final["network"] == rows["network"].iloc[0]) & (final["status"] == "finished")]
        widest = own[own["width"] == rows["width"].max()]
        limit = widest["test_limit_closed_form_loss"].mean()
        _trained_and_linearised(axis, rows, ("test_loss", "test_linearized_loss"), limit)
        axis.set_ylabel(f"test loss: {losses.formula(table.attrs)}")
    return figure


def _trained_and_linearised(axis: Axes, rows: pd.DataFrame, quantities: tuple[str, str], limit: float) -> None:
    """Means with their intervals against width, of a quantity of trained networks and of linearised ones, and a level."""
    for index, (quantity, label) in enumerate(zip(quantities, ("trained", "linearised"), strict=True)):
        series = rows[(rows["quantity"] == quantity) & rows["mean"].notna()].sort_values("width")
        if len(series):
            shifted = panels.dodged(series["width"], rows["width"], index, 2)
            axis.errorbar(
                shifted, series["mean"], panels.bars(series["mean"], series["interval_low"], series["interval_high"]),
                label=label, capsize=3, markersize=5, linewidth=0.8, **panels.style(index),
            )  # fmt: skip
            panels.mark(axis, shifted, series["mean"], series["marked"])
    if np.isfinite(limit):
        axis.axhline(limit, color="black", linestyle="--", linewidth=1.2, label=r"$K_\infty$")
    if axis.lines:
        panels.width_axis(axis, rows)
    else:
        panels.note(axis)
    axis.grid(visible=True, which="major", linewidth=0.4, color="0.85")


def lazy_or_rich(table: pd.DataFrame, final: pd.DataFrame) -> plt.Figure:
    """Phase diagram over width and output scale, and three quantities against sqrt(width) x output_scale.

    ``table`` is the table ``lazy``, ``final`` the table ``final``. Each family of networks (one configuration with several
    output scales) has two rows of panels. Lines are medians over seeds and bars quartiles.
    """
    seeds = final[final["status"] == "finished"].merge(
        table[["network", "sampling", "width", "family", "scaled_width", "marked"]], on=["network", "sampling", "width"]
    )
    floor = panels.rounding(table.attrs["config"]["precision"])
    moved = ["kernel_drift", "feature_drift"]
    seeds[moved] = seeds[moved].where(seeds[moved] > floor)  # what is rounding is not drawn
    seeds["relative_test_loss"] = seeds["test_loss"] / seeds["test_linearized_loss"]
    scales = table.groupby("family")["output_scale"].transform("nunique")
    families = table[(scales > 1) & table["scaled_width"].notna()].groupby("family", sort=False)
    figure, axes = plt.subplots(
        2 * max(1, len(families)), 2, figsize=(10, 7.6 * max(1, len(families))), squeeze=False, layout="constrained"
    )
    for index, (name, rows) in enumerate(families):
        diagram, *others = axes[2 * index : 2 * index + 2].ravel()
        _phase_diagram(figure, diagram, rows, floor)
        diagram.set_title(str(name), fontsize=10)
        seeds_by_width = seeds[seeds["family"] == name].groupby("width")
        labels = {
            "kernel_drift": r"kernel drift $\|K_T - K_0\|_F\,/\,\|K_0\|_F$",
            "feature_drift": r"feature drift $\|h_T - h_0\|_F\,/\,\|h_0\|_F$",
            "relative_test_loss": "test loss over the linearised network's",
        }
        for axis, (column, label) in zip(others, labels.items(), strict=True):
            for line, (width, at_width) in enumerate(seeds_by_width):
                low, median, high = (
                    at_width.groupby("scaled_width")[column].quantile(np.array([0.25, 0.5, 0.75])).unstack().to_numpy().T
                )
                axis.errorbar(
                    np.unique(at_width["scaled_width"]), median, [median - low, high - median], markersize=4, linewidth=1.0,
                    label=f"$m$ = {width}", **panels.style(line),
                )  # fmt: skip
                marked = at_width.groupby("scaled_width")["marked"].first()
                panels.mark(axis, marked.index.to_series(), pd.Series(median), marked)
            panels.logarithmic(axis, r"$\sqrt{m}\,\alpha$", label)
            if column == "relative_test_loss":
                axis.set_yscale("linear")
            elif column == "kernel_drift":  # the thresholds of the verdicts
                for level, style in ((laziness.LAZY, "--"), (laziness.RICH, ":")):
                    axis.axhline(level, color="0.4", linestyle=style, linewidth=0.8)
            panels.legend(axis)
    return figure


def _phase_diagram(figure: plt.Figure, axis: Axes, rows: pd.DataFrame, floor: float) -> None:
    """Kernel drift by width and output scale, with a marker for the verdict and lines of equal sqrt(width) x output_scale."""
    grid = rows.pivot(index="output_scale", columns="width", values="kernel_drift")
    edges = [_edges(np.array(values, dtype=np.float64)) for values in (grid.columns, grid.index)]
    drifts = np.ma.masked_less_equal(np.ma.masked_invalid(grid.to_numpy()), floor)
    if drifts.count():
        colours = axis.pcolormesh(*edges, drifts, norm=matplotlib.colors.LogNorm(), cmap="viridis")
        figure.colorbar(colours, ax=axis, label="kernel drift")
    for verdict, marker in _VERDICT_MARKERS.items():
        cells = rows[rows["verdict"] == verdict]
        if len(cells):
            axis.scatter(cells["width"], cells["output_scale"], s=22, c="white", edgecolors="black", linewidths=0.7,
                         marker=marker, label=verdict)  # fmt: skip
    widths = np.array([grid.columns.min(), grid.columns.max()], dtype=np.float64)
    low, high = np.log10([rows["scaled_width"].min(), rows["scaled_width"].max()])
    for power in range(int(np.ceil(low)), int(np.floor(high)) + 1):
        axis.plot(widths, 10.0**power / np.sqrt(widths), color="white", linewidth=1.0, linestyle="--")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlim(edges[0][0], edges[0][-1])
    axis.set_ylim(edges[1][0], edges[1][-1])
    axis.set_xticks(grid.columns, [str(width) for width in grid.columns], minor=False)
    axis.set_xlabel("width $m$ (neurons per hidden layer)")
    axis.set_ylabel(r"output scale $\alpha$")
    axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, frameon=False)


def _edges(values: np.ndarray) -> np.ndarray:
    """Edges of cells around ascending values: the geometric means of neighbours."""
    between = np.sqrt(values[1:] * values[:-1])
    first, last = (values[0] ** 2 / between[0], values[-1] ** 2 / between[-1]) if len(between) else (values[0] / 2, values[0] * 2)
    return np.concatenate([[first], between, [last]])


def spectrum(table: pd.DataFrame) -> plt.Figure:
    """Eigenvalues of the empirical kernel at three widths and of its infinite-width limit, a panel per network.

    ``table`` is the table ``spectrum``. Lines are means over seeds; bands are one standard deviation on either side. They end
    where eigenvalues are only rounding error (`_above_rounding`).
    """
    figure, filled = panels.per_network(table)
    precision = table.attrs["config"]["precision"]
    for axis, rows in filled:
        widths = sorted(rows["width"].unique())
        shown = dict.fromkeys([widths[0], widths[len(widths) // 2], widths[-1]])
        for line, width in enumerate(shown):
            at_width = rows[rows["width"] == width].sort_values("index")
            mean, spread = _above_rounding(at_width["mean"], precision), at_width["standard_deviation"].fillna(0.0).to_numpy()
            order = at_width["index"] + 1
            axis.plot(order, mean, markersize=2.5, linewidth=0.8, label=f"$m$ = {width}", **panels.style(line))
            panels.mark(axis, order[:1], at_width["mean"][:1], at_width["marked"][:1])
            # a logarithmic axis cannot show a band that reaches 0
            axis.fill_between(
                order, np.maximum(mean - spread, mean / 10), mean + spread, color=panels.colour(line), alpha=0.2, linewidth=0
            )
        # In the standard parameterization the limit depends on the width: the widest network's is drawn.
        limit = rows[rows["width"] == widths[-1]].sort_values("index")
        values = _above_rounding(limit["limit_eigenvalue"], "float64")  # limits are computed in this precision
        axis.plot(limit["index"] + 1, values, color="black", linestyle="--", linewidth=1.2, label=r"$K_\infty$")
        panels.logarithmic(axis, "index $j$, largest first", r"eigenvalue $\lambda_j$, in units of the kernel")
        panels.whole_numbers(axis, len(limit))
    return figure


def _above_rounding(eigenvalues: pd.Series, precision: str) -> np.ndarray:
    """Eigenvalues of a kernel, NaN where they may be rounding alone: up to n x epsilon x the largest one."""
    floor = len(eigenvalues) * np.finfo(precision).eps * eigenvalues.max()
    return eigenvalues.where(eigenvalues > floor).to_numpy()


def loss(table: pd.DataFrame) -> plt.Figure:
    """Training loss against time for the narrowest and the widest network, with constant-kernel theory; a panel per network.

    ``table`` is the table ``training``. Solid lines are medians over seeds; bands span all seeds. Theory is computed for the
    seeds of the widest network, each from its initial outputs f_0: gradient flow with the seed's K_0, or under logistic and
    softmax losses and with weight decay the same training with it (dashed), and the same training with K_infinity (dotted). Grey
    is the expected loss over infinitely wide networks. Theory that is not known has no line. The loss axis ends where losses are
    only rounding error (`_rounding`).
    """
    figure, filled = panels.per_network(table)
    for axis, rows in filled:
        floor = _rounding(rows, table.attrs["config"]["precision"])
        left_out = (rows["status"] != "finished").groupby(rows["width"]).mean()
        rows = rows[(rows["status"] == "finished") & (rows["relative_time"] > 0)]
        widths = sorted(rows["width"].unique())
        for line, width in enumerate(dict.fromkeys(widths[:1] + widths[-1:])):
            runs = rows[rows["width"] == width].groupby("relative_time")["loss"]
            time = np.array(sorted(runs.groups))
            axis.plot(time, runs.median(), markersize=3, linewidth=1.2, label=f"$m$ = {width}", **panels.style(line))
            panels.mark(axis, pd.Series(time[:1]), runs.median()[:1], pd.Series([left_out[width] > MOST_EXCLUDED]))
            axis.fill_between(time, runs.min(), runs.max(), color=panels.colour(line), alpha=0.2, linewidth=0)
        widest = rows[rows["width"] == widths[-1]] if widths else rows
        flow = ("closed_form_loss", "--", r"gradient flow with $K_0$")
        has_flow = losses.has_units_of_targets(table.attrs) and not losses.decays(table.attrs)
        for column, style, label in (
            flow if has_flow else ("linearized_loss", "--", r"the same training with $K_0$"),
            ("limit_closed_form_loss", ":", r"the same training with $K_\infty$"),
            ("ensemble_loss", "-", "mean over infinitely wide networks"),
        ):
            predicted = widest.groupby("relative_time")[column].median()
            if not len(predicted.dropna()) and len(widest):  # not known
                continue
            look: dict[str, Any] = {"color": "0.75", "linewidth": 5.0, "zorder": 0}
            if style != "-":
                look = {"color": "black", "linewidth": 1.3}
            axis.plot(predicted.index, predicted.where(predicted > 0), linestyle=style, label=label, **look)
        panels.logarithmic(axis, panels.time_label(table), f"training loss: {losses.formula(table.attrs)}")
        if axis.get_yscale() == "log":
            axis.set_ylim(bottom=max(floor, axis.get_ylim()[0]))
    return figure


def _rounding(rows: pd.DataFrame, precision: str) -> float:
    """The loss that rounding alone leaves: an output is a sum over the width m, with relative error sqrt(m) x epsilon."""
    initial = rows.loc[rows["relative_time"] == 0, "loss"].median()
    return float(np.nan_to_num(rows["width"].max() * np.finfo(precision).eps ** 2 * initial))


FIGURES: dict[str, Callable[..., plt.Figure]] = {
    "convergence": convergence,
    "spectrum": spectrum,
    "drift": drift,
    "drift_parts": drift_parts,
    "loss": loss,
    "test_loss": test_loss,
    "accuracy": accuracy,
    "lazy_or_rich": lazy_or_rich,
    "learning_curve": learning_curve,
    "dispersion": measure_figures.dispersion,
    "eigenvalues": measure_figures.eigenvalues,
    "modes": measure_figures.modes,
    "couplings": measure_figures.couplings,
    "profile": measure_figures.profile,
    "predictions": measure_figures.predictions,
    "regression": measure_figures.regression,
    "freeze": measure_figures.freeze,
}
_OF_ALL_DATA = ("learning_curve",)  # of training sets of all sizes, and the first seed of the data; others show one of them


def draw_all(names: Iterable[str], tables: str | Path, folder: str | Path) -> None:
    """Draw these figures from the tables of a folder into another one, in all formats."""
    for name in names:
        sources = [Path(tables) / f"{table}.parquet" for table in jobs.FIGURES[name]]
        draw(name, sources, [Path(folder) / f"{name}.{suffix}" for suffix in jobs.FORMATS])


def draw(name: str, tables: Sequence[str | Path], output: Iterable[str | Path]) -> None:
    """Draw the figure ``name`` from the files of its tables. Raises StageError if these are not the tables that it needs."""
    frames = [read_frame(path) for path in tables]
    found = tuple(str(frame.attrs.get("table")) for frame in frames)
    if found != jobs.FIGURES[name]:
        raise StageError(f"the figure {name} needs the tables {', '.join(jobs.FIGURES[name])}; got {', '.join(found)}")
    one = name not in _OF_ALL_DATA
    figure, metadata = FIGURES[name](*(map(of_one_data_set, frames) if one else frames)), frames[0].attrs
    stage = "initial" if set(found) <= set(jobs.AT_INITIALISATION) else "training"
    shown = metadata if one else _of_first_seed(metadata)
    words = f"{description.data(shown, shown=one)}; {description.seeds(metadata, stage)}"
    characters = int(_CHARACTERS_PER_INCH * figure.get_figwidth())
    figure.supxlabel(textwrap.fill(words, characters), fontsize=8, color="0.3", parse_math=False)
    panels.save(figure, output)


def _of_first_seed(metadata: Mapping[Any, Any]) -> dict[Any, Any]:
    """Metadata of tables as if the first seed of the data were the only one."""
    data = metadata["config"]["dataset"]
    if not isinstance(data["seed"], list):
        return dict(metadata)
    first = data | {"seed": [min(data["seed"])]}
    return dict(metadata) | {"config": metadata["config"] | {"dataset": first}}
