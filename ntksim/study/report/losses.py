"""The loss of a study in words and in figures, from the metadata in its tables."""

from collections.abc import Mapping
from typing import Any

from ntksim.engine.loss import is_squared
from ntksim.engine.network import common_rate

_FORMULAS = {
    "squared": r"$\frac{1}{2}\sum r^2$",
    "mean_squared": "mean of $r^2$",
    "half_mean_squared": r"$\frac{1}{2n}\sum r^2$",
    "logistic": r"$\sum\log(1 + e^{-yf})$",
    "mean_logistic": r"mean of $\log(1 + e^{-yf})$",
    "softmax_cross_entropy": r"$-\sum y\,\log p$",
    "mean_softmax_cross_entropy": r"mean of $-\sum y\,\log p$",
}


def name(metadata: Mapping[Any, Any]) -> str:
    """The loss that a study trains on, as its configuration names it."""
    return str(_training(metadata).get("loss", "squared"))


def words(loss: str) -> str:
    """A loss in words, such as squared loss or mean softmax cross-entropy."""
    return loss.replace("cross_entropy", "cross-entropy").replace("_", " ") + ("" if loss.endswith("entropy") else " loss")


def formula(metadata: Mapping[Any, Any]) -> str:
    """What a loss is, for the axis of a figure."""
    return _FORMULAS[name(metadata)]


def decays(metadata: Mapping[Any, Any]) -> bool:
    """Whether a study trains with weight decay."""
    return bool(_training(metadata).get("weight_decay"))


def has_linearized(metadata: Mapping[Any, Any]) -> bool:
    """Whether the tables of a study know the linearised network (`Schedule.has_linearized`)."""
    return not decays(metadata) or common_rate(_training(metadata).get("layer_rates")) is not None


def _training(metadata: Mapping[Any, Any]) -> Mapping[str, Any]:
    return metadata.get("config", {}).get("training") or {}


def has_units_of_targets(metadata: Mapping[Any, Any]) -> bool:
    """Whether outputs are compared with targets, as under squared losses; of others targets tell classes."""
    return is_squared(name(metadata))


def unit(metadata: Mapping[Any, Any]) -> str:
    """That of rates, whose inverse is the unit of relative times."""
    return "lambda_max(K_inf)" if name(metadata) == "squared" else "(c lambda_max(K_inf))"


def scaled_time(metadata: Mapping[Any, Any]) -> str:
    """The relative time of a figure, in mathematics: c bounds the second derivative of another loss than the squared one."""
    return r"t\,\lambda_{\max}(K_\infty)" if name(metadata) == "squared" else r"t\,c\,\lambda_{\max}(K_\infty)"


def named(quantity: str, called: str, metadata: Mapping[Any, Any]) -> str | None:
    """What a quantity is ``called`` in the summary; None for the distance from a linearised network that is not known."""
    if quantity != "relative_linearized_deviation":
        return called
    if not has_linearized(metadata):
        return None
    return called if has_units_of_targets(metadata) else called.removesuffix(", in units of the targets")
