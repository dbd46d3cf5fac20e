"""A study's tables of training, compared with the engine and with laws: measures, modes, parts of the drift, verdicts."""

import shlex
from functools import partial

import numpy as np
import pandas as pd
import pytest

import ntksim
import studies
from ntksim import cli
from ntksim.engine import measures
from ntksim.engine.network import rated
from ntksim.study.config.axes import family
from ntksim.study.config.stages import Schedule
from ntksim.study.config.study import parse_study
from ntksim.study.config.words import word
from ntksim.study.data import dataset
from ntksim.study.data.files import Data
from ntksim.study.files.storage import read_arrow, tensors, write_table
from ntksim.study.plan import jobs as plan
from ntksim.study.report import figures
from ntksim.study.run import verify
from ntksim.study.stages import theory
from ntksim.study.stages.limit import infinite_kernels
from ntksim.study.statistics import drift_parts, laziness, scaling_laws, tables
from ntksim.study.statistics.columns import COLUMNS, QUANTITIES, quantities

CONTENT = {
    "dataset": {"name": "digits", "classes": [3, 8], "train": 5, "test": 4},
    "networks": {
        "relu": {"activation": "relu", "depth": 1},
        "tanh": {"activation": "tanh", "depth": 2, "sigma_b": 0.2, "output_scale": [0.03125, 16.0]},
    },
    "initial": {"widths": [64], "seeds": 2},
    "training": {
        "widths": [32, 128], "seeds": 7, "relative_time": 50.0, "snapshots": 6, "tolerance": 1e-3,
        "remove_initial_output": True, "keep_kernels": True,
    },
    "seeds_per_shard": 3,
}  # fmt: skip


