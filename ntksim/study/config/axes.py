"""Lists in a configuration: axes of a study, which has a network, or a data set, for each combination of their values.

The name of such a network (in tables, files and jobs) holds its value on every axis, as in mlp_depth2_relu: so a value more adds
networks, and leaves those that are there as they are. Of the section `dataset` the keys `DATA_AXES` may be lists. All training
sets of a seed are parts of the largest, so a larger one draws all of them anew.
"""

import itertools
import math
import re
from typing import Any

from ntksim.study.config.network import NetworkOptions
from ntksim.study.config.section import MOST, MOST_SHARDS
from ntksim.study.errors import shown

DATA_AXES = {"train": range(2, MOST), "seed": range(2**32)}
_SCALED = "_scale_"


def scaled_name(name: str, scale: object) -> str:
    """The name of the network of one output scale among several, such as tanh_scale_0p5; its characters fit a file's name."""
    return f"{name}{_SCALED}{_word(scale)}"


def family(name: str) -> str:
    """The name of a network without its output scale, where that is one of several."""
    return name.rpartition(_SCALED)[0] or name


def one_each(networks: Any) -> Any:
    """The networks as written, those with lists replaced by one for each combination of values, in place.

    Raises ValueError for lists that are empty, too long, or not of different values, and for two networks of one name.
    """
    return {name: options for name, (_, options) in _expanded(networks).items()} if isinstance(networks, dict) else networks


def written_names(networks: Any) -> dict[str, str]:
    """By the names of networks those under which they are written; empty where `one_each` fails."""
    try:
        return {str(name): written for name, (written, _) in _expanded(networks).items()} if isinstance(networks, dict) else {}
    except ValueError:
        return {}


def _expanded(networks: dict[Any, Any]) -> dict[Any, tuple[str, Any]]:
    """By the name of every network the one under which it is written, and its options without lists."""
    found: dict[Any, tuple[str, Any]] = {}
    for name, options in networks.items():
        scale = options.get("output_scale") if isinstance(options, dict) else None
        # such a name with the output scale in it, as tables record networks, may stand
        if isinstance(name, str) and _SCALED in name and name != scaled_name(family(name), scale):
            raise ValueError(
                f"the name {shown(name)} holds {_SCALED}, behind which stands the output scale of a network that has several; "
                "rename it"
            )
        for suffix, one in _combinations(name, options) if isinstance(options, dict) else [("", options)]:
            own = f"{name}{suffix}" if suffix else name
            if own in found:
                raise ValueError(f"the name {shown(own)} stands for two networks; rename one")
            found[own] = name, one
    return found


def without_imports(content: Any) -> Any:
    """A configuration in which relu stands for activations of a user's own, one network for each combination of its lists."""
    if not isinstance(content, dict):
        return content
    networks = one_each(content.get("networks"))
    if not isinstance(networks, dict):
        return content
    own = {
        name: options | {"activation": "relu"}
        if isinstance(options, dict) and isinstance(options.get("activation"), dict)
        else options
        for name, options in networks.items()
    }
    return content | {"networks": own}


def _combinations(name: object, options: dict[Any, Any]) -> list[tuple[str, dict[Any, Any]]]:
    """What stands behind the name of each network that some options stand for, and its options; the last axis goes fastest.

    No key of a network has a list as its own value.
    """
    axes = {key: options[key] for key in NetworkOptions.model_fields if isinstance(options.get(key), list)}
    for key, values in axes.items():
        if not values:
            raise ValueError(f"{shown(name)}: {key}: expected at least one value, got []")
        if len(values) > MOST_SHARDS or len(set(_labels(key, values))) < len(values):
            raise ValueError(f"{shown(name)}: {key}: expected different values, got {shown(values)}")
    if math.prod(map(len, axes.values())) > MOST_SHARDS:
        raise ValueError(f"{shown(name)}: {', '.join(axes)}: expected at most {MOST_SHARDS} combinations of their values")
    labels = itertools.product(*(_labels(key, values) for key, values in axes.items()))
    values = itertools.product(*axes.values())
    return [
        ("".join(f"_{word}" for word in words), options | dict(zip(axes, one, strict=True)))
        for words, one in zip(labels, values, strict=True)
    ]


def _labels(key: str, values: list[Any]) -> list[str]:
    """What names say of each value of an axis: letters, digits and underscores."""
    if key == "abc" and all(isinstance(value, dict) for value in values):  # the exponents that differ
        differ = [name for name in values[0] if any(value.get(name) != values[0][name] for value in values)]
        return ["_".join(f"{name}_{_word(value.get(name))}" for name in differ) for value in values]
    if key == "output_scale":
        return [scaled_name("", value)[1:] for value in values]
    if key == "depth":
        return [f"depth{_word(value)}" for value in values]
    return [_word(value) if isinstance(value, (str, dict)) else f"{key}_{_word(value)}" for value in values]


def _word(value: object) -> str:
    """A value with characters that fit a file's name: 0.5 is 0p5, -1 is m1, 1e-05 is 1em05, leaky_relu(0.2) leaky_relu_0p2."""
    if isinstance(value, dict):
        return "_".join(map(_word, value.values()))
    text = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
    if isinstance(value, (bool, type(None))):
        text = text.lower()
    if not isinstance(value, str):
        text = text.replace("e-", "em").replace("+", "").replace("-", "m")
    return re.sub(r"\W+", "_", re.sub(r"(?<=\d)\.", "p", text)).strip("_")


def one_data_set(dataset: Any) -> tuple[Any, dict[str, list[int]]]:
    """The section `dataset` with the largest training set and the first seed in place of lists, and the lists, ascending.

    Raises ValueError for lists that are empty, or not of different whole numbers in their range.
    """
    lists = {key: dataset[key] for key in DATA_AXES if isinstance(dataset, dict) and isinstance(dataset.get(key), list)}
    for key, values in lists.items():
        allowed = DATA_AXES[key]
        if not values or len(values) > MOST_SHARDS or not all(type(value) is int and value in allowed for value in values):
            raise ValueError(f"dataset.{key}: expected whole numbers from {allowed.start} in a list, got {shown(values)}")
        if len(set(values)) < len(values):
            raise ValueError(f"dataset.{key}: expected different numbers in a list, got {shown(values)}")
    lists = {key: sorted(values) for key, values in lists.items()}
    return (dataset | {key: values[-1 if key == "train" else 0] for key, values in lists.items()} if lists else dataset), lists


def allow_lists(properties: dict[str, Any]) -> None:
    """Change the JSON schema of keys, in place, so that each may have a list."""
    for name, own in properties.items():
        about = {key: own[key] for key in ("default", "description") if key in own}
        kinds = own.get("anyOf") or [{key: value for key, value in own.items() if key not in about}]
        items = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        properties[name] = {"anyOf": [*kinds, {"type": "array", "items": items, "minItems": 1}], **about}
