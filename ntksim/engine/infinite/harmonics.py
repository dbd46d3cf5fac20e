"""Spherical harmonics: Gegenbauer polynomials, and harmonics of some degrees sampled on points, as modes of training."""

from collections.abc import Iterable
from math import comb
from typing import NamedTuple

import numpy as np

_ROUND = 1e-8  # by how much lengths of points on a sphere may differ, relatively
_SMALL = 1e-8  # of a function's norm on the points over the root of their number: below, they do not see it


class Mode(NamedTuple):
    """A named function, or all of some degree, on n points: orthonormal vectors ``basis`` (n, m). ``order`` is k."""

    name: str
    order: int
    basis: np.ndarray


def gegenbauer(t: np.ndarray, dimension: int, size: int) -> np.ndarray:
    """Gegenbauer polynomials P_0 .. P_(size-1) of S^(dimension-1) at t (points,), (size, points), normalised to P_k(1) = 1.

    (k + d - 2) P_(k+1) = (2k + d - 2) t P_k - k P_(k-1).
    """
    p = np.empty((size, t.size))
    p[0] = 1
    if size > 1:
        p[1] = t
    for k in range(1, size - 1):
        p[k + 1] = ((2 * k + dimension - 2) * t * p[k] - k * p[k - 1]) / (k + dimension - 2)
    return p


def multiplicity(degree: int, dimension: int) -> int:
    """N(d, k), how many independent harmonics of degree k there are on S^(d-1), d = ``dimension``: 1, then 2 on the circle."""
    below = comb(degree + dimension - 3, dimension - 1) if degree > 1 else 0
    return comb(degree + dimension - 1, dimension - 1) - below


def radius(x: np.ndarray) -> float:
    """The length of points (n, d) that lie on a sphere around 0. Raises ValueError for others."""
    lengths = np.linalg.norm(x, axis=1)
    if not lengths.max() > 0 or lengths.max() - lengths.min() > _ROUND * lengths.max():
        raise ValueError(f"points must lie on a sphere around 0; got lengths from {lengths.min():.6g} to {lengths.max():.6g}")
    return float(lengths.mean())


def circle_angles(points: np.ndarray) -> np.ndarray:
    """Angles (n,) of points (n, 2), from 0 to below 2 pi."""
    angles = np.arctan2(points[:, 1], points[:, 0]) % (2 * np.pi)
    return np.where(angles < 2 * np.pi, angles, 0.0)  # that of a tiny negative angle rounds to 2 pi


def fourier_modes(x: np.ndarray, frequencies: Iterable[int]) -> list[Mode]:
    """cos k theta and sin k theta on points (n, 2) of a circle around 0, a unit vector each; of k = 0 the constant alone.

    Raises
    ------
    ValueError for points that are on no circle, or at all of which a function is 0.
    """
    radius(x)
    if x.shape[1] != 2:
        raise ValueError(f"frequencies need points on the circle, with 2 features; got {x.shape[1]}: give degrees instead")
    theta, found = np.arctan2(x[:, 1], x[:, 0]), []
    for k in frequencies:
        for name, function in (("cos", np.cos), ("sin", np.sin))[: 2 if k else 1]:
            values = function(k * theta)
            norm = float(np.linalg.norm(values))
            if norm < _SMALL * np.sqrt(len(x)):
                raise ValueError(f"frequencies: {name} {k} theta is 0 at all {len(x)} points; leave {k} out")
            found.append(Mode(f"{name} {k}", k, values[:, None] / norm))
    return found


def degree_modes(x: np.ndarray, degrees: Iterable[int]) -> list[Mode]:
    """All harmonics of a degree on points (n, d) of a sphere around 0, a subspace for every degree.

    It is the range of the matrix P_k(cos angle) of all pairs of points, by the addition theorem, whose rank is N(d, k).

    Raises
    ------
    ValueError for points that are on no sphere, or no more than N(d, k), of which such functions are all vectors.
    """
    length, (n, d), found = radius(x), x.shape, []
    cosines = np.clip(x @ x.T / length**2, -1.0, 1.0)
    for k in degrees:
        size = multiplicity(k, d)
        if size >= n:
            raise ValueError(
                f"degrees: degree {k} has {size} harmonics, which span all of {n} points; give more points, or leave it out"
            )
        values, vectors = np.linalg.eigh(gegenbauer(cosines.ravel(), d, k + 1)[k].reshape(n, n))
        seen = values[-size:] > _SMALL * n
        found.append(Mode(f"degree {k}", k, vectors[:, -size:][:, seen][:, ::-1]))
    return found
