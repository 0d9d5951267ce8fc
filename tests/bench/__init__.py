"""Benchmarks: speed as ratios measured side by side in one run; `python -m tests.bench kernels --json`."""
