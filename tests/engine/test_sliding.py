"""Gates that slide: their algebra against finite differences, and the flow against smoothed kinks, descent and its laws."""

import naive
import numpy as np
import pytest
from cases import oracle_arguments
from scipy import integrate

import ntksim
from ntksim.engine.cpu.compiled_network import columns_of, compiled_network
from ntksim.engine.cpu.machine import CpuMachine
from ntksim.engine.gates import block_loops
from ntksim.engine.gates.block_matrices import Blocks, Pattern
from ntksim.engine.gates.gates import Gates, Inputs, pre_activations
from ntksim.engine.gates.twins import Points, Twins, with_twins
from ntksim.engine.machine import Task
from ntksim.engine.training import flow, sliding
from ntksim.engine.training.watch import State

RNG = np.random.default_rng(11)
X, Y, X_TEST = RNG.normal(size=(6, 3)), RNG.normal(size=6), RNG.normal(size=(3, 3))
PAIRS = (X, None), (X_TEST, None), (X_TEST, X)


def _machine(network):
    of_training, of_tests, across = (columns_of(*points, np.dtype(np.float64), "cpu") for points in PAIRS)
    targets = np.zeros(len(X) * network.outputs)
    return CpuMachine(1, np.uint64(3), Task(compiled_network(network, 3), of_training, targets, of_tests, across, False))


def _gates(machine, theta, ids):
    room = machine.make_room()
    outputs, layers = machine.evaluate(theta, room)
    return Gates(machine.inside(theta, room), machine.net.scales, ids), outputs, layers


ACROSS_LAYERS = [[1, 2, 1], [1, 0, 4], [2, 3, 1], [3, 1, 1], [3, 2, 0], [2, 0, 5]]
OF_THE_FIRST_LAYER = [[1, 2, 1], [1, 0, 4], [1, 3, 1], [1, 0, 0], [1, 4, 1], [1, 2, 5]]


