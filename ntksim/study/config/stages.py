"""The sections `initial` and `training` of a configuration: at which widths and seeds, and how training goes."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ntksim.engine.infinite.predictions import stable_rate
from ntksim.study.config.section import MOST, Section
from ntksim.study.errors import shown

_MOST_STEPS = 1e9  # of gradient descent


def _widths(description: str) -> Any:
    return Field(min_length=1, description=description)


def _checked_widths(widths: list[int]) -> list[int]:
    if any(width < 1 for width in widths):
        raise ValueError("expected widths of at least 1")
    if any(width >= MOST for width in widths):
        raise ValueError(f"expected widths below {MOST}")
    if len(set(widths)) != len(widths):
        raise ValueError("expected each width once")
    return sorted(widths)


def in_batches(batch_size: int | None, train: int) -> bool:
    """Whether steps of training see fewer than all points, drawn at random."""
    return batch_size not in (None, train)


class Initial(Section):
    """Kernels at initialisation, of one output: the first, of networks that have several in training."""

    widths: list[int] = _widths("widths of all hidden layers")
    seeds: int = Field(ge=2, lt=MOST, description="networks per width: seeds 0, 1, ...")

    _check = field_validator("widths")(_checked_widths)


class Training(Section):
    """Training on the squared loss 1/2 sum r^2."""

    method: Literal["gradient_flow", "gradient_descent"] = Field(
        default="gradient_flow", description="gradient flow to a tolerance, or full-batch gradient descent"
    )
    widths: list[int] = _widths("widths of all hidden layers")
    seeds: int = Field(ge=2, lt=MOST, description="networks per width: seeds 0, 1, ...")
    tolerance: float | None = Field(
        default=None, gt=0, lt=1, description="of gradient flow: error of a step relative to the initial residual (default: 1e-4)"
    )
    max_steps: int | None = Field(
        default=None, ge=1, lt=MOST, description="of gradient flow: steps after which a seed is given up (default: 5000)"
    )
    relative_learning_rate: float | None = Field(
        default=None,
        gt=0,
        lt=4,
        description="of gradient descent: learning rate in units of 1 / lambda_max(K_infinity); stable below 2, with momentum mu "
        "below 2 (1 + mu), Nesterov's below that over 1 + 2 mu (default: 0.5)",
    )
    momentum: float | None = Field(
        default=None, ge=0, lt=1, description="of gradient descent: mu of the heavy ball, or of Nesterov's form (default: 0)"
    )
    nesterov: bool = Field(default=False, description="whether momentum is Nesterov's")
    batch_size: int | None = Field(
        default=None, ge=1, lt=MOST, description="of gradient descent: points in a step, drawn anew each epoch (default: all)"
    )
    layer_rates: list[float] | None = Field(
        default=None, min_length=2, description="factors on the learning rate of each hidden layer and the readout, depth + 1 "
        "numbers; 0 freezes a layer (default: 1 each)"
    )  # fmt: skip
    ridge: float = Field(
        default=0.0, ge=0, description="added to the diagonal of the kernels in the columns of kernel regression "
        "(initial_kernel_regression_test_loss and its like), in units of the kernels that training sees"
    )  # fmt: skip
    remove_initial_output: bool = Field(
        default=False,
        description="train f - f_0 in place of f: every seed starts from outputs of 0 (as antisymmetric pairs of networks do), "
        "and the kernel's change falls apart in its mean over seeds and its scatter",
    )
    keep_kernels: bool = Field(
        default=False, description="keep K_t of every seed and time in files of their own (ntksim.read_kernels)"
    )
    relative_time: float = Field(gt=0, description="end of training, in units of 1 / lambda_max(K_infinity)")
    snapshots: int = Field(
        default=20, ge=1, le=100_000, description="log-spaced times at which outputs and kernels are looked at"
    )

    _check = field_validator("widths")(_checked_widths)

    @model_validator(mode="after")
    def _belongs(self) -> "Training":
        for name in ("relative_learning_rate", "momentum", "nesterov", "batch_size"):
            if self.method == "gradient_flow" and getattr(self, name) not in (None, False):
                raise ValueError(f"{name}: belongs to method gradient_descent; gradient_flow has tolerance")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs momentum; set it above 0, such as 0.9")
        bound = stable_rate(self.momentum or 0.0, self.nesterov)
        if self.relative_learning_rate is not None and self.relative_learning_rate >= bound:
            raise ValueError(
                f"relative_learning_rate: expected less than {bound:g}, from where on descent with momentum "
                f"{self.momentum or 0:g} diverges, got {self.relative_learning_rate:g}; lower it"
            )
        if self.batch_size is not None and self.relative_learning_rate is None:
            raise ValueError(
                "relative_learning_rate: batch_size needs it: batches are stiffer than all points together, and surely stable "
                "only below 2 batch_size / train"
            )
        if any(rate != 0 and not 1e-30 <= rate <= 1e30 for rate in self.layer_rates or []):
            raise ValueError(
                f"layer_rates: expected numbers from 1e-30 to 1e30, or 0 for a frozen layer, got {shown(self.layer_rates)}"
            )
        if self.layer_rates and not any(self.layer_rates):
            raise ValueError("layer_rates: expected a number above 0 among them: where all are 0 nothing trains")
        if self.method == "gradient_descent" and self.tolerance is not None:
            raise ValueError("tolerance: belongs to method gradient_flow; gradient_descent has relative_learning_rate")
        if self.method == "gradient_descent" and self.max_steps is not None:
            raise ValueError(
                "max_steps: belongs to method gradient_flow; the steps of gradient_descent are "
                "relative_time / relative_learning_rate"
            )
        if self.method == "gradient_descent" and self.relative_time / self.schedule["relative_learning_rate"] > _MOST_STEPS:
            raise ValueError(f"relative_time: more than {_MOST_STEPS:.0e} steps of relative_learning_rate; lower it")
        return self

    @property
    def schedule(self) -> dict[str, Any]:
        """What a training job needs to know, its defaults filled in."""
        own: dict[str, Any] = {"tolerance": self.tolerance or 1e-4} | ({"max_steps": self.max_steps} if self.max_steps else {})
        if self.method == "gradient_descent":
            own = {
                "relative_learning_rate": self.relative_learning_rate or 0.5,
                "momentum": self.momentum or 0.0,
                "nesterov": self.nesterov,
                "batch_size": self.batch_size,
            }
        common = ("method", "relative_time", "snapshots", "layer_rates", "remove_initial_output")
        # A ridge of 0 is left out, and max_steps where it is not given: shards without them are the same shards.
        return {name: getattr(self, name) for name in common} | own | ({"ridge": self.ridge} if self.ridge else {})
