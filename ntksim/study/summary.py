"""What a study found, in a few lines of text."""

from pathlib import Path

import numpy as np
import pandas as pd

from ntksim.study.tables import read_table


def slope(table: pd.DataFrame, quantity: str, network: str) -> float:
    """Least-squares slope of log root mean square against log width; NaN with fewer than two widths."""
    rows = table[(table["quantity"] == quantity) & (table["network"] == network)]
    rows = rows[rows["root_mean_square"] > 0]
    if len(rows) < 2:
        return float("nan")
    return float(np.polyfit(np.log(rows["width"]), np.log(rows["root_mean_square"]), 1)[0])


def summary(results: str | Path) -> str:
    """The summary of a results folder. Raises FileNotFoundError if it holds no tables."""
    results = Path(results)
    errors = read_table(results, "convergence")
    lines = ["", "Error of the empirical kernel to its limit, ||K_m - K_inf||_F / ||K_inf||_F, root mean square over seeds:"]
    for network in dict.fromkeys(errors["network"]):
        rows = errors[(errors["network"] == network) & (errors["quantity"] == "relative_frobenius_error")].sort_values("width")
        first, last = rows.iloc[0], rows.iloc[-1]
        lines.append(
            f"  {network:<14} {first['root_mean_square']:.3f} at width {first['width']}, {last['root_mean_square']:.4f} at "
            f"width {last['width']}; slope {slope(errors, 'relative_frobenius_error', network):+.3f} (theory: -0.5)"
        )
    if (results / "tables" / "drift.parquet").is_file():
        drift = read_table(results, "drift")
        lines.append("Movement in training, root mean square over seeds at the largest width and slope against width:")
        for network in dict.fromkeys(drift["network"]):
            parts = []
            for quantity in ("kernel_drift", "parameter_drift"):
                rows = drift[(drift["network"] == network) & (drift["quantity"] == quantity)].sort_values("width")
                last = rows.iloc[-1]
                name = quantity.replace("_", " ")
                parts.append(f"{name} {last['root_mean_square']:.4f} (slope {slope(drift, quantity, network):+.2f})")
            lines.append(f"  {network:<14} width {last['width']}: {', '.join(parts)}")
        left_out = int(drift.loc[drift["quantity"] == "loss", "excluded"].sum())
        if left_out:
            lines.append(f"  {left_out} networks diverged and are left out of these statistics")
    lines += [
        f"Tables:  {results / 'tables'}  (ntksim.read_table({str(results)!r}, 'convergence'))",
        f"Figures: {results / 'figures'}",
    ]
    return "\n".join(lines)
