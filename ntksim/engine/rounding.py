"""What rounding leaves of a singular kernel: which of its eigenvalues are no more than errors of its entries.

A kernel is an array of float64 long before its eigenvalues are taken, but its entries are no better than the arithmetic that
made them. For entries of relative error e, ||K_computed - K||_2 <= ||.||_F is about e tr K at most, and e n lambda_max in any
case. An eigenvalue below that is not told from zero. Measured on singular kernels of float32 (linear and homogeneous networks,
repeated points, 3 to 100 of them, widths 1 to 4,096), rounding leaves up to 0.4 e lambda_max. The eigen-solver, in float64, adds
up to about 2 e lambda_max of its own.
"""

from numbers import Real

import numpy as np

PRECISION = "float64, float32, or the relative error of a kernel's entries, above 0 and below 1"


def relative_error(precision: object, *kernels: np.ndarray) -> float:
    """Relative error of the entries of kernels: that of ``precision``, or for None of the coarsest of their own types."""
    least = float(np.finfo(np.float64).eps)
    if precision is None:
        return max([least, *(float(np.finfo(k.dtype).eps) for k in kernels if k.dtype.kind == "f")])
    if isinstance(precision, Real) and not isinstance(precision, bool) and 0 < float(precision) < 1:
        return max(least, float(precision))
    try:
        kind = np.dtype(precision)  # type: ignore[call-overload]
    except TypeError:
        kind = None
    if kind is None or kind.name not in ("float64", "float32"):
        raise ValueError(f"precision must be {PRECISION}; got {precision!r}")
    return float(np.finfo(kind).eps)


def null_level(values: np.ndarray, error: float) -> np.ndarray:
    """Up to where eigenvalues (..., n) of a kernel whose entries have a relative ``error`` are taken for zeros, (..., 1)."""
    n, largest = values.shape[-1], np.abs(values).max(axis=-1, keepdims=True)
    entries = np.minimum(n * largest, 2 * np.abs(values).sum(axis=-1, keepdims=True))
    return np.maximum(n * np.finfo(np.float64).eps * largest, error * entries)
