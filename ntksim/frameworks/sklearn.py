"""Multilayer perceptrons of scikit-learn."""

from typing import Any

import numpy as np

from ntksim.engine.finite.parameters import Parameters
from ntksim.engine.network import Network
from ntksim.frameworks.chain import Linear, assembled, between

_ACTIVATIONS = {"identity": "linear", "logistic": "sigmoid"}


def from_sklearn(model: Any) -> tuple[Network, Parameters]:
    """The network and the parameters of a fitted MLPRegressor or MLPClassifier, in parameterization ``standard``.

    Outputs and kernels are those before the output's activation: of a classifier the logits.

    Raises
    ------
    TypeError for another object; ValueError for a model that is not fitted, or has no hidden layer.
    """
    name = type(model).__name__
    if not hasattr(model, "hidden_layer_sizes"):
        raise TypeError(f"model must be a fitted MLPRegressor or MLPClassifier; got {name}")
    if not hasattr(model, "coefs_"):
        raise ValueError(f"{name} is not fitted; call fit first")
    layers = [
        Linear(np.array(weights.T, np.float64, order="C"), np.array(bias, np.float64))
        for weights, bias in zip(model.coefs_, model.intercepts_, strict=True)
    ]
    return assembled(between(layers, _ACTIVATIONS.get(model.activation, model.activation), name), name)
