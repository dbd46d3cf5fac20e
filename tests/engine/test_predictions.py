"""Training with a constant kernel against matrix functions and iterations written out, for one output and several."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy.linalg import expm

import ntksim
from ntksim.engine.infinite.decay import StepRule, critical_damping, integral
from tests.tolerances import assert_close

TARGETS = np.array([1.0, -1.0, 0.5, 2.0, 0.0])


def _problem(seed, outputs=()):
    """A kernel of 5 training points, its block with 2 test points, and initial outputs on both."""
    rng = np.random.default_rng(seed)
    k = int(np.prod(outputs))
    factor = rng.normal(size=(5 * k, 5 * k))
    return (
        factor @ factor.T,
        rng.normal(size=(2 * k, 5 * k)) @ factor.T,
        rng.normal(size=(5, *outputs)),
        rng.normal(size=(2, *outputs)),
    )


def test_closed_form_is_the_matrix_exponential():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(5, 5))
    kernel, cross = factor @ factor.T, rng.normal(size=(2, 5)) @ factor.T
    f0, f0_test, times = rng.normal(size=(3, 5)), rng.normal(size=(3, 2)), [0.0, 0.3, 4.0]
    train, test = ntksim.closed_form(kernel, f0, TARGETS, times, cross, f0_test)
    assert train.shape == (3, 3, 5)
    assert test.shape == (3, 3, 2)
    for s in range(3):
        for i, t in enumerate(times):
            decay = expm(-kernel * t)
            assert_close(train[s, i], TARGETS + decay @ (f0[s] - TARGETS), 1e-10)
            gain = np.linalg.solve(kernel, (np.eye(5) - decay) @ (f0[s] - TARGETS))
            assert_close(test[s, i], f0_test[s] - cross @ gain, 1e-9)
    train, test = ntksim.closed_form(kernel, f0[0], TARGETS, [np.inf], cross, f0_test[0])
    assert_close(train[0], TARGETS, 1e-12)
    assert_close(test[0], f0_test[0] - cross @ np.linalg.solve(kernel, f0[0] - TARGETS), 1e-9)


@pytest.mark.parametrize("relative_rate", [1e-3, 0.3, 1.0, 1.9])
def test_discrete_closed_form_is_the_iteration(relative_rate):
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(5, 5))
    kernel, cross, f0 = factor @ factor.T, rng.normal(size=(2, 5)) @ factor.T, rng.normal(size=5)
    rate = relative_rate / np.linalg.eigvalsh(kernel)[-1]
    f, f_test = f0.copy(), np.zeros(2)
    train, test = ntksim.closed_form(kernel, f0, TARGETS, rate * np.arange(31), cross, learning_rate=rate)
    for k in range(31):
        assert_close(train[k], f, 1e-11)
        assert np.abs(test[k] - f_test).max() < 1e-11
        f, f_test = f - rate * kernel @ (f - TARGETS), f_test - rate * cross @ (f - TARGETS)
    with pytest.raises(ValueError, match="whole numbers of steps"):
        ntksim.closed_form(kernel, f0, TARGETS, [0.5 * rate], learning_rate=rate)


def test_singular_kernel_keeps_its_null_space():
    v = np.array([1.0, 2.0, 2.0]) / 3
    kernel, f0, y = 2 * np.outer(v, v), np.array([1.0, 0.0, 3.0]), np.zeros(3)
    train, test = ntksim.closed_form(kernel, f0, y, [0.0, 1.0, np.inf], kernel[:1], f0[:1])
    assert np.isfinite(train).all()
    assert_close(train[-1], f0 - v * (v @ f0), 1e-14)
    assert_close(test[:, 0], train[:, 0], 1e-14)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("relative_rate", [1e-3, 0.3, 1.0, 1.3])
def test_momentum_is_the_iteration(relative_rate, nesterov):
    kernel, cross, f0, f0_test = _problem(2)
    rate, mu = relative_rate / np.linalg.eigvalsh(kernel)[-1], 0.8
    options = {"learning_rate": rate, "momentum": mu, "nesterov": nesterov}
    train, test = ntksim.closed_form(kernel, f0, TARGETS, rate * np.arange(41), cross, f0_test, **options)
    # outputs are linear in v: it is enough to follow J v, on training and test points
    f, f_test = f0.copy(), f0_test.copy()
    both, moved = np.concatenate([kernel, cross]), np.zeros(7)
    for k in range(41):
        assert_close(train[k], f, 1e-11)
        assert_close(test[k], f_test, 1e-11)
        gradient = both @ (f - TARGETS)
        moved = mu * moved + gradient
        step = rate * (gradient + mu * moved if nesterov else moved)
        f, f_test = f - step[:5], f_test - step[5:]
    train, test = ntksim.closed_form(kernel, f0, TARGETS, [np.inf], cross, f0_test, **options)
    assert_close(train[0], TARGETS, 1e-12)
    assert_close(test[0], f0_test - cross @ np.linalg.solve(kernel, f0 - TARGETS), 1e-9)


def test_momentum_of_next_to_nothing_is_none():
    kernel, cross, f0, f0_test = _problem(3)
    rate = 1 / np.linalg.eigvalsh(kernel)[-1]
    times = rate * np.array([0, 1, 2, 100, 10**6])
    plain = ntksim.closed_form(kernel, f0, TARGETS, times, cross, f0_test, learning_rate=rate)
    slight = ntksim.closed_form(kernel, f0, TARGETS, times, cross, f0_test, learning_rate=rate, momentum=1e-14)
    for a, b in zip(plain, slight, strict=True):
        assert_close(b, a, 1e-10)


def _exact(a, mu, nesterov, k):
    """p_k and (1 - p_k) / a of the recursion, by 80 digits and repeated squaring."""
    with localcontext() as context:
        context.prec = 80
        a, mu = Decimal(float(a)), Decimal(mu)
        first = 1 + mu if nesterov else Decimal(1)
        m = [[(1 - a) * (1 + mu), -(1 - a) * mu] if nesterov else [1 + mu - a, -mu], [Decimal(1), Decimal(0)]]
        power, n = [[Decimal(1), Decimal(0)], [Decimal(0), Decimal(1)]], k - 1
        while n:
            product = [[sum(x[i][r] * m[r][j] for r in (0, 1)) for j in (0, 1)] for x in (power, m) for i in (0, 1)]
            power, m, n = product[:2] if n % 2 else power, product[2:], n // 2
        p = power[0][0] * (1 - first * a) + power[0][1]
        return float(p), float((1 - p) / a)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("mu", [0.3, 0.9, 0.999])
def test_momentum_keeps_its_digits(mu, nesterov):
    """Slow, oscillating and fast modes, and those at critical damping and just beside it."""
    critical = ((1 - mu) / (1 + mu)) ** 2 if nesterov else (1 - np.sqrt(mu)) ** 2
    stable = 2 * (1 + mu) / (1 + 2 * mu) if nesterov else 2 * (1 + mu)
    beside = critical * (1 + np.array([-1e-2, -1e-7, -1e-13, 0, 1e-13, 1e-7, 1e-2]))
    modes = np.concatenate([[1e-13, 1e-10, 1e-6], beside, np.array([0.1, 0.3, 0.7, 0.9, 0.99]) * stable, [1.0]])
    steps = [1, 2, 3, 10, 1000, 10**6, 10**11]
    # one training point for each mode, moved from 1 towards 0, and a test point that sees the sum of them
    train, test = ntksim.closed_form(
        np.diag(modes), np.ones(modes.size), np.zeros(modes.size), steps, np.eye(modes.size), learning_rate=1.0, momentum=mu,
        nesterov=nesterov,
    )  # fmt: skip
    for t, k in enumerate(steps):
        for j, a in enumerate(modes):
            p, s = _exact(a, mu, nesterov, k)
            assert abs(train[t, j] - p) < 1e-9 + 1e-15 * min(k, 10**6) * abs(p)
            assert abs(-test[t, j] - s) < 1e-9 * abs(s) + 1e-13 / a


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("mu", [0.3, 0.9, 0.99])
def test_modes_swing_from_critical_damping_on(mu, nesterov):
    """A hundredth below it no component changes its sign in 20,000 steps, a hundredth above it does."""
    bound, steps = critical_damping(mu, nesterov), np.arange(20_001.0)
    decay, _ = StepRule(1.0, mu, nesterov).decay(bound * np.array([0.99, 1.01]), steps)
    assert (decay[:, 0] >= 0).all()
    assert (decay[:, 1] < 0).any()


def test_the_integral_of_a_decay():
    """Against quadrature; at rate 0 nothing moves, and at t = infinity it is 1 / rate."""
    rates, times = np.array([0.0, 1e-9, 0.3, 5.0]), np.array([0.0, 0.7, 4.0])
    nodes, weights = np.polynomial.legendre.leggauss(40)
    expected = np.array([[0.5 * t * weights @ np.exp(-rate * 0.5 * t * (1 + nodes)) for rate in rates] for t in times])
    expected[:, 0] = 0
    assert_close(integral(rates, times[:, None]), expected, 1e-14)
    assert_close(integral(rates, np.inf), np.array([0.0, 1e9, 1 / 0.3, 0.2]), 1e-15)


def test_momentum_above_the_stable_rate_diverges():
    rate = 4.1  # 2 (1 + mu) / lambda is 4
    train = ntksim.closed_form(np.eye(5), np.zeros(5), TARGETS, [0, 400 * rate, np.inf], learning_rate=rate, momentum=1 - 1e-9)
    assert np.abs(train[1]).max() > 1e3
    assert np.isnan(train[2]).all()


@pytest.mark.parametrize("options", [{}, {"learning_rate": 0.01}, {"learning_rate": 0.01, "momentum": 0.5}])
def test_outputs_with_a_kernel_of_their_own_are_scalar_ones(options):
    kernel, cross, _, _ = _problem(4)
    rng = np.random.default_rng(5)
    y, f0, f0_test, times = rng.normal(size=(5, 3)), rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 2, 3)), [0.0, 0.1, 0.4]
    train, test = ntksim.closed_form(kernel, f0, y, times, cross, f0_test, **options)
    assert train.shape == (4, 3, 5, 3)
    assert test.shape == (4, 3, 2, 3)
    for a in range(3):
        alone = ntksim.closed_form(kernel, f0[..., a], y[:, a], times, cross, f0_test[..., a], **options)
        assert_close(train[..., a], alone[0], 1e-14)
        assert_close(test[..., a], alone[1], 1e-14)
    # the same, with the kernel of all outputs written out
    joint = [np.einsum("ij,ab->iajb", k, np.eye(3)) for k in (kernel, cross)]
    together = ntksim.closed_form(joint[0], f0, y, times, joint[1], f0_test, **options)
    assert_close(together[0], train, 1e-11)
    assert_close(together[1], test, 1e-11)


def test_outputs_that_share_a_kernel_follow_the_matrix_exponential():
    kernel, cross, f0, f0_test = _problem(6, (3,))
    y, t = np.random.default_rng(7).normal(size=(5, 3)), 0.2
    train, test = ntksim.closed_form(kernel.reshape(5, 3, 5, 3), f0, y, [t], cross.reshape(2, 3, 5, 3), f0_test)
    lost = (np.eye(15) - expm(-kernel * t)) @ (f0 - y).ravel()
    assert_close(train[0].ravel(), f0.ravel() - lost, 1e-11)
    assert_close(test[0].ravel(), f0_test.ravel() - cross @ np.linalg.solve(kernel, lost), 1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": np.ones((5, 2, 2))}, r"y must have shape \(n,\), or \(n, k\)"),
        ({"y": np.ones(4)}, r"kernel must have shape \(4, 4\), training points twice; got \(5, 5\)"),
        ({"y": np.ones((5, 2))}, r"f0 must have shape \(5, 2\) or \(seeds, 5, 2\); got \(5,\)"),
        ({"kernel": np.ones((5, 2, 5, 2))}, r"kernel must have shape \(5, 5\)"),
        ({"kernel": np.triu(np.ones((5, 5)))}, "kernel must be symmetric"),
        ({"kernel_test": np.ones((2, 4))}, r"kernel_test must have shape \(2, 5\)"),
        ({"kernel_test": np.ones((2, 5)), "f0_test": np.ones(3)}, r"f0_test must have shape \(2,\)"),
        ({"kernel_test": 3.0}, "kernel_test must have 2 axes"),
        ({"f0_test": np.zeros(2)}, "f0_test belongs to test points"),
        ({"f0": np.zeros((2, 5)), "kernel_test": np.ones((2, 5)), "f0_test": np.zeros((3, 2))}, "of as many seeds"),
        ({"kernel": -np.eye(5)}, "kernel must be positive semidefinite"),
        ({"y": np.zeros(0)}, r"y must have shape \(n,\)"),
        ({"times": [-1.0]}, "times must be"),
        ({"times": "soon"}, "times must be"),
        ({"learning_rate": True}, "learning_rate must be finite and positive"),
        ({"learning_rate": "a"}, "learning_rate must be finite and positive"),
        ({"momentum": 0.9}, "momentum belongs to gradient descent"),
        ({"learning_rate": 0.1, "nesterov": True}, "nesterov=True needs momentum"),
    ],
)
def test_bad_arguments_of_closed_form_are_named(arguments, message):
    good = {"kernel": np.eye(5), "f0": np.zeros(5), "y": TARGETS, "times": [1.0]}
    with pytest.raises((TypeError, ValueError), match=message):
        ntksim.closed_form(**(good | arguments))
