"""Minibatches: which points a step takes, and descent on them against the oracle's plain loop."""

import naive
import numpy as np
import pytest
from cases import POINTS, label, oracle_arguments
from scipy import stats
from tolerances import assert_close

import ntksim
from ntksim.engine.training.batches import batches

TARGETS = np.array([1.0, -1.0, 0.5, 0.0, -0.3])
NETWORKS = [ntksim.Network(2, (7, 6), "tanh", "ntk", 1.2, 0.9, 0.3, True), ntksim.Network(1, 9, "relu", "standard", 1.2)]


def order(seed, first, count, points, size):
    return batches(np.uint64(seed), first, count, points, size)


def test_an_epoch_takes_no_point_twice():
    found = order(7, 0, 9, 10, 3)  # three epochs of three batches, in which one point sits out
    for epoch in found.reshape(3, 9):
        assert np.unique(epoch).size == 9
    assert (np.sort(order(7, 0, 5, 10, 2), axis=None) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in found.reshape(3, 9)}) == 3


def test_batches_are_a_function_of_seed_and_step():
    whole = order(2**40 + 3, 0, 50, 11, 3)
    assert (order(2**40 + 3, 17, 20, 11, 3) == whole[17:37]).all()
    assert (order(3, 0, 50, 11, 3) != whole).any()  # the seed's high word enters
    assert (order(2**40 + 4, 0, 50, 11, 3) != whole).any()


def test_shuffles_are_uniform():
    """The 24 orders of 4 points over 12,000 epochs, chi-squared: by chance it would fail for one in 1,000 choices of the seed."""
    found = order(11, 0, 12000, 4, 4) @ [64, 16, 4, 1]
    counts = np.unique(found, return_counts=True)[1]
    assert counts.size == 24
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("network", NETWORKS, ids=label)
@pytest.mark.parametrize(("size", "momentum"), [(1, 0.0), (2, 0.8), (5, 0.0)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_descent_on_batches_follows_the_oracle(network, size, momentum, dtype, tolerance):
    run = ntksim.train(
        network, POINTS, TARGETS, seeds=[4], method="gradient_descent", learning_rate=2e-3, momentum=momentum, steps=40,
        times=[0.0, 0.002, 0.006, 0.08], batch_size=size, keep_kernels=True, dtype=dtype,
    )  # fmt: skip
    history = naive.descent(
        network.activation, *oracle_arguments(network, 3, 4), POINTS, TARGETS, 2e-3, 40, network.sigma_b is not None,
        network.output_bias, momentum, batches=order(4, 0, 40, 5, size),
    )  # fmt: skip
    for t, step in enumerate((0, 1, 3, 40)):
        f, kernel, theta = history[step]
        assert_close(run.outputs[0, t], f, tolerance)
        assert_close(run.kernels[0, t], kernel, tolerance)
        moved = np.linalg.norm(theta - history[0][2]) / np.linalg.norm(history[0][2])
        assert run.parameter_drift[0, t] == pytest.approx(moved, rel=1e-3 if dtype == "float32" else 1e-9)
    assert run.evaluations.tolist() == [44]  # 40 batches, and 4 looks at all points


def test_a_batch_of_all_points_is_full_descent():
    common = {"seeds": [0, 1], "method": "gradient_descent", "steps": 100, "momentum": 0.5, "learning_rate": 0.05}
    full = ntksim.train(NETWORKS[0], POINTS, TARGETS, **common)
    batch = ntksim.train(NETWORKS[0], POINTS, TARGETS, batch_size=5, **common)
    assert_close(batch.outputs, full.outputs, 1e-12)


def test_an_epoch_of_small_steps_is_one_of_full_descent():
    """n / b steps on the batches of an epoch move as far as n / b full ones, but for the square of the learning rate."""
    off = []
    for rate in (1e-4, 1e-5):
        common = {"seeds": [3], "method": "gradient_descent", "learning_rate": rate, "times": [0, 2 * rate]}
        full, batch = (
            ntksim.train(NETWORKS[0], POINTS[:4], TARGETS[:4], **common, **kind).outputs[0, 1] for kind in ({}, {"batch_size": 2})
        )
        off.append(np.abs(full - batch).max())
    assert off[0] < 1e-5
    assert 50 < off[0] / off[1] < 200


def test_batches_do_not_depend_on_the_split_of_seeds(monkeypatch):
    network, common = ntksim.Network(1, 600, "erf"), {"method": "gradient_descent", "steps": 12, "batch_size": 2}
    both = ntksim.train(network, POINTS, TARGETS, seeds=[3, 1, 8], **common)
    alone = ntksim.train(network, POINTS, TARGETS, seeds=[1], **common)  # all threads on one network
    assert (alone.outputs[0] == both.outputs[1]).all()
    monkeypatch.setattr("ntksim.engine.training.descent._INDICES", 6)  # batches chosen three at a time
    assert (ntksim.train(network, POINTS, TARGETS, seeds=[1], **common).outputs == alone.outputs).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_default_learning_rate_suits_the_stiffest_batch(size):
    """Orthogonal points, whose batches have n / b times the full kernel's largest eigenvalue: each is learned, none unlearned."""
    run = ntksim.train(
        ntksim.Network(1, 4096, "erf"), np.eye(6), np.ones(6), seeds=[0], method="gradient_descent", batch_size=size, steps=60
    )
    assert run.loss[0].max() < 1.1 * run.loss[0, 0]
    assert run.loss[0, -1] < 1e-2 * run.loss[0, 0]


def test_divergence_is_a_status():
    with pytest.warns(RuntimeWarning, match="2 / lambda_max"):
        run = ntksim.train(
            ntksim.Network(2, 20, "relu"), POINTS, TARGETS, seeds=[0], method="gradient_descent", learning_rate=100.0, steps=200,
            batch_size=2,
        )  # fmt: skip
    assert run.status == ("diverged",)
    assert np.isnan(run.loss[:, -1]).all()
