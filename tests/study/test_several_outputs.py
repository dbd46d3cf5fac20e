"""Studies with several targets, compared with the engine's vector outputs and theory, and with laws."""

import dataclasses

import numpy as np
import pytest

import ntksim
import studies
from ntksim.study.config.study import parse_study
from ntksim.study.data import dataset
from ntksim.study.files.storage import read_arrays
from ntksim.study.plan import cost, jobs
from ntksim.study.report import summary
from ntksim.study.run import verify
from ntksim.study.stages import kernels as stages

CONTENT = {
    "dataset": {"name": "wine", "train": 6, "test": 5},
    "networks": {"tanh": {"activation": "tanh", "depth": 2, "sigma_b": 0.2}},
    "initial": {"widths": [16], "seeds": 3},
    "training": {"widths": [32], "seeds": 3, "relative_time": 30.0, "snapshots": 5, "tolerance": 1e-4, "keep_kernels": True},
    "seeds_per_shard": 2,
}
NETWORK = ntksim.Network(2, 32, "tanh", sigma_b=0.2, outputs=3)
ONE = dataclasses.replace(NETWORK, outputs=1)
N, TESTS, K = 6, 5, 3


def computed(folder, **changes):
    study = parse_study(CONTENT | {"results": str(folder)} | changes)
    studies.compute(study)
    return study


@pytest.fixture(scope="module", params=[False, True], ids=["with f_0", "without"])
def study(request, tmp_path_factory):
    training = CONTENT["training"] | {"remove_initial_output": request.param}
    return computed(tmp_path_factory.mktemp("outputs"), training=training)


@pytest.fixture(scope="module")
def run(study):
    """The data, and training by the engine alone."""
    data = dataset.read(f"{study.results}/dataset.npz")
    times = ntksim.read_table(study.results, "training")["time"].unique()
    options = {"tolerance": 1e-4, "remove_initial_output": study.training.remove_initial_output}
    trajectory = ntksim.train(
        NETWORK, data.x_train, data.y_train, seeds=range(3), times=times, x_test=data.x_test, keep_kernels=True, **options
    )
    return data, trajectory


def column(study, name, table="training"):
    return ntksim.read_table(study.results, table)[name].to_numpy().reshape(3, -1)


def _accuracies_agree(found, correct, study):
    """Whether accuracies are the shares of correct points, and NaN at t = 0 if f - f_0 is trained, which is then 0."""
    expected = correct.mean(axis=-1)
    if study.training.remove_initial_output:
        expected[..., 0] = np.nan
    return np.array_equal(found, expected, equal_nan=True)


def losses(outputs, targets):
    return 0.5 * ((outputs - targets) ** 2).sum(axis=(-2, -1))


def test_measures_equal_those_of_the_engine(study, run):
    data, trajectory = run
    for name in ("loss", "kernel_drift", "kernel_distance", "feature_drift", "parameter_drift", "gates_flipped"):
        assert column(study, name) == pytest.approx(getattr(trajectory, name), rel=1e-9, abs=1e-13), name
    assert column(study, "test_loss") == pytest.approx(losses(trajectory.test_outputs, data.y_test))
    correct = trajectory.test_outputs.argmax(axis=-1) == data.y_test.argmax(axis=-1)
    assert _accuracies_agree(column(study, "test_accuracy"), correct, study)
    assert ntksim.read_kernels(study.results, "tanh", 32).kernels.shape == (3, 6, N, K, N, K)
    assert (ntksim.read_kernels(study.results, "tanh", 32).kernels == trajectory.kernels).all()


def test_alignments_use_kernels_summed_over_outputs(study, run):
    data, trajectory = run
    summed = np.einsum("stiaja->stij", trajectory.kernels)
    targets, h = data.y_train @ data.y_train.T, np.eye(N) - 1 / N

    def cosine(a, b):
        return np.sum(a * b, axis=(-2, -1)) / np.linalg.norm(a, axis=(-2, -1)) / np.linalg.norm(b, axis=(-2, -1))

    assert column(study, "kernel_target_alignment") == pytest.approx(cosine(summed, targets))
    assert column(study, "centred_kernel_target_alignment") == pytest.approx(cosine(h @ summed @ h, h @ targets @ h))
    assert column(study, "centred_alignment") == pytest.approx(cosine(h @ summed @ h, h @ summed[:, :1] @ h))
    values = np.linalg.eigvalsh(trajectory.kernels.reshape(3, 6, N * K, N * K))
    shares = values / values.sum(axis=-1, keepdims=True)
    assert column(study, "effective_rank") == pytest.approx(np.exp(-np.sum(shares * np.log(shares), axis=-1)))


