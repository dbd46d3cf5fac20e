"""Networks in law in training (`training.sampling: conditional`): what they are in tables, identities, plans and refusals."""

import json

import numpy as np
import pytest

import ntksim
import studies
from ntksim.study.config.stages import Schedule
from ntksim.study.config.study import json_schema, load_study, parse_study
from ntksim.study.data import dataset
from ntksim.study.errors import ConfigError
from ntksim.study.files import storage
from ntksim.study.plan import cost, identity, jobs
from ntksim.study.report import description
from ntksim.study.run import integrity, verify
from ntksim.study.statistics.columns import COLUMNS

CONTENT = {
    "dataset": {"name": "gaussian", "features": 8, "train": 4, "test": 2},
    "networks": {
        "tanh_1": {"activation": "tanh", "depth": 1, "sigma_w": 1.5},
        "tanh_2": {"activation": "tanh", "depth": 2, "sigma_w": 1.5},
    },
    "initial": {"widths": [64, 256], "seeds": 3, "sampling": "conditional"},
    "training": {"widths": [64, 256], "seeds": 3, "relative_time": 2.0, "snapshots": 2, "sampling": "conditional"},
    "seeds_per_shard": 2,
}
SHARD = jobs.Shard("training", "tanh_2", 256, 0, 1)


def training(**more):
    return CONTENT | {"training": CONTENT["training"] | more}


def descent(**more):
    return training(method="gradient_descent", **more)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return studies.computed(CONTENT, tmp_path_factory.mktemp("law"))


@pytest.fixture(scope="module")
def run(study):
    """The engine's, of tanh_2, with its data and its limits."""
    data = dataset.read(f"{study.results}/dataset.npz")
    network = study.networks["tanh_2"].network(256)
    largest = np.linalg.eigvalsh(ntksim.infinite_kernel(network, data.x_train).ntk)[-1]
    found = ntksim.train(
        network, data.x_train, data.y_train, seeds=range(3), times=np.array([0, 0.1, 2.0]) / largest, x_test=data.x_test,
        keep_kernels=True, sampling="conditional",
    )  # fmt: skip
    return network, data, found


def rows(study, table):
    return ntksim.read_table(study.results, table).query("network == 'tanh_2' and width == 256")


def test_tables_hold_the_networks_that_the_engine_trains(study, run):
    _, _, found = run
    table = rows(study, "training")
    for name in ("loss", "kernel_drift", "parameter_drift", "feature_drift"):
        assert table[name].to_numpy().reshape(3, 3) == pytest.approx(getattr(found, name), rel=1e-9, abs=1e-12), name
    by_weights = ntksim.train(*run[:1], run[1].x_train, run[1].y_train, seeds=range(3), times=found.times)
    assert np.abs(found.loss - by_weights.loss).min() > 1e-6
    assert rows(study, "final")["rank"].to_list() == found.rank.tolist()
    assert found.rank.min() >= 4
    assert np.isnan(table["rank"].to_numpy().reshape(3, 3)[:, :2]).all()


def test_theory_starts_from_the_kernel_of_the_same_network(study, run):
    """Of test with training points too: no kernel is drawn again by weights."""
    network, data, found = run
    table = rows(study, "training")["test_linearized_loss"].to_numpy().reshape(3, 3)
    for s in range(3):
        f0, f0_test = found.outputs[s, 0], found.test_outputs[s, 0]
        kernel, across = found.kernels[s, 0], found.test_kernels[s, 0]
        values, vectors = np.linalg.eigh(kernel)
        for t, time in enumerate(found.times):
            moved = vectors @ ((1 - np.exp(-values * time)) / values * (vectors.T @ (data.y_train - f0)))
            expected = 0.5 * np.sum((f0_test + across @ moved - data.y_test) ** 2)
            assert table[s, t] == pytest.approx(expected, rel=1e-6)
    other = ntksim.empirical_ntk(network, data.x_test, data.x_train, seeds=range(3))
    assert np.abs(found.test_kernels[:, 0] - other).min() > 1e-6


