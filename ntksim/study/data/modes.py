"""Named functions on the training points, on which residuals are measured: are they there, and what are they?"""

from typing import TYPE_CHECKING

import numpy as np

from ntksim.engine.infinite.harmonics import Mode, degree_modes, fourier_modes
from ntksim.study.errors import StageError

if TYPE_CHECKING:  # what results depend on of the configuration is in their identities
    from ntksim.study.config.measures import Modes


def named_modes(asked: "Modes", x: np.ndarray) -> list[Mode]:
    """The Fourier modes, or harmonics of the degrees, that are asked for, on points (n, d).

    Raises StageError for points on no circle or sphere, or too few or too regular for one of the functions.
    """
    try:
        return degree_modes(x, asked.degrees or []) if asked.frequencies is None else fourier_modes(x, asked.frequencies)
    except ValueError as error:
        raise StageError(f"training.measures.modes: {error}") from None
