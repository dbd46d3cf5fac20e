"""Limits: golden values, an independent quadrature, every parameterization, and convergence of finite networks to them."""

import math

import naive
import numpy as np
import pytest
from cases import ACTIVATIONS, dual, expectations
from tolerances import QUADRATURE, assert_close

import ntksim
from ntksim.engine.formulas.blocks import CROSS, MEANS, SQUARES, phi_of
from ntksim.engine.infinite.pair_sums import TOLERANCE

GOLDEN_POINTS = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]])
# activation, parameterization, entries 00, 01, 11 of NNGP and NTK (None: not known)
GOLDEN = [
    ("relu", "ntk", (9.0490946667, 4.0052129700, 3.558808), (26.879084, 7.9684222277, 10.408224)),
    ("relu", "standard", (9.0490946667, 4.0052129700, 3.558808), (598.5897333, 213.1265068, 231.6369)),
    ("erf", "ntk", (1.1812653959, 0.5426059771, 1.128969991), (6.0628116252, 1.4699375373, 4.6841280501)),
    ("leaky_relu", "ntk", (9.2282816495, 3.922750764, 3.6276402208), (27.4157629484, 8.3039054002, 10.6138386624)),
    ("abs", "ntk", (35.7499786667, 18.115429946, 13.788832), (106.893536, 28.6928878394, 41.010096)),
    ("gelu", "ntk", (8.8385856812, 3.5470660689, 3.2777317949), (27.1675039836, 7.4662663103, 10.0626328229)),
    ("sin", "ntk", (0.9546982517, 0.1738582232, 0.9545000867), (12.0412696118, 0.3290433148, 5.9080918086)),
    ("tanh", "ntk", (None, None, None), (4.5812088, None, None)),
]


@pytest.mark.parametrize(("activation", "kind", "nngp", "ntk"), GOLDEN)
def test_golden_values(activation, kind, nngp, ntk):
    kernel = ntksim.infinite_kernel(ntksim.Network(2, 64, activation, kind, 1.4, 1.4, 0.3, True), GOLDEN_POINTS)
    for found, expected in ((kernel.nngp, nngp), (kernel.ntk, ntk)):
        for (i, j), value in zip(((0, 0), (0, 1), (1, 1)), expected, strict=True):
            if value is not None:
                assert found[i, j] == pytest.approx(value, rel=1e-8)


def pair_expectations(activation, k11, k12, k22, factors=MEANS):
    """Both expectations of one pair, from variances and their covariance."""
    value, slope = np.array([[k12]]), np.ones((1, 1))
    expectations(phi_of(activation), np.array([k11]), value, np.array([k22]), slope, False, factors)
    return value[0, 0], slope[0, 0]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("moments", [(1.0, 0.3, 2.0), (0.2, -0.19, 0.2), (9.0, 8.0, 7.5), (1e-4, 0.0, 3.0)])
def test_duals_against_nested_quadrature(activation, moments):
    phi = phi_of(activation, with_duals=True)
    found = dual(phi, *moments) if phi.duals else pair_expectations(activation, *moments)
    for value, function in zip(found, naive.PHI[activation], strict=True):
        expected = naive.gaussian_pair(lambda u, v, f=function: float(f(u)) * float(f(v)), *moments)
        own = [naive.gaussian_pair(lambda u, v, f=function: float(f(u)) ** 2, k, k, k) for k in moments[::2]]
        assert abs(value - expected) <= QUADRATURE * math.sqrt(own[0] * own[1])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 3e1])
def test_quadrature_at_parallel_and_opposite_points(scale):
    """At correlation +-1 the expectation is one-dimensional: a fine trapezoidal sum is exact to round-off."""
    s = np.linspace(-10, 10, 400_001)
    weight = np.exp(-s * s / 2) / math.sqrt(2 * math.pi) * (s[1] - s[0])
    square = np.sum(weight * np.tanh(scale * s) ** 2)
    slope = np.sum(weight * (1 - np.tanh(scale * s) ** 2) ** 2)
    k = scale**2
    for sign in (1, -1):
        value, derivative = pair_expectations("tanh", k, sign * k, k)
        assert value == pytest.approx(sign * square, rel=1e-9)
        assert derivative == pytest.approx(slope, rel=1e-9)