def test_every_table_says_how_networks_are_drawn(study):
    for name in jobs.tables(study):
        assert set(ntksim.read_table(study.results, name)["sampling"]) == {"conditional"}, name
    final = ntksim.read_table(study.results, "final").query("network == 'tanh_1'")
    assert final["rank"].to_list() == [0.0] * 6  # it has no hidden matrix
    attrs = ntksim.read_table(study.results, "final").attrs
    assert description.study(attrs)[-1].count("conditional") == 1


def test_weights_have_no_rank(tmp_path):
    own = studies.computed(training(sampling="weights"), tmp_path)
    for name in ("training", "final"):
        table = ntksim.read_table(own.results, name)
        assert set(table["sampling"]) == {"weights"}
        assert table["rank"].isna().all()


def test_a_seed_is_another_network_at_initialisation(study, run):
    """So rows of the two stages must not be joined by seed, although both are conditional, which the column's meaning says."""
    _, data, found = run
    kernels = ntksim.empirical_ntk(run[0], data.x_train, seeds=range(3), sampling="conditional")
    assert np.abs(kernels - found.kernels[:, 0]).max(axis=(1, 2)).min() > 1e-3
    assert "at initialisation and in training" in COLUMNS["sampling"]


def test_shards_of_weights_stay_what_they_were():
    """The key is in no record, no hash, no identity and no word of a job unless it does something."""
    content = {name: value for name, value in CONTENT["training"].items() if name != "sampling"}
    without = parse_study(CONTENT | {"training": content})
    said, other = parse_study(training(sampling="weights")), parse_study(CONTENT)
    assert without.science_hash() == said.science_hash() != other.science_hash()
    assert "sampling" not in json.dumps(said.training.model_dump())
    assert "sampling" not in json.dumps(said.training.schedule.model_dump())
    known = [identity.of_shard(own, SHARD, "hash") for own in (without, said, other)]
    assert known[0] == known[1]
    assert known[2] == known[1] | {"sampling": "conditional"}
    assert Schedule.model_validate_json(other.training.schedule.model_dump_json()).sampling == "conditional"
    assert json_schema()["$defs"]["Training"]["properties"]["sampling"]["enum"] == ["weights", "conditional"]


def test_the_tolerance_of_directions_is_part_of_shards_that_it_changes():
    """Of shards as they were it is none, whether it is left out or given as what it then is."""
    derived = parse_study(CONTENT)
    said, other = parse_study(training(rank_tolerance=1e-6)), parse_study(training(rank_tolerance=1e-5))
    known = [identity.of_shard(own, SHARD, "hash") for own in (derived, said, other)]
    assert known[0] == known[1]
    assert known[2] == known[0] | {"rank_tolerance": 1e-5}
    assert "rank_tolerance" not in json.dumps(derived.model_dump())
    assert derived.science_hash() != other.science_hash()
    assert Schedule.model_validate_json(other.training.schedule.model_dump_json()).rank_tolerance == 1e-5
    fine = parse_study(training(tolerance=2e-6))
    assert "rank_tolerance" not in identity.of_shard(fine, SHARD, "hash")


USED = 32 * 2.0**-23  # of float32, where less is asked for


