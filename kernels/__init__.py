"""Numeric kernels: numpy and numba only. Arrays in, arrays out; no clock, no I/O, no randomness."""
