"""The spectrum of an infinite-width kernel as an operator on a sphere, which the Gram matrix of n uniform points approaches."""

import math

import numpy as np

from ntksim.engine.arguments import positive_integer, positive_number
from ntksim.engine.infinite.harmonics import gegenbauer
from ntksim.engine.infinite.kernel import infinite_kernel
from ntksim.engine.network import Network

KERNELS = ("ntk", "nngp")
_NODES = 64  # of a panel of the quadrature
_FINEST = 256  # panels where few degrees are asked for
_PER_PANEL = 24  # degrees: half a period of the highest polynomial on eight nodes
_TOLERANCE = 1e-12  # of eigenvalues, relative to the kernel on its diagonal


def continuum_spectrum(
    network: Network, dimension: int = 2, degrees: int = 32, kernel: str = "ntk", radius: float = 1.0
) -> np.ndarray:
    """Eigenvalues lambda_0 .. lambda_(degrees-1) of an infinite-width kernel on the sphere S^(dimension-1), one per degree.

    The operator is (T g)(x) = E[K(x, x') g(x')] with x' uniform on the sphere of radius ``radius`` in R^dimension, so that the
    eigenvalues of the Gram matrix of n uniform points approach n lambda_k as n grows. The eigenfunctions of lambda_k are the
    spherical harmonics of degree k: on the circle (dimension 2) 1 for k = 0, cos k theta and sin k theta for k > 0. By the
    Funk-Hecke formula

        lambda_k = Gamma(d/2) / (sqrt(pi) Gamma((d-1)/2)) int_0^pi K(theta) P_k(cos theta) sin^(d-2) theta dtheta,

    with P_k the Gegenbauer polynomial of S^(d-1) and P_k(1) = 1, for d = 2 (1/pi) int_0^pi K(theta) cos k theta dtheta.

    Parameters
    ----------
    dimension : d, the number of input features, at least 2. Kernels depend on it where a parameterization scales by 1 / d.
    degrees : the number of eigenvalues, at least 1.
    kernel : ``"ntk"`` or ``"nngp"``, in the units of :func:`infinite_kernel`.
    radius : length of the inputs.

    Returns
    -------
    float64 (degrees,). The quadrature (Gauss-Legendre in the angle, on ever smaller panels) is right to 1e-12 of
    K(x, x); eigenvalues below that are rounding, of either sign, and the kernels' own errors come on top.

    Raises
    ------
    TypeError or ValueError naming the argument; ValueError where the quadrature does not converge; and those of
    `infinite_kernel`.

    Müller (1966), *Spherical Harmonics*, theorem 6; for arc-cosine kernels Bach (2017), appendix D.
    """
    d, size = positive_integer("dimension", dimension), positive_integer("degrees", degrees)
    if d < 2:
        raise ValueError(f"dimension must be at least 2, the circle; got {dimension}")
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}; got {kernel!r}")
    length = positive_number("radius", radius)
    panels, before = -(-size // _PER_PANEL), None
    while panels <= _FINEST * -(-size // _PER_PANEL):
        now, scale = _eigenvalues(network, d, size, kernel, length, panels)
        if before is not None and np.abs(now - before).max() <= _TOLERANCE * scale:
            return now
        panels, before = 2 * panels, now
    raise ValueError(
        f"the spectrum does not converge with {panels // 2} panels of {_NODES} nodes: the kernel changes too quickly with the "
        "angle; lower the depth or sigma_w"
    )


def _eigenvalues(network: Network, d: int, size: int, kernel: str, radius: float, panels: int) -> tuple[np.ndarray, float]:
    """The integrals by Gauss-Legendre's rule on ``panels`` equal parts of [0, pi], and the kernel's diagonal entry."""
    points, weights = np.polynomial.legendre.leggauss(_NODES)
    half = math.pi / (2 * panels)
    angles = (half * (2 * np.arange(panels)[:, None] + 1 + points)).ravel()
    weights = np.tile(half * weights, panels)
    circle = np.zeros((angles.size + 1, d))
    circle[0, 0], circle[1:, 0], circle[1:, 1] = 1.0, np.cos(angles), np.sin(angles)
    values = getattr(infinite_kernel(network, radius * circle[:1], radius * circle), kernel)[0]
    norm = math.exp(math.lgamma(d / 2) - math.lgamma((d - 1) / 2)) / math.sqrt(math.pi)
    return gegenbauer(np.cos(angles), d, size) @ (norm * weights * np.sin(angles) ** (d - 2) * values[1:]), float(values[0])
