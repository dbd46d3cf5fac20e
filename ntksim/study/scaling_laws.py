"""Power laws in the width: exponent and prefactor per network and quantity, beside the exponent that theory gives.

The fit is least squares of the logarithm of the root mean square over seeds against the logarithm of the width. Its
uncertainty is a bootstrap over seeds, within each width. The exponent is reported as it comes out, never forced.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

RESAMPLES = 1000
CONFIDENCE = 0.95
ERRORS = ("relative_frobenius_error", "relative_operator_error")
MOVEMENTS = ("kernel_drift", "parameter_drift", "largest_linearized_deviation", "largest_test_linearized_deviation")
SMOOTH = ("tanh", "erf", "linear", "gelu", "sin")


def theory_exponent(quantity: str, activation: str, depth: int, parameterization: str) -> float:
    """The exponent of the width that theory gives, NaN where it gives none.

    Errors to the limit: -1/2 (central limit theorem). Kernel drift: -1 for smooth activations (Dyer & Gur-Ari 2019, Huang
    & Yau 2020); for ReLU -1/2 in the limit, where a share m^(-1/2) of the gates flips, with steeper slopes at the widths
    of a study; the deviation from the linearised network follows the kernel's drift (Lee et al. 2019 bound it by -1/2).
    Parameter drift relative to ||theta_0||: -1/2 for one hidden layer, -1 for more. In mup and mean_field the kernel moves as
    much at every width, 0 (Yang & Hu 2021), and outputs leave the linearised network as far.
    """
    if quantity in ERRORS:
        return -0.5
    if parameterization in ("mup", "mean_field"):
        return np.nan if quantity == "parameter_drift" else 0.0
    if parameterization in ("standard", "abc"):  # time and rates scale with the width, or with any power of it
        return np.nan
    if quantity != "parameter_drift":
        return -1.0 if activation in SMOOTH else -0.5
    return -0.5 if depth == 1 else -1.0


def scaling_laws(initial: pd.DataFrame, final: pd.DataFrame | None) -> pd.DataFrame:
    """Fit every network and quantity: a row each.

    ``initial`` is the table of that name; ``final`` the rows of ``training`` at the last time, or None without training.
    Networks with fewer than two widths have no law and no row. Seeds that :func:`usable` leaves out are counted.
    """
    rows: list[dict] = []
    for frame, quantities in ((initial, ERRORS), (final, MOVEMENTS)):
        if frame is None:
            continue
        for key, group in frame.groupby(["network", "activation", "depth", "parameterization"], sort=False):
            for quantity in quantities:
                rows += _law(dict(zip(("network", "activation", "depth", "parameterization"), key, strict=True)), quantity, group)
    columns = ["network", "activation", "depth", "parameterization", "quantity", "widths_fitted", "excluded"]
    columns += ["prefactor", "prefactor_low", "prefactor_high", "exponent", "standard_error"]
    columns += ["interval_low", "interval_high", "theory_exponent", "z_score"]
    return pd.DataFrame(rows, columns=columns)


def usable(group: pd.DataFrame, quantity: str) -> np.ndarray:
    """The values of a quantity that enter statistics: those of seeds that finished, and finite."""
    values = group[quantity].to_numpy()
    return values[(group["status"] == "finished").to_numpy() & np.isfinite(values)]


def _law(cell: dict, quantity: str, group: pd.DataFrame) -> Iterable[dict]:
    samples, excluded = {}, 0
    for width, rows in group.groupby("width"):
        finite = usable(rows, quantity)
        excluded += len(rows) - len(finite)
        if len(finite) > 1 and np.any(finite > 0):
            samples[width] = finite
    if len(samples) < 2:
        return []
    log_width = np.log(np.array(list(samples), dtype=np.float64))
    exponent, intercept = np.polyfit(log_width, [_log_rms(v) for v in samples.values()], 1)
    rng = np.random.default_rng(0)  # fixed: equal shards, equal tables
    resampled = [_log_rms(rng.choice(v, (RESAMPLES, len(v)))) for v in samples.values()]
    exponents, intercepts = np.polyfit(log_width, np.array(resampled), 1)
    error = exponents.std(ddof=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(exponents, [tail, 100 - tail])
    prefactor_low, prefactor_high = np.exp(np.percentile(intercepts, [tail, 100 - tail]))
    theory = theory_exponent(quantity, cell["activation"], cell["depth"], cell["parameterization"])
    fit = {
        "quantity": quantity,
        "widths_fitted": len(samples),
        "excluded": excluded,
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


def _log_rms(values: np.ndarray) -> np.ndarray:
    return 0.5 * np.log(np.mean(values**2, axis=-1))
