"""What a network is: its shape, its activation and its parameterization.

    z^l = g_l W^l h^(l-1) + beta_l b^l,   h^l = phi(z^l),  h^0 = x,  l = 1..L
    f   = g_(L+1) a.h^L (+ beta_(L+1) c),  W_ij ~ N(0, s_l^2),  b_i ~ N(0, t_l^2),  a_r ~ N(0, s_(L+1)^2)

With several outputs each has its own readout a, and bias c, on the hidden layers that all share.

The neural tangent kernel is the Gram matrix of df/dtheta over all parameters as they are stored (W, b, a, c), so the
forward multiplier g enters it squared and the initial scale s does not. A parameterization is a choice of (g, s), and in
the abc kinds (`ABC`) also of the power of the width by which learning rates are multiplied.

This module needs NumPy alone, so that a workflow can check its networks without loading a compiler.
"""

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real

import numpy as np

from ntksim.engine.activation import Activation, names, spelled
from ntksim.engine.arguments import one_of, positive_integer
from ntksim.engine.initialisers import INITIALISERS, NORMAL, Initialiser

ACTIVATIONS = names()
PARAMETERIZATIONS = ("ntk", "notes", "standard", "mup", "mean_field", "abc")
# Beyond these, float32 weights or squares of multipliers lose digits; an equivalent choice of exponents is within them.
_SMALLEST_FACTOR, _LARGEST_FACTOR = 1e-15, 1e15
_SMALLEST_RATE, _LARGEST_RATE = 1e-30, 1e30  # of a layer, but for 0: float32 holds their products with multipliers


@dataclass(frozen=True)
class Scales:
    """Multipliers and initial scales of layers 1..L+1, the readout last; each field is a float64 array (L+1,).

    ``weight`` (g) multiplies W in the forward pass, ``weight_init`` (s) is the standard deviation of its stored
    entries; ``bias`` (beta) and ``bias_init`` (t) are the same for biases, and zero where a layer has none. ``rate`` is the
    factor on the layer's learning rate (`layer_rates`), 1 but where it is asked for: training's kernel is sum_l rate_l K_l.
    """

    weight: np.ndarray
    weight_init: np.ndarray
    bias: np.ndarray
    bias_init: np.ndarray
    rate: np.ndarray

    def covariance_factors(self, layer: int, fan_in: int) -> tuple[float, float]:
        """(g s)^2 n and (beta t)^2 of layer 0 .. L with n = ``fan_in`` inputs.

        Pre-activations have the covariance (g s)^2 n S + (beta t)^2, where S is the mean of products of inputs.
        """
        return (self.weight[layer] * self.weight_init[layer]) ** 2 * fan_in, (self.bias[layer] * self.bias_init[layer]) ** 2

    def kernel_factors(self, layer: int, fan_in: int) -> tuple[float, float]:
        """rate g^2 n and rate beta^2 of layer 0 .. L: its own weights and biases have the kernel rate (g^2 n S + beta^2)."""
        return self.rate[layer] * self.weight[layer] ** 2 * fan_in, self.rate[layer] * self.bias[layer] ** 2


@dataclass(frozen=True)
class ABC:
    """Exponents of the width n in an abc-parameterization (Yang & Hu 2021), for hidden layers of equal width n.

    Multipliers g_1 = sigma_w / sqrt(d) n^(-a_input), g_l = sigma_w n^(-a_hidden) and g_(L+1) = sigma_a n^(-a_output); initial
    scales s = n^(-b) alike; biases have beta = sigma_b n^(-a_input) and t = n^(-b_input); learning rates are multiplied
    by n^(-c). Exponents are dimensionless, of either sign; those of hidden layers 2..L do nothing in a network of one.

    (a + theta, b - theta, c - 2 theta) is the same network for every theta: its outputs, effective kernel n^(-c) K and
    training do not change.

    Raises
    ------
    ValueError or TypeError for an exponent that is no finite number.
    """

    a_input: float
    a_hidden: float
    a_output: float
    b_input: float
    b_hidden: float
    b_output: float
    c: float

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _finite(f"abc.{field.name}", getattr(self, field.name)))


