"""Power laws in the width: exponent and prefactor per network and quantity, beside the exponent that theory gives.

The fit is least squares of the logarithm of the root mean square over seeds against the logarithm of the width. Each of these
logarithms has an error by the jackknife over its width's seeds; exponent and prefactor are combinations of them over widths
(`seeds.combined`). The exponent is reported as it comes out, never forced.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from ntksim.study.statistics.columns import QUANTITIES, quantities
from ntksim.study.statistics.drift_parts import ERROR_PARTS, PARTS, estimates
from ntksim.study.statistics.seeds import (
    FEWEST,
    NETWORK,
    UNKNOWN,
    Interval,
    cells,
    combined,
    counts,
    has_logarithm,
    jackknife,
    mean_interval,
    usable,
)

Grams = Mapping[tuple[str, int], np.ndarray]
SMOOTH = ("tanh", "erf", "linear", "gelu", "sin")


def theory_exponent(quantity: str, activation: str, depth: int, parameterization: str) -> float:
    """The exponent of the width that theory gives a quantity that has a law (`columns.QUANTITIES`), NaN where it gives none."""
    law = QUANTITIES[quantity].law
    assert law is not None
    if parameterization in ("mup", "mean_field"):
        return law.rich
    if parameterization in ("standard", "abc"):
        return law.scaled
    if depth > 1 and law.deep is not None:
        return law.deep
    return law.smooth if activation in SMOOTH else law.kinked


def is_asymptotic(quantity: str, activation: str, parameterization: str) -> bool:
    """Whether theory's exponent is that of very large widths alone: flips of gates give a kinked activation another one than
    smooth ones have, and the smooth part, which falls faster, is beside it at finite widths.
    """
    law = QUANTITIES[quantity].law
    return law is not None and law.kinked != law.smooth and activation not in SMOOTH and parameterization in ("ntk", "notes")


def scaling_laws(
    initial: pd.DataFrame,
    final: pd.DataFrame | None,
    grams: Grams | None = None,
    in_batches: bool = False,
    error_grams: Grams | None = None,
) -> pd.DataFrame:
    """Fit every network and quantity: a row each.

    ``initial`` is the table of that name; ``final`` likewise, or None without training. ``grams`` holds per network and width
    the Gram matrix of the kernel's changes (`drift_parts`), where it has parts, and ``error_grams`` that of its differences
    from the limit. ``in_batches``: distances from full-batch theory hold the noise of batches, for which there is no exponent.

    Networks with fewer than two widths have no law and no row. Nor have quantities that one seed alone tells from 0 at some
    width, nor parts (bias, scatter, those of the kernel drift) whose interval there holds 0: widths at which a quantity is lost
    in the scatter cannot be left out without a bias. With fewer than `FEWEST` seeds at some width errors and intervals are NaN,
    and a part has no law. Seeds that :func:`seeds.usable` leaves out are counted; a law is marked if any of its widths is.
    """
    rows: list[dict] = []
    for frame, names, own_parts, every in (
        (initial, quantities("convergence"), ERROR_PARTS, error_grams),
        (final, quantities("drift"), PARTS, grams),
    ):
        if frame is None:
            continue
        for cell, group in cells(frame):
            seeds = {int(str(width)): len(own) for width, own in group.groupby("width")}
            for quantity in (name for name in names if QUANTITIES[name].law):
                samples = {int(str(width)): sample(usable(own, quantity)) for width, own in group.groupby("width")}
                known = not (in_batches and quantity.endswith("_deviation"))
                rows += _law(cell, quantity, samples, seeds, known)
            own_grams = {width: gram for (name, width), gram in (every or {}).items() if name == cell["network"]}
            for place, part in enumerate(own_parts if own_grams else ()):
                samples = {width: part_sample(gram, PARTS[place]) for width, gram in own_grams.items()}
                rows += _law(cell, part, samples, seeds)
    columns = [*NETWORK, "quantity", "widths_fitted", "excluded"]
    columns += ["excluded_share", "marked"]
    columns += ["prefactor", "prefactor_low", "prefactor_high", "exponent", "standard_error"]
    columns += ["interval_low", "interval_high", "theory_exponent", "z_score"]
    return pd.DataFrame(rows, columns=columns)


class Sample(NamedTuple):
    """One width's seeds: their number, the logarithm of a root mean square over them, and its standard error.

    The logarithm is NaN where the quantity is not told from 0.
    """

    size: int
    logarithm: float
    error: float


def sample(values: np.ndarray) -> Sample:
    """Of a quantity's values (seeds,) at one width."""
    squares = values**2
    without = (squares.sum() - squares) / max(len(values) - 1, 1)
    return _logarithm(float(np.mean(squares)) if len(values) else np.nan, without)


