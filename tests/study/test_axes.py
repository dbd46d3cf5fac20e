"""Axes of a study: keys of networks with lists, and what tables, names and identities make of them."""

import itertools
import shlex
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import ntksim
from ntksim.study.config.dataset import Dataset
from ntksim.study.config.network import NetworkOptions
from ntksim.study.config.study import parse_study
from ntksim.study.config.words import section_of
from ntksim.study.data import dataset, nested
from ntksim.study.errors import ConfigError, StageError
from ntksim.study.plan import cost, identity, jobs
from ntksim.study.plan.rules import Rules
from ntksim.study.report import figures, findings
from ntksim.study.report.page import write_html
from ntksim.study.report.summary import summary
from ntksim.study.run import integrity, verify
from ntksim.study.statistics import along
from ntksim.study.statistics.columns import COLUMNS
from ntksim.study.statistics.seeds import NETWORK, cells, described, of_one_data_set
from studies import computed

CONTENT = {
    "dataset": {"name": "circle", "train": 6, "test": 3},
    "networks": {"mlp": {"activation": ["relu", "leaky_relu(0.2)"], "depth": [1, 3], "sigma_w": 1.5}},
    "initial": {"widths": [8, 16], "seeds": 4},
    "seeds_per_shard": 2,
    "results": "none",
}


def networks(**options):
    return parse_study(CONTENT | {"networks": {"mlp": {"activation": "tanh", "depth": 1} | options}}).networks


def test_lists_of_networks_are_multiplied():
    study = parse_study(CONTENT)
    assert {name: (own.depth, own.activation, own.sigma_w) for name, own in study.networks.items()} == {
        "mlp_depth1_relu": (1, "relu", 1.5),
        "mlp_depth1_leaky_relu_0p2": (1, "leaky_relu(0.2)", 1.5),
        "mlp_depth3_relu": (3, "relu", 1.5),
        "mlp_depth3_leaky_relu_0p2": (3, "leaky_relu(0.2)", 1.5),
    }
    assert len(jobs.shards(study)) == 4 * 2 * 2
    assert {shard.network for shard in jobs.shards(study)} == set(study.networks)
    assert "mlp_depth3_leaky_relu_0p2" in jobs.describe(study, jobs.NOMINAL)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"depth": [1, 20]}, ["mlp_depth1", "mlp_depth20"]),
        ({"depth": [2]}, ["mlp_depth2"]),  # a list of one: another value leaves its files as they are
        ({"parameterization": ["ntk", "mean_field"]}, ["mlp_ntk", "mlp_mean_field"]),
        ({"sigma_w": [1, 1.5, 1e-5]}, ["mlp_sigma_w_1", "mlp_sigma_w_1p5", "mlp_sigma_w_1em05"]),
        ({"sigma_a": [0.1, 1 / 3]}, ["mlp_sigma_a_0p1", "mlp_sigma_a_0p3333333333333333"]),
        ({"sigma_b": [None, 0.0, 0.5]}, ["mlp_sigma_b_none", "mlp_sigma_b_0", "mlp_sigma_b_0p5"]),
        ({"sigma_b": 1.0, "output_bias": [False, True]}, ["mlp_output_bias_false", "mlp_output_bias_true"]),
        ({"output_scale": [2, 0.5], "activation": ["erf", "tanh"]}, ["mlp_erf_scale_2", "mlp_erf_scale_0p5", "mlp_tanh_scale_2",
                                                                  "mlp_tanh_scale_0p5"]),
    ],
)  # fmt: skip
def test_names_hold_the_values_that_differ(options, names):
    assert list(networks(**options)) == names


