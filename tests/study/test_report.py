"""Figures, summary and page: they name their data and seeds, agree with the tables, and show what is left out."""

from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

import ntksim
import studies
from ntksim.study.config.stages import Training
from ntksim.study.config.study import parse_study
from ntksim.study.data.dataset import Data
from ntksim.study.errors import ForeignFile
from ntksim.study.plan import jobs
from ntksim.study.report import description, figures, findings, panels, summary
from ntksim.study.report.page import three_digits, write_html
from ntksim.study.stages.accuracy import accuracy
from ntksim.study.statistics import laziness, scaling_laws
from ntksim.study.statistics.drift_parts import PARTS

CONTENT = {
    "dataset": {"name": "digits", "classes": [3, 8], "train": 4, "test": 7},
    "networks": {
        "relu": {"activation": "relu", "depth": 1},
        "tanh": {"activation": "tanh", "depth": 1, "output_scale": [0.0625, 1.0]},
    },
    "initial": {"widths": [16, 32], "seeds": 3, "dispersion": {}},
    "training": {
        "widths": [32, 64], "seeds": 6, "relative_time": 100.0, "snapshots": 6, "tolerance": 1e-3, "remove_initial_output": True,
        "measures": {
            "eigenvalues": 2, "eigenvectors": 2, "couplings": True, "regression": True, "profile": True, "predictions": True,
        },
    },
}  # fmt: skip
SMOOTH = {"networks": {"tanh": {"activation": "tanh", "depth": 1}}}


computed = partial(studies.computed, CONTENT)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return computed(tmp_path_factory.mktemp("report")).results


@pytest.fixture(scope="module")
def smooth(tmp_path_factory):
    """A study of one width and all ten classes, in which no network has gates that flip."""
    one = {"training": CONTENT["training"] | {"widths": [32]}, "initial": {"widths": [32], "seeds": 3}}
    data = {"dataset": {"name": "digits", "train": 10, "test": 11}}
    return computed(tmp_path_factory.mktemp("smooth"), **SMOOTH, **one, **data).results


@pytest.fixture(autouse=True)
def closed():
    """No figure stays open: matplotlib warns of more than twenty."""
    yield
    plt.close("all")


def drawn(results, name):
    return figures.FIGURES[name](*(ntksim.read_table(results, table) for table in jobs.FIGURES[name]))


def test_figures_and_summary_say_data_points_outputs_and_seeds(results, smooth):
    of_two, of_ten = (ntksim.read_table(folder, "drift").attrs for folder in (results, smooth))
    assert description.data(of_two) == "digits, classes 3 and 8: 4 training and 7 test points, 1 output"
    assert description.data(of_ten) == "digits, 10 classes: 10 training and 11 test points, 10 outputs"
    assert description.seeds(of_ten, "initial") == "3 seeds at each width, kernels of one output"
    assert [description.seeds(of_two, stage) for stage in ("initial", "training")] == [
        "3 seeds at each width",
        "6 seeds at each width",
    ]
    text = summary.summary(results)
    assert "\nData: digits, classes 3 and 8: 4 training and 7 test points, 1 output\n" in text
    assert "In training: 6 seeds at each width; 2 widths, 32 to 64; float64; gradient flow of f - f_0 to t = 100" in text
    assert "over 6 seeds, on 7 test points; linearised" in text
    own = {"file": ["x.npy", "y.npy"], "train": 4, "test": 7}
    assert description.data(of_two | {"config": {"dataset": own}}).startswith("x.npy, y.npy, real targets: 4 training")
    with pytest.raises(ForeignFile, match="tables come from an earlier version of ntksim; run the study again"):
        description.data({"config": of_two["config"]})


