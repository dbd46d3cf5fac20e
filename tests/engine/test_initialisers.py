"""Initial weights of frameworks: documented distributions, written anew; kernels, training and refusals of such networks."""

import dataclasses

import naive
import numba
import numpy as np
import pytest
from cases import POINTS, oracle_arguments
from scipy import stats
from tolerances import ROUND_OFF, assert_close

import ntksim
from ntksim.engine import known_answers
from ntksim.engine.formulas import normals

TARGETS = np.array([1.0, -1.0, 0.5, 0.0, -0.3])
STRETCH = 0.87962566103423978  # standard deviation of a normal cut at -2 and 2, as Keras and JAX write it


def uniform(bound):
    return stats.uniform(-bound, 2 * bound)


def truncated(scale):
    return stats.truncnorm(-2, 2, scale=scale / STRETCH)


# Weights of a layer of i inputs and o outputs, and its biases (None: zero), from the frameworks' documentation.
DOCUMENTED = {
    # torch.nn.Linear: U(-sqrt(k), sqrt(k)) with k = 1 / in_features, for weight and bias
    "torch": (lambda i, o: uniform(np.sqrt(1 / i)), lambda i, o: uniform(np.sqrt(1 / i))),
    # keras.initializers.GlorotUniform: limit = sqrt(6 / (fan_in + fan_out)); bias_initializer="zeros"
    "keras": (lambda i, o: uniform(np.sqrt(6 / (i + o))), None),
    # sklearn.neural_network: U(-b, b) with b = sqrt(6 / (fan_in + fan_out)), 2 for 6 with logistic; coefs and intercepts
    "sklearn": (lambda i, o: uniform(np.sqrt(6 / (i + o))), lambda i, o: uniform(np.sqrt(6 / (i + o)))),
    # jax.nn.initializers.lecun_normal: truncated normal, stddev sqrt(1 / fan_in) / STRETCH before the cut; zeros
    "flax": (lambda i, o: truncated(np.sqrt(1 / i)), None),
    # torch.nn.init.kaiming_normal_, fan_in and gain sqrt(2): N(0, 2 / fan_in)
    "kaiming_normal": (lambda i, o: stats.norm(scale=np.sqrt(2 / i)), None),
    # keras.initializers.HeNormal and jax.nn.initializers.he_normal: truncated normal of stddev sqrt(2 / fan_in)
    "he_normal": (lambda i, o: truncated(np.sqrt(2 / i)), None),
    # keras.initializers.HeUniform and torch.nn.init.kaiming_uniform_(a=0): limit = sqrt(6 / fan_in)
    "he_uniform": (lambda i, o: uniform(np.sqrt(6 / i)), None),
}
WITHOUT_LIMIT = [name for name in DOCUMENTED if name != "kaiming_normal"]


def network_of(initialiser, width=7, depth=2, **options):
    biases = {"sigma_b": 1.0 if DOCUMENTED[initialiser][1] else 0.0, "output_bias": True}
    return ntksim.Network(depth, width, parameterization="standard", initialiser=initialiser, **biases | options)


def fits(entries, law):
    """Distribution, variance and range; false alarm 1e-6 a set of entries."""
    entries = entries.ravel()
    assert stats.kstest(entries, law.cdf).pvalue > 5e-7
    variance, kurtosis = law.stats("v"), law.stats("k") + 3
    score = (np.mean(entries**2) / variance - 1) / np.sqrt((kurtosis - 1) / entries.size)
    assert abs(score) < 5.1
    low, high = law.support()
    assert low * (1 + 3e-7) <= entries.min()
    assert entries.max() <= high * (1 + 3e-7)


@pytest.mark.parametrize("initialiser", DOCUMENTED)
def test_parameters_have_the_documented_distributions(initialiser):
    """False alarm of 28 sets of weights and 9 of biases 4e-5."""
    network = network_of(initialiser, (400, 300), outputs=250)
    parameters = ntksim.sample_parameters(network, 500, 3)
    sizes = [(500, 400), (400, 300), (300, 250)]
    weights, biases = DOCUMENTED[initialiser]
    for matrix, shape in zip((*parameters.weights, parameters.readout), sizes, strict=True):
        assert matrix.shape == shape[::-1]
        fits(matrix, weights(*shape))
        assert (matrix == matrix.astype(np.float32)).all()
    for vector, shape in zip((*parameters.biases, parameters.output_bias), sizes, strict=True):
        if biases is None:
            assert (vector == 0).all()
        else:
            fits(vector, biases(*shape))


def test_scikit_learn_takes_a_smaller_factor_for_sigmoid():
    tanh, sigmoid = (ntksim.sample_parameters(network_of("sklearn", 300, activation=a), 200, 0) for a in ("tanh", "sigmoid"))
    fits(sigmoid.weights[1], uniform(np.sqrt(2 / 600)))
    fits(sigmoid.biases[0], uniform(np.sqrt(2 / 500)))
    assert_close(tanh.weights[1], np.sqrt(3) * sigmoid.weights[1], 1e-6)


