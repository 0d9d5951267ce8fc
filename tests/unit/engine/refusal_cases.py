"""Bad inputs, one of every kind, and what quarantine must say of them."""

from __future__ import annotations

from typing import NamedTuple

import orjson
from engine_worlds import (
    EXPIRY_MS,
    block,
    coins,
    event,
    fill,
    funding,
    hash_of,
    instrument,
    option,
    option_name,
    quote,
    spot,
    surface,
    time_of,
    transfer,
)

from schemas import refusals
from schemas.events import RECORD_EVENTS_MAX
from schemas.topics import ACCOUNT_FILLS, CHAIN_BLOCKS, INSTRUMENTS, ORACLE_TICKS

GOOD_FILL = fill("bad", 1, "a", "X-PERP", 1, 100)
GOOD_TICK = spot("bad", "X", time_of(1) - 10, 101)
FORWARD = event(
    "forward", "bad", source="a", time_ms=time_of(1) - 10, underlying="X", expiry_ms=EXPIRY_MS, price_usd9=10**11
)


class Case(NamedTuple):
    """`bad` arrives at block 1 of a running world; `reason` and `field` are what quarantine must say."""

    name: str
    topic: str
    bad: dict | list | bytes
    reason: str
    field: str


def changed(good: dict, **fields: object) -> dict:
    return {k: v for k, v in {**good, **fields}.items() if v is not ...}


def nested(good: dict, levels: int) -> bytes:
    """The event with arrays within arrays behind its last field: still JSON."""
    return orjson.dumps(good)[:-1] + b',"more":' + b"[" * levels + b"]" * levels + b"}"


def number(good: dict, text: bytes) -> bytes:
    """The event with its lots written as `text`."""
    return orjson.dumps(good).replace(b'"lots":1', b'"lots":' + text)


