"""Multilayer perceptrons of Keras 3: models, and the files that it writes."""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ntksim.engine.activation import Activation
from ntksim.engine.finite.parameters import Parameters
from ntksim.engine.network import Network
from ntksim.frameworks.chain import Linear, assembled, between, checked, refused

_NAMES = {"swish": "silu", "celu": "elu", "exponential": "exp", "leaky_relu": "leaky_relu(0.2)"}  # 0.2: Keras' own slope
_PASSED = ("InputLayer", "Flatten")
_Layer = tuple[str, Mapping[str, Any], list[Any]]  # a layer's class, its configuration and its arrays


def from_keras(source: Any, activation: str | Activation | None = None) -> tuple[Network, Parameters]:
    """The network and the parameters of a multilayer perceptron of Keras 3, in parameterization ``standard``.

    Parameters
    ----------
    source : a model of Dense layers and one activation, models in it too, whose outputs are compared on a few random points; or
        the path of a ``.keras`` file, or of a ``.weights.h5`` file without models in the model, which needs ``activation``.
    activation : the activation of hidden layers, where weights alone are given; in ntksim's spelling, or an `Activation` of your
        own.

    Raises
    ------
    TypeError or ValueError for what is no multilayer perceptron, in one line; ModuleNotFoundError without h5py for files.
    """
    if isinstance(source, (str, PathLike)):
        return _from_file(Path(source), activation)
    if not hasattr(source, "layers") or not hasattr(source, "get_config"):
        raise TypeError(f"source must be a Keras model, or a path; got {type(source).__name__}")
    name, layers = type(source).__name__, list(_flat(source))
    if len(getattr(source, "outputs", None) or [None]) > 1:
        raise refused(name, "a model with several outputs")
    found = assembled(_parts(((type(own).__name__, own.get_config(), own.get_weights()) for own in layers), name), name)
    dense = [id(layer) for layer in layers if layer.weights]
    if len(set(dense)) < len(dense):
        raise refused(name, "a Dense layer that acts twice")
    if len(source.weights) > sum(len(layer.weights) for layer in layers):
        raise refused(name, "a model with parameters beside those of its layers")
    return checked(found, lambda x: np.asarray(source(x.astype(np.float32))), name)


def _flat(model: Any) -> Iterator[Any]:
    """Layers of a model and of the models in it, in order."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _flat(layer)
        elif type(layer).__name__ not in _PASSED:
            yield layer


def _parts(layers: Iterable[_Layer], source: str) -> Iterator[Linear | str]:
    """Linear layers and activations of Keras' layers."""
    for kind, config, arrays in layers:
        if kind == "Dense":
            yield _linear(arrays, source)
        if kind in ("Dense", "Activation"):
            name = config["activation"]
            if not isinstance(name, str):
                raise refused(source, f"activation {name!r}")
            if name != "linear":
                yield _NAMES.get(name, name)
        elif kind in ("ReLU", "LeakyReLU", "ELU"):
            yield _with_number(kind, config, source)
        elif kind not in _PASSED:
            raise refused(source, kind)


def _with_number(kind: str, config: Mapping[str, Any], source: str) -> str:
    """ntksim's name of an activation that is a layer of its own."""
    if kind == "ELU":
        return f"elu({config['alpha']!r})"
    if config.get("max_value") is not None or config.get("threshold"):
        raise refused(source, "ReLU with max_value or threshold")
    slope = config.get("negative_slope") or 0.0
    return f"leaky_relu({slope!r})" if slope else "relu"


def _linear(arrays: list[Any], source: str) -> Linear:
    if len(arrays) not in (1, 2):
        raise ValueError(f"{source}: expected a Dense layer's kernel and bias; got {len(arrays)} arrays")
    kernel, *bias = (np.asarray(array, np.float64) for array in arrays)
    return Linear(np.ascontiguousarray(kernel.T), bias[0] if bias else None)


def _from_file(path: Path, activation: str | Activation | None) -> tuple[Network, Parameters]:
    name = str(path)
    if name.endswith(".weights.h5"):
        return assembled(between(list(_of_weights(path, name)), activation, name), name)
    if path.suffix != ".keras":
        raise ValueError(f"{path}: expected a file .keras or .weights.h5")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]
            weights = BytesIO(archive.read("model.weights.h5"))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path}: is no .keras file of Keras 3 ({error})") from None
    import h5py

    with h5py.File(weights, "r") as stored:
        return assembled(_parts(_of_group(config, stored, name), name), name)


def _of_group(config: Mapping[str, Any], group: Any, source: str) -> Iterator[_Layer]:
    """Layers of a model's configuration, and of the models in it, in order, with their arrays in a group of an HDF5 file.

    Keras names groups by class: layers/dense, layers/dense_1, ..., layers/sequential, whose own are in layers/sequential/layers.
    """
    _check_chain(config, source)
    used: Counter[str] = Counter()
    for layer in config["layers"]:
        kind, own = layer["class_name"], layer["config"]
        stem = kind.lower()
        stored = group.get(f"layers/{stem}_{used[stem]}" if used[stem] else f"layers/{stem}", {})
        used[stem] += 1
        if "layers" in own:
            yield from _of_group(own, stored, source)
        else:
            yield kind, own, _arrays(stored.get("vars", {}))


def _check_chain(config: Mapping[str, Any], source: str) -> None:
    """Refuse a functional model unless each layer acts once, on the layer before it, and the last one is the output."""
    last = None
    for layer in config["layers"]:
        if "inbound_nodes" not in layer:
            return  # of a Sequential model
        if list(_inputs(layer["inbound_nodes"])) != ([] if last is None else [last]):
            raise refused(source, f"a model whose layer {layer['name']} does not act once, on the one layer before it,")
        last = layer["name"]
    if last is not None and list(_words(config["output_layers"])) != [last]:
        raise refused(source, "a model whose output is not its last layer")


def _inputs(nodes: Any) -> Iterator[str]:
    """Names of the layers whose outputs a layer takes, of all times that it acts."""
    if isinstance(nodes, Mapping):
        if "keras_history" in nodes:
            yield nodes["keras_history"][0]
            return
        nodes = list(nodes.values())
    for node in nodes if isinstance(nodes, list) else ():
        yield from _inputs(node)


def _words(value: Any) -> Iterator[str]:
    """The strings in nested lists."""
    if isinstance(value, str):
        yield value
    for one in value if isinstance(value, list) else ():
        yield from _words(one)


def _arrays(variables: Mapping[str, Any]) -> list[Any]:
    """The arrays of a layer: vars/0, the kernel, and vars/1, the bias."""
    return [variables[key][()] for key in sorted(variables, key=int)]


def _of_weights(path: Path, source: str) -> Iterator[Linear]:
    """Dense layers in order, from a file of weights alone: layers/dense, layers/dense_1, ...

    Of models in the model such a file does not tell the order.
    """
    import h5py

    with h5py.File(path, "r") as stored:
        holders: list[str] = []
        stored.visititems(lambda at, node: holders.append(at) if at.rpartition("/")[2] == "vars" and len(node) else None)
        for at in holders:
            if at.count("/layers/") and at.startswith("layers/"):
                raise ValueError(
                    f"{source}: holds a model in the model ({at}), and does not tell in what order they act: give the model, or "
                    "a .keras file"
                )
            if not re.fullmatch(r"layers/dense(_\d+)?/vars", at):
                raise refused(source, at.removesuffix("/vars").removeprefix("layers/"))
        for at in sorted(holders, key=lambda own: [int(number) for number in re.findall(r"\d+", own)]):
            yield _linear(_arrays(stored[at]), source)
