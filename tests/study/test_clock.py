"""Absolute times, steps and learning rates of training, on either loss, beside the relative ones."""

import numpy as np
import pytest

import ntksim
from ntksim.study.config.stages import Schedule
from ntksim.study.config.study import parse_study
from ntksim.study.data import dataset
from ntksim.study.plan import cost, passes
from ntksim.study.report import description
from ntksim.study.stages.clock import clock
from studies import computed

LARGEST, RESIDUALS = 12.5, 30  # lambda_max and points x outputs


def of(**options):
    return clock(Schedule(**options).filled, LARGEST, RESIDUALS)


def test_relative_clocks_are_those_of_before():
    found = of(relative_time=7.5, snapshots=4)
    relative = np.concatenate([[0], np.append(np.geomspace(0.1, 7.5, 4)[:-1], 7.5)])
    assert (found.relative_times == relative).all()
    assert (found.times == relative / LARGEST).all()
    assert found.learning_rate is None
    found = of(method="gradient_descent", relative_time=5.0, relative_learning_rate=0.25, snapshots=5)
    steps = np.concatenate([[0], np.unique(np.round(np.geomspace(1, 20, 5)))])
    assert (found.relative_times == 0.25 * steps).all()
    assert (found.times == 0.25 * steps / LARGEST).all()
    assert found.learning_rate == 0.25 / LARGEST


@pytest.mark.parametrize("rate_of", ["half_sum", "mean_square"])
def test_absolute_clocks_agree_with_relative_ones(rate_of):
    one = {"half_sum": 1.0, "mean_square": RESIDUALS / 2}[rate_of]  # of a time on this loss for t = 1
    own = {} if rate_of == "half_sum" else {"rate_of": rate_of}
    wanted = of(relative_time=7.5, snapshots=4)
    for end in ({"time": 7.5 / LARGEST * one}, {"steps": 25, "learning_rate": 7.5 / LARGEST / 25 * one}):
        found = of(snapshots=4, **end, **own)
        assert found.times == pytest.approx(wanted.times, rel=1e-13)
        assert found.relative_times == pytest.approx(wanted.relative_times, rel=1e-13)
    descent = {"method": "gradient_descent", "snapshots": 5}
    wanted = of(relative_time=5.0, relative_learning_rate=0.25, **descent)
    absolute = {"learning_rate": 0.25 / LARGEST * one}
    for options in (
        {"relative_learning_rate": 0.25, "steps": 20},
        absolute | own | {"steps": 20},
        absolute | own | {"time": 5.0 / LARGEST * one},
        absolute | own | {"relative_time": 5.0},
        own | {"relative_learning_rate": 0.25, "time": 5.0 / LARGEST * one},
    ):
        found = of(**descent, **options)
        assert found.times == pytest.approx(wanted.times, rel=1e-13)
        assert found.relative_times == pytest.approx(wanted.relative_times, rel=1e-13)
        assert found.learning_rate == pytest.approx(wanted.learning_rate, rel=1e-13)


def test_snapshots_are_where_they_are_asked_for():
    found = of(time=4.0, snapshot_times=[0.5, 1.0, 3.0])
    assert found.times.tolist() == [0, 0.5, 1.0, 3.0, 4.0]
    assert of(time=4.0, snapshot_times=[1.0, 4.0]).times.tolist() == [0, 1.0, 4.0]
    mean = of(time=4.0, rate_of="mean_square", snapshot_times=[1.0])
    assert mean.times == pytest.approx([0, 2 / RESIDUALS, 8 / RESIDUALS])
    found = of(method="gradient_descent", steps=10, learning_rate=0.5, snapshot_times=[0.1, 1.2, 1.3, 2.0])
    assert found.times.tolist() == [0, 0.5, 1.0, 1.5, 2.0, 5.0]  # whole steps, at least one
    assert Schedule(time=4.0, snapshot_times=[1.0]).looks == 2


def test_identities_name_what_is_given():
    old = Schedule(relative_time=7.5)
    assert set(old.model_dump()) & {"time", "steps", "learning_rate", "rate_of", "snapshot_times"} == set()
    assert set(old.identity) & {"time", "steps", "learning_rate", "rate_of", "snapshot_times"} == set()
    new = Schedule(method="gradient_descent", steps=10, learning_rate=0.5, rate_of="mean_square").identity
    assert (new["steps"], new["learning_rate"], new["rate_of"]) == (10, 0.5, "mean_square")
    assert (new["relative_time"], new["relative_learning_rate"]) == (None, None)
    assert Schedule(**Schedule(steps=3, learning_rate=0.5).model_dump()) == Schedule(steps=3, learning_rate=0.5)


CONTENT = {
    "dataset": {"name": "circle", "train": 6, "test": 3},
    "networks": {"tanh": {"activation": "tanh", "depth": 1}},
    "initial": {"widths": [8], "seeds": 2},
    "results": "none",
}
DESCENT = {"method": "gradient_descent", "widths": [8], "seeds": 2, "snapshots": 3}


