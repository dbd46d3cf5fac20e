"""What the sections of a configuration share: a model that refuses keys it does not know, and limits of what may be asked."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, GetPydanticSchema
from pydantic_core import core_schema

MOST_SHARDS = 100_000  # jobs of a study; more would take Snakemake hours to plan
MOST = 2**31  # of points, features, neurons, seeds: more than any machine holds, and still an index


def check_path(path: str) -> str:
    """The path; ValueError for one with braces, which are Snakemake's wildcards, or control characters."""
    if not path.isprintable() or set(path) & set("{}"):
        raise ValueError("expected a path without braces and control characters")
    return path


def one_of(words: Sequence[str]) -> GetPydanticSchema:
    """For ``Annotated[str, ...]``: one of some words, as a Literal of them; so a list of the engine's is read, not copied."""
    return GetPydanticSchema(lambda source, handler: core_schema.literal_schema(list(words)))


class Section(BaseModel):
    """A part of a configuration: its keys and no others, of the very types asked for, finite, and never changed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
