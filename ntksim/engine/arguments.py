"""What public functions share: checks of arguments, which say what was expected, what was given and what to do; warnings at the
line that called them; and the short descriptions of results in notebooks."""

import contextlib
import functools
import inspect
import math
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

PRECISIONS = ("float64", "float32")
METHODS = ("gradient_flow", "gradient_descent")  # of training
SAMPLINGS = ("weights", "conditional")  # of networks at initialisation
_ROUNDING = 32  # units of it: shorter parts of vectors may be rounding (in float32 twice as many directions would be)
_NOT_CALLERS = (str(Path(__file__).parents[1]) + os.sep, contextlib.__file__)  # the latter's decorators, as one_blas_thread
_P = ParamSpec("_P")
_R = TypeVar("_R")


def points(name: str, x: object, features: int | None = None) -> np.ndarray:
    """``x`` as a C-contiguous float64 array (n, d) of finite numbers, n and d at least 1; images are flattened with a warning."""
    array = without_pixels(name, numeric(name, x))
    if array.ndim != 2 or 0 in array.shape:
        hint = ""
        if array.ndim == 1:  # what scikit-learn's KernelRidge and its like do with a function for a kernel
            hint = "; where kernels are called with one pair at a time, pass kernel='precomputed' and the matrix"
        raise ValueError(f"{name} must have shape (points, features), neither of them 0; got shape {array.shape}{hint}")
    if features is not None and array.shape[1] != features:
        raise ValueError(f"{name} must have {features} features like the first set of points; got {array.shape[1]}")
    return _finite(name, array)


def without_pixels(name: str, array: np.ndarray) -> np.ndarray:
    """Images flattened with a warning; any other array as it is."""
    if array.ndim not in (3, 4) or not array.size:
        return array
    warn(f"{name}: {flattening(array.shape)}", UserWarning)
    return flattened(array)


def warn(message: str, category: type[Warning]) -> None:
    """A warning at the line of the first caller outside ntksim, through however many of its own functions that line went."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_CALLERS):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def flattened(images: np.ndarray) -> np.ndarray:
    """Images (n, height, width) or (n, height, width, channels) as points (n, features)."""
    return images.reshape(len(images), -1)


def flattening(shape: tuple[int, ...]) -> str:
    """What :func:`flattened` does to images of a shape, in words."""
    return f"images of shape {shape[1:]} are flattened to {math.prod(shape[1:])} features each"


def targets(name: str, y: object, size: int, outputs: int) -> np.ndarray:
    """``y`` as a float64 array (size,), or (size, outputs) if they are several, of finite numbers."""
    array = numeric(name, y)
    expected = (size,) if outputs == 1 else (size, outputs)
    if array.shape != expected:
        per = "" if outputs == 1 else " and output"
        raise ValueError(f"{name} must have shape {expected}, one target per point{per}; got shape {array.shape}")
    return _finite(name, array)


def seed_array(seeds: object) -> np.ndarray:
    """``seeds`` as a uint64 array (S,); a sequence (or range) of integers from 0 to 2^64 - 1."""
    if isinstance(seeds, (str, bytes, Integral)) or not isinstance(seeds, Iterable):
        raise TypeError(f"seeds must be a sequence of non-negative integers, such as range(8); got {seeds!r}")
    if isinstance(seeds, range) and seeds and min(seeds[0], seeds[-1]) >= 0 and max(seeds[0], seeds[-1]) < 2**62:
        return np.arange(seeds.start, seeds.stop, seeds.step).astype(np.uint64)  # a million, one by one, would take a second
    values = list(seeds)
    for value in values:
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise TypeError(f"seeds must be integers; got {value!r}")
        if not 0 <= int(value) < 2**64:
            raise ValueError(f"seeds must be from 0 to 2^64 - 1; got {value}")
    if not values:
        raise ValueError("seeds must hold at least one seed; got an empty sequence")
    return np.array([int(value) for value in values], dtype=np.uint64)


def precision(dtype: object) -> np.dtype:
    """``dtype`` as a NumPy dtype, float64 or float32."""
    try:
        found = np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError:
        found = None
    if found is None or found.name not in PRECISIONS:
        raise ValueError(f"dtype must be one of {', '.join(PRECISIONS)}; got {dtype!r}")
    return found


def rank_tolerance_in_use(tolerance: float, kind: Any) -> float:
    """What networks in law leave out of a vector, as a part of its length, where ``tolerance`` is asked for in a precision.

    The one place that knows its floor: training, identities, provenance and plans all ask here.
    """
    return max(float(tolerance), _ROUNDING * float(np.finfo(kind).eps))


def momentum_options(momentum: object, nesterov: object) -> tuple[float, bool]:
    """Momentum, from 0 to below 1, and whether it is Nesterov's."""
    if isinstance(momentum, bool) or not isinstance(momentum, (int, float, np.floating, np.integer)) or not 0 <= momentum < 1:
        raise ValueError(f"momentum must be a number of at least 0 and below 1; got {momentum!r}")
    if flag("nesterov", nesterov) and momentum == 0:
        raise ValueError("nesterov=True needs momentum: set it above 0, such as 0.9")
    return float(momentum), bool(nesterov)