computed = partial(studies.computed, CONTENT)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return computed(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def run(study):
    """The data, and training of the network relu at width 128 by the engine alone."""
    data = dataset.read(f"{study.results}/dataset.npz")
    times = rows_of(study, "training", "relu", 128)["time"].unique()
    network = ntksim.Network(1, 128, "relu")
    options = {"seeds": range(7), "tolerance": 1e-3, "x_test": data.x_test, "remove_initial_output": True}
    return data, ntksim.train(network, data.x_train, data.y_train, times=times, keep_kernels=True, **options)


def test_rounding_errors_of_a_limit_do_not_change_predictions():
    """An even part of relative size 1e-11 is added to a tanh kernel, as errors of its series may do.

    The network is odd, so predictions for even targets must stay 0.
    """
    x, x_test = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([[0.5], [1.5]])
    network, data = ntksim.Network(1, 8, "tanh"), Data(x, np.cos(x[:, 0]), x_test, np.cos(x_test[:, 0]), False)
    limits, schedule = infinite_kernels(network, data), Schedule(relative_time=1.0, remove_initial_output=True)
    limits = {name: kernel + 1e-11 * limits["ntk"].max() for name, kernel in limits.items()}
    for moments in theory.ensemble_moments(network, data, limits, np.array([1e14, np.inf]), schedule, {}):
        assert np.abs(moments.mean).max() < 1e-6


def rows_of(study, table, network, width):
    frame = ntksim.read_table(study.results, table)
    return frame[(frame["network"] == network) & (frame["width"] == width)]


def test_every_column_has_a_description(study):
    """Columns and descriptions are the same set. (Writing a table fails if a column has no description.)"""
    frames = {name: ntksim.read_table(study.results, name) for name in plan.tables(study)}
    assert set().union(*frames.values()) == set(COLUMNS)
    assert set(frames["convergence"]["quantity"]) == set(quantities("convergence") + quantities("error_parts"))
    assert set(frames["drift"]["quantity"]) == set(quantities("drift") + quantities("parts"))
    assert set(frames["scaling_laws"]["quantity"]) <= {name for name, quantity in QUANTITIES.items() if quantity.law}
    for name, columns in (("lazy", quantities("lazy")), ("modes", quantities("modes")), ("final", quantities("run"))):
        assert set(columns) <= set(frames[name]), name
    schema = read_arrow(f"{study.results}/tables/lazy.parquet")[0].schema
    assert schema.field("kernel_drift").metadata == {b"description": QUANTITIES["kernel_drift"].meaning.encode()}


def test_measures_equal_those_of_the_engine(study, run):
    data, trajectory = run
    rows, shape = rows_of(study, "training", "relu", 128), trajectory.loss.shape
    kernels = trajectory.kernels
    expected = {name: getattr(trajectory, name) for name in ("loss", "kernel_distance", "feature_drift", "gates_flipped")}
    expected |= {
        "kernel_target_alignment": measures.kernel_target_alignment(kernels, data.y_train),
        "centred_kernel_target_alignment": measures.centred_kernel_target_alignment(kernels, data.y_train),
        "centred_alignment": measures.centred_alignment(kernels, kernels[:, :1]),
        "effective_rank": measures.effective_rank(kernels),
        "test_loss": 0.5 * ((trajectory.test_outputs - data.y_test) ** 2).sum(axis=-1),
    }
    for name, values in expected.items():
        assert rows[name].to_numpy().reshape(shape) == pytest.approx(values, rel=1e-9, abs=1e-14), name
    velocity = rows["kernel_velocity"].to_numpy().reshape(shape)
    assert np.isnan(velocity[:, 0]).all()
    assert velocity[:, 1:] == pytest.approx(measures.kernel_velocity(kernels, trajectory.times), rel=1e-9)
    layers, shape = rows_of(study, "layers", "relu", 128), trajectory.layer_drift.shape
    assert layers["parameter_drift"].to_numpy().reshape(shape) == pytest.approx(trajectory.layer_drift)
    assert layers["kernel_drift"].to_numpy().reshape(shape) == pytest.approx(trajectory.layer_kernel_drift)
    assert layers["layer"].to_list()[:4] == [1, 2, 1, 2]


def test_kernel_regression_solves_the_linear_equations(study, run):
    data, trajectory = run
    network = ntksim.Network(1, 128, "relu")
    final = rows_of(study, "final", "relu", 128)
    limit = ntksim.infinite_kernel(network, np.concatenate([data.x_train, data.x_test])).ntk
    for seed in range(7):
        initial = ntksim.empirical_ntk(network, np.concatenate([data.x_train, data.x_test]), seeds=[seed])[0]
        kernels = {
            "initial": (initial[:5, :5], initial[5:, :5]),
            "limit": (limit[:5, :5], limit[5:, :5]),
            "after": (trajectory.kernel[seed], trajectory.test_kernel[seed]),
        }
        for name, (own, across) in kernels.items():
            loss = 0.5 * np.sum((across @ np.linalg.solve(own, data.y_train) - data.y_test) ** 2)
            assert final[f"{name}_kernel_regression_test_loss"].iloc[seed] == pytest.approx(loss, rel=1e-7)
    assert final["after_kernel_regression_test_loss"].to_numpy() != pytest.approx(
        final["initial_kernel_regression_test_loss"].to_numpy(), rel=1e-3
    )


def test_modes_have_eigenvalues_and_decay_rates(study, run):
    _, trajectory = run
    modes = rows_of(study, "modes", "relu", 128)
    shape = (7, 5)
    assert modes["index"].to_list()[:6] == [0, 1, 2, 3, 4, 0]
    assert modes["eigenvalue"].to_numpy().reshape(shape) == pytest.approx(measures.spectrum(trajectory.kernels[:, 0]))
    assert modes["after_eigenvalue"].to_numpy().reshape(shape) == pytest.approx(measures.spectrum(trajectory.kernel))
    # scaling the output by 16 makes a network as lazy as widening it by 256
    lazy = rows_of(study, "modes", "tanh_scale_16", 128)["relative_rate_difference"]
    rich = rows_of(study, "modes", "tanh_scale_0p03125", 128)["relative_rate_difference"]
    assert lazy.notna().mean() > 0.9  # except for components that begin near the tolerance
    assert lazy.abs().median() < 0.02
    assert lazy.abs().max() < 0.1
    assert rich.abs().median() > 0.1
    assert rich.notna().mean() < 0.5  # the eigenvectors of the kernel turn, which mixes the modes
    shares = modes["initial_share"].to_numpy().reshape(shape)
    _, vectors = np.linalg.eigh(trajectory.kernels[:, 0])
    data = dataset.read(f"{study.results}/dataset.npz")
    along = np.einsum("i,sij->sj", data.y_train, vectors)[:, ::-1] ** 2  # r_0 = -y
    assert shares == pytest.approx(along / np.sum(data.y_train**2))


def test_parts_of_the_drift_add_up_and_do_not_depend_on_shards(study, tmp_path):
    drift = ntksim.read_table(study.results, "drift")
    squares = drift.pivot(index=["network", "width"], columns="quantity", values="root_mean_square") ** 2
    assert (squares["systematic_kernel_drift"] + squares["random_kernel_drift"]).to_numpy() == pytest.approx(
        squares["kernel_drift"].to_numpy(), rel=1e-9
    )
    parts = drift[drift["quantity"].isin(drift_parts.PARTS)]
    assert (parts["interval_low"] <= parts["root_mean_square"]).all()
    assert (parts["root_mean_square"] <= parts["interval_high"]).all()
    assert parts["count"].eq(7).all()
    laws = ntksim.read_table(study.results, "scaling_laws").set_index(["network", "quantity"])
    assert ("tanh_scale_16", "systematic_kernel_drift") not in laws.index  # indistinguishable from the scatter
    lost = drift[(drift["network"] == "tanh_scale_16") & (drift["quantity"] == "systematic_kernel_drift")]
    assert lost["interval_low"].eq(0).any()
    theory = {("relu", "random"): -0.75, ("tanh_scale_16", "random"): -1.0}
    for (network, part), exponent in theory.items():
        assert laws.loc[(network, f"{part}_kernel_drift"), "theory_exponent"] == exponent
    others = computed(tmp_path, seeds_per_shard=5, networks={"relu": CONTENT["networks"]["relu"]})
    for name in plan.tables(study):
        mine, theirs = (ntksim.read_table(results, name) for results in (study.results, others.results))
        pd.testing.assert_frame_equal(mine[mine["network"] == "relu"].reset_index(drop=True), theirs, check_exact=True)


def test_parts_are_unbiased_and_their_intervals_cover_the_truth():
    """Gaussian changes with known mean and scatter: means over 400 draws of 6 seeds within 4 standard errors (6e-5 each).

    The 95% intervals of 12 seeds contain the truth in at least 80% of 60 draws (probability of fewer: 1e-5). test_intervals has
    stricter tests.
    """
    rng, shape = np.random.default_rng(3), (4, 4)
    mean = rng.normal(size=shape)
    mean *= 0.5 / np.linalg.norm(mean)
    spread = 0.3  # for each of 16 entries, so the random part is 1.2

    def draw(seeds):
        return drift_parts.gram_matrix(mean + spread * rng.normal(size=(seeds, *shape)))

    draws = [drift_parts.mean_squares(draw(6), np.ones(6)) for _ in range(400)]
    for name, truth in zip(drift_parts.PARTS, (0.25, 1.44), strict=True):
        values = np.array([found[name] for found in draws])
        assert abs(values.mean() - truth) < 4 * values.std() / 20
    held, truths = dict.fromkeys(drift_parts.PARTS, 0), dict(zip(drift_parts.PARTS, (0.5, 1.2), strict=True))
    for _ in range(60):
        for name, found in drift_parts.parts(draw(12)).items():
            held[name] += found["interval_low"] <= truths[name] <= found["interval_high"]
    assert min(held.values()) >= 48, held


def test_without_a_common_change_the_systematic_part_is_zero():
    gram = np.diag([1.0, 2.0, 3.0])  # orthogonal changes
    found = drift_parts.mean_squares(gram, np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0]]))
    assert found["systematic_kernel_drift"].tolist() == [0, 0]
    assert found["random_kernel_drift"] == pytest.approx([2, 4 / 3])
    assert np.isnan(drift_parts.mean_squares(gram, np.array([0.0, 3.0, 0.0]))["systematic_kernel_drift"])
    assert np.isnan(drift_parts.parts(gram[:1, :1])["random_kernel_drift"]["root_mean_square"])


