"""A refusal is a value: why one event (or record) is not taken. The codes are public and never change meaning."""

from __future__ import annotations

from msgspec import Struct

MALFORMED = "malformed"
UNKNOWN_TYPE = "unknown_type"
UNKNOWN_VERSION = "unknown_version"
MISSING_FIELD = "missing_field"
UNKNOWN_FIELD = "unknown_field"
WRONG_TYPE = "wrong_type"
OUT_OF_RANGE = "out_of_range"
IDENTITY_CONFLICT = "identity_conflict"
BLOCK_CLOSED = "block_closed"
BLOCK_CONFLICT = "block_conflict"
BLOCK_UNKNOWN = "block_unknown"
BLOCK_RETRACTED = "block_retracted"
LATE_TICK = "late_tick"
UNKNOWN_INSTRUMENT = "unknown_instrument"
UNKNOWN_UNDERLYING = "unknown_underlying"
UNKNOWN_EXPIRY = "unknown_expiry"
WRONG_KIND = "wrong_kind"
INSTRUMENT_EXPIRED = "instrument_expired"
INSTRUMENT_UNPRICED = "instrument_unpriced"
LISTING_REFUSED = "listing_refused"
POSITION_LIMIT = "position_limit"
TRANSFER_REFUSED = "transfer_refused"
UNKNOWN_REPORTER = "unknown_reporter"

REASONS = tuple(value for name, value in sorted(globals().items()) if name.isupper())


class Refusal(Struct, frozen=True):
    """`reason` is one of REASONS; `field` the JSON path of the culprit or empty; `detail` is for people."""

    reason: str
    detail: str
    field: str = ""
