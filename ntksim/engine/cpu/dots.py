"""Sums over points, of rows that stay in registers: the gradient of a neuron's few parameters.

    out[a, d] = sum_l s[a, l] t[a, l] x[d, l],

where points l are the last, contiguous axis. A sum is kept in as many parts as ``LANES`` numbers have, whatever the processor's
vectors, and the parts are added in halves: its bits depend on the number of points alone. (A plain loop in order waits for one
addition after the other, and takes ten times as long.) It is written in LLVM's vectors, as `product` is.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ntksim.engine.compiled.jit import compiled_once, jit
from ntksim.engine.cpu.product import WIDE

LANE_BYTES = 64
_ROWS, _TERMS = 6 if WIDE else 1, 4  # of a block, whose sums fill the registers
_INDEX = ir.IntType(64)


def whole_lanes(points: int, itemsize: int) -> int:
    """Points padded to whole lanes of numbers of ``itemsize`` bytes."""
    lanes = LANE_BYTES // itemsize
    return -(-points // lanes) * lanes


@intrinsic(prefer_literal=True)
def _block(typingctx, rows, terms, weighted, s, s_at, s_row, t, t_at, t_row, x, x_at, x_row, points, out, out_at, out_row):
    """The sums of ``rows`` rows of s and ``terms`` rows of x; without t where ``weighted`` is 0: three literals."""
    integer, flat = types.intp, s
    signature = types.void(
        rows, terms, weighted, flat, integer, integer, t, integer, integer, x, integer, integer, integer, out, integer, integer
    )

    def codegen(context, builder, sig, args):
        s_, t_, x_, out_ = (
            builder.gep(context.make_array(sig.args[i])(context, builder, args[i]).data, [args[i + 1]]) for i in (3, 6, 9, 13)
        )
        scalar, size = context.get_data_type(s.dtype), s.dtype.bitwidth // 8
        lanes = LANE_BYTES // size
        vector = ir.VectorType(scalar, lanes)
        fused = ir.FunctionType(vector, [vector] * 3)
        fma = cgutils.get_or_insert_function(builder.module, fused, f"llvm.fma.v{lanes}f{8 * size}")
        before, body, after = builder.basic_block, builder.append_basic_block("points"), builder.append_basic_block("summed")

        def load(pointer, index):
            return builder.load(builder.bitcast(builder.gep(pointer, [index]), vector.as_pointer()), align=size)

        many, few = rows.literal_value, terms.literal_value
        builder.branch(body)
        builder.position_at_end(body)
        zero = ir.Constant(vector, [0.0] * lanes)
        at = builder.phi(_INDEX)
        sums = [builder.phi(vector) for _ in range(many * few)]
        xs = [load(x_, builder.add(at, builder.mul(args[11], _INDEX(d)))) for d in range(few)]
        later = []
        for a in range(many):
            row = load(s_, builder.add(at, builder.mul(args[5], _INDEX(a))))
            if weighted.literal_value:
                row = builder.fmul(row, load(t_, builder.add(at, builder.mul(args[8], _INDEX(a)))))
            later += [builder.call(fma, [row, xs[d], sums[a * few + d]]) for d in range(few)]
        following = builder.add(at, _INDEX(lanes))
        for phi, start, value in zip([at, *sums], [_INDEX(0), *[zero] * len(sums)], [following, *later], strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, body)
        builder.cbranch(builder.icmp_signed("<", following, args[12]), body, after)
        builder.position_at_end(after)
        for number, value in enumerate(later):
            a, d = divmod(number, few)
            place = builder.add(builder.mul(args[15], _INDEX(a)), _INDEX(d))
            builder.store(_halved(builder, value, lanes), builder.gep(out_, [place]))
        return context.get_dummy_value()

    return signature, codegen


def _halved(builder, value, lanes):
    """The sum of a vector's numbers: its halves are added, and theirs, until one is left."""
    while lanes > 1:
        lanes //= 2
        kind = ir.VectorType(ir.IntType(32), lanes)
        halves = (ir.Constant(kind, list(range(first, first + lanes))) for first in (0, lanes))
        value = builder.fadd(*(builder.shuffle_vector(value, value, half) for half in halves))
    return builder.extract_element(value, ir.IntType(32)(0))


def _strip(rows, weighted):
    """All rows of x against ``rows`` rows of s."""

    @jit
    def strip(s, s_at, s_row, t, t_at, t_row, x, x_at, x_row, points, out, out_at, out_row, terms):
        d = 0
        while d + _TERMS <= terms:
            at, to = x_at + d * x_row, out_at + d
            _block(rows, _TERMS, weighted, s, s_at, s_row, t, t_at, t_row, x, at, x_row, points, out, to, out_row)
            d += _TERMS
        at, to, left = x_at + d * x_row, out_at + d, terms - d
        if left == 3:
            _block(rows, 3, weighted, s, s_at, s_row, t, t_at, t_row, x, at, x_row, points, out, to, out_row)
        elif left == 2:
            _block(rows, 2, weighted, s, s_at, s_row, t, t_at, t_row, x, at, x_row, points, out, to, out_row)
        elif left == 1:
            _block(rows, 1, weighted, s, s_at, s_row, t, t_at, t_row, x, at, x_row, points, out, to, out_row)

    return strip


def _all_rows(weighted):
    many, one = _strip(_ROWS, weighted), _strip(1, weighted)

    @jit
    def all_rows(s, s_at, s_row, t, t_at, t_row, x, x_at, x_row, points, out, out_at, out_row, rows, terms):
        a = 0
        while a + _ROWS <= rows:
            many(
                s, s_at + a * s_row, s_row, t, t_at + a * t_row, t_row, x, x_at, x_row, points, out, out_at + a * out_row,
                out_row, terms,
            )  # fmt: skip
            a += _ROWS
        while a < rows:
            one(
                s, s_at + a * s_row, s_row, t, t_at + a * t_row, t_row, x, x_at, x_row, points, out, out_at + a * out_row,
                out_row, terms,
            )  # fmt: skip
            a += 1

    return all_rows


_plain, _weighted = _all_rows(0), _all_rows(1)


def _types(real):
    flat, integer = real[::1], types.intp
    operand = flat, integer, integer
    return *operand, *operand, integer, *operand, integer, integer


def _weighted_types(real):
    return real[::1], types.intp, types.intp, *_types(real)


@compiled_once(_types)
def dots(s, s_at, s_row, x, x_at, x_row, points, out, out_at, out_row, rows, terms):
    """out[a, d] <- sum_l s[a, l] x[d, l] of ``rows`` rows a and ``terms`` rows d.

    Arrays are flat and of one dtype, each with the index of its first entry and the distance of its rows. ``points`` are whole
    lanes (`whole_lanes`).
    """
    _plain(s, s_at, s_row, s, s_at, s_row, x, x_at, x_row, points, out, out_at, out_row, rows, terms)


@compiled_once(_weighted_types)
def weighted_dots(t, t_at, t_row, s, s_at, s_row, x, x_at, x_row, points, out, out_at, out_row, rows, terms):
    """out[a, d] <- sum_l s[a, l] t[a, l] x[d, l], as :func:`dots`; all rows have one t where its rows are 0 apart."""
    _weighted(s, s_at, s_row, t, t_at, t_row, x, x_at, x_row, points, out, out_at, out_row, rows, terms)