def test_parts_have_laws_only_if_distinguishable_from_0_at_every_width():
    """Systematic parts of 0.5, 0.25 and 0.125 with a scatter of 0.1, or with a scatter of 0.5, which hides some of them."""
    rng = np.random.default_rng(1)
    cell = {"network": "a", "activation": "relu", "depth": 1, "parameterization": "ntk", "sampling": "weights"}
    cell["status"] = "finished"
    rows = [cell | dict.fromkeys(quantities("convergence") + quantities("drift"), 1.0) | {"width": m} for m in (8, 16, 32)]
    frame = pd.DataFrame(rows)

    def law(spread, seeds, sizes=(0.5, 0.25, 0.125)):
        direction, scatter = np.eye(25)[0], rng.normal(0, spread / 5, (3, seeds, 25))
        changes = [size * direction + noise for size, noise in zip(sizes, scatter, strict=True)]
        grams = {("a", None, None, 8 * 2**at): drift_parts.gram_matrix(change) for at, change in enumerate(changes)}
        return scaling_laws.scaling_laws(frame, frame.copy(), grams).set_index("quantity")

    found = law(0.1, 16)
    assert found.loc["systematic_kernel_drift", "exponent"] == pytest.approx(-1, abs=0.1)
    assert found.loc["random_kernel_drift", "exponent"] == pytest.approx(0, abs=0.1)
    assert "systematic_kernel_drift" not in law(0.5, 16, (0.5, 0.25, 0.0)).index
    assert not set(law(0.1, 4).index) & set(drift_parts.PARTS)  # intervals need 5 seeds
    assert np.isnan(drift_parts.parts(np.eye(4))["random_kernel_drift"]["interval_low"])
    assert drift_parts.parts(np.eye(4))["random_kernel_drift"]["root_mean_square"] == 1


