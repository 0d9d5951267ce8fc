"""What warms a supervisor up compiles what its workers call, and no more than that."""

import subprocess
import sys
from pathlib import Path

SIGNATURES = """
from kernels.account_events import admit, apply_rows
from streams.simulate.warm_up import warm
warm()
print(*(len(function.signatures) for function in (admit, apply_rows)))
"""


def test_a_record_of_one_event_is_applied_by_the_code_of_longer_ones() -> None:
    """A column of a single row is contiguous: taken as it is, it would be read-only, and compiled for once more."""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", SIGNATURES], cwd=root, capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.split() == ["1", "1"]
