"""Studies on other losses and with weight decay: tables against the engine and the linearised network, refusals, words."""

import dataclasses
import json
import shlex
from itertools import product

import naive
import numpy as np
import pytest

import ntksim
import studies
from ntksim.engine.loss import LOSSES
from ntksim.study.config.stages import Schedule
from ntksim.study.config.study import parse_study
from ntksim.study.config.words import section_of, word
from ntksim.study.data import dataset
from ntksim.study.errors import ConfigError, StageError
from ntksim.study.plan import cost, identity, jobs
from ntksim.study.report import description, figures, losses, page, summary
from ntksim.study.run import verify
from ntksim.study.run.runner import load_data
from ntksim.study.stages import training_job
from ntksim.study.stages.shard import ShardJob
from ntksim.study.statistics.drift_parts import PARTS

CONTENT = {
    "dataset": {"name": "wine", "train": 7, "test": 5},
    "networks": {"tanh": {"activation": "tanh", "depth": 1, "sigma_w": 1.5, "sigma_b": 0.3}},
    "initial": {"widths": [16, 32], "seeds": 5},
    "training": {"method": "gradient_descent", "widths": [16, 32], "seeds": 5, "relative_time": 8.0, "snapshots": 3},
    "seeds_per_shard": 3,
}
OF_WINE = ntksim.Network(1, 32, "tanh", sigma_w=1.5, sigma_b=0.3, outputs=3)
TWO = {"dataset": {"name": "digits", "classes": [3, 8], "train": 6, "test": 5}}
MUP = {"networks": {"tanh": {"activation": "tanh", "depth": 1, "sigma_w": 1.5, "parameterization": "mup"}}}
CURVATURES = {"softmax": 0.5, "logistic": 0.25, "squared": 1.0}  # of the sums


def training(**more):
    return {"training": CONTENT["training"] | more}


