"""A kernel's eigenvectors, on which a step of the flow is exact: integrals of e^(-lambda u)."""

from math import factorial
from typing import NamedTuple

import numpy as np

from ntksim.engine.infinite.decay import integral
from ntksim.engine.rounding import null_level

# Gauss and Legendre's rule on panels of [0, 1] that narrow towards 0, where fast modes decay.
_ENDS = np.array([0.0, 1e-3, 1e-2, 0.05, 0.2, 0.6, 1.0])
_X, _W = np.polynomial.legendre.leggauss(6)
_NODES = (_ENDS[:-1, None] + np.diff(_ENDS)[:, None] * (_X + 1) / 2).ravel()
_WEIGHTS = (np.diff(_ENDS)[:, None] * _W / 2).ravel()


class Modes(NamedTuple):
    """Eigenvalues of a kernel, 0 where they are not told from that, and eigenvectors."""

    values: np.ndarray
    vectors: np.ndarray


def modes_of(kernel: np.ndarray, precision: float) -> Modes:
    """The modes of a kernel whose entries have a relative error of ``precision``."""
    values, vectors = np.linalg.eigh(kernel)
    return Modes(np.where(values > null_level(values, precision), values, 0.0), vectors)


def weighted_integral(values: np.ndarray, s: float) -> np.ndarray:
    """int_0^s u e^(-lambda u) du = s^2 sum_k (-z)^k / (k! (k + 2)), z = lambda s; in closed form where it does not cancel.

    0 where lambda = 0, like `decay.integral`.
    """
    z = values * s
    series = sum((-np.minimum(z, 0.5)) ** k / (factorial(k) * (k + 2)) for k in range(14))
    large = np.where(z > 0.5, z, 1.0)
    return s * s * np.where(z > 0.5, (1 - np.exp(-large) * (1 + large)) / large**2, np.where(values > 0, series, 0.0))


def squared_integral(values: np.ndarray, s: float) -> np.ndarray:
    """int_0^s u^2 e^(-lambda u) du, in the same way."""
    z = values * s
    series = sum((-np.minimum(z, 1.0)) ** k / (factorial(k) * (k + 3)) for k in range(18))
    large = np.where(z > 1.0, z, 1.0)
    closed = (2 - np.exp(-large) * (2 + large * (2 + large))) / large**3
    return s**3 * np.where(z > 1.0, closed, np.where(values > 0, series, 0.0))


def linear_change(
    modes: Modes, components: np.ndarray, change: np.ndarray, size: float, s: float
) -> tuple[np.ndarray, np.ndarray]:
    """What a kernel that is not constant adds to the residual, to first order in its ``change`` (n, n), on its modes (n,).

    The kernel changes evenly over [0, size] and has ``modes`` in the middle; ``components`` (n,) are those of the residual r_0.
    Returns int_0^s rho du, 0 where lambda = 0, and rho(s) for

        rho(u) = -int_0^u e^(-K (u - v)) (v / size - 1/2) change e^(-K v) r_0 dv.
    """
    values, vectors = modes
    at, weights = s * _NODES, s * _WEIGHTS
    decayed = np.exp(-np.outer(values, at)) * components[:, None]
    added = (weights * (0.5 - at / size)) * (vectors.T @ (change @ (vectors @ decayed)))
    lasting = integral(values[:, None], s - at)
    return np.sum(lasting * added, axis=1), np.sum(np.exp(-np.outer(values, s - at)) * added, axis=1)
