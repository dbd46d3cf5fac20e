"""Gradient flow of ReLU networks on a circle, against a jitted descent in JAX: one seed in section `circle`, and the experiment
on the drift of the kernel in section `drift`.

256 of 720 evenly spaced points, targets of seven frequencies with noise, one hidden layer, float64. Descent has the rate 1 on the
mean square (1/n) sum r^2: a step is 2 / n of the flow's time. JAX's steps are timed and extrapolated.
"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from table import Row, duration
from timing import PeerError, best

import ntksim

if TYPE_CHECKING:
    from run import Bench

POINTS, STEPS, SEEDS = 256, 100_000, 5
STEP = 2 / POINTS  # of the flow's time
END = STEPS * STEP
CHECKED = np.array([12, 40, 128, 384, 1280, 3840]) * STEP  # to t = 30
GOALS = {1_024: {1e-2: "60x", 1e-3: "20x"}, 10_000: {1e-2: "150x", 1e-3: "50x"}}
WIDTHS = (100, 512, 1_024, 2_048, 10_000)
LONGEST = 3_000_000  # steps of the last width


def data() -> tuple[np.ndarray, np.ndarray]:
    """Points (256, 2) and targets (256,)."""
    rng = np.random.default_rng(11)
    angles = 2 * np.pi * np.arange(720) / 720
    waves = zip(
        (2, 4, 7, 11, 16, 23, 32), (0.9, 0.7, 0.55, 0.45, 0.35, 0.28, 0.22), (0, np.pi / 2, 1.2, 2, 0.942, 4.5, 5.8), strict=True
    )
    y = sum(a * np.sin(k * angles + phase) for k, a, phase in waves)
    chosen = np.sort(rng.choice(720, POINTS, replace=False))
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return x[chosen], y[chosen] + 0.02 * rng.normal(size=POINTS)


def network(width: int) -> ntksim.Network:
    return ntksim.Network(1, width, "relu", "ntk", 1.0, sigma_b=0.1)


def seconds_of_a_step(bench: "Bench", width: int) -> tuple[float | None, str]:
    """JAX's time of a step of descent, and the variant that was the fastest; None and why if it cannot be timed."""
    x, y = data()
    try:
        peer = bench.peer("float64")
        ways = peer.prepare("shallow_descent", width=width, x=x.tolist(), y=y.tolist(), rate=2 / len(x), steps=200)
        return min(peer.turn() for _ in range(3)), f"JAX: {next(iter(ways))}"
    except PeerError as error:
        return None, f"peer skipped: {error}"


def error_to_30(width: int, tolerance: float, reference: np.ndarray) -> str:
    """The largest root mean square distance of outputs from descent at a tenth of the step, over the initial residual's."""
    x, y = data()
    run = ntksim.train(network(width), x, y, seeds=[0], times=[0.0, *CHECKED], tolerance=tolerance)
    unit = np.sqrt(np.mean((run.outputs[0, 0] - y) ** 2))
    off = np.sqrt(np.mean((run.outputs[0, 1:] - reference) ** 2, axis=1)).max() / unit
    return f"error to t = 30 {off:.2g}"


def circle(bench: "Bench") -> Iterator[Row]:
    """One seed at widths 1,024 and 10,000, two tolerances, to t = 781.25, against JAX's 10^5 steps."""
    x, y = data()
    for width, goals in GOALS.items():
        step, remarks = seconds_of_a_step(bench, width)
        reference = None
        if width < 10_000 or bench.long:
            options: dict[str, Any] = {"method": "gradient_descent", "learning_rate": STEP / 10, "times": CHECKED}
            reference = ntksim.train(network(width), x, y, seeds=[0], **options).outputs[0]
        for tolerance, goal in goals.items():
            start = time.perf_counter()
            run = ntksim.train(network(width), x, y, seeds=[0], times=[0, END], tolerance=tolerance)
            spent = time.perf_counter() - start
            said = [f"{run.status[0]}, {run.evaluations[0]} passes"]
            if reference is not None:
                said.append(error_to_30(width, tolerance, reference))
            said.append(remarks if step is None else f"{remarks}, extrapolated from {duration(step)} a step")
            theirs = None if step is None else step * STEPS
            what = f"float64, width {width:,}, tolerance {tolerance:g}"
            yield Row("circle", what, spent, "JAX's descent", theirs, target=goal, remarks="; ".join(said))
    values = ntksim.empirical_ntk(network(1_024), x, seeds=[0]).mean(axis=0)
    yield Row(
        "circle",
        "  an eigendecomposition of its kernel, in place of which steps take Krylov spaces",
        best(lambda: np.linalg.eigh(values)),
    )


def drift(bench: "Bench") -> Iterator[Row]:
    """Kernels and predictions at 20 log-spaced times, five seeds a width, to 10^5 steps; width 10,000 also to 3 * 10^6."""
    if not bench.long:
        yield Row("drift", "the experiment on the drift of kernels", remarks="takes long: LONG=1")
        return
    x, y = data()
    ours, theirs = 0.0, 0.0
    for width, steps in [(width, STEPS) for width in WIDTHS] + [(WIDTHS[-1], LONGEST)]:
        step, remarks = seconds_of_a_step(bench, width)
        times = np.concatenate([[0], np.geomspace(STEP, steps * STEP, 20)])
        start = time.perf_counter()
        run = ntksim.train(network(width), x, y, seeds=range(SEEDS), times=times, tolerance=1e-2, keep_kernels=True)
        for kernels, outputs in zip(run.kernels, run.outputs, strict=True):
            ntksim.closed_form(kernels[0], outputs[0], y, times)
        spent = time.perf_counter() - start
        ours, theirs = ours + spent, theirs + (np.nan if step is None else step * steps * SEEDS)
        finished, moved = sum(word == "finished" for word in run.status), run.kernel_drift[:, -1].mean()
        said = f"{finished} of {SEEDS} seeds finish, drift {moved:.3g}"
        peer = None if step is None else step * steps * SEEDS
        yield Row("drift", f"width {width:,}, {steps:,} steps", spent, "JAX's descent", peer, remarks=f"{said}; {remarks}")
    whole = None if np.isnan(theirs) else theirs
    yield Row("drift", "the whole experiment", ours, "JAX's descent", whole, target="900 s", remarks="JAX extrapolated")
