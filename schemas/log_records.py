"""Packed records of `market.log` and `account.log`: little-endian, documented field by field, version 1.

The version is that of the layout and of the rules by which an engine applies a record. It is decided once, in
market.log: what is carried out from a decision has the decision's version, whoever carries it out. An engine reads
every version up to its own, and leaves a newer record untouched (`NewerEngine`): so workers are upgraded first, the
sequencer last, and from its first decision on the new rules hold for everybody. Version 3: what a degraded oracle adds
to a margin no longer liquidates (`SPARES_DEGRADED`).

Every record begins with the header (72 bytes): version u8, kind u8, partition u16 (0xFFFF: for every partition),
entries u32, number u64 (of the decision in market.log that this record belongs to), block u64, time_ms i64,
block hash 32 bytes, reserved u64. Payloads by kind:

- LISTINGS: JSON array of listings in the order in which they count; entries = events of `instruments` it settles.
- MARKET: a market tick. `entries` spot rows, then u32 expiry rows, then the rows (SPOT_ROW, EXPIRY_ROW). `held`: how
  many surfaces in a row were held back for moving too far, of a spot 1 where its reporters are no quorum; above 0 it is
  degraded.
  Behind them, where the u32 after the expiry rows' number is 1 (else 0): the guards, see below.
- BARRIER: entries = number of risk partitions; u32 each: accepted events of each partition; u32 spot rows, u32 expiry
  rows, u32 settlement rows, u8 evaluate, u8 guards, 2 bytes padding, then the rows; where guards is 1: the guards.
- Guards, at the end of a MARKET or BARRIER: u32 collateral rows, u32 consensus rows, then the rows. COLLATERAL_ROW:
  what coins of an underlying count at, for every underlying that is guarded (without a row: its spot, its factor
  whole). CONSENSUS_ROW: which reporters an expiry's row is made of, for every expiry that was made again: bits by
  their place in `surface_reporters` of the parameters, and the digest of what they said
  (streams/engine/reporters.py); the same of a spot, whose `expiry` is -1 - underlying and whose bits are places in
  `spot_reporters` (streams/engine/spot_reports.py).
- EVENTS: `entries` rows; u32 names, u16 length x names, UTF-8 names, padding to 8, then the columns of EVENT_ROW. An
  event of a block is one row, a transfer two (one a side), a funding one in every partition: `account` EVERY_ACCOUNT,
  `price_usd9` what a long pays for one unit. Open orders are two rows, what is to be bought and to be sold.
- ROLLBACK: block, time and hash are those of the block to go back to; u64 epoch that begins, u64 last block retracted
  (the same block: only what came of the open one). entries = 1: the chain left a block that is final, nothing can be
  followed any more; block, time and hash are then the last block closed.
- BIDS: JSON array of the bids of a block in their order; entries = their number. Just before the block's barrier.
- FENCE: 16 bytes token of a sequencer that begins to write (market.log only; it has no number).
- SEAL: u64 generation, u64 partitions: this log is over, the installation goes on in logs of that generation
  (market.log only; no number; block is the last one closed).
"""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import orjson

VERSION = 3
SPARES_DEGRADED = 3
LISTINGS, MARKET, BARRIER, EVENTS, FENCE, ROLLBACK, SEAL, BIDS = 1, 2, 3, 4, 5, 6, 7, 8
EVERY_PARTITION = 0xFFFF
FILL, CASH, COLLATERAL_ADD, COLLATERAL_SET, FUNDING, BUY_ORDERS, SELL_ORDERS = 1, 2, 3, 4, 5, 6, 7
EVERY_ACCOUNT = 0xFFFFFFFF
NO_HASH = bytes(32)
BID_FIELDS = ("id", "time_ms", "account", "target", "fraction_e6", "price_usd6", "state_id")

HEADER = struct.Struct("<BBHIQQq32sQ")
SPOT_ROW = np.dtype([("underlying", "<i4"), ("held", "<i4"), ("spot_usd9", "<i8"), ("volatility_e9", "<i8")])
EXPIRY_ROW = np.dtype(
    [
        ("expiry", "<i4"), ("held", "<i4"), ("forward_usd9", "<i8"), ("rate_e9", "<i8"),
        ("a_e9", "<i8"), ("b_e9", "<i8"), ("rho_e9", "<i8"), ("m_e9", "<i8"), ("sigma_e9", "<i8"),
    ]
)  # fmt: skip
SETTLEMENT_ROW = np.dtype([("expiry", "<i4"), ("reserved", "<i4"), ("price_usd9", "<i8")])
COLLATERAL_ROW = np.dtype([("underlying", "<i4"), ("halted", "<i4"), ("price_usd9", "<i8"), ("factor_cut_e6", "<i8")])
CONSENSUS_ROW = np.dtype(
    [("expiry", "<i4"), ("refused", "<i4"), ("counted", "<u8"), ("outliers", "<u8"), ("digest", "u1", (16,))]
)
EVENT_ROW = np.dtype(
    [
        ("kind", "u1"), ("reserved", "u1", (3,)), ("account", "<u4"), ("instrument", "<i4"), ("reserved2", "<i4"),
        ("lots", "<i8"), ("price_usd9", "<i8"), ("cash_usd6", "<i8"),
    ]
)  # fmt: skip


