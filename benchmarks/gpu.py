"""Check, then time the engine on a GPU: `python benchmarks/gpu.py`. Needs numba-cuda; uses CuPy and JAX if they are installed.

First the results of all methods, and the bits of the parameters, are compared with the CPU; nothing is timed unless they agree.
CuPy provides the peak (products of large square matrices by cuBLAS) and cuRAND's normals, JAX a kernel written by hand. A kernel
counts 4 n m^2 flops per hidden m x m layer. The table names packages that are not installed. `--tiny` tests this script with
small sizes, also in Numba's simulator (NUMBA_ENABLE_CUDASIM=1); its times mean nothing.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numba
import numpy as np
from table import Row, machine, markdown, per_second
from timing import best

import ntksim
from ntksim.engine import devices

# Stand-ins for what the engine needs beside Numba and SciPy: this script also runs without them.
if find_spec("threadpoolctl") is None:  # BLAS may have its threads here
    unlimited = type("ThreadpoolController", (), {"limit": lambda *_, **__: nullcontext()})
    sys.modules["threadpoolctl"] = SimpleNamespace(ThreadpoolController=unlimited)  # type: ignore[assignment]
if find_spec("platformdirs") is None:
    caches = Path.home() / ".cache"
    sys.modules["platformdirs"] = SimpleNamespace(user_cache_path=caches.joinpath)  # type: ignore[assignment]
CPU_THREADS = 2  # threads for this engine's times on the CPU
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # otherwise JAX takes most of the GPU's memory
DTYPES = {"float32": 1e-5, "float64": 1e-12}
RELU = {"sigma_w": 2**0.5}
METHODS = {
    "descent": {"method": "gradient_descent", "steps": 3, "momentum": 0.5},
    "batches": {"method": "gradient_descent", "steps": 3, "batch_size": 2},
    "flow": {"times": [0.0, 0.05], "tolerance": 0.01},
}


def optional(name: str) -> Any:
    """A package, or None if it is not installed."""
    try:
        return __import__(name)
    except ImportError:
        return None


cupy, jax = optional("cupy"), optional("jax")


def points(n: int, d: int = 64) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, d))


class Check:
    """Comparisons of GPU and CPU. Each is printed; ``faults`` lists those that failed."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.faults.append(what)
            print(f"FAILED: {what}", file=sys.stderr, flush=True)

    def agree(self, function: Callable[..., np.ndarray], tolerance: float, what: str) -> np.ndarray:
        """The GPU's result, checked against the CPU's: same precision, difference below ``tolerance`` times the largest entry."""
        print(f"[check] {what}", file=sys.stderr, flush=True)
        found, expected = (function(device=device) for device in ("cuda", "cpu"))
        self.expect(found.dtype == expected.dtype, f"{what}: {found.dtype} on the GPU, {expected.dtype} on the CPU")
        error = np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max()
        self.expect(error <= tolerance, f"{what}: differs by {error:.2g} of the largest entry; allowed is {tolerance:g}")
        return found


def check_all(tiny: bool) -> list[str]:
    """Differences from the CPU, with products by tiles, with cuBLAS for large products, and with cuBLAS for all products."""
    from ntksim.engine.cuda import library as cuda_library

    check, library = Check(), cuda_library.cublas
    ways = {"tiles": (None, cuda_library._LARGE)}
    if library is not None:
        ways |= {"cuBLAS": (library, cuda_library._LARGE), "cuBLAS for all": (library, 1)}
    for way, (chosen, large) in ways.items():
        with patch.object(cuda_library, "cublas", chosen), patch.object(cuda_library, "_LARGE", large):
            for dtype, tolerance in DTYPES.items():
                check_networks(check, tiny, dtype, tolerance, way)
                check_in_law(check, tiny, dtype, tolerance, way)
                check_training(check, tiny, dtype, tolerance, way)
    return check.faults


