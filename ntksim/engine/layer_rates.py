"""A factor on the learning rate of each layer.

theta_l' = -rate_l dL/dtheta_l, with or without momentum, has the kernel sum_l rate_l K_l, whose eigenvalues are the rates of
training. The network itself, its parameters and its outputs are those of any other rates: only the pull-back of a gradient, and
the sum over layers that makes the kernel, know of them. A layer of rate 0 is frozen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from ntksim.engine.network import Network, Scales

_SMALLEST, _LARGEST = 1e-30, 1e30  # but for 0: float32 holds their products with multipliers


@dataclass(frozen=True)
class RatedNetwork(Network):
    """A network and its ``layer_rates``, L + 1 of them, the readout's last.

    Its limits are those of sum_l rate_l K_l; the engine's passes over finite networks leave the weighing to training.
    """

    layer_rates: tuple[float, ...] = ()

    def scales(self, input_dim: int) -> Scales:
        """Those of the network, with its rates."""
        return replace(super().scales(input_dim), rate=np.array(self.layer_rates))


def rated(network: Network, layer_rates: Sequence[float] | None) -> RatedNetwork:
    """The network with its layers' rates; None stands for rates of 1.

    Raises
    ------
    ValueError unless there are L + 1 rates, each 0 or from 1e-30 to 1e30, and not all of them 0.
    """
    count = network.depth + 1
    rates = np.ones(count)
    if layer_rates is not None:
        expected = (
            f"layer_rates must be {count} numbers from 1e-30 to 1e30, or 0 for a frozen layer, one per hidden layer and one for "
            "the readout"
        )
        try:
            rates = np.asarray(layer_rates, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{expected}; got {layer_rates!r}") from None
        if rates.shape != (count,) or not ((rates == 0) | (rates >= _SMALLEST) & (rates <= _LARGEST)).all():
            raise ValueError(f"{expected}; got {layer_rates!r}")
        if not rates.any():
            raise ValueError(f"layer_rates must not all be 0, which trains nothing: give a layer the rate 1; got {layer_rates!r}")
    own = {field.name: getattr(network, field.name) for field in fields(Network)}
    return RatedNetwork(**own, layer_rates=tuple(rates.tolist()))
