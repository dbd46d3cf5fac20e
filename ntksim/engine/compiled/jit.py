"""Every Numba option of the CPU's code, with its reason, calls by address, and the scalar operations that Numba lacks.

Fast-math is off everywhere: contraction and reassociation would make the draws, and with them every number, depend on
the processor. Where a fused multiply-add is wanted it is written out as :func:`fma`.
"""

import inspect
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from numba import config, njit, types
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

from ntksim.engine.compiled.by_address import Address
from ntksim.engine.compiled.code_cache import KEPT, kept_cache
from ntksim.engine.compiled.function_names import digest_of, told_apart
from ntksim.engine.devices import DeviceError

if config.DISABLE_JIT:
    raise DeviceError("ntksim cannot run without compiled code: unset NUMBA_DISABLE_JIT")

_decorated: dict[str, Callable[..., Any]] = {}  # by module and qualified name
_compiled: list[Any] = []  # what became of them
_at_once: list[Callable[[], None]] = []  # compile what `compiled_once` has


def compiling(compiler: Callable[..., Any], cache: type | None, **options: Any) -> Callable[..., Any]:
    """A decorator: a compiler of Numba's with ``options``, whose code is kept in a ``cache`` of the class that goes with it.

    Functions that a factory makes, closures and lambdas are named by what they are made of.

    Raises
    ------
    TypeError for a function whose qualified name another one has, which Numba could take for it.
    """
    kept = kept_cache(cache) if cache is not None and KEPT else None

    def decorate(function: Callable[..., Any]) -> Any:
        function = told_apart(function)
        name = f"{function.__module__}.{function.__qualname__}"
        other = _decorated.setdefault(name, function)
        if other is not function and digest_of(other) != digest_of(function):
            raise TypeError(f"two functions to be compiled have the name {name}: rename one of them")
        compiled = compiler(**options)(function)
        if kept is not None:
            compiled._cache = kept(function, options)
        _compiled.append(compiled)
        return compiled

    return decorate


def on_compile_anew(action: Callable[[], None]) -> None:
    """Have ``action`` done when all code is compiled anew: what holds addresses must take new ones."""
    _at_once.append(action)


def compile_anew() -> None:
    """Forget all compiled code in this process; what is called by its address is compiled here and now."""
    for compiled in _compiled:
        compiled._reset_overloads()
    for compile_variants in _at_once:
        compile_variants()


def _compiler(**options: Any) -> Callable[..., Any]:
    # error_model="numpy" drops the test for a zero divisor, which would keep LLVM from vectorising a loop;
    # nogil lets other Python threads run; a callee that is compiled on the way would take forceinline over from its caller.
    return compiling(njit, FunctionCache, nogil=True, error_model="numpy", **{"forceinline": False, **options})


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
    """The types of the entries of an array, or of all arrays in a named tuple or in one at an address."""
    if isinstance(kind, Address):
        return _contents(kind.kind)
    if isinstance(kind, types.BaseNamedTuple):
        return [entry for field in kind for entry in _contents(field)]
    return [kind.dtype] if isinstance(kind, types.Array) else []


def _call(context, builder, callee, argument_types, arguments):
    """Call a compiled function that returns nothing, and raise what it raises."""
    status, _ = context.call_conv.call_function(builder, callee, types.void, argument_types, arguments)
    with cgutils.if_unlikely(builder, status.is_error):
        context.call_conv.return_status_propagate(builder, status)
    return context.get_dummy_value()


class CalledByAddress:
    """A kind of function that compiled code calls by an address that it is given: one caller, compiled once, for many of them.

    ``signature`` gives the types of the arguments for a type of reals, as in `compiled_once`; the functions return nothing.
    """

    def __init__(self, signature: Callable[[Any], tuple[Any, ...]]) -> None:
        self._variants = variants = {real: signature(real) for real in REALS}

        def typing(typingctx, address, arguments):
            given = [_contents(kind) for kind in arguments]
            real = next((real for real in REALS if [_contents(kind) for kind in variants[real]] == given), REALS[-1])

            def codegen(context, builder, sig, args):
                kinds = variants[real]
                values = [
                    context.cast(builder, builder.extract_value(args[1], i), own, kind)
                    for i, (own, kind) in enumerate(zip(sig.args[1], kinds, strict=True))
                ]
                kind = context.call_conv.get_function_type(types.void, kinds)
                return _call(context, builder, builder.inttoptr(args[0], kind.as_pointer()), kinds, values)

            return types.void(types.intp, arguments), codegen

        #: compiled code's way to call: ``call(address, (argument, ...))``
        self.call = intrinsic(typing)

    def address(self, function: Any, real: Any = REALS[-1]) -> int:
        """The address of a compiled function's variant for a type of reals, compiled here and now."""
        argument_types = self._variants[real]
        function.compile(argument_types)
        result = function.overloads[argument_types]
        return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


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
        # The same in every process: kept code of callers asks for it. Of the name of the function as it was decorated, which
        # no other one has.
        own = f"{function.__module__}.{compiled.py_func.__qualname__}"
        names = {real: f"ntksim:{own}:{real}" for real in REALS}

        def compile_variants() -> None:
            for real, argument_types in variants.items():
                compiled.compile(argument_types)
                result = compiled.overloads[argument_types]
                llvm.add_symbol(names[real], result.library.get_pointer_to_function(result.fndesc.llvm_func_name))

        compile_variants()
        _at_once.append(compile_variants)
        single, double = (variants[real] for real in REALS)
        where = next(i for i in range(len(single)) if _contents(single[i]) != _contents(double[i]))

        def typing(typingctx, *given):
            real = next(real for real in REALS if _contents(variants[real][where]) == _contents(given[where]))
            call = types.void(*variants[real])

            def codegen(context, builder, sig, args):
                kind = context.call_conv.get_function_type(types.void, sig.args)
                callee = cgutils.get_or_insert_function(builder.module, kind, names[real])
                return _call(context, builder, callee, sig.args, args)

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


@intrinsic
def no_overlap(typingctx):
    """Say that no two arrays of the function that calls this share memory, one of which is written to.

    LLVM then asks nothing of their addresses before a loop, and reads once what the loop does not change.
    """

    def codegen(context, builder, signature, args):
        for argument in builder.function.args:
            if argument.type.is_pointer:
                argument.add_attribute("noalias")
        return context.get_dummy_value()

    return types.void(), codegen
