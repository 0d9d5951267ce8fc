"""The small demo run."""

from __future__ import annotations

import pytest
from demo_runs import DemoRun, small_demo_run


@pytest.fixture(scope="session")
def demo_run() -> DemoRun:
    return small_demo_run()
