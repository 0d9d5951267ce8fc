"""Benchmarks: speed as ratios measured side by side in one run; `python -m tests.bench kernels --json`."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is loaded: peers run on one core, as we do
