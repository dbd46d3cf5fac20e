"""What a study measures along training and at initialisation, against the engine, equations solved anew, and laws."""

import itertools
from functools import partial

import numpy as np
import pandas as pd
import pytest

import ntksim
import studies
from ntksim import cli
from ntksim.study.config.study import parse_study
from ntksim.study.config.words import word
from ntksim.study.data import dataset
from ntksim.study.errors import ConfigError, StageError
from ntksim.study.plan import identity, jobs
from ntksim.study.report import figures, findings
from ntksim.study.run import runner, verify
from ntksim.study.statistics import dispersion, seeds
from ntksim.study.statistics.columns import COLUMNS
from ntksim.study.statistics.measure_columns import MEASURE_COLUMNS

ASKED = {
    "eigenvalues": 3, "eigenvectors": 2, "modes": {"frequencies": [1, 2]}, "regression": True, "profile": True,
    "predictions": True, "couplings": True,
}  # fmt: skip
CONTENT = {
    "dataset": {"name": "circle", "train": 6, "test": 4, "evaluation": 5},
    "networks": {
        "lazy": {"activation": "erf", "depth": 1, "sigma_b": 0.3, "output_scale": 128.0},
        "erf": {"activation": "erf", "depth": 2, "sigma_w": 1.5},
    },
    "initial": {"widths": [16], "seeds": 6, "dispersion": {"relative_learning_rate": 0.5}, "continuum_degrees": 4},
    "training": {
        "widths": [32, 64], "seeds": 6, "relative_time": 20.0, "snapshots": 5, "tolerance": 1e-5, "ridge": 0.1,
        "remove_initial_output": True,
        "measures": ASKED,
    },
}  # fmt: skip
ORIGINS = {"kernel_dispersion": 1.0, "first_step_change": 0.0}  # at infinite width
NETWORK = ntksim.Network(2, 64, "erf", sigma_w=1.5)
computed = partial(studies.computed, CONTENT)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return computed(tmp_path_factory.mktemp("measures"))


@pytest.fixture(scope="module")
def data(study):
    return dataset.read(f"{study.results}/dataset.npz")


@pytest.fixture(scope="module")
def run(study, data):
    """Training of the network erf at width 64 by the engine alone."""
    times = rows_of(study, "training", "erf", 64)["time"].unique()
    seen = np.concatenate([data.x_test, data.x_evaluation])
    options = {"keep_kernels": True, "keep_test_kernels": True, "tolerance": 1e-5, "remove_initial_output": True}
    return ntksim.train(NETWORK, data.x_train, data.y_train, seeds=range(6), times=times, x_test=seen, **options)


def rows_of(study, table, network, width):
    frame = ntksim.read_table(study.results, table)
    return frame[(frame["network"] == network) & (frame["width"] == width)]


def test_columns_are_described_and_stand_in_the_tables_asked_for(study, tmp_path):
    assert not set(COLUMNS) & set(MEASURE_COLUMNS)
    own = {
        "eigenvalues",
        "mode_residuals",
        "couplings",
        "regression",
        "profiles",
        "predictions",
        "freeze",
        "dispersion",
        "continuum",
    }
    frames = {name: ntksim.read_table(study.results, name) for name in jobs.tables(study)}
    assert set().union(*(frames[name] for name in own)) >= set(MEASURE_COLUMNS)
    for name, frame in frames.items():
        assert name in own or not set(frame) & set(MEASURE_COLUMNS), name


def test_a_study_without_measures_has_the_jobs_and_identities_it_had():
    plain = {"initial": {"widths": [16], "seeds": 6}, "networks": CONTENT["networks"], "dataset": CONTENT["dataset"]}
    without = parse_study(plain | {"training": {k: v for k, v in CONTENT["training"].items() if k != "measures"}})
    assert "dispersion" not in str(without.model_dump())
    assert "first_step" not in identity.of_shard(without, jobs.shards(without)[-1], "data")
    assert "measures" not in without.training.identity
    assert "measures" not in word(without.training.schedule)
    assert "measures" not in str(without.model_dump())
    asked = [
        parse_study(plain | {"training": CONTENT["training"] | {"measures": {"eigenvectors": 1} | more}})
        for more in ({}, {"couplings": False}, {"couplings": True})
    ]
    assert asked[0].training.identity == asked[1].training.identity != asked[2].training.identity
    assert "couplings" not in word(asked[1].training.schedule)
    assert set(jobs.tables(without)) == {*jobs.TABLES, *jobs.TRAINING_TABLES}
    share = parse_study(plain | {"training": CONTENT["training"] | {"measures": {"freeze_share": 0.5}}})
    assert share.training.identity == without.training.identity  # of the tables alone: no job is told
    assert word(share.training.schedule) == word(without.training.schedule)
    assert share.science_hash() != without.science_hash()
    assert [name for name in jobs.tables(share) if name not in jobs.tables(without)] == ["freeze"]


