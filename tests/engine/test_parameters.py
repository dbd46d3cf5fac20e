"""Networks of given parameters: the oracle's kernels, the seeds' own networks, biases in any subset of layers, refusals."""

import dataclasses
import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import naive
import numpy as np
import pytest
from cases import POINTS
from tolerances import ROUND_OFF, assert_close

import ntksim

OTHERS = np.random.default_rng(4).normal(size=(4, 3))
FORMS = ("full", "diagonal", "trace")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "network",
    [
        ntksim.Network(3, (20, 530, 40), "tanh", "ntk", sigma_b=0.3, output_bias=True, outputs=3),
        ntksim.Network(2, 600, "relu", "standard"),
        ntksim.Network(1, 7, "gelu", "notes", sigma_b=0.5, output_scale=1.6),
        ntksim.Network(2, 64, "erf", "mup", sigma_b=0.4, outputs=20),
    ],
    ids=lambda network: network.parameterization,
)
def test_a_seed_and_its_parameters_are_one_network(network, dtype):
    parameters = ntksim.sample_parameters(network, 3, 7, dtype=dtype)
    np.testing.assert_array_equal(
        ntksim.network_outputs(network, POINTS, parameters=parameters, dtype=dtype),
        ntksim.network_outputs(network, POINTS, seeds=[7], dtype=dtype)[0],
    )
    for x2, form in itertools.product((None, OTHERS), FORMS):
        np.testing.assert_array_equal(
            ntksim.empirical_ntk(network, POINTS, x2, parameters=parameters, form=form, dtype=dtype),
            ntksim.empirical_ntk(network, POINTS, x2, seeds=[7], form=form, dtype=dtype)[0],
        )


def _oracle_jacobian(network, parameters, beta):
    """Columns of the biases that there are, and of all weights."""
    g, _ = naive.multipliers(network.parameterization, 3, network.widths, 1.3, 0.9, network.sigma_b, False, network.output_scale)
    biases = [np.zeros(n) if b is None else b for n, b in zip(network.widths, parameters.biases or (None,) * 3, strict=True)]
    c = parameters.output_bias or 0.0
    arguments = (g, beta, list(parameters.weights), biases, parameters.readout, c)
    phi = naive.PHI[network.activation][0]
    return naive.output(phi, *arguments, POINTS), naive.jacobian(network.activation, *arguments, POINTS, True, True)


@pytest.mark.parametrize("kind", ["standard", "notes", "ntk"])
@pytest.mark.parametrize("layers", list(itertools.product((False, True), repeat=4)))
def test_biases_in_any_subset_of_layers(kind, layers):
    """A layer without biases has multiplier 0 in the oracle, so that its columns of the Jacobian vanish."""
    network = ntksim.Network(3, (7, 5, 6), "tanh", kind, 1.3, 0.9, 0.4 if kind == "ntk" else None, output_scale=1.6)
    rng = np.random.default_rng(5)
    shapes = [(7, 3), (5, 7), (6, 5)]
    own = [rng.normal(size=shape[0]) if has else None for shape, has in zip(shapes, layers, strict=False)]
    parameters = ntksim.Parameters(
        tuple(rng.normal(size=shape) for shape in shapes), tuple(own), rng.normal(size=6), 0.7 if layers[3] else None
    )
    one = 0.4 if kind == "ntk" else 1.0
    beta = [one if has else 0.0 for has in layers[:3]] + [1.6 * one if layers[3] else 0.0]
    outputs, jacobian = _oracle_jacobian(network, parameters, beta)
    assert_close(ntksim.network_outputs(network, POINTS, parameters=parameters), outputs, ROUND_OFF["float64"])
    assert_close(ntksim.empirical_ntk(network, POINTS, parameters=parameters), jacobian @ jacobian.T, ROUND_OFF["float64"])


NETWORK = ntksim.Network(2, (4, 5), "relu", "standard")
GIVEN = ntksim.sample_parameters(NETWORK, 3, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": GIVEN.weights[:1]}, r"parameters.weights must hold 2 arrays, one per hidden layer; got 1"),
        ({"weights": (GIVEN.weights[0], GIVEN.weights[1].T)}, r"parameters.weights\[1\] must have shape \(5, 4\); got \(4, 5\)"),
        ({"readout": np.ones(4)}, r"parameters.readout must have shape \(1, 5\); got \(1, 4\)"),
        ({"readout": np.full(5, np.nan)}, r"parameters.readout must hold finite numbers in float64"),
        ({"biases": (np.ones(4),)}, r"parameters.biases must hold 2 entries, one per hidden layer; got 1"),
        ({"biases": (None, np.ones(4))}, r"parameters.biases\[1\] must have shape \(5,\); got \(4,\)"),
        ({"output_bias": np.ones(2)}, r"parameters.output_bias must have shape \(1,\); got \(2,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        ntksim.network_outputs(NETWORK, POINTS, parameters=dataclasses.replace(GIVEN, **changes))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, TypeError, "give seeds, .* or parameters"),
        ({"seeds": [1], "parameters": GIVEN}, TypeError, "give seeds or parameters, not both"),
        ({"parameters": GIVEN.weights}, TypeError, "parameters must be ntksim.Parameters"),
        ({"parameters": GIVEN, "sampling": "conditional"}, ValueError, "leave out sampling='conditional'"),
    ],
)
def test_what_does_not_go_with_parameters_is_said(options, error, words):
    with pytest.raises(error, match=words):
        ntksim.empirical_ntk(NETWORK, POINTS, **options)


