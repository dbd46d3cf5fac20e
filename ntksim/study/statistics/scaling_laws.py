"""Power laws in the width: exponent and prefactor for each network and quantity, and the exponent that theory predicts.

The logarithm of the root mean square over seeds is fitted by least squares against the logarithm of the width. Each logarithm has
a standard error by the jackknife over the seeds of its width. Exponent and prefactor are linear combinations of these logarithms,
which gives their intervals (`seeds.combined`). The fit does not use theory's exponent.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ntksim.engine.activation import is_smooth
from ntksim.study.config.network import RICH
from ntksim.study.config.stages import Training, in_batches
from ntksim.study.statistics.columns import QUANTITIES, quantities
from ntksim.study.statistics.drift_parts import ERROR_PARTS, PARTS, estimates
from ntksim.study.statistics.seeds import (
    FEWEST,
    NETWORK,
    SEEDS,
    UNKNOWN,
    Interval,
    cells,
    combined,
    counts,
    has_logarithm,
    jackknife,
    key,
    mean_interval,
    usable,
)

Grams = Mapping[tuple[Any, ...], np.ndarray]  # by cell (`seeds.key`)


def theory_exponent(quantity: str, activation: str, depth: int, parameterization: str) -> float:
    """Theory's exponent of the width for a quantity with a law (`columns.QUANTITIES`); NaN if theory gives none."""
    law = QUANTITIES[quantity].law
    assert law is not None
    if parameterization in RICH:
        return law.rich
    if parameterization in ("standard", "abc"):
        return law.scaled
    if depth > 1 and law.deep is not None:
        return law.deep
    return law.smooth if is_smooth(activation) else law.kinked


def is_asymptotic(quantity: str, theory: float, parameterization: str) -> bool:
    """Whether theory's exponent, as the table has it, holds at very large widths only.

    With kinked activations the flips of gates add parts to those of smooth activations. The smooth part falls faster with the
    width, but contributes at finite widths.
    """
    law = QUANTITIES[quantity].law if quantity in QUANTITIES else None  # others are of the table dispersion
    return law is not None and law.kinked != law.smooth and theory == law.kinked and parameterization in ("ntk", "notes")


def scaling_laws(
    initial: pd.DataFrame,
    final: pd.DataFrame | None,
    grams: Grams | None = None,
    training: Training | None = None,
    error_grams: Grams | None = None,
) -> pd.DataFrame:
    """Fit a power law for every network and quantity; return a row for each.

    Parameters
    ----------
    initial : the table ``initial``.
    final : the table ``final``; None in a study without training.
    grams : the Gram matrix of the kernel's changes (`drift_parts`) by cell (`seeds.key`), if the drift has parts.
    training : how networks are trained, on which depends where theory has exponents (`has_theory`).
    error_grams : the same as ``grams`` for the kernel's differences from the limit at initialisation.

    There is no row for a network with fewer than two widths. There is none either if a quantity is indistinguishable from 0 at
    any width: its root mean square is 0 without one of the seeds, or the interval of a part (bias, scatter, those of the kernel
    drift) contains 0. Leaving out only these widths would bias the fit. If any width has fewer than `FEWEST` seeds, errors and
    intervals are NaN, and parts have no law. Seeds that :func:`seeds.usable` leaves out are counted. A law is marked if any of
    its widths is.
    """
    rows: list[dict] = []
    for frame, names, own_parts, every in (
        (initial, quantities("convergence"), ERROR_PARTS, error_grams),
        (final, quantities("drift"), PARTS, grams),
    ):
        if frame is None:
            continue
        for cell, group in cells(frame):
            seeds = {int(str(width)): len(at_width) for width, at_width in group.groupby("width")}
            for quantity in (name for name in names if QUANTITIES[name].law):
                samples = {int(str(width)): sample(usable(at_width, quantity)) for width, at_width in group.groupby("width")}
                rows += law(cell, quantity, samples, seeds, has_theory(quantity, cell, training))
            own_grams = {width: gram for width in seeds if (gram := (every or {}).get(key(cell | {"width": width}))) is not None}
            for index, part in enumerate(own_parts if own_grams else ()):
                samples = {width: part_sample(gram, PARTS[index]) for width, gram in own_grams.items()}
                rows += law(cell, part, samples, seeds, has_theory(part, cell, training))
    return table([row | {"along": "width", "averaged_over": SEEDS} for row in rows])


def has_theory(quantity: str, cell: Mapping[str, Any], training: Training | None) -> bool:
    """Whether theory may have an exponent for a quantity of a cell's training set, of networks that are trained like this.

    Of movement it has none with weight decay, which moves parameters and kernel by as much at any width; and none of distances
    from theory, which is for the full batch, in batches: they contain the batches' noise.
    """
    if training is None:
        return True
    if training.weight_decay > 0 and quantity in (*quantities("drift"), *PARTS):
        return False
    return not (quantity.endswith("_deviation") and in_batches(training.batch_size, cell.get("train_points", 0)))


