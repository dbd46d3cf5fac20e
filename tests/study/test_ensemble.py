"""Mean and variance of outputs over seeds, compared with NumPy, with infinitely wide networks, and with known moments."""

import numpy as np
import pandas as pd
import pytest

import ntksim
import studies
from ntksim.study.config.study import parse_study
from ntksim.study.data import dataset
from ntksim.study.statistics.ensemble import ensemble_rows

CONTENT = {
    "dataset": {"name": "digits", "classes": [3, 8], "train": 5, "test": 4},
    "initial": {"widths": [8], "seeds": 2},
    "seeds_per_shard": 50,
}
TANH = {"activation": "tanh", "depth": 1, "sigma_w": 1.5}
DESCENT = {"method": "gradient_descent", "relative_learning_rate": 0.8, "momentum": 0.3}


def computed(folder, training, **more):
    study = parse_study(CONTENT | {"results": str(folder), "training": {"relative_time": 8.0, "snapshots": 3} | training} | more)
    studies.compute(study)
    return study


def outputs_of(study, width, times, **options):
    """Outputs of every seed on training and test points, computed by the engine alone; the network; and the data."""
    data = dataset.read(f"{study.results}/dataset.npz")
    network = ntksim.Network(1, width, "tanh", sigma_w=1.5)
    seeds = range(study.training.seeds)
    run = ntksim.train(network, data.x_train, data.y_train, seeds=seeds, times=times, x_test=data.x_test, **options)
    return {"train": run.outputs, "test": run.test_outputs}, network, data


@pytest.mark.parametrize("training", [{"remove_initial_output": True, "tolerance": 1e-3}, {"tolerance": 1e-3}, DESCENT])
def test_moments_equal_those_of_the_outputs_over_seeds(tmp_path, training):
    """The result does not depend on the size of the blocks: two or five seeds."""
    training = training | {"widths": [16], "seeds": 7}
    study = computed(tmp_path / "a", training, networks={"tanh": TANH}, seeds_per_shard=2)
    other = computed(tmp_path / "b", training, networks={"tanh": TANH}, seeds_per_shard=5)
    table = ntksim.read_table(study.results, "ensemble")
    pd.testing.assert_frame_equal(table, ntksim.read_table(other.results, "ensemble"), check_exact=True)
    times = table["time"].unique()
    descent = {}
    if "method" in training:
        rate = 0.8 * times[1] / table["relative_time"].unique()[1]
        descent = {"learning_rate": rate, "momentum": 0.3}
    own = {name: value for name, value in training.items() if name in ("method", "remove_initial_output", "tolerance")}
    outputs, network, data = outputs_of(study, 16, times, **own, **descent)
    theory = ntksim.infinite_ensemble(network, data.x_train, data.y_train, times, data.x_test, **descent)
    theories = {"train": (theory.mean, theory.covariance), "test": (theory.test_mean, theory.test_covariance)}
    for points, (mean, covariance) in theories.items():
        rows, f = table[table["points"] == points], outputs[points]
        assert rows[["count", "excluded"]].to_numpy().tolist() == [[7, 0]] * len(times)
        variance = f.var(axis=0, ddof=1).mean(axis=-1)
        square = ((f.mean(axis=0) - mean) ** 2).mean(axis=-1) - variance / 7
        assert rows["variance"].to_numpy() == pytest.approx(variance, rel=1e-9, abs=1e-28)
        assert rows["mean_difference"].to_numpy() ** 2 == pytest.approx(np.maximum(square, 0), rel=1e-6, abs=1e-15)
        assert rows["limit_mean"].to_numpy() == pytest.approx(np.sqrt((mean**2).mean(axis=-1)), rel=1e-9, abs=1e-14)
        expected = np.diagonal(covariance, axis1=1, axis2=2).mean(axis=-1) * ("remove_initial_output" not in training)
        assert rows["limit_variance"].to_numpy() == pytest.approx(expected, rel=1e-9)


def test_wide_lazy_networks_agree_with_the_infinite_width_ensemble_and_rich_ones_do_not(tmp_path):
    """100 seeds of width 1024: variances agree within 4 standard errors and 3% (6e-5 each), and means agree too.

    S (mean difference)^2 / variance + 1 is at most a chi-squared of one degree of freedom, which exceeds 17 with probability
    4e-5. There are 16 rows.
    """
    networks = {"tanh": TANH, "rich": TANH | {"output_scale": 0.03125}}
    training = {"widths": [1024], "seeds": 100, "tolerance": 1e-3}
    study = computed(tmp_path, training, networks=networks)
    table = ntksim.read_table(study.results, "ensemble")
    table = table[(table["relative_time"] < 5) | (table["points"] == "test")]  # later f_0 has decayed on training points
    wide = table[table["network"] == "tanh"]
    off = (wide["variance"] - wide["limit_variance"]).abs()
    assert (off < 4 * wide["variance_error"] + 0.03 * wide["limit_variance"]).all()
    assert (wide["mean_difference"] ** 2 < 16 * wide["variance"] / 100 + (0.02 * wide["limit_mean"]) ** 2).all()
    rich = table[(table["network"] == "rich") & (table["relative_time"] > 1)]
    assert (rich["mean_difference"] > 10 * rich["mean_difference_error"]).all()


def made_up(differences, status=None):
    """Rows of a shard with given differences (S, n) from the infinite-width mean, on training and on test points."""
    cell = {
        "network": "a",
        "activation": "relu",
        "depth": 1,
        "parameterization": "ntk",
        "sampling": "weights",
        "width": 8,
        "time": 1.0,
        "relative_time": 2.0,
    }
    theory = {f"{start}{name}": 1.0 for start in ("", "test_") for name in ("limit_mean", "limit_variance")}
    rows = [cell | theory | {"limit_difference": d, "test_limit_difference": d, "status": "finished"} for d in differences]
    return pd.DataFrame(rows) if status is None else pd.DataFrame(rows).assign(status=status)


def test_unfinished_seeds_are_counted_and_left_out():
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(7, 3))
    whole = ensemble_rows(made_up(differences[:5])).iloc[0]
    differences[6] = np.inf
    row = ensemble_rows(made_up(differences, ["finished"] * 5 + ["diverged", "finished"])).iloc[0]
    assert (row["count"], row["excluded"]) == (5, 2)
    assert (row["excluded_share"], row["marked"]) == (2 / 7, True)
    counted = ["count", "excluded", "excluded_share", "marked"]
    assert row.drop(counted).equals(whole.drop(counted))
    few = ensemble_rows(made_up(differences[:4])).iloc[0]
    assert np.isfinite(few["variance"])
    assert few[["mean_difference_error", "variance_error"]].isna().all()
    for none in (differences[:1], differences[6:]):
        assert ensemble_rows(made_up(none)).iloc[0][["mean_difference", "variance"]].isna().all()


def test_estimates_are_unbiased_and_their_errors_are_right():
    """300 draws of 12 seeds, mean difference 0.5, variance 1: means within 4 standard errors (6e-5 each), errors within 15%."""
    rng = np.random.default_rng(2)
    rows = pd.concat([ensemble_rows(made_up(0.5 + rng.normal(size=(12, 8)))).iloc[:1] for _ in range(300)])
    for name, values, truth in (
        ("variance", rows["variance"], 1.0),
        ("mean_difference", rows["mean_difference"] ** 2, 0.25),
    ):
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(300), name
        assert rows[f"{name}_error"].mean() == pytest.approx(rows[name].std(), rel=0.15), name
