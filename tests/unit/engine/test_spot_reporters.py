"""Several reporters of an index price: the median of the governed who are heard; degraded without a quorum."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import orjson
import pytest
from engine_worlds import (
    Inputs,
    LogStore,
    cash,
    fill,
    genesis_ticks,
    listings,
    new_sequencer,
    spot,
    time_of,
)
from hypothesis import given
from hypothesis import strategies as st
from test_risk import margins_of

from schemas import log_records as records
from schemas import refusals
from schemas.catalogue import Catalogue
from schemas.decisions import STATES
from schemas.risk_parameters import Reporter, RiskParameters, SpotReporters, parameters_digest, parameters_document
from schemas.topics import MARKET_LOG, QUARANTINE
from streams.cli.surface_source import follow, heard_of
from streams.engine.sequence import Sequencer
from streams.engine.spot_reports import Heard, ToldSpot, median_usd9
from streams.engine.tick_state import TickState
from streams.simulate.in_process import Pipeline

USD = 10**9
NAMES = ("a", "b", "c")
GOVERNED = SpotReporters(reporters=tuple(Reporter(source=n) for n in NAMES), quorum=2, report_age_max_ms=1_500)


def told(reporter: str, number: int, price_usd: float, of: str = "X", before_ms: int = 100) -> dict:
    """A reporter's price in block `number`."""
    return spot(f"{reporter}{of}{number}-{before_ms}", of, time_of(number) - before_ms, price_usd, reporter)


def by_all(number: int, price_usd: float = 100.0) -> list[dict]:
    """The other underlyings, and X where all agree."""
    prices = {"X": price_usd, "Y": 10.0, "S": 1.0}
    return [told(name, number, usd, of, 500) for of, usd in prices.items() for name in NAMES]


def world(blocks: list[list[dict]], governed: SpotReporters = GOVERNED, cash_usd: float = 1_000.0) -> Inputs:
    """Block 0 and these prices of X in the blocks behind it (the others are told again by all); `a` is long a unit of
    X-PERP."""
    inputs, listed = Inputs(), listings(RiskParameters(spot_reporters=governed))
    inputs.add_listings(listed)
    surfaces = [tick for tick in genesis_ticks() if tick["type"] == "surface"]
    inputs.add_block(
        0, [cash("c0", 0, "a", cash_usd), fill("f0", 0, "a", "X-PERP", 100, 100)], by_all(0) + surfaces, len(listed)
    )
    for number, ticks in enumerate(blocks, start=1):
        others = [tick for tick in by_all(number) if tick["underlying"] != "X"]
        inputs.add_block(number, [], others + ticks, len(listed))
    return inputs


def spots(run: Pipeline) -> list[tuple[float, int]]:
    """(price of X in USD, held) at every barrier."""
    heads = [(raw, records.read_header(raw)) for raw in run.values(MARKET_LOG)]
    found = [records.read_barrier(raw, head).market.spots for raw, head in heads if head.kind == records.BARRIER]
    return [(int(row[0]["spot_usd9"]) / USD, int(row[0]["held"])) for row in found]


def combined(run: Pipeline, block: int) -> dict[int, np.void]:
    """The last CONSENSUS_ROW of a block by underlying."""
    found = {}
    for raw in run.values(MARKET_LOG):
        head = records.read_header(raw)
        if head.block == block and head.kind in (records.MARKET, records.BARRIER):
            is_barrier = head.kind == records.BARRIER
            market = records.read_barrier(raw, head).market if is_barrier else records.read_market(raw, head)
            found |= {-1 - int(row["expiry"]): row for row in market.consensus}
    return found


@pytest.mark.parametrize("lie_usd", [0.01, 50.0, 99.0, 103.0, 10_000.0])
def test_a_liar_moves_nothing_and_is_named(lie_usd: float) -> None:
    run = world([[told("a", 1, 101), told("b", 1, 102), told("c", 1, lie_usd)]]).pipeline(1)
    price_usd, held = spots(run)[1]
    assert 101 <= price_usd <= 102
    assert held == 0
    row = combined(run, 1)[0]
    is_far = abs(lie_usd / price_usd - 1) > 0.01
    assert (int(row["refused"]), int(row["counted"]), int(row["outliers"])) == (0, 0b111, 0b100 if is_far else 0)
    heard = [
        [name, 1, [time_of(1) - 100, f"{name}X1-100", round(usd * USD)]]
        for name, usd in zip(NAMES, (101, 102, lie_usd))
    ]
    assert row["digest"].tobytes() == hashlib.blake2b(orjson.dumps(heard), digest_size=16).digest()