def part_sample(gram: np.ndarray, part: str) -> Sample:
    """Of one of `PARTS` at one width, from the Gram matrix; lost if its interval holds 0."""
    found = estimates(gram)[part]
    told = found.interval.low > 0
    return _logarithm(found.square if told else np.nan, found.without)


def _logarithm(square: float, without: np.ndarray) -> Sample:
    """Of a mean square, and those without each seed."""
    if len(without) < 2 or not has_logarithm(square, without):
        return Sample(len(without), np.nan, np.nan)
    estimate, others = 0.5 * np.log(square), 0.5 * np.log(without)
    return Sample(len(without), float(estimate), mean_interval(jackknife(estimate, others)).error)


def _law(cell: dict, quantity: str, every: Mapping[int, Sample], seeds: Mapping[int, int], known: bool = True) -> Iterable[dict]:
    """The row of a law, if there is one, from each width's sample and number of seeds."""
    samples = {width: sample for width, sample in sorted(every.items()) if sample.size > 1}
    few = any(sample.size < FEWEST for sample in samples.values())
    lost = any(np.isnan(sample.logarithm) for sample in samples.values())
    if len(samples) < 2 or lost or (few and quantity in (*PARTS, *ERROR_PARTS)):
        return []
    exponent, intercept, spread, of_intercept = fit(samples)
    theory = theory_exponent(quantity, cell["activation"], cell["depth"], cell["parameterization"]) if known else np.nan
    law = {
        "quantity": quantity,
        "widths_fitted": len(samples),
        **_excluded(every, seeds),
        "prefactor": np.exp(intercept),
        "prefactor_low": np.exp(of_intercept.low),
        "prefactor_high": np.exp(of_intercept.high),
        "exponent": exponent,
        "standard_error": spread.error,
        "interval_low": spread.low,
        "interval_high": spread.high,
        "theory_exponent": theory,
        "z_score": (exponent - theory) / spread.error if spread.error > 0 else np.nan,
    }
    return [cell | law]


def fit(samples: Mapping[int, Sample]) -> tuple[float, float, Interval, Interval]:
    """Exponent of the width and logarithm of the prefactor, and their intervals, NaN of few seeds, from each width's sample."""
    log_width = np.log(np.array(list(samples), dtype=np.float64))
    # what least squares multiply the logarithms by
    weights = np.linalg.pinv(np.stack([log_width, np.ones_like(log_width)], axis=1))
    sizes, logarithms, errors = np.array(list(samples.values())).T
    slope, intercept = weights @ logarithms
    of_slope, of_intercept = (combined(own, logarithms, errors, sizes) if sizes.min() >= FEWEST else UNKNOWN for own in weights)
    return float(slope), float(intercept), of_slope, of_intercept


def _excluded(every: Mapping[int, Sample], seeds: Mapping[int, int]) -> dict:
    """Seeds left out at all widths together, and what is said of the width with the largest share of them."""
    of_widths = [counts(sample.size, seeds[width]) for width, sample in every.items()]
    most = max(of_widths, key=lambda own: own["excluded_share"])
    return {"excluded": sum(own["excluded"] for own in of_widths)} | {name: most[name] for name in ("excluded_share", "marked")}
