"""Errors of the study, and values in their messages. Nothing heavy is imported, so that catching one costs nothing."""

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 80, 80, 40


class ConfigError(Exception):
    """The configuration cannot be used; the message names each key, what was expected and the remedy."""


class StageError(Exception):
    """A stage cannot go on; the message names the file or value and the remedy."""


class DamagedFile(StageError):
    """A file's content does not fit its checksum, or it carries none."""


class ForeignFile(StageError):
    """A file is whole, but was computed from something else than is asked for."""


def shown(value: object) -> str:
    """A value for a message: as Python writes it, cut to size however large or deep it is."""
    try:
        text = _SHORT.repr(value)
        return text if len(text) <= 200 else f"{text[:197]}..."
    except ValueError:  # integers of thousands of digits
        return f"a value of type {type(value).__name__}"


# What the extra `study` installs (pyproject.toml), by the names of its modules.
EXTRA = ("jinja2", "matplotlib", "pandas", "psutil", "pyarrow", "pydantic", "pygments", "sklearn", "snakemake", "yaml")


def lacking(what: str, error: ModuleNotFoundError) -> str:
    """The message for something that needs a module which is not installed."""
    module = str(error.name).partition(".")[0]
    remedy = 'pip install "ntksim[study]"' if module in EXTRA else "install it beside ntksim"
    return f"{what} needs the module {module}, which is not installed: {remedy}"
