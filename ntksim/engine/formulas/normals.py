"""Normal random numbers as a pure function of where they stand: (seed, widths, layer, row, column).

Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a 128-bit counter and a 64-bit
key into four random words:

    counter = (row block, column, layer code, high word of the seed),  key = (low word of the seed, hash of the widths)

One block holds four consecutive rows of one column, so a loop over columns is a loop over contiguous memory and
vectorises. Vectors (biases, readouts) are laid out like a matrix of four rows, column by column. Any tile of any
matrix can be made anywhere, in any order, any number of times.

The arithmetic is float32 with correctly rounded operations only (+, x, sqrt, explicit fma), so that every processor,
and a GPU, makes the same bits. A radius comes from 32 random bits: tails reach 6.66 standard deviations.

Weights of other distributions (`initialisers`) come from the same words, one each. All have mean 0 and variance 1.
"""

import math

import numpy as np
from numba import types

from ntksim.engine.compiled.jit import (
    bits_of_float,
    compiled_once,
    float_of_bits,
    fma,
    jit,
    jit_allocating,
    jit_inline,
    jit_inner,
    wide_vectors,
)
from ntksim.engine.initialisers import NORMAL, TRUNCATED, UNIFORM

_u32, _u64, _f32 = np.uint32, np.uint64, np.float32

# Computed here: on a GPU a compiler would leave the logarithm to every thread.
_LN2, _ANGLE = _f32(math.log(2)), _f32(2 * math.pi * 2.0**-34)
_UNIFORM = _f32(math.sqrt(3) * 2.0**-31)
_CUT = _f32(math.erf(math.sqrt(2)) * 2.0**-31)  # the probability of what lies within two standard deviations
ROWS_PER_BLOCK = 4
_STRETCH = 1024  # columns made at a time


@jit_inline
def weight_code(layer):
    """The generator's code for the weights of a layer (1..L, and L+1 for the readout)."""
    return _u32(2 * layer)


@jit_inline
def bias_code(layer):
    """The generator's code for the biases of a layer."""
    return _u32(2 * layer + 1)


@jit_inline
def left_code(layer):
    """The generator's code for the normals that stand in a conditioned layer's forward pass (see `conditional`)."""
    return _u32(0x80000000 + 2 * layer)


@jit_inline
def right_code(layer):
    """The generator's code for the normals that stand in a conditioned layer's backward pass."""
    return _u32(0x80000000 + 2 * layer + 1)


@jit_inline
def seed_words(seed):
    """Low and high 32 bits of a seed."""
    return _u32(seed & _u64(0xFFFFFFFF)), _u32(seed >> _u64(32))


@jit_inline
def philox(c0, c1, c2, c3, k0, k1):
    """Four random uint32 from a counter and a key of uint32 words (Philox 4x32-10).

    A product of two words fills a 64-bit lane and its high half is the next word. So words live in the low halves of
    64-bit lanes, with whatever above them: in 32-bit lanes every product would cost shuffles (0.67 instead of 0.34 ns).
    """
    c0, c1, c2, c3, low = _u64(c0), _u64(c1), _u64(c2), _u64(c3), _u64(0xFFFFFFFF)
    for _ in range(10):
        p0 = (c0 & low) * _u64(0xD2511F53)
        p1 = (c2 & low) * _u64(0xCD9E8D57)
        c0 = (p1 >> _u64(32)) ^ c1 ^ _u64(k0)
        c2 = (p0 >> _u64(32)) ^ c3 ^ _u64(k1)
        c1, c3 = p1, p0
        k0 = _u32(k0 + _u32(0x9E3779B9))
        k1 = _u32(k1 + _u32(0xBB67AE85))
    return _u32(c0), _u32(c1), _u32(c2), _u32(c3)