@pytest.mark.parametrize("activation", ["relu", "logistic"])
def test_the_weights_of_scikit_learn_itself(activation):
    """Two samples of one distribution; false alarm 1e-6 each."""
    neural_network = pytest.importorskip("sklearn.neural_network")
    x = np.random.default_rng(0).normal(size=(2, 100))
    model = neural_network.MLPRegressor(
        hidden_layer_sizes=(150, 150), activation=activation, solver="sgd", learning_rate_init=1e-30
    )
    model.set_params(random_state=1).partial_fit(x, [0.0, 1.0])
    name = "sigmoid" if activation == "logistic" else activation
    ours = ntksim.sample_parameters(network_of("sklearn", 150, activation=name), 100, 5)
    for one, two in zip((*ours.weights, *ours.biases), (*model.coefs_[:2], *model.intercepts_[:2]), strict=True):
        assert stats.ks_2samp(one.ravel(), two.ravel()).pvalue > 1e-6


def test_the_weights_of_torch_itself():
    """Two samples of one distribution; false alarm 1e-6 each."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layer, ours = torch.nn.Linear(200, 200), ntksim.sample_parameters(network_of("torch", 200), 200, 0)
    for one, two in ((ours.weights[0], layer.weight), (ours.biases[0], layer.bias)):
        assert stats.ks_2samp(one.ravel(), two.detach().numpy().ravel()).pvalue > 1e-6


def test_the_weights_of_jax_itself():
    """Two samples of one distribution; false alarm 1e-6 each."""
    jax = pytest.importorskip("jax")
    for name, initializer in (("flax", jax.nn.initializers.lecun_normal()), ("he_normal", jax.nn.initializers.he_normal())):
        theirs = np.asarray(initializer(jax.random.key(0), (200, 200)))
        ours = ntksim.sample_parameters(network_of(name, 200), 200, 0).weights[0]
        assert stats.ks_2samp(ours.ravel(), theirs.ravel()).pvalue > 1e-6


def test_truncated_normals_against_double_precision():
    """The inverse of the distribution of the same words, and its variance: the mean of squares of equidistant quantiles."""
    words = np.concatenate([np.arange(0, 2**32, 2**18 + 1, dtype=np.uint64), [2**31 - 1, 2**31, 2**32 - 1]]).astype(np.uint32)
    found = np.array([normals.truncated_normal(word) for word in words], float)
    x = words.view(np.int32) / 2.0**31
    expected = stats.truncnorm.ppf((1 + x) / 2, -2, 2) / STRETCH
    assert np.abs(found - expected).max() < 1e-6
    assert np.mean(found[:-3] ** 2) == pytest.approx(1, abs=2e-4)
    assert np.abs(found).max() <= 2 / STRETCH + 3e-7


def test_known_answers_are_those_of_the_words():
    for name, known in known_answers.DRAWN.items():
        stream = np.uint32(network_of(name, 9).stream)
        places = [(2, 2, 2), (4, 1, 7), (6, 0, 1)]  # code, block of four rows, column: row 8 of W^1, 5 of W^2, entry 4 of readout
        rows = [0, 1, 0]
        found = []
        for (code, block, column), row in zip(places, rows, strict=True):
            counter = [np.uint32(word) for word in (block, column, code, 0)]
            word = np.uint32(normals.philox(*counter, np.uint32(known_answers.SEED), stream)[row])
            quantile = (1 + int(word.view(np.int32)) / 2**31) / 2
            found.append(DOCUMENTED[name][0](3 if code == 2 else 9, 9).ppf(quantile))
        assert_close(known, found, 1e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("initialiser", DOCUMENTED)
def test_kernels_and_outputs_are_the_oracles(initialiser, dtype):
    for sigma_b in (None, network_of(initialiser).sigma_b):
        network = network_of(initialiser, (7, 19), activation="gelu", sigma_b=sigma_b, output_bias=sigma_b is not None)
        for seed in (0, 2**33 + 1):
            oracle = oracle_arguments(network, 3, seed, dtype)
            rows = naive.jacobian("gelu", *oracle, POINTS, sigma_b is not None, sigma_b is not None)
            assert_close(ntksim.empirical_ntk(network, POINTS, seeds=[seed], dtype=dtype)[0], rows @ rows.T, ROUND_OFF[dtype])
            outputs = naive.output(naive.PHI["gelu"][0], *oracle, POINTS)
            assert_close(ntksim.network_outputs(network, POINTS, seeds=[seed], dtype=dtype)[0], outputs, ROUND_OFF[dtype])


@pytest.mark.parametrize("initialiser", ["torch", "flax"])
def test_bits_do_not_depend_on_threads_or_seeds_asked(initialiser):
    """Threads share the wide network and its panels; the narrow ones are spread over seeds."""
    for width in (20, 600):
        network, before = network_of(initialiser, width), numba.get_num_threads()
        together = ntksim.empirical_ntk(network, POINTS, seeds=range(3))
        try:
            numba.set_num_threads(1)
            alone = [ntksim.empirical_ntk(network, POINTS, seeds=[seed])[0] for seed in range(3)]
        finally:
            numba.set_num_threads(before)
        assert together.tobytes() == np.array(alone).tobytes()


@pytest.mark.parametrize("initialiser", ["torch", "he_normal"])
@pytest.mark.parametrize("options", [{"times": [0, 0.5]}, {"method": "gradient_descent", "learning_rate": 0.01, "steps": 3}])
def test_training_starts_from_the_parameters_of_the_seed(initialiser, options):
    network = network_of(initialiser, 9, activation="tanh")
    drawn = ntksim.train(network, POINTS, TARGETS, seeds=[4], **options)
    start = ntksim.sample_parameters(network, 3, 4)
    given = ntksim.train(network, POINTS, TARGETS, start=start, **options)
    assert drawn.outputs.tobytes() == given.outputs.tobytes()
    assert drawn.outputs[0, 0] == pytest.approx(ntksim.network_outputs(network, POINTS, seeds=[4])[0], rel=1e-12)


def test_sigmas_are_factors():
    plain = ntksim.sample_parameters(network_of("torch"), 3, 1)
    scaled = ntksim.sample_parameters(network_of("torch", sigma_w=2.0, sigma_a=0.5, sigma_b=4.0), 3, 1)
    for one, two, factor in [
        *((a, b, 2.0) for a, b in zip(plain.weights, scaled.weights, strict=True)),
        *((a, b, 4.0) for a, b in zip(plain.biases, scaled.biases, strict=True)),
        (plain.readout, scaled.readout, 0.5),
        (plain.output_bias, scaled.output_bias, 4.0),
    ]:
        assert_close(two, factor * np.asarray(one), 1e-15)


def test_gaussian_weights_of_an_initialiser_have_a_limit_and_a_law():
    """kaiming_normal is LeCun's scale times sqrt(2), biases at zero."""
    one = network_of("kaiming_normal", 64, activation="tanh")
    two = dataclasses.replace(one, initialiser="gaussian", sigma_w=np.sqrt(2), sigma_a=np.sqrt(2))
    for field in ("nngp", "ntk"):
        kernels = [getattr(ntksim.infinite_kernel(network, POINTS), field) for network in (one, two)]
        assert_close(*kernels, 1e-13)
    for sampling in ("weights", "conditional"):
        kernels = [ntksim.empirical_ntk(network, POINTS[:2], seeds=[0], sampling=sampling) for network in (one, two)]
        assert_close(*kernels, 1e-6)


