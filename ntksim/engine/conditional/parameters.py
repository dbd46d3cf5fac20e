"""Parameters of a network in law, as training moves them."""

from dataclasses import dataclass

import numpy as np

from ntksim.engine.conditional.tall import Tall


@dataclass
class Theta:
    """Parameters, or a change of them; arrays are never changed in place, so that copies share them.

    ``first`` (rank of the inputs, n_1) are the first layer's weights on an orthonormal basis of the inputs; ``hidden`` the
    coefficients A of layers 2..L, of as many rows and columns as were known when they last moved; ``biases`` (1, n_l) of layers
    1..L; ``readout`` (k, n_L) and ``output_bias`` (k,).
    """

    first: Tall
    hidden: list[np.ndarray]
    biases: list[Tall]
    readout: Tall
    output_bias: np.ndarray


def padded(array: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """An array with zeros behind its rows and columns."""
    out = np.zeros(shape, array.dtype)
    out[: array.shape[0], : array.shape[1]] = array
    return out


def added(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The sum of two arrays, each with zeros behind its rows and columns where the other has more."""
    shape = np.maximum(a.shape, b.shape)
    return padded(a, shape) + padded(b, shape)
