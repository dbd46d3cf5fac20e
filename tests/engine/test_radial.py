"""Outputs along the parameters, J_0 theta_0, and the linearised network under weight decay, against the oracle's Jacobian."""

import dataclasses
from itertools import product

import naive
import numba
import numpy as np
import pytest
from cases import ABC_KINDS, ACTIVATION_CASES, BIASES, POINTS, oracle_arguments
from tolerances import ROUND_OFF, assert_close

import ntksim

TESTS = np.random.default_rng(9).normal(size=(3, 3))
EVERY = np.concatenate([POINTS, TESTS])
KINDS = [(kind, None) for kind in ("ntk", "notes", "standard")] + list(ABC_KINDS)
ONE = ntksim.Network(2, (9, 6), "tanh", "standard", sigma_w=1.3, sigma_b=0.4, output_bias=True)


def oracle(network, seed, x=EVERY, dtype="float64"):
    """The Jacobian (n, parameters) of a network of one output, and its parameters in the same order."""
    arguments = oracle_arguments(network, x.shape[1], seed, dtype)
    _, _, weights, biases, a, c = arguments
    with_biases = network.sigma_b is not None
    j = naive.jacobian(network.activation, *arguments, x, with_biases, network.output_bias)
    parts = [a, [c] if network.output_bias else []]
    for w, b in zip(weights[::-1], biases[::-1], strict=True):
        parts += [w.ravel(), b if with_biases else []]
    return j, np.concatenate(parts)


def layers_of(network, d):
    """The layer of every parameter, 0 to L, in that order."""
    sizes = [d, *network.widths]
    found = [np.full(sizes[-1] + network.output_bias, network.depth)]
    for layer in reversed(range(network.depth)):
        found.append(np.full(sizes[layer + 1] * (sizes[layer] + (network.sigma_b is not None)), layer))
    return np.concatenate(found)


@pytest.mark.parametrize("activation", ACTIVATION_CASES, ids=str)
def test_it_is_the_jacobian_times_the_parameters(activation):
    network = ntksim.Network(2, (7, 12), activation, sigma_w=1.3, sigma_a=0.9, sigma_b=0.4, output_bias=True, output_scale=1.6)
    for dtype, tolerance in ROUND_OFF.items():
        found = ntksim.radial_derivative(network, EVERY, seeds=[3, 5], dtype=dtype)
        assert (found.dtype, found.shape) == (dtype, (2, len(EVERY)))
        for row, seed in zip(found, (3, 5), strict=True):
            assert_close(row, np.matmul(*oracle(network, seed, dtype=dtype)), 10 * tolerance)


@pytest.mark.parametrize(("kind", "abc"), KINDS, ids=lambda value: str(value)[:10])
def test_it_holds_in_every_parameterization_and_layer(kind, abc):
    for activation, depth, (sigma_b, output_bias) in product(("relu", "tanh"), (1, 3), BIASES):
        if (output_bias and kind not in ("ntk", "standard")) or (kind == "mean_field" and depth > 1):
            continue
        network = ntksim.Network(depth, 7, activation, kind, 1.3, 0.9, sigma_b, output_bias, 1.6, abc)
        jacobian, theta = oracle(network, 4)
        shares = ntksim.radial_derivative(network, EVERY, seeds=[4], by_layer=True)[0]
        for layer, share in enumerate(shares):
            own = layers_of(network, 3) == layer
            assert_close(share, jacobian[:, own] @ theta[own], ROUND_OFF["float64"])
        assert_close(ntksim.radial_derivative(network, EVERY, seeds=[4])[0], jacobian @ theta, ROUND_OFF["float64"])
        assert_close(shares[-1], ntksim.network_outputs(network, EVERY, seeds=[4])[0], ROUND_OFF["float64"])


