"""Golden samples, one of every message: what was written is read as the same value and written as the same bytes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

GOLDEN = Path(__file__).parents[2] / "golden"
sys.path.insert(0, str(GOLDEN))
import make_samples as samples  # noqa: E402

from schemas import log_records as r  # noqa: E402
from schemas.codec import decode_inputs, encode  # noqa: E402
from schemas.events import INPUT_TYPES  # noqa: E402
from schemas.margin_batch import decode_batch  # noqa: E402


def test_every_file_has_a_sample_and_every_sample_a_file() -> None:
    kept = {p.name for p in GOLDEN.iterdir() if p.suffix in (".json", ".bin", ".arrow")} - {"portfolios.json"}
    assert kept == set(samples.files())


@pytest.mark.parametrize("name", samples.files())
def test_written_as_the_golden_bytes(name: str) -> None:
    """Arrow's own writer may change its padding: there the value is compared, below."""
    if not name.endswith(".arrow"):
        assert samples.files()[name] == (GOLDEN / name).read_bytes()


@pytest.mark.parametrize("name", samples.INPUTS)
def test_input_is_read_as_its_value(name: str) -> None:
    topic, value = samples.INPUTS[name]
    ((found, refusal, _),) = decode_inputs(topic, (GOLDEN / f"{name}.json").read_bytes())
    assert refusal is None
    assert found == value


def test_every_input_type_has_a_sample() -> None:
    types = {t for union in INPUT_TYPES.values() for t in getattr(union, "__args__", (union,))}
    assert types == {type(value) for _, value in samples.INPUTS.values()}


@pytest.mark.parametrize("name", samples.OUTPUTS)
def test_output_is_read_as_its_value(name: str) -> None:
    value = samples.OUTPUTS[name]
    found = msgspec.json.decode((GOLDEN / f"{name}.json").read_bytes(), type=type(value))
    assert found == value
    assert encode(found) == (GOLDEN / f"{name}.json").read_bytes()


def golden_record(name: str) -> tuple[bytes, r.Header]:
    raw = (GOLDEN / f"{name}.bin").read_bytes()
    return raw, r.read_header(raw)


def test_market_record() -> None:
    raw, header = golden_record("market")
    assert header == r.Header(r.MARKET, r.EVERY_PARTITION, 2, 2, 17, samples.T, samples.RAW_HASH)
    market = r.read_market(raw, header)
    assert np.array_equal(market.spots, samples.SPOTS)
    assert np.array_equal(market.expiries, samples.EXPIRIES)


def test_barrier_record() -> None:
    raw, header = golden_record("barrier")
    barrier = r.read_barrier(raw, header)
    assert (header.number, header.block, header.entries) == (3, 17, 4)
    assert barrier.counts.tolist() == [3, 0, 1, 0]
    assert barrier.evaluate is True
    assert np.array_equal(barrier.settlements, samples.SETTLEMENTS)
    assert np.array_equal(barrier.market.spots, samples.SPOTS)
    assert np.array_equal(barrier.market.expiries, samples.EXPIRIES)


@pytest.mark.parametrize("name", ["market", "barrier"])
def test_guards_of_a_record(name: str) -> None:
    """Behind the rows; a record without them has none."""
    read = {"market": r.read_market, "barrier": lambda *found: r.read_barrier(*found).market}[name]
    plain, guarded = read(*golden_record(name)), read(*golden_record(f"{name}_guards"))
    assert (len(plain.collateral), len(plain.consensus)) == (0, 0)
    assert np.array_equal(guarded.collateral, samples.COINS)
    assert np.array_equal(guarded.consensus, samples.COMBINED)
    assert np.array_equal(guarded.expiries, plain.expiries)


def test_a_spot_that_is_held_and_who_spoke_of_it() -> None:
    market = r.read_market(*golden_record("market_spot_held"))
    assert np.array_equal(market.spots, samples.HELD_SPOTS)
    assert (market.spots["held"].tolist(), market.consensus["expiry"].tolist()) == ([1], [-1])
    assert np.array_equal(market.consensus, samples.COMBINED_SPOT)


