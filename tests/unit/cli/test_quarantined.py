"""Quarantined inputs as the commands see them."""

from __future__ import annotations

import orjson
import pytest

from schemas import refusals
from schemas.refusals import Refusal
from schemas.topics import INPUT_BYTES_MAX
from streams.cli.quarantined import WHAT_TO_DO, Entry, Wanted, as_text, cannot_send, entries
from streams.engine.intake import Refused
from streams.engine.outgoing import quarantined


def value_of(raw: bytes, reason: str = refusals.MALFORMED, topic: str = "account.fills", offset: int = 0) -> bytes:
    return quarantined(Refused(Refusal(reason, "why"), topic, 1, offset, 0, raw)).value or b""


def entry_of(raw: bytes, reason: str = refusals.MALFORMED, topic: str = "account.fills") -> Entry:
    (entry,) = entries([value_of(raw, reason, topic)])
    return entry


GOOD = {"type": "cash_move", "version": 1, "id": "c", "block": 7, "time_ms": 50, "account": "a", "amount_usd6": 5}


def test_every_reason_says_what_to_do() -> None:
    assert set(WHAT_TO_DO) == set(refusals.REASONS)


def test_a_repeated_quarantine_record_is_one_entry() -> None:
    found = entries([value_of(b"{"), value_of(b"{"), value_of(b"{", offset=3)])
    assert [entry.id for entry in found] == ["account.fills/1/0/0", "account.fills/1/3/0"]
    assert found[0].raw == b"{"


@pytest.mark.parametrize(
    ("wanted", "admitted"),
    [
        (Wanted(), True),
        (Wanted(reason=refusals.BLOCK_CLOSED), True),
        (Wanted(reason=refusals.LATE_TICK), False),
        (Wanted(topic="oracle.ticks"), False),
        (Wanted(block_from=7, block_to=7), True),
        (Wanted(block_from=8), False),
        (Wanted(block_to=6), False),
        (Wanted(from_ms=50), True),
        (Wanted(to_ms=49), False),
    ],
)
def test_filters(wanted: Wanted, admitted: bool) -> None:
    assert wanted.admits(entry_of(orjson.dumps(GOOD), refusals.BLOCK_CLOSED)) is admitted


@pytest.mark.parametrize("raw", [b"", b"\xff", b"17", b'{"block":true}', b'{"block":1.0}', b"[" * 2_000])
def test_what_names_no_block_is_in_no_range_of_blocks(raw: bytes) -> None:
    entry = entry_of(raw)
    assert entry.block is None
    assert not Wanted(block_from=0).admits(entry)


def test_what_would_be_refused_again_is_not_sent() -> None:
    assert "malformed" in str(cannot_send(entry_of(b"{"), None))
    assert cannot_send(entry_of(b"{"), orjson.dumps(GOOD)) is None
    assert "account" in str(cannot_send(entry_of(b"{"), orjson.dumps({**GOOD, "account": 5})))
    assert cannot_send(entry_of(orjson.dumps(GOOD), refusals.BLOCK_CLOSED), None) is None


def test_what_was_cut_is_not_sent() -> None:
    entry = entry_of(b" " * (INPUT_BYTES_MAX + 1))
    assert "bytes are kept" in str(cannot_send(entry, None))
    assert cannot_send(entry, orjson.dumps(GOOD)) is None


def test_bytes_are_shown_without_harm_to_a_terminal() -> None:
    assert as_text(b'{"a":1}', 100) == '{"a":1}'
    assert as_text(b"\x1b[2J", 100) == "1b 5b 32 4a"
    assert as_text(b"\xff\x00", 100) == "ff 00"
    assert as_text(b"x" * 11, 10) == "x" * 10 + " ... (11 bytes)"
    assert as_text("é".encode() * 9, 3).startswith("c3 a9 c3")
