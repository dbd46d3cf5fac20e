"""Networks in law, by Gaussian conditioning: kernels and outputs at initialisation, and training, without weights."""