def test_shards_with_measures_and_dispersion_are_verified(study, capsys):
    assert verify.verify(study.results, shards=4)
    printed = capsys.readouterr().out
    assert "0 within tolerance, 0 different" in printed
    assert {stage for stage in ("initial/", "training/") if stage in printed} == {"initial/", "training/"}


def test_eigenvalues_are_those_of_the_kernel(study, run):
    rows = rows_of(study, "eigenvalues", "erf", 64)
    found = rows["leading_eigenvalue"].to_numpy().reshape(6, 6, 3)
    assert found == pytest.approx(np.linalg.eigvalsh(run.kernels)[..., :-4:-1], rel=1e-9)
    assert rows["index"].to_list()[:4] == [0, 1, 2, 0]


def test_residuals_on_modes_are_projections(study, data, run):
    rows = rows_of(study, "mode_residuals", "erf", 64)
    theta = np.arctan2(data.x_train[:, 1], data.x_train[:, 0])
    sine = np.sin(2 * theta) / np.linalg.norm(np.sin(2 * theta))
    own = rows[(rows["basis"] == "fourier") & (rows["mode"] == "sin 2")]
    residuals = run.outputs - data.y_train
    assert own["residual"].to_numpy().reshape(6, 6) == pytest.approx(np.abs(residuals @ sine), rel=1e-9)
    moved = run.kernels @ sine
    assert own["mode_rate"].to_numpy().reshape(6, 6) == pytest.approx(moved @ sine, rel=1e-9)
    outside = np.linalg.norm(moved - (moved @ sine)[..., None] * sine, axis=-1) / np.linalg.norm(moved, axis=-1)
    assert own["leakage"].to_numpy().reshape(6, 6) == pytest.approx(outside, rel=1e-9)
    rate = 6 * ntksim.continuum_spectrum(NETWORK, degrees=3)[2]
    assert own["theory_rate"].to_numpy() == pytest.approx(np.full(36, rate), rel=1e-9, abs=1e-10)
    limit = ntksim.infinite_kernel(NETWORK, data.x_train).ntk
    assert own["sample_rate"].to_numpy() == pytest.approx(np.full(36, sine @ limit @ sine), rel=1e-9)
    values, vectors = np.linalg.eigh(limit)
    constant = (vectors * np.exp(-np.outer(run.times, values))[:, None, :]) @ (vectors.T @ -data.y_train)
    under = own["limit_residual"].to_numpy().reshape(6, 6)
    assert under == pytest.approx(np.tile(np.abs(constant @ sine), (6, 1)), rel=1e-6, abs=1e-9)
    now = rows[(rows["basis"] == "current_eigenvectors") & (rows["mode"] == "1")]["residual"].to_numpy().reshape(6, 6)
    second = np.linalg.eigh(run.kernels)[1][..., -2]
    assert now == pytest.approx(np.abs(np.sum(second * residuals, axis=-1)), rel=1e-6, abs=1e-9)