def test_theory_is_for_vector_outputs(study, run):
    """Theory uses the whole kernel K_0, or K_infinity for each output, and starts from each network's f_0."""
    data, trajectory = run
    every = np.concatenate([data.x_train, data.x_test])
    limit = ntksim.infinite_kernel(ONE, every).ntk
    times, unit = trajectory.times, np.eye(K)
    for s in range(3):
        own = ntksim.empirical_ntk(NETWORK, every, seeds=[s])[0]
        start = trajectory.outputs[s, 0], trajectory.test_outputs[s, 0]
        for name, kernel in (
            ("linearized", own),
            ("closed_form", own),
            ("limit_closed_form", np.einsum("ij,ab->iajb", limit, unit)),
        ):
            f, f_test = ntksim.closed_form(kernel[:N, :, :N], start[0], data.y_train, times, kernel[N:, :, :N], start[1])
            assert column(study, f"{name}_loss")[s] == pytest.approx(losses(f, data.y_train), rel=1e-6, abs=1e-12)
            assert column(study, f"test_{name}_loss")[s] == pytest.approx(losses(f_test, data.y_test), rel=1e-6)
            off, test_off = trajectory.outputs[s] - f, trajectory.test_outputs[s] - f_test
            assert column(study, f"{name}_deviation")[s] == pytest.approx(np.sqrt((off**2).mean(axis=(-2, -1))), abs=1e-9)
            assert column(study, f"test_{name}_deviation")[s] == pytest.approx(
                np.sqrt((test_off**2).mean(axis=(-2, -1))), abs=1e-9
            )
            correct = f_test.argmax(axis=-1) == data.y_test.argmax(axis=-1)
            assert _accuracies_agree(column(study, f"test_{name}_accuracy")[s], correct, study)
        for name, kernel, across in (
            ("initial", own[:N, :, :N].reshape(N * K, -1), own[N:, :, :N].reshape(TESTS * K, -1)),
            ("after", trajectory.kernel[s].reshape(N * K, -1), trajectory.test_kernel[s].reshape(TESTS * K, -1)),
            ("limit", np.kron(limit[:N, :N], unit), np.kron(limit[N:, :N], unit)),
        ):
            fit = (across @ np.linalg.solve(kernel, data.y_train.ravel())).reshape(TESTS, K)
            loss = column(study, f"{name}_kernel_regression_test_loss", "final")[s]
            assert loss == pytest.approx(losses(fit, data.y_test), rel=1e-6)


def test_the_ensemble_is_for_vector_outputs(study, run):
    data, trajectory = run
    every = ntksim.infinite_ensemble(NETWORK, data.x_train, data.y_train, trajectory.times, data.x_test)
    spread, test_spread = (np.trace(c, axis1=-2, axis2=-1) for c in (every.covariance, every.test_covariance))
    if study.training.remove_initial_output:
        spread = test_spread = 0.0  # one curve
    expected = losses(every.mean, data.y_train) + 0.5 * K * spread
    assert column(study, "ensemble_loss")[0] == pytest.approx(expected, rel=1e-6, abs=1e-12)
    expected = losses(every.test_mean, data.y_test) + 0.5 * K * test_spread
    assert column(study, "test_ensemble_loss")[0] == pytest.approx(expected, rel=1e-6)
    table = ntksim.read_table(study.results, "ensemble").set_index("points")
    for points, mean, trace, f in (
        ("train", every.mean, spread, trajectory.outputs),
        ("test", every.test_mean, test_spread, trajectory.test_outputs),
    ):
        rows = table.loc[points]
        assert rows["limit_mean"].to_numpy() == pytest.approx(np.sqrt((mean**2).mean(axis=(-2, -1))), rel=1e-9, abs=1e-14)
        assert rows["limit_variance"].to_numpy() == pytest.approx(trace / mean.shape[1] * np.ones(6), rel=1e-9)
        assert rows["variance"].to_numpy() == pytest.approx(f.var(axis=0, ddof=1).mean(axis=(-2, -1)), rel=1e-9, abs=1e-28)


