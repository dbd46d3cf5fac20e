"""What a study found, in a few lines of text."""

from pathlib import Path

import numpy as np
import pandas as pd

from ntksim.study.tables import read_table


def _law(laws: pd.DataFrame, network: str, quantity: str) -> str:
    """The fitted exponent with its interval, beside theory's."""
    rows = laws[(laws["network"] == network) & (laws["quantity"] == quantity)]
    if rows.empty:
        return "no law (fewer than two widths)"
    law = rows.iloc[0]
    theory = "none" if np.isnan(law["theory_exponent"]) else f"{law['theory_exponent']:+.1f}"
    return f"exponent {law['exponent']:+.2f} [{law['interval_low']:+.2f}, {law['interval_high']:+.2f}], theory {theory}"


def summary(results: str | Path) -> str:
    """The summary of a results folder. Raises FileNotFoundError if it holds no tables."""
    results = Path(results)
    errors = read_table(results, "convergence")
    laws = read_table(results, "scaling_laws")
    lines = ["", "Error of the empirical kernel to its limit, ||K_m - K_inf||_F / ||K_inf||_F, root mean square over seeds:"]
    for network in dict.fromkeys(errors["network"]):
        rows = errors[(errors["network"] == network) & (errors["quantity"] == "relative_frobenius_error")].sort_values("width")
        first, last = rows.iloc[0], rows.iloc[-1]
        lines.append(
            f"  {network:<14} {first['root_mean_square']:.3f} at width {first['width']}, {last['root_mean_square']:.4f} at "
            f"width {last['width']}; {_law(laws, network, 'relative_frobenius_error')}"
        )
    if (results / "tables" / "drift.parquet").is_file():
        drift = read_table(results, "drift")
        lines.append("Movement in training, root mean square over seeds at the largest width:")
        for network in dict.fromkeys(drift["network"]):
            parts = []
            for quantity in ("kernel_drift", "parameter_drift"):
                rows = drift[(drift["network"] == network) & (drift["quantity"] == quantity)].sort_values("width")
                last = rows.iloc[-1]
                name = quantity.replace("_", " ")
                parts.append(f"{name} {last['root_mean_square']:.4f}; {_law(laws, network, quantity)}")
            lines += [f"  {network:<14} {part}" for part in parts]
        left_out = int(drift.loc[drift["quantity"] == "loss", "excluded"].sum())
        if left_out:
            lines.append(f"  {left_out} networks diverged and are left out of these statistics")
    lines += [
        f"Tables:  {results / 'tables'}  (ntksim.read_table({str(results)!r}, 'convergence'))",
        f"Figures: {results / 'figures'}",
    ]
    return "\n".join(lines)