def test_couplings_say_into_which_modes_the_kernel_mixes_each(study, data, run):
    rows, leakage = rows_of(study, "couplings", "erf", 64), rows_of(study, "mode_residuals", "erf", 64)
    theta = np.arctan2(data.x_train[:, 1], data.x_train[:, 0])
    functions = np.stack([function(k * theta) for k in (1, 2) for function in (np.cos, np.sin)], axis=1)
    leading = np.linalg.eigh(run.kernels[:, 0])[1][..., :-3:-1]
    names = {"fourier": ["cos 1", "sin 1", "cos 2", "sin 2"], "initial_eigenvectors": ["0", "1"]}
    for basis, vectors in (("fourier", functions / np.linalg.norm(functions, axis=0)), ("initial_eigenvectors", leading)):
        own, size = rows[rows["basis"] == basis], len(names[basis])
        moved = run.kernels @ (vectors if vectors.ndim == 2 else vectors[:, None])
        inside = np.einsum("...ni,...tnj->...tji", vectors, moved)  # of mode j in mode i
        wanted = np.abs(inside) / np.linalg.norm(moved, axis=-2)[..., None]
        found = own["coupling"].to_numpy().reshape(6, 6, size, size)
        assert found == pytest.approx(wanted, rel=1e-8, abs=1e-12)
        assert own["mode"].to_list()[: size**2] == np.repeat(names[basis], size).tolist()
        assert own["other_mode"].to_list()[: size**2] == names[basis] * size
        outside = leakage.loc[leakage["basis"] == basis, "leakage"].to_numpy().reshape(6, 6, size)
        stays = np.diagonal(found, axis1=-2, axis2=-1)
        assert stays**2 + outside**2 == pytest.approx(np.ones((6, 6, size)), rel=1e-12)
    assert set(rows["basis"]) == set(names)
    assert (own["other_order"] == own["other_mode"].astype(int)).all()


def test_lazy_networks_decay_as_theory_says(study):
    """f - f_0 is trained, so that output scale 128 at width 64 is as lazy as width 2^20: kernels move by less than 1e-3."""
    rows = rows_of(study, "mode_residuals", "lazy", 64)
    own = rows[rows["basis"] == "initial_eigenvectors"]
    start = own["residual"].groupby([own["seed"], own["mode"]]).transform("first")
    assert (own["residual"] - own["theory_residual"]).abs().max() < 5e-3 * start.max()
    assert own["leakage"].max() < 5e-3
    measured = own["measured_rate"].notna()
    assert measured.sum() > 20
    relative = (own["measured_rate"] / own["theory_rate"] - 1)[measured & (own["residual"] > 0.02 * start)]
    assert relative.abs().max() < 0.02
    fourier = rows[rows["basis"] == "fourier"]  # n random points mix frequencies, by about 1 / sqrt(n)
    assert fourier["leakage"].min() > 0.01


def test_functions_have_no_rate_where_points_have_a_density(tmp_path):
    """cos k theta and sin k theta are eigenfunctions with respect to uniform points alone; eigenvectors of K_0 keep theirs."""
    training = {"widths": [8], "seeds": 2, "relative_time": 5.0, "snapshots": 2}
    training |= {"measures": {"eigenvectors": 1, "modes": {"frequencies": [1]}}}
    small = {"training": training, "initial": {"widths": [8], "seeds": 2}, "networks": {"erf": {"activation": "erf", "depth": 1}}}
    own = computed(tmp_path, dataset=CONTENT["dataset"] | {"density": "1 + 0.9 cos(theta)"}, **small)
    rows, theory = ntksim.read_table(own.results, "mode_residuals"), ["theory_rate", "theory_residual"]
    named = rows["basis"] == "fourier"
    assert rows.loc[named, theory].isna().all(axis=None)
    assert rows.loc[~named, theory].notna().all(axis=None)
    assert rows[["sample_rate", "limit_residual"]].notna().all(axis=None)
    drawn = figures.FIGURES["modes"](rows)
    assert drawn.axes[0].get_legend_handles_labels()[1] == ["$k$ = 1", r"training with $K_\infty$"]


def test_regression_with_every_kernel_solves_the_linear_equations(study, data, run):
    rows = rows_of(study, "regression", "erf", 64)
    ridged = run.kernels + 0.1 * np.eye(6)
    predicted = (run.kept_test_kernels @ np.linalg.solve(ridged, np.broadcast_to(data.y_train, (6, 6, 6))[..., None]))[..., 0]
    for name, part, y in (("test", slice(4), data.y_test), ("evaluation", slice(4, 9), data.y_evaluation)):
        losses = 0.5 * np.sum((predicted[..., part] - y) ** 2, axis=-1)
        assert rows[f"regression_{name}_loss"].to_numpy().reshape(6, 6) == pytest.approx(losses, rel=1e-7), name
        own = 0.5 * np.sum((run.test_outputs[..., part] - y) ** 2, axis=-1)
        assert rows[f"{name}_loss"].to_numpy().reshape(6, 6) == pytest.approx(own, rel=1e-7), name
    points = rows_of(study, "predictions", "erf", 64)
    for name, over in (("mean", np.mean), ("median", np.median), ("quantile_95", partial(np.quantile, q=0.95))):
        found = points[f"regression_prediction_{name}"].to_numpy().reshape(6, 5)
        assert found == pytest.approx(over(predicted[..., 4:], axis=0), rel=1e-7, abs=1e-9), name
    final = rows_of(study, "final", "erf", 64)
    ends = rows.groupby("seed")["regression_test_loss"]
    assert ends.last().to_numpy() == pytest.approx(final["after_kernel_regression_test_loss"].to_numpy())


