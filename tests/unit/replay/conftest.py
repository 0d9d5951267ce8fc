"""Where the recorded data are, if they are on this machine."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def recorded_data() -> Path:
    """The data folder of DPME_SHARED, or of the folder `shared` beside the checkout; CI must have it."""
    beside = Path(__file__).parents[3].parent / "shared"
    folder = Path(os.environ.get("DPME_SHARED", beside)) / "data"
    if not folder.is_dir():
        message = "no recorded data: set DPME_SHARED to the folder that has data/SOURCES.md"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder
