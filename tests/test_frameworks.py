"""Networks of other frameworks: their outputs, and kernels against their own Jacobians, where they are installed."""

import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
from tolerances import ROUND_OFF, assert_close

import ntksim

X = np.random.default_rng(0).normal(size=(4, 5))
SHAPES = [(7, 5), (6, 7), (3, 6)]


def arrays(seed=1, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=shape), rng.normal(size=shape[0])) for shape in shapes]


def by_hand(layers, phi, x=X):
    *hidden, (last, c) = layers
    for weights, bias in hidden:
        x = phi(x @ weights.T + bias)
    return x @ last.T + c


# --- what needs no framework ------------------------------------------------------------------------------------------


def state_dict(layers):
    return {
        f"{2 * i}.{name}": value for i, layer in enumerate(layers) for name, value in zip(("weight", "bias"), layer, strict=True)
    }


def test_a_state_dict_of_arrays():
    layers = arrays()
    network, parameters = ntksim.from_torch(state_dict(layers), activation="tanh")
    assert network == ntksim.Network(2, (7, 6), "tanh", "standard", sigma_b=0.0, output_bias=True, outputs=3)
    assert_close(ntksim.network_outputs(network, X, parameters=parameters), by_hand(layers, np.tanh), ROUND_OFF["float64"])


def test_an_activation_of_ones_own():
    cube = ntksim.Activation("cube_of_a_test", lambda z: z**3, lambda z: 3 * z**2)
    layers = arrays()
    network, parameters = ntksim.from_torch(state_dict(layers), activation=cube)
    expected = by_hand(layers, lambda z: z**3)
    assert_close(ntksim.network_outputs(network, X, parameters=parameters), expected, ROUND_OFF["float64"])


def test_layers_come_in_the_order_of_their_numbers():
    """Ten layers and more, in the order of strings: 0, 10, 12, 2, ..."""
    layers = arrays(shapes=[(6 + i, 5 + i if i else 5) for i in range(12)])
    mixed = dict(sorted(state_dict(layers).items()))
    network, parameters = ntksim.from_torch(mixed, activation="tanh")
    assert network.widths == tuple(range(6, 17))
    assert_close(ntksim.network_outputs(network, X, parameters=parameters), by_hand(layers, np.tanh)[:, :], ROUND_OFF["float64"])


@pytest.mark.parametrize("file", [False, True])
def test_parameters_of_flax(file, tmp_path):
    layers = arrays()
    tree = {"params": {f"Dense_{i}": {"kernel": w.T, "bias": b} for i, (w, b) in enumerate(layers)}}
    source = tree
    if file:
        source = tmp_path / "parameters.npz"
        flat = {f"params/{layer}/{name}": value for layer, own in tree["params"].items() for name, value in own.items()}
        np.savez(source, **flat)
    network, parameters = ntksim.from_flax(source, activation="tanh")
    assert_close(ntksim.network_outputs(network, X, parameters=parameters), by_hand(layers, np.tanh), ROUND_OFF["float64"])


def test_pairs_of_arrays_and_dictionaries_of_w_and_b():
    """stax has an empty tuple for an activation, in lists within lists; Haiku numbers all layers but the first."""
    layers = arrays(shapes=[(5 if i < 11 else 3, 5) for i in range(12)])
    pairs = [(w.T, b) for w, b in layers]
    stax = [part for pair in pairs for part in (pair, ())]
    haiku = {f"mlp/~/linear_{i}" if i else "mlp/~/linear": {"w": w, "b": b} for i, (w, b) in enumerate(pairs)}
    expected = by_hand(layers, np.tanh)
    for tree in (pairs, stax, [stax[:3], tuple(stax[3:])], dict(sorted(haiku.items())), {"layers": list(haiku.values())}):
        network, parameters = ntksim.from_flax(tree, activation="tanh")
        assert network.depth == 11
        assert_close(ntksim.network_outputs(network, X, parameters=parameters), expected, ROUND_OFF["float64"])
    without = ntksim.from_flax([(pairs[0][0], None), (pairs[1][0],), pairs[-1]], activation="tanh")[1]
    assert without.biases is None
    assert without.output_bias.tolist() == pairs[-1][1].tolist()


@pytest.mark.parametrize(
    "names",
    [("linear", "linear_0", "linear_1"), ("linear_0", "linear", "linear_1"), ("linear_1", "linear_2", "linear")],
)
def test_a_layer_without_a_number_is_the_first_in_haikus_order_alone(names):
    """Sizes fit in any order. No layer is lost where another has the number 0, and none is moved from behind layer 1."""
    layers = arrays(shapes=[(5, 5)] * 3)
    expected = by_hand(layers, np.tanh)
    state = {f"{own}.{kind}": value for own, pair in zip(names, layers, strict=True) for kind, value in
             zip(("weight", "bias"), pair, strict=True)}  # fmt: skip
    tree = {own: {"w": w.T, "b": b} for own, (w, b) in zip(names, layers, strict=True)}
    for network, parameters in (ntksim.from_torch(state, "tanh"), ntksim.from_flax(tree, "tanh")):
        assert network.depth == 2
        assert_close(ntksim.network_outputs(network, X, parameters=parameters), expected, ROUND_OFF["float64"])


@pytest.mark.parametrize("activation", ["tanh", "logistic"])
@pytest.mark.parametrize("kind", ["MLPRegressor", "MLPClassifier"])
def test_models_of_scikit_learn(kind, activation):
    neural_network = pytest.importorskip("sklearn.neural_network")
    x = np.random.default_rng(3).normal(size=(40, 5))
    y = x[:, :2] @ [1.0, -2.0] if kind == "MLPRegressor" else (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    options = {"hidden_layer_sizes": (7, 6), "activation": activation, "max_iter": 5000, "random_state": 0}
    model = getattr(neural_network, kind)(**options).fit(x, y)
    network, parameters = ntksim.from_sklearn(model)
    found = ntksim.network_outputs(network, X, parameters=parameters)
    if kind == "MLPRegressor":
        assert_close(found, model.predict(X), ROUND_OFF["float64"])
    else:
        probabilities = np.exp(found - found.max(axis=1, keepdims=True))
        assert_close(probabilities / probabilities.sum(axis=1, keepdims=True), model.predict_proba(X), ROUND_OFF["float64"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ntksim.from_torch(state_dict(arrays())), "name it, such as activation='relu'"),
        (lambda: ntksim.from_torch(state_dict(arrays()[:1]), "relu"), "expected at least one hidden layer"),
        (lambda: ntksim.from_torch({"c.weight": np.ones((3, 2, 3, 3))}, "relu"), "c.weight of shape .* is no part"),
        (lambda: ntksim.from_torch({"0.weight": np.ones((3, 2)), "1.weight": np.ones((1, 4))}, "relu"), "4 inputs follows"),
        (lambda: ntksim.from_torch("model.bin", "relu"), "model.bin: expected a file .pt, .pth or .safetensors"),
        (lambda: ntksim.from_keras("model.h5"), "model.h5: expected a file .keras or .weights.h5"),
        (lambda: ntksim.from_flax("model.pkl", "relu"), "model.pkl: expected a file .msgpack or .npz"),
        (lambda: ntksim.from_flax({"BatchNorm_0": {"scale": np.ones(3), "bias": np.ones(3)}}, "relu"), "BatchNorm_0 with"),
        (lambda: ntksim.from_flax([(np.ones((7, 5)), np.ones(7))] * 2, "relu"), r"0 must have weights \(inputs, outputs\) and a"),
        (lambda: ntksim.from_flax([np.ones((5, 7)), np.ones((7, 1))], "relu"), r"the top must have weights .*; got \(5, 7\) and"),
        (lambda: ntksim.from_flax([np.ones((5, 7))] * 3, "relu"), "the top with 0, 1, 2 is no part"),
        (lambda: ntksim.from_sklearn(SimpleNamespace(hidden_layer_sizes=(3,))), "is not fitted; call fit first"),
    ],
)  # fmt: skip
def test_what_is_no_perceptron_is_refused_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


class Leaf:
    """What `from_torch` asks of a module that has no modules of its own."""

    def children(self):
        return iter(())


def stand_in(*kinds):
    """A module whose leaves have classes of these names; Linear ones are 5 by 5."""
    own = {"__module__": "torch.nn.modules.activation", "weight": np.ones((5, 5)), "bias": None}
    leaves = [type(kind, (Leaf,), own)() for kind in kinds]
    whole = SimpleNamespace(children=lambda: iter(leaves))
    return SimpleNamespace(named_modules=lambda remove_duplicate: enumerate([whole, *leaves]))


@pytest.mark.parametrize("softmax", ["Softmax", "LogSoftmax", "Softmin", "Softmax2d"])
def test_a_softmax_is_no_activation_of_ones_own(softmax):
    """It is no function of one number. Behind the last layer it is to be left out; else it is refused."""
    for kinds, words in (
        (("Linear", "ReLU", "Linear", softmax), "the last layer has an activation; leave it out"),
        (("Linear", "ReLU", "Linear", softmax, "Flatten"), "the last layer has an activation; leave it out"),
        (("Linear", softmax, "Linear"), f"{softmax}, which acts on all outputs of a layer together, is no part of a multilayer"),
    ):
        for activation in (None, "relu"):
            with pytest.raises(ValueError, match=words) as caught:
                ntksim.from_torch(stand_in(*kinds), activation)
            assert "\n" not in str(caught.value)


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def module_of(torch, activation, biases=(True, True, True), dtype="float64"):
    torch.manual_seed(0)
    sizes, parts = (5, 7, 6, 3), []
    for i in range(3):
        parts += [torch.nn.Linear(sizes[i], sizes[i + 1], bias=biases[i]), *([activation()] if i < 2 else [])]
    return torch.nn.Sequential(torch.nn.Flatten(), *parts).to(getattr(torch, dtype))


def torch_kernel(torch, module, x):
    """The Gram matrix of torch.func's own Jacobian."""
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    tensor = torch.as_tensor(x, dtype=next(iter(parameters.values())).dtype)
    jacobian = torch.func.jacrev(lambda own: torch.func.functional_call(module, own, (tensor,)))(parameters)
    flat = torch.cat([part.reshape(len(x), 3, -1) for part in jacobian.values()], dim=2).double().numpy()
    return np.einsum("iap,jbp->iajb", flat, flat)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize("biases", [(True, True, True), (False, True, False), (False, False, False), (False, False, True)])
@pytest.mark.parametrize("activation", ["ReLU", "Tanh", "GELU"])
def test_kernels_of_torch_modules(activation, biases, dtype, tolerance):
    torch = pytest.importorskip("torch")
    module = module_of(torch, getattr(torch.nn, activation), biases, dtype)
    network, parameters = ntksim.from_torch(module)
    expected = torch_kernel(torch, module, X.astype(dtype))
    assert_close(ntksim.empirical_ntk(network, X.astype(dtype), parameters=parameters), expected, tolerance)


@pytest.mark.parametrize(
    ("activation", "options", "name"),
    [
        ("LeakyReLU", {}, "leaky_relu(0.01)"),
        ("GELU", {"approximate": "tanh"}, "gelu_tanh"),
        ("Sigmoid", {}, "sigmoid"),
        ("SiLU", {}, "silu"),
        ("ELU", {}, "elu"),
        ("ELU", {"alpha": 0.4}, "elu(0.4)"),
        ("CELU", {}, "elu"),
        ("SELU", {}, "selu"),
        ("Softplus", {}, "softplus"),
    ],
)
def test_activations_of_torch(activation, options, name):
    torch = pytest.importorskip("torch")
    module = module_of(torch, lambda: getattr(torch.nn, activation)(**options))
    network, parameters = ntksim.from_torch(module)
    assert network.activation == name
    assert_close(ntksim.empirical_ntk(network, X, parameters=parameters), torch_kernel(torch, module, X), 1e-12)


def test_one_activation_that_acts_many_times():
    torch = pytest.importorskip("torch")
    nn, torch_tanh = torch.nn, torch.nn.Tanh()
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(7, 6), torch_tanh)
    module = nn.Sequential(nn.Linear(5, 7), torch_tanh, inner, nn.Linear(6, 3)).double()
    network, parameters = ntksim.from_torch(module)
    assert (network.depth, network.activation) == (2, "tanh")
    assert_close(ntksim.empirical_ntk(network, X, parameters=parameters), torch_kernel(torch, module, X), 1e-12)


