"""Gradient flow and gradient descent, with the kernel along the way."""
