"""Limits where digits are easily lost: nearly equal and opposite points, sizes at the ends of float64's range, great depth."""

import itertools
import math
import warnings

import exact
import mpmath
import numpy as np
import pytest
from cases import ACTIVATIONS
from tolerances import ROUND_OFF, assert_close

import ntksim

SMOOTH = ("erf", "gelu", "sin", "tanh")
# angle, ratio of the norms, norm, depth, sigma_w, sigma_b
PAIRS = [
    *((angle, 1.0, 1.0, 1, 1.4, None) for angle in (0.0, 1e-9, 1e-8, 1e-6, 1e-4, 1e-3, 0.05, math.pi - 1e-8, math.pi)),
    *((angle, 2.0, 1.0, 3, 1.4, 0.3) for angle in (0.0, 1e-9, 1e-6, 1e-3, 0.05, 2.5)),
    *((angle, 1 + 1e-6, 10.0, 3, 1.4, None) for angle in (0.0, 1e-9, 1e-3, math.pi - 1e-6)),
    (1e-9, 1 + 1e-3, 1e3, 2, 1.4, None),  # in GELU's slope variances of 1e6 cancelled
    (1.0, 1.0, 3e3, 1, 1.4, None),
    (1e-9, 1.0, 3.0, 8, 5.0, None),  # chaos: the angle grows by orders of magnitude, and its error with it
    *((angle, ratio, norm, 2, 1.4, None) for norm in (1e-80, 1e80) for angle, ratio in ((0.7, 1.0), (1e-8, 1.0), (1e-8, 3.0))),
]


def two_points(angle, ratio, norm):
    u, w = np.random.default_rng(3).normal(size=(2, 5))
    u /= np.linalg.norm(u)
    w -= (w @ u) * u
    w /= np.linalg.norm(w)
    return norm * np.array([u, ratio * (math.cos(angle) * u + math.sin(angle) * w)])


@pytest.mark.parametrize("activation", [*(a for a in ACTIVATIONS if a != "tanh"), "leaky_relu(-0.3)", "cos", "gaussian"])
def test_against_many_digits(activation):
    """The two points in separate sets and in one; relative to the root of the product of both diagonal entries."""
    for angle, ratio, norm, depth, sigma_w, sigma_b in PAIRS:
        x = two_points(angle, ratio, norm)
        network = ntksim.Network(depth, 1, activation, sigma_w=sigma_w, sigma_b=sigma_b)
        apart, whole = ntksim.infinite_kernel(network, x[:1], x[1:]), ntksim.infinite_kernel(network, x)
        with mpmath.workdps(60 if 1e-9 < norm < 1e9 else 400):
            own, cross, other = (
                exact.pair_kernels(activation, x[i], x[j], depth, sigma_w, sigma_b or 0.0) for i, j in ((0, 0), (0, 1), (1, 1))
            )
            for at, name in enumerate(("nngp", "ntk")):
                one, two = getattr(apart, name)[0, 0], getattr(whole, name)
                size = mpmath.sqrt(own[at] * other[at])
                for found, expected in ((one, cross), (two[0, 1], cross), (two[0, 0], own), (two[1, 1], other)):
                    error = abs(mpmath.mpf(float(found)) - expected[at]) / size
                    assert error < 1e-12, (angle, ratio, norm, depth, name, float(error))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("depth", "sigma_w", "sigma_b"), [(3, 1.4, 0.3), (40, 6.0, None)])
