"""Check, then time the engine on a GPU: `python benchmarks/gpu.py`. Needs numba-cuda; CuPy and JAX where they are installed.

First every regime is compared with the CPU, and the parameters' bits; nothing is timed unless they agree. CuPy gives the peak
(its products of large squares by cuBLAS) and cuRAND's normals, JAX a kernel written by hand. Kernels count 4 n m^2 flops per
hidden m x m layer. What is not installed is said in the table. `--tiny` tries the script itself, in Numba's simulator too
(NUMBA_ENABLE_CUDASIM=1): its times mean nothing.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from itertools import product
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numba
import numpy as np
from table import Row, machine, markdown, per_second
from timing import best

import ntksim
from ntksim.engine import devices

if find_spec("threadpoolctl") is None:  # all that the engine needs beside Numba and SciPy; here BLAS may have its threads
    unlimited = type("ThreadpoolController", (), {"limit": lambda *_, **__: nullcontext()})
    sys.modules["threadpoolctl"] = SimpleNamespace(ThreadpoolController=unlimited)  # type: ignore[assignment]
CPU_THREADS = 2  # what this engine's times on the CPU are of
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take most of the memory
DTYPES = {"float32": 1e-5, "float64": 1e-12}
RELU = {"sigma_w": 2**0.5}
METHODS = {
    "descent": {"method": "gradient_descent", "steps": 3, "momentum": 0.5},
    "batches": {"method": "gradient_descent", "steps": 3, "batch_size": 2},
    "flow": {"times": [0.0, 0.05], "tolerance": 0.01},
}


def optional(name: str) -> Any:
    """A package, or None."""
    try:
        return __import__(name)
    except ImportError:
        return None


cupy, jax = optional("cupy"), optional("jax")


def points(n: int, d: int = 64) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, d))


class Check:
    """Comparisons with the CPU, each of them printed; ``faults`` holds what failed."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.faults.append(what)
            print(f"FAILED: {what}", file=sys.stderr, flush=True)

    def agree(self, function: Callable[..., np.ndarray], tolerance: float, what: str) -> np.ndarray:
        """The GPU's result, which is to be the CPU's to ``tolerance`` of the largest entry, and of its precision."""
        print(f"[check] {what}", file=sys.stderr, flush=True)
        found, expected = (function(device=device) for device in ("cuda", "cpu"))
        self.expect(found.dtype == expected.dtype, f"{what}: {found.dtype} of the GPU, {expected.dtype} of the CPU")
        off = np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max()
        self.expect(off <= tolerance, f"{what}: off by {off:.2g} of the largest entry, more than {tolerance:g}")
        return found


def check_all(tiny: bool) -> list[str]:
    """What differs from the CPU: by tiles, with cuBLAS for large products, and with cuBLAS for all, if it is there."""
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
        with patch.object(cuda_seeds, "_SHARE", 0.0):  # as if there were no memory: panels
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
    """Whether a seed's parameters are drawn to the last bit as the CPU draws them."""
    from numba import cuda

    from ntksim.engine.compiled_network import compiled_network
    from ntksim.engine.cpu import passes
    from ntksim.engine.cuda import passes as cuda_passes
    from ntksim.engine.layout import parameter_offsets, stored_weights

    net = compiled_network(network, 7)
    theta = cuda_passes.zeros((1, int(parameter_offsets(net)[-1])), dtype)
    cuda_passes.draw_parameters(net, cuda.to_device(np.array([3], np.uint64)), theta, 1)
    expected = np.empty(theta.shape[1], dtype)
    passes.draw_into(np.uint64(3), net, stored_weights(net, expected))
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
    """Flops a second of cuBLAS, 0 without CuPy."""
    if cupy is None:
        return 0.0
    try:
        a = cupy.random.standard_normal((size, size)).astype(dtype)
        return 2 * size**3 / best(lambda: (a @ a, cupy.cuda.Device().synchronize()))
    except ImportError:  # CuPy without its libraries
        return 0.0


