"""Finite networks at initialisation: their parameters, outputs and empirical neural tangent kernels.

Every number is a function of (seed, widths, layer, row, column): the same for any number of threads, any split or order
of the seeds, and both precisions (weights are float32 numbers; ``dtype`` is the precision of the arithmetic).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from ntksim.engine import known_answers
from ntksim.engine.arguments import SAMPLINGS, points, precision, seed_array
from ntksim.engine.compiled_network import columns_of, compiled_network
from ntksim.engine.cpu import passes
from ntksim.engine.devices import chosen_device
from ntksim.engine.layout import Net, Pairs, drawn_weights, make_room, padded, parameter_offsets, stored_weights
from ntksim.engine.network import Network
from ntksim.engine.threads import spread


@dataclass(frozen=True)
class Parameters:
    """Parameters of one seed as they are stored, before any forward multiplier.

    ``weights`` holds L arrays (n_l, n_(l-1)); ``biases`` L arrays (n_l,), or None without biases; ``readout`` is (n_L,), or
    (k, n_L) for k > 1 outputs; ``output_bias`` a number, or (k,), or None without one.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...] | None
    readout: np.ndarray
    output_bias: float | np.ndarray | None


FORMS = ("full", "diagonal", "trace")
# Outputs whose kernels a trace is added up from at a time: so many at least, lest passes forward, one for each such group, take
# as long as those back, and more of few points, up to so many numbers.
_FEW, _TRACED = 8, 1 << 18
# Threads share one network, rather than having one each, from this width on: below, they would wait more than work.
_WIDE = 512


def is_wide(widths: Sequence[int]) -> bool:
    """Whether threads can share one network of hidden layers of these widths."""
    return max(widths) >= _WIDE


def _chosen_place(device: object, sampling: object) -> str:
    """``"cpu"`` or ``"cuda"`` for the arguments ``device`` and ``sampling``."""
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}; got {sampling!r}")
    if sampling == "conditional" and device == "cuda":
        raise ValueError("sampling='conditional' runs on the CPU only so far; got device='cuda': use device='cpu'")
    return chosen_device("cpu" if sampling == "conditional" and device == "auto" else device)


def _conditionally(
    network: Network,
    x1: np.ndarray,
    x2: np.ndarray | None,
    seeds: np.ndarray,
    outputs: np.ndarray,
    kernels: np.ndarray,
    sampling: str,
) -> bool:
    """Fill ``outputs`` and ``kernels`` by conditional sampling, if that is asked for and cheaper; whether that was done."""
    if sampling != "conditional":
        return False
    from ntksim.engine.conditional import networks  # compiled code that nothing else needs

    known_answers.check("networks in law", outputs.dtype.name)
    return bool(networks.evaluate(network, x1, x2, seeds, outputs, kernels))


def _at_initialisation(
    net: Net,
    columns: np.ndarray,
    pairs: Pairs,
    seeds: np.ndarray,
    outputs: np.ndarray,
    kernels: np.ndarray,
    device: str,
) -> None:
    """Fill ``outputs`` (S, n, k) and ``kernels`` (S, blocks, rows, columns), unless their second axis is empty."""
    known_answers.check("outputs and kernels", columns.dtype.name, device)
    wanted, joint = kernels.shape[1] > 0, kernels.shape[1] < net.widths[-1]
    if device == "cuda":
        from ntksim.engine.cuda import seeds as cuda_seeds

        cuda_seeds.evaluate_seeds(net, columns, pairs, seeds, outputs, kernels)
        return

    def work(threads: int, first: int, end: int, step: int) -> None:
        rows = passes.group_rows(threads, net)
        weights = drawn_weights(net, rows, passes.KEPT if wanted else 0, columns.dtype)
        room = make_room(net, columns, pairs, rows, streamed=True, backward=wanted, kernel=wanted, joint=joint)
        passes.evaluate_seeds(threads, first, step, seeds[:end], net, weights, room, pairs, outputs, kernels)

    spread(seeds.size, is_wide(net.widths[1:-1].tolist()), work)