def test_equal_rows_have_equal_entries(activation, depth, sigma_w, sigma_b):
    """To the last bit, within a set and across two, in networks that drive points apart too; opposite rows are opposite."""
    x = np.random.default_rng(0).normal(size=(6, 4))
    x[3], x[5] = x[0], -x[1]
    network = ntksim.Network(depth, 1, activation, sigma_w=sigma_w, sigma_b=sigma_b)
    whole, both = ntksim.infinite_kernel(network, x), ntksim.infinite_kernel(network, x[:3], x)
    for kernel, block in ((whole.nngp, both.nngp), (whole.ntk, both.ntk)):
        assert kernel[0, 3] == kernel[0, 0] == kernel[3, 3] == block[0, 0] == block[0, 3]
        assert (np.diag(block[:, :3]) == np.diag(kernel)[:3]).all()
        assert_close(kernel[0], kernel[3], ROUND_OFF["float64"])
    if activation in ("erf", "sin", "tanh", "linear") and sigma_b is None:
        assert whole.nngp[1, 5] == -whole.nngp[1, 1]


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "abs", "linear"])
@pytest.mark.parametrize("power", [-265, 265])
def test_homogeneous_kernels_scale_to_the_last_bit(activation, power):
    x = np.random.default_rng(1).normal(size=(5, 3))
    x[1] = x[0] + 1e-9 * x[2]
    network = ntksim.Network(3, 1, activation, sigma_w=1.3)
    kernel, scaled = ntksim.infinite_kernel(network, x), ntksim.infinite_kernel(network, np.ldexp(x, power))
    assert (np.ldexp(kernel.ntk, 2 * power) == scaled.ntk).all()
    assert (np.ldexp(kernel.nngp, 2 * power) == scaled.nngp).all()


@pytest.mark.parametrize("activation", SMOOTH)
def test_small_points_see_a_linear_network(activation):
    """phi(z) -> phi'(0) z: the kernels of points of size 1e-80 are those of a linear network."""
    x = 1e-80 * np.random.default_rng(1).normal(size=(5, 3))
    slope = {"erf": 2 / math.sqrt(math.pi), "gelu": 0.5}.get(activation, 1.0)
    found = ntksim.infinite_kernel(ntksim.Network(2, 1, activation, sigma_w=1.3), x)
    linear = ntksim.infinite_kernel(ntksim.Network(2, 1, "linear", sigma_w=1.3), x)
    tolerance = 1e-10 if activation == "tanh" else ROUND_OFF["float64"]
    assert_close(found.ntk / 1e-160, slope**4 * linear.ntk / 1e-160, tolerance)
    assert_close(found.nngp / 1e-160, slope**4 * linear.nngp / 1e-160, tolerance)


def test_depth_600():
    """At sigma_w = 1 ReLU halves the variance in each layer; products of two variances would underflow from layer 512 on."""
    x = two_points(1.0, 1.0, 1.0)
    kernel = ntksim.infinite_kernel(ntksim.Network(600, 1), x)
    with mpmath.workdps(40):
        cross = [float(v * 2**600) for v in exact.pair_kernels("relu", x[0], x[1], 600, 1.0, 0.0)]
    for found, own, other in ((kernel.nngp, 0.2, cross[0]), (kernel.ntk, 601 * 0.2, cross[1])):  # |x|^2 / d = 0.2
        assert np.ldexp(found, 600) == pytest.approx(np.array([[own, other], [other, own]]), rel=1e-12)


def test_what_float64_cannot_hold():
    x = two_points(1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="infinite-width kernel of this network overflows; lower sigma_w"):
        ntksim.infinite_kernel(ntksim.Network(2, 1), 1e160 * x)
    with pytest.raises(ValueError, match="infinite-width kernel of this network overflows; lower sigma_w"):
        ntksim.infinite_kernel(ntksim.Network(900, 1, sigma_w=3.0), x)
    for network, points in ((ntksim.Network(2, 1), 1e-160 * x), (ntksim.Network(1100, 1), x)):
        with pytest.warns(RuntimeWarning, match="the infinite-width kernel has lost digits: variances fall to") as caught:
            ntksim.infinite_kernel(network, points)
        assert caught[0].filename == __file__
    shallow = ntksim.Network(1, 8)
    with pytest.raises(ValueError, match="the variance of this kernel overflows"):
        ntksim.one_hidden_layer_variance(shallow, 1e80 * x)
    with pytest.warns(RuntimeWarning, match="the variance of this kernel has lost digits") as caught:
        ntksim.one_hidden_layer_variance(shallow, 1e-80 * x)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_diagonal_warns_once_at_its_callers_line(activation):
    """Closed forms come in blocks of 64 points. Nearly equal points are none of the diagonal's matters."""
    kernel = ntksim.NetworkKernel("ntk", 2, activation)
    x = 1e-160 * np.random.default_rng(0).normal(size=(140, 3))
    with pytest.warns(RuntimeWarning, match="the infinite-width kernel has lost digits: variances fall to") as caught:
        kernel.diag(x)
    assert [own.filename for own in caught] == [__file__]
    with pytest.raises(ValueError, match="kernel of this network overflows; lower sigma_w|limit did not reach a relative error"):
        kernel.diag(np.full((140, 3), 1e160))  # in place of NumPy's warning of overflow, an error here


