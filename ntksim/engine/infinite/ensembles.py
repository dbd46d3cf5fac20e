"""Infinitely many networks of infinite width: mean and covariance of their outputs along training.

At infinite width f_0 is Gaussian with mean 0 and the NNGP as covariance, and the kernel is constant, so that f_t is an affine
function of f_0, `closed_form`, and Gaussian too. With Theta the NTK, K the NNGP, X training and T test points,

    mean(T)       = Theta_TX Theta^-1 (1 - e^(-Theta t)) y
    covariance(T) = K_TT + A K_XX A' - (A K_XT + its transpose),   A = Theta_TX Theta^-1 (1 - e^(-Theta t)),

equations 14 to 16 of Lee et al. (2019), "Wide neural networks of any depth evolve as linear models under gradient descent",
whose time is ours: for the loss 1/2 sum r^2.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntksim.engine.arguments import points, shapes, span, targets, warn
from ntksim.engine.blas import one_blas_thread
from ntksim.engine.infinite.kernel import Kernel, infinite_kernel, kernel_error
from ntksim.engine.infinite.predictions import closed_form
from ntksim.engine.network import Network, checked_network
from ntksim.engine.rounding import null_level


@dataclass(frozen=True)
class Ensemble:
    """Gaussian outputs of infinitely wide networks at T times, over initialisations; float64.

    ``times`` (T,), ``mean`` (T, n) and ``covariance`` (T, n, n) on training points; ``test_mean`` (T, n*) and
    ``test_covariance`` (T, n*, n*), None without test points. For k > 1 outputs means are (T, n, k) and (T, n*, k); the outputs
    are independent, and every one has these covariances. Covariances are positive semidefinite to rounding, with no
    negative variance.
    """

    times: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    test_mean: np.ndarray | None
    test_covariance: np.ndarray | None

    def __repr__(self) -> str:
        return f"Ensemble: {span(self.times)}\n  {shapes(self)}"


@one_blas_thread()
def infinite_ensemble(
    network: Network,
    x: np.ndarray,
    y: np.ndarray,
    times: np.ndarray,
    x_test: np.ndarray | None = None,
    learning_rate: float | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    ridge: float = 0.0,
    *,
    kernel: Kernel | None = None,
) -> Ensemble:
    """Mean and covariance over initialisations of f_t under training at infinite width.

    At t = infinity the mean is the ridgeless kernel regression with the NTK, Theta_TX Theta^-1 y, and on training points y
    with covariance 0, where the NTK is not singular to working precision; along its null space nothing moves. BLAS is held at
    one thread, so that the bits do not depend on how many there are.

    Parameters
    ----------
    network : its width enters only as it does in `infinite_kernel`. The prediction takes the kernel as constant, which in
        ``"mup"`` and ``"mean_field"`` it is not at any width, and in ``"abc"`` only for exponents of the lazy regime.
    x, y : training points (n, d) and targets (n,), or (n, k) for k > 1 outputs; ``x_test`` (n*, d).
    times : (T,), at least 0, in the units of `train`; infinity is allowed.
    learning_rate, momentum, nesterov : for gradient descent instead of the flow, as in `closed_form`.
    ridge : added to the NTK's diagonal, as in `closed_form`; in units of the effective kernel, n^(-c) times the NTK.
    kernel : what `infinite_kernel` gives for this network and the training points followed by the test points, where it is
        known already; computed if left out.

    Raises
    ------
    TypeError or ValueError naming any argument that does not fit, and what `infinite_kernel` raises. Modes of the
    NTK that are hidden by its own errors (those of tanh: 1e-10 a layer) do not move. Warns (RuntimeWarning) if they would have
    had time to.

    Lee et al. (2019), equations 14 to 16; the covariance is taken as the image of a root of the NNGP under the affine map,
    by functions of the NTK's eigenvalues, never its inverse.
    """
    checked_network(network)
    x = points("x", x)
    y = targets("y", y, len(x), network.outputs)
    n = len(x)
    every = x if x_test is None else np.concatenate([x, points("x_test", x_test, features=x.shape[1])])
    kernel = _kernel_of(network, every, kernel)
    ntk, root = network.effective(kernel.ntk), _root(kernel.nngp)
    own, across = ntk[:n, :n], ntk[n:, :n]
    error = kernel_error(network)
    options: dict[str, Any] = {"learning_rate": learning_rate, "momentum": momentum, "nesterov": nesterov}
    options |= {"precision": error, "ridge": ridge}
    spread, test_spread = closed_form(own, root[:, :n], np.zeros(n), times, across, root[:, n:], **options)
    mean, test_mean = closed_form(own, np.zeros_like(y), y, times, across, None, **options)
    _warn_of_hidden_modes(own, error, float(np.max(times)), ridge)
    return Ensemble(
        times=np.atleast_1d(np.asarray(times, np.float64)),
        mean=mean,
        covariance=_sum_of_squares(spread),
        test_mean=None if x_test is None else test_mean,
        test_covariance=None if x_test is None else _sum_of_squares(test_spread),
    )


def _kernel_of(network: Network, every: np.ndarray, kernel: object) -> Kernel:
    """The kernel of all points: the one that is given, or computed."""
    if kernel is None:
        return infinite_kernel(network, every)
    expected = (len(every), len(every))
    if not isinstance(kernel, Kernel):
        raise TypeError(f"kernel must be a ntksim.Kernel, as infinite_kernel returns it; got {type(kernel).__name__}")
    if kernel.nngp.shape != expected or kernel.ntk.shape != expected:
        raise ValueError(
            f"kernel must have arrays of shape {expected}, of the training points followed by the test points; got "
            f"{kernel.nngp.shape} and {kernel.ntk.shape}"
        )
    return kernel


def _root(nngp: np.ndarray) -> np.ndarray:
    """R (N, N) with R'R = K.

    Under closed_form with targets 0 each row of it goes its own way, and what the rows' outer products add up to is the
    covariance: no difference of large terms, no negative variance.
    """
    values, vectors = np.linalg.eigh(nngp)
    return (vectors * np.sqrt(np.maximum(values, 0.0))).T


def _warn_of_hidden_modes(ntk: np.ndarray, error: float, last: float, ridge: float) -> None:
    """Warn where eigenvalues that float64 tells from 0 are within the kernel's own errors, and could move outputs by 1e-3 up to
    time ``last``.
    """
    if error <= np.finfo(np.float64).eps:
        return
    values = np.linalg.eigvalsh(ntk) + ridge
    level = null_level(values, error)[0]
    hidden = int(np.count_nonzero((values > null_level(values, 0.0)) & (values <= level)))
    if hidden and level * last > 1e-3:
        warn(
            f"{hidden} of {len(ntk)} eigenvalues of the infinite-width kernel are below its own errors ({error:.0e} of its "
            f"entries) and count as zero, which may be wrong from t = {1e-3 / level:.2g} on: give a ridge above {level:.2g}, or "
            "end sooner",
            RuntimeWarning,
        )


def _sum_of_squares(rows: np.ndarray) -> np.ndarray:
    """Outer products (T, n, n) of rows (N, T, n) with themselves, summed over N; symmetric to the last bit."""
    rows = rows.transpose(1, 0, 2)
    product = rows.transpose(0, 2, 1) @ rows
    return (product + product.transpose(0, 2, 1)) / 2