def test_profiles_are_kernels_with_the_first_training_point(study, data, run):
    rows = rows_of(study, "profiles", "erf", 64)
    initial = ntksim.empirical_ntk(NETWORK, data.x_evaluation, data.x_train[:1], seeds=range(6))[..., 0]
    at_start = rows[rows["time"] == 0]
    assert at_start["mean"].to_numpy() == pytest.approx(initial.mean(axis=0), rel=1e-10)
    assert at_start["quantile_25"].to_numpy() == pytest.approx(np.quantile(initial, 0.25, axis=0), rel=1e-10)
    limit = ntksim.infinite_kernel(NETWORK, data.x_evaluation, data.x_train[:1]).ntk[:, 0]
    assert at_start["limit_profile"].to_numpy() == pytest.approx(limit, rel=1e-10)
    last = rows[rows["time"] == rows["time"].max()]["median"].to_numpy()
    assert last == pytest.approx(np.median(run.kept_test_kernels[:, -1, 4:, 0], axis=0), rel=1e-10)
    turn = np.arange(5) * 2 * np.pi / 5 - np.arctan2(*data.x_train[0, ::-1])
    assert np.exp(1j * at_start["separation"].to_numpy()) == pytest.approx(np.exp(1j * turn), abs=1e-12)


def test_predictions_stand_beside_targets_and_infinite_width(study, data, run):
    rows = rows_of(study, "predictions", "erf", 64)
    last = rows[rows["time"] == rows["time"].max()]
    assert last["mean"].to_numpy() == pytest.approx(run.test_outputs[:, -1, 4:].mean(axis=0), rel=1e-9)
    assert last["target"].to_numpy() == pytest.approx(data.y_evaluation)
    own = ntksim.infinite_kernel(NETWORK, data.x_train).ntk
    across = ntksim.infinite_kernel(NETWORK, data.x_evaluation, data.x_train).ntk
    _, mean = ntksim.closed_form(own, np.zeros(6), data.y_train, run.times, across)
    assert last["limit_prediction"].to_numpy() == pytest.approx(mean[-1], rel=1e-7)
    assert (last["limit_deviation"] == 0).all()  # all begin at 0


def test_freeze_times_follow_from_the_kernels(study, run):
    rows = rows_of(study, "freeze", "erf", 64)
    unit = run.kernels / np.linalg.norm(run.kernels, axis=(-2, -1), keepdims=True)
    speeds = np.linalg.norm(np.diff(unit, axis=1), axis=(-2, -1)) / np.diff(run.times)
    for seed, row in enumerate(rows.itertuples()):
        slow = [at for at in range(5) if (speeds[seed, at:] <= 0.01 * speeds[seed, 0]).all()]
        assert row.freeze_status == ("frozen" if slow else "never")
        assert np.isnan(row.freeze_time) if not slow else row.freeze_time == pytest.approx(run.times[slow[0] + 1])


