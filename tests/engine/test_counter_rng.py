"""The generator: published vectors, goodness of fit, and addressing."""

import numpy as np
import pytest
from scipy import special, stats

import ntksim
from ntksim.engine.compiled.jit import jit
from ntksim.engine.formulas import normals

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
    assert [int(w) for w in normals.philox(*words(counter), *words(key))] == [int(w) for w in words(result)]


def draw(rows, cols, key=(1, 2), layer=3, high=0, row=0, col=0, dtype=np.float32):
    out = np.empty((rows, cols), dtype)
    normals.fill_normals(*key, layer, high, row, col, out)
    return out


def test_box_muller_against_double_precision():
    """Radius and angle from the same words, evaluated in float64; the angle's quadrants are shifted by an eighth turn."""
    u = np.concatenate([np.array([0, 1, 2**31, 2**32 - 2**10, 2**32 - 1]), np.random.default_rng(0).integers(0, 2**32, 20_000)])
    v = np.random.default_rng(1).integers(0, 2**32, u.size)
    found = np.array([normals.normal_pair(np.uint32(a), np.uint32(b)) for a, b in zip(u, v, strict=True)], dtype=float)
    radius = np.sqrt(-2 * np.log(np.minimum((u + 1.0).astype(np.float32).astype(float) / 2**32, 1)))
    low = (v << 2) & 0xFFFFFFFF
    angle = 2 * np.pi * (((v >> 30) / 4) + (low - (low >= 2**31) * 2.0**32) / 2**34)
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 2e-6
    assert np.abs(found).max() <= 6.67


@jit
def tally(blocks, counts, moments):
    """Counts of 1e6 normals a block in bins of 1/16, and sums of their first four powers."""
    z = np.empty((1000, 1000), np.float32)
    for block in range(blocks):
        normals.fill_normals(1, 2, 3, 0, 1000 * block, 0, z)
        for x in z.flat:
            counts[int((x + 8) * 16)] += 1
            square = np.float64(x) * np.float64(x)
            moments[0] += x
            moments[1] += square
            moments[2] += square * x
            moments[3] += square * square


def test_a_billion_normals_fit():
    """Chi-square over bins of 1/16 out to the tails, moments, and the count beyond 6; false alarm 3e-6 in all."""
    counts, moments, blocks = np.zeros(256, np.int64), np.zeros(4), 1000
    tally(blocks, counts, moments)
    total = blocks * 10**6
    assert counts.sum() == total
    expected = np.diff(special.ndtr((np.arange(257) - 128) / 16)) * total
    assert counts[:21].sum() + counts[-21:].sum() == 0  # radii come from 32 bits: none beyond 6.67
    beyond = counts[:32].sum() + counts[-32:].sum()
    assert stats.poisson.sf(beyond - 1, 2 * special.ndtr(-6) * total) > 1e-6
    rare = expected < 10
    seen, wanted = np.append(counts[~rare], counts[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    assert stats.chi2.sf(np.sum((seen - wanted) ** 2 / wanted), seen.size - 1) > 1e-6
    # each moment's z-score; false alarm of four two-sided tests at 5.5 sigma is 1.5e-7
    scores = (moments / total - [0, 1, 0, 3]) / np.sqrt(np.array([1, 2, 15, 96]) / total)
    assert np.abs(scores).max() < 5.5


@jit
def logarithms(x, out):
    for i in range(x.size):
        out[i] = normals._log(x[i] * np.float32(2.0**32), 32)


@jit
def circle(words, cosine, sine):
    for i in range(words.size):
        cosine[i], sine[i] = normals._cos_sin(words[i])


def test_logarithm_within_an_ulp():
    """Every 97th float32 in (0, 1], down to the smallest uniform, 2^-32."""
    low, high = (int(np.float32(v).view(np.uint32)) for v in (2.0**-32, 1.0))
    x = np.arange(high, low - 1, -97).astype(np.uint32).view(np.float32)
    found = np.empty_like(x)
    logarithms(x, found)
    expected = np.log(x.astype(float))
    assert (np.abs(found - expected) <= 1.0 * np.spacing(np.abs(expected).astype(np.float32))).all()


def test_cosine_and_sine_within_three_ulp():
    """Every 1021st of the 2^32 angles."""
    words = np.arange(0, 2**32, 1021, dtype=np.uint64).astype(np.uint32)
    cosine, sine = np.empty(words.size, np.float32), np.empty(words.size, np.float32)
    circle(words, cosine, sine)
    quadrant, low = words >> np.uint32(30), (words << np.uint32(2)).view(np.int32)
    angle = 2 * np.pi * (quadrant / 4 + low / 2.0**34)
    for found, expected in ((cosine, np.cos(angle)), (sine, np.sin(angle))):
        assert (np.abs(found - expected) <= 3.0 * np.spacing(np.abs(expected).astype(np.float32))).all()


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_rows_alone_are_the_first_two_of_their_block(dtype):
    whole, pair = np.empty((4, 1100), dtype), np.empty((2, 1100), dtype)
    normals.fill_normals(1, 2, 3, 4, 8, 5, whole)
    normals.fill_normals(1, 2, 3, 4, 8, 5, pair)
    np.testing.assert_array_equal(pair, whole[:2])


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
