"""The infinite-width limit: NNGP and neural tangent kernel by recursion over layers.

With S^0 = x.x'/d, q = (g_l s_l)^2 n_(l-1) S^(l-1) + (beta_l t_l)^2, S^l = E[phi(u) phi(v)] and D^l the product of the
derivative expectations from layer l up,

    NTK = g_(L+1)^2 n_L S^L + beta_(L+1)^2 + sum_l D^l (g_l^2 n_(l-1) S^(l-1) + beta_l^2),

each layer's term with its learning rate where a network has rates (`layer_rates`),

which is section 1.6 of the notes, started at Theta^(0) = Sigma^(0) so that the first layer's weights are in it, and
with the factors sigma_w^2 that depend on the parameterization.
"""

from dataclasses import dataclass

import numpy as np
from numba import prange

from ntksim.engine import known_answers, quadrature
from ntksim.engine.activations import activation_code, closed_dual, has_closed_dual
from ntksim.engine.arguments import points
from ntksim.engine.jit import jit, jit_parallel
from ntksim.engine.network import Network, Scales


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

    The network's width is ignored in ``ntk`` and ``notes``. In the others the recursion is taken at the network's own
    width n, which finite networks approach with a relative error O(n^(-1/2)), and kernels carry its powers: in
    ``standard`` the NTK grows like n; in ``mup`` the NNGP is proportional to 1/n (outputs at initialisation vanish at
    infinite width) and the NTK does not depend on n; in ``mean_field`` both are proportional to 1/n, so that the NTK of
    training, n^(-c) times ``ntk``, does not depend on n; in ``abc`` they go as the exponents say, to zero or infinity
    too. In ``mup`` and ``mean_field`` this is the kernel at initialisation only: it moves in training however large n is.
    Outputs are independent, and every one has these kernels, however many there are.
    In closed form but for tanh, whose series control their errors: 1e-10 relative to the diagonal, a layer.

    Raises
    ------
    TypeError or ValueError for points of the wrong kind or shape, or too large for the series of tanh.

    Jacot et al. (2018), proposition 1 and theorem 1; the notes' section 1.6.
    """
    x1 = points("x1", x1)
    symmetric = x2 is None
    x2 = x1 if x2 is None else points("x2", x2, features=x1.shape[1])
    code = activation_code(network.activation)
    known_answers.check("limits" if has_closed_dual(code) else "limits by series")
    fan_in = (x1.shape[1], *network.widths)
    scales = network.scales(x1.shape[1])

    # Second moments of each pair, and of each point with itself: a matrix product is not equal to the row sums to the last
    # bit. The two n1 x n2 buffers are updated in place.
    pair = x1 @ x2.T
    pair /= x1.shape[1]
    own1 = np.einsum("ij,ij->i", x1, x1) / x1.shape[1]
    own2 = np.einsum("ij,ij->i", x2, x2) / x2.shape[1]
    ntk = np.zeros_like(pair)
    if symmetric:
        np.fill_diagonal(pair, own1)
        mirror(pair)
    for layer in range(network.depth):
        weight = (scales.weight[layer] * scales.weight_init[layer]) ** 2 * fan_in[layer]
        bias = (scales.bias[layer] * scales.bias_init[layer]) ** 2
        k11, k22 = weight * own1 + bias, weight * own2 + bias
        # the kernel of the layer's own parameters
        local_weight, local_bias = _local(scales, layer, fan_in[layer])
        if has_closed_dual(code):
            _closed_layer(code, symmetric, k11, k22, weight, bias, local_weight, local_bias, pair, ntk)
            own1, own2 = _own(code, k11), _own(code, k22)
        else:
            _linear(weight, bias, local_weight, local_bias, pair, ntk)
            own1, own2 = quadrature.expectations(code, k11, pair, k22, ntk, symmetric)
    if symmetric:
        mirror(pair)
        mirror(ntk)
    weight = (scales.weight[-1] * scales.weight_init[-1]) ** 2 * fan_in[-1]
    bias = (scales.bias[-1] * scales.bias_init[-1]) ** 2
    _linear(weight, bias, *_local(scales, -1, fan_in[-1]), pair, ntk)
    return Kernel(pair, ntk)


def kernel_error(network: Network) -> float:
    """Relative error of the entries of infinite kernels, as :func:`closed_form` takes it for ``precision``."""
    exact = has_closed_dual(activation_code(network.activation))
    return float(np.finfo(np.float64).eps) if exact else network.depth * quadrature.TOLERANCE


def _local(scales: Scales, layer: int, fan_in: int) -> tuple[float, float]:
    """Factors of the kernel of a layer's own weights and biases."""
    return scales.rate[layer] * scales.weight[layer] ** 2 * fan_in, scales.rate[layer] * scales.bias[layer] ** 2


def _own(code: int, k: np.ndarray) -> np.ndarray:
    """Second moments of activations whose pre-activations have the variances ``k``."""
    return np.array([closed_dual(code, v, v, v)[0] for v in k])


@jit_parallel
def _closed_layer(code, symmetric, k11, k22, weight, bias, local_weight, local_bias, pair, ntk):
    """One layer in place: pair <- E[phi phi], ntk <- E[phi' phi'] (local kernel + weight ntk); the upper half if symmetric."""
    rows = pair.shape[0]
    # Row r with row n - 1 - r: equal work for every thread on a triangle.
    for r in prange((rows + 1) // 2):
        _closed_row(r, code, symmetric, k11, k22, weight, bias, local_weight, local_bias, pair, ntk)
        if rows - 1 - r != r:
            _closed_row(rows - 1 - r, code, symmetric, k11, k22, weight, bias, local_weight, local_bias, pair, ntk)


@jit
def _closed_row(i, code, symmetric, k11, k22, weight, bias, local_weight, local_bias, pair, ntk):
    for j in range(i if symmetric else 0, pair.shape[1]):
        tangent = local_weight * pair[i, j] + local_bias + weight * ntk[i, j]
        pair[i, j], slope = closed_dual(code, k11[i], weight * pair[i, j] + bias, k22[j])
        ntk[i, j] = slope * tangent


@jit_parallel
def _linear(weight, bias, local_weight, local_bias, pair, ntk):
    """Weights and biases of a layer in place: pair <- weight pair + bias, ntk <- their own kernel + weight ntk."""
    for i in prange(pair.shape[0]):
        for j in range(pair.shape[1]):
            ntk[i, j] = local_weight * pair[i, j] + local_bias + weight * ntk[i, j]
            pair[i, j] = weight * pair[i, j] + bias


@jit_parallel
def mirror(matrix):
    """Copy the upper half onto the lower one, block by block for the cache's sake."""
    n, block = matrix.shape[0], 64
    for b in prange((n + block - 1) // block):
        for j0 in range(0, (b + 1) * block, block):
            for i in range(b * block, min((b + 1) * block, n)):
                for j in range(j0, min(j0 + block, i)):
                    matrix[i, j] = matrix[j, i]