def test_two_outputs_have_one_profile_and_modes_of_both(tmp_path):
    content = {"dataset": {"name": "iris", "train": 7, "test": 3}, "networks": {"erf": {"activation": "erf", "depth": 1}}}
    training = CONTENT["training"] | {"widths": [32], "seeds": 2, "snapshots": 2}
    training |= {"measures": ASKED | {"modes": {"degrees": [1]}}, "remove_initial_output": False}
    study = computed(tmp_path, training=training, **content)
    data = dataset.read(f"{study.results}/dataset.npz")
    network = ntksim.Network(1, 32, "erf", outputs=3)
    kernels = ntksim.empirical_ntk(network, data.x_test, data.x_train[:1], seeds=[0, 1])
    profile = np.trace(kernels[:, :, :, 0], axis1=-2, axis2=-1).mean(axis=0) / 3
    rows = ntksim.read_table(study.results, "profiles")
    assert rows[rows["time"] == 0]["mean"].to_numpy() == pytest.approx(profile, rel=1e-10)
    modes = ntksim.read_table(study.results, "mode_residuals")
    assert modes[modes["basis"] == "degree"]["mode"].unique().tolist() == ["degree 1"]
    assert ntksim.read_table(study.results, "couplings").groupby("basis").size().to_dict() == {
        "degree": 2 * 3, "initial_eigenvectors": 2 * 3 * 4,
    }  # fmt: skip
    spread = ntksim.read_table(study.results, "predictions")
    assert spread["output"].to_list()[:4] == [0, 1, 2, 0]
    last = spread[spread["time"] == spread["time"].max()]
    ensemble = ntksim.infinite_ensemble(network, data.x_train, data.y_train, spread["time"].unique(), data.x_test)
    assert last["limit_prediction"].to_numpy() == pytest.approx(ensemble.test_mean[-1].ravel(), rel=1e-7)
    deviation = np.repeat(np.sqrt(np.diagonal(ensemble.test_covariance[-1])), 3)
    assert last["limit_deviation"].to_numpy() == pytest.approx(deviation, rel=1e-6)


@pytest.mark.parametrize(
    ("measures", "message"),
    [
        ({"eigenvalues": 7}, "training.measures.eigenvalues: expected at most dataset.train = 6, got 7"),
        ({"modes": {}}, r"training.measures.modes: give either frequencies \(on the circle\) or degrees \(on a sphere\)"),
        ({"modes": {"degrees": [1, 1]}}, "training.measures.modes.degrees: expected different whole numbers from 0"),
        ({"modes": {"degree": [1]}}, "training.measures.modes.degree: unknown key; did you mean 'degrees'?"),
        ({"freeze_share": 1.0}, "training.measures.freeze_share: expected less than 1, got 1.0"),
        (
            5,
            "training.measures: expected keys, such as eigenvalues, eigenvectors, modes; got 5; it is: what is measured at every",
        ),
        ({"modes": [1]}, r"training.measures.modes: expected keys: frequencies, degrees; got \[1\]; it is: named functions on"),
        ({"couplings": True}, "training.measures: couplings: are those between modes, and there are none; give modes or eigenv"),
        (
            {"couplings": True, "modes": {"frequencies": list(range(100))}},
            "training.measures.couplings: the table would have 5702544 rows, more than 2000000; ask for fewer modes, snapsho",
        ),
        ({"regresion": True}, "training.measures.regresion: unknown key; did you mean 'regression'?"),
    ],
)
def test_bad_input_is_one_line(measures, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_study(CONTENT | {"training": CONTENT["training"] | {"measures": measures}})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [True, "no", [1.0]])
def test_a_section_that_is_none_says_its_keys(given):
    with pytest.raises(ConfigError, match="initial.dispersion: expected keys: relative_learning_rate; got .*; it is: E") as error:
        parse_study(CONTENT | {"initial": CONTENT["initial"] | {"dispersion": given}})
    assert "instance" not in str(error.value)


def test_points_off_the_circle_are_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ConfigError, match="initial.dispersion: a step of networks in law may ask for 6 directions, more than"):
        parse_study(CONTENT | {"initial": {"widths": [4], "seeds": 2, "dispersion": {}, "sampling": "conditional"}})
    with pytest.raises(ConfigError, match="training.measures.modes: needs points on a circle or sphere"):
        parse_study(CONTENT | {"dataset": {"name": "gaussian", "features": 2, "train": 6, "test": 4}})
    with pytest.raises(ConfigError, match="frequencies: needs points on the circle, with 2 features, and sphere has 3; give deg"):
        parse_study(CONTENT | {"dataset": {"name": "sphere", "features": 3, "train": 6, "test": 4}})
    np.savez(tmp_path / "own.npz", x=np.random.default_rng(0).normal(size=(12, 2)), y=np.arange(12.0))
    own = {"file": str(tmp_path / "own.npz"), "train": 6, "test": 4, "scaling": "none"}
    with pytest.raises(StageError, match="training.measures.modes: points must lie on a sphere around 0; got lengths from"):
        computed(tmp_path, dataset=own, training=CONTENT["training"] | {"widths": [8], "seeds": 2})


