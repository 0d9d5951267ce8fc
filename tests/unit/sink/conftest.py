"""Stores for the tests of the sink: chDB in a process of its own, and a ClickHouse engine on its native protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store_process import StoreProcess

from streams.sink.clickhouse_store import ClickHouseStore
from tests.clickhouse_engine import Engine


@pytest.fixture(scope="session")
def store_process() -> Iterator[StoreProcess]:
    process = StoreProcess()
    yield process
    process.pipe.send(None)
    process.process.join(10)


@pytest.fixture
def chdb_store(store_process: StoreProcess, tmp_path: Path) -> Iterator[StoreProcess]:
    store_process.call("open", tmp_path / "store")
    yield store_process
    store_process.call("close")


@pytest.fixture
def clickhouse_store(engine: Engine) -> Iterator[ClickHouseStore]:
    made = ClickHouseStore(engine.url("dpme"), writer=True)
    yield made
    made.execute("DROP DATABASE dpme SYNC")
    made.close()


@pytest.fixture(params=["chdb", pytest.param("clickhouse", marks=pytest.mark.clickhouse)])
def store(request: pytest.FixtureRequest) -> Any:
    """Either store, empty."""
    return request.getfixturevalue(f"{request.param}_store")
