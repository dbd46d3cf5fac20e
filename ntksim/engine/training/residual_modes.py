"""Modes of the residual in training: how much of it lies on them, how fast that decays, and what the kernel mixes.

A mode is a subspace of R^n with an orthonormal ``basis`` (n, m), most often one unit vector: an eigenvector of a kernel, or a
function sampled on the points; bases (..., n, m) are those of modes that move. Residuals r = f - y have shape (..., n) and
kernels (..., n, n); time is that of gradient flow, r' = -K r, so that rates are eigenvalues. Results are float64.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ntksim.engine.arguments import without_masks
from ntksim.engine.rounding import relative_error


@without_masks
def residual_norms(basis: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """||Q'r|| (...), the norm of the residual's projection on a mode: of modes that span R^n the squares add up to ||r||^2."""
    return np.linalg.norm(np.asarray(residuals, np.float64)[..., None, :] @ basis, axis=(-2, -1))


@without_masks
def mode_rates(basis: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """tr(Q'KQ) / m (...), the kernel's mean eigenvalue along a mode: the Rayleigh quotient v'Kv of a unit vector."""
    return np.mean(np.sum(basis * (np.asarray(kernels, np.float64) @ basis), axis=-2), axis=-1)


@without_masks
def leakage(basis: np.ndarray, kernels: np.ndarray, precision: Any = None) -> np.ndarray:
    """||(1 - QQ')KQ||_F / ||KQ||_F (...), the share of what the kernel makes of a mode that lies in other modes.

    It is 0 where the mode is invariant under the kernel, as eigenvectors are, and at most 1; NaN where KQ is 0 up to rounding
    of kernels that were computed in this ``precision``, by default that of their type. While it is 0 the residual on the mode
    decays by itself.
    """
    moved = np.asarray(kernels, np.float64) @ basis
    outside = moved - basis @ (np.swapaxes(basis, -1, -2) @ moved)
    norm = np.linalg.norm(moved, axis=(-2, -1))
    return np.linalg.norm(outside, axis=(-2, -1)) / np.where(norm > _rounding(kernels, precision), norm, np.nan)


@without_masks
def couplings(bases: Sequence[np.ndarray], kernels: np.ndarray, precision: Any = None) -> np.ndarray:
    """||Q_i'KQ_j||_F / ||KQ_j||_F (..., i, j), the share of what the kernel makes of mode j that lies in mode i.

    i = j is the part that stays: its square and that of :func:`leakage` add up to 1. Over modes that are orthogonal to each
    other and span R^n the squares of a column (j) add up to 1. NaN where KQ_j is 0 up to rounding, as there.
    ``bases`` (n, m_i) are of modes that stay.
    """
    every, sizes = np.concatenate(bases, axis=1), [basis.shape[1] for basis in bases]
    starts = np.cumsum([0, *sizes[:-1]])
    moved = np.asarray(kernels, np.float64) @ every
    inside = np.add.reduceat((every.T @ moved) ** 2, starts, axis=-2)
    norms = np.sqrt(np.add.reduceat(np.sum(moved**2, axis=-2, keepdims=True), starts, axis=-1))
    known = norms > _rounding(kernels, precision)[..., None, None]
    return np.sqrt(np.add.reduceat(inside, starts, axis=-1)) / np.where(known, norms, np.nan)


def _rounding(kernels: np.ndarray, precision: Any) -> np.ndarray:
    """Up to which size (...) what kernels make of a mode is taken for 0: twice the error of the trace, as of eigenvalues
    (`rounding.null_level`).
    """
    error = max(relative_error(precision, np.asarray(kernels)), kernels.shape[-1] * np.finfo(np.float64).eps / 2)
    return 2 * error * np.sum(np.abs(np.diagonal(np.asarray(kernels, np.float64), axis1=-2, axis2=-1)), axis=-1)


@without_masks
def decay_rates(norms: np.ndarray, times: np.ndarray, floor: float | np.ndarray = 0.0) -> np.ndarray:
    """Minus the slope of log ||Q'r|| from the snapshot before, (..., T), of norms (..., T) at ``times`` (T,) that ascend.

    NaN at the first snapshot, where either norm is not above the ``floor`` (a number, or (...) of them), below which it is
    noise, and between equal or infinite times.
    """
    norms, times = np.asarray(norms, np.float64), np.asarray(times, np.float64)
    logs = np.log(np.where(norms > np.asarray(floor, np.float64)[..., None], norms, np.nan))
    with np.errstate(invalid="ignore"):  # infinity - infinity
        steps = times[1:] - times[:-1]
    rates = -np.diff(logs, axis=-1) / np.where((steps > 0) & np.isfinite(steps), steps, np.nan)
    return np.concatenate([np.full((*norms.shape[:-1], 1), np.nan), rates], axis=-1)


def freeze_index(velocities: np.ndarray, share: float) -> int:
    """The first of velocities (N,) from which all are at most ``share`` times the first; -1 where none is, or one is not finite.

    A kernel that never moves is frozen from the first on.
    """
    velocities = np.asarray(velocities, np.float64)
    if not velocities.size or not np.isfinite(velocities).all():
        return -1
    fast = np.flatnonzero(velocities > share * velocities[0])
    found = int(fast[-1]) + 1 if fast.size else 0
    return found if found < velocities.size else -1