def kernels(tiny: bool) -> Iterator[Row]:
    """Kernels at initialisation of three hidden ReLU layers, against JAX on the same card, and this engine on the CPU."""
    for dtype in DTYPES:
        for n in (2,) if tiny else (64, 256):
            ways = list(product(("one by one", "vmap"), ("threefry2x32", "unsafe_rbg")))  # of JAX
            for width in (8,) if tiny else (1024, 2048, 4096, 8192, 16384, 32768):
                count = 2 if tiny else max(1, 2**29 // width**2)  # 4 GB of float32 weights
                call = partial(ntksim.empirical_ntk, ntksim.Network(3, width, **RELU), points(n), dtype=dtype)
                ours = best(partial(call, seeds=range(count), device="cuda"), 1.0) / count
                theirs, remarks = None, "no JAX"
                if jax is not None:
                    seconds, remarks = jax_kernels(dtype, width, points(n), count, ways)
                    if seconds:
                        fastest = min(seconds, key=seconds.__getitem__)
                        theirs, remarks = seconds[fastest], f"JAX {' and '.join(fastest)}"
                        ways = [way for way in ways if way[1] == fastest[1]]  # the generator that is faster stays so
                if width <= 8192:
                    remarks += f"; {CPU_THREADS} CPU threads {best(partial(call, seeds=[0]), 0.5, 1):.3g} s"
                what, flops = f"{dtype}, n = {n}, 3 x {width:,}, a seed of {count}", 2 * 4 * n * width**2
                yield Row("kernels", what, ours, "JAX", theirs, flops, dtype, "60%, 3x", remarks)


def jax_kernels(
    dtype: str, width: int, x: np.ndarray, count: int, ways: Sequence[tuple[str, str]]
) -> tuple[dict[tuple[str, str], float], str]:
    """Seconds a seed of the structured form in JAX, weights drawn too, by ways that fit; and what kept others from it.

    It has as many seeds as ours, one by one or under vmap, and either generator.
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
        except Exception as error:  # out of memory, most likely: a row that says so is worth more than none
            failure = f"JAX {form}: {str(error).splitlines()[0][:60]}"
    return seconds, failure


def small(tiny: bool) -> Iterator[Row]:
    """Networks of width 80 on 2 points, a block each, against two threads of the CPU."""
    for dtype in DTYPES:
        count = 4 if tiny else 1_000_000
        call = partial(ntksim.empirical_ntk, ntksim.Network(4, 8 if tiny else 80, **RELU), points(2, 4), dtype=dtype)
        ours = best(partial(call, seeds=range(count), device="cuda"), least=1) / count
        theirs = best(partial(call, seeds=range(count // 50 or 1)), least=1) / (count // 50 or 1)
        remarks = f"{60e-6 / ours:.3g} millions a minute"
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
    """Standard normals written to memory, against cuRAND's."""
    from numba import cuda

    from ntksim.engine.compiled_network import compiled_network
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
        yield Row("normals", f"{dtype}, a number", best(draw) / rows**2, "cuRAND" if cupy else "no CuPy", theirs)


def registers(tiny: bool) -> Iterator[Row]:
    """What the assembler says of every kernel, which needs no GPU."""
    import ptx

    return ptx.register_rows()


SECTIONS = (kernels, small, normals, registers)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = {section.__name__: section for section in SECTIONS}
    parser.add_argument("--only", nargs="+", choices=names, metavar="SECTION", help=f"sections to run: {', '.join(names)}")
    parser.add_argument("--skip-check", action="store_true", help="time what was checked before")
    parser.add_argument("--only-check", action="store_true", help="time nothing")
    parser.add_argument("--tiny", action="store_true", help="sizes that try the script and time nothing")
    options = parser.parse_args(arguments)
    chosen = options.only or list(names)
    peaks = dict.fromkeys(DTYPES, 0.0)
    if chosen != ["registers"]:
        devices.chosen_device("cuda")
        print(f"- GPU: {devices.device_name()}", flush=True)
        numba.set_num_threads(min(CPU_THREADS, numba.config.NUMBA_NUM_THREADS))
        if not options.skip_check:
            if faults := check_all(options.tiny):
                print(f"GPU and CPU differ in {len(faults)} cases, and nothing is timed:", *faults, sep="\n", file=sys.stderr)
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
    print(machine(peaks, "cuBLAS's product of two 8192 x 8192 matrices" if any(peaks.values()) else "it needs CuPy"))
    print(f"\n{markdown(rows, peaks)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