@pytest.mark.parametrize(
    ("outputs", "ids"),
    [(1, ACROSS_LAYERS), (2, ACROSS_LAYERS), (2, OF_THE_FIRST_LAYER)],
    ids=["one output", "two outputs", "gates of the first layer alone"],
)
def test_the_algebra_of_gates(outputs, ids):
    """B = J R Z' and C = Z R Z' of gates in all layers, and the kernel J(s) R J(s)', by central differences of z and f.

    The slope of a gate below another at the same point enters g; the Jacobian with slopes s is that of a network in which the
    chosen gates have phi(z) = s z.
    """
    network = ntksim.Network(3, (5, 4, 4), "leaky_relu", "ntk", 1.3, sigma_b=0.4, output_bias=True, outputs=outputs)
    machine = _machine(network)
    ids = np.array(ids)
    theta = machine.draw()
    gates, _, layers = _gates(machine, theta, ids)
    slopes = np.array([0.3, 0.6, 0.5, 0.8, 0.2, 0.9])

    def outputs_with(flat, chosen):
        inside = machine.inside(flat, machine.make_room())
        g, beta = machine.net.scales[0], machine.net.scales[2]
        h = X.T
        for layer in range(3):
            z = g[layer] * inside.weights[layer] @ h + beta[layer] * inside.biases[layer][:, None]
            h = np.where(z > 0, z, 0.1 * z)
            for (at, neuron, point), slope in zip(ids, chosen, strict=True):
                if at == layer + 1 and slope is not None:
                    h[neuron, point] = np.where(base[(at, neuron, point)] == 1.0, 1.0, 0.1) * z[neuron, point]
                    h[neuron, point] += (slope - base[(at, neuron, point)]) * (z[neuron, point] - frozen[(at, neuron, point)])
        return (g[3] * inside.weights[3] @ h + beta[3] * inside.biases[3][:, None]).T.ravel()

    base = {tuple(i): s for i, s in zip(ids.tolist(), gates.base, strict=True)}
    frozen = {tuple(i): z for i, z in zip(ids.tolist(), gates.z, strict=True)}
    step = 1e-6
    rows_f, rows_s, rows_z, rows_t = [], [], [], []
    for parameter in range(theta.size):
        found = []
        for sign in (1, -1):
            moved = theta.copy()
            moved[parameter] += sign * step
            room = machine.make_room()
            machine.evaluate(moved, room)
            inside = machine.inside(moved, room)
            z = pre_activations(inside, machine.net.scales, ids)
            found.append((outputs_with(moved, [None] * 6), outputs_with(moved, slopes), z, machine.test_outputs(moved)))
        for rows, (up, down) in zip((rows_f, rows_s, rows_z, rows_t), zip(*found, strict=True), strict=True):
            rows.append((up - down) / (2 * step))
    jacobian, with_slopes, gradients, at_tests = (np.array(rows).T for rows in (rows_f, rows_s, rows_z, rows_t))
    assert np.abs(gates.B.T - jacobian @ gradients.T).max() < 1e-7
    assert np.abs(gates.C.dense() - gradients @ gradients.T).max() < 1e-7
    change = slopes - gates.base
    mixing = np.zeros((len(jacobian), len(ids)))
    for a in range(outputs):
        mixing[ids[:, 2] * outputs + a, np.arange(len(ids))] = gates.mixing(change)[a]
    assert jacobian + mixing @ gradients == pytest.approx(with_slopes, abs=1e-7)
    assert gates.kernels(layers, change).sum(axis=0) == pytest.approx(with_slopes @ with_slopes.T, abs=1e-6)
    across = gates.test_kernels(machine.test_kernels(theta), change, machine.inside_at_tests(theta), layers)
    assert across.sum(axis=0) == pytest.approx(at_tests @ with_slopes.T, abs=1e-6)
    along = RNG.normal(size=6)
    moved = theta.copy()
    machine.shift(moved, *gates.motion(along))
    assert moved - theta == pytest.approx(gradients.T @ along, abs=1e-7)


def test_the_least_in_a_box():
    """Against its own conditions, of full rank and not: what is between is at rest, what is at a bound pushes out."""
    for case in range(200):
        rng = np.random.default_rng(case)
        size = int(rng.integers(1, 9))
        factor = rng.normal(size=(size, max(1, size - case % 3)))
        c, v = factor @ factor.T, factor @ rng.normal(size=factor.shape[1])  # velocities Z u, as gates have
        low, high = -rng.exponential(size=size), rng.exponential(size=size)
        q, at = Blocks(Pattern.of(np.zeros(size)), c.ravel()).least(v, low, high)
        left = v - c @ q
        assert (q >= low - 1e-9).all()
        assert (q <= high + 1e-9).all()
        assert (np.abs(left[at == 0]) < 1e-5).all()
        assert (left[at < 0] < 1e-5).all()
        assert (left[at > 0] > -1e-5).all()


