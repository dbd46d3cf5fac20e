"""Losses and weight decay of gradient descent, against an oracle that differentiates losses by differences."""

import dataclasses
from itertools import product

import naive
import numpy as np
import pytest
from cases import oracle_arguments
from tolerances import assert_close

import ntksim
from ntksim.engine.formulas.losses import value_and_gradient
from ntksim.engine.loss import LOSSES, SOFTMAX, loss_of
from ntksim.engine.training.batches import batches

POINTS = np.random.default_rng(1).normal(size=(7, 3))
CLASSES = np.array([0, 1, 1, 2, 0, 2, 1])
NETWORKS = [
    ntksim.Network(1, 29, "tanh", sigma_w=1.3, sigma_b=0.4, output_bias=True),
    ntksim.Network(2, (9, 6), "erf", "standard", sigma_w=1.3, sigma_b=0.4, output_bias=True),
]


def targets(name, outputs):
    """Targets (n, k) that fit a loss."""
    if "softmax" in name:
        return np.eye(outputs)[CLASSES]
    signs = np.where(np.random.default_rng(2).normal(size=(len(POINTS), outputs)) > 0, 1.0, -1.0)
    return signs if "logistic" in name else 0.7 * signs


@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_those_of_the_definitions(name):
    rng = np.random.default_rng(3)
    f, y = 2 * rng.normal(size=(7, 3)), targets(name, 3)
    value, gradient = value_and_gradient(loss_of(name, 7, 3), f, y)
    assert value == pytest.approx(naive.loss(name, f, y), rel=1e-13)
    assert_close(gradient, naive.loss_gradient(name, f, y), 1e-11)


@pytest.mark.parametrize("name", [name for name in LOSSES if "squared" not in name])
def test_huge_outputs_have_finite_losses(name):
    """A loss that is sure and wrong is as large as the output; one that is right is 0."""
    right = 1e4 * (targets(name, 3) if "logistic" in name else 2 * targets(name, 3) - 1)
    for f, size in ((right, 0.0), (-right, None)):
        value, gradient = value_and_gradient(loss_of(name, 7, 3), f, targets(name, 3))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        assert (value == 0) == (size == 0)


@pytest.mark.parametrize(("network", "name"), list(product(NETWORKS, LOSSES)), ids=str)
def test_descent_on_a_loss_follows_the_oracle(network, name):
    """Momentum of both kinds and none, batches and none, with weight decay, of one output and of three."""
    for outputs, (mu, nesterov), size in product((1, 3), ((0.0, False), (0.8, False), (0.8, True)), (None, 4)):
        if outputs == 1 and "softmax" in name:
            continue
        own, y = dataclasses.replace(network, outputs=outputs), targets(name, outputs)
        options = {"learning_rate": 0.03, "momentum": mu, "nesterov": nesterov, "batch_size": size, "weight_decay": 0.2}
        run = ntksim.train(
            own, POINTS, y if outputs > 1 else y[:, 0], seeds=[4], method="gradient_descent", steps=12, loss=name,
            times=[0.0, 0.03, 0.36], **options,
        )  # fmt: skip
        g, beta, weights, biases, a, c = oracle_arguments(own, 3, 4)
        layers = [*zip(weights, biases, strict=True), (np.atleast_2d(a), np.atleast_1d(c))]
        order = None if size is None else batches(np.uint64(4), 0, 12, 7, size)
        history = naive.descent_on(name, own.activation, g, beta, layers, POINTS, y, (0.03, mu, nesterov, 0.2, order), 12)
        for t, step in enumerate((0, 1, 12)):
            assert_close(run.outputs[0, t].reshape(7, outputs), history[step], 1e-10)
            assert run.loss[0, t] == pytest.approx(naive.loss(name, history[step], y), rel=1e-9)


def test_logistic_descent_separates():
    """Points that can be told apart have margins that grow without bound, and a loss that falls like 1 / t."""
    y = np.sign(POINTS[:, 0])
    run = ntksim.train(
        ntksim.Network(1, 256), POINTS, y, seeds=[0], method="gradient_descent", loss="logistic", steps=4000,
        times=[0.0, 200.0, 400.0, 800.0], learning_rate=0.2,
    )  # fmt: skip
    assert (y * run.outputs[0, -1] > 0).all()
    assert (np.diff(np.min(y * run.outputs[0], axis=1)) > 0).all()
    assert 1.3 < run.loss[0, 2] / run.loss[0, 3] < 3


def test_weight_decay_alone_shrinks_parameters():
    """Where targets are the outputs, only decay moves: theta_1 = (1 - eta lambda rate) theta_0 of each layer."""
    network = ntksim.Network(1, 64, sigma_b=0.3)
    y = ntksim.network_outputs(network, POINTS, seeds=[0])[0]
    run = ntksim.train(
        network, POINTS, y, seeds=[0], method="gradient_descent", learning_rate=1e-3, steps=1, weight_decay=2.0,
        layer_rates=[0.5, 1.0], return_parameters=True,
    )  # fmt: skip
    start, end = run.parameters(time=0.0), run.parameters()
    assert_close(end.weights[0], (1 - 1e-3) * start.weights[0], 1e-14)
    assert_close(end.readout, (1 - 2e-3) * start.readout, 1e-14)


