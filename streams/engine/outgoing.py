"""What the sequencer writes: refusals as records of the quarantine, events as packed records of account.log."""

from __future__ import annotations

import base64

import numpy as np

from schemas import log_records as records
from schemas import refusals
from schemas.catalogue import Instrument
from schemas.codec import encode
from schemas.decisions import Quarantined
from schemas.quantities import CASH_MAX_USD6, LOT_VALUE_MAX_USD6, notional_usd6
from schemas.refusals import Refusal
from schemas.topics import INPUT_BYTES_MAX, INPUTS, QUARANTINE
from streams.engine.account_events import Row, side_of
from streams.engine.intake import Candidate, Refused
from streams.engine.output import Output

SHOWN_MAX = 200  # characters of a field or detail in quarantine


def quarantined(refused: Refused) -> Output:
    """A refusal as a record of the quarantine, keyed by its origin."""
    refusal, kept = refused.refusal, refused.raw[:INPUT_BYTES_MAX]
    value = Quarantined(
        1, refusal.reason, _shown(refusal.field), _shown(refusal.detail), refused.topic, refused.partition,
        refused.offset, refused.place, base64.b64encode(kept).decode(),
        len(refused.raw) if len(kept) < len(refused.raw) else None,
    )  # fmt: skip
    key = f"{refused.topic}/{refused.partition}/{refused.offset}/{refused.place}"
    return Output(QUARANTINE, 0, key.encode(), encode(value))


def _shown(text: str) -> str:
    """Names in bad input have any length."""
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "..."


def quarantine_of(candidate: Candidate, refusal: Refusal) -> Output:
    origin = (INPUTS[candidate.rank], candidate.partition, candidate.offset, candidate.place)
    return quarantined(Refused(refusal, *origin, candidate.raw))


def size_refusal(event: dict, instrument: Instrument, spot_usd9: int) -> Refusal | None:
    """Bounds of one event, so that no single one brings an account out of the range of its integers."""
    for price_usd9 in (event.get("price_usd9") or 0, spot_usd9):
        if notional_usd6(1, price_usd9, instrument.lot_exponent) > LOT_VALUE_MAX_USD6:
            detail = f"a lot of {instrument.symbol} is worth more than {LOT_VALUE_MAX_USD6} micro-USD"
            return Refusal(refusals.POSITION_LIMIT, detail, "instrument")
        if abs(notional_usd6(event["lots"], price_usd9, instrument.lot_exponent)) > CASH_MAX_USD6:
            return Refusal(refusals.POSITION_LIMIT, f"worth more than {CASH_MAX_USD6} micro-USD", "lots")
    return None


def orders_refusal(event: dict, instrument: Instrument, spot_usd9: int) -> Refusal | None:
    """Open orders without a price (nobody could say what they cost), or beyond what one fill may be."""
    for name in ("buy", "sell"):
        lots, price_usd9 = side_of(event, name)
        if lots and not price_usd9:
            return Refusal(refusals.MISSING_FIELD, f"{name}_lots need a price", f"{name}_price_usd9")
        refusal = size_refusal({"lots": lots, "price_usd9": price_usd9}, instrument, spot_usd9)
        if refusal is not None:
            return Refusal(refusal.reason, refusal.detail, refusal.field.replace("lots", f"{name}_lots"))
    return None


def pack_events(header: records.Header, partition: int, found: list[tuple[str | None, Row]]) -> bytes:
    names = list(dict.fromkeys(account for account, _ in found if account is not None))
    index: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    index[None] = records.EVERY_ACCOUNT
    rows = np.zeros(len(found), records.EVENT_ROW)
    for row, (account, (kind, instrument, lots, price, cash)) in zip(rows, found, strict=True):
        row["kind"], row["account"], row["instrument"] = kind, index[account], instrument
        row["lots"], row["price_usd9"], row["cash_usd6"] = lots, price, cash
    head = records.pack_header(
        records.EVENTS,
        header.number,
        header.block,
        header.time_ms,
        header.block_hash,
        entries=len(rows),
        partition=partition,
        version=header.version,
    )
    return records.pack_events(head, records.Events(names, rows))
