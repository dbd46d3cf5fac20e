"""Finite networks against the oracle: explicit Jacobians for every parameterization, activation and choice of biases."""

import subprocess
import sys
from contextlib import contextmanager

import naive
import numba
import numpy as np
import pytest
from cases import NETWORKS, POINTS, label, oracle_arguments
from tolerances import ROUND_OFF, assert_close

import ntksim


def test_oracle_jacobian_is_the_derivative():
    """Complex step: df/dtheta to round-off, for the smooth activations' own formulas in the oracle."""
    network = ntksim.Network(2, (4, 3), "tanh", "standard", 1.2, 0.8, 0.3, True)
    g, beta, weights, biases, a, c = oracle_arguments(network, 3, 0)
    jacobian = naive.jacobian("tanh", g, beta, weights, biases, a, c, POINTS, True, True)
    step = 1e-30
    slow = []
    arrays = [a.astype(complex), np.array([c], complex)]
    for layer in (1, 0):
        weights[layer], biases[layer] = weights[layer].astype(complex), biases[layer].astype(complex)
        arrays += [weights[layer], biases[layer]]
    for array in arrays:
        for index in np.ndindex(array.shape):
            array[index] += 1j * step
            slow.append(naive.output(np.tanh, g, beta, weights, biases, arrays[0], arrays[1][0], POINTS).imag / step)
            array[index] -= 1j * step
    assert_close(jacobian, np.array(slow).T, 1e-13)


@pytest.mark.parametrize("network", NETWORKS, ids=label)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_kernel_is_the_jacobian_gram(network, dtype):
    seeds = (0, 7, 2**40 + 3)
    kernels = ntksim.empirical_ntk(network, POINTS, seeds=seeds, dtype=dtype)
    outputs = ntksim.network_outputs(network, POINTS, seeds=seeds, dtype=dtype)
    assert kernels.dtype == outputs.dtype == dtype
    for seed, kernel, output in zip(seeds, kernels, outputs, strict=True):
        arguments = oracle_arguments(network, 3, seed)
        j = naive.jacobian(network.activation, *arguments, POINTS, network.sigma_b is not None, network.output_bias)
        assert_close(kernel, j @ j.T, ROUND_OFF[dtype])
        expected = naive.output(naive.PHI[network.activation][0], *arguments, POINTS)
        assert_close(output, expected, 10 * ROUND_OFF[dtype])


def test_wide_layers_cross_panels():
    """Widths beyond one panel and one piece of a sum, with ragged ends."""
    network = ntksim.Network(2, (1030, 517), "erf", sigma_b=0.2)
    arguments = oracle_arguments(network, 3, 11)
    j = naive.jacobian("erf", *arguments, POINTS, True, False)
    assert_close(ntksim.empirical_ntk(network, POINTS, seeds=[11])[0], j @ j.T, ROUND_OFF["float64"])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_kernel_is_symmetric_positive_and_consistent(dtype):
    network = ntksim.Network(3, 40, "relu", sigma_b=0.1, output_bias=True)
    x = np.random.default_rng(3).normal(size=(9, 4))
    kernel = ntksim.empirical_ntk(network, x, seeds=range(4), dtype=dtype)
    assert (kernel == kernel.transpose(0, 2, 1)).all()
    values = np.linalg.eigvalsh(kernel.astype(float))
    assert (values[:, 0] > -ROUND_OFF[dtype] * values[:, -1]).all()
    cross = ntksim.empirical_ntk(network, x[:4], x[4:], seeds=range(4), dtype=dtype)
    assert_close(cross, kernel[:, :4, 4:], ROUND_OFF[dtype])
    order = np.random.default_rng(4).permutation(9)
    permuted = ntksim.empirical_ntk(network, x[order], seeds=range(4), dtype=dtype)
    assert_close(permuted, kernel[:, order][:, :, order], ROUND_OFF[dtype])
    distance = kernel[:, 0, 0] + kernel[:, 1, 1] - 2 * kernel[:, 0, 1]
    assert (distance > 0).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("widths", [(700,), (530, 1301), (600, 1100, 700, 513)])
