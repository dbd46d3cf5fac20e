"""PTX of every CUDA kernel for a compute capability, and its registers: made where there is no GPU, to be looked at."""

import re
from typing import Any
from unittest.mock import patch

from numba import cuda, float32, float64, int64, types, uint32, uint64

from ntksim.engine import kernels_cuda

REALS = (float32, float64)
_DRAWS = (uint64[::1], uint32, uint32, float32)
_INTEGERS, _DOUBLES = int64[::1], float64[:, ::1]


def signatures(real: Any) -> dict[str, tuple[Any, ...]]:
    """The types of every kernel's arguments in arithmetic of ``real`` numbers, by its name."""
    a, v = real[:, ::1], real[::1]
    four = (int64,) * 4
    return {
        "multiply": (a, int64, int64, int64, a, int64, int64, int64, a, int64, int64, int64, *four, types.boolean),
        "multiply_drawn": (*_DRAWS, a, int64, a, *four),
        "multiply_drawn_transposed": (*_DRAWS, a, int64, a, *four),
        "draw_matrix": (*_DRAWS, *four, a, int64),
        "draw_vector": (*_DRAWS, int64, a, int64),
        "put_points": (a, _INTEGERS, a, int64),
        "finish_layer": (int64, float64, float64, a, int64, a, a, int64, int64, int64),
        "readout_sensitivity": (float64, a, int64, a, a, *four),
        "finish_sensitivity": (float64, a, a, int64, int64, int64),
        "readout_parts": (float64, a, int64, a, int64, int64, int64, _DOUBLES),
        "add_parts": (a, int64, int64, _DOUBLES, int64, float64, a, int64),
        "add_kernel": (float64, float64, _DOUBLES, _DOUBLES, int64, types.boolean, _DOUBLES, int64),
        "copy_out": (_DOUBLES, a, int64, int64, types.boolean),
        "evaluate_small": (
            uint64[::1], uint32, int64, _INTEGERS, _DOUBLES, a, int64, int64, int64, a, a, a, _INTEGERS, a, _INTEGERS, _DOUBLES,
            a, a, int64,
        ),
        "residuals": (_DOUBLES, float64[::1], _INTEGERS, int64, float64, v, _INTEGERS),
        "weigh_sensitivity": (float64, float64, v, a, int64, a, int64, int64, a, int64),
        "pull_readout": (float64, float64, v, a, int64, a, *four),
        "add_scaled": (a, float64, a, float64),
        "clear": (a,),
        "scale": (a, int64, int64, float64),
        "square_distance_parts": (a, a, int64, int64, _DOUBLES),
    }  # fmt: skip


def compile_kernel(name: str, real: Any, capability: tuple[int, int]) -> str:
    """PTX of a kernel of :func:`signatures`, for compute ``capability`` such as (9, 0); numba-cuda and no GPU is needed."""

    class Device:
        compute_capability = capability

    # An njit function that a kernel calls asks for the current device.
    with (
        patch("numba.cuda.dispatcher.get_current_device", Device),
        patch("numba.cuda.api.get_current_device", Device),
    ):
        kernel = getattr(kernels_cuda, name).py_func
        return cuda.compile_ptx(kernel, signatures(real)[name], cc=capability, device=False)[0]


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
