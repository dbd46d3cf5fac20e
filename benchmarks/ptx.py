"""PTX of every CUDA kernel for a compute capability, and its registers: made where there is no GPU, to be looked at."""

import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from numba import cuda, float32, float64, int64, types, uint32, uint64
from table import Row

from ntksim.engine import kernels_cuda, products_cuda

REALS = (float32, float64)
CAPABILITIES = ((8, 0), (9, 0))
_DRAWS = (uint64[::1], uint32, uint32, float32)
_INTEGERS, _DOUBLES = int64[::1], float64[:, ::1]


def signatures(real: Any) -> dict[Any, tuple[Any, ...]]:
    """Every kernel, and the types of its arguments in arithmetic of ``real`` numbers."""
    a = real[:, ::1]
    i, f, flag = int64, float64, types.boolean
    return {
        products_cuda.multiply: (a, i, i, i, a, i, i, i, a, *[i] * 7, flag),
        products_cuda.add_pieces: (a, i, i, a, i, flag),
        kernels_cuda.draw_matrix: (*_DRAWS, *[i] * 5, a, i),
        kernels_cuda.draw_vector: (*_DRAWS, i, i, a, i),
        kernels_cuda.put_points: (a, _INTEGERS, a, i),
        kernels_cuda.finish_layer: (i, f, f, a, i, a, a, i, i, i),
        kernels_cuda.readout_sensitivity: (f, a, i, i, a, i, a, *[i] * 4),
        kernels_cuda.finish_sensitivity: (f, a, i, a, *[i] * 4),
        kernels_cuda.readout_parts: (f, f, a, *[i] * 3, a, *[i] * 4, _DOUBLES),
        kernels_cuda.add_parts: (a, i, i, _DOUBLES, i),
        kernels_cuda.add_kernel: (f, f, _DOUBLES, _DOUBLES, i, flag, _DOUBLES, i, flag, *[i] * 4),
        kernels_cuda.copy_outputs: (_DOUBLES, a, i, i, i),
        kernels_cuda.copy_kernel: (_DOUBLES, i, a, *[i] * 5, flag, flag),
        kernels_cuda.evaluate_small: (
            uint64[::1], uint32, i, _INTEGERS, _DOUBLES, a, i, i, i, a, a, a, _INTEGERS, a, _INTEGERS, _DOUBLES, a, a, i,
        ),
        kernels_cuda.residuals: (_DOUBLES, float64[::1], _INTEGERS, i, f, i, i, i, a, _INTEGERS),
        kernels_cuda.weigh_sensitivity: (f, f, a, a, i, a, *[i] * 4, a, i),
        kernels_cuda.pull_readout: (f, f, a, a, i, a, *[i] * 7),
        kernels_cuda.add_scaled: (a, f, a, f),
        kernels_cuda.fill: (a, i),
        kernels_cuda.scale: (a, i, i, f),
        kernels_cuda.square_distance_parts: (a, a, i, i, _DOUBLES),
        kernels_cuda.count_sign_changes: (a, a, _DOUBLES),
        kernels_cuda.take_columns: (a, i, a, i, i),
    }  # fmt: skip


def compile_kernel(kernel: Any, real: Any, capability: tuple[int, int]) -> str:
    """PTX of a kernel of :func:`signatures`, for compute ``capability`` such as (9, 0); numba-cuda and no GPU is needed."""

    class Device:
        compute_capability = capability

    # An njit function that a kernel calls asks for the current device.
    with (
        patch("numba.cuda.dispatcher.get_current_device", Device),
        patch("numba.cuda.api.get_current_device", Device),
    ):
        return cuda.compile_ptx(kernel.py_func, signatures(real)[kernel], cc=capability, device=False)[0]


def register_rows() -> Iterator[Row]:
    """Registers of a thread of every kernel, and bytes that it keeps in memory for want of more."""
    for kernels in zip(*(signatures(real) for real in REALS), strict=True):
        used, spilled = [], 0
        for capability in CAPABILITIES:
            for kernel, real in zip(kernels, REALS, strict=True):
                count, lost = registers(compile_kernel(kernel, real, capability), capability)
                used.append(count)
                spilled += lost
        text = "float32 / float64 at {}.{}: {} / {}, at {}.{}: {} / {}"
        (a, b), (c, d) = CAPABILITIES
        remarks = text.format(a, b, *used[:2], c, d, *used[2:])
        yield Row("registers", kernels[0].py_func.__name__, remarks=f"{remarks}; {spilled} bytes spilled")


def registers(ptx: str, capability: tuple[int, int]) -> tuple[int, int]:
    """Registers of a thread, and bytes that are spilled to memory, as the assembler in nvJitLink says."""
    from cuda.bindings import nvjitlink

    options = [f"-arch=sm_{capability[0]}{capability[1]}", "-Xptxas=-v", "-verbose"]
    handle = nvjitlink.create(len(options), options)
    try:
        code = ptx.encode()
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, code, len(code), "kernel")
        nvjitlink.complete(handle)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
    finally:
        nvjitlink.destroy(handle)
    text = log.decode(errors="replace")
    used = re.search(r"Used (\d+) registers", text)
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", text)
    if used is None or spilled is None:
        raise RuntimeError(f"the assembler did not say what it used: {text}")
    return int(used[1]), int(spilled[1]) + int(spilled[2])