def test_kernels_are_kept(study, run):
    kept = ntksim.read_kernels(study.results, "relu", 128)
    assert kept.seeds.tolist() == list(range(7))
    assert (kept.times == run[1].times).all()
    assert (kept.kernels == run[1].kernels).all()
    with pytest.raises(FileNotFoundError, match="no network 'relu' was trained at width 5; trained were relu at width 128"):
        ntksim.read_kernels(study.results, "relu", 5)


def test_verdicts_and_scaled_width(study):
    lazy = ntksim.read_table(study.results, "lazy").set_index(["network", "width"])
    assert set(lazy.loc["tanh_scale_16", "verdict"]) == {"lazy"}
    assert lazy.loc[("tanh_scale_0p03125", 32), "verdict"] == "rich"
    assert set(lazy["family"]) == {"relu", "tanh"}
    assert lazy.loc[("tanh_scale_16", 128), "scaled_width"] == pytest.approx(16 * np.sqrt(128))
    assert laziness.verdict(0.05, 0.2, 0.0) == "between"
    assert laziness.verdict(np.nan, 0.0, 0.0) == "none"
    assert laziness.verdict(0.0, 0.0, np.nan) == "none"
    assert [laziness.verdict(0.05, 0.05, left) for left in (0.5, 0.51)] == ["lazy", "untrained"]
    assert [laziness.verdict(drift, 0.5, 0.9) for drift in (0.5, 1.0)] == ["untrained", "rich"]
    final = ntksim.read_table(study.results, "final")
    narrow = (final["network"] == "tanh_scale_0p03125") & (final["width"] == 32)
    for lost, expected in ((1, "rich"), (2, "undecided"), (7, "none")):  # of 7
        final.loc[narrow & (final["seed"] < lost), "status"] = "diverged"
        found = laziness.lazy_table(study, final).set_index(["network", "width"])
        assert found.loc[("tanh_scale_0p03125", 32), "verdict"] == expected
    final = ntksim.read_table(study.results, "final")
    few = (final["network"] == "tanh_scale_16") & (final["width"] == 32)
    for moved, expected, shares in ((1, "lazy", [6 / 7, 1 / 7]), (4, "rich", [3 / 7, 4 / 7])):  # of 7
        final.loc[few & (final["seed"] < moved), "kernel_drift"] = 100.0
        row = laziness.lazy_table(study, final).set_index(["network", "width"]).loc[("tanh_scale_16", 32)]
        assert row["verdict"] == expected
        assert row[["lazy_share", "rich_share"]].to_list() == shares
        assert row["kernel_drift"] == final.loc[few, "kernel_drift"].median()
    final.loc[few & (final["seed"] == 3), "kernel_drift"] = 0.5  # three lazy, three rich, and one between
    assert laziness.lazy_table(study, final[few])["verdict"].to_list() == ["between"]
    final = ntksim.read_table(study.results, "final")
    descent = {"method": "gradient_descent", "relative_learning_rate": 0.1, "widths": [32], "seeds": 7, "relative_time": 5.0}
    # with batches lazy ignores that distance; a smaller data set of the study may have none
    for size, points, expected in ((5, 5, "between"), (4, 5, "lazy"), (4, 4, "between")):
        batches = parse_study(CONTENT | {"training": descent | {"batch_size": size}})
        found = laziness.lazy_table(batches, final.assign(relative_linearized_deviation=0.5, train_points=points))
        assert set(found.loc[found["network"] == "tanh_scale_16", "verdict"]) == {expected}
    # in the lazy regime feature drift is proportional to 1 / (sqrt(m) alpha) (within 25% for 7 seeds)
    moved = lazy.loc["tanh_scale_16", "feature_drift"] * lazy.loc["tanh_scale_16", "scaled_width"]
    assert moved.loc[32] == pytest.approx(moved.loc[128], rel=0.25)
    rich = lazy.loc["tanh_scale_0p03125", "feature_drift"] / lazy.loc["tanh_scale_16", "feature_drift"]
    assert rich.min() > 50