def test_the_surface_command_names_them() -> None:
    log = list(
        enumerate(world([[told("a", 1, 101), told("b", 1, 102), told("c", 1, 50)]]).pipeline(1).values(MARKET_LOG))
    )
    catalogue, _, at = follow(log, None)
    heard_last = heard_of(log, at, catalogue)[records.spot_place(0)]
    assert heard_last[:4] == (0, ["a", "b", "c"], ["c"], False)


def test_a_late_one_is_passed_over_and_the_others_go_on() -> None:
    """c falls silent after block 0: from block 2 on the two others are the quorum."""
    run = world([[told("a", n, 100 + n), told("b", n, 100 + n)] for n in range(1, 5)]).pipeline(1)
    assert spots(run) == [(100, 0), (101, 0), (102, 0), (103, 0), (104, 0)]
    assert int(combined(run, 4)[0]["counted"]) == 0b011


def test_a_minority_alone_is_not_believed_and_the_index_is_degraded_until_there_is_a_quorum_again() -> None:
    blocks = [[told("a", n, 150)] for n in range(1, 6)] + [[told(name, 6, 104) for name in NAMES]]
    run = world(blocks).pipeline(1)
    assert spots(run) == [(100, 0), (100, 0), (100, 1), (100, 1), (100, 1), (100, 1), (104, 0)]
    assert [int(combined(run, n)[0]["refused"]) for n in (3, 6)] == [1, 0]


def test_silence_alone_degrades() -> None:
    assert spots(world([[]] * 3).pipeline(1)) == [(100, 0), (100, 0), (100, 1), (100, 1)]


def test_while_degraded_a_governed_move_of_the_delta_is_asked_for_and_liquidates_nobody() -> None:
    """1 unit of a perpetual at 100: 5 USD more, in MM and IM; `a` has 2 USD above MM and is called, not flagged."""
    rich = margins_of(world([[]] * 3).pipeline(1))
    rise = rich[3, "a"]["add_ons_usd6"] - rich[1, "a"]["add_ons_usd6"]
    assert rise == 5_000_000
    for field in ("initial_margin_usd6", "maintenance_margin_usd6"):
        assert rich[3, "a"][field] - rich[1, "a"][field] == rise
    line_usd = rich[1, "a"]["maintenance_margin_usd6"] / 10**6
    for cash_usd, state in ((line_usd + 2, "margin_call"), (line_usd - 0.01, "liquidatable")):
        found = margins_of(world([[]] * 3, cash_usd=cash_usd).pipeline(1))
        assert found[3, "a"]["state"] == STATES.index(state)


def test_who_is_not_governed_is_not_heard() -> None:
    run = world([[told("stranger", 1, 200)]]).pipeline(1)
    (found,) = (orjson.loads(raw) for raw in run.values(QUARANTINE))
    assert (found["reason"], found["field"]) == (refusals.UNKNOWN_REPORTER, "source")
    assert spots(run)[1] == (100, 0)


def test_weight_counts_beside_heads() -> None:
    """c has more than half of the weight: without it there is no quorum, with it its price is the median."""
    heavy = SpotReporters(
        reporters=(*GOVERNED.reporters[:2], Reporter(source="c", weight=5)), quorum=2, report_age_max_ms=1_500
    )
    silent = [[told("a", n, 110), told("b", n, 110)] for n in (1, 2)]
    spoken = [[told("a", 3, 110), told("c", 3, 103)]]
    assert spots(world(silent + spoken, heavy).pipeline(1)) == [(100, 0), (100, 0), (100, 1), (103, 0)]


def test_until_a_quorum_has_spoken_there_is_no_price() -> None:
    catalogue, state, p = Catalogue(), TickState(), RiskParameters(spot_reporters=GOVERNED)
    catalogue.apply({"type": "underlying", "underlying": "X"})
    assert state.absorb(told("a", 1, 100), catalogue, p) is None
    assert not state.spot_usd9
    assert state.absorb(told("c", 1, 102), catalogue, p) is None
    assert state.spot_usd9 == {0: 100 * USD}


def test_an_older_word_that_comes_late_says_nothing_and_a_late_new_one_counts_from_now() -> None:
    catalogue, state, p = Catalogue(), TickState(), RiskParameters(spot_reporters=GOVERNED)
    catalogue.apply({"type": "underlying", "underlying": "X"})
    for tick in (
        told("a", 1, 100),
        told("b", 1, 100),
        told("c", 1, 100),
        told("a", 2, 110),
        told("a", 1, 1, before_ms=200),
    ):
        assert state.absorb(tick, catalogue, p) is None
    assert state.spot_usd9 == {0: 100 * USD}
    assert state.absorb(told("b", 1, 108, before_ms=50), catalogue, p) is None  # older than a's, newer than b's own
    assert state.spot_usd9 == {0: 108 * USD}
    assert state.spot_key[0][0] == time_of(2) - 100


