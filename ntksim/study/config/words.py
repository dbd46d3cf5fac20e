"""A section of the configuration as one word of a command line, and back: what the workflow tells its jobs.

The word is JSON, whose lists, numbers and text mean the same to both sides whatever the shell makes of them.
"""

import json
import shlex
from typing import TypeVar

from pydantic import ValidationError

from ntksim.study.config.messages import config_error
from ntksim.study.config.section import Section
from ntksim.study.errors import ConfigError, shown

_AnySection = TypeVar("_AnySection", bound=Section)


def word(section: Section) -> str:
    """A section as a word for the shell.

    Keys at their defaults are left out, so that a new key changes no command, and with it no job, that does without it.
    """
    return shlex.quote(json.dumps(section.model_dump(exclude_defaults=True), separators=(",", ":")))


def section_of(text: str, model: type[_AnySection], option: str) -> _AnySection:
    """The section that a word stands for, checked as in a configuration; ``option`` starts the messages.

    Raises ConfigError with one line per problem.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        example = json.dumps(dict.fromkeys(name for name, field in model.model_fields.items() if field.is_required()))
        raise ConfigError(f"{option}: expected keys and values in JSON, such as {example} with values; got {shown(text)}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise config_error(option, error, model) from None