def _warn_of_overflow(what: str, seeds: np.ndarray, values: np.ndarray) -> None:
    """One line where results (S, ...) are infinite or NaN, which comes of overflow alone: inputs and parameters are finite.

    Like NumPy's own warnings of overflow it is silent under ``np.errstate(over="ignore")``.
    """
    if np.geterr()["over"] == "ignore":
        return
    bad = [str(seed) for seed, value in zip(seeds, values, strict=True) if not np.isfinite(value).all()]
    if bad:
        names = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
        of = f"seed {names}" if len(bad) == 1 else f"{len(bad)} of {seeds.size} seeds ({names})"
        wider = "use float64, " if values.dtype == np.float32 else ""
        warnings.warn(
            f"{what} of {of} overflow {values.dtype.name}, and are infinite or NaN: {wider}scale the points down, or lower "
            "sigma_w, sigma_a, sigma_b or output_scale",
            RuntimeWarning,
            stacklevel=3,
        )


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
    known_answers.check("parameters", kind.name)
    net = compiled_network(network, int(input_dim))
    offsets = parameter_offsets(net)
    theta = np.empty(offsets[-1], kind)
    passes.draw_into(seeds[0], net, stored_weights(net, theta))

    def vector(index: int, size: int) -> np.ndarray:
        return theta[offsets[index] : offsets[index] + size]

    layers = list(enumerate(network.widths))
    weights = tuple(vector(2 * i, width * net.lengths[i]).reshape(width, -1)[:, : net.widths[i]].copy() for i, width in layers)
    biases = None if network.sigma_b is None else tuple(vector(2 * i + 1, width).copy() for i, width in layers)
    k, length = network.outputs, int(net.lengths[-2])
    readout = vector(2 * network.depth, k * length).reshape(k, length)[:, : network.widths[-1]].copy()
    last = vector(2 * network.depth + 1, k).copy() if network.output_bias else None
    if k > 1:
        return Parameters(weights, biases, readout, last)
    return Parameters(weights, biases, readout[0], None if last is None else float(last[0]))


def network_outputs(
    network: Network,
    x: np.ndarray,
    *,
    seeds: Sequence[int],
    dtype: Any = "float64",
    device: str = "cpu",
    sampling: str = "weights",
) -> np.ndarray:
    """Outputs at initialisation of one network per seed, (S, n) in ``dtype``, or (S, n, k) for k > 1 outputs.

    Parameters
    ----------
    x : points (n, d).
    seeds : S non-negative integers below 2^64, a sequence or range.
    device : ``"cpu"``; ``"cuda"``, every GPU that CUDA_VISIBLE_DEVICES shows, with the same networks and, to rounding,
        results; or ``"auto"``, GPUs where there are any.
    sampling : ``"weights"``, the network of :func:`sample_parameters`; or ``"conditional"``, a network of the same law, as
        :func:`empirical_ntk` explains. With the same points both functions see one network.

    Raises
    ------
    TypeError or ValueError naming the argument, what was expected and what was given; DeviceError for ``"cuda"`` without a
    GPU or numba-cuda; MemoryError where a GPU has not enough of it for one network.
    """
    place = _chosen_place(device, sampling)
    seed_list, kind = seed_array(seeds), precision(dtype)
    x = points("x", x)
    out = np.empty((seed_list.size, len(x), network.outputs), kind)
    no_kernels = np.empty((seed_list.size, 0, 0, 0), kind)
    if not _conditionally(network, x, None, seed_list, out, no_kernels, sampling):
        columns, pairs = columns_of(x, None, kind, place)
        _at_initialisation(compiled_network(network, x.shape[1]), columns, pairs, seed_list, out, no_kernels, place)
    _warn_of_overflow("outputs", seed_list, out)
    return out if network.outputs > 1 else out[..., 0]


