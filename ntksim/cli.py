"""The `ntksim` command: each subcommand binds arguments to one function of the study.

Errors that a user can mend are one message and an exit status of 2 (configuration, or something is not installed) or 1 (a
stage), never a traceback. Nothing at the top of this file imports more than the engine needs: where it is installed alone, the
commands of the study say what they lack.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import ntksim
from ntksim.engine.arguments import PRECISIONS, SAMPLINGS
from ntksim.engine.devices import DEVICES, DeviceError, GpuMemoryError
from ntksim.engine.network import Network
from ntksim.study.errors import ConfigError, StageError, lacking
from ntksim.study.run import project

if TYPE_CHECKING:
    from ntksim.study.config.section import Section
    from ntksim.study.stages.shard import ShardJob


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parser(arguments).parse_args(arguments)
        if getattr(options, "threads", None):
            os.environ["NUMBA_NUM_THREADS"] = str(options.threads)  # read when Numba is first imported
        if getattr(options, "allow_imports", False):
            from ntksim.study.config import imports

            imports.allow()
        return options.run(options) or 0
    except ConfigError as error:
        return _fail(error, 2)
    except ModuleNotFoundError as error:
        return _fail(lacking(f"`ntksim {arguments[0]}`", error), 2)
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


def _init(options: argparse.Namespace) -> None:
    config = project.new_study(options.folder, options.profile)
    print(f"Wrote {config}. Next: cd {shlex.quote(options.folder)} && ntksim study {config.name}")


def _warm_up(options: argparse.Namespace) -> None:
    from ntksim.engine import known_answers
    from ntksim.engine.compiled.code_cache import FOLDER

    known_answers.warm_up(lambda line: print(f"ntksim: {line}", file=sys.stderr, flush=True))
    print(f"Compiled code is in {FOLDER}.")


def _study(options: argparse.Namespace) -> int:
    from ntksim.study.config.study import load_study
    from ntksim.study.run.runner import run_study

    status = run_study(options.config, options.cores, options.profile, recompute=options.recompute, verbose=options.verbose)
    results = load_study(options.config).results
    if status == 0:
        from ntksim.study.report.summary import summary

        print(summary(results))
    else:
        print(f"ntksim: error: the study did not finish; see the messages above and the logs in {results}/logs. "
              "The same command goes on from here.", file=sys.stderr)  # fmt: skip
    return status


def _plan(options: argparse.Namespace) -> None:
    from ntksim.study.config.study import load_study
    from ntksim.study.data.treatment import remarks, treatment
    from ntksim.study.plan.calibration import measured
    from ntksim.study.plan.jobs import describe, memory_remark
    from ntksim.study.plan.memory import machine_megabytes
    from ntksim.study.run.runner import load_data

    study = load_study(options.config)
    every = load_data(study)
    data = every[study.shown_label]
    print(describe(study, measured()))
    print("\n".join(treatment(study.dataset, data)))
    memory = memory_remark(study, machine_megabytes())
    for remark in dict.fromkeys([*(remark for own in every.values() for remark in remarks(own)), *([memory] if memory else [])]):
        print(f"ntksim: warning: {remark}", file=sys.stderr)


def _show(options: argparse.Namespace) -> None:
    from ntksim.study.report.page import write_html
    from ntksim.study.report.summary import summary

    if options.html is None:
        print(summary(options.results))
    else:
        write_html(options.results, options.html, project.CAPTIONS)


def _verify(options: argparse.Namespace) -> int:
    from ntksim.study.run.verify import verify

    return 0 if verify(options.results, fraction=options.fraction, shards=options.shards, seed=options.seed) else 1


def _schema(options: argparse.Namespace) -> None:
    from ntksim.study.config.study import json_schema

    print(json.dumps(json_schema(), indent=2))


def _dataset(options: argparse.Namespace) -> None:
    from ntksim.study.config.dataset import Dataset
    from ntksim.study.config.words import section_of
    from ntksim.study.data import nested

    nested.write(options.output, nested.load(section_of(options.dataset, Dataset, "--dataset"), options.first))


def _network(options: argparse.Namespace) -> Network:
    from ntksim.study.config.network import NetworkOptions
    from ntksim.study.config.words import section_of

    return section_of(options.network, NetworkOptions, "--network").network(options.width)


def _shard(options: argparse.Namespace) -> "ShardJob":
    network = _network(options)
    from ntksim.study.stages.shard import ShardJob

    return ShardJob(options.dataset, options.limit, network, options.seeds, options.output, options.precision, options.device)


def _limit(options: argparse.Namespace) -> None:
    network = _network(options)
    from ntksim.study.stages import limit

    limit.limit(options.dataset, network, options.output)


def _initial(options: argparse.Namespace) -> None:
    job = _shard(options)
    from ntksim.study.stages import initial

    initial.initial_shard(job, options.sampling, options.first_step)


def _training(options: argparse.Namespace) -> None:
    from ntksim.study.config.stages import Schedule
    from ntksim.study.config.words import section_of

    job, schedule = replace(_shard(options), name=options.name), section_of(options.schedule, Schedule, "--schedule")
    from ntksim.study.stages.training import training_shard

    training_shard(job, schedule, options.kernels)


def _tables(options: argparse.Namespace) -> None:
    from ntksim.study.config.study import load_study
    from ntksim.study.statistics.tables import make_tables

    make_tables(load_study(options.config), options.output)


def _figures(options: argparse.Namespace) -> None:
    from ntksim.study.report import figures

    figures.draw_all(options.names, options.tables, options.output)


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


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of these arguments: of all commands it knows the names, of the one that is called the options too.

    The options of stages are those of the configuration's models, which cannot be imported where the engine is installed alone.
    """
    parser = argparse.ArgumentParser(prog="ntksim", description="Width-scaling studies of neural tangent kernels.")
    parser.add_argument("--version", action="version", version=f"ntksim {ntksim.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (run, add_options, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        if name in arguments[:1]:
            add_options(command)
    return parser


def _allow_imports(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-imports", action="store_true", help="run the modules that activations of the configuration are imported from"
    )


def _init_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="the study's folder, which is made if there is none")
    parser.add_argument("--profile", choices=project.profiles(), help="copy this profile into the folder too, to be changed")