def test_matrices_with_blocks():
    """Products, inverses of a part and what is left without it, and the least in a box, against the dense matrix."""
    rng = np.random.default_rng(5)
    labels = np.array([2, 0, 1, 0, 2, 2, 4])
    factor = rng.normal(size=(7, 12))
    dense = np.where(labels[:, None] == labels, factor @ factor.T, 0.0)
    pattern = Pattern.of(labels)
    matrix = Blocks(pattern, dense[pattern.rows, pattern.cols])
    assert (matrix.dense() == dense).all()
    other, chosen = rng.normal(size=(7, 3)), np.array([1, 1, 0, 0, 1, 0, 1], bool)
    assert matrix @ other == pytest.approx(dense @ other, abs=1e-12)
    part = np.zeros((7, 7))
    part[np.ix_(chosen, chosen)] = np.linalg.inv(dense[np.ix_(chosen, chosen)])
    root = matrix.root(chosen)
    inverse = root.T.times(root)
    assert inverse.dense() == pytest.approx(part, abs=1e-8)
    assert matrix.T.times(inverse).dense() == pytest.approx(dense @ part, abs=1e-7)
    assert root.T @ (root @ other) == pytest.approx(part @ other, abs=1e-7)
    rows = other[chosen]
    assert matrix.product(rows, chosen, ~chosen) == pytest.approx(dense[~chosen][:, chosen] @ rows, abs=1e-12)
    assert root.T.product(rows, wanted=chosen, given=chosen) == pytest.approx(root.dense().T[chosen][:, chosen] @ rows, abs=1e-12)
    v, low, high = rng.normal(size=7), -rng.exponential(size=7), rng.exponential(size=7)
    q, at = matrix.least(v, low, high)
    whole = Pattern.of(np.zeros(7))
    again, at_again = Blocks(whole, dense[whole.rows, whole.cols]).least(v, low, high)
    assert q == pytest.approx(again, abs=1e-7)
    assert (at == at_again).all()


def test_gates_of_one_neuron_that_depend_on_each_other():
    """Many neighbouring points in a plane: blocks of rank 3, by the conditions of the least in a box."""
    for case in range(100):
        rng = np.random.default_rng(case)
        size = int(rng.integers(2, 12))
        angles = rng.uniform(0, 0.3, size)
        z = np.stack([np.cos(angles), np.sin(angles), np.full(size, 0.14)], axis=1)
        v, full = z @ rng.normal(size=3), rng.normal(size=size)
        low, high = np.minimum(full, 0), np.maximum(full, 0)
        q, at = Blocks(Pattern.of(np.zeros(size)), (z @ z.T).ravel()).least(v, low, high)
        left = v - z @ (z.T @ q)
        assert (np.abs(left[at == 0]) < 1e-6).all()
        assert (left[at < 0] < 1e-6).all()
        assert (left[at > 0] > -1e-6).all()


def _smoothed(network, seed, width, times, x=X, y=Y):
    """Outputs along the flow of the network whose ReLU has a slope that rises from 0 to 1 over ``width``, by Radau."""
    g, _, hidden, _, a, _ = oracle_arguments(network, 3, seed)
    start = [*hidden, a[None]]
    ends = np.cumsum([w.size for w in start])

    def forward(flat):
        weights = [part.reshape(w.shape) for part, w in zip(np.split(flat, ends[:-1]), start, strict=True)]
        h, slopes = [x.T], []
        for scale, w in zip(g, weights[:-1], strict=False):
            z = scale * w @ h[-1]
            slope = np.clip(z / width + 0.5, 0, 1)
            slopes.append(slope)
            h.append(np.where(z > width / 2, z, 0.5 * width * slope**2))
        return weights, h, slopes, g[-1] * (weights[-1] @ h[-1])[0]

    def velocity(_, flat):
        weights, h, slopes, outputs = forward(flat)
        back, found = (outputs - y)[None], []
        for layer in range(len(weights) - 1, -1, -1):
            found.append(-g[layer] * back @ h[layer].T)
            if layer:
                back = g[layer] * slopes[layer - 1] * (weights[layer].T @ back)
        return np.concatenate([part.ravel() for part in found[::-1]])

    flat = np.concatenate([w.ravel() for w in start])
    found = integrate.solve_ivp(velocity, (0, times[-1]), flat, "Radau", t_eval=times, rtol=1e-7, atol=1e-9).y.T
    return np.array([forward(flat)[3] for flat in found])


