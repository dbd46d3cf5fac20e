"""Gradient flow: an independent integrator, closed forms, limits of time and width, and what is refused."""

import naive
import numpy as np
import pytest
from cases import ODD, oracle_arguments, powers
from scipy import integrate

import ntksim
from ntksim.engine.cpu.compiled_network import compiled_network
from ntksim.engine.infinite.decay import integral
from ntksim.engine.layout import parameter_offsets
from ntksim.engine.training import modes
from ntksim.engine.training.checkpoints import SeedCheckpoint
from ntksim.engine.training.modes import linear_change, modes_of

RNG = np.random.default_rng(4)
X, Y, X_TEST = RNG.normal(size=(5, 3)), RNG.normal(size=5), RNG.normal(size=(2, 3))
TIMES = [0.0, 0.05, 0.3, 1.0, 4.0]


def oracle_flow(network, x, y, x_test, times, seed, layer_rates=None):
    """Outputs, test outputs, kernels and flat parameters along theta' = -n^(-c) J' r, by DOP853 on explicit Jacobians.

    With ``layer_rates`` each layer's gradient is multiplied by its own, and kernels are J diag(rates) J'.
    """
    rate = naive.rate_factor(network.parameterization, network.widths, powers(network))
    g, beta, weights, biases, a, c = oracle_arguments(network, x.shape[1], seed)
    with_biases, with_output = network.sigma_b is not None, network.output_bias

    def unpack(flat):
        a_, at = flat[: a.size], a.size
        c_ = flat[at] if with_output else c
        at += with_output
        ws, bs = [None] * len(weights), list(biases)
        for layer in reversed(range(len(weights))):
            ws[layer] = flat[at : at + weights[layer].size].reshape(weights[layer].shape)
            at += weights[layer].size
            if with_biases:
                bs[layer] = flat[at : at + biases[layer].size]
                at += biases[layer].size
        return ws, bs, a_, c_

    parts = [a, *([np.array([c])] if with_output else [])]
    for layer in reversed(range(len(weights))):
        parts += [weights[layer].ravel(), *([biases[layer]] if with_biases else [])]
    phi = naive.PHI[network.activation][0]

    def jacobian(flat):
        return naive.jacobian(network.activation, g, beta, *unpack(flat), x, with_biases, with_output)

    rates = naive.parameter_rates(layer_rates, weights, with_biases, with_output)

    def velocity(_, flat):
        return -rate * rates * (jacobian(flat).T @ (naive.output(phi, g, beta, *unpack(flat), x) - y))

    start = np.concatenate(parts)
    found = integrate.solve_ivp(velocity, (0, times[-1]), start, "DOP853", t_eval=times, rtol=1e-10, atol=1e-12).y.T
    outputs = [np.array([naive.output(phi, g, beta, *unpack(flat), points) for flat in found]) for points in (x, x_test)]
    return *outputs, np.array([(rates * jacobian(flat)) @ jacobian(flat).T for flat in found]), found


@pytest.mark.parametrize(
    "network",
    [
        ntksim.Network(2, 12, "tanh", "ntk", 1.5),
        ntksim.Network(1, 9, "erf", "notes", 1.2, 0.8, 0.4),
        ntksim.Network(3, (7, 8, 6), "gelu", "standard", 1.3, 1.0, 0.2, True),
        ntksim.Network(2, 10, "sin", "ntk", 1.1, 0.9, 0.0, True, output_scale=2.0),
        ntksim.Network(2, 20, "tanh", "mup", 1.5),
        ntksim.Network(1, 12, "erf", "mean_field", 1.2, 0.8, 0.4),
        ntksim.Network(2, 8, "tanh", "abc", 1.5, abc=ODD),
    ],
    ids=["tanh", "erf-notes", "gelu-standard", "sin-alpha", "mup", "mean_field", "abc"],
)
def test_against_an_explicit_integrator(network):
    """Narrow networks, whose kernels move: outputs, test outputs, kernel and parameters to 1e-4 at tolerance 1e-6."""
    outputs, tests, kernels, theta = oracle_flow(network, X, Y, X_TEST, TIMES, 3)
    run = ntksim.train(network, X, Y, seeds=[3], times=TIMES, tolerance=1e-6, x_test=X_TEST, keep_kernels=True)
    assert run.status == ("finished",)
    assert np.abs(run.outputs[0] - outputs).max() < 1e-4
    assert np.abs(run.test_outputs[0] - tests).max() < 1e-4
    assert np.abs(run.kernels[0] - kernels).max() < 1e-4 * np.abs(kernels).max()
    drift = np.linalg.norm(theta - theta[0], axis=1) / np.linalg.norm(theta[0])
    assert run.parameter_drift[0] == pytest.approx(drift, rel=1e-4)
    moved = np.linalg.norm(kernels - kernels[0], axis=(1, 2)) / np.linalg.norm(kernels[0])
    assert moved.max() > 0.02  # the case is not lazy
    assert run.kernel_drift[0] == pytest.approx(moved, rel=1e-4, abs=1e-5)
    assert run.loss[0] == pytest.approx(0.5 * ((outputs - Y) ** 2).sum(axis=1), abs=1e-3)


