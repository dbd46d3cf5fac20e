"""Register blocks against NumPy, and what their bits must not depend on."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from tolerances import ROUND_OFF

from ntksim.engine.compiled.jit import jit
from ntksim.engine.cpu.product import PIECE, multiply, padded_points


@jit
def product(b, b_at, b_term, b_row, v, v_term, points, c, c_row, rows, terms, first):
    multiply(b, b_at, b_term, b_row, v, 0, v_term, points, c, 0, c_row, rows, terms, first)


def arrays(dtype, rows, terms, points, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(terms, rows)).astype(dtype), rng.normal(size=(terms, points)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("wanted", [1, 2, 3, 6, 9, 33, 70, 150])
@pytest.mark.parametrize(("rows", "terms"), [(1, 1), (2, 7), (5, 3), (6, PIECE), (13, PIECE + 1), (23, 2 * PIECE + 5)])
def test_products_at_any_strides(dtype, wanted, rows, terms):
    points = padded_points(wanted, np.dtype(dtype).itemsize)
    b, v = arrays(dtype, rows, terms, points)
    expected = b.T.astype(float) @ v.astype(float)
    size = np.abs(b.T).astype(float) @ np.abs(v).astype(float)
    for flat, b_term, b_row in ((b.ravel(), rows, 1), (b.T.copy().ravel(), 1, terms)):
        c = np.full((rows + 1, points), 7, dtype)
        product(flat, 0, b_term, b_row, v.ravel(), points, points, c.ravel(), points, rows, terms, True)
        assert (np.abs(c[:rows] - expected) <= ROUND_OFF[dtype] * size).all()
        assert (c[rows] == 7).all()  # not a row further
        product(flat, 0, b_term, b_row, v.ravel(), points, points, c.ravel(), points, rows, terms, False)
        assert (np.abs(c[:rows] - 2 * expected) <= 2 * ROUND_OFF[dtype] * size).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_depend_on_the_terms_alone(dtype):
    """An entry is the same whichever rows and points are computed beside it: so no processor's block sizes show."""
    rows, terms, points = 20, PIECE + 100, padded_points(100, np.dtype(dtype).itemsize)
    b, v = arrays(dtype, rows, terms, points)
    whole = np.empty((rows, points), dtype)
    product(b.ravel(), 0, rows, 1, v.ravel(), points, points, whole.ravel(), points, rows, terms, True)
    for row in range(rows):
        alone = np.empty((1, points), dtype)
        product(b.ravel(), row, rows, 1, v.ravel(), points, points, alone.ravel(), points, 1, terms, True)
        assert (alone[0] == whole[row]).all()
    few = padded_points(1, np.dtype(dtype).itemsize)
    part = np.empty((rows, few), dtype)
    product(b.ravel(), 0, rows, 1, v[:, :few].copy().ravel(), few, few, part.ravel(), few, rows, terms, True)
    assert (part == whole[:, :few]).all()
    gram = np.empty((points, points), dtype)
    product(v.ravel(), 0, points, 1, v.ravel(), points, points, gram.ravel(), points, points, terms, True)
    assert (gram == gram.T).all()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="asks for a processor of this kind")
def test_processors_with_short_vectors_multiply_too(tmp_path):
    """Vectors of 16 bytes, as on ARM: two numbers in float64, of which a quarter would be none."""
    code = """
import numpy as np
from ntksim.engine.compiled.jit import jit
from ntksim.engine.cpu import product
@jit
def multiply(b, v, c, points):
    product.multiply(b, 0, 1, 3, v, 0, points, points, c, 0, points, 5, 3, True)
for kind in ("float32", "float64"):
    for wanted in (1, 2, 3, 5, 9, 40):
        points = product.padded_points(wanted, np.dtype(kind).itemsize)
        assert wanted <= points
        b, v = np.arange(15.0, dtype=kind).reshape(5, 3), np.arange(3.0 * points, dtype=kind).reshape(3, points)
        c = np.full((5, points), np.nan, kind)
        multiply(b.ravel(), v.ravel(), c.ravel(), points)
        np.testing.assert_array_equal(c, b @ v)
print(product._BYTES)
"""
    script = tmp_path / "short.py"  # a file, since compiled code is kept beside its source's name
    script.write_text(code)
    settings = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, script], env=os.environ | settings, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "16\n"
