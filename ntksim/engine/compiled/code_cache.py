"""Compiled code on disk, so kept that no function can be taken for another one.

- Numba tells compilations of one name apart by a number that each process counts from 1. Code that was kept by another
  process has numbers from there: two functions could have one symbol, and callers were linked with either. Here every
  compilation, of whatever function, has a random number of 64 bits.
- A file's name is a digest of all that its code depends on: two processes never give one name to different code, and
  need no lock. Numba keeps an index and numbers the files.
- A file starts with a checksum and names what it holds; both are looked at before its code is loaded.

What remains unknown is for `known_answers` to find, which has the whole folder set aside.
"""

import contextlib
import hashlib
import logging
import os
import pickle
import re
import secrets
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba import config
from numba.core.bytecode import FunctionIdentity
from numba.core.serialize import dumps

import ntksim.engine
from ntksim.engine.compiled.folder import cache_folder, source_digest
from ntksim.engine.compiled.function_names import digest_of
from ntksim.engine.devices import DeviceError

_PACKAGE = ntksim.engine.__name__
_UNUSED = 30 * 86400  # seconds after which the code of another state of the engine is removed
_VERSIONS = f"numba {numba.__version__}, llvmlite {llvmlite.__version__}, numpy {np.__version__}, {sys.version}"


def number_at_random(identity: Any) -> None:
    """Have Numba's class of functions to be compiled, the CPU's or CUDA's, give random numbers in the place of 1, 2, 3."""
    if not hasattr(identity, "_unique_ids"):
        raise DeviceError(
            f"numba {numba.__version__} numbers compiled functions in a way of which ntksim does not know whether it is safe: "
            "pip install numba==0.68.1, or a newer ntksim"
        )
    identity._unique_ids = iter(lambda: secrets.token_hex(8), None)  # the system's numbers: a fork does not repeat them


number_at_random(FunctionIdentity)


SOURCE_DIGEST = source_digest()


def _folder() -> Path:
    """Where compiled code is kept: below NUMBA_CACHE_DIR, or the user's cache folder, one folder per state of the engine.

    One per state, since the code of a callee is part of its caller's.
    """
    return Path(config.CACHE_DIR or cache_folder()) / f"code-{SOURCE_DIGEST}"


FOLDER = _folder()
_trusted = True  # whether code is loaded from the folder
_said = False  # that code is compiled


def _is_writable() -> bool:
    """Make the folder, or mark it as used; when one is made, remove those that have not been used for a month."""
    now = time.time()
    try:
        if not FOLDER.exists():
            FOLDER.mkdir(parents=True, exist_ok=True)
            for other in FOLDER.parent.iterdir():
                ours = re.fullmatch(r"(engine|code)-[0-9a-f]{12}(-aside-[0-9a-f]+)?", other.name)
                if ours and now - other.stat().st_mtime > _UNUSED:
                    shutil.rmtree(other, ignore_errors=True)
        elif now - FOLDER.stat().st_mtime > 86400:
            os.utime(FOLDER)
    except OSError:
        pass
    return os.access(FOLDER, os.W_OK)


KEPT = _is_writable()
if not KEPT:
    warnings.warn(
        f"{FOLDER} cannot be written: compiling anew in every process, about a minute; set NUMBA_CACHE_DIR to a folder that can",
        RuntimeWarning,
        stacklevel=2,
    )


def _inode() -> int | None:
    """What tells the folder from another one of its name; None if there is none."""
    try:
        return FOLDER.stat().st_ino
    except OSError:
        return None


_INODE = _inode()  # of the folder that this process began with


def set_aside(fault: str) -> None:
    """Warn of a fault, rename the folder, and load nothing from it any more in this process, which may fill a new one.

    Where another process has renamed it already, the folder that may stand in its place is a good one, and stays.
    """
    global _trusted
    aside = FOLDER.with_name(f"{FOLDER.name}-aside-{secrets.token_hex(4)}")
    try:
        if _trusted and _inode() != _INODE:
            raise FileNotFoundError
        FOLDER.rename(aside)
        where = f"it is now {aside}"
    except FileNotFoundError:
        where = "another process has set it aside already"
    except OSError as error:
        where = f"remove it, since it cannot be renamed ({error.strerror})"
    _trusted = False
    warnings.warn(
        f"the compiled code in {FOLDER} is not to be trusted: {fault}; {where}, and code is compiled anew (about a minute)",
        RuntimeWarning,
        stacklevel=2,
    )


def say_nothing() -> None:
    """Do not say that code is compiled: somebody else does."""
    global _said
    _said = True


def _say_compiling() -> None:
    """Say once in a process that code is compiled: a line on the error output, where logging has no other place for it."""
    global _said
    if not _said:
        _said = True
        logging.getLogger(_PACKAGE.partition(".")[0]).warning(
            "ntksim: compiling its code, which takes about a minute, once on this machine for this version "
            "(`ntksim warm-up` does it beforehand)"
        )


