"""BLAS from compiled code: SciPy's GEMM and SYRK on row-major arrays and views of them, on one thread.

The addresses come from ``scipy.linalg.cython_blas`` and are registered as linker symbols, so that compiled functions
which call them can be cached on disk: an address baked into machine code could not.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic
from threadpoolctl import ThreadpoolController

from ntksim.engine.jit import jit

for _name in ("sgemm", "dgemm", "ssyrk", "dsyrk"):
    llvm.add_symbol(f"ntksim_{_name}", get_cython_function_address("scipy.linalg.cython_blas", _name))

_controller: ThreadpoolController | None = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold every loaded BLAS at one thread: the parallelism is outside, over seeds."""
    global _controller
    if _controller is None:
        _controller = ThreadpoolController()
    with _controller.limit(limits=1, user_api="blas"):
        yield


def _call(context, builder, routine, scalar, arguments):
    """Call a Fortran routine: every argument by reference, scalars spilled to the stack."""
    pointers = []
    for value in arguments:
        if isinstance(value.type, ir.PointerType):
            pointers.append(value)
        else:
            pointers.append(cgutils.alloca_once_value(builder, value))
    prefix = "s" if scalar == types.float32 else "d"
    signature = ir.FunctionType(ir.VoidType(), [p.type for p in pointers])
    function = cgutils.get_or_insert_function(builder.module, signature, f"ntksim_{prefix}{routine}")
    builder.call(function, pointers)


def _letter(builder, flag, yes, no):
    char = ir.IntType(8)
    return builder.select(builder.trunc(flag, ir.IntType(1)), char(ord(yes)), char(ord(no)))


def _int32(builder, value):
    return builder.trunc(value, ir.IntType(32))


def _matrix(context, builder, kind, value):
    """Data pointer and row stride in entries of a row-major matrix."""
    array = context.make_array(kind)(context, builder, value)
    stride = builder.extract_value(array.strides, 0)
    size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    return array.data, _int32(builder, builder.sdiv(stride, ir.IntType(64)(size)))


@intrinsic
def _gemm(typingctx, transpose_a, transpose_b, rows, cols, inner, alpha, a, b, beta, c):
    scalar = c.dtype
    signature = types.void(types.boolean, types.boolean, types.int64, types.int64, types.int64, scalar, a, b, scalar, c)

    def codegen(context, builder, sig, args):
        ta, tb, m, n, k, al, a_, b_, be, c_ = args
        pa, lda = _matrix(context, builder, sig.args[6], a_)
        pb, ldb = _matrix(context, builder, sig.args[7], b_)
        pc, ldc = _matrix(context, builder, sig.args[9], c_)
        m, n, k = (_int32(builder, v) for v in (m, n, k))
        # Row-major C = op(A) op(B) is column-major C' = op(B)' op(A)'.
        tb, ta = _letter(builder, tb, "T", "N"), _letter(builder, ta, "T", "N")
        _call(context, builder, "gemm", scalar, [tb, ta, n, m, k, al, pb, ldb, pa, lda, be, pc, ldc])
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _syrk(typingctx, rows, inner, alpha, a, beta, c):
    scalar = c.dtype
    signature = types.void(types.int64, types.int64, scalar, a, scalar, c)

    def codegen(context, builder, sig, args):
        n, k, al, a_, be, c_ = args
        pa, lda = _matrix(context, builder, sig.args[3], a_)
        pc, ldc = _matrix(context, builder, sig.args[5], c_)
        char = ir.IntType(8)
        n, k = _int32(builder, n), _int32(builder, k)
        _call(context, builder, "syrk", scalar, [char(ord("U")), char(ord("T")), n, k, al, pa, lda, be, pc, ldc])
        return context.get_dummy_value()

    return signature, codegen


@jit
def gemm(alpha, a, transpose_a, b, transpose_b, beta, c):
    """c <- alpha op(a) op(b) + beta c for row-major matrices or views with contiguous rows, all of one dtype."""
    inner = a.shape[0] if transpose_a else a.shape[1]
    kind = c.dtype.type
    _gemm(transpose_a, transpose_b, c.shape[0], c.shape[1], inner, kind(alpha), a, b, kind(beta), c)


@jit
def syrk(a, c):
    """c <- a a', both triangles, symmetric to the last bit."""
    kind = c.dtype.type
    _syrk(a.shape[0], a.shape[1], kind(1), a, kind(0), c)
    for i in range(c.shape[0]):
        for j in range(i):
            c[j, i] = c[i, j]
