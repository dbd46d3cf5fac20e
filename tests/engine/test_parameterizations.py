"""Powers of the width: what mup, mean_field and abc share with each other and with ntk and standard."""

import dataclasses
import math

import numpy as np
import pytest
from cases import ODD, POINTS
from naive import rate_factor
from tolerances import assert_close

import ntksim

NTK = ntksim.ABC(0, 0.5, 0.5, 0, 0, 0, 0)
SP = ntksim.ABC(0, 0, 0, 0, 0.5, 0.5, 1)
MUP = ntksim.ABC(-0.5, 0, 0.5, 0.5, 0.5, 0.5, 0)
TARGETS = np.array([1.0, -1.0, 0.5, 0.0, -0.3])
SEEDS = range(3)


def network(kind, depth=2, width=64, abc=None, **options):
    options = {"activation": "tanh", "sigma_w": 1.3, "sigma_a": 0.8, "sigma_b": 0.4} | options
    return ntksim.Network(depth, width, parameterization=kind, abc=abc, **options)


def shifted(abc, theta):
    """(a + theta, b - theta, c - 2 theta)."""
    shifts = {"a": theta, "b": -theta, "c": -2 * theta}
    return ntksim.ABC(**{name: value + shifts[name[0]] for name, value in dataclasses.asdict(abc).items()})


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("width", [7, 64, 100])
@pytest.mark.parametrize("depth", [1, 3])
def test_ntk_exponents_are_ntk_to_the_bit(depth, width, dtype):
    one, two = network("ntk", depth, width, output_scale=1.7), network("abc", depth, width, NTK, output_scale=1.7)
    for field in dataclasses.fields(one.scales(3)):
        assert (getattr(one.scales(3), field.name) == getattr(two.scales(3), field.name)).all()
    for function in (ntksim.empirical_ntk, ntksim.network_outputs):
        assert (function(one, POINTS, seeds=SEEDS, dtype=dtype) == function(two, POINTS, seeds=SEEDS, dtype=dtype)).all()
    assert (ntksim.infinite_kernel(one, POINTS).ntk == ntksim.infinite_kernel(two, POINTS).ntk).all()
    runs = [ntksim.train(each, POINTS, TARGETS, seeds=SEEDS, times=[0, 1.0], dtype=dtype) for each in (one, two)]
    assert (runs[0].outputs == runs[1].outputs).all()


def test_standard_exponents_have_the_outputs_of_standard():
    """To the bit where every scale is a power of 2, elsewhere to the rounding of the float32 weights; not its kernel."""
    exact = {"sigma_w": 2.0, "sigma_a": 0.5, "sigma_b": 0.25, "width": 64}
    x = np.random.default_rng(2).normal(size=(5, 4))
    one, two = (ntksim.network_outputs(network(kind, abc=abc, **exact), x, seeds=SEEDS) for kind, abc in
                (("standard", None), ("abc", SP)))  # fmt: skip
    assert (one == two).all()
    networks = network("standard", width=50), network("abc", width=50, abc=SP)
    one, two = (ntksim.network_outputs(each, POINTS, seeds=SEEDS) for each in networks)
    assert_close(one, two, 1e-6)
    one, two = (ntksim.infinite_kernel(each, POINTS) for each in networks)
    assert_close(one.nngp, two.nngp, 1e-13)
    assert np.abs(one.ntk - two.ntk).max() > 0.1 * np.abs(one.ntk).max()


@pytest.mark.parametrize("kind", ["mup", "mean_field"])
def test_presets_are_exponents(kind):
    abc = MUP if kind == "mup" else ntksim.ABC(0, 7.5, 1, 0, 0.1, 0, -1)  # one hidden layer has no hidden exponents
    one, two = network(kind, 1), network("abc", 1, abc=abc)
    for function in (ntksim.empirical_ntk, ntksim.network_outputs):
        assert (function(one, POINTS, seeds=SEEDS) == function(two, POINTS, seeds=SEEDS)).all()
    assert one.learning_rate_scale == two.learning_rate_scale == rate_factor(kind, (64,)) == (1 if kind == "mup" else 64)
    assert one.exponents is not None
    assert one.abc is None


@pytest.mark.parametrize("kind", ["ntk", "notes", "standard"])
def test_other_parameterizations_have_no_exponents(kind):
    assert network(kind).exponents is None
    assert network(kind).learning_rate_scale == 1


