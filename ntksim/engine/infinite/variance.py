"""What is known exactly of a network of finite width: the variance of the kernel of one hidden layer.

The kernel is beta^2 plus a mean over the m neurons of independent terms

    T = G (phi(u) phi(v) + a^2 phi'(u) phi'(v) c),   G = m g_2^2,   c = g_1^2 x.x' + beta_1^2,   a ~ N(0, s_2^2),

with (u, v) Gaussian, so that at every width E[K] is the limit and m Var[K] = Var[T]:

    Var[T] = G^2 (E[phi^2 phi^2] + 2 s_2^2 c E[phi phi phi' phi'] + 3 s_2^4 c^2 E[phi'^2 phi'^2]) - E[T]^2.
"""

import math

import numpy as np

from ntksim.engine import known_answers
from ntksim.engine.activation import Phi
from ntksim.engine.arguments import points, warn
from ntksim.engine.compiled.jit import jit
from ntksim.engine.formulas.blocks import CROSS, SQUARES, block_of, code_of, phi_of
from ntksim.engine.formulas.gaps import shared_gap, through_layer
from ntksim.engine.infinite import expectations
from ntksim.engine.infinite.correlations import roots_and_gaps
from ntksim.engine.infinite.kernel import infinite_kernel, mirror
from ntksim.engine.network import Network, checked_network

_SMALLEST = 1e-150  # kernels whose squares may have lost digits


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
    ValueError for a deeper network, or a variance that overflows; TypeError or ValueError for points of the wrong kind or shape.
    RuntimeError in a process that was forked after threads had been used. Warns (RuntimeWarning) of squares that underflow.

    The notes' sections 1.4 and 1.5 give the mean; the variance is that of a mean of independent terms.
    """
    checked_network(network)
    if network.depth != 1:
        raise ValueError(f"the exact variance is known for one hidden layer; got a network of depth {network.depth}")
    x = points("x", x)
    known_answers.check("variances", activation=block_of(code_of(network.activation)).name)
    width, scales = network.widths[0], network.scales(x.shape[1])
    mean = infinite_kernel(network, x).ntk - scales.bias[1] ** 2
    roots, _, gaps = roots_and_gaps(x, x, True)
    np.fill_diagonal(gaps, 0.0)
    mirror(gaps)
    moments = _products(roots, gaps)
    weight, bias = scales.covariance_factors(0, x.shape[1])
    s = np.empty_like(roots)
    _through_layer(math.sqrt(weight), math.sqrt(bias), roots, s, gaps)
    squares, cross, slopes = _fourth_moments(phi_of(network.activation), s, gaps)
    (local_weight, local_bias), (gain, _) = scales.kernel_factors(0, x.shape[1]), scales.kernel_factors(1, width)
    tangent = scales.weight_init[1] ** 2 * (local_weight * moments + local_bias)
    with np.errstate(over="ignore", invalid="ignore"):
        variance = (gain**2 * (squares + 2 * tangent * cross + 3 * tangent**2 * slopes) - mean**2) / width
    if not np.isfinite(variance).all():
        raise ValueError(
            "the variance of this kernel overflows: scale the points down, or lower sigma_w, sigma_a or output_scale"
        )
    smallest = np.min(mean.diagonal(), initial=np.inf, where=mean.diagonal() != 0)
    if smallest < _SMALLEST:
        warn(
            f"the variance of this kernel has lost digits: squares of entries of {smallest:.3g} are at the end of float64's "
            "range; scale the points up, or raise sigma_w, sigma_a or output_scale",
            RuntimeWarning,
        )
    return variance


def _products(roots: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """E[u v] of variables of these root mean squares (n,) and gaps (n, n)."""
    return np.copysign(1 - np.abs(gaps), gaps) * np.outer(roots, roots)


@jit
def _through_layer(weight, bias, roots, s, gaps):
    """Standard deviations of pre-activations, and, in place, the gaps of pairs of them."""
    share, bias_share = np.empty_like(s), np.empty_like(s)
    for i in range(s.size):
        s[i], share[i], bias_share[i] = through_layer(weight, bias, roots[i])
    if bias > 0:
        for i in range(s.size):
            for j in range(s.size):
                gaps[i, j] = shared_gap(gaps[i, j], share[i], bias_share[i], share[j], bias_share[j])


def _fourth_moments(phi: Phi, s: np.ndarray, gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E[phi^2 phi^2], E[phi phi' phi phi'] and E[phi'^2 phi'^2] of Gaussian pairs with standard deviations ``s`` (n,)."""
    fill = block_of(phi.code).fill_fourth_moments
    if fill is not None:
        moments = np.empty((3, *gaps.shape))
        fill(phi.parameter, s, gaps, *moments)
        return moments[0], moments[1], moments[2]
    squares, slopes, cross, unused = gaps.copy(), np.ones_like(gaps), gaps.copy(), np.ones_like(gaps)
    square_roots, _ = expectations.correlations(phi, s, squares, s, slopes, True, SQUARES)
    cross_roots, _ = expectations.correlations(phi, s, cross, s, unused, True, CROSS)
    for half in (squares, slopes, cross):
        mirror(half)
    return _products(square_roots[0], squares), _products(cross_roots[0], cross), slopes