def test_the_error_follows_the_tolerance():
    """Over three decades of tolerance the error falls by more than 1.5, and the passes rise by less than 1.5 decades."""
    network = ntksim.Network(2, 12, "tanh", "ntk", 1.5)
    outputs, tests, _, _ = oracle_flow(network, X, Y, X_TEST, TIMES, 0)
    errors, passes = [], []
    for tolerance in (1e-3, 1e-6):
        run = ntksim.train(network, X, Y, seeds=[0], times=TIMES, tolerance=tolerance, x_test=X_TEST)
        errors.append(max(np.abs(run.outputs[0] - outputs).max(), np.abs(run.test_outputs[0] - tests).max()))
        passes.append(run.evaluations[0])
    assert errors[1] < errors[0] / 10**1.5
    assert passes[0] < passes[1] < passes[0] * 10**1.5


def spans(*parts):
    return np.concatenate([np.linspace(*part) for part in parts])


SMALL = np.random.default_rng(7)
X_SMALL, Y_SMALL, X_SMALL_TEST = SMALL.normal(size=(6, 3)), SMALL.normal(size=6), SMALL.normal(size=(4, 3))


@pytest.mark.parametrize(
    ("network", "seed", "tolerances", "times", "most"),
    [
        (ntksim.Network(3, 32, "tanh", "standard", 0.1, 0.1), 7, (1e-4, 1e-5), spans((7, 8, 9), (10, 19, 10)), 1300),
        (ntksim.Network(2, 32, "gelu", "mup", 0.1, 0.1), 2, (1e-5,), spans((1650, 1760, 12), (2000, 4500, 6)), 2700),
        (ntksim.Network(2, 32, "gelu", "standard", 0.1, 0.1), 6, (1e-5,), spans((6, 7.5, 10), (10, 22, 7)), 2000),
        (ntksim.Network(3, 32, "gelu", "standard", 0.1, 0.1), 2, (1e-3,), spans((71, 73.6, 14), (77, 88, 6)), 700),
    ],
    ids=["tanh-standard", "gelu-mup", "gelu-standard", "gelu-standard-3"],
)
def test_plateaus_are_left_in_time(network, seed, tolerances, times, most):
    """From small weights the loss falls late and at once, then from saddle to saddle: within 3 tolerances of the first loss, and
    5% in the kernel's drift; with at most ``most`` passes at the first tolerance.
    """
    outputs, _, kernels, _ = oracle_flow(network, X_SMALL, Y_SMALL, X_SMALL_TEST, [0.0, *times], seed)
    loss = 0.5 * np.sum((outputs - Y_SMALL) ** 2, axis=1)
    drift = np.linalg.norm(kernels - kernels[0], axis=(1, 2)) / np.linalg.norm(kernels[0])
    assert loss[1] > 0.8 * loss[0] > 4 * loss[-1]  # the times see the fall
    for tolerance in tolerances:
        run = ntksim.train(network, X_SMALL, Y_SMALL, seeds=[seed], times=[0.0, *times], tolerance=tolerance)
        assert run.status == ("finished",)
        assert np.abs(run.loss[0] - loss).max() < 3 * tolerance * loss[0]
        assert run.kernel_drift[0, 1:] == pytest.approx(drift[1:], rel=0.05)
        assert run.evaluations[0] < most or tolerance != tolerances[0]


