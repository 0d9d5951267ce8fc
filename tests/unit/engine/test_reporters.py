"""Several reporters of forwards and volatility: the median of the governed, degraded without a quorum; recorded."""

from __future__ import annotations

import hashlib
import math
import random
from typing import Any

import numpy as np
import orjson
import pytest
from engine_worlds import (
    EXPIRY_MS,
    Inputs,
    LogStore,
    cash,
    event,
    fill,
    genesis_ticks,
    instrument,
    listings,
    new_sequencer,
    option_name,
    spot,
    surface,
    time_of,
    underlying,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.black76 import undiscounted_price
from kernels.svi import total_variance
from oracles.surface import volatilities
from oracles.surface_fit import parameters_of
from schemas import log_records as records
from schemas import refusals
from schemas.catalogue import Catalogue
from schemas.quantities import MILLISECONDS_PER_YEAR
from schemas.risk_parameters import Reporter, RiskParameters
from schemas.topics import MARKET_LOG, QUARANTINE
from streams.cli.surface_source import follow, heard_of
from streams.engine.sequence import Sequencer
from streams.engine.tick_state import TickState
from streams.simulate.in_process import Pipeline

NAMES = ("a", "b", "c")
GOVERNED: dict[str, Any] = {
    "surface_reporters": tuple(Reporter(source=name) for name in NAMES),
    "surface_quorum": 2,
    "surface_report_age_max_ms": 1_500,
}


def said(reporter: str, number: int, level: float, **fields: Any) -> dict:
    """A reporter's surface of block `number`."""
    return surface(f"{reporter}{number}", time_of(number) - 100, level=level) | {"source": reporter} | fields


def world(blocks: list[list[dict]], **parameters: Any) -> Inputs:
    """Block 0 and these ticks of the blocks behind it; account `a` is long options."""
    inputs, listed = Inputs(), listings(RiskParameters(**GOVERNED | parameters))
    inputs.add_listings(listed)
    seeding = [cash("c0", 0, "a", 1_000), fill("f0", 0, "a", option_name(100, "call"), 200, 4.0)]
    first = [t for t in genesis_ticks() if t["type"] == "spot"] + [said(name, 0, 1.0) for name in NAMES]
    inputs.add_block(0, seeding, first, len(listed))
    for number, ticks in enumerate(blocks, start=1):
        inputs.add_block(number, [], ticks, len(listed))
    return inputs


def barriers(run: Pipeline) -> list[records.Market]:
    heads = [(raw, records.read_header(raw)) for raw in run.values(MARKET_LOG)]
    return [records.read_barrier(raw, head).market for raw, head in heads if head.kind == records.BARRIER]


def combined(run: Pipeline) -> list[tuple[int, np.void]]:
    """(block, CONSENSUS_ROW) in the order of the log."""
    found: list[tuple[int, np.void]] = []
    for raw in run.values(MARKET_LOG):
        head = records.read_header(raw)
        if head.kind == records.MARKET:
            found += [(head.block, row) for row in records.read_market(raw, head).consensus]
        elif head.kind == records.BARRIER:
            found += [(head.block, row) for row in records.read_barrier(raw, head).market.consensus]
    return found


def test_a_liar_is_outvoted_and_named_and_what_counted_is_recorded_by_digest() -> None:
    run = world([[said("a", 1, 1.0), said("b", 1, 1.02), said("c", 1, 4.0)]]).pipeline(1)
    before, after = (int(market.expiries[0]["a_e9"]) for market in barriers(run))
    assert before == pytest.approx(10_000_000, rel=0.02)
    assert after == pytest.approx(10_200_000, rel=0.02)  # the median of the three
    assert [int(market.expiries[0]["held"]) for market in barriers(run)] == [0, 0]
    block, row = combined(run)[-1]
    assert (block, int(row["refused"]), int(row["counted"]), int(row["outliers"])) == (1, 0, 0b111, 0b100)
    heard = [said("a", 1, 1.0), said("b", 1, 1.02), said("c", 1, 4.0)]
    slices = [[t["time_ms"], 0, [t[f"{name}_e9"] for name in ("a", "b", "rho", "m", "sigma")]] for t in heard]
    plain = [[name, 1, [], one, []] for name, one in zip(NAMES, slices, strict=True)]
    assert row["digest"].tobytes() == hashlib.blake2b(orjson.dumps(plain), digest_size=16).digest()


def test_the_surface_command_names_them() -> None:
    run = world([[said("a", 1, 1.0), said("b", 1, 1.02), said("c", 1, 4.0)]]).pipeline(1)
    log = list(enumerate(run.values(MARKET_LOG)))
    catalogue, _, at = follow(log, None)
    heard = heard_of(log, at, catalogue)
    assert (heard[0].counted, heard[0].outliers, heard[0].refused) == (["a", "b", "c"], ["c"], False)
    assert heard_of(log, 0, catalogue)[0].outliers == []


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.9, 1.1), min_size=2, max_size=2), st.floats(0.05, 8.0), st.floats(50.0, 400.0))
def test_a_minority_moves_neither_forward_nor_level_beyond_the_honest(
    honest: list[float], lie: float, forward_usd: float
) -> None:
    catalogue, state, p = Catalogue(), TickState(), RiskParameters(**GOVERNED, surface_move_max_e6=0)
    for listing in (underlying("X"), instrument("F", "X", "future", expiry_ms=EXPIRY_MS)):
        catalogue.apply(listing)
    levels = dict(zip(NAMES, [*honest, lie], strict=True))
    ticks = [said(n, 1, v, forward_usd9=round(100e9 * v if n != "c" else forward_usd * 1e9)) for n, v in levels.items()]
    for tick in [spot("s", "X", time_of(1), 100), *ticks]:
        assert state.absorb(tick, catalogue, p) is None
    state.fitted(catalogue, time_of(1), p)
    assert min(honest) * 100e9 - 100 <= state.forward_usd9(0, catalogue) <= max(honest) * 100e9 + 100
    at_forward = volatilities(state.surface[0], np.zeros(1), 1.0)[0]
    curves = []
    for name in ("a", "b"):
        one = next(tick for tick in ticks if tick["source"] == name)
        shift = math.log(state.forward_usd9(0, catalogue) / one["forward_usd9"])
        slice_e9 = tuple(one[f"{field}_e9"] for field in ("a", "b", "rho", "m", "sigma"))
        curves.append(volatilities(slice_e9, np.array([shift]), 1.0)[0])
    assert min(curves) * 0.98 <= at_forward <= max(curves) * 1.02  # the refit of medians that have a kink


