"""A kernel's eigenvectors, on which a step of the flow is exact: integrals of e^(-lambda u).

A step needs functions of the kernel times one vector only. They lie in the vector's Krylov space, v, K v, K^2 v, ..., to the last
digit in some tens of dimensions where eigenvalues decay fast, as those of kernels do (Lanczos; Saad 1992). The eigenvectors of
the kernel's projection on that space (Ritz vectors) then stand for those of the kernel.
"""

import math
from typing import NamedTuple

import numpy as np

from ntksim.engine.infinite.decay import integral
from ntksim.engine.rounding import null_level

# Gauss and Legendre's rule on panels of [0, 1] that narrow towards both ends, where fast modes decay.
_ENDS = np.array([0.0, 1e-3, 1e-2, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999, 1.0])
_X, _W = np.polynomial.legendre.leggauss(6)
_NODES = (_ENDS[:-1, None] + np.diff(_ENDS)[:, None] * (_X + 1) / 2).ravel()
_WEIGHTS = (np.diff(_ENDS)[:, None] * _W / 2).ravel()
_FEW = 96  # points, up to which all eigenvectors are had as fast
_SHARE, _CHECKED = 3, 8  # the Krylov space has at most n / 3 dimensions, and is looked at after every eight
_LEFT = 1e-10  # what the path of a vector may leave its Krylov space by, relative to the vector
_ROUNDED = 2e-10  # trace times time times precision, up to which rounding leaves nothing of modes that do not move
_PAUSE = 32  # so many times all eigenvectors are taken after a Krylov space was too small


class Modes(NamedTuple):
    """Eigenvalues of a kernel, ascending, 0 where they are not told from that, and eigenvectors; or those that a vector needs."""

    values: np.ndarray
    vectors: np.ndarray


def modes_of(kernel: np.ndarray, precision: float) -> Modes:
    """The modes of a kernel whose entries have a relative error of ``precision``."""
    values, vectors = np.linalg.eigh(kernel)
    return Modes(np.where(values > null_level(values, precision), values, 0.0), vectors)


class Finder:
    """Finds modes of kernels of a flow, whose entries have a relative error of ``precision``."""

    def __init__(self, precision: float) -> None:
        self.precision, self.pause = precision, 0

    def modes(self, kernel: np.ndarray, vector: np.ndarray, time: float) -> Modes:
        """Modes on which e^(-K s) v lies for every s up to a ``time``: few, or all that the kernel has."""
        if len(vector) <= _FEW or not np.isfinite(time) or not vector.any():
            return modes_of(kernel, self.precision)
        self.pause -= 1
        if self.pause < 0:
            found = _krylov(kernel, vector, time, self.precision)
            if found is not None:
                return found
            self.pause = _PAUSE
        return modes_of(kernel, self.precision)


def _krylov(kernel: np.ndarray, vector: np.ndarray, time: float, precision: float) -> Modes | None:
    """Ritz values and vectors of a vector's Krylov space; None where it has too many dimensions.

    What leaves the space, the defect of the projected flow, is the last off-diagonal number of the kernel's projection times the
    path's component along the last dimension, and grows with time.
    """
    n, size, trace = len(vector), math.sqrt(vector @ vector), float(np.trace(kernel))
    if not time * trace * precision <= _ROUNDED:
        return None
    most = n // _SHARE
    basis, projected = np.empty((most + 1, n)), np.zeros((most + 1, most + 1))
    basis[0] = vector / size
    for k in range(1, most + 1):
        known, image = basis[:k], kernel @ basis[k - 1]
        for _ in range(2):  # else rounding lets dimensions come back
            along = known @ image
            image -= along @ known
            projected[k - 1, k - 1] += along[-1]
        left = math.sqrt(image @ image)
        closed = left <= min(1e-14 * trace, _LEFT / time)  # the space is the kernel's own
        if closed or k % _CHECKED == 0:
            values, vectors = np.linalg.eigh(projected[:k, :k])
            # before values are taken for 0: that of a mode that moves slowly may be small for its share of a vector that does not
            if closed or left * abs(float(vectors[-1] @ (integral(np.abs(values), time) * vectors[0]))) < _LEFT:
                others = np.full(n - k, max(trace - values.sum(), 0.0) / (n - k))
                values = np.where(values > null_level(np.append(values, others), precision), values, 0.0)
                return Modes(values, known.T @ vectors)
        projected[k, k - 1] = projected[k - 1, k] = left
        basis[k] = image / left
    return None


def weighted_integral(values: np.ndarray, s: float) -> np.ndarray:
    """int_0^s u e^(-lambda u) du = s^2 sum_k (-z)^k / (k! (k + 2)), z = lambda s; in closed form where it does not cancel.

    0 where lambda = 0, like `decay.integral`.
    """
    z = values * s
    series = sum((-np.minimum(z, 0.5)) ** k / (math.factorial(k) * (k + 2)) for k in range(14))
    large = np.where(z > 0.5, z, 1.0)
    return s * s * np.where(z > 0.5, (1 - np.exp(-large) * (1 + large)) / large**2, np.where(values > 0, series, 0.0))


def squared_integral(values: np.ndarray, s: float) -> np.ndarray:
    """int_0^s u^2 e^(-lambda u) du, in the same way."""
    z = values * s
    series = sum((-np.minimum(z, 1.0)) ** k / (math.factorial(k) * (k + 3)) for k in range(18))
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
