"""Where this package keeps what it need not compute again, and which state of the engine that belongs to. Loads no Numba."""

import hashlib
from functools import cache
from pathlib import Path

import platformdirs

_ENGINE = Path(__file__).parents[1]


def cache_folder() -> Path:
    """The user's cache folder of ntksim: `$XDG_CACHE_HOME/ntksim`, or `~/.cache/ntksim`, on Linux. It need not exist."""
    return platformdirs.user_cache_path("ntksim")


@cache
def source_digest() -> str:
    """A digest of all files of the engine, 12 hexadecimal digits; quick, since every job of a study asks."""
    digest = hashlib.sha256()
    for source in sorted(_ENGINE.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]