def test_float32_shards_hold_the_tolerance_of_directions_that_is_used():
    """Whatever was asked for below it, or nothing; the shards of before, which are the same numbers, are known."""
    asked = {None: USED, 1e-7: USED, 2e-6: USED, 1e-5: 1e-5}
    studies_of = {given: parse_study(training(rank_tolerance=given) | {"precision": "float32"}) for given in asked}
    known = {given: identity.of_shard(own, SHARD, "hash") for given, own in studies_of.items()}
    assert {given: own["rank_tolerance"] for given, own in known.items()} == asked
    assert known[None] == known[1e-7] == known[2e-6]
    for given, own in studies_of.items():
        assert own.training.chosen("float32") == {"rank_tolerance": asked[given]}
        before = {key: value for key, value in known[given].items() if key != "rank_tolerance"}
        before |= {} if given is None else {"rank_tolerance": given}  # as they were named
        assert identity.differences(before, known[given]) == []
        other = 2e-5 if given == 1e-5 else 1e-5
        assert identity.differences(before | {"rank_tolerance": other}, known[given]) == ["rank_tolerance"]
    fine, coarse = (identity.of_shard(parse_study(training(rank_tolerance=own)), SHARD, "hash") for own in (None, 2e-6))
    assert identity.differences(fine, coarse) == ["rank_tolerance"]  # in float64 they are other numbers
    by_weights = parse_study(training(sampling="weights") | {"precision": "float32"})
    assert "rank_tolerance" not in identity.of_shard(by_weights, SHARD, "hash")


def test_plans_price_the_tolerance_of_directions_that_is_used():
    def asked(precision, given):
        study = parse_study(training(widths=[4096], rank_tolerance=given) | {"precision": precision})
        return cost._directions(study, "tanh_2", 4096, 4, 8)

    assert asked("float64", None) > asked("float32", None) == asked("float32", 1e-7) == asked("float32", USED)


def test_tables_of_float32_say_the_tolerance_of_directions_that_is_used(tmp_path):
    one = {"networks": {"tanh_2": CONTENT["networks"]["tanh_2"]}, "precision": "float32"}
    own = studies.computed(training(widths=[64], seeds=2) | one | {"initial": {"widths": [64], "seeds": 2}}, tmp_path)
    attrs = ntksim.read_table(own.results, "final").attrs
    assert attrs["provenance"]["rank_tolerance"] == USED
    assert "rank tolerance 3.8147e-06" in description.study(attrs)[-1]
    (shard,) = (tmp_path / "training").glob("*.parquet")
    stored = storage.read_metadata(shard)
    assert (stored["identity"]["rank_tolerance"], stored["provenance"]["rank_tolerance"]) == (USED, USED)
    assert integrity.inspect(own, {"": dataset.read(f"{own.results}/dataset.npz").hash}) == []


