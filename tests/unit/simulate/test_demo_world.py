"""The demo world: deterministic, consistent, and eventful for every seed."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import msgspec
import numpy as np
import orjson
import pytest

from schemas.events import CollateralMove, Fill, SpotTick, SurfaceTick
from schemas.margin_batch import decode_batch
from schemas.topics import ACCOUNT_FILLS, CHAIN_BLOCKS, INSTRUMENTS, ORACLE_TICKS
from streams.replay.seeding import encode_all
from streams.replay.world import World
from streams.simulate.accounts import draw_accounts
from streams.simulate.demo_world import MarketState, demo_world
from streams.simulate.in_process import Pipeline
from streams.simulate.random_walk import CRASH_DEPTHS, TICKS_PER_BLOCK, walk
from streams.simulate.venue import PRODUCTS, STABLE, Venue, perpetual

SCENARIOS = 128


def run(world: World) -> Pipeline:
    pipeline = Pipeline({world.scenario_set.digest: world.scenario_set}, partitions=2)
    pipeline.push(INSTRUMENTS, 0, encode_all(world.listings))
    for inputs in world.blocks:
        pipeline.push(ORACLE_TICKS, 0, encode_all(inputs.ticks))
        pipeline.push(ACCOUNT_FILLS, 0, encode_all(inputs.events))
        pipeline.push(CHAIN_BLOCKS, 0, encode_all([inputs.block]))
    return pipeline


def events_of(pipeline: Pipeline, topic: str) -> list[dict]:
    return [event for raw in pipeline.values(topic) for event in orjson.loads(raw)["events"]]


def as_bytes(world: World) -> bytes:
    blocks = [msgspec.to_builtins([b.block, b.events, b.ticks]) for b in world.blocks]
    return orjson.dumps([msgspec.to_builtins(world.listings), world.scenario_set.digest, blocks])


@pytest.mark.parametrize("seed", [1, 6, 7, 20])
def test_every_seed_has_fills_warnings_calls_and_liquidations(seed: int) -> None:
    pipeline = run(demo_world(seed, 60, 30, SCENARIOS))
    calls = Counter(event["to"] for event in events_of(pipeline, "margin.calls"))
    assert len(events_of(pipeline, "margin.warnings")) > 5
    assert calls["margin_call"] > 5
    assert len(events_of(pipeline, "liquidations")) == calls["liquidatable"] + calls["insolvent"] > 5
    assert pipeline.values("quarantine") == []
    done = [orjson.loads(raw) for raw in pipeline.values("blocks.done")]
    assert len(done) == 2 * 60
    assert {record["halted"] for record in done} == {""}
    assert sum(record["events"] for record in done if record["block"] > 0) == 59 * 2 * 3


def test_world_is_a_function_of_its_arguments() -> None:
    assert as_bytes(demo_world(3, 8, 40, 64)) == as_bytes(demo_world(3, 8, 40, 64))
    assert as_bytes(demo_world(3, 8, 40, 64)) != as_bytes(demo_world(4, 8, 40, 64))


def test_longer_world_begins_like_a_shorter_one() -> None:
    short = [b.events for b in demo_world(3, 60, 40, 64).blocks]
    long = [b.events for b in itertools.islice(demo_world(3, 90, 40, 64).blocks, 60)]
    assert short == long


def test_blocks_are_linked_counted_and_dated() -> None:
    before, seen, count = None, set(), 0
    world = demo_world(5, 12, 40, 64)
    for inputs in world.blocks:
        block = inputs.block
        assert (block.event_count, block.tick_count) == (len(inputs.events), len(inputs.ticks))
        assert block.listing_count == len(world.listings)
        if before is not None:
            assert (block.number, block.parent_hash) == (before.number + 1, before.hash)
            assert block.time_ms == before.time_ms + 1_000
            dated = [*inputs.events, *inputs.ticks]
            assert all(before.time_ms < thing.time_ms <= block.time_ms for thing in dated)  # type: ignore[union-attr]
        ids = {thing.id for thing in [*inputs.events, *inputs.ticks]}  # type: ignore[union-attr]
        assert len(ids) == len(inputs.events) + len(inputs.ticks)
        assert not ids & seen
        seen |= ids
        before, count = block, count + 1
    assert count == world.block_count == 12


def test_every_trade_has_two_sides_at_the_mark() -> None:
    last: dict[str, int] = {}
    for inputs in demo_world(2, 15, 60, 64).blocks:
        ticks = sorted((t for t in inputs.ticks if isinstance(t, SpotTick)), key=lambda t: t.time_ms)
        fills = [event for event in inputs.events if isinstance(event, Fill)]
        by_instrument: dict[str, int] = defaultdict(int)
        for fill in fills:
            by_instrument[fill.instrument] += fill.lots
        assert set(by_instrument.values()) <= {0}
        for fill in fills:
            name = fill.instrument.removesuffix("-PERP")
            if inputs.block.number and name != fill.instrument:
                known = [t.price_usd9 for t in ticks if t.underlying == name and t.time_ms <= fill.time_ms]
                assert fill.price_usd9 == (known[-1] if known else last[name])
        last |= {tick.underlying: tick.price_usd9 for tick in ticks}


def test_options_are_traded_at_the_engines_own_marks() -> None:
    """Long options bought at the genesis mark are worth what was paid: NLV is cash and collateral alone before it."""
    world = demo_world(9, 1, 60, 64)
    pipeline = run(world)
    table = decode_batch(pipeline.values("margin.batches")[0])[1]
    equity = dict(zip(table.column("account").to_pylist(), table.column("equity_usd6").to_pylist()))
    inputs = next(iter(demo_world(9, 1, 60, 64).blocks))
    prices = {tick.underlying: tick.price_usd9 for tick in inputs.ticks if isinstance(tick, SpotTick)}
    venue = Venue()
    put_in: dict[str, float] = defaultdict(float)
    for event in inputs.events:
        if isinstance(event, CollateralMove):
            exponent = int(venue.lot_exponents[venue.index_of(event.instrument)])
            put_in[event.account] += event.lots * 10.0**exponent * prices[event.instrument] / 1e3
        elif not isinstance(event, Fill):
            put_in[event.account] += event.amount_usd6  # type: ignore[union-attr]
    assert len(equity) > 10
    for account, found in equity.items():
        assert found == pytest.approx(put_in[account], abs=50)  # micro-USD: a rounding for every leg


def test_first_barrier_finds_the_drawn_buffers() -> None:
    world = demo_world(11, 1, 200, SCENARIOS)
    ratios = []
    for raw in run(world).values("margin.batches"):
        table = decode_batch(raw)[1]
        initial, nlv = (table.column(name).to_numpy() for name in ("initial_margin_usd6", "nlv_usd6"))
        ratios += (nlv[initial > 0] / initial[initial > 0]).tolist()
    assert min(ratios) == pytest.approx(world.facts["k_percentiles"]["p0"], abs=1e-3)
    assert min(ratios) < 0.8 < 1.0 < np.median(ratios)


def test_makers_begin_delta_neutral_and_customers_do_not() -> None:
    venue = Venue()
    state = MarketState(venue)
    market = venue.market(state.time_ms, state.spot_usd9(), state.slices)
    deltas = venue.deltas_usd9(market)
    accounts = draw_accounts(venue, venue.prices_usd9(market), deltas, 100, seed=1)
    for underlying, product in enumerate(PRODUCTS):
        lot = deltas[venue.index_of(perpetual(product.symbol))]
        mine = [i for i, x in enumerate(venue.catalogue.instruments) if x.underlying == underlying]
        found = {
            name: sum(int(deltas[i]) * book.get(i, 0) for i in mine) / lot for name, book in accounts.books.items()
        }
        assert max(abs(found[name]) for name in accounts.makers) <= 0.5
        assert max(abs(found[name]) for name in accounts.customers) > 10


def test_surfaces_follow_the_level_of_volatility() -> None:
    venue = Venue()
    state = MarketState(venue)
    calm = list(state.slices)
    state.advance(np.zeros((TICKS_PER_BLOCK, 3)), 1.0, np.array([0.5, 0.0, 0.0]))
    raised = [index for index, (old, new) in enumerate(zip(calm, state.slices)) if new[1] > old[1]]
    assert raised == [i for i, expiry in enumerate(venue.catalogue.expiries) if expiry.underlying == 0]
    ticks = [tick for tick in state.ticks(1, [state.spot_usd9()]) if isinstance(tick, SurfaceTick)]
    assert len(ticks) == len(venue.catalogue.expiries)


@pytest.mark.parametrize("seed", range(1, 21))
def test_crash_is_deep_and_over_by_block_30(seed: int) -> None:
    steps = list(itertools.islice(walk(seed, 60), 59))
    prices = np.exp(np.array([step.log_price[-1] for step in steps]))
    levels = np.array([step.log_level for step in steps])
    low = prices[:29].min(axis=0)
    assert np.all(low < 1 - CRASH_DEPTHS[0] + 0.05)
    assert np.all(prices[-1] > low)
    assert np.all(prices[:18] > 0.9)
    assert np.all(levels[:29].max(axis=0) > 0.2)


def test_stablecoin_stays_near_one_dollar() -> None:
    prices = [step.stable_usd for step in itertools.islice(walk(1, 60), 500)]
    assert 0.99 < min(prices) < max(prices) < 1.01


@pytest.mark.parametrize(("blocks", "accounts"), [(0, 100), (10, 19)])
def test_worlds_that_have_nothing_to_show_are_refused(blocks: int, accounts: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        demo_world(1, blocks, accounts, 64)


def test_stablecoin_is_listed_as_one() -> None:
    found = {listing.underlying: listing.stable for listing in Venue().listings if hasattr(listing, "stable")}
    assert found == {"BTC": False, "ETH": False, "SOL": False, STABLE: True}


@pytest.mark.parametrize(("seed", "accounts"), [(7, 3_000), (1, 20), (2, 21), (3, 33)])
def test_every_account_is_there_from_the_beginning(seed: int, accounts: int) -> None:
    genesis = next(iter(demo_world(seed, 1, accounts, 64).blocks))
    assert len({event.account for event in genesis.events}) == accounts  # type: ignore[union-attr]