@pytest.mark.parametrize("name", jobs.FIGURES)
def test_the_line_below_a_figure(results, name, monkeypatch):
    """The line names data and seeds. Every legend has a frame or lies beside its panel."""
    kept = []
    monkeypatch.setattr(panels, "save", lambda figure, output: kept.append(figure))
    figures.draw(name, [Path(results) / "tables" / f"{table}.parquet" for table in jobs.FIGURES[name]], [])
    seeds = 3 if name in ("convergence", "spectrum", "dispersion") else 6
    line = f"digits, classes 3 and 8: 4 training and 7 test points, 1 output; {seeds} seeds at each width"
    assert kept[0]._supxlabel.get_text().replace("\n", " ") == line
    caption = (studies.ROOT / "workflow" / "report" / f"{name}.rst").read_text().replace("\n", " ")
    assert "The line below the panels gives the data" in caption
    kept[0].draw_without_rendering()
    for axis in kept[0].axes:
        if legend := axis.get_legend():
            frame = legend.get_frame_on()
            assert frame or not legend.get_window_extent().overlaps(axis.get_window_extent().shrunk(0.99, 0.99)), name


def test_laws_are_called_asymptotic_only_if_gates_flip(results, smooth):
    assert scaling_laws.is_asymptotic("kernel_drift", -0.5, "ntk")
    for key in (("kernel_drift", -1.0, "ntk"), ("kernel_drift", -0.5, "mup"), ("parameter_drift", -0.5, "ntk")):
        assert not scaling_laws.is_asymptotic(*key)
    text, without = summary.summary(results), summary.summary(smooth)
    assert "theory -0.5 (asymptotic)" in text
    assert "where gates flip" in text
    assert "systematic part" in without
    assert "gates" not in without
    assert "asymptotic" not in without
    write_html(results, Path(results) / "report.html")
    page = (Path(results) / "report.html").read_text()
    assert "-0.5 (asymptotic)" in page
    assert "where gates flip" in page


def parts(systematic, random, reach=0.0):
    """Rows of `drift` for both parts at widths 8, 16, 32, ...; intervals extend by ``reach`` on either side."""
    rows = []
    for name, values in zip(PARTS, (systematic, random), strict=True):
        for index, value in enumerate(values):
            ends = {"interval_low": value - reach, "interval_high": value + reach}
            rows.append({"quantity": name, "width": 8 * 2**index, "root_mean_square": value} | ends)
    return pd.DataFrame(rows)


def test_widths_at_which_the_systematic_part_is_larger_come_from_the_table():
    def widths(*values, **more):
        return findings.overtaking(parts(*values, **more)).removeprefix("its systematic part is larger than the random one ")

    assert widths([1, 3, 3], [2, 2, 1], reach=0.6) == "from width 16 on (95% intervals apart at width 32)"
    assert widths([1, 1], [2, 2]) == "at no width"
    assert widths([3, 3], [2, 2]) == "at every width (95% intervals apart at every width)"
    assert widths([3, 1, 3, 1], [2, 2, 2, 2], reach=1) == "at widths 8 and 32 (95% intervals apart at no width)"
    assert widths([np.nan, 3], [np.nan, 2]) == "at width 16 (95% intervals apart at width 16)"
    assert findings.overtaking(parts([], []).assign(quantity="", width=0, root_mean_square=0.0)) is None


def test_a_law_that_misses_theory_and_bends_has_the_power_of_its_widest_widths_beside_it():
    """Sizes fall as -1/2 and then as -1, with ends 10% apart: the last power has an interval of log(1.1) sqrt(2) / log 4."""
    size = np.array([1.0, 0.5, 0.125])
    rows = pd.DataFrame(
        {"quantity": "kernel_drift", "width": [16, 64, 256], "root_mean_square": size, "count": 5, "marked": False}
    )
    rows = rows.assign(root_mean_square_low=size / 1.1, root_mean_square_high=size * 1.1)
    law = {"quantity": "kernel_drift", "along": "width", "exponent": -0.75, "interval_low": -0.8, "interval_high": -0.7}
    law |= {"theory_exponent": -1.0, "parameterization": "ntk", "marked": False}

    def said(rows=rows, **changes):
        return findings._scaling(pd.DataFrame([law | changes]), rows)

    start = ". This scales as the width to the power -0.75, with a 95% interval of -0.80 to -0.70 (theory: "
    reach = np.log(1.1) * 2**0.5 / np.log(4)
    ends = f"{-1 - reach:+.2f} to {-1 + reach:+.2f}"
    bend = f". Between widths 64 and 256 alone the power is -1.00, with a 95% interval of {ends}"
    assert said() == f"{start}-1){bend}"
    assert said(theory_exponent=-0.5) == f"{start}-0.5, at very large widths only){bend}"
    assert said(theory_exponent=-0.75) == f"{start}-0.75)"
    assert said(theory_exponent=np.nan) == f"{start}none)"
    assert said(rows[1:]) == f"{start}-1)"
    assert said(rows.assign(root_mean_square_high=2 * size)) == f"{start}-1)"
    assert said(interval_low=np.nan, interval_high=np.nan) == ". This scales as the width to the power -0.75 (theory: -1)"


