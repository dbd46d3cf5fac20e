"""Finite networks at initialisation: their parameters, outputs and empirical neural tangent kernels.

Every number is a function of (seed, widths, layer, row, column): the same for any number of threads, any split or order
of the seeds, and both precisions (weights are float32 numbers; ``dtype`` is the precision of the arithmetic).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from ntksim.engine import kernels_cpu
from ntksim.engine.activations import activation_code
from ntksim.engine.arguments import points, precision, require_cpu, seed_array
from ntksim.engine.blas import one_blas_thread
from ntksim.engine.network import Network


@dataclass(frozen=True)
class Parameters:
    """Parameters of one seed as they are stored, before any forward multiplier.

    ``weights`` holds L arrays (n_l, n_(l-1)); ``biases`` L arrays (n_l,), or None without biases; ``readout`` is (n_L,);
    ``output_bias`` a number, or None without one.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...] | None
    readout: np.ndarray
    output_bias: float | None


def layer_arguments(network: Network, input_dim: int) -> tuple[np.uint32, int, np.ndarray, np.ndarray]:
    """What compiled code knows of a network: stream, activation code, widths (n_0..n_L, 1) and scales (4, L+1)."""
    scales = network.scales(input_dim)
    rows = np.stack([scales.weight, scales.weight_init, scales.bias, scales.bias_init])
    widths = np.array([input_dim, *network.widths, 1], dtype=np.int64)
    return np.uint32(network.stream), activation_code(network.activation), widths, rows


def workers_for(seeds: np.ndarray) -> int:
    """Threads that can have a seed each."""
    return min(numba.get_num_threads(), seeds.size)


def sample_parameters(network: Network, input_dim: int, seed: int, dtype: Any = "float64") -> Parameters:
    """The parameters of one seed: the very numbers that every other function uses for it.

    Entries are float32 numbers in both precisions. Networks that differ only in activation, parameterization or scales
    share their underlying normals.

    Raises
    ------
    TypeError or ValueError for an ``input_dim`` below 1, a bad seed or an unknown dtype.
    """
    if isinstance(input_dim, bool) or not isinstance(input_dim, (int, np.integer)) or input_dim < 1:
        raise ValueError(f"input_dim must be an integer of at least 1; got {input_dim!r}")
    seeds, kind = seed_array([seed]), precision(dtype)
    stream, _, widths, scales = layer_arguments(network, int(input_dim))
    offsets = kernels_cpu.parameter_offsets(widths)
    theta = np.empty(offsets[-1], kind)
    kernels_cpu.draw_parameters(seeds[0], stream, widths, scales[1], scales[3], theta)
    parts = np.split(theta, offsets[1:-1])
    weights = tuple(parts[2 * i].reshape(widths[i + 1], widths[i]) for i in range(network.depth))
    biases = None if network.sigma_b is None else tuple(parts[1 : 2 * network.depth : 2])
    return Parameters(weights, biases, parts[-2], float(parts[-1][0]) if network.output_bias else None)


def network_outputs(
    network: Network, x: np.ndarray, *, seeds: Sequence[int], dtype: Any = "float64", device: str = "cpu"
) -> np.ndarray:
    """Outputs at initialisation of one network per seed, (S, n) in ``dtype``.

    Parameters
    ----------
    x : points (n, d).
    seeds : S non-negative integers below 2^64, a sequence or range.

    Raises
    ------
    TypeError or ValueError naming the argument, what was expected and what was given.
    """
    require_cpu(device)
    seed_list, kind = seed_array(seeds), precision(dtype)
    x = points("x", x).astype(kind)
    out = np.empty((seed_list.size, len(x)), kind)
    with one_blas_thread():
        kernels_cpu.outputs_of_seeds(workers_for(seed_list), seed_list, *layer_arguments(network, x.shape[1]), x, out)
    return out


def empirical_ntk(
    network: Network,
    x1: np.ndarray,
    x2: np.ndarray | None = None,
    *,
    seeds: Sequence[int],
    dtype: Any = "float64",
    device: str = "cpu",
) -> np.ndarray:
    """Empirical neural tangent kernels at initialisation of one network per seed, (S, n1, n2) in ``dtype``.

    K(x, x') is the sum of df(x)/dtheta df(x')/dtheta over all parameters as stored (the notes' definition 1.2), summed
    and never averaged. With ``x2=None`` it is that of x1 with itself, symmetric to the last bit.

    Parameters
    ----------
    x1, x2 : points (n1, d) and (n2, d).
    seeds : S non-negative integers below 2^64, a sequence or range.

    Raises
    ------
    TypeError or ValueError naming the argument, what was expected and what was given.
    """
    require_cpu(device)
    seed_list, kind = seed_array(seeds), precision(dtype)
    x1 = points("x1", x1)
    split = 0
    x = x1
    if x2 is not None:
        x2 = points("x2", x2, features=x1.shape[1])
        x, split = np.concatenate([x1, x2]), len(x1)
    x = x.astype(kind)
    out = np.empty((seed_list.size, len(x1), len(x) - split), kind)
    with one_blas_thread():
        kernels_cpu.kernels_of_seeds(workers_for(seed_list), seed_list, *layer_arguments(network, x.shape[1]), x, split, out)
    return out