def test_activations_of_torch_that_ntksim_does_not_have():
    nn = pytest.importorskip("torch").nn
    for activation, words in (
        (nn.CELU(2.0), r"ntksim has CELU with its default numbers alone; got CELU\(alpha=2.0\)"),
        (nn.Softplus(2.0), r"ntksim has Softplus with its default numbers alone; got Softplus\(beta=2.0"),
        (nn.Softplus(threshold=1.0), "ntksim has Softplus with its default numbers alone"),
        (nn.ELU(-1.0), r"activation must be elu with a number .* got 'elu\(-1.0\)'"),
        (nn.Mish(), r"Mish is none of ntksim's activations; make an ntksim.Activation .* the module's state_dict\(\)"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            ntksim.from_torch(nn.Sequential(nn.Linear(5, 7), activation, nn.Linear(7, 1)))
        assert "\n" not in str(caught.value)


def test_parameters_that_the_kernel_would_count_otherwise_are_refused():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Scaled(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1))
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.scale * super().forward(x)

    twice = nn.Linear(5, 5)
    shared = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1))
    shared[2].weight = shared[0].weight
    for module, words in (
        (nn.Sequential(twice, nn.Tanh(), twice, nn.Tanh(), nn.Linear(5, 1)), "a Linear layer whose weights act twice is no part"),
        (shared, "a Linear layer whose weights act twice is no part"),
        (Scaled(), "the parameter scale is no part"),
    ):
        with pytest.raises(ValueError, match=words):
            ntksim.from_torch(module)


def test_files_of_torch(tmp_path):
    torch, safetensors = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    module = module_of(torch, torch.nn.ReLU, dtype="float32")
    torch.save(module.state_dict(), tmp_path / "model.pt")
    safetensors.save_file({k: v.bfloat16() for k, v in module.state_dict().items()}, tmp_path / "model.safetensors")
    with torch.no_grad():
        expected = module(torch.as_tensor(X, dtype=torch.float32)).numpy()
        rough = module.bfloat16().double()(torch.as_tensor(X)).numpy()
    for file, outputs, tolerance in (("model.pt", expected, 1e-6), ("model.safetensors", rough, 1e-12)):
        network, parameters = ntksim.from_torch(tmp_path / file, activation="relu")
        assert_close(ntksim.network_outputs(network, X, parameters=parameters), outputs, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
def test_what_changes_between_two_checkpoints(dtype, tolerance, tmp_path):
    """Changes of the kernel and of outputs after steps that are large enough for the kernel to change by half."""
    torch = pytest.importorskip("torch")
    module = module_of(torch, torch.nn.Tanh, dtype=dtype)
    points, targets = torch.as_tensor(X).to(getattr(torch, dtype)), torch.ones(4, 3, dtype=getattr(torch, dtype))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    found, expected = [], []
    for name in ("start.pt", "end.pt"):
        torch.save(module.state_dict(), tmp_path / name)
        network, parameters = ntksim.from_torch(tmp_path / name, activation="tanh")
        kernel = ntksim.empirical_ntk(network, np.asarray(points), parameters=parameters)
        found.append((kernel, ntksim.network_outputs(network, np.asarray(points), parameters=parameters)))
        expected.append((torch_kernel(torch, module, points), module(points).detach().numpy()))
        for _ in range(20):
            optimizer.zero_grad()
            (5 * torch.nn.functional.mse_loss(module(points), targets)).backward()
            optimizer.step()
    for (before, after), (old, new) in zip(zip(*found, strict=True), zip(*expected, strict=True), strict=True):
        assert np.linalg.norm(new - old) > 0.3 * np.linalg.norm(old)
        assert_close(after - before, new.astype(float) - old, tolerance)


def test_to_torch_and_back():
    torch = pytest.importorskip("torch")
    module = module_of(torch, torch.nn.Tanh, (True, False, True))
    state = ntksim.to_torch(*ntksim.from_torch(module))
    twin = torch.nn.Sequential(*list(module)[1:])
    assert {name: tuple(value.shape) for name, value in twin.state_dict().items()} == {
        k: tuple(v.shape) for k, v in state.items()
    }
    twin.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(twin(torch.as_tensor(X)), module(torch.as_tensor(X)))
    with pytest.raises(ValueError, match="to_torch needs parameterization 'standard'"):
        ntksim.to_torch(ntksim.Network(1, 4), ntksim.sample_parameters(ntksim.Network(1, 4), 5, 0))


def test_modules_that_are_no_chain_are_refused():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act, self.second = nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5)
            self.act2, self.last = nn.Tanh(), nn.Linear(5, 1)

        def forward(self, x):
            h = self.act(self.first(x))
            return self.last(self.act2(self.second(h)) + h)

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(5, 5), nn.Linear(5, 1)

        def forward(self, x):
            return self.last(torch.relu(self.first(x)))

    for module in (Skip(), Functional()):
        with pytest.raises(ValueError, match="outputs are not those of its layers"):
            ntksim.from_torch(module)
    assert ntksim.from_torch(Functional(), activation="relu")[0].activation == "relu"
    for layer in (nn.Dropout(), nn.BatchNorm1d(7), nn.LayerNorm(7)):
        with pytest.raises(ValueError, match=f"{type(layer).__name__} is no part of a multilayer perceptron"):
            ntksim.from_torch(nn.Sequential(nn.Linear(5, 7), layer, nn.ReLU(), nn.Linear(7, 1)))
    with pytest.raises(ValueError, match="one activation for all hidden layers; got relu, tanh"):
        ntksim.from_torch(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 1)))
    with pytest.raises(ValueError, match="the last layer has an activation"):
        ntksim.from_torch(nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1), nn.Tanh()))