class Header(NamedTuple):
    """The common part of every packed record."""

    kind: int
    partition: int
    entries: int
    number: int
    block: int
    time_ms: int
    block_hash: bytes
    version: int = VERSION


class Market(NamedTuple):
    """Changed rows of the market: SPOT_ROW[n], EXPIRY_ROW[m]; COLLATERAL_ROW[k] whole; CONSENSUS_ROW[l] of what was
    combined."""

    spots: np.ndarray
    expiries: np.ndarray
    collateral: np.ndarray = np.zeros(0, COLLATERAL_ROW)
    consensus: np.ndarray = np.zeros(0, CONSENSUS_ROW)


class Barrier(NamedTuple):
    """The whole market at a block's close, and what each partition must have received for it."""

    counts: np.ndarray
    market: Market
    settlements: np.ndarray
    evaluate: bool


class Events(NamedTuple):
    """Account events of one block and partition, in their order; `rows["account"]` indexes `names`."""

    names: list[str]
    rows: np.ndarray


class PackedEvents(NamedTuple):
    """The same, names as they stand in the record: one after the other from `text_at` on, bytes of each uint16[n]."""

    raw: bytes
    lengths: np.ndarray
    text_at: int
    rows: np.ndarray

    def decoded(self) -> Events:
        bounds = list(accumulate(self.lengths.tolist(), initial=self.text_at))
        return Events(_names(self.raw, bounds), self.rows)


class Rollback(NamedTuple):
    """`epoch` counts the rollbacks of a log; `from_block` is the last block that is retracted."""

    epoch: int
    from_block: int


class Seal(NamedTuple):
    """Where an installation goes on whose log is over."""

    generation: int
    partitions: int


class RecordError(ValueError):
    """The bytes are no record of this version."""


class NewerEngine(Exception):
    """A newer engine wrote this: an older one must neither apply it nor call it wrong, but make room for another."""


def spot_place(underlying: int) -> int:
    """What stands for the spot of an underlying where a CONSENSUS_ROW names its expiry."""
    return -1 - underlying


def pack_header(
    kind: int,
    number: int,
    block: int,
    time_ms: int,
    block_hash: bytes,
    *,
    entries: int = 0,
    partition: int = EVERY_PARTITION,
    version: int | None = None,
) -> bytes:
    """The 72 bytes of a header; `version`: None for a new decision, that of the decision for what follows from it."""
    return HEADER.pack(version or VERSION, kind, partition, entries, number, block, time_ms, block_hash, 0)


def read_header(raw: bytes) -> Header:
    """Header of a record. RecordError where there is none; NewerEngine where its version is beyond ours."""
    if len(raw) < HEADER.size:
        raise RecordError(f"record of {len(raw)} bytes is shorter than a header")
    version, kind, partition, entries, number, block, time_ms, block_hash, _ = HEADER.unpack_from(raw)
    if version > VERSION:
        raise NewerEngine(f"the log has records of version {version}, this engine reads up to {VERSION}: upgrade it")
    if version < 1:
        raise RecordError(f"record version {version}")
    return Header(kind, partition, entries, number, block, time_ms, block_hash, version)


def pack_listings(header: bytes, listings: list[dict]) -> bytes:
    return header + orjson.dumps(listings, option=orjson.OPT_SORT_KEYS)


def read_listings(raw: bytes) -> list[dict]:
    return orjson.loads(raw[HEADER.size :])


def pack_bids(header: bytes, bids: list[dict]) -> bytes:
    """`header` must carry entries = number of bids."""
    return header + orjson.dumps([{name: bid.get(name, "") for name in BID_FIELDS} for bid in bids])


def read_bids(raw: bytes) -> list[dict]:
    return orjson.loads(raw[HEADER.size :])


def pack_market(header: bytes, market: Market) -> bytes:
    """`header` must carry entries = number of spot rows."""
    guards = _pack_guards(market)
    sizes = struct.pack("<II", len(market.expiries), 1 if guards else 0)
    return b"".join((header, sizes, market.spots.tobytes(), market.expiries.tobytes(), guards))


def read_market(raw: bytes, header: Header) -> Market:
    expiries, has_guards = struct.unpack_from("<II", raw, HEADER.size)
    at = HEADER.size + 8
    spots = _rows(raw, SPOT_ROW, header.entries, at)
    expiry_rows = _rows(raw, EXPIRY_ROW, expiries, at + spots.nbytes)
    guards = _read_guards(raw, at + spots.nbytes + expiry_rows.nbytes) if has_guards else ()
    return Market(spots, expiry_rows, *guards)


