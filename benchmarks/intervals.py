"""Coverage of a study's 95% intervals: this script prints the table of docs/statistics.md.

    .venv/bin/python benchmarks/intervals.py [--draws 10000]

Samples of 5, 8, 16 and 32 seeds are drawn from distributions with known moments, and from networks. For these a few thousand
networks are computed, and samples are drawn from them with replacement; the truth is then the statistic of all of them, or for
initial errors the exact law of one hidden layer. It takes three minutes on two cores.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

import ntksim
from ntksim import measures
from ntksim.engine.infinite.variance import one_hidden_layer_variance
from ntksim.study.config.dataset import Dataset
from ntksim.study.data import dataset
from ntksim.study.statistics.drift_parts import PARTS, gram_matrix, parts
from ntksim.study.statistics.laws import Averaged, average_fit
from ntksim.study.statistics.scaling_laws import fit, sample
from ntksim.study.statistics.seeds import moments

SIZES = (5, 8, 16, 32)
WIDTHS = (64, 128, 256, 512)
ERRORS, CHANGES = 8000, 2000  # numbers of networks: for initial errors, and for changes in training
TEST_POINTS = 32
Draw = Callable[[np.random.Generator, int], np.ndarray]  # draws the values of a number of seeds


class Case(NamedTuple):
    """A row of the table. ``hits`` draws a sample and says for each of its intervals whether it contains the truth."""

    quantity: str
    samples: str
    hits: Callable[[np.random.Generator, int], Iterable[bool]]


def spreads() -> dict[str, tuple[Draw, float, float]]:
    """Distributions by name: a function that draws, the mean, and the mean square."""

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
    """Cases for the mean and the root mean square of values."""

    def hits(quantity: str, truth: float) -> Callable[[np.random.Generator, int], list[bool]]:
        def hit(rng: np.random.Generator, n: int) -> list[bool]:
            found = moments(draw(rng, n))
            return [found[f"{quantity}_low"] <= truth <= found[f"{quantity}_high"]]

        return hit

    yield Case("mean", name, hits("interval", mean))
    yield Case("root mean square", name, hits("root_mean_square", float(np.sqrt(square))))


def of_law(name: str, draws: dict[int, Draw], squares: dict[int, float]) -> Iterator[Case]:
    """Cases for the exponent and the prefactor of a power law in the width, fitted to root mean squares."""
    slope, intercept = np.polyfit(np.log(list(squares)), 0.5 * np.log(list(squares.values())), 1)

    def hits(index: int, truth: float) -> Callable[[np.random.Generator, int], list[bool]]:
        def hit(rng: np.random.Generator, n: int) -> list[bool]:
            interval = fit({width: sample(draw(rng, n)) for width, draw in draws.items()})[2 + index]
            return [interval.low <= truth <= interval.high]

        return hit

    yield Case("exponent", name, hits(0, slope))
    yield Case("prefactor", name, hits(1, intercept))


def of_averages(data_sets: int, scatter: float) -> Iterator[Case]:
    """A case for the exponent of the average over data sets, whose own exponents are -1/2 with a standard deviation ``scatter``.

    A data set has a factor of its own (lognormal, 0.5), a seed one at every width (0.3), and one on each data set (0.1).
    """
    logs = np.log(np.array(WIDTHS)) - np.mean(np.log(WIDTHS))  # symmetric, so that the average's least-squares exponent is -1/2

    def hits(rng: np.random.Generator, n: int) -> list[bool]:
        slopes = -0.5 + scatter * rng.normal(size=data_sets)
        own, of_seeds = 0.5 * rng.normal(size=data_sets), 0.3 * rng.normal(size=(len(logs), 1, n))
        of_both = 0.1 * rng.normal(size=(len(logs), data_sets, n))
        squares = np.exp(2 * ((logs[:, None] * slopes + own)[..., None] + of_seeds + of_both))
        means = squares.mean(axis=-1)
        without = (squares.sum(axis=-1, keepdims=True) - squares) / (n - 1)
        found = average_fit(list(WIDTHS), Averaged(means, without, np.ones(without.shape, bool)), 2)
        assert found is not None
        return [found["interval_low"] <= -0.5 <= found["interval_high"]]

    yield Case("exponent of an average", f"{data_sets} data sets with exponents -0.5 ± {scatter:g}", hits)


def of_parts(name: str, draw: Draw, truths: dict[str, float]) -> Iterator[Case]:
    """Cases for both parts of the kernel drift; ``draw`` returns the Gram matrix of the seeds' changes."""
    for part, truth in truths.items():

        def hits(rng: np.random.Generator, n: int, part: str = part, truth: float = truth) -> list[bool]:
            found = parts(draw(rng, n))[part]
            return [found["interval_low"] <= truth <= found["interval_high"]]

        yield Case(part.replace("_kernel_drift", " part"), name, hits)


