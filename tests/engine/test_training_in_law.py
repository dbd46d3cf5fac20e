"""Training in law: exactly the training of explicit weights that the draws leave possible, and in law that of any."""

import threading
from functools import partial

import naive
import numpy as np
import pytest
from scipy import stats
from test_empirical import threads
from tolerances import assert_close

import ntksim
from ntksim.engine import known_answers
from ntksim.engine.conditional import tall
from ntksim.engine.conditional.machine import ConditionalMachine
from ntksim.engine.conditional.revealed import Revealed
from ntksim.engine.conditional.tall import joined, pieces_of
from ntksim.engine.cpu.compiled_network import compiled_network
from ntksim.engine.cpu.machine import CpuMachine
from ntksim.engine.training import train

RNG = np.random.default_rng(8)
X, X_TEST = RNG.normal(size=(4, 6)), RNG.normal(size=(2, 6))
Y, Y2 = RNG.normal(size=4), RNG.normal(size=(4, 2))
FLOW = {"times": [0.0, 0.3, 2.0, 10.0], "tolerance": 1e-2}
DESCENT = {"method": "gradient_descent", "learning_rate": 0.02, "times": [0.0, 0.04, 0.06]}
TESTS = {"x_test": X_TEST, "keep_kernels": True}
TOLERANCE = {"float64": 1e-11, "float32": 1e-5}


class Recording(ConditionalMachine):
    """The machine, which is kept, and its parameters at initialisation."""

    made: list["Recording"]

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.thread = threading.current_thread()
        self.made.append(self)

    def draw(self):
        self.start = super().draw()
        return self.copy(self.start)

    def _unseen(self, layer, freedom):
        return np.sum(assembled(self)[1][layer - 1] ** 2)


def conditional(monkeypatch, *arguments, **options):
    """A run in law, and its machines."""
    with monkeypatch.context() as patched:
        patched.setattr(Recording, "made", [], raising=False)
        patched.setattr(train, "ConditionalMachine", Recording)
        patched.setattr(known_answers, "check", lambda *_, **__: None)
        return ntksim.train(*arguments, **options, sampling="conditional"), Recording.made


def bases_and_images(matrix):
    """Q, Q W', P and P W of what is known of a matrix."""
    found = []
    for own in (matrix.right, matrix.left):
        image = matrix.images(own, np.eye(own.rank), 1.0, np.zeros((0, own.rank)))
        found += [joined(own.basis.pieces), joined([image(p) for p in range(len(pieces_of(matrix.other(own).width)))])]
    return found


def assembled(made, seed=0):
    """Weights of layers 1..L, some of those that what was revealed leaves possible, and what the matrices had left of freedom."""
    rng, net, d = np.random.default_rng(seed), made.net, len(made.columns)
    x = np.concatenate([made.points_only, made.test_points])
    axes, _, _, _ = np.linalg.lstsq(made.inputs, x, rcond=None)  # x = inputs axes
    rest = rng.normal(size=(net.widths[1], d)) @ (np.eye(d) - axes.T @ axes)
    weights, free = [joined(made.start.first).T @ axes + net.scales[1, 0] * rest], [rest]
    for i, matrix in enumerate(made.hidden, 1):
        q, y, p, b = bases_and_images(matrix)
        right, left = np.eye(q.shape[1]) - q.T @ q, np.eye(p.shape[1]) - p.T @ p
        free.append(left @ rng.normal(size=(p.shape[1], q.shape[1])) @ right)
        weights.append(net.scales[1, i] * (y.T @ q + p.T @ b @ right + free[-1]))
    return weights, free


def explicit_machine(made, weights):
    """A CPU's machine that has these weights, and the others of a machine in law."""

    class Given(CpuMachine):
        holds_gates = False  # as in law

        def draw(self):
            theta, offsets = self.zeros(), self.offsets
            for layer, matrix in enumerate([*weights, joined(made.start.readout)]):
                length = int(self.net.lengths[layer])
                rows = theta[offsets[2 * layer] : offsets[2 * layer] + len(matrix) * length].reshape(-1, length)
                rows[:, : matrix.shape[1]] = matrix
                b = joined(made.start.biases[layer])[0] if layer < len(weights) else made.start.output_bias
                theta[offsets[2 * layer + 1] : offsets[2 * layer + 1] + len(b)] = b
            return theta

    return Given


