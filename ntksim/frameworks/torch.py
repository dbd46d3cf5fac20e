"""Multilayer perceptrons of PyTorch: modules, state dictionaries, and files of them."""

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ntksim.engine.activation import Activation
from ntksim.engine.finite.parameters import Parameters
from ntksim.engine.network import Network
from ntksim.frameworks.chain import Linear, activation_behind_last, assembled, between, checked, in_order, refused

_ACTIVATIONS = {
    "ReLU": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "SiLU": "silu", "SELU": "selu", "Identity": "linear",
    "CELU": "elu", "Softplus": "softplus",
}  # fmt: skip
_PASSED = ("Flatten",)  # changes nothing of points that are vectors
_OF_ALL = ("Softmax", "LogSoftmax", "Softmin", "Softmax2d")  # no functions of one pre-activation, so no `Activation` either
_SOFTPLUS_LINEAR = 20.0  # from here on PyTorch's Softplus is the identity, and off by 2e-9; from a smaller number on by more


def from_torch(source: Any, activation: str | Activation | None = None) -> tuple[Network, Parameters]:
    """The network and the parameters of a multilayer perceptron of PyTorch, in parameterization ``standard``.

    Parameters
    ----------
    source : a module of Linear layers and one activation (in nested Sequential ones too; one activation may act many times),
        whose outputs are compared on a few random points; a ``state_dict``; or the path of one, ``.pt`` or ``.pth`` (read with
        ``weights_only=True``) or ``.safetensors``.
    activation : the activation of hidden layers in ntksim's spelling, or an `Activation` of your own, where modules do not tell:
        for state dictionaries, and modules that call it in ``forward``.

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
    parts: list[Linear | str | Activation] = list(_parts(source, name))
    _check_parameters(source, name)
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


def _leaves(module: Any) -> Iterator[Any]:
    """Modules without modules of their own, in the order of their registration; one that acts twice comes twice."""
    for _, part in module.named_modules(remove_duplicate=False):
        if next(part.children(), None) is None:
            yield part


def _parts(module: Any, source: str) -> Iterator[Linear | str]:
    """Layers and activations of a module in the order of their registration."""
    leaves = list(_leaves(module))
    kinds = [type(part).__name__ for part in leaves]
    for place, (part, kind) in enumerate(zip(leaves, kinds, strict=True)):
        if kind == "Linear":
            yield Linear(_array(part.weight), None if part.bias is None else _array(part.bias))
        elif kind in _OF_ALL and "Linear" not in kinds[place:]:
            raise activation_behind_last(source)
        elif kind in _OF_ALL:
            raise refused(source, f"{kind}, which acts on all outputs of a layer together,")
        elif kind not in _PASSED:
            yield _activation(part, kind, source)


def _activation(module: Any, kind: str, source: str) -> str:
    """ntksim's name of an activation."""
    if kind == "LeakyReLU":
        return f"leaky_relu({module.negative_slope!r})"
    if kind == "ELU":
        return f"elu({module.alpha!r})"
    if kind == "GELU":
        return "gelu" if module.approximate == "none" else "gelu_tanh"
    if (kind == "CELU" and module.alpha == 1) or (
        kind == "Softplus" and module.beta == 1 and module.threshold >= _SOFTPLUS_LINEAR
    ):
        return _ACTIVATIONS[kind]
    if kind in ("CELU", "Softplus"):
        raise ValueError(f"{source}: ntksim has {kind} with its default numbers alone; got {module!r}")
    if kind in _ACTIVATIONS:
        return _ACTIVATIONS[kind]
    if type(module).__module__ == "torch.nn.modules.activation":
        raise ValueError(
            f"{source}: {kind} is none of ntksim's activations; make an ntksim.Activation of your own, and give it with the "
            "module's state_dict()"
        )
    raise refused(source, kind)


def _check_parameters(module: Any, source: str) -> None:
    """Refuse parameters that PyTorch's kernel counts otherwise: those that act twice, and those of no Linear layer."""
    layers = [part for part in _leaves(module) if type(part).__name__ == "Linear"]
    own = [id(array) for layer in layers for array in (layer.weight, layer.bias) if array is not None]
    if len(set(own)) < len(own):
        raise refused(source, "a Linear layer whose weights act twice")
    for name, array in module.named_parameters():
        if id(array) not in own:
            raise refused(source, f"the parameter {name}")


def _from_state(state: Mapping[str, Any], activation: str | Activation | None, source: str) -> tuple[Network, Parameters]:
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