@jit_inline
def _log(x, power):
    """Natural logarithm of x / 2^power, x a positive normal float32, within 1 ulp (coefficients: Cephes logf)."""
    # x = 2^e m with m in [sqrt(1/2), sqrt(2)): subtracting the bits of sqrt(1/2) puts the carry in the exponent.
    shifted = np.int32(bits_of_float(x) - np.int32(0x3F3504F3 + (power << 23)))
    e = _f32(shifted >> 23)
    m = float_of_bits(np.int32((shifted & np.int32(0x007FFFFF)) + np.int32(0x3F3504F3)))
    t = _f32(m - _f32(1))
    z = _f32(t * t)
    p = fma(_f32(7.0376836292e-2), t, _f32(-1.1514610310e-1))
    p = fma(p, t, _f32(1.1676998740e-1))
    p = fma(p, t, _f32(-1.2420140846e-1))
    p = fma(p, t, _f32(1.4249322787e-1))
    p = fma(p, t, _f32(-1.6668057665e-1))
    p = fma(p, t, _f32(2.0000714765e-1))
    p = fma(p, t, _f32(-2.4999993993e-1))
    p = fma(p, t, _f32(3.3333331174e-1))
    # log m = t + t^2 (t p - 1/2); ln 2 needs no second part: what it lacks, 2e-9 e, is far below an ulp of e ln 2
    return fma(e, _LN2, fma(z, fma(p, t, _f32(-0.5)), t))


@jit_inline
def _cos_sin(word):
    """Cosine and sine of 2 pi word / 2^32 (shifted by an eighth of a turn), float32, within 3 ulp (Cephes; measured 2.7)."""
    # The two high bits are the quadrant; the others an angle in [-pi/4, pi/4).
    x = _f32(_f32(np.int32(_u32(word << _u32(2)))) * _ANGLE)
    z = _f32(x * x)
    s = fma(_f32(-1.9515295891e-4), z, _f32(8.3321608736e-3))
    s = fma(s, z, _f32(-1.6666654611e-1))
    s = fma(_f32(s * z), x, x)
    c = fma(_f32(2.443315711809948e-5), z, _f32(-1.388731625493765e-3))
    c = fma(fma(fma(c, z, _f32(4.166664568298827e-2)), z, _f32(-0.5)), z, _f32(1))
    odd = (word & _u32(0x40000000)) != 0
    cosine = s if odd else c
    sine = c if odd else s
    # cos changes sign in quadrants 1 and 2, sin in quadrants 2 and 3
    flip_cosine, flip_sine = _u32(word + _u32(0x40000000)) & _u32(0x80000000), word & _u32(0x80000000)
    cosine = float_of_bits(np.int32(bits_of_float(cosine) ^ np.int32(flip_cosine)))
    return cosine, float_of_bits(np.int32(bits_of_float(sine) ^ np.int32(flip_sine)))


@jit_inline
def normal_pair(u, v):
    """Two independent standard normals (float32) from two random uint32: Box & Muller, radius from u, angle from v."""
    # the uniform number is (u + 1) / 2^32, in (0, 1]
    radius = _f32(math.sqrt(_f32(_f32(-2) * _log(_f32(_f32(u) + _f32(1)), 32))))
    cosine, sine = _cos_sin(v)
    return _f32(radius * cosine), _f32(radius * sine)


@jit_inline
def scaled_normals(key0, key1, layer, seed_high, block, col, scale):
    """float32(scale N) of rows 4 block to 4 block + 3 of a matrix, in one column."""
    w0, w1, w2, w3 = philox(_u32(block), _u32(col), layer, seed_high, key0, key1)
    z0, z1 = normal_pair(w0, w1)
    z2, z3 = normal_pair(w2, w3)
    return _f32(scale * z0), _f32(scale * z1), _f32(scale * z2), _f32(scale * z3)


@jit_inline
def scaled_uniforms(key0, key1, layer, seed_high, block, col, scale):
    """The same of uniform numbers in [-sqrt(3), sqrt(3)]: float32(scale U)."""
    w0, w1, w2, w3 = philox(_u32(block), _u32(col), layer, seed_high, key0, key1)
    step = _f32(scale * _UNIFORM)
    return (
        _f32(step * _f32(np.int32(w0))),
        _f32(step * _f32(np.int32(w1))),
        _f32(step * _f32(np.int32(w2))),
        _f32(step * _f32(np.int32(w3))),
    )


