"""What a study found, in a few lines of text."""

import html
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from ntksim.study.columns import QUANTITIES
from ntksim.study.storage import atomic
from ntksim.study.tables import read_table

_WHY = (
    "The kernels of smooth networks move like 1/width. Those of ReLU networks move by flips of gates besides: a random part, "
    "-3/4, and since gates do not shut as often as they open, one that all seeds share, -1/2. That is small, and wins only in "
    "very wide networks, so that fits at the widths of a study lie between -1/2 and -1."
)
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Scaling laws</title><style>
body {{ font: 14px sans-serif; margin: 1.5em }} table {{ border-collapse: collapse }}
th, td {{ padding: .25em .8em; border-bottom: 1px solid #ccc; text-align: right }} td:nth-child(-n+2) {{ text-align: left }}
</style></head><body>
<p>Fits of c m<sup>exponent</sup> to root mean squares over seeds, m the width. {left_out}</p>
{laws}
<p>{provenance}</p>
</body></html>
"""


def _law(laws: pd.DataFrame, network: str, quantity: str) -> str:
    """The fitted exponent with its interval, beside theory's."""
    rows = laws[(laws["network"] == network) & (laws["quantity"] == quantity)]
    if rows.empty:
        return "no law (fewer than two widths, or not told from 0 at one)"
    law = rows.iloc[0]
    theory = "none" if np.isnan(law["theory_exponent"]) else f"{law['theory_exponent']:+.2g}"
    interval = "no interval (few seeds)"
    if not np.isnan(law["interval_low"]):
        interval = f"[{law['interval_low']:+.2f}, {law['interval_high']:+.2f}]"
    return f"exponent {law['exponent']:+.2f} {interval}, theory {theory}"


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
            for name, quantity in QUANTITIES.items():
                rows = drift[(drift["network"] == network) & (drift["quantity"] == name)].sort_values("width")
                if rows.empty or quantity.words is None:
                    continue
                last = rows.iloc[-1]
                parts.append(f"{quantity.words} {last['root_mean_square']:.4f}; {_law(laws, network, name)}")
            parts += _accuracies(drift[drift["network"] == network])
            lines += [f"  {network:<14} {part}" for part in parts]
        if "systematic_kernel_drift" in set(drift["quantity"]):
            lines += textwrap.wrap(_WHY, 120, initial_indent="  ", subsequent_indent="  ")
        verdicts = read_table(results, "lazy")["verdict"].value_counts()
        lines.append("Networks and widths: " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
    lines += left_out(results)
    lines += [
        f"Tables:  {results / 'tables'}  (ntksim.read_table({str(results)!r}, 'convergence'))",
        f"Figures: {results / 'figures'}",
        f"Report:  {results / 'report.html'}",
    ]
    return "\n".join(lines)


def _accuracies(drift: pd.DataFrame) -> list[str]:
    """A line on the share of test points told their class at the largest width; none where targets are no classes."""
    widest = drift[drift["width"] == drift["width"].max()].set_index("quantity")
    if not widest["count"].get("test_accuracy"):
        return []
    names = ("test_accuracy", "test_linearized_accuracy", "test_limit_closed_form_accuracy")
    own, linearized, limit = (f"{widest.loc[name, 'mean']:.3f}" for name in names)
    error = f"{widest.loc['test_accuracy', 'standard_error']:.3f}"
    return [f"mean test accuracy {own} (standard error {error}); linearised {linearized}, with K_inf {limit}"]


def left_out(results: str | Path) -> list[str]:
    """A line per stage with networks that no statistic holds: how many, why, and where. Empty if all finished."""
    lines = []
    for table, stage in (("initial", "at initialisation"), ("training", "in training")):
        if not (Path(results) / "tables" / f"{table}.parquet").is_file():
            continue
        rows = read_table(results, table).drop_duplicates(["network", "width", "seed", "status"])
        runs = len(rows.drop_duplicates(["network", "width", "seed"]))
        bad = rows[rows["status"] != "finished"].drop_duplicates(["network", "width", "seed"])
        if len(bad):
            why = ", ".join(f"{count} {status}" for status, count in bad["status"].value_counts().items())
            cells = [
                f"{network} at width {width}" for network, width in dict.fromkeys(zip(bad["network"], bad["width"], strict=True))
            ]
            where = ", ".join(list(cells)[:5]) + (f" and {len(cells) - 5} more cells" if len(cells) > 5 else "")
            lines.append(f"Left out of the statistics {stage}: {len(bad)} of {runs} networks ({why}): {where}")
    return lines


def _intervals(laws: pd.DataFrame, name: str, form: str) -> list[str]:
    ends = zip(laws[f"{name}_low"], laws[f"{name}_high"], strict=True)
    return ["none (few seeds)" if np.isnan(low) else f"{form.format(low)} to {form.format(high)}" for low, high in ends]


def write_html(results: str | Path, output: str | Path) -> None:
    """Write the scaling laws of a results folder, and where they come from, as a self-contained page."""
    laws = read_table(results, "scaling_laws")
    source = laws.attrs["provenance"]
    shown = pd.DataFrame({
        "network": laws["network"],
        "quantity": laws["quantity"].str.replace("_", " "),
        "exponent": laws["exponent"].map("{:+.3f}".format),
        "95% interval": _intervals(laws, "interval", "{:+.3f}"),
        "theory": ["none" if np.isnan(value) else f"{value:+.2g}" for value in laws["theory_exponent"]],
        "z": ["" if np.isnan(value) else f"{value:+.1f}" for value in laws["z_score"]],
        "prefactor c": laws["prefactor"].map("{:.4g}".format),
        "its 95% interval": _intervals(laws, "prefactor", "{:.4g}"),
        "widths": laws["widths_fitted"],
        "seeds left out": laws["excluded"],
    })  # fmt: skip
    words = [f"configuration {laws.attrs['config_hash']}", f"data {laws.attrs['dataset_hash']}", f"commit {source['git_commit']}"]
    words += [str(source["device"]), f"Python {source['python']}"]
    words += [f"{package} {version}" for package, version in source["versions"].items()]
    missing = html.escape(" ".join(left_out(results)) or "Every network finished.")
    page = _PAGE.format(left_out=missing, laws=shown.to_html(index=False, border=0), provenance=html.escape("; ".join(words)))
    with atomic(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
