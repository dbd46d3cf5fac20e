"""The cache folder of this package, and the digest of the engine's source that names what is kept there. Loads no Numba."""

import hashlib
from functools import cache
from pathlib import Path

import platformdirs

_ENGINE = Path(__file__).parents[1]


def cache_folder() -> Path:
    """The user's cache folder of ntksim, which need not exist: on Linux `$XDG_CACHE_HOME/ntksim`, or else `~/.cache/ntksim`."""
    return platformdirs.user_cache_path("ntksim")


@cache
def source_digest() -> str:
    """A digest of all files of the engine, 12 hexadecimal digits. It is quick, since every job of a study asks for it."""
    digest = hashlib.sha256()
    for source in sorted(_ENGINE.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]
