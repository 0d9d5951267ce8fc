"""What anyone may produce: JSON, one event or an array of events a record. The public input contract, version 1.

Every event has a `type` and a `version`. Times are milliseconds of the Unix epoch, prices nano-USD for one unit of the
underlying, quantities integer lots. A new field comes last and has a default.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.quantities import CASH_MAX_USD6, LOTS_MAX, PRICE_MAX_USD9

Name = Annotated[str, Meta(min_length=1, max_length=64)]
TimeMs = Annotated[int, Meta(ge=0, lt=2**43)]
BlockNumber = Annotated[int, Meta(ge=0, lt=2**53)]
BlockHash = Annotated[str, Meta(pattern="^0x[0-9a-f]{64}$")]
PriceUsd9 = Annotated[int, Meta(gt=0, le=PRICE_MAX_USD9)]
Lots = Annotated[int, Meta(gt=-LOTS_MAX, lt=LOTS_MAX)]
CashUsd6 = Annotated[int, Meta(gt=-CASH_MAX_USD6, lt=CASH_MAX_USD6)]
Count = Annotated[int, Meta(ge=0, lt=2**31)]
Version1 = Literal[1]


class Event(Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """Common to all inputs."""

    version: Version1


# -- chain.blocks


class Block(Event, frozen=True, tag="block"):
    """A block of the chain, or of the venue. It closes when `event_count` account events naming it have been accepted
    or quarantined. `tick_count` and `listing_count`, where given, make the closing independent of arrival: the ticks in
    (time of the block before, time of this block], and the number of listing events ever produced, that it waits for.
    What is announced last is the head, whichever branch it is of; a repeated announcement changes nothing.
    """

    number: BlockNumber
    hash: BlockHash
    parent_hash: BlockHash
    time_ms: TimeMs
    event_count: Count
    tick_count: Count | None = None
    listing_count: Count | None = None


class BlockClose(Event, frozen=True, tag="block_close"):
    """Closes an announced block with what has come, whatever its counts say."""

    number: BlockNumber
    hash: BlockHash


# -- account.fills
#
# `block_hash` says which branch of a chain an event is of; producers of chains that reorganise must give it. An event
# without it is of the branch that is followed when the sequencer reads it.


class Fill(Event, frozen=True, tag="fill"):
    """One side of a trade. `lots` is signed: positive bought."""

    id: Name
    block: BlockNumber
    time_ms: TimeMs
    account: Name
    instrument: Name
    lots: Lots
    price_usd9: PriceUsd9
    fee_usd6: CashUsd6 = 0
    block_hash: BlockHash | UnsetType = UNSET


class CashMove(Event, frozen=True, tag="cash_move"):
    """Deposit (positive), withdrawal, transfer, funding, fee: cash of an account changes by `amount_usd6`."""

    id: Name
    block: BlockNumber
    time_ms: TimeMs
    account: Name
    amount_usd6: CashUsd6
    block_hash: BlockHash | UnsetType = UNSET


class CollateralMove(Event, frozen=True, tag="collateral_move"):
    """Collateral coins (an instrument of kind `spot`) change by `lots`, or are restated to `lots` (`mode` set)."""

    id: Name
    block: BlockNumber
    time_ms: TimeMs
    account: Name
    instrument: Name
    lots: Lots
    mode: Literal["add", "set"] = "add"
    block_hash: BlockHash | UnsetType = UNSET


AccountEvent = Fill | CashMove | CollateralMove

# -- oracle.ticks


class SpotTick(Event, frozen=True, tag="spot"):
    """Index price of an underlying."""

    id: Name
    source: Name
    time_ms: TimeMs
    underlying: Name
    price_usd9: PriceUsd9


class ForwardTick(Event, frozen=True, tag="forward"):
    """Forward (future) price of an underlying for an expiry, with the rate that discounts to it."""

    id: Name
    source: Name
    time_ms: TimeMs
    underlying: Name
    expiry_ms: TimeMs
    price_usd9: PriceUsd9
    rate_e9: Annotated[int, Meta(ge=-(10**9), le=10**9)] = 0


class QuoteTick(Event, frozen=True, tag="quote"):
    """Mark of an option in USD, with bid and ask where there are any. SVI slices are fitted to these."""

    id: Name
    source: Name
    time_ms: TimeMs
    instrument: Name
    mark_usd9: PriceUsd9
    bid_usd9: PriceUsd9 | None = None
    ask_usd9: PriceUsd9 | None = None


class SurfaceTick(Event, frozen=True, tag="surface"):
    """SVI slice of total variance, w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)), k = ln(strike/forward)."""

    id: Name
    source: Name
    time_ms: TimeMs
    underlying: Name
    expiry_ms: TimeMs
    a_e9: Annotated[int, Meta(ge=-(10**11), le=10**11)]
    b_e9: Annotated[int, Meta(ge=0, le=10**11)]
    rho_e9: Annotated[int, Meta(gt=-(10**9), lt=10**9)]
    m_e9: Annotated[int, Meta(ge=-(10**10), le=10**10)]
    sigma_e9: Annotated[int, Meta(gt=0, le=10**11)]


Tick = SpotTick | ForwardTick | QuoteTick | SurfaceTick

# -- instruments


class UnderlyingListing(Event, frozen=True, tag="underlying"):
    """An underlying: a price index with a scenario factor. `stable` marks coins that the depeg stress row moves."""

    id: Name
    underlying: Name
    stable: bool = False


class InstrumentListing(Event, frozen=True, tag="instrument"):
    """A contract, or a collateral coin (`spot`). The lot is 10**lot_exponent units, its smallest traded size."""

    id: Name
    instrument: Name
    underlying: Name
    kind: Literal["spot", "perpetual", "future", "call", "put"]
    lot_exponent: Annotated[int, Meta(ge=-12, le=6)]
    expiry_ms: TimeMs | None = None
    strike_usd9: PriceUsd9 | None = None
    collateral_factor_e6: Annotated[int, Meta(ge=0, le=1_000_000)] = 1_000_000
    settlement: Literal["cash"] = "cash"


class ScenarioSetListing(Event, frozen=True, tag="scenario_set"):
    """From the next block on margins use the scenario set with this digest (its bytes are in `scenario.sets`)."""

    id: Name
    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class ParametersListing(Event, frozen=True, tag="parameters"):
    """From the next block on margins use this parameter document (see schemas/risk_parameters.py)."""

    id: Name
    document: dict


Listing = UnderlyingListing | InstrumentListing | ScenarioSetListing | ParametersListing

InputEvent = Block | BlockClose | AccountEvent | Tick | Listing
INPUT_TYPES: dict[str, object] = {
    "chain.blocks": Block | BlockClose,
    "account.fills": AccountEvent,
    "oracle.ticks": Tick,
    "instruments": Listing,
}
