"""Compilation: the cache on disk, and functions that are compiled once and called by their address."""

import os
import subprocess
import sys

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import types

from ntksim.engine.compiled.jit import compiled_once, jit, jit_allocating
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
