"""Scalar formulas that the CPU's loops and the GPU's kernels share."""
