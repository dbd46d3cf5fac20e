"""The kernels that a study keeps along training (`keep_kernels`), for those who want to look at them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ntksim.study.errors import StageError
from ntksim.study.files.storage import read_arrow
from ntksim.study.plan import jobs
from ntksim.study.run.record import recorded_study


@dataclass(frozen=True)
class KeptKernels:
    """Kernels of training points of one network at one width: ``kernels`` (S, T, n, n) of ``seeds`` (S,) at ``times`` (T,);
    (S, T, n, k, n, k) for k > 1 outputs.

    They are those of `train`, with layer rates and without n^(-c), in the precision of the study; NaN where a seed did not
    get there.
    """

    seeds: np.ndarray
    times: np.ndarray
    kernels: np.ndarray


def read_kernels(results: str | Path, network: str, width: int) -> KeptKernels:
    """The kernels along training of a study with ``keep_kernels: true``.

    Parameters
    ----------
    results : the study's results folder. network : its name in the configuration. width : one of those trained.

    Raises
    ------
    FileNotFoundError if no kernels are kept there, or not for this network and width; ValueError for a damaged file.
    """
    results = Path(results)
    try:
        study = recorded_study(results)
    except StageError as error:
        raise FileNotFoundError(str(error)) from None
    if study.training is None or not study.training.keep_kernels:
        raise FileNotFoundError(f"{results}: this study keeps no kernels; set training.keep_kernels: true and run it again")
    shards = [shard for shard in jobs.shards(study) if shard.stage == "training"]
    mine = sorted((s for s in shards if (s.network, s.width) == (network, width)), key=lambda shard: shard.first)
    if not mine:
        cells = dict.fromkeys(f"{shard.network} at width {shard.width}" for shard in shards)
        raise FileNotFoundError(f"{results}: no network {network!r} of width {width!r} was trained; there are {', '.join(cells)}")
    seeds, times, kernels = [], np.zeros(0), []
    for shard in mine:
        try:
            table, _ = read_arrow(results / shard.kernels_file)
        except StageError as error:
            raise ValueError(str(error)) from None
        times = np.unique(table["time"].to_numpy())
        seeds.append(table["seed"].to_numpy()[:: len(times)])
        stack = table["kernel"].combine_chunks().to_numpy_ndarray()
        kernels.append(stack.reshape(-1, len(times), *stack.shape[1:]))
    return KeptKernels(np.concatenate(seeds), times, np.concatenate(kernels))
