"""What the 95% intervals of a study cover: the table of docs/statistics.md.

    .venv/bin/python benchmarks/intervals.py [--draws 10000]

Samples of 5, 8, 16 and 32 seeds are drawn from distributions whose truth is known, and from networks: of these a few thousand are
computed, whose own statistics are the truth (that of initial errors is the exact law of one hidden layer), and drawn from with
replacement. Three minutes on two cores.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

import ntksim
from ntksim import measures
from ntksim.engine.finite_width import one_hidden_layer_variance
from ntksim.study import datasets
from ntksim.study.dataset_options import Dataset
from ntksim.study.drift_parts import PARTS, gram_matrix, parts
from ntksim.study.scaling_laws import fit, sample
from ntksim.study.seed_statistics import moments

SIZES = (5, 8, 16, 32)
WIDTHS = (64, 128, 256, 512)
ERRORS, CHANGES = 8000, 2000  # networks whose initial errors, and whose changes in training, are drawn from
TEST_POINTS = 32
Draw = Callable[[np.random.Generator, int], np.ndarray]  # the values of so many seeds


class Case(NamedTuple):
    """A row of the table: how often intervals of samples hold the truth."""

    quantity: str
    samples: str
    hits: Callable[[np.random.Generator, int], Iterable[bool]]


def spreads() -> dict[str, tuple[Draw, float, float]]:
    """Distributions by name: how to draw, the mean, and the mean square."""

    def lognormal(sigma: float) -> tuple[Draw, float, float]:
        return lambda rng, n: np.exp(sigma * rng.normal(size=n)), np.exp(sigma**2 / 2), np.exp(2 * sigma**2)

    return {
        "normal, 1 ± 0.3": (lambda rng, n: 1 + 0.3 * rng.normal(size=n), 1.0, 1.09),
        "lognormal, σ = 0.3": lognormal(0.3),
        "lognormal, σ = 0.6": lognormal(0.6),
        "exponential": (lambda rng, n: rng.exponential(size=n), 1.0, 2.0),
        "lognormal, σ = 1": lognormal(1.0),
    }


def of_values(name: str, draw: Draw, mean: float, square: float) -> Iterator[Case]:
    """Mean and root mean square."""

    def hits(quantity: str, truth: float) -> Callable[[np.random.Generator, int], list[bool]]:
        def one(rng: np.random.Generator, n: int) -> list[bool]:
            found = moments(draw(rng, n))
            return [found[f"{quantity}_low"] <= truth <= found[f"{quantity}_high"]]

        return one

    yield Case("mean", name, hits("interval", mean))
    yield Case("root mean square", name, hits("root_mean_square", float(np.sqrt(square))))


def of_law(name: str, draws: dict[int, Draw], squares: dict[int, float]) -> Iterator[Case]:
    """Exponent and prefactor of a power law of the width that the root mean squares obey."""
    slope, intercept = np.polyfit(np.log(list(squares)), 0.5 * np.log(list(squares.values())), 1)

    def hits(which: int, truth: float) -> Callable[[np.random.Generator, int], list[bool]]:
        def one(rng: np.random.Generator, n: int) -> list[bool]:
            own = fit({width: sample(draw(rng, n)) for width, draw in draws.items()})[2 + which]
            return [own.low <= truth <= own.high]

        return one

    yield Case("exponent", name, hits(0, slope))
    yield Case("prefactor", name, hits(1, intercept))


def of_parts(name: str, draw: Draw, truths: dict[str, float]) -> Iterator[Case]:
    """Both parts of the kernel drift, of which ``draw`` gives the Gram matrix of so many seeds."""
    for part, truth in truths.items():

        def hits(rng: np.random.Generator, n: int, part: str = part, truth: float = truth) -> list[bool]:
            found = parts(draw(rng, n))[part]
            return [found["interval_low"] <= truth <= found["interval_high"]]

        yield Case(part.replace("_kernel_drift", " part"), name, hits)


def of_shares(name: str, draw: Draw, truth: float) -> Iterator[Case]:
    """The mean accuracy on `TEST_POINTS` points."""

    def hits(rng: np.random.Generator, n: int) -> list[bool]:
        found = moments(draw(rng, n), share=True, step=1 / TEST_POINTS)
        return [found["interval_low"] <= truth <= found["interval_high"]]

    yield Case("accuracy", name, hits)


def made_up_changes(directions: int, ratio: float, sigma: float = 0.0) -> tuple[Draw, dict[str, float]]:
    """Changes that scatter in so many directions, less in each, about a mean of ``ratio`` times their root mean square.

    ``sigma``: that of a lognormal factor on each seed's whole change.
    """
    scatter = 1 / np.arange(1, directions + 1) ** 0.5
    mean = ratio * np.linalg.norm(scatter) * np.eye(directions)[-1]

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        factor = np.exp(sigma * rng.normal(size=(n, 1)) - sigma**2 / 2)
        return gram_matrix((mean + scatter * rng.normal(size=(n, directions))) * factor)

    systematic = float(np.linalg.norm(mean))
    total = np.exp(sigma**2) * (systematic**2 + float(scatter @ scatter))
    return draw, dict(zip(PARTS, (systematic, float(np.sqrt(total - systematic**2))), strict=True))


def points() -> datasets.Data:
    """Digits of the default study."""
    return datasets.load(Dataset(name="digits", classes=[4, 9], train=16, test=TEST_POINTS))


def initial_errors(network: ntksim.Network, x: np.ndarray) -> tuple[Draw, float, float]:
    """Errors of many networks' kernels to the limit: how to draw, their mean, and the mean square by the exact law."""
    limit = ntksim.infinite_kernel(network, x).ntk
    errors = measures.relative_frobenius_error(ntksim.empirical_ntk(network, x, seeds=range(ERRORS)), limit)
    square = one_hidden_layer_variance(network, x).sum() / np.sum(limit**2)
    return lambda rng, n: rng.choice(errors, n), float(errors.mean()), float(square)


