"""The `ntksim` command: each subcommand binds arguments to one function of the study.

Errors that a user can mend are one message and an exit status of 2 (configuration) or 1 (a stage), never a traceback.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ntksim.engine.devices import DEVICES, DeviceError, GpuMemoryError
from ntksim.engine.network import Network
from ntksim.study.config import json_schema, load_study, parse_section
from ntksim.study.dataset_options import Dataset
from ntksim.study.errors import ConfigError, StageError
from ntksim.study.memory import machine_megabytes
from ntksim.study.network_options import NetworkOptions
from ntksim.study.plan import FIGURES, describe, memory_remark, read_value
from ntksim.study.stage_options import Training


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status."""
    options = _parser().parse_args(arguments)
    if getattr(options, "threads", None):
        os.environ["NUMBA_NUM_THREADS"] = str(options.threads)  # read when Numba is first imported
    try:
        return options.run(options) or 0
    except ConfigError as error:
        return _fail(error, 2)
    except (StageError, DeviceError, GpuMemoryError, ValueError, TypeError, OSError) as error:
        return _fail(error, 1)
    except MemoryError as error:
        return _fail(
            f"out of memory: {str(error) or 'the system gave no more'}; fewer training points (dataset.train), outputs, "
            "snapshots or seeds a shard need less, as `ntksim plan` says before",
            1,
        )
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from here", 130)


def _fail(error: object, status: int) -> int:
    print("\n".join(f"ntksim: error: {line}" for line in str(error).splitlines()), file=sys.stderr)
    return status


def _study(options: argparse.Namespace) -> int:
    from ntksim.study.runner import run_study

    status = run_study(options.config, options.cores, options.profile, recompute=options.recompute)
    results = load_study(options.config).results
    if status == 0:
        from ntksim.study.summary import summary

        print(summary(results))
    else:
        print(f"ntksim: error: the study did not finish; see the messages above and the logs in {results}/logs. "
              "The same command goes on from here.", file=sys.stderr)  # fmt: skip
    return status


def _plan(options: argparse.Namespace) -> None:
    from ntksim.study.calibration import measured
    from ntksim.study.runner import load_data
    from ntksim.study.treatment import remarks, treatment

    study = load_study(options.config)
    data = load_data(study)
    print(describe(study, measured()))
    print("\n".join(treatment(study.dataset, data)))
    memory = memory_remark(study, machine_megabytes())
    for remark in [*remarks(data), *([memory] if memory else [])]:
        print(f"ntksim: warning: {remark}", file=sys.stderr)


def _show(options: argparse.Namespace) -> None:
    from ntksim.study.summary import summary, write_html

    if options.html is None:
        print(summary(options.results))
    else:
        write_html(options.results, options.html)


def _verify(options: argparse.Namespace) -> int:
    from ntksim.study.verify import verify

    return 0 if verify(options.results, fraction=options.fraction, shards=options.shards, seed=options.seed) else 1


def _schema(options: argparse.Namespace) -> None:
    print(json.dumps(json_schema(), indent=2))


def _dataset(options: argparse.Namespace) -> None:
    from ntksim.study import datasets

    fields = {name: getattr(options, name) for name in Dataset.model_fields}
    datasets.write(options.output, datasets.load(parse_section(Dataset, fields, "dataset")))


def _network(options: argparse.Namespace) -> Network:
    fields = {name: getattr(options, name) for name in NetworkOptions.model_fields}
    return parse_section(NetworkOptions, fields, "network").network(options.width)


def _limit(options: argparse.Namespace) -> None:
    from ntksim.study import stages

    stages.limit(options.dataset, _network(options), options.output)


def _initial(options: argparse.Namespace) -> None:
    from ntksim.study import stages

    stages.initial_shard(
        options.dataset, options.limit, _network(options), options.seeds, options.precision, options.output, options.device
    )


def _training(options: argparse.Namespace) -> None:
    from ntksim.study.training_shards import training_shard

    # widths and seeds are the job's own
    fields = {name: getattr(options, name) for name in _training_keys()} | {"widths": [options.width], "seeds": 2}
    schedule = parse_section(Training, {name: value for name, value in fields.items() if value is not None}, "training").schedule
    training_shard(
        options.dataset, options.limit, _network(options), options.seeds, options.precision, options.output, schedule,
        options.kernels, options.device,
    )  # fmt: skip


def _training_keys() -> list[str]:
    """The keys of training in the configuration that are options of a job."""
    return [name for name in Training.model_fields if name not in ("widths", "seeds", "keep_kernels")]


def _tables(options: argparse.Namespace) -> None:
    from ntksim.study.tables import make_tables

    make_tables(load_study(options.config), options.output)


def _figure(options: argparse.Namespace) -> None:
    from ntksim.study import figures

    figures.draw(options.name, options.tables, options.output)


def seed_range(text: str) -> range:
    """``FIRST:STOP`` as a range of seeds, such as 0:32 for seeds 0 to 31."""
    first, _, stop = text.partition(":")
    try:
        seeds = range(int(first), int(stop))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected FIRST:STOP, such as 0:32, got {text!r}") from None
    if not seeds or seeds.start < 0:
        raise argparse.ArgumentTypeError(f"expected 0 <= FIRST < STOP, got {text!r}")
    return seeds