@pytest.mark.parametrize("sampling", ["weights", "conditional"])
def test_networks_of_an_initialiser_are_those_of_the_engine(tmp_path, sampling):
    """An axis of initialisers: kernels, limits and training in the tables are those of `ntksim.Network(initialiser=...)`."""
    options = {"activation": "relu", "depth": 2, "parameterization": "standard", "sigma_b": 0.0, "output_bias": True}
    content = CONTENT | {
        "networks": {"he": options | {"initialiser": ["gaussian", "kaiming_normal"]}},
        "initial": CONTENT["initial"] | {"sampling": sampling},
        "training": {"widths": [16], "seeds": 2, "relative_time": 3.0, "snapshots": 1},
    }
    study = computed(content, tmp_path)
    assert list(study.networks) == ["he_gaussian", "he_kaiming_normal"]
    data, options = dataset.read(f"{tmp_path}/dataset.npz"), options | {"initialiser": "kaiming_normal"}
    network = ntksim.Network(width=16, **options)
    limit = ntksim.infinite_kernel(network, data.x_train).ntk
    kernels = ntksim.empirical_ntk(network, data.x_train, seeds=range(4), sampling=sampling)
    rows = {name: ntksim.read_table(tmp_path, name).query("width == 16 and initialiser == 'kaiming_normal'")
            for name in ("initial", "training")}  # fmt: skip
    assert set(rows["initial"]["network"]) == {"he_kaiming_normal"}
    errors = ntksim.measures.relative_frobenius_error(kernels, limit)
    assert rows["initial"]["relative_frobenius_error"].to_numpy() == pytest.approx(errors, rel=1e-12)
    end = 3.0 / np.linalg.eigvalsh(limit)[-1]
    run = ntksim.train(network, data.x_train, data.y_train, seeds=range(2), times=[0.0, end])
    assert rows["training"]["loss"].to_numpy() == pytest.approx(run.loss.ravel(), rel=1e-8)
    assert rows["training"]["kernel_drift"].to_numpy() == pytest.approx(run.kernel_drift.ravel(), rel=1e-8)


def test_exponents_are_named_where_they_differ():
    exponents = dict.fromkeys(("a_input", "a_hidden", "a_output", "b_input", "b_hidden", "b_output"), 0.5)
    found = networks(parameterization="abc", abc=[exponents | {"c": 0.0}, exponents | {"c": -0.5}])
    assert list(found) == ["mlp_c_0", "mlp_c_m0p5"]
    assert [own.abc.c for own in found.values()] == [0.0, -0.5]
    assert described(found["mlp_c_m0p5"])["abc"].endswith("b_output 0.5, c -0.5")


def test_networks_as_tables_record_them_are_the_same():
    study = parse_study(CONTENT)
    recorded = {name: own.model_dump() for name, own in study.networks.items()}
    assert parse_study(CONTENT | {"networks": recorded}).networks == study.networks


def test_a_network_of_a_list_has_the_identity_of_its_own():
    every = parse_study(CONTENT)
    alone = parse_study(CONTENT | {"networks": {"other": {"activation": "relu", "depth": 3, "sigma_w": 1.5}}})
    found, wanted = (
        identity.of_shard(study, jobs.Shard("initial", name, 8, 0, 1), "hash")
        for study, name in ((every, "mlp_depth3_relu"), (alone, "other"))
    )
    assert found == wanted


def test_every_key_of_networks_is_a_column():
    assert set(NetworkOptions.model_fields) < set(NETWORK) < set(COLUMNS)
    frames = []
    for name, own in networks(sigma_b=[None, 0.5], depth=[1, 2]).items():
        frame = pd.DataFrame({"value": [1.0, 2.0]})
        frames.append(frame.assign(**described(own), network=name, sampling="weights", width=8))
    split = list(cells(pd.concat(frames, ignore_index=True), "width"))
    assert [(cell["depth"], len(rows)) for cell, rows in split] == [(1, 2), (1, 2), (2, 2), (2, 2)]
    assert [cell["sigma_b"] for cell, _ in split][1::2] == [0.5, 0.5]
    assert all(pd.isna(cell["sigma_b"]) for cell, _ in split[::2])


