"""Multilayer perceptrons of Flax, and of other JAX libraries that keep parameters in nested dictionaries."""

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ntksim.engine.finite.parameters import Parameters
from ntksim.engine.network import Network
from ntksim.frameworks.chain import Linear, assembled, between, in_order, refused


def from_flax(source: Any, activation: str) -> tuple[Network, Parameters]:
    """The network and the parameters of a multilayer perceptron of Flax, in parameterization ``standard``.

    Parameters
    ----------
    source : nested dictionaries of dense layers, each ``{"kernel": (inputs, outputs), "bias": (outputs,)}`` (``bias`` may be
        missing), as ``Module.init`` and ``nnx.state`` return; or the path of such parameters, ``.msgpack`` as
        ``flax.serialization.to_bytes`` writes, or ``.npz`` with names such as ``Dense_0/kernel`` or ``Dense_0.kernel``. Layers
        act in the order of the numbers in their names, or in that of the dictionary if its sizes fit.
    activation : the activation of hidden layers, which parameters do not tell.

    Raises
    ------
    TypeError or ValueError for what are no dense layers, in one line; ModuleNotFoundError without flax for ``.msgpack``.
    """
    name = "parameters"
    if isinstance(source, (str, PathLike)):
        name, source = str(source), _read(Path(source))
    if not isinstance(source, Mapping):
        raise TypeError(f"source must be nested dictionaries of parameters, or a path; got {type(source).__name__}")
    layers: dict[str, Linear] = {}
    for path, node in _nodes(source, ()):
        where = "/".join(path)
        kernel = _array(node["kernel"]) if "kernel" in node else np.empty(0)
        if kernel.ndim != 2 or set(node) - {"kernel", "bias"}:
            raise refused(name, f"{where or 'the top'} with {', '.join(map(str, node))}")
        layers[where] = Linear(np.ascontiguousarray(kernel.T), _array(node["bias"]) if "bias" in node else None)
    return assembled(between(in_order(layers), activation, name), name)


def _nodes(tree: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """The dictionaries that hold arrays, and where they are."""
    children = {key: value for key, value in tree.items() if isinstance(value, Mapping)}
    if len(children) < len(tree):
        yield path, {str(key): value for key, value in tree.items() if key not in children}
    for key, value in children.items():
        yield from _nodes(value, (*path, str(key)))


def _read(path: Path) -> Any:
    if path.suffix == ".msgpack":
        from flax import serialization

        return serialization.msgpack_restore(path.read_bytes())
    if path.suffix != ".npz":
        raise ValueError(f"{path}: expected a file .msgpack or .npz")
    tree: dict[str, Any] = {}
    with np.load(path) as arrays:
        for name in arrays.files:
            *parts, last = name.replace(".", "/").split("/")
            node = tree
            for part in parts:
                node = node.setdefault(part, {})
            node[last] = arrays[name]
    return tree


def _array(value: Any) -> np.ndarray:
    """An array of NumPy or JAX (bfloat16 too), or an nnx variable that holds one, in float64."""
    return np.array(getattr(value, "value", value)).astype(np.float64)