# --- JAX --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu_tanh"])
def test_kernels_of_jax_in_float64(activation):
    jax = pytest.importorskip("jax")
    phi = {"relu": jax.nn.relu, "tanh": jax.numpy.tanh, "gelu_tanh": jax.nn.gelu}[activation]

    def outputs(pairs, x):
        for weights, bias in pairs[:-1]:
            x = phi(x @ weights + bias)
        return x @ pairs[-1][0] + pairs[-1][1]

    pairs = [(weights.T, bias) for weights, bias in arrays()]
    with jax.enable_x64(True):
        expected = np.asarray(outputs(jax.tree_util.tree_map(jax.numpy.asarray, pairs), X))
        jacobian = jax.tree_util.tree_leaves(jax.jacrev(outputs)(jax.tree_util.tree_map(jax.numpy.asarray, pairs), X))
        flat = np.concatenate([np.reshape(part, (len(X), 3, -1)) for part in jacobian], axis=2)
    assert flat.dtype == np.float64
    network, parameters = ntksim.from_flax(pairs, activation=activation)
    assert_close(ntksim.network_outputs(network, X, parameters=parameters), expected, 1e-12)
    assert_close(ntksim.empirical_ntk(network, X, parameters=parameters), np.einsum("iap,jbp->iajb", flat, flat), 1e-12)


def test_kernels_of_flax_modules(tmp_path):
    jax, nn = pytest.importorskip("jax"), pytest.importorskip("flax.linen")
    from flax import serialization

    class Perceptron(nn.Module):
        @nn.compact
        def __call__(self, x):
            for width in (7, 6):
                x = nn.gelu(nn.Dense(width)(x), approximate=False)
            return nn.Dense(1, use_bias=False)(x)[..., 0]

    model = Perceptron()
    variables = model.init(jax.random.PRNGKey(0), X)
    (tmp_path / "model.msgpack").write_bytes(serialization.to_bytes(variables))
    jacobian = jax.jacrev(lambda own: model.apply(own, X))(variables)
    flat = np.concatenate([np.reshape(part, (len(X), -1)) for part in jax.tree_util.tree_leaves(jacobian)], axis=1)
    for source in (variables, tmp_path / "model.msgpack"):
        network, parameters = ntksim.from_flax(source, activation="gelu")
        assert_close(ntksim.empirical_ntk(network, X, parameters=parameters), flat @ flat.T, 1e-6 * math.sqrt(10))


@pytest.fixture
def keras(monkeypatch):
    if "KERAS_BACKEND" not in os.environ:
        monkeypatch.setenv("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras")


