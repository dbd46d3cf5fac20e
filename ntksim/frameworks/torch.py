"""Multilayer perceptrons of PyTorch: modules, state dictionaries, and files of them."""

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ntksim.engine.finite.parameters import Parameters
from ntksim.engine.network import Network
from ntksim.frameworks.chain import Linear, assembled, between, checked, in_order, refused

_ACTIVATIONS = {
    "ReLU": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "SiLU": "silu", "SELU": "selu", "Identity": "linear",
}  # fmt: skip
_PASSED = ("Flatten",)  # changes nothing of points that are vectors


def from_torch(source: Any, activation: str | None = None) -> tuple[Network, Parameters]:
    """The network and the parameters of a multilayer perceptron of PyTorch, in parameterization ``standard``.

    Parameters
    ----------
    source : a module of Linear layers and one activation (nested Sequential ones too), whose outputs are compared on a few random
        points; a ``state_dict``; or the path of one, ``.pt`` or ``.pth`` (read with ``weights_only=True``) or ``.safetensors``.
    activation : the activation of hidden layers, where modules do not tell: for state dictionaries, and modules that call it in
        ``forward``.

    Returns
    -------
    (network, parameters) for ``empirical_ntk(network, x, parameters=parameters)`` and its like. Parameters are float64 numbers of
    the same value. Drawn networks of ``network`` (with seeds in place of parameters) have LeCun's scale, not PyTorch's.

    Raises
    ------
    ValueError for what is no multilayer perceptron, in one line; ModuleNotFoundError without torch (or safetensors).
    """
    if isinstance(source, (str, PathLike)):
        state: Any = _read(Path(source))
        return _from_state(state, activation, str(source))
    if isinstance(source, Mapping):
        return _from_state(source, activation, "state_dict")
    if not hasattr(source, "named_modules"):
        raise TypeError(f"source must be a torch module, a state_dict or a path; got {type(source).__name__}")
    name = type(source).__name__
    parts = list(_parts(source, name, activation))
    if activation is not None:
        parts = list(between([part for part in parts if isinstance(part, Linear)], activation, name))
    return checked(assembled(parts, name), _outputs(source), name)


def _outputs(module: Any) -> Any:
    """The module as a function of arrays, in float64 on the CPU, as it is in evaluation."""
    import copy

    import torch

    twin = copy.deepcopy(module).double().cpu().eval()

    def outputs(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(twin(torch.as_tensor(x)))

    return outputs


def _parts(module: Any, source: str, activation: str | None) -> Iterator[Linear | str]:
    """Layers and activations of a module in the order of their registration."""
    children = list(module.children())
    kind = type(module).__name__
    if children:
        for child in children:
            yield from _parts(child, source, activation)
    elif kind == "Linear":
        yield Linear(_array(module.weight), None if module.bias is None else _array(module.bias))
    elif kind == "LeakyReLU":
        yield f"leaky_relu({module.negative_slope!r})"
    elif kind == "GELU":
        yield "gelu" if module.approximate == "none" else "gelu_tanh"
    elif (kind == "ELU" and module.alpha == 1) or (kind == "Softplus" and module.beta == 1):
        yield kind.lower()
    elif kind in _ACTIVATIONS:
        yield _ACTIVATIONS[kind]
    elif kind not in _PASSED:
        raise refused(source, kind)


def _from_state(state: Mapping[str, Any], activation: str | None, source: str) -> tuple[Network, Parameters]:
    for name, value in state.items():
        if isinstance(value, (Mapping, str)) or not np.ndim(value):
            raise ValueError(
                f"{source}: {name} is no array of parameters: give the state_dict itself, such as checkpoint['model']"
            )
    arrays = {str(name): _array(value) for name, value in state.items()}
    layers: dict[str, Linear] = {}
    for name, value in arrays.items():
        stem, _, end = name.rpartition(".")
        if end == "weight" and value.ndim == 2:
            layers[stem] = Linear(value, arrays.get(f"{stem}.bias"))
        elif end != "bias" or arrays.get(f"{stem}.weight", np.empty(0)).ndim != 2:
            raise refused(source, f"{name} of shape {value.shape}")
    return assembled(between(in_order(layers), activation, source), source)


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if path.suffix not in (".pt", ".pth"):
        raise ValueError(f"{path}: expected a file .pt, .pth or .safetensors")
    import torch

    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, Mapping):
        raise ValueError(
            f"{path}: expected a state_dict, as torch.save(module.state_dict(), path) writes; got {type(loaded).__name__}"
        )
    return loaded


def _array(value: Any) -> np.ndarray:
    """A tensor (bfloat16 too, which NumPy does not know) or an array in float64."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().double().numpy()
    return np.array(value, np.float64)


def to_torch(network: Network, parameters: Parameters) -> dict[str, Any]:
    """The ``state_dict`` of a Sequential of Linear layers and activations with these parameters, tensors in their own precision.

    Its keys are ``0.weight``, ``0.bias``, ``2.weight``, ...; in ``standard``, whose multipliers are 1, the module computes what
    the network does, if ``output_scale`` is 1.

    Raises
    ------
    ValueError for another parameterization or output scale: PyTorch's layers have no multipliers.
    """
    import torch

    if network.parameterization != "standard" or network.output_scale != 1:
        raise ValueError(
            "to_torch needs parameterization 'standard' and output_scale 1, since PyTorch's layers have no multipliers; got "
            f"'{network.parameterization}' and {network.output_scale:g}"
        )
    biases = [*(parameters.biases or (None,) * network.depth), parameters.output_bias]
    matrices = [*parameters.weights, np.atleast_2d(parameters.readout)]
    state = {}
    for layer, (weights, bias) in enumerate(zip(matrices, biases, strict=True)):
        state[f"{2 * layer}.weight"] = torch.as_tensor(np.array(weights))
        if bias is not None:
            state[f"{2 * layer}.bias"] = torch.as_tensor(np.atleast_1d(np.array(bias, weights.dtype)))
    return state
