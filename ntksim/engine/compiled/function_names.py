"""Names for functions that share one: what a factory or a user makes is named by a digest of all that it is made of.

Numba knows a function by its module and qualified name. All functions that one factory makes, and all lambdas of one scope,
have the same; and a function whose global has changed keeps its own.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

import ntksim.engine

# Their functions and constants are known by name: they change with the version alone, which is part of what code is kept under.
_FIXED = sys.stdlib_module_names | {"numpy", "numba", "scipy", "llvmlite"}
_ENGINE = (
    ntksim.engine.__name__ + "."
)  # so are the engine's own, but for what its factories make: the folder changes with its source
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))


def digest_of(function: Callable[..., Any]) -> str:
    """A digest (16 hexadecimal digits) of a function: bytecode, constants, defaults, captured values and globals it names.

    Functions among those count with all that they are made of in turn, values of a module that are named through it too.
    Two functions of one digest compile to the same code.

    Raises
    ------
    TypeError for a captured value or global that cannot be told from others of its kind.
    """
    digest, plain = hashlib.sha256(), getattr(function, "py_func", function)
    for part in _parts_once(plain, {}) if isinstance(plain, FunctionType) else _parts(plain, {}):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]


def told_apart(function: Callable[..., Any], always: bool = False) -> Callable[..., Any]:
    """The function itself, or a copy with its digest in the qualified name if that name may not be its own, or ``always``."""
    name = function.__qualname__
    if not isinstance(function, FunctionType) or not (always or "<" in name or function.__closure__ is not None):
        return function
    twin = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    for attribute in ("__kwdefaults__", "__module__", "__doc__", "__annotations__"):
        setattr(twin, attribute, getattr(function, attribute))
    twin.__qualname__ = f"{name}_{digest_of(function)}"
    return twin


def _parts(value: Any, seen: dict[int, int]) -> Iterator[bytes]:
    """Bytes that tell a value from every other one; ``seen`` numbers the functions and modules met so far."""
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    if isinstance(value, _PLAIN) or _is_numba_type(value):
        yield repr(value).encode()
    elif isinstance(value, (np.ndarray, np.generic)):
        yield f"{value.dtype.str} {value.shape}".encode()
        yield value.tobytes()
    elif isinstance(value, (tuple, list)):
        yield str(len(value)).encode()
        for entry in value:
            yield from _parts(entry, seen)
    elif isinstance(value, (set, frozenset)):
        yield from _parts(sorted(value, key=repr), seen)
    elif isinstance(value, dict):
        yield from _parts(sorted(value.items(), key=repr), seen)
    elif isinstance(value, CodeType):
        yield from _parts_of_code(value, seen)
    elif hasattr(value, "py_func"):  # what a compiler made of a function
        yield repr(sorted(getattr(value, "targetoptions", {}).items())).encode()
        yield from _parts(value.py_func, seen)
    elif hasattr(value, "_defn"):  # an intrinsic
        yield from _parts(value._defn, seen)
    elif isinstance(value, (ModuleType, FunctionType)) and not _is_fixed(value):
        yield from _parts_once(value, seen)
    elif isinstance(value, (ModuleType, type)) or hasattr(value, "__name__"):  # classes, ufuncs and functions written in C
        yield f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}".encode()
    else:
        try:
            from numba.core.serialize import dumps

            yield dumps(value)
        except Exception as error:
            raise TypeError(f"a function to be compiled uses {value!r}, which cannot be kept: {error}") from None


def _is_numba_type(value: Any) -> bool:
    numba = sys.modules.get("numba")  # which this module does not load
    return numba is not None and isinstance(value, numba.types.Type)


def _is_fixed(value: ModuleType | FunctionType) -> bool:
    if isinstance(value, ModuleType):
        return value.__name__.partition(".")[0] in _FIXED
    module = value.__module__ or ""
    return module.partition(".")[0] in _FIXED or (module.startswith(_ENGINE) and "<" not in value.__qualname__)


def _parts_once(value: ModuleType | FunctionType, seen: dict[int, int]) -> Iterator[bytes]:
    """A function with all that it uses, or a module by name; functions may use each other."""
    if isinstance(value, ModuleType):
        yield value.__name__.encode()  # what is used of it is told where it is used
        return
    known = id(value) in seen
    yield str(seen.setdefault(id(value), len(seen))).encode()
    if known:
        return
    yield from _parts(value.__code__, seen)
    yield from _parts((value.__defaults__, value.__kwdefaults__), seen)
    for cell in value.__closure__ or ():
        yield from _parts(cell.cell_contents, seen)
    yield from _parts_of_names(_names(value.__code__), value.__globals__, seen)


def _parts_of_code(code: CodeType, seen: dict[int, int]) -> Iterator[bytes]:
    yield code.co_code
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    yield from _parts((counts, code.co_names, code.co_varnames, code.co_freevars, code.co_consts), seen)


def _names(code: CodeType) -> list[str]:
    """The globals and attributes that a function and those inside it name."""
    inner = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names(constant)]
    return sorted({*code.co_names, *inner})


def _parts_of_names(names: list[str], scope: dict[str, Any], seen: dict[int, int]) -> Iterator[bytes]:
    """What the names stand for in a scope, and in the modules that they stand for."""
    for name in names:
        if name not in scope:
            continue
        value = scope[name]
        yield name.encode()
        yield from _parts(value, seen)
        if isinstance(value, ModuleType) and not _is_fixed(value) and id(value) not in seen:
            seen[id(value)] = len(seen)
            yield from _parts_of_names(names, vars(value), seen)