def _help(kind: object, description: str | None) -> str:
    """What an option is; of one that takes several values also how they are written."""
    return f"{description}; several in one word of JSON, such as '[4,9]'" if kind is read_value else str(description)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ntksim", description="Width-scaling studies of neural tangent kernels.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], object], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    study = command("study", _study, "run the study of a configuration file and print what it found")
    study.add_argument("config")
    study.add_argument("--cores", default="all", help="cores to use (default: all)")
    study.add_argument("--profile", default="workflow/profiles/default", help="Snakemake profile")
    study.add_argument("--recompute", action="store_true", help="compute again what another version of ntksim computed")
    command("plan", _plan, "show a study's jobs and their cost, and what is done to its data; compute nothing").add_argument(
        "config"
    )
    show = command("show", _show, "print the summary of a results folder")
    show.add_argument("results")
    show.add_argument("--html", metavar="FILE", help="write the scaling laws and their provenance as a page instead")
    verify = command("verify", _verify, "compute a sample of a results folder's shards again and compare")
    verify.add_argument("results")
    verify.add_argument("--fraction", type=float, default=0.05, help="share of the shards (default: 0.05), at least one")
    verify.add_argument("--shards", type=int, help="number of shards instead")
    verify.add_argument("--seed", type=int, default=0, help="seed of their choice")
    verify.add_argument("--threads", type=int, help="threads to use (default: all)")
    command("schema", _schema, "print the JSON schema of the configuration")

    dataset = command("dataset", _dataset, "stage: write the data set")
    kinds: dict[str, Any] = {"target_scale": float} | dict.fromkeys(("features", "train", "test", "seed"), int)
    kinds |= dict.fromkeys(("file", "target", "classes"), read_value)
    for name, field in Dataset.model_fields.items():
        dataset.add_argument(
            "--" + name.replace("_", "-"), type=kinds.get(name, str), required=field.is_required(),
            help=_help(kinds.get(name), field.description), default=None if field.is_required() else field.default,
        )  # fmt: skip
    dataset.add_argument("--output", required=True)

    limit = command("limit", _limit, "stage: write the infinite-width kernels of a network")
    initial = command("initial", _initial, "stage: kernels at initialisation of a block of seeds")
    training = command("training", _training, "stage: training of a block of seeds")
    for stage in (limit, initial, training):
        _network_options(stage)
    for stage in (initial, training):
        stage.add_argument("--limit", required=True, help="the network's limit")
        stage.add_argument("--seeds", type=seed_range, required=True, metavar="FIRST:STOP")
        stage.add_argument("--precision", choices=["float64", "float32"], default="float64")
        stage.add_argument("--device", choices=DEVICES, default="cpu", help="where to compute (default: cpu)")
    for name in _training_keys():
        field, option = Training.model_fields[name], "--" + name.replace("_", "-")
        if field.annotation is bool:
            training.add_argument(option, action="store_true", help=field.description)
        else:
            of_training: dict[str, Any] = {"method": str, "layer_rates": read_value, "snapshots": int, "batch_size": int}
            training.add_argument(option, type=of_training.get(name, float), help=_help(of_training.get(name), field.description))
    training.add_argument("--kernels", metavar="FILE", help="keep K_t of every seed and time in this file")

    tables = command("tables", _tables, "stage: collect a study's shards into tables")
    tables.add_argument("config")
    tables.add_argument("--output", required=True, help="folder of the tables")
    figure = command("figure", _figure, "stage: draw a figure from tables")
    figure.add_argument("name", choices=list(FIGURES))
    sources = "; ".join(f"{name}: {', '.join(tables)}" for name, tables in FIGURES.items())
    figure.add_argument("tables", nargs="+", help=f"the files of its tables, in this order: {sources}")
    figure.add_argument("--output", nargs="+", required=True, help="files to write, .svg or .png")
    return parser


def _network_options(parser: argparse.ArgumentParser) -> None:
    """The keys of a network in the configuration, as options."""
    for name, field in NetworkOptions.model_fields.items():
        option = "--" + name.replace("_", "-")
        if field.annotation is bool:
            parser.add_argument(option, action="store_true", help=field.description)
        else:
            kinds: dict[str, Any] = {"activation": str, "parameterization": str, "abc": read_value}
            kind = int if field.annotation is int else kinds.get(name, float)
            parser.add_argument(
                option, type=kind, required=field.is_required(),
                default=None if field.is_required() else field.default, help=_help(kind, field.description),
            )  # fmt: skip
    parser.add_argument("--width", type=int, required=True, help="neurons per hidden layer")
    parser.add_argument("--dataset", required=True, help="the data set")
    parser.add_argument("--output", required=True, help="the file to write")
    parser.add_argument("--threads", type=int, help="threads to use (default: all)")


if __name__ == "__main__":
    sys.exit(main())
