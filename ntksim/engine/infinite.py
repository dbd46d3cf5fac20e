"""The infinite-width limit: NNGP and neural tangent kernel by recursion over layers.

With S^0 = x.x'/d, q = (g_l s_l)^2 n_(l-1) S^(l-1) + (beta_l t_l)^2, S^l = E[phi(u) phi(v)] and D^l the product of the
derivative expectations from layer l up,

    NTK = g_(L+1)^2 n_L S^L + beta_(L+1)^2 + sum_l D^l (g_l^2 n_(l-1) S^(l-1) + beta_l^2),

which is section 1.6 of the notes, started at Theta^(0) = Sigma^(0) so that the first layer's weights are in it, and
with the factors sigma_w^2 that depend on the parameterization.
"""

from dataclasses import dataclass

import numpy as np

from ntksim.engine import quadrature
from ntksim.engine.activations import activation_code, closed_dual, has_closed_dual
from ntksim.engine.arguments import points
from ntksim.engine.jit import jit
from ntksim.engine.network import Network


@dataclass(frozen=True)
class Kernel:
    """The two kernels of a wide network, float64 arrays (n1, n2).

    ``nngp`` is the covariance of the outputs at initialisation, ``ntk`` the limit of the empirical neural tangent kernel.
    """

    nngp: np.ndarray
    ntk: np.ndarray


def infinite_kernel(network: Network, x1: np.ndarray, x2: np.ndarray | None = None) -> Kernel:
    """NNGP and NTK of infinitely wide layers.

    Parameters
    ----------
    x1, x2 : points (n1, d) and (n2, d); ``x2=None`` means ``x1``.

    The network's width is ignored, but in the ``standard`` parameterization, whose kernel grows like it.
    Closed forms for ReLU, erf and linear; for tanh an adaptive quadrature with relative error 1e-10.

    Raises
    ------
    TypeError or ValueError for points of the wrong kind or shape, or if the quadrature does not converge.

    Jacot et al. (2018), proposition 1 and theorem 1; the notes' section 1.6.
    """
    x1 = points("x1", x1)
    symmetric = x2 is None
    x2 = x1 if x2 is None else points("x2", x2, features=x1.shape[1])
    code = activation_code(network.activation)
    fan_in = (x1.shape[1], *network.widths)
    scales = network.scales(x1.shape[1])

    # second moments: of the pair, and of each point with itself
    pair = x1 @ x2.T / x1.shape[1]
    own1 = np.einsum("ij,ij->i", x1, x1) / x1.shape[1]
    own2 = np.einsum("ij,ij->i", x2, x2) / x2.shape[1]
    if symmetric:  # a matrix product is neither symmetric nor equal to the row sums to the last bit
        pair = (pair + pair.T) / 2
        np.fill_diagonal(pair, own1)

    ntk = np.zeros_like(pair)
    for layer in range(network.depth):
        weight = (scales.weight[layer] * scales.weight_init[layer]) ** 2 * fan_in[layer]
        bias = (scales.bias[layer] * scales.bias_init[layer]) ** 2
        # the layer's own parameters, and those below through the weights
        tangent = scales.weight[layer] ** 2 * fan_in[layer] * pair + scales.bias[layer] ** 2 + weight * ntk
        k12, k11, k22 = weight * pair + bias, weight * own1 + bias, weight * own2 + bias
        pair, slope = _dual(code, k11[:, None], k12, k22[None, :])
        own1, _ = _dual(code, k11, k11, k11)
        own2, _ = _dual(code, k22, k22, k22)
        ntk = slope * tangent
    weight = (scales.weight[-1] * scales.weight_init[-1]) ** 2 * fan_in[-1]
    nngp = weight * pair + (scales.bias[-1] * scales.bias_init[-1]) ** 2
    ntk = scales.weight[-1] ** 2 * fan_in[-1] * pair + scales.bias[-1] ** 2 + weight * ntk
    return Kernel(nngp, ntk)


def _dual(code: int, k11: np.ndarray, k12: np.ndarray, k22: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    k11, k12, k22 = np.broadcast_arrays(k11, k12, k22)
    if not has_closed_dual(code):
        return quadrature.expectations(code, k11, k12, k22)
    value, slope = np.empty(k12.size), np.empty(k12.size)
    _closed_duals(code, k11.ravel(), k12.ravel(), k22.ravel(), value, slope)
    return value.reshape(k12.shape), slope.reshape(k12.shape)


@jit
def _closed_duals(code, k11, k12, k22, value, slope):
    for i in range(k12.size):
        value[i], slope[i] = closed_dual(code, k11[i], k12[i], k22[i])
