"""Every activation, shipped or a user's own, through every function of the engine; on a GPU's simulator: see simulated_cuda."""

import math

import exact
import mpmath
import naive
import numpy as np
import pytest
from cases import ACTIVATION_CASES, CRACKED, MISH, POINTS, oracle_arguments
from scipy import special
from test_conditional import exact as exact_in_law
from tolerances import assert_close

import ntksim
from ntksim.engine.activation import about, is_smooth, name_of, names, parsed
from ntksim.engine.conditional.layout import CONDITIONED
from ntksim.engine.formulas.blocks import block_of, code_of, gated, phi_of
from ntksim.engine.infinite import expectations

TARGETS = np.array([0.5, -1.0, 0.25, 1.5, -0.75])
# The slope of MISH is a difference of values.
ROUND_OFF = {"float64": 2e-12, "float32": 4e-5, "mish": 1e-10}
PAIR = np.array([[1.0, -0.5, 0.25], [-0.75, 0.5, 1.5]])


def network(activation, depth=2):
    return ntksim.Network(depth, (7, 5)[:depth], activation, "ntk", 0.8, 0.9, 0.3, True)


def round_off(activation, dtype):
    return max(ROUND_OFF[dtype], ROUND_OFF["mish"] if activation is MISH else 0)


@pytest.mark.parametrize("activation", ACTIVATION_CASES, ids=name_of)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_outputs_and_kernels(activation, dtype):
    arguments = oracle_arguments(network(activation), 3, 4)
    rows = naive.jacobian(activation, *arguments, POINTS, True, True)
    outputs = ntksim.network_outputs(network(activation), POINTS, seeds=[4], dtype=dtype)
    kernel = ntksim.empirical_ntk(network(activation), POINTS, seeds=[4], dtype=dtype)
    assert_close(outputs[0], naive.output(naive.PHI[activation][0], *arguments, POINTS), round_off(activation, dtype))
    assert_close(kernel[0], rows @ rows.T, round_off(activation, dtype))


@pytest.mark.parametrize("activation", ACTIVATION_CASES, ids=name_of)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_networks_in_law(activation, dtype):
    """They are those of their draws, to 1e-10 (float32: 1e-4) and what the condition number takes."""
    exact_in_law(ntksim.Network(2, (12, 9), activation, sigma_w=0.8, sigma_b=0.2), POINTS[:4], 3, (CONDITIONED,) * 2, dtype)


@pytest.mark.parametrize("activation", ACTIVATION_CASES, ids=name_of)
def test_training(activation):
    """Descent step by step; the flow against descents of half and of a quarter of the step, extrapolated; and gates."""
    net, arguments = network(activation), oracle_arguments(network(activation), 3, 4)
    kernels = ntksim.empirical_ntk(net, POINTS, seeds=[4])[0], ntksim.infinite_kernel(net, POINTS).ntk
    rate = 0.5 / max(np.linalg.eigvalsh(kernel)[-1] for kernel in kernels)
    run = ntksim.train(net, POINTS, TARGETS, seeds=[4], method="gradient_descent", learning_rate=rate, times=[0, 20 * rate])
    history = naive.descent(activation, *arguments, POINTS, TARGETS, rate, 20, True, True)
    assert_close(run.outputs[0, -1], history[-1][0], 1e-9)
    drift = np.linalg.norm(history[-1][1] - history[0][1]) / np.linalg.norm(history[0][1])
    assert run.kernel_drift[0, -1] == pytest.approx(drift, rel=1e-7)
    flow = ntksim.train(net, POINTS, TARGETS, seeds=[4], times=[0, rate], tolerance=1e-5)
    one, two = (naive.descent(activation, *arguments, POINTS, TARGETS, rate / n, n, True, True)[-1][0] for n in (16, 32))
    # at a kink the extrapolation is one of the first order, and the flow leaves its steps an error of the first order
    assert_close(flow.outputs[0, -1], 2 * two - one, 1e-3 if is_smooth(activation) else 2e-2)