def test_errors_of_whole_runs_stay_a_few_tolerances():
    """A stiff problem whose kernel moves by half its norm: outputs within 3 tolerances, test outputs within 10, few passes."""
    rng = np.random.default_rng(1)
    x, y, x_test = rng.normal(size=(20, 4)), rng.normal(size=20), rng.normal(size=(5, 4))
    network = ntksim.Network(1, 128, "tanh", "ntk", 1.5)
    values = np.linalg.eigvalsh(ntksim.infinite_kernel(network, x).ntk)
    times = [0.0, *np.geomspace(0.1 / values[-1], 20 / values[0], 12)]
    assert values[-1] > 100 * values[0]
    fine, run = (
        ntksim.train(network, x, y, seeds=[0], times=times, tolerance=tolerance, x_test=x_test) for tolerance in (3e-7, 1e-5)
    )
    unit = 1e-5 * np.sqrt(np.mean((run.outputs[0, 0] - y) ** 2))
    assert np.sqrt(np.mean((run.outputs - fine.outputs) ** 2, axis=2)).max() < 3 * unit
    assert np.sqrt(np.mean((run.test_outputs - fine.test_outputs) ** 2, axis=2)).max() < 10 * unit
    assert 0.3 < run.kernel_drift[0, -1] < 0.7
    assert run.evaluations[0] < 290


@pytest.mark.parametrize("stiffness", [1.0, 300.0])
def test_a_kernel_that_changes_evenly(stiffness):
    """The first order in the change, and its integral, against an ODE solver; a mode of rate 0 adds to no integral."""
    n, size, s = 5, 0.7, 0.5
    vectors = np.linalg.qr(RNG.normal(size=(n, n)))[0]
    rates = stiffness * np.array([0.0, 0.3, 1.0, 2.0, 5.0])
    change, start = RNG.normal(size=(n, n)), RNG.normal(size=n)
    modes = modes_of((vectors * rates) @ vectors.T, 1e-14)
    # no change along the mode that is not to move, as of kernels that are singular there throughout
    change = modes.vectors[:, 1:] @ modes.vectors[:, 1:].T @ (change + change.T) @ modes.vectors[:, 1:] @ modes.vectors[:, 1:].T
    kernel = (modes.vectors * modes.values) @ modes.vectors.T

    def velocity(t, state):
        added = state[:n]
        undisturbed = modes.vectors @ (np.exp(-modes.values * t) * (modes.vectors.T @ start))
        return np.concatenate([-kernel @ added - (t / size - 0.5) * change @ undisturbed, added])

    end = integrate.solve_ivp(velocity, (0, s), np.zeros(2 * n), "DOP853", rtol=1e-11, atol=1e-14).y[:, -1]
    whole, value = linear_change(modes, modes.vectors.T @ start, change, size, s)
    assert modes.values[0] == whole[0] == 0
    scale = np.abs(end).max()
    assert modes.vectors @ value == pytest.approx(end[:n], abs=2e-3 * scale if stiffness > 1 else 1e-10 * scale)
    assert modes.vectors @ whole == pytest.approx(end[n:], abs=2e-3 * scale if stiffness > 1 else 1e-10 * scale)


def test_no_flow_ends_early_without_a_word():
    """Weights of which the kernel is below all numbers; and ones that look so at the start alone, with a step 1e13 too long."""
    tiny = ntksim.Network(3, 16, "tanh", "ntk", 1e-60, 1e-60)
    with pytest.warns(
        RuntimeWarning, match="gradient flow of 1 of 1 seeds stopped at motion .* start from larger weights"
    ) as caught:
        run = ntksim.train(tiny, X, Y, seeds=[0], times=[0, 1.0, np.inf])
    assert caught[0].filename == __file__
    assert run.status == ("stalled",)
    assert run.time_reached[0] == 1
    assert np.isfinite(run.loss[0, :2]).all()
    assert np.isnan(run.loss[0, 2])
    assert ntksim.train(tiny, X, Y, seeds=[0], times=[0, 1.0]).status == ("finished",)
    with pytest.warns(RuntimeWarning, match="stopped at motion"):
        late = ntksim.train(tiny, X, Y, seeds=[0], times=[0, 1.0, 1e305])
    assert (late.status, late.time_reached[0]) == (("stalled",), 1)
    assert ntksim.train(tiny, 0 * X, Y, seeds=[0], times=[0, np.inf]).status == ("finished",)
    small = ntksim.train(ntksim.Network(3, 16, "tanh", "standard", 1e-3, 1e-3), X, Y, seeds=[0], times=[0, np.inf])
    assert small.status == ("finished",)
    assert small.loss[0, 1] < 1e-6 * small.loss[0, 0]


