"""What a results folder keeps so that its numbers can be computed again years later: the folder `record`.

`config.yaml` is the configuration as run, byte for byte; `constraints.txt` the project's pins, `requirements.txt` what was
really installed; `runs.jsonl` has a line per run that computed anything: when, by which command, on which machine, with
which commit; `changes.patch` what that commit lacks, if anything. The points and targets are in `dataset.npz`.
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

from ntksim.study import project
from ntksim.study.config import Study, load_study, parse_study
from ntksim.study.errors import ConfigError, StageError
from ntksim.study.memory import physical_megabytes
from ntksim.study.provenance import code_identity, git, provenance
from ntksim.study.storage import atomic, read_metadata


def write_record(study: Study, config: str | Path) -> None:
    """Write what the run that begins now depends on."""
    folder = Path(study.results) / "record"
    changes = git("diff", "HEAD", "--", "ntksim", "workflow", "Snakefile")
    files = {
        "config.yaml": Path(config).read_text(encoding="utf-8"),
        "constraints.txt": project.CONSTRAINTS.read_text(encoding="utf-8"),
        "requirements.txt": _installed(),
        "changes.patch": f"{changes}\n" if changes else "",
        "runs.jsonl": _earlier(folder) + json.dumps(_run(study), sort_keys=True) + "\n",
    }
    for name, text in files.items():
        with atomic(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _earlier(folder: Path) -> str:
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


def recorded_study(results: str | Path) -> Study:
    """The study that a results folder holds, wherever it has been moved: as recorded, or as its tables tell.

    Raises StageError if it tells neither.
    """
    results = Path(results)
    config = results / "record" / "config.yaml"
    try:
        if config.is_file():
            study = load_study(config)
        else:
            study = parse_study(read_metadata(results / "tables" / "initial.parquet")["config"], source=str(results))
    except (ConfigError, StageError) as error:
        raise StageError(f"{results}: no study of this version of ntksim is recorded here ({error})") from None
    return study.model_copy(update={"results": str(results)})