def test_verdicts_follow_from_the_tables(study):
    """The verdict follows from `lazy`, and `lazy` from the rows of `final`, which has the distance in units of the targets."""
    targets = dataset.read(f"{study.results}/dataset.npz").y_train
    final, training = (ntksim.read_table(study.results, name) for name in ("final", "training"))
    apart = final[["largest_linearized_deviation", "largest_test_linearized_deviation"]].max(axis=1)
    assert final["relative_linearized_deviation"].to_numpy() == pytest.approx(apart / np.sqrt(np.mean(targets**2)))
    first = training[training["time"] == 0].set_index(["network", "width", "seed"])["loss"]
    last = final.set_index(["network", "width", "seed"])["loss"]
    assert final["loss_left"].to_numpy() == pytest.approx((last / first).to_numpy())
    lazy = ntksim.read_table(study.results, "lazy").set_index(["network", "width"])
    columns = ["kernel_drift", "relative_linearized_deviation", "loss_left"]
    for cell, seeds in final.groupby(["network", "width"]):
        words = [laziness.verdict(*row) for row in seeds[columns].to_numpy()]
        for verdict in ("rich", "untrained", "lazy"):
            assert lazy.loc[cell, f"{verdict}_share"] == words.count(verdict) / 7
        assert lazy.loc[cell, columns].to_list() == seeds[columns].median().to_list()


def test_untrained_networks_are_not_lazy(tmp_path):
    """Two networks that would become rich stop early, when almost all of their loss is left."""
    training = CONTENT["training"] | {"relative_time": 0.01, "keep_kernels": False}
    rich = {"tanh": {"activation": "tanh", "depth": 2, "output_scale": 0.02}}
    stopped = computed(tmp_path, networks=rich, training=training)
    lazy = ntksim.read_table(stopped.results, "lazy")
    assert lazy["loss_left"].between(0.9, 1.0).all()
    assert lazy["kernel_drift"].max() < laziness.LAZY
    assert lazy["verdict"].to_list() == ["untrained", "untrained"]
    assert lazy["untrained_share"].eq(1).all()


def test_figures_of_parts_and_phases(study, tmp_path):
    drawn = {"convergence", "spectrum", "drift", "drift_parts", "loss", "test_loss", "accuracy", "lazy_or_rich"}
    assert set(plan.figures(study)) == drawn
    for name in ("drift_parts", "lazy_or_rich", "loss"):
        files = [f"{study.results}/tables/{table}.parquet" for table in plan.FIGURES[name]]
        figures.draw(name, files, [tmp_path / f"{name}.svg"])
        assert (tmp_path / f"{name}.svg").stat().st_size > 5000
    plain = parse_study(CONTENT | {"networks": {"relu": CONTENT["networks"]["relu"]}, "training": None})
    assert set(plan.figures(plain)) == {"convergence", "spectrum"}