def test_plans_price_absolute_units():
    def price(**training):
        study = parse_study(CONTENT | {"training": DESCENT | training})
        return cost.cost_of(study, "training", "tanh", 8, 2).seconds

    steps = [price(steps=n, learning_rate=0.1) for n in (10**3, 10**6)]
    assert steps[1] > 50 * steps[0]  # of which 1.5 s start a process
    assert price(time=1e5, learning_rate=0.1) == steps[1] == price(steps=10**6)
    assert price(relative_time=1e5, learning_rate=0.1) < price(relative_time=1e6, learning_rate=0.1)
    assert price(time=1e3) < price(time=1e5) == price(time=3e5, rate_of="mean_square")  # of 6 points, times are 3 times as large


# Of ReLU networks, with one hidden layer on 256 points of the circle (steps of the mean square at rate 1), with two on 16 digits.
MEASURED_PASSES = [
    ("circle", 100, 10**5, 1093), ("circle", 512, 10**4, 126), ("circle", 512, 10**6, 1882), ("circle", 512, 3 * 10**6, 2756),
    ("circle", 2048, 10**3, 44), ("circle", 2048, 10**5, 216), ("digits", 512, 10**2, 92), ("digits", 512, 10**6, 105),
]  # fmt: skip


@pytest.mark.parametrize(("name", "width", "end", "measured"), MEASURED_PASSES)
def test_plans_know_about_how_many_passes_long_training_takes(name, width, end, measured):
    digits = {"dataset": {"name": "digits", "classes": [3, 8], "train": 16, "test": 3}}
    on_circle = {"dataset": {"name": "circle", "grid": 720, "train": 256, "test": 64}}
    relu = {"activation": "relu", "depth": 1 if name == "circle" else 2, "sigma_b": 0.1}
    clock = {"relative_time": float(end), "tolerance": 1e-4}
    if name == "circle":
        clock = {"steps": end, "learning_rate": 1.0, "rate_of": "mean_square", "tolerance": 1e-2}
    content = CONTENT | (on_circle if name == "circle" else digits) | {"networks": {"relu": relu}}
    study = parse_study(content | {"training": {"method": "gradient_flow", "widths": [width], "seeds": 2} | clock})
    assert 0.5 < passes.passes_of_training(study, "relu", width, 2 if name == "circle" else 64) / measured < 2


def test_tables_state_the_clock_of_both_losses(tmp_path):
    """Steps by hand, with the gradient of the mean square, are those of the study."""
    training = DESCENT | {"steps": 4, "learning_rate": 0.9, "rate_of": "mean_square"}
    study = computed(CONTENT | {"training": training}, tmp_path)
    rows = ntksim.read_table(tmp_path, "training").query("seed == 1")
    assert rows["steps"].to_list() == [0, 1, 2, 4]
    assert rows["mean_square_time"].to_list() == pytest.approx([0, 0.9, 1.8, 3.6])
    assert rows["time"].to_list() == pytest.approx([0, 0.3, 0.6, 1.2])  # 2 / N = 1 / 3
    data = dataset.load(study.dataset)
    run = ntksim.train(
        study.networks["tanh"].network(8), data.x_train, data.y_train, seeds=[1], method="gradient_descent",
        learning_rate=0.9 * 2 / 6, times=[0, 0.3, 0.6, 1.2],
    )  # fmt: skip
    assert rows["loss"].to_list() == pytest.approx(run.loss[0], rel=1e-12)
    assert "4 steps" in description.study(rows.attrs)[-1]
    assert "learning rate 0.9, rate of mean_square" in description.study(rows.attrs)[-1]
    assert "on half_sum: learning rate = 0.3" in description.study(rows.attrs)[-1]
    assert rows["learning_rate"].to_list() == pytest.approx([0.3] * 4)
    assert rows["mean_square_learning_rate"].to_list() == pytest.approx([0.9] * 4)


def test_tables_state_relative_rates_in_the_units_of_both_losses(tmp_path):
    training = DESCENT | {"relative_time": 2.0, "relative_learning_rate": 0.5}
    study = computed(CONTENT | {"training": training}, tmp_path)
    data = dataset.load(study.dataset)
    limit = ntksim.infinite_kernel(study.networks["tanh"].network(8), data.x_train).ntk
    rate = 0.5 / np.linalg.eigvalsh(limit)[-1]
    for name in ("training", "final"):
        rows = ntksim.read_table(tmp_path, name)
        assert rows["learning_rate"].to_numpy() == pytest.approx(np.full(len(rows), rate))
        assert rows["mean_square_learning_rate"].to_numpy() == pytest.approx(np.full(len(rows), 3 * rate))
        assert (rows["learning_rate"] * rows["steps"]).to_numpy() == pytest.approx(rows["time"].to_numpy())
    assert "on half_sum" not in description.study(rows.attrs)[-1]
