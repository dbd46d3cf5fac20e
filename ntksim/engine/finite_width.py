"""What is known exactly of a network of finite width: the variance of the kernel of one hidden layer.

The kernel is beta^2 plus a mean over the m neurons of independent terms

    T = G (phi(u) phi(v) + a^2 phi'(u) phi'(v) c),   G = m g_2^2,   c = g_1^2 x.x' + beta_1^2,   a ~ N(0, s_2^2),

with (u, v) Gaussian, so that at every width E[K] is the limit and m Var[K] = Var[T]:

    Var[T] = G^2 (E[phi^2 phi^2] + 2 s_2^2 c E[phi phi phi' phi'] + 3 s_2^4 c^2 E[phi'^2 phi'^2]) - E[T]^2.
"""

import numpy as np

from ntksim.engine import known_answers, quadrature
from ntksim.engine.activations import ABS, CROSS, LEAK, LEAKY_RELU, RELU, SQUARES, activation_code, piecewise_fourth_moments
from ntksim.engine.arguments import points
from ntksim.engine.infinite import infinite_kernel, mirror
from ntksim.engine.jit import jit
from ntksim.engine.network import Network


def one_hidden_layer_variance(network: Network, x: np.ndarray) -> np.ndarray:
    """Variance over seeds of every entry of the empirical NTK of one hidden layer at initialisation: exact, (n, n) float64.

    It is a law at every width: E||K_m - K_infinity||_F^2 is the sum of the entries. In
    the parameterizations ``ntk``, ``notes`` and ``mup`` they are proportional to 1/m.

    Parameters
    ----------
    network : one hidden layer, any width, activation and parameterization.
    x : points (n, d).

    Raises
    ------
    ValueError for a deeper network; TypeError or ValueError for points of the wrong kind or shape.

    The notes' sections 1.4 and 1.5 give the mean; the variance is that of a mean of independent terms.
    """
    if network.depth != 1:
        raise ValueError(f"the exact variance is known for one hidden layer; got a network of depth {network.depth}")
    x = points("x", x)
    known_answers.check("variances")
    width, scales = network.widths[0], network.scales(x.shape[1])
    moments = x @ x.T
    moments = (moments + moments.T) / 2
    k12 = (scales.weight[0] * scales.weight_init[0]) ** 2 * moments + (scales.bias[0] * scales.bias_init[0]) ** 2
    squares, cross, slopes = _fourth_moments(activation_code(network.activation), k12)
    gain, readout = width * scales.weight[1] ** 2, scales.weight_init[1] ** 2
    tangent = readout * (scales.weight[0] ** 2 * moments + scales.bias[0] ** 2)
    mean = infinite_kernel(network, x).ntk - scales.bias[1] ** 2
    return (gain**2 * (squares + 2 * tangent * cross + 3 * tangent**2 * slopes) - mean**2) / width


def _fourth_moments(code: int, k12: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E[phi^2 phi^2], E[phi phi' phi phi'] and E[phi'^2 phi'^2] of Gaussian pairs with covariances ``k12``, (n, n)."""
    own = k12.diagonal().copy()
    if code in _KINKED:
        k11, k22 = np.broadcast_arrays(own[:, None], own[None, :])
        moments = np.empty((3, k12.size))
        _piecewise_moments(*_KINKED[code], k11.ravel(), k12.ravel(), k22.ravel(), *moments)
        return moments[0].reshape(k12.shape), moments[1].reshape(k12.shape), moments[2].reshape(k12.shape)
    squares, slopes, cross, unused = k12.copy(), np.ones_like(k12), k12.copy(), np.ones_like(k12)
    quadrature.expectations(code, own, squares, own, slopes, True, SQUARES)
    quadrature.expectations(code, own, cross, own, unused, True, CROSS)
    for half in (squares, slopes, cross):
        mirror(half)
    return squares, cross, slopes


# slope below zero, and at zero
_KINKED = {RELU: (0.0, 0.0), LEAKY_RELU: (LEAK, LEAK), ABS: (-1.0, 0.0)}


@jit
def _piecewise_moments(below, at_zero, k11, k12, k22, squares, cross, slopes):
    for i in range(k12.size):
        squares[i], cross[i], slopes[i] = piecewise_fourth_moments(below, at_zero, k11[i], k12[i], k22[i])
