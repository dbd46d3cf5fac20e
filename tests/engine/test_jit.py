"""Compilation: the cache on disk, and functions that are compiled once and called by their address."""

import os
import subprocess
import sys
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import prange, types

from ntksim.engine.compiled.by_address import by_address, by_value
from ntksim.engine.compiled.jit import compiled_once, jit, jit_allocating, jit_inline, jit_inner, jit_parallel, wide_vectors
from ntksim.engine.formulas.normals import fill_normals


def test_processes_may_fill_an_empty_cache_together(tmp_path):
    """Two processes, two precisions, one empty cache: each gets its own numbers, then and from a warm one."""
    code = """
import sys, numpy as np
from ntksim.engine.formulas.normals import fill_normals
z = np.empty((6, 20), sys.argv[1])
fill_normals(1, 2, 3, 4, 0, 0, z)
print(z.dtype, repr(float(z.astype(float).sum())))
"""
    z = np.empty((6, 20))
    fill_normals(1, 2, 3, 4, 0, 0, z)
    options = {"env": os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}, "stdout": subprocess.PIPE, "text": True}
    for _ in range(2):
        kinds = ("float32", "float64", "float32")
        runs = [subprocess.Popen([sys.executable, "-c", code, kind], **options) for kind in kinds]
        for kind, run in zip(kinds, runs, strict=True):
            assert run.communicate()[0].split() == [kind, repr(float(z.sum()))]


FEATURES = llvm.get_host_cpu_features()


@pytest.mark.skipif(not FEATURES.get("avx512f"), reason="needs a processor with 512-bit vectors")
def test_shorter_vectors_give_the_same_bits(tmp_path):
    """Draws, products and elementary functions compiled for 256-bit vectors, as on a cluster of mixed processors."""
    code = """
import numpy as np
from ntksim.engine.cpu import product
from ntksim.engine.formulas import blocks
from ntksim.engine.formulas.normals import fill_normals
from ntksim.engine.compiled.jit import jit
@jit
def multiply(b, v, c, rows, terms, points):
    product.multiply(b, 0, 1, terms, v, 0, points, points, c, 0, points, rows, terms, True)
for kind in ("float32", "float64"):
    b, v, c = np.empty((13, 600), kind), np.empty((600, 80), kind), np.empty((13, 80), kind)
    fill_normals(1, 2, 3, 4, 0, 0, b)
    fill_normals(1, 2, 5, 4, 0, 0, v)
    multiply(b.ravel(), v.ravel(), c.ravel(), 13, 600, 80)
    z = c.ravel() / 10
    blocks.block_of(blocks.code_of("gelu")).loop(0.0, z, slope := np.empty_like(z))
    print([float(np.sum(a, dtype=np.longdouble)) for a in (b, v, c, z, slope)], hash((b.tobytes(), c.tobytes(), z.tobytes())))
print(product._BYTES)
"""
    short = ",".join(("+" if has and "avx512" not in name else "-") + name for name, has in FEATURES.items())
    settings = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": short}
    seen, script = [], tmp_path / "bits.py"  # a file, since compiled code is kept beside its source's name
    script.write_text(code)
    for extra in ({}, settings):
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": "0"} | extra
        done = subprocess.run([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True, check=True)
        seen.append(done.stdout.splitlines())
    assert seen[0][:-1] == seen[1][:-1]
    assert [lines[-1] for lines in seen] == ["64", "32"]


@compiled_once(lambda real: (types.intp, real[::1]), jit_allocating)
def _fill_after(count, out):
    """Allocates, so that it can fail."""
    room = np.empty(count, out.dtype)
    room[0] = count
    out[:] = room[0]


@jit
def _call(count, out):
    _fill_after(count, out)


def test_a_function_called_by_its_address_has_a_variant_for_each_precision_and_reports_failure():
    for kind in (np.float32, np.float64):
        out = np.zeros(3, kind)
        _call(7, out)
        assert out.tolist() == [7, 7, 7]
    with pytest.raises(MemoryError):
        _call(2**46, np.zeros(3))  # half a petabyte


class _Memory(NamedTuple):
    values: np.ndarray
    scale: float
    matrix: np.ndarray
    ready: bool


@jit_inner
def _add_scaled(memory, begin, end):
    for i in range(begin, end):
        memory.values[i] += memory.scale * memory.matrix[i, 1] if memory.ready else 0.0


@jit_parallel
def _shared(threads, memory):
    for thread in prange(threads):
        (address,) = by_address((memory,))
        _add_scaled(address, memory.values.size * thread // threads, memory.values.size * (thread + 1) // threads)


@jit
def _add_by_address(memory, threads):
    (address,) = by_address((memory,))
    if threads > 1:
        _shared(threads, *by_value((address,)))
    else:
        _add_scaled(address, 0, address.values.size)
    return address.values


@pytest.mark.parametrize("threads", [1, 2])
def test_a_named_tuple_is_read_and_its_arrays_written_by_its_address(threads):
    matrix = np.arange(20.0).reshape(10, 2)
    memory = _Memory(np.ones(10), 0.5, matrix, True)
    before = sys.getrefcount(memory.values)
    for _ in range(100):
        assert _add_by_address(memory, threads).size == 10
    after = sys.getrefcount(memory.values)
    np.testing.assert_array_equal(memory.values, 1 + 50 * matrix[:, 1])
    assert after == before


@jit_inner
def _wide(out):
    wide_vectors()  # which asks LLVM to keep this a function of its own
    for i in range(out.size):
        out[i] = 2 * out[i]


@jit_inline
def _inlined(out):
    _wide(out)


@jit
def _outer(out):
    _inlined(out)


def test_what_an_inlined_function_calls_is_not_inlined_for_that():
    """Numba hands `forceinline` on to a callee that it compiles on the way, unless the callee says otherwise."""
    out = np.ones(3)
    _outer(out)
    np.testing.assert_array_equal(out, 2)
