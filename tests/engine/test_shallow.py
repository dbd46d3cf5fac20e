"""Descent of one hidden layer in one sweep a step: the oracle, bits, and the sums over points."""

import naive
import numba
import numpy as np
import pytest
from cases import POINTS, oracle_arguments
from tolerances import ROUND_OFF, assert_close

import ntksim
from ntksim.engine.compiled.jit import jit
from ntksim.engine.cpu import shallow
from ntksim.engine.cpu.dots import dots, weighted_dots, whole_lanes

RNG = np.random.default_rng(5)


@jit
def both(s, t, x, plain, weighted, rows, terms, points):
    dots(s, 0, points, x, 0, points, points, plain, 0, terms, rows, terms)
    weighted_dots(t, 0, points, s, 0, points, x, 0, points, points, weighted, 0, terms, rows, terms)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_dots_are_sums_whatever_the_blocks(dtype):
    """Every remainder of rows and terms; one row alone has the bits that it has among others."""
    points = whole_lanes(50, np.dtype(dtype).itemsize)
    s, t, x = (RNG.normal(size=(size, points)).astype(dtype) for size in (13, 13, 9))
    found = {}
    for rows, terms in ((13, 9), (7, 3), (1, 1), (6, 2), (2, 4)):
        plain, weighted = np.empty((rows, terms), dtype), np.empty((rows, terms), dtype)
        both(*(v.ravel() for v in (s, t, x)), plain.ravel(), weighted.ravel(), rows, terms, points)
        assert_close(plain, s[:rows].astype(float) @ x[:terms].T.astype(float), ROUND_OFF[dtype])
        assert_close(weighted, (s * t)[:rows].astype(float) @ x[:terms].T.astype(float), ROUND_OFF[dtype])
        found[rows, terms] = plain, weighted
    for (rows, terms), own in found.items():
        for part, whole in zip(own, found[13, 9], strict=True):
            assert (part == whole[:rows, :terms]).all()


@pytest.mark.parametrize(("points", "width"), [(1, 1), (3, 5), (17, 13), (70, 150)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 1e-4)])
def test_descent_of_any_size_follows_the_oracle(points, width, dtype, tolerance):
    """Points and neurons that fill no vector, block or part."""
    x, y = RNG.normal(size=(points, 2)), RNG.normal(size=points)
    network = ntksim.Network(1, width, "relu", sigma_w=1.2, sigma_b=0.3, output_bias=True)
    rates = [0.5, 2.0]
    run = ntksim.train(
        network, x, y, seeds=[4], method="gradient_descent", learning_rate=2e-3, steps=20, times=[0.0, 0.04], layer_rates=rates,
        dtype=dtype,
    )  # fmt: skip
    history = naive.descent("relu", *oracle_arguments(network, 2, 4), x, y, 2e-3, 20, True, True, layer_rates=rates)
    assert_close(run.outputs[0, 1], history[20][0], tolerance)


def test_few_inputs_are_where_the_sweep_is_taken():
    shapes = [(1, 3, True), (1, shallow.FEW_INPUTS, True), (1, shallow.FEW_INPUTS + 1, False), (2, 3, False)]
    for depth, inputs, expected in shapes:
        net = ntksim.engine.cpu.compiled_network.compiled_network(ntksim.Network(depth, 8), inputs)
        assert shallow.is_shallow(net) == expected


def trained(network, times, **options):
    x, y = np.tile(POINTS, (2, 1)), np.arange(10.0)
    common = {"seeds": [3], "method": "gradient_descent", "learning_rate": 1e-3, "momentum": 0.5, "return_parameters": True}
    run = ntksim.train(network, x, y, times=times, **(common | options))
    return run.parameters(seed=3).weights[0], run.parameters(seed=3).readout


@pytest.mark.parametrize("outputs_of", [{}, {"batch_size": 4}], ids=["whole", "batches"])
def test_bits_depend_neither_on_threads_nor_on_snapshots(outputs_of, monkeypatch):
    """Also where a step is made in parts, as those of very wide networks are."""
    network = ntksim.Network(1, 700, "tanh", sigma_b=0.2)
    alone = trained(network, [0.03], **outputs_of)
    often = trained(network, [0.0, 0.001, 0.004, 0.03], **outputs_of)
    monkeypatch.setattr(shallow, "_SHARED", 1)
    before = numba.get_num_threads()
    try:
        found = [often]
        for threads in {1, min(2, numba.config.NUMBA_NUM_THREADS)}:
            numba.set_num_threads(threads)
            found.append(trained(network, [0.03], **outputs_of))
    finally:
        numba.set_num_threads(before)
    for other in found:
        for one, two in zip(alone, other, strict=True):
            assert (one == two).all()


def test_an_activation_without_a_slope_at_zero_is_not_asked_there():
    """What pads the points is one of them: sqrt |z| has no slope at 0."""
    root = ntksim.Activation("root", lambda z: abs(z) ** 0.5, lambda z: (0.5 if z > 0 else -0.5) * abs(z) ** -0.5, smooth=False)
    run = ntksim.train(
        ntksim.Network(1, 20, root), POINTS, np.ones(5), seeds=[0], method="gradient_descent", steps=5, learning_rate=1e-3
    )
    assert run.status == ("finished",)
    assert run.loss[0, -1] < run.loss[0, 0]


def test_divergence_is_noticed():
    with pytest.warns(RuntimeWarning, match="diverge"):
        run = ntksim.train(
            ntksim.Network(1, 16, "linear"), POINTS, np.ones(5), seeds=[0], method="gradient_descent", steps=4000,
            learning_rate=100.0,
        )  # fmt: skip
    assert run.status == ("diverged",)
