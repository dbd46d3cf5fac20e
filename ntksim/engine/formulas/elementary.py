"""Elementary functions that vectorise: exp, expm1, log1p, the sigmoid, tanh, erf, sine and cosine of a float64, with no call.

A scalar call of the C library in an inner loop costs ten times as much. float32 networks use the same functions: the
argument is widened and the result rounded once, which makes them correct to half a unit in the last place but for ties.
Only +, x, /, sqrt and explicit fma are used, all correctly rounded, so that every processor gives the same bits.

Largest errors measured against 64-bit-mantissa references, in units in the last place (ulp) of a float64:

    exp 1 (x > -708; below, gradual underflow), expm1 2, tanh 2.5, erf 2, e^(-x^2) 1.5, sine and cosine 2 (|x| < 1e9), angle 4.5,
    sigmoid 2.5, log1p 4 (0 <= x <= 1)
"""

import math

import numpy as np

from ntksim.engine.compiled.jit import bits_of_float, float_of_bits, fma, jit_inline

_LOG2_E = 1 / math.log(2)
# ln 2 and pi/2 in parts: the products of the leading part with small integers are exact under fma
_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42fefa39efp-1"), float.fromhex("0x1.abc9e3b39803fp-56")
_HALF_PI_HIGH, _HALF_PI_MIDDLE = float.fromhex("0x1.921fb54442d18p+0"), float.fromhex("0x1.1a62633145c07p-54")
_HALF_PI_LOW = float.fromhex("-0x1.f1976b7ed8fbcp-110")
# Adding this rounds to an integer, which then stands in the low bits.
_ROUND = 1.5 * 2.0**52

# Taylor coefficients of (e^r - 1 - r) / r^2 for |r| <= ln(2)/2: what is left out is below 1e-17.
_EXP = tuple(1 / math.factorial(k) for k in range(2, 14))
# of (sin r - r) / r^3 and (cos r - 1 + r^2/2) / r^4 in r^2, for |r| <= pi/4
_SIN = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(1, 9))
_COS = tuple((-1) ** k / math.factorial(2 * k) for k in range(2, 10))
# erf x / x in x^2 for |x| <= 1
_erf = tuple((-1) ** k * 2 / math.sqrt(math.pi) / (math.factorial(k) * (2 * k + 1)) for k in range(19))
# e^(x^2) erfc x in t = (x - 5/2) / (x + 5/2) for 1 <= x <= 6: Chebyshev interpolation, relative error 4e-18
_erfcx = (
    0.2108063640611436,
    -0.3717367339489734,
    0.2517131932174494,
    -0.12503305237882495,
    0.0399225390755696,
    -0.003993701166206419,
    -0.002642365963540494,
    0.0008759154625918533,
    0.00022838036049431778,
    -0.00012887740810537537,
    -3.418199642275705e-05,
    1.861701443908485e-05,
    7.55084615794585e-06,
    -2.31386075623643e-06,
    -1.7954503462228672e-06,
    1.292956880330712e-07,
    3.3424766671139917e-07,
)
# arctan x / x in x^2 for |x| <= tan(pi/8): what is left out is below 1e-18.
_arctan = tuple((-1) ** k / (2 * k + 1) for k in range(22))
_ARCTAN_EVEN, _ARCTAN_ODD = _arctan[::2], _arctan[1::2]
# artanh x / x in x^2 for |x| <= 1/3: what is left out is below 1e-18.
_artanh = tuple(1 / (2 * k + 1) for k in range(18))
_ARTANH_EVEN, _ARTANH_ODD = _artanh[::2], _artanh[1::2]
_ERF_EVEN, _ERF_ODD, _ERFCX_EVEN, _ERFCX_ODD = _erf[::2], _erf[1::2], _erfcx[::2], _erfcx[1::2]


@jit_inline
def _polynomial(coefficients, x):
    """Horner's rule; ``coefficients`` is a tuple, lowest power first. Loops beyond 15 powers would not unroll."""
    total = coefficients[-1]
    for k in range(len(coefficients) - 2, -1, -1):
        total = fma(total, x, coefficients[k])
    return total


