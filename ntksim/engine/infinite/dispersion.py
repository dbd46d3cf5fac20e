"""How much kernels of deep networks scatter at initialisation, by the leading order in depth over width."""

import math

import numpy as np

from ntksim.engine.network import Network

_HE = math.sqrt(2.0)


def dispersion_law(network: Network) -> float:
    """E[K(x,x)^2] / E[K(x,x)]^2 of the empirical NTK at initialisation, to leading order in depth over width; NaN where unknown.

    For n neurons in each of L hidden layers it is the mean over l, l' = 0 .. L of

        (1 + 5/n)^(L - |l - l'|) (1 + 1/n)^|l - l'|,

    1 + 11 beta / 3 for small beta = L / n and about e^(5 beta) / (2 beta) for large. It holds for ReLU without biases at the He
    scale sigma_w = sqrt(2) in the parameterization ``ntk``, for every input, sigma_a and output scale.

    Hanin & Nica (2020), *Finite depth and width corrections to the neural tangent kernel*, theorem 1.
    """
    known = network.parameterization == "ntk" and network.activation == "relu" and network.sigma_b is None
    if not known or len(set(network.widths)) > 1 or not math.isclose(network.sigma_w, _HE, rel_tol=1e-6):
        return math.nan
    n, depth = network.widths[0], network.depth
    apart = np.abs(np.subtract.outer(np.arange(depth + 1), np.arange(depth + 1)))
    with np.errstate(over="ignore"):
        return float(np.mean((1 + 5 / n) ** (depth - apart) * (1 + 1 / n) ** apart))


def depth_over_width(network: Network) -> float:
    """beta = sum_l 1 / n_l over the hidden layers."""
    return sum(1 / n for n in network.widths)
