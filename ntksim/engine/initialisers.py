"""Initial weights as frameworks draw them: the distribution of weights, and its variance by the shape of a layer.

Weights of a layer of n_in inputs and n_out outputs have the variance gain / n, where n is n_in, or the mean of n_in and n_out.

Of hidden layers 2 and up, and of the readout, the limit of wide networks knows the variance alone, by the central limit theorem.
The first layer has as many inputs as a point has features, however wide it is: unless its weights are Gaussian, the limit
is another one than that of Gaussian weights of equal variance.
"""

import math
from typing import NamedTuple

# Distributions, of mean 0 and variance 1: uniform, and a normal cut at two standard deviations and stretched to variance 1.
NORMAL, UNIFORM, TRUNCATED = range(3)


class Initialiser(NamedTuple):
    """How weights are drawn: ``law`` is their distribution, ``mean_fan`` says which n the ``gain`` is over.

    Biases are drawn as the weights of their layer if ``biases``, else they start at 0. ``sigmoid_gain`` takes the place of
    ``gain`` in networks of sigmoid.
    """

    law: int
    gain: float
    mean_fan: bool = False
    biases: bool = False
    sigmoid_gain: float | None = None

    def scale(self, activation: object, inputs: int, outputs: int) -> float:
        """Standard deviation of the weights of a layer."""
        gain = self.gain if self.sigmoid_gain is None or activation != "sigmoid" else self.sigmoid_gain
        return math.sqrt(gain / ((inputs + outputs) / 2 if self.mean_fan else inputs))


#: Beside "gaussian", whose scales are those of the parameterization.
INITIALISERS = {
    "torch": Initialiser(UNIFORM, 1 / 3, biases=True),  # torch.nn.Linear
    "keras": Initialiser(UNIFORM, 1.0, mean_fan=True),  # keras.layers.Dense: Glorot & Bengio 2010
    "sklearn": Initialiser(UNIFORM, 1.0, mean_fan=True, biases=True, sigmoid_gain=1 / 3),  # MLPRegressor and MLPClassifier
    "flax": Initialiser(TRUNCATED, 1.0),  # flax.linen.Dense and flax.nnx.Linear: LeCun et al. 1998
    "kaiming_normal": Initialiser(NORMAL, 2.0),  # torch.nn.init.kaiming_normal_: He et al. 2015
    "he_normal": Initialiser(TRUNCATED, 2.0),  # keras.initializers.HeNormal, jax.nn.initializers.he_normal
    "he_uniform": Initialiser(UNIFORM, 2.0),  # keras.initializers.HeUniform, torch.nn.init.kaiming_uniform_
}


def without_limit(name: str) -> str:
    """What errors say of an initialiser whose weights are not Gaussian, up to the remedy."""
    return (
        f"initialiser '{name}' has no limit that ntksim computes: its weights are not Gaussian, which layer 1 shows at any width"
    )
