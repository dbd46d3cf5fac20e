"""How often intervals of the kernel's dispersion at initialisation cover the truth: the table of docs/statistics.md#dispersion.

    .venv/bin/python benchmarks/heavy_tails.py [--draws 400]

Networks are drawn anew here, ReLU without biases at the He scale; what 200,000 of them have is taken for the truth.
"""

import argparse
import math

import numpy as np

from ntksim.study.statistics import dispersion

CELLS = ((16, 1), (16, 4), (16, 16))  # width and depth
SEEDS = (16, 100, 1000)
SIGMAS = (0.5, 1.0, math.sqrt(3.5))  # of logarithms


def diagonals(width, depth, networks, rng, batch=2000):
    """K(x, x) (networks, 2) of two orthogonal points in the plane, up to a factor."""
    found = []
    for _ in range(networks // batch):
        hidden, gates, weights = [np.broadcast_to(np.eye(2), (batch, 2, 2))], [], []
        for _ in range(depth):
            fan_in = hidden[-1].shape[1]
            weights.append(rng.normal(size=(batch, width, fan_in)) * math.sqrt(2 / fan_in))
            z = weights[-1] @ hidden[-1]
            gates.append(z > 0)
            hidden.append(np.maximum(z, 0))
        kernel = np.sum(hidden[-1] ** 2, axis=1) / width
        sensitivity = rng.normal(size=(batch, width, 1)) / math.sqrt(width) * gates[-1]
        for layer in reversed(range(depth)):
            own = np.sum(hidden[layer] ** 2, axis=1) * 2 / hidden[layer].shape[1]
            kernel = kernel + np.sum(sensitivity**2, axis=1) * own
            if layer:
                sensitivity = (np.swapaxes(weights[layer], 1, 2) @ sensitivity) * gates[layer - 1]
        found.append(kernel)
    return np.concatenate(found)


def coverage(draw, of, truth, draws):
    """The share of intervals that hold the truth, and that of intervals that end below it."""
    found = [of(draw()) for _ in range(draws)]
    return np.mean([own.low <= truth <= own.high for own in found]), np.mean([own.high < truth for own in found])


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--networks", type=int, default=200_000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"| interval of | samples | {' | '.join(f'{seeds} seeds' for seeds in SEEDS)} |\n|---|---|---|---|---|")
    for width, depth in CELLS:
        every = diagonals(width, depth, options.networks, rng)
        truth = float(np.mean(np.mean(every**2, axis=0) / np.mean(every, axis=0) ** 2))
        shares = [
            coverage(lambda: every[rng.choice(len(every), seeds)], dispersion.dispersion, truth, options.draws)[0]  # noqa: B023
            for seeds in SEEDS
        ]
        name = f"networks, relu, width {width}, depth {depth}: {truth:.3g}"
        print(f"| dispersion | {name} | {' | '.join(f'{share:.3f}' for share in shares)} |", flush=True)
    for sigma in SIGMAS:
        for kind, of, truth in (
            ("dispersion", lambda own: dispersion.dispersion(own[:, None]), math.exp(sigma**2)),
            ("mean", dispersion.mean, math.exp(sigma**2 / 2)),
        ):
            shares = [
                coverage(lambda: np.exp(sigma * rng.normal(size=seeds)), of, truth, options.draws)[0]  # noqa: B023
                for seeds in SEEDS
            ]
            print(f"| {kind} | lognormal, σ = {sigma:.2g}: {truth:.3g} | {' | '.join(f'{s:.3f}' for s in shares)} |", flush=True)


if __name__ == "__main__":
    main()