def jax_kernel_of(keras, model, x):
    """The Gram matrix of JAX's own Jacobian of a Keras model."""
    jax = pytest.importorskip("jax")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras runs on another backend than JAX")
    values = [variable.value for variable in model.trainable_variables]
    jacobian = jax.jacrev(lambda own: model.stateless_call(own, [], x.astype(np.float32))[0])(values)
    k = model.output_shape[-1]
    flat = np.concatenate([np.reshape(part, (len(x), k, -1)) for part in jacobian], axis=2).astype(np.float64)
    return np.einsum("iap,jbp->iajb", flat, flat)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of NumPy, at Keras' own arrays
def test_models_of_keras(tmp_path, keras):
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(7, activation="tanh"), layers.Dense(6, use_bias=False), layers.Activation("tanh"),
         layers.Dense(2)]
    )  # fmt: skip
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    expected, kernel = np.asarray(model(X.astype(np.float32))), jax_kernel_of(keras, model, X)
    for source in (model, tmp_path / "model.keras", tmp_path / "model.weights.h5"):
        network, parameters = ntksim.from_keras(source, activation="tanh")
        assert [bias is not None for bias in parameters.biases] == [True, False]
        assert_close(ntksim.network_outputs(network, X, parameters=parameters), expected, 1e-6)
        assert_close(ntksim.empirical_ntk(network, X, parameters=parameters), kernel, 2e-6)
    with pytest.raises(ValueError, match="Dropout is no part of a multilayer perceptron"):
        ntksim.from_keras(
            keras.Sequential([keras.Input((5,)), layers.Dense(7, activation="tanh"), layers.Dropout(0.5), layers.Dense(1)])
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_keras_models_in_a_model(tmp_path, keras):
    """Square layers, of which any order fits: a file's groups are named by class, dense, dense_1, sequential, sequential_1."""
    layers = keras.layers

    def dense():
        return layers.Dense(5, activation="tanh", bias_initializer="glorot_uniform")

    inner = keras.Sequential([dense(), dense()], name="a_name")
    point = keras.Input((5,))
    functional = keras.Model(point, dense()(dense()(point)))
    model = keras.Sequential([keras.Input((5,)), keras.Sequential([dense()]), dense(), inner, functional, layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    for source in (model, tmp_path / "model.keras"):
        network, parameters = ntksim.from_keras(source)
        assert network.depth == 6
        outputs = ntksim.network_outputs(network, X, parameters=parameters)
        assert_close(outputs, np.asarray(model(X.astype(np.float32))), 1e-6)
    with pytest.raises(ValueError, match="holds a model in the model .*: give the model, or a .keras file"):
        ntksim.from_keras(tmp_path / "model.weights.h5", activation="tanh")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_keras_layers_that_do_not_act_once_are_refused(tmp_path, keras):
    point, layer = keras.Input((5,)), keras.layers.Dense(5, activation="tanh")
    hidden = layer(point)
    last, other = keras.layers.Dense(1), keras.layers.Dense(5, activation="tanh")
    for name, model, words in (
        ("twice", keras.Model(point, last(layer(hidden))), "does not act once"),
        ("two outputs", keras.Model(point, [last(other(hidden)), hidden]), "several outputs|whose output is not its last layer"),
    ):
        model.save(tmp_path / f"{name}.keras")
        for source, said in ((model, "outputs are not those of its layers|several outputs"), (tmp_path / f"{name}.keras", words)):
            with pytest.raises(ValueError, match=said):
                ntksim.from_keras(source)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("layer", "options", "name"),
    [
        ("LeakyReLU", {}, "leaky_relu(0.3)"),
        ("LeakyReLU", {"negative_slope": 0.2}, "leaky_relu(0.2)"),
        ("ReLU", {"negative_slope": 0.25}, "leaky_relu(0.25)"),
        ("ReLU", {}, "relu"),
        ("ELU", {"alpha": 0.4}, "elu(0.4)"),
        ("Activation", {"activation": "leaky_relu"}, "leaky_relu(0.2)"),
        ("Activation", {"activation": "celu"}, "elu"),
        ("Activation", {"activation": "gelu"}, "gelu"),
        ("Activation", {"activation": "exponential"}, "exp"),
    ],
)
def test_activations_of_keras(keras, layer, options, name):
    """`from_keras` compares the outputs."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((5,)), layers.Dense(7), getattr(layers, layer)(**options), layers.Dense(2)])
    assert ntksim.from_keras(model)[0].activation == name
