"""Verification of a study: a sample of its shards is computed again and compared with the stored files.

With the same source, libraries and kind of processor all bits must agree. Another compiler or processor rounds differently; then
numbers must agree within a tolerance, relative to the largest number in their column. Eigenvalues are compared relative to the
largest eigenvalue, and condition numbers by their reciprocals.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ntksim.study.config.study import Study
from ntksim.study.data import files
from ntksim.study.errors import StageError
from ntksim.study.files.storage import in_pandas, read_arrow, read_metadata, read_npz
from ntksim.study.plan import identity
from ntksim.study.plan import jobs as plan
from ntksim.study.plan.identity import limit_width
from ntksim.study.run.record import recorded_study
from ntksim.study.stages import initial
from ntksim.study.stages.shard import ShardJob
from ntksim.study.stages.training import training_shard

# Generous bounds on the rounding error of a sum of some thousand terms. Training amplifies rounding errors.
TOLERANCES = {
    ("initial", "float64"): 1e-9,
    ("training", "float64"): 1e-6,
    ("initial", "float32"): 1e-3,
    ("training", "float32"): 1e-2,
}
LIMIT_TOLERANCE = 1e-9
_COMPILERS = ("numba", "llvmlite", "numpy", "scipy")


@dataclass(frozen=True)
class Comparison:
    """Result of comparing a file with its recomputation; ``verdict`` is bits, tolerance or different."""

    file: str
    verdict: str
    detail: str

    def __str__(self) -> str:
        words = {"bits": "equal bits", "tolerance": "equal within tolerance", "different": "DIFFERENT"}
        return f"{self.file}: {words[self.verdict]}" + (f" ({self.detail})" if self.detail else "")


_Again = Callable[[str, Study, plan.Shard, Path], Comparison]


def verify(results: str | Path, *, fraction: float = 0.05, shards: int | None = None, seed: int = 0) -> bool:
    """Recompute a random sample of shards and their limits, print a line for each file, and return whether all agree.

    Parameters
    ----------
    results : the study's results folder.
    fraction : share of the shards to recompute; at least one shard is.
    shards : number of shards to recompute, in place of ``fraction``.
    seed : seed of the random choice.

    Raises
    ------
    StageError if the folder holds no study, or its data set is missing or damaged. ValueError for a bad fraction or number.
    """
    if not 0 < fraction <= 1 or (shards is not None and shards < 1):
        raise ValueError(f"expected 0 < fraction <= 1 and shards >= 1; got {fraction} and {shards}")
    study = recorded_study(results)
    planned = plan.shards(study)
    size = min(len(planned), shards or max(1, round(fraction * len(planned))))
    chosen = [planned[i] for i in sorted(np.random.default_rng(seed).choice(len(planned), size, replace=False))]
    limits = {plan.limit_file(study, shard.network, shard.width, shard.data): shard for shard in chosen}
    jobs = [(file, shard, _limit_again) for file, shard in limits.items()]
    for shard in chosen:  # recomputing a shard also writes the kernels that it keeps, so these only need comparing
        jobs += zip(plan.shard_files(study, shard), (shard, shard), (_shard_again, _compared), strict=False)
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="ntksim-verify-") as scratch:
        for file, shard, again in jobs:
            found = _checked(file, study, shard, Path(scratch), again)
            print(found, flush=True)
            verdicts.append(found.verdict)
    bits, near, different = (verdicts.count(word) for word in ("bits", "tolerance", "different"))
    print(f"{len(chosen)} of {len(planned)} shards and {len(limits)} limits computed again: {bits} files equal in bits, "
          f"{near} within tolerance, {different} different")  # fmt: skip
    return not different


def _checked(file: str, study: Study, shard: plan.Shard, scratch: Path, again: _Again) -> Comparison:
    try:
        return again(file, study, shard, scratch)
    except StageError as error:
        return Comparison(file, "different", str(error))


def _limit_again(file: str, study: Study, shard: plan.Shard, scratch: Path) -> Comparison:
    results, options = Path(study.results), study.networks[shard.network]
    network = options.network(limit_width(options.parameterization, shard.width) or 1)
    data = results / plan.dataset_file(shard.data)
    initial.limit(data, network, scratch / file)
    wanted = identity.limit_identity(network, files.read(data).hash)
    (there, stored), (here, again) = read_npz(results / file), read_npz(scratch / file)
    why = _why_not_bits(stored, again, wanted)
    before, now = (pd.DataFrame({name: [values.ravel()] for name, values in arrays.items()}) for arrays in (there, here))
    return _compare(file, before, now, why, LIMIT_TOLERANCE)


def _shard_again(file: str, study: Study, shard: plan.Shard, scratch: Path) -> Comparison:
    network, data = study.networks[shard.network].network(shard.width), Path(study.results) / plan.dataset_file(shard.data)
    limit = scratch / plan.limit_file(study, shard.network, shard.width, shard.data)
    # A shard that was computed on a GPU is recomputed on a GPU, if this machine has one.
    there = read_metadata(Path(study.results) / file).get("provenance", {}).get("device", "")
    device = "auto" if there.startswith("cuda") else "cpu"
    job = ShardJob(data, limit, network, shard.seeds, scratch / file, study.precision, device, shard.network)
    if shard.stage == "initial":
        initial.initial_shard(job, study.initial.sampling, study.initial.first_step)
    else:
        assert study.training is not None
        kernels = scratch / shard.kernels_file if study.training.keep_kernels else None
        training_shard(job, study.training, kernels)
    return _compared(file, study, shard, scratch)


def _compared(file: str, study: Study, shard: plan.Shard, scratch: Path) -> Comparison:
    """Compare a file of a shard with the recomputed one in ``scratch``."""
    results = Path(study.results)
    wanted = identity.of_shard(study, shard, files.read(results / plan.dataset_file(shard.data)).hash)
    (there, stored), (here, again) = read_arrow(results / file), read_arrow(scratch / file)
    why = _why_not_bits(stored, again, wanted)
    return _compare(file, in_pandas(there), in_pandas(here), why, TOLERANCES[shard.stage, study.precision])


def _why_not_bits(there: dict[str, Any], here: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Reasons why the bits of two files may differ, from their metadata: other versions or another device; empty if none."""
    differing = identity.differences(there.get("identity"), wanted)
    if not identity.is_of_another_version(differing):
        raise StageError(f"computed with a {', '.join(differing)} that differs from the study's record")
    reasons = []
    if differing:
        old = there["identity"]
        reasons.append(f"stored by version {old.get('version')}, source {old.get('source')}; source here: {wanted['source']}")
    before, now = there["provenance"], here["provenance"]
    if before["device"] != now["device"]:
        reasons.append(f"stored: {before['device']}, here: {now['device']}")
    for name in _COMPILERS:
        if before["versions"].get(name) != now["versions"].get(name):
            reasons.append(f"stored: {name} {before['versions'].get(name)}, here: {now['versions'].get(name)}")
    return "; ".join(reasons)


