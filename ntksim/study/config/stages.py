"""The sections `initial` and `training` of a configuration: at which widths and seeds, and how training goes."""

import itertools
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from ntksim.engine.arguments import METHODS, SAMPLINGS, rank_tolerance_in_use
from ntksim.engine.infinite.decay import stable_rate
from ntksim.engine.loss import LOSSES, is_squared
from ntksim.engine.network import common_rate
from ntksim.study.config.measures import Dispersion, Measures
from ntksim.study.config.section import MOST, Section, one_of
from ntksim.study.errors import shown

_MOST_STEPS = 1e9  # of gradient descent
# Of networks in law: of `rank_tolerance`, as the engine has them, and of gradient flow's tolerance.
_RANK_TOLERANCE, _LEAST_RANK_TOLERANCE, _MOST_RANK_TOLERANCE = 1e-6, 1e-7, 0.1
_LEAST_TOLERANCE_IN_LAW = 10 * _LEAST_RANK_TOLERANCE


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
    # left out of every record where it does nothing, so that those of earlier studies stay what they were
    sampling: Annotated[str, one_of(SAMPLINGS)] = Field(
        default="weights",
        exclude_if=lambda sampling: sampling == "weights",
        description="weights: the networks that training has; conditional: others of exactly the same law, without their "
        "weights, up to widths of millions",
    )
    dispersion: Dispersion | None = Field(
        default=None,
        exclude_if=lambda dispersion: dispersion is None,
        description="E[K^2] / E[K]^2 on the kernel's diagonal, and its change by one step of gradient descent (default: neither)",
    )
    continuum_degrees: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        exclude_if=lambda degrees: degrees is None,
        description="degrees of the limits' eigenvalues as operators on the circle or sphere of the points' dimension (default: "
        "no table of them)",
    )

    _check = field_validator("widths")(_checked_widths)

    @property
    def first_step(self) -> float | None:
        """Relative learning rate of the step whose effect on the kernel is measured; None where none is."""
        return None if self.dispersion is None else self.dispersion.relative_learning_rate


class Of(NamedTuple):
    """What a job makes of a key of `training`: one without this mark belongs to both methods.

    ``method``: the one that it belongs to, or None for both. ``default``: what it stands for where it is left out. ``is_new``:
    identities name it only where it does something, since shards were computed before there was such a key.
    """

    method: str | None = None
    default: Any = None
    is_new: bool = False


def _new(description: str, **limits: Any) -> Any:
    """A key that is left out of every record where it is not given, so that those of earlier studies stay what they were."""
    return Field(default=None, exclude_if=lambda value: value is None, description=description, **limits)