def _study_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config")
    parser.add_argument("--cores", default="all", help="cores to use (default: all)")
    profiles = ", ".join(project.profiles())
    parser.add_argument("--profile", default="default", help=f"Snakemake profile: a folder, or one of {profiles}")
    parser.add_argument("--recompute", action="store_true", help="compute again what another version of ntksim computed")
    parser.add_argument("--verbose", action="store_true", help="print all that Snakemake says, with the command of every job")
    _allow_imports(parser)


def _plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config")
    _allow_imports(parser)


def _show_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results")
    parser.add_argument("--html", metavar="FILE", help="write the report, one page with figures, laws and verdicts, instead")


def _verify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results")
    parser.add_argument("--fraction", type=float, default=0.05, help="share of the shards (default: 0.05), at least one")
    parser.add_argument("--shards", type=int, help="number of shards instead")
    parser.add_argument("--seed", type=int, default=0, help="seed of their choice")
    _allow_imports(parser)
    parser.add_argument("--threads", type=int, help="threads to use (default: all)")


def _no_options(parser: argparse.ArgumentParser) -> None:
    """None."""


def _section_option(parser: argparse.ArgumentParser, option: str, model: "type[Section]") -> None:
    """An option that takes a section of the configuration, in JSON."""
    keys = ", ".join(model.model_fields)
    what = f"keys of the configuration and their values in one word of JSON: {keys} (`ntksim schema` explains them)"
    parser.add_argument(option, metavar="JSON", required=True, help=what)