@jit_inline
def _long_polynomial(even, odd, x):
    """A polynomial from the tuples of its even and of its odd coefficients."""
    return fma(x, _polynomial(odd, x * x), _polynomial(even, x * x))


@jit_inline
def _power_of_two(k):
    """2^k of an integer-valued float64 between -1022 and 1023."""
    return float_of_bits((np.int64(k) + np.int64(1023)) << np.int64(52))


@jit_inline
def _reduced_exp(x):
    """k and e^r - 1 with x = k ln 2 + r, |r| <= ln(2)/2."""
    k = fma(x, _LOG2_E, _ROUND) - _ROUND
    r = fma(-k, _LN2_LOW, fma(-k, _LN2_HIGH, x))
    return k, fma(r * r, _polynomial(_EXP, r), r)


@jit_inline
def exp(x):
    """e^x of a float64; infinite from 709.8 on, 0 below -745.1."""
    k, p = _reduced_exp(max(min(x, 710.0), -745.5))
    half = math.floor(0.5 * k)  # in two factors: the result may be smaller than the smallest normal number
    return (1 + p) * _power_of_two(half) * _power_of_two(k - half)


@jit_inline
def expm1(x):
    """e^x - 1 of a float64 between -700 and 700, without cancellation near 0."""
    k, p = _reduced_exp(x)
    scale = _power_of_two(k)
    return fma(scale, p, scale - 1)


@jit_inline
def tanh(x):
    """Hyperbolic tangent."""
    size = min(abs(x), 20.0)  # 1 to the last bit from 19.1 on
    t = expm1(-2 * size)
    return math.copysign(-t / (2 + t), x)


@jit_inline
def sigmoid(x):
    """1 / (1 + e^-x) and what it lacks of 1, neither by a difference."""
    t = exp(-abs(x))
    larger, smaller = 1 / (1 + t), t / (1 + t)
    return (larger if x >= 0 else smaller), (smaller if x >= 0 else larger)


@jit_inline
def log1p(x):
    """log(1 + x) for x between 0 and 1."""
    half = x / (2 + x)
    return 2 * half * _long_polynomial(_ARTANH_EVEN, _ARTANH_ODD, half * half)


@jit_inline
def erf(x):
    """The error function, and e^(-x^2), which its derivative needs."""
    size = min(abs(x), 28.0)  # 1 to the last bit from 5.93 on, and e^(-x^2) is 0 from 27.3 on
    square = size * size
    gaussian = exp(-square)
    gaussian -= gaussian * fma(size, size, -square)  # what rounding took from the square
    inner = size * _long_polynomial(_ERF_EVEN, _ERF_ODD, square)
    t = (min(size, 6.0) - 2.5) / (min(size, 6.0) + 2.5)
    outer = 1 - gaussian * _long_polynomial(_ERFCX_EVEN, _ERFCX_ODD, t)
    return math.copysign(inner if size <= 1 else outer, x), gaussian


@jit_inline
def sin_cos(x):
    """Sine and cosine, for |x| up to 1e9; beyond, numbers between -1 and 1 without meaning."""
    shifted = fma(x, 2 / math.pi, _ROUND)
    k = shifted - _ROUND
    r = fma(-k, _HALF_PI_LOW, fma(-k, _HALF_PI_MIDDLE, fma(-k, _HALF_PI_HIGH, x)))
    r = max(min(r, 0.8), -0.8)
    z = r * r
    s = fma(r * z, _polynomial(_SIN, z), r)
    c = fma(z * z, _polynomial(_COS, z), fma(-0.5, z, 1.0))
    quadrant = bits_of_float(shifted) & np.int64(3)
    odd = (quadrant & np.int64(1)) != 0
    sine, cosine = (c if odd else s), (s if odd else c)
    return (-sine if quadrant >= 2 else sine), (-cosine if (quadrant == 1) | (quadrant == 2) else cosine)


@jit_inline
def angle(sine, cosine):
    """The angle of a vector (cosine, sine) of length 1 and cosine at least 0, with the sign of the sine."""
    half = sine / (1 + cosine)  # its tangent, and that of the quarter
    quarter = half / (1 + math.sqrt(fma(half, half, 1.0)))
    return 4 * quarter * _long_polynomial(_ARCTAN_EVEN, _ARCTAN_ODD, quarter * quarter)