def one_of(name: str, value: object, known: Sequence[str]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
    return value


def positive_number(name: str, value: object) -> float:
    """A finite positive number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real) or not 0 < float(value) < np.inf:
        raise ValueError(f"{name} must be finite and positive; got {value!r}")
    return float(value)


def positive_integer(name: str, value: object) -> int:
    """An integer of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def ridge_number(value: object) -> float:
    """A ridge, what is added to a kernel's diagonal: finite and at least 0."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real) or not 0 <= float(value) < np.inf:
        raise ValueError(f"ridge must be finite and at least 0, in units of the kernel; got {value!r}")
    return float(value)


def decay_number(value: object) -> float:
    """lambda of weight decay: finite and at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)) or not 0 <= value < np.inf:
        raise ValueError(f"weight_decay must be a finite number of at least 0; got {value!r}")
    return float(value)


def flag(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; got {value!r}")
    return bool(value)


def refuse_mask(name: str, value: object) -> None:
    """Refuse a masked array, or a list of them: NumPy's functions would count the entries behind the mask."""
    rows = value if isinstance(value, (list, tuple)) else ()
    if isinstance(value, np.ma.MaskedArray) or any(isinstance(row, np.ma.MaskedArray) for row in rows):
        raise TypeError(
            f"{name} must be an array without a mask, whose entries all count; got a masked array: leave masked points out, or "
            "fill them in with .filled(...)"
        )


def without_masks(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A function that refuses masked arrays by the names of its arguments."""
    names = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: _P.args, **options: _P.kwargs) -> _R:
        for name, value in (*zip(names, args, strict=False), *options.items()):
            refuse_mask(name, value)
        return function(*args, **options)

    return checked


def numeric(name: str, value: object) -> np.ndarray:
    """``value`` as a C-contiguous float64 array."""
    refuse_mask(name, value)
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be an array of real numbers; got {type(value).__name__}") from None
    return np.ascontiguousarray(array, dtype=np.float64)


def _finite(name: str, array: np.ndarray) -> np.ndarray:
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise ValueError(f"{name} must be finite; {bad} of {array.size} entries are NaN or infinite")
    return array


def finite_array(name: str, value: object, ndim: int | None) -> np.ndarray:
    """``value`` as a finite float64 array with ``ndim`` axes (any number for None)."""
    array = numeric(name, value)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes; got shape {array.shape}")
    return _finite(name, array)


def shapes(result: Any) -> str:
    """Names and shapes of the arrays of a dataclass."""
    values = {own.name: getattr(result, own.name) for own in fields(result)}
    return ", ".join(f"{name} {value.shape}" for name, value in values.items() if isinstance(value, np.ndarray))


def span(times: np.ndarray) -> str:
    """How many times there are, from when to when."""
    if len(times) == 1:
        return f"time {times[0]:.4g}"
    return f"{len(times)} times from {times[0]:.4g} to {times[-1]:.4g}" if len(times) else "no times"