def empirical_ntk(
    network: Network,
    x1: np.ndarray,
    x2: np.ndarray | None = None,
    *,
    seeds: Sequence[int],
    form: str = "full",
    dtype: Any = "float64",
    device: str = "cpu",
    sampling: str = "weights",
) -> np.ndarray:
    """Empirical neural tangent kernels at initialisation of one network per seed, (S, n1, n2) in ``dtype``.

    K(x, x') is the sum of df(x)/dtheta df(x')/dtheta over all parameters as stored (the notes' definition 1.2), summed
    and never averaged. With ``x2=None`` it is that of x1 with itself, symmetric to the last bit.

    Parameters
    ----------
    x1, x2 : points (n1, d) and (n2, d).
    seeds : S non-negative integers below 2^64, a sequence or range.
    device : ``"cpu"``; ``"cuda"``, every GPU that CUDA_VISIBLE_DEVICES shows, with the same networks and, to rounding,
        results; or ``"auto"``, GPUs where there are any.
    form : of a network of k > 1 outputs (one output has one kernel): ``"full"``, (S, n1, k, n2, k), entry [s, i, a, j, b] of
        outputs a and b; ``"diagonal"``, (S, n1, n2, k), of each output with itself; or ``"trace"``, (S, n1, n2), their sum.
        At infinite width these are the limit times the identity, the limit, and k times the limit. The trace takes memory for
        a few outputs' kernels beside the result, however many outputs there are.
    sampling : ``"weights"`` (default): the network of :func:`sample_parameters`, the same for all points. ``"conditional"``: the
        same law at every width, in time O(m n^2) and memory O(n^2) for m neurons a layer and n points times outputs, on the CPU.
        It is another network than that of :func:`sample_parameters`: a function of the seed, the network and the whole ordered
        set of points (x1, then what x2 adds). So equal points give one network, and ``empirical_ntk(x)`` equals
        ``empirical_ntk(x, x)``, while blocks of a kernel from several calls belong to several networks: ask for all points at
        once. Both precisions and all activations share their draws. Directions of a layer's activations below 1e-6 (float32:
        3e-5) of a point's own length are taken for none: closer points are not told apart. A layer whose weights are cheaper,
        such as one that is not wider than the points are many, is drawn by them. Gaussian conditioning: Bolthausen 2014;
        Lu 2021, arXiv 2101.07464.

    Raises
    ------
    TypeError or ValueError naming the argument, what was expected and what was given; DeviceError for ``"cuda"`` without a
    GPU or numba-cuda; MemoryError where a GPU has not enough of it for one network.
    """
    place = _chosen_place(device, sampling)
    seed_list, kind = seed_array(seeds), precision(dtype)
    x1 = points("x1", x1)
    if x2 is not None:
        x2 = points("x2", x2, features=x1.shape[1])
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
    k, rows, cols = network.outputs, len(x1), len(x1 if x2 is None else x2)
    blocks = {"full": (1, rows * k, cols * k), "diagonal": (k, rows, cols), "trace": (1, rows, cols)}
    out, no_outputs = np.empty((seed_list.size, *blocks[form]), kind), np.empty((seed_list.size, 0, k), kind)
    if not _conditionally(network, x1, x2, seed_list, no_outputs, out, sampling):
        columns, pairs = columns_of(x1, x2, kind, place)
        net = compiled_network(network, x1.shape[1])
        if form == "trace" and k > 1:
            _add_traces(net, columns, pairs, seed_list, out[:, 0], place)
        else:
            _at_initialisation(net, columns, pairs, seed_list, no_outputs, out, place)
    _warn_of_overflow("kernels", seed_list, out)
    if k == 1 or form == "trace":
        return out[:, 0]
    return out.reshape(-1, rows, k, cols, k) if form == "full" else np.ascontiguousarray(np.moveaxis(out, 1, -1))


def _add_traces(net: Net, columns: np.ndarray, pairs: Pairs, seeds: np.ndarray, total: np.ndarray, device: str) -> None:
    """Kernels (S, n1, n2) summed over outputs, in their order, a few outputs and seeds at a time: they take room for these."""
    outputs, size = int(net.widths[-1]), pairs.rows * pairs.cols
    few = max(_FEW, _TRACED // size)
    some = max(numba.get_num_threads(), _TRACED // (min(few, outputs) * size))
    total[:] = 0
    for first in range(0, outputs, few):
        part = outputs_of(net, first, min(few, outputs - first))
        for begin in range(0, seeds.size, some):
            group = seeds[begin : begin + some]
            own = np.empty((group.size, int(part.widths[-1]), *total.shape[1:]), total.dtype)
            _at_initialisation(part, columns, pairs, group, np.empty((group.size, 0, own.shape[1]), own.dtype), own, device)
            for a in range(own.shape[1]):
                total[begin : begin + some] += own[:, a]


def outputs_of(net: Net, first: int, count: int) -> Net:
    """The network of ``count`` outputs from ``first`` on: it draws their rows of the readout, and biases that are not theirs."""
    widths = np.append(net.widths[:-1], count)
    return net._replace(widths=widths, lengths=np.append(net.lengths[:-1], padded(count)), first=net.first + first)
