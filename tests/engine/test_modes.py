"""Modes of the residual, against laws of constant kernels and functions written anew."""

import numpy as np
import pytest

import ntksim
from ntksim.engine.infinite.harmonics import degree_modes, fourier_modes, multiplicity
from ntksim.engine.training import residual_modes as modes

HE = np.sqrt(2.0)


def circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def orthonormal(n, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


def test_a_constant_kernel_decays_each_eigenvector_at_its_own_rate_and_mixes_nothing():
    q, rates, times = orthonormal(5, 0), np.array([3.0, 1.0, 0.5, 0.1, 0.0]), np.array([0.0, 0.3, 1.0, 4.0])
    kernel, r0 = q * rates @ q.T, np.arange(1.0, 6.0)
    residuals = np.stack([(q * np.exp(-rates * t)) @ (q.T @ r0) for t in times])
    for j, rate in enumerate(rates):
        v = q[:, [j]]
        norms = modes.residual_norms(v, residuals)
        assert norms == pytest.approx(np.exp(-rate * times) * abs(v[:, 0] @ r0), rel=1e-12)
        assert modes.mode_rates(v, kernel) == pytest.approx(rate, abs=1e-14)
        assert modes.decay_rates(norms, times)[1:] == pytest.approx(np.full(3, rate), abs=1e-10)
        if rate > 0:
            assert modes.leakage(v, kernel) < 1e-13
    pair = (q[:, [0]] + q[:, [1]]) / HE  # K v = (3 q_0 + q_1) / sqrt 2, of which (q_0 - q_1) / sqrt 2 is outside
    assert modes.leakage(pair, kernel) == pytest.approx(1 / np.sqrt(5), rel=1e-12)
    assert modes.mode_rates(q[:, :2], kernel) == pytest.approx(2.0)
    assert modes.leakage(q[:, :2], kernel) < 1e-13  # of the plane of both nothing
    total = sum(modes.residual_norms(q[:, [j]], residuals) ** 2 for j in range(5))
    assert total == pytest.approx(np.sum(residuals**2, axis=-1), rel=1e-12)


def test_couplings_share_out_what_the_kernel_makes_of_a_mode():
    q, kernels = orthonormal(6, 0), np.stack([a @ a.T for a in (orthonormal(6, seed) * [1, 2, 3, 4, 5, 6] for seed in (7, 8))])
    bases = [q[:, :1], q[:, 1:4], q[:, 4:]]
    found = modes.couplings(bases, kernels)
    assert found.shape == (2, 3, 3)
    assert np.sum(found**2, axis=-2) == pytest.approx(np.ones((2, 3)), rel=1e-12)
    for at, kernel in enumerate(kernels):
        for j, mode in enumerate(bases):
            moved = kernel @ mode
            wanted = [np.linalg.norm(other.T @ moved) / np.linalg.norm(moved) for other in bases]
            assert found[at, :, j] == pytest.approx(wanted, rel=1e-12)
            assert found[at, j, j] ** 2 + modes.leakage(mode, kernel) ** 2 == pytest.approx(1, rel=1e-12)
    assert modes.couplings(bases[:2], kernels[0]) == pytest.approx(found[0, :2, :2], rel=1e-12)
    assert np.abs(modes.couplings([q[:, [0]], q[:, 1:]], (q * [2.0, 1, 1, 1, 3, 4]) @ q.T) - np.eye(2)).max() < 1e-14


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_what_rounding_makes_of_a_mode_has_no_shares(precision):
    q, values = orthonormal(6, 0), np.array([3.0, 1, 0.5, 0.1, 1e-4, 0])
    kernel = ((q * values) @ q.T).astype(precision)
    bases = [q[:, [j]] for j in range(6)]
    assert np.isfinite([modes.leakage(basis, kernel) for basis in bases]).tolist() == [True] * 5 + [False]
    assert np.isfinite(modes.couplings(bases, kernel)).all(axis=0).tolist() == [True] * 5 + [False]
    kernel = kernel.astype(np.float64)  # as studies do
    assert np.isnan(modes.leakage(bases[-1], kernel, precision))
    assert np.isnan(modes.couplings(bases, kernel, precision)[:, -1]).all()


def test_bases_that_move_are_taken_time_by_time():
    bases = np.stack([orthonormal(4, seed)[:, :2] for seed in range(3)])
    kernels = np.stack([a @ a.T for a in (orthonormal(4, seed) * [1, 2, 3, 4] for seed in (7, 8, 9))])
    residuals = np.random.default_rng(1).normal(size=(3, 4))
    for function, of in ((modes.residual_norms, residuals), (modes.mode_rates, kernels), (modes.leakage, kernels)):
        each = [function(basis, own) for basis, own in zip(bases, of, strict=True)]
        assert function(bases, of) == pytest.approx(each, rel=1e-12)


def test_rates_are_not_taken_from_noise():
    rates = modes.decay_rates(np.array([1.0, 0.5, 0.2, 0.1]), np.array([0.0, 1.0, 2.0, np.inf]), floor=0.15)
    assert rates[1:3] == pytest.approx([np.log(2), np.log(2.5)])
    assert np.isnan(rates[[0, 3]]).all()
    assert np.isnan(modes.leakage(np.ones((2, 1)) / HE, np.zeros((2, 2))))


@pytest.mark.parametrize(
    ("velocities", "found"),
    [
        ([1.0, 0.5, 0.009, 0.02, 0.01, 0.001], 4),  # at most, and for good
        ([1.0, 0.5, 0.009], 2),
        ([1.0, 0.5, 0.02], -1),
        ([1.0], -1),
        ([0.0, 0.0], 0),  # a kernel that never moves
        ([1.0, np.nan, 0.0], -1),
        ([], -1),
    ],
)
def test_freezing_is_for_good(velocities, found):
    assert modes.freeze_index(np.array(velocities), 0.01) == found


def test_fourier_modes_are_unit_vectors_and_orthogonal_on_even_points():
    found = fourier_modes(2.5 * circle(2 * np.pi * np.arange(16) / 16 + 0.1), [0, 1, 3])
    assert [(own.name, own.order) for own in found] == [("cos 0", 0), ("cos 1", 1), ("sin 1", 1), ("cos 3", 3), ("sin 3", 3)]
    every = np.concatenate([own.basis for own in found], axis=1)
    assert every.T @ every == pytest.approx(np.eye(5), abs=1e-14)


def test_harmonics_of_a_degree_span_its_polynomials():
    x = np.random.default_rng(0).normal(size=(30, 3))
    x *= 1.7 / np.linalg.norm(x, axis=1, keepdims=True)
    a, b, c = x.T / 1.7
    second = np.stack([a * b, a * c, b * c, a**2 - b**2, 3 * c**2 - 1], axis=1)
    basis = degree_modes(x, [0, 2])[1].basis
    assert basis.T @ basis == pytest.approx(np.eye(5), abs=1e-13)
    assert basis @ (basis.T @ second) == pytest.approx(second, abs=1e-12)
    assert [multiplicity(k, 2) for k in range(4)] == [1, 2, 2, 2]
    assert [multiplicity(k, 3) for k in range(4)] == [1, 3, 5, 7]
    on_circle, theta = circle(np.array([0.1, 0.9, 2.0, 3.3, 5.0])), np.array([0.1, 0.9, 2.0, 3.3, 5.0])
    pair = np.linalg.qr(np.stack([np.cos(2 * theta), np.sin(2 * theta)], axis=1))[0]
    basis = degree_modes(on_circle, [2])[0].basis
    assert basis @ basis.T == pytest.approx(pair @ pair.T, abs=1e-12)


@pytest.mark.parametrize(
    ("function", "x", "orders", "message"),
    [
        (fourier_modes, np.array([[1.0, 0.0], [0.0, 2.0]]), [1], "points must lie on a sphere around 0; got lengths from 1 to 2"),
        (fourier_modes, np.eye(3), [1], "frequencies need points on the circle, with 2 features; got 3: give degrees instead"),
        (fourier_modes, circle(np.array([0.0, np.pi])), [1], "frequencies: sin 1 theta is 0 at all 2 points; leave 1 out"),
        (degree_modes, np.eye(3), [1], "degrees: degree 1 has 3 harmonics, which span all of 3 points; give more points"),
    ],
)
def test_points_that_do_not_fit_are_refused(function, x, orders, message):
    with pytest.raises(ValueError, match=message):
        function(x, orders)


def test_the_limit_on_even_points_has_the_operators_rates():
    """Evenly spaced points alias only: the Gram matrix's eigenvalue on cos k theta is n times the sum over j = +-k mod n."""
    n, network = 24, ntksim.Network(2, 64, "erf", sigma_w=HE, sigma_b=0.2)
    x = circle(2 * np.pi * np.arange(n) / n)
    kernel = ntksim.infinite_kernel(network, x).ntk
    lambdas = ntksim.continuum_spectrum(network, degrees=4 * n)
    for own in fourier_modes(x, [0, 1, 2, 5]):
        aliased = sum(lambdas[abs(own.order + n * j)] for j in range(-3, 4))
        assert modes.mode_rates(own.basis, kernel) == pytest.approx(n * aliased, rel=1e-9)
        assert modes.leakage(own.basis, kernel) < 1e-10


def test_a_wide_network_learns_cosines_at_the_operators_rates():
    """Width 2^14: rates scatter by about sqrt(c / 2^14) with c of order 10, a few per cent; 10% is beyond four deviations."""
    n, network = 16, ntksim.Network(1, 1 << 14, sigma_w=HE, sigma_b=0.3)
    x = circle(2 * np.pi * np.arange(n) / n)
    lambdas = ntksim.continuum_spectrum(network, degrees=4)
    y = np.cos(np.arctan2(x[:, 1], x[:, 0])) + np.cos(2 * np.arctan2(x[:, 1], x[:, 0])) + np.sin(3 * np.arctan2(*x.T[::-1]))
    times = np.array([0.0, 0.5, 1.0]) / (n * lambdas[1])
    run = ntksim.train(network, x, y, seeds=[0], times=times, tolerance=1e-5, remove_initial_output=True, keep_kernels=True)
    for own in fourier_modes(x, [1, 2]):
        if own.name.startswith("cos"):
            rates = modes.decay_rates(modes.residual_norms(own.basis, run.outputs - y), times)[:, 1:]
            assert rates == pytest.approx(np.full((1, 2), n * lambdas[own.order]), rel=0.1)
            assert modes.leakage(own.basis, run.kernels).max() < 0.1


def test_kernels_of_test_points_are_kept_along_the_way():
    x, tests, y = circle(np.arange(5.0)), circle(np.arange(5.0) + 0.4)[:3], np.array([1.0, -1.0, 0.5, 0.0, 0.3])
    network, options = ntksim.Network(2, 12, "tanh", sigma_w=1.5), {"seeds": [3, 4], "times": [0.0, 0.5, 2.0]}
    run = ntksim.train(network, x, y, x_test=tests, keep_test_kernels=True, **options)
    assert run.kept_test_kernels.shape == (2, 3, 3, 5)
    assert run.kept_test_kernels[:, 0] == pytest.approx(ntksim.empirical_ntk(network, tests, x, seeds=[3, 4]), rel=1e-12)
    assert np.array_equal(run.kept_test_kernels[:, [0, -1]], run.test_kernels)
    middle = ntksim.train(network, x, y, x_test=tests, seeds=[3, 4], times=[0.0, 0.5]).test_kernel
    assert run.kept_test_kernels[:, 1] == pytest.approx(middle, rel=0.05, abs=0.01)  # steps end elsewhere
    assert ntksim.train(network, x, y, x_test=tests, **options).kept_test_kernels is None
    with pytest.raises(ValueError, match="keep_test_kernels needs test points: give x_test, or leave it out"):
        ntksim.train(network, x, y, keep_test_kernels=True, **options)
