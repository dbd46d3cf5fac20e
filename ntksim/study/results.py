"""Reading the kernels that a study with `keep_kernels` stores along training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ntksim.engine.arguments import shapes, span
from ntksim.study.errors import StageError
from ntksim.study.files.storage import read_arrow
from ntksim.study.plan import jobs
from ntksim.study.run.record import recorded_study


@dataclass(frozen=True)
class KeptKernels:
    """Kernels on the training points along training, for all seeds of one network at one width.

    ``kernels`` has shape (S, T, n, n), or (S, T, n, k, n, k) for k > 1 outputs; ``seeds`` (S,); ``times`` (T,). The kernels are
    those that `train` returns, with layer rates and without the factor n^(-c) of abc parameterizations, in the precision of the
    study. They are NaN at times that a seed did not reach.
    """

    seeds: np.ndarray
    times: np.ndarray
    kernels: np.ndarray

    def __repr__(self) -> str:
        last = self.kernels[:, -1:].reshape(len(self.seeds), -1)
        reached = len(last) - int(np.isnan(last).any(axis=1).sum())
        return f"KeptKernels: {len(last)} seeds ({reached} with the last kernel), {span(self.times)}\n  {shapes(self)}"


def read_kernels(
    results: str | Path, network: str, width: int, *, train: int | None = None, dataset_seed: int | None = None
) -> KeptKernels:
    """Read the kernels along training of a study with ``keep_kernels: true``.

    Parameters
    ----------
    results : the study's results folder.
    network : name of a network in the configuration.
    width : width at which the network was trained.
    train, dataset_seed : number of training points, and seed of the data, in a study with several; by default the largest
        training set and the first seed.

    Raises
    ------
    FileNotFoundError if the study kept no kernels, or trained no such network and width; ValueError for a damaged file.
    """
    results = Path(results)
    try:
        study = recorded_study(results, imports=False)
    except StageError as error:
        raise FileNotFoundError(str(error)) from None
    if study.training is None or not study.training.keep_kernels:
        raise FileNotFoundError(f"{results}: this study kept no kernels; set training.keep_kernels: true and run it again")
    wanted = (study.dataset.train if train is None else train, study.dataset.seed if dataset_seed is None else dataset_seed)
    labels = [label for label, one in study.data_sets.items() if (one.dataset.train, one.dataset.seed) == wanted]
    if not labels:
        raise FileNotFoundError(f"{results}: there are no data with {wanted[0]} training points and seed {wanted[1]}")
    shards = [shard for shard in jobs.shards(study) if shard.stage == "training" and shard.data in labels]
    found = sorted((s for s in shards if (s.network, s.width) == (network, width)), key=lambda shard: shard.first)
    if not found:
        cells = dict.fromkeys(f"{shard.network} at width {shard.width}" for shard in shards)
        raise FileNotFoundError(
            f"{results}: no network {network!r} was trained at width {width!r}; trained were {', '.join(cells)}"
        )
    seeds, times, kernels = [], np.zeros(0), []
    for shard in found:
        try:
            table, _ = read_arrow(results / shard.kernels_file)
        except StageError as error:
            raise ValueError(str(error)) from None
        times = np.unique(table["time"].to_numpy())
        seeds.append(table["seed"].to_numpy()[:: len(times)])
        stack = table["kernel"].combine_chunks().to_numpy_ndarray()
        kernels.append(stack.reshape(-1, len(times), *stack.shape[1:]))
    return KeptKernels(np.concatenate(seeds), times, np.concatenate(kernels))