@dataclass(frozen=True)
class Network:
    """A fully-connected network, with scalar output unless ``outputs`` says otherwise.

    Parameters
    ----------
    depth : number of hidden layers, at least 1.
    width : neurons of every hidden layer, or a sequence of ``depth`` such numbers.
    activation : one of ``ACTIVATIONS``, with a number in brackets if it takes one, as in ``"leaky_relu(0.2)"``; or an
        `Activation` of one's own.
    parameterization : ``"ntk"`` (Jacot et al. 2018), ``"notes"`` (unit multiplier on the first layer, so that its
        term carries x.x' rather than x.x'/d) or ``"standard"`` (multipliers 1; the kernel grows like the width); the
        maximal-update ``"mup"`` and, for one hidden layer, ``"mean_field"``, whose outputs at initialisation vanish like
        n^(-1/2) and whose kernels move in training however wide they are; or ``"abc"``, any powers of the width.
    sigma_w, sigma_a : scales of hidden weights and readout, positive.
    sigma_b : scale of biases; ``None`` means no biases at all, 0 means trainable biases that start at zero.
    output_bias : whether the output has a bias too; it needs ``sigma_b`` and exists in ``"ntk"`` and ``"standard"``.
    output_scale : alpha in f -> alpha f (Chizat & Bach 2019), positive; the kernel carries alpha squared.
    abc : the exponents of parameterization ``"abc"``, for it alone; ``"mup"`` and ``"mean_field"`` have their own. All
        three need equal widths.
    initialiser : ``"gaussian"``, or in parameterization ``"standard"`` what a framework draws: ``"torch"`` (PyTorch's Linear),
        ``"keras"`` (Dense), ``"sklearn"``, ``"flax"`` (Dense), ``"kaiming_normal"``, ``"he_normal"`` and ``"he_uniform"``
        (`initialisers` has their formulas). sigma_w, sigma_a and sigma_b are then factors on it, 1 for the framework's own
        numbers. Where it starts biases at zero, sigma_b is 0, or None for no biases.
    outputs : k, the number of outputs. Arrays that have an axis of points have one of outputs behind it where k > 1, and not
        where k = 1. The first output of a network of several is the network of one.

    Raises
    ------
    ValueError or TypeError naming the argument, what was expected and what was given.
    """

    depth: int
    width: int | tuple[int, ...]
    activation: str | Activation = "relu"
    parameterization: str = "ntk"
    sigma_w: float = 1.0
    sigma_a: float = 1.0
    sigma_b: float | None = None
    output_bias: bool = False
    output_scale: float = 1.0
    abc: ABC | None = None
    outputs: int = 1
    initialiser: str = "gaussian"

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", positive_integer("depth", self.depth))
        object.__setattr__(self, "width", self._checked_width())
        object.__setattr__(self, "outputs", positive_integer("outputs", self.outputs))
        if not isinstance(self.activation, Activation):
            object.__setattr__(self, "activation", spelled(self.activation))
        one_of("parameterization", self.parameterization, PARAMETERIZATIONS)
        for name in ("sigma_w", "sigma_a", "output_scale"):
            object.__setattr__(self, name, _real(name, getattr(self, name), positive=True))
        if self.sigma_b is not None:
            object.__setattr__(self, "sigma_b", _real("sigma_b", self.sigma_b, positive=False))
        if not isinstance(self.output_bias, (bool, np.bool_)):
            raise TypeError(f"output_bias must be True or False, got {self.output_bias!r}")
        if self.output_bias and self.sigma_b is None:
            raise ValueError("output_bias=True needs biases: set sigma_b (0 for biases that start at zero)")
        if self.output_bias and self.parameterization not in ("ntk", "standard"):
            raise ValueError(
                f"output_bias=True does not exist in parameterization '{self.parameterization}': use 'ntk' or 'standard'"
            )
        self._check_abc()
        self._check_initialiser()

    def _check_initialiser(self) -> None:
        one_of("initialiser", self.initialiser, ("gaussian", *INITIALISERS))
        if self._drawn_like is None:
            return
        if self.parameterization != "standard":
            raise ValueError(
                f"initialiser '{self.initialiser}' belongs to parameterization 'standard'; got '{self.parameterization}'"
            )
        if self.sigma_b and not self._drawn_like.biases:
            raise ValueError(
                f"initialiser '{self.initialiser}' starts biases at zero: sigma_b must be 0, or None for no biases; got "
                f"{self.sigma_b:g}"
            )

    def _check_abc(self) -> None:
        """Whether the exponents belong to the parameterization, and the shape to the exponents."""
        kind = f"parameterization '{self.parameterization}'"
        if self.parameterization == "abc" and not isinstance(self.abc, ABC):
            raise TypeError(f"{kind} needs abc, its seven exponents (ntksim.ABC); got {self.abc!r}")
        if self.parameterization != "abc" and self.abc is not None:
            raise ValueError(f"abc belongs to parameterization 'abc'; leave it out of {kind}")
        if self.exponents is None:
            return
        if self.parameterization == "mean_field" and self.depth > 1:
            raise ValueError(f"{kind} needs depth 1; got {self.depth}: use 'mup', which is the same at depth 1 and has any")
        if len(set(self.widths)) > 1:
            raise ValueError(f"width must be equal in every layer in {kind}, whose scales are its powers; got {self.widths}")
        for name, exponent in asdict(self.exponents).items():
            if not _SMALLEST_FACTOR <= _shrunk(1.0, self.widths[0], exponent) <= _LARGEST_FACTOR:
                raise ValueError(
                    f"abc.{name} = {exponent:g} makes a factor beyond 10^-15 to 10^15 at width {self.widths[0]}: "
                    "shift the exponents to an equivalent choice (a + theta, b - theta, c - 2 theta)"
                )

    def _checked_width(self) -> int | tuple[int, ...]:
        if isinstance(self.width, Integral) and not isinstance(self.width, bool):
            return positive_integer("width", self.width)
        if isinstance(self.width, (str, bytes, bool)) or not isinstance(self.width, Iterable):
            raise TypeError(f"width must be an integer or a sequence of {self.depth} integers, got {self.width!r}")
        widths = tuple(positive_integer("width", w) for w in self.width)
        if len(widths) != self.depth:
            raise ValueError(f"width must give {self.depth} numbers (one per hidden layer), got {len(widths)}")
        return widths

    @property
    def widths(self) -> tuple[int, ...]:
        """Neurons of hidden layers 1..L."""
        return self.width if isinstance(self.width, tuple) else (self.width,) * self.depth

    @property
    def _drawn_like(self) -> Initialiser | None:
        """How a framework draws the parameters; None where they have the scales of the parameterization."""
        return INITIALISERS.get(self.initialiser)

    @property
    def law(self) -> int:
        """The distribution of the parameters, one of those in `initialisers`."""
        return NORMAL if self._drawn_like is None else self._drawn_like.law

    def require_gaussian(self) -> None:
        """Refuse a network whose parameters are not Gaussian, of which alone networks in law are known."""
        if self.law != NORMAL:
            raise ValueError(
                f"sampling='conditional' needs Gaussian weights, and those of initialiser '{self.initialiser}' are not: use "
                "sampling='weights'"
            )

    @property
    def exponents(self) -> ABC | None:
        """The powers of the width in ``"mup"``, ``"mean_field"`` and ``"abc"``; None in the others."""
        return _PRESETS.get(self.parameterization, self.abc)

    @property
    def learning_rate_scale(self) -> float:
        """n^(-c), by which training multiplies learning rates and times, and the kernel to become the effective one.

        It is 1 in ``"ntk"``, ``"notes"`` and ``"standard"``.
        """
        return 1.0 if self.exponents is None else _shrunk(1.0, self.widths[0], self.exponents.c)

    def effective(self, kernel: np.ndarray) -> np.ndarray:
        """The effective kernel n^(-c) K of a plain one, whose eigenvalues are the rates of training."""
        return self.learning_rate_scale * kernel

    @property
    def stream(self) -> int:
        """32-bit hash of the widths: half of the generator's key. Nothing else of the network enters its draws."""
        return zlib.crc32(np.asarray(self.widths, dtype="<u8").tobytes())

    def scales(self, input_dim: int) -> Scales:
        """Multipliers and initial scales of layers 1..L+1 for inputs of ``input_dim`` features."""
        if self.exponents is not None:
            return self._abc_scales(self.exponents, input_dim)
        fan_in = np.array([input_dim, *self.widths], dtype=np.float64)
        sigma = np.array([self.sigma_w] * self.depth + [self.sigma_a])
        if self.parameterization == "ntk":
            weight, weight_init = sigma / np.sqrt(fan_in), np.ones(self.depth + 1)
        elif self.parameterization == "notes":
            weight, weight_init = 1 / np.sqrt(fan_in), sigma.copy()
            weight[0], weight_init[0] = 1.0, self.sigma_w / math.sqrt(input_dim)
        elif self._drawn_like is None:
            weight, weight_init = np.ones(self.depth + 1), sigma / np.sqrt(fan_in)
        else:
            weight, weight_init = np.ones(self.depth + 1), sigma * self._drawn(input_dim)

        bias, bias_init = np.zeros(self.depth + 1), np.zeros(self.depth + 1)
        if self.sigma_b is not None:
            last = self.depth + 1 if self.output_bias else self.depth
            forward, initial = (self.sigma_b, 1.0) if self.parameterization == "ntk" else (1.0, self.sigma_b)
            bias[:last], bias_init[:last] = forward, initial
            if self._drawn_like is not None:
                bias_init[:last] *= self._drawn(input_dim)[:last]
        weight[-1] *= self.output_scale
        bias[-1] *= self.output_scale
        return Scales(weight, weight_init, bias, bias_init, np.ones(self.depth + 1))

    def _drawn(self, input_dim: int) -> np.ndarray:
        """Standard deviations of a framework's weights, and of its biases unless they start at zero, of layers 1..L+1."""
        assert self._drawn_like is not None
        sizes = (input_dim, *self.widths, self.outputs)
        return np.array([self._drawn_like.scale(self.activation, *shape) for shape in zip(sizes, sizes[1:], strict=False)])

    def _abc_scales(self, abc: ABC, input_dim: int) -> Scales:
        n, inner = self.widths[0], self.depth - 1
        forward = [abc.a_input] + [abc.a_hidden] * inner + [abc.a_output]
        initial = [abc.b_input] + [abc.b_hidden] * inner + [abc.b_output]
        sigma = [self.sigma_w / math.sqrt(input_dim)] + [self.sigma_w] * inner + [self.sigma_a]
        weight = np.array([_shrunk(s, n, a) for s, a in zip(sigma, forward, strict=True)])
        weight[-1] *= self.output_scale
        bias, bias_init = np.zeros(self.depth + 1), np.zeros(self.depth + 1)
        if self.sigma_b is not None:
            bias[:-1], bias_init[:-1] = _shrunk(self.sigma_b, n, abc.a_input), _shrunk(1.0, n, abc.b_input)
        weight_init = np.array([_shrunk(1.0, n, b) for b in initial])
        return Scales(weight, weight_init, bias, bias_init, np.ones(self.depth + 1))


