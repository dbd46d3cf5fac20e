"""A learning rate per layer, as a choice of the units in which parameters are stored.

theta_l' = -rate_l dL/dtheta_l is plain training of theta_l / sqrt(rate_l), with or without momentum: that of a network whose
multipliers are sqrt(rate_l) times as large and whose initial scales are so much smaller. Its kernel is sum_l rate_l K_l,
whose eigenvalues are the rates of training. So only the two ends know of layers' rates: where parameters are drawn, and where
their movement is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from ntksim.engine.network import Network, Scales

_SMALLEST, _LARGEST = 1e-30, 1e30


@dataclass(frozen=True)
class RatedNetwork(Network):
    """A network in units in which every layer learns at the same rate; ``layer_rates`` has L + 1, the readout's last."""

    layer_rates: tuple[float, ...] = ()

    @property
    def plain(self) -> Network:
        """The network in its own units."""
        return Network(**{field.name: getattr(self, field.name) for field in fields(Network)})

    def scales(self, input_dim: int) -> Scales:
        """Multipliers and initial scales in these units."""
        plain, units = super().scales(input_dim), np.sqrt(self.layer_rates)
        return Scales(plain.weight * units, plain.weight_init / units, plain.bias * units, plain.bias_init / units)


def rated(network: Network, layer_rates: Sequence[float] | None) -> RatedNetwork:
    """The network in the units that make its layers' rates equal; None stands for rates of 1.

    Raises
    ------
    ValueError unless there are L + 1 rates from 1e-30 to 1e30: their roots multiply float32 weights.
    """
    count = network.depth + 1
    rates = np.ones(count)
    if layer_rates is not None:
        expected = f"layer_rates must be {count} numbers from 1e-30 to 1e30, one per hidden layer and one for the readout"
        try:
            rates = np.asarray(layer_rates, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{expected}; got {layer_rates!r}") from None
        if rates.shape != (count,) or not ((rates >= _SMALLEST) & (rates <= _LARGEST)).all():
            raise ValueError(f"{expected}; got {layer_rates!r}")
    own = {field.name: getattr(network, field.name) for field in fields(Network)}
    return RatedNetwork(**own, layer_rates=tuple(rates.tolist()))
