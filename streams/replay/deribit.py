"""Replay of recorded Deribit option chains: a block a snapshot, prices in USD, settlement at expiry."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET, Struct, UnsetType

from schemas.events import (
    AccountEvent,
    CollateralMove,
    Fill,
    ForwardTick,
    InstrumentListing,
    Jumps,
    ParametersListing,
    QuoteTick,
    ScenarioSetListing,
    SpotTick,
    UnderlyingListing,
)
from schemas.quantities import MILLISECONDS_PER_YEAR, ONE_E9
from schemas.risk_parameters import RiskParameters, parameters_document
from streams.replay.blocks import BlockChain
from streams.replay.deribit_accounts import ACCOUNT_RULE, Chain, draw_books
from streams.replay.deribit_records import WANTED, ChainRow, Snapshot, read_snapshots
from streams.replay.files import SAMPLES, ReplayError, check_limit, find_files, usd9
from streams.replay.pricing import Pricing, jumps_of
from streams.replay.seeding import BUFFER_RULE, buffer_facts, seed_cash
from streams.replay.volatility import option_volatilities, scenario_set_of
from streams.replay.world import BlockInputs, World

NAME = "deribit"
PATTERN = "*deribit_options_snapshot_*.csv*"
GENESIS_LEAD_MS = 1_000
ACCOUNTS, ACCOUNTS_SAMPLE = 300, 120
LOT_EXPONENTS = {"BTC": -1, "ETH": 0}
STABLE, STABLE_LOT_EXPONENT = "USDC", 0
FACTOR_COIN_E6, FACTOR_STABLE_E6 = 950_000, 990_000
COIN_LOT_EXPONENT = -4
SEEDING_RULE = (
    "The genesis block, a second before the first snapshot, has that snapshot's marks. " + ACCOUNT_RULE + " Seeded "
    "options are paid from cash at their first mark, futures enter at the forward with zero value. " + BUFFER_RULE
)


def deribit_world(
    source: Path | None, seed: int, scenarios: int, limit: int | None = None, pricing: str = Pricing.BLACK76
) -> World:
    """World of a folder of recorded snapshots (None: the generated sample), `limit` of them if given."""
    check_limit(limit)
    paths = find_files(source, SAMPLES, PATTERN, WANTED)
    snapshots = read_snapshots(paths, limit)
    venue = Venue(snapshots)
    scenario_set = scenario_set_of(option_volatilities(venue.currencies, [STABLE]), seed, scenarios)
    parameters = RiskParameters(settlement_window_ms=0)  # snapshots lie further apart than any window
    listings: list[Struct] = [
        ParametersListing(version=1, id="parameters", document=parameters_document(parameters)),
        *venue.listings(jumps_of(pricing)),
        ScenarioSetListing(version=1, id="scenario-set", digest=scenario_set.digest),
    ]
    time_ms = snapshots[0].time_ms - GENESIS_LEAD_MS
    ticks = [tick for tick in snapshot_ticks(snapshots[0], 0, time_ms) if not isinstance(tick, dict)]
    events = venue.genesis(ACCOUNTS if source is not None else ACCOUNTS_SAMPLE, seed, time_ms)
    cash = seed_cash(listings, scenario_set, time_ms, events, ticks, seed)
    chain = BlockChain(NAME, len(listings))
    start = chain.block(0, time_ms, [*events, *cash.moves(0)], ticks)
    facts = venue.facts(source, paths) | {"accounts": len({event.account for event in events})} | buffer_facts(cash)
    return World(
        name=NAME,
        listings=listings,
        scenario_set=scenario_set,
        parameters=parameters,
        block_count=len(snapshots) + 1,
        blocks=_blocks(start, snapshots, chain),
        facts={**facts, "seeding_rule": SEEDING_RULE},
    )


def _blocks(start: BlockInputs, snapshots: list[Snapshot], chain: BlockChain) -> Iterator[BlockInputs]:
    yield start
    for number, snapshot in enumerate(snapshots, start=1):
        yield chain.block(number, snapshot.time_ms, [], snapshot_ticks(snapshot, number, snapshot.time_ms))


def snapshot_ticks(snapshot: Snapshot, number: int, time_ms: int) -> list[Struct | dict]:
    """Index, forwards and quotes of a snapshot, dated `time_ms`.

    The index varies from row to row as the rows were fetched one after the other: an underlying's price is the median
    (a recorded value), a forward keeps its ratio to its own row's index, and a quote is priced by its own row's.
    Ids sort index before forward before quote, the order in which the sequencer takes ticks of one time.
    """
    common: dict[str, Any] = {"version": 1, "source": NAME, "time_ms": time_ms}
    ticks: list[Struct | dict] = [
        SpotTick(**common, id=f"{number}-1-{STABLE}", underlying=STABLE, price_usd9=ONE_E9)
    ]  # not recorded: held at one dollar
    for currency, rows in _by_currency(snapshot.rows).items():
        index_usd = _median([row.index_usd for row in rows])
        ticks.append(SpotTick(**common, id=f"{number}-1-{currency}", underlying=currency, price_usd9=usd9(index_usd)))
        ticks += _forwards(currency, rows, index_usd, common, number)
    ticks += [_quote(row, f"{number}-3-{row.instrument}", time_ms) for row in snapshot.rows]
    return ticks


def _forwards(
    currency: str, rows: list[ChainRow], index_usd: Decimal, common: dict[str, Any], number: int
) -> list[ForwardTick]:
    """A forward an expiry. Marks are forward prices in coin, so a mark in USD is discounted by index over forward."""
    ratios: dict[int, list[Decimal]] = defaultdict(list)
    for row in rows:
        ratios[row.expiry_ms].append(row.future_usd / row.index_usd)
    found = []
    for expiry_ms, seen in sorted(ratios.items()):
        ratio = _median(seen)
        years = max(expiry_ms - common["time_ms"], 1) / MILLISECONDS_PER_YEAR
        rate_e9 = round(max(-1.0, min(1.0, math.log(ratio) / years)) * ONE_E9)
        tick_id = f"{number}-2-{currency}-{expiry_ms}"
        price_usd9 = usd9(index_usd * ratio)
        found.append(
            ForwardTick(
                **common, id=tick_id, underlying=currency, expiry_ms=expiry_ms, price_usd9=price_usd9, rate_e9=rate_e9
            )
        )
    return found


def _quote(row: ChainRow, tick_id: str, time_ms: int) -> QuoteTick | dict:
    """Quote in USD by the row's own index. A mark that is not above zero stays as it is: it belongs in quarantine."""
    mark, bid, ask = (usd9(price * row.index_usd) for price in (row.mark, row.bid, row.ask))
    if mark <= 0:
        return {
            "type": "quote", "version": 1, "id": tick_id, "source": NAME, "time_ms": time_ms,
            "instrument": row.instrument, "mark_usd9": mark,
        }  # fmt: skip
    return QuoteTick(
        version=1,
        id=tick_id,
        source=NAME,
        time_ms=time_ms,
        instrument=row.instrument,
        mark_usd9=mark,
        bid_usd9=bid if bid > 0 else None,
        ask_usd9=ask if ask > 0 else None,
    )