@pytest.mark.parametrize("kind", ["ntk", "mup"])
def test_given_biases_need_no_sigma_b(kind):
    """Their multiplier is that of sigma_b = 1; in mup sqrt(n) for hidden layers."""
    network = ntksim.Network(2, 4, "tanh", kind, 1.3, 0.9)
    drawn = ntksim.sample_parameters(network, 3, 0)
    given = dataclasses.replace(drawn, biases=(np.ones(4), None), output_bias=0.7 if kind == "ntk" else None)
    outputs, jacobian = _oracle_jacobian(network, given, [1.0, 0.0, 1.0] if kind == "ntk" else [2.0, 0.0, 0.0])
    assert_close(ntksim.network_outputs(network, POINTS, parameters=given), outputs, ROUND_OFF["float64"])
    assert_close(ntksim.empirical_ntk(network, POINTS, parameters=given), jacobian @ jacobian.T, ROUND_OFF["float64"])
    flow = ntksim.train(network, POINTS, TARGETS, start=given, **FLOW)
    assert_close(flow.outputs[0, 0], outputs, ROUND_OFF["float64"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("model.pt", "got 'model.pt': write network, parameters = ntksim.from_torch('model.pt', activation=...)"),
        (Path("a/model.keras"), "got 'a/model.keras': write network, parameters = ntksim.from_keras('a/model.keras')"),
        ("model.weights.h5", "ntksim.from_keras('model.weights.h5', activation=...)"),
        ("model.msgpack", "ntksim.from_flax('model.msgpack', activation=...)"),
        ("model.bin", "got 'model.bin': make them with one of ntksim.from_torch, from_keras, from_flax and from_sklearn"),
        (
            {"0.weight": np.ones((2, 2))},
            "got a dict: write network, parameters = ntksim.from_torch(state_dict, activation=...) or",
        ),
        (SimpleNamespace(state_dict=dict), "got a SimpleNamespace: write network, parameters = ntksim.from_torch(model)"),
        ((NETWORK, GIVEN), "got a tuple that holds them: unpack it, as in network, parameters = ntksim.from_torch(model)"),
        ([(np.ones((3, 4)), np.ones(4)), ()], "got a list: make them with one of ntksim.from_torch, from_keras, from_flax and "),
        (GIVEN.weights, "got a tuple: make them with one of ntksim.from_torch, from_keras, from_flax and from_sklearn"),
    ],
)
def test_what_is_no_parameters_is_told_its_reader(given, words):
    with pytest.raises(TypeError, match=f"^parameters must be ntksim.Parameters; .*{re.escape(words)}") as caught:
        ntksim.empirical_ntk(NETWORK, POINTS, parameters=given)
    assert "\n" not in str(caught.value)


def test_numbers_beyond_float32_are_refused():
    given = dataclasses.replace(GIVEN, readout=np.full(5, 1e60))
    with pytest.raises(ValueError, match="readout must hold finite numbers in float32"):
        ntksim.network_outputs(NETWORK, POINTS, parameters=given, dtype="float32")


def test_a_short_description():
    assert repr(dataclasses.replace(GIVEN, biases=(None, np.ones(5)), output_bias=0.1)) == (
        "Parameters(weights and readout (4, 3), (5, 4), (5,); biases: hidden layers 2, output)"
    )


def test_parameters_of_descent_that_diverges_are_those_of_its_last_snapshot():
    options = {"method": "gradient_descent", "times": [0.0, 1e3, 1e4, 1e6], "learning_rate": 1e3, "return_parameters": True}
    with pytest.warns(RuntimeWarning, match="diverge"):
        run = ntksim.train(ntksim.Network(1, 4, "relu"), POINTS, np.ones(5), seeds=[0], **options)
    assert run.status == ("diverged",)
    assert (run.parameters().readout == run.parameters(0, run.time_reached[0]).readout).all()
    with pytest.raises(ValueError, match=f"seed 0 did not reach t = 1e.06: ask for a time of at most {run.time_reached[0]:.6g}"):
        run.parameters(0, 1e6)


# --- training ---------------------------------------------------------------------------------------------------------

TARGETS = np.random.default_rng(8).normal(size=5)
FLOW = {"times": [0.0, 0.5, 2.0]}
DESCENT = {"method": "gradient_descent", "times": [0.0, 0.5, 2.0], "learning_rate": 0.05, "momentum": 0.5, "batch_size": 2}


