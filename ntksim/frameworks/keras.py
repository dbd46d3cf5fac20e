"""Multilayer perceptrons of Keras 3: models, and the files that it writes."""

import json
import zipfile
from collections.abc import Iterator
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ntksim.engine.finite.parameters import Parameters
from ntksim.engine.network import Network
from ntksim.frameworks.chain import Linear, assembled, between, checked, refused

_NAMES = {"swish": "silu", "leaky_relu": "leaky_relu(0.2)"}  # Keras' own slope
_PLAIN_RELU = {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}
_PASSED = ("InputLayer", "Flatten")


def from_keras(source: Any, activation: str | None = None) -> tuple[Network, Parameters]:
    """The network and the parameters of a multilayer perceptron of Keras 3, in parameterization ``standard``.

    Parameters
    ----------
    source : a model of Dense layers and one activation, whose outputs are compared on a few random points; or the path of a
        ``.keras`` file, or of a ``.weights.h5`` file, which needs ``activation``.
    activation : the activation of hidden layers, where weights alone are given.

    Raises
    ------
    TypeError or ValueError for what is no multilayer perceptron, in one line; ModuleNotFoundError without h5py for files.
    """
    if isinstance(source, (str, PathLike)):
        return _from_file(Path(source), activation)
    if not hasattr(source, "layers") or not hasattr(source, "get_config"):
        raise TypeError(f"source must be a Keras model, or a path; got {type(source).__name__}")
    name = type(source).__name__
    dense = (layer.get_weights() for layer in source.layers if type(layer).__name__ == "Dense")
    described = [(type(layer).__name__, layer.get_config()) for layer in source.layers]
    found = assembled(_parts(described, dense, name), name)
    return checked(found, lambda x: np.asarray(source(x.astype(np.float32))), name)


def _parts(described: Any, dense: Iterator[list[Any]], source: str) -> Iterator[Linear | str]:
    """Layers and activations from the classes and configurations of Keras' layers, and the arrays of its Dense ones."""
    for kind, config in described:
        if kind == "Dense":
            arrays = next(dense, None)
            if arrays is None:
                raise ValueError(f"{source}: the weights of a Dense layer are missing")
            yield _linear(arrays)
        elif kind not in ("Activation", "ReLU", "ELU", "LeakyReLU", *_PASSED):
            raise refused(source, kind)
        if kind in ("Dense", "Activation"):
            name = config["activation"]
            if not isinstance(name, str):
                raise refused(source, f"activation {name!r}")
            if name != "linear":
                yield _NAMES.get(name, name)
        elif kind == "LeakyReLU":
            yield f"leaky_relu({config['negative_slope']!r})"
        elif kind == "ELU":
            yield f"elu({config['alpha']!r})"
        elif kind == "ReLU":
            if any((config.get(name) or 0.0) != (plain or 0.0) for name, plain in _PLAIN_RELU.items()):
                raise refused(source, "ReLU with max_value, negative_slope or threshold")
            yield "relu"


def _linear(arrays: list[Any]) -> Linear:
    kernel, *bias = (np.asarray(array, np.float64) for array in arrays)
    return Linear(np.ascontiguousarray(kernel.T), bias[0] if bias else None)


def _from_file(path: Path, activation: str | None) -> tuple[Network, Parameters]:
    name = str(path)
    if name.endswith(".weights.h5"):
        return assembled(between(map(_linear, _dense(path, name)), activation, name), name)
    if path.suffix != ".keras":
        raise ValueError(f"{path}: expected a file .keras or .weights.h5")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            weights = BytesIO(archive.read("model.weights.h5"))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path}: is no .keras file of Keras 3 ({error})") from None
    described = [(layer["class_name"], layer["config"]) for layer in config["config"]["layers"]]
    return assembled(_parts(described, _dense(weights, name), name), name)


def _dense(file: Any, source: str) -> Iterator[list[Any]]:
    """The arrays of Dense layers in order: layers/dense, layers/dense_1, ..., of each vars/0 (kernel) and vars/1 (bias)."""
    import h5py

    with h5py.File(file, "r") as stored:
        layers = stored["layers"]
        names = [name for name in layers if len(layers[name].get("vars", ()))]
        order = {name: int(name.rpartition("_")[2]) if name[-1].isdigit() else 0 for name in names}
        for name in names:
            if not name.startswith("dense"):
                raise refused(source, name)
        for name in sorted(names, key=order.__getitem__):
            variables = layers[name]["vars"]
            yield [variables[key][()] for key in sorted(variables, key=int)]
