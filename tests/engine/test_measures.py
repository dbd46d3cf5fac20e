"""Measures of how lazy a run is: the oracle's entry-by-entry formulas, laws, and rates of constant kernels."""

import inspect

import naive
import numpy as np
import pytest
from scipy.linalg import expm
from tolerances import assert_close

import ntksim
from ntksim import measures

RNG = np.random.default_rng(11)


def kernels(*shape, rank=None):
    """Random positive semidefinite kernels (..., n, n)."""
    factors = RNG.normal(size=(*shape, rank or shape[-1]))
    return factors @ np.swapaxes(factors, -1, -2)


MANY, OTHER, Y = kernels(2, 3, 6), kernels(6), RNG.normal(size=6)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (measures.kernel_distance(MANY, OTHER), lambda k: 1 - naive.cosine(k, OTHER)),
        (measures.centred_alignment(MANY, OTHER), lambda k: naive.cosine(naive.centre(k), naive.centre(OTHER))),
        (
            measures.centred_kernel_target_alignment(MANY, Y),
            lambda k: naive.cosine(naive.centre(k), naive.centre(np.outer(Y, Y))),
        ),
        (measures.effective_rank(MANY), naive.entropy_rank),
        (
            measures.participation_ratio(MANY),
            lambda k: np.linalg.eigvalsh(k).sum() ** 2 / np.square(np.linalg.eigvalsh(k)).sum(),
        ),
    ],
    ids=["distance", "alignment", "target_alignment", "effective_rank", "participation_ratio"],
)
def test_against_the_oracle(found, expected):
    assert_close(found, [[expected(k) for k in row] for row in MANY], 1e-13)


PUBLIC = {
    name: function
    for name, function in vars(measures).items()
    if inspect.isfunction(function) and function.__module__ == measures.__name__ and not name.startswith("_")
}
ARRAYS = {
    "kernels": np.stack([OTHER] * 3), "kernel": OTHER, "reference": OTHER, "targets": Y, "outputs": RNG.normal(size=(3, 6)),
    "times": np.arange(3.0), "change": np.ones(3), "norm": np.ones(3),
}  # fmt: skip


@pytest.mark.parametrize("measure", [measures.relative_frobenius_error, measures.relative_operator_error])
def test_relative_errors_of_what_has_not_changed(measure):
    """0 where kernels are equal, zeros too, and infinite where a kernel of zeros has changed; a number for one kernel."""
    zero = np.zeros((6, 6))
    assert measure(np.stack([OTHER, zero]), np.stack([OTHER, zero])).tolist() == [0, 0]
    assert measure(OTHER, zero) == np.inf
    assert isinstance(measure(OTHER, 2 * OTHER), np.floating)
    assert np.isnan(measure(np.full((6, 6), np.nan), OTHER))


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("name", PUBLIC)
def test_masked_arrays_are_refused(name, named):
    """In each argument, by place and by name."""
    function = PUBLIC[name]
    arrays = {argument: ARRAYS[argument] for argument in inspect.signature(function).parameters if argument in ARRAYS}
    function(**arrays)
    for argument, value in arrays.items():
        given = arrays | {argument: np.ma.masked_less(value, 0.5)}
        order = [given.pop(own) for own in inspect.signature(function).parameters if own in given and not named]
        if "floor" in inspect.signature(function).parameters and not named:
            order.insert(4, None)
        with pytest.raises(TypeError, match=f"^{argument} must be an array without a mask"):
            function(*order, **given)


def test_centring():
    assert_close(measures.centred(MANY)[1, 2], naive.centre(MANY[1, 2]), 1e-14)
    features = np.random.default_rng(1).normal(size=(6, 4))
    shifted = features - features.mean(axis=0)
    assert_close(measures.centred(features @ features.T), shifted @ shifted.T, 1e-14)
    # an added constant feature, or a shift of the targets, changes nothing
    assert_close(measures.centred_alignment(MANY + 7, OTHER - 3), measures.centred_alignment(MANY, OTHER), 1e-12)
    ones = np.ones((6, 6))
    constant = np.stack([0.1 * ones, ones + 1e-16, OTHER])
    assert np.isnan(measures.centred_alignment(constant, OTHER)).tolist() == [True, True, False]
    assert np.isnan(measures.centred_kernel_target_alignment(OTHER, np.full(6, 0.3)))
    assert measures.centred_alignment(MANY, 2 * MANY) == pytest.approx(np.ones((2, 3)), abs=1e-14)


