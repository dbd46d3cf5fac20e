"""The section `networks` of a configuration: networks without their widths. Lists of values are replaced before (`axes`)."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from ntksim.engine.activation import Activation, names, spelled
from ntksim.engine.initialisers import INITIALISERS, NORMAL
from ntksim.engine.network import ABC, PARAMETERIZATIONS, Network
from ntksim.study.config.imports import activation_of
from ntksim.study.config.section import Section, one_of

RICH = ("mup", "mean_field")  # parameterizations in which training moves the kernel at any width
_NAMED = {"type": "string", "pattern": rf"^({'|'.join(names())})(\(.+\))?$"}
_IMPORTED = {
    "type": "object",
    "properties": {"import": {"type": "string"}},
    "required": ["import"],
    "additionalProperties": False,
}
_ACTIVATION: dict[str, Any] = {"anyOf": [_NAMED, _IMPORTED]}
_WITH_LIMIT = ["gaussian", *(name for name, own in INITIALISERS.items() if own.law == NORMAL)]


def _checked(activation: Any) -> str | dict[str, str]:
    if isinstance(activation, dict):
        activation_of(activation)
        return activation
    try:
        return spelled(activation)
    except ValueError as error:
        wrong = str(error).rpartition("; got")[0]
        raise ValueError(f"expected {wrong.removeprefix('activation must be ')}") from None


def _of_a_limit(initialiser: Any) -> Any:
    """The name of an initialiser; a study compares kernels with their limit, which not all have."""
    if isinstance(initialiser, str) and initialiser in INITIALISERS and initialiser not in _WITH_LIMIT:
        raise ValueError(
            f"expected one of {', '.join(_WITH_LIMIT)} in a study, which compares kernels with the limit of Gaussian weights "
            "(others are for ntksim.empirical_ntk and ntksim.train in Python)"
        )
    return initialiser


class Exponents(Section):
    """The powers of the width of parameterization abc (Yang & Hu 2021): multipliers n^-a, initial scales n^-b, rates n^-c."""

    a_input: float = Field(description="exponent of the first layer's multiplier, and of the biases'")
    a_hidden: float = Field(description="exponent of the multiplier of hidden layers 2 and up")
    a_output: float = Field(description="exponent of the readout's multiplier")
    b_input: float = Field(description="exponent of the initial scale of the first layer's weights, and of biases")
    b_hidden: float = Field(description="exponent of the initial scale of the weights of hidden layers 2 and up")
    b_output: float = Field(description="exponent of the readout's initial scale")
    c: float = Field(description="exponent of the factor of learning rates and times")


class NetworkOptions(Section):
    """A network without its width. In a configuration a list of values stands for a network of each."""

    depth: int = Field(ge=1, le=1000, description="number of hidden layers")
    activation: Annotated[Any, AfterValidator(_checked), WithJsonSchema(_ACTIVATION)] = Field(
        description="activation of the hidden layers: a name, some with a number in brackets, as in leaky_relu(0.2); or "
        "{import: my_module.my_activation}, an ntksim.Activation of your own (needs --allow-imports)"
    )
    parameterization: Annotated[str, one_of(PARAMETERIZATIONS)] = Field(
        default="ntk",
        description="where the powers of the width stand: ntk (Jacot et al.), notes, standard, mup (maximal update), mean_field "
        "(one hidden layer), or abc (any powers)",
    )
    sigma_w: float = Field(default=1.0, gt=0, description="scale of the hidden weights")
    sigma_a: float = Field(default=1.0, gt=0, description="scale of the readout")
    sigma_b: float | None = Field(default=None, ge=0, description="scale of the biases; leave out for no biases")
    output_bias: bool = Field(default=False, description="whether the output has a bias (needs sigma_b)")
    output_scale: float = Field(default=1.0, gt=0, description="factor alpha of the output")
    abc: Exponents | None = Field(default=None, description="the exponents of parameterization abc, and of it alone")
    # left out of every record where it does nothing, so that those of earlier studies stay what they were
    initialiser: Annotated[str, one_of(_WITH_LIMIT), BeforeValidator(_of_a_limit)] = Field(
        default=_WITH_LIMIT[0],
        exclude_if=lambda initialiser: initialiser == _WITH_LIMIT[0],
        description="how weights are drawn in parameterization standard: gaussian, or kaiming_normal (variance 2 / inputs, "
        "biases from zero)",
    )

    def network(self, width: int) -> Network:
        """The network of one width."""
        abc = ABC(**self.abc.model_dump()) if self.abc else None
        return Network(width=width, abc=abc, **self.model_dump(exclude={"abc"}) | {"activation": self.function})

    @property
    def function(self) -> str | Activation:
        """The activation: its name, or the user's own."""
        return activation_of(self.activation) if isinstance(self.activation, dict) else self.activation
