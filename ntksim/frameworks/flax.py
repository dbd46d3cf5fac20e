"""Multilayer perceptrons of Flax, and of other JAX libraries that keep parameters in nested dictionaries and lists."""

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ntksim.engine.activation import Activation
from ntksim.engine.finite.parameters import Parameters
from ntksim.engine.network import Network
from ntksim.frameworks.chain import Linear, assembled, between, in_order, refused

_BRANCHES = (Mapping, list, tuple)
_NAMES = (("kernel", "bias"), ("w", "b"))  # Flax and Haiku; stax' pairs come as the latter


def from_flax(source: Any, activation: str | Activation) -> tuple[Network, Parameters]:
    """The network and the parameters of a multilayer perceptron of Flax, Haiku or stax, in parameterization ``standard``.

    Parameters
    ----------
    source : dense layers ``{"kernel": (inputs, outputs), "bias": (outputs,)}`` in nested dictionaries, as ``Module.init`` and
        ``nnx.state`` of Flax return; Haiku's ``{"w": ..., "b": ...}`` of the same shapes; or a list of pairs of such arrays,
        ``[(W, b), (), (W, b)]``, as ``stax.serial`` returns. A bias may be missing or None. Or the path of parameters,
        ``.msgpack`` as ``flax.serialization.to_bytes`` writes, or ``.npz`` with names such as ``Dense_0/kernel`` or
        ``Dense_0.kernel``. Layers of a list act in its order; those of a dictionary in the order of the numbers in their names,
        or in its own if its sizes fit.
    activation : the activation of hidden layers in ntksim's spelling, or an `Activation` of your own: parameters do not tell.

    Layers are taken as x W + b. Those of ``neural_tangents.stax`` have multipliers unless they are made with
    ``parameterization="standard"``.

    Raises
    ------
    TypeError or ValueError for what are no dense layers, in one line; ModuleNotFoundError without flax for ``.msgpack``.
    """
    name = "parameters"
    if isinstance(source, (str, PathLike)):
        name, source = str(source), _read(Path(source))
    if not isinstance(source, (Mapping, list, tuple)):
        raise TypeError(
            f"source must be nested dictionaries of parameters, a list of pairs, or a path; got {type(source).__name__}"
        )
    layers = {where: _dense(node, where, name) for where, node in _nodes(source, "")}
    return assembled(between(in_order(layers), activation, name), name)


def _nodes(tree: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The dictionaries and sequences that hold arrays, and where they are; sequences as dictionaries of w and b."""
    if isinstance(tree, (list, tuple)):
        pair = 0 < len(tree) <= 2 and not any(isinstance(value, _BRANCHES) for value in tree)
        tree = dict(zip("wb", tree, strict=False)) if pair else dict(enumerate(tree))
    children = {key: value for key, value in tree.items() if isinstance(value, _BRANCHES)}
    if len(children) < len(tree):
        yield path, {str(key): value for key, value in tree.items() if key not in children}
    for key, value in children.items():
        yield from _nodes(value, f"{path}/{key}" if path else str(key))


def _dense(node: Mapping[str, Any], where: str, source: str) -> Linear:
    for weight, bias in _NAMES:
        kernel = _array(node[weight]) if weight in node else np.empty(0)
        if kernel.ndim == 2 and not set(node) - {weight, bias}:
            own = None if node.get(bias) is None else _array(node[bias])
            if own is not None and own.shape != kernel.shape[1:]:
                raise ValueError(
                    f"{source}: {where or 'the top'} must have weights (inputs, outputs) and a bias (outputs,); got "
                    f"{kernel.shape} and {own.shape}"
                )
            return Linear(np.ascontiguousarray(kernel.T), own)
    raise refused(source, f"{where or 'the top'} with {', '.join(node)}")


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