def test_small_distances_keep_their_digits():
    """A perturbation E moves K by |E_perpendicular|^2 / (2 |K|^2), here 5e-21, which 1 - cosine would round to zero."""
    direction = np.random.default_rng(2).normal(size=(6, 6))
    direction -= OTHER * np.sum(direction * OTHER) / np.sum(OTHER**2)
    direction *= 1e-10 * np.linalg.norm(OTHER) / np.linalg.norm(direction)
    assert measures.kernel_distance(OTHER + direction, OTHER) == pytest.approx(0.5e-20, rel=1e-5)
    assert measures.kernel_distance(3 * OTHER, OTHER) < 1e-30
    assert measures.kernel_distance(np.diag([1.0, 0, 0]), np.diag([0, 0, 2.0])) == 1


def test_velocity_along_an_arc():
    """Kernels on a circle at angle w t: distance 1 - cos(w dt) at any start; equal times have none, infinity has 0."""
    a, b = np.diag([1.0, 0, 0]), np.diag([0, 1.0, 0])
    times, speed = np.array([0, 0.1, 0.1, 0.3, 0.9, np.inf, np.inf]), 0.7
    angles = speed * np.minimum(times, 2.0)
    path = np.cos(angles)[:, None, None] * a + np.sin(angles)[:, None, None] * b
    found = measures.kernel_velocity(np.stack([path, 5 * path]), times)
    steps = np.diff(times[:5])
    assert found.shape == (2, 6)
    for row in found:
        assert row[[0, 2, 3]] == pytest.approx((1 - np.cos(speed * steps))[[0, 2, 3]] / steps[[0, 2, 3]], rel=1e-12)
        assert np.isnan(row[[1, 5]]).all()
        assert row[4] == 0


def test_ranks_of_known_spectra():
    """k equal eigenvalues among n count as k; a spectrum's scale does not count; orthogonal changes of basis neither."""
    basis = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0]
    for k in range(1, 7):
        kernel = 3 * basis[:, :k] @ basis[:, :k].T
        assert measures.effective_rank(kernel) == pytest.approx(k, rel=1e-12)
        assert measures.participation_ratio(kernel) == pytest.approx(k, rel=1e-12)
    assert measures.effective_rank(1e9 * MANY) == pytest.approx(measures.effective_rank(MANY), rel=1e-12)
    assert (measures.participation_ratio(MANY) <= measures.effective_rank(MANY)).all()  # Renyi entropies fall with their order
    assert np.isnan(measures.effective_rank(np.stack([np.full((2, 2), np.nan), np.zeros((2, 2))]))).all()


def runs(n=6, dtype=np.float64):
    """Two runs with kernels of condition number 100 of their own, from the closed form."""
    rng, values = np.random.default_rng(4), np.geomspace(5.0, 0.05, n)
    bases = [np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2)]
    kernel = np.stack([(basis * values) @ basis.T for basis in bases])
    times = np.concatenate([[0], np.geomspace(0.02, 400, 60), [np.inf]])
    y, f0 = rng.normal(size=n), rng.normal(size=(2, n))
    outputs = np.stack([ntksim.closed_form(k, f, y, times) for k, f in zip(kernel, f0, strict=True)])
    return kernel, outputs.astype(dtype), y, times, values


