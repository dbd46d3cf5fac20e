"""The configuration of a study: a closed schema with a description per key, and errors that say what to do.

This module loads neither Numba nor pandas: the workflow reads it in every job.
"""

import difflib
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, field_validator, model_validator
from pydantic.json_schema import GenerateJsonSchema

from ntksim.engine.network import ABC, Network
from ntksim.engine.predictions import stable_rate
from ntksim.study.errors import shown

_NAME = r"[A-Za-z][A-Za-z0-9_]{0,63}"  # a network's name is part of file names
MOST_SHARDS = 100_000  # jobs of a study; more would take Snakemake hours to plan
_MOST_STEPS = 1e9  # of gradient descent
_MOST = 2**31  # of points, features, neurons, seeds: more than any machine holds, and still an index


def _check_path(path: str) -> str:
    if not path.isprintable() or set(path) & set("{}"):
        raise ValueError("expected a path without braces and control characters")
    return path


class ConfigError(Exception):
    """The configuration cannot be used; the message names each key, what was expected and the remedy."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


CLASSES = {"digits": 10, "iris": 3, "wine": 3, "breast_cancer": 2}  # labels 0, 1, ... of scikit-learn's sets
FEATURES = {"digits": 64, "iris": 4, "wine": 13, "breast_cancer": 30, "diabetes": 10}
SYNTHETIC = ("gaussian", "sphere", "circle")
_SUFFIXES = (".npz", ".csv", ".parquet")


_AnySection = TypeVar("_AnySection", bound=_Section)


class Dataset(_Section):
    """The points and targets: a set that ships with scikit-learn, a synthetic one, or files of one's own."""

    name: Literal["digits", "iris", "wine", "breast_cancer", "diabetes", "gaussian", "sphere", "circle"] | None = Field(
        default=None,
        description="a set of scikit-learn, or synthetic points (normal, on the sphere of radius sqrt(features), on the unit "
        "circle) with the targets x_1 x_2",
    )
    file: str | list[str] | None = Field(
        default=None,
        description="your own data instead of a name: .npz with arrays x and y, .csv or .parquet with feature columns and a "
        "target column, or a pair [x.npy, y.npy]; y may have a column for each of several targets; the path is taken from the "
        "folder you run in",
    )
    target: str | list[str] | None = Field(
        default=None, description="target column of a .csv or .parquet file, or a list of them (default: target)"
    )
    classes: list[int | float | str] | None = Field(
        default=None,
        description="labels, two at least: the first of two becomes the target -1, the second +1, and k > 2 become k targets, "
        "one-hot less 1 / k; leave out for all classes of a set of scikit-learn, and for real-valued targets",
    )
    features: int | None = Field(default=None, ge=2, lt=_MOST, description="features of the synthetic sets gaussian and sphere")
    train: int = Field(ge=2, lt=_MOST, description="training points")
    test: int = Field(ge=2, lt=_MOST, description="test points")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the choice of points, or of synthetic ones")
    scaling: Literal["sphere", "none"] | None = Field(
        default=None,
        description="sphere (default, but for synthetic sets): centre the points with the training mean, scale each to norm "
        "sqrt(features), and standardize real-valued targets; none: take the numbers as they are",
    )
    # left out of every record where it does nothing, so that those of earlier studies stay what they were
    target_scale: float = Field(
        default=1.0, gt=0, exclude_if=lambda scale: scale == 1, description="factor on the targets, those of classes too"
    )

    @property
    def is_synthetic(self) -> bool:
        """Whether the points are made rather than loaded."""
        return self.name in SYNTHETIC

    @property
    def files(self) -> list[str]:
        """The files of one's own data; empty without."""
        return [self.file] if isinstance(self.file, str) else list(self.file or [])

    @property
    def targets(self) -> list[str]:
        """The target columns of a table."""
        return self.target if isinstance(self.target, list) else [self.target or "target"]

    @property
    def classes_or_default(self) -> list[Any] | None:
        """The labels, or None for real-valued targets."""
        return list(range(CLASSES[self.name])) if self.name in CLASSES and self.classes is None else self.classes

    @property
    def outputs(self) -> int:
        """Targets of a point, as far as the configuration tells: arrays of one's own may have more."""
        classes = len(self.classes_or_default or [])
        return (1 if classes == 2 else classes) if classes else len(self.targets)

    @property
    def scaling_or_default(self) -> str:
        """sphere or none."""
        return self.scaling or ("none" if self.is_synthetic else "sphere")

    @field_validator("file", mode="before")
    @classmethod
    def _readable(cls, file: Any) -> Any:
        paths = file if isinstance(file, list) else [file]
        if file is not None:
            if not all(isinstance(path, str) for path in paths) or not 1 <= len(paths) <= 2:
                raise ValueError("expected a path, or a pair [x.npy, y.npy]")
            suffixes = [Path(path).suffix for path in paths]
            for path in paths:
                _check_path(path)
            if suffixes != [".npy", ".npy"] and (len(paths) == 2 or suffixes[0] not in _SUFFIXES):
                raise ValueError("expected one .npz, .csv or .parquet file, or a pair [x.npy, y.npy]")
        return file

    @field_validator("target", mode="before")
    @classmethod
    def _columns(cls, target: Any) -> Any:
        names = target if isinstance(target, list) else [target]
        if target is not None and not (names and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)):
            raise ValueError("expected the name of a column, or a list of different ones")
        return target

    @field_validator("classes", mode="before")
    @classmethod
    def _labels(cls, classes: Any) -> Any:
        if classes is None:
            return classes
        kinds_fit = isinstance(classes, list) and all(isinstance(c, (int, float, str)) and c is not True for c in classes)
        if not kinds_fit or len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError("expected different labels, two at least")
        return classes

    @model_validator(mode="after")
    def _fits_together(self) -> "Dataset":
        if (self.name is None) == (self.file is None):
            raise ValueError("give either name (a set that ships with ntksim) or file (your own data), and not both")
        if self.target is not None and not (self.files and self.files[0].endswith(_SUFFIXES[1:])):
            raise ValueError("target names a column of a .csv or .parquet file; leave it out here")
        if self.classes is not None and len(self.targets) > 1:
            raise ValueError("target: labels of classes stand in one column; name that one, or leave classes out")
        if self.name in CLASSES:
            labels = range(CLASSES[self.name])
            if any(c not in labels for c in self.classes or []):
                raise ValueError(f"classes: expected labels of {self.name}, from 0 to {labels[-1]}, got {shown(self.classes)}")
        elif self.name is not None and self.classes is not None:
            raise ValueError(f"classes: the targets of {self.name} are real numbers; leave classes out")
        if (self.name in ("gaussian", "sphere")) != (self.features is not None):
            raise ValueError("features: the synthetic sets gaussian and sphere need it, and only they have it")
        return self