def test_without_a_quorum_the_last_surface_stays_degraded_until_there_is_one_again() -> None:
    """b and c fall silent after block 0: too old from block 2 on. What a says alone is not believed, however often."""
    run = world([[said("a", n, 1.5)] for n in range(1, 6)] + [[said(name, 6, 1.1) for name in NAMES]]).pipeline(1)
    rows = [market.expiries[0] for market in barriers(run)]
    assert [int(row["held"]) for row in rows] == [0, 0, 1, 1, 1, 1, 0]
    assert len({int(row["a_e9"]) for row in rows[:6]}) == 1
    assert int(rows[6]["a_e9"]) == pytest.approx(11_000_000, rel=0.02)
    assert [int(row["refused"]) for block, row in combined(run) if block in (2, 6)] == [1, 0]


def test_silence_alone_degrades_and_says_so_once() -> None:
    run = world([[spot(f"s{n}", "X", time_of(n) - 10, 100 + n / 10)] for n in range(1, 5)]).pipeline(1)
    assert [int(market.expiries[0]["held"]) for market in barriers(run)] == [0, 0, 1, 1, 1]
    assert [block for block, row in combined(run) if row["refused"]] == [2]


def test_a_jump_that_a_quorum_agrees_on_is_held_back_as_any() -> None:
    run = world([[said(name, n, 4.0) for name in NAMES] for n in (1, 2)]).pipeline(1)
    assert [int(market.expiries[0]["held"]) for market in barriers(run)] == [0, 1, 0]