def test_a_study_trains_at_the_tolerance_of_directions_that_it_gives(study, run, tmp_path):
    """As `train` does; with fewer directions, which the tables' provenance says too."""
    network, data, found = run
    one = {"networks": {"tanh_2": CONTENT["networks"]["tanh_2"]}}
    content = training(rank_tolerance=1e-3, tolerance=1e-2, widths=[256], seeds=2) | one
    own = studies.computed(content | {"initial": CONTENT["initial"] | {"widths": [64], "seeds": 2}}, tmp_path)
    expected = ntksim.train(
        network, data.x_train, data.y_train, seeds=range(2), times=found.times, x_test=data.x_test, sampling="conditional",
        tolerance=1e-2, rank_tolerance=1e-3,
    )  # fmt: skip
    final = ntksim.read_table(own.results, "final")
    assert final["rank"].to_list() == expected.rank.tolist()
    assert final["loss"].to_numpy() == pytest.approx(expected.loss[:, -1], rel=1e-9)
    assert final.attrs["provenance"]["rank_tolerance"] == 1e-3
    assert "rank tolerance 0.001" in description.study(final.attrs)[-1]
    assert verify.verify(own.results, fraction=1.0)
    derived = ntksim.read_table(study.results, "final").attrs
    assert derived["provenance"]["rank_tolerance"] == 1e-6
    assert "rank tolerance 1e-06" in description.study(derived)[-1]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (training(sampling="law"), "training.sampling: expected 'weights' or 'conditional', got 'law'"),
        (CONTENT | {"initial": {"widths": [8], "seeds": 2}, "device": "cuda"}, "device: training.sampling conditional runs on"),
        (descent(batch_size=2, relative_learning_rate=0.1), "training: batch_size: sampling conditional takes all points"),
        (training(tolerance=1e-7), "training: tolerance: expected at least 1e-06 with sampling conditional, got 1e-07"),
        (
            training(tolerance=1e-5) | {"precision": "float32"},
            "training.tolerance: expected at least 3.82e-05 with sampling conditional in float32, got 1e-05; raise it",
        ),
        (
            training(rank_tolerance=2e-5),
            "training: rank_tolerance: expected at most a tenth of the flow's tolerance 0.0001, or no step meets it, got 2e-05; "
            "lower it, or raise tolerance",
        ),
        (
            training(rank_tolerance=5e-8, tolerance=1e-2),
            "training.rank_tolerance: expected greater than or equal to 0.0000001, got 5e-08",
        ),
        (
            descent(rank_tolerance=0.2, relative_learning_rate=0.5, relative_time=2.0),
            "training.rank_tolerance: expected less than or equal to 0.1, got 0.2",
        ),
        (
            training(sampling="weights", rank_tolerance=1e-6),
            "training: rank_tolerance: belongs to sampling conditional; leave it out, or set sampling to conditional",
        ),
        (
            descent(relative_learning_rate=0.5, relative_time=8.5),
            "training.sampling: conditional may ask for 68 directions in 17 steps on 4 points, more than the smallest of "
            "training.widths, 64",
        ),
        (
            descent(relative_learning_rate=0.5, relative_time=4.0) | {"dataset": {"name": "iris", "train": 4, "test": 6}},
            "training.sampling: conditional may ask for 96 directions in 8 steps on 4 points of 3 outputs, more than the",
        ),
    ],
)
def test_what_networks_in_law_cannot_do_is_refused_in_one_line(content, line):
    with pytest.raises(ConfigError) as error:
        parse_study(content)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_what_they_can_do_is_not_refused():
    """A finer flow, as many steps as the width allows, one hidden layer, and a GPU where there is one for other jobs."""
    finer = parse_study(training(tolerance=2e-6)).training
    assert finer.filled.rank_tolerance == pytest.approx(2e-7, rel=1e-12)
    assert parse_study(descent(relative_learning_rate=0.5, relative_time=8.0)).training.known_steps == 16
    shallow = {"networks": {"tanh_1": CONTENT["networks"]["tanh_1"]}}
    assert parse_study(descent(relative_learning_rate=0.5, relative_time=99.0) | shallow).training.filled.rank_tolerance == 1e-6
    assert parse_study(CONTENT | {"device": "auto"}).training.filled.rank_tolerance == 1e-6
    for tolerance in (1e-7, 1e-5):
        assert parse_study(training(rank_tolerance=tolerance)).training.filled.rank_tolerance == tolerance
    assert parse_study(descent(relative_learning_rate=0.5, rank_tolerance=0.1)).training.filled.rank_tolerance == 0.1


def test_steps_up_to_the_bound_train(tmp_path):
    """The study's bound is the engine's."""
    content = descent(relative_learning_rate=0.5, relative_time=4.0, momentum=0.5, widths=[32, 64], seeds=2)
    assert parse_study(content).training.known_steps * 4 == 32
    own = studies.computed(content, tmp_path)
    final = ntksim.read_table(own.results, "final")
    assert set(final["status"]) == {"finished"}
    with pytest.raises(ConfigError, match="36 directions in 9 steps on 4 points"):
        parse_study(content | {"training": content["training"] | {"relative_time": 4.5}})


