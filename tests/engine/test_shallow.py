"""Descent of one hidden layer in one sweep a step: the oracle, bits, and the sums of a block."""

import naive
import numba
import numpy as np
import pytest
from cases import POINTS, oracle_arguments
from tolerances import ROUND_OFF, assert_close

import ntksim
from ntksim.engine.compiled.jit import jit
from ntksim.engine.cpu import shallow
from ntksim.engine.cpu.compiled_network import compiled_network
from ntksim.engine.cpu.neurons import BLOCK, PIECE, _made, call_loop, loops_of
from ntksim.engine.formulas.blocks import code_of

RNG = np.random.default_rng(5)


@jit
def sums(addresses, neurons, count, inputs, gradient, outputs):
    call_loop(addresses[0], (0.0, neurons.reshape(neurons.size), count, inputs.reshape(inputs.size), inputs.shape[1], gradient))
    call_loop(addresses[1], (0.0, neurons.reshape(neurons.size), count, inputs.reshape(inputs.size), inputs.shape[1], outputs))


@pytest.mark.parametrize(("d", "k"), [(1, 1), (2, 3), (5, 2)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_sums_of_a_block_whatever_its_size(dtype, d, k):
    """More points than are summed at once; neurons have the bits that they have among others."""
    rows, points, found = d + 1 + k, PIECE + 48, []
    addresses = loops_of(code_of("tanh"), d, k, np.dtype(dtype))
    numbers, inputs = RNG.normal(size=(rows, BLOCK)).astype(dtype), RNG.normal(size=(d, points)).astype(dtype)
    gradient = RNG.normal(size=(k, points)).astype(dtype)
    for count in (16, 48, BLOCK):
        neurons, outputs = np.concatenate([numbers, np.ones((2 * rows, BLOCK), dtype)]), np.ones((k, points), dtype)
        sums(addresses, neurons, count, inputs, gradient.ravel(), outputs.ravel())
        w, b, a = np.split(numbers[:, :count].astype(float), [d, d + 1])
        h = np.tanh(w.T @ inputs + b.T)
        back = (1 - h * h) * (a.T @ gradient if k > 1 else gradient)
        assert_close(
            neurons[2 * rows :, :count], np.concatenate([inputs @ back.T, back.sum(1)[None], gradient @ h.T]), ROUND_OFF[dtype]
        )
        assert_close(outputs, a @ h, ROUND_OFF[dtype])
        found.append(neurons[2 * rows :, :16])
    assert all((other == found[0]).all() for other in found)


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


def test_few_inputs_and_outputs_are_where_the_sweep_is_taken():
    few = shallow.FEW
    shapes = [(1, 3, 1, True), (1, few, few, True), (1, few + 1, 1, False), (1, 3, few + 1, False), (2, 3, 1, False)]
    for depth, inputs, outputs, expected in shapes:
        network = ntksim.Network(depth, 8, outputs=outputs)
        assert shallow.is_shallow(compiled_network(network, inputs)) == expected


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


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_divergence_is_noticed(activation):
    with pytest.warns(RuntimeWarning, match="diverge"):
        run = ntksim.train(
            ntksim.Network(1, 16, activation), POINTS, np.ones(5), seeds=[0], method="gradient_descent", steps=4000,
            learning_rate=100.0,
        )  # fmt: skip
    assert run.status == ("diverged",)


def test_llvm_knows_that_arrays_of_the_loops_do_not_overlap():
    code = code_of("relu")
    loops_of(code, 2, 1, np.dtype(np.float32))
    for loop in _made(code, 2, 1):
        # compiled here: code that was read from disk has no text of LLVM's
        fresh = type(loop)(loop.py_func, targetoptions=loop.targetoptions)
        assert loop.signatures
        for signature in loop.signatures:
            fresh.compile(signature)
        for written in fresh.inspect_llvm().values():
            (head,) = [line for line in written.splitlines() if line.startswith("define") and "loop" in line]
            assert head.count(" noalias ") >= 3
