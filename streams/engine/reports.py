"""Turns of the risk machine into output records, with dense sequence numbers per topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET, UnsetType

from schemas import log_records as records
from schemas.codec import encode
from schemas.decisions import (
    BINDING_TERMS,
    STATES,
    BlockDone,
    Call,
    CallRecord,
    Greeks,
    Margin,
    MarginWarning,
    Position,
    Retraction,
    WarningRecord,
)
from schemas.margin_batch import SCHEMA, BatchHead, encode_batch
from schemas.quantities import USD9_PER_USD6, divide_half_even
from schemas.risk_parameters import VenueStress
from schemas.topics import BLOCKS_DONE, MARGIN_BATCHES, MARGIN_CALLS, MARGIN_WARNINGS, RISK_OUTPUTS, VENUE_PARTS
from streams.engine.book import INSTRUMENT_MASK
from streams.engine.lines import LINE_NAMES
from streams.engine.margin import HEALTHY, LIQUIDATABLE, Margins, cure
from streams.engine.output import Output
from streams.engine.screen import KEEP_A_BOUND
from streams.engine.tables import Tables
from streams.engine.venue_parts import part_of
from streams.engine.warn import WarningDue

if TYPE_CHECKING:
    from streams.engine.risk import Risk
    from streams.engine.undo import Said

VERSION = 1


class Reporter:
    """Counters of one partition: records per topic, events per topic."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.record_seq = dict.fromkeys(RISK_OUTPUTS, 0)
        self.event_seq = {MARGIN_WARNINGS: 0, MARGIN_CALLS: 0}
        self.block_calls = 0
        self.epoch = 0  # rollbacks so far

    def _next(self, topic: str) -> int:
        self.record_seq[topic] += 1
        return self.record_seq[topic]

    def _next_event(self, topic: str) -> int:
        self.event_seq[topic] += 1
        return self.event_seq[topic]

    def _output(self, topic: str, block: int, value: bytes) -> Output:
        return Output(topic, self.partition, f"{block}/{self.partition}".encode(), value)

    # -- warnings

    def warnings(self, state: Risk, header: records.Header, due: list[WarningDue]) -> list[Output]:
        """One record for all warnings of one log record."""
        names = tuple(row.name for row in state.parameters.stress_rows)
        events = []
        for warning in due:
            account = state.book.accounts[warning.row]
            event_id = f"{header.number}/{account}/{LINE_NAMES[warning.line]}"
            state.undo.say(MARGIN_WARNINGS, header.block, account, event_id)
            events.append(
                MarginWarning(
                    seq=self._next_event(MARGIN_WARNINGS),
                    id=event_id,
                    account=account,
                    block=header.block,
                    time_ms=header.time_ms,
                    line=LINE_NAMES[warning.line],
                    trigger=warning.trigger,
                    estimate_usd6=_whole_estimate(warning),
                    margin=margin_of(warning.exact, warning.place, names),
                    greeks=greeks_of(state, warning.row),
                    epoch=self.epoch or UNSET,
                )
            )
        seq = self._next(MARGIN_WARNINGS)
        record = WarningRecord(VERSION, self.partition, seq, header.block, tuple(events), self.epoch or UNSET)
        return [self._output(MARGIN_WARNINGS, header.block, encode(record))]

    # -- calls

    def calls(
        self, state: Risk, header: records.Header, tables: Tables, rows: np.ndarray, old_state: np.ndarray
    ) -> list[Output]:
        """Changes of state of `rows`, most severe first, then by account; nothing if there are none."""
        if not len(rows):
            return []
        margins, accounts = state.margins, state.book.accounts
        names = tuple(row.name for row in state.parameters.stress_rows)
        ordered = sorted(rows.tolist(), key=lambda row: (-int(margins.state[row]), accounts[row]))
        events = tuple(self._call(state, header, tables, row, int(old_state[row]), names) for row in ordered)
        self.block_calls += len(events)
        seq = self._next(MARGIN_CALLS)
        record = CallRecord(VERSION, self.partition, seq, header.block, events, self.epoch or UNSET)
        return [self._output(MARGIN_CALLS, header.block, encode(record))]

    def _call(
        self, state: Risk, header: records.Header, tables: Tables, row: int, old: int, names: tuple[str, ...]
    ) -> Call:
        account, new = state.book.accounts[row], int(state.margins.state[row])
        nlv, initial = int(state.margins.nlv_usd6[row]), int(state.margins.initial_margin_usd6[row])
        event_id = f"{header.block}/{account}/{STATES[new]}" + self._of_epoch()
        state.undo.say(MARGIN_CALLS, header.block, account, event_id)
        return Call(
            seq=self._next_event(MARGIN_CALLS),
            id=event_id,
            account=account,
            block=header.block,
            time_ms=header.time_ms,
            from_state=STATES[old],
            to_state=STATES[new],
            margin=margin_of(state.margins, row, names),
            cure=None if new == HEALTHY else cure(nlv, initial),
            positions=positions_of(state, row, tables) if new >= LIQUIDATABLE else (),
            cash_usd6=int(state.book.cash_usd6[row]),
            epoch=self.epoch or UNSET,
        )

    def _of_epoch(self) -> str:
        """Behind an id that a block of the same number may have had before the last rollback."""
        return f"/{self.epoch}" if self.epoch else ""

    # -- blocks

    def batch(self, state: Risk, header: records.Header) -> Output:
        """Every account's margin."""
        block_hash = "0x" + header.block_hash.hex()
        seq = self._next(MARGIN_BATCHES)
        head = BatchHead(self.partition, seq, header.block, block_hash, header.time_ms, self.epoch)
        columns = {name: getattr(state.margins, name) for name in SCHEMA.names if name != "account"}
        columns["stress_row"] = columns["stress_row"].astype(np.int16)
        return self._output(MARGIN_BATCHES, header.block, encode_batch(head, state.book.accounts, columns))

    def block_done(
        self,
        state: Risk,
        header: records.Header,
        tables: Tables | None,
        first: int,
        stages: dict[str, int],
        rollback_from: int | UnsetType = UNSET,
    ) -> Output:
        """The partition has computed the block (or only carried it along, where it is not evaluated)."""
        counts = np.bincount(state.margins.state, minlength=len(STATES))
        done = BlockDone(
            version=VERSION,
            partition=self.partition,
            seq=self._next(BLOCKS_DONE),
            block=header.block,
            block_hash="0x" + header.block_hash.hex(),
            time_ms=header.time_ms,
            accounts=len(state.book.accounts),
            events=state.events,
            evaluated=tables is not None,
            first=first,
            wide=int(state.margins.wide.sum()),
            warnings=state.warned,
            calls=self.block_calls,
            states={name: int(counts[code]) for code, name in enumerate(STATES)},
            state_digest=state.state_digest(),
            table_digest=tables.digest if tables is not None else "",
            scenario_digest=state.scenario_digest,
            parameter_version=state.parameters.version,
            stages=stages,
            bound=sum(stages.get(name, 0) for name in KEEP_A_BOUND),
            epoch=self.epoch or UNSET,
            rollback_from=rollback_from,
            liquidation_depth_blocks=state.parameters.liquidation_depth_blocks or UNSET,
            bids=state.bids or UNSET,
        )
        self.block_calls = 0
        return self._output(BLOCKS_DONE, header.block, encode(done))

    def venue_part(self, state: Risk, asked: VenueStress, header: records.Header, tables: Tables) -> Output:
        """The partition's share of the stress of the venue."""
        part = part_of(state, asked, tables, header, self._next(VENUE_PARTS))
        return self._output(VENUE_PARTS, header.block, encode(part))

    def halted(self, block: int, reason: str) -> Output:
        """The partition stands still from here on, and why."""
        done = BlockDone(
            version=VERSION, partition=self.partition, seq=self._next(BLOCKS_DONE), block=block, block_hash="",
            time_ms=0, accounts=0, events=0, evaluated=False, first=0, wide=0, warnings=0, calls=self.block_calls,
            states={}, state_digest="", table_digest="", scenario_digest="", parameter_version=0, halted=reason,
            epoch=self.epoch or UNSET,
        )  # fmt: skip
        return self._output(BLOCKS_DONE, block, encode(done))

    def rolled_back(
        self, state: Risk, header: records.Header, rollback: records.Rollback, said: list[Said]
    ) -> list[Output]:
        """Retractions of what was said of the blocks that are gone, and the mark that the state is an earlier one."""
        out = []
        of_topic = {topic: [one for one in said if one.topic == topic] for topic in (MARGIN_WARNINGS, MARGIN_CALLS)}
        for (topic, found), kind in zip(of_topic.items(), (WarningRecord, CallRecord), strict=True):
            if found:
                events = tuple(self._retraction(one, rollback.epoch) for one in found)
                record = kind(VERSION, self.partition, self._next(topic), header.block, events, self.epoch)
                out.append(self._output(topic, header.block, encode(record)))
        self.block_calls, state.warned = len(of_topic[MARGIN_CALLS]), len(of_topic[MARGIN_WARNINGS])
        out.append(self.block_done(state, header, None, 0, {}, rollback.from_block))
        state.warned = 0
        return out

    def _retraction(self, said: Said, epoch: int) -> Retraction:
        return Retraction(
            seq=self._next_event(said.topic),
            id=retraction_id(said.event_id, epoch),
            account=said.account,
            block=said.block,
            retracts=said.event_id,
            epoch=epoch,
        )

    def to_plain(self) -> dict:
        return vars(self)

    @classmethod
    def from_plain(cls, plain: dict) -> Reporter:
        reporter = cls(plain["partition"])
        reporter.record_seq |= plain["record_seq"]  # a dump before venue.parts does not have it
        reporter.event_seq = plain["event_seq"]
        reporter.block_calls, reporter.epoch = plain["block_calls"], plain["epoch"]
        return reporter


