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
    weights = np.sum(picks[..., None] == np.arange(len(gram)), axis=-2).astype(np.float64)
    own = np.diagonal(gram)
    pairs = np.sum(weights, axis=-1) ** 2 - np.sum(weights**2, axis=-1)
    among = np.sum(weights @ gram * weights, axis=-1) - weights**2 @ own
    with np.errstate(invalid="ignore"):
        systematic = among / np.where(pairs > 0, pairs, np.nan)
    total = weights @ own / np.sum(weights, axis=-1)
    return dict(zip(PARTS, (systematic, total - systematic), strict=True))


def parts(gram: np.ndarray) -> dict[str, dict[str, float]]:
    """The two parts with standard errors and intervals of a bootstrap over seeds, by name.

    NaN where there are too few seeds: fewer than 2, or, of errors and intervals, than `FEWEST`.
    """
    unknown = moments(np.zeros(0))
    if len(gram) < 2:
        return {name: dict(unknown) for name in PARTS}
    point = mean_squares(gram, np.arange(len(gram)))
    # fixed: equal shards, equal tables
    resampled = mean_squares(gram, resamples(np.random.default_rng(0), len(gram)))
    found: dict[str, dict[str, float]] = {}
    for name in PARTS:
        found[name] = unknown | {"root_mean_square": np.sqrt(np.maximum(point[name], 0.0))}
        if len(gram) < FEWEST:
            continue
        values = np.sqrt(np.maximum(resampled[name][np.isfinite(resampled[name])], 0.0))
        low, high = np.percentile(values, [TAIL, 100 - TAIL])
        found[name] |= {"standard_error": values.std(ddof=1), "interval_low": low, "interval_high": high}
    return found
