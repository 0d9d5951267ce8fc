"""What tests of many packages share: hypothesis without deadlines, the same examples on every run in CI; fixtures."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.clickhouse_engine import Engine

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "local")


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A ClickHouse engine for the whole run."""
    made = Engine(tmp_path_factory.mktemp("clickhouse"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def recorded_data() -> Path:
    """The data folder of DPME_SHARED, or of the folder `shared` beside the checkout; CI must have it."""
    beside = Path(__file__).parents[1].parent / "shared"
    folder = Path(os.environ.get("DPME_SHARED", beside)) / "data"
    if not folder.is_dir():
        message = "no recorded data: set DPME_SHARED to the folder that has data/SOURCES.md"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder
