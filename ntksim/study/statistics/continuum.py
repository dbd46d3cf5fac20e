"""The limits' spectra as operators on the circle or sphere, beside which eigenvalues of a sample and rates of modes stand."""

import numpy as np
import pandas as pd

from ntksim.engine.infinite.continuum import continuum_spectrum
from ntksim.engine.infinite.harmonics import multiplicity
from ntksim.study.config.study import Study
from ntksim.study.data.files import Data
from ntksim.study.errors import StageError
from ntksim.study.plan.identity import limit_width


def continuum_table(study: Study, data: Data, degrees: int) -> pd.DataFrame:
    """A row per network, width and degree, on the sphere of the training points' dimension and root mean square length.

    Raises StageError for points with one feature, and for a kernel whose spectrum does not converge.
    """
    dimension, length = data.x_train.shape[1], float(np.sqrt(np.mean(np.sum(data.x_train**2, axis=1))))
    found: dict[tuple[str, int | None], dict[str, np.ndarray]] = {}
    frames = []
    for name, options in study.networks.items():
        for width in study.initial.widths:
            network = options.network(width)
            key = name, limit_width(options.parameterization, width)
            if key not in found:
                try:
                    found[key] = {
                        f"{kernel}_eigenvalue": continuum_spectrum(network, dimension, degrees, kernel, length)
                        for kernel in ("ntk", "nngp")
                    }
                except ValueError as error:
                    raise StageError(f"initial.continuum_degrees: networks.{name}: {error}") from None
            place = {"network": name, "width": width, "dimension": dimension, "radius": length, "degree": np.arange(degrees)}
            number = [multiplicity(degree, dimension) for degree in range(degrees)]
            frames.append(pd.DataFrame(place | {"multiplicity": np.array(number, np.float64)} | found[key]))
    return pd.concat(frames, ignore_index=True)
