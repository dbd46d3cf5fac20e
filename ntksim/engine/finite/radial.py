"""The derivative of outputs along the parameters themselves, by which weight decay moves a linearised network."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ntksim.engine import known_answers
from ntksim.engine.arguments import flag, points, precision
from ntksim.engine.blas import one_blas_thread
from ntksim.engine.cpu.compiled_network import columns_of
from ntksim.engine.cpu.machine import CpuMachine
from ntksim.engine.finite.empirical import is_wide, known_network, warn_of_overflow, whose
from ntksim.engine.finite.parameters import Parameters
from ntksim.engine.layout import Net
from ntksim.engine.machine import Inside, Task
from ntksim.engine.network import Network, checked_network
from ntksim.engine.threads import advance, shown, spread


def radial_derivative(
    network: Network,
    x: np.ndarray,
    *,
    seeds: Sequence[int] | None = None,
    parameters: Parameters | None = None,
    by_layer: bool = False,
    dtype: Any = "float64",
    progress: bool = False,
) -> np.ndarray:
    """J_0 theta_0 at initialisation of one network per seed, (S, n) in ``dtype``, or (S, n, k) for k > 1 outputs.

    It is d/ds f(x; s theta_0) at s = 1: the sum of theta df/dtheta over all parameters as stored, biases included. A layer's
    share is the sum over its neurons of df/dz z, the readout's the output itself. Weight decay moves a linearised network along
    it (`linearized_descent`). For ReLU and its like without biases it is (L + 1) f.

    Parameters
    ----------
    x : points (n, d).
    seeds : S non-negative integers below 2^64, a sequence or range.
    parameters : in place of seeds, the parameters of a network of your own, as in `network_outputs`; the result then has no axis
        of seeds.
    by_layer : whether to return the shares of the L + 1 layers, the readout's last, (S, L + 1, n) or (S, L + 1, n, k). Where
        training freezes layers, add those of the others.
    dtype : ``"float64"`` or ``"float32"``, the precision of the arithmetic; shares are summed in float64.
    progress : whether to show a bar of seeds, by tqdm.

    Raises
    ------
    TypeError or ValueError naming the argument, what was expected and what was given.
    """
    checked_network(network)
    seed_list, _ = whose(seeds, parameters, "cpu", "weights")
    x, kind, apart = points("x", x), precision(dtype), flag("by_layer", by_layer)
    known_answers.check("gradient_descent", kind.name)
    net, theta = known_network(network, x.shape[1], parameters, kind)
    columns = columns_of(x, None, kind, "cpu")
    task = Task(net, columns, np.zeros(len(x) * network.outputs), columns, None, False, theta)
    shares = np.empty((seed_list.size, network.depth + 1, len(x), network.outputs))

    def work(threads: int, first: int, end: int, step: int) -> None:
        for s in range(first, end, step):
            machine = CpuMachine(threads, seed_list[s], task)
            start = machine.draw() if theta is None else machine.unpack(theta)
            shares[s] = _of_layers(net, machine.inside_at_tests(start))
            advance(1)

    with shown(progress, seed_list.size, "derivatives"), one_blas_thread():  # BLAS at one: the same bits whatever there are
        spread(seed_list.size, is_wide(network.widths), work)
    with np.errstate(over="ignore", invalid="ignore"):
        out = (shares if apart else shares.sum(axis=1)).astype(kind)
    warn_of_overflow("derivatives", seed_list, out, parameters is not None)
    out = out if parameters is None else out[0]
    return out if network.outputs > 1 else out[..., 0]


def _of_layers(net: Net, inside: Inside) -> np.ndarray:
    """sum over neurons of df/dz z of layers 1 .. L+1, (L+1, n, k), in float64."""
    shares, last = [], len(inside.sensitivities)
    with np.errstate(over="ignore", invalid="ignore"):  # of a network beyond its precision: infinite or NaN, as it is
        for layer, (weights, biases) in enumerate(zip(inside.weights, inside.biases, strict=True)):
            product = (weights @ inside.features[layer]).astype(np.float64)
            z = net.scales[0, layer] * product + net.scales[2, layer] * biases[:, None].astype(np.float64)
            if layer == last:
                shares.append(z.T)
            else:
                shares.append(np.einsum("rkn,rn->nk", inside.sensitivities[layer].astype(np.float64), z))
    return np.stack(shares)
