"""Compiled kernels are kept by a digest of all their sources, also where numba was imported before them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("imports", ["numba, kernels", "kernels, numba"])
def test_numba_keeps_compiled_code_where_the_digest_says(imports: str, tmp_path: Path) -> None:
    program = f"import {imports}; print(numba.config.CACHE_DIR)"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    folder = Path(found.stdout.strip())
    assert folder.parent == tmp_path
    assert len(folder.name) == 16