def test_variances_are_not_enough_in_the_first_layer():
    """Of one feature, E[sin(w) sin(5 w / 2)] is that of uniform w, not of Gaussian w of equal variance; false alarm 6e-7."""
    network = network_of("torch", 50, 1, activation="sin", sigma_b=None, output_bias=False)
    outputs = ntksim.network_outputs(network, np.array([[1.0], [2.5]]), seeds=range(4000))
    products = outputs[:, 0] * outputs[:, 1]  # of mean E / 3: readouts have the variance 1 / (3 width)
    uniform_mean = (np.sin(1.5) / 1.5 - np.sin(3.5) / 3.5) / 2
    gaussian_mean = (np.exp(-(1.5**2) / 6) - np.exp(-(3.5**2) / 6)) / 2
    error = products.std() / np.sqrt(products.size)
    assert abs(products.mean() - uniform_mean / 3) < 5 * error
    assert abs(products.mean() - gaussian_mean / 3) > 5 * error


@pytest.mark.parametrize("initialiser", WITHOUT_LIMIT)
def test_the_limit_of_other_weights_is_refused(initialiser):
    network = network_of(initialiser)
    calls = {
        "use empirical_ntk": lambda: ntksim.infinite_kernel(network, POINTS),
        "give times": lambda: ntksim.train(network, POINTS, TARGETS, seeds=[0]),
        "give learning_rate and times or steps": lambda: ntksim.train(
            network, POINTS, TARGETS, seeds=[0], method="gradient_descent", steps=3
        ),
    }
    for remedy, call in calls.items():
        with pytest.raises(ValueError, match=f"initialiser '{initialiser}' has no limit that ntksim computes.*; {remedy}"):
            call()
    for call in (
        lambda: ntksim.empirical_ntk(network, POINTS, seeds=[0], sampling="conditional"),
        lambda: ntksim.network_outputs(network, POINTS, seeds=[0], sampling="conditional"),
        lambda: ntksim.train(network, POINTS, TARGETS, seeds=[0], times=[1.0], sampling="conditional"),
    ):
        with pytest.raises(ValueError, match="sampling='conditional' needs Gaussian weights"):
            call()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"initialiser": "glorot"}, "initialiser must be one of gaussian, torch, keras, .*; got 'glorot'"),
        ({"initialiser": ["torch"]}, "initialiser must be one of"),
        ({"initialiser": "torch", "parameterization": "ntk"}, "'torch' belongs to parameterization 'standard'; got 'ntk'"),
        ({"initialiser": "keras", "sigma_b": 0.5}, "'keras' starts biases at zero: sigma_b must be 0, or None .*; got 0.5"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options, words):
    with pytest.raises(ValueError, match=words) as caught:
        ntksim.Network(1, 5, **{"parameterization": "standard"} | options)
    assert "\n" not in str(caught.value)
