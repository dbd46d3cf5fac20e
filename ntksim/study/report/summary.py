"""Summary of a results folder in lines of text: the study, fitted and theoretical exponents, and findings."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from ntksim.study.files.tables import read_table
from ntksim.study.report import description, findings, losses
from ntksim.study.statistics.columns import QUANTITIES
from ntksim.study.statistics.seeds import DATA_SETS, of_one_data_set


def summary(results: str | Path) -> str:
    """The summary of a results folder. Raises FileNotFoundError if it holds no tables."""
    results = Path(results)
    errors, laws = read_shown(results, "convergence"), read_shown(results, "scaling_laws")
    lines = ["", *description.study(errors.attrs)]
    lines.append("Relative error of the empirical kernel, ||K_m - K_inf||_F / ||K_inf||_F, root mean square over seeds:")
    for network in dict.fromkeys(errors["network"]):
        rows = errors[(errors["network"] == network) & (errors["quantity"] == "relative_frobenius_error")].sort_values("width")
        ends = [rows.iloc[index] for index in dict.fromkeys([0, len(rows) - 1])]
        values = ", ".join(f"{row['root_mean_square']:.3g}{findings.mark(row)} at width {row['width']}" for row in ends)
        lines.append(f"  {network:<14} {values}; {_law(laws, network, 'relative_frobenius_error')}")
        own = errors[errors["network"] == network]
        if sentence := findings.bias(own):
            lines.append(f"  {network:<14} {sentence}; without it {_law(laws, network, 'relative_frobenius_scatter')}")
        if sentence := findings.off_theory(own, laws[laws["network"] == network]):
            lines.append(f"  {network:<14} {sentence}")
    if has_table(results, "drift"):
        lines += _movement(read_shown(results, "drift"), laws)
        if findings.has_asymptotic_laws(laws):
            lines += _indented(findings.FLIPS)
        heading, *cells = findings.verdicts(read_shown(results, "lazy"))
        lines += [*textwrap.wrap(heading, 120), *(line for text in cells for line in _indented(text))]
    lines += [f"  {name:<14} {sentence}" for name, sentences in findings.over_depths(laws).items() for sentence in sentences]
    averages = findings.over_data_sets(read_averages(results))
    lines += [f"  {name:<14} {sentence}" for name, sentences in averages.items() for sentence in sentences]
    lines += left_out(results)
    lines += [
        f"Tables:  {results / 'tables'}  (ntksim.read_table({str(results)!r}, 'convergence'))",
        f"Figures: {results / 'figures'}",
        f"Report:  {results / 'report.html'}",
    ]
    return "\n".join(lines)


def read_shown(results: str | Path, table: str) -> pd.DataFrame:
    """A table of a results folder as summary and report show it: of one data set, where the study has several."""
    return of_one_data_set(read_table(results, table))


def read_averages(results: str | Path) -> pd.DataFrame:
    """The laws of averages over data sets as summary and report show them: of the largest training set, and along all of them."""
    laws = read_table(results, "scaling_laws")
    averages = laws[laws.get("averaged_over", pd.Series("", laws.index)) == DATA_SETS]  # none in tables of older versions
    return averages[averages["train_points"].isna() | (averages["train_points"] == averages["train_points"].max())]


def has_table(results: str | Path, table: str) -> bool:
    """Whether a results folder has a table."""
    return (Path(results) / "tables" / f"{table}.parquet").is_file()


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, 120, initial_indent="  ", subsequent_indent="    ")


def _movement(drift: pd.DataFrame, laws: pd.DataFrame) -> list[str]:
    """Lines on how far each network moved in training."""
    lines = ["Movement in training, root mean square over seeds at the largest width:"]
    for network in dict.fromkeys(drift["network"]):
        of_network = drift[drift["network"] == network]
        found: list[str | None] = []
        for name, quantity in QUANTITIES.items():
            rows = of_network[of_network["quantity"] == name].sort_values("width")
            if len(rows) and quantity.words is not None and (words := losses.named(name, quantity.words, drift.attrs)):
                widest = rows.iloc[-1]
                value = f"{widest['root_mean_square']:.3g}{findings.mark(widest)}"
                found.append(f"{words} {value}; {_law(laws, network, name)}")
        found += [findings.overtaking(of_network), findings.learning(laws[laws["network"] == network])]
        found += [findings.accuracies(of_network, drift.attrs["data"]["test"])]
        lines += [f"  {network:<14} {sentence}" for sentence in found if sentence]
    return lines


def _law(laws: pd.DataFrame, network: str, quantity: str) -> str:
    """The fitted exponent with its interval, and theory's exponent."""
    rows = laws[(laws["network"] == network) & (laws["quantity"] == quantity) & (laws["along"] == "width")]
    if rows.empty:
        return "no law (fewer than two widths, or indistinguishable from 0 at one)"
    law = rows.iloc[0]
    interval = "no interval (few seeds)"
    if not np.isnan(law["interval_low"]):
        interval = f"[{law['interval_low']:+.2f}, {law['interval_high']:+.2f}]"
    return f"exponent {law['exponent']:+.2f}{findings.mark(law)} {interval}, theory {findings.theory(law)}"


def left_out(results: str | Path) -> list[str]:
    """Lines on the networks that did not finish and are left out of all statistics (`findings.stops`); empty if all finished."""
    return findings.stops(read_table(results, "initial"), read_table(results, "final") if has_table(results, "final") else None)