def constraint(matrix):
    """The largest deviation of P Y' from B Q', and of bases from orthonormal ones."""
    q, y, p, b = bases_and_images(matrix)
    deviations = p @ y.T - b @ q.T, q @ q.T - np.eye(len(q)), p @ p.T - np.eye(len(p))
    return max(np.abs(deviation).max(initial=0) for deviation in deviations)


def after_every_extension(monkeypatch):
    """The constraint of a matrix after each of its extensions, as they come."""
    found, extend = [], Revealed._extend

    def extended(self, *arguments):
        extend(self, *arguments)
        found.append(constraint(self))

    monkeypatch.setattr(Revealed, "_extend", extended)
    return found


N = ntksim.Network
CASES = {
    "few steps": (N(2, 40, "tanh", sigma_b=0.3, output_bias=True), Y, DESCENT | TESTS),
    "momentum": (N(3, 64, "relu", sigma_w=1.4), Y, DESCENT | {"momentum": 0.5}),
    "nesterov": (N(3, (30, 41, 64), "gelu", sigma_b=0.3, outputs=2), Y2, DESCENT | TESTS | {"momentum": 0.5, "nesterov": True}),
    "rates": (N(3, 48, "erf", sigma_b=0.3), Y, DESCENT | TESTS | {"layer_rates": [1, 0.5, 0, 2]}),
    "standard": (N(3, 40, "tanh", "standard", sigma_b=0.1), Y, FLOW | TESTS),
    "notes": (N(2, 8, "leaky_relu", "notes", sigma_b=0.1), Y, FLOW | TESTS),
    "mup": (N(2, 64, "abs", "mup", sigma_b=0.1), Y, FLOW | TESTS),
    "one layer": (N(1, 20, "sin"), Y, FLOW | TESTS),
    "two outputs": (N(2, 40, "tanh", sigma_b=0.2, outputs=2), Y2, FLOW | TESTS | {"remove_initial_output": True}),
    "float32": (N(2, 40, "tanh", sigma_b=0.2), Y, FLOW | TESTS | {"dtype": "float32", "rank_tolerance": 1e-5}),
}
MEASURES = (
    "outputs", "test_outputs", "loss", "kernels", "kernel", "test_kernels", "kernel_drift", "kernel_distance",
    "layer_kernel_drift", "feature_drift", "gates_flipped", "layer_drift", "parameter_drift",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_whole_trajectory_is_that_of_explicit_weights(case, monkeypatch):
    """Explicit weights that agree with all that was revealed train to the same numbers; no direction is left out here."""
    network, y, options = CASES[case]
    options = {"rank_tolerance": 1e-7} | options
    deviations, tolerance = after_every_extension(monkeypatch), TOLERANCE[options.get("dtype", "float64")]
    run, (made,) = conditional(monkeypatch, network, X, y, seeds=[3], **options)
    assert len(deviations) >= 2 * len(made.hidden)
    assert max(deviations, default=0) < tolerance
    weights, _ = assembled(made)
    monkeypatch.setattr(known_answers, "check", lambda *_, **__: None)  # whose answers are those of other weights
    monkeypatch.setattr(train, "CpuMachine", explicit_machine(made, weights))
    options.pop("rank_tolerance")
    expected = ntksim.train(network, X, y, seeds=[3], **options)
    assert run.status == expected.status == ("finished",)
    assert run.evaluations == expected.evaluations
    assert run.rank[0] == made.rank
    for name in MEASURES:
        found, right = getattr(run, name), getattr(expected, name)
        if right is None or np.isnan(right).all():
            assert found is None or np.isnan(found).all(), name
        else:
            assert_close(found, right, 10 * tolerance)


@pytest.mark.parametrize("name", ["left", "right"])
def test_sides_that_are_not_of_one_matrix_end_training(name, monkeypatch):
    """A basis that is off by 1e-8 of its length in one of its directions."""
    extend, calls = Revealed._extend, []

    def wrong(self, own, directions, numbers):
        extend(self, own, directions, numbers)
        calls.append(own is getattr(self, name))
        if sum(calls) == 2 and calls[-1]:
            own.basis.pieces[0][1] *= 1 + 1e-8

    monkeypatch.setattr(Revealed, "_extend", wrong)
    with pytest.raises(ArithmeticError, match="both sides of a hidden matrix in law differs by .*more than rounding"):
        conditional(monkeypatch, N(2, 96, "tanh"), X, Y, seeds=[0], **FLOW)
    assert sum(calls) >= 2


def test_known_answers_are_those_of_explicit_weights(monkeypatch):
    network, x, y = known_answers.network_of("erf", 24), known_answers.POINTS, known_answers.TARGETS
    options = {"method": "gradient_descent", "momentum": 0.5, "steps": 3, "learning_rate": 0.125, "x_test": x[:1]}
    _, (made,) = conditional(monkeypatch, network, x, y, seeds=[known_answers.SEED], **options)
    weights, _ = assembled(made)
    g, beta, biases = made.net.scales[0], made.net.scales[2], [joined(b)[0] for b in made.start.biases]
    oracle = g, beta, weights, biases, joined(made.start.readout)[0], made.start.output_bias[0]
    history = naive.descent("erf", *oracle, x, y, 0.125, 3, True, True, momentum=0.5)
    outputs, kernel, theta = history[-1]
    drifts = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in ((theta, history[0][2]), (kernel, history[0][1]))]
    assert_close(np.delete(known_answers.TRAINED_IN_LAW, 2), [*outputs, drifts[1], kernel[0, 1]], 1e-11)