def _dataset_options(parser: argparse.ArgumentParser) -> None:
    from ntksim.study.config.dataset import Dataset

    _section_option(parser, "--dataset", Dataset)
    parser.add_argument("--first", type=int, help="training points to keep, of those that the largest data set of a study has")
    parser.add_argument("--output", required=True, help="the file to write")


def _limit_options(parser: argparse.ArgumentParser) -> None:
    """What every stage of a network has."""
    from ntksim.study.config.network import NetworkOptions

    _section_option(parser, "--network", NetworkOptions)
    _allow_imports(parser)
    parser.add_argument("--width", type=int, required=True, help="neurons per hidden layer")
    parser.add_argument("--dataset", required=True, help="the data set")
    parser.add_argument("--output", required=True, help="the file to write")
    parser.add_argument("--threads", type=int, help="threads to use (default: all)")


def _initial_options(parser: argparse.ArgumentParser) -> None:
    _shard_options(parser)
    parser.add_argument("--sampling", choices=SAMPLINGS, default=SAMPLINGS[0], help="how networks are drawn (default: weights)")
    what = "measure the kernel's diagonal and its change by one step of gradient descent at this rate over lambda_max(K_infinity)"
    parser.add_argument("--first-step", type=float, metavar="RATE", help=what)


def _shard_options(parser: argparse.ArgumentParser) -> None:
    _limit_options(parser)
    parser.add_argument("--limit", required=True, help="the network's limit")
    parser.add_argument("--seeds", type=seed_range, required=True, metavar="FIRST:STOP")
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0])
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where to compute (default: cpu)")


def _training_options(parser: argparse.ArgumentParser) -> None:
    from ntksim.study.config.stages import Schedule

    _shard_options(parser)
    _section_option(parser, "--schedule", Schedule)
    parser.add_argument("--kernels", metavar="FILE", help="keep K_t of every seed and time in this file")
    parser.add_argument("--name", default="", help="the network's name, which the file of --kernels holds")


def _tables_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config")
    _allow_imports(parser)
    parser.add_argument("--output", required=True, help="folder of the tables")


def _figures_options(parser: argparse.ArgumentParser) -> None:
    from ntksim.study.plan.jobs import FIGURES

    parser.add_argument("tables", help="folder of the tables")
    sources = "; ".join(f"{name} of {', '.join(tables)}" for name, tables in FIGURES.items())
    parser.add_argument("names", nargs="+", choices=list(FIGURES), metavar="FIGURE", help=f"what to draw: {sources}")
    parser.add_argument("--output", required=True, help="folder to write them to, as SVG, PNG and PDF")


# Of each command the function that runs it, the one that adds its options to a parser, and what it does.
_COMMANDS: dict[str, tuple[Callable[..., object], Callable[[argparse.ArgumentParser], None], str]] = {
    "init": (_init, _init_options, "make a folder for a study of your own, with the default configuration to be changed"),
    "warm-up": (_warm_up, _no_options, "compile what studies and Python need, about two minutes, once on a machine"),
    "study": (_study, _study_options, "run the study of a configuration file and print what it found"),
    "plan": (_plan, _plan_options, "show a study's jobs and their cost, and what is done to its data; compute nothing"),
    "show": (_show, _show_options, "print the summary of a results folder"),
    "verify": (_verify, _verify_options, "compute a sample of a results folder's shards again and compare"),
    "schema": (_schema, _no_options, "print the JSON schema of the configuration"),
    "dataset": (_dataset, _dataset_options, "stage: write the data set"),
    "limit": (_limit, _limit_options, "stage: write the infinite-width kernels of a network"),
    "initial": (_initial, _initial_options, "stage: kernels at initialisation of a block of seeds"),
    "training": (_training, _training_options, "stage: training of a block of seeds"),
    "tables": (_tables, _tables_options, "stage: collect a study's shards into tables"),
    "figures": (_figures, _figures_options, "stage: draw figures from tables"),
}


if __name__ == "__main__":
    sys.exit(main())