def test_quadrature_reaches_its_tolerance():
    """Against a dense trapezoidal sum over independent normals, for standard deviations from 0.1 to 10."""
    rng = np.random.default_rng(2)
    t = np.linspace(-9, 9, 1501)
    weight = np.exp(-t * t / 2) / math.sqrt(2 * math.pi) * (t[1] - t[0])
    for _ in range(20):
        s1, s2, rho = *np.exp(rng.uniform(np.log(0.1), np.log(10), 2)), rng.uniform(-1, 1)
        u, v = np.tanh(s1 * t)[:, None], np.tanh(s2 * (rho * t[:, None] + math.sqrt(1 - rho * rho) * t))
        found = pair_expectations("tanh", s1 * s1, rho * s1 * s2, s2 * s2)
        for value, integrand in zip(found, (u * v, (1 - u * u) * (1 - v * v)), strict=True):
            both = np.outer(weight, weight)
            assert abs(value - np.sum(both * integrand)) <= TOLERANCE * np.sum(both * np.abs(integrand))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_blocks_agree_with_the_whole(activation):
    """Equal, opposite, parallel and zero points, by one set of points and by two."""
    x = np.random.default_rng(5).normal(size=(4, 7))
    x = np.concatenate([x, -x[:1], 2 * x[:1], x[1:2], np.zeros((1, 7))])
    network = ntksim.Network(3, 1, activation, sigma_w=1.3)
    whole, block = ntksim.infinite_kernel(network, x), ntksim.infinite_kernel(network, x[:5], x)
    assert (whole.ntk == whole.ntk.T).all()
    for one, two in ((whole.ntk, block.ntk), (whole.nngp, block.nngp)):
        assert np.abs(one[:5] - two).max() <= 1e-12 * np.abs(one).max()
    values = np.linalg.eigvalsh(whole.ntk)
    assert values[0] > -1e-12 * values[-1]


@pytest.mark.parametrize(("activation", "factors"), [("tanh", MEANS), ("tanh", SQUARES), ("gelu", CROSS), ("erf", MEANS)])
@pytest.mark.parametrize("scale", [0.05, 1.0, 6.0])
def test_interpolation_in_the_angle(activation, factors, scale):
    """Pairs of one variance, parallel and opposite ones among them, against one sum each."""
    own, k = phi_of(activation), scale**2
    phi, slope = naive.PHI[activation]
    functions = {
        MEANS: (phi, slope),
        SQUARES: (lambda z: phi(z) ** 2, lambda z: slope(z) ** 2),
        CROSS: (lambda z: phi(z) * slope(z),) * 2,
    }[factors]
    rho = np.concatenate([[1.0, -1.0, 1 - 1e-12, 1e-9 - 1], np.random.default_rng(3).uniform(-1, 1, 596)])
    many = k * rho[None], np.ones((1, 600))
    expectations(own, np.array([k]), many[0], np.full(600, k), many[1], False, factors)
    for i in (0, 1, 2, 3, *range(29, 600, 29)):
        for found, function in zip(many, functions, strict=True):
            expected = naive.gaussian_trapezoid(function, scale, scale, math.acos(rho[i]))
            assert abs(found[0, i] - expected) <= 2 * TOLERANCE * np.abs(found).max()


def test_quadrature_refuses_what_it_cannot_do():
    x = 1e4 * np.array([[1.0, 0.0], [0.6, 0.8]])
    with pytest.raises(ValueError, match="did not reach a relative error"):
        ntksim.infinite_kernel(ntksim.Network(1, 1, "tanh"), x)


