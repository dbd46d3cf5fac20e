"""The configuration of a study: a closed schema with a description per key, read from YAML and checked as a whole.

Its sections are in `dataset`, `network` and `stages`; what is wrong with them is said by `messages`.
None of these modules loads Numba or pandas: the workflow reads them in every job.
"""

import hashlib
import itertools
import json
import math
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema

from ntksim.engine.arguments import PRECISIONS
from ntksim.engine.devices import DEVICES
from ntksim.engine.loss import LOGISTIC, LOSSES, SOFTMAX, is_squared
from ntksim.study.config.axes import DATA_AXES, allow_lists, one_data_set, one_each, written_names
from ntksim.study.config.dataset import FEATURES, Dataset
from ntksim.study.config.formula import formula
from ntksim.study.config.messages import config_error
from ntksim.study.config.network import NetworkOptions
from ntksim.study.config.section import MOST, MOST_SHARDS, Section, check_path, one_of
from ntksim.study.config.stages import Initial, Training
from ntksim.study.config.yaml_text import read_yaml
from ntksim.study.errors import ConfigError, StageError, shown

_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")  # a network's name is part of file names
_LONGEST, _LONGEST_OF_AXES = 64, 128  # a name that is written, and one with values of lists behind it


ALONG = ("width", "train", "depth_over_width")
_VARIABLES: dict[str, Any] = {
    "anyOf": [{"enum": list(ALONG), "type": "string"}, {"type": "array", "items": {"enum": list(ALONG)}, "minItems": 1}]
}


def _variables(given: Any) -> list[str]:
    every = given if isinstance(given, list) else [given]
    if not every or not all(isinstance(one, str) and one in ALONG for one in every) or len(set(every)) < len(every):
        raise ValueError(f"expected {', '.join(ALONG)}, or a list of some")
    return every


