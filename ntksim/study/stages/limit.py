"""Infinite-width kernels of a network on a data set: the file that a study's shards are compared with."""

from pathlib import Path

import numpy as np

from ntksim.engine.blas import one_blas_thread
from ntksim.engine.infinite.kernel import infinite_kernel
from ntksim.engine.infinite.variance import one_hidden_layer_variance
from ntksim.engine.network import Network
from ntksim.study.data import files
from ntksim.study.errors import StageError
from ntksim.study.files.provenance import provenance
from ntksim.study.files.storage import read_arrays, read_metadata, write_arrays
from ntksim.study.plan.identity import limit_identity, require


@one_blas_thread()
def limit(dataset: str | Path, network: Network, output: str | Path) -> None:
    """Write the infinite-width kernels: NNGP and NTK of the training points, and NTK of test with training points.

    For one hidden layer also ``kernel_variance``, the exact variance of every entry of the empirical NTK times the width.
    """
    data = files.read(dataset)
    try:
        arrays = infinite_kernels(network, data)
        if network.depth == 1:
            arrays["kernel_variance"] = network.widths[0] * one_hidden_layer_variance(network, data.x_train)
    except ValueError as error:
        raise StageError(f"{output}: {error}") from error
    metadata = {"identity": limit_identity(network, data.hash), "provenance": provenance()}
    write_arrays(output, metadata, **arrays)


def infinite_kernels(network: Network, data: files.Data) -> dict[str, np.ndarray]:
    """NNGP and NTK of the training points, and NTK of test with training points."""
    train_kernel = infinite_kernel(network, data.x_train)
    test_kernel = infinite_kernel(network, data.x_test, data.x_train)
    return {"nngp": train_kernel.nngp, "ntk": train_kernel.ntk, "ntk_test": test_kernel.ntk}


def read_limit(path: str | Path, network: Network, data: files.Data) -> dict[str, np.ndarray]:
    """What :func:`limit` wrote for a network. Raises StageError unless it is of this network and these data."""
    require(path, read_metadata(path).get("identity"), limit_identity(network, data.hash))
    return read_arrays(path)