def test_the_norm_of_what_nobody_asked_of_has_its_law():
    """chi^2 with few and with 10^12 degrees of freedom: 400 seeds, Kolmogorov-Smirnov at 1e-4."""
    for freedom, law in ((3, stats.chi2(3)), (10**12, stats.norm(1e12, np.sqrt(2e12)))):
        drawn = [norm_of_seed(seed, freedom) for seed in range(400)]
        assert stats.kstest(drawn, law.cdf).pvalue > 1e-4


def norm_of_seed(seed, freedom):
    made = ConditionalMachine.__new__(ConditionalMachine)
    made.seed, made.net = np.uint64(seed), compiled_network(N(2, 8), 3)
    made.columns = np.empty((0, 0))
    return made._unseen(2, freedom)


# --- in law -----------------------------------------------------------------------------------------------------------

SEEDS = 2000
LAWS = {  # network, points, and learning rate of a descent in units of 1 / lambda_max
    "tanh, flow": (N(2, 24, "tanh", sigma_w=1.5, sigma_b=0.2), 2, 0.0),  # most of it is never revealed; the others are whole
    "relu, flow": (N(2, 16, "relu", sigma_w=1.4), 2, 0.0),
    "tanh, mup, descent": (N(2, 20, "tanh", "mup", sigma_w=1.5), 3, 0.3),
    "relu, standard, descent": (N(2, (16, 24), "relu", "standard", sigma_b=0.3, output_bias=True), 3, 0.3),
}


@pytest.mark.parametrize("name", LAWS)
def test_training_has_the_law_of_explicit_weights(name, monkeypatch):
    """Means, second moments and distributions at the end, of 2,000 seeds each way, which are disjoint, far from infinite width.

    Four steps of descent, or the flow to t = 0.5 / lambda_max of the infinite-width kernel. In law flows do not hold gates, and
    here they do not by weights either: at such a tolerance steps that end where gates cross have other errors.
    Kolmogorov-Smirnov p above 1e-5 and |z| below 4.8 for some 25 numbers a network: by chance one in 3,000 such tests fails, or
    fewer, since the numbers are not independent.
    """
    network, n, relative_rate = LAWS[name]
    monkeypatch.setattr(CpuMachine, "holds_gates", False)
    largest = np.linalg.eigvalsh(ntksim.infinite_kernel(network, X[:n]).ntk * network.learning_rate_scale)[-1]
    options = {"times": [0.0, 0.5 / largest], "tolerance": 0.1}
    if relative_rate:
        rate = relative_rate / largest
        options = {"method": "gradient_descent", "learning_rate": rate, "times": [0.0, 4 * rate], "x_test": X_TEST[:1]}
    call = partial(ntksim.train, network, X[:n], Y[:n], **options)
    explicit, law = call(seeds=range(SEEDS, 2 * SEEDS)), call(seeds=range(SEEDS), sampling="conditional")
    assert (law.rank.mean() < 12) == (name == "tanh, flow")
    found, expected = quantities(law), quantities(explicit)
    assert min(stats.ks_2samp(found, expected, axis=1).pvalue) > 1e-5
    for power in (1, 2):
        a, b = found**power, expected**power
        errors = np.sqrt((a.var(axis=1) + b.var(axis=1)) / SEEDS)
        assert (np.abs(a.mean(axis=1) - b.mean(axis=1)) < 4.8 * errors).all()


