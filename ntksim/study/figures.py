"""Figures: each one function of tables.

What is measured is drawn with markers and 95% intervals; a fit is a solid line, theory dashed or dotted. Colours are Okabe
& Ito's, told apart by readers with any colour vision; markers tell the same lines apart in grey print.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ntksim.study import laziness, plan
from ntksim.study.errors import StageError
from ntksim.study.storage import atomic, read_arrow

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*"


def convergence(table: pd.DataFrame, laws: pd.DataFrame) -> plt.Figure:
    """Error of the empirical kernel to its limit against width, a column per depth.

    ``table`` is ``convergence``, ``laws`` is ``scaling_laws``. Fits carry their exponent and interval; the exact law of one
    hidden layer is dashed, and the slope -1/2 of deeper ones is dotted.
    """
    labels = {"relative_frobenius_error": r"relative error $\|K_m - K_\infty\|_F\,/\,\|K_\infty\|_F$"}
    figure = _against_width(table, laws, labels, {"slope −½": -0.5})
    names = list(dict.fromkeys(table["network"]))
    for axis, depth in zip(figure.axes, sorted(table["depth"].unique()), strict=True):
        exact = table[(table["depth"] == depth) & table["exact_root_mean_square"].notna()]
        for name, rows in exact.groupby("network", sort=False):
            rows = rows.sort_values("width")
            place = names.index(name)
            axis.plot(rows["width"], rows["exact_root_mean_square"], "--", color=_colour(place), label=f"{name}: exact law")
        axis.legend(fontsize=7, frameon=False, loc="lower left")
    return figure


def drift(table: pd.DataFrame, laws: pd.DataFrame) -> plt.Figure:
    """Movement in training against width, a column per depth: the kernel's, the parameters', and f_t off its linearisation.

    ``table`` is ``drift``, ``laws`` is ``scaling_laws``. The guides are slopes of theory: see `scaling_laws.theory_exponent`.
    """
    labels = {
        "kernel_drift": r"kernel drift $\|K_t - K_0\|_F\,/\,\|K_0\|_F$",
        "parameter_drift": r"parameter drift $\|\theta_t - \theta_0\|\,/\,\|\theta_0\|$",
        "largest_linearized_deviation": r"$\sup_t\ \mathrm{rms}\,(f_t - f_t^{\mathrm{lin}})$, in units of the targets",
    }
    return _against_width(table, laws, labels, {"slope −½": -0.5, "slope −1": -1.0})


def drift_parts(table: pd.DataFrame, laws: pd.DataFrame) -> plt.Figure:
    """The kernel drift in its systematic and its random part against width, a column per depth.

    ``table`` is ``drift``, ``laws`` is ``scaling_laws``. Bars are bootstrap intervals, which reach to 0 where a part is lost.
    """
    labels = {
        "systematic_kernel_drift": r"systematic: $\|\mathrm{mean}_s\,(K_T - K_0)\,/\,\|K_0\|\,\|_F$",
        "random_kernel_drift": r"random: rms deviation from that mean",
    }
    return _against_width(table, laws, labels, {"slope −½": -0.5, "slope −¾": -0.75, "slope −1": -1.0})


def lazy_or_rich(table: pd.DataFrame) -> plt.Figure:
    """The phase diagram of width and output scale, and movement against sqrt(width) x output_scale.

    In that variable features and test losses of all widths fall onto one curve, and kernels as the width grows.

    ``table`` is ``lazy``; two rows of panels per family of networks with several output scales.
    """
    scales = table.groupby("family")["output_scale"].transform("nunique")
    families = table[(scales > 1) & table["scaled_width"].notna()].groupby("family", sort=False)
    figure, axes = plt.subplots(
        2 * max(1, len(families)), 2, figsize=(10, 7.6 * max(1, len(families))), squeeze=False, layout="constrained"
    )
    for place, (name, rows) in enumerate(families):
        panels = axes[2 * place : 2 * place + 2].ravel()
        _phase_diagram(figure, panels[0], rows)
        panels[0].set_title(str(name), fontsize=10)
        ratio = rows.assign(relative_test_loss=rows["test_loss"] / rows["test_linearized_loss"])
        for axis, column, label in (
            (panels[1], "kernel_drift", r"kernel drift $\|K_T - K_0\|_F\,/\,\|K_0\|_F$"),
            (panels[2], "feature_drift", r"feature drift $\|h_T - h_0\|_F\,/\,\|h_0\|_F$"),
            (panels[3], "relative_test_loss", "test loss over the linearised network's"),
        ):
            for line, (width, own) in enumerate(ratio.groupby("width")):
                own = own.sort_values("scaled_width")
                axis.plot(
                    own["scaled_width"], own[column], color=_colour(line), marker=_MARKERS[line % len(_MARKERS)], markersize=4,
                    linewidth=1.0, label=f"$m$ = {width}",
                )  # fmt: skip
            _logarithmic(axis, r"$\sqrt{m}\,\alpha$", label)
            if column == "relative_test_loss":
                axis.set_yscale("linear")
            elif column == "kernel_drift":  # the verdict's levels
                for level, style in ((laziness.LAZY, "--"), (laziness.RICH, ":")):
                    axis.axhline(level, color="0.4", linestyle=style, linewidth=0.8)
            axis.legend(fontsize=7, frameon=False)
    return figure


def _phase_diagram(figure: plt.Figure, axis: Axes, rows: pd.DataFrame) -> None:
    """Kernel drift over width and output scale, a marker per verdict, and lines of equal sqrt(width) x output_scale."""
    grid = rows.pivot(index="output_scale", columns="width", values="kernel_drift")
    edges = [_edges(np.array(values, dtype=np.float64)) for values in (grid.columns, grid.index)]
    drifts = np.ma.masked_less_equal(np.ma.masked_invalid(grid.to_numpy()), 0)
    if drifts.count():
        colours = axis.pcolormesh(*edges, drifts, norm=matplotlib.colors.LogNorm(), cmap="viridis")
        figure.colorbar(colours, ax=axis, label="kernel drift")
    for verdict, marker in (("lazy", "o"), ("between", "D"), ("rich", "^"), ("undecided", "s"), ("none", "X")):
        of = rows[rows["verdict"] == verdict]
        if len(of):
            axis.scatter(of["width"], of["output_scale"], s=22, c="white", edgecolors="black", linewidths=0.7, marker=marker,
                         label=verdict)  # fmt: skip
    widths = np.array([grid.columns.min(), grid.columns.max()], dtype=np.float64)
    low, high = np.log10([rows["scaled_width"].min(), rows["scaled_width"].max()])
    for power in range(int(np.ceil(low)), int(np.floor(high)) + 1):
        axis.plot(widths, 10.0**power / np.sqrt(widths), color="white", linewidth=1.0, linestyle="--")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlim(edges[0][0], edges[0][-1])
    axis.set_ylim(edges[1][0], edges[1][-1])
    axis.set_xticks(grid.columns, [str(width) for width in grid.columns])
    axis.set_xlabel("width $m$ (neurons per hidden layer)")
    axis.set_ylabel(r"output scale $\alpha$")
    axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, frameon=False)


def _edges(values: np.ndarray) -> np.ndarray:
    """Edges of cells around ascending values, half way between them in logarithms."""
    between = np.sqrt(values[1:] * values[:-1])
    first, last = (values[0] ** 2 / between[0], values[-1] ** 2 / between[-1]) if len(between) else (values[0] / 2, values[0] * 2)
    return np.concatenate([[first], between, [last]])


def spectrum(table: pd.DataFrame) -> plt.Figure:
    """Eigenvalues of the empirical kernel at three widths beside the limit's, a panel per network.

    ``table`` is ``spectrum``. Lines are means over seeds and bands one standard deviation.
    """
    figure, panels = _panels(table)
    for axis, rows in panels:
        widths = sorted(rows["width"].unique())
        shown = dict.fromkeys([widths[0], widths[len(widths) // 2], widths[-1]])
        for place, width in enumerate(shown):
            at = rows[rows["width"] == width].sort_values("index")
            mean, spread = at["mean"].to_numpy(), at["standard_deviation"].fillna(0.0).to_numpy()
            order = at["index"] + 1
            axis.plot(
                order, mean, color=_colour(place), marker=_MARKERS[place], markersize=2.5, linewidth=0.8, label=f"$m$ = {width}"
            )
            axis.fill_between(
                order, np.maximum(mean - spread, mean / 10), mean + spread, color=_colour(place), alpha=0.2, linewidth=0
            )
        limit = rows[rows["width"] == widths[-1]].sort_values("index")  # in the standard parameterization, that of the widest
        axis.plot(
            limit["index"] + 1, limit["limit_eigenvalue"], color="black", linestyle="--", linewidth=1.2, label=r"$K_\infty$"
        )
        _logarithmic(axis, "index $j$, largest first", r"eigenvalue $\lambda_j$, in units of the kernel")
    return figure


def loss(table: pd.DataFrame) -> plt.Figure:
    """Training loss against time at the narrowest and the widest network, beside constant-kernel theory; a panel per network.

    ``table`` is ``training``. Solid lines are medians over seeds and bands span all seeds. Theory is that of the widest
    network's seeds: gradient flow with each one's K_0 (dashed) and the same training with K_infinity (dotted), from its own f_0;
    and the expected loss over infinitely wide networks (grey).
    """
    figure, panels = _panels(table)
    for axis, rows in panels:
        rows = rows[(rows["status"] == "finished") & (rows["relative_time"] > 0)]
        widths = sorted(rows["width"].unique())
        for place, width in enumerate(dict.fromkeys(widths[:1] + widths[-1:])):
            runs = rows[rows["width"] == width].groupby("relative_time")["loss"]
            time, colour = np.array(sorted(runs.groups)), _colour(place)
            axis.plot(
                time, runs.median(), color=colour, marker=_MARKERS[place], markersize=3, linewidth=1.2, label=f"$m$ = {width}"
            )
            axis.fill_between(time, runs.min(), runs.max(), color=colour, alpha=0.2, linewidth=0)
        widest = rows[rows["width"] == widths[-1]] if widths else rows
        for column, style, label in (
            ("closed_form_loss", "--", r"gradient flow with $K_0$"),
            ("limit_closed_form_loss", ":", r"the same training with $K_\infty$"),
            ("ensemble_loss", "-", "mean over infinitely wide networks"),
        ):
            predicted = widest.groupby("relative_time")[column].median()
            wide: dict[str, Any] = {"color": "0.75", "linewidth": 5.0, "zorder": 0}
            if style != "-":
                wide = {"color": "black", "linewidth": 1.3}
            axis.plot(predicted.index, predicted, linestyle=style, label=label, **wide)
        _logarithmic(axis, r"time $t\,\lambda_{\max}(K_\infty)$, dimensionless", r"training loss $\frac{1}{2}\sum r^2$")
    return figure


FIGURES: dict[str, Callable[..., plt.Figure]] = {
    "convergence": convergence,
    "spectrum": spectrum,
    "drift": drift,
    "drift_parts": drift_parts,
    "loss": loss,
    "lazy_or_rich": lazy_or_rich,
}


def draw(name: str, tables: Sequence[str | Path], output: Iterable[str | Path]) -> None:
    """Draw the figure ``name`` from the files of its tables. Raises StageError for tables that are not the ones it needs."""
    read = [read_arrow(path) for path in tables]
    found = tuple(str(metadata.get("table")) for _, metadata in read)
    if found != plan.FIGURES[name]:
        raise StageError(f"the figure {name} needs the tables {', '.join(plan.FIGURES[name])}; got {', '.join(found)}")
    save(FIGURES[name](*(table.to_pandas() for table, _ in read)), output)


def _colour(place: int) -> str:
    return _COLOURS[place % len(_COLOURS)]


def _panels(table: pd.DataFrame) -> tuple[plt.Figure, Iterator[tuple[Axes, pd.DataFrame]]]:
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
            axis.legend(fontsize=7, frameon=False)

    return figure, fill()


def _logarithmic(axis: Axes, x_label: str, y_label: str) -> None:
    """Logarithmic axes with labels; a note in place of them where nothing that was drawn has a logarithm."""
    drawn = [np.asarray(line.get_xydata(), np.float64) for line in axis.get_lines()]
    if any((points > 0).all(axis=1).any() for points in drawn):
        axis.set_xscale("log")
        axis.set_yscale("log")
    else:
        _note(axis)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(visible=True, which="major", linewidth=0.4, color="0.85")


def _note(axis: Axes) -> None:
    axis.text(0.5, 0.5, "no values to draw", ha="center", transform=axis.transAxes)


def _against_width(table: pd.DataFrame, laws: pd.DataFrame, labels: dict[str, str], guides: dict[str, float]) -> plt.Figure:
    """Root mean squares over seeds against width with their fits, log-log; a row per quantity and a column per depth.

    Bars span the 95% interval of the mean, moved to the point.
    """
    depths, names = sorted(table["depth"].unique()), list(dict.fromkeys(table["network"]))
    size = (4.4 * len(depths), 3.6 * len(labels))
    figure, axes = plt.subplots(len(labels), len(depths), figsize=size, sharey="row", squeeze=False, layout="constrained")
    for row, (quantity, label) in enumerate(labels.items()):
        for axis, depth in zip(axes[row], depths, strict=True):
            panel = table[(table["quantity"] == quantity) & (table["depth"] == depth)]
            for name in dict.fromkeys(panel["network"]):
                law = laws[(laws["network"] == name) & (laws["quantity"] == quantity)]
                _line(axis, panel[panel["network"] == name].sort_values("width"), law, name, names.index(name))
            _guides(axis, panel, guides)
            axis.set_title(f"{depth} hidden layer{'s' if depth > 1 else ''}", fontsize=10)
            axis.set_xlabel("width $m$ (neurons per hidden layer)")
            axis.grid(visible=True, which="major", linewidth=0.4, color="0.85")
            axis.legend(fontsize=7, frameon=False, loc="lower left")
        axes[row][0].set_ylabel(label)
    return figure


def _line(axis: Axes, rows: pd.DataFrame, law: pd.DataFrame, name: str, place: int) -> None:
    """One network's points with intervals, and its fitted power law where there is one."""
    label = name
    if len(law):
        fit = law.iloc[0]
        interval = "" if np.isnan(fit["interval_low"]) else f" [{fit['interval_low']:.2f}, {fit['interval_high']:.2f}]"
        label = f"{name}: $m^{{{fit['exponent']:.2f}}}${interval}".replace("-", "−")
        axis.plot(rows["width"], fit["prefactor"] * rows["width"] ** fit["exponent"], color=_colour(place), linewidth=1.0)
    point = rows["root_mean_square"]
    centre = rows["mean"].fillna(point)  # a part of the kernel drift has no mean, and an interval of its own
    reach = np.maximum([centre - rows["interval_low"], rows["interval_high"] - centre], 0.0)
    axis.errorbar(
        rows["width"], point, yerr=reach, label=label, capsize=3,
        linestyle="none", markersize=5, color=_colour(place), marker=_MARKERS[place % len(_MARKERS)],
    )  # fmt: skip


def _guides(axis: Axes, panel: pd.DataFrame, guides: dict[str, float]) -> None:
    """Lines of given slopes above the data, and ticks at the widths; a note where nothing has a logarithm."""
    if not (panel["root_mean_square"] > 0).any():
        _note(axis)
        return
    widths = sorted(panel["width"].unique())
    top = panel.loc[panel["width"] == widths[0], "root_mean_square"].max() * 1.5
    for (label, slope), style in zip(guides.items(), (":", "--", "-."), strict=False):
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
