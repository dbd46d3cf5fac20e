"""Results as notebooks print them: a few short lines of names, shapes and status, no arrays."""

import numpy as np
import pytest

import ntksim

X = np.random.default_rng(0).normal(size=(6, 3))
Y, X_TEST = X[:, 0].copy(), X[:2] + 1
DESCENT = {"method": "gradient_descent", "learning_rate": 0.01, "times": np.arange(50) / 100}
NETWORK = ntksim.Network(1, 8, "tanh")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ntksim.infinite_kernel(NETWORK, X, X_TEST), "Kernel: nngp (6, 2), ntk (6, 2)"),
        (
            lambda: ntksim.infinite_ensemble(NETWORK, X, Y, [0.5, 2.0], x_test=X_TEST),
            "Ensemble: 2 times from 0.5 to 2\n  times (2,), mean (2, 6), covariance (2, 6, 6), test_mean (2, 2), test_covariance "
            "(2, 2, 2)",
        ),
        (
            lambda: ntksim.infinite_ensemble(NETWORK, X, Y, [0.5]),
            "Ensemble: time 0.5\n  times (1,), mean (1, 6), covariance (1, 6, 6)",
        ),
        (
            lambda: ntksim.KeptKernels(np.arange(3), np.array([0.0, 4.0]), np.full((3, 2, 6, 6), [[[1.0]], [[np.nan]]])),
            "KeptKernels: 3 seeds (0 with the last kernel), 2 times from 0 to 4\n  seeds (3,), times (2,), kernels (3, 2, 6, 6)",
        ),
    ],
)
def test_the_description(make, expected):
    assert repr(make()) == expected


def test_the_description_of_training():
    run = ntksim.train(NETWORK, X, Y, seeds=range(30), x_test=X_TEST, **DESCENT)
    first, second = repr(run).splitlines()
    assert first == "Trajectory: 30 seeds (30 finished), 50 times from 0 to 0.49"
    assert "outputs (30, 50, 6)" in second
    assert "[" not in second
    assert len(second) < 700
