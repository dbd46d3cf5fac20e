"""A random matrix split into a systematic part, common to all seeds, and a random part.

The matrix is the kernel's change in training. At initialisation it is the kernel's difference from its limit, with
D_s = (K_m - K_inf) / ||K_inf||_F below; the parts are then its bias and its scatter (`ERROR_PARTS`).

Let D_s = (K_T - K_0) / ||K_0||_F be the relative change of seed s, and <.,.> the Frobenius inner product. If all seeds start from
the same residual r_0 (`remove_initial_output`: r_0 = -y), the parts are

    systematic^2 = ||E D||^2 = E <D_s, D_t> over pairs of different seeds,    random^2 = E ||D - E D||^2.

Their squares add up to the mean square of the kernel drift. Means over pairs of different seeds are unbiased; the squared norm of
the mean over S seeds would also contain 1/S of the random part's square. If the systematic part is small compared with the
scatter, the estimate of its square may be negative; the part is then set to 0.

Everything is computed from the Gram matrix <D_s, D_t>.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ntksim.study.statistics.columns import quantities
from ntksim.study.statistics.seeds import FEWEST, UNKNOWN, Interval, moments, positive_interval, quantile

PARTS = quantities("parts")  # names of the parts, the systematic one first
ERROR_PARTS = quantities("error_parts")  # and of those at initialisation


class Part(NamedTuple):
    """Estimate of a part's square, the interval of this square, and the estimates without each of the seeds (S,)."""

    square: float
    interval: Interval
    without: np.ndarray

    @property
    def root(self) -> float:
        """The part: the root of its square, or 0 if the estimate of the square is negative."""
        return float(np.sqrt(np.maximum(self.square, 0.0)))

    @property
    def of_root(self) -> Interval:
        """Interval of the part.

        Its error is the one for which Student's interval would have the same length. The delta method fails, since the root has
        no finite derivative at 0.
        """
        if np.isnan(self.interval.low):
            return UNKNOWN
        low, high = np.sqrt([self.interval.low, self.interval.high])
        return Interval((high - low) / (2 * quantile(len(self.without) - 1)), low, high)


def gram_matrix(changes: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Gram matrix <D_s, D_t>, (S, S), of relative changes (S, ...)."""
    flat = np.array([np.ravel(change) for change in changes], dtype=np.float64).reshape(len(changes), -1 if len(changes) else 0)
    return flat @ flat.T


def mean_squares(gram: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Estimates of the squares of the two parts, each of shape (...), with weights (..., S) of the seeds.

    A weight of 0 leaves a seed out. Pairs of a seed with itself are excluded. The result is NaN if only one seed has a weight.
    """
    diagonal = np.diagonal(gram)
    pairs = np.sum(weights, axis=-1) ** 2 - np.sum(weights**2, axis=-1)
    among = np.sum(weights @ gram * weights, axis=-1) - weights**2 @ diagonal
    with np.errstate(invalid="ignore"):
        systematic = among / np.where(pairs > 0, pairs, np.nan)
    total = weights @ diagonal / np.sum(weights, axis=-1)
    return dict(zip(PARTS, (systematic, total - systematic), strict=True))


def estimates(gram: np.ndarray, names: Sequence[str] = PARTS) -> dict[str, Part]:
    """Estimates of the two parts, by ``names``: NaN for fewer than 2 seeds, without intervals for fewer than `FEWEST`."""
    seeds = len(gram)
    if seeds < 2:
        return {name: Part(np.nan, UNKNOWN, np.full(seeds, np.nan)) for name in names}
    squares, without = mean_squares(gram, np.ones(seeds)), mean_squares(gram, 1.0 - np.eye(seeds))
    found = {name: Part(float(squares[own]), UNKNOWN, without[own]) for name, own in zip(names, PARTS, strict=True)}
    if seeds < FEWEST:
        return found
    systematic, random = found.values()
    ends = (_systematic_interval(gram, systematic.square), positive_interval(random.square, random.without))
    return {name: part._replace(interval=interval) for (name, part), interval in zip(found.items(), ends, strict=True)}


def _systematic_interval(gram: np.ndarray, square: float) -> Interval:
    """Interval of the systematic part's square: all q that differ from the estimate by at most t standard errors.

    The standard error is that at q, not at the estimate, as in Wilson's interval (1927). The estimate is a mean over pairs of
    seeds. Its variance is 4 q v / S + 2 tr(Sigma^2) / (S (S - 1)) (Chen & Qin 2010), where Sigma is the covariance of D and v the
    variance of D along its mean. If q is small compared with the scatter, only the second term matters; a variance at the
    estimate could then come out much too small.
    """
    seeds, reach = len(gram), quantile(len(gram) - 1)
    with_mean = gram.mean(axis=0)  # <D_s, mean>
    along = float(with_mean.var(ddof=1) / max(with_mean.mean(), np.finfo(np.float64).tiny))
    centred = gram - with_mean - with_mean[:, None] + with_mean.mean()
    trace, trace_of_square = np.trace(centred) / (seeds - 1), np.sum(centred**2) / (seeds - 1) ** 2
    # Unbiased tr(Sigma^2): the noise of the sample covariance is subtracted. In one dimension this leaves the trace as it is.
    scatter = max((seeds - 1) / (seeds - 2) * (trace_of_square - trace**2 / (seeds - 1)), 0.0) / (seeds * (seeds - 1))
    estimate = max(square, 0.0)
    slope = 2 * reach**2 * along / seeds
    width = np.sqrt(slope * (2 * estimate + slope) + 2 * reach**2 * scatter)
    low, high = max(estimate + slope - width, 0.0), estimate + slope + width
    return Interval((high - low) / (2 * reach), low, high)


def parts(gram: np.ndarray, names: Sequence[str] = PARTS) -> dict[str, dict[str, float]]:
    """The two parts by ``names``, each as a row's columns: the part, its standard error and its interval.

    All are NaN for fewer than 2 seeds; errors and intervals are NaN for fewer than `FEWEST`.
    """
    found = {}
    for name, part in estimates(gram, names).items():
        error, low, high = part.of_root
        ends = {"interval_low": low, "interval_high": high, "root_mean_square_low": low, "root_mean_square_high": high}
        found[name] = moments(np.zeros(0)) | {"root_mean_square": part.root, "standard_error": error} | ends
    return found