@pytest.mark.parametrize(("depth", "width", "seed", "times"), [(1, 8, 4, [0.0, 1.0, 5.0, 20.0]), (2, 6, 1, [0.0, 1.0, 5.0])])
def test_the_limit_of_smoothed_kinks(depth, width, seed, times):
    """Slopes that rise over a width, an independent integrator: the limit of a vanishing width is the flow's solution."""
    network = ntksim.Network(depth, width, "relu", "ntk", 1.5)
    run = ntksim.train(network, X, Y, seeds=[seed], times=times, tolerance=1e-5)
    assert run.status == ("finished",)
    assert np.nanmax(run.sliding_gates) > 0
    wide, narrow = (_smoothed(network, seed, smoothing, times) for smoothing in (4e-3, 1e-3))
    assert np.abs(wide - narrow).max() < 3e-4
    assert np.abs(narrow - run.outputs[0]).max() < 5e-4


def test_the_limit_of_smoothed_kinks_where_a_neuron_turns():
    """The readout of a neuron passes 0 while two of its gates slide: both sides push them away from then on, and descent leaves
    to either by chance. The flow goes where networks of smoothed kinks go.
    """
    x, y = np.random.default_rng(2).normal(size=(12, 3)), np.random.default_rng(3).normal(size=12)
    network, times = ntksim.Network(1, 6, "relu", "ntk", 1.5), [0.0, 10.0, 13.0, 14.0, 15.0]
    run = ntksim.train(network, x, y, seeds=[23], times=times, tolerance=1e-5, return_parameters=True)
    before, after = (run.parameters(time=time) for time in (10.0, 14.0))
    assert before.readout[2] > 0 > after.readout[2]
    assert np.abs(before.weights[0][2] @ x[[6, 7]].T).max() < 1e-9 < 1e-4 < np.abs(after.weights[0][2] @ x[[6, 7]].T).min()
    assert np.abs(_smoothed(network, 23, 6e-5, times, x, y) - run.outputs[0]).max() < 5e-4


@pytest.mark.parametrize(("depth", "activation"), [(1, "relu"), (2, "abs"), (2, "leaky_relu")])
def test_descent_at_small_steps(depth, activation):
    """Gates slide, and outputs are those of descent extrapolated to steps of 0 (Richardson), to 10 times the tolerance."""
    network = ntksim.Network(depth, 24, activation, "ntk", 1.4)
    rate = 0.01 / np.linalg.eigvalsh(ntksim.infinite_kernel(network, X).ntk)[-1]
    times = rate * np.array([0, 100, 1000, 10_000])
    run = ntksim.train(network, X, Y, seeds=[1], times=times, tolerance=1e-3, x_test=X_TEST)
    assert run.status == ("finished",)
    assert np.nanmax(run.sliding_gates) > 0
    options = {"seeds": [1], "times": times, "method": "gradient_descent", "x_test": X_TEST}
    coarse, fine = (ntksim.train(network, X, Y, learning_rate=step, **options) for step in (rate, rate / 2))
    unit = np.sqrt(np.mean((run.outputs[0, 0] - Y) ** 2))
    for name in ("outputs", "test_outputs"):
        found, one, other = (getattr(each, name)[0] for each in (run, coarse, fine))
        assert np.abs(found - (2 * other - one)).max() < 1e-2 * unit