@pytest.mark.parametrize(
    ("data", "modes", "message"),
    [
        ({"name": "circle", "spacing": "even", "train": 16}, {"frequencies": [8]}, "frequencies: sin 8 theta is 0 at all 16 po"),
        ({"name": "circle", "spacing": "even", "train": [8, 16]}, {"frequencies": [4]}, "frequencies: sin 4 theta is 0 at all 8"),
        (
            {"name": "sphere", "features": 3, "train": [5, 16]},
            {"degrees": [0, 2]},
            "degrees: degree 2 has 5 harmonics, which span",
        ),
        (
            {"name": "digits", "train": 16, "classes": [4, 9]},
            {"degrees": [2]},
            "degrees: degree 2 has 2079 harmonics, which span",
        ),
    ],
)
def test_impossible_modes_are_refused_by_the_plan(data, modes, message, tmp_path, capsys):
    """Before anything is computed, whichever of the data sets cannot have them."""
    training = CONTENT["training"] | {"measures": {"modes": modes}}
    studies.command(tmp_path, CONTENT | {"dataset": data | {"test": 4}, "training": training})
    assert cli.main(["plan", str(tmp_path / "config.yaml")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"ntksim: error: training.measures.modes: {message}")
    assert (printed.err.count("\n"), printed.out) == (1, "")
    with pytest.raises(ConfigError, match=r"training\.measures\.modes"):
        runner.run_study(str(tmp_path / "config.yaml"), "1", "default")
    assert not (tmp_path / "results").exists()


def test_dispersion_at_initialisation_is_that_of_the_engines_kernels(study, data):
    rows = ntksim.read_table(study.results, "dispersion").set_index(["network", "quantity"])
    network = ntksim.Network(2, 16, "erf", sigma_w=1.5)
    diagonal = np.diagonal(ntksim.empirical_ntk(network, data.x_train, seeds=range(6)), axis1=1, axis2=2)
    ratio = np.mean(np.mean(diagonal**2, axis=0) / np.mean(diagonal, axis=0) ** 2)
    own = rows.loc["erf", "kernel_dispersion"]
    assert own["value"] == pytest.approx(ratio, rel=1e-12)
    assert own["value_low"] < ratio < own["value_high"]
    assert own["beta"] == pytest.approx(2 / 16)
    assert np.isnan(own["leading_order"])  # no ReLU
    assert own["limit"] == 1
    rate = 0.5 / np.linalg.eigvalsh(ntksim.infinite_kernel(network, data.x_train).ntk)[-1]
    options = {"method": "gradient_descent", "learning_rate": rate, "steps": 1, "times": [0.0, rate], "keep_kernels": True}
    kernels = ntksim.train(network, data.x_train, data.y_train, seeds=range(6), **options).kernels
    change = np.linalg.norm(kernels[:, 1] - kernels[:, 0], axis=(1, 2)) / np.linalg.norm(kernels[:, 0], axis=(1, 2))
    assert rows.loc["erf", "first_step_change"]["value"] == pytest.approx(change.mean(), rel=1e-9)


def test_the_spectrum_of_the_operator_has_a_table(study):
    rows = rows_of(study, "continuum", "erf", 16)
    network = ntksim.Network(2, 16, "erf", sigma_w=1.5)
    assert rows["ntk_eigenvalue"].to_numpy() == pytest.approx(ntksim.continuum_spectrum(network, degrees=4))
    assert rows["nngp_eigenvalue"].to_numpy() == pytest.approx(ntksim.continuum_spectrum(network, degrees=4, kernel="nngp"))
    assert rows["multiplicity"].to_list() == [1, 2, 2, 2]
    assert rows["radius"].to_numpy() == pytest.approx(np.ones(4))


def test_intervals_know_heavy_tails():
    """Lognormal kernels of variance 2 of their logarithm, 100 seeds, 100 samples: the jackknife alone covers 70%.

    A coverage of 0.95 falls below 0.88 in 100 samples with a probability of 0.002.
    """
    rng, truth, held, alone = np.random.default_rng(0), np.exp(2.0), [], []
    for _ in range(100):
        kernels = np.exp(np.sqrt(2.0) * rng.normal(size=(100, 1)))
        found = dispersion.dispersion(kernels)
        held.append(found.low <= truth <= found.high)
        first, second = kernels.sum() - kernels[:, 0], np.sum(kernels**2) - kernels[:, 0] ** 2
        _, low, high = seeds.positive_interval(found.value, 99 * second / first**2)
        alone.append(low <= truth <= high)
    assert np.mean(held) >= 0.88
    assert np.mean(alone) < 0.85


def of_depths(value):
    """A table `dispersion` of networks of depths 1 and 4, at widths 8 and 32, with ``value(depth, width)`` and lopsided ends."""
    rows = []
    for (quantity, origin), depth, width in itertools.product(ORIGINS.items(), (1, 4), (8, 32)):
        own = dict.fromkeys(seeds.NETWORK, 0) | {"network": f"relu_depth{depth}", "depth": depth, "width": width}
        numbers = (origin + factor * value(depth, width) for factor in (1, 0.8, 3))
        own |= {"quantity": quantity, "count": 9, "excluded": int(width == 8 and depth == 1)}
        rows.append(own | dict(zip(("value", "value_low", "value_high"), numbers, strict=True)))
    return pd.DataFrame(rows)


def test_dispersion_and_first_steps_have_laws_in_the_width_and_in_depth_over_width():
    frame = of_depths(lambda depth, width: 3 * (depth / width) ** 1.5)
    found = list(dispersion.dispersion_laws(["train", "width", "depth_over_width"], frame))
    keys = [(row["quantity"], row["along"], row["network"], row["widths_fitted"], row["excluded"]) for row in found]
    assert sorted(keys) == sorted(
        (name, *key)
        for name in ("kernel_dispersion_minus_1", "first_step_change")
        for key in (
            ("width", "relu_depth1", 2, 1), ("width", "relu_depth4", 2, 0), ("depth_over_width", "relu", 4, 1),
        )
    )  # fmt: skip
    for row in found:
        joined = row["along"] == "depth_over_width"
        depth = 1 if joined else int(row["network"][-1])
        assert row["exponent"] == pytest.approx(1.5 if joined else -1.5)
        assert row["prefactor"] == pytest.approx(3 * depth**1.5)
        if not joined:  # a slope between two values: the lower end of one and the upper one of the other
            reach = np.hypot(np.log(3), np.log(1 / 0.8)) / np.log(4)
            assert (row["interval_low"], row["interval_high"]) == pytest.approx((-1.5 - reach, -1.5 + reach))
        assert row["prefactor"] / row["prefactor_low"] < row["prefactor_high"] / row["prefactor"]
    said = " ".join(findings.over_depths(pd.DataFrame(found).assign(marked=False))["relu"])
    assert "the kernel's dispersion E[K^2] / E[K]^2 - 1 on the diagonal scales as depth over width to the power +1.50" in said
    assert "the kernel's mean relative change by a first step scales" in said


def test_values_that_are_not_told_from_infinite_width_have_no_law():
    frame = of_depths(lambda depth, width: 1 / width)
    frame.loc[(frame["quantity"] == "kernel_dispersion") & (frame["width"] == 32), "value_low"] = 0.9
    found = list(dispersion.dispersion_laws(["width", "depth_over_width"], frame))
    assert {row["quantity"] for row in found} == {"first_step_change"}
    few = frame.assign(value_low=np.nan, value_high=np.nan)
    rows = list(dispersion.dispersion_laws(["width"], few))
    assert len(rows) == 4
    for row in rows:
        assert row["exponent"] == pytest.approx(-1)
        assert np.isnan([row["interval_low"], row["prefactor_high"], row["standard_error"]]).all()


def test_light_tails_keep_the_jackknifes_interval():
    kernels = 1 + 0.1 * np.random.default_rng(1).normal(size=(400, 1))
    found = dispersion.dispersion(kernels)
    assert found.effective > 300
    assert found.value == pytest.approx(np.mean(kernels**2) / np.mean(kernels) ** 2)
    without = [np.mean(rest**2) / np.mean(rest) ** 2 for rest in (np.delete(kernels, s) for s in range(400))]
    _, low, high = seeds.positive_interval(found.value, np.array(without))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    dead = np.concatenate([np.zeros((3, 1)), np.exp(np.random.default_rng(2).normal(size=(20, 1)))])
    alive = dispersion.dispersion(dead[3:])
    assert dispersion.dispersion(dead).value == pytest.approx(alive.value * 23 / 20)
    assert np.isnan(dispersion.dispersion(kernels[:4]).low)
    assert dispersion.mean(kernels[:, 0]).value == pytest.approx(kernels.mean())
