"""What a study measures along training, of networks in law, of descent, and of several outputs with named functions."""

import numpy as np
import pytest

import ntksim
import studies
from ntksim.study.data import dataset
from ntksim.study.plan import jobs

ASKED = {"eigenvalues": 3, "eigenvectors": 2, "modes": {"frequencies": [0, 2]}, "regression": True, "profile": True,
         "predictions": True}  # fmt: skip
CONTENT = {
    "dataset": {"name": "circle", "train": 6, "test": 4, "evaluation": 5},
    "networks": {"shallow": {"activation": "erf", "depth": 1}, "erf": {"activation": "erf", "depth": 2, "sigma_w": 1.5}},
    "initial": {"widths": [16], "seeds": 2},
    "training": {
        "widths": [160], "seeds": 3, "relative_time": 3.0, "snapshots": 2, "ridge": 0.1, "measures": ASKED,
        "sampling": "conditional",
    },
}  # fmt: skip
FLOW = {"method": "gradient_flow", "tolerance": 1e-4}
DESCENT = {"method": "gradient_descent", "relative_learning_rate": 0.5, "momentum": 0.5}


def rows_of(study, table, network):
    frame = ntksim.read_table(study.results, table)
    return frame[frame["network"] == network]


def column(rows, name, *shape):
    return rows[name].to_numpy().reshape(shape)


@pytest.mark.parametrize("options", [FLOW, DESCENT], ids=["flow", "descent"])
@pytest.mark.parametrize("network", ["shallow", "erf"])
def test_measures_of_networks_in_law_are_of_the_networks_that_the_engine_trains(network, options, tmp_path):
    """Kernels with test and evaluation points too: each comes from the one network that was asked for all of them."""
    networks = {network: CONTENT["networks"][network]}
    study = studies.computed(CONTENT, tmp_path, networks=networks, training=CONTENT["training"] | options)
    data = dataset.read(f"{study.results}/dataset.npz")
    own = study.networks[network].network(160)
    seen = np.concatenate([data.x_test, data.x_evaluation])
    training = rows_of(study, "training", network)
    times, same = training["time"].unique(), {name: value for name, value in options.items() if name[:8] != "relative"}
    if options is DESCENT:
        same["learning_rate"] = 0.5 / np.linalg.eigvalsh(ntksim.infinite_kernel(own, data.x_train).ntk)[-1]
    run = ntksim.train(
        own, data.x_train, data.y_train, seeds=range(3), times=times, x_test=seen, keep_kernels=True, keep_test_kernels=True,
        sampling="conditional", **same,
    )  # fmt: skip
    assert set(training["status"]) == {"finished"}
    by_weights = ntksim.empirical_ntk(own, data.x_train, seeds=range(3))
    assert np.abs(run.kernels[:, 0] - by_weights).max() > 1e-3
    values = column(rows_of(study, "eigenvalues", network), "leading_eigenvalue", 3, 3, 3)
    assert values == pytest.approx(np.linalg.eigvalsh(run.kernels)[..., :-4:-1], rel=1e-9)
    modes, theta = rows_of(study, "mode_residuals", network), np.arctan2(data.x_train[:, 1], data.x_train[:, 0])
    for name, function in (("cos 0", np.ones(6)), ("sin 2", np.sin(2 * theta))):
        along = (run.outputs - data.y_train) @ function / np.linalg.norm(function)
        assert column(modes[modes["mode"] == name], "residual", 3, 3) == pytest.approx(np.abs(along), rel=1e-8, abs=1e-12)
    solved = np.linalg.solve(run.kernels + 0.1 * np.eye(6), np.broadcast_to(data.y_train, (3, 3, 6))[..., None])
    predicted = (run.kept_test_kernels @ solved)[..., 0]
    losses = rows_of(study, "regression", network)
    for name, part, y in (("test", slice(4), data.y_test), ("evaluation", slice(4, 9), data.y_evaluation)):
        wanted = 0.5 * np.sum((predicted[..., part] - y) ** 2, axis=-1)
        assert column(losses, f"regression_{name}_loss", 3, 3) == pytest.approx(wanted, rel=1e-7), name
    profile = rows_of(study, "profiles", network)
    assert column(profile, "mean", 3, 5) == pytest.approx(run.kept_test_kernels[:, :, 4:, 0].mean(axis=0), rel=1e-9)
    spread = rows_of(study, "predictions", network)
    assert column(spread, "median", 3, 5) == pytest.approx(np.median(run.test_outputs[..., 4:], axis=0), rel=1e-9)
    assert len(rows_of(study, "freeze", network)) == 3
    for name in jobs.tables(study):
        drawn = ntksim.read_table(study.results, name)["sampling"]
        assert set(drawn) <= {"conditional", "weights"}, name
        assert name in jobs.AT_INITIALISATION or set(drawn) == {"conditional"}, name