class Study(Section):
    """A study: networks of several widths and seeds on a data set, or on each of several."""

    # of several, the one with the largest training set and the first seed: `data_sets` has the study of each
    dataset: Dataset = Field(description="the points and targets")
    networks: dict[str, NetworkOptions] = Field(min_length=1, description="the networks, by name")
    initial: Initial = Field(description="kernels at initialisation, of one output: of several in training, the first")
    training: Training | None = Field(default=None, description="training; leave out to study initialisation alone")
    precision: Annotated[str, one_of(PRECISIONS)] = Field(default="float64", description="arithmetic of networks and kernels")
    device: Annotated[str, one_of(DEVICES)] = Field(
        default="cpu",
        description="where shards are computed: cpu, cuda (NVIDIA GPUs; needs numba-cuda), or auto (a GPU where there is one; "
        "jobs of a cluster ask for GPUs with cuda alone); results differ by rounding alone, so that a change computes nothing "
        "again",
    )
    seeds_per_shard: int = Field(default=32, ge=1, lt=MOST, description="seeds that one job computes at most")
    shard_minutes: float = Field(
        default=10.0,
        ge=1e-6,
        description="minutes that one job should take at most, on one core of a nominal machine: it gets fewer seeds",
    )
    # left out of every record where it says what all studies did before there was such a key
    laws_along: Annotated[list[str], BeforeValidator(_variables), WithJsonSchema(_VARIABLES)] = Field(
        default=["width"],
        exclude_if=lambda along: along == ["width"],
        description="variables of the table scaling_laws, one or a list: width; train, for the training points of dataset.train; "
        "depth_over_width, for networks that are equal but for their depth",
    )
    results: str = Field(default="results", min_length=1, description="folder for everything that the study writes")

    _lists: dict[str, list[int]] = PrivateAttr(default_factory=dict)  # of the section `dataset`, ascending

    @model_serializer(mode="wrap")
    def _as_written(self, handler: Any) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return found | {"dataset": found["dataset"] | self._lists} if self._lists else found

    @property
    def data_sets(self) -> dict[str, "Study"]:
        """The study of every data set alone, by what the names of its files say of it: nothing where there is one.

        Training sets ascend, and seeds of one size.
        """
        names = {"train": "train", "seed": "dataset_seed"}
        words = ([f"{names[key]}-{value}" for value in values] for key, values in self._lists.items())
        return {label: self.data_set(label) for label in map(".".join, itertools.product(*words))}

    @property
    def shown_label(self) -> str:
        """The data set that figures and reports show: the largest training set, and the first seed."""
        return next(label for label, own in self.data_sets.items() if own.dataset == self.dataset)

    def data_set(self, label: str) -> "Study":
        """The study of one data set alone."""
        if not label:
            return self
        values = (int(part.rpartition("-")[2]) for part in label.split("."))
        one = self.model_copy(update={"dataset": self.dataset.model_copy(update=dict(zip(self._lists, values, strict=True)))})
        one._lists = {}
        return one

    def drawn(self, label: str) -> tuple[Dataset, int | None]:
        """The points that are drawn for a data set, and how many of them it trains on: the first so many, or None for all."""
        dataset = self.data_set(label).dataset
        if "train" not in self._lists:
            return dataset, None
        return dataset.model_copy(update={"train": self.dataset.train}), dataset.train

    @field_validator("networks", mode="wrap")
    @classmethod
    def _each_named(cls, given: Any, handler: Any) -> Any:
        networks, written = handler(one_each(given)), written_names(given)
        for name in networks:
            own = str(written.get(name) or name)
            if not _NAME.fullmatch(name) or len(own) > _LONGEST or len(name) > _LONGEST_OF_AXES:
                behind = f", and {_LONGEST_OF_AXES} with {name[len(own) :]} behind them" if name != own else ""
                raise ValueError(
                    f"the name {shown(own)} must be letters, digits and underscores, a letter first, at most {_LONGEST}{behind}"
                )
        return networks

    _check_results = field_validator("results")(check_path)

    @model_validator(mode="after")
    def _drawable(self) -> "Study":
        if self.training is not None and self.training.sampling == "conditional" and self.device == "cuda":
            raise ValueError(
                "device: training.sampling conditional runs on the CPU only so far; set device to cpu, or to auto, which takes "
                "the CPU for it"
            )
        if self.training is not None and self.training.is_on_cpu and self.device == "cuda":
            what = "weight_decay" if is_squared(self.training.loss) else f"loss {self.training.loss}"
            raise ValueError(
                f"device: training.{what} runs on the CPU only so far; set device to cpu, or to auto, which takes the CPU for it"
            )
        return self

    @model_validator(mode="after")
    def _tells_classes(self) -> "Study":
        """Losses of classes are refused where the configuration tells that targets are none, or too many; data tell the rest."""
        if self.training is None or is_squared(self.training.loss):
            return self
        loss, data = f"training.loss: {self.training.loss}", self.dataset
        labels = len(data.classes_or_default or [])
        if data.is_synthetic or (data.name is not None and not labels):
            raise ValueError(f"{loss} needs classes, and the targets of {data.name} are real numbers; take a squared loss, or "
                             "other data")  # fmt: skip
        if data.target_scale != 1:
            raise ValueError(
                f"dataset.target_scale: {loss.replace(': ', ' ')} takes targets as classes, not as numbers; leave it out"
            )
        if labels > 2 and LOSSES[self.training.loss][0] == LOGISTIC:
            raise ValueError(
                f"{loss} needs two classes, and dataset has {labels}; take softmax_cross_entropy, or list two in dataset.classes"
            )
        if labels == 2 and LOSSES[self.training.loss][0] == SOFTMAX:
            raise ValueError(f"{loss} needs three classes or more: two make one output; take logistic")
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
                    f"training.layer_rates: expected {options.depth + 1} numbers for networks.{name} (its depth + 1), "
                    f"got {len(rates)}; a study with layer_rates has networks of one depth"
                )
        return self

    @model_validator(mode="after")
    def _revealable(self) -> "Study":
        """Networks in law are refused where a descent may ask a hidden matrix for more directions than it has, as by `train`."""
        training = self.training
        if training is None or training.sampling != "conditional" or training.method != "gradient_descent":
            return self
        points, least, outputs = self.dataset.train, training.widths[0], self.dataset.outputs
        steps = training.known_steps or 0
        if (asked := steps * points * outputs) > least and any(options.depth > 1 for options in self.networks.values()):
            of_outputs = f" of {outputs} outputs" if outputs > 1 else ""
            raise ValueError(
                f"training.sampling: conditional may ask for {asked} directions in {steps} steps on {points} points{of_outputs}, "
                f"more than the smallest of training.widths, {least}: set method to gradient_flow, take fewer steps or wider "
                "networks, or set sampling to weights"
            )
        return self

    @model_validator(mode="after")
    def _deep(self) -> "Study":
        alike: dict[str, set[int]] = {}
        for options in self.networks.values():
            alike.setdefault(options.model_dump_json(exclude={"depth"}), set()).add(options.depth)
        if "depth_over_width" in self.laws_along and max(map(len, alike.values())) < 2:
            raise ValueError(
                "laws_along: depth_over_width needs networks that are equal but for their depth; give a list of depths, as [1, 2]"
            )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _of_lists(cls, given: Any, handler: Any) -> "Study":
        # the last of the validators, so that the others are asked of every data set
        dataset, lists = one_data_set(given.get("dataset") if isinstance(given, dict) else None)
        for key, values in lists.items():
            for value in values:
                handler(given | {"dataset": dataset | {key: value}})  # for what it refuses
        study: Study = handler(given | {"dataset": dataset} if lists else given)
        study._lists = lists
        study._check_jobs()
        sizes = lists.get("train", [])
        if study.dataset.spacing == "even" and any(more % less for less, more in itertools.pairwise(sizes)):
            raise ValueError(
                f"dataset.train: with spacing even each number must be a multiple of the one before, so that smaller sets are "
                f"evenly spaced parts of larger ones, got {sizes}; give numbers such as [8, 16, 32], or leave spacing out"
            )
        if "train" in study.laws_along and len(lists.get("train", [])) < 2:
            raise ValueError(
                "laws_along: train needs a list of two numbers or more in dataset.train; give one, or leave train out"
            )
        return study

    def _check_jobs(self) -> None:
        sections = [section for section in (self.initial, self.training) if section]
        cells = sum(len(section.widths) * -(-section.seeds // self.seeds_per_shard) for section in sections)
        jobs = cells * len(self.networks) * math.prod(map(len, self._lists.values()))
        if jobs > MOST_SHARDS:
            raise ValueError(
                f"seeds_per_shard: the study would have {jobs} jobs, more than {MOST_SHARDS}; raise it, or ask for fewer seeds "
                "or widths"
            )
        if self.training is not None and self.training.measures is not None:
            networks = len(self.networks) * math.prod(map(len, self._lists.values())) * len(self.training.widths)
            self.training.measures.check_rows(networks * self.training.seeds * (self.training.looks + 1))

    @model_validator(mode="after")
    def _measurable(self) -> "Study":
        """Named functions need points on a circle or sphere; a step of networks in law no more directions than neurons."""
        data, measures = self.dataset, self.training.measures if self.training else None
        for key in ("eigenvalues", "eigenvectors"):
            if (asked := getattr(measures, key, None)) is not None and asked > data.train:
                raise ValueError(f"training.measures.{key}: expected at most dataset.train = {data.train}, got {asked}")
        if measures is not None and measures.modes is not None:
            features = 2 if data.name == "circle" else FEATURES.get(str(data.name), data.features)
            if data.scaling_or_default == "none" and data.name in ("gaussian", *FEATURES):
                raise ValueError("training.measures.modes: needs points on a circle or sphere; set dataset.scaling to sphere, or "
                                 "name another set")  # fmt: skip
            if measures.modes.frequencies is not None and features not in (None, 2):
                raise ValueError(
                    f"training.measures.modes.frequencies: needs points on the circle, with 2 features, and {data.name} has "
                    f"{features}; give degrees instead"
                )
        if self.initial.dispersion is not None and self.initial.sampling == "conditional":
            deep, least = any(options.depth > 1 for options in self.networks.values()), self.initial.widths[0]
            if deep and data.train > least:
                raise ValueError(
                    f"initial.dispersion: a step of networks in law may ask for {data.train} directions, more than the smallest "
                    f"of initial.widths, {least}: take wider networks or fewer points, or set sampling to weights"
                )
        return self

    @model_validator(mode="after")
    def _precise_enough(self) -> "Study":
        """In float32 networks in law may leave out more than a step of a fine flow may be off by."""
        asked = self.training
        if asked is None or asked.sampling != "conditional" or asked.method != "gradient_flow":
            return self
        least, tolerance = 10 * asked.chosen(self.precision)["rank_tolerance"], asked.filled.tolerance
        if tolerance < least * (1 - 1e-9) and any(options.depth > 1 for options in self.networks.values()):
            raise ValueError(
                f"training.tolerance: expected at least {math.ceil(1e7 * least) / 1e7:g} with sampling conditional in "
                f"{self.precision}, got {tolerance:g}; raise it, set precision to float64, or set training.sampling to weights"
            )
        return self

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


class _WithoutTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration; workflow/schemas/config.schema.json is a copy of it."""
    schema = Study.model_json_schema(schema_generator=_WithoutTitles)
    allow_lists(schema["$defs"]["NetworkOptions"]["properties"])
    dataset = schema["$defs"]["Dataset"]["properties"]
    axes = {name: dataset[name] for name in DATA_AXES}
    allow_lists(axes)
    dataset |= axes
    return schema


def load_study(path: str | Path) -> Study:
    """Read and check a configuration file (YAML).

    Raises ConfigError with one line per problem.
    """
    return parse_study(read_content(path), source=str(path))


def read_content(path: str | Path) -> object:
    """What a configuration file (YAML) holds, as it stands. Raises ConfigError with one line."""
    path = Path(path)
    try:
        return read_yaml(path.read_text(encoding="utf-8"))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a configuration, such as config.yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file ({error})") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid YAML: nested too deeply") from None
    except Exception as error:  # of YAML, and of what builds dates and numbers from its text
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())[:300]}") from None


def parse_study(content: object, source: str = "config") -> Study:
    """Check a configuration that is already a mapping; ``source`` starts the messages."""
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: expected keys such as dataset, networks, initial; got {type(content).__name__}")
    written = written_names(content.get("networks"))
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise config_error(source, error, Study, written) from None
    _check_formulas(study.dataset, source)
    widths = study.initial.widths + (study.training.widths if study.training else [])
    for name, options in study.networks.items():
        try:
            for width in widths:
                options.network(width)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{source}: networks.{written[name]}: {error}") from None
    return study


def _check_formulas(data: Dataset, source: str) -> None:
    """Refuse what is no formula, before data are made with it."""
    on_circle = data.name == "circle"
    for key in ("formula", "density"):
        text = getattr(data, key)
        if text is not None:
            try:
                formula(f"dataset.{key}", text, data.features or 2, on_circle=on_circle)
            except StageError as error:
                raise ConfigError(f"{source}: {error}") from None