# -- the median


def heard(prices: list[int], weights: list[int]) -> list[Heard]:
    return [
        Heard(n, str(n), w, ToldSpot(0, "", price)) for n, (price, w) in enumerate(zip(prices, weights, strict=True))
    ]


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 5)), min_size=1, max_size=9), st.integers(0, 10**6))
def test_the_median_is_one_and_nearest_to_the_last(told: list[tuple[int, int]], last: int) -> None:
    """By the definition, over every value: at most half of the weight on either side of it."""
    spread = sorted(price for price, weight in told for _ in range(weight))
    low, high = spread[(len(spread) - 1) // 2], spread[len(spread) // 2]
    prices, weights = ([one[n] for one in told] for n in (0, 1))
    assert median_usd9(heard(prices, weights), last) == min(max(last, low), high)


@given(st.lists(st.integers(1, 10**6), min_size=3, max_size=3), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_minority_moves_it_nowhere_the_honest_are_not(honest: list[int], lie: int, last: int) -> None:
    """Three honest of four or five: between them. One honest beside one liar: no further than the honest says."""
    for lies in ([lie], [lie, lie]):
        assert min(honest) <= median_usd9(heard(honest + lies, [1] * (3 + len(lies))), last) <= max(honest)
    one = honest[0]
    assert min(one, last) <= median_usd9(heard([one, lie], [1, 1]), last) <= max(one, last)


# -- recorded, replayable


def test_any_order_and_a_restart_at_any_record_write_the_same_log() -> None:
    blocks = [[told(name, n, 100 + n + place / 3) for place, name in enumerate(NAMES)] for n in range(1, 4)]
    inputs = world([*blocks, [told("a", 4, 90)], [], [told("b", 6, 104), told("c", 6, 105)], []])
    expected = inputs.pipeline(4).values(MARKET_LOG)
    valid = [raw for raw in expected if records.read_header(raw).kind != records.FENCE]
    for seed in range(4):
        store, rng = LogStore(inputs), random.Random(seed)
        machine = new_sequencer()
        store.append(machine.start())
        for _ in range(rng.randrange(4, 60)):
            if not (logs := store.readable(machine)):
                break
            store.append(store.feed(machine, rng.choice(logs)))
        machine = Sequencer.load(machine.dump(), b"again")
        store.append(machine.start())
        store.run(machine, rng)
        assert store.decisions() == valid


@given(st.permutations(range(12)))
def test_any_order_of_arrival_is_one_order_and_one_price(order: list[int]) -> None:
    """A block's ticks shuffled on the way: the log has one market."""
    ticks = [
        told(name, 1, 100 + place + n, before_ms=100 * n + 50) for place, name in enumerate(NAMES) for n in range(4)
    ]
    runs = [world([list(found)]).pipeline(1) for found in (ticks, [ticks[n] for n in order])]
    first, second = (run.values(MARKET_LOG) for run in runs)
    assert first == second


def test_last_words_survive_a_checkpoint() -> None:
    catalogue, p = Catalogue(), RiskParameters(spot_reporters=GOVERNED)
    catalogue.apply({"type": "underlying", "underlying": "X"})
    straight = restarted = TickState()
    for n in range(1, 8):
        for name in NAMES[: 1 + n % 3]:
            restarted = TickState.from_plain(orjson.loads(orjson.dumps(restarted.copy().to_plain())))
            for state in (straight, restarted):
                state.absorb(told(name, n, 100 + n * 1.5), catalogue, p)
        rows = [state.rows(catalogue, time_of(n), p).spots.tolist() for state in (straight, restarted)]
        assert rows[0] == rows[1]
    assert straight.to_plain() == restarted.to_plain()
    plain = straight.to_plain()
    del plain["spot_reports"], plain["spoken"]  # written before there were any
    assert TickState.from_plain(plain).spot_usd9 == straight.spot_usd9


def test_a_document_that_says_nothing_of_it_is_what_it_was() -> None:
    plain = parameters_document(RiskParameters())
    assert "spot_reporters" not in plain
    assert "pegs" not in plain["depeg"]
    assert parameters_digest(RiskParameters()) == "2fdec050fd2b5bb489dca1e7870db002"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"reporters": (Reporter(source="a"),) * 2}, "spot_reporters: a is named twice"),
        ({"reporters": (Reporter(source="a"),), "quorum": 2}, "spot_reporters: quorum 2 of 1 reporters"),
    ],
)
def test_governed_reporters_must_make_sense(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SpotReporters(**fields)