@pytest.mark.parametrize("activation", ACTIVATION_CASES, ids=name_of)
def test_gates(activation):
    """What is compared with a bound is above it exactly where z is above 0, down to 1e-3."""
    z = np.concatenate([-np.geomspace(9, 1e-3, 50), [0], np.geomspace(1e-3, 9, 50)])
    values, slopes = z.copy(), np.empty_like(z)
    phi = phi_of(activation)
    block_of(phi.code).loop(phi.parameter, values, slopes)
    chosen, bound = gated(phi, values, slopes)
    assert (chosen is None) == (name_of(activation) in ("sin", "cos", "gaussian"))
    if chosen is not None:
        assert ((chosen > bound) == (z > 0)).all()


def dual_of(activation):
    name = name_of(activation)
    return exact.DUALS[name] if name in exact.DUALS else exact.SERIES[name]


@pytest.mark.parametrize("activation", ACTIVATION_CASES, ids=name_of)
@pytest.mark.parametrize("sigma_w", [0.7, 2.5])
def test_limits_against_many_digits(activation, sigma_w):
    """Closed forms to 1e-12, others to 1e-10, of the root of the product of both diagonal entries."""
    found = ntksim.infinite_kernel(ntksim.Network(1, 1, activation, sigma_w=sigma_w, sigma_b=0.3), PAIR)
    closed = name_of(activation) in exact.DUALS
    with mpmath.workdps(30 if closed else 16):
        dual, (u, v) = dual_of(activation), (mpmath.matrix(row.tolist()) for row in PAIR)
        a, b, c = (mpmath.fdot(s, t) / 3 * mpmath.mpf(sigma_w) ** 2 + mpmath.mpf(0.3) ** 2 for s, t in ((u, u), (u, v), (v, v)))
        entries = {}
        for (i, j), covariances in {(0, 0): (a, a, a), (0, 1): (a, b, c), (1, 1): (c, c, c)}.items():
            value, slope = dual(*covariances)
            entries[i, j] = value, value + covariances[1] * slope
        for k, kernel in enumerate((found.nngp, found.ntk)):
            for (i, j), entry in entries.items():
                size = mpmath.sqrt(entries[0, 0][k] * entries[1, 1][k])
                assert abs(kernel[i, j] - entry[k]) <= (1e-12 if closed else 1e-10) * size


@pytest.mark.parametrize("activation", ACTIVATION_CASES, ids=name_of)
def test_limits_of_many_pairs_agree_with_single_ones(activation):
    """Two layers; equal, nearly equal, opposite and zero points, and points of other sizes; positive semidefinite."""
    x = np.concatenate([POINTS[:3], POINTS[:1] * (1 + 1e-9), -POINTS[1:2], 2 * POINTS[2:3], np.zeros((1, 3)), POINTS[:1]])
    net = ntksim.Network(2, 1, activation, sigma_w=0.8)
    whole, block = ntksim.infinite_kernel(net, x), ntksim.infinite_kernel(net, x[:3], x)
    for one, two in ((whole.nngp, block.nngp), (whole.ntk, block.ntk)):
        assert (one == one.T).all()
        assert np.isfinite(one).all()
        assert one[0, 7] == one[0, 0] == one[7, 7]
        scale = np.sqrt(np.outer(one.diagonal(), one.diagonal()))
        assert (np.abs(one[:3] - two) <= 4e-10 * scale[:3] + 1e-300).all()
        values = np.linalg.eigvalsh(one)
        assert values[0] > -1e-9 * values[-1]


