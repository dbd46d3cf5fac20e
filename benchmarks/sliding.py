"""Gradient flows of kinked networks, whose gates slide, case by case: `python benchmarks/sliding.py --widths 32 --seconds 600`.

Every case is trained to t = 20 / lambda_min(K_infinity) at tolerances 1e-3 and 1e-4, and compared with descent at two learning
rates, the second half of the first, extrapolated to 0; "halving" is by how much the two differ. The cheapest cases come first.
All numbers are the largest over 12 times, root mean square over points, in tolerances. Of the kernel at the sixth time those off
the diagonal are compared, relative to ||K_0||, with the mean over 64 steps of descent around it, whose gates chatter.
"""

import argparse
import itertools
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import ntksim
from ntksim.engine.training import flow

DEPTHS, POINTS, WIDTHS, SEEDS = (1, 2, 3), (5, 20, 24, 64, 128, 256), (32, 128, 512, 1024), (0, 1, 2, 3)
ACTIVATIONS, TOLERANCES = ("relu", "leaky_relu", "abs"), (1e-3, 1e-4)
FEATURES = {5: 3, 24: 3}  # 10 of the others
COMPARED = 64  # points, up to which flows are compared with descent
RATE = 0.02  # of descent, in units of 1 / lambda_max
CHATTER = 64  # steps over which descent's kernel is averaged
MIDDLE = 6  # of 12 times, where kernels are compared
HEADER = (
    "depth", "points", "width", "activation", "seed", "tolerance", "status", "passes", "most flips", "outputs", "tests", "kernel",
    "halving", "its tests", "CPU s",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A network on points: normal ones, with normal targets."""

    depth: int
    points: int
    width: int
    activation: str
    seed: int

    @property
    def network(self) -> ntksim.Network:
        sigma_w = 1.0 if self.activation == "abs" else 2**0.5
        return ntksim.Network(self.depth, self.width, self.activation, "ntk", sigma_w, sigma_b=0.1)

    @property
    def cost(self) -> float:
        """What the cases are ordered by: multiply-adds of a step."""
        return self.points * (self.width * 10 + (self.depth - 1) * self.width**2)

    def data(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(self.points)
        d = FEATURES.get(self.points, 10)
        return rng.normal(size=(self.points, d)), rng.normal(size=self.points), rng.normal(size=(8, d))


class Counted(flow._Flow):
    """A flow that counts how often each gate goes through its kink."""

    flips: Counter = Counter()

    def accept(self, step: Any, times: np.ndarray, rows: Any) -> None:
        if step.crossings is not None:
            self.flips.update(map(tuple, step.crossings.ids[~step.crossings.stopped].tolist()))
        super().accept(step, times, rows)


def rms(values: np.ndarray) -> float:
    """The largest over times of the root mean square over points."""
    return float(np.sqrt(np.mean(values**2, axis=1)).max())


def descents(case: Case, times: np.ndarray, rate: float) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Outputs, test outputs, and the mean kernel around the middle of the times, of descent at two rates."""
    x, y, tests = case.data()
    found, middle = [], times[MIDDLE]
    for step in (rate, rate / 2):
        around = middle + step * np.arange(-CHATTER // 2, CHATTER // 2)
        run = ntksim.train(
            case.network, x, y, seeds=[case.seed], times=np.sort(np.concatenate([times, around])), method="gradient_descent",
            learning_rate=step, x_test=tests, keep_kernels=True,
        )  # fmt: skip
        shown = np.searchsorted(run.times, times - 0.1 * step)
        kernels = run.kernels[0, (run.times > around[0] - 0.1 * step) & (run.times < around[-1] + 0.1 * step)]
        found.append((run.outputs[0, shown], run.test_outputs[0, shown], kernels.mean(axis=0)))
    return found


def off_diagonal(kernel: np.ndarray) -> np.ndarray:
    return kernel - np.diag(np.diag(kernel))


def rows(case: Case, with_descent: bool) -> Iterator[tuple[Any, ...]]:
    """A row for each tolerance."""
    x, y, tests = case.data()
    values = np.linalg.eigvalsh(ntksim.infinite_kernel(case.network, x).ntk)
    rate = RATE / values[-1]
    times = rate * np.concatenate([[0], np.round(np.geomspace(1 / values[-1], 20 / values[0], 12) / rate)])
    references = descents(case, times, rate) if with_descent and case.points <= COMPARED else None
    for tolerance in TOLERANCES:
        Counted.flips = Counter()
        begin = time.process_time()
        run = ntksim.train(
            case.network, x, y, seeds=[case.seed], times=times, tolerance=tolerance, x_test=tests, keep_kernels=True
        )
        spent = time.process_time() - begin
        errors: list[float] = []
        if references is not None:
            unit = tolerance * np.sqrt(np.mean((run.outputs[0, 0] - y) ** 2))
            (first, first_tests, _), (second, second_tests, kernel) = references
            errors = [
                rms(run.outputs[0] - 2 * second + first) / unit, rms(run.test_outputs[0] - 2 * second_tests + first_tests) / unit,
                np.linalg.norm(off_diagonal(run.kernels[0, MIDDLE] - kernel)) / np.linalg.norm(run.kernels[0, 0]) / tolerance,
                rms(first - second) / unit, rms(first_tests - second_tests) / unit,
            ]  # fmt: skip
        own = (case.depth, case.points, case.width, case.activation, case.seed)
        flips = max(Counted.flips.values(), default=0)
        numbers = [f"{error:.2g}" for error in errors] or [""] * 5
        yield (*own, f"{tolerance:g}", run.status[0], run.evaluations[0], flips, *numbers, f"{spent:.1f}")


def main() -> None:
    """Run cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = {"depths": DEPTHS, "points": POINTS, "widths": WIDTHS, "activations": ACTIVATIONS, "seeds": SEEDS}
    for name, values in choices.items():
        parser.add_argument(f"--{name}", nargs="+", type=type(values[0]), default=values)
    parser.add_argument("--without-descent", action="store_true", help="whether flows finish, alone")
    parser.add_argument("--seconds", type=float, default=np.inf, help="after which no case begins")
    options = parser.parse_args()
    cases = [Case(*values) for values in itertools.product(*(getattr(options, name) for name in choices))]
    cases.sort(key=lambda case: (case.seed, case.cost))
    flow._Flow = Counted
    begin = time.perf_counter()
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for number, case in enumerate(cases):
        if time.perf_counter() - begin > options.seconds:
            print(f"{len(cases) - number} of {len(cases)} cases were not begun", file=sys.stderr)
            break
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of the step limit, which the table tells
            for row in rows(case, not options.without_descent):
                print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
