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

from ntksim.engine.jit import bits_of_float, float_of_bits, fma, jit, jit_inline, wide_vectors

_u32, _u64, _f32 = np.uint32, np.uint64, np.float32

ROWS_PER_BLOCK = 4


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
    uniform = _f32(_f32(_f32(u) + _f32(1)) * _f32(2.0**-32))  # in (0, 1]
    radius = _f32(math.sqrt(_f32(_f32(-2) * _log(uniform))))
    cosine, sine = _cos_sin(v)
    return _f32(radius * cosine), _f32(radius * sine)


@jit
def _fill_words(counter, layer, seed_high, key0, key1, col0, w0, w1, w2, w3):
    """The four random words of each column of one row block."""
    for j in range(w0.size):
        w0[j], w1[j], w2[j], w3[j] = philox(counter, _u32(col0 + j), layer, seed_high, key0, key1)


@jit
def _scaled_pairs(u, v, scale, a, b):
    """Two rows of float32(scale N) from two rows of words."""
    wide_vectors()
    for j in range(a.size):
        z0, z1 = normal_pair(u[j], v[j])
        a[j] = _f32(scale * z0)
        b[j] = _f32(scale * z1)


@jit
def fill_scaled(key0, key1, layer, seed_high, row0, col0, scale, out):
    """Fill ``out`` (rows, cols) with float32(scale N), N the normals of rows row0.. and columns col0.. of a matrix.

    ``row0`` is a multiple of four. ``scale`` is a float32. The values are float32 numbers, whatever type ``out`` has.

    Three loops over buffers that stay in the first-level cache: words, float32 normals, and the copy. One loop for all
    would need more vector registers than there are, and float64 rows would halve the vectors of the float32 arithmetic
    (measured per number: 0.7 ns in float32 and 0.75 in float64; in one loop 1.5 and 1.9).
    """
    rows, cols = out.shape
    words = np.empty((ROWS_PER_BLOCK, cols), np.uint32)
    normals = np.empty((ROWS_PER_BLOCK, cols), np.float32)
    for i in range(0, rows, ROWS_PER_BLOCK):
        counter = _u32((row0 + i) // ROWS_PER_BLOCK)
        _fill_words(counter, layer, seed_high, key0, key1, col0, words[0], words[1], words[2], words[3])
        _scaled_pairs(words[0], words[1], scale, normals[0], normals[1])
        _scaled_pairs(words[2], words[3], scale, normals[2], normals[3])
        for r in range(min(ROWS_PER_BLOCK, rows - i)):
            for j in range(cols):
                out[i + r, j] = normals[r, j]


@jit
def fill_vector(key0, key1, layer, seed_high, scale, out):
    """Fill the vector ``out`` with float32(scale N): entry r stands in row r mod 4 and column r div 4."""
    size = out.size
    for block in range((size + 3) // ROWS_PER_BLOCK):
        w0, w1, w2, w3 = philox(_u32(0), _u32(block), layer, seed_high, key0, key1)
        z0, z1 = normal_pair(w0, w1)
        z2, z3 = normal_pair(w2, w3)
        r = ROWS_PER_BLOCK * block
        out[r] = _f32(scale * z0)
        if r + 1 < size:
            out[r + 1] = _f32(scale * z1)
        if r + 2 < size:
            out[r + 2] = _f32(scale * z2)
        if r + 3 < size:
            out[r + 3] = _f32(scale * z3)


@jit
def fill_normals(key0, key1, layer, seed_high, row0, col0, out):
    """Fill ``out`` (rows, cols) with standard normals: :func:`fill_scaled` at scale 1."""
    fill_scaled(_u32(key0), _u32(key1), _u32(layer), _u32(seed_high), row0, col0, _f32(1), out)