def test_it_is_that_of_every_output_and_of_parameters_of_ones_own():
    network = dataclasses.replace(ONE, outputs=3, activation="gelu", parameterization="ntk")
    found = ntksim.radial_derivative(network, EVERY, seeds=range(2), by_layer=True)
    assert found.shape == (2, 3, len(EVERY), 3)
    assert_close(found.sum(axis=1), ntksim.radial_derivative(network, EVERY, seeds=range(2)), ROUND_OFF["float64"])
    own = ntksim.sample_parameters(network, 3, 1)
    assert_close(ntksim.radial_derivative(network, EVERY, parameters=own, by_layer=True), found[1], ROUND_OFF["float64"])

    def scaled(s):
        every = own.weights, own.biases, own.readout, own.output_bias
        weights, biases, readout, output = ([s * part for part in parts] for parts in every)
        return ntksim.Parameters(tuple(weights), tuple(biases), np.array(readout), np.array(output))

    ahead, behind = (ntksim.network_outputs(network, EVERY, parameters=scaled(1 + step)) for step in (1e-5, -1e-5))
    assert_close((ahead - behind) / 2e-5, found[1].sum(axis=0), 1e-8)


def test_of_homogeneous_networks_it_is_a_multiple_of_the_output():
    """Euler: f is of degree L + 1 in the parameters of a ReLU network without biases."""
    network = ntksim.Network(3, (40, 600, 30), outputs=2)
    f = ntksim.network_outputs(network, EVERY, seeds=range(3))
    assert_close(ntksim.radial_derivative(network, EVERY, seeds=range(3)), 4 * f, ROUND_OFF["float64"])


def test_bits_do_not_depend_on_threads_or_seeds_asked():
    before = numba.get_num_threads()
    for network in (ONE, ntksim.Network(2, 520, "tanh", sigma_b=0.1)):
        every = ntksim.radial_derivative(network, EVERY, seeds=range(3), dtype="float32")
        numba.set_num_threads(1)
        try:
            alone = ntksim.radial_derivative(network, EVERY, seeds=[2], dtype="float32")
        finally:
            numba.set_num_threads(before)
        assert np.array_equal(every[2], alone[0])


def explicit(jacobian, theta, f0, y, steps, rule, loss="squared", trained=None):
    """Descent on f_0 + J (theta - theta_0) in the space of parameters: outputs on all points before each step."""
    rate, mu, nesterov, decay = rule
    n, start, velocity, history = len(y), theta, np.zeros_like(theta), []
    moving = np.ones_like(theta) if trained is None else trained
    for _ in range(steps + 1):
        f = f0 + jacobian @ (theta - start)
        history.append(f)
        gradient = jacobian[:n].T @ naive.loss_gradient(loss, f[:n, None], y[:, None])[:, 0] + decay * theta
        velocity = mu * velocity + gradient
        theta = theta - rate * moving * (gradient + mu * velocity if nesterov else velocity)
    return np.array(history)


@pytest.mark.parametrize("loss", ["squared", "mean_squared", "logistic"])
@pytest.mark.parametrize(("mu", "nesterov"), [(0.0, False), (0.8, False), (0.8, True)])
def test_linearised_descent_with_decay_is_that_in_the_space_of_parameters(loss, mu, nesterov):
    n, y, rule = len(POINTS), np.array([1.0, -1.0, 1.0, 1.0, -1.0]), (0.02, mu, nesterov, 0.7)
    jacobian, theta = oracle(ONE, 4)
    f0, radial = ntksim.network_outputs(ONE, EVERY, seeds=[4])[0], ntksim.radial_derivative(ONE, EVERY, seeds=[4])[0]
    kernel = ntksim.empirical_ntk(ONE, EVERY, POINTS, seeds=[4])[0]
    f, f_test = ntksim.linearized_descent(
        kernel[:n], f0[:n], y, 60, rule[0], loss, mu, nesterov, kernel[n:], f0[n:], weight_decay=rule[3], radial=radial[:n],
        radial_test=radial[n:],
    )  # fmt: skip
    expected = explicit(jacobian, theta, f0, y, 60, rule, loss)
    assert_close(np.concatenate([f, f_test], axis=1), expected, 1e-10)
    without = ntksim.linearized_descent(kernel[:n], f0[:n], y, 60, rule[0], loss, mu, nesterov)[0]
    assert np.abs(f[-1] - without[-1]).max() > 0.1
    given = ntksim.linearized_descent(kernel[:n], f0[:n], y, 60, rule[0], loss, mu, nesterov, radial=radial[:n])[0]
    assert np.array_equal(given, without)  # it does nothing without decay