def quantities(run):
    """Numbers of every seed at the end of training, and products of some: (quantities, seeds)."""
    upper = np.triu_indices(run.kernel.shape[1])
    columns = [
        run.outputs[:, -1], run.loss[:, -1:], run.kernel[:, *upper], run.kernel_drift[:, -1:], run.parameter_drift[:, -1:],
        run.layer_drift[:, -1], run.feature_drift[:, -1:], run.layer_kernel_drift[:, -1],
    ]  # fmt: skip
    if run.test_outputs is not None:
        columns += [run.test_outputs[:, -1], run.test_kernels[:, 1, 0]]
    both = np.concatenate(columns, axis=1)
    correlated = both[:, 0] * both[:, 1], both[:, 0] * run.kernel[:, 0, 0], run.outputs[:, 0, 0] * run.outputs[:, -1, 0]
    return np.array([*both.T, *correlated])


HALVED = {  # the larger of the tolerances, and how far means may move, in standard errors
    ("tanh", "flow"): (1e-6, 0.1), ("tanh", "descent"): (1e-6, 0.1), ("relu", "flow"): (1e-6, 1.0),
    ("relu", "descent"): (1e-6, 1.0), ("tanh", "coarse flow"): (2e-4, 1.0),
}  # fmt: skip


@pytest.mark.parametrize(("activation", "method"), HALVED)
def test_half_the_tolerance_moves_no_mean_beyond_its_standard_error(activation, method):
    """Of the same seeds, at the tolerance that is the default too.

    Both runs share all draws, since normals belong to the number of a vector that is asked, whether it adds a direction or not.
    So seeds differ by what one run leaves out, until a gate flips in one of them alone. Measured: means move by 0.004 standard
    errors at most of tanh, and by 0.2 of relu, at 1e-6; by 0.4 of tanh at 2e-4.
    """
    (tolerance, most), rate = HALVED[activation, method], 0.05
    options = FLOW if method != "descent" else {"method": "gradient_descent", "learning_rate": rate, "times": [0, 20 * rate]}
    network, seeds = N(2, 256, activation, sigma_w=1.5 if activation == "tanh" else 1.4), range(12)
    call = partial(ntksim.train, network, X, Y, seeds=seeds, sampling="conditional", **options)
    coarse, fine = call(rank_tolerance=tolerance), call(rank_tolerance=tolerance / 2)
    assert (coarse.rank <= fine.rank).all()
    assert coarse.rank.mean() < fine.rank.mean()
    shifts = {}
    for name in ("outputs", "kernel_drift", "parameter_drift", "feature_drift", "layer_drift", "loss", "kernel"):
        a, b = (getattr(run, name)[:, 1:] if name != "kernel" else run.kernel for run in (coarse, fine))
        shifts[name] = np.max(np.abs((a - b).mean(axis=0)) / (a.std(axis=0, ddof=1) / np.sqrt(len(seeds))))
    assert max(shifts.values()) <= most


# --- bits, and what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "limits", "team", "in_turn"),
    [("tanh", {}, 1, True), ("tanh", {"_TOGETHER": 0}, 1, False), ("relu", {}, 1, False), ("relu", {"_HUGE": 1}, 2, True)],
    ids=["small ones in turn", "a thread each", "kinked ones, a thread each", "huge ones in turn, threads share each"],
)
def test_bits_depend_neither_on_threads_nor_on_splits(activation, limits, team, in_turn, monkeypatch):
    monkeypatch.setattr(tall, "PIECE", 16)
    network, options = N(3, 72, activation, sigma_b=0.1), FLOW | {"x_test": X_TEST}
    with threads(1):
        alone = [conditional(monkeypatch, network, X, Y, seeds=[seed], **options)[0] for seed in (0, 5)]
    for name, limit in limits.items():
        monkeypatch.setattr(train, name, limit)
    with threads(2):
        both, machines = conditional(monkeypatch, network, X, Y, seeds=[0, 5], **options)
    assert [machine.team.threads for machine in machines] == [team, team]
    assert [machine.thread is threading.main_thread() for machine in machines] == [in_turn, in_turn]
    for name in (*MEASURES, "rank"):
        if getattr(both, name) is not None:
            assert np.concatenate([getattr(run, name) for run in alone]).tobytes() == getattr(both, name).tobytes(), name


def test_wide_networks_ask_for_few_directions():
    """Width 4,096: its four points are asked some ten times, and a sixteenth of the directions or less is enough."""
    run = ntksim.train(N(3, 4096, "tanh", sigma_w=1.5), X, Y, seeds=[0], **FLOW, sampling="conditional")
    assert run.status == ("finished",)
    assert 8 <= run.rank[0] <= 256
    closed = ntksim.closed_form(run.kernel[0], run.outputs[0, 0], Y, run.times)
    assert np.abs(run.outputs[0] - closed).max() < 0.02