def table(rows: Iterable[dict]) -> pd.DataFrame:
    """The table of some laws, with its columns also where there are none."""
    columns = [*NETWORK, "along", "averaged_over", "width", "quantity", "widths_fitted", "excluded"]
    columns += ["excluded_share", "marked"]
    columns += ["prefactor", "prefactor_low", "prefactor_high", "exponent", "standard_error"]
    columns += ["interval_low", "interval_high", "theory_exponent", "z_score"]
    return pd.DataFrame(rows, columns=columns)


class Sample(NamedTuple):
    """A quantity at one width: the number of seeds, the logarithm of its root mean square, and the logarithm's standard error.

    The logarithm is NaN if the quantity is indistinguishable from 0.
    """

    size: int
    logarithm: float
    error: float


def sample(values: np.ndarray) -> Sample:
    """Sample from a quantity's values (seeds,) at one width."""
    squares = values**2
    without = (squares.sum() - squares) / max(len(values) - 1, 1)
    return _logarithm(float(np.mean(squares)) if len(values) else np.nan, without)


def part_sample(gram: np.ndarray, part: str) -> Sample:
    """Sample from one of `PARTS` of a matrix at one width, given the Gram matrix over seeds.

    The logarithm is NaN if the part's interval contains 0.
    """
    found = estimates(gram)[part]
    distinguishable = found.interval.low > 0
    return _logarithm(found.square if distinguishable else np.nan, found.without)


def _logarithm(square: float, without: np.ndarray) -> Sample:
    """Sample from a mean square and the mean squares ``without`` each seed (seeds,)."""
    if len(without) < 2 or not has_logarithm(square, without):
        return Sample(len(without), np.nan, np.nan)
    estimate, others = 0.5 * np.log(square), 0.5 * np.log(without)
    return Sample(len(without), float(estimate), mean_interval(jackknife(estimate, others)).error)


def law(
    cell: dict,
    quantity: str,
    given: Mapping[Any, Sample],
    seeds: Mapping[Any, int],
    known: bool = True,
    at: Callable[[Any], float] = float,
) -> Iterable[dict]:
    """The row of a law, if there is one, from the sample and the number of seeds at each width.

    ``known`` says whether theory may have an exponent for it. The law may be of another variable too: ``at`` gives its value.
    """
    samples = {width: sample for width, sample in sorted(given.items()) if sample.size > 1}
    few = any(sample.size < FEWEST for sample in samples.values())
    any_zero = any(np.isnan(sample.logarithm) for sample in samples.values())
    if len(samples) < 2 or any_zero or (few and quantity in (*PARTS, *ERROR_PARTS)):
        return []
    exponent, intercept, of_exponent, of_intercept = fit(samples, at)
    theory = theory_exponent(quantity, cell["activation"], cell["depth"], cell["parameterization"]) if known else np.nan
    found = {
        "quantity": quantity,
        "widths_fitted": len(samples),
        **excluded(given, seeds),
        **power_law(exponent, intercept, of_exponent, of_intercept),
        "theory_exponent": theory,
        "z_score": (exponent - theory) / of_exponent.error if of_exponent.error > 0 else np.nan,
    }
    return [cell | found]


def fit(samples: Mapping[Any, Sample], at: Callable[[Any], float] = float) -> tuple[float, float, Interval, Interval]:
    """Fit a power law to the samples at each width: exponent, logarithm of the prefactor, and the intervals of the two.

    The intervals are NaN if any width has too few seeds.
    """
    log_width = np.log(np.array([at(key) for key in samples], dtype=np.float64))
    # Slope and intercept of the least-squares line are linear in the logarithms. These are their coefficients.
    weights = np.linalg.pinv(np.stack([log_width, np.ones_like(log_width)], axis=1))
    sizes, logarithms, errors = np.array(list(samples.values())).T
    slope, intercept = weights @ logarithms
    of_slope, of_intercept = (combined(row, logarithms, errors, sizes) if sizes.min() >= FEWEST else UNKNOWN for row in weights)
    return float(slope), float(intercept), of_slope, of_intercept


def power_law(exponent: float, intercept: float, of_exponent: Interval, of_intercept: Interval) -> dict[str, float]:
    """The columns of a fitted power law, from the line in the logarithms and the intervals of its slope and intercept."""
    return {
        "prefactor": float(np.exp(intercept)),
        "prefactor_low": float(np.exp(of_intercept.low)),
        "prefactor_high": float(np.exp(of_intercept.high)),
        "exponent": float(exponent),
        "standard_error": of_exponent.error,
        "interval_low": of_exponent.low,
        "interval_high": of_exponent.high,
    }


def excluded(given: Mapping[Any, Sample], seeds: Mapping[Any, int]) -> dict:
    """The number of seeds left out at all widths together, and share and mark of the width with the largest share."""
    by_width = [counts(sample.size, seeds[width]) for width, sample in given.items()]
    most = max(by_width, key=lambda width_counts: width_counts["excluded_share"])
    return {"excluded": sum(at_width["excluded"] for at_width in by_width)} | {
        name: most[name] for name in ("excluded_share", "marked")
    }