def test_wide_networks_follow_the_closed_form_in_few_steps():
    """Width 4096, one hidden layer: within 0.02 of e^(-K_0 t), at a cost that stiffness does not enter."""
    x = np.concatenate([X, X[:1] + 0.05])  # two near points: condition number above 1,000
    y = np.append(Y, Y[0] + 0.1)
    network = ntksim.Network(1, 4096, "tanh", "ntk", 1.5)
    kernel = ntksim.empirical_ntk(network, x, seeds=[0])[0]
    values = np.linalg.eigvalsh(kernel)
    assert values[-1] > 1000 * values[0]
    times = [0.0, 1 / values[-1], 1.0, 20 / values[0]]
    run = ntksim.train(network, x, y, seeds=[0], times=times, tolerance=1e-4)
    expected = ntksim.closed_form(kernel, run.outputs[0, 0], y, times)
    assert np.abs(run.outputs[0] - expected).max() < 0.02
    assert run.evaluations[0] < 80  # explicit methods need at least lambda_max t / 3.3, over 6,000


@pytest.mark.parametrize(("activation", "widths"), [("linear", (6, 5)), ("relu", (9,)), ("leaky_relu", (6, 5))])
def test_what_gradient_flow_conserves(activation, widths, monkeypatch):
    """W^(l+1)' W^(l+1) - W^l W^l' of a linear network, the diagonal of a homogeneous one, however far the weights move; and with
    gates that slide, since the parameters' motion is that of a fractional slope.

    Du et al. (2018), theorems 2.1 and 2.2; of the stored weights, whatever their multipliers.
    """
    kept = []
    monkeypatch.setattr(SeedCheckpoint, "is_due", lambda _: True)
    monkeypatch.setattr(SeedCheckpoint, "keep", lambda _, **state: kept.append(state["theta"].copy()))
    network = ntksim.Network(len(widths), widths, activation, "notes", 1.2, output_scale=0.7)
    run = ntksim.train(network, X, Y, seeds=[5], times=[0.0, 2.0], tolerance=1e-7)
    assert (run.sliding_gates.max() > 0) == (activation != "linear")
    net = compiled_network(network, 3)
    offsets, sizes = parameter_offsets(net), [3, *widths, 1]

    def differences(w):
        found = [above.T @ above - below @ below.T for below, above in zip(w, w[1:], strict=False)]
        return found if activation == "linear" else [np.diag(difference) for difference in found]

    start = ntksim.sample_parameters(network, 3, 5)
    before = [*start.weights, start.readout[None]]
    after = [
        kept[-1][offsets[2 * i] : offsets[2 * i + 1]].reshape(rows, -1)[:, :columns]
        for i, (columns, rows) in enumerate(zip(sizes, sizes[1:], strict=False))
    ]
    moved = max(np.abs(a - b).max() for a, b in zip(after, before, strict=True))
    assert moved > 0.05
    for a, b in zip(differences(after), differences(before), strict=True):
        assert np.abs(a - b).max() < 1e-4 * moved


def test_limits_of_time():
    network = ntksim.Network(2, 30, "tanh", "ntk", 1.5)
    run = ntksim.train(network, X, Y, seeds=[0, 1], times=[0, 0, 1e-9, np.inf, np.inf], x_test=X_TEST)
    assert (run.outputs[:, 0] == ntksim.network_outputs(network, X, seeds=[0, 1])).all()
    assert (run.outputs[:, 0] == run.outputs[:, 1]).all()
    assert (run.kernel_drift[:, 0] == 0).all()
    assert run.outputs[:, 2] == pytest.approx(run.outputs[:, 0], abs=1e-6)
    assert run.outputs[:, 3] == pytest.approx(np.array([Y, Y]), abs=1e-5)
    assert (run.test_outputs[:, 3] == run.test_outputs[:, 4]).all()
    assert run.learning_rate is None


def test_a_solution_stays_one():
    """Targets equal to the outputs: nothing moves."""
    network = ntksim.Network(2, 8, "tanh")
    start = ntksim.network_outputs(network, X, seeds=[0])[0]
    run = ntksim.train(network, X, start, seeds=[0], times=[0, 1.0, np.inf])
    assert run.status == ("finished",)
    assert run.outputs[0] == pytest.approx(np.array([start] * 3), abs=1e-13)


def test_repeated_points_settle_at_the_mean():
    """A singular kernel: t = infinity is where the residual can no longer move."""
    run = ntksim.train(ntksim.Network(1, 64, "tanh"), X[[0, 0, 1]], np.array([1.0, 0.0, 2.0]), seeds=[0], times=[0, np.inf])
    assert run.status == ("finished",)
    assert run.outputs[0, 1] == pytest.approx([0.5, 0.5, 2.0], abs=1e-5)


