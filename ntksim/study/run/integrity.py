"""Checks of a study's files before anything is computed, and the removal of files that cannot be used.

Damaged files (wrong checksum) and files that were computed for another configuration are removed and computed again. Files of
another version of ntksim are refused instead: they may have cost weeks, so the user must decide whether to replace them. No such
file can enter a table, since every stage also checks the files that it reads.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntksim.study.config.study import Study
from ntksim.study.errors import DamagedFile, ForeignFile, StageError
from ntksim.study.files.provenance import code_identity
from ntksim.study.files.storage import CHECKPOINT, PARTIAL, atomic, read_metadata
from ntksim.study.plan import identity, jobs

_SHOWN = 5  # files of each kind that are named one by one


@dataclass(frozen=True)
class Fault:
    """A file that cannot be used.

    ``kind``: missing, damaged, configuration (computed for another one) or version (computed by another one). ``why``: details.
    """

    path: Path
    kind: str
    why: str


def inspect(study: Study, hashes: Mapping[str, str]) -> list[Fault]:
    """Faults of all files that the study has or should have, given the hash of each data set (`Study.data_sets`).

    Tables come last, followed by figures and pages if changed.
    """
    found = [fault for path, wanted in _wanted(study, hashes) if (fault := _fault(path, wanted))]
    return found + [Fault(path, "damaged", "") for path in _changed_drawings(Path(study.results))]


def _wanted(study: Study, hashes: Mapping[str, str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every file that holds numbers, with the identity that it should have."""
    results = Path(study.results)
    for data, own in hashes.items():
        yield results / jobs.dataset_file(data), {"stage": "dataset", "dataset": own}
    for file, shard in jobs.limits(study).items():
        network = study.networks[shard.network].network(shard.width)
        yield results / file, identity.limit_identity(network, hashes[shard.data])
    for shard in jobs.shards(study):
        for file in jobs.shard_files(study, shard):
            yield results / file, identity.of_shard(study, shard, hashes[shard.data])
    table = {"config_hash": study.science_hash(), "dataset_hash": identity.data_hash(hashes), **code_identity("tables")}
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


_CHECKSUMS = Path("record") / "drawn.sha256"  # in the results folder, in the format of `sha256sum --check`


def seal_drawn(results: Path) -> None:
    """Write the checksums of figures and reports to a list, since these files hold no checksum themselves."""
    files = sorted([*results.glob("figures/*"), *results.glob("*.html")])
    with atomic(results / _CHECKSUMS) as temporary:
        temporary.write_text("".join(f"{_digest(file)}  {file.relative_to(results)}\n" for file in files), encoding="utf-8")


def unseal_drawn(results: Path) -> None:
    """Remove the list of checksums, before figures are drawn again."""
    (results / _CHECKSUMS).unlink(missing_ok=True)


def _changed_drawings(results: Path) -> Iterator[Path]:
    """Figures and pages that exist but were changed since they were drawn."""
    lines: list[str] = []
    with suppress(OSError, UnicodeDecodeError):
        lines = (results / _CHECKSUMS).read_text(encoding="utf-8").splitlines()
    for line in lines:
        digest, _, name = line.partition("  ")
        with suppress(OSError, ValueError):  # the list itself may be damaged
            path = results / name
            inside = path.resolve().is_relative_to(results.resolve())
            if inside and path.is_file() and path.suffix in (".svg", ".png", ".pdf", ".html") and _digest(path) != digest:
                yield path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refuse_other_versions(results: Path, faults: list[Fault]) -> None:
    """Raise StageError if any shard, limit or data set comes from another version of ntksim. Tables are simply made again."""
    others = [fault.path for fault in faults if fault.kind == "version" and fault.path.parent != results / "tables"]
    if others:
        now = code_identity()
        raise StageError(
            f"{results}: {len(others)} files were computed by another version of ntksim than this one ({now['version']}, source "
            f"{now['source']}), for example {others[0]}; the numbers of two versions may differ and are never mixed: set the key "
            "results to another folder, go back to that version, or compute the files again with --recompute (make study "
            "RECOMPUTE=1)"
        )


def mend(study: Study, hashes: Mapping[str, str], *, recompute: bool) -> list[Fault]:
    """Remove every file that cannot be used, and return all faults.

    Files of another version are removed only with ``recompute``; otherwise they raise StageError. When a shard is removed, the
    plan may give its seeds to other shards; these are then inspected too.
    """
    found: dict[Path, Fault] = {}
    while True:
        before = jobs.shards(study)
        faults = [fault for fault in inspect(study, hashes) if fault.path not in found]
        if not recompute:
            refuse_other_versions(Path(study.results), faults)
        clear(study, faults)
        found |= {fault.path: fault for fault in faults}
        if jobs.shards(study) == before:
            return list(found.values())


def clear(study: Study, faults: list[Fault]) -> None:
    """Remove the files that cannot be used, and print which and why. Tables are removed only if damaged."""
    results = Path(study.results)
    announced = {
        "damaged": "damaged; will be computed again",
        "configuration": "computed for another configuration; will be computed again",
        "version": "computed by another version of ntksim; will be computed again",
    }
    for kind, text in announced.items():
        of_kind = [fault for fault in faults if fault.kind == kind]
        for fault in of_kind[:_SHOWN]:
            print(f"{fault.path}: {text}" + (f" ({fault.why})" if kind == "configuration" else ""), file=sys.stderr)
        if len(of_kind) > _SHOWN:
            print(f"{results}: {len(of_kind) - _SHOWN} more files {text}", file=sys.stderr)
        for fault in of_kind:
            if fault.path.parent != results / "tables" or kind == "damaged":
                fault.path.unlink(missing_ok=True)


def inputs_to_restore(study: Study, faults: list[Fault]) -> list[str]:
    """Unusable inputs (data set, limits) of shards that are usable.

    They must be made again before anything else, so that Snakemake does not compute these shards again (`make_older`).
    """
    results, unusable = Path(study.results), {fault.path for fault in faults}
    needed: dict[str, None] = {}
    for shard in jobs.shards(study):
        if unusable.isdisjoint(results / file for file in jobs.shard_files(study, shard)):
            needed |= dict.fromkeys(
                [jobs.dataset_file(shard.data), jobs.limit_file(study, shard.network, shard.width, shard.data)]
            )
    return [f"{study.results}/{file}" for file in needed if results / file in unusable]


def make_older(study: Study) -> None:
    """Set the inputs' file times to that of the oldest shard, so that no shard is out of date: the numbers are the same."""
    results = Path(study.results)
    shards = [results / shard.file for shard in jobs.shards(study)]
    oldest = min(path.stat().st_mtime_ns for path in shards if path.is_file())
    for path in [*results.glob("dataset*.npz"), *(results / "limit").glob("*.npz")]:
        os.utime(path, ns=(oldest, oldest))


def remove_partial(results: Path) -> None:
    """Remove unfinished files that killed processes left. Only the holder of the lock may call this."""
    for path in [*results.glob(PARTIAL), *results.glob(f"*/{PARTIAL}")]:
        path.unlink(missing_ok=True)
    for folder in results.glob(f"*/.*.{CHECKPOINT}"):
        # The shard was finished, but its process was killed before it removed the checkpoint.
        if folder.with_name(folder.name[1:].removesuffix(CHECKPOINT) + "parquet").is_file():
            shutil.rmtree(folder, ignore_errors=True)