def test_the_ensemble_loss_is_that_of_many_wide_networks(study, tmp_path):
    """If f - f_0 is trained, the ensemble loss equals that with K_infinity.

    Otherwise it is the mean loss of 200 networks of width 512, within 4 standard errors and 3%.
    """
    training = rows_of(study, "training", "relu", 128)
    assert training["ensemble_loss"].to_numpy() == pytest.approx(training["limit_closed_form_loss"].to_numpy())
    assert training["test_ensemble_loss"].to_numpy() == pytest.approx(training["test_limit_closed_form_loss"].to_numpy())
    other = computed(
        tmp_path, networks={"relu": CONTENT["networks"]["relu"]}, seeds_per_shard=200,
        training={"widths": [512], "seeds": 200, "relative_time": 5.0, "snapshots": 2},
    )  # fmt: skip
    assert "systematic_kernel_drift" not in set(ntksim.read_table(other.results, "drift")["quantity"])
    for name in ("loss", "test_loss"):
        groups = ntksim.read_table(other.results, "training").groupby("relative_time")
        expected = groups[name.replace("loss", "ensemble_loss")].first()
        assert (groups[name.replace("loss", "ensemble_loss")].nunique() == 1).all()
        off = (groups[name].mean() - expected).abs()
        assert (off < 4 * groups[name].std() / np.sqrt(200) + 0.03 * expected).all()


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.8},
        {"momentum": 0.8, "nesterov": True},
        {"layer_rates": [0.2, 3.0]},
        {"batch_size": 4},
        {"batch_size": 2, "momentum": 0.5, "layer_rates": [1.0, 0.5]},
    ],
)
def test_options_of_descent_agree_with_theory(tmp_path, options):
    """A network of width 4096 agrees with its linearisation under the same training.

    For small steps it also agrees with gradient flow at time t / (1 - mu).
    """
    training = {"method": "gradient_descent", "widths": [4096], "seeds": 2, "relative_time": 4.0, "snapshots": 4,
                "relative_learning_rate": 0.01} | options  # fmt: skip
    other = computed(tmp_path, networks={"tanh": {"activation": "tanh", "depth": 1}}, training=training)
    rows = ntksim.read_table(other.results, "training")
    assert (rows["status"] == "finished").all()
    data = dataset.read(f"{other.results}/dataset.npz")
    network = rated(ntksim.Network(1, 4096, "tanh"), options.get("layer_rates"))
    largest = np.linalg.eigvalsh(ntksim.infinite_kernel(network, data.x_train).ntk)[-1]
    assert rows["relative_time"].to_numpy() == pytest.approx(rows["time"].to_numpy() * largest)
    kept = rows[rows["seed"] == 1]
    run = ntksim.train(
        ntksim.Network(1, 4096, "tanh"), data.x_train, data.y_train, seeds=[1], method="gradient_descent",
        times=kept["time"].to_numpy(), learning_rate=0.01 / largest, **options,
    )  # fmt: skip
    assert kept["loss"].to_numpy() == pytest.approx(run.loss[0], rel=1e-9)
    if options.get("batch_size", 5) == 5:
        assert rows["linearized_deviation"].max() < 0.01
        assert rows.groupby("seed")["loss"].last().max() < 0.7 * rows.groupby("seed")["loss"].first().min()
        late = rows[rows["relative_time"] > 1]  # momentum takes 1 / (1 - mu) steps to set in
        assert (late["closed_form_loss"] / late["loss"] - 1).abs().max() < 0.25
    else:  # noise of batches
        assert rows["linearized_deviation"].max() < 0.2


def test_theory_of_descent_uses_the_same_steps(tmp_path):
    """Large steps with momentum: a wide network is close to the steps with K_infinity, and oscillating modes have no rate."""
    training = {"method": "gradient_descent", "widths": [2048, 8192], "seeds": 2, "relative_time": 8.0, "snapshots": 4,
                "relative_learning_rate": 0.8, "momentum": 0.25}  # fmt: skip
    other = computed(tmp_path, networks={"tanh": {"activation": "tanh", "depth": 1}}, training=training)
    rows = ntksim.read_table(other.results, "training").query("width == 8192")
    assert rows["limit_closed_form_deviation"].max() < 0.05
    assert rows["closed_form_deviation"].max() > 0.1  # the flow
    data = dataset.read(f"{other.results}/dataset.npz")
    kernel = ntksim.infinite_kernel(ntksim.Network(1, 1, "tanh"), data.x_train).ntk
    steps = np.round(rows["relative_time"].unique() / 0.8) * 0.8 / np.linalg.eigvalsh(kernel)[-1]
    first = ntksim.train(ntksim.Network(1, 8192, "tanh"), data.x_train, data.y_train, seeds=[0], times=[0.0]).outputs[0, 0]
    rate = 0.8 / np.linalg.eigvalsh(kernel)[-1]
    expected = ntksim.closed_form(kernel, first, data.y_train, steps, learning_rate=rate, momentum=0.25)
    losses = 0.5 * ((expected - data.y_train) ** 2).sum(axis=-1)
    assert rows.loc[rows["seed"] == 0, "limit_closed_form_loss"].to_numpy() == pytest.approx(losses, rel=1e-6)
    modes = ntksim.read_table(other.results, "modes")
    above = modes["eigenvalue"] * rate > (1 - 0.5) ** 2
    assert above.any()
    assert modes.loc[above, "relative_rate_difference"].isna().all()
    assert modes.loc[~above, "decay_rate"].notna().any()
    in_batches = other.training.model_copy(update={"batch_size": 1})
    laws = scaling_laws.scaling_laws(*(ntksim.read_table(other.results, name) for name in ("initial", "final")), None, in_batches)
    laws = laws.set_index("quantity")["theory_exponent"]
    assert laws.filter(like="deviation").isna().all()
    assert laws["kernel_drift"] == -1


