"""Networks in law: exactly the networks of their draws, in law those of weights, and bits that nothing but the inputs changes."""

import itertools
import math
import os
import subprocess
import sys

import llvmlite.binding as llvm
import naive
import numpy as np
import pytest
from cases import NETWORKS, POINTS, label, oracle_arguments, powers
from test_empirical import threads
from tolerances import ROUND_OFF, assert_close

import ntksim
from ntksim.engine import known_answers
from ntksim.engine.conditional import networks
from ntksim.engine.conditional.layout import COLUMNS, CONDITIONED, CUT, KEPT, ROWS, make_law
from ntksim.engine.cpu.compiled_network import compiled_network

# Relative, for Gram matrices of condition numbers up to 1e5; beyond, 1e-15 times those where that is more.
EXACT = {"float64": 1e-10, "float32": 1e-4}
SEVERAL = [
    ntksim.Network(1, 9, "relu", "notes", 1.3, 0.9, outputs=3),
    ntksim.Network(3, (17, 22, 15), "tanh", "ntk", 1.3, 0.9, 0.4, True, 1.6, outputs=3),
    ntksim.Network(2, (15, 8), "erf", "standard", 1.3, 0.9, 0.0, True, outputs=3),
    ntksim.Network(2, 7, "gelu", "mup", 1.3, 0.9, 0.4, outputs=2),
]


def sample(network, x1, x2=None, *, seeds, dtype="float64", form="full", force=None):
    """Outputs (S, n1, k), kernels (S, blocks, n1, n2) and the ways of layers."""
    k, rows, cols = network.outputs, len(x1), len(x1 if x2 is None else x2)
    outputs = np.empty((len(seeds), rows, k), dtype)
    kernels = np.empty((len(seeds), 1, k * rows, k * cols) if form == "full" else (len(seeds), k, rows, cols), dtype)
    ways = networks.evaluate(network, x1, x2, np.array(seeds, np.uint64), outputs, kernels, force)
    return outputs, kernels, ways


def exact(network, x, seed, ways, dtype):
    """Assert that the sampled outputs and kernel are those of explicit matrices that have the sampler's draws."""
    outputs, kernels, ran = sample(network, x, seeds=[seed], dtype=dtype, force=ways)
    assert ran == ways
    (*shared, readouts, c), condition = explicit(network, x, seed, ways, dtype)
    tolerance = max(EXACT[dtype], 1e-15 * condition)
    values = [naive.output(naive.PHI[network.activation][0], *shared, a, b, x) for a, b in zip(readouts, c, strict=True)]
    assert_close(outputs[0], np.array(values).T, tolerance)
    bias, own = network.sigma_b is not None, readouts.shape[1] + network.output_bias
    jacobians = np.array(
        [
            naive.jacobian(network.activation, *shared, a, b, x, bias, network.output_bias)
            for a, b in zip(readouts, c, strict=True)
        ]
    )
    kernel = np.einsum("aip,bjp->iajb", jacobians[..., own:], jacobians[..., own:])
    for a, j in enumerate(jacobians[..., :own]):
        kernel[:, a, :, a] += j @ j.T
    assert_close(kernels[0, 0], kernel.reshape(kernels.shape[2:]), tolerance)


