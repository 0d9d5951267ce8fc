"""What the life of a contract costs: funding of every holder at once, and an answer of the gate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from schemas import log_records as records
from schemas.catalogue import Catalogue
from streams.engine.book import INSTRUMENT_BITS, Book
from streams.engine.gate import Order, gate
from streams.engine.risk import Risk
from streams.simulate.demo_world import demo_world
from streams.simulate.in_process import Pipeline
from tests.bench.rows import Row, checksum, peak_memory_mb, side_by_side

HOLDERS, HOLDERS_SMALL = 100_000, 500
AMOUNT_USD9 = 4_400_000_001


def rows(small: bool) -> Iterator[Row]:
    """Both parts; `small` in a second or two."""
    yield _funding(HOLDERS_SMALL if small else HOLDERS)
    yield _gate(small)


def _funding(holders: int) -> Row:
    """One funding row applied to a book in which everybody holds the perpetual."""
    catalogue = Catalogue()
    catalogue.apply({"type": "underlying", "underlying": "X"})
    catalogue.apply(
        {"type": "instrument", "instrument": "X-PERP", "underlying": "X", "kind": "perpetual", "lot_exponent": -3}
    )
    book = Book()
    for n in range(holders):
        book._row(f"account-{n}")
    book.keys = np.arange(holders, dtype=np.int64) << INSTRUMENT_BITS
    book.lots = (np.arange(holders, dtype=np.int64) * 7_919 % 4_001) - 2_000
    book.entry_usd6 = np.zeros(holders, np.int64)
    row = np.zeros(1, records.EVENT_ROW)
    row["kind"], row["account"], row["price_usd9"] = records.FUNDING, records.EVERY_ACCOUNT, AMOUNT_USD9
    events, greeks = records.Events([], row), np.zeros((1, 4), np.int64)
    once = Book.from_plain(book.to_plain())
    once.apply_events(events, catalogue, greeks)
    seconds = side_by_side(lambda: book.apply_events(events, catalogue, greeks)).seconds[0]
    return Row(
        name="funding of every holder", value=seconds * 1e3, unit="ms", size=f"{holders} holders",
        memory_mb=peak_memory_mb(), checksum=checksum(once.cash()),
    )  # fmt: skip


def _gate(small: bool) -> Row:
    """An order of an account of the demo world after its first block."""
    world = demo_world(seed=1, scenarios=256 if small else 4_096, blocks=1, accounts=50 if small else 500)
    run = Pipeline({world.scenario_set.digest: world.scenario_set}, partitions=1)
    run.push_listings(world.listings)
    first = next(iter(world.blocks))
    run.push_block(first.block, first.events, first.ticks)
    risk: Risk = run.risks[0]
    account = max(risk.book.accounts, key=lambda name: len(risk.book.copy_of(name).keys))
    order = Order(account, "BTC-PERP", 5, 44_000 * 10**9)
    answer = gate(risk, order)
    assert answer.after is not None
    seconds = side_by_side(lambda: gate(risk, order)).seconds[0]
    numbers = np.array([answer.after.nlv_usd6, answer.after.initial_margin_usd6])
    return Row(
        name="gate", value=seconds * 1e3, unit="ms", goal="below 100 ms", ok=small or seconds < 0.1,
        size=f"{len(risk.book.copy_of(account).keys)} legs, {world.scenario_set.size} scenarios",
        memory_mb=peak_memory_mb(), checksum=checksum(numbers),
    )  # fmt: skip