def test_verdicts_name_networks_and_levels():
    rows = [("a", 8, "rich"), ("a", 16, "lazy"), ("a", 32, "lazy"), ("b", 8, "lazy"), ("b", 16, "lazy"), ("c", 8, "untrained")]
    heading, *lines = findings.verdicts(pd.DataFrame(rows, columns=["network", "width", "verdict"]))
    assert "rich: kernel drift of 1 or more; untrained: more than 0.5 of the loss left" in heading
    assert "below 0.1" in heading
    assert lines == ["rich: a at width 8", "untrained: c at width 8", "lazy: a from width 16 on; b at every width"]


def test_numbers_in_the_summary_have_three_significant_digits(results, smooth):
    """Small numbers are not rounded to 0. A study of one width names it once."""
    assert "0.0000" not in summary.summary(results)
    errors = ntksim.read_table(smooth, "convergence").query("quantity == 'relative_frobenius_error'")
    line = next(line for line in summary.summary(smooth).splitlines() if line.startswith("  tanh"))
    assert line.split(";")[0].split() == ["tanh", f"{errors['root_mean_square'].item():.3g}", "at", "width", "32"]


def test_the_page_lists_networks_verdicts_and_accuracies(smooth):
    write_html(smooth, Path(smooth) / "report.html")
    _, verdicts, networks = (Path(smooth) / "report.html").read_text().split("<table")[1:]
    assert "activation" in networks
    assert "verdict" in verdicts
    lazy = ntksim.read_table(smooth, "lazy").iloc[0]
    for name in ("test_accuracy", "test_limit_closed_form_accuracy", "relative_linearized_deviation", "loss_left"):
        assert name.replace("_", " ") in verdicts
        assert f"<td>{lazy[name]:#.3g}</td>" in verdicts
    assert [three_digits(value) for value in (0.1003, 280.2, np.nan)] == ["0.100", "280", "missing"]


def test_the_loss_figure_ends_where_losses_are_rounding_error(results):
    """On 4 points trained to t = 100 / lambda_max some losses and predictions are rounding error or 0."""
    training = ntksim.read_table(results, "training")
    relu = training["network"] == "relu"
    training.loc[relu & (training["relative_time"] == 100), ["closed_form_loss", "limit_closed_form_loss", "ensemble_loss"]] = 0.0
    training.loc[relu & (training["relative_time"] == 100), "loss"] = 1e-40
    axis = next(axis for axis in figures.loss(training).axes if axis.get_title() == "relu")
    initial = training.loc[relu & (training["time"] == 0), "loss"].iloc[0]
    assert axis.get_ylim()[0] == pytest.approx(64 * np.finfo(np.float64).eps ** 2 * initial)
    for line in axis.get_lines():
        values = np.asarray(line.get_ydata(), dtype=np.float64)
        assert not (values <= 0).any()
    theory = next(line for line in axis.get_lines() if line.get_linestyle() == "--")
    assert np.isnan(theory.get_ydata()[-1])


def test_the_drift_figure_shows_the_distance_from_the_linearisation_and_its_lazy_level(results):
    drift = ntksim.read_table(results, "drift").query("quantity == 'relative_linearized_deviation' and network == 'relu'")
    axis = drawn(results, "drift").axes[-1]
    assert any(
        np.allclose(line.get_ydata(), drift["root_mean_square"]) for line in axis.get_lines() if len(line.get_ydata()) == 2
    )
    assert any(set(line.get_ydata()) == {laziness.LAZY} for line in axis.get_lines())


