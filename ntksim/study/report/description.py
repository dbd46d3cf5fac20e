"""A study in words, from the metadata in its tables: its data, its networks and its training."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ntksim.engine.loss import unit
from ntksim.study.config.axes import one_data_set
from ntksim.study.config.dataset import Dataset
from ntksim.study.config.stages import Training
from ntksim.study.errors import ForeignFile
from ntksim.study.report import losses

_MOST_NAMES = 8  # networks that are named in the report's opening; more are counted
_MOST_CLASSES = 4  # classes that are named one by one; more are counted
# Keys of training that the sentence on it says in words of its own, or not at all.
_SAID = (
    "method", "loss", "nesterov", "remove_initial_output", "relative_time", "time", "steps", "snapshots", "sampling",
    "rank_tolerance", "measures",
)  # fmt: skip


def data(metadata: Mapping[Any, Any], *, shown: bool = False) -> str:
    """Describe the data: its source, its classes, the numbers of points, and the number of network outputs.

    Of several data sets with ``shown`` the one that figures show: the largest training set and the first seed.

    Raises ForeignFile for tables of an earlier version, whose metadata lack this.
    """
    if "data" not in metadata:
        raise ForeignFile("these tables come from an earlier version of ntksim; run the study again with --recompute")
    one, lists = one_data_set(metadata["config"]["dataset"])
    options, sizes = Dataset.model_validate(one), metadata["data"]
    labels = options.classes_or_default
    source = ", ".join(Path(file).name for file in options.files) or str(options.name)
    kind = "real targets" if labels is None else _listed(labels) if len(labels) <= _MOST_CLASSES else f"{len(labels)} classes"
    outputs = "1 output" if sizes["outputs"] == 1 else f"{sizes['outputs']} outputs"
    every = {key: [getattr(options, key)] if shown else values for key, values in lists.items()}
    train = ", ".join(map(str, every.get("train", [sizes["train"]])))
    if "seed" in every:
        outputs += f", seed{'s' if len(every['seed']) > 1 else ''} of the data {', '.join(map(str, every['seed']))}"
    return f"{source}, {kind}: {train} training and {sizes['test']} test points, {outputs}"


def seeds(metadata: Mapping[Any, Any], stage: str) -> str:
    """Number of seeds behind every statistic of a stage, ``initial`` or ``training``."""
    one_output = ", kernels of one output" if stage == "initial" and metadata["data"]["outputs"] > 1 else ""
    return f"{metadata['config'][stage]['seeds']} seeds at each width{one_output}"


def study(metadata: Mapping[Any, Any]) -> list[str]:
    """Lines on the data, on the scaling of points and targets, on what is unwise about the data, and on each stage."""
    training = metadata["config"]["training"]
    lines = [f"Data: {data(metadata)}", *metadata["data"]["treatment"]]
    if data(metadata) != data(metadata, shown=True):
        lines.append(
            "Below and in figures: the largest training set and the first seed of the data. The tables hold all of them."
        )
    lines += [f"Warning: {remark}" for remark in metadata["data"]["remarks"]]
    lines += [f"At initialisation: {_networks(metadata, 'initial')}"]
    return lines + ([f"In training: {_trained(metadata)}"] if training else [])


def opening(metadata: Mapping[Any, Any], left_out: list[str]) -> list[tuple[str, str]]:
    """What was run, in three pairs of a name and a line: data and scaling, networks and seeds, and what is excluded.

    ``left_out`` holds the lines on networks that did not finish (`findings.stops`), of which those on stages are repeated.
    """
    names = sorted(metadata["config"]["networks"], key=_natural)
    listed = ", ".join(names[:_MOST_NAMES]) + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")
    training = metadata["config"]["training"]
    stages = [f"at initialisation {_networks(metadata, 'initial')}"]
    stages += [f"in training {_trained(metadata)}"] if training else []
    excluded = [line for line in left_out if line.startswith("Left out")]
    return [
        ("Data and scaling", ". ".join([_capital(data(metadata)), *metadata["data"]["treatment"]]) + "."),
        ("Networks and seeds", ". ".join([listed, *map(_capital, stages)]) + "."),
        ("Excluded", " ".join(f"{line}." for line in excluded) or "Nothing: every network finished."),
    ]


def _natural(name: str) -> list[str | int]:
    """A key that sorts names by the numbers in them: depth2 before depth16."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _networks(metadata: Mapping[Any, Any], stage: str) -> str:
    widths = metadata["config"][stage]["widths"]
    span = f"{len(widths)} widths, {widths[0]} to {widths[-1]}" if len(widths) > 1 else f"width {widths[0]}"
    drawn = "; networks in law (conditional sampling)" if metadata["config"][stage].get("sampling") == "conditional" else ""
    return f"{seeds(metadata, stage)}; {span}; {metadata['config']['precision']}{drawn}"


def _trained(metadata: Mapping[Any, Any]) -> str:
    config = metadata["config"]
    return f"{_networks(metadata, 'training')}; {_schedule(config['training'], metadata['data'], config['precision'])}"


def _schedule(training: Mapping[str, Any], sizes: Mapping[str, Any] | None = None, precision: str = "float64") -> str:
    schedule = Training.model_validate(training)
    found = schedule.identity
    trained = "f - f_0" if schedule.remove_initial_output else "f"
    end = f"{schedule.steps} steps" if schedule.steps else f"t = {schedule.time or schedule.relative_time:g}"
    end += "" if schedule.relative_time is None else f" / {losses.unit({'config': {'training': training}})}"
    words = [f"{schedule.method.replace('_', ' ')} of {trained} to {end}", losses.words(schedule.loss)]
    prefixes = {"momentum": "Nesterov " if schedule.nesterov else ""}
    names = (name for name in found if name not in _SAID)
    words += [f"{prefixes.get(name, '')}{name.replace('_', ' ')} {found[name]}" for name in names if found[name]]
    words += [] if sizes is None else _on_the_other_loss(schedule, sizes)
    if schedule.relative_time is not None and schedule.loss != "squared":
        words.append("c being the largest second derivative of the loss in the outputs")
    words += [f"rank tolerance {tolerance:g}" for tolerance in schedule.chosen(precision).values()]
    if schedule.measures is not None:
        asked = [name.replace("_", " ") for name, value in found["measures"].items() if value]
        words.append(f"measures along training: {', '.join(asked)}")
    return ", ".join(words)


def _on_the_other_loss(schedule: Training, sizes: Mapping[str, Any]) -> list[str]:
    """An absolute time and learning rate on whichever of half_sum and mean_square they are not of; of one size of training sets,
    on which they depend.
    """
    given = {"t": schedule.time, "learning rate": schedule.learning_rate}
    if schedule.loss != "squared" or not any(given.values()) or not isinstance(sizes["train"], int):
        return []
    other = "mean_square" if schedule.rate_of == "half_sum" else "half_sum"
    own, others = (unit(name, sizes["train"] * sizes["outputs"]) for name in (schedule.rate_of, other))
    same = " and ".join(f"{name} = {value * own / others:.6g}" for name, value in given.items() if value is not None)
    return [f"on {other}: {same}"]


def _listed(labels: list[Any]) -> str:
    return f"classes {', '.join(map(str, labels[:-1]))} and {labels[-1]}"
