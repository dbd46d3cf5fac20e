"""Spectra of limits as operators on spheres, against closed forms, Mercer's sum, and Gram matrices of many points."""

import math

import mpmath as mp
import numpy as np
import pytest
from exact import pair_kernels

from ntksim import Network, continuum_spectrum, infinite_kernel

HE = math.sqrt(2)


def multiplicity(d, k):
    """The number of spherical harmonics of degree k on S^(d-1)."""
    return math.comb(k + d - 1, k) - (math.comb(k + d - 3, k - 2) if k > 1 else 0)


def test_arc_cosine_values_on_the_circle():
    found = continuum_spectrum(Network(1, 64, sigma_w=HE), degrees=40, kernel="nngp")
    expected = [2 / math.pi**2, 1 / 8] + [2 / (math.pi * (k * k - 1)) ** 2 if k % 2 == 0 else 0 for k in range(2, 40)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("depth", "sigma_b", "kernel"), [(1, 0.4, "ntk"), (2, 0.0, "nngp"), (2, 0.3, "ntk")])
def test_relu_against_integrals_in_many_digits(depth, sigma_b, kernel):
    found = continuum_spectrum(Network(depth, 64, sigma_w=1.3, sigma_b=sigma_b or None), degrees=6, kernel=kernel, radius=1.7)
    with mp.workdps(25):

        def value(angle):
            u, v = (mp.mpf("1.7"), mp.mpf(0)), (mp.mpf("1.7") * mp.cos(angle), mp.mpf("1.7") * mp.sin(angle))
            return pair_kernels("relu", u, v, depth, 1.3, sigma_b)[0 if kernel == "nngp" else 1]

        exact = [mp.quad(lambda a, k=k: value(a) * mp.cos(k * a), mp.linspace(0, mp.pi, 4)) / mp.pi for k in range(6)]
    np.testing.assert_allclose(found, np.array(exact, float), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("d", [2, 3, 5])
def test_linear_networks_have_degree_one_alone(d):
    """NNGP sigma^2 x.x' / d, and the mean of (x_1)^2 over the unit sphere is 1 / d."""
    found = continuum_spectrum(Network(1, 64, "linear", sigma_w=1.5), dimension=d, degrees=5, kernel="nngp", radius=2.0)
    np.testing.assert_allclose(found, [0, 1.5**2 * 4 / d / d, 0, 0, 0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("d", [2, 3, 6])
def test_eigenvalues_add_up_to_the_diagonal(d):
    """Mercer: sum_k N(d, k) lambda_k = K(x, x)."""
    network = Network(2, 64, "erf", sigma_w=1.4, sigma_b=0.2)
    found = continuum_spectrum(network, dimension=d, degrees=60)
    point = np.eye(1, d)
    total = sum(multiplicity(d, k) * value for k, value in enumerate(found))
    np.testing.assert_allclose(total, infinite_kernel(network, point).ntk[0, 0], rtol=1e-9)


def test_evenly_spaced_points_alias():
    """n points on the circle have the Gram eigenvalues n sum_j lambda_(k + j n) over whole j, of either sign."""
    network, n = Network(1, 64, "gelu", sigma_w=1.4, sigma_b=0.5), 24
    angles = 2 * math.pi * np.arange(n) / n
    kernel = infinite_kernel(network, np.stack([np.cos(angles), np.sin(angles)], axis=1)).ntk
    found = continuum_spectrum(network, degrees=n * 40)
    expected = [n * sum(found[abs(k + j * n)] for j in range(-39, 39)) for k in range(n)]
    np.testing.assert_allclose(np.fft.fft(kernel[0]).real, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dimension": 1}, "dimension must be at least 2, the circle; got 1"),
        ({"degrees": 0}, "degrees must be at least 1, got 0"),
        ({"kernel": "NTK"}, "kernel must be one of ntk, nngp; got 'NTK'"),
        ({"radius": 0.0}, "radius must be finite and positive; got 0.0"),
    ],
)
def test_bad_arguments(options, words):
    with pytest.raises(ValueError, match=words):
        continuum_spectrum(Network(1, 64), **options)