def test_bits_do_not_depend_on_threads_or_split(widths, dtype):
    """A thread to a seed, and all threads at one seed, which is how the last of an odd number of seeds is computed."""
    x = np.random.default_rng(5).normal(size=(21, 4))
    network = ntksim.Network(len(widths), widths, "tanh", sigma_b=0.1)
    options = {"dtype": dtype}
    whole = ntksim.empirical_ntk(network, x, seeds=range(5), **options)
    crossed = ntksim.empirical_ntk(network, x[:13], x, seeds=range(5), **options)
    outputs = ntksim.network_outputs(network, x, seeds=range(5), **options)
    with threads(1):
        assert (ntksim.empirical_ntk(network, x, seeds=range(5), **options) == whole).all()
        assert (ntksim.empirical_ntk(network, x[:13], x, seeds=range(5), **options) == crossed).all()
        assert (ntksim.network_outputs(network, x, seeds=range(5), **options) == outputs).all()
    parts = [ntksim.empirical_ntk(network, x, seeds=block, **options) for block in ([4], [0, 1], [3, 2])]
    assert (whole[[4, 0, 1, 3, 2]] == np.concatenate(parts)).all()
    assert (crossed == whole[:, :13]).all()
    assert (ntksim.network_outputs(network, x[7:9], seeds=[3], **options)[0] == outputs[3, 7:9]).all()


