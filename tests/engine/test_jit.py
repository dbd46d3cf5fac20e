"""Compilation: the cache on disk, and functions that are compiled once and called by their address."""

import os
import subprocess
import sys

import numpy as np
from numba import types

from ntksim.engine.counter_rng import fill_normals
from ntksim.engine.jit import compiled_once, jit, jit_allocating


def test_processes_may_fill_an_empty_cache_together(tmp_path):
    """Two processes, two precisions, one empty cache: each gets its own numbers, then and from a warm one."""
    code = """
import sys, numpy as np
from ntksim.engine.counter_rng import fill_normals
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
    try:
        _call(2**60, np.zeros(3))
    except (MemoryError, ValueError):
        pass
    else:
        raise AssertionError("an impossible allocation went unnoticed")
