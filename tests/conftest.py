"""Hypothesis: no deadlines (compilation and busy machines are slow), the same examples on every run in CI."""

import os
from collections.abc import Iterator

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
