"""What all modules of `numba.cuda` stand on: the size of blocks, launches over elements, memory, and the GPUs that there are."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numba import config, cuda

from ntksim.engine.compiled.code_cache import number_at_random
from ntksim.engine.compiled.jit import compiling
from ntksim.engine.threads import together

SIMULATED = bool(config.ENABLE_CUDASIM)
THREADS = 4 if SIMULATED else 128  # of a block
_MOST_BLOCKS = 2 if SIMULATED else 1024  # of a network, in launches over elements
GRID_LIMIT = 65535  # blocks in the second and third dimension
_ROW = 64  # numbers: every network's row of an array starts at a multiple of 256 bytes

# Kernels are kept on disk as the processor's code is: to compile those of one precision takes some ten seconds.
if SIMULATED:
    launched, device_function = cuda.jit, cuda.jit(device=True)
else:
    from numba.cuda.core.bytecode import FunctionIdentity  # type: ignore[import-not-found]
    from numba.cuda.dispatcher import CUDACache

    number_at_random(FunctionIdentity)
    launched, device_function = compiling(cuda.jit, CUDACache), compiling(cuda.jit, None, device=True, forceinline=True)
# An index of this type is not looked at for being negative, which would mean counting from the end.
unsigned = np.uint64

# In what Numba and CuPy raise; the last is what cuBLAS says where it finds no room to begin.
_OUT_OF_MEMORY = "OUT_OF_MEMORY", "ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED"


class OutOfMemory(Exception):
    """The GPU's memory does not hold what was asked for; smaller batches may fit. The message is what the GPU said, in a line."""

    def __init__(self, error: Exception) -> None:
        super().__init__(" ".join(str(error).split())[:200])


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise OutOfMemory for what Numba and CuPy raise."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory(error) from None
    except Exception as error:
        if any(words in str(error) for words in _OUT_OF_MEMORY):
            raise OutOfMemory(error) from None
        raise


def on_every_gpu(seeds: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(first, step)`` for the seeds first, first + step, ... of each visible GPU, at the same time."""
    gpus = list(cuda.gpus)[:seeds]

    if len(gpus) == 1:
        with gpus[0]:
            work(0, 1)
        return

    def on(number: int) -> None:
        with gpus[number]:
            work(number, len(gpus))

    together(len(gpus), _thread_of, on)


@cache
def _thread_of(gpu: int) -> ThreadPoolExecutor:
    """The thread that launches for a GPU, always the same: CuPy makes cuBLAS's memory anew for every thread."""
    return ThreadPoolExecutor(1, f"gpu-{gpu}")


def allocate(shape: tuple[int, ...], kind: Any) -> Any:
    """An array on the device."""
    return cuda.device_array(shape, kind)


def whole_rows(size: int) -> int:
    """``size`` filled up, so that where a row starts, and with it what a library chooses, is the same for all of a batch."""
    return size + -size % _ROW


def over(size: int, networks: int = 1) -> tuple[tuple[int, int], int]:
    """The launch of a thread for each of ``size`` elements of every network, or of some threads with several."""
    return (blocks(-(-size // THREADS)), networks), THREADS


def blocks(wanted: int) -> int:
    """As many blocks as are wanted, but not more than a network needs to keep a GPU busy."""
    return max(1, min(wanted, _MOST_BLOCKS))