@pytest.mark.parametrize("activation", ["relu", "erf", "linear"])
def test_diagonal_keeps_its_digits(activation):
    """The diagonal by the one-point formula, and points a rounding away from each other."""
    x = np.random.default_rng(0).normal(size=(4, 6))
    network = ntksim.Network(3, 1, activation, sigma_w=1.2, sigma_b=0.3)
    kernel = ntksim.infinite_kernel(network, x)
    cross = ntksim.infinite_kernel(network, x, x * (1 + 1e-15))
    assert (kernel.ntk == kernel.ntk.T).all()
    assert_close(np.diag(cross.nngp), np.diag(kernel.nngp), 1e-12)
    assert_close(np.diag(cross.ntk), np.diag(kernel.ntk), 1e-7)  # relu's derivative has a square-root cusp there


def test_relu_recursion_by_hand_on_the_diagonal():
    """Critical bias-free ReLU keeps q = |x|^2/d at every layer, so the NTK's diagonal is (L+1) |x|^2/d."""
    x = np.random.default_rng(1).normal(size=(3, 5))
    q = np.sum(x * x, axis=1) / 5
    for depth in (1, 2, 5):
        kernel = ntksim.infinite_kernel(ntksim.Network(depth, 1, sigma_w=math.sqrt(2)), x)
        assert_close(np.diag(kernel.ntk), (depth + 1) * q, 1e-13)


def test_notes_one_hidden_layer_formula():
    """Sections 1.4 and 1.5: E[ss] + sigma_a^2 (x.x' + 1) E[s's']."""
    x = GOLDEN_POINTS
    for sigma_b, one in ((None, 0.0), (0.5, 1.0)):
        network = ntksim.Network(1, 1, "erf", "notes", 1.2, 0.7, sigma_b)
        q = 1.44 * x @ x.T / 3 + (sigma_b or 0.0) ** 2
        expected = np.empty((2, 2))
        for i in range(2):
            for j in range(2):
                value, slope = dual(phi_of("erf", with_duals=True), q[i, i], q[i, j], q[j, j])
                expected[i, j] = value + 0.49 * (x[i] @ x[j] + one) * slope
        assert_close(ntksim.infinite_kernel(network, x).ntk, expected, 1e-13)


@pytest.mark.parametrize("kind", ["ntk", "notes", "standard"])
@pytest.mark.parametrize("activation", ["relu", "erf", "tanh"])
@pytest.mark.parametrize("sigma_b", [None, 0.5])
def test_finite_networks_approach_the_limit(kind, activation, sigma_b):
    """Mean of 400 networks of width 256, two layers: z-scores below 5.5 plus an O(1/m) bias; false alarm 2e-6 over all."""
    network = ntksim.Network(2, 256, activation, kind, 1.3, 0.8, sigma_b, output_scale=1.5)
    kernels = ntksim.empirical_ntk(network, GOLDEN_POINTS, seeds=range(400))
    limit = ntksim.infinite_kernel(network, GOLDEN_POINTS).ntk
    error = kernels.std(axis=0, ddof=1) / math.sqrt(400)
    assert (np.abs(kernels.mean(axis=0) - limit) < 5.5 * error + 4 / 256 * np.abs(limit).max()).all()
    outputs = ntksim.network_outputs(network, GOLDEN_POINTS, seeds=range(1000))
    covariance = outputs.T @ outputs / 1000
    nngp = ntksim.infinite_kernel(network, GOLDEN_POINTS).nngp
    spread = np.sqrt((np.outer(np.diag(nngp), np.diag(nngp)) + nngp**2) / 1000)
    assert (np.abs(covariance - nngp) < 6 * spread).all()