def test_modes_are_those_of_the_whole_kernel(study, run):
    _, trajectory = run
    first, last = (
        np.linalg.eigvalsh(kernel.reshape(3, N * K, -1))[:, ::-1] for kernel in (trajectory.kernels[:, 0], trajectory.kernel)
    )
    assert column(study, "eigenvalue", "modes") == pytest.approx(first)
    assert column(study, "after_eigenvalue", "modes") == pytest.approx(last)
    assert ntksim.read_table(study.results, "modes")["index"].max() == N * K - 1
    modes = ntksim.read_table(study.results, "modes")
    decays = modes["eigenvalue"] * ntksim.read_table(study.results, "training")["time"].max() > 1  # the others hardly move
    assert modes.loc[decays, "relative_rate_difference"].abs().max() < 0.25
    assert modes.loc[decays, "decay_rate"].notna().mean() > 0.8
    assert modes["initial_share"].to_numpy().reshape(3, -1).sum(axis=1) == pytest.approx(np.ones(3))


def test_initial_kernels_and_limits_are_those_of_one_output(study):
    data = dataset.read(f"{study.results}/dataset.npz")
    network = dataclasses.replace(ONE, width=16)
    kernels = ntksim.empirical_ntk(network, data.x_train, seeds=range(3))
    limit = ntksim.infinite_kernel(network, data.x_train).ntk
    assert (read_arrays(f"{study.results}/limit/tanh.npz")["ntk"] == limit).all()
    expected = stages.kernel_columns(kernels, limit, data.y_train)
    for name in ("relative_frobenius_error", "kernel_target_alignment", "largest_eigenvalue"):
        assert column(study, name, "initial")[:, 0] == pytest.approx(expected[name], rel=1e-12)


def test_shards_are_verified_and_accuracies_reported(study, tmp_path):
    shards = jobs.shards(study)
    assert verify._limit_again(jobs.limit_file(study, "tanh", 32), study, shards[0], tmp_path).verdict == "bits"
    for shard in shards:
        assert verify._shard_again(shard.file, study, shard, tmp_path).verdict == "bits"
        for file in jobs.shard_files(study, shard):
            assert verify._compared(file, study, shard, tmp_path).verdict == "bits"
    names = ("test_accuracy", "test_linearized_accuracy", "test_limit_closed_form_accuracy")
    own, linearized, limit = (column(study, name, "final").mean() for name in names)
    text = summary.summary(study.results)
    assert f"test accuracy {own:.3f} (standard error" in text
    assert f"linearised {linearized:.3f}, with K_inf {limit:.3f}" in text


@pytest.mark.parametrize(
    "options", [{"momentum": 0.5}, {"momentum": 0.5, "nesterov": True, "layer_rates": [0.2, 3.0]}, {"batch_size": 3}]
)
def test_options_of_descent_agree_with_theory(tmp_path, options):
    """A network of width 4096 agrees with its linearisation under the same training."""
    training = {"method": "gradient_descent", "widths": [4096], "seeds": 2, "relative_time": 4.0, "snapshots": 3,
                "relative_learning_rate": 0.05} | options  # fmt: skip
    other = computed(tmp_path, networks={"tanh": {"activation": "tanh", "depth": 1}}, training=training)
    rows = ntksim.read_table(other.results, "training")
    assert (rows["status"] == "finished").all()
    data = dataset.read(f"{other.results}/dataset.npz")
    kept = rows[rows["seed"] == 1]
    rate = (kept["time"] / kept["relative_time"]).iloc[-1] * 0.05
    run = ntksim.train(
        ntksim.Network(1, 4096, "tanh", outputs=3), data.x_train, data.y_train, seeds=[1], method="gradient_descent",
        times=kept["time"].to_numpy(), learning_rate=rate, **options,
    )  # fmt: skip
    assert kept["loss"].to_numpy() == pytest.approx(run.loss[0], rel=1e-9)
    assert rows["linearized_deviation"].max() < (0.1 if "batch_size" in options else 0.01)
    assert rows.groupby("seed")["loss"].last().max() < 0.8 * rows.groupby("seed")["loss"].first().min()