def test_parts_of_the_drift_are_on_one_scale_and_zeros_are_marked(results):
    drift = ntksim.read_table(results, "drift")
    lost = (drift["quantity"] == "systematic_kernel_drift") & (drift["network"] == "relu") & (drift["width"] == 64)
    drift.loc[lost, ["root_mean_square", "interval_low"]] = 0.0
    figure = figures.drift_parts(drift, ntksim.read_table(results, "scaling_laws"))
    assert len({axis.get_ylim() for axis in figure.axes}) == 1
    hollow = [line for line in figure.axes[0].get_lines() if to_rgb(line.get_markerfacecolor()) == (1, 1, 1)]
    zeros = drift[(drift["quantity"] == "systematic_kernel_drift") & (drift["root_mean_square"] == 0)]
    places = [line.get_xdata()[0] for line in hollow]  # beside their widths, since markers do not cover each other
    assert places == pytest.approx(zeros.sort_values(["network", "width"])["width"].to_list(), rel=0.1)


def test_each_network_has_the_slope_of_its_theory(results):
    """A dotted line in its colour, through its widest point; there is no line for all networks."""
    drift, laws = ntksim.read_table(results, "drift"), ntksim.read_table(results, "scaling_laws")
    names = list(dict.fromkeys(drift["network"]))
    for axis, quantity in zip(
        drawn(results, "drift").axes, ("kernel_drift", "parameter_drift", "relative_linearized_deviation"), strict=True
    ):
        dotted = [line for line in axis.get_lines() if line.get_linestyle() == ":"]
        assert [line.get_color() for line in dotted] == [panels.colour(index) for index in range(len(names))]
        for name, line in zip(names, dotted, strict=True):
            (low, high), values = line.get_xdata(), np.log(np.asarray(line.get_ydata()))
            law = laws[(laws["network"] == name) & (laws["quantity"] == quantity)].iloc[0]
            assert (values[1] - values[0]) / np.log(high / low) == pytest.approx(law["theory_exponent"])
            own = drift[(drift["network"] == name) & (drift["quantity"] == quantity) & (drift["width"] == 64)]
            assert np.exp(values[1]) == pytest.approx(own["root_mean_square"].item())
        said = [text.get_text() for text in axis.get_legend().get_texts()]
        assert any("theory $m^{−0.5}$" in text for text in said)
        assert any("(asymptotic)" in text for text in said) == (quantity != "parameter_drift")
        assert any("lazy below" in text for text in said) == (quantity != "parameter_drift")


def test_markers_at_one_width_lie_side_by_side(results):
    widths = pd.Series([64, 128, 512])
    shifted = np.array([panels.dodged(widths, widths, line, 4) for line in range(4)])
    assert np.exp(np.log(shifted).mean(axis=0)) == pytest.approx(widths.to_list())
    assert (np.diff(shifted, axis=0) > 0).all()
    assert (shifted[-1, :-1] < shifted[0, 1:]).all()  # no width comes near the next one
    assert panels.dodged(pd.Series([64]), [64], 0, 1).item() == 64
    axis = drawn(results, "drift").axes[0]
    places = [container[0].get_xdata()[0] for container in axis.containers]
    assert len(set(places)) == len(places) == 3


def test_dispersion_has_laws_in_the_table_of_laws(results):
    laws, values = (ntksim.read_table(results, name) for name in ("scaling_laws", "dispersion"))
    for name, own in values[values["quantity"] == "first_step_change"].groupby("network"):
        (row,) = laws[(laws["quantity"] == "first_step_change") & (laws["network"] == name)].to_dict("records")
        (narrow,), (wide,) = (own.loc[own["width"] == width, "value"] for width in (16, 32))
        assert row["exponent"] == pytest.approx(np.log2(wide / narrow))
        assert row["along"] == "width"


def test_networks_of_one_depth_over_width_lie_side_by_side(results):
    table = ntksim.read_table(results, "dispersion")
    deeper = table[table["network"] == "relu"].assign(network="deeper")
    table = pd.concat([table, deeper], ignore_index=True)  # of the same depth over width
    axis = figures.FIGURES["dispersion"](table).axes[0]
    places = [container[0].get_xdata() for container in axis.containers]
    assert len(places) == table["network"].nunique()
    assert all(len(set(at)) == len(places) for at in zip(*places, strict=True))