@pytest.mark.parametrize("method", ["gradient_flow", "gradient_descent"])
@pytest.mark.parametrize("abc", [NTK, SP, MUP, ODD])
@pytest.mark.parametrize(("theta", "tolerance"), [(0.5, 1e-12), (-1.0, 1e-12), (0.31, 1e-6)])
def test_shifted_exponents_are_the_same_network(abc, theta, tolerance, method):
    """Where the shift is a power of 2 to round-off, elsewhere to the rounding of the float32 weights; training too."""
    one, two = network("abc", abc=abc), network("abc", abc=shifted(abc, theta))
    assert_close(*(ntksim.network_outputs(each, POINTS, seeds=SEEDS) for each in (one, two)), tolerance)
    effective = [each.learning_rate_scale * ntksim.empirical_ntk(each, POINTS, seeds=SEEDS) for each in (one, two)]
    assert_close(*effective, tolerance)
    limits = [each.effective(ntksim.infinite_kernel(each, POINTS).ntk) for each in (one, two)]
    assert_close(*limits, 1e-12)
    assert_close(*(ntksim.infinite_kernel(each, POINTS).nngp for each in (one, two)), 1e-12)
    options = {"times": [0, 1 / np.linalg.eigvalsh(limits[0])[-1]], "x_test": POINTS[:2] + 0.1} | (
        {} if method == "gradient_flow" else {"learning_rate": 0.05 / np.linalg.eigvalsh(limits[0])[-1]}
    )
    runs = [ntksim.train(each, POINTS, TARGETS, seeds=SEEDS, method=method, **options) for each in (one, two)]
    for name in ("outputs", "test_outputs", "kernel_drift", "parameter_drift", "times"):
        assert_close(getattr(runs[0], name), getattr(runs[1], name), 100 * tolerance)


@pytest.mark.parametrize("width", [64, 30])
@pytest.mark.parametrize("depth", [1, 3])
def test_mup_is_ntk_with_outputs_over_the_root_of_the_width(depth, width):
    """mup shifted by 1/2 is a = (0, 1/2, 1), b = 0, c = -1: ntk with f / sqrt(n), trained n times as long; so is mean_field.

    Width 64 to round-off, as its weights are scaled by powers of 2; width 30 to the rounding of float32 weights.
    """
    tolerance = 1e-12 if width == 64 else 1e-5
    small = network("ntk", depth, width, output_scale=1.3 / math.sqrt(width))
    times = np.array([0, 0.1, 1.0, np.inf])
    expected = ntksim.train(small, POINTS, TARGETS, seeds=SEEDS, times=width * times)
    for kind in ("mup", "mean_field") if depth == 1 else ("mup",):
        rich = network(kind, depth, width, output_scale=1.3)
        outputs = ntksim.network_outputs(rich, POINTS, seeds=SEEDS)
        assert_close(outputs, ntksim.network_outputs(small, POINTS, seeds=SEEDS), tolerance)
        kernel, reference = (ntksim.empirical_ntk(each, POINTS, seeds=SEEDS) for each in (rich, small))
        assert_close(rich.learning_rate_scale * kernel, width * reference, tolerance)
        run = ntksim.train(rich, POINTS, TARGETS, seeds=SEEDS, times=times)
        assert (run.times == times).all()
        for name in ("outputs", "loss", "kernel_drift"):
            assert_close(getattr(run, name), getattr(expected, name), 1000 * tolerance)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("sigma_b", [None, 0.4])
def test_limits_of_mup_and_mean_field_are_those_of_ntk(activation, sigma_b):
    """The NNGP is 1/n of ntk's, and the effective NTK is ntk's, at every width."""
    for kind, depth, width in (("mup", 1, 8), ("mup", 3, 8), ("mup", 3, 5000), ("mean_field", 1, 300)):
        options = {"activation": activation, "sigma_b": sigma_b, "output_scale": 1.5}
        found, expected = network(kind, depth, width, **options), network("ntk", depth, 1, **options)
        limit, reference = (ntksim.infinite_kernel(each, POINTS, POINTS[:3] + 0.2) for each in (found, expected))
        assert_close(width * limit.nngp, reference.nngp, 1e-12)
        assert_close(found.learning_rate_scale * limit.ntk, reference.ntk, 1e-12)


@pytest.mark.parametrize("kind", ["mup", "mean_field", "abc"])
@pytest.mark.parametrize("activation", ["relu", "erf", "tanh"])
@pytest.mark.parametrize("sigma_b", [None, 0.5])
def test_finite_networks_approach_the_limit(kind, activation, sigma_b):
    """Mean of 400 networks of width 256: z-scores below 5.5, plus an O(1/m) bias for two layers; 1,000 networks for outputs.

    Normal z-scores would exceed 5.5 (kernels) or 6 (outputs) once in 3e5 runs of all these entries.
    """
    depth, x = 1 if kind == "mean_field" else 2, POINTS[:3]
    wide = network(kind, depth, 256, ODD if kind == "abc" else None, activation=activation, sigma_b=sigma_b, output_scale=1.5)
    limit = ntksim.infinite_kernel(wide, x)
    kernels = ntksim.empirical_ntk(wide, x, seeds=range(400))
    error = kernels.std(axis=0, ddof=1) / math.sqrt(400)
    bias = 0 if depth == 1 else 4 / 256 * np.abs(limit.ntk).max()
    assert (np.abs(kernels.mean(axis=0) - limit.ntk) < 5.5 * error + bias).all()
    outputs = ntksim.network_outputs(wide, x, seeds=range(1000))
    spread = np.sqrt((np.outer(np.diag(limit.nngp), np.diag(limit.nngp)) + limit.nngp**2) / 1000)
    assert (np.abs(outputs.T @ outputs / 1000 - limit.nngp) < 6 * spread).all()