def test_who_is_not_governed_is_not_heard() -> None:
    run = world([[said("stranger", 1, 2.0)]]).pipeline(1)
    (found,) = (orjson.loads(raw) for raw in run.values(QUARANTINE))
    assert (found["reason"], found["field"]) == (refusals.UNKNOWN_REPORTER, "source")
    assert not [block for block, _ in combined(run) if block == 1]


def test_weight_counts_beside_heads() -> None:
    """Two of three reporters, but not half of all weight."""
    heavy = (*GOVERNED["surface_reporters"][:2], Reporter(source="c", weight=5))
    ticks = [[said(name, n, 1.1) for name in ("a", "b")] for n in (1, 2, 3)]
    run = world(ticks, surface_reporters=heavy).pipeline(1)
    assert [int(market.expiries[0]["held"]) for market in barriers(run)] == [0, 0, 1, 1]


# -- forwards


def forward_tick(reporter: str, number: int, price_usd: float) -> dict:
    return event(
        "forward", f"{reporter}f{number}", source=reporter, time_ms=time_of(number) - 100, underlying="X",
        expiry_ms=EXPIRY_MS, price_usd9=round(price_usd * 10**9), rate_e9=50_000_000,
    )  # fmt: skip


def test_the_forward_is_the_median_of_those_told_and_follows_the_index() -> None:
    told = [forward_tick("a", 1, 103), forward_tick("b", 1, 103.1), forward_tick("c", 1, 190)]
    moved = [spot("s2", "X", time_of(2) - 10, 110)]
    run = world([told, moved]).pipeline(1)
    rows = [market.expiries[0] for market in barriers(run)]
    assert [int(row["forward_usd9"]) for row in rows] == [100 * 10**9, round(103.1e9), round(103.1e9 * 1.1)]
    assert [int(row["rate_e9"]) for row in rows] == [0, 50_000_000, 50_000_000]
    assert int(next(row for block, row in combined(run) if block == 1)["outliers"]) == 0b100


def test_a_slice_may_name_the_forward_that_it_is_of() -> None:
    run = world([[said(name, 1, 1.0, forward_usd9=102 * 10**9) for name in NAMES]]).pipeline(1)
    assert int(barriers(run)[1].expiries[0]["forward_usd9"]) == 102 * 10**9
    far = world([[said("a", 1, 1.0, forward_usd9=10**13)]]).pipeline(1)
    (found,) = (orjson.loads(raw) for raw in far.values(QUARANTINE))
    assert (found["reason"], found["field"]) == (refusals.OUT_OF_RANGE, "forward_usd9")


STRIKES = (80, 85, 90, 95, 100, 105, 110, 115, 120)
SMILE = (0.004, 0.03, -0.3, 0.02, 0.15)