@contextmanager
def threads(count):
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize(("depth", "width", "megabytes"), [(2, 8192, 60), (3, 8192, 60), (1, 10**6, 30)])
def test_initial_kernels_never_hold_a_weight_matrix(depth, width, megabytes):
    """Peak memory grows by a fraction of what one m x m matrix takes (512 MB), or the activations of 10^6 neurons (128 MB)."""
    code = f"""
import resource, sys, ntksim, numpy as np
x = np.ones((16, 2))
def peak(width):
    ntksim.empirical_ntk(ntksim.Network({depth}, width), x, seeds=[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak(600)
sys.exit(peak({width}) - before > {megabytes})
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_sum_over_layers_is_the_kernel():
    """Each layer's share by freezing: a linear network's kernel is the sum of L+1 products of matrices."""
    network = ntksim.Network(2, (8, 6), "linear")
    g, _, (w1, w2), _, a, _ = oracle_arguments(network, 3, 2)
    x = POINTS
    share_a = g[2] ** 2 * (g[0] * g[1]) ** 2 * (x @ w1.T @ w2.T) @ (x @ w1.T @ w2.T).T
    share_2 = (g[2] * g[1]) ** 2 * (a @ a) * g[0] ** 2 * (x @ w1.T) @ (x @ w1.T).T
    share_1 = (g[2] * g[1] * g[0]) ** 2 * np.sum((a @ w2) ** 2) * x @ x.T
    assert_close(ntksim.empirical_ntk(network, x, seeds=[2])[0], share_a + share_2 + share_1, ROUND_OFF["float64"])


IMAGES = np.random.default_rng(6).normal(size=(3, 2, 4))
ONE, Y = ntksim.Network(1, 8), np.array([1.0, -1.0, 0.5])
FLOW = {"seeds": [0], "times": [0.0, 0.5]}
GIVEN = ntksim.sample_parameters(ONE, 8, 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: ntksim.empirical_ntk(ONE, x, x, seeds=[0]),
        lambda x: ntksim.empirical_ntk(ONE, x, parameters=GIVEN),
        lambda x: ntksim.network_outputs(ONE, x, seeds=[0]),
        lambda x: ntksim.infinite_kernel(ONE, x, x).ntk,
        lambda x: ntksim.infinite_ensemble(ONE, x, Y, [1.0], x_test=x).test_mean,
        lambda x: ntksim.one_hidden_layer_variance(ONE, x),
        lambda x: ntksim.train(ONE, x, Y, x_test=x, **FLOW).test_outputs,
        lambda x: ntksim.NTKRegressor().fit(x, Y).predict(x),
        lambda x: ntksim.NTKClassifier().fit(x, [0, 1, 2]).decision_function(x),
        lambda x: ntksim.NNGPRegressor(alpha=0.1).fit(x, Y).predict(x),
        lambda x: ntksim.NetworkKernel()(x, x),
        lambda x: ntksim.NetworkKernel().diag(x),
    ],
)
def test_all_functions_flatten_images_with_a_warning(call):
    with pytest.warns(
        UserWarning, match=r"(x|x1|x2|x_test|X): images of shape \(2, 4\) are flattened to 8 features each"
    ) as caught:
        found = call(IMAGES)
    assert {own.filename for own in caught} == {__file__}  # the line to mend is the caller's
    np.testing.assert_array_equal(found, call(IMAGES.reshape(3, 8)))


@pytest.mark.parametrize("shape", [(3, 4, 2), (3, 2, 2, 2)])
def test_images_are_flattened_with_a_warning(shape):
    images = np.random.default_rng(6).normal(size=shape)
    network = ntksim.Network(1, 8)
    with pytest.warns(UserWarning, match=r"x1: images of shape .* are flattened to 8 features each"):
        found = ntksim.empirical_ntk(network, images, seeds=[0])
    np.testing.assert_array_equal(found, ntksim.empirical_ntk(network, images.reshape(3, 8), seeds=[0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x1": np.ones(3)}, "x1 must have shape"),
        ({"x1": np.array([[1.0, np.nan]])}, "x1 must be finite; 1 of 2"),
        ({"x1": "abc"}, "x1 must be an array of real numbers"),
        ({"x1": np.ones((5, 2, 2, 2, 2))}, r"x1 must have shape \(points, features\), .*; got shape \(5, 2, 2, 2, 2\)"),
        ({"x1": np.ma.masked_less(POINTS, 0)}, r"x1 must be an array without a mask, .* or fill them in with .filled"),
        ({"x1": np.ma.array(POINTS)}, "x1 must be an array without a mask"),
        ({"x1": list(np.ma.masked_less(POINTS, 0))}, "x1 must be an array without a mask"),
        ({"x2": np.ones((2, 5))}, "x2 must have 3 features"),
        ({"seeds": []}, "seeds must hold at least one"),
        ({"seeds": [-1]}, "seeds must be from 0"),
        ({"seeds": [1.5]}, "seeds must be integers"),
        ({"seeds": 3}, "seeds must be a sequence"),
        ({"dtype": "float16"}, "dtype must be one of float64, float32"),
        ({"x1": np.full((2, 3), 1e39), "dtype": "float32"}, "points must be at most 3.4e.38 in size"),
        ({"device": "tpu"}, "device must be one of cpu, cuda, auto; got 'tpu'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    good = {"x1": POINTS, "seeds": [0]}
    with pytest.raises((TypeError, ValueError), match=message):
        ntksim.empirical_ntk(ntksim.Network(1, 4), **(good | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width must be at least 1"),
        ({"width": (3, 4, 5)}, "width must give 2 numbers"),
        ({"width": 2.5}, "width must be an integer"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"depth": True}, "depth must be an integer"),
        ({"activation": "swish"}, "activation must be one of abs, cos, .*, softplus, tanh; got 'swish'"),
        ({"parameterization": "x"}, "parameterization must be one of ntk, notes, standard, mup, mean_field, abc; got 'x'"),
        ({"sigma_w": -1.0}, "sigma_w must be finite and positive"),
        ({"sigma_b": float("nan")}, "sigma_b must be finite"),
        ({"output_bias": True}, "output_bias=True needs biases"),
        ({"output_bias": True, "sigma_b": 1.0, "parameterization": "notes"}, "does not exist in parameterization 'notes'"),
    ],
)
def test_bad_networks_are_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ntksim.Network(**({"depth": 2, "width": 4} | arguments))