CASES = [
    Case("not JSON", ACCOUNT_FILLS, b"{", refusals.MALFORMED, ""),
    Case("empty", ORACLE_TICKS, b"", refusals.MALFORMED, ""),
    Case("invalid UTF-8", ACCOUNT_FILLS, b'{"type":"\xff"}', refusals.MALFORMED, ""),
    Case("lone surrogate", ACCOUNT_FILLS, b'{"type":"\\ud800"}', refusals.MALFORMED, ""),
    Case("NaN", ORACLE_TICKS, b'{"type":"spot","price_usd9":NaN}', refusals.MALFORMED, ""),
    Case("infinite", ORACLE_TICKS, b'{"type":"spot","price_usd9":Infinity}', refusals.MALFORMED, ""),
    Case("no object", CHAIN_BLOCKS, b"17", refusals.MALFORMED, ""),
    Case("empty array", ACCOUNT_FILLS, b"[]", refusals.MALFORMED, ""),
    Case("unknown type", ACCOUNT_FILLS, changed(GOOD_FILL, type="bill"), refusals.UNKNOWN_TYPE, "type"),
    Case("no type", ACCOUNT_FILLS, changed(GOOD_FILL, type=...), refusals.UNKNOWN_TYPE, "type"),
    Case("type of another topic", ORACLE_TICKS, GOOD_FILL, refusals.UNKNOWN_TYPE, "type"),
    Case("type is no text", ORACLE_TICKS, changed(GOOD_TICK, type=7), refusals.UNKNOWN_TYPE, "type"),
    Case("unknown version", ACCOUNT_FILLS, changed(GOOD_FILL, version=2), refusals.UNKNOWN_VERSION, "version"),
    Case("version is text", ORACLE_TICKS, changed(GOOD_TICK, version="1"), refusals.UNKNOWN_VERSION, "version"),
    Case("no version", ORACLE_TICKS, changed(GOOD_TICK, version=...), refusals.MISSING_FIELD, "version"),
    Case("no lots", ACCOUNT_FILLS, changed(GOOD_FILL, lots=...), refusals.MISSING_FIELD, "lots"),
    Case("unknown field", ACCOUNT_FILLS, changed(GOOD_FILL, lot=1), refusals.UNKNOWN_FIELD, "lot"),
    Case("lots are text", ACCOUNT_FILLS, changed(GOOD_FILL, lots="1"), refusals.WRONG_TYPE, "lots"),
    Case("half a lot", ACCOUNT_FILLS, changed(GOOD_FILL, lots=0.5), refusals.WRONG_TYPE, "lots"),
    Case("price is null", ORACLE_TICKS, changed(GOOD_TICK, price_usd9=None), refusals.WRONG_TYPE, "price_usd9"),
    Case("price 0", ORACLE_TICKS, changed(GOOD_TICK, price_usd9=0), refusals.OUT_OF_RANGE, "price_usd9"),
    Case("price too high", ORACLE_TICKS, changed(GOOD_TICK, price_usd9=10**18), refusals.OUT_OF_RANGE, "price_usd9"),
    Case("lots beyond", ACCOUNT_FILLS, changed(GOOD_FILL, lots=2**40), refusals.OUT_OF_RANGE, "lots"),
    Case("empty name", ACCOUNT_FILLS, changed(GOOD_FILL, account=""), refusals.OUT_OF_RANGE, "account"),
    Case(
        "bad hash", CHAIN_BLOCKS, changed(block(5, time_of(5), 0, 0, None), hash="0x12"), refusals.OUT_OF_RANGE, "hash"
    ),
    Case(
        "unknown instrument",
        ACCOUNT_FILLS,
        changed(GOOD_FILL, instrument="Z"),
        refusals.UNKNOWN_INSTRUMENT,
        "instrument",
    ),
    Case("coins of a perpetual", ACCOUNT_FILLS, coins("bad", 1, "a", "X-PERP", 5), refusals.WRONG_KIND, "instrument"),
    Case(
        "no price yet",
        ACCOUNT_FILLS,
        changed(GOOD_FILL, instrument="Q-PERP"),
        refusals.INSTRUMENT_UNPRICED,
        "instrument",
    ),
    Case(
        "no surface yet",
        ACCOUNT_FILLS,
        changed(GOOD_FILL, instrument=option_name(100, "call", EXPIRY_MS + 1)),
        refusals.INSTRUMENT_UNPRICED,
        "instrument",
    ),
    Case("huge lot", ACCOUNT_FILLS, changed(GOOD_FILL, instrument="X-HUGE"), refusals.POSITION_LIMIT, "instrument"),
    Case("huge value", ACCOUNT_FILLS, changed(GOOD_FILL, lots=2**40 - 1), refusals.POSITION_LIMIT, "lots"),
    Case("closed block", ACCOUNT_FILLS, changed(GOOD_FILL, block=0), refusals.BLOCK_CLOSED, "block"),
    Case("id of another fill", ACCOUNT_FILLS, changed(GOOD_FILL, id="f0"), refusals.IDENTITY_CONFLICT, "id"),
    Case("id within the block", ACCOUNT_FILLS, changed(GOOD_FILL, id="f1"), refusals.IDENTITY_CONFLICT, "id"),
    Case("id of another tick", ORACLE_TICKS, changed(GOOD_TICK, id="gx0"), refusals.IDENTITY_CONFLICT, "id"),
    Case(
        "id of another listing",
        INSTRUMENTS,
        event("underlying", "u-X", underlying="X2"),
        refusals.IDENTITY_CONFLICT,
        "id",
    ),
    Case("late tick", ORACLE_TICKS, changed(GOOD_TICK, time_ms=time_of(0) - 2_001), refusals.LATE_TICK, "time_ms"),
    Case(
        "tick of nothing listed",
        ORACLE_TICKS,
        changed(GOOD_TICK, underlying="Z"),
        refusals.UNKNOWN_UNDERLYING,
        "underlying",
    ),
    Case("forward of no expiry", ORACLE_TICKS, changed(FORWARD, expiry_ms=7), refusals.UNKNOWN_EXPIRY, "expiry_ms"),
    Case("forward far off", ORACLE_TICKS, changed(FORWARD, price_usd9=10**13), refusals.OUT_OF_RANGE, "price_usd9"),
    Case(
        "forward before index",
        ORACLE_TICKS,
        changed(FORWARD, underlying="Q"),
        refusals.UNKNOWN_UNDERLYING,
        "underlying",
    ),
    Case("expiry too far", ORACLE_TICKS, changed(FORWARD, expiry_ms=2**42), refusals.OUT_OF_RANGE, "expiry_ms"),
    Case(
        "quote of nothing listed",
        ORACLE_TICKS,
        quote("bad", time_of(1), "Z", 1),
        refusals.UNKNOWN_INSTRUMENT,
        "instrument",
    ),
    Case(
        "quote of a perpetual", ORACLE_TICKS, quote("bad", time_of(1), "X-PERP", 1), refusals.WRONG_KIND, "instrument"
    ),
    Case(
        "mark 0",
        ORACLE_TICKS,
        quote("bad", time_of(1), option_name(100, "call"), 0),
        refusals.OUT_OF_RANGE,
        "mark_usd9",
    ),
    Case(
        "slice without width",
        ORACLE_TICKS,
        changed(surface("bad", time_of(1)), sigma_e9=0),
        refusals.OUT_OF_RANGE,
        "sigma_e9",
    ),
    Case(
        "block with another hash",
        CHAIN_BLOCKS,
        changed(block(0, time_of(0), 3, 4, 0), hash=hash_of(9)),
        refusals.BLOCK_CONFLICT,
        "hash",
    ),
    Case(
        "block announced twice", CHAIN_BLOCKS, block(2, time_of(2) + 7, 1, 1, None), refusals.BLOCK_CONFLICT, "number"
    ),
    Case(
        "close of another hash",
        CHAIN_BLOCKS,
        {"type": "block_close", "version": 1, "number": 2, "hash": hash_of(7)},
        refusals.BLOCK_CONFLICT,
        "hash",
    ),
    Case(
        "close of no block",
        CHAIN_BLOCKS,
        {"type": "block_close", "version": 1, "number": 9, "hash": hash_of(9)},
        refusals.BLOCK_UNKNOWN,
        "number",
    ),
    Case("underlying twice", INSTRUMENTS, event("underlying", "bad", underlying="X"), refusals.LISTING_REFUSED, ""),
    Case("instrument of nothing", INSTRUMENTS, instrument("Z-P", "Z", "perpetual"), refusals.LISTING_REFUSED, ""),
    Case(
        "option without expiry",
        INSTRUMENTS,
        instrument("X-C", "X", "call", strike_usd9=1),
        refusals.LISTING_REFUSED,
        "",
    ),
    Case(
        "dated perpetual", INSTRUMENTS, instrument("X-C", "X", "perpetual", expiry_ms=1), refusals.LISTING_REFUSED, ""
    ),
    Case(
        "call without strike",
        INSTRUMENTS,
        instrument("X-C", "X", "call", expiry_ms=EXPIRY_MS),
        refusals.LISTING_REFUSED,
        "",
    ),
    Case("strike 0", INSTRUMENTS, changed(option(100, "call"), strike_usd9=0), refusals.OUT_OF_RANGE, "strike_usd9"),
    Case(
        "event of a branch that is dead for good",
        ACCOUNT_FILLS,
        changed(GOOD_FILL, block=0, block_hash=hash_of(9)),
        refusals.BLOCK_RETRACTED,
        "block",
    ),
    Case(
        "bad parameters",
        INSTRUMENTS,
        event("parameters", "bad", document={"version": "two"}),
        refusals.LISTING_REFUSED,
        "",
    ),
    Case(
        "no stress rows",
        INSTRUMENTS,
        event("parameters", "bad", document={"stress_rows": []}),
        refusals.LISTING_REFUSED,
        "",
    ),
    Case(
        "integer beyond 64 bits",
        ACCOUNT_FILLS,
        orjson.dumps(GOOD_FILL).replace(b'"lots":1', b'"lots":1' + b"0" * 30),
        refusals.WRONG_TYPE,
        "lots",
    ),
    Case("byte order mark", ORACLE_TICKS, b"\xef\xbb\xbf" + orjson.dumps(GOOD_TICK), refusals.MALFORMED, ""),
    Case("two values", ACCOUNT_FILLS, orjson.dumps(GOOD_FILL) * 2, refusals.MALFORMED, ""),
    Case("array in an array", ACCOUNT_FILLS, [[GOOD_FILL]], refusals.MALFORMED, ""),
    Case("nested 300 deep", ACCOUNT_FILLS, nested(GOOD_FILL, 300), refusals.MALFORMED, ""),
    Case("nested 100,000 deep", ORACLE_TICKS, b"[" * 100_000, refusals.MALFORMED, ""),
    Case(
        "parameters nested 300 deep",
        INSTRUMENTS,
        nested(event("parameters", "bad", document={}), 300),
        refusals.MALFORMED,
        "",
    ),
    Case("too many events", ACCOUNT_FILLS, b"[" + b"1," * RECORD_EVENTS_MAX + b"1]", refusals.MALFORMED, ""),
    Case("number beyond doubles", ACCOUNT_FILLS, number(GOOD_FILL, b"1e400"), refusals.MALFORMED, ""),
    Case("whole number as a float", ACCOUNT_FILLS, number(GOOD_FILL, b"1.0"), refusals.WRONG_TYPE, "lots"),
    Case("lots are true", ACCOUNT_FILLS, changed(GOOD_FILL, lots=True), refusals.WRONG_TYPE, "lots"),
    Case("document is an array", INSTRUMENTS, event("parameters", "bad", document=[]), refusals.WRONG_TYPE, "document"),
    Case(
        "strike is text",
        INSTRUMENTS,
        changed(option(100, "call"), strike_usd9="100"),
        refusals.WRONG_TYPE,
        "strike_usd9",
    ),
    Case(
        "bid is text",
        ORACLE_TICKS,
        {**quote("bad", time_of(1), "Z", 1), "bid_usd9": "1"},
        refusals.WRONG_TYPE,
        "bid_usd9",
    ),
    Case("lot exponent 7", INSTRUMENTS, instrument("X-L", "X", "perpetual", 7), refusals.OUT_OF_RANGE, "lot_exponent"),
    Case(
        "lot exponent -13", INSTRUMENTS, instrument("X-L", "X", "perpetual", -13), refusals.OUT_OF_RANGE, "lot_exponent"
    ),
    Case(
        "strike beyond",
        INSTRUMENTS,
        changed(option(100, "call"), strike_usd9=10**17 + 1),
        refusals.OUT_OF_RANGE,
        "strike_usd9",
    ),
    Case("kind of another venue", INSTRUMENTS, instrument("X-S", "X", "swap"), refusals.OUT_OF_RANGE, "kind"),
    Case(
        "factor above one",
        INSTRUMENTS,
        instrument("X-S", "X", "spot", collateral_factor_e6=1_000_001),
        refusals.OUT_OF_RANGE,
        "collateral_factor_e6",
    ),
    Case("time before the epoch", ORACLE_TICKS, changed(GOOD_TICK, time_ms=-1), refusals.OUT_OF_RANGE, "time_ms"),
    Case(
        "time in nanoseconds",
        ORACLE_TICKS,
        changed(GOOD_TICK, time_ms=time_of(1) * 10**6),
        refusals.OUT_OF_RANGE,
        "time_ms",
    ),
    Case(
        "negative block",
        CHAIN_BLOCKS,
        changed(block(5, time_of(5), 0, 0, None), number=-1),
        refusals.OUT_OF_RANGE,
        "number",
    ),
    Case(
        "negative count",
        CHAIN_BLOCKS,
        changed(block(5, time_of(5), 0, 0, None), event_count=-1),
        refusals.OUT_OF_RANGE,
        "event_count",
    ),
    Case(
        "hash and a newline",
        CHAIN_BLOCKS,
        changed(block(5, time_of(5), 0, 0, None), hash=hash_of(5) + "\n"),
        refusals.OUT_OF_RANGE,
        "hash",
    ),
    Case(
        "hash in capitals",
        CHAIN_BLOCKS,
        changed(block(5, time_of(5), 0, 0, None), hash="0x" + "AB" * 32),
        refusals.OUT_OF_RANGE,
        "hash",
    ),
    Case("id of 65 characters", ACCOUNT_FILLS, changed(GOOD_FILL, id="x" * 65), refusals.OUT_OF_RANGE, "id"),
    Case(
        "escape sequence in a name",
        ACCOUNT_FILLS,
        changed(GOOD_FILL, account="a\x1b[2J"),
        refusals.OUT_OF_RANGE,
        "account",
    ),
    Case("name ends in a newline", ACCOUNT_FILLS, changed(GOOD_FILL, account="a\n"), refusals.OUT_OF_RANGE, "account"),
    Case("funding of a future", ACCOUNT_FILLS, funding("bad", 1, "X-FUT", 1), refusals.WRONG_KIND, "instrument"),
    Case("funding unpriced", ACCOUNT_FILLS, funding("bad", 1, "Q-PERP", 1), refusals.INSTRUMENT_UNPRICED, "instrument"),
    Case(
        "funding beyond a tenth",
        ACCOUNT_FILLS,
        funding("bad", 1, "X-PERP", -10.1),
        refusals.OUT_OF_RANGE,
        "amount_usd9",
    ),
    Case(
        "transfer to another owner",
        ACCOUNT_FILLS,
        transfer("bad", 1, "a", "b/a", amount_usd6=1),
        refusals.TRANSFER_REFUSED,
        "to",
    ),
    Case(
        "transfer to itself",
        ACCOUNT_FILLS,
        transfer("bad", 1, "a", "a", amount_usd6=1),
        refusals.TRANSFER_REFUSED,
        "to",
    ),
    Case(
        "transfer of nothing", ACCOUNT_FILLS, transfer("bad", 1, "a", "a/b"), refusals.TRANSFER_REFUSED, "amount_usd6"
    ),
    Case(
        "transfer of two things",
        ACCOUNT_FILLS,
        transfer("bad", 1, "a", "a/b", amount_usd6=1, instrument="X", lots=1),
        refusals.TRANSFER_REFUSED,
        "amount_usd6",
    ),
    Case(
        "transfer of a position without price",
        ACCOUNT_FILLS,
        transfer("bad", 1, "a", "a/b", instrument="X-PERP", lots=1),
        refusals.TRANSFER_REFUSED,
        "price_usd9",
    ),
    Case("expired", ACCOUNT_FILLS, changed(GOOD_FILL, instrument="X-OVER"), refusals.INSTRUMENT_EXPIRED, "instrument"),
]
