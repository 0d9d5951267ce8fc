"""Numeric kernels: numpy and numba only. Arrays in, arrays out; no clock, no randomness.

Compiled code is cached in a folder named by a digest of all kernel sources: numba itself looks only at the file of a
function, not at those it calls, and would go on running an old one.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path


def _key_compiled_cache_by_sources() -> None:
    digest = hashlib.blake2b(digest_size=8)
    folder = Path(__file__).parent
    for source in sorted(folder.glob("*.py")):
        digest.update(source.read_bytes())
    root = Path(os.environ.get("NUMBA_CACHE_DIR") or folder / "__pycache__")
    if root.name != digest.hexdigest():
        os.environ["NUMBA_CACHE_DIR"] = str(root / digest.hexdigest())
        if "numba" in sys.modules:  # imported before us, it has read the environment already
            sys.modules["numba"].config.reload_config()


_key_compiled_cache_by_sources()
