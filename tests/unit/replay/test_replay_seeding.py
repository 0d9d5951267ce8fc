"""The drawn rules: multiples of initial margin, accounts on a chain, volatilities; and the shipped samples' origin."""

import csv
import gzip
import io
import math
from collections import Counter
from decimal import Decimal

import numpy as np
import pytest

from schemas.events import (
    RECORD_EVENTS_MAX,
    CashMove,
    Fill,
    ForwardTick,
    QuoteTick,
    ScenarioSetListing,
    SpotTick,
    UnderlyingListing,
)
from streams.replay import deribit
from streams.replay.chainlink import Prices, Round
from streams.replay.deribit_records import read_snapshots
from streams.replay.files import SAMPLES, usd9
from streams.replay.hyperliquid import Venue
from streams.replay.hyperliquid_records import CoinFill, FillBlock
from streams.replay.samples import generate
from streams.replay.seeding import BANDS, draw_ratios_e6, trial_margins
from streams.replay.volatility import (
    FALLBACK_NOISE,
    HOURLY_CORRELATION,
    HOURLY_VOLATILITY,
    coin_volatilities,
    scenario_set_of,
    spot_moments,
    staked_volatilities,
)


def fill(account, coin, price, size, start, fee="0", token="USDC", trade=1):
    numbers = map(Decimal, (price, size, start, fee))
    return CoinFill(account, coin, *numbers, token == "USDC", trade, token)


@pytest.mark.parametrize("count", [1, 7, 200, 899])
def test_bands_hold_their_share_of_accounts(count):
    ratios = np.array(list(draw_ratios_e6([f"a{i}" for i in range(count)], 3).values())) / 1e6
    for band in BANDS[:2]:
        inside = ((ratios >= band.low) & (ratios < band.high)).sum()
        assert inside == min(count, math.ceil(band.share * count)) or count == 1
    assert ratios.min() < 0.8
    assert draw_ratios_e6(["x", "y"], 3) == draw_ratios_e6(["x", "y"], 3)


