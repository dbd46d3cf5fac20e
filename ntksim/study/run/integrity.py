"""What is wrong with the files of a study, before anything is computed, and what is done about it.

Damaged files (checksum) and files of another configuration in this study's own places are removed and computed again: the
first hold nothing, and the second are what the configuration no longer asks for. Files of another version of ntksim are
refused: they may have cost weeks, and only the user can say whether they are to be given up. Nothing of either kind
enters a table, whoever asks for it: the stages check what they read as well.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntksim.study.config.study import Study
from ntksim.study.errors import DamagedFile, ForeignFile, StageError
from ntksim.study.files.provenance import code_identity
from ntksim.study.files.storage import CHECKPOINT, PARTIAL, atomic, read_metadata
from ntksim.study.plan import identity, jobs

_SHOWN = 5  # files of a kind that are named one by one


@dataclass(frozen=True)
class Fault:
    """A file that cannot be used; ``kind`` is missing, damaged, configuration or version."""

    path: Path
    kind: str
    why: str


def inspect(study: Study, dataset_hash: str) -> list[Fault]:
    """The faults of every file that the study has or should have; tables, and figures that have changed, last."""
    found = [fault for path, wanted in _wanted(study, dataset_hash) if (fault := _fault(path, wanted))]
    return found + [Fault(path, "damaged", "") for path in _spoilt(Path(study.results))]


def _wanted(study: Study, dataset_hash: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every file that holds numbers, and the identity that is asked of it."""
    results = Path(study.results)
    yield results / "dataset.npz", {"stage": "dataset", "dataset": dataset_hash}
    every = jobs.shards(study)
    limits = {jobs.limit_file(study, shard.network, shard.width): shard for shard in every}
    for file, shard in limits.items():
        yield results / file, identity.limit_identity(study.networks[shard.network].network(shard.width), dataset_hash)
    for shard in every:
        for file in jobs.shard_files(study, shard):
            yield results / file, identity.of_shard(study, shard, dataset_hash)
    table = {"config_hash": study.science_hash(), "dataset_hash": dataset_hash, **code_identity("tables")}
    for name in jobs.tables(study):
        yield results / "tables" / f"{name}.parquet", {"table": name, **table}


def _fault(path: Path, wanted: dict[str, Any]) -> Fault | None:
    if not path.is_file():
        return Fault(path, "missing", "")
    try:
        metadata = read_metadata(path)
    except DamagedFile as error:
        return Fault(path, "damaged", str(error))
    except ForeignFile:
        return Fault(path, "version", "")
    # tables have no identity of their own, but the same keys among others
    found = {key: metadata.get(key) for key in wanted} if "table" in wanted else metadata.get("identity")
    differing = identity.differences(found, wanted)
    if not differing:
        return None
    return Fault(path, "version" if identity.is_of_another_version(differing) else "configuration", ", ".join(differing))


_SUMS = Path("record") / "drawn.sha256"  # as `sha256sum --check` reads it, in the results folder


def seal_drawn(results: Path) -> None:
    """Keep the checksums of figures, summary and report, which carry none themselves."""
    files = sorted([*results.glob("figures/*"), *results.glob("*.html")])
    with atomic(results / _SUMS) as temporary:
        temporary.write_text("".join(f"{_digest(file)}  {file.relative_to(results)}\n" for file in files), encoding="utf-8")


def unseal_drawn(results: Path) -> None:
    """Forget them: from now on figures may be drawn anew."""
    (results / _SUMS).unlink(missing_ok=True)


