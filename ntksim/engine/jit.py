"""Every Numba option of the CPU's code, with its reason, calls by address, and the scalar operations that Numba lacks.

Fast-math is off everywhere: contraction and reassociation would make the draws, and with them every number, depend on
the processor. Where a fused multiply-add is wanted it is written out as :func:`fma`.
"""

import fcntl
import hashlib
import inspect
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic


def _source_digest() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


SOURCE_DIGEST = _source_digest()  # of all files of the engine


def _cache_folder() -> str:
    """Where compiled code is kept: below NUMBA_CACHE_DIR, or the user's cache folder, one folder per state of the engine.

    Numba looks at a function's own file alone and would go on using code with the old text of a callee inlined.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return str(Path(config.CACHE_DIR or Path(home) / "ntksim") / f"engine-{SOURCE_DIGEST}")


_CACHE_FOLDER = _cache_folder()


def _is_writable() -> bool:
    try:
        Path(_CACHE_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(_CACHE_FOLDER, os.W_OK)


# Without a folder to write to Numba would look beside the sources, where code of an older engine may lie, or refuse.
_KEPT = _is_writable()
if not _KEPT:
    warnings.warn(
        f"{_CACHE_FOLDER} cannot be written: compiling anew in every process, about a minute; set NUMBA_CACHE_DIR to a folder "
        "that can",
        RuntimeWarning,
        stacklevel=2,
    )


def _one_at_a_time(save: Callable[..., Any]) -> Callable[..., Any]:
    """Let one process at a time add to the cache.

    Numba reads an index, picks a free file name and writes the index back: two jobs that start on an empty cache could pick
    the same name for different code, and a third would then run the wrong one.
    """

    def locked(*arguments: Any) -> Any:
        try:
            Path(_CACHE_FOLDER).mkdir(parents=True, exist_ok=True)
            with open(Path(_CACHE_FOLDER) / ".lock", "w") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)
                return save(*arguments)
        except OSError:
            return None  # a folder that cannot be written or locked: go on without keeping the code

    return locked


def cached(compiler: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """A decorator: Numba's ``compiler`` with ``options``, and a cache in the engine's own folder."""

    def decorate(function: Callable[..., Any]) -> Any:
        before, config.CACHE_DIR = config.CACHE_DIR, _CACHE_FOLDER  # read when a function is decorated
        try:
            compiled = compiler(cache=_KEPT, **options)(function)
            if _KEPT:
                compiled._cache.save_overload = _one_at_a_time(compiled._cache.save_overload)
            return compiled
        finally:
            config.CACHE_DIR = before

    return decorate


def _compiler(**options: Any) -> Callable[..., Any]:
    # error_model="numpy" drops the test for a zero divisor, which would keep LLVM from vectorising a loop;
    # nogil lets other Python threads run.
    return cached(njit, nogil=True, error_model="numpy", **options)


# Scalar formulas and serial loops.
jit = _compiler()
# Scalar formulas inside a loop that must vectorise: LLVM would leave functions of this size as calls.
jit_inline = _compiler(forceinline=True)
# What only compiled code calls: without a way in from Python, whose code can be longer than the function's. Where nothing is
# allocated, arrays are not counted either: an atomic operation a view would be a third of a small network's time.
jit_allocating = _compiler(no_cpython_wrapper=True, no_cfunc_wrapper=True)
jit_inner = _compiler(no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)
# Loops that threads share.
jit_parallel = _compiler(parallel=True)

REALS = (types.float32, types.float64)


def _contents(kind: Any) -> list[Any]:
    """The types of the entries of an array, or of all arrays in a named tuple."""
    if isinstance(kind, types.BaseNamedTuple):
        return [entry for field in kind for entry in _contents(field)]
    return [kind.dtype] if isinstance(kind, types.Array) else []


def compiled_once(
    signature: Callable[[Any], tuple[Any, ...]], compiler: Callable[..., Any] = jit_inner
) -> Callable[[Callable[..., None]], Any]:
    """Compile a function for float32 and float64 here and now, and let compiled code call it by its address.

    Numba puts the code of every callee into every caller, and into the callers of those: large inner functions would be
    compiled a dozen times over. ``signature`` gives the types of the arguments for a type of reals; the function returns
    nothing. It can be called from compiled code only, and is chosen by the first argument that tells the two apart.
    """

    def decorate(function: Callable[..., None]) -> Any:
        compiled = compiler(function)
        variants = {real: signature(real) for real in REALS}
        names = {real: f"ntksim_{function.__module__}_{function.__name__}_{real}".replace(".", "_") for real in REALS}
        for real, argument_types in variants.items():
            compiled.compile(argument_types)
            result = compiled.overloads[argument_types]
            llvm.add_symbol(names[real], result.library.get_pointer_to_function(result.fndesc.llvm_func_name))

        single, double = (variants[real] for real in REALS)
        where = next(i for i in range(len(single)) if _contents(single[i]) != _contents(double[i]))

        def typing(typingctx, *given):
            real = next(real for real in REALS if _contents(variants[real][where]) == _contents(given[where]))
            call = types.void(*variants[real])

            def codegen(context, builder, sig, args):
                kind = context.call_conv.get_function_type(types.void, sig.args)
                callee = cgutils.get_or_insert_function(builder.module, kind, names[real])
                status, _ = context.call_conv.call_function(builder, callee, types.void, sig.args, args)
                with cgutils.if_unlikely(builder, status.is_error):
                    context.call_conv.return_status_propagate(builder, status)
                return context.get_dummy_value()

            return call, codegen

        typing.__name__, typing.__doc__ = function.__name__, function.__doc__
        parameters = inspect.signature(function).parameters.values()
        context_parameter = next(iter(inspect.signature(typing).parameters.values()))
        setattr(typing, "__signature__", inspect.Signature([context_parameter, *parameters]))  # noqa: B010 - mypy knows none
        shim = intrinsic(typing)
        shim.py_func = compiled
        return shim

    return decorate


@intrinsic
def fma(typingctx, a, b, c):
    """a b + c rounded once (one instruction on every processor of the last decade), of floats of one type."""
    if not a == b == c or a not in REALS:
        return None

    def codegen(context, builder, signature, args):
        return builder.fma(*args)

    return a(a, b, c), codegen


@jit_inline
def multiply_add(a, b, c):
    """:func:`fma`, for code that Python runs too, as it does in the simulator of a GPU."""
    return fma(a, b, c)


_INTEGER_OF = {types.float32: types.int32, types.float64: types.int64}
_FLOAT_OF = {integer: real for real, integer in _INTEGER_OF.items()}


def _cast_bits(value, target):
    """Signature and code of a cast that keeps the bits."""
    return target(value), lambda context, builder, signature, args: builder.bitcast(args[0], context.get_value_type(target))


@intrinsic
def bits_of_float(typingctx, value):
    """The bits of a float as the integer of its size."""
    return _cast_bits(value, _INTEGER_OF[value]) if value in _INTEGER_OF else None


@intrinsic
def float_of_bits(typingctx, value):
    """The float whose bits are those of an integer of its size."""
    return _cast_bits(value, _FLOAT_OF[value]) if value in _FLOAT_OF else None


@intrinsic
def wide_vectors(typingctx):
    """Ask for the widest vectors there are in the function that calls this, which stays a function of its own.

    LLVM prefers 256 bits on processors that have 512, for fear of a lower clock; in a loop of hundreds of vector
    operations 512 bits are a quarter to a third faster (measured for the Box-Muller loop). Without AVX-512 it changes nothing.
    """

    def codegen(context, builder, signature, args):
        # llvmlite's own `add` knows plain attributes alone; a set takes any, and prints them as they are.
        for attribute in ('"prefer-vector-width"="512"', "noinline"):
            set.add(builder.function.attributes, attribute)
        return context.get_dummy_value()

    return types.void(), codegen