def test_every_account_of_a_large_book_is_tried():
    drawn = scenario_set_of(coin_volatilities(["BTC"]), 1, 64)
    listings = [
        UnderlyingListing(version=1, id="u", underlying="BTC"),
        ScenarioSetListing(version=1, id="s", digest=drawn.digest),
    ]
    events = [
        CashMove(version=1, id=f"c{i}", block=0, time_ms=1, account=f"a{i % 50}", amount_usd6=1)
        for i in range(RECORD_EVENTS_MAX + 50)
    ]
    tick = SpotTick(version=1, id="t", source="s", time_ms=1, underlying="BTC", price_usd9=10**13)
    margins = trial_margins(listings, drawn, 1, events, [tick])
    assert margins == {f"a{i}": (len(events) // 50, 0) for i in range(50)}


def test_a_book_that_is_refused_is_no_book():
    drawn = scenario_set_of(coin_volatilities(["BTC"]), 1, 64)
    wrong = Fill(version=1, id="f", block=0, time_ms=1, account="a", instrument="X", lots=1, price_usd9=1)
    with pytest.raises(ValueError, match="the seeded book is refused"):
        trial_margins([UnderlyingListing(version=1, id="u", underlying="BTC")], drawn, 1, [wrong], [])


def test_spot_moments_are_beta_plus_noise():
    factors = coin_volatilities(["BTC", "ETH", "DOGE", "USDT"], {"USDT"})
    volatility, correlation = spot_moments(factors.spots)
    assert volatility[2] == pytest.approx(math.hypot(HOURLY_VOLATILITY[0], FALLBACK_NOISE))
    assert correlation[0, 2] == pytest.approx(HOURLY_VOLATILITY[0] / volatility[2])
    assert correlation[1, 2] == pytest.approx(HOURLY_CORRELATION[0, 1] * correlation[0, 2])
    assert np.allclose(correlation[3, :3], 0.0)
    staked = spot_moments(staked_volatilities("ETH", ["stETH"]).spots)[1]
    assert 0.99 < staked[0, 1] < 1.0


def test_scenario_set_has_the_volatilities_it_was_drawn_with():
    drawn = scenario_set_of(coin_volatilities(["BTC", "ETH", "SOL"]), 1, 4096)
    moves, weights = drawn.spot_log_return / 1e9, drawn.weights / drawn.weights.sum()
    assert np.sqrt((moves**2 * weights).sum(axis=1)) == pytest.approx(HOURLY_VOLATILITY, rel=0.05)


def test_lots_restatements_and_fees_of_recorded_fills():
    blocks = [
        FillBlock(10, 5_000, [fill("0xa", "BTC", "100.5", "-0.25", "1.5", "0.0201")]),
        FillBlock(11, 5_080, [fill("0xb", "@1", "2", "3.5", "10.06", "0.002", "TOKEN", 2)]),
    ]
    venue = Venue(blocks)
    seeded = venue.genesis(blocks)
    assert [(e.account, e.instrument, e.lots) for e in seeded] == [("0xa", "BTC-PERP", 150), ("0xb", "TOKEN/USDC", 101)]
    assert isinstance(seeded[0], Fill)
    assert seeded[0].price_usd9 == 100_500_000_000
    (sold,) = venue.events(blocks[0])
    assert (sold.lots, sold.price_usd9, sold.fee_usd6) == (-25, 100_500_000_000, 20_100)
    restated, bought = venue.events(blocks[1])
    assert (restated.lots, restated.mode) == (101, "set")
    assert (bought.lots, bought.fee_usd6) == (35, 0)
    assert restated.id < bought.id


def test_flat_account_is_measured_on_its_first_book():
    blocks = [
        FillBlock(1, 1_000, [fill("0xa", "BTC", "9", "1", "0", trade=1), fill("0xa", "BTC", "9", "-1", "1", trade=2)]),
        FillBlock(2, 1_001, [fill("0xa", "BTC", "9", "2", "0", trade=3)]),
        FillBlock(3, 1_002, [fill("0xa", "BTC", "9", "5", "2", trade=4)]),
    ]
    venue = Venue(blocks)
    genesis = venue.genesis(blocks)
    assert genesis == []
    assert [event.lots for event in venue.first_trades(blocks, genesis)] == [1, -1, 2]


def test_seeded_longs_equal_shorts():
    venue = deribit.Venue(read_snapshots(sorted(SAMPLES.glob(deribit.PATTERN)), 1))
    net: Counter = Counter()
    kinds: Counter = Counter()
    for event in venue.genesis(100, 5, 0):
        kinds[event.account.rsplit("-", 1)[0]] += 1
        if isinstance(event, Fill):
            net[event.instrument] += event.lots
    assert set(net.values()) == {0}
    assert set(kinds) == {"directional", "spread", "strangle", "market-maker", "futures"}
    assert any(name.count("-") == 1 for name in net)  # the future, in which market makers hedge


def test_ticks_of_a_snapshot_are_in_dollars():
    snapshot = read_snapshots(sorted(SAMPLES.glob(deribit.PATTERN)), 1)[0]
    ticks = deribit.snapshot_ticks(snapshot, 3, snapshot.time_ms)
    by_id = {tick["id"] if isinstance(tick, dict) else tick.id: tick for tick in ticks}
    assert list(by_id) == sorted(by_id, key=lambda i: i.split("-")[1])  # index, forwards, quotes
    row = max(snapshot.rows, key=lambda r: r.bid)
    quote = by_id[f"3-3-{row.instrument}"]
    assert isinstance(quote, QuoteTick)
    assert (quote.mark_usd9, quote.bid_usd9) == (usd9(row.mark * row.index_usd), usd9(row.bid * row.index_usd))
    (spot,) = (t for t in ticks if isinstance(t, SpotTick) and t.underlying == "ETH")
    assert spot.price_usd9 == usd9(row.index_usd)
    forward = next(t for t in ticks if isinstance(t, ForwardTick) and t.expiry_ms == row.expiry_ms)
    years = (row.expiry_ms - snapshot.time_ms) / (365 * 86_400_000)
    assert math.exp(forward.rate_e9 / 1e9 * years) == pytest.approx(forward.price_usd9 / spot.price_usd9, rel=1e-6)


def test_staked_price_follows_both_feeds():
    slots = [Round(100, 2_000 * 10**8), Round(200, 2_100 * 10**8), Round(300, 2_050 * 10**8)]
    staked = [Round(50, 10**18), Round(150, 9 * 10**17), Round(300, 8 * 10**17)]
    found = [
        [(t.time_ms, t.underlying, t.price_usd9 // 10**9) for t in ticks]
        for ticks in Prices(slots, staked).block_ticks()
    ]
    assert found == [
        [(100_000, "ETH", 2_000), (100_000, "stETH", 2_000)],
        [(150_000, "stETH", 1_800), (200_000, "ETH", 2_100), (200_000, "stETH", 1_890)],
        [(300_000, "ETH", 2_050), (300_000, "stETH", 1_640)],
    ]


def test_samples_are_what_the_generator_writes(tmp_path):
    generate.main(tmp_path)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == sorted(path.name for path in SAMPLES.glob("generated_*"))
    for name in written:
        shipped = SAMPLES / name
        assert gzip.decompress((tmp_path / name).read_bytes()) == gzip.decompress(shipped.read_bytes())
        assert shipped.stat().st_size < 100_000


def test_first_snapshot_of_the_sample_is_the_recorded_chain():
    def rows(path):
        return list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))

    recorded = {row["instrument_name"]: row for row in rows(SAMPLES / "deribit_ETH_chain_2024-01-08_definer.csv.gz")}
    sample = rows(min(SAMPLES.glob(deribit.PATTERN)))
    assert len(sample) > 200
    for row in sample:
        source = recorded[row["instrument_name"]]
        assert (row["mark_price"], row["open_interest"]) == (source["mark_price"], source["open_interest"])
