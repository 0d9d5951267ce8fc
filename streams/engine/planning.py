"""What the sequencer proposes next: a pure reading of its state (on copies: only carrying out changes it)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import orjson

from schemas import log_records as records
from schemas.log_records import Barrier, Market, Rollback
from schemas.quantities import ONE_E6
from schemas.topics import RECORD_BYTES_MAX
from streams.engine.account_events import accounts_of
from streams.engine.intake import BIDS, EVENTS

if TYPE_CHECKING:
    from streams.engine.intake import Candidate
    from streams.engine.sequence import Sequencer
    from streams.engine.tick_state import TickState

TICK_AHEAD_MAX_MS = (
    3_600_000  # live: a tick further ahead of the last block waits; a wrong clock must not set the market
)


class Step(NamedTuple):
    """A decision before it has a number."""

    kind: int
    block: int
    time_ms: int
    block_hash: bytes
    entries: int
    body: list[dict] | Market | Barrier | Rollback

    def pack(self, number: int) -> bytes:
        """The record of market.log."""
        header = records.pack_header(self.kind, number, self.block, self.time_ms, self.block_hash, entries=self.entries)
        if self.kind == records.BIDS:
            return records.pack_bids(header, self.body)  # type: ignore[arg-type]
        if self.kind == records.LISTINGS:
            return records.pack_listings(header, self.body)  # type: ignore[arg-type]
        if self.kind == records.MARKET:
            return records.pack_market(header, self.body)  # type: ignore[arg-type]
        if self.kind == records.ROLLBACK:
            return records.pack_rollback(header, self.body)  # type: ignore[arg-type]
        return records.pack_barrier(header, self.body)  # type: ignore[arg-type]


def plan_block(state: Sequencer, block: dict) -> list[Step]:
    """Steps that close `block`: listings alone if any wait, else the market ticks on the way and the close."""
    listings = plan_listings(state, block)
    if listings:
        return listings
    number, time_ms, block_hash = block["number"], block["time_ms"], bytes.fromhex(block["hash"][2:])
    steps, p = [], state.parameters
    ticks, tally = state.ticks.copy(), Tally(state, block)
    last, last_tick_ms = ticks.rows(state.catalogue, state.last_tick_ms, p), state.last_tick_ms
    for group_ms, group in _groups(state.intake.ticks_in_order(time_ms), state.last_tick_ms):
        for event in group:
            ticks.absorb(event, state.catalogue, p)
        if state.intake.closed is None or group_ms > time_ms:
            continue  # before the first barrier there is nothing to warn of; nor is there behind the close
        if not _due(state, last, ticks.spot_usd9, group_ms, last_tick_ms):
            continue
        combined = ticks.fitted(state.catalogue, group_ms, p)
        rows = ticks.rows(state.catalogue, group_ms, p)
        changed = _changed(last, rows)._replace(consensus=combined)
        if not len(changed.spots) and not len(changed.expiries):
            continue
        steps.append(Step(records.MARKET, number, group_ms, block_hash, len(changed.spots), changed))
        tally.take(group_ms, ticks)
        last, last_tick_ms = rows, group_ms
    combined = ticks.fitted(state.catalogue, time_ms, p)
    tally.take(None, ticks)
    settlements = ticks.settlements(state.catalogue, time_ms, p.settlement_window_ms)
    market = ticks.rows(state.catalogue, time_ms, p)._replace(consensus=combined)
    barrier = Barrier(tally.accepted, market, settlements, True)
    return [
        *steps,
        *plan_bids(state, block),
        Step(records.BARRIER, number, time_ms, block_hash, state.partitions, barrier),
    ]


def plan_bids(state: Sequencer, block: dict) -> list[Step]:
    """The bids of a block in the order of time and id, in as many steps as records need."""
    intake = state.intake
    waiting = [c[0] for c in intake.waiting(block["number"], block["hash"]) if c[0].rank == BIDS]
    left = sorted(
        (c for c in waiting if not intake.is_taken(c.name)), key=lambda c: (c.event["time_ms"], c.event["id"])
    )
    steps = []
    while left:
        part = _fitting(left)
        left = left[len(part) :]
        block_hash, bids = bytes.fromhex(block["hash"][2:]), [c.event for c in part]
        steps.append(Step(records.BIDS, block["number"], block["time_ms"], block_hash, len(bids), bids))
    return steps


class Tally:
    """Accepted events of the open block by partition: those in the log, and those that the steps planned put there."""

    def __init__(self, state: Sequencer, block: dict) -> None:
        self.state = state
        self.accepted = state.accepted.copy()
        waiting = state.intake.waiting(block["number"], block["hash"])
        self.waiting = [c[0] for c in waiting if c[0].rank == EVENTS]

    def take(self, until_ms: int | None, ticks: TickState) -> None:
        """Count what a step until `until_ms` (None: the close) takes, judged by the market of that step."""
        due = [c for c in self.waiting if until_ms is None or c.event["time_ms"] <= until_ms]
        self.waiting = [c for c in self.waiting if until_ms is not None and c.event["time_ms"] > until_ms]
        for candidate in due:
            if not self.state.intake.is_taken(candidate.name) and not self.state.event_refusal(candidate.event, ticks):
                for account in accounts_of(candidate.event):
                    self.accepted[self.state.partitions_of(account)] += 1


def plan_rollback(state: Sequencer) -> list[Step]:
    """Back to where the head's branch leaves that of the last closed block; where that is too deep, the end."""
    branches, tip = state.intake.branches, state.intake.branches.tip
    if tip is None or not (branches.is_off() or state.begun_for_another()):
        return []
    found = branches.closed[-1 if branches.unreachable else branches.fork - tip["number"] - 1]
    is_too_deep = bool(branches.unreachable) or not found.ticks
    target = tip if is_too_deep else found.event
    rollback = Rollback(state.epoch + 1, tip["number"])
    block_hash, entries = bytes.fromhex(target["hash"][2:]), int(is_too_deep)
    return [Step(records.ROLLBACK, target["number"], target["time_ms"], block_hash, entries, rollback)]


