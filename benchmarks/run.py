"""Time the engine on this machine: `make bench`. Ratios are taken within the run, since machines are noisy.

Every figure is the best of several runs, warm. "peak" is the GEMM rate of NumPy on 2048 x 2048 products in this process
(all threads); shares count 4 n m^2 flops per hidden m x m layer of a kernel and 6 n m^2 per step of gradient descent.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np

import ntksim
from ntksim.engine.counter_rng import fill_normals
from ntksim.study.provenance import provenance


def best(function: Callable[[], object], seconds: float = 1.5, least: int = 3) -> float:
    """The shortest of several runs, after one that warms up."""
    function()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def peak(dtype: str) -> float:
    """GEMM rate in flops per second."""
    a = np.random.default_rng(0).normal(size=(2048, 2048)).astype(dtype)
    return 2 * 2048**3 / best(lambda: a @ a)


def normals(dtype: str) -> None:
    """One core."""
    out = np.empty((256, 512), dtype)
    words = [np.uint32(k) for k in range(4)]
    ours = best(lambda: fill_normals(*words, 0, 0, out), 0.5) / out.size
    rng = np.random.default_rng(0)
    numpy = best(lambda: rng.standard_normal(out.size, dtype), 0.5) / out.size
    print(f"normals {dtype}: {ours * 1e9:.2f} ns each, NumPy {numpy * 1e9:.2f} ns, {numpy / ours:.1f}x")


def kernels(dtype: str, n: int, top: float) -> None:
    """Initial kernels, three hidden ReLU layers, per seed."""
    x = np.random.default_rng(0).normal(size=(n, 64))
    for width, seeds in ((256, 64), (1024, 16), (4096, 2)):
        network = ntksim.Network(3, width, sigma_w=2**0.5)
        spent = best(partial(ntksim.empirical_ntk, network, x, seeds=range(seeds), dtype=dtype)) / seeds
        share = 2 * 4 * n * width**2 / spent / top
        print(f"kernel {dtype}, n = {n}, width {width}: {spent * 1e3:.2f} ms a seed, {share:.0%} of peak")


def activations(dtype: str) -> None:
    """Width 1024, three hidden layers, against ReLU."""
    x = np.random.default_rng(0).normal(size=(64, 64))
    spent = {}
    for name in ("relu", "tanh", "erf", "gelu", "sin"):
        network = ntksim.Network(3, 1024, name, sigma_w=1.4)
        spent[name] = best(partial(ntksim.empirical_ntk, network, x, seeds=range(8), dtype=dtype))
    print(f"activations {dtype}: " + ", ".join(f"{name} {value / spent['relu']:.2f}x" for name, value in spent.items()))


def training(dtype: str, top: float) -> None:
    """Gradient descent, two hidden layers of 1024, two seeds."""
    x, y = np.random.default_rng(0).normal(size=(64, 64)), np.ones(64)
    network, steps = ntksim.Network(2, 1024), 40
    options = {"method": "gradient_descent", "learning_rate": 1e-3, "times": [1e-3 * steps], "dtype": dtype}
    spent = best(lambda: ntksim.train(network, x, y, seeds=[0, 1], **options)) / steps / 2
    print(f"descent {dtype}: {spent * 1e3:.2f} ms a step and seed, {6 * 64 * 1024**2 / spent / top:.0%} of peak")


def flow() -> None:
    """128 points of a stiff problem, to t = 20 / lambda_min, against gradient descent at 1 / lambda_max."""
    from ntksim.study.config import Dataset
    from ntksim.study.datasets import load

    data = load(Dataset(name="digits", classes=[4, 9], train=128, test=32))
    network = ntksim.Network(2, 1024, "tanh", sigma_w=1.5)
    values = np.linalg.eigvalsh(ntksim.infinite_kernel(network, data.x_train).ntk)
    end, rate = 20 / values[0], 1 / values[-1]
    x, y = data.x_train, data.y_train
    spent = best(lambda: ntksim.train(network, x, y, seeds=[0], times=[0, end]), 3, 2)
    options = {"method": "gradient_descent", "learning_rate": rate, "times": [100 * rate]}
    step = best(lambda: ntksim.train(network, x, y, seeds=[0], **options), 3, 2) / 100
    print(f"flow to 20 / lambda_min: {spent:.2f} s; descent needs {end / rate:.0f} steps, {step * end / rate:.0f} s: "
          f"{step * end / rate / spent:.0f}x")  # fmt: skip


def limits(points: int) -> None:
    """Infinite-width kernels, depth 3."""
    x = np.random.default_rng(0).normal(size=(points, 64))
    closed = best(lambda: ntksim.infinite_kernel(ntksim.Network(3, 1), x), 0.5, 2)
    print(f"limit, {points} points: ReLU {closed:.2f} s")
    few = x[:64]
    quadrature = best(lambda: ntksim.infinite_kernel(ntksim.Network(3, 1, "tanh"), few), 0.5, 2)
    print(f"limit, 64 points: tanh by quadrature {quadrature:.2f} s")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=4000, help="points of the closed-form limit")
    options = parser.parse_args()
    print(provenance()["device"], {k: v for k, v in provenance()["versions"].items() if k in ("numba", "numpy", "ntksim")})
    for dtype in ("float32", "float64"):
        top = peak(dtype)
        print(f"peak {dtype}: {top / 1e9:.0f} GFLOP/s")
        normals(dtype)
        for n in (64, 256):
            kernels(dtype, n, top)
        activations(dtype)
        training(dtype, top)
    flow()
    limits(options.points)


if __name__ == "__main__":
    main()
