"""The configuration of a study: a closed schema with a description per key, read from YAML and checked as a whole.

Its sections are in `dataset`, `network` and `stages`; what is wrong with them is said by `messages`.
None of these modules loads Numba or pandas: the workflow reads them in every job.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.json_schema import GenerateJsonSchema

from ntksim.engine.arguments import PRECISIONS
from ntksim.engine.devices import DEVICES
from ntksim.study.config.dataset import Dataset
from ntksim.study.config.messages import config_error
from ntksim.study.config.network import NetworkOptions, family, one_each
from ntksim.study.config.section import MOST, MOST_SHARDS, Section, check_path, one_of
from ntksim.study.config.stages import Initial, Training, in_batches
from ntksim.study.config.yaml_text import read_yaml
from ntksim.study.errors import ConfigError, shown

_NAME = r"[A-Za-z][A-Za-z0-9_]{0,63}"  # a network's name is part of file names


class Study(Section):
    """A study: networks of several widths and seeds on one data set."""

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
    results: str = Field(default="results", min_length=1, description="folder for everything that the study writes")

    _expand = field_validator("networks", mode="before")(one_each)

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

    _check_results = field_validator("results")(check_path)

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
    def _drawable(self) -> "Study":
        if self.training is not None and self.training.sampling == "conditional" and self.device == "cuda":
            raise ValueError(
                "device: training.sampling conditional runs on the CPU only so far; set device to cpu, or to auto, which takes "
                "the CPU for it"
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

    @model_validator(mode="after")
    def _revealable(self) -> "Study":
        """Networks in law are refused where a descent may ask a hidden matrix for more directions than it has, as by `train`."""
        training = self.training
        if training is None or training.sampling != "conditional" or training.method != "gradient_descent":
            return self
        points, least = self.dataset.train, training.widths[0]
        if training.steps * points > least and any(options.depth > 1 for options in self.networks.values()):
            raise ValueError(
                f"training.sampling: conditional may ask for {training.steps * points} directions in {training.steps} steps on "
                f"{points} points, more than the smallest of training.widths, {least}: set method to gradient_flow, take fewer "
                "steps or wider networks, or set sampling to weights"
            )
        return self

    @property
    def trains_in_batches(self) -> bool:
        """Whether steps of training see fewer than all points, drawn at random."""
        return self.training is not None and in_batches(self.training.batch_size, self.dataset.train)

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
    return Study.model_json_schema(schema_generator=_WithoutTitles)


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
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise config_error(source, error, Study) from None
    widths = study.initial.widths + (study.training.widths if study.training else [])
    for name, options in study.networks.items():
        try:
            for width in widths:
                options.network(width)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{source}: networks.{family(name)}: {error}") from None
    return study
