"""Errors that a study raises, and helpers for their messages. This module imports nothing heavy, so catching them is cheap."""

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 80, 80, 40


class ConfigError(Exception):
    """The configuration cannot be used. The message names each key, what was expected and the remedy."""


class StageError(Exception):
    """A stage cannot continue. The message names the file or value and the remedy."""


class DamagedFile(StageError):
    """The content of a file does not match its checksum, or a truncated file has none."""


class ForeignFile(StageError):
    """A file is intact, but was computed from other inputs, or by another version, than the study asks for."""


def shown(value: object) -> str:
    """A value as text for a message: its repr, shortened to at most 200 characters."""
    try:
        text = _SHORT.repr(value)
        return text if len(text) <= 200 else f"{text[:197]}..."
    except ValueError:  # Python refuses to print integers with thousands of digits
        return f"a value of type {type(value).__name__}"


# Modules of the packages that the extra `study` installs (pyproject.toml).
EXTRA = (
    "docutils", "jinja2", "matplotlib", "pandas", "psutil", "pyarrow", "pydantic", "pygments", "sklearn", "snakemake",
    "tqdm", "yaml",
)  # fmt: skip


def lacking(what: str, error: ModuleNotFoundError) -> str:
    """The message that ``what`` needs a module which is not installed."""
    module = str(error.name).partition(".")[0]
    remedy = 'pip install "ntksim[study]"' if module in EXTRA else "install it in the environment of ntksim"
    return f"{what} needs the module {module}, which is not installed: {remedy}"