@pytest.mark.parametrize("options", [FLOW, DESCENT], ids=["flow", "descent"])
def test_training_starts_from_parameters_and_returns_them(options):
    """Seed 0's own parameters give its trajectory; from half way on it is the same trajectory."""
    network = ntksim.Network(2, (12, 9), "tanh", "ntk", 1.3, 0.9, 0.4, True)
    drawn = ntksim.train(network, POINTS, TARGETS, seeds=[0, 1], return_parameters=True, **options)
    start = ntksim.sample_parameters(network, 3, 0)
    own = ntksim.train(network, POINTS, TARGETS, start=start, return_parameters=True, **options)
    np.testing.assert_array_equal(own.outputs[0], drawn.outputs[0])
    np.testing.assert_array_equal(own.kernel_drift[0], drawn.kernel_drift[0])
    np.testing.assert_array_equal(own.parameters(time=0.0).weights[1], start.weights[1])
    for seed, (t, time) in itertools.product((0, 1), enumerate(drawn.times)):
        parameters = drawn.parameters(seed, time)
        found = ntksim.network_outputs(network, POINTS, parameters=parameters)
        assert_close(found, drawn.outputs[seed, t], ROUND_OFF["float64"])
    np.testing.assert_array_equal(drawn.parameters(1).readout, drawn.parameters(1, 2.0).readout)


def test_a_trained_network_is_trained_on():
    network = ntksim.Network(2, (12, 9), "tanh", "standard", 1.3, 0.9)
    options = {"method": "gradient_descent", "learning_rate": 0.01}
    whole = ntksim.train(network, POINTS, TARGETS, seeds=[3], steps=20, times=[0, 0.1, 0.2], **options)
    half = ntksim.train(network, POINTS, TARGETS, seeds=[3], steps=10, return_parameters=True, times=[0.1], **options)
    rest = ntksim.train(network, POINTS, TARGETS, start=half.parameters(), steps=10, times=[0, 0.1], **options)
    assert_close(rest.outputs[0], whole.outputs[0, 1:], ROUND_OFF["float64"])


def test_biases_of_some_layers_are_trained_alone():
    """Against the oracle's gradient: one small step moves the layers that have biases, and no others."""
    network = ntksim.Network(3, (7, 5, 6), "tanh", "standard")
    rng = np.random.default_rng(5)
    start = ntksim.Parameters(
        tuple(rng.normal(size=shape) for shape in ((7, 3), (5, 7), (6, 5))),
        (None, rng.normal(size=5), None),
        rng.normal(size=6),
        0.7,
    )
    run = ntksim.train(
        network, POINTS, TARGETS, start=start, method="gradient_descent", learning_rate=1e-3, steps=1, return_parameters=True
    )
    end = run.parameters(time=run.times[-1])
    outputs, jacobian = _oracle_jacobian(network, start, [0.0, 1.0, 0.0, 1.0])
    gradient = jacobian.T @ (outputs - TARGETS)
    assert end.biases[0] is None
    assert end.biases[2] is None
    moved = [end.readout - start.readout, [end.output_bias - start.output_bias]]
    for layer in (2, 1, 0):
        size = start.weights[layer].shape[0]
        bias = np.zeros(size) if start.biases[layer] is None else end.biases[layer] - start.biases[layer]
        moved += [(end.weights[layer] - start.weights[layer]).ravel(), bias]
    assert_close(np.concatenate(moved), -1e-3 * gradient, 1e-9)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ntksim.train(NETWORK, POINTS, TARGETS), TypeError, "give seeds, .* or start"),
        (lambda: ntksim.train(NETWORK, POINTS, TARGETS, seeds=[0], start=GIVEN), TypeError, "seeds or start, not both"),
        (
            lambda: ntksim.train(NETWORK, POINTS, TARGETS, start=GIVEN.weights, **FLOW),
            TypeError,
            "^start must be ntksim.Parameters",
        ),
        (lambda: train_from(readout=np.ones(4)), ValueError, r"^start.readout must have shape \(1, 5\); got \(1, 4\)"),
        (lambda: train_from(weights=GIVEN.weights[:1]), ValueError, "^start.weights must hold 2 arrays"),
        (lambda: train_from(weights=GIVEN.weights[::-1]), ValueError, r"^start.weights\[0\] must have shape"),
        (lambda: train_from(biases=(None, np.ones(4))), ValueError, r"^start.biases\[1\] must have shape"),
        (lambda: train_from(output_bias=np.nan), ValueError, "^start.output_bias must hold finite numbers"),
        (lambda: ntksim.train(NETWORK, POINTS, TARGETS, seeds=[0], **FLOW).parameters(0), ValueError, "return_parameters=True"),
        (lambda: kept().parameters(5), ValueError, "one of those that were trained; got 5"),
        (lambda: kept().parameters(), ValueError, "one of the 2 that were trained"),
        (lambda: kept().parameters(0, 0.7), ValueError, "time must be one of 0, 0.5, 2; got 0.7"),
    ],
)
def test_what_training_cannot_tell_is_said(call, error, words):
    with pytest.raises(error, match=words):
        call()


def train_from(**changes):
    return ntksim.train(NETWORK, POINTS, TARGETS, start=dataclasses.replace(GIVEN, **changes), **FLOW)


def kept():
    return ntksim.train(NETWORK, POINTS, TARGETS, seeds=[0, 1], return_parameters=True, **FLOW)
