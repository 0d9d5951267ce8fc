"""Why an account got where it is: the risk machine is run again over the log, and looked at from one account.

Pure: records in, a story out. The numbers are those of the run to the bit, because the machine is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np

from oracles.scenario_set import ScenarioSet
from schemas import log_records as records
from schemas.codec import decode_output
from schemas.decisions import STATES
from schemas.topics import ACCOUNT_LOG, MARGIN_CALLS, MARGIN_WARNINGS
from streams.engine.enforcement import RETRACTION
from streams.engine.reports import greeks_of, margin_of
from streams.engine.risk import Risk
from streams.engine.tables import TableCache

Record = tuple[int, bytes]  # offset in the account's partition, value
EVENT_NAMES = {
    records.FILL: "fill",
    records.CASH: "cash",
    records.COLLATERAL_ADD: "collateral",
    records.COLLATERAL_SET: "collateral restated",
    records.BUY_ORDERS: "open to buy",
    records.SELL_ORDERS: "open to sell",
}


def accounts_in(log: Iterable[Record]) -> list[str]:
    """Names of all accounts that a partition's log speaks of, sorted."""
    names: set[str] = set()
    for _, raw in log:
        header = records.read_header(raw)
        if header.kind == records.EVENTS:
            names.update(records.read_events(raw, header).names)
    return sorted(names)


class Tracer:
    """Follows one account through its partition's log; `story` is a list of plain steps.

    Steps: {"step": "event" | "warning" | "margin" | "call", "block", "time_ms", ...}. A margin step stands at every
    barrier at which the account was computed. Steps of blocks that the chain has left are no part of the story.
    """

    def __init__(
        self, account: str, partition: int, scenario_sets: dict[str, ScenarioSet], genesis: bytes | None = None
    ) -> None:
        self.account, cache = account, TableCache(scenario_sets.__getitem__)
        self.risk = Risk(partition, cache) if genesis is None else Risk.load(genesis, cache)
        self.story: list[dict[str, Any]] = []
        self.estimate_usd6: float | None = None  # by Greeks, at the record before

    def follow(self, log: Iterable[Record], on_block: Callable[[int], None] = lambda _: None) -> list[dict[str, Any]]:
        """Run all records; `on_block` hears of every barrier. Returns the story."""
        for offset, raw in log:
            header = records.read_header(raw)
            before = self._greeks(), self.risk.events
            told = [
                (output.topic, decode_output(output.value or b""))
                for outputs in self.risk.steps(ACCOUNT_LOG, self.risk.partition, offset, raw)
                for output in outputs
                if output.topic in (MARGIN_WARNINGS, MARGIN_CALLS)
            ]
            if header.kind == records.EVENTS and self.risk.events != before[1]:
                self._take_events(header, records.read_events(raw, header), before[0])
            self._take_decisions(told)
            if header.kind == records.ROLLBACK:
                self.story = [step for step in self.story if step["block"] <= self.risk.block]
            if header.kind == records.BARRIER:
                self._take_margin(header)
                on_block(header.block)
            self.estimate_usd6 = self._estimate()
        return self.story

    # -- what the machine knows of the account

    def _row(self) -> int | None:
        return self.risk.book.row_of.get(self.account)

    def _greeks(self) -> list[dict[str, Any]]:
        row = self._row()
        return [] if row is None else [msgspec.to_builtins(greeks) for greeks in greeks_of(self.risk, row)]

    def _estimate(self) -> float | None:
        """NLV by Greeks at the present market."""
        row = self._row()
        if row is None or row >= len(self.risk.lines.base_usd6):
            return None
        risk = self.risk
        estimate = risk.lines.estimate(row, risk.book, risk.market, risk.keyframe, risk.guard_usd9())
        return estimate if np.isfinite(estimate) else None

    # -- steps

    def _add(self, step: str, block: int, time_ms: int, **what: Any) -> None:
        self.story.append({"step": step, "block": block, "time_ms": time_ms, **what})

    def _take_events(self, header: records.Header, events: records.Events, greeks_before: list[dict[str, Any]]) -> None:
        """The account's events of a record; Greeks before and after them all."""
        if self.account not in events.names:
            return
        mine = events.rows[events.rows["account"] == events.names.index(self.account)]
        instruments = self.risk.catalogue.instruments
        found = []
        for row in mine:
            kind = int(row["kind"])
            event: dict[str, Any] = {"kind": EVENT_NAMES[kind]}
            if kind == records.CASH:
                event["cash_usd6"] = int(row["cash_usd6"])
            else:
                listed = instruments[int(row["instrument"])]
                event |= {"instrument": listed.symbol, "lots": int(row["lots"]), "lot_exponent": listed.lot_exponent}
            if kind == records.FILL:
                event["price_usd9"] = int(row["price_usd9"])
            found.append(event)
        what = {"events": found, "greeks_before": greeks_before, "greeks_after": self._greeks()}
        self._add("events", header.block, header.time_ms, **what)

    def _take_decisions(self, told: list[tuple[str, dict[str, Any]]]) -> None:
        for topic, record in told:
            for event in record["events"]:
                if event["account"] == self.account and event["type"] != RETRACTION:
                    step = "warning" if topic == MARGIN_WARNINGS else "call"
                    extra = {"estimate_before_usd6": self.estimate_usd6} if step == "warning" else {}
                    self._add(step, event["block"], event["time_ms"], **extra, event=event)

    def _take_margin(self, header: records.Header) -> None:
        """The account's margin at a barrier, and its Greeks at the new marks."""
        row, margins = self._row(), self.risk.margins
        if row is None or row >= len(margins.state):
            return
        names = tuple(stress.name for stress in self.risk.parameters.stress_rows)
        margin = msgspec.to_builtins(margin_of(margins, row, names))
        state = STATES[int(margins.state[row])]
        self._add("margin", header.block, header.time_ms, state=state, margin=margin, greeks=self._greeks())


def with_liquidations(story: list[dict[str, Any]], liquidations: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The story with enforcement's events of this account, each after all else of its block."""
    liquidations = list(liquidations)
    retracted = {event.get("retracts") for event in liquidations}
    added = [
        {"step": "liquidation", "block": event["block"], "time_ms": event["time_ms"], "event": event}
        for event in liquidations
        if event["type"] != RETRACTION and event["id"] not in retracted
    ]
    return sorted([*story, *added], key=lambda step: (step["block"], step["step"] == "liquidation"))


def told(story: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps worth telling: margins only where events or warnings came and no call says the same, first and last."""
    marked = {step["block"] for step in story if step["step"] in ("events", "warning")}
    marked -= {step["block"] for step in story if step["step"] == "call"}
    margins = [step["block"] for step in story if step["step"] == "margin"]
    marked.update(margins[:1] + margins[-1:])
    return [step for step in story if step["step"] != "margin" or step["block"] in marked]
