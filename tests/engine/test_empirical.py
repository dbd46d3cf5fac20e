"""Finite networks against the oracle: explicit Jacobians for every parameterization, activation and choice of biases."""

import os
import subprocess
import sys

import naive
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


def test_wide_layers_cross_tiles():
    """Widths beyond one tile in both directions, with ragged ends."""
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


def test_bits_do_not_depend_on_threads_or_split():
    import numba

    x = np.random.default_rng(5).normal(size=(6, 4))
    network = ntksim.Network(2, 700, "tanh")
    whole = ntksim.empirical_ntk(network, x, seeds=range(5))
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        single = ntksim.empirical_ntk(network, x, seeds=range(5))
    finally:
        numba.set_num_threads(before)
    parts = [ntksim.empirical_ntk(network, x, seeds=block) for block in ([4], [0, 1], [3, 2])]
    assert (whole == single).all()
    assert (whole[[4, 0, 1, 3, 2]] == np.concatenate(parts)).all()


def test_initial_kernels_never_hold_a_weight_matrix():
    """Peak memory of a width whose square would take 512 MB grows by a fraction of that."""
    import subprocess
    import sys

    code = """
import resource, sys, ntksim
def peak(width):
    ntksim.empirical_ntk(ntksim.Network(2, width), [[1.0, 2.0]], seeds=[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak(16)
sys.exit(peak(8192) - before > 60)
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x1": np.ones(3)}, "x1 must have shape"),
        ({"x1": np.array([[1.0, np.nan]])}, "x1 must be finite; 1 of 2"),
        ({"x1": "abc"}, "x1 must be an array of real numbers"),
        ({"x2": np.ones((2, 5))}, "x2 must have 3 features"),
        ({"seeds": []}, "seeds must hold at least one"),
        ({"seeds": [-1]}, "seeds must be from 0"),
        ({"seeds": [1.5]}, "seeds must be integers"),
        ({"seeds": 3}, "seeds must be a sequence"),
        ({"dtype": "float16"}, "dtype must be one of float64, float32"),
        ({"device": "tpu"}, "device must be 'cpu'"),
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
        ({"activation": "swish"}, "activation must be one of relu, erf, tanh, linear, leaky_relu, abs, gelu, sin; got 'swish'"),
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


def test_processes_may_fill_an_empty_cache_together(tmp_path):
    """Two processes, two activations and precisions, one empty cache: each gets its own numbers, then and from a warm one."""
    code = """
import sys, ntksim
network = ntksim.Network(1, 8, sys.argv[1])
print(repr(float(ntksim.network_outputs(network, [[0.3, -0.7]], seeds=[1], dtype=sys.argv[2])[0, 0])))
"""
    cases = [("tanh", "float32"), ("sin", "float64")]
    options = {"env": os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}, "stdout": subprocess.PIPE, "text": True}
    for _ in range(2):
        runs = [subprocess.Popen([sys.executable, "-c", code, *case], **options) for case in cases]
        for (activation, dtype), run in zip(cases, runs, strict=True):
            found = float(run.communicate()[0])
            assert found == ntksim.network_outputs(ntksim.Network(1, 8, activation), [[0.3, -0.7]], seeds=[1], dtype=dtype)[0, 0]