class Exponents(_Section):
    """The powers of the width of parameterization abc (Yang & Hu 2021): multipliers n^-a, initial scales n^-b, rates n^-c."""

    a_input: float = Field(description="exponent of the first layer's multiplier, and of the biases'")
    a_hidden: float = Field(description="exponent of the multiplier of hidden layers 2 and up")
    a_output: float = Field(description="exponent of the readout's multiplier")
    b_input: float = Field(description="exponent of the initial scale of the first layer's weights, and of biases")
    b_hidden: float = Field(description="exponent of the initial scale of the weights of hidden layers 2 and up")
    b_output: float = Field(description="exponent of the readout's initial scale")
    c: float = Field(description="exponent of the factor of learning rates and times")


_POSITIVE = {"type": "number", "exclusiveMinimum": 0}


class NetworkOptions(_Section):
    """A network without its width."""

    depth: int = Field(ge=1, le=1000, description="number of hidden layers")
    activation: Literal["relu", "erf", "tanh", "linear", "leaky_relu", "abs", "gelu", "sin"] = Field(
        description="activation of the hidden layers (leaky_relu has slope 0.1)"
    )
    parameterization: Literal["ntk", "notes", "standard", "mup", "mean_field", "abc"] = Field(
        default="ntk",
        description="where the powers of the width stand: ntk (Jacot et al.), notes, standard, mup (maximal update), mean_field "
        "(one hidden layer), or abc (any powers)",
    )
    sigma_w: float = Field(default=1.0, gt=0, description="scale of the hidden weights")
    sigma_a: float = Field(default=1.0, gt=0, description="scale of the readout")
    sigma_b: float | None = Field(default=None, ge=0, description="scale of the biases; leave out for no biases")
    output_bias: bool = Field(default=False, description="whether the output has a bias (needs sigma_b)")
    output_scale: Annotated[
        float, WithJsonSchema({"anyOf": [_POSITIVE, {"type": "array", "items": _POSITIVE, "minItems": 1}]})
    ] = Field(default=1.0, gt=0, description="factor alpha of the output; a list stands for a network of each, NAME_scale_ALPHA")
    abc: Exponents | None = Field(default=None, description="the exponents of parameterization abc, and of it alone")

    def network(self, width: int) -> Network:
        """The network of one width."""
        abc = ABC(**self.abc.model_dump()) if self.abc else None
        return Network(width=width, abc=abc, **self.model_dump(exclude={"abc"}))


def _one_each(networks: Any) -> Any:
    """The networks as written, those with a list of output scales replaced by one for each, in place."""
    if not isinstance(networks, dict):
        return networks
    expanded: dict[Any, Any] = {}
    for name, options in networks.items():
        scales = options.get("output_scale") if isinstance(options, dict) else None
        # such a name with the output scale in it, as tables record networks, may stand
        if isinstance(name, str) and _SCALED in name and name != scaled_name(family(name), scales):
            raise ValueError(
                f"the name {shown(name)} holds {_SCALED}, behind which stands the output scale of a network that has several; "
                "rename it"
            )
        if not isinstance(scales, list):
            scales = [None]
        elif not scales:
            raise ValueError(f"{shown(name)}: output_scale: expected at least one number, got []")
        elif len(scales) > MOST_SHARDS or any(scales.count(scale) > 1 for scale in scales):
            raise ValueError(f"{shown(name)}: output_scale: expected different numbers, got {shown(scales)}")
        for scale in scales:
            own, one = (name, options) if scale is None else (scaled_name(name, scale), options | {"output_scale": scale})
            if own in expanded:
                raise ValueError(f"the name {shown(own)} stands for two networks; rename one")
            expanded[own] = one
    return expanded


_SCALED = "_scale_"


def scaled_name(name: str, scale: object) -> str:
    """The name of the network of one output scale among several, such as tanh_scale_0p5; its characters fit a file's name."""
    number = f"{scale:g}" if isinstance(scale, float) and float(f"{scale:g}") == scale else str(scale)
    return f"{name}{_SCALED}{number.replace('.', 'p').replace('e-', 'em').replace('+', '')}"


def family(name: str) -> str:
    """The name under which a network stands in the configuration: without its output scale, where that is one of several."""
    return name.rpartition(_SCALED)[0] or name


def _widths(description: str) -> Any:
    return Field(min_length=1, description=description)


def _checked_widths(widths: list[int]) -> list[int]:
    if any(width < 1 for width in widths):
        raise ValueError("expected widths of at least 1")
    if any(width >= _MOST for width in widths):
        raise ValueError(f"expected widths below {_MOST}")
    if len(set(widths)) != len(widths):
        raise ValueError("expected each width once")
    return sorted(widths)


class Initial(_Section):
    """Kernels at initialisation, of one output: the first, of networks that have several in training."""

    widths: list[int] = _widths("widths of all hidden layers")
    seeds: int = Field(ge=2, lt=_MOST, description="networks per width: seeds 0, 1, ...")

    _check = field_validator("widths")(_checked_widths)


class Training(_Section):
    """Training on the squared loss 1/2 sum r^2."""

    method: Literal["gradient_flow", "gradient_descent"] = Field(
        default="gradient_flow", description="gradient flow to a tolerance, or full-batch gradient descent"
    )
    widths: list[int] = _widths("widths of all hidden layers")
    seeds: int = Field(ge=2, lt=_MOST, description="networks per width: seeds 0, 1, ...")
    tolerance: float | None = Field(
        default=None, gt=0, lt=1, description="of gradient flow: error of a step relative to the initial residual (default: 1e-4)"
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
        default=None, ge=1, lt=_MOST, description="of gradient descent: points in a step, drawn anew each epoch (default: all)"
    )
    layer_rates: list[float] | None = Field(
        default=None, min_length=2, description="factors on the learning rate of each hidden layer and the readout, depth + 1 "
        "positive numbers (default: 1 each)"
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
        if any(rate <= 0 for rate in self.layer_rates or []):
            raise ValueError(f"layer_rates: expected positive numbers, got {shown(self.layer_rates)}; 1e-12 holds a layer fixed")
        if self.method == "gradient_descent" and self.tolerance is not None:
            raise ValueError("tolerance: belongs to method gradient_flow; gradient_descent has relative_learning_rate")
        if self.method == "gradient_descent" and self.relative_time / self.schedule["relative_learning_rate"] > _MOST_STEPS:
            raise ValueError(f"relative_time: more than {_MOST_STEPS:.0e} steps of relative_learning_rate; lower it")
        return self

    @property
    def schedule(self) -> dict[str, Any]:
        """What a training job needs to know, its defaults filled in."""
        own: dict[str, Any] = {"tolerance": self.tolerance or 1e-4}
        if self.method == "gradient_descent":
            own = {
                "relative_learning_rate": self.relative_learning_rate or 0.5,
                "momentum": self.momentum or 0.0,
                "nesterov": self.nesterov,
                "batch_size": self.batch_size,
            }
        common = ("method", "relative_time", "snapshots", "layer_rates", "remove_initial_output")
        return {name: getattr(self, name) for name in common} | own


class Study(_Section):
    """A study: networks of several widths and seeds on one data set."""

    dataset: Dataset = Field(description="the points and targets")
    networks: dict[str, NetworkOptions] = Field(min_length=1, description="the networks, by name")
    initial: Initial = Field(description="kernels at initialisation, of one output: of several in training, the first")
    training: Training | None = Field(default=None, description="training; leave out to study initialisation alone")
    precision: Literal["float64", "float32"] = Field(default="float64", description="arithmetic of networks and kernels")
    device: Literal["cpu", "cuda", "auto"] = Field(
        default="cpu",
        description="where shards are computed: cpu, cuda (NVIDIA GPUs; needs numba-cuda), or auto (a GPU where there is one); "
        "results differ by rounding alone, so that a change computes nothing again",
    )
    seeds_per_shard: int = Field(default=32, ge=1, lt=_MOST, description="seeds that one job computes at most")
    shard_minutes: float = Field(
        default=10.0,
        ge=1e-6,
        description="minutes that one job should take at most, on one core of a nominal machine: it gets fewer seeds",
    )
    results: str = Field(default="results", min_length=1, description="folder for everything that the study writes")

    _expand = field_validator("networks", mode="before")(_one_each)

    @field_validator("networks")
    @classmethod
    def _named(cls, networks: dict[str, NetworkOptions]) -> dict[str, NetworkOptions]:
        for name in networks:
            if not re.fullmatch(_NAME, name):
                own, scale = family(name), name.removeprefix(family(name))
                behind = f" with {scale} behind them, for one of its output scales" if scale else ""
                raise ValueError(
                    f"the name {shown(own)} must be letters, digits and underscores, a letter first, at most 64{behind}"
                )
        return networks

    _check_results = field_validator("results")(_check_path)

    @model_validator(mode="after")
    def _plannable(self) -> "Study":
        sections = [section for section in (self.initial, self.training) if section]
        cells = sum(len(section.widths) * -(-section.seeds // self.seeds_per_shard) for section in sections)
        if cells * len(self.networks) > MOST_SHARDS:
            raise ValueError(
                f"seeds_per_shard: the study would have {cells * len(self.networks)} jobs, more than {MOST_SHARDS}; raise it, "
                "or ask for fewer seeds or widths"
            )
        return self

    @model_validator(mode="after")
    def _trainable(self) -> "Study":
        if self.training is None:
            return self
        size, rates = self.training.batch_size, self.training.layer_rates
        if size is not None and size > self.dataset.train:
            raise ValueError(f"training.batch_size: expected at most dataset.train = {self.dataset.train}, got {size}")
        for name, options in self.networks.items():
            if rates is not None and len(rates) != options.depth + 1:
                raise ValueError(
                    f"training.layer_rates: expected {options.depth + 1} numbers for networks.{family(name)} (its depth + 1), "
                    f"got {len(rates)}; a study with layer_rates has networks of one depth"
                )
        return self

    @property
    def trains_in_batches(self) -> bool:
        """Whether steps of training see fewer than all points, drawn at random."""
        return self.training is not None and self.training.batch_size not in (None, self.dataset.train)

    def science_hash(self) -> str:
        """Hash of everything in the configuration that a number can depend on."""
        how: Any = {
            "results": True,
            "device": True,
            "seeds_per_shard": True,
            "shard_minutes": True,
            "training": {"keep_kernels": True},
        }
        text = json.dumps(self.model_dump(exclude=how), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_label(text: str) -> int | float | str:
    """A class label on a command line: a number if it looks like one, text as it stands or in double quotes."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (int, float, str)) and not isinstance(value, bool) else text


class _WithoutTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration; workflow/schemas/config.schema.json is a copy of it."""
    return Study.model_json_schema(schema_generator=_WithoutTitles)


def load_study(path: str | Path) -> Study:
    """Read and check a configuration file (YAML).

    Raises ConfigError with one line per problem.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a configuration, such as config.yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file ({error})") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid YAML: nested too deeply") from None
    except Exception as error:  # of YAML, and of what builds dates and numbers from its text
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())[:300]}") from None
    return parse_study(content, source=str(path))


def parse_study(content: object, source: str = "config") -> Study:
    """Check a configuration that is already a mapping; ``source`` starts the messages."""
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: expected keys such as dataset, networks, initial; got {type(content).__name__}")
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise _config_error(source, error) from None
    widths = study.initial.widths + (study.training.widths if study.training else [])
    for name, options in study.networks.items():
        try:
            for width in widths:
                options.network(width)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{source}: networks.{family(name)}: {error}") from None
    return study


def parse_section(section: type[_AnySection], content: dict[str, Any], source: str) -> _AnySection:
    """Check one section that came as options of a command; ``source`` starts the messages."""
    try:
        return section.model_validate(content)
    except ValidationError as error:
        raise _config_error(source, error) from None


def _config_error(source: str, error: ValidationError) -> ConfigError:
    lines = dict.fromkeys(_explain(problem) for problem in error.errors())
    return ConfigError("\n".join(f"{source}: {line}" for line in lines))


def _explain(problem: Any) -> str:
    if problem["loc"][:1] == ("networks",) and len(problem["loc"]) > 1:  # under the name that is written, not that of one scale
        problem = {**problem, "loc": ("networks", family(str(problem["loc"][1])), *problem["loc"][2:])}
    words = [part if isinstance(part, str) and part.isprintable() else shown(part) for part in problem["loc"]]
    key = ".".join(word if len(word) <= 80 else f"{word[:77]}..." for word in words)
    kind, given = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.7)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    if kind == "missing":
        return f"{key}: this key is missing; add it ({_description(problem['loc'])})"
    if kind == "too_short":
        least = problem["ctx"]["min_length"]
        return f"{key}: expected at least {least} entries, got {shown(given)}; {_description(problem['loc'])}"
    if kind == "value_error" and isinstance(given, dict):  # of a section as a whole: the message names the keys
        return f"{key}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected = expected if expected.startswith(("expected", "the name")) else f"expected {expected}"
    return f"{key}: {expected}, got {shown(given)}; {_description(problem['loc'])}"


_SECTIONS = {"dataset": Dataset, "initial": Initial, "training": Training, "abc": Exponents}


def _model_at(location: tuple[Any, ...]) -> type[BaseModel] | None:
    model: Any = Study
    for part in location:
        if model is dict:
            model = NetworkOptions
            continue
        field = model.model_fields.get(part) if model else None
        if field is None:
            return None
        model = dict if part == "networks" else _SECTIONS.get(part)
    return None if model is dict else model


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    model = _model_at(location)
    return list(model.model_fields) if model else []


def _description(location: tuple[Any, ...]) -> str:
    for end in range(len(location), 0, -1):
        model = _model_at(location[: end - 1])
        if model and location[end - 1] in model.model_fields:
            return f"it is: {model.model_fields[location[end - 1]].description}"
    return "see config.yaml for an example"