DIGITS = {
    "dataset": {"name": "digits", "classes": [4, 9], "train": 100, "test": 50},
    "networks": {"linear": {"activation": "linear", "depth": 1}},
    "training": {
        "method": "gradient_descent", "widths": [32, 256], "seeds": 2, "relative_time": 0.5, "snapshots": 1,
    },
    "precision": "float32",
}  # fmt: skip


def regression_loss(kernel, data, rank=None, ridge=0.0):
    """Test loss of kernel regression, from a kernel (train + test points, train points).

    It uses the ``rank`` largest eigenvalues, or all of them.
    """
    values, vectors = np.linalg.eigh(kernel[:100])
    kept = slice(None) if rank is None else slice(100 - rank, None)
    inverse = (vectors[:, kept] / (values[kept] + ridge)) @ vectors[:, kept].T
    return 0.5 * np.sum((kernel[100:] @ inverse @ data.y_train - data.y_test) ** 2)


@pytest.mark.parametrize(
    "options",
    [{}, {"ridge": 0.01}, {"layer_rates": [0.0, 1.0]}, {"layer_rates": [1e-12, 1.0]}],
    ids=["plain", "ridge", "frozen", "nearly frozen"],
)
def test_singular_kernels_in_single_precision(tmp_path, options):
    """Kernels of a linear network have the rank of the points, 55 of 100, in float32.

    Kernel regression must agree with float64, and modes beyond the rank are null.
    """
    study = computed(tmp_path, **DIGITS | {"training": DIGITS["training"] | options})
    data = dataset.read(f"{study.results}/dataset.npz")
    every = np.concatenate([data.x_train, data.x_test])
    assert np.linalg.matrix_rank(data.x_train) == 55
    final, modes = (ntksim.read_table(study.results, name) for name in ("final", "modes"))
    for _, row in final.iterrows():
        network, seed = ntksim.Network(1, row["width"], "linear"), row["seed"]
        kernel = ntksim.empirical_ntk(network, every, data.x_train, seeds=[seed])[0]
        rank = 55
        if "layer_rates" in options:  # only random features, one for each neuron
            features = every @ ntksim.sample_parameters(network, 64, seed).weights[0].T / 8
            kernel, rank = features @ features[:100].T / row["width"], min(55, row["width"])
        ridge = options.get("ridge", 0.0)
        expected = regression_loss(kernel, data, None if ridge else rank, ridge)
        assert row["initial_kernel_regression_test_loss"] == pytest.approx(expected, rel=0.03)
        own = modes[(modes["width"] == row["width"]) & (modes["seed"] == seed)]
        known = np.linalg.eigvalsh(kernel[:100])[::-1][:rank]
        assert own["eigenvalue"].notna().to_list() == [True] * rank + [False] * (100 - rank)
        assert own["after_eigenvalue"].notna().sum() == rank
        assert own["eigenvalue"].to_numpy()[:rank] == pytest.approx(known, rel=1e-4, abs=1e-7 * known[0])
        assert own["decay_rate"].iloc[rank:].isna().all()
    assert not np.isfinite(ntksim.read_table(study.results, "initial")["condition_number"]).any()
    learning = 0.5 if "layer_rates" in options else 1.0  # the readout's half of the kernel
    limit = learning * ntksim.infinite_kernel(ntksim.Network(1, 1, "linear"), every, data.x_train).ntk
    expected = regression_loss(limit, data, None if ridge else 55, ridge)
    assert final["limit_kernel_regression_test_loss"].to_numpy() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("training", [{"tolerance": 1e-3}, {"method": "gradient_descent", "relative_learning_rate": 0.5}])
