"""The infinite-width limit: NNGP and neural tangent kernel by recursion over layers.

With S^0 = x.x'/d, q = (g_l s_l)^2 n_(l-1) S^(l-1) + (beta_l t_l)^2, S^l = E[phi(u) phi(v)] and D^l the product of the
derivative expectations from layer l up,

    NTK = g_(L+1)^2 n_L S^L + beta_(L+1)^2 + sum_l D^l (g_l^2 n_(l-1) S^(l-1) + beta_l^2),

each layer's term with its learning rate where a network has rates (`layer_rates`),

which is section 1.6 of the notes, started at Theta^(0) = Sigma^(0) so that the first layer's weights are in it, and
with the factors sigma_w^2 that depend on the parameterization.
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import get_num_threads, prange

from ntksim.engine import known_answers
from ntksim.engine.activation import Phi
from ntksim.engine.arguments import points, shapes, warn
from ntksim.engine.compiled.jit import jit, jit_parallel, wide_vectors
from ntksim.engine.formulas.blocks import block_of, closed_duals, phi_of
from ntksim.engine.formulas.gaps import correlation, shared_gap, through_layer
from ntksim.engine.infinite import expectations
from ntksim.engine.infinite.correlations import root_mean_squares, roots_and_gaps
from ntksim.engine.initialisers import NORMAL, without_limit
from ntksim.engine.network import Network, checked_network
from ntksim.engine.threads import check, refuse_forked, runs

_SMALLEST = 1e-150  # root mean squares below this have products with correlations that may have lost digits
_APART = 0.1  # gaps from which on errors are not amplified by the nets that drive points apart
_BLOCK = 64  # points whose pairs are computed for the sake of their diagonal
_OPERATIONS = 200  # of a pair of points in a layer, about
_DOUBTFUL = 1e-8  # errors of correlations that a warning is given from


@dataclass(frozen=True)
class Kernel:
    """The two kernels of a wide network, float64 arrays (n1, n2).

    ``nngp`` is the covariance of the outputs at initialisation, ``ntk`` the limit of the empirical neural tangent kernel.
    """

    nngp: np.ndarray
    ntk: np.ndarray

    def __repr__(self) -> str:
        return f"Kernel: {shapes(self)}"


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
    Limits in closed form are right to 1e-12, relative to the root of the product of both diagonal entries; those of others
    come from series that control their errors, to 1e-10 a layer. This holds for points of any size, and for nearly
    equal and nearly opposite points: layers carry root mean squares and ``1 - |correlation|``, which starts from differences of
    points as the float64 numbers that they are. Where deep networks drive points apart they amplify rounding errors of a few
    eps too.
    Equal rows, within x1 or one in each set, have exactly equal diagonal and mutual entries. BLAS is held at one thread where
    it is used, so that results have the same bits for any number of threads.
    The arrays do not carry these errors: give `closed_form` ``precision=network.depth * 1e-10`` for a tanh kernel.

    Raises
    ------
    TypeError or ValueError for points of the wrong kind or shape, or too large for the series; for a kernel that overflows; and
    for an initialiser whose weights are not Gaussian (`initialisers`). RuntimeError in a process that was forked after threads
    had been used. Warns (RuntimeWarning) of variances that underflow, and where a deep tanh network drives nearly equal points
    apart and with them the errors of the series.

    Jacot et al. (2018), proposition 1 and theorem 1; the notes' section 1.6.
    """
    phi = _checked_phi(network)
    x1 = points("x1", x1)
    symmetric = x2 is None
    x2 = x1 if x2 is None else points("x2", x2, features=x1.shape[1])
    watch = _Watch()
    kernel = _kernel(network, phi, x1, x2, symmetric, watch)
    watch.result(kernel.nngp, kernel.ntk)
    return kernel