def _spoilt(results: Path) -> Iterator[Path]:
    """Figures and pages that are there, but not as they were drawn."""
    lines: list[str] = []
    with suppress(OSError, UnicodeDecodeError):
        lines = (results / _SUMS).read_text(encoding="utf-8").splitlines()
    for line in lines:
        digest, _, name = line.partition("  ")
        with suppress(OSError, ValueError):  # the list itself may be damaged
            path = results / name
            inside = path.resolve().is_relative_to(results.resolve())
            if inside and path.is_file() and path.suffix in (".svg", ".png", ".html") and _digest(path) != digest:
                yield path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refuse_other_versions(results: Path, faults: list[Fault]) -> None:
    """Raise StageError if files with numbers of their own (tables have none) come from another version of ntksim."""
    others = [fault.path for fault in faults if fault.kind == "version" and fault.path.parent != results / "tables"]
    if others:
        now = code_identity()
        raise StageError(
            f"{results}: {len(others)} files were computed by another version of ntksim than this one ({now['version']}, source "
            f"{now['source']}), the first {others[0]}; their numbers may differ and are never mixed: set the key results to "
            "another folder, go back to that version, or compute them again with --recompute (make study RECOMPUTE=1)"
        )


def mend(study: Study, dataset_hash: str, *, recompute: bool) -> list[Fault]:
    """Remove every file that cannot be used, those of another version only to ``recompute`` them; returns all faults.

    Where a shard is removed others may take its seeds, which are then looked into as well.
    """
    found: dict[Path, Fault] = {}
    while True:
        before = jobs.shards(study)
        faults = [fault for fault in inspect(study, dataset_hash) if fault.path not in found]
        if not recompute:
            refuse_other_versions(Path(study.results), faults)
        clear(study, faults)
        found |= {fault.path: fault for fault in faults}
        if jobs.shards(study) == before:
            return list(found.values())


def clear(study: Study, faults: list[Fault]) -> None:
    """Remove what cannot be used, each kind announced."""
    results = Path(study.results)
    announced = {
        "damaged": "damaged, computed again",
        "configuration": "computed for another configuration, computed again",
        "version": "computed by another version of ntksim, computed again",
    }
    for kind, text in announced.items():
        mine = [fault for fault in faults if fault.kind == kind]
        for fault in mine[:_SHOWN]:
            print(f"{fault.path}: {text}" + (f" ({fault.why})" if kind == "configuration" else ""), file=sys.stderr)
        if len(mine) > _SHOWN:
            print(f"{results}: {len(mine) - _SHOWN} more files {text}", file=sys.stderr)
        for fault in mine:
            if fault.path.parent != results / "tables" or kind == "damaged":
                fault.path.unlink(missing_ok=True)


def inputs_to_restore(study: Study, faults: list[Fault]) -> list[str]:
    """The inputs (data set, limits) that are to be made again first, and alone: shards hang on them which are whole and stay."""
    results, unusable = Path(study.results), {fault.path for fault in faults}
    needed: dict[str, None] = {}
    for shard in jobs.shards(study):
        if unusable.isdisjoint(results / file for file in jobs.shard_files(study, shard)):
            needed |= dict.fromkeys(["dataset.npz", jobs.limit_file(study, shard.network, shard.width)])
    return [f"{study.results}/{file}" for file in needed if results / file in unusable]


def make_older(study: Study) -> None:
    """Give the inputs the time of the oldest shard: it was computed from the same numbers, and is not outdated by them."""
    results = Path(study.results)
    shards = [results / shard.file for shard in jobs.shards(study)]
    oldest = min(path.stat().st_mtime_ns for path in shards if path.is_file())
    for path in [results / "dataset.npz", *(results / "limit").glob("*.npz")]:
        os.utime(path, ns=(oldest, oldest))


def remove_partial(results: Path) -> None:
    """Remove the unfinished files of writers that were killed. Only the holder of the lock may."""
    for path in [*results.glob(PARTIAL), *results.glob(f"*/{PARTIAL}")]:
        path.unlink(missing_ok=True)
    for folder in results.glob(f"*/.*.{CHECKPOINT}"):
        if folder.with_name(folder.name[1:].removesuffix(CHECKPOINT) + "parquet").is_file():  # killed between the two
            shutil.rmtree(folder, ignore_errors=True)
