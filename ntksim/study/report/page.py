"""The report of a results folder, one HTML page: what was run, findings, figures, scaling laws, verdicts and provenance."""

import base64
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from docutils.core import publish_parts

from ntksim.study.config.axes import without_imports
from ntksim.study.config.network import NetworkOptions
from ntksim.study.config.study import parse_study
from ntksim.study.files.storage import atomic
from ntksim.study.plan import jobs
from ntksim.study.report import description, findings
from ntksim.study.report.summary import has_table, left_out, read_averages, read_shown
from ntksim.study.report.template import template

_SHOWN = (
    "kernel_drift", "relative_linearized_deviation", "parameter_drift", "feature_drift", "gates_flipped", "loss_left",
    "test_loss", "test_accuracy", "test_linearized_accuracy", "test_limit_closed_form_accuracy",
)  # fmt: skip


class _Table(NamedTuple):
    """A table as the page shows it."""

    names: list[str]
    rows: list[list[str]]


class _Figure(NamedTuple):
    """A figure as the page shows it: ``content`` is its SVG in base64, ``caption`` is HTML, ``files`` are relative paths."""

    name: str
    title: str
    content: str
    alt: str
    caption: str
    files: list[str]


def write_html(results: str | Path, output: str | Path, captions: str | Path | None = None) -> None:
    """Write the report of a results folder.

    It contains the study's figures that have been drawn, with the captions NAME.rst of the folder ``captions``; without this
    folder figures have their names alone. Raises FileNotFoundError if the results folder holds no tables.
    """
    laws, averages = read_shown(results, "scaling_laws"), read_averages(results)
    excluded = left_out(results)
    figures = [_figure(Path(results), name, captions) for name in _drawn(Path(results), laws.attrs)]
    shown: dict[str, Any] = {
        "title": description.data(laws.attrs).split(":")[0],
        "opening": [(name, _symbols(text)) for name, text in description.opening(laws.attrs, excluded)],
        "remarks": laws.attrs["data"]["remarks"],
        "found": {
            network: [_symbols(sentence) for sentence in sentences]
            for network, sentences in findings.in_words(
                read_shown(results, "convergence"), laws, *_of_training(results), averages
            ).items()
        },
        "verdict_lines": [],
        "left_out": excluded,
        "figures": figures,
        "laws": _laws(laws),
        "averages": _laws(averages) if len(averages) else None,
        "along_others": bool((laws["along"] != "width").any()),
        "flips": [findings.FLIPS] if findings.has_asymptotic_laws(laws) else [],
        "verdicts": None,
        "networks": _networks(laws.attrs["config"]["networks"]),
        "source": _source(laws.attrs),
    }
    if has_table(results, "lazy"):
        lazy = read_shown(results, "lazy")
        shown["verdict_lines"] = findings.verdicts(lazy)
        shown["heading"] = shown["verdict_lines"][0].rstrip(":")
        shown["verdicts"] = _verdicts(lazy)
    page = template().render(shown)
    with atomic(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _of_training(results: str | Path) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """The tables ``drift`` and ``lazy``; None in a study without training."""
    drift, lazy = (read_shown(results, name) if has_table(results, name) else None for name in ("drift", "lazy"))
    return drift, lazy


def _drawn(results: Path, metadata: dict[Any, Any]) -> list[str]:
    """Names of the study's figures that its results folder has. Figures of an earlier configuration are not among them."""
    wanted = jobs.figures(parse_study(without_imports(metadata["config"]) | {"results": str(results)}, source=str(results)))
    return [name for name in wanted if (results / "figures" / f"{name}.svg").is_file()]


def _figure(results: Path, name: str, captions: str | Path | None) -> _Figure:
    title = name.replace("_", " ")
    words = title if captions is None else (Path(captions) / f"{name}.rst").read_text(encoding="utf-8")
    settings = {"raw_enabled": False, "file_insertion_enabled": False}  # a caption is text, and reads no other file
    files = [f"figures/{name}.{suffix}" for suffix in jobs.FORMATS if (results / "figures" / f"{name}.{suffix}").is_file()]
    return _Figure(
        name,
        title,
        base64.b64encode((results / "figures" / f"{name}.svg").read_bytes()).decode(),
        first_sentence(words),
        publish_parts(words, writer="html5", settings_overrides=settings)["body"],
        files,
    )


def first_sentence(caption: str) -> str:
    """The first sentence of a caption in reStructuredText, without its marks of emphasis and code."""
    text = re.sub(r"[*`]", "", " ".join(caption.split()))
    return re.split(r"(?<=[.!?]) ", text)[0]


def _table(frame: pd.DataFrame) -> _Table:
    """The table of a frame, with six digits of floats."""
    rows = [[f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in row] for row in frame.itertuples(index=False)]
    return _Table(list(map(str, frame)), rows)


def _networks(networks: dict[str, dict]) -> _Table:
    """The networks' options, a row per network; options that no network sets are left out."""
    shown = pd.DataFrame.from_dict(networks, orient="index").dropna(axis="columns", how="all")
    words = {key: field.default for key, field in NetworkOptions.model_fields.items() if isinstance(field.default, str)}
    shown = shown.fillna({key: word for key, word in words.items() if key in shown}).fillna("none")
    return _table(shown.rename_axis("network").reset_index())


def _laws(laws: pd.DataFrame) -> _Table:
    """The fitted laws; if any is along another variable than the width, a column says which, and another at which width."""
    others = laws["along"] != "width"
    variables = {
        "along": laws["along"].str.replace("_", " "),
        "at width": ["" if np.isnan(width) else f"{width:.0f}" for width in laws["width"].where(others)],
    }
    return _table(pd.DataFrame({
        "network": laws["network"],
        **(variables if others.any() else {}),
        "quantity": laws["quantity"].str.replace("_", " "),
        "exponent": laws["exponent"].map("{:+.3f}".format),
        "95% interval": _intervals(laws, "interval", "{:+.3f}"),
        "theory": [findings.theory(law) for _, law in laws.iterrows()],
        "z": ["" if np.isnan(value) else f"{value:+.1f}" for value in laws["z_score"]],
        "prefactor c": laws["prefactor"].map("{:.4g}".format),
        "95% interval of c": _intervals(laws, "prefactor", "{:.4g}"),
        "values fitted" if others.any() else "widths": laws["widths_fitted"],
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
    shown = pd.concat([cells, numbers.map(three_digits)], axis="columns")
    return _table(shown.rename(columns=lambda name: name.replace("_", " ")))


def three_digits(value: float) -> str:
    """A number with its zeros, so that 0.1003 is not taken for a threshold of 0.1."""
    return "missing" if np.isnan(value) else f"{value:#.3g}".rstrip(".")


def _symbols(text: str) -> str:
    """Words of the summary, which is plain text, with the symbols of figures and captions."""
    return text.replace("lambda_max", "λ_max").replace("K_inf", "K_∞")


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
