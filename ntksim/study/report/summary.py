"""A results folder in a few lines of text, and as a page: what the study is, its laws beside theory's, and what it found."""

import html
import textwrap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from ntksim.study.files.storage import atomic
from ntksim.study.files.tables import read_table
from ntksim.study.report import description, findings
from ntksim.study.statistics.columns import QUANTITIES
from ntksim.study.statistics.scaling_laws import is_asymptotic

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Scaling laws</title><style>
body {{ font: 14px sans-serif; margin: 1.5em }} table {{ border-collapse: collapse }}
th, td {{ padding: .25em .8em; border-bottom: 1px solid #ccc; text-align: right }} td:nth-child(-n+2) {{ text-align: left }}
</style></head><body>
{parts}
</body></html>
"""
_FITS = (
    "Fits of c m^exponent to root mean squares over seeds, m the width. z is the distance from theory in standard errors, which "
    "hold the scatter of seeds alone: finite widths are off besides."
)


def summary(results: str | Path) -> str:
    """The summary of a results folder. Raises FileNotFoundError if it holds no tables."""
    results = Path(results)
    errors, laws = read_table(results, "convergence"), read_table(results, "scaling_laws")
    lines = ["", *description.study(errors.attrs)]
    lines.append("Error of the empirical kernel to its limit, ||K_m - K_inf||_F / ||K_inf||_F, root mean square over seeds:")
    for network in dict.fromkeys(errors["network"]):
        rows = errors[(errors["network"] == network) & (errors["quantity"] == "relative_frobenius_error")].sort_values("width")
        ends = [rows.iloc[place] for place in dict.fromkeys([0, len(rows) - 1])]
        values = ", ".join(f"{row['root_mean_square']:.3g}{findings.mark(row)} at width {row['width']}" for row in ends)
        lines.append(f"  {network:<14} {values}; {_law(laws, network, 'relative_frobenius_error')}")
        if sentence := findings.bias(errors[errors["network"] == network]):
            lines.append(f"  {network:<14} {sentence}; without it {_law(laws, network, 'relative_frobenius_scatter')}")
    if _has(results, "drift"):
        lines += _movement(read_table(results, "drift"), laws)
        if findings.has_asymptotic_laws(laws):
            lines += _indented(findings.FLIPS)
        heading, *cells = findings.verdicts(read_table(results, "lazy"))
        lines += [*textwrap.wrap(heading, 120), *(line for text in cells for line in _indented(text))]
    lines += left_out(results)
    lines += [
        f"Tables:  {results / 'tables'}  (ntksim.read_table({str(results)!r}, 'convergence'))",
        f"Figures: {results / 'figures'}",
        f"Report:  {results / 'report.html'}",
    ]
    return "\n".join(lines)


def _has(results: str | Path, table: str) -> bool:
    return (Path(results) / "tables" / f"{table}.parquet").is_file()


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, 120, initial_indent="  ", subsequent_indent="    ")


def _movement(drift: pd.DataFrame, laws: pd.DataFrame) -> list[str]:
    """Lines on what moved in training, a network at a time."""
    lines = ["Movement in training, root mean square over seeds at the largest width:"]
    for network in dict.fromkeys(drift["network"]):
        own = drift[drift["network"] == network]
        found: list[str | None] = []
        for name, quantity in QUANTITIES.items():
            rows = own[own["quantity"] == name].sort_values("width")
            if len(rows) and quantity.words is not None:
                widest = rows.iloc[-1]
                value = f"{widest['root_mean_square']:.3g}{findings.mark(widest)}"
                found.append(f"{quantity.words} {value}; {_law(laws, network, name)}")
        found += [findings.overtaking(own), findings.accuracies(own, drift.attrs["data"]["test"])]
        lines += [f"  {network:<14} {sentence}" for sentence in found if sentence]
    return lines


def _law(laws: pd.DataFrame, network: str, quantity: str) -> str:
    """The fitted exponent with its interval, beside theory's."""
    rows = laws[(laws["network"] == network) & (laws["quantity"] == quantity)]
    if rows.empty:
        return "no law (fewer than two widths, or not told from 0 at one)"
    law = rows.iloc[0]
    interval = "no interval (few seeds)"
    if not np.isnan(law["interval_low"]):
        interval = f"[{law['interval_low']:+.2f}, {law['interval_high']:+.2f}]"
    return f"exponent {law['exponent']:+.2f}{findings.mark(law)} {interval}, theory {_theory(law)}"


def _theory(law: pd.Series) -> str:
    if np.isnan(law["theory_exponent"]):
        return "none"
    far = is_asymptotic(law["quantity"], law["activation"], law["parameterization"])
    return f"{law['theory_exponent']:+.2g}{' (asymptotic)' if far else ''}"


def left_out(results: str | Path) -> list[str]:
    """Lines on the networks that no statistic holds (`findings.stops`). Empty if all finished."""
    return findings.stops(read_table(results, "initial"), read_table(results, "final") if _has(results, "final") else None)


def write_html(results: str | Path, output: str | Path) -> None:
    """Write a results folder's study, scaling laws, verdicts and findings, and where they come from, as a self-contained page."""
    laws = read_table(results, "scaling_laws")
    parts = [
        _lines(description.study(laws.attrs)),
        _networks(laws.attrs["config"]["networks"]),
        "<h2>Scaling laws</h2>",
        _lines([_FITS]),
        _laws(laws),
        _lines([findings.FLIPS] if findings.has_asymptotic_laws(laws) else []),
    ]
    if _has(results, "lazy"):
        drift, lazy = read_table(results, "drift"), read_table(results, "lazy")
        found = {name: findings.overtaking(own) for name, own in drift.groupby("network", sort=False)}
        parts += [
            _lines(f"{name!s}, kernel drift: {sentence}." for name, sentence in found.items() if sentence),
            "<h2>Lazy or rich</h2>",
            _lines([findings.verdicts(lazy)[0].rstrip(":") + ". What moved: medians over seeds; losses and accuracies: means."]),
            _verdicts(lazy),
        ]
    source = laws.attrs["provenance"]
    words = [f"configuration {laws.attrs['config_hash']}", f"data {laws.attrs['dataset_hash']}"]
    words += [
        f"commit {source['git_commit'] or 'unknown (not run from a git checkout)'}",
        str(source["device"]),
        f"Python {source['python']}",
    ]
    words += [f"{package} {version}" for package, version in source["versions"].items()]
    parts.append(_lines([*(left_out(results) or ["Every network finished."]), "; ".join(words)]))
    with atomic(output) as temporary:
        temporary.write_text(_PAGE.format(parts="\n".join(parts)), encoding="utf-8")


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(f"<p>{html.escape(text)}</p>" for text in texts)


def _networks(networks: dict[str, dict]) -> str:
    """The networks' options, those that any of them has, a row each."""
    shown = pd.DataFrame.from_dict(networks, orient="index").dropna(axis="columns", how="all").fillna("none")
    return shown.rename_axis("network").reset_index().to_html(index=False, border=0, float_format="{:.6g}".format)


def _laws(laws: pd.DataFrame) -> str:
    shown = pd.DataFrame({
        "network": laws["network"],
        "quantity": laws["quantity"].str.replace("_", " "),
        "exponent": laws["exponent"].map("{:+.3f}".format),
        "95% interval": _intervals(laws, "interval", "{:+.3f}"),
        "theory": [_theory(law) for _, law in laws.iterrows()],
        "z": ["" if np.isnan(value) else f"{value:+.1f}" for value in laws["z_score"]],
        "prefactor c": laws["prefactor"].map("{:.4g}".format),
        "its 95% interval": _intervals(laws, "prefactor", "{:.4g}"),
        "widths": laws["widths_fitted"],
        "seeds left out": _left_out(laws),
    })  # fmt: skip
    return shown.to_html(index=False, border=0)


def _left_out(table: pd.DataFrame) -> list[str]:
    return [f"{row['excluded']}{findings.mark(row)}" for _, row in table.iterrows()]


def _intervals(laws: pd.DataFrame, name: str, form: str) -> list[str]:
    ends = zip(laws[f"{name}_low"], laws[f"{name}_high"], strict=True)
    return ["none (few seeds)" if np.isnan(low) else f"{form.format(low)} to {form.format(high)}" for low, high in ends]


_SHOWN = (
    "kernel_drift", "relative_linearized_deviation", "parameter_drift", "feature_drift", "gates_flipped", "loss_left",
    "test_loss", "test_accuracy", "test_linearized_accuracy", "test_limit_closed_form_accuracy",
)  # fmt: skip


def _verdicts(lazy: pd.DataFrame) -> str:
    numbers = lazy[list(_SHOWN)].dropna(axis="columns", how="all")  # targets that are no classes have no accuracies
    cells = lazy[["network", "width", "verdict", "count"]].assign(excluded=_left_out(lazy))
    shown = pd.concat([cells, numbers.map("{:.3g}".format)], axis="columns")
    return shown.rename(columns=lambda name: name.replace("_", " ")).to_html(index=False, border=0)