@pytest.mark.parametrize("kind", ["mup", "mean_field"])
def test_exact_variance_of_one_hidden_layer(kind):
    """The law of `ntk`, in the units of the effective kernel."""
    found, reference = network(kind, 1, 32), network("ntk", 1, 32)
    variance = found.learning_rate_scale**2 * ntksim.one_hidden_layer_variance(found, POINTS)
    assert_close(variance, ntksim.one_hidden_layer_variance(reference, POINTS), 1e-11)


def test_biases_have_their_scales():
    """t = n^(-b_input) and beta = sigma_b n^(-a_input) in every hidden layer; z-scores below 5, false alarm 2e-6."""
    biased = network("abc", 3, 4000, ODD)
    scales = biased.scales(5)
    assert scales.bias == pytest.approx([*[0.4 * 4000**-0.1] * 3, 0], rel=1e-14)
    parameters = ntksim.sample_parameters(biased, 5, 0)
    for b in parameters.biases:
        assert abs(b.std() / 4000**0.2 - 1) < 5 / math.sqrt(8000)
    assert parameters.output_bias is None


def test_the_kernel_moves_at_every_width_in_mup_alone():
    """Kernel drift at the end of training, from width 256 to 4,096: as large in mup, 16 times less in ntk."""
    drift = {
        (kind, width): ntksim.train(
            network(kind, 1, width), POINTS, TARGETS, seeds=range(4), times=[0, np.inf], tolerance=1e-3
        ).kernel_drift[:, -1]
        for kind in ("ntk", "mup") for width in (256, 4096)
    }  # fmt: skip
    rms = {key: np.sqrt(np.mean(values**2)) for key, values in drift.items()}
    assert 0.7 < rms["mup", 4096] / rms["mup", 256] < 1.4
    assert rms["ntk", 4096] < 0.2 * rms["ntk", 256]


def test_default_times_and_rates_are_those_of_the_effective_kernel():
    values = np.linalg.eigvalsh(ntksim.infinite_kernel(network("ntk", 1), POINTS).ntk)
    rich = network("mean_field", 1)
    flow = ntksim.train(rich, POINTS, TARGETS, seeds=[0], tolerance=1e-3)
    assert flow.times[-1] == pytest.approx(20 / values[0])
    descent = ntksim.train(rich, POINTS, TARGETS, seeds=[0], method="gradient_descent", steps=20)
    assert descent.learning_rate == pytest.approx(1 / values[-1])
    assert descent.times[-1] == pytest.approx(20 / values[-1])
    with pytest.warns(RuntimeWarning, match="2 / lambda_max"):
        ntksim.train(rich, POINTS, TARGETS, seeds=[0], method="gradient_descent", steps=1, learning_rate=2.1 / values[-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parameterization": "abc"}, "parameterization 'abc' needs abc, its seven exponents .ntksim.ABC.; got None"),
        ({"parameterization": "abc", "abc": (0,) * 7}, "needs abc, its seven exponents"),
        ({"parameterization": "mup", "abc": MUP}, "abc belongs to parameterization 'abc'; leave it out"),
        ({"parameterization": "ntk", "abc": NTK}, "abc belongs to parameterization 'abc'"),
        ({"parameterization": "mean_field"}, "needs depth 1; got 2: use 'mup'"),
        ({"parameterization": "mup", "width": (4, 5)}, r"width must be equal in every layer .* got \(4, 5\)"),
        ({"parameterization": "mup", "output_bias": True, "sigma_b": 0.1}, "does not exist in parameterization 'mup'"),
        ({"parameterization": "abc", "abc": shifted(NTK, 30)}, "abc.a_input = 30 makes a factor beyond .* at width 4: shift"),
        ({"parameterization": "abc", "abc": shifted(NTK, -1e6)}, "abc.a_input = -1e.06 makes a factor beyond"),
    ],
)
def test_bad_networks_are_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ntksim.Network(**({"depth": 2, "width": 4} | arguments))


@pytest.mark.parametrize(
    ("value", "message"), [("1", "must be a number"), (True, "must be a number"), (math.inf, "must be finite")]
)
def test_bad_exponents_are_refused(value, message):
    with pytest.raises((TypeError, ValueError), match=f"abc.b_output {message}"):
        dataclasses.replace(NTK, b_output=value)


def test_equal_widths_may_be_a_sequence():
    assert network("mup", 2, (9, 9)).scales(4).weight == pytest.approx(network("mup", 2, 9).scales(4).weight, rel=0)