DATA = CONTENT | {
    "dataset": {"name": "digits", "classes": [4, 9], "train": [8, 4], "test": 6, "seed": [0, 3]},
    "networks": {
        "relu": {"activation": "relu", "depth": 1},
        "std": {"activation": "tanh", "depth": 2, "parameterization": "standard"},
    },
    "training": {"widths": [8, 16], "seeds": 5, "relative_time": 3.0, "snapshots": 2, "keep_kernels": True},
    "initial": {"widths": [8, 16], "seeds": 5},
    "seeds_per_shard": 5,
}  # fmt: skip
LABELS = ["train-4.dataset_seed-0", "train-4.dataset_seed-3", "train-8.dataset_seed-0", "train-8.dataset_seed-3"]


def test_lists_of_the_data_are_data_sets():
    study = parse_study(DATA)
    assert list(study.data_sets) == LABELS
    assert [(one.dataset.train, one.dataset.seed) for one in study.data_sets.values()] == [(4, 0), (4, 3), (8, 0), (8, 3)]
    assert all(list(one.data_sets) == [""] for one in study.data_sets.values())
    assert study.drawn(LABELS[1]) == (study.dataset.model_copy(update={"seed": 3}), 4)
    assert study.model_dump()["dataset"]["train"] == [4, 8]
    again = parse_study(study.model_dump())
    assert (again, again.science_hash()) == (study, study.science_hash())
    one = parse_study(DATA | {"dataset": DATA["dataset"] | {"train": 8, "seed": 3}})
    assert one.drawn("") == (one.dataset, None)
    assert study.science_hash() != one.science_hash()
    found = identity.of_shard(study.data_set(LABELS[3]), jobs.Shard("initial", "relu", 8, 0, 4, LABELS[3]), "hash")
    assert found == identity.of_shard(one, jobs.Shard("initial", "relu", 8, 0, 4), "hash")