def test_nearly_equal_points_in_deep_tanh_networks_are_warned_about():
    """Chaos multiplies the error of the series, 1e-10; where there are no such points, or no chaos, nothing is said."""
    x = np.random.default_rng(0).normal(size=(4, 30))
    near = np.concatenate([x, x[:1] + 1e-7 * x[1:2]])
    with pytest.warns(RuntimeWarning, match="may be off by .* between points that are nearly the same"):
        ntksim.infinite_kernel(ntksim.Network(12, 1, "tanh", sigma_w=6.0), near)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ntksim.infinite_kernel(ntksim.Network(12, 1, "tanh", sigma_w=6.0), np.concatenate([x, x[:1], -x[1:2]]))
        ntksim.infinite_kernel(ntksim.Network(12, 1, "tanh", sigma_w=1.0), near)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_variance_of_equal_points(activation):
    """Entries of equal rows are those of the diagonal, and so are, to 1e-7 at most, those of points 1e-9 apart."""
    x = np.random.default_rng(2).normal(size=(2, 3))
    x = np.stack([x[0], x[1], x[0], x[0] + 1e-9 * x[1]])
    variance = ntksim.one_hidden_layer_variance(ntksim.Network(1, 8, activation, sigma_b=0.2), x)
    assert variance[0, 2] == pytest.approx(variance[0, 0], rel=1e-13)
    assert variance[0, 3] == pytest.approx(variance[0, 0], rel=1e-7)
    assert (variance == variance.T).all()


@pytest.mark.parametrize("unit", [1e-200, 1e-160, 1e160, 1e200])
def test_measures_do_not_depend_on_the_unit(unit):
    """Norms and ratios of kernels whose squares leave float64's range."""
    rows = np.random.default_rng(4).normal(size=(2, 5, 5))
    kernels, targets = rows @ rows.transpose(0, 2, 1), rows[0, 0]
    assert_close(ntksim.measures.frobenius_norm(unit * kernels) / unit, ntksim.measures.frobenius_norm(kernels), 1e-14)
    for name, one in itertools.product(
        ("relative_frobenius_error", "alignment", "kernel_distance", "centred_alignment"), (1.0, unit)
    ):
        measure = getattr(ntksim.measures, name)
        reference = one * kernels[0] if name != "relative_frobenius_error" else unit * kernels[0]
        assert_close(measure(unit * kernels, reference), measure(kernels, kernels[0]), 1e-13)
    for measure in (ntksim.measures.kernel_target_alignment, ntksim.measures.centred_kernel_target_alignment):
        assert_close(measure(unit * kernels, targets), measure(kernels, targets), 1e-13)
    for measure in (ntksim.measures.participation_ratio, ntksim.measures.effective_rank):
        assert_close(measure(unit * kernels), measure(kernels), 1e-13)


def test_overflow_of_finite_networks_is_warned_about():
    """One line with the seeds and the remedy; none where results are finite, or where NumPy's own warnings are off."""
    x, network = np.ones((2, 3)), ntksim.Network(1, 8)
    for call, what in ((ntksim.empirical_ntk, "kernels"), (ntksim.network_outputs, "outputs")):
        size = 1e30 if what == "kernels" else 3e38
        with pytest.warns(
            RuntimeWarning, match=f"{what} of 7 of 7 seeds .0, 1, 2, 3, 4, .... overflow float32.*use float64"
        ) as all_:
            call(ntksim.Network(1, 8, sigma_a=1e3), size * x, seeds=range(7), dtype="float32")
        assert len(all_) == 1
        with pytest.warns(RuntimeWarning, match=f"{what} of seed 5 overflow float64, .*: scale the points down") as one:
            call(ntksim.Network(1, 8, sigma_a=1e30), 1e300 * x, seeds=[5])
        assert [own.filename for own in one] == [__file__]
        with warnings.catch_warnings(), np.errstate(over="ignore"):
            warnings.simplefilter("error")
            call(network, x, seeds=range(7))
            call(ntksim.Network(1, 8, sigma_a=1e30), 1e300 * x, seeds=[5])
