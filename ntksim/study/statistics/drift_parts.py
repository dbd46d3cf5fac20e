"""A random matrix in two parts: what all seeds share, and what scatters between them.

The matrix is the kernel's change in training, or at initialisation its difference from the limit (`ERROR_PARTS`: the parts are
its bias and its scatter, for D_s = (K_m - K_inf) / ||K_inf||_F).

With D_s = (K_T - K_0) / ||K_0||_F of seed s and <.,.> the Frobenius inner product, for seeds that start from one residual r_0
(`remove_initial_output`: r_0 = -y),

    systematic^2 = ||E D||^2 = E <D_s, D_t> over pairs of different seeds,    random^2 = E ||D - E D||^2,

and the two add up to the mean square of the kernel drift. Means over pairs of different seeds are unbiased: the square of the
seeds' mean holds 1/S of the random part besides. The square of a systematic part that is lost in the scatter may come out
below zero; the part is then 0.

All is a function of the Gram matrix <D_s, D_t>.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ntksim.study.statistics.columns import quantities
from ntksim.study.statistics.seeds import FEWEST, UNKNOWN, Interval, moments, positive_interval, quantile

PARTS = quantities("parts")  # the systematic one first
ERROR_PARTS = quantities("error_parts")


class Part(NamedTuple):
    """The square of a part, its interval, and the squares without each of the seeds (S,)."""

    square: float
    interval: Interval
    without: np.ndarray

    @property
    def root(self) -> float:
        """The part itself; 0 where it is lost."""
        return float(np.sqrt(np.maximum(self.square, 0.0)))

    @property
    def of_root(self) -> Interval:
        """Its interval; the error is that of which Student's interval would be as long: at 0 a root has no slope."""
        if np.isnan(self.interval.low):
            return UNKNOWN
        low, high = np.sqrt([self.interval.low, self.interval.high])
        return Interval((high - low) / (2 * quantile(len(self.without) - 1)), low, high)


def gram_matrix(changes: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """<D_s, D_t>, (S, S), of relative changes (S, ...); (0, 0) of none."""
    flat = np.array([np.ravel(change) for change in changes], dtype=np.float64).reshape(len(changes), -1 if len(changes) else 0)
    return flat @ flat.T


def mean_squares(gram: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The squares of the two parts, (...) each, over seeds with weights (..., S): 0 leaves a seed out.

    Pairs of a seed with itself are left out. NaN where one seed is all that has a weight.
    """
    own = np.diagonal(gram)
    pairs = np.sum(weights, axis=-1) ** 2 - np.sum(weights**2, axis=-1)
    among = np.sum(weights @ gram * weights, axis=-1) - weights**2 @ own
    with np.errstate(invalid="ignore"):
        systematic = among / np.where(pairs > 0, pairs, np.nan)
    total = weights @ own / np.sum(weights, axis=-1)
    return dict(zip(PARTS, (systematic, total - systematic), strict=True))


def estimates(gram: np.ndarray, names: Sequence[str] = PARTS) -> dict[str, Part]:
    """The two parts, by ``names``, of 2 seeds at least, and with intervals of `FEWEST`; NaN of fewer."""
    seeds = len(gram)
    if seeds < 2:
        return {name: Part(np.nan, UNKNOWN, np.full(seeds, np.nan)) for name in names}
    squares, without = mean_squares(gram, np.ones(seeds)), mean_squares(gram, 1.0 - np.eye(seeds))
    found = {name: Part(float(squares[own]), UNKNOWN, without[own]) for name, own in zip(names, PARTS, strict=True)}
    if seeds < FEWEST:
        return found
    systematic, random = found.values()
    ends = (_systematic_interval(gram, systematic.square), positive_interval(random.square, random.without))
    return {name: part._replace(interval=own) for (name, part), own in zip(found.items(), ends, strict=True)}


def _systematic_interval(gram: np.ndarray, square: float) -> Interval:
    """The squares q that are at most t standard errors from their estimate, with the variance at q and not at the estimate.

    The idea is Wilson's (1927). The estimate is a mean over pairs, with the variance 4 q v / S + 2 tr(Sigma^2) / (S (S - 1))
    (Chen & Qin 2010): Sigma is the covariance of D, and v its variance along the mean. Where the part is lost in the scatter
    the second term is all there is, and a variance taken at the estimate may come out as next to nothing.
    """
    seeds, reach = len(gram), quantile(len(gram) - 1)
    with_mean = gram.mean(axis=0)  # <D_s, mean>
    along = float(with_mean.var(ddof=1) / max(with_mean.mean(), np.finfo(np.float64).tiny))
    centred = gram - with_mean - with_mean[:, None] + with_mean.mean()
    trace, trace_of_square = np.trace(centred) / (seeds - 1), np.sum(centred**2) / (seeds - 1) ** 2
    # less what the noise of the covariance adds; in one dimension nothing is taken off
    scatter = max((seeds - 1) / (seeds - 2) * (trace_of_square - trace**2 / (seeds - 1)), 0.0) / (seeds * (seeds - 1))
    estimate = max(square, 0.0)
    slope = 2 * reach**2 * along / seeds
    width = np.sqrt(slope * (2 * estimate + slope) + 2 * reach**2 * scatter)
    low, high = max(estimate + slope - width, 0.0), estimate + slope + width
    return Interval((high - low) / (2 * reach), low, high)


def parts(gram: np.ndarray, names: Sequence[str] = PARTS) -> dict[str, dict[str, float]]:
    """The two parts with standard errors and intervals, by ``names``.

    NaN where there are too few seeds: fewer than 2, or, of errors and intervals, than `FEWEST`.
    """
    found = {}
    for name, part in estimates(gram, names).items():
        error, low, high = part.of_root
        ends = {"interval_low": low, "interval_high": high, "root_mean_square_low": low, "root_mean_square_high": high}
        found[name] = moments(np.zeros(0)) | {"root_mean_square": part.root, "standard_error": error} | ends
    return found
