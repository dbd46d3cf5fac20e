"""Limits without a closed form: series against one trapezoidal sum a pair, invariances, and memory."""

import subprocess
import sys

import naive
import numba
import numpy as np
import pytest
from cases import dual, expectations

import ntksim
from ntksim.engine.formulas.blocks import phi_of
from ntksim.engine.infinite.pair_sums import TOLERANCE


def network(depth=3, sigma_w=1.5, sigma_b=None):
    return ntksim.Network(depth, 1, "tanh", sigma_w=sigma_w, sigma_b=sigma_b)


def normal_points(n=300, features=5):
    """Standard normal points, so few features that norms differ by a factor of ten; opposite, parallel and zero ones."""
    x = np.random.default_rng(4).normal(size=(n, features))
    x[-1], x[-2], x[-3] = 0, -x[0], 2 * x[1]
    return x


def near_points(sphere):
    """Points that are parallel and opposite to the last digits and less closely; off the sphere short, long and zero ones too."""
    x, y = np.random.default_rng(6).normal(size=(2, 4))
    points = np.stack([x, x * (1 + 1e-15), x + 1e-7 * y, x + 1e-3 * y, y, 1e-9 * y - x, -x])
    if sphere:
        return 2 * points / np.linalg.norm(points, axis=1, keepdims=True)
    return np.concatenate([points * np.array([1, 1, 2, 0.5, 1, 1.5, 1])[:, None], [1e-3 * y, 4 * y, 0 * y]])


@pytest.mark.parametrize("sphere", [True, False])
@pytest.mark.parametrize(
    ("depth", "sigma_w", "sigma_b"), [(1, 0.1, 0.0), (1, 1.0, 0.4), (2, 3.0, 0.0), (3, 1.5, 0.0), (3, 1.5, 0.3), (6, 1.2, 0.0)]
)
def test_series_against_a_sum_for_each_pair(sphere, depth, sigma_w, sigma_b):
    """Errors relative to the root of the product of both diagonal entries, so that short points count as much as long ones."""
    x = near_points(sphere)
    kernel = ntksim.infinite_kernel(network(depth, sigma_w, sigma_b), x)
    expected = naive.infinite_kernels("tanh", x, depth, sigma_w, sigma_b)
    for found, wanted in zip((kernel.nngp, kernel.ntk), expected, strict=True):
        assert (np.abs(found - wanted) <= depth * TOLERANCE * np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))).all()


def test_wide_range_of_norms():
    """Standard deviations from 1e-3 to 8 in one set."""
    x = np.geomspace(1e-3, 8, 6)[:, None] * np.random.default_rng(8).normal(size=(6, 3))
    kernel = ntksim.infinite_kernel(network(1, 1.0, 0.0), x)
    for found, wanted in zip((kernel.nngp, kernel.ntk), naive.infinite_kernels("tanh", x, 1, 1.0, 0.0), strict=True):
        assert (np.abs(found - wanted) <= TOLERANCE * np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))).all()


@pytest.mark.parametrize("activation", ["erf", "gelu", "sin", "linear"])
@pytest.mark.parametrize("scales", [(0.7, 0.7), (1.0, 1.4), (0.0, 5.0)])
def test_series_against_closed_forms(activation, scales):
    """Activations of both parities, and of none, whose series the limit itself does not need."""
    phi, rng = phi_of(activation, with_duals=True), np.random.default_rng(11)
    s1, s2 = (np.concatenate([scales, rng.uniform(*scales, size=28)]) for _ in range(2))
    covariance = np.outer(s1, s2) * np.cos(rng.uniform(0, np.pi, size=(30, 30)))
    value, slope = covariance.copy(), np.full((30, 30), 3.0)
    own1, own2 = expectations(phi, s1**2, value, s2**2, slope, False)
    slopes1, slopes2 = (np.array([dual(phi, k, k, k)[1] for k in s**2]) for s in (s1, s2))
    for i, j in np.ndindex(30, 30):
        expected = dual(phi, s1[i] ** 2, covariance[i, j], s2[j] ** 2)
        assert abs(value[i, j] - expected[0]) <= TOLERANCE * np.sqrt(own1[i] * own2[j])
        assert abs(slope[i, j] - 3 * expected[1]) <= TOLERANCE * 3 * np.sqrt(slopes1[i] * slopes2[j])


def test_symmetric_and_the_same_for_any_number_of_threads():
    kernel = ntksim.infinite_kernel(network(), normal_points())
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        single = ntksim.infinite_kernel(network(), normal_points())
    finally:
        numba.set_num_threads(before)
    for one, two in ((kernel.nngp, single.nngp), (kernel.ntk, single.ntk)):
        assert (one == two).all()
        assert (one == one.T).all()


@pytest.mark.parametrize("sphere", [True, False])
def test_two_sets_blocks_and_permutations_agree(sphere):
    """One set or two, parts of a set that span fewer norms, and another order: to 1e-11 of the diagonal."""
    x = normal_points()[:-1] if sphere else normal_points()
    if sphere:
        x = 2 * x / np.linalg.norm(x, axis=1, keepdims=True)
    order = np.random.default_rng(9).permutation(len(x))
    whole, both = ntksim.infinite_kernel(network(), x), ntksim.infinite_kernel(network(), x, x)
    block, shuffled = ntksim.infinite_kernel(network(), x[40:90], x[7:]), ntksim.infinite_kernel(network(), x[order])
    for name in ("nngp", "ntk"):
        kernel = getattr(whole, name)
        scale = 1e-11 * np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
        assert (np.abs(getattr(both, name) - kernel) <= scale).all()
        assert (np.abs(getattr(block, name) - kernel[40:90, 7:]) <= scale[40:90, 7:]).all()
        assert (np.abs(getattr(shuffled, name) - kernel[order][:, order]) <= scale[order][:, order]).all()


def test_diagonal_is_that_of_single_points():
    """By a rule of its own and not by the series: one point alone, to the last bits."""
    x = normal_points(30)
    kernel = ntksim.infinite_kernel(network(), x)
    for i in range(0, 30, 7):
        alone = ntksim.infinite_kernel(network(), x[i : i + 1])
        assert kernel.nngp[i, i] == alone.nngp[0, 0]
        assert kernel.ntk[i, i] == alone.ntk[0, 0]


def test_limits_hold_two_matrices():
    """3,000 points off the sphere: peak memory grows by the two kernels of 72 MB and a tenth."""
    code = """
import resource, sys, numpy as np, ntksim
def peak(n):
    ntksim.infinite_kernel(ntksim.Network(2, 1, "tanh"), np.random.default_rng(0).normal(size=(n, 16)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak(100)
sys.exit(peak(3000) - before > 1.1 * 2 * 3000**2 * 8 / 2**20)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
