"""What a network is: its shape, its activation and its parameterization.

    z^l = g_l W^l h^(l-1) + beta_l b^l,   h^l = phi(z^l),  h^0 = x,  l = 1..L
    f   = g_(L+1) a.h^L (+ beta_(L+1) c),  W_ij ~ N(0, s_l^2),  b_i ~ N(0, t_l^2),  a_r ~ N(0, s_(L+1)^2)

The neural tangent kernel is the Gram matrix of df/dtheta over all parameters as they are stored (W, b, a, c), so the
forward multiplier g enters it squared and the initial scale s does not. A parameterization is a choice of (g, s).

This module needs NumPy alone, so that a workflow can check its networks without loading a compiler.
"""

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

ACTIVATIONS = ("relu", "erf", "tanh", "linear", "leaky_relu", "abs", "gelu", "sin")
PARAMETERIZATIONS = ("ntk", "notes", "standard")


@dataclass(frozen=True)
class Scales:
    """Multipliers and initial scales of layers 1..L+1, the readout last; each field is a float64 array (L+1,).

    ``weight`` (g) multiplies W in the forward pass, ``weight_init`` (s) is the standard deviation of its stored
    entries; ``bias`` (beta) and ``bias_init`` (t) are the same for biases, and zero where a layer has none.
    """

    weight: np.ndarray
    weight_init: np.ndarray
    bias: np.ndarray
    bias_init: np.ndarray


@dataclass(frozen=True)
class Network:
    """A fully-connected network with scalar output.

    Parameters
    ----------
    depth : number of hidden layers, at least 1.
    width : neurons of every hidden layer, or a sequence of ``depth`` such numbers.
    activation : one of ``ACTIVATIONS``.
    parameterization : ``"ntk"`` (Jacot et al. 2018), ``"notes"`` (unit multiplier on the first layer, so that its
        term carries x.x' rather than x.x'/d) or ``"standard"`` (multipliers 1; the kernel grows like the width).
    sigma_w, sigma_a : scales of hidden weights and readout, positive.
    sigma_b : scale of biases; ``None`` means no biases at all, 0 means trainable biases that start at zero.
    output_bias : whether the output has a bias too; it needs ``sigma_b`` and does not exist in ``"notes"``.
    output_scale : alpha in f -> alpha f (Chizat & Bach 2019), positive; the kernel carries alpha squared.

    Raises
    ------
    ValueError or TypeError naming the argument, what was expected and what was given.
    """

    depth: int
    width: int | tuple[int, ...]
    activation: str = "relu"
    parameterization: str = "ntk"
    sigma_w: float = 1.0
    sigma_a: float = 1.0
    sigma_b: float | None = None
    output_bias: bool = False
    output_scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", _positive_integer("depth", self.depth))
        object.__setattr__(self, "width", self._checked_width())
        _one_of("activation", self.activation, ACTIVATIONS)
        _one_of("parameterization", self.parameterization, PARAMETERIZATIONS)
        for name in ("sigma_w", "sigma_a", "output_scale"):
            object.__setattr__(self, name, _real(name, getattr(self, name), positive=True))
        if self.sigma_b is not None:
            object.__setattr__(self, "sigma_b", _real("sigma_b", self.sigma_b, positive=False))
        if not isinstance(self.output_bias, (bool, np.bool_)):
            raise TypeError(f"output_bias must be True or False, got {self.output_bias!r}")
        if self.output_bias and self.sigma_b is None:
            raise ValueError("output_bias=True needs biases: set sigma_b (0 for biases that start at zero)")
        if self.output_bias and self.parameterization == "notes":
            raise ValueError("output_bias=True does not exist in parameterization 'notes': use 'ntk' or 'standard'")

    def _checked_width(self) -> int | tuple[int, ...]:
        if isinstance(self.width, Integral) and not isinstance(self.width, bool):
            return _positive_integer("width", self.width)
        if isinstance(self.width, (str, bytes, bool)) or not isinstance(self.width, Iterable):
            raise TypeError(f"width must be an integer or a sequence of {self.depth} integers, got {self.width!r}")
        widths = tuple(_positive_integer("width", w) for w in self.width)
        if len(widths) != self.depth:
            raise ValueError(f"width must give {self.depth} numbers (one per hidden layer), got {len(widths)}")
        return widths

    @property
    def widths(self) -> tuple[int, ...]:
        """Neurons of hidden layers 1..L."""
        return self.width if isinstance(self.width, tuple) else (self.width,) * self.depth

    @property
    def stream(self) -> int:
        """32-bit hash of the widths: half of the generator's key. Nothing else of the network enters its draws."""
        return zlib.crc32(np.asarray(self.widths, dtype="<u8").tobytes())

    def scales(self, input_dim: int) -> Scales:
        """Multipliers and initial scales of layers 1..L+1 for inputs of ``input_dim`` features."""
        fan_in = np.array([input_dim, *self.widths], dtype=np.float64)
        sigma = np.array([self.sigma_w] * self.depth + [self.sigma_a])
        if self.parameterization == "ntk":
            weight, weight_init = sigma / np.sqrt(fan_in), np.ones(self.depth + 1)
        elif self.parameterization == "notes":
            weight, weight_init = 1 / np.sqrt(fan_in), sigma.copy()
            weight[0], weight_init[0] = 1.0, self.sigma_w / math.sqrt(input_dim)
        else:
            weight, weight_init = np.ones(self.depth + 1), sigma / np.sqrt(fan_in)

        bias, bias_init = np.zeros(self.depth + 1), np.zeros(self.depth + 1)
        if self.sigma_b is not None:
            last = self.depth + 1 if self.output_bias else self.depth
            forward, initial = (self.sigma_b, 1.0) if self.parameterization == "ntk" else (1.0, self.sigma_b)
            bias[:last], bias_init[:last] = forward, initial
        weight[-1] *= self.output_scale
        bias[-1] *= self.output_scale
        return Scales(weight, weight_init, bias, bias_init)


def _positive_integer(name: str, value: object) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def _real(name: str, value: object, *, positive: bool) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        raise ValueError(f"{name} must be finite and {'positive' if positive else 'at least 0'}, got {value!r}")
    return number


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