def test_default_times_reach_convergence():
    network = ntksim.Network(1, 512, "erf", "ntk", 1.5)
    run = ntksim.train(network, X, Y, seeds=[0])
    limit = np.linalg.eigvalsh(ntksim.infinite_kernel(network, X).ntk)
    assert run.times[0] == 0
    assert run.times[-1] == pytest.approx(20 / limit[0])
    assert run.loss[0, -1] < 1e-6 * run.loss[0, 0]


def test_order_of_seeds_and_points():
    network = ntksim.Network(2, 16, "tanh", "ntk", 1.5)
    run = ntksim.train(network, X, Y, seeds=range(4), times=TIMES, tolerance=1e-6)
    alone = ntksim.train(network, X, Y, seeds=[2], times=TIMES, tolerance=1e-6)
    assert (run.outputs[2] == alone.outputs[0]).all()
    order = [3, 0, 4, 1, 2]
    permuted = ntksim.train(network, X[order], Y[order], seeds=[2], times=TIMES, tolerance=1e-6)
    assert permuted.outputs[0] == pytest.approx(alone.outputs[0][:, order], abs=1e-9)


def test_float32_follows_float64():
    network = ntksim.Network(2, 64, "tanh", "ntk", 1.5)
    double = ntksim.train(network, X, Y, seeds=[1], times=TIMES)
    single = ntksim.train(network, X, Y, seeds=[1], times=TIMES, dtype="float32")
    assert single.outputs.dtype == np.float32
    assert single.outputs == pytest.approx(double.outputs, abs=1e-3)


def test_the_step_limit_ends_with_a_word():
    """Fields of the end are those at the last accepted step: what a second run finds at exactly that time."""
    network = ntksim.Network(2, 8, "tanh")
    options = {"tolerance": 1e-9, "x_test": X_TEST, "keep_kernels": True, "return_parameters": True}
    with pytest.warns(RuntimeWarning, match="of 2 of 2 seeds stopped at max_steps=20, at times from .* raise max_steps or tol"):
        run = ntksim.train(network, X, Y, seeds=[0, 1], times=[0, 1e-3, 50.0], max_steps=20, **options)
    assert run.status == ("step_limit", "step_limit")
    assert np.isfinite(run.outputs[:, :2]).all()
    assert np.isnan(run.outputs[:, 2]).all()
    assert np.isnan(run.kernel_drift[:, 2]).all()
    assert (run.evaluations <= 2 * 20 + 1 + 1).all()
    for s in range(2):
        assert 1e-3 < run.time_reached[s] < 50
        again = ntksim.train(network, X, Y, seeds=[s], times=[0, run.time_reached[s]], **options)
        assert again.status == ("finished",)
        assert again.time_reached[0] == run.time_reached[s]
        assert run.kernel[s] == pytest.approx(again.kernel[0], abs=1e-7)
        assert run.test_kernels[s] == pytest.approx(again.test_kernels[0], abs=1e-7)
        assert run.end_kernel_drift[s] == pytest.approx(again.kernel_drift[0, -1], abs=1e-7)
        assert run.end_parameter_drift[s] == pytest.approx(again.parameter_drift[0, -1], abs=1e-7)
        end = run.parameters(s)
        assert (end.readout == run.parameters(s, run.time_reached[s]).readout).all()
        assert end.readout == pytest.approx(again.parameters().readout, abs=1e-7)
        assert end.weights[1] == pytest.approx(again.parameters().weights[1], abs=1e-7)
        with pytest.raises(ValueError, match=r"seed . did not reach t = 50: ask for a time of at most .*, its time_reached"):
            run.parameters(s, 50.0)


