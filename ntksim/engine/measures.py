"""Statistics of kernels: distances, alignments and spectra. Stacks of kernels have shape (..., n, n)."""

import numpy as np


def frobenius_norm(kernels: np.ndarray) -> np.ndarray:
    """Frobenius norms (...), in the kernels' units."""
    return np.sqrt(np.sum(np.square(kernels, dtype=np.float64), axis=(-2, -1)))


def relative_frobenius_error(kernels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """||K - K_ref||_F / ||K_ref||_F, (...); with K_0 as reference it is the kernel drift (Fort et al. 2020)."""
    return frobenius_norm(np.asarray(kernels, np.float64) - reference) / frobenius_norm(reference)


def relative_operator_error(kernels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """||K - K_ref||_2 / ||K_ref||_2 in the operator norm, (...); both symmetric."""
    difference = np.abs(_eigenvalues(np.asarray(kernels, np.float64) - reference)).max(axis=-1)
    return difference / np.abs(_eigenvalues(reference)).max(axis=-1)


def alignment(kernels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Cosine <K, K_ref>_F / (||K||_F ||K_ref||_F), (...), between -1 and 1."""
    inner = np.sum(np.asarray(kernels, np.float64) * reference, axis=(-2, -1))
    return inner / (frobenius_norm(kernels) * frobenius_norm(reference))


def kernel_target_alignment(kernels: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """y'Ky / (||K||_F ||y||^2), (...), for targets (n,) (Cristianini et al. 2001)."""
    return alignment(kernels, np.outer(targets, targets))


def spectrum(kernels: np.ndarray) -> np.ndarray:
    """Eigenvalues (..., n) of symmetric kernels in descending order; NaN where a kernel is not finite."""
    return _eigenvalues(kernels)[..., ::-1]


def kernel_statistics(kernels: np.ndarray, reference: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Every statistic of kernels (S, n, n) at initialisation, by column name, float64 (S,) each.

    ``reference`` (n, n) is the limit K_infinity and ``targets`` (n,) the training targets. Eigenvalues and traces are in
    the kernel's units, the others are ratios. The condition number is infinite where the smallest eigenvalue is not positive.
    """
    kernels = np.asarray(kernels, np.float64)
    values = spectrum(kernels)
    largest, smallest = values[:, 0], values[:, -1]
    condition = np.full(len(kernels), np.inf)
    np.divide(largest, smallest, out=condition, where=smallest > 0)
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