def of_shares(name: str, draw: Draw, truth: float) -> Iterator[Case]:
    """A case for the mean accuracy on `TEST_POINTS` points."""

    def hits(rng: np.random.Generator, n: int) -> list[bool]:
        found = moments(draw(rng, n), share=True, step=1 / TEST_POINTS)
        return [found["interval_low"] <= truth <= found["interval_high"]]

    yield Case("accuracy", name, hits)


def made_up_changes(directions: int, ratio: float, sigma: float = 0.0) -> tuple[Draw, dict[str, float]]:
    """Synthetic changes: normal in a number of directions, with a scatter that falls from direction to direction.

    The norm of their mean is ``ratio`` times the root mean square of the scatter. ``sigma`` is that of a lognormal factor on the
    whole change of each seed.
    """
    scatter = 1 / np.arange(1, directions + 1) ** 0.5
    mean = ratio * np.linalg.norm(scatter) * np.eye(directions)[-1]

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        factor = np.exp(sigma * rng.normal(size=(n, 1)) - sigma**2 / 2)
        return gram_matrix((mean + scatter * rng.normal(size=(n, directions))) * factor)

    systematic = float(np.linalg.norm(mean))
    total = np.exp(sigma**2) * (systematic**2 + float(scatter @ scatter))
    return draw, dict(zip(PARTS, (systematic, float(np.sqrt(total - systematic**2))), strict=True))


def points() -> dataset.Data:
    """The digits of the default study."""
    return dataset.load(Dataset(name="digits", classes=[4, 9], train=16, test=TEST_POINTS))


def initial_errors(network: ntksim.Network, x: np.ndarray) -> tuple[Draw, float, float]:
    """Relative errors of many networks' kernels: a function that draws, their mean, and their mean square by the exact law."""
    limit = ntksim.infinite_kernel(network, x).ntk
    errors = measures.relative_frobenius_error(ntksim.empirical_ntk(network, x, seeds=range(ERRORS)), limit)
    square = one_hidden_layer_variance(network, x).sum() / np.sum(limit**2)
    return lambda rng, n: rng.choice(errors, n), float(errors.mean()), float(square)


def changes(network: ntksim.Network, data: dataset.Data) -> tuple[Draw, dict[str, float], np.ndarray]:
    """Changes of many networks, trained to t = 100 / lambda_max: draws of Gram matrices, true parts, and test accuracies."""
    largest = float(np.linalg.eigvalsh(ntksim.infinite_kernel(network, data.x_train).ntk)[-1])
    run = ntksim.train(
        network, data.x_train, data.y_train, seeds=range(CHANGES), times=[0.0, 100 / largest], x_test=data.x_test,
        remove_initial_output=True, keep_kernels=True, tolerance=1e-3,
    )  # fmt: skip
    assert run.kernels is not None
    assert run.test_outputs is not None
    first = run.kernels[:, 0]
    gram = gram_matrix((run.kernels[:, -1] - first) / measures.frobenius_norm(first)[:, None, None])
    # For draws with replacement from these seeds, their mean is the true mean.
    systematic, total = gram.mean(), np.diagonal(gram).mean()

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        chosen = rng.integers(0, len(gram), n)
        return gram[np.ix_(chosen, chosen)]

    truths = dict(zip(PARTS, (float(np.sqrt(systematic)), float(np.sqrt(total - systematic))), strict=True))
    return draw, truths, np.mean((run.test_outputs[:, -1] > 0) == (data.y_test > 0), axis=1)


