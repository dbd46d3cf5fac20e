"""The kernel's change in training in two parts: what all seeds share, and what scatters between them.

With D_s = (K_T - K_0) / ||K_0||_F of seed s and <.,.> the Frobenius inner product, for seeds that start from one residual r_0
(`remove_initial_output`: r_0 = -y),

    systematic^2 = ||E D||^2 = E <D_s, D_t> over pairs of different seeds,    random^2 = E ||D - E D||^2,

and the two add up to the mean square of the kernel drift. Means over pairs of different seeds are unbiased: the square of the
seeds' mean holds 1/S of the random part besides. The square of a systematic part that is lost in the scatter may come out
below zero; the part is then 0.

All is a function of the Gram matrix <D_s, D_t>, and seeds are resampled by their multiplicities.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from ntksim.study.columns import quantities
from ntksim.study.seed_statistics import FEWEST, TAIL, moments, resamples

PARTS = quantities("parts")  # the systematic one first


def gram_matrix(changes: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """<D_s, D_t>, (S, S), of relative changes (S, ...); (0, 0) of none."""
    flat = np.array([np.ravel(change) for change in changes], dtype=np.float64).reshape(len(changes), -1 if len(changes) else 0)
    return flat @ flat.T


def mean_squares(gram: np.ndarray, picks: np.ndarray) -> dict[str, np.ndarray]:
    """The squares of the two parts, (...) each, over the seeds ``picks`` (..., S), which may be there more than once.

    Pairs of a seed with its own copies are left out, or resampling would count the random part as systematic. NaN where
    one seed is all that was picked.
    """
    return _weighted(gram, _multiplicities(picks, len(gram)))


def estimates(gram: np.ndarray) -> dict[str, tuple[float, np.ndarray]]:
    """The squares of the two parts, and those of a bootstrap over seeds, by name.

    NaN with fewer than 2 seeds; no bootstrap with fewer than `FEWEST`.
    """
    if len(gram) < 2:
        return {name: (np.nan, np.zeros(0)) for name in PARTS}
    point = mean_squares(gram, np.arange(len(gram)))
    resampled = _weighted(gram, _bootstrap(len(gram))) if len(gram) >= FEWEST else dict.fromkeys(PARTS, np.zeros(0))
    return {name: (float(point[name]), resampled[name][np.isfinite(resampled[name])]) for name in PARTS}


def parts(gram: np.ndarray) -> dict[str, dict[str, float]]:
    """The two parts with standard errors and intervals of a bootstrap over seeds, by name.

    NaN where there are too few seeds: fewer than 2, or, of errors and intervals, than `FEWEST`.
    """
    found: dict[str, dict[str, float]] = {}
    for name, (square, resampled) in estimates(gram).items():
        found[name] = moments(np.zeros(0)) | {"root_mean_square": np.sqrt(np.maximum(square, 0.0))}
        if len(resampled):
            values = np.sqrt(np.maximum(resampled, 0.0))
            low, high = np.percentile(values, [TAIL, 100 - TAIL])
            found[name] |= {"standard_error": values.std(ddof=1), "interval_low": low, "interval_high": high}
    return found


def _multiplicities(picks: np.ndarray, size: int) -> np.ndarray:
    """How often each of ``size`` seeds is among ``picks`` (..., S): (..., size)."""
    rows = picks.reshape(-1, picks.shape[-1])
    shifted = rows + size * np.arange(len(rows))[:, None]
    counts = np.bincount(shifted.ravel(), minlength=size * len(rows))
    return counts.reshape(*picks.shape[:-1], size).astype(np.float64)


@cache
def _bootstrap(size: int) -> np.ndarray:
    """Multiplicities (RESAMPLES, size) of bootstrap samples, always the same: equal shards, equal tables."""
    return _multiplicities(resamples(np.random.default_rng(0), size), size)


def _weighted(gram: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    own = np.diagonal(gram)
    pairs = np.sum(weights, axis=-1) ** 2 - np.sum(weights**2, axis=-1)
    among = np.sum(weights @ gram * weights, axis=-1) - weights**2 @ own
    with np.errstate(invalid="ignore"):
        systematic = among / np.where(pairs > 0, pairs, np.nan)
    total = weights @ own / np.sum(weights, axis=-1)
    return dict(zip(PARTS, (systematic, total - systematic), strict=True))