def retraction_id(event_id: str, epoch: int) -> str:
    return f"{event_id}/retracted/{epoch}"


def margin_of(margins: Margins, place: int, stress_names: tuple[str, ...]) -> Margin:
    """Entry `place` of the arrays as an output value."""
    row = int(margins.stress_row[place])
    return Margin(
        nlv_usd6=int(margins.nlv_usd6[place]),
        equity_usd6=int(margins.equity_usd6[place]),
        initial_margin_usd6=int(margins.initial_margin_usd6[place]),
        maintenance_margin_usd6=int(margins.maintenance_margin_usd6[place]),
        expected_shortfall_usd6=int(margins.expected_shortfall_usd6[place]),
        stress_loss_usd6=int(margins.stress_loss_usd6[place]),
        short_option_minimum_usd6=int(margins.short_option_minimum_usd6[place]),
        add_ons_usd6=int(margins.add_ons_usd6[place]),
        binding=BINDING_TERMS[int(margins.binding[place])],
        stress=stress_names[row] if row >= 0 else "",
    )


def positions_of(state: Risk, row: int, tables: Tables) -> tuple[Position, ...]:
    """The account's whole portfolio at the tables' marks."""
    found = []
    leg = state.book.leg_slice(row)
    for at in range(leg.start, leg.stop):
        index = int(state.book.keys[at]) & INSTRUMENT_MASK
        value = state.book.value_usd6(at, int(tables.columns_usd9[0, index]))
        found.append(Position(state.catalogue.instruments[index].symbol, int(state.book.lots[at]), value))
    return tuple(found)


def greeks_of(state: Risk, row: int) -> tuple[Greeks, ...]:
    """Greeks of an account, one entry an underlying, in whole micro-USD."""
    found = []
    for underlying, *greeks_usd9 in state.book.pairs_of(row).tolist():
        symbol = state.catalogue.underlyings[underlying].symbol
        found.append(Greeks(symbol, *(divide_half_even(value, USD9_PER_USD6) for value in greeks_usd9)))
    return tuple(found)


def _whole_estimate(warning: WarningDue) -> int:
    """Estimates are shown to the micro-USD; where there is none (wide accounts) the exact NLV stands for it."""
    estimate_usd6 = float(warning.estimate_usd6)
    return round(estimate_usd6) if np.isfinite(estimate_usd6) else int(warning.exact.nlv_usd6[warning.place])