def cases() -> Iterator[Case]:
    """All rows of the table."""
    for name, (draw, mean, square) in spreads().items():
        yield from of_values(name, draw, mean, square)
        if name in ("normal, 1 ± 0.3", "lognormal, σ = 0.3", "exponential"):
            squares = {width: square / width for width in WIDTHS}
            yield from of_law(name, {m: lambda rng, n, d=draw, m=m: d(rng, n) / np.sqrt(m) for m in WIDTHS}, squares)
    for data_sets, scatter in ((2, 0.1), (3, 0.1), (5, 0.1), (10, 0.1), (5, 0.0)):
        yield from of_averages(data_sets, scatter)
    for directions, ratio in ((16, 2.0), (16, 0.25), (16, 0.0), (1, 0.5)):
        words = f"normal in {directions} direction{'s' if directions > 1 else ''}, systematic / random = {ratio:g}"
        yield from of_parts(words, *made_up_changes(directions, ratio))
    yield from of_parts("the same with a lognormal factor, σ = 0.3, ratio 2", *made_up_changes(16, 2.0, 0.3))
    for mean in (0.3, 1.0, 10.0):

        def accuracy(rng: np.random.Generator, n: int, mean: float = mean) -> np.ndarray:
            return 1 - rng.binomial(TEST_POINTS, mean / TEST_POINTS, n) / TEST_POINTS

        yield from of_shares(f"binomial, {mean:g} of {TEST_POINTS} points wrong", accuracy, 1 - mean / TEST_POINTS)
    data = points()
    for activation, sigma in (("relu", np.sqrt(2)), ("tanh", 1.5)):
        name = f"networks, {activation}"
        found = {m: initial_errors(ntksim.Network(1, m, activation, sigma_w=sigma), data.x_train) for m in WIDTHS}
        yield from of_values(f"{name}, initial errors at width {WIDTHS[0]}", *found[WIDTHS[0]])
        yield from of_values(f"{name}, initial errors at width {WIDTHS[-1]}", *found[WIDTHS[-1]])
        draws, squares = ({m: errors[part] for m, errors in found.items()} for part in (0, 2))
        yield from of_law(f"{name}, initial errors, widths {WIDTHS[0]} to {WIDTHS[-1]}", draws, squares)
        draw, truths, accuracies = changes(ntksim.Network(1, 64, activation, sigma_w=sigma), data)
        yield from of_parts(f"{name}, width 64, trained", draw, truths)
        pick = lambda rng, n, of=accuracies: rng.choice(of, n)  # noqa: E731
        yield from of_shares(f"{name}, width 64, trained", pick, float(accuracies.mean()))


def coverage(case: Case, size: int, draws: int) -> float:
    """The share of ``draws`` samples whose interval contains the truth. Equal calls return equal numbers."""
    rng = np.random.default_rng(size)
    return float(np.mean([hit for _ in range(draws) for hit in case.hits(rng, size)]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=10_000, help="number of samples for each entry of the table")
    draws = parser.parse_args().draws
    print("| interval of | samples | " + " | ".join(f"{size} seeds" for size in SIZES) + " |")
    print("|---|---|" + "---|" * len(SIZES))
    for case in sorted(cases(), key=lambda case: case.quantity):
        found = " | ".join(f"{coverage(case, size, draws):.3f}" for size in SIZES)
        print(f"| {case.quantity} | {case.samples} | {found} |", flush=True)


if __name__ == "__main__":
    main()