def _pack_guards(market: Market) -> bytes:
    if not len(market.collateral) and not len(market.consensus):
        return b""
    sizes = struct.pack("<II", len(market.collateral), len(market.consensus))
    return sizes + market.collateral.tobytes() + market.consensus.tobytes()


def _read_guards(raw: bytes, at: int) -> tuple[np.ndarray, np.ndarray]:
    if at + 8 > len(raw):
        raise RecordError(f"record ends at byte {len(raw)}, guards begin at {at}")
    collateral, consensus = struct.unpack_from("<II", raw, at)
    rows = _rows(raw, COLLATERAL_ROW, collateral, at + 8)
    return rows, _rows(raw, CONSENSUS_ROW, consensus, at + 8 + rows.nbytes)


def pack_barrier(header: bytes, barrier: Barrier) -> bytes:
    """`header` must carry entries = number of partitions."""
    market, guards = barrier.market, _pack_guards(barrier.market)
    rows = (market.spots, market.expiries, barrier.settlements)
    sizes = struct.pack("<IIIBB2x", *map(len, rows), 1 if barrier.evaluate else 0, 1 if guards else 0)
    counts = np.ascontiguousarray(barrier.counts, "<u4").tobytes()
    return b"".join((header, counts, sizes, *(part.tobytes() for part in rows), guards))


def read_barrier(raw: bytes, header: Header) -> Barrier:
    counts = _rows(raw, np.dtype("<u4"), header.entries, HEADER.size)
    at = HEADER.size + counts.nbytes
    spots, expiries, settlements, evaluate, has_guards = struct.unpack_from("<IIIBB2x", raw, at)
    at += 16
    spot_rows = _rows(raw, SPOT_ROW, spots, at)
    expiry_rows = _rows(raw, EXPIRY_ROW, expiries, at + spot_rows.nbytes)
    at += spot_rows.nbytes + expiry_rows.nbytes
    settlement_rows = _rows(raw, SETTLEMENT_ROW, settlements, at)
    guards = _read_guards(raw, at + settlement_rows.nbytes) if has_guards else ()
    return Barrier(counts, Market(spot_rows, expiry_rows, *guards), settlement_rows, bool(evaluate))


def pack_rollback(header: bytes, rollback: Rollback) -> bytes:
    return header + struct.pack("<QQ", *rollback)


def read_rollback(raw: bytes) -> Rollback:
    if len(raw) < HEADER.size + 16:
        raise RecordError(f"record ends at byte {len(raw)}, a rollback has {HEADER.size + 16}")
    return Rollback(*struct.unpack_from("<QQ", raw, HEADER.size))


def pack_seal(header: bytes, seal: Seal) -> bytes:
    return header + struct.pack("<QQ", *seal)


def read_seal(raw: bytes) -> Seal:
    if len(raw) < HEADER.size + 16:
        raise RecordError(f"record ends at byte {len(raw)}, a seal has {HEADER.size + 16}")
    return Seal(*struct.unpack_from("<QQ", raw, HEADER.size))


def pack_events(header: bytes, events: Events) -> bytes:
    """`header` must carry entries = number of events and the partition."""
    encoded = [name.encode() for name in events.names]
    lengths = struct.pack(f"<I{len(encoded)}H", len(encoded), *map(len, encoded))
    head = header + lengths + b"".join(encoded)
    return head + bytes(-len(head) % 8) + events.rows.tobytes()


def read_events(raw: bytes, header: Header) -> Events:
    return read_packed_events(raw, header).decoded()


def read_packed_events(raw: bytes, header: Header) -> PackedEvents:
    (count,) = struct.unpack_from("<I", raw, HEADER.size)
    lengths = _rows(raw, np.dtype("<u2"), count, HEADER.size + 4)
    text_at = HEADER.size + 4 + 2 * count
    end = text_at + int(lengths.sum())
    return PackedEvents(raw, lengths, text_at, _rows(raw, EVENT_ROW, header.entries, end + -end % 8))


def _names(raw: bytes, bounds: list[int]) -> list[str]:
    """Text between each two bounds; where all of it is ASCII, as it usually is, decoded at once."""
    first, last = bounds[0], bounds[-1]
    if raw[first:last].isascii():
        text = raw[:last].decode("latin-1")
        return [text[begin:end] for begin, end in pairwise(bounds)]
    return [raw[begin:end].decode() for begin, end in pairwise(bounds)]


def _rows(raw: bytes, dtype: np.dtype, count: int, at: int) -> np.ndarray:
    if at + count * dtype.itemsize > len(raw):
        raise RecordError(f"record ends at byte {len(raw)}, {count} rows of {dtype.itemsize} bytes begin at {at}")
    return np.frombuffer(raw, dtype, count, at)