@pytest.mark.parametrize("sampling", ["weights", "conditional"])
def test_frequencies_of_two_outputs_are_of_both(sampling, tmp_path):
    """A mode is the function in either output: norms are over both, rates their mean, and theory's is n lambda_k."""
    rng = np.random.default_rng(0)
    theta = rng.uniform(0, 2 * np.pi, 12)
    x, y = np.stack([np.cos(theta), np.sin(theta)], axis=1), np.stack([np.sin(2 * theta), np.cos(theta)], axis=1)
    np.savez(tmp_path / "own.npz", x=x, y=y)
    data = {"file": str(tmp_path / "own.npz"), "train": 7, "test": 5, "scaling": "none"}
    training = CONTENT["training"] | {"sampling": sampling, "tolerance": 1e-4}
    study = studies.computed(CONTENT, tmp_path / "results", dataset=data, training=training)
    data = dataset.read(f"{study.results}/dataset.npz")
    assert data.y_train.shape == (7, 2)
    network, times = ntksim.Network(2, 160, "erf", sigma_w=1.5, outputs=2), rows_of(study, "training", "erf")["time"].unique()
    run = ntksim.train(
        network, data.x_train, data.y_train, seeds=range(3), times=times, x_test=data.x_test, keep_kernels=True,
        keep_test_kernels=True, sampling=sampling, tolerance=1e-4,
    )  # fmt: skip
    theta = np.arctan2(data.x_train[:, 1], data.x_train[:, 0])
    sine = np.sin(2 * theta) / np.linalg.norm(np.sin(2 * theta))
    rows = rows_of(study, "mode_residuals", "erf").query("mode == 'sin 2'")
    along = np.einsum("n,stnk->stk", sine, run.outputs - data.y_train)
    assert column(rows, "residual", 3, 3) == pytest.approx(np.linalg.norm(along, axis=-1), rel=1e-8)
    moved = np.einsum("stnkmj,m->stnkj", run.kernels, sine)
    inside = np.einsum("n,stnkj->stkj", sine, moved)
    assert column(rows, "mode_rate", 3, 3) == pytest.approx(np.trace(inside, axis1=-2, axis2=-1) / 2, rel=1e-9)
    outside = moved - np.einsum("n,stkj->stnkj", sine, inside)
    leakage = np.sqrt(np.sum(outside**2, axis=(-3, -2, -1)) / np.sum(moved**2, axis=(-3, -2, -1)))
    assert column(rows, "leakage", 3, 3) == pytest.approx(leakage, rel=1e-8)
    one = ntksim.Network(2, 160, "erf", sigma_w=1.5)
    operator = ntksim.continuum_spectrum(one, degrees=3)
    limit = ntksim.infinite_kernel(one, data.x_train).ntk
    assert rows["theory_rate"].to_numpy() == pytest.approx(np.full(9, 7 * operator[2]), rel=1e-9, abs=1e-10)
    assert rows["sample_rate"].to_numpy() == pytest.approx(np.full(9, sine @ limit @ sine), rel=1e-9)
    values, vectors = np.linalg.eigh(limit)
    decay = (vectors * np.exp(-np.outer(times, values))[:, None, :]) @ vectors.T
    constant = np.einsum("n,tnm,smk->stk", sine, decay, run.outputs[:, 0] - data.y_train)
    assert column(rows, "limit_residual", 3, 3) == pytest.approx(np.linalg.norm(constant, axis=-1), rel=1e-6, abs=1e-9)
    kernels, across = run.kernels.reshape(3, 3, 14, 14), run.kept_test_kernels.reshape(3, 3, 10, 14)
    solved = np.linalg.solve(kernels + 0.1 * np.eye(14), np.broadcast_to(data.y_train.ravel(), (3, 3, 14))[..., None])
    predicted = (across @ solved)[..., 0]
    wanted = 0.5 * np.sum((predicted - data.y_test.ravel()) ** 2, axis=-1)
    found = rows_of(study, "regression", "erf")
    assert column(found, "regression_test_loss", 3, 3) == pytest.approx(wanted, rel=1e-7)
    assert found[["evaluation_loss", "regression_evaluation_loss"]].isna().all(axis=None)
    traces = run.kept_test_kernels[:, :, :, 0, 0, 0] + run.kept_test_kernels[:, :, :, 1, 0, 1]
    profile = column(rows_of(study, "profiles", "erf"), "mean", 3, 5)
    assert profile == pytest.approx(traces.mean(axis=0) / 2, rel=1e-9)
    outputs = rows_of(study, "predictions", "erf")
    assert outputs["output"].to_list()[:3] == [0, 1, 0]
    assert column(outputs, "regression_prediction_mean", 3, 10) == pytest.approx(predicted.mean(axis=0), rel=1e-7)
