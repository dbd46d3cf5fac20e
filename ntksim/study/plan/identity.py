"""What the numbers of a file depend on: said once, for the stage that writes, the one that collects, and the check before.

An identity holds the relevant part of the configuration, the data's hash, and the code (`provenance.code_identity`), as JSON
values. Files are taken for what their identity says, never for their names alone. Stages import this module, whose code therefore
ages their results: what only the plan needs is not imported.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntksim.engine.activation import Activation
from ntksim.engine.arguments import rank_tolerance_in_use
from ntksim.engine.network import Network
from ntksim.study.errors import ForeignFile
from ntksim.study.files.provenance import code_identity

if TYPE_CHECKING:
    from ntksim.study.config.study import Study
    from ntksim.study.plan.jobs import Shard


def _network(network: Network) -> dict[str, Any]:
    """What a configuration says of a network; widths are the job's, and outputs the data's."""
    own = {field.name: getattr(network, field.name) for field in fields(Network) if field.name not in ("width", "outputs")}
    if isinstance(network.activation, Activation):  # its file may change: what it computes counts
        own["activation"] = {"name": network.activation.name, "digest": network.activation.digest}
    if network.initialiser == "gaussian":  # as all were before there were others
        del own["initialiser"]
    return own | {"abc": asdict(network.abc) if network.abc else None}


def limit_width(parameterization: str, width: int) -> int | None:
    """The width that infinite-width kernels still depend on, through powers of it outside the sums; None where on none.

    Those are computed at width 1, so that rounding does not tell which cell asked for them.
    """
    return None if parameterization in ("ntk", "notes") else width


def limit_identity(network: Network, dataset_hash: str) -> dict[str, Any]:
    """Of the infinite-width kernels of a network."""
    width = limit_width(network.parameterization, min(network.widths))
    return {"stage": "limit", "network": _network(network), "width": width, "dataset": dataset_hash, **code_identity("limit")}


def shard_identity(stage: str, network: Network, seeds: Sequence[int], dataset_hash: str, **options: Any) -> dict[str, Any]:
    """Of a shard; ``options`` are the precision, and how networks are drawn, or the schedule of training."""
    return {
        "stage": stage,
        "network": _network(network),
        "width": network.width,
        "seeds": [min(seeds), max(seeds)],
        "dataset": dataset_hash,
        **options,
        **code_identity("first_step" if "first_step" in options else stage),
    }


def initial_identity(sampling: str, first_step: float | None) -> dict[str, Any]:
    """How networks at initialisation are drawn, and whether they take a step.

    Nothing where they are drawn by their weights and take none, as all were before there was anything else.
    """
    found: dict[str, Any] = {} if sampling == "weights" else {"sampling": sampling}
    return found if first_step is None else found | {"first_step": first_step}


def of_shard(study: "Study", shard: "Shard", dataset_hash: str) -> dict[str, Any]:
    """What a study asks of a shard."""
    options: dict[str, Any] = {"dtype": study.precision}
    if shard.stage == "initial":
        options |= initial_identity(study.initial.sampling, study.initial.first_step)
    elif study.training is not None:
        options |= study.training.identity_in(study.precision)
    network = study.networks[shard.network].network(shard.width)
    return shard_identity(shard.stage, network, shard.seeds, dataset_hash, **options)


def data_hash(hashes: Mapping[str, str]) -> str:
    """Of all data sets of a study, from the hash of each: its own where there is one."""
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return hashlib.sha256(json.dumps(dict(hashes), sort_keys=True).encode()).hexdigest()[:16]


def differences(found: object, wanted: dict[str, Any]) -> list[str]:
    """The keys in which an identity differs from the one asked for, such as network.sigma_w; one that only either has is None in
    the other.
    """
    if not isinstance(found, dict):
        return ["stage"]
    found, keys = _in_use(found), []
    for key in dict.fromkeys([*wanted, *found]):
        value, other = wanted.get(key), found.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            keys += [f"{key}.{name}" for name in differences(other, value)]
        elif other != value:
            keys.append(key)
    return keys


def _in_use(found: dict[str, Any]) -> dict[str, Any]:
    """An identity of training in law in float32 with the tolerance that was used.

    Before it was there such shards named the one that was asked for, or none where that was left out; both were below the floor
    then, or the one that was used.
    """
    if [found.get(key) for key in ("stage", "sampling", "dtype")] != ["training", "conditional", "float32"]:
        return found
    asked = found.get("rank_tolerance", 0.0)
    return found | {"rank_tolerance": rank_tolerance_in_use(asked, "float32")} if isinstance(asked, float) else found


def is_of_another_version(differing: list[str]) -> bool:
    """Whether all that differs is the code."""
    return set(differing) <= {"version", "source"}


def require(path: str | Path, found: object, wanted: dict[str, Any]) -> None:
    """Raise ForeignFile unless an identity is the one asked for."""
    if differing := differences(found, wanted):
        other = "by another version of ntksim" if is_of_another_version(differing) else f"with another {', '.join(differing)}"
        raise ForeignFile(f"{path}: computed {other} than is asked for; delete it and run the study again")