def test_files_of_every_data_set_are_planned(tmp_path):
    study = parse_study(DATA | {"results": str(tmp_path)})
    every, rules = jobs.shards(study), Rules(study, cost.NOMINAL)
    assert len(every) == 4 * 4 * 2
    assert len({file for shard in every for file in jobs.shard_files(study, shard)}) == 4 * 4 * 3
    shard = next(own for own in every if (own.network, own.stage, own.data, own.width) == ("std", "training", LABELS[1], 16))
    assert shard.file == f"training/std.{LABELS[1]}.width-16.seeds-0-4.parquet"
    asked = SimpleNamespace(network=f"std.{LABELS[1]}", width="16", first="0", last="4")
    assert rules.shard("training", asked) == shard
    assert asked.network in rules.names()
    assert rules.dataset_file(asked) == f"{tmp_path}/dataset.{LABELS[1]}.npz"
    assert rules.dataset_file(asked) in rules.dataset_files()
    assert rules.limit_file(asked) == f"{tmp_path}/limit/std.{LABELS[1]}.width-16.npz"
    limit = SimpleNamespace(cell=f"std.{LABELS[1]}.width-16")
    assert (rules.dataset_of_limit(limit), rules.width_of_limit(limit)) == (rules.dataset_file(asked), 16)
    assert rules.network_of_limit(limit) == rules.network(asked)
    wanted, *first = shlex.split(rules.dataset(SimpleNamespace(data=f".{LABELS[1]}")))
    assert section_of(wanted, Dataset, "d") == study.dataset.model_copy(update={"seed": 3})
    assert first == ["--first", "4"]
    smaller = cost.cost_of(study.data_set(LABELS[1]), "training", "std", 16, 5)
    assert jobs.cost(study, shard) == smaller != cost.cost_of(study, "training", "std", 16, 5)
    assert f"std.{LABELS[1]}" in jobs.describe(study, cost.NOMINAL)
    assert {f"dataset.{label}.jsonl" for label in LABELS} < set(jobs.predicted_seconds(study, cost.NOMINAL))
    (tmp_path / shard.file).parent.mkdir()
    for first, last in ((0, 1), (2, 4)):  # shards that are there stay
        (tmp_path / "training" / f"std.{LABELS[1]}.width-16.seeds-{first}-{last}.parquet").touch()
    kept = [
        own for own in jobs.shards(study) if (own.network, own.data, own.width, own.stage) == ("std", LABELS[1], 16, "training")
    ]
    assert [own.seeds for own in kept] == [range(2), range(2, 5)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": []}, "dataset.train: expected whole numbers from 2 in a list, got []"),
        ({"train": [4, 1]}, "dataset.train: expected whole numbers from 2 in a list, got [4, 1]"),
        ({"train": [4, 8.0]}, "dataset.train: expected whole numbers from 2 in a list, got [4, 8.0]"),
        ({"train": [4, 4]}, "dataset.train: expected different numbers in a list, got [4, 4]"),
        ({"seed": [-1, 4]}, "dataset.seed: expected whole numbers from 0 in a list, got [-1, 4]"),
        ({"seed": list(range(3000))}, "seeds_per_shard: the study would have 240000 jobs, more than 100000; raise it, or ask"),
    ],
)
def test_bad_lists_of_the_data_are_one_line(changes, message):
    with pytest.raises(ConfigError) as error:
        parse_study(DATA | {"dataset": DATA["dataset"] | changes, "seeds_per_shard": 1}, "c")
    assert str(error.value).startswith(f"c: {message}")
    assert len(str(error.value).splitlines()) == 1
    even = {"name": "circle", "spacing": "even", "train": [4, 6, 8], "test": 6}
    with pytest.raises(
        ConfigError, match=r"dataset.train: with spacing even each .* multiple of the one before, .* got \[4, 6, 8\]"
    ):
        parse_study(DATA | {"dataset": even})
    batches = {"method": "gradient_descent", "relative_learning_rate": 0.1, "batch_size": 5}
    with pytest.raises(ConfigError, match=r"training.batch_size: expected at most dataset.train = 4, got 5$"):
        parse_study(DATA | {"training": DATA["training"] | batches})


def test_training_sets_are_nested():
    drawn = Dataset(name="digits", train=30, test=20, seed=5)
    whole, sets = dataset.load(drawn), {n: nested.load(drawn, n) for n in (11, 23, 30)}
    for n, data in sets.items():
        assert (data.x_train == sets[30].x_train[:n]).all()
        assert (data.y_train == sets[30].y_train[:n]).all()
        assert (data.x_test == whole.x_test).all()
        counts = np.unique(data.y_train.argmax(axis=1), return_counts=True)[1]
        assert len(counts) == 10
        assert np.ptp(counts) <= 1 + (n > 20)  # of 30 points of ten classes, which have 3 each but for rounding
    assert {row.tobytes() for row in sets[30].x_train} == {row.tobytes() for row in whole.x_train}
    assert (nested.balanced(np.array([3.0, 1.0, 2.0])) == [0, 1, 2]).all()
    assert nested.balanced(np.array([1, 1, 1, 1, -1, -1])).tolist() in ([0, 4, 1, 2, 5, 3], [0, 4, 1, 2, 3, 5])
    with pytest.raises(StageError, match=r"target number \d .* at every training point"):
        nested.load(drawn, 5)  # of five points some class has none


