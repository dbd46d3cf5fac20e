"""Matrix products on blocks that stay in registers: every pass over a weight matrix is made of them.

A library's product packs both matrices before it multiplies, which costs up to a third of the time where one of them has 64
columns, and cannot read a matrix that is being generated. Here points are the last axis of every array, contiguous and
padded to vectors (`padded_points`), so that nothing needs packing. The block

    c[a, l] (+)= sum_k b[k, a] v[k, l],    a = 0..5,  l = 0..63 (float32 with 512-bit vectors)

keeps its sums in registers and takes, for each k, six numbers of b, which may lie at any strides, and a row of v. With
b = W or W' it is a forward or a backward pass, with b = v a Gram matrix. It runs at the processor's own peak (measured: 118
GFLOP/s a core where OpenBLAS reaches 100 to 105 on large squares and 71 to 92 on these shapes). It is written in LLVM's vectors
because no compiler finds it in scalar loops.

Every sum runs over k in ascending order, fused, in pieces of ``PIECE``: its bits depend neither on the sizes of blocks
and vectors, and thus on the processor, nor on how rows and points are shared out.
"""

import llvmlite.binding as llvm
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from ntksim.engine.compiled.jit import compiled_once, jit

PIECE = 512  # terms summed before the sum is added to the others: a float32 sum of 65,536 terms would lose a digit
# What Numba compiles for: the host, or what NUMBA_CPU_FEATURES says.
_FEATURES = (llvm.get_host_cpu_features().flatten() if config.CPU_FEATURES is None else config.CPU_FEATURES).split(",")
# Bytes of a vector, and vectors in a row of a block: six rows of them fill the registers and leave one row's worth to load.
WIDE = "+avx512f" in _FEATURES
_BYTES, _VECTORS = (64, 4) if WIDE else (32, 2) if "+avx2" in _FEATURES else (16, 4)
_ROWS = 6
_INDEX = ir.IntType(64)