class Run:
    """A study at its largest width, and what the engine alone computes of it."""

    def __init__(self, folder, **changes):
        self.study = studies.computed(CONTENT, folder, **changes)
        self.data = dataset.read(f"{self.study.results}/dataset.npz")
        asked, k = self.study.training, self.data.outputs
        self.network = self.study.networks["tanh"].network(32)
        limits = ntksim.infinite_kernel(self.network, np.concatenate([self.data.x_train, self.data.x_test]))
        hidden, readout = asked.layer_rates or (1.0, 1.0)
        self.limit = hidden * (limits.ntk - limits.nngp) + readout * limits.nngp  # the readout's own part is the NNGP
        self.scale, self.rates = self.network.learning_rate_scale, asked.layer_rates or [1.0, 1.0]
        name, n = asked.loss, len(self.data.x_train)
        self.curvature = LOSSES[name][1](n, k) * CURVATURES[name.removeprefix("mean_").removeprefix("half_mean_").split("_")[0]]
        rate = asked.learning_rate or (asked.relative_learning_rate or 0.5) / (
            self.curvature * self.scale * np.linalg.eigvalsh(self.limit[:n, :n])[-1]
        )
        rows = self.rows("training")
        self.steps = rows["steps"].to_numpy()[: len(rows) // 5].astype(int)
        self.rate, self.options = rate, {"momentum": asked.momentum or 0.0, "nesterov": asked.nesterov}
        self.run = ntksim.train(
            dataclasses.replace(self.network, outputs=k), self.data.x_train, self.data.y_train, seeds=range(5),
            method="gradient_descent", learning_rate=rate, times=rate * self.steps, x_test=self.data.x_test, keep_kernels=True,
            loss=name, weight_decay=asked.weight_decay, batch_size=asked.batch_size, layer_rates=asked.layer_rates,
            remove_initial_output=asked.remove_initial_output, **self.options,
        )  # fmt: skip

    def rows(self, table):
        return ntksim.read_table(self.study.results, table).query("width == 32")

    def column(self, name, table="training"):
        return self.rows(table)[name].to_numpy().reshape(5, -1)

    def targets(self, y):
        """As the loss has them, (n, k)."""
        rows = y.reshape(len(y), -1)
        return rows + 1 / rows.shape[1] if "softmax" in self.study.training.loss else rows

    def linearized(self, s, limit=False):
        """Outputs of a seed's linearised network, or with the limit's kernel, at the snapshots, by `linearized_descent`."""
        n, run, decay = len(self.data.x_train), self.run, self.study.training.weight_decay
        kernels = (self.limit[:n, :n], self.limit[n:, :n]) if limit else (run.kernels[s, 0], run.test_kernels[s, 0])
        options = self.options
        if decay:
            network, every = dataclasses.replace(self.network, outputs=self.data.outputs), (self.data.x_train, self.data.x_test)
            of_layers = (ntksim.radial_derivative(network, x, seeds=[s], by_layer=True)[0] for x in every)
            own = [layers[[rate > 0 for rate in self.rates]].sum(axis=0) for layers in of_layers]
            options = options | {"weight_decay": max(self.rates) * decay, "radial": own[0], "radial_test": own[1]}
        found = ntksim.linearized_descent(
            kernels[0], run.outputs[s, 0], self.data.y_train, self.steps[-1], self.scale * self.rate, self.study.training.loss,
            kernel_test=kernels[1], f0_test=run.test_outputs[s, 0], **options,
        )  # fmt: skip
        return [own[self.steps].reshape(len(self.steps), -1) for own in found]


CASES = {
    "softmax": training(loss="softmax_cross_entropy", momentum=0.5),
    "mean softmax": training(
        loss="mean_softmax_cross_entropy", relative_time=None, steps=9, learning_rate=0.3, momentum=0.5, nesterov=True
    ),
    "logistic": TWO | MUP | training(loss="logistic"),
    "mean logistic": TWO | training(loss="mean_logistic", measures={"eigenvalues": 2, "profile": True, "predictions": True}),
}
CASES = {name: own | {"training": {k: v for k, v in own["training"].items() if v is not None}} for name, own in CASES.items()}


@pytest.fixture(scope="module", params=CASES)
def classified(request, tmp_path_factory):
    return Run(tmp_path_factory.mktemp("classified"), **CASES[request.param])


@pytest.fixture(scope="module")
def decayed(tmp_path_factory):
    measures = {"eigenvectors": 2, "regression": True, "predictions": True}
    return Run(tmp_path_factory.mktemp("decayed"), **training(weight_decay=0.4, layer_rates=[0.7, 1.0], measures=measures))


def test_tables_hold_the_engines_losses_and_movement(classified):
    """Of test points too: of a mean it is the mean over test points, by the oracle's formula."""
    own, run = classified, classified.run
    for name in ("loss", "kernel_drift", "parameter_drift", "feature_drift"):
        assert own.column(name) == pytest.approx(getattr(run, name), rel=1e-8, abs=1e-12), name
    targets, loss = own.targets(own.data.y_test), own.study.training.loss
    tests = [[naive.loss(loss, f.reshape(targets.shape), targets) for f in seed] for seed in run.test_outputs]
    assert own.column("test_loss") == pytest.approx(np.array(tests), rel=1e-8)
    assert own.column("time") == pytest.approx(np.broadcast_to(own.rate * own.steps, (5, len(own.steps))), rel=1e-12)
    n, largest = len(own.data.x_train), np.linalg.eigvalsh(own.limit[: len(own.data.x_train), : len(own.data.x_train)])[-1]
    assert own.column("relative_time") == pytest.approx(own.column("time") * own.curvature * own.scale * largest, rel=1e-9)
    assert own.column("loss_left", "final") == pytest.approx((run.loss[:, -1] / run.loss[:, 0])[:, None], rel=1e-8)
    factor = LOSSES[loss][1](n, own.data.outputs)
    flat = run.kernels[0, 0].reshape(n * own.data.outputs, -1)
    expected = factor * own.scale * np.linalg.eigvalsh(flat)[::-1]
    assert own.rows("modes").query("seed == 0")["eigenvalue"].to_numpy() == pytest.approx(expected, rel=1e-7)


def test_theory_is_the_linearised_network_of_the_same_loss(classified):
    own, run, loss = classified, classified.run, classified.study.training.loss
    for s in range(5):
        for name, limit in (("linearized", False), ("limit_closed_form", True)):
            for start, f, trained, y in zip(
                ("", "test_"), own.linearized(s, limit), (run.outputs[s], run.test_outputs[s]),
                (own.data.y_train, own.data.y_test), strict=True,
            ):  # fmt: skip
                targets = own.targets(y)
                values = [naive.loss(loss, at.reshape(targets.shape), targets) for at in f]
                assert own.column(f"{start}{name}_loss")[s] == pytest.approx(values, rel=1e-7)
                apart = np.sqrt(np.mean((trained.reshape(f.shape) - f) ** 2, axis=1))
                assert own.column(f"{start}{name}_deviation")[s] == pytest.approx(apart, rel=1e-5, abs=1e-9)
    largest = np.maximum(own.column("linearized_deviation").max(axis=1), own.column("test_linearized_deviation").max(axis=1))
    found = own.column("relative_linearized_deviation", "final")[:, 0]
    assert found == pytest.approx(largest, rel=1e-12)  # in units of 1: targets tell classes
    assert found.min() > 1e-4


def test_what_has_no_formula_under_losses_of_classes_is_missing(classified):
    for table, names in {
        "training": ("closed_form_loss", "test_closed_form_loss", "closed_form_deviation", "ensemble_loss", "test_ensemble_loss",
                     "mean_square_time"),
        "final": ("initial_kernel_regression_test_loss", "after_kernel_regression_test_loss", "test_closed_form_accuracy"),
        "modes": ("initial_share", "decay_rate", "relative_rate_difference"),
        "ensemble": ("limit_mean", "limit_variance", "mean_difference", "mean_difference_low"),
    }.items():  # fmt: skip
        frame = classified.rows(table)
        assert frame[list(names)].isna().all(axis=None), table
    ensemble = classified.rows("ensemble").query("points == 'test'")
    outputs = classified.run.test_outputs.reshape(5, len(classified.steps), -1)
    assert ensemble["variance"].to_numpy() == pytest.approx(outputs.var(axis=0, ddof=1).mean(axis=-1), rel=1e-8)
    lazy = classified.rows("lazy")
    assert set(lazy["verdict"]) <= {"lazy", "between", "rich", "untrained"}
    if classified.study.training.measures:
        predictions = ntksim.read_table(classified.study.results, "predictions")
        assert predictions["limit_prediction"].isna().all()
        assert predictions["median"].notna().all()


def test_accuracies_are_of_the_largest_output_or_the_sign(classified):
    own, y = classified, classified.data.y_test
    f = own.run.test_outputs
    correct = (f > 0) == (y > 0) if y.ndim == 1 else f.argmax(axis=-1) == y.argmax(axis=-1)
    assert own.column("test_accuracy") == pytest.approx(correct.mean(axis=-1))
    assert np.isfinite(own.rows("final")["test_linearized_accuracy"]).all()


DECAYED = {
    "squared": {"weight_decay": 0.4},
    "classes": {"weight_decay": 0.05, "loss": "softmax_cross_entropy", "momentum": 0.5, "nesterov": True},
    "mean, mup": {"weight_decay": 0.1, "loss": "mean_squared", "momentum": 0.5, "relative_time": 20.0},
    "removed": {"weight_decay": 0.4, "remove_initial_output": True, "batch_size": 4, "relative_learning_rate": 0.2},
    "one rate": {"weight_decay": 0.4, "layer_rates": [0.5, 0.5]},
    "frozen": {"weight_decay": 0.4, "layer_rates": [0.0, 0.5], "momentum": 0.3},
}


@pytest.mark.parametrize("name", DECAYED)
def test_theory_with_weight_decay_is_the_linearised_network_too(name, tmp_path):
    """Of one rate for all layers that train; of frozen hidden layers it is the network itself."""
    own = Run(tmp_path, **training(**DECAYED[name]), **(MUP if "mup" in name else {}))
    run, loss = own.run, own.study.training.loss
    assert own.column("loss") == pytest.approx(run.loss, rel=1e-8)
    for s, (start, points), (column, limit) in product(
        (0, 4), (("", 0), ("test_", 1)), (("linearized", False), ("limit_closed_form", True))
    ):
        f, trained = own.linearized(s, limit)[points], (run.outputs[s], run.test_outputs[s])[points]
        targets = own.targets((own.data.y_train, own.data.y_test)[points])
        values = [naive.loss(loss, at.reshape(targets.shape), targets) for at in f]
        assert own.column(f"{start}{column}_loss")[s] == pytest.approx(values, rel=1e-7)
        apart = np.sqrt(np.mean((trained.reshape(f.shape) - f) ** 2, axis=1))
        assert own.column(f"{start}{column}_deviation")[s] == pytest.approx(apart, rel=1e-5, abs=1e-9)
    final = own.rows("final")
    assert (final["relative_linearized_deviation"] > (0 if name == "frozen" else 1e-4)).all()
    if name == "frozen":
        assert final["relative_linearized_deviation"].max() < 1e-10
    lazy = (final["kernel_drift"] < 0.1) & (final["loss_left"] <= 0.5)
    if name != "removed":  # of batches the kernel drift alone counts
        lazy &= final["relative_linearized_deviation"] < 0.1
    assert own.rows("lazy")["lazy_share"].item() == lazy.mean()
    assert final["test_linearized_accuracy"].notna().any()
    missing = own.rows("training")[["closed_form_loss", "test_closed_form_deviation", "ensemble_loss"]]
    assert missing.isna().all(axis=None)


def test_weight_decay_is_the_engines_and_with_several_rates_leaves_theory_out(decayed):
    own, run = decayed, decayed.run
    for name in ("loss", "kernel_drift", "parameter_drift"):
        assert own.column(name) == pytest.approx(getattr(run, name), rel=1e-8, abs=1e-12), name
    without = ntksim.train(
        OF_WINE, own.data.x_train, own.data.y_train,
        seeds=range(5), method="gradient_descent", learning_rate=own.rate, times=own.rate * own.steps, layer_rates=own.rates,
    )  # fmt: skip
    assert np.abs(run.loss[:, -1] / without.loss[:, -1] - 1).min() > 1e-3
    for table, names in {
        "training": [
            f"{start}{name}_{what}"
            for start in ("", "test_")
            for name in ("linearized", "closed_form", "limit_closed_form")
            for what in ("loss", "deviation")
        ] + ["ensemble_loss", "test_ensemble_loss"],
        "final": ["relative_linearized_deviation", "test_linearized_accuracy", "test_limit_closed_form_accuracy"],
        "modes": ["decay_rate"],
        "mode_residuals": ["theory_rate", "theory_residual", "limit_residual"],
        "ensemble": ["limit_mean", "mean_difference"],
    }.items():  # fmt: skip
        assert own.rows(table)[names].isna().all(axis=None), table
    assert own.rows("modes")["initial_share"].notna().all()
    assert own.rows("mode_residuals").query("time > 0")["measured_rate"].notna().any()
    assert own.column("mean_square_time") == pytest.approx(own.column("time") * 21 / 2)


def test_kernel_regression_does_not_depend_on_weight_decay(decayed):
    kernel = decayed.run.kernels[0, 0].reshape(21, 21)
    across = decayed.run.test_kernels[0, 0].reshape(-1, 21)
    f = across @ np.linalg.solve(kernel, decayed.data.y_train.ravel())
    expected = 0.5 * np.sum((f - decayed.data.y_test.ravel()) ** 2)
    row = decayed.rows("final").query("seed == 0").iloc[0]
    assert row["initial_kernel_regression_test_loss"] == pytest.approx(expected, rel=1e-6)
    regression = decayed.rows("regression").query("seed == 0 and time == 0").iloc[0]
    assert regression["regression_test_loss"] == pytest.approx(expected, rel=1e-6)


def test_verdicts_and_laws_with_several_rates_of_decay_go_without_the_linearised_network(decayed):
    """A distance that is not known does not make a seed's verdict `none`; and movement of order 1 has no theory."""
    lazy = ntksim.read_table(decayed.study.results, "lazy")
    assert set(lazy["verdict"]) <= {"lazy", "between", "rich", "untrained"}
    final = decayed.rows("final")
    alone = (final["kernel_drift"] < 0.1) & (final["loss_left"] <= 0.5)
    assert decayed.rows("lazy")["lazy_share"].item() == alone.mean()
    laws = ntksim.read_table(decayed.study.results, "scaling_laws").set_index("quantity")["theory_exponent"]
    assert laws[["kernel_drift", "parameter_drift", "feature_drift"]].isna().all()
    assert laws["relative_frobenius_error"] == -0.5
    for drawn, lines in ((figures.drift, ["lazy below 0.1"]), (figures.drift_parts, [])):
        axes = drawn(*(ntksim.read_table(decayed.study.results, name) for name in ("drift", "scaling_laws"))).axes
        assert not any("theory" in str(text) for axis in axes for text in axis.get_legend_handles_labels()[1])
        assert [text for text in axes[0].get_legend_handles_labels()[1] if "lazy" in text] == lines
        assert len(axes) == 2


def test_parts_of_the_drift_have_no_theory_with_weight_decay(tmp_path):
    study = studies.computed(CONTENT, tmp_path, **training(weight_decay=2.0, remove_initial_output=True))
    laws = ntksim.read_table(study.results, "scaling_laws").set_index("quantity")["theory_exponent"]
    assert set(laws.index) & set(PARTS)
    assert laws[[name for name in PARTS if name in laws]].isna().all()
    content = CONTENT | {"dataset": CONTENT["dataset"] | {"seed": [0, 1]}}
    several = studies.computed(content, tmp_path / "seeds", **training(weight_decay=2.0, remove_initial_output=True))
    laws = ntksim.read_table(several.results, "scaling_laws")
    averaged = laws[laws["averaged_over"] == "seeds and data sets"].set_index("quantity")["theory_exponent"]
    assert {"kernel_drift", *PARTS} <= set(averaged.index)
    assert averaged[["kernel_drift", *PARTS]].isna().all()


def test_means_of_squares_are_the_squared_loss_on_another_clock(tmp_path):
    """Rate eta on the mean of squares is 2 eta / N on the half sum; columns of losses are means over their own points."""
    measures = {"eigenvalues": 2, "eigenvectors": 2, "regression": True, "predictions": True}
    end = {"relative_time": 6.0, "snapshots": 3, "momentum": 0.5, "ridge": 0.2, "measures": measures}
    end["remove_initial_output"] = True
    half = studies.computed(CONTENT, tmp_path / "half", **training(**end))
    mean = studies.computed(CONTENT, tmp_path / "mean", **training(**end, loss="mean_squared"))
    for table in ("training", "final", "modes", "ensemble", "lazy", "drift", "scaling_laws", *half.training.measures.tables):
        one, other = (ntksim.read_table(study.results, table) for study in (half, mean))
        assert list(one) == list(other)
        one, other = (frame.select_dtypes("number") for frame in (one, other))
        for name in one:
            factor = 1.0
            if table not in ("drift", "scaling_laws"):  # whose rows are of unlike quantities
                if name in ("time", "time_reached", "freeze_time", "learning_rate"):
                    factor = 21 / 2
                elif name.endswith("loss"):
                    factor = 2 / (15 if "test" in name else 21)
                elif name.endswith(("eigenvalue", "_rate", "velocity")) and name != "mean_square_learning_rate":
                    factor = 2 / 21
            elif table == "drift":
                continue
            assert other[name].to_numpy() == pytest.approx(factor * one[name].to_numpy(), rel=1e-6, abs=1e-9, nan_ok=True), name


def test_batches_and_classes_go_together(tmp_path):
    own = Run(tmp_path, **training(loss="softmax_cross_entropy", batch_size=3, relative_learning_rate=0.1, relative_time=1.0))
    assert own.column("loss") == pytest.approx(own.run.loss, rel=1e-8)
    expected = naive.loss("softmax_cross_entropy", own.linearized(2)[0][-1].reshape(7, 3), own.targets(own.data.y_train))
    assert own.column("linearized_loss")[2, -1] == pytest.approx(expected, rel=1e-7)  # with the full batch


def test_keys_at_their_defaults_are_in_no_record():
    """Nor in a hash, an identity or a word of a job: results of earlier studies stay."""
    shard = jobs.Shard("training", "tanh", 16, 0, 1)
    plain, said = parse_study(CONTENT), parse_study(CONTENT | training(loss="squared", weight_decay=0.0))
    other = parse_study(CONTENT | training(loss="mean_softmax_cross_entropy", weight_decay=1e-3))
    assert plain.science_hash() == said.science_hash() != other.science_hash()
    for record in (said.training.model_dump(), said.training.schedule.model_dump()):
        assert not {"loss", "weight_decay"} & set(json.loads(json.dumps(record)))
    assert word(said.training.schedule) == word(plain.training.schedule)
    known = [identity.of_shard(own, shard, "hash") for own in (plain, said, other)]
    assert known[0] == known[1]
    assert known[2] == known[1] | {"loss": "mean_softmax_cross_entropy", "weight_decay": 1e-3}
    told = section_of(*shlex.split(word(other.training.schedule)), Schedule, "schedule")
    assert told == other.training.schedule
    flow = {key: value for key, value in CONTENT["training"].items() if key != "method"}
    assert "loss" not in parse_study(CONTENT | {"training": flow}).training.identity


DECAY, SOFTMAX = {"weight_decay": 0.1}, {"loss": "softmax_cross_entropy"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (training(loss="hinge"), "training.loss: expected 'squared', 'mean_squared', 'half_mean_squared', 'logistic'"),
        (training(weight_decay=-0.1), "training.weight_decay: expected greater than or equal to 0, got -0.1"),
        (training(method="gradient_flow", **SOFTMAX), "training: loss: belongs to method gradient_descent; gradient_flow has"),
        (training(method="gradient_flow", loss="mean_squared"), "training: loss: belongs to method gradient_descent"),
        (training(method="gradient_flow", **DECAY), "training: weight_decay: belongs to method gradient_descent"),
        (training(**SOFTMAX, ridge=0.1), "training: ridge: belongs to squared losses"),
        (training(**SOFTMAX, remove_initial_output=True), "training: remove_initial_output: belongs to squared losses"),
        (training(**SOFTMAX, measures={"regression": True}), "training: measures.regression: belongs to squared losses"),
        (training(**SOFTMAX, measures={"eigenvectors": 1}), "training: measures.eigenvectors: belongs to squared losses"),
        (
            training(loss="mean_squared", rate_of="mean_square", learning_rate=0.1),
            "training: rate_of: with loss mean_squared time, learning_rate and snapshot_times belong to that loss; leave it out",
        ),
        (training(**SOFTMAX, sampling="conditional"), "training: sampling: loss softmax_cross_entropy needs networks weight by"),
        (training(**DECAY, sampling="conditional"), "training: sampling: weight_decay needs networks weight by weight"),
        (
            training(**SOFTMAX) | {"device": "cuda"},
            "device: training.loss softmax_cross_entropy runs on the CPU only so far; set",
        ),
        (training(**DECAY) | {"device": "cuda"}, "device: training.weight_decay runs on the CPU only so far; set device to cpu"),
        (training(loss="logistic"), "training.loss: logistic needs two classes, and dataset has 3; take softmax_cross_entropy"),
        (TWO | training(**SOFTMAX), "training.loss: softmax_cross_entropy needs three classes or more: two make one output"),
        (
            {"dataset": {"name": "circle", "train": 6, "test": 3}} | training(loss="logistic"),
            "training.loss: logistic needs classes, and the targets of circle are real numbers; take a squared loss",
        ),
        (
            {"dataset": {"name": "diabetes", "train": 6, "test": 3}} | training(loss="logistic"),
            "training.loss: logistic needs classes, and the targets of diabetes are real numbers",
        ),
        (
            {"dataset": CONTENT["dataset"] | {"target_scale": 2.0}} | training(**SOFTMAX),
            "dataset.target_scale: training.loss softmax_cross_entropy takes targets as classes, not as numbers; leave it out",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(changes, line):
    with pytest.raises(ConfigError) as error:
        parse_study(CONTENT | changes)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_what_goes_together_is_not_refused():
    """GPUs and networks in law descend on any squared loss; other losses may take rates beyond their bound."""
    assert not parse_study(CONTENT | training(loss="mean_squared") | {"device": "cuda"}).training.is_on_cpu
    assert parse_study(CONTENT | training(**SOFTMAX) | {"device": "auto"}).training.is_on_cpu
    shallow = training(loss="half_mean_squared", sampling="conditional")
    assert parse_study(CONTENT | shallow | {"networks": MUP["networks"]}).training.has_closed_forms
    assert parse_study(CONTENT | training(**SOFTMAX, relative_learning_rate=3.0)).training.relative_learning_rate == 3.0
    assert parse_study(CONTENT | training(loss="mean_squared", ridge=0.1, remove_initial_output=True)).training.ridge == 0.1


def test_every_loss_has_a_formula_at_the_axes_of_figures():
    for name in LOSSES:
        assert losses.formula({"config": {"training": {"loss": name}}})
    assert losses.words("mean_softmax_cross_entropy") == "mean softmax cross-entropy"
    assert losses.words("half_mean_squared") == "half mean squared loss"


@pytest.mark.parametrize(
    ("y", "options", "loss", "got"),
    [
        (lambda rng: rng.normal(size=12), {}, "logistic", "training.loss: logistic needs targets 1 and -1, those of two classes"),
        (lambda rng: np.tile([0.0, 1.0], 6), {"scaling": "none"}, "mean_logistic", "dataset has the target 0; list labels in"),
        (lambda rng: rng.normal(size=(12, 3)), {}, "softmax_cross_entropy", "softmax_cross_entropy needs three classes or more"),
        (
            lambda rng: rng.dirichlet(np.ones(3), size=12),
            {},
            "softmax_cross_entropy",
            "list labels in dataset.classes, set dataset.scaling to none if the file has probabilities already, or take logistic",
        ),
        (
            lambda rng: rng.permuted(np.tile([[-1.0], [1.0], [1.0]], (4, 2)), axis=0),
            {},
            "mean_logistic",
            "set dataset.scaling to none if the file has 1 and -1 already, or take softmax_cross_entropy or a squared loss",
        ),
        (lambda rng: rng.permuted(np.tile([[-1.0], [1.0], [1.0]], (4, 2)), axis=0), {"scaling": "none"}, "mean_logistic", ""),
        (lambda rng: rng.dirichlet(np.ones(2), size=12), {"scaling": "none"}, "softmax_cross_entropy", ""),
        (lambda rng: np.eye(2)[np.arange(12) % 2], {}, "softmax_cross_entropy", ""),
        (lambda rng: np.tile([0.0, 1.0], 6), {"classes": [0, 1]}, "softmax_cross_entropy", None),
        (lambda rng: rng.normal(size=12), {}, "mean_softmax_cross_entropy", "dataset has targets of one output; list labels in"),
        (lambda rng: np.tile([-1.0, 1.0], 6), {}, "logistic", ""),
        (lambda rng: np.eye(3)[np.arange(12) % 3], {}, "softmax_cross_entropy", ""),
        (lambda rng: rng.dirichlet(np.ones(3), size=12), {"scaling": "none"}, "mean_softmax_cross_entropy", ""),
    ],
)
def test_targets_of_ones_own_are_checked_before_anything_is_computed(tmp_path, y, options, loss, got):
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "own.npz", x=rng.normal(size=(12, 4)), y=y(rng))
    data = {"file": str(tmp_path / "own.npz"), "train": 6, "test": 6} | options
    content = CONTENT | {"dataset": data, "results": str(tmp_path / "r")} | training(loss=loss)
    if got is None:
        with pytest.raises(ConfigError, match="three classes or more: two make one output; take logistic"):
            parse_study(content)
        return
    study = parse_study(content)
    assert cost.cost_of(study, "training", "tanh", 16, 2).seconds > 0  # whatever the targets
    if not got:
        load_data(study)
        return
    with pytest.raises(ConfigError) as error:
        load_data(study)
    assert got in str(error.value)
    assert "squared loss" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(StageError, match="training.loss"):  # a job that is told so by hand
        studies.compute(study)


def test_probabilities_of_classes_are_targets(tmp_path):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(12, 4)), rng.dirichlet(np.ones(3), size=12)
    np.savez(tmp_path / "own.npz", x_train=x[:6], y_train=y[:6], x_test=x[6:], y_test=y[6:])
    data = {"file": str(tmp_path / "own.npz"), "scaling": "none"}
    study = studies.computed(CONTENT, tmp_path / "r", dataset=data, **training(**SOFTMAX))
    rows = ntksim.read_table(study.results, "training").query("width == 32 and seed == 1")
    f0 = ntksim.network_outputs(OF_WINE, x, seeds=[1])[0]
    assert rows["loss"].iloc[0] == pytest.approx(naive.loss("softmax_cross_entropy", f0[:6], y[:6]))
    assert rows["test_loss"].iloc[0] == pytest.approx(naive.loss("softmax_cross_entropy", f0[6:], y[6:]))
    assert rows["test_accuracy"].isna().all()


def test_jobs_of_what_gpus_do_not_have_take_the_cpu(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(training_job, "chosen_device", lambda device: asked.append(device) or "cpu")
    for own, device in ((SOFTMAX, "cpu"), (DECAY, "cpu"), ({"loss": "mean_squared"}, "auto")):
        study = studies.computed(CONTENT, tmp_path / str(len(asked)), **training(**own, widths=[16], seeds=2))
        shard = next(shard for shard in jobs.shards(study) if shard.stage == "training")
        asked.clear()
        job = ShardJob(
            f"{study.results}/dataset.npz", f"{study.results}/limit/tanh.npz", study.networks["tanh"].network(16), shard.seeds,
            tmp_path / "shard.parquet", device="auto",
        )  # fmt: skip
        training_job.make_job(job, study.training.schedule)
        assert asked == [device]


def test_plans_price_the_linearised_network_step_by_step():
    def price(**options):
        study = parse_study(CONTENT | training(**options, relative_time=1e6))
        return cost.cost_of(study, "training", "tanh", 16, 2).seconds

    plain = price()
    assert price(**SOFTMAX) > 1.2 * plain
    assert price(**DECAY) == price(**SOFTMAX) == price(**SOFTMAX, **DECAY)
    assert price(**DECAY, layer_rates=[0.5, 1.0]) == price(loss="mean_squared") == plain
    assert price(**DECAY, layer_rates=[0.0, 1.0]) == price(**DECAY)
    absolute = {"learning_rate": 0.1, "relative_time": 1e5}
    half, mean = (
        cost.cost_of(parse_study(CONTENT | training(**absolute, loss=loss)), "training", "tanh", 16, 2).seconds
        for loss in ("squared", "mean_squared")
    )
    assert mean > 5 * half  # a rate of so much is a smaller part of the largest stable one


def test_reports_say_which_loss(classified, decayed, tmp_path):
    """In the opening, with the verdicts, and at the axes of figures, whose units of time have the loss's curvature."""
    words = {
        "softmax_cross_entropy": "softmax cross-entropy", "mean_softmax_cross_entropy": "mean softmax cross-entropy",
        "logistic": "logistic loss", "mean_logistic": "mean logistic loss",
    }[classified.study.training.loss]  # fmt: skip
    attrs = ntksim.read_table(classified.study.results, "final").attrs
    assert f", {words}, " in description.study(attrs)[-1]
    if classified.study.training.relative_time:
        assert " / (c lambda_max(K_inf)), " in description.study(attrs)[-1]
        assert ", c being the largest second derivative of the loss in the outputs" in description.study(attrs)[-1]
    text = summary.summary(classified.study.results)
    assert f"linearised network below 0.1; between: none of these; trained on {words}):" in " ".join(text.split())
    assert "in units of the targets" not in text
    page.write_html(classified.study.results, tmp_path / "report.html")
    assert f"; trained on {words}" in (tmp_path / "report.html").read_text()
    for axis in figures.loss(ntksim.read_table(classified.study.results, "training")).axes:
        assert axis.get_ylabel().startswith("training loss")
        assert "log" in axis.get_ylabel()
        assert r"t\,c\,\lambda" in axis.get_xlabel()
        assert axis.get_legend_handles_labels()[1][-2:] == [r"the same training with $K_0$", r"the same training with $K_\infty$"]
    text = summary.summary(decayed.study.results)
    assert "squared loss" in text
    assert "weight decay 0.4" in text
    assert "distance from the linearised network, " not in text
    assert "nan" not in text
    for axis in figures.loss(ntksim.read_table(decayed.study.results, "training")).axes:
        assert axis.get_ylabel() == r"training loss: $\frac{1}{2}\sum r^2$"
        assert axis.get_legend_handles_labels()[1] == ["$m$ = 16", "$m$ = 32"]
    one = studies.computed(CONTENT, tmp_path / "one", **training(weight_decay=0.4))
    assert "distance from the linearised network, in units of the targets" in summary.summary(one.results)
    for axis in figures.loss(ntksim.read_table(one.results, "training")).axes:
        assert axis.get_legend_handles_labels()[1][-2:] == [r"the same training with $K_0$", r"the same training with $K_\infty$"]
    assert len(figures.drift(*(ntksim.read_table(one.results, name) for name in ("drift", "scaling_laws"))).axes) == 3


def test_figures_are_drawn_without_what_is_missing(classified, decayed, tmp_path):
    for study in (classified.study, decayed.study):
        for name in jobs.figures(study):
            figures.draw(
                name, [f"{study.results}/tables/{table}.parquet" for table in jobs.FIGURES[name]], [tmp_path / f"{name}.svg"]
            )
            assert (tmp_path / f"{name}.svg").stat().st_size > 1000


def test_shards_are_verified(classified, decayed, capsys):
    for own in (classified, decayed):
        assert verify.verify(own.study.results, shards=3)
    assert "0 within tolerance, 0 different" in capsys.readouterr().out