def _compare(file: str, there: pd.DataFrame, here: pd.DataFrame, why: str, tolerance: float) -> Comparison:
    if list(there) != list(here) or len(there) != len(here):
        return Comparison(file, "different", "different columns or number of rows")
    differing = [str(name) for name in there if not _same_bits(there[name], here[name])]
    if not differing:
        return Comparison(file, "bits", "")
    distances = {name: _distance(name, there, here) for name in differing}
    worst = max(distances, key=lambda name: distances[name])
    detail = f"{worst} differs by {distances[worst]:.1e}"
    if not why:
        return Comparison(file, "different", f"{detail}, although machine and versions are the same")
    within = distances[worst] <= tolerance
    return Comparison(file, "tolerance" if within else "different", f"{detail}, tolerance {tolerance:.0e}; {why}")


def _same_bits(there: pd.Series, here: pd.Series) -> bool:
    if there.dtype == object or here.dtype == object:
        return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(there, here, strict=True))
    return there.dtype == here.dtype and (
        there.equals(here) if there.dtype.kind not in "fi" else there.to_numpy().tobytes() == here.to_numpy().tobytes()
    )


def _distance(name: str, there: pd.DataFrame, here: pd.DataFrame) -> float:
    """Largest difference in a column, relative to the largest number; infinite if only one is NaN, or if text differs."""
    present = there[name].notna()
    if there[name].dtype == object:  # a value that belongs to a whole run is stored in one of its rows only
        if not present.equals(here[name].notna()):
            return np.inf
        there, here = there[present], here[present]
    if there[name].dtype.kind not in "fi" and not isinstance(there[name].iloc[0], np.ndarray):
        return 0.0 if there[name].equals(here[name]) else np.inf
    a, b = (np.stack([np.asarray(value, np.float64) for value in frame[name]]) for frame in (there, here))
    if name == "condition_number":
        a, b, scale = 1 / a, 1 / b, np.ones(1)
    else:
        scale = np.abs(there["largest_eigenvalue"].to_numpy()) if name == "smallest_eigenvalue" else np.abs(a)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return np.inf
    same = (a == b) | np.isnan(a)
    size = np.max(scale[np.isfinite(scale)], initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.max(np.where(same, 0.0, np.abs(a - b)), initial=0.0) / size) if not same.all() else 0.0