def explicit(network, x, seed, ways, dtype):
    """The oracle's arguments of a network that the draws leave possible, and the worst condition number of a Gram matrix."""
    g, beta, weights, biases, readouts, c = oracle_arguments(network, x.shape[1], seed)
    readouts, cut, worst = readouts.reshape(network.outputs, -1), CUT[dtype], 1.0
    scales = naive.initial_scales(
        network.parameterization, x.shape[1], network.widths, network.sigma_w, network.sigma_a, powers(network)
    )
    phi, slope = naive.PHI[network.activation]
    rng = np.random.default_rng(seed)
    rests = [rng.normal(size=w.shape) for w in weights]
    h, slopes, draws = [x.T], [], []
    for layer, way in enumerate(ways, 1):
        draws.append(networks.draws(network, layer, len(x), seed))
        if way == CONDITIONED:
            r, _, condition = naive.orthonormal(h[-1], cut)
            product = scales[layer - 1] * draws[-1][0] @ r
            worst = max(worst, condition)
        else:
            product = weights[layer - 1] @ h[-1]
        z = g[layer - 1] * product + beta[layer - 1] * biases[layer - 1][:, None]
        h.append(phi(z))
        slopes.append(slope(z))
    delta = np.concatenate([g[-1] * a[:, None] * slopes[-1] for a in readouts], axis=1)
    for layer in range(len(ways), 0, -1):
        if ways[layer - 1] == CONDITIONED:
            left, right = draws[layer - 1]
            if layer == 1:
                delta, right = np.zeros((len(left), 1)), np.zeros((x.shape[1], 1))
            w, condition = naive.matrix_of_draws(left, right, h[layer - 1], delta, rests[layer - 1], cut)
            weights[layer - 1], worst = scales[layer - 1] * w, max(worst, condition)
        if layer > 1:
            delta = g[layer - 1] * (weights[layer - 1].T @ delta) * np.tile(slopes[layer - 2], network.outputs)
    return (g, beta, weights, biases, readouts, np.broadcast_to(c, network.outputs)), worst


# --- exactly the networks of their draws ------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS, ids=label)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_network_is_that_of_its_draws(network, dtype):
    """Fewer points than inputs and neurons, and more points than inputs and, with the sets below, than neurons."""
    for x in (np.random.default_rng(2).normal(size=(3, 6)), POINTS):
        exact(network, x, 7, (CONDITIONED,) * network.depth, dtype)


