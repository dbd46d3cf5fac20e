"""The same on NVIDIA GPUs: the only package that imports `numba.cuda`, loaded when a GPU is asked for."""
