"""The rates of the machine at hand (`cost.Rates`): measured once, in seconds, and kept in the user's cache.

Rates depend on processor and cores and on the engine's code, which name the file that they are kept in. They are of
processor time, so that others at work on the machine disturb them little.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ntksim.engine.compiled.folder import cache_folder, source_digest
from ntksim.study.files.provenance import processor
from ntksim.study.plan.cost import NOMINAL, Rates, parameters

_ROUNDS = 3  # the best of so many counts


def known() -> Rates | None:
    """The rates measured here before, or None; a file that holds none counts as missing."""
    try:
        found = json.loads(_file().read_text())
        expected = asdict(NOMINAL)
        return Rates(**found) if _is_alike(found, expected) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _is_alike(found: object, expected: object) -> bool:
    """Whether there are finite positive numbers where there are numbers in ``expected``, and nothing else."""
    if isinstance(expected, dict):
        return (
            isinstance(found, dict) and found.keys() == expected.keys() and all(_is_alike(found[k], expected[k]) for k in found)
        )
    return isinstance(found, (int, float)) and not isinstance(found, bool) and 0 < found < float("inf")


def measured() -> Rates:
    """The rates of this machine: those kept, or measured now."""
    rates = known()
    if rates is None:
        print("measuring this machine, once (seconds; a minute more where the engine is yet to be compiled)", file=sys.stderr)
        rates = _measure()
        with suppress(OSError):  # nowhere to keep them: measured again next time
            path = _file()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(rates)))
    return rates


def _file() -> Path:
    identity = json.dumps([processor(), os.cpu_count(), source_digest()])
    return cache_folder() / f"rates-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.json"


def _best(work: Callable[[], object]) -> float:
    """The fewest seconds of processor time, over all threads; a first run, which loads compiled code, does not count."""
    work()
    times = []
    for _ in range(_ROUNDS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def _measure() -> Rates:
    import numba
    import numpy as np

    from ntksim.engine.blas import one_blas_thread
    from ntksim.engine.finite.empirical import empirical_ntk
    from ntksim.engine.network import Network
    from ntksim.engine.training.train import train

    cores = numba.get_num_threads()
    rng = np.random.default_rng(0)
    points = {n: rng.normal(size=(n, 64)) for n in (8, 64)}

    def kernel_seconds(n: int, dtype: str) -> float:
        """Core seconds of a kernel of three layers of 1,024, a seed on every core."""
        seeds = range(2 * cores)
        return _best(lambda: empirical_ntk(Network(3, 1024), points[n], seeds=seeds, dtype=dtype)) / len(seeds)

    def flops(n: int, width: int, depth: int, passes: float) -> float:
        return passes * n * parameters(64, depth, width) + 4.0 * n * n * width * depth

    draws, speeds, training = {}, {}, {}
    with one_blas_thread():
        for dtype in ("float64", "float32"):
            few, many = kernel_seconds(8, dtype), kernel_seconds(64, dtype)
            speeds[dtype] = (flops(64, 1024, 3, 4) - flops(8, 1024, 3, 4)) / max(many - few, 0.1 * many)
            drawn = 1.5 * parameters(0, 3, 1024)
            draws[dtype] = drawn / max(few - flops(8, 1024, 3, 4) / speeds[dtype], 0.1 * few)

        def pass_seconds(n: int, width: int, seeds: int, dtype: str) -> float:
            """Core seconds of a pass of gradient flow through two layers."""
            spent = []

            def work() -> None:
                x, times = points[n], [0, 0.3 / (n * width)]
                run = train(Network(2, width, "tanh", "notes"), x, x[:, 0], seeds=range(seeds), times=times, dtype=dtype)
                spent.append(run.evaluations.sum())

            return _best(work) / float(spent[-1])

        def eigen_seconds(n: int) -> float:
            matrix = rng.normal(size=(n, n))  # of full rank, as kernels are: LAPACK is quick with many equal eigenvalues
            return _best(lambda: np.linalg.eigh(matrix + matrix.T))

        small, large = eigen_seconds(64), eigen_seconds(512)
        cubic = max(large / 512**2 - small / 64**2, 0.1 * large / 512**2) / (512 - 64)
        square = max(small / 64**2 - 64 * cubic, 0.1 * small / 64**2)
        each = max(pass_seconds(8, 8, 1, "float64"), 1e-5)
        for dtype in ("float64", "float32"):
            spent = pass_seconds(64, 512, cores, dtype)
            training[dtype] = flops(64, 512, 2, 10) / max(spent - each - small, 0.1 * spent)
    return Rates(speeds, training, draws, each, cubic, square, _startup())


def _startup() -> float:
    """Seconds until a process of its own has computed a first kernel."""
    code = (
        "import numpy; from ntksim.engine.network import Network; "
        "from ntksim.study.stages.kernels import empirical_ntk; "
        "empirical_ntk(Network(1, 8), numpy.ones((2, 2)), seeds=[0])"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent if done.returncode == 0 else NOMINAL.startup_seconds
