"""What a job that computes a shard is told, and what it reads first."""

from dataclasses import dataclass
from pathlib import Path

from ntksim.engine.network import Network


@dataclass(frozen=True)
class ShardJob:
    """A block of seeds of one network at one width.

    ``dataset`` and ``limit`` are the files that it reads, ``output`` the one it writes. ``dtype`` is the arithmetic's precision,
    ``device`` where it is done: cpu, cuda or auto. ``name`` is that of the network in the configuration, for files that hold it.
    """

    dataset: str | Path
    limit: str | Path
    network: Network
    seeds: range
    output: str | Path
    dtype: str = "float64"
    device: str = "cpu"
    name: str = ""
