"""Networks in law at initialisation: kernels and outputs without weights, by Gaussian conditioning."""
