"""Infinitely wide networks: kernels, predictions, ensembles, and the exact variance of one hidden layer."""
