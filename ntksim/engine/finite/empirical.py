"""Outputs and empirical neural tangent kernels of finite networks, at initialisation or of given parameters.

At initialisation every number is a function of (seed, widths, layer, row, column): the same for any number of threads, any
split or order of the seeds, and both precisions (weights are float32 numbers; ``dtype`` is the precision of the arithmetic).
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from ntksim.engine import known_answers
from ntksim.engine.arguments import SAMPLINGS, one_of, points, precision, seed_array, warn
from ntksim.engine.cpu import passes
from ntksim.engine.cpu.compiled_network import columns_of, compiled_network
from ntksim.engine.devices import chosen_device
from ntksim.engine.finite.parameters import Parameters, packed
from ntksim.engine.formulas.blocks import block_of
from ntksim.engine.layout import (
    Net,
    Pairs,
    drawn_weights,
    make_room,
    operations_of_pass,
    padded,
    parameter_offsets,
    stored_weights,
)
from ntksim.engine.network import Network, checked_network
from ntksim.engine.threads import another, seeds_in_slices, shown, spread, working_for

FORMS = ("full", "diagonal", "trace")
# Outputs whose kernels a trace is added up from at a time: so many at least, lest passes forward, one for each such group, take
# as long as those back, and more of few points, up to so many numbers.
_FEW, _TRACED = 8, 1 << 18
# Threads share one network, rather than having one each, from this width on: below, they would wait more than work.
_WIDE = 512


def is_wide(widths: Sequence[int]) -> bool:
    """Whether threads can share one network of hidden layers of these widths."""
    return max(widths) >= _WIDE


def chosen_place(device: object, sampling: object) -> str:
    """``"cpu"`` or ``"cuda"`` for the arguments ``device`` and ``sampling``."""
    one_of("sampling", sampling, SAMPLINGS)
    return chosen_device(device)


def whose(seeds: Sequence[int] | None, parameters: Parameters | None, device: object, sampling: object) -> tuple[np.ndarray, str]:
    """Seeds, one of no meaning for given parameters; and where to work: ``"cpu"`` or ``"cuda"``."""
    place = chosen_place("cpu" if parameters is not None and device == "auto" else device, sampling)
    if parameters is None:
        if seeds is None:
            raise TypeError("give seeds, a sequence of non-negative integers such as range(8), or parameters")
        return seed_array(seeds), place
    if seeds is not None:
        raise TypeError("give seeds or parameters, not both: parameters are those of one network")
    if sampling != "weights":
        raise ValueError(f"parameters are a network's weights: leave out sampling={sampling!r}")
    if place != "cpu":
        raise ValueError("parameters run on the CPU only so far; got device='cuda': use device='cpu'")
    return np.zeros(1, np.uint64), place


def known_network(
    network: Network, input_dim: int, parameters: Parameters | None, kind: np.dtype
) -> tuple[Net, np.ndarray | None]:
    """The network as compiled code knows it, and the flat vector of given parameters."""
    return (compiled_network(network, input_dim), None) if parameters is None else packed(network, input_dim, parameters, kind)


def _conditionally(
    network: Network,
    x1: np.ndarray,
    x2: np.ndarray | None,
    seeds: np.ndarray,
    outputs: np.ndarray,
    kernels: np.ndarray,
    sampling: str,
    device: str,
) -> bool:
    """Fill ``outputs`` and ``kernels`` by conditional sampling, if that is asked for and cheaper; whether that was done."""
    if sampling != "conditional":
        return False
    network.require_gaussian()
    from ntksim.engine.conditional import networks  # compiled code that nothing else needs

    known_answers.check("networks in law", outputs.dtype.name, device)
    if device == "cpu":
        return bool(networks.evaluate(network, x1, x2, seeds, outputs, kernels))
    from ntksim.engine.cuda import conditional

    return bool(networks.evaluate(network, x1, x2, seeds, outputs, kernels, evaluate_seeds=conditional.evaluate_seeds))


def _evaluate(
    net: Net,
    columns: np.ndarray,
    pairs: Pairs,
    seeds: np.ndarray,
    outputs: np.ndarray,
    kernels: np.ndarray,
    device: str,
    theta: np.ndarray | None = None,
) -> None:
    """Fill ``outputs`` (S, n, k) and ``kernels`` (S, blocks, rows, columns), unless their second axis is empty.

    ``theta``: the parameter vector of the one network there is, in place of those that seeds draw.
    """
    known_answers.check(
        "outputs and kernels", columns.dtype.name, device, block_of(net.code).name if device == "cuda" else "relu"
    )
    wanted, joint = kernels.shape[1] > 0, kernels.shape[1] < net.widths[-1]
    if device == "cuda":
        from ntksim.engine.cuda import seeds as cuda_seeds

        cuda_seeds.evaluate_seeds(net, columns, pairs, seeds, outputs, kernels)
        return

    def work(threads: int, first: int, end: int, step: int) -> None:
        rows = passes.group_rows(threads, net)
        keep = passes.KEPT if wanted else 0
        weights = drawn_weights(net, rows, keep, columns.dtype) if theta is None else stored_weights(net, theta)
        room = make_room(net, columns, pairs, rows, streamed=True, backward=wanted, kernel=wanted, joint=joint)

        def some(begin: int, stop: int) -> None:
            passes.evaluate_seeds(threads, begin, step, seeds[:stop], net, weights, room, pairs, outputs, kernels)

        seeds_in_slices(range(first, end, step), room.window, some, operations_of_pass(net, room, pairs), threads)

    spread(seeds.size, is_wide(net.widths[1:-1].tolist()), work)


def warn_of_overflow(what: str, seeds: np.ndarray, values: np.ndarray, given: bool) -> None:
    """One line where results (S, ...) are infinite or NaN, which comes of overflow alone: inputs and parameters are finite.

    Like NumPy's own warnings of overflow it is silent under ``np.errstate(over="ignore")``.
    """
    if np.geterr()["over"] == "ignore":
        return
    bad = [str(seed) for seed, value in zip(seeds, values, strict=True) if not np.isfinite(value).all()]
    if bad:
        names = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
        of = "these parameters" if given else f"seed {names}" if len(bad) == 1 else f"{len(bad)} of {seeds.size} seeds ({names})"
        wider = "use float64, " if values.dtype == np.float32 else ""
        warn(
            f"{what} of {of} overflow {values.dtype.name}, and are infinite or NaN: {wider}scale the points down, or lower "
            "sigma_w, sigma_a, sigma_b or output_scale",
            RuntimeWarning,
        )


def network_outputs(
    network: Network,
    x: np.ndarray,
    *,
    seeds: Sequence[int] | None = None,
    parameters: Parameters | None = None,
    dtype: Any = "float64",
    device: str = "cpu",
    sampling: str = "weights",
    progress: bool = False,
) -> np.ndarray:
    """Outputs at initialisation of one network per seed, (S, n) in ``dtype``, or (S, n, k) for k > 1 outputs.

    With ``parameters`` in place of seeds the outputs of that one network, without the seeds' axis.

    Parameters
    ----------
    x : points (n, d).
    seeds : S non-negative integers below 2^64, a sequence or range.
    parameters : in place of seeds, the parameters of a network of your own, such as `from_torch` returns, on the CPU. Biases are
        those that it has, layer by layer; their multipliers and those of the weights are the network's.
    device : ``"cpu"``; ``"cuda"``, every GPU that CUDA_VISIBLE_DEVICES shows, with the same networks and, to rounding,
        results; or ``"auto"``, GPUs where there are any.
    sampling : ``"weights"``, the network of :func:`sample_parameters`; or ``"conditional"``, a network of the same law, as
        :func:`empirical_ntk` explains. With the same points both functions see one network.
    progress : whether to show a bar of seeds, by tqdm.

    Raises
    ------
    TypeError or ValueError naming the argument, what was expected and what was given; DeviceError for ``"cuda"`` without a
    GPU or numba-cuda; MemoryError where a GPU has not enough of it for one network.
    """
    checked_network(network)
    seed_list, place = whose(seeds, parameters, device, sampling)
    x, kind = points("x", x), precision(dtype)
    out = np.empty((seed_list.size, len(x), network.outputs), kind)
    no_kernels = np.empty((seed_list.size, 0, 0, 0), kind)
    with shown(progress, seed_list.size, "outputs"):
        if not _conditionally(network, x, None, seed_list, out, no_kernels, sampling, place):
            columns, pairs = columns_of(x, None, kind, place)
            net, theta = known_network(network, x.shape[1], parameters, kind)
            _evaluate(net, columns, pairs, seed_list, out, no_kernels, place, theta)
    warn_of_overflow("outputs", seed_list, out, parameters is not None)
    out = out if parameters is None else out[0]
    return out if network.outputs > 1 else out[..., 0]


def empirical_ntk(
    network: Network,
    x1: np.ndarray,
    x2: np.ndarray | None = None,
    *,
    seeds: Sequence[int] | None = None,
    parameters: Parameters | None = None,
    form: str = "full",
    dtype: Any = "float64",
    device: str = "cpu",
    sampling: str = "weights",
    progress: bool = False,
) -> np.ndarray:
    """Empirical neural tangent kernels at initialisation of one network per seed, (S, n1, n2) in ``dtype``.

    With ``parameters`` in place of seeds the kernel of that one network, (n1, n2), without the seeds' axis.

    K(x, x') is the sum of df(x)/dtheta df(x')/dtheta over all parameters as stored (the notes' definition 1.2), summed
    and never averaged. With ``x2=None`` it is that of x1 with itself, symmetric to the last bit.

    Parameters
    ----------
    x1, x2 : points (n1, d) and (n2, d).
    seeds : S non-negative integers below 2^64, a sequence or range.
    parameters : in place of seeds, the parameters of a network of your own, such as `from_torch` returns, on the CPU. Biases are
        those that it has, layer by layer; their multipliers and those of the weights are the network's.
    device : ``"cpu"``; ``"cuda"``, every GPU that CUDA_VISIBLE_DEVICES shows, with the same networks and, to rounding,
        results; or ``"auto"``, GPUs where there are any.
    form : of a network of k > 1 outputs (one output has one kernel): ``"full"``, (S, n1, k, n2, k), entry [s, i, a, j, b] of
        outputs a and b; ``"diagonal"``, (S, n1, n2, k), of each output with itself; or ``"trace"``, (S, n1, n2), their sum.
        At infinite width these are the limit times the identity, the limit, and k times the limit. By weights the trace takes
        memory for a few outputs' kernels beside the result, however many outputs there are. Conditional sampling takes several
        matrices (n k, n k) for every form: it factorises the Gram matrix of all outputs' sensitivities.
    sampling : ``"weights"`` (default): the network of :func:`sample_parameters`, the same for all points. ``"conditional"``: the
        same law at every width, in time O(m n^2) and memory O(n^2) for m neurons a layer and n points times outputs.
        It is another network than that of :func:`sample_parameters`: a function of the seed, the network and the whole ordered
        set of points (x1, then what x2 adds). So equal points give one network, and ``empirical_ntk(x)`` equals
        ``empirical_ntk(x, x)``, while blocks of a kernel from several calls belong to several networks: ask for all points at
        once. Both precisions and all activations share their draws. Directions of a layer's activations below 1e-6 (float32:
        3e-5) of a point's own length are taken for none: closer points are not told apart. A layer whose weights are cheaper,
        such as one that is not wider than the points are many, is drawn by them. Gaussian conditioning: Bolthausen 2014;
        Lu 2021, arXiv 2101.07464.
    progress : whether to show a bar of seeds, by tqdm.

    Raises
    ------
    TypeError or ValueError naming the argument, what was expected and what was given; DeviceError for ``"cuda"`` without a
    GPU or numba-cuda; MemoryError where a GPU has not enough of it for one network.
    """
    checked_network(network)
    seed_list, place = whose(seeds, parameters, device, sampling)
    x1, kind = points("x1", x1), precision(dtype)
    if x2 is not None:
        x2 = points("x2", x2, features=x1.shape[1])
    one_of("form", form, FORMS)
    k, rows, cols = network.outputs, len(x1), len(x1 if x2 is None else x2)
    blocks = {"full": (1, rows * k, cols * k), "diagonal": (k, rows, cols), "trace": (1, rows, cols)}
    out, no_outputs = np.empty((seed_list.size, *blocks[form]), kind), np.empty((seed_list.size, 0, k), kind)
    with shown(progress, seed_list.size, "kernels"):
        if not _conditionally(network, x1, x2, seed_list, no_outputs, out, sampling, place):
            columns, pairs = columns_of(x1, x2, kind, place)
            net, theta = known_network(network, x1.shape[1], parameters, kind)
            if form == "trace" and k > 1:
                with working_for(another(-(-k // _group_of_outputs(pairs)))):
                    _add_traces(net, columns, pairs, seed_list, out[:, 0], place, theta)
            else:
                _evaluate(net, columns, pairs, seed_list, no_outputs, out, place, theta)
    warn_of_overflow("kernels", seed_list, out, parameters is not None)
    return _arranged(out if parameters is None else out[0], form, k, rows, cols)


def _arranged(out: np.ndarray, form: str, k: int, rows: int, cols: int) -> np.ndarray:
    """Kernels as `empirical_ntk` returns them, with axes of outputs behind those of points."""
    if k == 1 or form == "trace":
        return out[..., 0, :, :]
    return out.reshape(*out.shape[:-3], rows, k, cols, k) if form == "full" else np.ascontiguousarray(np.moveaxis(out, -3, -1))


def _group_of_outputs(pairs: Pairs) -> int:
    """Outputs whose kernels a trace is added up from at a time, at most."""
    return max(_FEW, _TRACED // (pairs.rows * pairs.cols))


def _add_traces(
    net: Net,
    columns: np.ndarray,
    pairs: Pairs,
    seeds: np.ndarray,
    total: np.ndarray,
    device: str,
    theta: np.ndarray | None,
) -> None:
    """Kernels (S, n1, n2) summed over outputs, in their order, a few outputs and seeds at a time: they take room for these."""
    outputs, size, few = int(net.widths[-1]), pairs.rows * pairs.cols, _group_of_outputs(pairs)
    some = max(numba.get_num_threads(), _TRACED // (min(few, outputs) * size))
    total[:] = 0
    for first in range(0, outputs, few):
        part, own_theta = outputs_of(net, first, min(few, outputs - first), theta)
        for begin in range(0, seeds.size, some):
            group = seeds[begin : begin + some]
            own = np.empty((group.size, int(part.widths[-1]), *total.shape[1:]), total.dtype)
            none = np.empty((group.size, 0, own.shape[1]), own.dtype)
            _evaluate(part, columns, pairs, group, none, own, device, own_theta)
            for a in range(own.shape[1]):
                total[begin : begin + some] += own[:, a]


def outputs_of(net: Net, first: int, count: int, theta: np.ndarray | None = None) -> tuple[Net, np.ndarray | None]:
    """The network of ``count`` outputs from ``first`` on, and its parameter vector, if ``theta`` is the whole network's.

    Without one it draws their rows of the readout, and biases that are not theirs.
    """
    widths = np.append(net.widths[:-1], count)
    part = net._replace(widths=widths, lengths=np.append(net.lengths[:-1], padded(count)), first=net.first + first)
    if theta is None:
        return part, None
    whole, offsets, length = parameter_offsets(net), parameter_offsets(part), net.lengths[-2]
    own = np.zeros(offsets[-1], theta.dtype)
    own[: offsets[-3]] = theta[: whole[-3]]
    own[offsets[-3] : offsets[-2]] = theta[whole[-3] + first * length :][: count * length]
    own[offsets[-2] :][:count] = theta[whole[-2] + first :][:count]
    return part, own