@jit_inline
def truncated_normal(word):
    """A normal cut at two standard deviations and stretched to variance 1, from a random uint32, by its inverse distribution.

    With x uniform in (-erf(sqrt(2)), erf(sqrt(2))) it is x P(log(1 - x^2)), as Giles (2010) approximates the inverse of erf. P is
    the Chebyshev interpolant of degree 7 of sqrt(2) erfinv(x) / (0.8796256610342398 x), within 5e-9 of it.
    """
    x = _f32(_f32(np.int32(word)) * _CUT)
    t = _log(fma(_f32(-x), x, _f32(1)), 0)
    p = fma(_f32(5.675187701e-7), t, _f32(-2.578603026e-6))
    p = fma(p, t, _f32(-8.818846746e-5))
    p = fma(p, t, _f32(-2.215957991e-4))
    p = fma(p, t, _f32(3.744328054e-3))
    p = fma(p, t, _f32(1.856535685e-2))
    p = fma(p, t, _f32(-3.730191127e-1))
    return _f32(x * fma(p, t, _f32(1.424826704)))


@jit_inline
def scaled_truncated_normals(key0, key1, layer, seed_high, block, col, scale):
    """The same of truncated normals."""
    w0, w1, w2, w3 = philox(_u32(block), _u32(col), layer, seed_high, key0, key1)
    z0, z1, z2, z3 = truncated_normal(w0), truncated_normal(w1), truncated_normal(w2), truncated_normal(w3)
    return _f32(scale * z0), _f32(scale * z1), _f32(scale * z2), _f32(scale * z3)


@jit_inline
def scaled_weights(key0, key1, layer, seed_high, law, block, col, scale):
    """The same of the distribution ``law``, for a GPU: loops of the CPU ask which it is once, lest they do not vectorise."""
    if law == UNIFORM:
        return scaled_uniforms(key0, key1, layer, seed_high, block, col, scale)
    if law == TRUNCATED:
        return scaled_truncated_normals(key0, key1, layer, seed_high, block, col, scale)
    return scaled_normals(key0, key1, layer, seed_high, block, col, scale)


def _blocks_of(scaled):
    """A function that fills the flat float32 array ``out`` with blocks of four rows, ``length`` apart, the first at ``at``."""

    @jit_inner
    def fill_blocks(key0, key1, layer, seed_high, block, col0, blocks, columns, scale, out, at, length):
        wide_vectors()
        for b in range(blocks):
            r0 = at + ROWS_PER_BLOCK * b * length
            r1, r2, r3 = r0 + length, r0 + 2 * length, r0 + 3 * length
            row0, row1, row2, row3 = (
                out[r0 : r0 + columns],
                out[r1 : r1 + columns],
                out[r2 : r2 + columns],
                out[r3 : r3 + columns],
            )
            for j in range(columns):
                row0[j], row1[j], row2[j], row3[j] = scaled(key0, key1, layer, seed_high, block + b, col0 + j, scale)

    return fill_blocks


_fill_normals, _fill_uniforms = _blocks_of(scaled_normals), _blocks_of(scaled_uniforms)
_fill_truncated_normals = _blocks_of(scaled_truncated_normals)


@jit_inner
def _fill_pair(key0, key1, layer, seed_high, block, col0, columns, scale, out, at, length):
    """The first two rows of a block of normals, which come from the first two words."""
    wide_vectors()
    row0, row1 = out[at : at + columns], out[at + length : at + length + columns]
    for j in range(columns):
        row0[j], row1[j], _, _ = scaled_normals(key0, key1, layer, seed_high, block, col0 + j, scale)


