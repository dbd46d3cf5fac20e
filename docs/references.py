"""Reference pages of the site that are made from the code: all keys of a configuration, and all columns of the tables."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ntksim.study.config.study import json_schema
from ntksim.study.statistics.columns import COLUMNS
from ntksim.study.statistics.measure_columns import MEASURE_COLUMNS

_KEYS = """# Which keys does a configuration have?

A configuration has the keys on this page, and no others. The page is made from the models that check a configuration;
`ntksim schema` prints the same as a JSON schema. [What can a configuration file say?](../configuration.md) explains the keys by
example.
"""
_COLUMNS = """# Which columns do the tables have?

The columns of all tables are on this page, with their meaning and units. Each table has some of them. The page is made from
the descriptions that stand in the Parquet files. [What does a study write?](../results.md) lists the tables.
"""


def write(folder: Path) -> None:
    """Write the pages into a folder."""
    for name, text in (("configuration", configuration()), ("columns", columns())):
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # Sphinx reads again what is newer
            path.write_text(text, encoding="utf-8")


def configuration() -> str:
    """The page of all keys, a section after another, from the JSON schema of a configuration."""
    schema = json_schema()
    parts = [_KEYS, *_section("The study", schema)]
    for name, section in schema["$defs"].items():
        if "properties" in section:
            parts += _section(_title(name, schema), section)
    return "\n".join(parts)


def columns() -> str:
    """The page of all columns, in alphabetical order."""
    rows = [f"| `{name}` | {_cell(meaning)} |" for name, meaning in sorted((COLUMNS | MEASURE_COLUMNS).items())]
    return "\n".join([_COLUMNS, "| column | meaning |", "|---|---|", *rows, ""])


def _title(name: str, schema: dict[str, Any]) -> str:
    """The key that holds a section, or the section's own name if it is deeper in the configuration."""
    keys = [key for key, value in schema["properties"].items() if f"#/$defs/{name}" in _references(value)]
    return f"`{keys[0]}`" if len(keys) == 1 else name


def _references(value: Any) -> list[str]:
    """All `$ref` of a part of a schema."""
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for part in value.values() for found in _references(part)]
    return [found for part in value for found in _references(part)] if isinstance(value, list) else []


def _section(title: str, section: dict[str, Any]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{' '.join(section.get('description', '').split())}\n"
    yield "| key | values | default | meaning |\n|---|---|---|---|"
    required = section.get("required", [])
    for key, value in section["properties"].items():
        default = "required" if key in required else f"`{_word(value.get('default'))}`"
        yield f"| `{key}` | {_cell(_values(value))} | {default} | {_cell(value.get('description', ''))} |"
    yield ""


def _values(value: dict[str, Any]) -> str:
    """What a key may be, in words."""
    if "enum" in value:
        return ", ".join(f"`{_word(word)}`" for word in value["enum"])
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_values(part) for part in value["anyOf"] if part.get("type") != "null"))
    if "$ref" in value:
        return f"a section `{value['$ref'].rpartition('/')[2]}`"
    if value.get("type") == "array":
        return f"a list of {_values(value['items'])}" if "items" in value else "a list"
    if value.get("type") == "object":
        inner = value.get("additionalProperties")
        return f"names, each of {_values(inner)}" if isinstance(inner, dict) else "a mapping"
    limits = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{words} {value[bound]:,}" for bound, words in limits.items() if bound in value]
    kind = value.get("type", "any")
    return ", ".join([{"string": "text", "boolean": "true or false"}.get(kind, kind), *bounds])


def _word(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table: what Markdown would read otherwise is escaped, in text with code only the bar."""
    return re.sub(r"(\|)" if "`" in text else r"([\\|<*_$])", r"\\\1", text)