def test_plans_price_training_in_law():
    """In proportion to the width in time and memory, where weights cost its square."""
    widths = [2**14, 2**16, 2**18, 2**20]
    study = parse_study(training(widths=widths, snapshots=20))
    seconds = [cost._seconds_of_training(study, "tanh_2", width, 8, 1, cost.NOMINAL) for width in widths]
    assert np.array(seconds[1:]) / seconds[:-1] == pytest.approx([4, 4, 4], rel=0.1)
    by_weights = parse_study(training(widths=widths, snapshots=20, sampling="weights"))
    assert cost._seconds_of_training(by_weights, "tanh_2", 2**20, 8, 1, cost.NOMINAL) > 1e3 * seconds[-1]
    memory = [jobs.cost(study, jobs.Shard("training", "tanh_2", width, 0, 0)).memory_mb for width in widths]
    revealed = 2 * (4 * 16 + 12 * 2) * 2**20 * 8 / 1e6  # 4 points in some 16 passes, 2 tests at 12 looks
    assert revealed < memory[-1] < 2.2 * revealed
    assert memory[-1] / memory[-2] == pytest.approx(4, rel=0.4)
    assert len(jobs.shards(study)) == 2 * (4 * 2 + 2 * 2)
    assert "1048576" in jobs.describe(study, cost.NOMINAL)


MEASURED = [  # by `train`: parameterization, width, tolerance, end in units of 1 / lambda_max, snapshots, test points, and rank
    ("ntk", 4096, 1e-2, 100.0, 1, 2, 180), ("ntk", 4096, 1e-4, 100.0, 1, 32, 336), ("ntk", 4096, 1e-4, 2000.0, 1, 2, 340),
    ("ntk", 4096, 1e-4, 100.0, 6, 32, 516), ("ntk", 4096, 1e-4, 100.0, 6, 96, 900), ("ntk", 16384, 1e-4, 100.0, 6, 32, 407),
    ("ntk", 16384, 1e-4, 100.0, 20, 32, 606), ("mup", 16384, 1e-2, 100.0, 1, 16, 805),
]  # fmt: skip


@pytest.mark.parametrize(("powers", "width", "tolerance", "end", "snapshots", "tests", "rank"), MEASURED)
def test_plans_know_how_many_directions_are_revealed(powers, width, tolerance, end, snapshots, tests, rank):
    assert rank <= directions(powers, width, tolerance, end, snapshots, tests) < 2 * rank


@pytest.mark.parametrize(
    ("tolerance", "snapshots", "tests", "rank_tolerance", "rank"),
    [(1e-4, 6, 32, 1e-7, 560), (1e-4, 6, 32, 1e-5, 407), (1e-2, 1, 2, 1e-4, 116)],
)
def test_plans_know_the_tolerance_of_directions(tolerance, snapshots, tests, rank_tolerance, rank):
    """Measured as above, at width 4,096."""
    assert rank <= directions("ntk", 4096, tolerance, 100.0, snapshots, tests, rank_tolerance=rank_tolerance) < 2 * rank


def directions(powers, width, tolerance, end, snapshots, tests, **more):
    """Of tanh networks with three hidden layers at 16 digits: not fewer than there were, and not twice as many."""
    schedule = {"widths": [width], "seeds": 2, "relative_time": end, "snapshots": snapshots, "tolerance": tolerance}
    content = {
        "dataset": {"name": "digits", "classes": [4, 9], "train": 16, "test": tests},
        "networks": {"tanh_3": {"activation": "tanh", "depth": 3, "sigma_w": 1.5, "parameterization": powers}},
        "initial": {"widths": [width], "seeds": 2}, "training": schedule | more | {"sampling": "conditional"},
    }  # fmt: skip
    return cost._directions(parse_study(CONTENT | content), "tanh_3", width, 16, 64)


def test_shards_are_verified(study, capsys):
    assert verify.verify(study.results, fraction=1.0)
    printed = capsys.readouterr().out
    assert "training/tanh_2.width-256.seeds-0-1.parquet: equal bits" in printed
    assert "0 within tolerance, 0 different" in printed


def test_the_study_of_a_million_neurons_is_planned():
    study = load_study(studies.ROOT / "studies" / "million.yaml")
    assert (study.initial.widths[-1], study.initial.sampling) == (2**20, "conditional")
    assert (study.training.widths[-1], study.training.sampling) == (2**20, "conditional")
    assert {options.depth for options in study.networks.values()} == {3}
    assert "1048576" in jobs.describe(study, cost.NOMINAL)
