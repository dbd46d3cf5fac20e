"""Sections of run.py: gradient descent of one hidden layer on few inputs, alone and beside other work on every core."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numba
import numpy as np
from table import Row
from timing import best

import ntksim

DTYPES = ("float32", "float64")
RATE = 1e-3
STEPS = {1024: 3000, 10_000: 1000}  # of a call: beside them the draws and the two kernels take little


def circle() -> np.ndarray:
    """256 of 720 evenly spaced points."""
    angles = 2 * np.pi * np.sort(np.random.default_rng(11).choice(720, 256, replace=False)) / 720
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def trained(width: int, dtype: str, steps: int, depth: int = 1, seeds: int = 1) -> Callable[[], object]:
    x = circle()
    network = ntksim.Network(depth, width, sigma_w=1.0, sigma_b=0.1)
    options: dict[str, Any] = {"method": "gradient_descent", "learning_rate": RATE, "times": [RATE * steps], "dtype": dtype}
    return partial(ntksim.train, network, x, np.sin(3 * np.arctan2(x[:, 1], x[:, 0])), seeds=range(seeds), **options)


def small_descent(bench: Any) -> Iterator[Row]:
    """A step of full-batch descent on 256 points of the circle, one hidden ReLU layer with biases."""
    for dtype in DTYPES:
        for width, steps in STEPS.items():
            x = circle()
            y = np.sin(3 * np.arctan2(x[:, 1], x[:, 0]))
            task = {"width": width, "x": x.tolist(), "y": y.tolist(), "rate": RATE, "steps": 200_000 // width}
            fields = bench.versus(trained(width, dtype, steps), steps, dtype, "JAX", "shallow_descent", **task)
            yield Row("small_descent", f"{dtype}, a step of width {width:,}", target="5x", **fields)


@contextmanager
def other_work() -> Iterator[None]:
    """A process that never rests for every core."""
    command = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(command) for _ in range(numba.config.NUMBA_NUM_THREADS)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def on_one_thread(call: Callable[[], object]) -> None:
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        call()
    finally:
        numba.set_num_threads(before)


def crowded(bench: Any) -> Iterator[Row]:
    """A step of one network, idle and beside other work; its threads, against one thread. Best times of a few seconds each."""
    for depth, width, steps in ((1, 1024, 3000), (1, 10_000, 300), (2, 512, 300)):
        call = trained(width, "float32", steps, depth)
        what = f"float32, a step of {depth} x {width:,}"
        idle = best(call, 2.0) / steps
        yield Row("crowded", what, idle)
        with other_work():
            shared, alone = best(call, 4.0) / steps, best(partial(on_one_thread, call), 4.0) / steps
        yield Row("crowded", "  with other work on every core, against idle", shared, "idle", idle, target="0.33x")
        yield Row("crowded", "  the same, against one thread", shared, "one thread", alone, target="1x")
    seeds = numba.config.NUMBA_NUM_THREADS
    call = trained(1024, "float32", 3000, seeds=seeds)
    idle = best(call, 2.0) / 3000
    with other_work():
        shared = best(call, 4.0) / 3000
    yield Row("crowded", f"float32, a step of {seeds} seeds of 1 x 1,024 with other work", shared, "idle", idle, target="0.33x")