def test_real_targets_have_no_accuracy_and_two_classes_have_signs(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 4))
    np.savez(tmp_path / "own.npz", x=x, y=np.stack([x[:, 0] * x[:, 1], x[:, 2], x[:, 3] ** 2], axis=1))
    training = CONTENT["training"] | {"keep_kernels": False}
    real = computed(tmp_path / "real", dataset={"file": str(tmp_path / "own.npz"), "train": 6, "test": 5}, training=training)
    final = ntksim.read_table(real.results, "final")
    assert (final["status"] == "finished").all()
    assert final[["test_accuracy", "test_linearized_accuracy"]].isna().all(axis=None)
    assert final[["loss", "test_linearized_loss", "kernel_target_alignment"]].notna().all(axis=None)
    assert "accuracy" not in summary.summary(real.results)
    two = computed(tmp_path / "two", dataset={"name": "wine", "classes": [0, 2], "train": 6, "test": 40}, training=training)
    data = dataset.read(f"{two.results}/dataset.npz")
    times = ntksim.read_table(two.results, "training")["time"].unique()
    run = ntksim.train(ONE, data.x_train, data.y_train, seeds=range(3), times=times, x_test=data.x_test)
    assert (column(two, "test_accuracy") == ((run.test_outputs > 0) == (data.y_test > 0)).mean(axis=-1)).all()
    assert column(two, "test_accuracy")[:, -1].min() > 0.8


def test_targets_scaled_with_the_output_change_nothing(tmp_path):
    """Training 2 f on 2 y is training f on y, with a kernel and rates 4 times as large.

    So doubling the targets has the same effect on laziness as halving the outputs.
    """
    training = CONTENT["training"] | {"remove_initial_output": True, "keep_kernels": False}
    plain = computed(tmp_path / "a", training=training)
    network = CONTENT["networks"]["tanh"] | {"output_scale": 2.0}
    scaled = computed(
        tmp_path / "b", training=training, networks={"tanh": network}, dataset=CONTENT["dataset"] | {"target_scale": 2.0}
    )
    richer = computed(tmp_path / "c", training=training, dataset=CONTENT["dataset"] | {"target_scale": 2.0})
    for name in ("kernel_drift", "parameter_drift", "test_accuracy", "kernel_target_alignment"):
        assert column(scaled, name) == pytest.approx(column(plain, name), rel=1e-6, abs=1e-9, nan_ok=True)
    assert column(scaled, "loss") == pytest.approx(4 * column(plain, "loss"), rel=1e-6)
    ratio = column(richer, "kernel_drift")[:, -1] / column(plain, "kernel_drift")[:, -1]
    assert (ratio > 1.4).all()
    assert scaled.science_hash() != plain.science_hash() != richer.science_hash()
    one = parse_study(CONTENT | {"dataset": CONTENT["dataset"] | {"target_scale": 1.0}})
    assert one.science_hash() == parse_study(CONTENT).science_hash()


def test_costs_count_outputs():
    def of(k, width=256):
        data = {"name": "digits", "classes": list(range(k)), "train": 20, "test": 20}
        study = parse_study(CONTENT | {"dataset": data, "training": CONTENT["training"] | {"widths": [width]}})
        shard = next(shard for shard in jobs.shards(study) if shard.stage == "training")
        return jobs.cost(study, dataclasses.replace(shard, first=0, last=1))

    costs = [of(k) for k in (2, 3, 6, 10)]
    for name in ("seconds", "memory_mb", "disk_mb"):
        values = [getattr(found, name) for found in costs]
        assert values == sorted(values)
        assert values[-1] > values[0]
    # kernels on disk: those of every time, 10 outputs
    assert costs[-1].disk_mb == pytest.approx(2 * 6 * 200**2 * 8 / 1e6, rel=0.1)
    initial = [cost.nominal_seconds(parse_study(CONTENT | {"dataset": data}), "initial", "tanh", 16, 3) for data in (
        {"name": "wine", "train": 6, "test": 5}, {"name": "wine", "classes": [0, 1], "train": 6, "test": 5})]  # fmt: skip
    assert initial[0] == initial[1]


def test_costs_count_the_columns_of_user_files(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 4))
    np.savez(tmp_path / "own.npz", x=x, y=x[:, :3])
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", x[:, :3])
    (tmp_path / "own.csv").write_text("a,b,c,d,e,f,g\n" + "1,2,3,4,5,6,7\n" * 20)
    for file in (str(tmp_path / "own.npz"), [str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]):
        study = parse_study(CONTENT | {"dataset": {"file": file, "train": 6, "test": 5}})
        assert (cost._outputs(study), cost._features(study)) == (3, 4)
    own = {"file": str(tmp_path / "own.csv"), "target": ["a", "c", "g"], "train": 6, "test": 5}
    study = parse_study(CONTENT | {"dataset": own})
    assert (cost._outputs(study), cost._features(study), study.dataset.outputs) == (3, 4, 3)
