"""A self-contained HTML page on a results folder: the study, scaling laws, verdicts, findings and their provenance."""

from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd

from ntksim.study.files.storage import atomic
from ntksim.study.files.tables import read_table
from ntksim.study.report import description, findings
from ntksim.study.report.summary import has_table, left_out, theory
from ntksim.study.statistics.seeds import of_one_data_set

# The template is not in a file of its own, so that the digest of the code behind a page (`files.source`) covers it.
_PAGE = """\
{% macro lines(texts) %}
{% for text in texts %}
<p>{{ text }}</p>
{% endfor %}
{% endmacro %}
{% macro table(shown) %}
<table>
<thead><tr>{% for name in shown.names %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in shown.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
{% endmacro %}
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Scaling laws</title><style>
body { font: 14px sans-serif; margin: 1.5em } table { border-collapse: collapse }
th, td { padding: .25em .8em; border-bottom: 1px solid #ccc; text-align: right } td:nth-child(-n+2) { text-align: left }
</style></head><body>
{{ lines(study) }}
{{ table(networks) }}
<h2>Scaling laws</h2>
<p>Fits of c m^exponent to root mean squares over seeds, where m is the width. z is the difference from theory in standard
errors. The standard errors contain the scatter between seeds only, not the deviations from the power law at finite widths.</p>
{{ table(laws) }}
{{ lines(flips) }}
{% if verdicts %}
{{ lines(overtaking) }}
<h2>Lazy or rich</h2>
<p>{{ heading }}. Test losses and accuracies are means over seeds. All other measurements are medians.</p>
{{ table(verdicts) }}
{% endif %}
{{ lines(left_out) }}
<p>{{ source }}</p>
</body></html>
"""
_SHOWN = (
    "kernel_drift", "relative_linearized_deviation", "parameter_drift", "feature_drift", "gates_flipped", "loss_left",
    "test_loss", "test_accuracy", "test_linearized_accuracy", "test_limit_closed_form_accuracy",
)  # fmt: skip


class _Table(NamedTuple):
    """A table as the page shows it."""

    names: list[str]
    rows: list[list[str]]


def write_html(results: str | Path, output: str | Path) -> None:
    """Write the page of a results folder. Raises FileNotFoundError if the folder holds no tables."""
    laws = of_one_data_set(read_table(results, "scaling_laws"))
    shown: dict[str, Any] = {
        "study": description.study(laws.attrs),
        "networks": _networks(laws.attrs["config"]["networks"]),
        "laws": _laws(laws),
        "flips": [findings.FLIPS] if findings.has_asymptotic_laws(laws) else [],
        "verdicts": None,
        "left_out": left_out(results) or ["Every network finished."],
        "source": _source(laws.attrs),
    }
    if has_table(results, "lazy"):
        drift, lazy = (of_one_data_set(read_table(results, table)) for table in ("drift", "lazy"))
        found = {name: findings.overtaking(rows) for name, rows in drift.groupby("network", sort=False)}
        shown["overtaking"] = [f"{name!s}, kernel drift: {sentence}." for name, sentence in found.items() if sentence]
        shown["heading"] = findings.verdicts(lazy)[0].rstrip(":")
        shown["verdicts"] = _verdicts(lazy)
    page = _template().render(shown)
    with atomic(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _template() -> jinja2.Template:
    """The template. It escapes values, and a missing name is an error."""
    strict = jinja2.StrictUndefined
    environment = jinja2.Environment(
        autoescape=True, undefined=strict, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(_PAGE)


def _table(frame: pd.DataFrame) -> _Table:
    """The table of a frame, with six digits of floats."""
    rows = [[f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in row] for row in frame.itertuples(index=False)]
    return _Table(list(map(str, frame)), rows)


def _networks(networks: dict[str, dict]) -> _Table:
    """The networks' options, a row per network; options that no network sets are left out."""
    shown = pd.DataFrame.from_dict(networks, orient="index").dropna(axis="columns", how="all").fillna("none")
    return _table(shown.rename_axis("network").reset_index())


def _laws(laws: pd.DataFrame) -> _Table:
    return _table(pd.DataFrame({
        "network": laws["network"],
        "quantity": laws["quantity"].str.replace("_", " "),
        "exponent": laws["exponent"].map("{:+.3f}".format),
        "95% interval": _intervals(laws, "interval", "{:+.3f}"),
        "theory": [theory(law) for _, law in laws.iterrows()],
        "z": ["" if np.isnan(value) else f"{value:+.1f}" for value in laws["z_score"]],
        "prefactor c": laws["prefactor"].map("{:.4g}".format),
        "95% interval of c": _intervals(laws, "prefactor", "{:.4g}"),
        "widths": laws["widths_fitted"],
        "seeds left out": _left_out(laws),
    }))  # fmt: skip


def _left_out(table: pd.DataFrame) -> list[str]:
    return [f"{row['excluded']}{findings.mark(row)}" for _, row in table.iterrows()]


def _intervals(laws: pd.DataFrame, name: str, form: str) -> list[str]:
    ends = zip(laws[f"{name}_low"], laws[f"{name}_high"], strict=True)
    return ["none (few seeds)" if np.isnan(low) else f"{form.format(low)} to {form.format(high)}" for low, high in ends]


def _verdicts(lazy: pd.DataFrame) -> _Table:
    numbers = lazy[list(_SHOWN)].dropna(axis="columns", how="all")  # without classes there are no accuracies
    cells = lazy[["network", "width", "verdict", "count"]].assign(excluded=_left_out(lazy))
    shown = pd.concat([cells, numbers.map("{:.3g}".format)], axis="columns")
    return _table(shown.rename(columns=lambda name: name.replace("_", " ")))


def _source(metadata: dict[Any, Any]) -> str:
    """What the tables were computed from and with."""
    source = metadata["provenance"]
    words = [
        f"configuration {metadata['config_hash']}",
        f"data {metadata['dataset_hash']}",
        f"commit {source['git_commit'] or 'unknown (not run from a git checkout)'}",
        str(source["device"]),
        f"Python {source['python']}",
        *(f"{package} {version}" for package, version in source["versions"].items()),
    ]
    return "; ".join(words)
