"""Stores for the tests of the sink."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_process import StoreProcess


@pytest.fixture(scope="session")
def store_process() -> Iterator[StoreProcess]:
    process = StoreProcess()
    yield process
    process.pipe.send(None)
    process.process.join(10)


@pytest.fixture
def store(store_process: StoreProcess, tmp_path: Path) -> Iterator[StoreProcess]:
    store_process.call("open", tmp_path / "store")
    yield store_process
    store_process.call("close")