def test_rates_of_a_constant_kernel_are_its_eigenvalues():
    kernel, outputs, y, times, values = runs()
    modes = measures.residual_modes(kernel, outputs, y, times)
    assert modes.eigenvalues == pytest.approx(np.stack([values, values]), rel=1e-12)
    assert modes.decay_rates == pytest.approx(modes.eigenvalues, rel=1e-8)
    assert (modes.components[:, 0] > 0).all()
    # components are the residual in another basis, and those at t are e^(-lambda t) of those at 0
    assert_close(np.sum(modes.components**2, axis=-1), np.sum((outputs - y) ** 2, axis=-1), 1e-13)
    assert_close(modes.components, modes.components[:, :1] * np.exp(-times[:, None] * values), 1e-13)
    one = measures.residual_modes(kernel[1], outputs[1], y, times)
    assert one.decay_rates == pytest.approx(modes.decay_rates[1], rel=1e-12)
    both = measures.residual_modes(kernel[1], outputs, y, times)  # one kernel for all runs
    assert_close(both.components[1], modes.components[1], 1e-12)


def test_rates_in_single_precision():
    """Half the digits of float32 above the floor: rates to 1e-4."""
    kernel, outputs, y, times, values = runs(dtype=np.float32)
    assert measures.residual_modes(kernel, outputs, y, times).decay_rates == pytest.approx(np.stack([values] * 2), rel=1e-4)


def test_rates_that_cannot_be_fitted():
    """A mode that nothing excites, snapshots after its decay, a run without numbers, a single or an infinite time."""
    kernel = np.diag([4.0, 1.0, 0.5])
    y, f0, times = np.zeros(3), np.array([1.0, 0.0, 1.0]), np.array([0, 10.0, 20.0, np.inf])
    outputs = np.stack([(expm(-kernel * t) @ f0) if np.isfinite(t) else np.zeros(3) for t in times])
    rates = measures.residual_modes(kernel, outputs, y, times).decay_rates
    assert np.isnan(rates).tolist() == [True, True, False]
    assert rates[2] == pytest.approx(0.5, rel=1e-9)
    assert np.isnan(measures.residual_modes(kernel, outputs[:1], y, times[:1]).decay_rates).all()
    assert np.isnan(measures.residual_modes(kernel, outputs[[0, 3]], y, times[[0, 3]]).decay_rates).all()
    lost = np.concatenate([outputs[:2], np.full((1, 3), np.nan)])  # a run given up: up to where it came
    assert measures.residual_modes(kernel, lost, y, times[:3]).decay_rates[2] == pytest.approx(0.5, rel=1e-9)
    broken = measures.residual_modes(np.full((3, 3), np.nan), outputs, y, times)
    assert np.isnan(broken.eigenvalues).all()
    assert np.isnan(broken.decay_rates).all()


def test_a_floor_ends_the_fit():
    """A component that decays at the rate 1 to 1e-3 and at 0.1 from there on."""
    times = np.linspace(0, 40, 81)
    component = np.where(times < np.log(1000), np.exp(-times), 1e-3 * np.exp(-0.1 * (times - np.log(1000))))
    outputs, kernel, y = component[:, None], np.ones((1, 1)), np.zeros(1)
    assert measures.residual_modes(kernel, outputs, y, times, floor=2e-3).decay_rates[0] == pytest.approx(1, rel=1e-12)
    assert measures.residual_modes(kernel, outputs, y, times).decay_rates[0] < 0.3


