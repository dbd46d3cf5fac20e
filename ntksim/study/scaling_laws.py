"""Power laws in the width: exponent and prefactor per network and quantity, beside the exponent that theory gives.

The fit is least squares of the logarithm of the root mean square over seeds against the logarithm of the width. Its
uncertainty is a bootstrap over seeds, within each width. The exponent is reported as it comes out, never forced.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ntksim.study.columns import QUANTITIES, quantities
from ntksim.study.drift_parts import PARTS, mean_squares
from ntksim.study.seed_statistics import FEWEST, TAIL, cells, resamples, usable

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
    grams: Mapping[tuple[str, int], np.ndarray] | None = None,
    in_batches: bool = False,
) -> pd.DataFrame:
    """Fit every network and quantity: a row each.

    ``initial`` is the table of that name; ``final`` likewise, or None without training. ``grams`` holds per network and width
    the Gram matrix of the kernel's changes (`drift_parts`), where it has parts. ``in_batches``: distances from full-batch
    theory hold the noise of batches, for which there is no exponent.

    Networks with fewer than two widths have no law and no row, nor have quantities whose bootstrap interval holds 0 at some
    width: widths at which a quantity is lost in the scatter cannot be left out without a bias. With fewer than `FEWEST`
    seeds at some width errors and intervals are NaN, and a part of the kernel drift has no law. Seeds that
    :func:`seed_statistics.usable` leaves out are counted.
    """
    rows: list[dict] = []
    for frame, names in ((initial, quantities("convergence")), (final, quantities("drift"))):
        if frame is None:
            continue
        for cell, group in cells(frame):
            for quantity in (name for name in names if QUANTITIES[name].law):
                samples = {int(str(width)): _sample(usable(own, quantity)) for width, own in group.groupby("width")}
                known = not (in_batches and quantity.endswith("_deviation"))
                rows += _law(cell, quantity, samples, len(group), known)
            own_grams = {width: gram for (name, width), gram in (grams or {}).items() if name == cell["network"]}
            for part in PARTS if frame is final and own_grams else ():
                samples = {width: _part_sample(gram, part) for width, gram in own_grams.items()}
                rows += _law(cell, part, samples, len(group))
    columns = ["network", "activation", "depth", "parameterization", "quantity", "widths_fitted", "excluded"]
    columns += ["prefactor", "prefactor_low", "prefactor_high", "exponent", "standard_error"]
    columns += ["interval_low", "interval_high", "theory_exponent", "z_score"]
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class _Sample:
    """One width's seeds: their number, and the mean square of a quantity over the seeds with some indices (..., size)."""

    size: int
    mean_square: Callable[[np.ndarray], np.ndarray]


def _sample(values: np.ndarray) -> _Sample:
    return _Sample(len(values), lambda picks: np.mean(values[picks] ** 2, axis=-1))


def _part_sample(gram: np.ndarray, part: str) -> _Sample:
    return _Sample(len(gram), lambda picks: mean_squares(gram, picks)[part])


def _law(cell: dict, quantity: str, every: Mapping[int, _Sample], seeds: int, known: bool = True) -> Iterable[dict]:
    samples = {width: sample for width, sample in sorted(every.items()) if sample.size > 1}
    few = any(sample.size < FEWEST for sample in samples.values())
    if len(samples) < 2 or (few and quantity in PARTS):
        return []
    rng = np.random.default_rng(0)  # fixed: equal shards, equal tables
    squares = np.array([sample.mean_square(resamples(rng, sample.size)) for sample in samples.values()])
    point = np.array([sample.mean_square(np.arange(sample.size)) for sample in samples.values()])
    if not (((point > 0) & np.isfinite(point)).all() and (np.nanpercentile(squares, TAIL, axis=1) > 0).all()):
        return []
    log_width = np.log(np.array(list(samples), dtype=np.float64))
    exponent, intercept = np.polyfit(log_width, 0.5 * np.log(point), 1)
    squares = squares[:, (squares > 0).all(axis=0)]  # a part may vanish in the tails, or have one seed alone
    exponents, intercepts = np.polyfit(log_width, 0.5 * np.log(squares), 1)
    error, low, high, prefactor_low, prefactor_high = np.full(5, np.nan)
    if not few:
        error = exponents.std(ddof=1)
        low, high = np.percentile(exponents, [TAIL, 100 - TAIL])
        prefactor_low, prefactor_high = np.exp(np.percentile(intercepts, [TAIL, 100 - TAIL]))
    theory = theory_exponent(quantity, cell["activation"], cell["depth"], cell["parameterization"]) if known else np.nan
    fit = {
        "quantity": quantity,
        "widths_fitted": len(samples),
        "excluded": seeds - sum(sample.size for sample in every.values()),
        "prefactor": np.exp(intercept),
        "prefactor_low": prefactor_low,
        "prefactor_high": prefactor_high,
        "exponent": exponent,
        "standard_error": error,
        "interval_low": low,
        "interval_high": high,
        "theory_exponent": theory,
        "z_score": (exponent - theory) / error if error > 0 else np.nan,
    }
    return [cell | fit]