@dataclass(frozen=True)
class RatedNetwork(Network):
    """A network and its ``layer_rates``, factors on the learning rates of its L + 1 layers, the readout's last.

    theta_l' = -rate_l dL/dtheta_l, with or without momentum, has the kernel sum_l rate_l K_l, whose eigenvalues are the rates of
    training. Limits are those of this kernel. Rates change neither the parameters at initialisation nor the outputs: only
    training knows of them, where it pulls back a gradient and where it sums the layers' kernels. A layer of rate 0 is frozen.
    """

    layer_rates: tuple[float, ...] = ()

    def scales(self, input_dim: int) -> Scales:
        """Those of the network, with its rates."""
        return replace(super().scales(input_dim), rate=np.array(self.layer_rates))


def rated(network: Network, layer_rates: Sequence[float] | None) -> RatedNetwork:
    """The network with its layers' rates; None stands for rates of 1.

    Raises
    ------
    TypeError for what is no network. ValueError unless there are L + 1 rates, each 0 or from 1e-30 to 1e30, and not all of them
    0.
    """
    checked_network(network)
    count = network.depth + 1
    rates = np.ones(count)
    if layer_rates is not None:
        expected = (
            f"layer_rates must be {count} numbers from 1e-30 to 1e30, or 0 for a frozen layer, one per hidden layer and one for "
            "the readout"
        )
        try:
            rates = np.asarray(layer_rates, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{expected}; got {layer_rates!r}") from None
        if rates.shape != (count,) or not ((rates == 0) | (rates >= _SMALLEST_RATE) & (rates <= _LARGEST_RATE)).all():
            raise ValueError(f"{expected}; got {layer_rates!r}")
        if not rates.any():
            raise ValueError(f"layer_rates must not all be 0, which trains nothing: give a layer the rate 1; got {layer_rates!r}")
    own = {field.name: getattr(network, field.name) for field in fields(Network)}
    return RatedNetwork(**own, layer_rates=tuple(rates.tolist()))


def common_rate(layer_rates: Sequence[float] | None) -> float | None:
    """The rate of all layers that are not frozen, 1 for None; None where they have several."""
    rates = {1.0} if layer_rates is None else {float(rate) for rate in layer_rates if rate != 0}
    return rates.pop() if len(rates) == 1 else None


def _shrunk(value: float, width: int, exponent: float) -> float:
    """value n^(-exponent); by a square root, so that 1/2 gives the very bits of value / sqrt(n), and by a division for them."""
    try:
        root = math.sqrt(float(width) ** (2 * abs(exponent)))
    except OverflowError:
        root = math.inf
    return value / root if exponent > 0 else value * root


def _number(name: str, value: object) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)


def _finite(name: str, value: object) -> float:
    number = _number(name, value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return number


def _real(name: str, value: object, *, positive: bool) -> float:
    number = _number(name, value)
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        raise ValueError(f"{name} must be finite and {'positive' if positive else 'at least 0'}, got {value!r}")
    return number


def checked_network(network: object) -> Network:
    """``network`` where a function takes one."""
    if not isinstance(network, Network):
        raise TypeError(f"network must be a ntksim.Network, such as ntksim.Network(depth=2, width=256); got {network!r:.100}")
    return network


# Yang & Hu (2021), table 1; of mean_field the hidden exponents mean nothing.
_PRESETS = {"mup": ABC(-0.5, 0, 0.5, 0.5, 0.5, 0.5, 0), "mean_field": ABC(0, 0, 1, 0, 0, 0, -1)}