@jit_inner
def _fill_blocks(key0, key1, layer, seed_high, law, block, col0, rows, columns, scale, out, at, length):
    """Whole blocks for ``rows`` rows; of two normal ones no more than these."""
    blocks = (rows + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK
    if law == NORMAL and rows == 2:
        _fill_pair(key0, key1, layer, seed_high, block, col0, columns, scale, out, at, length)
    elif law == UNIFORM:
        _fill_uniforms(key0, key1, layer, seed_high, block, col0, blocks, columns, scale, out, at, length)
    elif law == TRUNCATED:
        _fill_truncated_normals(key0, key1, layer, seed_high, block, col0, blocks, columns, scale, out, at, length)
    else:
        _fill_normals(key0, key1, layer, seed_high, block, col0, blocks, columns, scale, out, at, length)


@jit_inner
def _copy_rows(source, columns, out, at, length, rows):
    for r in range(rows):
        a, b = source[r * columns : (r + 1) * columns], out[at + r * length : at + r * length + columns]
        for j in range(columns):
            b[j] = a[j]


@compiled_once(
    lambda real: (*[types.uint32] * 4, *[types.intp] * 5, types.float32, real[::1], types.intp, types.intp), jit_allocating
)
def fill_scaled(key0, key1, layer, seed_high, law, row0, col0, rows, cols, scale, out, at, length):
    """Fill part of the flat array ``out`` with float32(scale N), N the numbers of a matrix, rows row0.. and columns col0.. of it.

    ``law`` is their distribution.
    Its ``rows`` rows of ``cols`` numbers lie ``length`` apart, the first one at ``at``. ``row0`` is a multiple of four. The
    values are float32 numbers, whatever type ``out`` has: float64 rows would halve the vectors of the float32 arithmetic, so
    they are made in a float32 buffer that stays in the first-level cache. A number of columns that fills vectors (a
    multiple of 16) is fastest.
    """
    done = 0
    if out.itemsize == 4:  # made in place
        done = 2 if law == NORMAL and rows == 2 else rows // ROWS_PER_BLOCK * ROWS_PER_BLOCK
        if done:
            _fill_blocks(key0, key1, layer, seed_high, law, row0 // ROWS_PER_BLOCK, col0, done, cols, scale, out, at, length)
    if done == rows:
        return
    width = min(cols, _STRETCH)
    blocks = min(max(_STRETCH // width, 1), (rows - done + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK)
    buffer = np.empty(blocks * ROWS_PER_BLOCK * width, np.float32)
    for i in range(done, rows, blocks * ROWS_PER_BLOCK):
        some = min(blocks * ROWS_PER_BLOCK, rows - i)
        for j in range(0, cols, width):
            size = min(width, cols - j)
            _fill_blocks(
                key0, key1, layer, seed_high, law, (row0 + i) // ROWS_PER_BLOCK, col0 + j, some, size, scale, buffer, 0, size
            )
            _copy_rows(buffer, size, out, at + i * length + j, length, some)


@compiled_once(lambda real: (*[types.uint32] * 4, *[types.intp] * 3, types.float32, real[::1]), jit_allocating)
def fill_vector(key0, key1, layer, seed_high, law, index, first, scale, out):
    """Fill ``out`` with float32(scale N), N those of a layer's vector ``index`` from entry ``first`` on, a multiple of four.

    Entry r of vector v stands in row 4 v + r mod 4 and column r div 4.
    """
    longest = ROWS_PER_BLOCK * _STRETCH
    columns = (min((out.size + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK, _STRETCH) + 15) // 16 * 16  # whole vectors
    normals = np.empty(ROWS_PER_BLOCK * columns, np.float32)
    for begin in range(0, out.size, longest):
        col = (first + begin) // ROWS_PER_BLOCK
        row = ROWS_PER_BLOCK * index
        fill_scaled(key0, key1, layer, seed_high, law, row, col, ROWS_PER_BLOCK, columns, scale, normals, 0, columns)
        for r in range(begin, min(begin + longest, out.size)):
            out[r] = normals[r % ROWS_PER_BLOCK * columns + (r - begin) // ROWS_PER_BLOCK]


@jit_inner
def draw_vector(seed, net, code, scale, index, begin, out):
    """Entries of a layer's vector ``index`` of parameters from ``begin`` on, a multiple of four; zero where the scale is."""
    if scale == 0:
        out[:] = 0
    else:
        low, high = seed_words(seed)
        fill_vector(low, net.stream, code, high, net.law, index, begin, _f32(scale), out)


@jit
def fill_normals(key0, key1, layer, seed_high, row0, col0, out):
    """Fill ``out`` (rows, cols) with standard normals: :func:`fill_scaled` at scale 1, for tests and benchmarks."""
    rows, cols = out.shape
    words = _u32(key0), _u32(key1), _u32(layer), _u32(seed_high)
    fill_scaled(words[0], words[1], words[2], words[3], NORMAL, row0, col0, rows, cols, _f32(1), out.reshape(out.size), 0, cols)