def test_float32_leaves_out_what_may_be_rounding():
    """What is asked for below 32 units of it counts as 32."""
    options = FLOW | {"seeds": [0], "sampling": "conditional", "dtype": "float32"}
    runs = [ntksim.train(N(2, 40, "tanh"), X, Y, rank_tolerance=own, **options) for own in (1e-7, 32 * 2.0**-23, 1e-3)]
    assert runs[0].outputs.tobytes() == runs[1].outputs.tobytes() != runs[2].outputs.tobytes()


def test_a_run_that_is_done_is_kept(tmp_path, monkeypatch):
    options = FLOW | {"seeds": [1, 2], "sampling": "conditional", "checkpoint": tmp_path, "checkpoint_interval": 0}
    run = ntksim.train(N(2, 24, "tanh"), X, Y, **options)
    monkeypatch.setattr(train, "flow_seed", None)
    again = ntksim.train(N(2, 24, "tanh"), X, Y, **options)
    for name in ("outputs", "kernel_drift", "parameter_drift", "rank", "evaluations"):
        assert getattr(again, name).tobytes() == getattr(run, name).tobytes(), name
    with pytest.raises(TypeError, match="not callable"):  # it would be computed
        ntksim.train(N(2, 24, "tanh"), X, Y, **options, rank_tolerance=1e-5)
    assert ntksim.train(N(1, 4), X, Y, seeds=[0], method="gradient_descent", steps=1).rank is None


def test_a_run_that_is_killed_gives_the_same_bits(tmp_path, monkeypatch):
    """Stopped after ever more passes: seeds that are done stay, and the one under way begins anew."""
    options = FLOW | {"seeds": [1, 2, 3], "sampling": "conditional", "x_test": X_TEST, "keep_kernels": True}
    undisturbed = ntksim.train(N(2, 24, "tanh"), X, Y, **options)
    evaluate, passes = ConditionalMachine.evaluate, [0, 0]

    def stopping(self, theta, room):
        passes[0] += 1
        if passes[0] > passes[1]:
            raise KeyboardInterrupt
        return evaluate(self, theta, room)

    monkeypatch.setattr(ConditionalMachine, "evaluate", stopping)
    call, stops, again = partial(ntksim.train, N(2, 24, "tanh"), X, Y, **options, checkpoint=tmp_path), 0, None
    while again is None:
        passes[:] = 0, passes[1] + 3
        try:
            again = call()
        except KeyboardInterrupt:
            stops += 1
    assert stops > 2
    assert passes[0] < undisturbed.evaluations.sum()  # the seeds before were done
    for name in ("outputs", "test_outputs", "kernels", "kernel_drift", "parameter_drift", "rank", "evaluations"):
        assert getattr(again, name).tobytes() == getattr(undisturbed, name).tobytes(), name


@pytest.mark.filterwarnings("error")
def test_descents_that_diverge_say_so():
    network, options = N(2, 64, "linear"), {"method": "gradient_descent", "learning_rate": 1e60, "times": [0.0, 1e61]}
    with pytest.warns(RuntimeWarning, match="expected to diverge"):
        run = ntksim.train(network, X, Y, seeds=[0], sampling="conditional", **options)
    assert run.status == ("diverged",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": "law"}, "sampling must be one of weights, conditional; got 'law'"),
        ({"device": "cuda"}, "sampling='conditional' is trained on the CPU only so far"),
        ({"rank_tolerance": 0}, "rank_tolerance must be a number from 1e-7 to 0.1; got 0"),
        ({"rank_tolerance": True}, "rank_tolerance must be a number from 1e-7 to 0.1; got True"),
        ({"rank_tolerance": 2e-5}, "rank_tolerance must be at most a tenth of the flow's tolerance 0.0001"),
        ({"dtype": "float32", "tolerance": 2e-5}, "tolerance must be at least 3.82e-05 for networks in law in float32"),
        ({"method": "gradient_descent", "steps": 9, "batch_size": 2}, "takes all points at once: leave batch_size out"),
        (
            {"method": "gradient_descent", "steps": 9},
            "may ask for 36 directions .steps times points times outputs., more than the width 32",
        ),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ntksim.train(N(2, 32), X, Y, seeds=[0], **{"sampling": "conditional"} | options)