class Schedule(Section):
    """How networks are trained, by default on the squared loss 1/2 sum r^2: all that a job of training is told of it."""

    method: Annotated[str, one_of(METHODS)] = Field(
        default="gradient_flow", description="gradient flow to a tolerance, or full-batch gradient descent"
    )
    tolerance: Annotated[float | None, Of("gradient_flow", 1e-4)] = Field(
        default=None, gt=0, lt=1, description="of gradient flow: error of a step relative to the initial residual (default: 1e-4)"
    )
    max_steps: Annotated[int | None, Of("gradient_flow", None, is_new=True)] = Field(
        default=None, ge=1, lt=MOST, description="of gradient flow: steps after which a seed is given up (default: 5000)"
    )
    relative_learning_rate: Annotated[float | None, Of("gradient_descent", 0.5)] = Field(
        default=None,
        gt=0,
        lt=4,
        description="of gradient descent: learning rate in units of 1 / lambda_max(K_infinity), as relative_time; stable below "
        "2, with momentum mu below 2 (1 + mu), Nesterov's below that over 1 + 2 mu (default: 0.5)",
    )
    momentum: Annotated[float | None, Of("gradient_descent", 0.0)] = Field(
        default=None, ge=0, lt=1, description="of gradient descent: mu of the heavy ball, or of Nesterov's form (default: 0)"
    )
    nesterov: Annotated[bool, Of("gradient_descent", default=False)] = Field(
        default=False, description="whether momentum is Nesterov's"
    )
    batch_size: Annotated[int | None, Of("gradient_descent")] = Field(
        default=None, ge=1, lt=MOST, description="of gradient descent: points in a step, drawn anew each epoch (default: all)"
    )
    # left out of every record where they do nothing, like the keys below
    loss: Annotated[str, one_of(tuple(LOSSES)), Of("gradient_descent", default="squared", is_new=True)] = Field(
        default="squared",
        exclude_if=lambda loss: loss == "squared",
        description="of gradient descent: what it descends on, and what columns of losses hold: squared, 1/2 sum r^2, or its "
        "like; logistic losses, of two classes; softmax cross-entropies, of two outputs or more, which three classes or more "
        "make; each summed, or as a mean",
    )
    weight_decay: Annotated[float, Of("gradient_descent", default=0.0, is_new=True)] = Field(
        default=0.0,
        ge=0,
        exclude_if=lambda decay: decay == 0,
        description="of gradient descent: lambda of lambda/2 ||theta||^2, which is added to the loss that it descends on, theta "
        "being all parameters in the parameterization in use",
    )
    layer_rates: list[float] | None = Field(
        default=None, min_length=2, description="factors on the learning rate of each hidden layer and the readout, depth + 1 "
        "numbers; 0 freezes a layer (default: 1 each)"
    )  # fmt: skip
    # left out of every record where it does nothing, as at initialisation
    sampling: Annotated[str, one_of(SAMPLINGS), Of(default="weights", is_new=True)] = Field(
        default="weights",
        exclude_if=lambda sampling: sampling == "weights",
        description="weights: networks weight by weight; conditional: others of exactly the same law, without their weights, up "
        "to widths of a million (all points at once, on the CPU)",
    )
    rank_tolerance: Annotated[float | None, Of(is_new=True)] = _new(
        "of sampling conditional: the part of a vector's length that may be left out when a hidden matrix is asked for it, of "
        "gradient flow at most a tenth of tolerance (default: 1e-6, or a tenth of a finer flow's tolerance; "
        "in float32 3.8e-6 at least is used)",
        ge=_LEAST_RANK_TOLERANCE, le=_MOST_RANK_TOLERANCE,
    )  # fmt: skip
    ridge: Annotated[float, Of(default=0.0, is_new=True)] = Field(
        default=0.0, ge=0, description="added to the diagonal of the kernels in the columns of kernel regression "
        "(initial_kernel_regression_test_loss and its like), in units of the kernels, with layer rates and the n^(-c) of "
        "learning rates in them; the factor of a mean loss does not multiply it"
    )  # fmt: skip
    measures: Annotated[Measures | None, Of(is_new=True)] = Field(
        default=None,
        exclude_if=lambda measures: measures is None,
        description="what is measured at every snapshot beside the usual tables (default: nothing)",
    )
    remove_initial_output: bool = Field(
        default=False,
        description="train f - f_0 in place of f: every seed starts from outputs of 0 (as antisymmetric pairs of networks do), "
        "and the kernel's change falls apart in its mean over seeds and its scatter",
    )
    relative_time: float | None = Field(
        default=None,
        gt=0,
        description="end of training, in units of 1 / lambda_max(K_infinity), divided by the largest second derivative of the "
        "loss in the outputs (1 for the squared loss); or give time or steps",
    )
    time: Annotated[float | None, Of(is_new=True)] = _new(
        "end of training, in place of relative_time: t of the loss that rate_of names, or that loss names", gt=0
    )
    steps: Annotated[int | None, Of(is_new=True)] = _new(
        "end of training, in place of relative_time: steps of gradient descent; of gradient flow the time steps x learning_rate",
        ge=1, le=10**9,
    )  # fmt: skip
    learning_rate: Annotated[float | None, Of(is_new=True)] = _new(
        "learning rate on the loss that rate_of names, or that loss names, in place of relative_learning_rate", gt=0
    )
    rate_of: Annotated[str, one_of(("half_sum", "mean_square")), Of(default="half_sum", is_new=True)] = Field(
        default="half_sum",
        exclude_if=lambda loss: loss == "half_sum",
        description="of loss squared: what time, learning_rate and snapshot_times belong to, half_sum, 1/2 sum r^2, or "
        "mean_square, the mean of r^2 over N training points and outputs, on which t and rates are N / 2 times as large for the "
        "same training",
    )
    snapshots: int = Field(
        default=20, ge=1, le=100_000, description="log-spaced times at which outputs and kernels are looked at"
    )
    snapshot_times: Annotated[list[float] | None, Of(is_new=True)] = _new(
        "times to look at in place of log-spaced ones, in the unit of time, beside 0 and the end; steps nearest to them in "
        "gradient descent", min_length=1, max_length=100_000,
    )  # fmt: skip

    @model_validator(mode="after")
    def _belongs(self) -> Self:
        for name, mark in _MARKS.items():
            unset = None, False, Schedule.model_fields[name].default
            if mark.method not in (None, self.method) and getattr(self, name) not in unset:
                own = next(key for key, other in _MARKS.items() if other.method == self.method)
                raise ValueError(f"{name}: belongs to method {mark.method}; {self.method} has {own}")
        if any(rate != 0 and not 1e-30 <= rate <= 1e30 for rate in self.layer_rates or []):
            raise ValueError(
                f"layer_rates: expected numbers from 1e-30 to 1e30, or 0 for a frozen layer, got {shown(self.layer_rates)}"
            )
        if self.layer_rates and not any(self.layer_rates):
            raise ValueError("layer_rates: expected a number above 0 among them: where all are 0 nothing trains")
        return self

    @model_validator(mode="after")
    def _on_a_clock(self) -> Self:
        ends = [name for name in ("relative_time", "time", "steps") if getattr(self, name) is not None]
        if len(ends) != 1:
            raise ValueError(f"relative_time: expected one of relative_time, time and steps, got {' and '.join(ends) or 'none'}")
        if self.learning_rate is not None and self.relative_learning_rate is not None:
            raise ValueError("learning_rate: there is relative_learning_rate already; leave one of the two out")
        if self.method == "gradient_flow" and (self.learning_rate is None) != (self.steps is None):
            raise ValueError(
                f"{ends[0] if self.steps else 'learning_rate'}: of gradient_flow steps and learning_rate together give the time, "
                "steps x learning_rate; give both, or neither"
            )
        is_absolute = self.time is not None or (self.steps is not None and self.learning_rate is not None)
        if self.rate_of != "half_sum" and self.time is None and self.learning_rate is None:
            raise ValueError("rate_of: says what time and learning_rate mean, and neither is given; leave it out")
        if self.snapshot_times is not None:
            if not is_absolute:
                raise ValueError("snapshot_times: are in the unit of time; give the end as time, or as steps with learning_rate")
            if self.snapshots != 20:
                raise ValueError("snapshot_times: there is snapshots already; leave one of the two out")
            end = self.time if self.time is not None else (self.steps or 0) * (self.learning_rate or 0.0)
            ascending = all(a < b for a, b in itertools.pairwise([0.0, *self.snapshot_times]))
            if not ascending or self.snapshot_times[-1] > end:
                raise ValueError(
                    f"snapshot_times: expected ascending times above 0, up to the end {end:g}, got {shown(self.snapshot_times)}"
                )
        return self

    @model_validator(mode="after")
    def _on_a_loss(self) -> Self:
        """What other losses than the squared one, and weight decay, do not go with."""
        if self.loss != "squared" and self.rate_of != "half_sum":
            raise ValueError(
                f"rate_of: with loss {self.loss} time, learning_rate and snapshot_times belong to that loss; leave it out"
            )
        measures = self.measures.model_dump(exclude_defaults=True) if self.measures else {}
        given: dict[str, Any] = {"remove_initial_output": self.remove_initial_output, "ridge": self.ridge}
        given |= {f"measures.{key}": measures.get(key) for key in ("eigenvectors", "modes", "regression")}
        for key, value in given.items():
            if value and not is_squared(self.loss):
                raise ValueError(
                    f"{key}: belongs to squared losses, of which residuals and kernel regression are; leave it out with loss "
                    f"{self.loss}"
                )
        what = f"loss {self.loss}" if not is_squared(self.loss) else "weight_decay" if self.weight_decay else None
        if what is not None and self.sampling == "conditional":
            raise ValueError(f"sampling: {what} needs networks weight by weight; set sampling to weights, or leave {what} out")
        return self

    @model_validator(mode="after")
    def _in_law(self) -> Self:
        if self.sampling == "conditional" and self.batch_size is not None:
            raise ValueError(
                "batch_size: sampling conditional takes all points at once; leave batch_size out, or set sampling to weights"
            )
        if self.sampling == "conditional" and self.tolerance is not None and self.tolerance < _LEAST_TOLERANCE_IN_LAW:
            raise ValueError(
                f"tolerance: expected at least {_LEAST_TOLERANCE_IN_LAW:g} with sampling conditional, got {self.tolerance:g}; "
                "raise it, or set sampling to weights"
            )
        if self.rank_tolerance is None:
            return self
        if self.sampling != "conditional":
            raise ValueError("rank_tolerance: belongs to sampling conditional; leave it out, or set sampling to conditional")
        if self.method == "gradient_flow" and self.rank_tolerance > self.filled.tolerance / 10:
            raise ValueError(
                f"rank_tolerance: expected at most a tenth of the flow's tolerance {self.filled.tolerance:g}, or no step meets "
                f"it, got {self.rank_tolerance:g}; lower it, or raise tolerance"
            )
        return self

    @model_validator(mode="after")
    def _descends(self) -> Self:
        if self.method != "gradient_descent":
            return self
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs momentum; set it above 0, such as 0.9")
        bound = stable_rate(self.momentum or 0.0, self.nesterov)
        # Other losses may bend less than their bound: for them rates from here up to the key's own limit may do.
        too_large = self.relative_learning_rate is not None and self.relative_learning_rate >= bound
        if too_large and is_squared(self.loss):
            raise ValueError(
                f"relative_learning_rate: expected less than {bound:g}, from where on descent with momentum "
                f"{self.momentum or 0:g} diverges, got {self.relative_learning_rate:g}; lower it"
            )
        if self.batch_size is not None and self.relative_learning_rate is None and self.learning_rate is None:
            raise ValueError(
                "relative_learning_rate: batch_size needs it: batches are stiffer than all points together, and surely stable "
                "only below 2 batch_size / train"
            )
        if (self.known_steps or 0) > _MOST_STEPS:
            end, rate = ("relative_time", "relative_learning_rate") if self.relative_time else ("time", "learning_rate")
            raise ValueError(f"{end}: more than {_MOST_STEPS:.0e} steps of {rate}; lower it")
        return self

    @property
    def known_steps(self) -> int | None:
        """Of gradient descent, how many; None where end and rate are in unlike units, whose ratio only a job knows."""
        if self.steps is not None:
            return self.steps
        end, rate = (
            (self.time, self.learning_rate) if self.time is not None else (self.relative_time, self.filled.relative_learning_rate)
        )
        return None if end is None or rate is None else max(1, round(end / rate))

    @property
    def is_on_cpu(self) -> bool:
        """Whether it is computed on the CPU, whatever devices there are: networks in law, and what GPUs do not descend on."""
        return self.sampling == "conditional" or not is_squared(self.loss) or self.weight_decay > 0

    @property
    def has_linearized(self) -> bool:
        """Whether outputs of the linearised network are known: not with weight decay where layers decay at different rates."""
        return self.weight_decay == 0 or common_rate(self.layer_rates) is not None

    @property
    def has_closed_forms(self) -> bool:
        """Whether training under a constant kernel has a closed form, and a distribution over infinitely wide networks."""
        return is_squared(self.loss) and self.weight_decay == 0

    @property
    def looks(self) -> int:
        """At how many times a run is looked at, beside 0."""
        return self.snapshots if self.snapshot_times is None else len(self.snapshot_times) + 1

    @property
    def _derived_rank_tolerance(self) -> float | None:
        """Of networks in law, where it is left out: that of the engine, or a tenth of a finer flow's tolerance."""
        if self.sampling != "conditional" or self.method != "gradient_flow":
            return _RANK_TOLERANCE if self.sampling == "conditional" else None
        return float(min(_RANK_TOLERANCE, (self.tolerance or _MARKS["tolerance"].default) / 10))

    @property
    def filled(self) -> Any:
        """The schedule with the defaults of its method where keys are left out. (Any: its numbers are no longer optional.)"""
        own = {name: mark.default for name, mark in _MARKS.items() if mark.method == self.method}
        if self.learning_rate is not None:  # in place of the one that is left out
            own.pop("relative_learning_rate", None)
        own["rank_tolerance"] = self._derived_rank_tolerance
        return self.model_copy(update={name: value for name, value in own.items() if getattr(self, name) is None})

    def chosen(self, precision: str) -> dict[str, float]:
        """What belongs to the provenance of networks in law, as it is used: they are a function of it; nothing of others."""
        if self.sampling != "conditional":
            return {}
        return {"rank_tolerance": rank_tolerance_in_use(self.filled.rank_tolerance, precision)}

    def identity_in(self, precision: str) -> dict[str, Any]:
        """:attr:`identity`, with the tolerance of directions that is used where rounding makes it another one (float32)."""
        used = self.chosen(precision)
        return self.identity | (used if used.get("rank_tolerance") != self.filled.rank_tolerance else {})

    @property
    def identity(self) -> dict[str, Any]:
        """What a job's numbers depend on: every key that belongs to the method, with its default where it is left out."""
        found, filled = {}, self.filled
        for name in Schedule.model_fields:
            mark, value = _MARKS.get(name, Of()), getattr(filled, name)
            value = (value.identity or None) if isinstance(value, Measures) else value
            if name == "rank_tolerance" and value == self._derived_rank_tolerance:  # as all were before there was such a key
                continue
            if mark.method in (None, self.method) and not (mark.is_new and value == mark.default):
                found[name] = value
        return found


_MARKS = {name: mark for name, field in Schedule.model_fields.items() for mark in field.metadata if isinstance(mark, Of)}


class Training(Schedule):
    """Training, by default on the squared loss 1/2 sum r^2."""

    widths: list[int] = _widths("widths of all hidden layers")
    seeds: int = Field(ge=2, lt=MOST, description="networks per width: seeds 0, 1, ...")
    keep_kernels: bool = Field(
        default=False, description="keep K_t of every seed and time in files of their own (ntksim.read_kernels)"
    )

    _check = field_validator("widths")(_checked_widths)

    @property
    def schedule(self) -> Schedule:
        """What a job of it is told."""
        own = Schedule.model_validate(self.model_dump(include=set(Schedule.model_fields)))
        return own.model_copy(update={"measures": self.measures.of_jobs}) if self.measures else own
