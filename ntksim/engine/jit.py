"""Every Numba option of the engine, with its reason, and the two scalar operations that Numba lacks.

Fast-math is off everywhere: contraction and reassociation would make the draws, and with them every number, depend on
the processor. Where a fused multiply-add is wanted it is written out as :func:`fma`.
"""

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# Scalar formulas and serial loops. `nogil` lets other Python threads run; `error_model="numpy"` drops the test for a
# zero divisor, which would keep LLVM from vectorising a loop.
jit = njit(cache=True, nogil=True, error_model="numpy")
# Scalar formulas inside a loop that must vectorise: LLVM would leave functions of this size as calls.
jit_inline = njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
# Loops over seeds.
jit_parallel = njit(cache=True, nogil=True, error_model="numpy", parallel=True)


@intrinsic
def fma(typingctx, a, b, c):
    """a b + c rounded once, for float32 (one instruction on every processor of the last decade)."""
    if not a == b == c == types.float32:
        return None

    def codegen(context, builder, signature, args):
        return builder.fma(*args)

    return types.float32(a, b, c), codegen


@intrinsic
def bits_of_float(typingctx, value):
    """The 32 bits of a float32 as int32."""
    if value != types.float32:
        return None
    return types.int32(value), lambda context, builder, signature, args: builder.bitcast(args[0], ir.IntType(32))


@intrinsic
def float_of_bits(typingctx, value):
    """The float32 whose bits are those of an int32."""
    if value != types.int32:
        return None
    return types.float32(value), lambda context, builder, signature, args: builder.bitcast(args[0], ir.FloatType())
