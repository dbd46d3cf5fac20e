"""Where networks are computed: the processor, or GPUs by `numba.cuda`, which nothing imports before it is asked for."""

import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version

from ntksim.engine.arguments import one_of

DEVICES = ("cpu", "cuda", "auto")


class DeviceError(RuntimeError):
    """A device cannot be used; the message says why, and what to do."""


class GpuMemoryError(MemoryError):
    """A GPU's memory does not hold even the smallest batch; the message says what would need less."""


def chosen_device(device: object) -> str:
    """``"cpu"`` or ``"cuda"`` for an argument ``device``; ``"auto"`` is the GPU where one can be used.

    Raises
    ------
    ValueError for an unknown device; DeviceError, with the remedy, where ``"cuda"`` cannot be used.
    """
    one_of("device", device, DEVICES)
    if device == "cpu":
        return "cpu"
    fault = _fault()
    if fault and device == "cuda":
        raise DeviceError(f"device='cuda' cannot be used: {fault}; or use device='cpu' (or 'auto', which would choose it here)")
    return "cpu" if fault else "cuda"


def _fault() -> str | None:
    """What keeps GPUs from being used, and the remedy; None if nothing does."""
    from numba import config

    # The numba.cuda that comes with Numba is deprecated, but its simulator runs everywhere.
    if not config.ENABLE_CUDASIM and importlib.util.find_spec("numba_cuda") is None:
        return "the package numba-cuda is not installed: `make cuda` in a checkout, or pip install numba-cuda[cu13]"
    try:
        from numba import cuda
    except ImportError as error:
        return f"numba.cuda cannot be imported ({error}): `make cuda` in a checkout, or pip install --upgrade numba-cuda[cu13]"
    if "NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS" not in os.environ:
        config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # some launches are small by nature, and would all be warned of
    if not cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        return f"no CUDA GPU is visible{seen}: run where `nvidia-smi` lists one, with a driver for CUDA 13 or newer"
    if not config.ENABLE_CUDASIM:
        driver, toolkit = cuda.cudadrv.driver.get_version(), cuda.runtime.get_version()
        if driver[0] < toolkit[0]:
            return (
                f"the GPU's driver is for CUDA {driver[0]}.{driver[1]}, older than the toolkit beside numba-cuda, which is "
                f"{toolkit[0]}.{toolkit[1]}: update the driver, or pip install numba-cuda[cu{driver[0]}]"
            )
    return None


def device_identity(device: str) -> dict[str, str]:
    """What numbers depend on where ``device`` computes, "cpu" or "cuda": its name, and the libraries that only GPUs need."""
    if device == "cpu":
        return {"device": "cpu"}
    from ntksim.engine.cuda.library import cublas

    library = "not installed"
    if cublas is not None:
        import cupy  # whose package has a name for each version of CUDA

        library = cupy.__version__
    return {"device": device_name(), "numba-cuda": installed_version("numba-cuda"), "cupy": library}


def installed_version(package: str) -> str:
    """The version of a package, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def device_name() -> str:
    """The name of the GPU that is used, or of the first of several."""
    from numba import config, cuda

    if config.ENABLE_CUDASIM:
        return "simulator"
    name = cuda.get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)
