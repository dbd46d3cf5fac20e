"""YAML as a configuration means it: a key stands once, and 1e-5 is a number, as in YAML 1.2 and everywhere else.

PyYAML follows YAML 1.1, where the second of two equal keys silently replaces the first, and a number with an exponent is text
unless it has a point and the exponent a sign.
"""

import re
from typing import Any

import yaml

from ntksim.study.errors import ConfigError, shown

_MERGE = "tag:yaml.org,2002:merge"
_NUMBER = "tag:ntksim,2026:number"
_EXPONENT = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")
_WHOLE = 2.0**53  # up to here floats tell whole numbers apart


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                line, name = key.start_mark.line + 1, (key.tag, key.value)
                if name in seen:
                    lines = f"lines {seen[name]} and {line}" if line > seen[name] else f"line {line}"
                    raise ConfigError(
                        f"the key {shown(key.value)} is there twice, in {lines}, and one would replace the other; rename or "
                        "remove one"
                    )
                seen[name] = line
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """A number with an exponent: whole ones are integers, since 1e3 may be asked for where those are."""
        value = float(node.value.replace("_", ""))
        return int(value) if abs(value) <= _WHOLE and value.is_integer() and "." not in node.value else value


_Loader.add_constructor(_NUMBER, _Loader.construct_number)
# Before PyYAML's own, of which those are asked first that were added first: what it reads as a number stays what it is.
_Loader.add_implicit_resolver(_NUMBER, _EXPONENT, list("-+0123456789."))


def read_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises ConfigError, with the lines, for a key that is there twice; what PyYAML raises for a text that is no YAML.
    """
    return yaml.load(text, Loader=_Loader)
