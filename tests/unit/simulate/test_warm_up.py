"""What warms a supervisor up compiles what its workers call, and no more than that."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SIGNATURES = """
import json, sys
from numba.core.dispatcher import Dispatcher
from streams.simulate.warm_up import warm
warm()
found = {}
for module in [m for name, m in sorted(sys.modules.items()) if name.startswith("kernels.")]:
    for function in vars(module).values():
        if isinstance(function, Dispatcher):
            kept = function._cache._cache_file._load_index()  # of all processes, callees of kernels too
            found[f"{function.__module__}.{function.__name__}"] = {
                "called": [str(types) for types in function.signatures],
                "kept": sorted({str(types) for types, *_ in kept}),
            }
print(json.dumps(found))
"""


TWICE = {"kernels.account_names._hash", "kernels.venue_losses._venue_losses"}
"""A record's text is read-only, the table's is not; scenarios are int32 with exponents, stress rows int64."""


@pytest.fixture(scope="module")
def signatures() -> dict[str, dict[str, list[str]]]:
    """What each kernel has been compiled for: called in a process that warmed up, and kept on disk by any."""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", SIGNATURES], cwd=root, capture_output=True, text=True, check=True, timeout=300
    )
    return json.loads(done.stdout)


def test_a_record_of_one_event_is_applied_by_the_code_of_longer_ones(signatures) -> None:  # type: ignore[no-untyped-def]
    """A column of a single row is contiguous: taken as it is, it would be read-only, and compiled for once more."""
    for name in ("admit", "apply_rows"):
        assert len(signatures[f"kernels.account_events.{name}"]["called"]) == 1


def test_a_kernel_is_compiled_for_types_not_for_constants(signatures) -> None:  # type: ignore[no-untyped-def]
    """A literal or an omitted argument compiles the callee once more: pass np.int64(0), name every argument."""
    constant = {n: s["kept"] for n, s in signatures.items() if "Literal" in str(s) or "omitted" in str(s)}
    assert not constant


def test_what_the_workers_call_is_compiled_once(signatures) -> None:  # type: ignore[no-untyped-def]
    """Nothing is compiled twice for another layout of the same arrays."""
    twice = {n: s["called"] for n, s in signatures.items() if len(s["called"]) > 1 and n not in TWICE}
    assert not twice