def test_a_single_snapshot_is_at_the_end(tmp_path, training):
    training = {"widths": [8], "seeds": 2, "relative_time": 4.0, "snapshots": 1} | training
    other = computed(tmp_path, networks={"tanh": {"activation": "tanh", "depth": 1}}, training=training)
    assert ntksim.read_table(other.results, "training")["relative_time"].to_list() == [0, 4, 0, 4]
    shard = read_arrow(f"{other.results}/training/tanh.width-8.seeds-0-1.parquet")[0]
    assert "relative_kernel_change" not in shard.column_names  # not stored, since seeds start from different residuals


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tolerance": 0.0123456789012345, "remove_initial_output": True},
        {"method": "gradient_descent", "momentum": 0.9, "nesterov": True, "layer_rates": [0.1, 0.0], "ridge": 1e-3},
        {"method": "gradient_descent", "batch_size": 4, "relative_learning_rate": 0.1},
    ],
)
def test_training_arguments_round_trip(monkeypatch, options):
    """The command line of a job reproduces the configuration's schedule exactly."""
    training = {"widths": [8], "seeds": 3, "relative_time": 7.5, "snapshots": 3} | options
    study = parse_study(CONTENT | {"networks": {"relu": CONTENT["networks"]["relu"]}, "training": training})
    words = f"training --network {word(study.networks['relu'])} --width 8 --schedule {word(study.training.schedule)} --seeds 0:3"
    taken = []
    monkeypatch.setattr("ntksim.study.stages.training.training_shard", lambda *args: taken.append(args))
    assert cli.main([*shlex.split(words), "--dataset", "d", "--limit", "l", "--output", "o", "--kernels", "k"]) == 0
    shard, schedule, kernels = taken[0]
    assert (shard.network, shard.seeds, shard.dtype, shard.device) == (
        study.networks["relu"].network(8),
        range(3),
        "float64",
        "cpu",
    )
    assert (shard.dataset, shard.limit, shard.output, kernels) == ("d", "l", "o", "k")
    assert schedule == study.training.schedule
    assert schedule.identity == study.training.identity == tables.json_ready(schedule.identity)


def test_scaled_names():
    content = {
        "tanh": {"activation": "tanh", "depth": 1, "output_scale": [1e-05, 0.5, 1, 3e20]},
        "b": {"activation": "relu", "depth": 1},
    }
    networks = parse_study(CONTENT | {"networks": content}).networks
    assert list(networks) == ["tanh_scale_1em05", "tanh_scale_0p5", "tanh_scale_1", "tanh_scale_3e20", "b"]
    assert [options.output_scale for options in networks.values()] == [1e-05, 0.5, 1, 3e20, 1]
    assert [family(name) for name in networks] == ["tanh"] * 4 + ["b"]
    as_recorded = {name: options.model_dump() for name, options in networks.items()}
    assert parse_study(CONTENT | {"networks": as_recorded}).networks == networks


def test_training_shards_are_verified(study):
    """Values that belong to a whole run are compared in the row that stores them, within a tolerance if bits may differ."""
    there = read_arrow(f"{study.results}/training/relu.width-32.seeds-0-2.parquet")[0].to_pandas()
    assert there["eigenvalue"].notna().sum() == 3
    assert verify._compare("f", there, there.copy(), "", 1e-6).verdict == "bits"
    for change, verdict in ((1e-9, "tolerance"), (1e-3, "different")):
        here = there.copy()
        for name in ("eigenvalue", "relative_kernel_change"):
            here[name] = [None if values is None else values * (1 + change) for values in there[name]]
        assert verify._compare("f", there, here, "another processor", 1e-6).verdict == verdict
    here.loc[here.index[-1], "eigenvalue"] = None
    assert verify._compare("f", there, here, "another processor", 1e6).verdict == "different"


def test_kept_kernels_are_verified(study, tmp_path):
    shard = next(shard for shard in plan.shards(study) if (shard.network, shard.width, shard.stage) == ("relu", 32, "training"))
    limit = plan.limit_file(study, "relu", 32)
    files = [limit, *plan.shard_files(study, shard)]
    jobs = dict(zip(files, (verify._limit_again, verify._shard_again, verify._compared), strict=True))
    assert shard.kernels_file in jobs
    for file, again in jobs.items():
        assert again(file, study, shard, tmp_path).verdict == "bits"
    table, metadata = read_arrow(tmp_path / shard.kernels_file)
    kernels = table["kernel"].combine_chunks().to_numpy_ndarray() * (1 + 1e-3)
    write_table(
        tmp_path / shard.kernels_file, table.set_column(table.column_names.index("kernel"), "kernel", tensors(kernels)), metadata
    )
    assert verify._compared(shard.kernels_file, study, shard, tmp_path).verdict == "different"