class _Locator:
    """Numba's idea of where a function's files are, without its look at source files and folders for each function."""

    def __init__(self, py_file: str) -> None:
        self._py_file = py_file

    @classmethod
    def from_function(cls, function: Any, py_file: str) -> "_Locator":
        return cls(py_file)

    def get_cache_path(self) -> str:
        return str(FOLDER)

    def get_source_stamp(self) -> str:
        return SOURCE_DIGEST

    def get_disambiguator(self) -> str:
        return ""

    def ensure_cache_path(self) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)


class _Files:
    """The files of a function in the cache: what Numba's index and numbered files do."""

    def __init__(self, function: Any, options: dict[str, Any]) -> None:
        self._function, self._name = function, f"{function.__module__}.{function.__qualname__}"
        self._options = repr(sorted(options.items()))
        self._digest: str | None = None

    def _identity(self, key: Any) -> str:
        """All that the code depends on, and for the reader the function's name; the engine's own source is in the folder's."""
        if self._digest is None:
            own = self._function.__module__.startswith(_PACKAGE + ".")
            self._digest = "" if own else digest_of(self._function)
        return f"{self._name} of {key}, {self._options}, {self._digest}, {_VERSIONS}"

    def _path(self, identity: str) -> Path:
        short = re.sub(r"[^\w.]", "", self._name.removeprefix(_PACKAGE + "."))[:80]
        return FOLDER / f"{short}-{hashlib.sha256(identity.encode()).hexdigest()[:24]}.nbc"

    def load(self, key: Any) -> Any:
        """What was saved under a key, or None; a damaged file counts as none and will be written over."""
        if not _trusted:
            return None
        identity = self._identity(key)
        path = self._path(identity)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            return None
        found, types, data = pickle.loads(content[32:])
        if found != identity:
            set_aside(f"{path.name} holds {found.partition(' of ')[0]} in another's place")
            return None
        return data if types == key[0] else None  # types of one name may differ

    def save(self, key: Any, data: Any) -> None:
        """Keep ``data`` under a key, all of it or nothing."""
        identity = self._identity(key)
        content = dumps((identity, key[0], data))
        path, draft = self._path(identity), FOLDER / f".{secrets.token_hex(8)}.tmp"
        try:
            draft.write_bytes(hashlib.sha256(content).digest() + content)
            draft.replace(path)
        except OSError:  # a full disk: go on without keeping the code
            with contextlib.suppress(OSError):
                draft.unlink()

    def flush(self) -> None:
        """Numba's word for: forget what was kept of this function."""
        for path in FOLDER.glob(self._path("").name.rpartition("-")[0] + "-*.nbc"):
            path.unlink(missing_ok=True)


def _another(loaded: Any, function: Any, signature: Any) -> str | None:
    """What the processor's code that was loaded says it is, if that is not the function for these types."""
    if not hasattr(loaded, "fndesc"):  # nothing, or a kernel of CUDA's, which only says its name as a GPU knows it
        return None
    own = loaded.fndesc.modname, loaded.fndesc.qualname, loaded.signature.args
    return None if own == (function.__module__, function.__qualname__, signature) else f"{own[1]}{own[2]}"


def kept_cache(numbas: type) -> type:
    """Numba's class of caches, the CPU's ``FunctionCache`` or CUDA's ``CUDACache``, with files of our own."""
    base: Any = numbas

    class Cache(base):
        _impl_class = type("Impl", (base._impl_class,), {"_locator_classes": [_Locator]})

        def __init__(self, function: Any, options: dict[str, Any]) -> None:
            super().__init__(function)
            self._cache_file = _Files(function, options)

        def _index_key(self, signature: Any, codegen: Any) -> Any:
            """Numba's own pickles what a closure captures, and functions have another number in every process."""
            if self._py_func.__closure__ is None:
                return super()._index_key(signature, codegen)
            return signature, codegen.magic_tuple(), digest_of(self._py_func)

        def load_overload(self, signature: Any, target_context: Any) -> Any:
            loaded = super().load_overload(signature, target_context)
            if found := _another(loaded, self._py_func, signature):
                set_aside(f"what was kept of {self._py_func.__qualname__} is the code of {found}")
                return None
            if loaded is None and self._py_func.__module__.startswith(_PACKAGE + "."):
                _say_compiling()
            if getattr(loaded, "reload_init", None):
                # What loading parallel code needs first. Numba forgets it of code that was loaded, and so would what is compiled
                # to call this code, which would then be kept without and end the process that loads it.
                loaded.library._reload_init.update(loaded.reload_init)
            return loaded

        def save_overload(self, signature: Any, data: Any) -> None:
            with contextlib.suppress(OSError):
                super().save_overload(signature, data)

    return Cache