@pytest.mark.parametrize("network", SEVERAL, ids=label)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_several_outputs(network, dtype):
    exact(network, POINTS, 2**40 + 3, (CONDITIONED,) * network.depth, dtype)
    several, first = network, ntksim.Network(
        network.depth, network.width, network.activation, network.parameterization, network.sigma_w, network.sigma_a,
        network.sigma_b, network.output_bias, network.output_scale,
    )  # fmt: skip
    options = {"seeds": range(3), "dtype": dtype, "force": (CONDITIONED,) * network.depth}
    f, kernels, _ = sample(several, POINTS, form="diagonal", **options)
    full = sample(several, POINTS, **options)[1].reshape(3, 5, network.outputs, 5, network.outputs)
    assert (np.einsum("siaja->saij", full) == kernels).all()
    assert (full == full.transpose(0, 3, 4, 1, 2)).all()
    g, alone, _ = sample(first, POINTS, **options)
    assert_close(f[..., :1], g, ROUND_OFF[dtype])
    assert_close(kernels[:, 0], alone[:, 0], ROUND_OFF[dtype])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "ways", list(itertools.product((CONDITIONED, ROWS), (CONDITIONED, ROWS, COLUMNS), (CONDITIONED, COLUMNS)))
)
def test_layers_by_weights_beside_conditioned_ones(ways, dtype):
    exact(ntksim.Network(3, (14, 9, 33), "gelu", sigma_b=0.3, outputs=2), POINTS[:4], 5, ways, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("ways", [(ROWS, ROWS, ROWS), (ROWS, COLUMNS, ROWS), (ROWS, ROWS, COLUMNS)])
def test_weights_in_every_layer_are_the_network_of_weights(ways, dtype):
    """Over panels and chunks with ragged ends, these sweeps give what the other ones do."""
    network = ntksim.Network(3, (140, 30, 1100), "tanh", sigma_b=0.2, outputs=2)
    outputs, kernels, _ = sample(network, POINTS, seeds=[3, 4], dtype=dtype, force=ways)
    expected = ntksim.empirical_ntk(network, POINTS, seeds=[3, 4], dtype=dtype)
    assert_close(kernels[:, 0], expected.reshape(2, 10, 10), ROUND_OFF[dtype])
    assert_close(outputs, ntksim.network_outputs(network, POINTS, seeds=[3, 4], dtype=dtype), 10 * ROUND_OFF[dtype])


def test_wide_layers_cross_panels_and_chunks():
    exact(ntksim.Network(2, (1030, 517), "erf", sigma_b=0.2), POINTS, 11, (CONDITIONED, CONDITIONED), "float64")


RNG = np.random.default_rng(8)
SETS = {
    "single": RNG.normal(size=(1, 3)),
    "zero": np.concatenate([np.zeros((1, 3)), RNG.normal(size=(3, 3))]),
    "all_zero": np.zeros((1, 3)),
    "nearly_parallel": RNG.normal(size=(1, 3)) * np.array([[1.0], [1.0 + 1e-9], [2.0], [1e-7]]) + 1e-4 * RNG.normal(size=(4, 3)),
    "more_than_neurons": RNG.normal(size=(30, 3)),
}


@pytest.mark.parametrize("points", SETS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "linear"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_awkward_points(points, activation, dtype):
    exact(ntksim.Network(3, (12, 9, 14), activation, sigma_w=1.4, sigma_b=0.2), SETS[points], 3, (CONDITIONED,) * 3, dtype)
    exact(ntksim.Network(2, (12, 9), activation, sigma_w=1.4), SETS[points], 3, (CONDITIONED,) * 2, dtype)


def test_known_answers_are_those_of_explicit_matrices():
    for (activation, width), right in known_answers.IN_LAW.items():
        network, x = known_answers.network_of(activation, width), known_answers.POINTS
        assert networks.chosen_ways(network, 3, 2) == (CONDITIONED, CONDITIONED)
        (*shared, (a,), (c,)), _ = explicit(network, x, known_answers.SEED, (CONDITIONED,) * 2, "float64")
        rows = naive.jacobian(activation, *shared, a, c, x, True, True)
        k, outputs = rows @ rows.T, naive.output(naive.PHI[activation][0], *shared, a, c, x)
        assert_close([*outputs, k[0, 0], k[0, 1], k[1, 1]], right, 1e-11)


# --- in law, the networks of weights ----------------------------------------------------------------------------------

X, Y = RNG.normal(size=(3, 4)), RNG.normal(size=(2, 4))
IN_LAW = [
    (ntksim.Network(3, 24, "relu", sigma_w=1.4), X, None),
    (ntksim.Network(2, (8, 12), "tanh", "ntk", 1.5, 0.8, 0.4, True, 1.3), X, None),
    (ntksim.Network(2, (16, 9), "gelu", "notes", sigma_b=0.0), X, None),
    (ntksim.Network(3, (10, 64, 8), "erf", "standard", sigma_b=0.3), X[:2], Y),
    (ntksim.Network(3, 8, "abs", "mup", sigma_b=0.5), X[:2], Y[:1]),
    (ntksim.Network(2, (12, 8), "leaky_relu", sigma_w=1.4, outputs=2), X[:2], None),
    (ntksim.Network(2, 8, "sin", sigma_w=1.2), X, None),
    (ntksim.Network(4, 8, "linear"), X[:2], None),
    (ntksim.Network(2, (8, 10), "relu", "standard"), np.concatenate([X, Y, X + Y[0], X - Y[1]])[:11, :3], None),
]


# Of the nearly parallel points two are 1e-4 apart, and two closer than what is told apart.
AWKWARD = {
    "duplicates": (X[[0, 1, 0]], X[[1, 1]]),
    "zero": (np.concatenate([0 * X[:1], X[:2]]), None),
    "single": (X[:1], None),
    "nearly_parallel": (np.concatenate([SETS["nearly_parallel"][:2], SETS["nearly_parallel"][:1] * (1 + 1e-9)]), None),
}


def statistics(outputs, kernels, symmetric):
    """Outputs and kernel entries that differ, (S, p); of 11 points, some."""
    rows, cols = np.triu_indices(kernels.shape[2]) if symmetric else np.indices(kernels.shape[2:]).reshape(2, -1)
    return np.concatenate([outputs.reshape(len(outputs), -1)[:, :6], kernels[:, 0, rows, cols][:, :10]], axis=1)


@pytest.mark.parametrize(("network", "x1", "x2"), IN_LAW, ids=lambda case: label(case) if hasattr(case, "depth") else None)
def test_moments_are_those_of_weights(network, x1, x2):
    """Means, second and third moments of 20,000 networks each way; every layer is conditioned, in the last case at more
    points than neurons.

    At most 1,000 statistics a case, and nine cases; |z| below 5.5 each: false alarm 4e-4.
    """
    assert_moments(network, x1, x2, 20_000)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("points", AWKWARD)
def test_moments_at_awkward_points(points, activation):
    """The same of 10,000 networks each way, with biases that start at 0, so that a zero point stays one in every layer.

    At most 219 statistics each, 1,113 in all; |z| below 5.5: false alarm 4e-5.
    """
    assert_moments(ntksim.Network(3, (10, 8, 9), activation, "notes", 1.4, sigma_b=0.0), *AWKWARD[points], 10_000)


def assert_moments(network, x1, x2, count):
    """First to third moments of ``count`` networks in law against as many of weights."""
    ways = [(CONDITIONED,) * network.depth, (ROWS,) * network.depth]
    samples = []
    for begin, force in zip((0, count), ways, strict=True):
        outputs, kernels, ran = sample(network, x1, x2, seeds=range(begin, begin + count), force=force)
        assert ran == force
        samples.append(statistics(outputs, kernels, x2 is None))
    pooled = np.concatenate(samples)
    centre, spread = pooled.mean(axis=0), pooled.std(axis=0)
    varying = spread > 0  # outputs and kernels of a zero point are 0 both ways
    samples = [((values - centre)[:, varying] / spread[varying]) for values in samples]
    for order in (1, 2, 3):
        for entries in itertools.combinations_with_replacement(range(varying.sum()), order):
            a, b = (np.prod(values[:, entries], axis=1) for values in samples)
            z = (a.mean() - b.mean()) / math.sqrt((a.var() + b.var()) / count)
            assert abs(z) < 5.5, (entries, z)


@pytest.mark.parametrize("kind", ["ntk", "notes", "standard"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_exact_law_of_one_hidden_layer(kind, activation):
    """40,000 networks of width 16 at 3 points of 4 features; 6 standard errors, 18 entries, 6 cells: false alarm 2e-7."""
    network = ntksim.Network(1, 16, activation, kind, 1.2, 0.9, 0.4)
    kernels = ntksim.empirical_ntk(network, X, seeds=range(40_000), sampling="conditional")
    assert (kernels[:9] != ntksim.empirical_ntk(network, X, seeds=range(9))).any(axis=(1, 2)).all()
    errors = kernels - ntksim.infinite_kernel(network, X).ntk
    assert (np.abs(errors.mean(axis=0)) < 6 * errors.std(axis=0) / 200).all()
    squares, expected = errors**2, ntksim.one_hidden_layer_variance(network, X)
    assert (np.abs(squares.mean(axis=0) - expected) < 6 * squares.std(axis=0) / 200).all()


# --- one network for one set of points --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_outputs_and_kernels_are_of_one_network(dtype):
    network = ntksim.Network(2, (90, 83), "relu", sigma_b=0.1, outputs=2)
    options = {"seeds": range(3), "dtype": dtype, "sampling": "conditional"}
    x = np.concatenate([X, Y, [[0.0, 0.0, 0.0, -0.0]]])
    outputs, kernels, ways = sample(network, x, seeds=range(3), dtype=dtype)
    assert ways == (ROWS, CONDITIONED)
    kernel = ntksim.empirical_ntk(network, x, **options)
    assert (kernel.reshape(3, 12, 12) == kernels[:, 0]).all()
    assert (ntksim.network_outputs(network, x, **options) == outputs).all()
    assert (ntksim.empirical_ntk(network, x, x, **options) == kernel).all()
    # the same points in this order, however they are shared between x1 and x2, and however often they are asked for
    assert (ntksim.empirical_ntk(network, x[:4], x[4:], **options) == kernel[:, :4, :, 4:]).all()
    again, which = x[[0, 1, 1, 2, 0, 3, 4, 5, 5]] + 0.0, [0, 1, 1, 2, 0, 3, 4, 5, 5]
    assert (ntksim.empirical_ntk(network, again, x, **options) == kernel[:, which]).all()
    assert (ntksim.network_outputs(network, again, **options) == outputs[:, which]).all()
    assert (ntksim.empirical_ntk(network, x[::-1], **options)[:, ::-1, :, ::-1] != kernel).any()
    for form in ("diagonal", "trace"):
        expected = np.einsum("siaja->sija", kernel) if form == "diagonal" else np.einsum("siaja->sij", kernel)
        assert_close(ntksim.empirical_ntk(network, x, form=form, **options), expected, ROUND_OFF[dtype])


def test_precisions_and_activations_share_their_draws():
    options = {"seeds": range(3), "sampling": "conditional"}
    single, double = (ntksim.empirical_ntk(ntksim.Network(3, 90, "gelu"), X, dtype=d, **options) for d in ("float32", "float64"))
    assert_close(single, double, 1e-5)
    one, two = (ntksim.network_outputs(ntksim.Network(1, 30, a, sigma_w=1e-6), X, **options) for a in ("tanh", "linear"))
    assert_close(one, two, 1e-9)


@pytest.mark.parametrize(
    ("depth", "width", "features", "points", "outputs", "expected"),
    [
        (3, 4096, 64, 64, 1, (ROWS, CONDITIONED, CONDITIONED)),
        (3, 4096, 65, 64, 1, (CONDITIONED, CONDITIONED, CONDITIONED)),
        (2, 511, 2, 64, 1, (ROWS, ROWS)),
        (2, 512, 2, 64, 1, (ROWS, CONDITIONED)),
        (2, 512, 2, 64, 2, (ROWS, ROWS)),
        (4, (10**6, 64, 10**6, 10**6), 8, 16, 2, (ROWS, COLUMNS, ROWS, CONDITIONED)),
    ],
)
def test_which_layers_are_conditioned(depth, width, features, points, outputs, expected):
    assert networks.chosen_ways(ntksim.Network(depth, width, outputs=outputs), features, points) == expected


def test_the_chosen_way_runs():
    """Where every layer is cheaper by its weights, they are those of `weights`; the number of different points counts."""
    x, options = RNG.normal(size=(21, 8)), {"seeds": range(2), "sampling": "conditional"}
    network = ntksim.Network(2, (60, 45), outputs=2)
    assert (ntksim.empirical_ntk(network, x, **options) == ntksim.empirical_ntk(network, x, seeds=range(2))).all()
    assert sample(network, x, seeds=[0])[2] == ()
    assert sample(network, x[[0, 1] * 10], seeds=[0])[2] == (CONDITIONED, CONDITIONED)
    assert sample(ntksim.Network(1, 60), x, seeds=[0])[2] == ()
    assert sample(ntksim.Network(1, 60), x[:7], seeds=[0])[2] == (CONDITIONED,)


# --- bits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("widths", [(1700,), (530, 2301), (1300, 600, 1100)])
def test_bits_do_not_depend_on_threads_or_split(widths, dtype):
    x = np.random.default_rng(5).normal(size=(21, 24))
    network = ntksim.Network(len(widths), widths, "tanh", sigma_b=0.1)
    options = {"dtype": dtype, "sampling": "conditional"}
    whole = ntksim.empirical_ntk(network, x, seeds=range(3), **options)
    outputs = ntksim.network_outputs(network, x, seeds=range(3), **options)
    with threads(1):
        assert (ntksim.empirical_ntk(network, x, seeds=range(3), **options) == whole).all()
        assert (ntksim.network_outputs(network, x, seeds=range(3), **options) == outputs).all()
    parts = [ntksim.empirical_ntk(network, x, seeds=block, **options) for block in ([2], [1, 0])]
    assert (whole[[2, 1, 0]] == np.concatenate(parts)).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_bits_do_not_depend_on_what_is_kept(dtype, monkeypatch):
    network = ntksim.Network(3, 300, "gelu", sigma_b=0.1)
    kept = sample(network, X, seeds=[1], dtype=dtype)
    monkeypatch.setitem(KEPT, dtype, 0)
    again = sample(network, X, seeds=[1], dtype=dtype)
    assert (kept[0] == again[0]).all()
    assert (kept[1] == again[1]).all()


@pytest.mark.parametrize(("dtype", "kept"), [("float32", [1, 2]), ("float64", [])])
def test_small_panels_are_kept(dtype, kept):
    """Three layers of 4,096 at 64 points have panels of 2^20 numbers a layer, of which all but the last may be kept."""
    net = compiled_network(ntksim.Network(3, 4096), 64)
    law = make_law(net, np.array([ROWS, ROWS, CONDITIONED, CONDITIONED]), 64, 64, True, np.dtype(dtype))
    assert np.flatnonzero(law.kept).tolist() == kept
    assert law.place[2] == (law.size[1] * 4096 // law.panel if kept else 0)


FEATURES = llvm.get_host_cpu_features()
BITS = """
import numpy as np
from ntksim.engine.formulas.blocks import phi_of
from ntksim.engine.conditional.sweeps import evaluate_seeds
from ntksim.engine.conditional.layout import CONDITIONED, CUT, ROWS, make_law, make_room
from ntksim.engine.layout import Net, padded
from ntksim.engine.cpu.product import _BYTES, padded_points
widths, x, rows = np.array([7, 150, 40, 600, 2]), np.random.default_rng(0).normal(size=(7, 19)), np.arange(19)
net = Net(np.uint32(5), *phi_of("gelu")[:4], widths, np.array([padded(int(w)) for w in widths]), np.full((5, 4), 0.3), 0)
for kind in ("float32", "float64"):
    lanes = padded_points(19, np.dtype(kind).itemsize)
    columns, outputs, kernels = np.zeros((7, lanes), kind), np.empty((1, 19, 2), kind), np.empty((1, 1, 38, 38), kind)
    columns[:, :19] = x
    law = make_law(net, np.array([ROWS, CONDITIONED, ROWS, CONDITIONED]), 19, lanes, True, np.dtype(kind))
    room, seeds = make_room(net, law, columns, 1), np.array([3], np.uint64)
    evaluate_seeds(1, 0, 1, seeds, net, law, room, columns.ravel(), CUT[kind], rows, rows, outputs, kernels)
    print(outputs.tobytes().hex(), kernels.tobytes().hex())
print(_BYTES)
"""


@pytest.mark.skipif(not FEATURES.get("avx512f"), reason="needs a processor with 512-bit vectors")
def test_shorter_vectors_give_the_same_bits(tmp_path):
    """Compiled for 256-bit vectors, as on a cluster of mixed processors."""
    script = tmp_path / "bits.py"
    script.write_text(BITS)
    short = ",".join(("+" if has and "avx512" not in name else "-") + name for name, has in FEATURES.items())
    settings = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": short, "NUMBA_CACHE_DIR": str(tmp_path)}
    seen = []
    for extra in ({}, settings):
        command = [sys.executable, script]
        seen.append(subprocess.run(command, env=os.environ | extra, stdout=subprocess.PIPE, text=True, check=True).stdout.split())
    assert seen[0][:-1] == seen[1][:-1]
    assert [words[-1] for words in seen] == ["64", "32"]


# --- memory, and arguments --------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_width():
    """Peak memory at a width of 200,000 is within 4 MB of that at 2,000: one row a neuron of 16 points would take 26 MB."""
    code = """
import resource, sys, ntksim, numpy as np
x = np.random.default_rng(0).normal(size=(16, 20))
def peak(width):
    ntksim.empirical_ntk(ntksim.Network(2, width), x, seeds=[0], sampling="conditional")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak(2000)
sys.exit(peak(200_000) - before > 4)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_networks_that_overflow_are_not_finite():
    """An infinite Gram matrix has no directions to drop."""
    network = ntksim.Network(3, 30, "relu", "standard", sigma_w=1e16)
    with pytest.warns(RuntimeWarning, match="kernels of seed 0 overflow float32"):
        kernel = ntksim.empirical_ntk(network, X, seeds=[0], dtype="float32", sampling="conditional")
    assert not np.isfinite(kernel).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling": "law"}, "sampling must be one of weights, conditional; got 'law'"),
        ({"sampling": "conditional", "device": "tpu"}, "device must be one of cpu, cuda, auto; got 'tpu'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    for function in (ntksim.empirical_ntk, ntksim.network_outputs):
        with pytest.raises(ValueError, match=message):
            function(ntksim.Network(2, 40), X, seeds=[0], **arguments)
