"""Tasks that run.py times in fresh processes: `python fresh.py TASK ARGUMENTS` prints one line of JSON."""

import json
import math
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import ntksim


def peak_memory() -> float:
    """Peak memory of this process in bytes.

    On Linux it is read from /proc, since ru_maxrss of a forked child includes memory of its parent.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    unit = 1 if sys.platform == "darwin" else 1024
    return 1024 * int(found[1]) if found else unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def points(n: int, d: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, d))


def one_seed(depth: str, width: str, dtype: str, calls: str = "1", sampling: str = "weights") -> dict[str, float]:
    """Time the initial kernel of one seed on 64 points with 64 features: the best of some calls.

    The kernel of a narrower network is computed first, to load the compiled code.
    """
    x, spent = points(64, 64), []
    warm = ntksim.Network(int(depth), 64 if sampling == "weights" else 1024, sigma_w=2**0.5)  # wide enough to be conditioned
    ntksim.empirical_ntk(warm, x, seeds=[0], dtype=dtype, sampling=sampling)
    network = ntksim.Network(int(depth), int(width), sigma_w=2**0.5)
    for _ in range(int(calls)):
        start = time.perf_counter()
        kernel = ntksim.empirical_ntk(network, x, seeds=[0], dtype=dtype, sampling=sampling)
        spent.append(time.perf_counter() - start)
        if not np.isfinite(kernel).all():
            raise ValueError("the kernel is not finite")
    return {"seconds": min(spent), "memory": peak_memory()}


def trained(width: str, sampling: str) -> dict[str, float]:
    """Train one tanh network of three layers on 16 digits by gradient flow at tolerance 1e-4, to t = 20 / lambda_min.

    One of 1,024 neurons a layer is trained for a moment first, to load the compiled code.
    """
    from ntksim.study.config.dataset import Dataset
    from ntksim.study.data.dataset import load

    data = load(Dataset(name="digits", classes=[4, 9], train=16, test=32))
    x, y = data.x_train, data.y_train
    network = ntksim.Network(3, int(width), "tanh", sigma_w=1.5)
    end = 20 / float(np.linalg.eigvalsh(ntksim.infinite_kernel(network, x).ntk)[0])
    warm = ntksim.Network(3, 1024, "tanh", sigma_w=1.5)
    ntksim.train(warm, x, y, seeds=[0], times=[0, 1e-3 * end], sampling=sampling)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run = ntksim.train(network, x, y, seeds=[0], times=[0, end], tolerance=1e-4, sampling=sampling)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    if run.status != ("finished",):
        raise ValueError(f"training ended with status {run.status[0]}")
    return {
        "seconds": seconds,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "memory": peak_memory(),
        "rank": math.nan if run.rank is None else float(run.rank[0]),
        "passes": float(run.evaluations[0]),
        "drift": float(run.kernel_drift[0, -1]),
    }


def first() -> dict[str, float]:
    """Compute a kernel once, the first of the process: 16 points, three hidden layers of 256."""
    ntksim.empirical_ntk(ntksim.Network(3, 256), points(16, 10), seeds=[0])
    return {}


def everything() -> dict[str, float]:
    """Call everything that is compiled: kernels, outputs, both kinds of training, and limits, in both precisions."""
    x, y = points(4, 3), np.ones(4)
    for dtype in ("float32", "float64"):
        network = ntksim.Network(2, 16, "tanh")
        ntksim.empirical_ntk(network, x, seeds=[0, 1], dtype=dtype)
        ntksim.network_outputs(network, x, seeds=[0, 1], dtype=dtype)
        ntksim.train(network, x, y, seeds=[0, 1], times=[0, 1], dtype=dtype)
        ntksim.train(network, x, y, seeds=[0, 1], method="gradient_descent", steps=2, learning_rate=1e-3, dtype=dtype)
    on_sphere = x / np.linalg.norm(x, axis=1, keepdims=True)
    for activation in ("relu", "tanh"):
        for some in (x, on_sphere):
            ntksim.infinite_kernel(ntksim.Network(2, 1, activation), some)
    return {}


TASKS: dict[str, Callable[..., dict[str, float]]] = {
    "one_seed": one_seed, "trained": trained, "first": first, "everything": everything,
}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](*sys.argv[2:])))