def _kernel(network: Network, phi: Phi, x1: np.ndarray, x2: np.ndarray, symmetric: bool, watch: "_Watch") -> Kernel:
    """Both kernels, where ``watch`` sees what may go wrong and says nothing yet."""
    fan_in, scales = (x1.shape[1], *network.widths), network.scales(x1.shape[1])

    # The two n1 x n2 buffers, gaps of correlations and the NTK, are updated in place.
    roots1, roots2, gaps = roots_and_gaps(x1, x2, symmetric)
    ntk = np.zeros_like(gaps)
    for layer in range(network.depth):
        factors = scales.covariance_factors(layer, fan_in[layer])
        points1 = _points(phi, *factors, roots1)
        points2 = points1 if symmetric else _points(phi, *factors, roots2)
        watch.range(roots1, roots2)
        local = scales.kernel_factors(layer, fan_in[layer])
        for rows in runs(0, (len(gaps) + 1) // 2, 1, 2 * _OPERATIONS * gaps.shape[1], get_num_threads()):
            _layer(*rows, phi, symmetric, points1, points2, *factors, *local, gaps, ntk)
        roots1, roots2 = _activated(phi, symmetric, points1, points2, gaps, ntk, watch)
    watch.range(roots1, roots2)
    factors = scales.covariance_factors(-1, fan_in[-1])
    check()
    _readout(symmetric, roots1, roots2, *factors, *scales.kernel_factors(-1, fan_in[-1]), gaps, ntk)
    if symmetric:
        mirror(gaps)
        mirror(ntk)
    return Kernel(gaps, ntk)


def infinite_diagonal(network: Network, x: np.ndarray) -> Kernel:
    """The diagonals (n,) of both kernels of `infinite_kernel` on points (n, d), without most pairs of points.

    It raises as `infinite_kernel` does, and warns once of variances that underflow. Of nearly equal points it says nothing: a
    point's correlation with itself is 1, without an error that deep networks could amplify.
    """
    phi = _checked_phi(network)
    x, watch = points("x", x), _Watch()
    if phi.duals:  # a block's pairs cost less than a call
        slices = [x[first : first + _BLOCK] for first in range(0, len(x), _BLOCK)]
        blocks = [_kernel(network, phi, own, own, True, watch) for own in slices]
        nngp, ntk = (np.concatenate([getattr(own, kind).diagonal() for own in blocks]) for kind in ("nngp", "ntk"))
    else:
        nngp, ntk = _diagonal_by_series(network, phi, x, watch)
    watch.result(nngp, ntk)
    return Kernel(nngp, ntk)


def _diagonal_by_series(network: Network, phi: Phi, x: np.ndarray, watch: "_Watch") -> tuple[np.ndarray, np.ndarray]:
    """The diagonals of NNGP and NTK, point by point."""
    fan_in, scales = (x.shape[1], *network.widths), network.scales(x.shape[1])
    roots, ntk = root_mean_squares(x), np.zeros(len(x))
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused
        for layer in range(network.depth):
            weight, bias = scales.covariance_factors(layer, fan_in[layer])
            local_weight, local_bias = scales.kernel_factors(layer, fan_in[layer])
            watch.range(roots)
            ntk = local_weight * roots**2 + local_bias + weight * ntk
            roots, slopes = expectations.roots(expectations.MEANS, phi, _points(phi, weight, bias, roots)[_S])
            ntk *= slopes**2
        watch.range(roots)
        weight, bias = scales.covariance_factors(-1, fan_in[-1])
        local_weight, local_bias = scales.kernel_factors(-1, fan_in[-1])
        return weight * roots**2 + bias, local_weight * roots**2 + local_bias + weight * ntk


def _checked_phi(network: Network) -> Phi:
    """The activation of a network that has a limit, in a process that can compute it with code that has been tried."""
    refuse_forked()
    checked_network(network)
    if network.law != NORMAL:
        raise ValueError(f"{without_limit(network.initialiser)}; use empirical_ntk")
    phi = phi_of(network.activation, with_duals=True)
    block = block_of(phi.code)
    if phi.duals:
        known_answers.check("limits", activation=block.name)
    else:
        known_answers.check("limits by series", activation="tanh" if block.analytic else "elu")
    return phi


def _activated(
    phi: Phi, symmetric: bool, points1: np.ndarray, points2: np.ndarray, gaps: np.ndarray, ntk: np.ndarray, watch: "_Watch"
) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squares of activations; without a closed form also their gaps and the NTK times E[phi' phi'], in place."""
    if phi.duals:
        return points1[_NEXT], points2[_NEXT]
    watch.close_pairs(symmetric, points1, points2, gaps)
    own1, own2 = expectations.correlations(phi, points1[_S], gaps, points2[_S], ntk, symmetric)
    watch.amplification(points1, own1)
    return own1[0], own2[0]


def kernel_error(network: Network) -> float:
    """Relative error of the entries of infinite kernels, as :func:`closed_form` takes it for ``precision``."""
    exact = phi_of(network.activation, with_duals=True).duals != 0
    return float(np.finfo(np.float64).eps) if exact else network.depth * expectations.TOLERANCE


class _Watch:
    """What may go wrong on the way through the layers, and what is said of it."""

    def __init__(self) -> None:
        self.smallest = np.inf  # root mean square of a point
        self.error, self.near = 0.0, np.inf  # of a correlation; of the closest pair

    def range(self, *roots: np.ndarray) -> None:
        """Root mean squares of points before a layer."""
        for root in roots:
            self.smallest = min(self.smallest, np.min(root, initial=np.inf, where=root > 0))

    def close_pairs(self, symmetric: bool, points1: np.ndarray, points2: np.ndarray, gaps: np.ndarray) -> None:
        """Gaps before a layer whose correlations come from a series."""
        if self.error > 0:
            nearest = np.empty(len(gaps))
            _fill_nearest(symmetric, points1[_S], points2[_S], gaps, nearest)
            self.near = nearest.min()

    def amplification(self, points: np.ndarray, own: np.ndarray) -> None:
        """What errors of correlations have become after such a layer: close pairs move apart by s^2 E[phi'^2] / E[phi^2]."""
        if self.near < _APART:
            ratio = np.divide(points[_S] * own[1], own[0], out=np.zeros_like(own[0]), where=own[0] > 0)
            self.error *= np.max((points[_SHARE] * ratio) ** 2)
        self.error += expectations.TOLERANCE

    def result(self, nngp: np.ndarray, ntk: np.ndarray) -> None:
        """Refuse what is not finite, and warn of what has lost its digits."""
        if not all(math.isfinite(extreme) for kernel in (nngp, ntk) for extreme in (kernel.min(), kernel.max())):
            raise ValueError(
                "the infinite-width kernel of this network overflows; lower sigma_w, sigma_a, sigma_b or output_scale, or scale "
                "the points down"
            )
        if self.smallest < _SMALLEST:
            warn(
                f"the infinite-width kernel has lost digits: variances fall to {self.smallest**2:.3g}, to the end of float64's "
                "range; scale the points up, or raise sigma_w (sqrt(2) keeps ReLU's variance in any depth)",
                RuntimeWarning,
            )
        if self.error > _DOUBTFUL:
            warn(
                f"the infinite-width kernel may be off by {self.error:.1g} of its diagonal between points that are nearly the "
                "same: this network drives them apart, and with them the errors of the series; lower sigma_w or the depth",
                RuntimeWarning,
            )


# Rows of what layers know of points: root mean squares before the layer; the shares of weights and bias in the standard
# deviations of pre-activations; and from there on what duals know, the last of it the root mean square behind the layer.
_ROOT, _SHARE, _BIAS_SHARE, _S, _NEXT, _ROWS = 0, 1, 2, 3, 8, 9


def _points(phi: Phi, weight: float, bias: float, roots: np.ndarray) -> np.ndarray:
    points = np.zeros((_ROWS, roots.size))
    points[_ROOT] = roots
    _fill_points(math.sqrt(weight), math.sqrt(bias), points)
    if phi.duals:
        block_of(phi.code).fill_points(phi.parameter, points[_S:])
    return points


@jit
def _fill_points(weight, bias, points):
    for i in range(points.shape[1]):
        points[_S, i], points[_SHARE, i], points[_BIAS_SHARE, i] = through_layer(weight, bias, points[_ROOT, i])


@jit_parallel
def _fill_nearest(symmetric, s1, s2, gaps, nearest):
    """Each row's smallest |gap| plus squared relative difference of sizes, of pairs that are not the same or opposite."""
    for i in prange(nearest.size):
        nearest[i] = _nearest(i + 1 if symmetric else 0, s1[i], s2, gaps[i])


@jit
def _nearest(first, s, others, gaps):
    nearest = np.inf
    for j in range(first, gaps.size):
        size = abs(gaps[j])
        if size < nearest and (size > 0 or s != others[j]):
            uneven = (s - others[j]) / (s + others[j]) if s + others[j] > 0 else 0.0
            nearest = min(nearest, size + uneven * uneven)
    return nearest


@jit_parallel
def _layer(first, end, phi, symmetric, points1, points2, weight, bias, local_weight, local_bias, gaps, ntk):
    """One layer in place: gaps of u and v <- of phi(u) and phi(v), ntk <- E[phi' phi'] (local kernel + weight ntk).

    Rows first..end, and as many from the last one on back. The upper half if symmetric. Without a closed form, only gaps of the
    pre-activations and ntk <- local kernel + weight ntk.
    """
    rows = gaps.shape[0]
    # Row r with row n - 1 - r: equal work for every thread on a triangle.
    for r in prange(first, end):
        _layer_row(r, phi, symmetric, points1, points2, weight, bias, local_weight, local_bias, gaps, ntk)
        if rows - 1 - r != r:
            _layer_row(rows - 1 - r, phi, symmetric, points1, points2, weight, bias, local_weight, local_bias, gaps, ntk)


@jit
def _layer_row(i, phi, symmetric, points1, points2, weight, bias, local_weight, local_bias, gaps, ntk):
    first = i if symmetric else 0
    gap, kernel = gaps[i][first:], ntk[i][first:]
    _tangents(points1[_ROOT, i], points2[_ROOT][first:], weight, local_weight, local_bias, gap, kernel)
    if bias > 0:
        _share_bias(points1[_SHARE, i], points1[_BIAS_SHARE, i], points2[_SHARE][first:], points2[_BIAS_SHARE][first:], gap)
    if phi.duals != 0:
        slope = np.empty_like(gap)
        one = points1[3, i], points1[4, i], points1[5, i], points1[6, i], points1[7, i], points1[8, i]
        closed_duals(phi, one, points2[_S:], first, gap, slope)
        for j in range(gap.size):
            kernel[j] *= slope[j]
    if symmetric:
        gap[0] = 0.0


@jit
def _tangents(root, roots, weight, local_weight, local_bias, gap, kernel):
    wide_vectors()
    for j in range(gap.size):
        kernel[j] = local_weight * (root * (roots[j] * correlation(gap[j]))) + local_bias + weight * kernel[j]


@jit
def _share_bias(share, bias_share, shares, bias_shares, gap):
    wide_vectors()
    for j in range(gap.size):
        gap[j] = shared_gap(gap[j], share, bias_share, shares[j], bias_shares[j])


@jit_parallel
def _readout(symmetric, roots1, roots2, weight, bias, local_weight, local_bias, gaps, ntk):
    """Weights and bias of the readout in place: gaps <- the NNGP, ntk <- their own kernel + weight ntk."""
    rows = gaps.shape[0]
    for r in prange(rows):
        i = r // 2 if r % 2 == 0 else rows - 1 - r // 2
        for j in range(i if symmetric else 0, gaps.shape[1]):
            covariance = roots1[i] * (roots2[j] * correlation(gaps[i, j]))
            ntk[i, j] = local_weight * covariance + local_bias + weight * ntk[i, j]
            gaps[i, j] = weight * covariance + bias


@jit_parallel
def mirror(matrix):
    """Copy the upper half onto the lower one, block by block for the cache's sake."""
    n, block = matrix.shape[0], 64
    for b in prange((n + block - 1) // block):
        for j0 in range(0, (b + 1) * block, block):
            for i in range(b * block, min((b + 1) * block, n)):
                for j in range(j0, min(j0 + block, i)):
                    matrix[i, j] = matrix[j, i]