def test_modes_are_drawn_as_far_as_residuals_reach(results):
    """Theory decays without end, which stretches no axis."""
    residuals = ntksim.read_table(results, "mode_residuals").query("basis == 'initial_eigenvectors' and relative_time > 0")
    for axis, (_, rows) in zip(drawn(results, "modes").axes, residuals.groupby("network", sort=False), strict=True):
        values = rows.loc[(rows["width"] == 64) & (rows["residual"] > 0), "residual"]
        assert axis.get_ylim() == pytest.approx((values.min() / 3, 3 * values.max()))


def test_regression_in_time_stands_beside_the_network_and_the_limit(results):
    """Medians with bands of quartiles for each width; a mark of 2 of 6 seeds that are left out."""
    table, final = ntksim.read_table(results, "regression"), ntksim.read_table(results, "final")
    figure = figures.FIGURES["regression"](table, final)
    for axis, (name, rows) in zip(figure.axes, table.groupby("network", sort=False), strict=True):
        assert axis.get_legend().get_title().get_text() == name
        lines = [line for line in axis.get_lines() if len(line.get_xdata()) == 6]
        for line, (width, column) in zip(
            lines, [(width, name) for width in (32, 64) for name in ("regression_test_loss", "test_loss")], strict=True
        ):
            own = rows[(rows["width"] == width) & (rows["relative_time"] > 0)].groupby("relative_time")[column]
            assert line.get_ydata() == pytest.approx(own.median().to_numpy())
            band = axis.collections[lines.index(line)].get_paths()[0].vertices[:, 1]
            assert (band.min(), band.max()) == pytest.approx((own.quantile(0.25).min(), own.quantile(0.75).max()))
        (level,) = (line for line in axis.get_lines() if line.get_linestyle() == "--")
        own = final[(final["network"] == name) & (final["width"] == 64)]["limit_kernel_regression_test_loss"]
        assert set(level.get_ydata()) == {own.iloc[0]}
        assert not [text for text in axis.texts if text.get_text() == "*"]
    table.loc[(table["seed"] < 2) & (table["width"] == 32), "status"] = "diverged"
    axis = figures.FIGURES["regression"](table, final).axes[0]
    (star,) = (text for text in axis.texts if text.get_text() == "*")
    left = table[(table["network"] == table["network"].iloc[0]) & (table["width"] == 32) & (table["status"] == "finished")]
    first = left[left["relative_time"] > 0].groupby("relative_time")["regression_test_loss"].median()
    assert star.xy == pytest.approx((first.index[0], first.iloc[0]))


def test_regression_with_the_last_kernel_stands_among_predictions_where_it_is_measured(results):
    table = ntksim.read_table(results, "predictions")
    last = table[(table["width"] == 64) & (table["time"] == table.groupby("network")["time"].transform("max"))]
    for axis, (_, rows) in zip(figures.FIGURES["predictions"](table).axes, last.groupby("network", sort=False), strict=True):
        (line,) = (line for line in axis.get_lines() if line.get_label() == "regression with $K_t$")
        own = rows[rows["output"] == 0].sort_values("angle" if rows["angle"].notna().all() else "target")
        assert line.get_ydata() == pytest.approx(own["regression_prediction_median"].to_numpy())
    wild = table.assign(regression_prediction_median=1e3 * table["regression_prediction_median"])
    wild.attrs = table.attrs
    for axis, tame in zip(figures.FIGURES["predictions"](wild).axes, figures.FIGURES["predictions"](table).axes, strict=True):
        assert np.ptp(axis.get_ylim()) < 4 * np.ptp(tame.get_ylim())  # the other lines are not flat beside it
    without = table.drop(columns=[name for name in table if name.startswith("regression_")])
    without.attrs = table.attrs
    labels = [line.get_label() for line in figures.FIGURES["predictions"](without).axes[0].get_lines()]
    assert "regression with $K_t$" not in labels


