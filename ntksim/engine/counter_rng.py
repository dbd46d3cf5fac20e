"""Normal random numbers as a pure function of where they stand: (seed, widths, layer, row, column).

Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a 128-bit counter and a 64-bit
key into four random words:

    counter = (row block, column, layer code, high word of the seed),  key = (low word of the seed, hash of the widths)

One block holds four consecutive rows of one column, so a loop over columns is a loop over contiguous memory and
vectorises. Vectors (biases, readouts) are laid out like a matrix of four rows, column by column. Any tile of any
matrix can be made anywhere, in any order, any number of times.

The arithmetic is float32 with correctly rounded operations only (+, x, sqrt, explicit fma), so that every processor,
and a GPU, makes the same bits. A radius comes from 32 random bits: tails reach 6.66 standard deviations.
"""

import math

import numpy as np
from numba import types

from ntksim.engine.jit import bits_of_float, compiled_once, float_of_bits, fma, jit, jit_inline, wide_vectors

_u32, _u64, _f32 = np.uint32, np.uint64, np.float32

ROWS_PER_BLOCK = 4
_STRETCH = 1024  # columns made at a time


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
def _log(x):
    """Natural logarithm of a positive normal float32, within 1 ulp (coefficients: Cephes logf)."""
    # x = 2^e m with m in [sqrt(1/2), sqrt(2)): subtracting the bits of sqrt(1/2) puts the carry in the exponent.
    shifted = np.int32(bits_of_float(x) - np.int32(0x3F3504F3))
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
    y = fma(_f32(p * t), z, _f32(e * _f32(-2.12194440e-4)))
    y = fma(_f32(-0.5), z, y)
    return fma(e, _f32(0.693359375), _f32(t + y))


@jit_inline
def _cos_sin(word):
    """Cosine and sine of 2 pi word / 2^32 (shifted by an eighth of a turn), float32, within 2 ulp (Cephes)."""
    # The two high bits are the quadrant; the others an angle in [-pi/4, pi/4).
    quadrant = _u32(word >> _u32(30))
    x = _f32(_f32(np.int32(_u32(word << _u32(2)))) * _f32(2 * math.pi * 2.0**-34))
    z = _f32(x * x)
    s = fma(_f32(-1.9515295891e-4), z, _f32(8.3321608736e-3))
    s = fma(s, z, _f32(-1.6666654611e-1))
    s = fma(_f32(s * z), x, x)
    c = fma(_f32(2.443315711809948e-5), z, _f32(-1.388731625493765e-3))
    c = fma(c, z, _f32(4.166664568298827e-2))
    c = fma(_f32(c * z), z, fma(_f32(-0.5), z, _f32(1)))
    odd = (quadrant & _u32(1)) != 0
    cosine = s if odd else c
    sine = c if odd else s
    # cos changes sign in quadrants 1 and 2, sin in quadrants 2 and 3
    cosine = -cosine if (quadrant == 1) | (quadrant == 2) else cosine
    sine = -sine if quadrant >= 2 else sine
    return cosine, sine


@jit_inline
def normal_pair(u, v):
    """Two independent standard normals (float32) from two random uint32: Box & Muller, radius from u, angle from v."""
    uniform = fma(_f32(u), _f32(2.0**-32), _f32(2.0**-32))  # (u + 1) / 2^32, in (0, 1]
    radius = _f32(math.sqrt(_f32(_f32(-2) * _log(uniform))))
    cosine, sine = _cos_sin(v)
    return _f32(radius * cosine), _f32(radius * sine)


@jit
def _fill_words(key0, key1, layer, seed_high, block0, col0, words):
    """The four random words of every column of some row blocks: ``words`` (blocks, 4, columns)."""
    wide_vectors()
    for b in range(words.shape[0]):
        for j in range(words.shape[2]):
            words[b, 0, j], words[b, 1, j], words[b, 2, j], words[b, 3, j] = philox(
                _u32(block0 + b), _u32(col0 + j), layer, seed_high, key0, key1
            )


