"""From a chain of linear layers and activations, as any framework has it, to a network and its parameters."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntksim.engine.activation import Activation
from ntksim.engine.finite.empirical import network_outputs
from ntksim.engine.finite.parameters import Parameters
from ntksim.engine.network import Network

_TRIED, _AGREES = 8, 1e-4  # points on which a network is compared with the framework's, which may compute in float32


@dataclass(frozen=True)
class Linear:
    """W h + b: ``weight`` (outputs, inputs) and ``bias`` (outputs,), or None without one."""

    weight: np.ndarray
    bias: np.ndarray | None


def assembled(parts: Iterable[Linear | str | Activation], source: str) -> tuple[Network, Parameters]:
    """The network of layers and names of activations, in the order in which they act.

    Its parameterization is ``standard``: multipliers of 1, so that the kernel is the framework's own Gram matrix of gradients.

    Raises
    ------
    ValueError if the chain is not linear, activation, linear, ..., linear, with one activation throughout and at least one hidden
    layer, or its sizes do not fit.
    """
    layers: list[Linear] = []
    activations: list[str | Activation] = []
    for part in parts:
        if isinstance(part, Linear):
            if len(activations) < len(layers):
                activations.append("linear")
            layers.append(part)
        elif len(activations) == len(layers) - 1:
            activations.append(part)
        elif part != "linear":
            raise ValueError(f"{source}: the activation {part} does not follow a linear layer")
    if len(layers) < 2:
        raise ValueError(f"{source}: expected at least one hidden layer, so two linear layers; got {len(layers)}")
    if len(activations) == len(layers) and activations.pop() != "linear":
        raise activation_behind_last(source)
    if len(set(activations)) > 1:
        raise ValueError(f"{source}: expected one activation for all hidden layers; got {', '.join(map(str, activations))}")
    for before, layer in zip(layers, layers[1:], strict=False):
        if layer.weight.shape[1] != before.weight.shape[0]:
            raise ValueError(
                f"{source}: a layer of {layer.weight.shape[1]} inputs follows one of {before.weight.shape[0]} outputs; expected "
                "layers in the order in which they act"
            )
    return _network(layers, activations[0])


def _network(layers: list[Linear], activation: str | Activation) -> tuple[Network, Parameters]:
    *hidden, last = layers
    widths, outputs = tuple(len(layer.weight) for layer in hidden), len(last.weight)
    network = Network(
        len(hidden),
        widths[0] if len(set(widths)) == 1 else widths,
        activation,
        "standard",
        sigma_b=None if all(layer.bias is None for layer in layers) else 0.0,
        output_bias=last.bias is not None,
        outputs=outputs,
    )
    biases = tuple(layer.bias for layer in hidden)
    bias: Any = last.bias
    return network, Parameters(
        tuple(layer.weight for layer in hidden),
        None if all(own is None for own in biases) else biases,
        last.weight if outputs > 1 else last.weight[0],
        float(bias[0]) if bias is not None and outputs == 1 else bias,
    )


def checked(
    found: tuple[Network, Parameters], outputs: Callable[[np.ndarray], np.ndarray], source: str
) -> tuple[Network, Parameters]:
    """The network, if its outputs are the framework's on a few random points.

    Raises
    ------
    ValueError if they are not: what the framework computes is more than its layers one after the other.
    """
    network, parameters = found
    x = np.random.default_rng(0).normal(size=(_TRIED, parameters.weights[0].shape[1]))
    ours = network_outputs(network, x, parameters=parameters).reshape(_TRIED, -1)
    theirs = np.asarray(outputs(x), np.float64).reshape(_TRIED, -1)
    if ours.shape != theirs.shape or not np.abs(ours - theirs).max() <= _AGREES * np.abs(ours).max():
        raise ValueError(
            f"{source}: its outputs are not those of its layers one after the other (a skip connection, or an activation that is "
            "called inside forward: name that one, activation='relu' or another)"
        )
    return found


def in_order(layers: Mapping[str, Linear]) -> list[Linear]:
    """Layers in the order of the numbers in their names, if that or the mapping's own makes a chain.

    Haiku's first layer has no number and stands before the others: linear, linear_1, linear_2.
    """
    place = {name: i for i, name in enumerate(layers)}
    spelt = {
        name: f"{name}_0" if f"{name}_0" not in place and place[name] < place.get(f"{name}_1", 0) else name for name in layers
    }
    numbered = sorted(layers, key=lambda name: [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in
                                                re.split(r"(\d+)", spelt[name])])  # fmt: skip
    every = all(re.search(r"\d", spelt[name]) for name in layers)
    for names in (numbered, list(layers)) if every else (list(layers), numbered):
        chain = [layers[name] for name in names]
        if all(a.weight.shape[0] == b.weight.shape[1] for a, b in zip(chain, chain[1:], strict=False)):
            return chain
    return [layers[name] for name in numbered]


def between(layers: Iterable[Linear], activation: str | Activation | None, source: str) -> Iterable[Linear | str | Activation]:
    """Layers with an activation behind each but the last."""
    if activation is None:
        raise ValueError(f"{source}: parameters alone do not tell the activation; name it, such as activation='relu'")
    chain = list(layers)
    for layer in chain[:-1]:
        yield from (layer, activation)
    yield from chain[-1:]


def activation_behind_last(source: str) -> ValueError:
    """The error for an activation of outputs."""
    return ValueError(f"{source}: the last layer has an activation; leave it out: outputs and kernels are those before it")


def refused(source: str, layer: str) -> ValueError:
    """The error for a layer that is no part of a multilayer perceptron."""
    return ValueError(
        f"{source}: {layer} is no part of a multilayer perceptron; expected linear layers and one activation (no dropout, "
        "normalisation, convolution or skip connection)"
    )