def test_the_end_of_a_run_that_finishes():
    """In units in which times are asked for, with a learning rate that scales with the width."""
    network = ntksim.Network(1, 20, "tanh", "mean_field", 1.5)
    assert network.learning_rate_scale != 1
    for times in ([0.0, 0.3, 2.0], [0.1, np.inf]):
        run = ntksim.train(network, X, Y, seeds=[0], times=times)
        assert run.status == ("finished",)
        assert run.time_reached[0] == times[-1]
        assert run.end_kernel_drift[0] == run.kernel_drift[0, -1]
        assert run.end_parameter_drift[0] == run.parameter_drift[0, -1]
    with pytest.warns(RuntimeWarning, match="max_steps=20,"):
        short = ntksim.train(network, X, Y, seeds=[0], times=[2.0], tolerance=1e-9, max_steps=20)
    assert 0 < short.time_reached[0] < 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 5}, "steps belongs to gradient_descent"),
        ({"learning_rate": 0.1}, "learning_rate belongs to gradient_descent"),
        ({"tolerance": 0}, "tolerance must be a number between 0 and 1; got 0"),
        ({"tolerance": "x"}, "tolerance must be a number"),
        ({"max_steps": 0}, "max_steps must be an integer of at least 1; got 0"),
        ({"max_steps": 2.5}, "max_steps must be an integer of at least 1; got 2.5"),
        ({"times": [1.0, 0.5]}, "times must ascend"),
        ({"times": [-1.0]}, "times must be a non-empty"),
        ({"times": [np.nan]}, "times must be a non-empty"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ntksim.train(ntksim.Network(1, 8), X, Y, seeds=[0], **options)


def test_singular_kernels_need_times():
    with pytest.raises(ValueError, match="singular"):
        ntksim.train(ntksim.Network(1, 8), X[[0, 0]], Y[:2], seeds=[0])


def test_modes_that_a_vector_needs():
    """Paths e^(-K s) v and their integrals are those of all eigenvectors; few are needed where eigenvalues decay fast.

    A kernel of rank 40 does not move the rest of the vector; a flat spectrum, a time without end or a stiff step takes all.
    """
    n, rng = 128, np.random.default_rng(2)
    q, v = np.linalg.qr(rng.normal(size=(n, n)))[0], rng.normal(size=n)
    decaying = 50.0 / np.arange(1, n + 1) ** 3
    for values, time, few in (
        (decaying, 20.0, True),
        (np.where(np.arange(n) < 40, decaying, 0.0), 5.0, True),
        (rng.uniform(1, 2, n), 1e-3, True),
        (np.linspace(0.1, 50, n), 20.0, False),
        (decaying, np.inf, False),
        (1e6 * decaying, 20.0, False),
    ):
        kernel = (q * values) @ q.T
        kernel = (kernel + kernel.T) / 2
        found = modes.Finder(2e-16).modes(kernel, v, time)
        assert (found.vectors.shape[1] < n) == few
        assert (np.diff(found.values) >= 0).all()
        assert found.vectors.T @ found.vectors == pytest.approx(np.eye(len(found.values)), abs=1e-10)
        for s in (0.1, 1.0) if np.isinf(time) else (0.1 * time, time):
            path = found.vectors @ (np.exp(-found.values * s) * (v @ found.vectors))
            assert path == pytest.approx(q @ (np.exp(-values * s) * (v @ q)), abs=1e-7)
            whole = found.vectors @ (integral(found.values, s) * (v @ found.vectors))
            assert kernel @ whole == pytest.approx(v - path, abs=1e-7)


@pytest.mark.parametrize("slow", [1e-4, 1e-8])
@pytest.mark.parametrize("share", [1e-2, 1e-4])
def test_few_modes_tell_a_vector_that_moves_slowly_from_one_that_does_not(share, slow):
    """Most of it does not move, and a little does, slowly: a mode that is both has an eigenvalue that may count as 0."""
    n, rng = 120, np.random.default_rng(1)
    q, along, values = np.linalg.qr(rng.normal(size=(n, n)))[0], rng.normal(size=n), np.zeros(n)
    values[:10], values[10:20] = np.geomspace(1, 1e-2, 10), slow * np.linspace(1, 2, 10)
    along[:10] *= 1e-10
    along[10:20] *= share
    kernel, v = (q * values) @ q.T, q @ along
    found = modes.Finder(2e-16).modes((kernel + kernel.T) / 2, v, 0.1 / slow)
    moving = found.vectors @ np.where(found.values > 0, v @ found.vectors, 0.0)
    assert np.linalg.norm(moving) == pytest.approx(np.linalg.norm(along[:20]), rel=1e-3)


def test_a_vector_without_a_small_krylov_space_is_not_tried_again_at_once(monkeypatch):
    tried, krylov = [], modes._krylov
    monkeypatch.setattr(modes, "_krylov", lambda *given: tried.append(1) or krylov(*given))
    finder, v = modes.Finder(2e-16), np.ones(128)
    for _ in range(20):
        finder.modes(np.diag(np.linspace(0.1, 50, 128)), v, 20.0)
    assert len(tried) == 1
