"""What pydantic finds wrong with a configuration, in plain words: a line per problem, with the key, what was expected and got.

What a key means is taken from its description in the models.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from ntksim.study.config.dataset import Dataset
from ntksim.study.config.measures import Dispersion, Measures, Modes
from ntksim.study.config.network import Exponents, NetworkOptions
from ntksim.study.config.stages import Initial, Training
from ntksim.study.errors import ConfigError, shown

_SECTIONS = {
    "dataset": Dataset,
    "initial": Initial,
    "training": Training,
    "abc": Exponents,
    "measures": Measures,
    "modes": Modes,
    "dispersion": Dispersion,
}  # by key


def config_error(
    source: str, error: ValidationError, study: type[BaseModel], written: Mapping[str, str] | None = None
) -> ConfigError:
    """The error to raise; ``source`` starts each line, ``study`` is the model of a configuration, or of the section it is.

    Networks that a list of values stands for are called by their names in the configuration, ``written``.
    """
    problems = [{**problem, "loc": _as_written(problem["loc"], written or {})} for problem in error.errors()]
    lines = dict.fromkeys(_explain(problem, study) for problem in problems)
    return ConfigError("\n".join(f"{source}: {line}" for line in lines))


def _as_written(location: tuple[Any, ...], written: Mapping[str, str]) -> tuple[Any, ...]:
    if location[:1] != ("networks",) or len(location) < 2:
        return location
    return ("networks", written.get(str(location[1]), location[1]), *location[2:])


def _explain(problem: Any, study: type[BaseModel]) -> str:
    words = [part if isinstance(part, str) and part.isprintable() else shown(part) for part in problem["loc"]]
    key = ".".join(word if len(word) <= 80 else f"{word[:77]}..." for word in words)
    kind, given = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1], study)
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.7)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    if kind == "missing":
        return f"{key}: this key is missing; add it ({_description(problem['loc'], study)})"
    if kind == "too_short":
        least = problem["ctx"]["min_length"]
        return f"{key}: expected at least {least} entries, got {shown(given)}; {_description(problem['loc'], study)}"
    if kind == "value_error" and isinstance(given, dict):  # of a section as a whole: the message names the keys
        return f"{key}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    if kind == "model_type":
        known = _known_keys(problem["loc"], study)
        keys = f"keys, such as {', '.join(known[:3])}" if len(known) > 4 else f"keys: {', '.join(known)}"
        return f"{key}: expected {keys}; got {shown(given)}; {_description(problem['loc'], study)}"
    if kind == "list_type" and isinstance(given, int | float):
        return f"{key}: expected a list, such as [{given}], got {given}; {_description(problem['loc'], study)}"
    expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected = expected if expected.startswith(("expected", "the name")) else f"expected {expected}"
    return f"{key}: {expected}, got {shown(given)}; {_description(problem['loc'], study)}"


def _model_at(location: tuple[Any, ...], study: type[BaseModel]) -> type[BaseModel] | None:
    model: Any = study
    for part in location:
        if model is dict:
            model = NetworkOptions
            continue
        field = model.model_fields.get(part) if model else None
        if field is None:
            return None
        model = dict if part == "networks" else _SECTIONS.get(part)
    return None if model is dict else model


def _known_keys(location: tuple[Any, ...], study: type[BaseModel]) -> list[str]:
    model = _model_at(location, study)
    return list(model.model_fields) if model else []


def _description(location: tuple[Any, ...], study: type[BaseModel]) -> str:
    for end in range(len(location), 0, -1):
        model = _model_at(location[: end - 1], study)
        if model and location[end - 1] in model.model_fields:
            return f"it is: {model.model_fields[location[end - 1]].description}"
    return "see config.yaml for an example"