def one_layer_variance(activation, u_scale, s, c):
    """m Var[K_m(x, x)] of one hidden layer on the diagonal, from theory, by one-dimensional quadrature."""
    t = np.linspace(-9, 9, 200_000)  # no node at 0, where ReLU's derivative jumps
    weight = np.exp(-t * t / 2) / math.sqrt(2 * math.pi) * (t[1] - t[0])
    phi, slope = (f(u_scale * t) for f in naive.PHI[activation])
    mean = np.sum(weight * (phi**2 + s * c * slope**2))
    second = np.sum(weight * (phi**4 + 2 * s * c * phi**2 * slope**2 + 3 * s**2 * c**2 * slope**4))
    return mean, second - mean**2


@pytest.mark.parametrize("activation", ["relu", "tanh", "erf"])
@pytest.mark.parametrize(("kind", "sigma_b"), [("notes", None), ("notes", 0.6), ("ntk", None), ("ntk", 0.6)])
def test_exact_one_hidden_layer_law(activation, kind, sigma_b):
    """E[K_m] = K_inf at every width and m Var[K_m] as predicted, on 40,000 networks; z below 6, false alarm 5e-8 over all."""
    sigma_w, sigma_a, m, x = 1.3, 0.8, 16, GOLDEN_POINTS[1:]
    network = ntksim.Network(1, m, activation, kind, sigma_w, sigma_a, sigma_b)
    kernels = ntksim.empirical_ntk(network, x, seeds=range(40_000)).ravel()
    square = float(x[0] @ x[0])
    u_scale = math.sqrt(sigma_w**2 * square / 3 + (sigma_b or 0.0) ** 2)
    if kind == "notes":
        mean, variance = one_layer_variance(activation, u_scale, sigma_a**2, square + (sigma_b is not None))
    else:
        mean, variance = one_layer_variance(activation, u_scale, 1.0, sigma_w**2 * square / 3 + (sigma_b or 0.0) ** 2)
        mean, variance = sigma_a**2 * mean, sigma_a**4 * variance
    assert ntksim.infinite_kernel(network, x).ntk[0, 0] == pytest.approx(mean, rel=1e-8)
    assert abs(kernels.mean() - mean) < 6 * math.sqrt(variance / m / kernels.size)
    deviations = (kernels - mean) ** 2
    assert abs(deviations.mean() - variance / m) < 6 * deviations.std() / math.sqrt(kernels.size)


@pytest.mark.parametrize(("depth", "expected"), [(1, 3.0), (2, 6.9), (3, 11.4)])
def test_relative_variance_of_deep_relu_at_width_32(depth, expected):
    """n Var/E^2 of the bias-free ReLU diagonal at n = 32; 40,000 seeds, z below 5 beyond the reference's own 0.15."""
    network = ntksim.Network(depth, 32, sigma_w=math.sqrt(2))
    values = ntksim.empirical_ntk(network, GOLDEN_POINTS[:1], seeds=range(40_000)).ravel()
    relative = values / ntksim.infinite_kernel(network, GOLDEN_POINTS[:1]).ntk[0, 0]
    deviations = 32 * (relative - 1) ** 2
    assert abs(deviations.mean() - expected) < 5 * deviations.std() / math.sqrt(values.size) + 0.15


def test_error_falls_like_one_over_root_width():
    """Fitted slope of the root mean square error over widths 64..1024 with 64 seeds: within 0.06 of -1/2 (4 sigma)."""
    x = np.random.default_rng(7).normal(size=(6, 8))
    errors, widths = [], [64, 128, 256, 512, 1024]
    for width in widths:
        network = ntksim.Network(2, width, "tanh", sigma_w=1.5)
        kernels = ntksim.empirical_ntk(network, x, seeds=range(64))
        limit = ntksim.infinite_kernel(network, x).ntk
        errors.append(np.sqrt(np.mean(np.sum((kernels - limit) ** 2, axis=(1, 2)))))
    assert abs(np.polyfit(np.log(widths), np.log(errors), 1)[0] + 0.5) < 0.06