def check_networks(check: Check, tiny: bool, dtype: str, tolerance: float, way: str = "") -> None:
    from ntksim.engine.cuda import seeds as cuda_seeds

    shapes: list[tuple[tuple[int, ...], int]] = [((9, 9), 2)]
    if not tiny:
        shapes = [((80,) * 4, 2), ((300,) * 3, 64), ((1000,) * 3, 200), ((1500,) * 2, 1), ((600, 9, 700), 3)]
        shapes += [((4096,) * 2, 64), ((100_000,), 16)]
    for widths, n in shapes:
        network, x = ntksim.Network(len(widths), widths, "tanh", sigma_b=0.2, **RELU), points(n, 7)
        what = f"widths {widths} on {n} points, {dtype}, {way}"
        check.expect(has_bits_of_cpu(network, dtype), f"parameters of {what}")
        for function in (ntksim.network_outputs, ntksim.empirical_ntk):
            call = partial(function, network, x, dtype=dtype)
            both = check.agree(partial(call, seeds=[3, 8]), tolerance, f"{function.__name__}, {what}")
            alone = call(seeds=[8], device="cuda")
            check.expect(both[1].tobytes() == alone[0].tobytes(), f"bits of {what} depend on the batch")
        kernel = partial(ntksim.empirical_ntk, network, seeds=[3], dtype=dtype)
        check.agree(partial(kernel, x[:2], x[1:] + 0.5 if n > 1 else x), tolerance, f"two sets of points, {what}")
        with patch.object(cuda_seeds, "_SHARE", 0.0):  # as if the GPU had no free memory: the kernel is computed by panels
            check.agree(partial(kernel, x), tolerance, f"panels, {what}")


def check_in_law(check: Check, tiny: bool, dtype: str, tolerance: float, way: str = "") -> None:
    """Conditional sampling: results differ from the CPU's as Gram matrices do, times the condition of these."""
    for widths, n, outputs in [((20, 20), 1, 1)] if tiny else [((4000, 3000), 40, 1), ((3000,) * 3, 20, 3), ((10**6,), 8, 1)]:
        network, what = ntksim.Network(len(widths), widths, "tanh", sigma_b=0.2, outputs=outputs, **RELU), f"widths {widths}"
        for function in (ntksim.network_outputs, ntksim.empirical_ntk):
            call = partial(function, network, points(n, 50), dtype=dtype, sampling="conditional")
            named = f"{function.__name__} in law, {what} on {n} points, {dtype}, {way}"
            both = check.agree(partial(call, seeds=[3, 8]), 100 * tolerance, named)
            alone = call(seeds=[8], device="cuda")
            check.expect(both[1].tobytes() == alone[0].tobytes(), f"bits of {named} depend on the batch")


def has_bits_of_cpu(network: ntksim.Network, dtype: str) -> bool:
    """Whether GPU and CPU draw the same bits for a seed's parameters."""
    from numba import cuda

    from ntksim.engine.cpu import draws
    from ntksim.engine.cpu.compiled_network import compiled_network
    from ntksim.engine.cuda import passes as cuda_passes
    from ntksim.engine.layout import parameter_offsets, stored_weights

    net = compiled_network(network, 7)
    theta = cuda_passes.zeros((1, int(parameter_offsets(net)[-1])), dtype)
    cuda_passes.draw_parameters(net, cuda.to_device(np.array([3], np.uint64)), theta, 1)
    expected = np.empty(theta.shape[1], dtype)
    draws.draw_into(np.uint64(3), net, stored_weights(net, expected))
    return theta.copy_to_host().tobytes() == expected.tobytes()


def check_training(check: Check, tiny: bool, dtype: str, tolerance: float, way: str = "") -> None:
    shapes = [(2, 5, 3, 1)] if tiny else [(1, 9, 3, 1), (1, 9, 3, 3), (3, 500, 40, 1), (3, 500, 40, 3)]
    for depth, width, n, outputs in shapes:
        network, x = ntksim.Network(depth, width, "tanh", outputs=outputs), points(n, 5)
        what, y = f"{depth} x {width}, {outputs} outputs, {dtype}, {way}", x[:, :outputs] if outputs > 1 else x[:, 0]
        check.agree(partial(ntksim.empirical_ntk, network, x, seeds=[3], dtype=dtype), tolerance, f"kernel of {what}")
        for method, options in METHODS.items():
            arguments = {"seeds": [3], "dtype": dtype, **options}

            def outputs_of(device: str, network: Any = network, x: Any = x, y: Any = y, arguments: Any = arguments) -> np.ndarray:
                return ntksim.train(network, x, y, device=device, **arguments).outputs

            check.agree(outputs_of, 100 * tolerance, f"training by {method}, {what}")


