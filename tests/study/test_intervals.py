"""Coverage of 95% intervals by simulation, and intervals in cases with a known answer.

The coverage over N draws must lie between 0.93 and 0.97, or above 0.92 with 5 seeds, within 3.1 standard errors. A case whose
true coverage is at one of these ends fails by chance once in 1,000 times; one in the middle practically never. Seeds are fixed.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ntksim.study.statistics import drift_parts, scaling_laws
from ntksim.study.statistics import seeds as seed_statistics
from ntksim.study.statistics.columns import quantities

SIZES = (5, 8, 16, 32)
SPREADS = {
    "normal": (lambda rng, n: 1 + 0.3 * rng.normal(size=n), 1.0, 1.09),
    "lognormal": (lambda rng, n: np.exp(0.3 * rng.normal(size=n)), np.exp(0.045), np.exp(0.18)),
}


def assert_covers(held, seeds):
    held = np.asarray(held)
    low, high = (0.92, 1.0) if seeds == 5 else (0.93, 0.97)
    low, high = (end + sign * 3.1 * np.sqrt(end * (1 - end) / len(held)) for end, sign in ((low, -1), (high, 1)))
    assert low <= held.mean() <= high, f"{held.mean():.3f} of {len(held)} intervals of {seeds} seeds hold the truth"


@pytest.mark.parametrize("seeds", SIZES)
@pytest.mark.parametrize("spread", SPREADS)
def test_coverage_for_means_and_root_mean_squares(spread, seeds):
    draw, mean, square = SPREADS[spread]
    rng = np.random.default_rng(1)
    found = [seed_statistics.moments(draw(rng, seeds)) for _ in range(1500)]
    assert_covers([own["interval_low"] <= mean <= own["interval_high"] for own in found], seeds)
    root = np.sqrt(square)
    assert_covers([own["root_mean_square_low"] <= root <= own["root_mean_square_high"] for own in found], seeds)


def test_coverage_with_heavier_tails():
    """Exponential values, 16 seeds: the coverage is at least 0.9, within 3.1 standard errors."""
    rng = np.random.default_rng(2)
    found = [seed_statistics.moments(rng.exponential(size=16)) for _ in range(1500)]
    least = 0.9 - 3.1 * np.sqrt(0.9 * 0.1 / 1500)
    assert np.mean([own["interval_low"] <= 1 <= own["interval_high"] for own in found]) >= least
    assert np.mean([own["root_mean_square_low"] <= np.sqrt(2) <= own["root_mean_square_high"] for own in found]) >= least


@pytest.mark.parametrize("seeds", SIZES)
def test_coverage_for_exponents_and_prefactors(seeds):
    """Norms of Gaussian vectors with a few large directions, like errors of kernels (skewness 1.0), at 4 widths."""
    rng, widths = np.random.default_rng(3), (64, 128, 256, 512)
    cell = {"activation": "relu", "depth": 1, "parameterization": "ntk", "sampling": "weights"}
    scales = 1 / np.arange(1, 20)
    names = [f"n{draw}" for draw in range(500)]
    values = np.linalg.norm(scales * rng.normal(size=(len(names), len(widths), seeds, 19)), axis=-1)
    values /= np.linalg.norm(scales) * np.sqrt(np.array(widths))[:, None]
    index = pd.MultiIndex.from_product([names, widths, range(seeds)], names=["network", "width", "seed"])
    frame = (
        pd.DataFrame({"relative_frobenius_error": values.ravel()}, index=index).reset_index().assign(**cell, status="finished")
    )
    absent = [name for name in quantities("convergence") if name not in frame]
    laws = scaling_laws.scaling_laws(frame.assign(**dict.fromkeys(absent, np.nan)), None)
    assert len(laws) == len(names)
    assert_covers(laws["interval_low"].le(-0.5) & laws["interval_high"].ge(-0.5), seeds)
    assert_covers(laws["prefactor_low"].le(1) & laws["prefactor_high"].ge(1), seeds)


@pytest.mark.parametrize("seeds", SIZES)
@pytest.mark.parametrize("ratio", [4.0, 0.5])
def test_coverage_for_the_parts_of_the_drift(seeds, ratio):
    """Scatter with a few large directions; the systematic part is 4 or 1/2 times the scatter of the mean.

    The coverage may exceed 0.97 if the systematic part is small compared with the scatter.
    """
    rng, scales = np.random.default_rng(4), 1 / np.arange(1, 11)
    random = np.linalg.norm(scales)
    mean = ratio * random / np.sqrt(seeds) * np.eye(10)[1]
    held = {name: [] for name in drift_parts.PARTS}
    for _ in range(1500):
        found = drift_parts.parts(drift_parts.gram_matrix(mean + scales * rng.normal(size=(seeds, 10))))
        for name, truth in zip(drift_parts.PARTS, (ratio * random / np.sqrt(seeds), random), strict=True):
            held[name].append(found[name]["interval_low"] <= truth <= found[name]["interval_high"])
    systematic, random_part = held.values()
    assert_covers(random_part, seeds)
    if ratio > 1:
        assert_covers(systematic, seeds)
    else:
        assert np.mean(systematic) >= 0.93 - 3.1 * np.sqrt(0.93 * 0.07 / 1500)


@pytest.mark.parametrize("seeds", SIZES)
def test_coverage_for_accuracies(seeds):
    """Beta-binomial accuracies with mean 0.9 on 100 points. All intervals lie within [0, 1]."""
    rng, found = np.random.default_rng(5), []
    for _ in range(1500):
        accuracies = rng.binomial(100, rng.beta(18, 2, seeds)) / 100
        found.append(seed_statistics.moments(accuracies, share=True, step=0.01))
    assert_covers([row["interval_low"] <= 0.9 <= row["interval_high"] for row in found], seeds)
    assert all(0 <= row["interval_low"] <= row["mean"] <= row["interval_high"] <= 1 for row in found)


@pytest.mark.parametrize(("value", "low", "high"), [(1.0, 0.95, 1.0), (0.0, 0.0, 0.05), (0.5, 0.45, 0.55)])
def test_equal_accuracies_have_an_interval(value, low, high):
    """A value that 8 seeds did not take may have a probability of up to 1 - 0.025^(1/8) = 0.37; it differs by one point of 10."""
    found = seed_statistics.moments(np.full(8, value), share=True, step=0.1)
    reach = 0.1 * (1 - 0.025 ** (1 / 8))
    assert found["interval_low"] == pytest.approx(max(value - reach, 0.0))
    assert found["interval_high"] == pytest.approx(min(value + reach, 1.0))
    assert low < found["interval_low"] or value == 0.0
    assert found["interval_high"] < high or value == 1.0
    near = seed_statistics.moments(np.array([1.0] * 7 + [0.9]), share=True, step=0.1)
    assert 0 < near["interval_low"] < near["mean"] < near["interval_high"] < 1


@pytest.mark.parametrize(
    "values", [[1, 1, 1, 0.9, 1, 0.95], [1, 1, 1, 1, 1, 0.0], [0, 0, 0, 0, 0.5, 0], [0.9] * 6, [1.0] * 6, [0.0] * 6]
)
def test_intervals_of_shares_stay_between_0_and_1(values):
    found = seed_statistics.moments(np.array(values, dtype=float), share=True, step=0.05)
    low, high = found["root_mean_square_low"], found["root_mean_square_high"]
    assert 0 <= low <= found["root_mean_square"] * (1 + 1e-12)
    assert found["root_mean_square"] * (1 - 1e-12) <= high <= 1
    assert low < high


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_equal_shares_with_an_unknown_step_have_no_interval(value):
    """For such shares (gates_flipped) it is unknown how far another seed may be. Rounding makes the deviation of 0.3 positive."""
    found = seed_statistics.moments(np.full(8, value), share=True)
    assert found["mean"] == pytest.approx(value, rel=1e-12)
    for name in ("interval_low", "interval_high", "root_mean_square_low", "root_mean_square_high"):
        assert np.isnan(found[name]), name


def test_symmetric_values_have_students_interval_and_skewed_ones_halls():
    values = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = seed_statistics.mean_interval(values)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    skewed = seed_statistics.mean_interval(np.exp(values))
    low, high = stats.ttest_1samp(np.exp(values), 0).confidence_interval(0.95)
    assert skewed.low == pytest.approx(low, rel=1e-12)
    # Hall's end is where his transformation of the studentised mean is Student's lower quantile
    a = stats.skew(np.exp(values), bias=False) / np.sqrt(5)
    t = (np.exp(values).mean() - skewed.high) / skewed.error
    assert t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6 == pytest.approx(stats.t.ppf(0.025, 4), rel=1e-9)
    assert skewed.high > high


def test_intervals_scale_with_the_values():
    rng = np.random.default_rng(6)
    values, gram = rng.exponential(size=9), drift_parts.gram_matrix(1 + rng.normal(size=(9, 4)))
    one, other = seed_statistics.moments(values), seed_statistics.moments(1e-3 * values)
    assert {name: 1e3 * value for name, value in other.items()} == pytest.approx(one, rel=1e-9)
    one, other = drift_parts.parts(gram), drift_parts.parts(1e-6 * gram)
    for name in drift_parts.PARTS:
        assert 1e3 * other[name]["interval_low"] == pytest.approx(one[name]["interval_low"], rel=1e-9)
        assert 1e3 * other[name]["interval_high"] == pytest.approx(one[name]["interval_high"], rel=1e-9)


def test_equal_values_have_an_interval_of_length_0():
    found = seed_statistics.moments(np.full(6, 0.3))
    for name in ("interval_low", "interval_high", "root_mean_square_low", "root_mean_square_high"):
        assert found[name] == pytest.approx(0.3, rel=1e-12)
    zero = seed_statistics.moments(np.zeros(6))
    assert (zero["root_mean_square_low"], zero["root_mean_square_high"]) == (0, 0)
    single = seed_statistics.moments(np.array([1.0, 0, 0, 0, 0, 0]))  # only one seed differs from 0
    assert single["root_mean_square_low"] == 0
    assert single["root_mean_square_high"] > np.sqrt(1 / 6)


def test_combinations_have_welchs_degrees_of_freedom():
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=5), 3 * rng.normal(size=9)
    errors = np.array([own.std(ddof=1) / np.sqrt(len(own)) for own in (a, b)])
    found = seed_statistics.combined(np.array([1.0, -1.0]), np.array([a.mean(), b.mean()]), errors, np.array([5, 9]))
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_statistics_are_marked_if_more_than_a_tenth_of_the_seeds_is_left_out():
    assert [seed_statistics.counts(used, 20)["marked"] for used in (20, 18, 17, 0)] == [False, False, True, True]
    assert seed_statistics.counts(17, 20) == {"count": 17, "excluded": 3, "excluded_share": 0.15, "marked": True}