def test_frozen_layers_are_left_out_of_kernel_and_derivative():
    n, y, rate = len(POINTS), np.ones(len(POINTS)), 0.3
    jacobian, theta = oracle(ONE, 4)
    trained = rate * (layers_of(ONE, 3) != 1)
    f0 = ntksim.network_outputs(ONE, EVERY, seeds=[4])[0]
    radial = ntksim.radial_derivative(ONE, EVERY, seeds=[4], by_layer=True)[0][[0, 2]].sum(axis=0)
    kernel = (trained * jacobian) @ jacobian[:n].T
    f, f_test = ntksim.linearized_descent(
        kernel[:n], f0[:n], y, 40, 0.05, momentum=0.5, kernel_test=kernel[n:], f0_test=f0[n:], weight_decay=rate * 0.4,
        radial=radial[:n], radial_test=radial[n:],
    )  # fmt: skip
    expected = explicit(jacobian, theta, f0, y, 40, (0.05, 0.5, False, 0.4), trained=trained)
    assert_close(np.concatenate([f, f_test], axis=1), expected, 1e-10)


def test_linearised_descent_ends_at_ridge_regression_of_what_is_left():
    """f_0 - J_0 theta_0 and all that the decay lets J_0 theta be: the minimum of loss + lambda/2 ||theta||^2."""
    rng, decay = np.random.default_rng(5), 0.3
    jacobian, theta, y = rng.normal(size=(7, 20)), rng.normal(size=20), rng.normal(size=5)
    f0 = rng.normal(size=7)
    kernel, radial = jacobian @ jacobian[:5].T, jacobian @ theta
    f, f_test = ntksim.linearized_descent(
        kernel[:5], f0[:5], y, 4000, 0.02, momentum=0.5, kernel_test=kernel[5:], f0_test=f0[5:], weight_decay=decay,
        radial=radial[:5], radial_test=radial[5:],
    )  # fmt: skip
    constant = f0 - radial
    end = constant + kernel @ np.linalg.solve(kernel[:5] + decay * np.eye(5), y - constant[:5])
    assert_close(np.concatenate([f[-1], f_test[-1]]), end, 1e-10)


@pytest.mark.parametrize("remove", [False, True])
@pytest.mark.parametrize(
    ("network", "momentum"),
    [
        (ntksim.Network(2, 30, "relu", outputs=3), (0.8, True)),
        (ntksim.Network(2, 30, "tanh", "mup", sigma_b=0.4), (0.8, False)),
        (ntksim.Network(1, 30, "gelu", "mean_field", output_scale=3.0), (0.0, False)),
        (ntksim.Network(2, 30, "erf", sigma_b=0.4, output_bias=True), (0.5, False)),
    ],
    ids=str,
)
def test_networks_that_train_their_readout_alone_are_their_linearised_ones(network, momentum, remove):
    """They are linear in what moves: so units, rates, factors of learning rates and f - f_0 are put to an exact test."""
    rates, decay, eta = [0.0] * network.depth + [0.7], 0.5, 0.1
    y = np.random.default_rng(2).normal(size=(len(POINTS), network.outputs))
    y = y if network.outputs > 1 else y[:, 0]
    run = ntksim.train(
        network, POINTS, y, seeds=[0], method="gradient_descent", learning_rate=eta, times=[0.0, 10 * eta, 40 * eta],
        momentum=momentum[0], nesterov=momentum[1], weight_decay=decay, x_test=TESTS, keep_kernels=True, layer_rates=rates,
        remove_initial_output=remove,
    )  # fmt: skip
    radial, radial_test = (ntksim.radial_derivative(network, x, seeds=[0], by_layer=True)[0, -1] for x in (POINTS, TESTS))
    f, f_test = ntksim.linearized_descent(
        run.kernels[0, 0], run.outputs[0, 0], y, 40, network.learning_rate_scale * eta, "squared", *momentum,
        run.test_kernels[0, 0], run.test_outputs[0, 0], 0.7 * decay, radial, radial_test,
    )  # fmt: skip
    for at, step in enumerate((0, 10, 40)):
        assert_close(run.outputs[0, at], f[step], 1e-11)
        assert_close(run.test_outputs[0, at], f_test[step], 1e-11)