def test_classes_probabilities_and_centred_targets_are_one_problem():
    common = {"seeds": [0], "method": "gradient_descent", "loss": "softmax_cross_entropy", "steps": 3}
    network = ntksim.Network(2, 8, outputs=3)
    runs = [ntksim.train(network, POINTS, y, **common) for y in (CLASSES, np.eye(3)[CLASSES], np.eye(3)[CLASSES] - 1 / 3)]
    for run in runs[1:]:
        assert_close(run.outputs, runs[0].outputs, 1e-12)
    assert runs[0].loss[0, -1] < runs[0].loss[0, 0]


@pytest.mark.parametrize("name", ["mean_squared", "logistic", "softmax_cross_entropy"])
def test_wide_networks_follow_the_linearised_one(name):
    """On training and test points, with momentum; the error is O(1 / width)."""
    outputs = 3 if "softmax" in name else 1
    network, y = ntksim.Network(1, 16384, "tanh", sigma_w=1.5, outputs=outputs), targets(name, outputs)
    y, x_test = y if outputs > 1 else y[:, 0], np.random.default_rng(9).normal(size=(2, 3))
    run = ntksim.train(
        network, POINTS, y, seeds=[0], method="gradient_descent", learning_rate=0.1, times=[0.0, 1.0, 4.0], momentum=0.8,
        loss=name, x_test=x_test, keep_kernels=True,
    )  # fmt: skip
    f, f_test = ntksim.linearized_descent(
        run.kernels[0, 0], run.outputs[0, 0], y, 40, 0.1, name, 0.8, kernel_test=run.test_kernels[0, 0],
        f0_test=run.test_outputs[0, 0],
    )  # fmt: skip
    for at, step in enumerate((0, 10, 40)):
        assert_close(run.outputs[0, at], f[step], 5e-3)
        assert_close(run.test_outputs[0, at], f_test[step], 5e-3)
    assert np.abs(f[40] - f[0]).max() > 0.1


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_linearised_network_of_the_squared_loss_is_the_closed_form(nesterov):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(8, 5))
    kernel, across, f0, f0_test = x[:6] @ x[:6].T, x[6:] @ x[:6].T, rng.normal(size=(6, 2)), rng.normal(size=(2, 2))
    y, rate = rng.normal(size=(6, 2)), 0.1 / np.linalg.eigvalsh(kernel)[-1]
    found = ntksim.linearized_descent(kernel, f0, y, 30, rate, "squared", 0.7, nesterov, across, f0_test)
    expected = ntksim.closed_form(kernel, f0, y, rate * np.arange(31), across, f0_test, rate, 0.7, nesterov)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, 1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "loss must be one of squared, .*; got 'hinge'"),
        ({"loss": "logistic", "y": 0.5 * np.ones(7)}, "y must be 1 or -1 for loss='logistic'; got 0.5"),
        ({"loss": "softmax_cross_entropy"}, "needs a network of at least 2 outputs; got 1"),
        ({"loss": "mean_squared", "method": "gradient_flow"}, "loss='mean_squared' belongs to gradient_descent"),
        ({"weight_decay": 0.1, "method": "gradient_flow"}, "weight_decay belongs to gradient_descent"),
        ({"weight_decay": -0.1}, "weight_decay must be a finite number of at least 0; got -0.1"),
        ({"loss": "logistic", "steps": None}, "loss='logistic' has no time .* give steps or times"),
        ({"loss": "logistic", "remove_initial_output": True}, "remove_initial_output belongs to squared losses"),
        ({"weight_decay": 0.1, "sampling": "conditional"}, "weight_decay needs a network's weights"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(options, message):
    y = options.pop("y", np.ones(7))
    common = {"seeds": [0], "method": "gradient_descent", "steps": 2} | options
    with pytest.raises(ValueError, match=message) as refused:
        ntksim.train(ntksim.Network(1, 8), POINTS, y, **common)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("y", [np.full((7, 3), 0.5), np.full(7, 3), -np.ones(7, int)], ids=["rows", "large", "negative"])
def test_targets_of_softmax_are_classes_or_probabilities(y):
    with pytest.raises(ValueError, match="y must (be|hold)"):
        ntksim.train(
            ntksim.Network(1, 8, outputs=3), POINTS, y, seeds=[0], method="gradient_descent", steps=1,
            loss="mean_softmax_cross_entropy",
        )  # fmt: skip


def test_default_rates_are_below_the_curvature_of_every_loss():
    """What descent descends on, the loss and lambda/2 ||theta||^2, falls at every step, whatever the loss is divided by."""
    network, decay = ntksim.Network(1, 512, outputs=3), 0.01
    for name in LOSSES:
        options = {"method": "gradient_descent", "loss": name, "steps": 8, "weight_decay": decay, "return_parameters": True}
        run = ntksim.train(network, POINTS, targets(name, 3), seeds=[0], **options)
        every = [run.parameters(0, time) for time in run.times]
        squares = [sum(np.sum(part**2) for part in (*own.weights, own.readout)) for own in every]
        assert (np.diff(run.loss[0] + decay / 2 * np.array(squares)) < 0).all(), name
    assert {kind for kind, _ in LOSSES.values()} == {0, 1, SOFTMAX}