@pytest.mark.parametrize(
    "options",
    [{"spacing": "even"}, {"grid": 64}, {"grid": 64, "noise": 0.1}, {"density": "1"}, {"grid": 64, "scaling": "sphere"}],
)
def test_smaller_training_sets_of_the_circle_go_all_around(options):
    """Evenly spaced points stay so; points of a grid are those that a smaller study would draw, at their own targets."""
    drawn = Dataset(name="circle", train=32, test=7, formula="sin(2 theta)", **options)
    whole, part = nested.load(drawn, 32), nested.load(drawn, 8)
    targets = {x.tobytes(): y for x, y in zip(whole.x_train, whole.y_train, strict=True)}
    assert len(part.x_train) == 8
    assert [targets[x.tobytes()] for x in part.x_train] == part.y_train.tolist()
    assert (part.x_test == whole.x_test).all()
    if options.get("scaling"):
        return
    angles = np.arctan2(part.x_train[:, 1], part.x_train[:, 0]) % (2 * np.pi)
    if "spacing" in options:
        assert angles == pytest.approx(2 * np.pi * np.arange(8) / 8)
    else:
        assert (part.x_train == dataset.load(drawn.model_copy(update={"train": 8})).x_train).all()
        assert np.ptp(angles) > np.pi  # seeds are fixed
    if "grid" in options:
        assert (np.diff(angles) > 0).all()


def test_laws_in_points_pair_the_seeds():
    """Exact powers of n with a factor for each seed: the exponent has no scatter, though the values have."""
    rng = np.random.default_rng(0)
    factors, rows = rng.lognormal(size=7), []
    for n, seed in itertools.product((4, 8, 16), range(7)):
        common = factors[seed]
        row = {"network": "a", "sampling": "weights", "train_points": n, "dataset_seed": 0, "width": 8, "seed": seed}
        row |= {"status": "finished", "test_loss": 3 * common * n**-0.7, "kernel_drift": common * n**0.25, "loss": 0.0}
        rows.append(row | {"feature_drift": float(np.exp(rng.normal())) * n})
    frame = pd.DataFrame(rows)
    names = ("test_loss", "kernel_drift", "loss", "feature_drift", "test_accuracy")
    found = {row["quantity"]: row for row in along.along_points(frame, names)}
    assert set(found) == {"test_loss", "kernel_drift", "feature_drift"}  # a loss of 0 has no law, accuracies have none
    for name, exponent in (("test_loss", -0.7), ("kernel_drift", 0.25)):
        ends = [found[name][key] for key in ("exponent", "interval_low", "interval_high")]
        assert ends == pytest.approx([exponent] * 3, abs=1e-9)
    assert found["test_loss"]["prefactor"] == pytest.approx(3 * factors.mean())
    assert found["kernel_drift"]["prefactor"] == pytest.approx(np.sqrt(np.mean(factors**2)))
    assert found["feature_drift"]["interval_low"] < found["feature_drift"]["exponent"] < found["feature_drift"]["interval_high"]
    assert {(row["along"], row["width"], row["widths_fitted"], row["excluded"]) for row in found.values()} == {("train", 8, 3, 0)}
    frame.loc[(frame["seed"] == 2) & (frame["train_points"] == 8), "status"] = "diverged"  # then left out at every n
    (row,) = along.along_points(frame, ["test_loss"])
    assert row["prefactor"] == pytest.approx(3 * np.delete(factors, 2).mean())
    assert (row["excluded"], row["marked"]) == (1, True)
    assert list(along.along_points(frame[frame["train_points"] == 8], ["test_loss"])) == []