def test_freeze_times_of_all_networks_are_on_one_scale(results):
    times = ntksim.read_table(results, "freeze").query("freeze_status == 'frozen'")["relative_freeze_time"]
    axes = drawn(results, "freeze").axes
    assert len(axes) == 3
    assert len({axis.get_ylim() for axis in axes}) == 1
    assert axes[0].get_ylim()[0] < times.min() <= times.max() < axes[0].get_ylim()[1]


def test_freeze_times_where_no_kernel_froze(results):
    """The panels say so, without ticks of a time, and their text stays at the widths, within the panel."""
    table = ntksim.read_table(results, "freeze")
    lost = {"freeze_status": "never", "freeze_time": np.nan, "relative_freeze_time": np.nan}
    figure = figures.FIGURES["freeze"](table.assign(**lost))
    figure.draw_without_rendering()
    for axis in figure.axes:
        assert "no values to draw" in [text.get_text() for text in axis.texts]
        assert not len([*axis.get_yticks(), *axis.get_yticks(minor=True)])
        low, high = axis.get_xlim()
        assert (16 < low < 32, 64 < high < 128) == (True, True)
        inside = axis.get_window_extent()
        for text in axis.texts:
            extent = text.get_window_extent()
            assert (inside.x0 < extent.x0, extent.x1 < inside.x1) == (True, True)


def test_rounding_is_not_drawn(results):
    """What a linear model moves is rounding alone. It has no point and no law, and does not stretch the axis."""
    drift = ntksim.read_table(results, "drift")
    rounded = (drift["quantity"] == "kernel_drift") & (drift["network"] == "relu") & (drift["width"] == 64)
    drift.loc[rounded, "root_mean_square"] = 1e-15
    axis = figures.drift(drift, ntksim.read_table(results, "scaling_laws")).axes[0]
    assert np.isnan(axis.containers[0][0].get_ydata()[1])
    assert axis.get_ylim()[0] > 1e-6
    lines = [line for line in axis.get_lines() if len(line.get_xdata()) == 2 and line.get_color() == panels.colour(0)]
    assert "-" not in [line.get_linestyle() for line in lines]
    assert len([line for line in axis.get_lines() if to_rgb(line.get_markerfacecolor()) == (1, 1, 1)]) == 1
    drift.loc[drift["quantity"] == "kernel_drift", "root_mean_square"] = 0.0
    axis = figures.drift(drift, ntksim.read_table(results, "scaling_laws")).axes[0]
    assert [text.get_text() for text in axis.texts] == ["0 up to rounding"]
    spectrum = ntksim.read_table(results, "spectrum")
    last = spectrum["index"] == 3
    spectrum.loc[last, ["mean", "limit_eigenvalue"]] = spectrum["mean"].max() * 1e-17
    for line in figures.spectrum(spectrum).axes[0].get_lines():
        assert list(np.isnan(line.get_ydata())) == [False, False, False, True]


def test_the_test_loss_is_drawn_against_width(results):
    drift = ntksim.read_table(results, "drift").query("network == 'relu'").set_index(["quantity", "width"])["mean"]
    final = ntksim.read_table(results, "final").query("network == 'relu' and width == 64 and status == 'finished'")
    axis = drawn(results, "test_loss").axes[0]
    assert list(axis.containers[0][0].get_ydata()) == drift["test_loss"].to_list()
    assert list(axis.containers[1][0].get_ydata()) == drift["test_linearized_loss"].to_list()
    level = next(line for line in axis.get_lines() if line.get_linestyle() == "--")
    assert set(level.get_ydata()) == {final["test_limit_closed_form_loss"].mean()}


def test_figures_are_vectors_in_pdf_too(results, tmp_path):
    paths = [tmp_path / "a.pdf", tmp_path / "b.pdf"]
    for path in paths:
        figures.draw("spectrum", [Path(results) / "tables" / "spectrum.parquet"], [path])
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(b"%PDF")
    assert first == second
    assert b"/Subtype /Image" not in first


def test_bars_of_medians_are_quartiles(results):
    axis = drawn(results, "lazy_or_rich").axes[1]
    final = ntksim.read_table(results, "final")
    drifts = final[(final["network"] == "tanh_scale_1") & (final["width"] == 64)]["kernel_drift"]
    (bars,) = axis.containers[1][2]  # the bars of the second width
    assert bars.get_segments()[-1][:, 1] == pytest.approx(np.quantile(drifts, [0.25, 0.75]))
    assert axis.containers[1][0].get_ydata()[-1] == pytest.approx(drifts.median())