@jit
def _scale_normals(words, count, scale, out, row, col):
    """``count`` rows of ``out`` from ``row`` on, columns from ``col`` on, <- float32(scale N), from the words of them."""
    wide_vectors()
    columns = words.shape[2]
    for r in range(0, count, 2):
        u, v = words[r // 4, r % 4], words[r // 4, r % 4 + 1]
        a, b = out[row + r, col : col + columns], out[row + r + 1, col : col + columns]
        for j in range(columns):
            z0, z1 = normal_pair(u[j], v[j])
            a[j] = _f32(scale * z0)
            b[j] = _f32(scale * z1)


@jit
def _copy(source, count, out, row, col):
    for r in range(count):
        a, b = source[r], out[row + r, col : col + source.shape[1]]
        for j in range(a.size):
            b[j] = a[j]


@compiled_once(lambda real: (*[types.uint32] * 4, types.intp, types.intp, types.float32, real[:, ::1]))
def fill_scaled(key0, key1, layer, seed_high, row0, col0, scale, out):
    """Fill ``out`` (rows, cols) with float32(scale N), N the normals of rows row0.. and columns col0.. of a matrix.

    ``row0`` is a multiple of four. ``scale`` is a float32. The values are float32 numbers, whatever type ``out`` has.

    Loops over buffers that stay in the first-level cache: words, then float32 normals, then a copy where ``out`` cannot take
    them as they come. One loop for all would need more vector registers than there are, and float64 rows would halve
    the vectors of the float32 arithmetic. A number of columns that fills vectors (a multiple of 16) is fastest.
    """
    rows, cols = out.shape
    width = min(cols, _STRETCH)
    blocks = min(max(_STRETCH // width, 1), (rows + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK)
    room_words, room_normals = np.empty(blocks * ROWS_PER_BLOCK * width, np.uint32), np.empty(blocks * ROWS_PER_BLOCK * width, np.float32)
    for i in range(0, rows, blocks * ROWS_PER_BLOCK):
        some = min(blocks * ROWS_PER_BLOCK, rows - i)
        count = (some + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK * ROWS_PER_BLOCK
        direct = out.itemsize == 4 and some == count
        for j in range(0, cols, width):
            size = min(width, cols - j)
            words = room_words[: count * size].reshape(count // ROWS_PER_BLOCK, ROWS_PER_BLOCK, size)
            _fill_words(key0, key1, layer, seed_high, (row0 + i) // ROWS_PER_BLOCK, col0 + j, words)
            if direct:
                _scale_normals(words, count, scale, out, i, j)
            else:
                normals = room_normals[: count * size].reshape(count, size)
                _scale_normals(words, count, scale, normals, 0, 0)
                _copy(normals, some, out, i, j)


@jit
def fill_vector(key0, key1, layer, seed_high, first, scale, out):
    """Fill ``out`` with float32(scale N), N the normals of a vector from entry ``first``, a multiple of four, on.

    Entry r of the vector stands in row r mod 4 and column r div 4.
    """
    stretch = min((out.size + ROWS_PER_BLOCK - 1) // ROWS_PER_BLOCK, _STRETCH)
    normals = np.empty((ROWS_PER_BLOCK, (stretch + 15) // 16 * 16), np.float32)  # whole vectors
    for begin in range(0, out.size, ROWS_PER_BLOCK * _STRETCH):
        fill_scaled(key0, key1, layer, seed_high, 0, (first + begin) // ROWS_PER_BLOCK, scale, normals)
        for r in range(begin, min(begin + ROWS_PER_BLOCK * _STRETCH, out.size)):
            out[r] = normals[r % ROWS_PER_BLOCK, (r - begin) // ROWS_PER_BLOCK]


@jit
def fill_normals(key0, key1, layer, seed_high, row0, col0, out):
    """Fill ``out`` (rows, cols) with standard normals: :func:`fill_scaled` at scale 1."""
    fill_scaled(_u32(key0), _u32(key1), _u32(layer), _u32(seed_high), row0, col0, _f32(1), out)