def test_few_gates_flip_often(monkeypatch):
    """No gate changes its side more than some times, where it is not held, and steps are few."""
    flips, accept = {}, flow._Flow.accept

    def counting(self, step, times, rows):
        if step.crossings is not None:
            for gate, stopped in zip(step.crossings.ids.tolist(), step.crossings.stopped, strict=True):
                flips[tuple(gate)] = flips.get(tuple(gate), 0) + 1
                assert stopped in (True, False)
        accept(self, step, times, rows)

    monkeypatch.setattr(flow._Flow, "accept", counting)
    run = ntksim.train(ntksim.Network(2, 32, "relu", "ntk", 1.4), X, Y, seeds=[0, 1], times=[0, 50.0], tolerance=1e-3)
    assert set(run.status) == {"finished"}
    assert max(flips.values()) < 10
    assert (run.evaluations < 600).all()


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_the_side_to_which_a_gate_goes_that_both_sides_push_away(activation):
    """It is that of its motion with the slope that held it, whatever side of 0 rounding has left it on; as is by how much its
    motion, had it been let go before, would have changed outputs.
    """
    network = ntksim.Network(1, 8, activation, "ntk", 1.4)
    machine, neuron, point = _machine(network), 3, 2
    rng, found = np.random.default_rng(6), []
    for _ in range(20):
        residual, theta = rng.normal(size=len(X)), machine.draw()
        before = rng.uniform(0.2, 0.8, 1)
        sides = []
        for z in (1e-13, -1e-13):
            own = theta.copy()
            weights = machine.inside(own, machine.make_room()).weights[0]
            change = np.zeros_like(weights)
            change[neuron] = (z / machine.net.scales[0, 0] - weights[neuron] @ X[point]) * X[point] / (X[point] @ X[point])
            machine.shift(own, [change], [np.empty(0)])
            room = machine.make_room()
            outputs, layers = machine.evaluate(own, room)
            kinks, ids = sliding.Kinks(machine), np.array([[1, neuron, point]])
            state = State(own, room, outputs, layers, layers.sum(axis=0))
            gates = kinks.at(state, ids)
            pressure = gates.pressure(gates.at_points(residual), np.zeros(1))[0]
            pushed = residual if pressure < 0 else -residual
            settled = kinks.settle(state, pushed, ids, before)
            assert not settled.held[0]
            velocity = -(gates.B @ pushed)[0] - gates.C.dense()[0, 0] * (before[0] - gates.base[0]) * -abs(pressure)
            assert settled.slopes[0] == kinks.sides[int(velocity > 0)]
            sides.append([settled.slopes[0], settled.missed])
            found.append(settled.slopes[0] == gates.base[0])
        assert sides[0] == pytest.approx(sides[1], rel=1e-9)
    assert True in found
    assert False in found


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "abs"])
def test_what_settles_gates_does_not_depend_on_the_side_of_rounding(activation):
    """Three gates of a neuron, some of them pushed away by both sides: slopes, and what is held."""
    machine, neuron = _machine(ntksim.Network(1, 8, activation, "ntk", 1.4, sigma_b=0.2)), 3
    x = np.append(X[:3], np.full((3, 1), 0.2 / 1.4 * np.sqrt(3)), axis=1)  # the bias as one weight more
    rng, kinks, ids = np.random.default_rng(7), sliding.Kinks(machine), np.array([[1, neuron, point] for point in range(3)])
    seen = 0
    for _ in range(40):
        residual, before, theta, settled = rng.normal(size=len(X)), rng.uniform(0.1, 0.9, 3), machine.draw(), []
        for signs in rng.choice([-1.0, 1.0], (4, 3)):
            own = theta.copy()
            inside = machine.inside(own, machine.make_room())
            now = np.append(inside.weights[0][neuron], inside.biases[0][neuron])
            change = np.linalg.lstsq(x, 1e-13 * signs - x @ now, rcond=None)[0]
            weights, biases = np.zeros_like(inside.weights[0]), np.zeros_like(inside.biases[0])
            weights[neuron], biases[neuron] = change[:3], change[3]
            machine.shift(own, [weights], [biases])
            room = machine.make_room()
            outputs, layers = machine.evaluate(own, room)
            state = State(own, room, outputs, layers, layers.sum(axis=0))
            assert np.abs(kinks.at(state, ids).z).max() < 1e-11
            settled.append(kinks.settle(state, residual, ids, before))
        for other in settled[1:]:
            assert (other.held == settled[0].held).all()
            assert other.slopes == pytest.approx(settled[0].slopes, abs=1e-7)
        seen += not settled[0].held.all()
    assert seen > 5


