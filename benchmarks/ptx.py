"""Compilation of every CUDA kernel without a GPU: to PTX, and to the code that a GPU would run.

The two differ. By default Numba passes kernels to nvJitLink as LTO-IR, before instructions are selected (link-time optimisation),
and not as PTX.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from numba import cuda, float32, float64, int64, types, uint32, uint64
from table import Row

from ntksim.engine.cuda import descent, product, small, triangular
from ntksim.engine.cuda import kernels as cuda_kernels
from ntksim.engine.formulas.blocks import code_of
from ntksim.engine.network import ACTIVATIONS

REALS = (float32, float64)
CAPABILITIES = ((8, 0), (9, 0))
_DRAWS = (uint64[::1], uint32, uint32, int64, float32)
_INTEGERS, _DOUBLES = int64[::1], float64[:, ::1]


def signatures(real: Any) -> dict[Any, tuple[Any, ...]]:
    """Every kernel, with the types of its arguments for numbers of type ``real``."""
    a = real[:, ::1]
    i, f, flag = int64, float64, types.boolean
    return {
        product.multiply: (a, i, i, i, a, i, i, i, a, *[i] * 7, flag),
        product.add_pieces: (a, i, i, a, i, flag),
        triangular.factorise: (_DOUBLES, i, i, f, _DOUBLES, i),
        triangular.invert: (_DOUBLES, i, i, _DOUBLES),
        triangular.widen: (a, i, _DOUBLES),
        triangular.narrow: (f, _DOUBLES, i, i, a),
        triangular.fill_identity: (a, i, i, i),
        cuda_kernels.draw_matrix: (*_DRAWS, *[i] * 5, a, i),
        cuda_kernels.draw_vector: (*_DRAWS, i, i, i, a, i),
        cuda_kernels.put_points: (a, _INTEGERS, a, i),
        **{cuda_kernels.finish_layer(code_of(name)): (f, f, f, a, i, a, a, i, i, i) for name in ACTIVATIONS},
        cuda_kernels.readout_sensitivity: (f, a, i, i, a, i, a, *[i] * 4),
        cuda_kernels.finish_sensitivity: (f, a, i, a, *[i] * 4),
        cuda_kernels.readout_parts: (f, f, a, *[i] * 3, a, *[i] * 4, _DOUBLES),
        cuda_kernels.add_parts: (a, i, i, _DOUBLES, i, flag),
        cuda_kernels.add_kernel: (f, f, _DOUBLES, _DOUBLES, i, flag, _DOUBLES, i, flag, *[i] * 4),
        cuda_kernels.copy_outputs: (_DOUBLES, a, i, i, i),
        cuda_kernels.copy_kernel: (_DOUBLES, i, a, *[i] * 5, flag, flag),
        small.evaluate_small(code_of("gelu")): (
            uint64[::1], uint32, i, f, _INTEGERS, _DOUBLES, a, i, i, i, a, a, a, _INTEGERS, a, _INTEGERS, _DOUBLES, a, a, i,
        ),
        descent.residuals: (_DOUBLES, float64[::1], _INTEGERS, i, f, i, i, i, a, _INTEGERS),
        descent.weigh_sensitivity: (f, f, a, a, i, a, *[i] * 4, a, i),
        descent.pull_readout: (f, f, a, a, i, a, *[i] * 7),
        descent.subtract_scaled: (a, f, a, f),
        descent.fill: (a, i),
        descent.square_distance_parts: (a, a, i, i, _DOUBLES),
        descent.count_sign_changes: (a, a, f, _DOUBLES),
        descent.take_columns: (a, i, a, i, i),
    }  # fmt: skip


@contextmanager
def _device(capability: tuple[int, int]) -> Iterator[None]:
    """Pretend that a device of this capability is present, since Numba asks for it when a kernel calls an njit function."""

    class Device:
        compute_capability = capability

    with (
        patch("numba.cuda.dispatcher.get_current_device", Device),
        patch("numba.cuda.api.get_current_device", Device),
    ):
        yield


def compile_kernel(kernel: Any, real: Any, capability: tuple[int, int]) -> str:
    """PTX of a kernel in :func:`signatures` for a compute ``capability`` such as (9, 0). It needs numba-cuda, but no GPU."""
    with _device(capability):
        return cuda.compile_ptx(kernel.py_func, signatures(real)[kernel], cc=capability, device=False)[0]


class Linked(NamedTuple):
    """A kernel linked by nvJitLink: its PTX, registers per thread, and bytes of registers that are spilled to memory."""

    ptx: str
    registers: int
    spilled: int


def link_kernel(kernel: Any, real: Any, capability: tuple[int, int]) -> Linked:
    """Compile and link a kernel as Numba does at a launch on a GPU of this ``capability``, without launching it."""
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
    _, log = _link(code, capability, "-Xptxas=-v", "-verbose")
    used = re.search(r"Used (\d+) registers", log)
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    if used is None or spilled is None:
        raise RuntimeError(f"the assembler's log does not contain the numbers of registers and spilled bytes: {log}")
    return Linked(text, int(used[1]), int(spilled[1]) + int(spilled[2]))


def _link(code: bytes, capability: tuple[int, int], *options: str) -> tuple[str, str]:
    """The PTX, if ``options`` ask for it, and the linker's log."""
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
    """A row per kernel: registers per thread, and bytes of registers that are spilled to memory."""
    for kernels in zip(*(signatures(real) for real in REALS), strict=True):
        linked = [link_kernel(k, real, at) for at in CAPABILITIES for k, real in zip(kernels, REALS, strict=True)]
        (a, b), (c, d) = CAPABILITIES
        used = [kernel.registers for kernel in linked]
        remarks = f"float32 / float64 at {a}.{b}: {used[0]} / {used[1]}, at {c}.{d}: {used[2]} / {used[3]}"
        spilled = sum(kernel.spilled for kernel in linked)
        yield Row("registers", kernels[0].py_func.__name__, remarks=f"{remarks}; {spilled} bytes spilled")
