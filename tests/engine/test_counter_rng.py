"""The generator: published vectors, goodness of fit, and addressing."""

import numpy as np
import pytest
from scipy import special, stats

import ntksim
from ntksim.engine import counter_rng

# Random123's known answers for philox4x32-10: counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [np.uint32(int(word, 16)) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_philox_known_answers(counter, key, result):
    assert [int(w) for w in counter_rng.philox(*words(counter), *words(key))] == [int(w) for w in words(result)]


def draw(rows, cols, key=(1, 2), layer=3, high=0, row=0, col=0, dtype=np.float32):
    out = np.empty((rows, cols), dtype)
    counter_rng.fill_normals(*key, layer, high, row, col, out)
    return out


def test_box_muller_against_double_precision():
    """Radius and angle from the same words, evaluated in float64; the angle's quadrants are shifted by an eighth turn."""
    u = np.concatenate([np.array([0, 1, 2**31, 2**32 - 2**10, 2**32 - 1]), np.random.default_rng(0).integers(0, 2**32, 20_000)])
    v = np.random.default_rng(1).integers(0, 2**32, u.size)
    found = np.array([counter_rng.normal_pair(np.uint32(a), np.uint32(b)) for a, b in zip(u, v, strict=True)], dtype=float)
    radius = np.sqrt(-2 * np.log(np.minimum((u + 1.0).astype(np.float32).astype(float) / 2**32, 1)))
    low = (v << 2) & 0xFFFFFFFF
    angle = 2 * np.pi * (((v >> 30) / 4) + (low - (low >= 2**31) * 2.0**32) / 2**34)
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 2e-6
    assert np.abs(found).max() <= 6.67


def test_normals_fit_out_to_five_sigma():
    """Chi-square over 102 bins, tails beyond 5 included, on 3.2e7 draws; false alarm 1e-6."""
    edges = np.concatenate([[-np.inf], np.linspace(-5, 5, 101), [np.inf]])
    counts, total = np.zeros(edges.size - 1), 0
    moments = np.zeros(4)
    for block in range(8):
        z = draw(2000, 2000, row=2000 * block).astype(float).ravel()
        counts += np.histogram(z, edges)[0]
        moments += [np.sum(z**k) for k in (1, 2, 3, 4)]
        total += z.size
    expected = np.diff(special.ndtr(edges)) * total
    assert expected.min() > 5
    statistic = np.sum((counts - expected) ** 2 / expected)
    assert stats.chi2.sf(statistic, counts.size - 1) > 1e-6
    # each moment's z-score; false alarm of four two-sided tests at 5.5 sigma is 1.5e-7
    scores = (moments / total - [0, 1, 0, 3]) / np.sqrt(np.array([1, 2, 15, 96]) / total)
    assert np.abs(scores).max() < 5.5


def test_neighbours_are_uncorrelated():
    """Products of neighbours in every coordinate of the address, z-scores below 5.5; false alarm of ten tests 4e-7."""
    z = draw(1000, 1000)
    others = [
        draw(1000, 1000, key=(2, 2)), draw(1000, 1000, key=(1, 3)), draw(1000, 1000, layer=4), draw(1000, 1000, high=1),
    ]  # fmt: skip
    pairs = [(z, other) for other in others]
    pairs += [(z[1:], z[:-1]), (z[2:], z[:-2]), (z[4:], z[:-4]), (z[:, 1:], z[:, :-1]), (z[1:, 1:], z[:-1, :-1])]
    pairs += [(z[1:] ** 2 - 1, z[:-1] ** 2 - 1)]
    for a, b in pairs:
        product = (a.astype(float) * b).ravel()
        score = product.sum() / np.sqrt(np.sum(product**2))
        assert abs(score) < 5.5


def test_any_tile_is_that_part_of_the_whole():
    whole = draw(30, 37)
    for row, col, rows, cols in [(0, 0, 30, 37), (4, 5, 9, 13), (28, 36, 2, 1), (8, 0, 1, 37)]:
        assert (draw(rows, cols, row=row, col=col) == whole[row : row + rows, col : col + cols]).all()
    assert (draw(30, 37, dtype=np.float64) == whole).all()


def test_parameters_are_float32_numbers_shared_between_networks():
    plain = ntksim.sample_parameters(ntksim.Network(2, (5, 9), "relu", sigma_b=1.0), 3, 5)
    other = ntksim.sample_parameters(ntksim.Network(2, (5, 9), "tanh", "notes", 2.0, 4.0, 0.5), 3, 5)
    assert all((w == w.astype(np.float32)).all() for w in (*plain.weights, *other.weights, *other.biases))
    single = ntksim.sample_parameters(ntksim.Network(2, (5, 9), "relu", sigma_b=1.0), 3, 5, dtype="float32")
    assert all((a == b).all() for a, b in zip(plain.weights, single.weights, strict=True))
    assert (other.weights[1] == 2 * plain.weights[1]).all()
    assert (other.readout == 4 * plain.readout).all()
    assert (other.biases[0] == plain.biases[0] / 2).all()
    assert [w.shape for w in plain.weights] == [(5, 3), (9, 5)]


def test_seeds_widths_and_layers_differ():
    def first(network, seed):
        return ntksim.sample_parameters(network, 4, seed).weights[0][0, 0]

    network = ntksim.Network(2, 4)
    values = [first(network, seed) for seed in (0, 1, 2**32, 2**32 + 1, 2**64 - 1)]
    values += [first(ntksim.Network(2, (4, 5)), 0), first(ntksim.Network(1, 4), 0)]
    weights = ntksim.sample_parameters(network, 4, 0)
    values += [weights.weights[1][0, 0], weights.readout[0]]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("kind", ["ntk", "notes", "standard", "mup"])
def test_initial_scales(kind):
    """Standard deviations of stored weights, z-scores below 5 on 200 entries and more; false alarm of twelve tests 7e-6."""
    from naive import initial_scales

    network = ntksim.Network(2, (200, 200), "relu", kind, 1.7, 0.6)
    p = ntksim.sample_parameters(network, 200, 1)
    for array, scale in zip((*p.weights, p.readout), initial_scales(kind, 200, (200, 200), 1.7, 0.6), strict=True):
        assert abs(array.std() / scale - 1) < 5 / np.sqrt(2 * array.size)