def padded_points(points: int, itemsize: int) -> int:
    """Points padded to whole vectors of numbers of ``itemsize`` bytes, or to half or a quarter of one if it holds them all."""
    lanes = _BYTES // itemsize  # two float64 numbers on a processor with short vectors: a quarter of them is none
    for part in (lanes // 4, lanes // 2):
        if points <= part:
            return part
    return -(-points // lanes) * lanes


@intrinsic(prefer_literal=True)
def _block(typingctx, rows, vectors, part, b, b_at, b_term, b_row, v, v_at, v_term, c, c_at, c_row, terms, first):
    """The block of ``rows`` rows and ``vectors`` vectors, or 1 / ``part`` of them: three literals; inlined where it is called.

    Arrays come flat, each with the index of its first entry and its strides; ``first`` says that c is to be overwritten.
    """
    integer = types.intp
    signature = types.void(
        rows, vectors, part, b, integer, integer, integer, v, integer, integer, c, integer, integer, integer, types.boolean
    )

    def codegen(context, builder, sig, args):
        b_, v_, c_ = (
            builder.gep(context.make_array(sig.args[i])(context, builder, args[i]).data, [args[i + 1]]) for i in (3, 7, 10)
        )
        emit = _Emitter(builder, context.get_data_type(c.dtype), c.dtype.bitwidth // 8, part.literal_value)
        emit.sum_terms(rows.literal_value, vectors.literal_value, b_, args[5], args[6], v_, args[9], args[13])
        emit.store(c_, args[12], args[14])
        return context.get_dummy_value()

    return signature, codegen


class _Emitter:
    """Emits a block's instructions."""

    def __init__(self, builder, scalar, size, part):
        self.builder, self.size, self.width = builder, size, max(_BYTES // size // part, 1)
        self.vector = ir.VectorType(scalar, self.width)
        name = f"llvm.fma.v{self.width}f{8 * size}"
        self.fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(self.vector, [self.vector] * 3), name)

    def place(self, pointer, index):
        """Pointer to vector number ``index``."""
        return self.builder.bitcast(self.builder.gep(pointer, [_INDEX(index * self.width)]), self.vector.as_pointer())

    def broadcast(self, value):
        nothing = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(nothing, value, ir.IntType(32)(0))
        return self.builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width))

    def sum_terms(self, rows, vectors, b, b_term, b_row, v, v_term, terms):
        """sums[a][i] = sum over terms of b[a] v[i]; there is at least one term."""
        builder = self.builder
        before, body, after = builder.basic_block, builder.append_basic_block("term"), builder.append_basic_block("summed")
        builder.branch(body)
        builder.position_at_end(body)
        zero = ir.Constant(self.vector, [0.0] * self.width)
        carried = [_INDEX(0), b, v] + [zero] * (rows * vectors)
        now = [builder.phi(start.type) for start in carried]
        row = [builder.load(self.place(now[2], i), align=self.size) for i in range(vectors)]
        later = [builder.add(now[0], _INDEX(1)), builder.gep(now[1], [b_term]), builder.gep(now[2], [v_term])]
        for a in range(rows):
            factor = self.broadcast(builder.load(builder.gep(now[1], [builder.mul(b_row, _INDEX(a))])))
            later += [builder.call(self.fma, [factor, row[i], now[3 + a * vectors + i]]) for i in range(vectors)]
        for phi, start, value in zip(now, carried, later, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, body)
        builder.cbranch(builder.icmp_signed("<", later[0], terms), body, after)
        builder.position_at_end(after)
        self.sums = [later[3 + a * vectors : 3 + (a + 1) * vectors] for a in range(rows)]

    def store(self, c, c_row, first):
        """c <- sums, or c <- c + sums."""
        builder = self.builder
        places = [
            (self.place(builder.gep(c, [builder.mul(c_row, _INDEX(a))]), i), value)
            for a, row in enumerate(self.sums)
            for i, value in enumerate(row)
        ]
        with builder.if_else(builder.trunc(first, ir.IntType(1))) as (overwrite, add):
            with overwrite:
                for place, value in places:
                    builder.store(value, place, align=self.size)
            with add:
                for place, value in places:
                    builder.store(builder.fadd(builder.load(place, align=self.size), value), place, align=self.size)


def _strip(vectors, part=1):
    """All rows of c, and ``vectors`` vectors of its points, or 1 / ``part`` of them."""

    @jit
    def strip(b, b_at, b_term, b_row, v, v_at, v_term, c, c_at, c_row, rows, terms, first):
        a = 0
        while a + _ROWS <= rows:
            at, to = b_at + a * b_row, c_at + a * c_row
            _block(_ROWS, vectors, part, b, at, b_term, b_row, v, v_at, v_term, c, to, c_row, terms, first)
            a += _ROWS
        while a + 2 <= rows:
            at, to = b_at + a * b_row, c_at + a * c_row
            _block(2, vectors, part, b, at, b_term, b_row, v, v_at, v_term, c, to, c_row, terms, first)
            a += 2
        if a < rows:
            at, to = b_at + a * b_row, c_at + a * c_row
            _block(1, vectors, part, b, at, b_term, b_row, v, v_at, v_term, c, to, c_row, terms, first)

    return strip


_wide_strip, _pair_strip, _thin_strip = _strip(_VECTORS), _strip(2), _strip(1)
_half_strip, _quarter_strip = _strip(1, 2), _strip(1, 4)


def _types(real):
    flat, integer = real[::1], types.intp
    return flat, *[integer] * 3, flat, *[integer] * 3, flat, *[integer] * 4, types.boolean


@compiled_once(_types)
def multiply(b, b_at, b_term, b_row, v, v_at, v_term, points, c, c_at, c_row, rows, terms, first):
    """c[a, l] <- sum_k b[k, a] v[k, l], or c <- c + that unless ``first``, for ``rows`` rows a and ``points`` points l.

    b, v and c are flat arrays of one dtype, with the index of their first entry each; entry (k, a) of b lies b_term k + b_row a
    further, rows k of v and a of c lie ``v_term`` and ``c_row`` apart. ``points`` are padded (``padded_points``).
    """
    width = _BYTES // c.itemsize
    for k in range(0, terms, PIECE):
        some, fresh = min(PIECE, terms - k), first and k == 0
        b_k, v_k, at = b_at + k * b_term, v_at + k * v_term, 0
        while at + _VECTORS * width <= points:
            _wide_strip(b, b_k, b_term, b_row, v, v_k + at, v_term, c, c_at + at, c_row, rows, some, fresh)
            at += _VECTORS * width
        if at + 2 * width <= points:
            _pair_strip(b, b_k, b_term, b_row, v, v_k + at, v_term, c, c_at + at, c_row, rows, some, fresh)
            at += 2 * width
        if at + width <= points:
            _thin_strip(b, b_k, b_term, b_row, v, v_k + at, v_term, c, c_at + at, c_row, rows, some, fresh)
            at += width
        if at + width // 2 <= points:
            _half_strip(b, b_k, b_term, b_row, v, v_k + at, v_term, c, c_at + at, c_row, rows, some, fresh)
            at += width // 2
        if at < points:
            _quarter_strip(b, b_k, b_term, b_row, v, v_k + at, v_term, c, c_at + at, c_row, rows, some, fresh)