def test_events_record() -> None:
    raw, header = golden_record("events")
    events = r.read_events(raw, header)
    assert (header.partition, header.entries) == (2, 3)
    assert events.names == ["alice", "bób"]
    assert np.array_equal(events.rows, samples.ROWS)


def test_funding_is_a_row_of_no_account() -> None:
    raw, header = golden_record("events_funding")
    events = r.read_events(raw, header)
    assert events.names == []
    assert np.array_equal(events.rows, samples.FUNDED)


def test_listings_and_fence_records() -> None:
    raw, header = golden_record("listings")
    assert (header.entries, r.read_listings(raw)) == (1, [{"type": "underlying", "underlying": "Ω"}])
    raw, header = golden_record("fence")
    assert (header.kind, raw[r.HEADER.size :]) == (r.FENCE, b"0123456789abcdef")
    raw, header = golden_record("bids")
    (bid,) = r.read_bids(raw)
    assert (header.kind, header.entries, bid["id"], bid["price_usd6"], bid["state_id"]) == (r.BIDS, 1, "b-1", -2, "")
    raw, header = golden_record("seal")
    assert (header.kind, header.block, r.read_seal(raw)) == (r.SEAL, 7, r.Seal(2, 8))


def test_rollback_record() -> None:
    raw, header = golden_record("rollback")
    assert (header.kind, header.number, header.block, header.entries) == (r.ROLLBACK, 4, 16, 0)
    assert r.read_rollback(raw) == r.Rollback(1, 17)
    with pytest.raises(r.RecordError, match="record ends at byte"):
        r.read_rollback(raw[:-1])


def test_margin_batch() -> None:
    head, table = decode_batch((GOLDEN / "margin_batch.arrow").read_bytes())
    assert head == samples.BATCH_HEAD
    rows = table.to_pylist()
    assert [row["account"] for row in rows] == samples.BATCH_ACCOUNTS
    assert all(row[name] == samples.BATCH[name][n] for n, row in enumerate(rows) for name in samples.BATCH)
    written = decode_batch(samples.files()["margin_batch.arrow"])
    assert written[0] == head
    assert written[1].equals(table, check_metadata=True)


@pytest.mark.parametrize("name", ["block_done", "risk_parameters"])
def test_what_was_written_before_fields_were_added_is_read(name: str) -> None:
    """Without its last fields a message has their defaults, the rest as it was."""
    raw, value = (GOLDEN / "earlier" / f"{name}.json").read_bytes(), samples.OUTPUTS[name]
    found = msgspec.json.decode(raw, type=type(value))
    earlier = msgspec.json.decode(raw)
    written = msgspec.json.decode(encode(found))
    assert _common(written, earlier) == earlier
    assert len(written) > len(earlier)


def _common(written: Any, earlier: Any) -> Any:
    """What the earlier message had of it, at any depth."""
    if isinstance(earlier, dict):
        return {field: _common(written[field], value) for field, value in earlier.items()}
    if isinstance(earlier, list):
        assert len(written) == len(earlier)
        return [_common(one, other) for one, other in zip(written, earlier, strict=True)]
    return written


def test_a_batch_without_keyframes_is_exact_throughout() -> None:
    head, table = decode_batch((GOLDEN / "earlier" / "margin_batch.arrow").read_bytes())
    assert table.column("keyframe_block").to_pylist() == [head.block] * table.num_rows
    assert table.column_names == list(samples.SCHEMA.names)


@pytest.mark.parametrize("name", samples.RECORDS)
@pytest.mark.parametrize("cut", [0, 1, 71])
def test_cut_header_is_an_error(name: str, cut: int) -> None:
    with pytest.raises(r.RecordError, match="shorter than a header"):
        r.read_header(samples.RECORDS[name][:cut])


@pytest.mark.parametrize("name", ["market", "barrier", "events", "market_guards", "barrier_guards"])
def test_cut_rows_are_an_error(name: str) -> None:
    raw, header = golden_record(name)
    read = {"market": r.read_market, "barrier": r.read_barrier, "events": r.read_events}[name.split("_")[0]]
    with pytest.raises(r.RecordError, match="record ends at byte"):
        read(raw[:-1], header)