def peak(dtype: str, size: int) -> float:
    """Flops per second of cuBLAS; 0 without CuPy."""
    if cupy is None:
        return 0.0
    try:
        a = cupy.random.standard_normal((size, size)).astype(dtype)
        return 2 * size**3 / best(lambda: (a @ a, cupy.cuda.Device().synchronize()))
    except ImportError:  # CuPy is installed without the CUDA libraries
        return 0.0


def kernels(tiny: bool) -> Iterator[Row]:
    """Initial kernels of networks with three hidden ReLU layers, against JAX on the same GPU and this engine on the CPU."""
    for dtype in DTYPES:
        for n in (2,) if tiny else (64, 256):
            ways = list(product(("one by one", "vmap"), ("threefry2x32", "unsafe_rbg")))  # variants in JAX
            for width in (8,) if tiny else (1024, 2048, 4096, 8192, 16384, 32768):
                count = 2 if tiny else max(1, 2**29 // width**2)  # 4 GB of float32 weights
                call = partial(ntksim.empirical_ntk, ntksim.Network(3, width, **RELU), points(n), dtype=dtype)
                ours = best(partial(call, seeds=range(count), device="cuda"), 1.0) / count
                theirs, remarks = None, "JAX is not installed"
                if jax is not None:
                    seconds, remarks = jax_kernels(dtype, width, points(n), count, ways)
                    if seconds:
                        fastest = min(seconds, key=seconds.__getitem__)
                        theirs, remarks = seconds[fastest], f"JAX {' and '.join(fastest)}"
                        ways = [way for way in ways if way[1] == fastest[1]]  # the faster generator is faster at all widths
                if width <= 8192:
                    remarks += f"; {CPU_THREADS} CPU threads {best(partial(call, seeds=[0]), 0.5, 1):.3g} s"
                what, flops = f"{dtype}, n = {n}, 3 x {width:,}, one of {count} seeds", 2 * 4 * n * width**2
                yield Row("kernels", what, ours, "JAX", theirs, flops, dtype, "60%, 3x", remarks)


def jax_kernels(
    dtype: str, width: int, x: np.ndarray, count: int, ways: Sequence[tuple[str, str]]
) -> tuple[dict[tuple[str, str], float], str]:
    """Seconds per seed of the structured kernel in JAX, draws of weights included, for each variant; and the last failure.

    A variant computes as many seeds as ours, one by one or under vmap, with one of two generators. Variants that fail, usually
    because memory is too small, are left out.
    """
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")  # no TF32
    jnp = jax.numpy

    def kernel(key: Any) -> Any:
        keys, sizes = jax.random.split(key, 4), (x.shape[1], width, width)
        weights = [jax.random.normal(k, (width, m), jnp.float32).astype(dtype) for k, m in zip(keys, sizes, strict=False)]
        a = jax.random.normal(keys[3], (width,), jnp.float32).astype(dtype)
        h, kept = jnp.asarray(x.T, dtype), []
        for w in weights:
            z = (2 / w.shape[1]) ** 0.5 * (w @ h)
            kept.append((h, z > 0, w))
            h = jnp.maximum(z, 0)
        total, delta = h.T @ h / width, width**-0.5 * a[:, None] * kept[-1][1]
        for layer in (2, 1, 0):
            h, gate, w = kept[layer]
            total += (delta.T @ delta) * (2 / len(h)) * (h.T @ h)
            if layer:
                delta = (2 / len(h)) ** 0.5 * (w.T @ delta) * kept[layer - 1][1]
        return total

    seconds: dict[tuple[str, str], float] = {}
    failure, forms = "", {"one by one": jax.jit(kernel), "vmap": jax.jit(jax.vmap(kernel))}
    for form, generator in ways:
        keys, run = jax.random.split(jax.random.key(0, impl=generator), count), forms[form]

        def all_seeds(form: str = form, keys: Any = keys, run: Any = run) -> None:
            jax.block_until_ready(run(keys) if form == "vmap" else [run(key) for key in keys])

        try:
            seconds[form, generator] = best(all_seeds, 0.7) / count
        except Exception as error:  # most likely out of memory, which the row then says
            failure = f"JAX {form}: {str(error).splitlines()[0][:60]}"
    return seconds, failure


def small(tiny: bool) -> Iterator[Row]:
    """Networks of width 80 on 2 points, one per block of the GPU, against two threads of the CPU."""
    for dtype in DTYPES:
        count = 4 if tiny else 1_000_000
        call = partial(ntksim.empirical_ntk, ntksim.Network(4, 8 if tiny else 80, **RELU), points(2, 4), dtype=dtype)
        ours = best(partial(call, seeds=range(count), device="cuda"), least=1) / count
        theirs = best(partial(call, seeds=range(count // 50 or 1)), least=1) / (count // 50 or 1)
        remarks = f"{60e-6 / ours:.3g} million per minute"
        yield Row(
            "small",
            f"{dtype}, networks of width 80 on 2 points",
            ours,
            f"{CPU_THREADS} CPU threads",
            theirs,
            remarks=remarks,
            show=per_second,
        )


def normals(tiny: bool) -> Iterator[Row]:
    """Draws of standard normals written to memory, against cuRAND."""
    from numba import cuda

    from ntksim.engine.cpu.compiled_network import compiled_network
    from ntksim.engine.cuda import passes as cuda_passes

    rows = 8 if tiny else 1 << 14
    seeds, net = cuda.to_device(np.array([1], np.uint64)), compiled_network(ntksim.Network(1, rows), rows)
    for dtype in DTYPES:
        out = cuda_passes.zeros((1, rows * rows), dtype)

        def draw(out: Any = out) -> None:
            whole = cuda_passes.Weights(out, 0, rows, 0, rows, 0, rows)
            cuda_passes.draw_matrix(net, seeds, 1, whole, 1)
            cuda.synchronize()

        theirs = None
        if cupy is not None:
            size = rows * rows
            theirs = best(lambda d=dtype, s=size: (cupy.random.standard_normal(s, d), cupy.cuda.Device().synchronize())) / size
        against = "cuRAND" if cupy else "CuPy is not installed"
        yield Row("normals", f"{dtype}, per number", best(draw) / rows**2, against, theirs)


def registers(tiny: bool) -> Iterator[Row]:
    """Registers of every kernel, as the assembler reports them; needs no GPU."""
    import ptx

    return ptx.register_rows()


SECTIONS = (kernels, small, normals, registers)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = {section.__name__: section for section in SECTIONS}
    parser.add_argument("--only", nargs="+", choices=names, metavar="SECTION", help=f"sections to run: {', '.join(names)}")
    parser.add_argument("--skip-check", action="store_true", help="time without comparing GPU and CPU first")
    parser.add_argument("--only-check", action="store_true", help="compare GPU and CPU, and time nothing")
    parser.add_argument("--tiny", action="store_true", help="test this script with small sizes, whose times mean nothing")
    options = parser.parse_args(arguments)
    chosen = options.only or list(names)
    peaks = dict.fromkeys(DTYPES, 0.0)
    if chosen != ["registers"]:
        devices.chosen_device("cuda")
        print(f"- GPU: {devices.device_name()}", flush=True)
        numba.set_num_threads(min(CPU_THREADS, numba.config.NUMBA_NUM_THREADS))
        if not options.skip_check:
            if faults := check_all(options.tiny):
                print(f"GPU and CPU differ in {len(faults)} cases, so nothing is timed:", *faults, sep="\n", file=sys.stderr)
                return 1
            print("GPU and CPU agree", file=sys.stderr)
        if options.only_check:
            return 0
        peaks = {dtype: peak(dtype, 64 if options.tiny else 8192) for dtype in DTYPES}
    rows = []
    for name in chosen:
        for row in names[name](options.tiny):
            print(f"[{name}] " + "  ".join(cell for cell in row.cells(peaks) if cell), file=sys.stderr, flush=True)
            rows.append(row)
    print(machine(peaks, "cuBLAS's product of two 8192 x 8192 matrices" if any(peaks.values()) else "needs CuPy"))
    print(f"\n{markdown(rows, peaks)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
