"""Elementary functions over their whole ranges, against references with a 64-bit mantissa."""

import math

import numpy as np
import pytest
from scipy import special

from ntksim.engine.compiled.jit import jit
from ntksim.engine.formulas import elementary
from ntksim.engine.formulas.blocks import block_of, code_of

extended = np.longdouble
pytestmark = pytest.mark.skipif(np.finfo(extended).nmant < 63, reason="needs an 80-bit long double")
RNG = np.random.default_rng(0)
COUNT = 300_000


def each(function, part=None):
    if part is None:

        @jit
        def loop(x, out):
            for i in range(x.size):
                out[i] = function(x[i])

    else:

        @jit
        def loop(x, out):
            for i in range(x.size):
                out[i] = function(x[i])[part]

    def run(x):
        out = np.empty_like(x)
        loop(x, out)
        return out

    return run


def erf_reference(x):
    """Taylor series where it does not cancel, the continued fraction of erfc beyond."""
    root_pi = np.sqrt(extended("3.14159265358979323846264338327950288"))
    size = np.minimum(np.abs(x), 3)
    term, total = size.copy(), size.copy()
    for k in range(1, 120):
        term = -term * size * size / k
        total = total + term / (2 * k + 1)
    large = np.maximum(np.abs(x), 2)
    fraction = np.zeros_like(x)
    for k in range(120, 0, -1):
        fraction = extended(k) / 2 / (large + fraction)
    beyond = 1 - np.exp(-large * large) / root_pi / (large + fraction)
    return np.copysign(np.where(np.abs(x) > 2.2, beyond, 2 / root_pi * total), x)


def sizes(low, high):
    """Both signs, evenly in the logarithm."""
    values = np.exp(RNG.uniform(math.log(low), math.log(high), COUNT))
    return np.concatenate([values, -values])


CASES = {
    "exp": (each(elementary.exp), np.concatenate([RNG.uniform(-708, 709.7, COUNT), sizes(1e-300, 1)]), np.exp, 1),
    "expm1": (each(elementary.expm1), np.concatenate([RNG.uniform(-40, 40, COUNT), sizes(1e-300, 1)]), np.expm1, 2),
    "tanh": (each(elementary.tanh), sizes(1e-300, 40), np.tanh, 2.6),
    "erf": (each(elementary.erf, 0), sizes(1e-300, 40), erf_reference, 2.6),
    "gaussian": (each(elementary.erf, 1), sizes(1e-300, 26.5), lambda x: np.exp(-x * x), 1.6),
    "sine": (each(elementary.sin_cos, 0), np.concatenate([sizes(1e-300, 1e9), RNG.uniform(-50, 50, COUNT)]), np.sin, 1.7),
    "cosine": (each(elementary.sin_cos, 1), np.concatenate([sizes(1e-300, 1e9), RNG.uniform(-50, 50, COUNT)]), np.cos, 1.7),
}


@pytest.mark.parametrize("name", CASES)
def test_error_in_units_of_the_last_place(name):
    function, x, reference, bound = CASES[name]
    expected = reference(x.astype(extended))
    spacing = np.spacing(np.abs(expected).astype(np.float64))
    assert np.abs((function(x) - expected) / spacing).max() < bound


def test_exp_underflows_gradually():
    x = RNG.uniform(-745, -708, 10_000)
    expected = np.exp(x.astype(extended))
    assert np.abs(each(elementary.exp)(x) - expected).max() <= 1.01 * 5e-324 + 1e-16 * np.exp(-708)
    assert each(elementary.exp)(np.array([-746.0, -np.inf, 710.0, np.inf])).tolist() == [0, 0, np.inf, np.inf]


def test_limits_signs_and_nan():
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324])
    for name, limit in (("tanh", 1.0), ("erf", 1.0)):
        found = CASES[name][0](special)
        assert found[:4].tolist() == [0, 0, limit, -limit]
        assert np.signbit(found[1])
        assert np.isnan(found[4])
    assert CASES["tanh"][0](special)[5] == 5e-324
    assert CASES["gaussian"][0](special)[:4].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("name", "value", "derivative"),
    [
        ("tanh", np.tanh, lambda x: 1 / np.cosh(x) ** 2),
        ("erf", special.erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x)),
        ("gelu", lambda x: x * special.ndtr(x), None),
        ("sin", np.sin, np.cos),
    ],
)
def test_float32_is_the_rounded_float64(name, value, derivative):
    """Every 1009th float32 there is (sine: up to 1e9): half a unit in the last place of float32, by the final rounding."""
    bits = np.arange(0, 2**32, 1009, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32)
    x = np.ascontiguousarray(x[np.isfinite(x)])
    if name == "sin":
        x = x[np.abs(x) <= 1e9].copy()
    if name == "gelu":
        x = x[x > -12].copy()  # below, what is left of the tail loses digits to its subtraction from 1
    found, slope = x.copy(), np.empty_like(x)
    block_of(code_of(name)).loop(0.0, found, slope)
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        for got, reference in ((found, value), (slope, derivative)):
            if reference is None:
                continue
            expected = reference(wide)
            unit = np.maximum(np.spacing(np.abs(expected).astype(np.float32)), np.float32(1e-45))
            tail = 3e-16 * np.abs(wide) if name == "gelu" else 1e-15 * (slope is got)  # absolute, where a sum cancels
            assert (np.abs(got - expected) <= 0.5001 * unit + tail).all()


def test_angle_of_a_unit_vector():
    """4.5 ulp; of sines down to the smallest normal numbers, and of cosines as well."""

    @jit
    def loop(sine, cosine, out):
        for i in range(out.size):
            out[i] = elementary.angle(sine[i], cosine[i])

    angles = np.concatenate([sizes(1e-300, 1.5), math.pi / 2 - sizes(1e-15, 1.0)[:COUNT], [0.0, math.pi / 2]]).astype(extended)
    sine, cosine = (f(angles).astype(np.float64) for f in (np.sin, np.cos))
    cosine, found = np.abs(cosine), np.empty(angles.size)
    loop(sine, cosine, found)
    expected = np.arctan2(sine.astype(extended), cosine.astype(extended))
    assert (np.abs(found - expected) <= 4.5 * np.spacing(np.abs(expected).astype(np.float64))).all()
