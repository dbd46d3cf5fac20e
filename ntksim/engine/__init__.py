"""The engine: kernels, limits, training. It needs NumPy, SciPy, Numba, threadpoolctl and platformdirs, nothing of the study."""