class Venue:
    """What the snapshots list, and the accounts seeded on the first of them."""

    def __init__(self, snapshots: list[Snapshot]) -> None:
        self.snapshots = snapshots
        self.options: dict[str, ChainRow] = {}
        for snapshot in snapshots:
            for row in snapshot.rows:
                self.options.setdefault(row.instrument, row)
        first = snapshots[0]
        self.drawable = {
            currency: [r for r in rows if r.mark > 0 and r.open_interest > 0 and r.expiry_ms > first.time_ms]
            for currency, rows in _by_currency(first.rows).items()
        }
        if not all(self.drawable.values()):
            raise ReplayError(
                "the first snapshot has a currency without open interest: there is nothing to draw accounts from"
            )
        self.currencies = sorted(_by_currency(list(self.options.values())))
        self.future_expiry_ms = {currency: _main_expiry_ms(rows) for currency, rows in self.drawable.items()}

    def future(self, currency: str) -> str:
        """Name of the currency's future: that of an option of its expiry, without strike and kind."""
        expiry_ms = self.future_expiry_ms[currency]
        option = next(row.instrument for row in self.drawable[currency] if row.expiry_ms == expiry_ms)
        return option.rsplit("-", 2)[0]

    def listings(self, jumps: Jumps | UnsetType = UNSET) -> list[UnderlyingListing | InstrumentListing]:
        """All that is ever seen, listed at the start; currencies first, then coins, futures, options by first sight."""
        found: list[UnderlyingListing | InstrumentListing] = [
            UnderlyingListing(version=1, id=f"underlying-{name}", underlying=name, jumps=jumps)
            for name in self.currencies
        ]
        found += [UnderlyingListing(version=1, id=f"underlying-{STABLE}", underlying=STABLE, stable=True)]
        for coin in (*self.currencies, STABLE):
            exponent, factor = (
                (STABLE_LOT_EXPONENT, FACTOR_STABLE_E6) if coin == STABLE else (COIN_LOT_EXPONENT, FACTOR_COIN_E6)
            )
            found.append(_listing(coin, coin, "spot", exponent, collateral_factor_e6=factor))
        for currency, expiry_ms in self.future_expiry_ms.items():
            exponent = LOT_EXPONENTS.get(currency, 0)
            found.append(_listing(self.future(currency), currency, "future", exponent, expiry_ms=expiry_ms))
        for row in self.options.values():
            found.append(
                _listing(
                    row.instrument, row.currency, row.kind, LOT_EXPONENTS.get(row.currency, 0),
                    expiry_ms=row.expiry_ms, strike_usd9=usd9(row.strike_usd),
                )
            )  # fmt: skip
        return found

    def genesis(self, account_count: int, seed: int, time_ms: int) -> list[AccountEvent]:
        """Seeded positions and collateral as events of block 0."""
        chains = {currency: self._chain(currency, rows) for currency, rows in self.drawable.items()}
        books, collateral = draw_books(chains, account_count, seed)
        prices = self._first_prices()
        events: list[AccountEvent] = []
        for account, book in books.items():
            common: dict[str, Any] = {"version": 1, "block": 0, "time_ms": time_ms, "account": account}
            for instrument, lots in book.items():
                event_id = f"0-{len(events):05d}"
                price_usd9 = prices[instrument]
                events.append(Fill(**common, id=event_id, instrument=instrument, lots=lots, price_usd9=price_usd9))
            for coin, value_usd in collateral[account].items():
                lots = self._coin_lots(coin, value_usd, chains)
                events.append(CollateralMove(**common, id=f"0-{len(events):05d}", instrument=coin, lots=lots))
        return events

    def _chain(self, currency: str, rows: list[ChainRow]) -> Chain:
        interest = np.array([float(row.open_interest) for row in rows])
        lot = 10.0 ** LOT_EXPONENTS.get(currency, 0)
        index_usd = float(_median([row.index_usd for row in rows]))
        return Chain(rows, interest / interest.sum(), index_usd, lot, self.future(currency))

    def _first_prices(self) -> dict[str, int]:
        ticks = snapshot_ticks(self.snapshots[0], 0, self.snapshots[0].time_ms)
        prices = {tick.instrument: tick.mark_usd9 for tick in ticks if isinstance(tick, QuoteTick)}
        for tick in ticks:
            if isinstance(tick, ForwardTick) and tick.expiry_ms == self.future_expiry_ms.get(tick.underlying):
                prices[self.future(tick.underlying)] = tick.price_usd9
        return prices

    def _coin_lots(self, coin: str, value_usd: float, chains: dict[str, Chain]) -> int:
        if coin == STABLE:
            return max(1, round(value_usd / 10.0**STABLE_LOT_EXPONENT))
        return max(1, round(value_usd / chains[coin].index_usd / 10.0**COIN_LOT_EXPONENT))

    def facts(self, source: Path | None, paths: list[Path]) -> dict[str, Any]:
        """What the report prints about the source."""
        rows = [row for snapshot in self.snapshots for row in snapshot.rows]
        last = self.snapshots[-1].time_ms
        return {
            "source": paths[0].parent.name + (" (sample generated from a recorded chain)" if source is None else ""),
            "snapshots": len(self.snapshots),
            "rows": len(rows),
            "marks_not_above_zero": sum(row.mark <= 0 for row in rows),
            "options": len(self.options),
            "options_expired_on_the_way": sum(row.expiry_ms <= last for row in self.options.values()),
            "currencies": self.currencies,
        }


def _listing(name: str, underlying: str, kind: Any, lot_exponent: int, **rest: Any) -> InstrumentListing:
    common: dict[str, Any] = {"version": 1, "id": f"instrument-{name}", "instrument": name, "underlying": underlying}
    return InstrumentListing(**common, kind=kind, lot_exponent=lot_exponent, **rest)


def _main_expiry_ms(rows: list[ChainRow]) -> int:
    """Expiry with the most open interest."""
    interest: dict[int, Decimal] = defaultdict(Decimal)
    for row in rows:
        interest[row.expiry_ms] += row.open_interest
    return max(sorted(interest), key=lambda expiry: interest[expiry])


def _by_currency(rows: list[ChainRow]) -> dict[str, list[ChainRow]]:
    found: dict[str, list[ChainRow]] = defaultdict(list)
    for row in rows:
        found[row.currency].append(row)
    return dict(sorted(found.items()))


def _median(values: list[Decimal]) -> Decimal:
    """The lower median: a value that was recorded."""
    return sorted(values)[(len(values) - 1) // 2]
