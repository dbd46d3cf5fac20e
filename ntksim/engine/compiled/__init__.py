"""How code is compiled and kept: every Numba option, the cache, calls by address."""
