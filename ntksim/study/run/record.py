"""The folder `record` in a results folder: everything needed to compute its numbers again years later.

`config.yaml` is the configuration as run, byte for byte. `constraints.txt` holds the project's pinned versions,
`requirements.txt` the versions that were installed. `runs.jsonl` has a line for every run that computed anything, with its time,
command, machine and commit. `changes.patch` holds changes that were not committed. The points and targets are
in `dataset.npz`, or where a study has several data sets in a file of each, such as `dataset.train-8.npz`.
"""

import json
import os
import platform
import shlex
import sys
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from ntksim.study.config.axes import without_imports
from ntksim.study.config.study import Study, parse_study, read_content
from ntksim.study.errors import ConfigError, StageError
from ntksim.study.files.provenance import code_identity, git, provenance
from ntksim.study.files.storage import atomic, read_metadata
from ntksim.study.plan.memory import physical_megabytes
from ntksim.study.run import project


def write_record(study: Study, config: str | Path) -> None:
    """Write the folder `record` for the run that begins now."""
    folder = Path(study.results) / "record"
    changes = git("diff", "HEAD", "--", "ntksim", "workflow", "Snakefile")
    files = {
        "config.yaml": Path(config).read_text(encoding="utf-8"),
        "constraints.txt": project.CONSTRAINTS.read_text(encoding="utf-8"),
        "requirements.txt": _installed(),
        "changes.patch": f"{changes}\n" if changes else "",
        "runs.jsonl": _earlier_runs(folder) + json.dumps(_run(study), sort_keys=True) + "\n",
    }
    for name, text in files.items():
        with atomic(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _earlier_runs(folder: Path) -> str:
    path = folder / "runs.jsonl"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _installed() -> str:
    found = {f"{package.metadata['Name']}=={package.version}" for package in distributions() if package.metadata["Name"]}
    return "\n".join(sorted(found, key=str.lower)) + "\n"


def _run(study: Study) -> dict[str, Any]:
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(["ntksim", *sys.argv[1:]]),
        "config_hash": study.science_hash(),
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "libc": " ".join(platform.libc_ver()),
            "cores": os.cpu_count(),
            "memory_mb": physical_megabytes(),
        },
        **code_identity(),
        **provenance(),
    }


def recorded_study(results: str | Path, *, imports: bool = True) -> Study:
    """The study of a results folder, also if the folder was moved: from its record, or else from the metadata of its tables.

    Without ``imports`` activations of a user's own are not imported, which would run code: relu stands for them. That is enough
    to find files.

    Raises StageError if the folder has neither.
    """
    results = Path(results)
    config = results / "record" / "config.yaml"
    try:
        if config.is_file():
            content, source = read_content(config), str(config)
        else:
            content, source = read_metadata(results / "tables" / "initial.parquet")["config"], str(results)
        study = parse_study(content if imports else without_imports(content), source=source)
    except (ConfigError, StageError) as error:
        raise StageError(f"{results}: holds no record of a study that this version of ntksim can read ({error})") from None
    return study.model_copy(update={"results": str(results)})
