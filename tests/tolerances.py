"""One table of tolerances, relative to the largest entry compared: round-off by precision of the arithmetic."""

import numpy as np

ROUND_OFF = {"float64": 2e-12, "float32": 2e-5}
QUADRATURE = 1e-9  # the oracle's nested adaptive quadrature


def assert_close(found, expected, tolerance):
    """Largest deviation against largest entry; NaN fails."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    scale = max(np.abs(expected).max(initial=0.0), 1e-300)
    deviation = np.abs(found - expected).max(initial=0.0) / scale
    assert deviation <= tolerance, f"relative deviation {deviation:.3g} is above {tolerance:.3g}"
