"""Overflow, divergence and failing eigensolvers: every seed has a status, and failed seeds are counted but enter no statistic."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import studies
from ntksim.engine import measures
from ntksim.study.config.study import parse_study
from ntksim.study.data import dataset
from ntksim.study.errors import StageError
from ntksim.study.files import tables
from ntksim.study.plan import jobs
from ntksim.study.report import figures, summary
from ntksim.study.report.page import write_html
from ntksim.study.stages import kernels as stages
from ntksim.study.stages import limit, theory

CONTENT = {
    "dataset": {"name": "circle", "train": 5, "test": 3},
    "networks": {
        "relu": {"activation": "relu", "depth": 1},
        # kernels of about 1e40 overflow float32; their limit is computed in float64
        "large": {"activation": "relu", "depth": 1, "sigma_a": 1e20},
    },
    "initial": {"widths": [2, 64], "seeds": 4, "dispersion": {}},
    # at 1.9 of the limit's stability bound of 2, narrow networks with larger kernels diverge
    "training": {
        "method": "gradient_descent", "relative_learning_rate": 1.9, "widths": [2, 64], "seeds": 8, "relative_time": 1000.0,
        "snapshots": 3,
        "measures": {
            "eigenvalues": 2, "eigenvectors": 1, "modes": {"frequencies": [1]}, "regression": True, "profile": True,
            "predictions": True, "couplings": True,
        },
    },
    "precision": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    study = parse_study(CONTENT | {"results": str(tmp_path_factory.mktemp("overflow"))})
    with np.errstate(all="ignore"):
        studies.compute(study)
    return study.results


def test_every_seed_is_in_the_tables_with_its_status(results):
    initial = tables.read_table(results, "initial")
    assert len(initial) == 2 * 2 * 4
    assert (initial["status"] == "finished").equals(initial["network"] == "relu")
    assert set(initial.loc[initial["network"] == "large", "status"]) <= {"overflow", "nan"}
    training = tables.read_table(results, "training")
    assert training.groupby(["network", "width"])["seed"].nunique().eq(8).all()
    # at width 2 a network may be dead on every point, and finish
    assert "finished" not in set(training.query("network == 'large' and width == 64")["status"])
    relu = training[training["network"] == "relu"]
    assert (relu["status"] == "diverged").any()
    assert (relu["status"] == "finished").any()


def test_statistics_leave_out_unfinished_seeds_and_count_them(results):
    drift = tables.read_table(results, "drift").query("quantity == 'loss'")
    final = tables.read_table(results, "final")
    for _, row in drift.iterrows():
        mine = final[(final["network"] == row["network"]) & (final["width"] == row["width"])]
        finished = mine[mine["status"] == "finished"]
        assert (row["count"], row["excluded"]) == (len(finished), 8 - len(finished))
        assert row["mean"] == pytest.approx(finished["loss"].mean(), nan_ok=True)
    convergence = tables.read_table(results, "convergence").query("network == 'large'")
    assert convergence["count"].eq(0).all()
    assert convergence["excluded"].eq(4).all()
    assert convergence["mean"].isna().all()
    laws = tables.read_table(results, "scaling_laws")
    assert "large" not in set(laws["network"])
    assert (
        laws.query("network == 'relu' and quantity == 'kernel_drift'")["excluded"].item()
        == drift.query("network == 'relu'")["excluded"].sum()
    )


def test_summary_and_page_name_unfinished_networks(results, tmp_path):
    text = summary.summary(results)
    assert "Left out of the statistics at initialisation: 8 of 16 networks (8 " in text
    assert "large at width 2, large at width 64" in text
    diverged = next(line for line in text.splitlines() if "in training:" in line)
    assert "of 32 networks" in diverged
    assert "diverged" in diverged
    assert "relu at width 2" in diverged
    write_html(results, tmp_path / "report.html")
    assert diverged in (tmp_path / "report.html").read_text()


def test_the_summary_gives_stopping_times_and_remedies(results, tmp_path):
    """For diverging networks of width 2 it gives the times, advice, and a mark on statistics that leave them out."""
    training, final = tables.read_table(results, "training"), tables.read_table(results, "final")
    runs = training[(training["network"] == "relu") & (training["width"] == 2)]
    finite = runs[np.isfinite(runs[["loss", "test_loss", "kernel_drift", "parameter_drift"]]).all(axis=1)]
    lost = runs.loc[runs["status"] == "diverged", "seed"].unique()
    assert len(lost) > 0
    reached = final[(final["network"] == "relu") & (final["width"] == 2)].set_index("seed")["relative_time_reached"]
    last = finite.groupby("seed")["relative_time"].max()
    assert reached.equals(last.reindex(reached.index))
    assert (reached[lost] < 1000).all()
    assert reached.drop(lost).eq(runs["relative_time"].max()).all()
    for name in ("drift", "lazy"):
        rows = tables.read_table(results, name).query("network == 'relu' and width == 2")
        assert rows["earliest_stop"].eq(reached[lost].min()).all()
        assert rows["latest_stop"].eq(reached[lost].max()).all()
        assert rows["marked"].eq(rows["excluded"] > 0.8).all()
        assert tables.read_table(results, name).query("marked == False")["excluded"].eq(0).all()
    laws = tables.read_table(results, "scaling_laws").query("network == 'relu' and quantity == 'kernel_drift'")
    assert laws["marked"].all()
    text = summary.summary(results)
    every = final.loc[final["status"] != "finished", "relative_time_reached"]
    assert f"which stopped after t = {every.min():.3g} to {every.max():.3g} / lambda_max(K_inf): relu at width 2, " in text
    assert "For diverged: in gradient descent lower relative_learning_rate" in text
    stars = [line for line in text.splitlines() if line.startswith("* more than 10% of the seeds are left out of ")]
    assert len(stars) == 2  # at initialisation, and in training
    assert "relu at width 2, " in stars[1]
    assert any("* [" in line or "* no interval" in line for line in text.splitlines() if line.startswith("  relu"))
    write_html(results, tmp_path / "report.html")
    assert "<td>" + f"{laws['excluded'].item()}*</td>" in (tmp_path / "report.html").read_text()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_figures_star_marked_statistics(results):
    frames = [tables.read_table(results, name) for name in jobs.FIGURES["drift"]]
    axis = figures.drift(*frames).axes[0]
    starred = [text.xy[0] for text in axis.texts if text.get_text() == "*"]
    rows = frames[0].query("quantity == 'kernel_drift' and marked and root_mean_square > 0")
    markers = {x for bars in axis.containers for x in bars.lines[0].get_xdata()}  # networks stand side by side
    assert set(starred) <= markers
    assert starred == pytest.approx(rows["width"].to_list(), rel=0.1)
    assert "more than 10% of the seeds left out" in axis.get_legend_handles_labels()[1]
    unmarked = [frame.assign(marked=False) for frame in frames]
    assert not [text for text in figures.drift(*unmarked).axes[0].texts if text.get_text() == "*"]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # matplotlib on panels without data
@pytest.mark.parametrize("figure", jobs.FIGURES)
def test_figures_are_drawn_despite_unfinished_networks(results, tmp_path, figure):
    files = [Path(results) / "tables" / f"{name}.parquet" for name in jobs.FIGURES[figure]]
    figures.draw(figure, files, [tmp_path / "a.svg"])
    assert (tmp_path / "a.svg").stat().st_size > 3000


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.filterwarnings("ignore:All-NaN:RuntimeWarning")
def test_a_study_without_finished_networks_has_tables_and_figures(tmp_path):
    """All kernels overflow, so there are no kernel changes, and figures have nothing to draw."""
    large = CONTENT["networks"]["large"] | {"output_scale": [1.0, 2.0]}
    training = CONTENT["training"] | {"remove_initial_output": True, "widths": [64, 128], "seeds": 2}
    changes = {"networks": {"large": large}, "training": training, "results": str(tmp_path)}
    with np.errstate(all="ignore"):
        studies.compute(parse_study(CONTENT | changes))
    assert "finished" not in set(tables.read_table(tmp_path, "training")["status"])
    parts = tables.read_table(tmp_path, "drift").query("quantity == 'systematic_kernel_drift'")
    assert parts["count"].eq(0).all()
    assert parts["excluded"].eq(2).all()
    assert parts["root_mean_square"].isna().all()
    assert set(tables.read_table(tmp_path, "lazy")["verdict"]) == {"none"}
    for name in jobs.FIGURES:
        files = [tmp_path / "tables" / f"{table}.parquet" for table in jobs.FIGURES[name]]
        figures.draw(name, files, [tmp_path / "a.svg"])
    assert summary.summary(tmp_path)


def test_a_failing_eigensolver_affects_one_seed_only(monkeypatch):
    kernels = np.array([np.diag([2.0, 1.0]), np.diag([7.0, 1.0]), np.diag([3.0, 1.0]), np.diag([np.inf, 1.0])])
    solve = np.linalg.eigvalsh

    def failing(values):
        if np.any(np.asarray(values) == 7.0):
            raise np.linalg.LinAlgError("Eigenvalues did not converge")
        return solve(values)

    monkeypatch.setattr(np.linalg, "eigvalsh", failing)
    found = pd.DataFrame(stages.kernel_columns(kernels, np.eye(2), np.ones(2)))
    assert found["status"].to_list() == ["finished", "eigensolver_failed", "finished", "overflow"]
    assert found["largest_eigenvalue"].to_list()[::2] == [2, 3]
    assert found[["trace", "largest_eigenvalue"]].loc[1].isna().all()
    monkeypatch.undo()
    expected = measures.kernel_statistics(kernels[:1], np.eye(2), np.ones(2))
    assert all(found[name][0] == value[0] for name, value in expected.items())


def test_a_failed_prediction_is_nan(monkeypatch):
    def failing(*_args):
        raise np.linalg.LinAlgError

    monkeypatch.setattr(theory, "closed_form", failing)
    network = parse_study(CONTENT).networks["relu"].network(4)
    start = (np.zeros(2), np.zeros(1))
    for kernel in (np.eye(2), np.full((2, 2), np.inf)):
        f, f_test = theory.prediction(network, (kernel, np.ones((1, 2))), start, np.ones(2), np.array([0.0, 1.0]))
        assert np.isnan(f).all()
        assert (f.shape, f_test.shape) == ((2, 2), (2, 1))


def test_a_limit_that_overflows_is_refused(tmp_path):
    network = parse_study(CONTENT | {"networks": {"n": {"activation": "relu", "depth": 1, "sigma_a": 1e200}}}).networks["n"]
    dataset.write(tmp_path / "d.npz", dataset.load(parse_study(CONTENT).dataset))
    with np.errstate(all="ignore"), pytest.raises(StageError, match="the infinite-width kernel of this network overflows; lower"):
        limit.limit(tmp_path / "d.npz", network.network(4), tmp_path / "limit.npz")
    assert not (tmp_path / "limit.npz").exists()
