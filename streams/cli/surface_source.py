"""Where `dpme surface` takes a surface from: a file of quotes, which is fitted, or the log of a run, as recorded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

from oracles.option_quotes import Defect, Finding
from oracles.surface import Chain, FittedExpiry, fit_surface, judged
from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.risk_parameters import RiskParameters, parse_parameters
from schemas.topics import MARKET_LOG
from streams.cli.errors import CommandError
from streams.cli.recorded_run import Record, Source, near_matches, reading, source_of
from streams.engine.market import RecordedMarket
from streams.engine.tick_state import reporters_of
from streams.replay.option_chains import read_markets


class Heard(NamedTuple):
    """Whose word an expiry of a run was last made of, who was far off, and the digest of what was heard; `refused`: too
    few, or nothing that they agree on. `expiry_ms` 0: the index price."""

    expiry_ms: int
    counted: list[str]
    outliers: list[str]
    refused: bool
    digest: str


class Surface(NamedTuple):
    """A surface to draw; `heard` where reporters are governed."""

    underlying: str
    time_ms: int
    origin: str
    expiries: list[FittedExpiry]
    heard: tuple[Heard, ...] = ()


def of_file(path: Path | None, underlying: str | None) -> Surface:
    """Fitted from the quotes of a file; None: the recorded chain that ships with the project."""
    from streams.simulate.smiles import RECORDED

    markets = {market.underlying: market for market in read_markets(path or RECORDED)}
    market = markets[_wanted(underlying, list(markets))]
    origin = path.name if path is not None else f"shipped recorded chain {RECORDED.name}"
    return Surface(market.underlying, market.time_ms, origin, fit_surface(market.chains, market.time_ms))


def of_run(data: Path, underlying: str | None, block: int | None) -> Surface:
    """Recorded slices of a run at the close of a block (None: the newest market record)."""
    with source_of(data, None) as source:
        log = asyncio.run(_market_log(source))
    catalogue, market, at = follow(log, block)
    with_surface = sorted({catalogue.expiries[e].underlying for e in _living(market)})
    names = [catalogue.underlyings[u].symbol for u in with_surface]
    if not names:
        raise CommandError("the run has recorded no volatility surface" + (f" up to block {block}" if block else ""))
    wanted = _wanted(underlying, names)
    chosen = [e for e in _living(market) if catalogue.underlyings[catalogue.expiries[e].underlying].symbol == wanted]
    slices = [(catalogue.expiries[e].expiry_ms, tuple(int(v) for v in market.expiries[e, 2:7])) for e in chosen]
    forwards = {catalogue.expiries[e].expiry_ms: int(market.expiries[e, 0]) for e in chosen}
    degraded = {catalogue.expiries[e].expiry_ms for e in chosen if market.degraded[e]}
    found = [
        e._replace(
            chain=Chain(e.chain.expiry_ms, forwards[e.chain.expiry_ms], 0, []),
            smile=e.smile._replace(findings=[Finding(Defect.HELD, 0)] if e.chain.expiry_ms in degraded else []),
        )
        for e in judged(slices, market.time_ms)  # type: ignore[arg-type]
    ]
    of_it = {*chosen, records.spot_place(catalogue.underlying_index[wanted])}
    heard = tuple(h for e, h in sorted(heard_of(log, at, catalogue).items()) if e in of_it)
    return Surface(wanted, market.time_ms, f"recorded at block {at}", found, heard)


async def _market_log(source: Source) -> list[Record]:
    async with reading(source) as reader:
        return await reader.log(MARKET_LOG, 0)


def follow(log: list[Record], block: int | None) -> tuple[Catalogue, RecordedMarket, int]:
    """-> (what is listed, the market, the block it is of) at the last record of the log, or at a block's barrier."""
    catalogue, market, at = Catalogue(), RecordedMarket(), 0
    seen = -1
    for _, raw in log:
        header = records.read_header(raw)
        if header.kind == records.FENCE or header.number <= seen:
            continue
        seen = header.number
        if header.kind == records.LISTINGS:
            _list(catalogue, raw)
        market.fit_to(catalogue)
        if header.kind == records.MARKET:
            market.record(records.read_market(raw, header), header.time_ms)
        if header.kind == records.BARRIER:
            barrier = records.read_barrier(raw, header)
            market.record(barrier.market, header.time_ms)
            market.settled[barrier.settlements["expiry"]] = True
            at = header.block
            if block is not None and at >= block:
                break
    if block is not None and at < block:
        raise CommandError(f"the run has not reached block {block}: its last is {at}")
    return catalogue, market, at


def heard_of(log: list[Record], until_block: int, catalogue: Catalogue) -> dict[int, Heard]:
    """Expiry (an index: its `spot_place`) -> whom its last combination until a block was made of."""
    found, p = dict[int, Heard](), RiskParameters()
    for _, raw in log:
        header = records.read_header(raw)
        if header.kind == records.LISTINGS:
            for listing in records.read_listings(raw):
                if listing["type"] == "parameters" and catalogue.refusal(listing) is None:
                    p = parse_parameters(listing["document"])
        if header.kind not in (records.MARKET, records.BARRIER) or header.block > until_block:
            continue
        is_tick = header.kind == records.MARKET
        market = records.read_market(raw, header) if is_tick else records.read_barrier(raw, header).market
        for row in market.consensus:
            reporters = reporters_of("spot" if row["expiry"] < 0 else "surface", p)
            counted, outliers = ([r.source for n, r in enumerate(reporters) if int(row[f]) >> n & 1] for f in _BITS)
            expiry_ms = catalogue.expiries[row["expiry"]].expiry_ms if row["expiry"] >= 0 else 0
            digest = row["digest"].tobytes().hex()
            found[int(row["expiry"])] = Heard(expiry_ms, counted, outliers, bool(row["refused"]), digest)
    return found


_BITS = ("counted", "outliers")


def _list(catalogue: Catalogue, raw: bytes) -> None:
    for listing in records.read_listings(raw):
        if catalogue.refusal(listing) is None:
            catalogue.apply(listing)


def _living(market: RecordedMarket) -> list[int]:
    """Expiries that have a slice and are not settled."""
    has_slice = (market.expiries[:, 2] != 0) | (market.expiries[:, 3] != 0)
    return [int(e) for e in (has_slice & ~market.settled).nonzero()[0]]


def _wanted(name: str | None, names: list[str]) -> str:
    if name is None:
        return names[0]
    if name not in names:
        raise CommandError(f"no surface of {name!r}: there is {near_matches(name, names)}")
    return name
