"""The engine: kernels, limits and training. It needs NumPy, SciPy, Numba and threadpoolctl, and nothing of the study."""
