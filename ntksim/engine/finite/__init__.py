"""Finite networks: their parameters, outputs and empirical kernels. The twin of `infinite`."""
