"""Every CUDA kernel compiled for a compute capability where there is no GPU: as PTX, and as what a GPU would run.

The two are not the same code. By default Numba hands a GPU's kernels to nvJitLink before instructions are chosen (link-time
optimisation), and not as PTX.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from numba import cuda, float32, float64, int64, types, uint32, uint64
from table import Row

from ntksim.engine.cuda import kernels as cuda_kernels
from ntksim.engine.cuda import product

REALS = (float32, float64)
CAPABILITIES = ((8, 0), (9, 0))
_DRAWS = (uint64[::1], uint32, uint32, float32)
_INTEGERS, _DOUBLES = int64[::1], float64[:, ::1]


def signatures(real: Any) -> dict[Any, tuple[Any, ...]]:
    """Every kernel, and the types of its arguments in arithmetic of ``real`` numbers."""
    a = real[:, ::1]
    i, f, flag = int64, float64, types.boolean
    return {
        product.multiply: (a, i, i, i, a, i, i, i, a, *[i] * 7, flag),
        product.add_pieces: (a, i, i, a, i, flag),
        cuda_kernels.draw_matrix: (*_DRAWS, *[i] * 5, a, i),
        cuda_kernels.draw_vector: (*_DRAWS, i, i, a, i),
        cuda_kernels.put_points: (a, _INTEGERS, a, i),
        cuda_kernels.finish_layer: (i, f, f, a, i, a, a, i, i, i),
        cuda_kernels.readout_sensitivity: (f, a, i, i, a, i, a, *[i] * 4),
        cuda_kernels.finish_sensitivity: (f, a, i, a, *[i] * 4),
        cuda_kernels.readout_parts: (f, f, a, *[i] * 3, a, *[i] * 4, _DOUBLES),
        cuda_kernels.add_parts: (a, i, i, _DOUBLES, i),
        cuda_kernels.add_kernel: (f, f, _DOUBLES, _DOUBLES, i, flag, _DOUBLES, i, flag, *[i] * 4),
        cuda_kernels.copy_outputs: (_DOUBLES, a, i, i, i),
        cuda_kernels.copy_kernel: (_DOUBLES, i, a, *[i] * 5, flag, flag),
        cuda_kernels.evaluate_small: (
            uint64[::1], uint32, i, _INTEGERS, _DOUBLES, a, i, i, i, a, a, a, _INTEGERS, a, _INTEGERS, _DOUBLES, a, a, i,
        ),
        cuda_kernels.residuals: (_DOUBLES, float64[::1], _INTEGERS, i, f, i, i, i, a, _INTEGERS),
        cuda_kernels.weigh_sensitivity: (f, f, a, a, i, a, *[i] * 4, a, i),
        cuda_kernels.pull_readout: (f, f, a, a, i, a, *[i] * 7),
        cuda_kernels.subtract_scaled: (a, f, a, f),
        cuda_kernels.fill: (a, i),
        cuda_kernels.square_distance_parts: (a, a, i, i, _DOUBLES),
        cuda_kernels.count_sign_changes: (a, a, _DOUBLES),
        cuda_kernels.take_columns: (a, i, a, i, i),
    }  # fmt: skip


@contextmanager
def _device(capability: tuple[int, int]) -> Iterator[None]:
    """As if there were one: an njit function that a kernel calls asks for the current device."""

    class Device:
        compute_capability = capability

    with (
        patch("numba.cuda.dispatcher.get_current_device", Device),
        patch("numba.cuda.api.get_current_device", Device),
    ):
        yield


def compile_kernel(kernel: Any, real: Any, capability: tuple[int, int]) -> str:
    """PTX of a kernel of :func:`signatures`, for compute ``capability`` such as (9, 0); numba-cuda and no GPU is needed."""
    with _device(capability):
        return cuda.compile_ptx(kernel.py_func, signatures(real)[kernel], cc=capability, device=False)[0]


class Linked(NamedTuple):
    """What nvJitLink makes of a kernel: its PTX, registers of a thread, and bytes that it keeps in memory for want of more."""

    ptx: str
    registers: int
    spilled: int


def link_kernel(kernel: Any, real: Any, capability: tuple[int, int]) -> Linked:
    """The kernel as a GPU of ``capability`` would run it: what a launch has Numba do, without the launch."""
    from numba.cuda.compiler import compile_cuda, kernel_fixup

    options = {"debug": False, "lineinfo": False, "forceinline": False, "fastmath": False, "max_registers": None}
    with _device(capability):
        compiled = compile_cuda(
            kernel.py_func, types.void, signatures(real)[kernel], cc=capability, lto=True,
            nvvm_options={"fastmath": False, "opt": 3}, **options,
        )  # fmt: skip
        library = compiled.library
        library._entry_name = compiled.fndesc.llvm_func_name
        kernel_fixup(library.get_function(library._entry_name), False)
        code = library.get_ltoir(cc=capability)
    text, _ = _link(code, capability, "-ptx")
    _, said = _link(code, capability, "-Xptxas=-v", "-verbose")
    used = re.search(r"Used (\d+) registers", said)
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    if used is None or spilled is None:
        raise RuntimeError(f"the assembler did not say what it used: {said}")
    return Linked(text, int(used[1]), int(spilled[1]) + int(spilled[2]))


def _link(code: bytes, capability: tuple[int, int], *options: str) -> tuple[str, str]:
    """PTX if an option asks for it, and what the linker said."""
    from cuda.bindings import nvjitlink

    major, minor = capability
    options = (f"-arch=sm_{major}{minor}{'a' if major >= 9 else ''}", "-lto", *options)
    handle, text = nvjitlink.create(len(options), list(options)), bytearray()
    try:
        nvjitlink.add_data(handle, nvjitlink.InputType.LTOIR, code, len(code), "kernel")
        nvjitlink.complete(handle)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
        if "-ptx" in options:
            text = bytearray(nvjitlink.get_linked_ptx_size(handle))
            nvjitlink.get_linked_ptx(handle, text)
    finally:
        nvjitlink.destroy(handle)
    return text.decode(errors="replace"), log.decode(errors="replace")


def register_rows() -> Iterator[Row]:
    """Registers of a thread of every kernel, and bytes that it keeps in memory for want of more."""
    for kernels in zip(*(signatures(real) for real in REALS), strict=True):
        linked = [link_kernel(k, real, at) for at in CAPABILITIES for k, real in zip(kernels, REALS, strict=True)]
        (a, b), (c, d) = CAPABILITIES
        used = [one.registers for one in linked]
        remarks = f"float32 / float64 at {a}.{b}: {used[0]} / {used[1]}, at {c}.{d}: {used[2]} / {used[3]}"
        spilled = sum(one.spilled for one in linked)
        yield Row("registers", kernels[0].py_func.__name__, remarks=f"{remarks}; {spilled} bytes spilled")