@pytest.mark.parametrize("depth", [1, 2])
def test_what_decay_does_to_wide_networks_is_linearised_to_first_order(depth):
    """Of targets that are the outputs, lest decay of the kernel changes what the loss does: half the decay has a quarter of the
    error.
    """
    network = ntksim.Network(depth, 16384 if depth == 1 else 2048, "tanh", sigma_w=1.5, sigma_b=0.3, outputs=3)
    y, errors = ntksim.network_outputs(network, POINTS, seeds=[0])[0], []
    radial, radial_test = (ntksim.radial_derivative(network, x, seeds=[0])[0] for x in (POINTS, TESTS))
    for decay in (0.01, 0.02):
        run = ntksim.train(
            network, POINTS, y, seeds=[0], method="gradient_descent", learning_rate=0.1, times=[0.0, 4.0], momentum=0.5,
            weight_decay=decay, x_test=TESTS, keep_kernels=True,
        )  # fmt: skip
        arguments = run.kernels[0, 0], run.outputs[0, 0], y, 40, 0.1, "squared", 0.5, False
        tests = run.test_kernels[0, 0], run.test_outputs[0, 0]
        f, f_test = ntksim.linearized_descent(*arguments, *tests, decay, radial, radial_test)
        _, plain_test = ntksim.linearized_descent(*arguments, *tests)
        own = (run.outputs[0, -1] - f[-1], run.test_outputs[0, -1] - f_test[-1], run.test_outputs[0, -1] - plain_test[-1])
        errors.append([np.abs(error).max() for error in own])
    ratios = np.array(errors[1]) / errors[0]
    assert ratios == pytest.approx([4, 4, 2], rel=0.15)
    assert errors[0][1] < errors[0][2] / 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"weight_decay": 0.1},
            r"weight_decay needs radial, J_0 theta_0, .*: give radial=ntksim.radial_derivative",
        ),
        (
            {"weight_decay": 0.1, "radial": np.ones(3), "kernel_test": np.ones((2, 3))},
            "needs radial_test, .*x_test, seeds",
        ),
        ({"weight_decay": 0.1, "radial": np.ones(4)}, r"radial must have shape \(3,\), that of the outputs; got shape \(4,\)"),
        ({"weight_decay": 0.1, "radial": np.ones(3), "radial_test": np.ones(2)}, r"radial_test must have shape \(0,\)"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number of at least 0; got -1.0"),
        ({"weight_decay": "a"}, "weight_decay must be a finite number of at least 0; got 'a'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(options, message):
    with pytest.raises(ValueError, match=message) as refused:
        ntksim.linearized_descent(np.eye(3), np.zeros(3), np.ones(3), 2, 0.1, **options)
    assert "\n" not in str(refused.value)


def test_radial_derivatives_refuse_what_other_functions_do():
    with pytest.raises(TypeError, match="give seeds"):
        ntksim.radial_derivative(ONE, EVERY)
    with pytest.raises(TypeError, match="by_layer must be True or False"):
        ntksim.radial_derivative(ONE, EVERY, seeds=[0], by_layer="yes")
    with pytest.warns(RuntimeWarning, match="derivatives of seed 0 overflow float32"):
        ntksim.radial_derivative(ntksim.Network(2, 8, "exp"), 40 * EVERY, seeds=[0], dtype="float32")