def test_laws_in_depth_over_width_join_networks_of_all_depths():
    rows = []
    for depth, width, seed in itertools.product((1, 2, 4), (8, 16), range(6)):
        row = {"network": f"mlp_depth{depth}_relu", "activation": "relu", "depth": depth, "parameterization": "ntk"}
        row |= dict.fromkeys(NETWORK, 0) | row | {"sampling": "weights", "sigma_b": np.nan, "abc": None}
        rows.append(row | {"width": width, "seed": seed, "status": "finished", "kernel_drift": 2 * (depth / width) ** 0.5})
    frame = pd.DataFrame(rows)
    (row,) = along.along_depth(frame, ["kernel_drift", "test_loss"])
    assert (row["network"], row["along"], row["widths_fitted"]) == ("mlp_relu", "depth_over_width", 6)
    assert (row["exponent"], row["prefactor"]) == pytest.approx((0.5, 2.0))
    assert np.isnan([row["depth"], row["theory_exponent"]]).all()
    assert list(along.along_depth(frame[frame["depth"] == 2], ["kernel_drift"])) == []
    other = frame.replace({"network": {"mlp_depth4_relu": "deep"}})
    assert next(along.along_depth(other, ["kernel_drift"]))["network"] == "mlp_depth1_relu mlp_depth2_relu deep"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"laws_along": "depth"}, "laws_along: expected width, train, depth_over_width, or a list of some, got 'depth'"),
        ({"laws_along": []}, "laws_along: expected width, train, depth_over_width, or a list of some, got []"),
        ({"laws_along": ["train", "train"]}, "laws_along: expected width, train, depth_over_width, or a list of some, got ['tr"),
        ({"laws_along": "train", "dataset": CONTENT["dataset"]}, "laws_along: train needs a list of two numbers or more in"),
        ({"laws_along": "depth_over_width"}, "laws_along: depth_over_width needs networks that are equal but for their depth"),
    ],
)
def test_laws_are_asked_for_where_they_can_be(changes, message):
    with pytest.raises(ConfigError) as error:
        parse_study(DATA | changes, "c")
    assert str(error.value).startswith(f"c: {message}")
    assert len(str(error.value).splitlines()) == 1
    assert parse_study(CONTENT | {"laws_along": "depth_over_width"}).laws_along == ["depth_over_width"]
    assert "laws_along" not in parse_study(DATA).model_dump()
    assert "learning_curve" not in jobs.figures(parse_study(DATA))
    assert "learning_curve" in jobs.figures(parse_study(DATA | {"laws_along": ["width", "train"]}))