def quotes_of(reporter: str, forward_usd: float, scale: float = 1.0) -> list[dict]:
    """Two-sided quotes of every strike, priced on a slice around a forward."""
    found = []
    for strike in STRIKES:
        x = math.log(forward_usd / strike)
        stddev = math.sqrt(total_variance(*SMILE, -x)) * scale
        for kind in ("call", "put"):
            mark = round(undiscounted_price(forward_usd, strike, x, stddev, kind == "call") * 10**9)
            sides = {"mark_usd9": mark, "bid_usd9": mark - mark // 400, "ask_usd9": mark + mark // 400}
            name = option_name(strike, kind)
            tick = event("quote", f"{reporter}{name}", source=reporter, time_ms=time_of(1), instrument=name, **sides)
            found.append(tick)
    return found


def quoted(*groups: list[dict]) -> TickState:
    """What is in force once these quotes are combined, of an index of 100."""
    catalogue, state, p = Catalogue(), TickState(), RiskParameters(**GOVERNED)
    catalogue.apply({"type": "underlying", "underlying": "X"})
    for strike in STRIKES:
        for kind in ("call", "put"):
            listed = {"expiry_ms": EXPIRY_MS, "strike_usd9": strike * 10**9}
            catalogue.apply(instrument(option_name(strike, kind), "X", kind, **listed))
    for tick in [spot("s", "X", time_of(1), 100), *(tick for group in groups for tick in group)]:
        assert state.absorb(tick, catalogue, p) is None
    state.fitted(catalogue, time_of(1), p)
    again = TickState()
    again.absorb(spot("s", "X", time_of(1), 100), catalogue, p)
    again.reports = state.reports
    again.record(state.rows(catalogue, time_of(1), p), time_of(1), catalogue)
    assert (again.carry_e9, again.surface, again.rate_e9) == (state.carry_e9, state.surface, state.rate_e9)
    return again


def test_quotes_alone_give_forwards_by_parity_and_slices_and_a_liar_moves_neither() -> None:
    honest = (quotes_of("a", 103.0), quotes_of("b", 103.0))
    for third in (quotes_of("c", 120.0), quotes_of("c", 103.0, scale=3.0)):
        state = quoted(*honest, third)
        assert state.carry_e9[0] == pytest.approx(1_030_000_000, rel=1e-4)
        a, b, rho, m, sigma = parameters_of(state.surface[0]).tolist()
        years = (EXPIRY_MS - time_of(1)) / MILLISECONDS_PER_YEAR
        for k in (-0.2, 0.0, 0.2):
            known, found = total_variance(*SMILE, k), total_variance(a, b, rho, m, sigma, k)
            assert math.sqrt(found / years) == pytest.approx(math.sqrt(known / years), abs=5e-3)


def test_old_quotes_do_not_count() -> None:
    old = [tick | {"time_ms": time_of(1) - 1_501} for tick in quotes_of("b", 103.0)]
    assert not quoted(quotes_of("a", 103.0), old).surface


def test_an_older_word_that_comes_late_says_nothing() -> None:
    state = quoted(quotes_of("a", 103.0), quotes_of("b", 103.0))
    before = state.reports.to_plain()
    catalogue, p = Catalogue(), RiskParameters(**GOVERNED)
    catalogue.apply({"type": "underlying", "underlying": "X"})
    for strike in STRIKES:
        for kind in ("call", "put"):
            listed = {"expiry_ms": EXPIRY_MS, "strike_usd9": strike * 10**9}
            catalogue.apply(instrument(option_name(strike, kind), "X", kind, **listed))
    for tick in quotes_of("a", 50.0):
        assert state.absorb(tick | {"time_ms": time_of(1) - 1}, catalogue, p) is None
    assert state.reports.to_plain() == before


# -- recorded, replayable


def test_any_order_and_a_restart_at_any_record_write_the_same_log() -> None:
    told = [[said(name, n, 1.0 + n / 50 + place / 100) for place, name in enumerate(NAMES)] for n in range(1, 4)]
    inputs = world([*told, [forward_tick(name, 4, 103) for name in NAMES], [said("a", 5, 1.0)], [], []])
    expected = inputs.pipeline(4).values(MARKET_LOG)
    for seed in range(4):
        store, rng = LogStore(inputs), random.Random(seed)
        machine = new_sequencer()
        store.append(machine.start())
        for _ in range(rng.randrange(4, 24)):
            if not (logs := store.readable(machine)):
                break
            store.append(store.feed(machine, rng.choice(logs)))
        machine = Sequencer.load(machine.dump(), b"again")
        store.append(machine.start())
        store.run(machine, rng)
        valid = [raw for raw in expected if records.read_header(raw).kind != records.FENCE]
        assert store.decisions() == valid


def test_reports_survive_a_checkpoint_and_go_with_their_expiry() -> None:
    state = quoted(quotes_of("a", 103.0), quotes_of("b", 103.0))
    again = TickState.from_plain(orjson.loads(orjson.dumps(state.to_plain())))
    assert again.reports.to_plain() == state.reports.to_plain()
    twin = again.copy()
    twin.settle(np.array([(0, 0, 1)], records.SETTLEMENT_ROW))
    assert (twin.reports.expiries(), again.reports.expiries()) == (set(), {0})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"surface_reporters": (Reporter(source="a"),) * 2}, "surface_reporters: a is named twice"),
        ({"surface_reporters": (Reporter(source="a"),), "surface_quorum": 2}, "surface_quorum: 2 of 1 reporters"),
    ],
)
def test_governed_reporters_must_make_sense(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RiskParameters(**fields)
