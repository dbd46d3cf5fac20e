"""A network's parameters: as arrays a layer, and as the one flat vector that compiled code works on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from ntksim.engine import known_answers
from ntksim.engine.arguments import numeric, positive_integer, precision, seed_array
from ntksim.engine.cpu import draws
from ntksim.engine.cpu.compiled_network import compiled_network
from ntksim.engine.layout import Net, parameter_offsets, stored_weights
from ntksim.engine.network import Network, checked_network


@dataclass(frozen=True, repr=False)
class Parameters:
    """Parameters of one network as they are stored, before any forward multiplier.

    ``weights`` holds L arrays (n_l, n_(l-1)). ``biases`` holds L entries, an array (n_l,) or None for a layer without biases;
    it is None if no hidden layer has them. ``readout`` is (n_L,), or (k, n_L) for k > 1 outputs. ``output_bias`` is a number,
    or (k,) for k > 1 outputs, or None without one.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray | None, ...] | None
    readout: np.ndarray
    output_bias: float | np.ndarray | None = None

    def __repr__(self) -> str:
        shapes = [tuple(np.shape(weights)) for weights in (*self.weights, self.readout)]
        layers = [own is not None for own in self.biases or ()]
        biases = "none" if not any(layers) else "all hidden layers" if all(layers) else f"hidden layers {_numbers(layers)}"
        output = ", output" if self.output_bias is not None else ""
        return f"Parameters(weights and readout {', '.join(map(str, shapes))}; biases: {biases}{output})"


def _numbers(layers: Sequence[bool]) -> str:
    return ", ".join(str(layer) for layer, has in enumerate(layers, 1) if has)


def sample_parameters(network: Network, input_dim: int, seed: int, dtype: Any = "float64") -> Parameters:
    """The parameters of one seed: the very numbers that every other function uses for it.

    Entries are float32 numbers in both precisions. Networks that differ only in activation, parameterization or scales
    share their underlying normals.

    Raises
    ------
    TypeError or ValueError for an ``input_dim`` below 1, a bad seed or an unknown dtype.
    """
    checked_network(network)
    input_dim = positive_integer("input_dim", input_dim)
    seeds, kind = seed_array([seed]), precision(dtype)
    known_answers.check("parameters", kind.name)
    net = compiled_network(network, input_dim)
    theta = np.empty(parameter_offsets(net)[-1], kind)
    draws.draw_into(seeds[0], net, stored_weights(net, theta))
    has_biases = [network.sigma_b is not None] * network.depth + [network.output_bias]
    return unpacked(net, theta, has_biases)


def unpacked(net: Net, theta: np.ndarray, has_biases: Sequence[bool]) -> Parameters:
    """The arrays in a flat parameter vector, as copies; ``has_biases`` says it of layers 1..L and of the output."""
    offsets, widths, lengths = parameter_offsets(net), net.widths, net.lengths
    matrices, vectors = [], []
    for layer in range(1, widths.size):
        at, size, length = offsets[2 * layer - 2], widths[layer], lengths[layer - 1]
        matrices.append(theta[at : at + size * length].reshape(size, length)[:, : widths[layer - 1]].copy())
        at = offsets[2 * layer - 1]
        vectors.append(theta[at : at + size].copy() if has_biases[layer - 1] else None)
    readout, last = matrices.pop(), vectors.pop()
    biases = tuple(vectors) if any(has_biases[:-1]) else None
    if len(readout) > 1:
        return Parameters(tuple(matrices), biases, readout, last)
    return Parameters(tuple(matrices), biases, readout[0], None if last is None else float(last[0]))


