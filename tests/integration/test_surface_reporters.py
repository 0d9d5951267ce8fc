"""Three reporters of prices and surfaces on a broker, one lying, one late: what the pure engine makes of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from test_partition_change import Installation, _remove_all, of_outputs

from schemas import log_records as records
from schemas.events import ParametersListing, SpotTick, SurfaceTick
from schemas.risk_parameters import Reporter, RiskParameters, SpotReporters, parameters_document
from schemas.topics import MARKET_LOG
from streams.replay.world import BlockInputs, World
from streams.runtime.kafka_process import Broker
from tests.chaos.arena import read_back
from tests.chaos.world import chaos_world

BLOCKS = 14
SILENT = range(5, 10)  # blocks in which the late one says nothing
NAMES = ("honest", "late", "liar")
PARAMETERS = RiskParameters(
    surface_reporters=tuple(Reporter(source=name) for name in NAMES), surface_quorum=3, surface_report_age_max_ms=2_500,
    spot_reporters=SpotReporters(
        reporters=tuple(Reporter(source=name) for name in NAMES), quorum=2, report_age_max_ms=2_500
    ),
)  # fmt: skip
COUNTED, LIED = 0b111, 0b100
EXPIRY = 2  # the last one of BTC


def told(reporter: str, block: int, surface: SurfaceTick, time_ms: int) -> SurfaceTick:
    """The honest follow the market up; the liar says four times the variance."""
    level = (1.0 + block / 200) * (4.0 if reporter == "liar" and block else 1.0)
    changed: dict[str, Any] = {"id": f"{reporter}-{block}-{surface.id}", "source": reporter, "time_ms": time_ms}
    return structs.replace(surface, a_e9=int(surface.a_e9 * level), b_e9=int(surface.b_e9 * level), **changed)


def told_spot(reporter: str, block: int, spot: SpotTick) -> SpotTick:
    """The liar says four times the price."""
    price_usd9 = spot.price_usd9 * (4 if reporter == "liar" and block else 1)
    return structs.replace(spot, id=f"{reporter}-{spot.id}", source=reporter, price_usd9=price_usd9)


def world() -> World:
    """The chaos world, prices told by every reporter, surfaces again in every block, and no other quotes."""
    made = chaos_world(seed=11, blocks=BLOCKS, events=300)
    document = parameters_document(PARAMETERS)
    listings = [structs.replace(x, document=document) if isinstance(x, ParametersListing) else x for x in made.listings]
    blocks, surfaces = [], list[SurfaceTick]()
    for number, inputs in enumerate(made.blocks):
        surfaces = surfaces or [tick for tick in inputs.ticks if isinstance(tick, SurfaceTick)]
        who = [name for name in NAMES if name != "late" or number not in SILENT]
        spots = [tick for tick in inputs.ticks if isinstance(tick, SpotTick)]
        ticks: list[Any] = [told_spot(name, number, spot) for name in who for spot in spots]
        ticks += [told(name, number, surface, inputs.block.time_ms) for name in who for surface in surfaces]  # type: ignore[attr-defined]
        block = structs.replace(inputs.block, tick_count=len(ticks))  # type: ignore[type-var]
        blocks.append(BlockInputs(block, inputs.events, ticks))
    return World(made.name, listings, made.scenario_set, PARAMETERS, BLOCKS, iter(blocks))


def test_a_liar_is_outvoted_and_a_late_one_degrades(broker: Broker, tmp_path: Path) -> None:
    installation = Installation(broker, tmp_path, world())
    try:
        installation.run(installation.blocks)
        pure = installation.pure(installation.blocks)
        assert installation.outputs(0, 2) == of_outputs(pure)
        decided = _decisions(installation)
        valid = [raw for raw in pure.values(MARKET_LOG) if records.read_header(raw).kind != records.FENCE]
        assert decided == valid
        check(valid)
        check_spots(valid)
    finally:
        asyncio.run(_remove_all(installation.config))


def check(log: list[bytes]) -> None:
    """Of the last expiry of BTC: the honest level while all three speak, the last one and degraded while not."""
    rows, combined = dict[int, Any](), dict[int, Any]()
    for raw in log:
        header = records.read_header(raw)
        if header.kind not in (records.MARKET, records.BARRIER):
            continue
        is_barrier = header.kind == records.BARRIER
        market = records.read_barrier(raw, header).market if is_barrier else records.read_market(raw, header)
        for kept, found in ((rows, market.expiries), (combined, market.consensus)):
            for row in found[found["expiry"] == EXPIRY]:
                kept[header.block] = row
    missing = [number for number in SILENT if number >= SILENT.start + 2]
    assert [number for number, row in rows.items() if row["held"]] == missing
    start = int(rows[0]["a_e9"])
    for number in (1, 4, 10, 13):
        assert int(rows[number]["a_e9"]) == pytest.approx(start * (1 + number / 200), rel=5e-3)
    assert {int(rows[number]["a_e9"]) for number in missing} == {int(rows[missing[0] - 1]["a_e9"])}
    assert [number for number, row in combined.items() if row["refused"]] == missing
    heard = {(int(row["counted"]), int(row["outliers"])) for n, row in combined.items() if n >= SILENT.stop}
    assert heard == {(COUNTED, LIED)}


def check_spots(log: list[bytes]) -> None:
    """While two of three are heard, one of them lying, every index stays one that the honest have told."""
    honest = {
        tick.price_usd9
        for inputs in world().blocks
        for tick in inputs.ticks
        if tick.source == "honest" and isinstance(tick, SpotTick)
    }
    found = [records.read_barrier(raw, h).market.spots for raw, h in _with_headers(log) if h.kind == records.BARRIER]
    assert {int(price) for spots in found for price in spots["spot_usd9"]} <= honest
    assert not any(spots["held"].any() for spots in found)
    assert len(found) == BLOCKS


def _with_headers(log: list[bytes]) -> list[tuple[bytes, records.Header]]:
    return [(raw, records.read_header(raw)) for raw in log]


def _decisions(installation: Installation) -> list[bytes]:
    """What the workers decided in market.log, once each."""
    recorded = asyncio.run(read_back(installation.config.settings(), 2))
    found: dict[int, bytes] = {}
    for record in recorded[MARKET_LOG, 0]:
        header = records.read_header(record.value)
        if header.kind != records.FENCE:
            found.setdefault(header.number, record.value)
    return [found[number] for number in sorted(found)]