def plan_listings(state: Sequencer, block: dict | None) -> list[Step]:
    """Waiting listings as one step; a block that declares how many there are takes no later ones."""
    waiting = _fitting(state.intake.listings_due(block.get("listing_count") if block is not None else None))
    if not waiting:
        return []
    number = state.intake.open_number() or 0
    return [
        Step(
            records.LISTINGS, number, 0, records.NO_HASH, len(waiting), [c.event for c in state.intake.winners(waiting)]
        )
    ]


def _fitting(waiting: list[Candidate]) -> list[Candidate]:
    """The first of the listings, as many as fit a record; the others are a step of their own behind it."""
    held = 0
    for place, candidate in enumerate(waiting):
        held += len(orjson.dumps(candidate.event))
        if held > RECORD_BYTES_MAX // 2 and place:
            return waiting[:place]
    return waiting


def plan_live_tick(state: Sequencer) -> list[Step]:
    """Live: a market tick as soon as the interval is over or the market has moved enough."""
    if state.intake.closed is None or not state.intake.ticks:
        return []
    listings = plan_listings(state, None)
    if listings:
        return listings
    candidates = state.intake.ticks_in_order(state.intake.closed_time_ms + TICK_AHEAD_MAX_MS)
    if not candidates:
        return []
    ticks, p = state.ticks.copy(), state.parameters
    last = ticks.rows(state.catalogue, state.last_tick_ms, p)
    for candidate in candidates:
        ticks.absorb(candidate.event, state.catalogue, p)
    time_ms = max(candidates[-1].event["time_ms"], state.last_tick_ms)
    if not _due(state, last, ticks.spot_usd9, time_ms, state.last_tick_ms):
        return []
    combined = ticks.fitted(state.catalogue, time_ms, p)
    changed = _changed(last, ticks.rows(state.catalogue, time_ms, p))._replace(consensus=combined)
    return [Step(records.MARKET, state.intake.closed + 1, time_ms, records.NO_HASH, len(changed.spots), changed)]


def _groups(candidates: list[Candidate], last_tick_ms: int) -> list[tuple[int, list[dict]]]:
    """Ticks by their time; those older than the last market record are one group, at its time."""
    groups: dict[int, list[dict]] = {}
    for candidate in candidates:
        groups.setdefault(max(candidate.event["time_ms"], last_tick_ms), []).append(candidate.event)
    return list(groups.items())


def _due(state: Sequencer, last: Market, spot_usd9: dict[int, int], time_ms: int, last_tick_ms: int) -> bool:
    """At most one market tick an interval, unless an index has moved by the governed step since the last one."""
    if time_ms - last_tick_ms >= state.parameters.market_tick_interval_ms:
        return True
    step = state.parameters.market_tick_move_e6
    return any(
        abs(spot_usd9[int(r["underlying"])] - int(r["spot_usd9"])) * ONE_E6 >= step * int(r["spot_usd9"])
        for r in last.spots
    )


def _changed(before: Market, after: Market) -> Market:
    """Rows of `after` that are not in `before`; collateral whole."""
    spots = _rows_changed(before.spots, after.spots, "underlying")
    return after._replace(spots=spots, expiries=_rows_changed(before.expiries, after.expiries, "expiry"))


def _rows_changed(before: np.ndarray, after: np.ndarray, key: str) -> np.ndarray:
    known = {int(row[key]): row.tobytes() for row in before}
    return np.array([row for row in after if known.get(int(row[key])) != row.tobytes()], after.dtype)