def test_tables_hold_every_data_set(tmp_path, monkeypatch, capsys):
    study = computed(DATA | {"laws_along": ["width", "train"]}, tmp_path)
    tables = {name: ntksim.read_table(tmp_path, name) for name in jobs.tables(study)}
    for name, table in tables.items():
        if name == "scaling_laws":
            table = table[table["averaged_over"] == "seeds"]
            assert table[table["along"] == "train"].groupby("quantity")["width"].count()["test_loss"] == 2 * 2 * 2
            table = table[table["along"] == "width"]
        assert set(table["train_points"]) == {4, 8}, name
        assert set(table["dataset_seed"]) == {0, 3}, name
        assert set(table.loc[table["network"] == "std", "parameterization"]) == {"standard"}, name
    (law,) = tables["scaling_laws"].query(
        "network == 'relu' and along == 'train' and quantity == 'test_loss' and width == 16 and dataset_seed == 0"
    ).to_dict("records")  # fmt: skip
    write_html(tmp_path, tmp_path / "report.html")
    page, interval = (tmp_path / "report.html").read_text(), f"{law['interval_low']:+.2f} to {law['interval_high']:+.2f}"
    for words in (summary(tmp_path), page):
        assert f"{law['exponent']:+.2f}, with a 95% interval of {interval}, at width 16" in words
    averages = tables["scaling_laws"].query("averaged_over == 'seeds and data sets'")
    along_points = tables["scaling_laws"].query("along == 'train' and (dataset_seed == 0 or dataset_seed.isna())")
    assert page.count("<td>train</td>") == len(along_points)
    for row in averages.query("train_points == 8 and quantity == 'kernel_drift'").to_dict("records"):
        sentence = f"kernel's drift scales as the width to the power {row['exponent']:+.2f}, with a 95% interval of "
        for words in (summary(tmp_path), page.replace("&#39;", "'")):
            assert f"n average over 2 data sets the {sentence}{row['interval_low']:+.2f} to {row['interval_high']:+.2f}" in words
    assert len(tables["initial"]) == 2 * 2 * 4 * 5
    assert len(tables["final"]) == 2 * 2 * 4 * 5
    assert tables["final"].attrs["data"]["train"] == [4, 8]
    assert tables["spectrum"].groupby(["network", "width", "train_points", "dataset_seed"])["index"].count().isin([4, 8]).all()
    # a data set alone has the same numbers, but for the order of its points
    alone = nested.load(*study.drawn(LABELS[1]))
    network = study.networks["relu"].network(16)
    kernels = ntksim.empirical_ntk(network, alone.x_train, seeds=range(5))
    limit = ntksim.infinite_kernel(network, alone.x_train).ntk
    errors = np.linalg.norm(kernels - limit, axis=(1, 2)) / np.linalg.norm(limit)
    rows = tables["initial"].query("network == 'relu' and width == 16 and train_points == 4 and dataset_seed == 3")
    assert rows["relative_frobenius_error"].to_list() == pytest.approx(errors, rel=1e-12)
    kept = ntksim.read_kernels(tmp_path, "relu", 16, train=4, dataset_seed=3)
    assert (kept.kernels.shape, kept.kernels[:, 0]) == ((5, 3, 4, 4), pytest.approx(kernels, rel=1e-9))
    assert ntksim.read_kernels(tmp_path, "relu", 16).kernels.shape == (5, 3, 8, 8)
    with pytest.raises(FileNotFoundError, match="no data with 5 training points and seed 0"):
        ntksim.read_kernels(tmp_path, "relu", 16, train=5)
    hashes = {label: nested.load(*study.drawn(label)).hash for label in LABELS}
    assert integrity.inspect(study, hashes) == []
    assert {fault.kind for fault in integrity.inspect(study, hashes | {LABELS[0]: "other"})} == {"configuration"}
    assert verify.verify(tmp_path, shards=5)  # of unlike data sets
    printed = capsys.readouterr().out
    assert sum(label in printed for label in LABELS) > 1, printed
    text = summary(tmp_path)
    assert "4, 8 training and 6 test points, 1 output, seeds of the data 0, 3" in text
    assert text.count("relu           kernel drift") == 1
    figures.draw(
        "drift", [tmp_path / "tables" / f"{name}.parquet" for name in ("drift", "scaling_laws")], [tmp_path / "drift.svg"]
    )
    saved = []
    monkeypatch.setattr(figures.panels, "save", lambda figure, output: saved.append(figure))
    figures.draw("learning_curve", [tmp_path / "tables" / f"{name}.parquet" for name in jobs.FIGURES["learning_curve"]], [])
    below = " ".join(saved[0].get_supxlabel().split())
    assert "4, 8 training and 6 test points, 1 output, seed of the data 0;" in below
    # the largest training set, which is drawn, says whether there are batches
    drift = of_one_data_set(tables["drift"])
    for size, is_drawn in ((4, False), (8, True)):
        drift.attrs["config"]["training"]["batch_size"] = size
        axes = figures.drift(drift, tables["scaling_laws"].query("along == 'width'")).axes
        for axis, has_line in ((axes[0], True), (axes[-1], is_drawn)):
            assert has_line == any("lazy below" in text.get_text() for text in axis.get_legend().get_texts())


def test_laws_over_depths_are_said_of_all_networks_together():
    numbers = {"exponent": 0.5, "interval_low": 0.4, "interval_high": 0.6, "marked": False, "depth": np.nan}
    rows = [
        {"network": "mlp", "along": "depth_over_width", "quantity": "kernel_drift"},
        {"network": "mlp", "along": "depth_over_width", "quantity": "parameter_drift"},
        {"network": "mlp_depth1", "along": "width", "quantity": "kernel_drift"},
    ]
    (said,) = findings.over_depths(pd.DataFrame([row | numbers for row in rows]))["mlp"]
    assert said.endswith("drift scales as depth over width to the power +0.50, with a 95% interval of +0.40 to +0.60")
