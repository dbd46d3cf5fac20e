"""A study in words, from the metadata that its tables carry: its data, and of how many networks its statistics are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ntksim.study.config.dataset import Dataset
from ntksim.study.config.stages import Training
from ntksim.study.errors import ForeignFile

_MOST_CLASSES = 4  # that are named
# Keys of training that the sentence on it says in words of their own, or not at all.
_SAID = ("method", "nesterov", "remove_initial_output", "relative_time", "snapshots")


def data(metadata: Mapping[Any, Any]) -> str:
    """The points: where they come from, how many there are, and the outputs of their networks.

    Raises ForeignFile for tables of versions that did not say.
    """
    if "data" not in metadata:
        raise ForeignFile("tables of an earlier version of ntksim; run the study again, with --recompute")
    options, sizes = Dataset.model_validate(metadata["config"]["dataset"]), metadata["data"]
    labels = options.classes_or_default
    source = ", ".join(Path(file).name for file in options.files) or str(options.name)
    kind = "real targets" if labels is None else _listed(labels) if len(labels) <= _MOST_CLASSES else f"{len(labels)} classes"
    outputs = "1 output" if sizes["outputs"] == 1 else f"{sizes['outputs']} outputs"
    return f"{source}, {kind}: {sizes['train']} training and {sizes['test']} test points, {outputs}"


def seeds(metadata: Mapping[Any, Any], stage: str) -> str:
    """The networks of a stage, initial or training, behind every number at a width."""
    of_one = ", kernels of one output" if stage == "initial" and metadata["data"]["outputs"] > 1 else ""
    return f"{metadata['config'][stage]['seeds']} seeds at each width{of_one}"


def study(metadata: Mapping[Any, Any]) -> list[str]:
    """A line on the data, what was done to points and to targets and what is unwise about them, and a line on each stage."""
    training = metadata["config"]["training"]
    lines = [f"Data: {data(metadata)}", *metadata["data"]["treatment"]]
    lines += [f"Warning: {remark}" for remark in metadata["data"]["remarks"]]
    lines += [f"At initialisation: {_networks(metadata, 'initial')}"]
    return lines + ([f"In training: {_networks(metadata, 'training')}; {_schedule(training)}"] if training else [])


def _networks(metadata: Mapping[Any, Any], stage: str) -> str:
    widths = metadata["config"][stage]["widths"]
    which = f"{len(widths)} widths, {widths[0]} to {widths[-1]}" if len(widths) > 1 else f"width {widths[0]}"
    drawn = "; networks in law (conditional sampling)" if metadata["config"][stage].get("sampling") == "conditional" else ""
    return f"{seeds(metadata, stage)}; {which}; {metadata['config']['precision']}{drawn}"


def _schedule(training: Mapping[str, Any]) -> str:
    schedule = Training.model_validate(training)
    found = schedule.identity
    trained = "f - f_0" if schedule.remove_initial_output else "f"
    words = [f"{schedule.method.replace('_', ' ')} of {trained} to t = {schedule.relative_time:g} / lambda_max(K_inf)"]
    kinds = {"momentum": "Nesterov " if schedule.nesterov else ""}
    names = (name for name in found if name not in _SAID)
    words += [f"{kinds.get(name, '')}{name.replace('_', ' ')} {found[name]}" for name in names if found[name]]
    return ", ".join(words)


def _listed(labels: list[Any]) -> str:
    return f"classes {', '.join(map(str, labels[:-1]))} and {labels[-1]}"