def test_the_accuracy_figure_shows_the_accuracy_of_the_limit(results):
    drift = ntksim.read_table(results, "drift").query("network == 'relu'").set_index(["quantity", "width"])["mean"]
    axis = drawn(results, "accuracy").axes[0]
    assert list(axis.containers[0][0].get_ydata()) == drift["test_accuracy"].to_list()
    level = next(line for line in axis.get_lines() if line.get_linestyle() == "--")
    assert set(level.get_ydata()) == {drift[("test_limit_closed_form_accuracy", 64)]}
    real = parse_study(CONTENT | {"dataset": {"name": "diabetes", "train": 4, "test": 5}})
    assert "accuracy" not in jobs.figures(real)


def test_indices_of_eigenvalues_are_whole_numbers(results):
    for axis in drawn(results, "spectrum").axes:
        assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "2", "3", "4"]
        assert not len(axis.xaxis.get_minorticklocs())


def test_outputs_that_prefer_no_class_have_no_accuracy():
    two = Data(np.zeros((2, 1)), np.array([1.0, -1.0]), np.zeros((2, 1)), np.array([1.0, -1.0]), are_classes=True)
    outputs = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, -1.0], [np.nan, 1.0]])
    assert accuracy(outputs, two) == pytest.approx([np.nan, 0.5, 1.0, np.nan], nan_ok=True)
    hot = np.eye(3)[:2] - 1 / 3
    three = Data(np.zeros((2, 1)), hot, np.zeros((2, 1)), hot, are_classes=True)
    outputs = np.array([np.zeros(6), [1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 1, 0]])
    assert accuracy(outputs, three) == pytest.approx([np.nan, 0.5, 1.0], nan_ok=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "gradient_descent", "momentum": 0.9, "nesterov": True}, "relative learning rate 0.5, Nesterov momentum 0.9"),
        (
            {"method": "gradient_descent", "relative_learning_rate": 0.25, "batch_size": 2},
            "relative learning rate 0.25, batch size 2",
        ),
        ({"method": "gradient_flow", "layer_rates": [1.0, 0.5]}, "tolerance 0.0001, layer rates [1.0, 0.5]"),
    ],
)
def test_a_schedule_in_words_includes_its_defaults(options, words):
    training = Training(widths=[4], seeds=2, relative_time=10.0, **options).model_dump()
    start = f"{options['method'].replace('_', ' ')} of f to t = 10 / lambda_max(K_inf), squared loss, "
    assert description._schedule(training) == start + words


def test_networks_are_listed_by_the_numbers_in_their_names(results):
    attrs = dict(ntksim.read_table(results, "initial").attrs)
    attrs["config"] = attrs["config"] | {"networks": dict.fromkeys(("mlp_depth16", "mlp_depth2", "2nd"))}
    _, (_, line), _ = description.opening(attrs, [])
    assert line.startswith("2nd, mlp_depth2, mlp_depth16. At initialisation 3 seeds")


def test_missing_intervals_are_not_compared():
    parts = {"width": [8, 16], "root_mean_square": [2.0, 1.0], "interval_low": [np.nan] * 2, "interval_high": [np.nan] * 2}
    systematic, random = (pd.DataFrame(parts | {"quantity": name}) for name in PARTS)
    random["root_mean_square"] /= 2
    sentence = "its systematic part is larger than the random one at every width"
    assert findings.overtaking(pd.concat([systematic, random])) == sentence


def test_dollar_signs_below_a_figure_are_not_read_as_mathematics(results, tmp_path, monkeypatch):
    monkeypatch.setattr(figures.description, "data", lambda metadata, **options: "a$b_$c.csv, classes <=$50K and >$50K")
    figures.draw("spectrum", [Path(results) / "tables" / "spectrum.parquet"], [tmp_path / "spectrum.png"])
    assert (tmp_path / "spectrum.png").stat().st_size > 0