def packed(
    network: Network, input_dim: int, parameters: Parameters, kind: np.dtype, name: str = "parameters"
) -> tuple[Net, np.ndarray]:
    """The network whose biases are those that ``parameters`` has, and its flat parameter vector in ``kind``.

    ``name`` is the argument's, for errors.

    A layer with biases has the multiplier of the parameterization: 1 in ``standard`` and ``notes``, whatever ``sigma_b`` is, and
    sigma_b (times n^-a) in the others, where a network without ``sigma_b`` has that of sigma_b = 1.

    Raises
    ------
    TypeError or ValueError naming the array, its expected and its given shape, or an output bias in a parameterization of powers
    of the width, which have no multiplier for it.
    """
    if not isinstance(parameters, Parameters):
        raise TypeError(f"{name} must be ntksim.Parameters; got {_given(parameters)}")
    net = compiled_network(network, input_dim)
    layers, outputs = network.depth, network.outputs
    if len(parameters.weights) != layers:
        raise ValueError(f"{name}.weights must hold {layers} arrays, one per hidden layer; got {len(parameters.weights)}")
    hidden = parameters.biases if parameters.biases is not None else (None,) * layers
    if len(hidden) != layers:
        raise ValueError(f"{name}.biases must hold {layers} entries, one per hidden layer; got {len(hidden)}")
    offsets, theta = parameter_offsets(net), np.zeros(parameter_offsets(net)[-1], kind)
    readout = numeric(f"{name}.readout", parameters.readout)
    matrices = [*parameters.weights, readout[None] if readout.ndim == 1 and outputs == 1 else readout]
    last = parameters.output_bias
    vectors = [*hidden, None if last is None else np.reshape(last, -1)]
    names = [f"weights[{layer}]" for layer in range(layers)] + ["readout"]
    for layer, (what, matrix, vector) in enumerate(zip(names, matrices, vectors, strict=True), 1):
        size, inputs, length = int(net.widths[layer]), int(net.widths[layer - 1]), int(net.lengths[layer - 1])
        rows = theta[offsets[2 * layer - 2] :][: size * length].reshape(size, length)
        rows[:, :inputs] = _entries(f"{name}.{what}", matrix, (size, inputs), kind)
        if vector is not None:
            what = "output_bias" if layer > layers else f"biases[{layer - 1}]"
            theta[offsets[2 * layer - 1] :][:size] = _entries(f"{name}.{what}", vector, (size,), kind)
    scales = net.scales.copy()
    scales[2] = _bias_multipliers(network, [vector is not None for vector in vectors], name)
    return net._replace(scales=scales), theta


# Suffixes of files, and what objects of frameworks alone have, beside the call that makes networks and parameters of them.
_READERS = {
    ".pt": "from_torch({}, activation=...)", ".pth": "from_torch({}, activation=...)",
    ".safetensors": "from_torch({}, activation=...)", ".keras": "from_keras({})", ".h5": "from_keras({}, activation=...)",
    ".npz": "from_flax({}, activation=...)", ".msgpack": "from_flax({}, activation=...)",
}  # fmt: skip
_MARKS = {"state_dict": "from_torch({})", "coefs_": "from_sklearn({})", "get_weights": "from_keras({})"}


def _given(value: object) -> str:
    """What was given in place of `Parameters`, and how to make them of it."""
    what = f"a {type(value).__name__}"
    if isinstance(value, (str, PathLike)):
        what = repr(fspath(value))
        call = _READERS.get(Path(value).suffix, "").format(what)
    elif isinstance(value, Mapping):
        call = "from_torch(state_dict, activation=...) or from_flax(parameters, activation=...)"
    elif isinstance(value, (tuple, list)) and any(isinstance(own, Parameters) for own in value):
        return f"{what} that holds them: unpack it, as in network, parameters = ntksim.from_torch(model)"
    else:
        call = next((of for mark, of in _MARKS.items() if hasattr(value, mark)), "").format("model")
    if not call:
        return f"{what}: make them with one of ntksim.from_torch, from_keras, from_flax and from_sklearn"
    return f"{what}: write network, parameters = ntksim.{call}"


def _entries(name: str, value: object, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    """Finite numbers of a given shape, in ``kind``."""
    array = numeric(name, value)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; got {array.shape}")
    with np.errstate(over="ignore"):
        entries = array.astype(kind)
    if not np.isfinite(entries).all():
        raise ValueError(f"{name} must hold finite numbers in {kind.name}; it holds NaN, infinity, or numbers beyond its range")
    return entries


def _bias_multipliers(network: Network, has_biases: list[bool], name: str) -> np.ndarray:
    """beta of layers 1..L+1, 0 where a layer has no biases."""
    if not any(has_biases):
        return np.zeros(len(has_biases))
    kind = network.parameterization
    if has_biases[-1] and network.exponents is not None:
        raise ValueError(f"{name}.output_bias does not exist in parameterization '{kind}': use 'standard' or 'ntk'")
    missing = 0.0 if kind in ("standard", "notes") else 1.0  # there sigma_b is in the initial scale alone
    sigma_b = missing if network.sigma_b is None else network.sigma_b
    hidden = replace(network, sigma_b=sigma_b, output_bias=False).scales(1).bias
    hidden[-1] = hidden[0] * network.output_scale
    return np.where(has_biases, hidden, 0.0)