def test_a_wide_network_decays_at_the_rates_of_its_own_kernel():
    """Width 4,096, one hidden layer, down to a tenth: the three fastest modes within 3% of their eigenvalues."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=5)
    network = ntksim.Network(1, 4096, "tanh", sigma_w=1.5)
    kernel = ntksim.empirical_ntk(network, x, seeds=range(2))
    times = np.concatenate([[0], np.geomspace(0.01, 20, 30)])
    run = ntksim.train(network, x, y, seeds=range(2), times=times, keep_kernels=True)
    modes = measures.residual_modes(kernel, run.outputs, y, times, floor=0.1 * np.abs(y).max())
    fast = np.isfinite(modes.decay_rates) & (modes.components[:, 0] > 0.5)
    assert fast.sum() >= 3
    assert modes.decay_rates[fast] == pytest.approx(modes.eigenvalues[fast], rel=0.03)
    distance = measures.kernel_distance(run.kernels, kernel[:, None])
    assert (distance[:, 0] == 0).all()
    assert 0 < distance[:, -1].min() < distance[:, -1].max() < 1e-4
    assert measures.kernel_velocity(run.kernels, times).shape == (2, 30)


def moving():
    """Runs of narrow networks whose kernels move: outputs, kernels, targets, times."""
    rng = np.random.default_rng(11)
    x, y = rng.normal(size=(8, 4)), rng.normal(size=8)
    network = ntksim.Network(1, 48, "tanh", sigma_w=1.5)
    largest = np.linalg.eigvalsh(ntksim.infinite_kernel(network, x).ntk)[-1]
    times = np.concatenate([[0], np.geomspace(0.1, 300, 24)]) / largest
    run = ntksim.train(network, x, y, seeds=range(12), times=times, keep_kernels=True, remove_initial_output=True)
    return run.outputs, run.kernels, y, times


def test_rates_are_given_where_modes_do_not_mix():
    """Each within 15% of v'K_t v along the way, which is the rate of a mode that others leave alone.

    A tenth is what others may add, the rest are snapshots far apart. If nothing is said of mixing some are off by more than 10x.
    """
    outputs, kernels, y, times = moving()
    floor = 1e-4 * np.linalg.norm(y)
    modes = measures.residual_modes(kernels[:, 0], outputs, y, times, floor, kernels)
    vectors = np.linalg.eigh(kernels[:, 0])[1][..., ::-1]
    own = np.einsum("sij,stik,skj->stj", vectors, kernels, vectors)
    given = np.isfinite(modes.decay_rates)
    assert given[modes.initial_shares > 0.01].mean() > 0.8
    assert 0.3 < given.mean() < 0.95
    low, high = own.min(axis=1)[given], own.max(axis=1)[given]
    assert (modes.decay_rates[given] > 0.85 * low).all()
    assert (modes.decay_rates[given] < 1.15 * high).all()
    assert_close(modes.initial_shares, modes.components[:, 0] ** 2 / np.sum(y**2), 1e-12)
    assert modes.initial_shares.sum(axis=-1) == pytest.approx(np.ones(12))
    blind = measures.residual_modes(kernels[:, 0], outputs, y, times, floor)
    assert np.isnan(blind.decay_rates[blind.initial_shares < measures.SMALLEST_SHARE]).all()
    # as if kernels were constant: lines through all of a component that is above the noise
    still = np.repeat(kernels[:, :1], len(times), axis=1)
    every = measures.residual_modes(kernels[:, 0], outputs, y, times, floor, still)
    off = np.abs(np.log(np.abs(every.decay_rates) / modes.eigenvalues))
    assert np.nanmax(off) > np.log(10)
    assert np.nanmax(np.abs(np.log(modes.decay_rates / modes.eigenvalues))) < np.log(1.5)
    units = measures.residual_modes(kernels[:, 0], outputs, y, times, floor, 7.0 * kernels)
    assert_close(units.decay_rates[given], modes.decay_rates[given], 1e-12)


def test_rates_where_only_the_readout_learns():
    """The kernel of random features is constant: rates are its eigenvalues, however small the share; none below the noise."""
    rng = np.random.default_rng(12)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=6)
    network = ntksim.Network(1, 32, "tanh", sigma_w=1.5)
    options = {"seeds": range(4), "layer_rates": [1e-12, 1.0], "keep_kernels": True, "remove_initial_output": True}
    largest = ntksim.train(network, x, y, times=[0.0], **options).kernels[:, 0]
    times = np.concatenate([[0], np.geomspace(0.1, 1e4, 40)]) / np.linalg.eigvalsh(largest).max()
    run = ntksim.train(network, x, y, times=times, tolerance=1e-6, **options)
    floor = 1e-4 * np.linalg.norm(y)
    modes = measures.residual_modes(run.kernels[:, 0], run.outputs, y, times, floor, run.kernels)
    given = np.isfinite(modes.decay_rates)
    assert given.mean() > 0.8
    assert modes.initial_shares[given].min() < 0.01
    assert modes.decay_rates[given] == pytest.approx(modes.eigenvalues[given], rel=1e-3)
    assert (modes.components[:, 0][~given] < 2 * floor).sum() + (modes.eigenvalues[~given] * times[-1] < 1).sum() >= (
        ~given
    ).sum()
