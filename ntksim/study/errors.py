"""Errors of the study. This module imports nothing, so that catching one costs nothing."""


class StageError(Exception):
    """A stage cannot go on; the message names the file or value and the remedy."""


class DamagedFile(StageError):
    """A file's content does not fit its checksum, or it carries none."""


class ForeignFile(StageError):
    """A file is whole, but was computed from something else than is asked for."""