def changes(network: ntksim.Network, data: datasets.Data) -> tuple[Draw, dict[str, float], np.ndarray]:
    """Of many networks trained to t = 100 / lambda_max: draws of Gram matrices, the true parts, and the test accuracies."""
    largest = float(np.linalg.eigvalsh(ntksim.infinite_kernel(network, data.x_train).ntk)[-1])
    run = ntksim.train(
        network, data.x_train, data.y_train, seeds=range(CHANGES), times=[0.0, 100 / largest], x_test=data.x_test,
        remove_initial_output=True, keep_kernels=True, tolerance=1e-3,
    )  # fmt: skip
    assert run.kernels is not None
    assert run.test_outputs is not None
    first = run.kernels[:, 0]
    gram = gram_matrix((run.kernels[:, -1] - first) / measures.frobenius_norm(first)[:, None, None])
    # of draws with replacement from these seeds the mean is theirs
    systematic, total = gram.mean(), np.diagonal(gram).mean()

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        chosen = rng.integers(0, len(gram), n)
        return gram[np.ix_(chosen, chosen)]

    truths = dict(zip(PARTS, (float(np.sqrt(systematic)), float(np.sqrt(total - systematic))), strict=True))
    return draw, truths, np.mean((run.test_outputs[:, -1] > 0) == (data.y_test > 0), axis=1)


def cases() -> Iterator[Case]:
    """All rows."""
    for name, (draw, mean, square) in spreads().items():
        yield from of_values(name, draw, mean, square)
        if name in ("normal, 1 ± 0.3", "lognormal, σ = 0.3", "exponential"):
            squares = {width: square / width for width in WIDTHS}
            yield from of_law(name, {m: lambda rng, n, d=draw, m=m: d(rng, n) / np.sqrt(m) for m in WIDTHS}, squares)
    for directions, ratio in ((16, 2.0), (16, 0.25), (16, 0.0), (1, 0.5)):
        words = f"normal in {directions} direction{'s' if directions > 1 else ''}, systematic / random = {ratio:g}"
        yield from of_parts(words, *made_up_changes(directions, ratio))
    yield from of_parts("the same with a lognormal factor, σ = 0.3, ratio 2", *made_up_changes(16, 2.0, 0.3))
    for mean in (0.3, 1.0, 10.0):

        def told(rng: np.random.Generator, n: int, mean: float = mean) -> np.ndarray:
            return 1 - rng.binomial(TEST_POINTS, mean / TEST_POINTS, n) / TEST_POINTS

        yield from of_shares(f"binomial, {mean:g} of {TEST_POINTS} points wrong", told, 1 - mean / TEST_POINTS)
    data = points()
    for activation, sigma in (("relu", np.sqrt(2)), ("tanh", 1.5)):
        name = f"networks, {activation}"
        found = {m: initial_errors(ntksim.Network(1, m, activation, sigma_w=sigma), data.x_train) for m in WIDTHS}
        yield from of_values(f"{name}, initial errors at width {WIDTHS[0]}", *found[WIDTHS[0]])
        yield from of_values(f"{name}, initial errors at width {WIDTHS[-1]}", *found[WIDTHS[-1]])
        draws, squares = {m: own[0] for m, own in found.items()}, {m: own[2] for m, own in found.items()}
        yield from of_law(f"{name}, initial errors, widths {WIDTHS[0]} to {WIDTHS[-1]}", draws, squares)
        draw, truths, accuracies = changes(ntksim.Network(1, 64, activation, sigma_w=sigma), data)
        yield from of_parts(f"{name}, width 64, trained", draw, truths)
        pick = lambda rng, n, of=accuracies: rng.choice(of, n)  # noqa: E731
        yield from of_shares(f"{name}, width 64, trained", pick, float(accuracies.mean()))


def coverage(case: Case, size: int, draws: int) -> float:
    """The share of ``draws`` samples whose interval holds the truth; equal calls, equal numbers."""
    rng = np.random.default_rng(size)
    return float(np.mean([hit for _ in range(draws) for hit in case.hits(rng, size)]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=10_000, help="samples of every size in every row")
    draws = parser.parse_args().draws
    print("| interval of | samples | " + " | ".join(f"{size} seeds" for size in SIZES) + " |")
    print("|---|---|" + "---|" * len(SIZES))
    for case in sorted(cases(), key=lambda case: case.quantity):
        found = " | ".join(f"{coverage(case, size, draws):.3f}" for size in SIZES)
        print(f"| {case.quantity} | {case.samples} | {found} |", flush=True)


if __name__ == "__main__":
    main()
