"""Replay of recorded Hyperliquid fills: contiguous blocks, perpetuals, spot coins as collateral."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec import Struct

from schemas.events import (
    AccountEvent,
    CollateralMove,
    Fill,
    InstrumentListing,
    ParametersListing,
    ScenarioSetListing,
    SpotTick,
    UnderlyingListing,
)
from schemas.risk_parameters import RiskParameters, parameters_document
from streams.replay import hyperliquid_records as records
from streams.replay.blocks import BlockChain
from streams.replay.files import SAMPLES, ReplayError, check_limit, find_files, usd9
from streams.replay.hyperliquid_records import CoinFill, FillBlock
from streams.replay.seeding import BUFFER_RULE, buffer_facts, seed_cash
from streams.replay.volatility import coin_volatilities, scenario_set_of
from streams.replay.world import BlockInputs, World

NAME = "hyperliquid"
PATTERN = "*node_fills*.jsonl*"
GENESIS_LEAD_MS = 100
FACTOR_LINKED_E6, FACTOR_STABLE_E6, FACTOR_OTHER_E6 = 950_000, 980_000, 800_000
SEEDING_RULE = (
    "The first startPosition of every account and coin, rounded to the coin's smallest traded size, is the book of the "
    "genesis block; perpetuals enter at the coin's first recorded price with zero value, spot coins are collateral "
    "(factor 0.95 where a perpetual of the same asset is traded, 0.98 for stablecoins, 0.80 for others), restated at "
    "every recorded startPosition, which also takes the fees charged in coin. An account that starts flat is measured "
    "on the book it holds after the first block that leaves it one. " + BUFFER_RULE
)


def hyperliquid_world(source: Path | None, seed: int, scenarios: int, limit: int | None = None) -> World:
    """World of a recorded file of node fills (None: the generated sample), `limit` blocks of it if given."""
    check_limit(limit)
    paths = find_files(source, SAMPLES, PATTERN, records.WANTED)
    if len(paths) > 1:
        names = ", ".join(str(path) for path in paths)
        raise ReplayError(f"{len(paths)} recorded files found ({names}): give --source one of them")
    blocks = records.read_blocks(paths[0], limit)
    venue = Venue(blocks)
    scenario_set = scenario_set_of(coin_volatilities(venue.underlyings, venue.stable_underlyings), seed, scenarios)
    parameters = RiskParameters()
    listings: list[Struct] = [
        ParametersListing(version=1, id="parameters", document=parameters_document(parameters)),
        *venue.listings(),
        ScenarioSetListing(version=1, id="scenario-set", digest=scenario_set.digest),
    ]
    genesis = venue.genesis(blocks)
    first, time_ms = blocks[0].number, blocks[0].time_ms - GENESIS_LEAD_MS
    ticks = venue.first_marks(time_ms, first - 1)
    cash = seed_cash(listings, scenario_set, time_ms, [*genesis, *venue.first_trades(blocks, genesis)], ticks, seed)
    chain = BlockChain(NAME, len(listings))
    start = chain.block(first - 1, time_ms, [*genesis, *cash.moves(first - 1)], ticks)
    return World(
        name=NAME,
        listings=listings,
        scenario_set=scenario_set,
        parameters=parameters,
        block_count=len(blocks) + 1,
        blocks=_blocks(start, blocks, venue, chain),
        facts={**venue.facts(blocks, paths[0], source is None), **buffer_facts(cash), "seeding_rule": SEEDING_RULE},
    )


def _blocks(start: BlockInputs, blocks: list[FillBlock], venue: Venue, chain: BlockChain) -> Iterator[BlockInputs]:
    yield start
    for block in blocks:
        yield chain.block(block.number, block.time_ms, venue.events(block), venue.ticks(block))


class Venue:
    """What the recorded fills say about coins: lots, tokens, underlyings, first prices; and the events made of them."""

    def __init__(self, blocks: list[FillBlock]) -> None:
        self.exponents = records.lot_exponents(blocks)
        self.tokens = records.spot_tokens(blocks)
        self.links = records.linked_perpetuals(blocks, self.tokens)
        self.stable = records.stable_coins(blocks, self.tokens)
        self.first_price: dict[str, Decimal] = {}
        for block in blocks:
            for fill in block.fills:
                self.first_price.setdefault(fill.coin, fill.price)
        self.coins = sorted(self.exponents)
        own = [coin for coin in self.coins if coin not in self.links]
        self.underlyings = [self.underlying(coin) for coin in own]
        self.stable_underlyings = {self.underlying(coin) for coin in self.stable}
        self.ticking = set(own)

    def underlying(self, coin: str) -> str:
        """The price index of a coin: a linked spot coin has its perpetual's, another spot coin its own pair's."""
        if coin in self.tokens and coin not in self.links:
            return self.instrument(coin)
        return self.links.get(coin, coin)

    def instrument(self, coin: str) -> str:
        return f"{self.tokens[coin]}/USDC" if coin in self.tokens else f"{coin}-PERP"

    def lots(self, coin: str, size: Decimal) -> int:
        """Size in lots of the coin, ties to even."""
        return int(size.scaleb(-self.exponents[coin]).to_integral_value())

    def listings(self) -> list[UnderlyingListing | InstrumentListing]:
        """Underlyings, then one perpetual or collateral coin a traded coin."""
        found: list[UnderlyingListing | InstrumentListing] = [
            UnderlyingListing(version=1, id=f"underlying-{u}", underlying=u, stable=u in self.stable_underlyings)
            for u in self.underlyings
        ]
        for coin in self.coins:
            found.append(
                InstrumentListing(
                    version=1,
                    id=f"instrument-{self.instrument(coin)}",
                    instrument=self.instrument(coin),
                    underlying=self.underlying(coin),
                    kind="spot" if coin in self.tokens else "perpetual",
                    lot_exponent=self.exponents[coin],
                    collateral_factor_e6=self._factor_e6(coin),
                )
            )
        return found

    def _factor_e6(self, coin: str) -> int:
        if coin not in self.tokens:
            return 1_000_000
        if coin in self.stable:
            return FACTOR_STABLE_E6
        return FACTOR_LINKED_E6 if coin in self.links else FACTOR_OTHER_E6

    def first_marks(self, time_ms: int, number: int) -> list[SpotTick]:
        """First recorded price of every index, as ticks of the genesis block."""
        return [
            self._tick(coin, self.first_price[coin], number, time_ms) for coin in self.coins if coin in self.ticking
        ]

    def ticks(self, block: FillBlock) -> list[SpotTick]:
        """Last traded price of each coin of the block (fills carry the block's own time)."""
        last = {fill.coin: fill.price for fill in block.fills if fill.coin in self.ticking}
        return [self._tick(coin, price, block.number, block.time_ms) for coin, price in last.items()]

    def _tick(self, coin: str, price: Decimal, number: int, time_ms: int) -> SpotTick:
        underlying = self.underlying(coin)
        tick_id = f"{number}-{underlying}"
        return SpotTick(
            version=1, id=tick_id, source=NAME, time_ms=time_ms, underlying=underlying, price_usd9=usd9(price)
        )

    def genesis(self, blocks: list[FillBlock]) -> list[AccountEvent]:
        """The first startPosition of every account and coin, in order of account and coin."""
        first: dict[tuple[str, str], CoinFill] = {}
        for block in blocks:
            for fill in block.fills:
                first.setdefault((fill.account, fill.coin), fill)
        number, time_ms = blocks[0].number - 1, blocks[0].time_ms - GENESIS_LEAD_MS
        found: list[AccountEvent] = []
        for (account, coin), fill in sorted(first.items()):
            if self.lots(coin, fill.start) != 0:
                found.append(self._seed(f"{number}-{len(found):05d}", number, time_ms, account, coin, fill.start))
        return found

    def _seed(self, event_id: str, number: int, time_ms: int, account: str, coin: str, start: Decimal) -> AccountEvent:
        common: dict[str, Any] = {
            "version": 1, "id": event_id, "block": number, "time_ms": time_ms, "account": account,
            "instrument": self.instrument(coin), "lots": self.lots(coin, start),
        }  # fmt: skip
        if coin in self.tokens:
            return CollateralMove(**common, mode="set")
        price = self.first_price[coin] if coin in self.ticking else self.first_price[self.links[coin]]
        return Fill(**common, price_usd9=usd9(price))

    def events(self, block: FillBlock) -> list[AccountEvent]:
        """Fills of a block; a spot fill comes behind a restatement of the balance before it. Ids sort as recorded."""
        found: list[AccountEvent] = []
        for fill in block.fills:
            if fill.coin in self.tokens:
                event_id = f"{block.number}-{len(found):05d}-restated"
                found.append(self._seed(event_id, block.number, block.time_ms, fill.account, fill.coin, fill.start))
            found.append(self._fill(fill, block, len(found)))
        return found

    def _fill(self, fill: CoinFill, block: FillBlock, place: int) -> Fill:
        return Fill(
            version=1,
            id=f"{block.number}-{place:05d}-{fill.trade}",
            block=block.number,
            time_ms=block.time_ms,
            account=fill.account,
            instrument=self.instrument(fill.coin),
            lots=self.lots(fill.coin, fill.size),
            price_usd9=usd9(fill.price),
            fee_usd6=int((fill.fee * 10**6).to_integral_value()) if fill.fee_in_usd else 0,
        )

    def first_trades(self, blocks: list[FillBlock], genesis: list[AccountEvent]) -> list[AccountEvent]:
        """For accounts that start flat: their events up to the end of the first block that leaves them a position."""
        flat = {fill.account for block in blocks for fill in block.fills} - {event.account for event in genesis}
        kept: dict[str, list[AccountEvent]] = {account: [] for account in flat}
        lots: dict[str, dict[str, int]] = {account: {} for account in flat}
        for block in blocks:
            if not flat:
                break
            touched = set()
            for event in self.events(block):
                if event.account in flat and isinstance(event, Fill):
                    touched.add(event.account)
                    kept[event.account].append(event)
                    held = lots[event.account]
                    held[event.instrument] = held.get(event.instrument, 0) + event.lots
            flat -= {account for account in touched if any(lots[account].values())}
        return [event for account in sorted(kept) for event in kept[account]]

    def facts(self, blocks: list[FillBlock], path: Path, generated: bool) -> dict[str, Any]:
        """What the report prints about the source."""
        fills = [fill for block in blocks for fill in block.fills]
        return {
            "source": path.name + (" (generated sample)" if generated else ""),
            "blocks": len(blocks),
            "first_block": blocks[0].number,
            "last_block": blocks[-1].number,
            "empty_blocks": sum(not block.fills for block in blocks),
            "fill_sides": len(fills),
            "accounts": len({fill.account for fill in fills}),
            "coins": len(self.coins),
            "spot_coins": len(self.tokens),
            "underlyings": len(self.underlyings),
            "spot_coins_on_a_perpetuals_index": {
                self.instrument(coin): {"index": name, "largest_gap_bp": self._largest_gap_bp(blocks, coin, name)}
                for coin, name in sorted(self.links.items())
            },
        }

    def _largest_gap_bp(self, blocks: list[FillBlock], coin: str, name: str) -> float:
        return round(float(records.spot_basis(blocks, coin, name)[-1]) * 10_000, 1)