@pytest.mark.parametrize("activation", ["elu", "elu(0.4)", "selu", CRACKED], ids=name_of)
def test_few_pairs_have_integrals_of_their_own_and_many_a_series(activation, monkeypatch):
    """Of functions that are not analytic at 0. On a sphere a series takes few integrals. They agree to 1e-10 a layer."""
    x = np.random.default_rng(2).normal(size=(24, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    net = ntksim.Network(2, 1, activation, sigma_w=1.2, sigma_b=0.2)
    ntksim.infinite_kernel(net, x[:1])  # asks known answers first
    ways = []
    for way in ("_pair_by_pair", "_all_at_once"):
        own = getattr(expectations, way)
        monkeypatch.setattr(expectations, way, lambda *given, own=own, way=way: (ways.append(way), own(*given)))
    many, few = ntksim.infinite_kernel(net, x), ntksim.infinite_kernel(net, x[:3], x[3:6])
    assert ways == ["_all_at_once"] * 2 + ["_pair_by_pair"] * 2
    assert_close(few.nngp, many.nngp[:3, 3:6], 3e-10)
    assert_close(few.ntk, many.ntk[:3, 3:6], 3e-10)


@pytest.mark.parametrize("activation", ["elu", "elu(0.4)", "selu"])
def test_few_pairs_of_tiny_pre_activations_are_those_of_a_series(activation, monkeypatch):
    """Tiny points, one among others, and many layers that shrink; by integrals pair by pair, and by a series, to 2e-9."""
    x = np.random.default_rng(3).normal(size=(4, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    shallow, deep = ntksim.Network(2, 1, activation), ntksim.Network(8, 1, activation, sigma_w=0.1)
    cases = [(shallow, 1e-8 * x), (deep, x), (shallow, x * [[1e-7], [1], [1], [1]])]
    few = [ntksim.infinite_kernel(net, points) for net, points in cases]
    monkeypatch.setattr(expectations, "_pair_by_pair", expectations._all_at_once)
    for one, (net, points) in zip(few, cases, strict=True):
        many = ntksim.infinite_kernel(net, points)
        for found, expected in ((one.nngp, many.nngp), (one.ntk, many.ntk)):
            scale = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
            assert (np.abs(found - expected) <= 2e-9 * scale).all()


@pytest.mark.parametrize("activation", ACTIVATION_CASES, ids=name_of)
def test_variance_and_ensembles(activation):
    """The variance from its definition; the mean of trained networks is the regression with the limit kernel."""
    net = ntksim.Network(1, 4, activation, sigma_w=0.7, sigma_b=0.3)
    phi, slope = naive.PHI[activation]
    q = 0.49 * PAIR @ PAIR.T / 3 + 0.09
    found = ntksim.one_hidden_layer_variance(net, PAIR)

    def expectation(power):
        def term(u, v):
            values, slopes = float(phi(u) * phi(v)), q[0, 1] * float(slope(u) * slope(v))
            return values + slopes if power == 1 else values**2 + 2 * values * slopes + 3 * slopes**2

        return naive.gaussian_pair(term, q[0, 0], q[0, 1], q[1, 1])

    assert found[0, 1] == pytest.approx((expectation(2) - expectation(1) ** 2) / 4, rel=1e-7)
    ensemble = ntksim.infinite_ensemble(net, PAIR, TARGETS[:2], [0.0, math.inf], POINTS[:2])
    kernel, across = ntksim.infinite_kernel(net, PAIR).ntk, ntksim.infinite_kernel(net, POINTS[:2], PAIR).ntk
    assert_close(ensemble.test_mean[1], across @ np.linalg.solve(kernel, TARGETS[:2]), 1e-8)


def test_names_and_numbers():
    assert len(names()) == 19
    assert all(is_smooth(name) in (True, False) for name in names())
    assert not is_smooth("leaky_relu")
    assert is_smooth("leaky_relu(1)")
    assert is_smooth("elu")
    assert not is_smooth("elu(2)")
    for given, kept in (("leaky_relu(0.10)", "leaky_relu"), ("monomial(3.0)", "monomial(3)"), ("elu(0.5)", "elu(0.5)")):
        assert ntksim.Network(1, 4, given).activation == kept
    assert parsed("tanh") == ("tanh", 0.0)
    assert about("tanh").parameter is None
    for wrong, message in {
        "tahn": "activation must be one of abs, cos, .*; got 'tahn'",
        "tanh(2)": "activation must be tanh without a number in brackets; got 'tanh.2.'",
        "monomial(2.5)": "monomial with a whole number from 2 to 10 in brackets, its power; got 'monomial.2.5.'",
        "leaky_relu(much)": "with a number from -1e.06 to 1e.06 in brackets, its slope",
        3: "activation must be one of .*; got 3",
    }.items():
        with pytest.raises(ValueError, match=message):
            ntksim.Network(1, 4, wrong)
    with pytest.raises(ValueError, match="no activation has the code 99"):
        block_of(99)
    with pytest.raises(ValueError, match="activation must be one of"):
        is_smooth("unheard_of")


# --- a user's own -----------------------------------------------------------------------------------------------------


def bent(z):
    return abs(z) ** 1.5


def helper(z):
    return z


def calls_a_helper(z):
    return helper(z)


def test_what_an_activation_of_ones_own_must_be():
    for arguments, message in (
        (("relu", math.tanh), "name must be a word .* that no shipped activation has; got 'relu'"),
        (("own", 3), "value of activation own must be a function of a number, got 3"),
        (("own", math.log), "value of activation own fails at -7.99902: "),
        (("own", lambda z: math.inf), "value of activation own must be a finite number, got inf at -7.99902"),
        (("own", lambda z: max(z, 0.0)), "activation own has a kink at 0: give smooth=False"),
        (("own", math.tanh, lambda z: 1 - math.tanh(z)), "slope of activation own must be .*, as its values say; got"),
        (("own", lambda z: math.sin(300 * z)), "differences do not tell the slope of activation own at .*: give its slope too"),
        (("own", math.tanh, None, "yes"), "smooth of activation own must be True or False, got 'yes'"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            ntksim.Activation(*arguments)
    with pytest.raises(ValueError, match="activation own cannot be compiled .*Untyped global name 'helper'.*: its functions"):
        ntksim.network_outputs(ntksim.Network(1, 4, ntksim.Activation("own", calls_a_helper)), POINTS, seeds=[0])


def test_own_activations_are_told_apart_by_what_they_compute():
    def power(factor):
        return ntksim.Activation("power", lambda z: factor * z * z)

    assert power(1.0) == power(1.0)
    assert power(1.0) != power(2.0)
    one, two = (ntksim.network_outputs(ntksim.Network(1, 4, power(f)), POINTS, seeds=[0]) for f in (1.0, 2.0))
    assert_close(two, 2 * one, 1e-14)
    assert "power" in repr(ntksim.Network(1, 4, power(1.0)))
    assert MISH.slope_error < 1e-11
    assert MISH.about.gate == 0.0
    assert CRACKED.about.gate == 0.0


def test_slopes_by_differences():
    """Mish to 1e-12 anywhere; next to a kink at 0 no difference crosses it."""
    z = np.linspace(-9, 9, 1001)
    values, slopes = z.copy(), np.empty_like(z)
    block_of(code_of(MISH)).loop(0.0, values, slopes)
    assert np.abs(slopes - naive.PHI["mish"][1](z)).max() < 3e-12
    own = ntksim.Activation("kinked", lambda z: math.tanh(z) if z > 0 else 0.2 * z, smooth=False)
    z = np.concatenate([-np.geomspace(9, 1e-7, 80), np.geomspace(1e-7, 9, 80)])
    values, slopes = z.copy(), np.empty_like(z)
    block_of(code_of(own)).loop(0.0, values, slopes)
    assert np.abs(slopes - np.where(z > 0, 1 / np.cosh(z) ** 2, 0.2)).max() < 1e-9


def test_limits_of_ones_own_that_cannot_be_had_are_refused():
    """A kink elsewhere than at 0, and a function that grows too fast."""
    x = np.random.default_rng(0).normal(size=(6, 3))
    tub = ntksim.Activation("tub", lambda z: max(min(z, 1.03), -1.03), smooth=False)
    steep = ntksim.Activation("steep", lambda z: math.sinh(z))
    for activation, sigma_w in ((tub, 1.0), (steep, 12.0)):
        with pytest.raises(ValueError, match="infinite-width limit did not reach a relative error of 1e-10"):
            ntksim.infinite_kernel(ntksim.Network(1, 1, activation, sigma_w=sigma_w), x)
    kernel = ntksim.infinite_kernel(ntksim.Network(1, 1, steep, sigma_w=0.5), x)
    q = 0.25 * x @ x.T / 3
    variances = np.add.outer(np.diag(q), np.diag(q)) / 2
    assert_close(kernel.nngp, np.exp(variances) * np.sinh(q), 1e-10)


@pytest.mark.parametrize(("name", "function"), [("sigmoid", special.expit), ("softplus", lambda z: np.logaddexp(0, z))])
def test_digits_of_elementary_functions(name, function):
    """To 2e-15 of the value, from -700 to 700."""
    z = np.concatenate([-np.geomspace(700, 1e-8, 4000), np.geomspace(1e-8, 700, 4000)])
    values, slopes = z.copy(), np.empty_like(z)
    block_of(code_of(name)).loop(0.0, values, slopes)
    assert (np.abs(values - function(z)) <= 2e-15 * function(z)).all()
