"""Statistics of kernels: distances, alignments, spectra, and the modes of training.

Stacks of kernels have shape (..., n, n). Those of k outputs, (..., n, k, n, k), are to be reshaped to (..., n k, n k).
``precision`` is that in which kernels were computed, as in `closed_form`: by default their arrays' own.
Masked arrays are refused (TypeError).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntksim.engine.arguments import without_masks
from ntksim.engine.rounding import null_level, relative_error

# Of the change of a mode: what other modes may add to it while a rate is fitted. The rate is then within that of v'K_t v.
MIXING = 0.1
# Of the residual's squared norm: modes that hold less at t = 0 have no rate where nothing tells how much others add to them.
SMALLEST_SHARE = 1e-3


@without_masks
def frobenius_norm(kernels: np.ndarray) -> np.ndarray:
    """Frobenius norms (...), in the kernels' units."""
    scaled, unit = _scaled(kernels)
    return unit * _norm(scaled)


def _norm(kernels: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(np.square(kernels), axis=(-2, -1)))


def _scaled(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernels of ordinary size, in float64, and the powers of two (...) that they are in units of: no square overflows."""
    kernels = np.asarray(kernels, np.float64)
    largest = np.maximum(kernels.max(axis=(-2, -1)), -kernels.min(axis=(-2, -1)))
    usual = (largest == 0) | (largest > 1e-100) & (largest < 1e100) | ~np.isfinite(largest)
    if usual.all():
        return kernels, np.ones(largest.shape)
    unit = np.where(usual, 1.0, np.ldexp(1.0, np.frexp(np.where(usual, 1.0, largest))[1] - 1))
    return kernels / unit[..., None, None], unit


@without_masks
def relative_change(change: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """||A - B|| / ||B|| from the two norms, (...): 0 where nothing has changed, of zeros too, and infinite if zeros have."""
    change, norm = np.asarray(change, np.float64), np.asarray(norm, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(change == 0, 0.0, change / norm)[()]


@without_masks
def relative_frobenius_error(kernels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """||K - K_ref||_F / ||K_ref||_F, (...); with K_0 as reference it is the kernel drift (Fort et al. 2020)."""
    return relative_change(frobenius_norm(np.asarray(kernels, np.float64) - reference), frobenius_norm(reference))


@without_masks
def relative_operator_error(kernels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """||K - K_ref||_2 / ||K_ref||_2 in the operator norm, (...); both symmetric."""
    difference = np.abs(_eigenvalues(np.asarray(kernels, np.float64) - reference)).max(axis=-1)
    return relative_change(difference, np.abs(_eigenvalues(reference)).max(axis=-1))


@without_masks
def alignment(kernels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Cosine <K, K_ref>_F / (||K||_F ||K_ref||_F), (...), between -1 and 1."""
    (kernels, _), (reference, _) = _scaled(kernels), _scaled(reference)
    inner = np.sum(kernels * reference, axis=(-2, -1))
    return inner / (_norm(kernels) * _norm(reference))


@without_masks
def kernel_target_alignment(kernels: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """<K, YY'>_F / (||K||_F ||YY'||_F), (...), for targets (n,) or (n, k) (Cristianini et al. 2001)."""
    return alignment(kernels, _target_kernel(targets))


@without_masks
def kernel_distance(kernels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """1 - <K, K_ref>_F / (||K||_F ||K_ref||_F), (...): 0 for proportional kernels, at most 1 for positive semidefinite ones.

    With K_0 as reference it is the kernel distance of Fort et al. (2020), blind to the kernel's size. It is taken as half the
    squared distance of the normalised kernels, which keeps the digits of small ones.
    """
    kernels = np.asarray(kernels, np.float64)
    difference = kernels / frobenius_norm(kernels)[..., None, None]
    difference = difference - np.asarray(reference, np.float64) / frobenius_norm(reference)[..., None, None]
    return 0.5 * np.sum(difference**2, axis=(-2, -1))


@without_masks
def kernel_velocity(kernels: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Kernel distance of consecutive snapshots per unit of time, (..., T - 1), of kernels (..., T, n, n) at ``times`` (T,).

    It is that of Fort et al. (2020), who hold the spacing fixed: the distance is quadratic in the angle, so over short
    intervals the velocity is proportional to their length. NaN between equal times; 0 up to t = infinity.
    """
    times = np.asarray(times, np.float64)
    kernels = np.asarray(kernels, np.float64)
    with np.errstate(invalid="ignore"):  # infinity - infinity
        steps = times[1:] - times[:-1]
    return kernel_distance(kernels[..., 1:, :, :], kernels[..., :-1, :, :]) / np.where(steps > 0, steps, np.nan)


@without_masks
def centred(kernels: np.ndarray) -> np.ndarray:
    """H K H with H = I - 11'/n, (..., n, n): the kernel of features whose mean over the points is taken away."""
    kernels = np.asarray(kernels, np.float64)
    rows = kernels - kernels.mean(axis=-1, keepdims=True)
    return rows - rows.mean(axis=-2, keepdims=True)


@without_masks
def centred_alignment(kernels: np.ndarray, reference: np.ndarray, precision: Any = None) -> np.ndarray:
    """Alignment of the centred kernels (CKA), (...), between -1 and 1; NaN where one is constant to the ``precision``.

    Cortes et al. (2012), definition 2.
    """
    error = relative_error(precision, np.asarray(kernels), np.asarray(reference))
    return alignment(_centred_or_nan(kernels, error), _centred_or_nan(reference, error))


@without_masks
def centred_kernel_target_alignment(kernels: np.ndarray, targets: np.ndarray, precision: Any = None) -> np.ndarray:
    """Centred alignment of kernels with yy', (...), for targets (n,) or (n, k) (Cortes et al. 2012); NaN for constant targets."""
    return alignment(
        _centred_or_nan(kernels, relative_error(precision, np.asarray(kernels))),
        _centred_or_nan(_target_kernel(targets), relative_error(None)),
    )


def _target_kernel(targets: np.ndarray) -> np.ndarray:
    rows = np.asarray(targets, np.float64).reshape(len(targets), -1)
    return rows @ rows.T


@without_masks
def effective_rank(kernels: np.ndarray) -> np.ndarray:
    """exp of the entropy of the eigenvalues over their sum, (...), from 1 to n (Roy & Vetterli 2007).

    Eigenvalues that rounding has made negative count as zeros. NaN where a kernel is zero or not finite.
    """
    values = np.maximum(spectrum(kernels), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0, and 0 / 0
        shares = values / values.sum(axis=-1, keepdims=True)
        return np.exp(-np.sum(np.where(shares == 0, 0.0, shares * np.log(shares)), axis=-1))


@without_masks
def participation_ratio(kernels: np.ndarray) -> np.ndarray:
    """(sum of eigenvalues)^2 / sum of their squares = (tr K)^2 / ||K||_F^2, (...), from 1 to n: a rank without a spectrum."""
    return np.square(np.trace(np.asarray(kernels, np.float64), axis1=-2, axis2=-1) / frobenius_norm(kernels))


@dataclass(frozen=True)
class ResidualModes:
    """The residual f_t - y along the eigenvectors of a kernel, the largest eigenvalue first; float64.

    ``eigenvalues`` (..., n), NaN where the kernel's precision does not tell them from 0; ``components`` (..., T, n) in the units
    of the outputs, signed so that each starts at 0 or above, of these in a basis of the null space that rounding has chosen;
    ``decay_rates`` (..., n) in the units of eigenvalues, NaN where no rate can be fitted, or there is no eigenvalue; and
    ``initial_shares`` (..., n) of the residual's squared norm at the first snapshot. Under a constant kernel the rates are the
    eigenvalues.
    """

    eigenvalues: np.ndarray
    components: np.ndarray
    decay_rates: np.ndarray
    initial_shares: np.ndarray


@without_masks
def residual_modes(
    kernel: np.ndarray,
    outputs: np.ndarray,
    targets: np.ndarray,
    times: np.ndarray,
    floor: float | None = None,
    kernels: np.ndarray | None = None,
    precision: Any = None,
) -> ResidualModes:
    """Decompose the residuals of a training run along the eigenvectors of a kernel, and fit how fast each component decays.

    A rate is minus the slope of the least-squares line through the logarithm of a component against time, from the first
    snapshot up to where the component first falls to ``floor``, changes sign, is not finite, or is moved by other modes: it
    takes two finite times, and a component that falls by more than the floor.

    The component c_j along v_j changes by -v_j'K_t v_j c_j, at a rate of its own, and by -sum_k v_j'K_t v_k c_k over the
    other modes. A kernel that moves a little in training lets a large mode drive a small one, which then decays, or grows, at a
    rate that has nothing to do with its eigenvalue. Given the ``kernels`` along the way the fit ends where others add
    more than `MIXING` of the component's own change, so that the rate is within about that of v_j'K_t v_j. Without them nothing
    tells, and only modes have a rate that hold `SMALLEST_SHARE` of the residual's squared norm or more: on networks
    whose kernel moves by 10 to 20% they may still be off by a factor of 2 above, and more below, v_j'K_t v_j.

    Parameters
    ----------
    kernel : (..., n, n), symmetric: K_0 of each run, or one kernel for all; in abc parameterizations `Network.effective`
        of it, whose eigenvalues are the rates.
    outputs : (..., T, n), f_t of training points, such as `Trajectory.outputs`.
    targets : (n,). times : (T,), ascending; infinity is allowed.
    floor : below it components are noise; by default the square root of the precision of ``outputs`` times their or the
        targets' largest size, which leaves half the digits. For a flow of tolerance epsilon, take that times the residual.
    kernels : (..., T, n, n), K_t in any units, such as `Trajectory.kernels`.
    precision : in which the kernel was computed.

    Arora et al. (2019), theorem 4.1; the notes' section 1.7.
    """
    error = relative_error(precision, np.asarray(kernel))
    kernel, outputs = np.asarray(kernel, np.float64), np.asarray(outputs)
    finite = np.isfinite(kernel).all(axis=(-2, -1))[..., None]
    values, vectors = np.linalg.eigh(np.where(finite[..., None], kernel, 0.0))
    values, vectors = np.where(finite & (values > null_level(values, error)), values, np.nan)[..., ::-1], vectors[..., ::-1]
    residual = outputs - np.asarray(targets, np.float64)
    signed = np.where(finite[..., None], residual @ vectors, np.nan)
    components = signed * np.where(signed[..., :1, :] < 0, -1.0, 1.0)
    start = np.square(components[..., 0, :])
    shares = start / np.where((total := start.sum(axis=-1, keepdims=True)) > 0, total, np.nan)
    if floor is None:
        largest = np.nanmax(np.abs(outputs), axis=(-2, -1), initial=np.abs(targets).max())[..., None]
        levels = np.sqrt(relative_error(None, outputs)) * largest
    else:
        levels = np.array([floor])
    own = (shares >= SMALLEST_SHARE)[..., None, :] if kernels is None else _own(kernels, vectors, residual, signed)
    used = own & (components > levels[..., None, :]) & np.isfinite(np.asarray(times, np.float64))[:, None]
    used = np.logical_and.accumulate(used, axis=-2)
    fallen = components[..., 0, :] - np.min(np.where(used, components, np.inf), axis=-2)
    rates = _decay_rates(components, np.asarray(times, np.float64), used)
    return ResidualModes(values, components, np.where((fallen > levels) & ~np.isnan(values), rates, np.nan), shares)


def _own(kernels: np.ndarray, vectors: np.ndarray, residual: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Where (..., T, n) all other modes together change a component by less than `MIXING` of what it changes by itself."""
    kernels, vectors = np.asarray(kernels, np.float64), vectors[..., None, :, :]
    finite = np.isfinite(kernels).all(axis=(-2, -1), keepdims=True)
    kernels = np.where(finite, kernels, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        change = ((kernels @ residual[..., None])[..., None, :, 0] @ vectors)[..., 0, :]
        own = np.sum(vectors * (kernels @ vectors), axis=-2) * components
        return finite[..., 0] & (np.abs(change - own) <= MIXING * np.abs(own))


def _decay_rates(components: np.ndarray, times: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Minus the slopes (..., n) of log components (..., T, n) against time over the snapshots that are used (..., T, n)."""
    count = used.sum(axis=-2, keepdims=True)
    time = np.where(used, np.where(np.isfinite(times), times, 0.0)[:, None], 0.0)
    time = np.where(used, time - time.sum(axis=-2, keepdims=True) / np.maximum(count, 1), 0.0)
    spread = np.sum(time**2, axis=-2)
    slope = np.sum(time * np.log(np.where(used, components, 1.0)), axis=-2)
    return -slope / np.where(spread > 0, spread, np.nan)


@without_masks
def spectrum(kernels: np.ndarray) -> np.ndarray:
    """Eigenvalues (..., n) of symmetric kernels in descending order; NaN where a kernel is not finite."""
    return _eigenvalues(kernels)[..., ::-1]


@without_masks
def resolved_spectrum(kernels: np.ndarray, precision: Any = None) -> np.ndarray:
    """:func:`spectrum`, with NaN where the kernels' precision does not tell an eigenvalue from 0."""
    values = spectrum(kernels)
    return np.where(values > null_level(values, relative_error(precision, np.asarray(kernels))), values, np.nan)


@without_masks
def kernel_statistics(kernels: np.ndarray, reference: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Every statistic of kernels (S, n, n) at initialisation, by column name, float64 (S,) each.

    ``reference`` (n, n) is the limit K_infinity and ``targets`` (n,) the training targets. Eigenvalues and traces are in
    the kernel's units, the others are ratios. The condition number is infinite where the smallest eigenvalue is not told from 0
    in the kernels' type.
    """
    error = relative_error(None, np.asarray(kernels))
    kernels = np.asarray(kernels, np.float64)
    values = spectrum(kernels)
    largest, smallest = values[:, 0], values[:, -1]
    condition = np.full(len(kernels), np.inf)
    np.divide(largest, smallest, out=condition, where=smallest > null_level(values, error)[:, 0])
    condition[~np.isfinite(smallest)] = np.nan
    return {
        "relative_frobenius_error": relative_frobenius_error(kernels, reference),
        "relative_operator_error": relative_operator_error(kernels, reference),
        "smallest_eigenvalue": smallest,
        "largest_eigenvalue": largest,
        "condition_number": condition,
        "trace": np.trace(kernels, axis1=-2, axis2=-1),
        "kernel_target_alignment": kernel_target_alignment(kernels, targets),
        "limit_alignment": alignment(kernels, reference),
    }


def _eigenvalues(kernels: np.ndarray) -> np.ndarray:
    """Ascending eigenvalues of symmetric matrices; NaN for those that hold a NaN or an infinity."""
    kernels = np.asarray(kernels, np.float64)
    finite = np.isfinite(kernels).all(axis=(-2, -1))
    values = np.linalg.eigvalsh(np.where(finite[..., None, None], kernels, 0.0))
    return np.where(finite[..., None], values, np.nan)


def _centred_or_nan(kernels: np.ndarray, error: float) -> np.ndarray:
    """The centred kernels; NaN where nothing but errors of their entries is left of them."""
    result = centred(kernels)
    return np.where((frobenius_norm(result) > 100 * error * frobenius_norm(kernels))[..., None, None], result, np.nan)
