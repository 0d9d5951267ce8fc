"""Results of a backtest in either store: once each, all kinds of books, and beside a sink that keeps its claim."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from samples import block_done

from oracles.risk_model.bars import Bars
from schemas.topics import BLOCKS_DONE
from streams.backtest.inputs import DAY_MS, History
from streams.backtest.results_store import write
from streams.backtest.run import Backtest, run
from streams.sink.clickhouse_store import ClickHouseStore
from streams.sink.sink import Sink

MODELS = ("historical", "ewma")
DAYS = 420


def history(asset: str, seed: int, start: float = 100.0) -> History:
    close = start * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.03, DAYS)))
    time_ms = DAY_MS * (18_000 + np.arange(len(close)))
    bars = Bars(asset, DAY_MS, time_ms, close, close * 1.01, close * 0.99, close, np.ones(len(close)))
    return History(bars, ("made up",), ())


@pytest.fixture(scope="module")
def tested() -> Backtest:
    assets = [history("A", 1), history("B", 2)]
    level = 60.0 * np.exp(np.random.default_rng(3).normal(0, 0.05, assets[0].bars.size))
    time_ms = assets[0].bars.time_ms
    volatility = Bars("implied volatility", DAY_MS, time_ms, level, level, level, level, np.ones(len(level)))
    return run(assets, DAY_MS, MODELS, lambda what: None, History(volatility, ("made up",), ()))


def counts(store: Any, table: str) -> dict[str, int]:
    rows = store.query(f"SELECT books, count() AS n FROM dpme.{table} GROUP BY books")
    return {row["books"]: int(row["n"]) for row in rows}


def test_every_kind_of_books_is_stored_once(store: Any, tested: Backtest) -> None:
    assert write(store, tested)
    assert not write(store, tested)
    assert counts(store, "backtest_models") == {"single assets": 2, "spread books": 3, "option books": 3}
    assert counts(store, "backtest_tails") == {"single assets": 16, "spread books": 24, "option books": 264}
    rows = store.query("SELECT rule, ratio FROM dpme.backtest_capital WHERE kind = 'market makers' ORDER BY rule")
    found = {row["rule"]: row["ratio"] for row in rows}
    stored = {one.rule: one.ratio for one in tested.capital if one.kind == "market makers"}
    assert found == pytest.approx(stored, rel=1e-12)
    assert tested.options is not None
    [row] = store.query("SELECT rate FROM dpme.backtest_models WHERE books = 'option books' AND model = 'joint-fhs'")
    assert row["rate"] == pytest.approx(tested.options.summary("joint-fhs").rate, rel=1e-12)


def test_a_store_of_the_first_version_gets_the_column(store: Any, tested: Backtest) -> None:
    write(store, tested)
    store.execute("ALTER TABLE dpme.backtest_models DROP COLUMN books")
    store.execute("ALTER TABLE dpme.backtest_tails DROP COLUMN books")
    assert write(store, tested)  # what it holds counts as single assets; the other books are added
    assert counts(store, "backtest_models")["option books"] == 3


@pytest.mark.clickhouse
def test_a_sink_keeps_its_claim(engine: Any, clickhouse_store: ClickHouseStore, tested: Backtest) -> None:
    sink = Sink(clickhouse_store, "run-1", flush_seconds=60)
    beside = ClickHouseStore(engine.url("dpme"), writer=True, fenced=False)
    assert write(beside, tested)
    beside.close()
    sink.take(BLOCKS_DONE, 0, 0, block_done(1, 1, 2))
    sink.flush()
    assert clickhouse_store.query("SELECT count() AS n FROM dpme.blocks_done") == [{"n": 1}]