def test_laws_of_the_flow_of_a_network_with_kinks():
    """The loss falls; time and rates scale together; kernels hold the slopes that hold gates, so that they tell r' = -K r.

    So do kernels of test with training points, and a test point that is a training point has its kernel.
    """
    network = ntksim.Network(2, 24, "relu", "ntk", 1.4)
    times = np.linspace(0, 6, 13)
    run = ntksim.train(network, X, Y, seeds=[2], times=times, tolerance=1e-5, keep_kernels=True)
    assert (np.diff(run.loss[0]) < 0).all()
    twice = ntksim.train(network, X, Y, seeds=[2], times=times / 2, tolerance=1e-5, layer_rates=[2, 2, 2])
    assert twice.outputs[0] == pytest.approx(run.outputs[0], abs=1e-4)
    assert (twice.sliding_gates == run.sliding_gates).all()
    middle = 6.0
    near = ntksim.train(
        network, X, Y, seeds=[2], times=[middle - 1e-3, middle, middle + 1e-3], tolerance=1e-7, keep_kernels=True,
        x_test=np.concatenate([X[1:3], X_TEST]), keep_test_kernels=True,
    )  # fmt: skip
    assert near.sliding_gates[0, 1] > 0
    assert (near.kept_test_kernels[0, 1, :2] == near.kernels[0, 1, 1:3]).all()
    for outputs, kernel in ((near.outputs, near.kernels), (near.test_outputs, near.kept_test_kernels)):
        speed = (outputs[0, 2] - outputs[0, 0]) / 2e-3
        expected = -kernel[0, 1] @ (near.outputs[0, 1] - Y)
        assert np.linalg.norm(speed - expected) < 1e-2 * np.linalg.norm(expected)


def test_gates_slide_where_the_slope_falls_at_the_kink_too():
    """leaky_relu(0.5) at z is -leaky_relu(2)(-z) / 2: mirrored parameters and half of sigma_a give the same flow."""
    rising = ntksim.Network(1, 32, "leaky_relu(0.5)", "ntk", 1.4)
    falling = ntksim.Network(1, 32, "leaky_relu(2)", "ntk", 1.4, sigma_a=0.5)
    start = ntksim.sample_parameters(rising, 3, 0)
    mirrored = ntksim.Parameters((-start.weights[0],), None, -start.readout, None)
    x, y = np.random.default_rng(3).normal(size=(12, 3)), np.random.default_rng(4).normal(size=12)
    flows = [
        ntksim.train(network, x, y, start=parameters, times=[0.0, 2.0, 20.0, 100.0], tolerance=1e-4)
        for network, parameters in ((rising, start), (falling, mirrored))
    ]
    assert flows[0].sliding_gates.max() > 0
    assert (flows[0].sliding_gates == flows[1].sliding_gates).all()
    assert flows[1].outputs == pytest.approx(flows[0].outputs, abs=1e-3)


def test_smooth_networks_and_descent_have_no_sliding_gates():
    smooth = ntksim.train(ntksim.Network(1, 8, "tanh"), X, Y, seeds=[0], times=[0, 1.0])
    assert (smooth.sliding_gates == 0).all()
    steps = ntksim.train(ntksim.Network(1, 8, "relu"), X, Y, seeds=[0], method="gradient_descent", steps=3)
    assert np.isnan(steps.sliding_gates).all()
    assert naive.PHI["relu"][1](np.array([0.0])) == 0  # the slope of a closed gate, which sliding replaces


def test_when_cubics_are_first_zero():
    """Cubics with known roots, by their values and slopes at marks; one that is never 0 is looked for at the end."""
    marks = np.linspace(0, 2, 9) ** 2
    cubics = [np.poly1d([-1.0, 0.0, 0.0, 8.0]), -np.poly1d([0.5, 1.3, 3.0], r=True), np.poly1d([1.0, 0.0, 1.0])]
    values, slopes = (np.array([each(marks) for each in chosen]) for chosen in (cubics, [each.deriv() for each in cubics]))
    found = np.empty(3)
    block_loops.first_zeros(marks, values, slopes, 50, found)
    assert found[:2] == pytest.approx([2.0, 0.5], abs=1e-12)
    assert marks[-2] <= found[2] <= marks[-1]


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "abs"])
@pytest.mark.parametrize("depth", [1, 2])
def test_gates_at_opposite_points_slide_as_one(activation, depth):
    """Without biases z(-x) = -z(x), so that s(-x) = below + above - s(x): in one layer K_t then has no part along odd functions.

    phi(z) is linear plus even, and along sin 3 theta both vanish on evenly spaced points. Points are opposite but for rounding.
    """
    angles = 2 * np.pi * np.arange(16) / 16
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    y = np.sin(2 * angles) + 0.7 * np.sin(3 * angles + 0.4) + 0.5 * np.sin(5 * angles)
    network = ntksim.Network(depth, 64 if depth == 1 else 24, activation)
    run = ntksim.train(network, x, y, seeds=[0], times=[0, 0.5, 1, 2, 5, 10], keep_kernels=True, tolerance=1e-3)
    assert run.sliding_gates.max() >= 2
    scale = 1e-12 * np.trace(run.kernels[0, 0])
    if depth == 1:
        assert (run.sliding_gates % 2 == 0).all()
        assert np.abs(run.kernels[0] @ np.sin(3 * angles)).max() < scale
    elif activation == "abs":  # which is even, so that all layers above are too
        assert (run.sliding_gates % 2 == 0).all()
        assert np.abs(run.kernels[0][:, :8] - run.kernels[0][:, 8:]).max() < scale


def test_gates_at_equal_points_have_equal_slopes():
    """With biases too, and in every layer: rows of K_t at copies of a point are equal, whatever their targets are."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(8, 2))
    x[[6, 7]] = x[[0, 1]]
    y = np.append(3 * np.sin(4 * x[:6, 0]), rng.normal(size=2))
    run = ntksim.train(
        ntksim.Network(2, 24, "relu", sigma_b=0.3), x, y, seeds=[1], times=[0, 1, 2, 4, 8], keep_kernels=True, tolerance=1e-3
    )
    assert run.sliding_gates.max() >= 1
    scale = np.trace(run.kernels[0, 0])
    assert np.abs(run.kernels[0][:, [6, 7]] - run.kernels[0][:, [0, 1]]).max() < 1e-12 * scale


def test_points_that_share_gates():
    """Equal and opposite ones, the first of each standing for them; not one of another length."""
    x = np.array([[1.0, 2.0], [0.0, 0.0], [-1.0, -2.0], [2.0, 4.0], [1.0, 2.0 + 1e-15], [0.0, 0.0], [3.0, 1.0], [-1.0, -2.0]])
    both, equal = (Points.of(Inputs.of(x.T), opposite=own) for own in (True, False))
    assert both.first.tolist() == [0, 1, 0, 3, 0, 1, 6, 0]
    assert both.sign.tolist() == [1, 1, -1, 1, 1, 1, 1, -1]
    assert equal.first.tolist() == [0, 1, 2, 3, 0, 1, 6, 2]
    assert (equal.sign == 1).all()
    ids = with_twins(np.array([[1, 5, 2], [2, 4, 2], [1, 5, 6]]), [both, equal])
    assert ids[3:].tolist() == [[1, 5, 0], [1, 5, 4], [1, 5, 7], [2, 4, 7]]
    twins = Twins.of(ids, [both, equal], 0.5)
    assert twins.first.tolist() == [0, 1, 2, 0, 0, 0, 1]
    assert twins.sign.tolist() == [1, 1, 1, -1, -1, 1, 1]
    assert twins.slopes(np.array([0.2, 0.3, 0.4, 9, 9, 9, 9])) == pytest.approx([0.2, 0.3, 0.4, 0.8, 0.8, 0.2, 0.3])
    assert twins.total(np.array([1.0, 2, 3, 4, 5, 6, 7])) == pytest.approx([1 - 4 - 5 + 6, 2 + 7, 3, 0, 0, 0, 0])
