"""What anyone may produce: JSON, one event or an array of events a record. The public input contract, version 1.

Every event has a `type` and a `version`. Times are milliseconds of the Unix epoch, prices nano-USD for one unit of the
underlying, quantities integer lots. A new field comes last and has a default. Patterns end in `(?![\\s\\S])`, the end
of the text for every regular-expression engine (`$` also stands before a final newline in some).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.quantities import CASH_MAX_USD6, LOTS_MAX, PRICE_MAX_USD9

RECORD_EVENTS_MAX = 10_000  # of an array: each may become a record of the quarantine
RECORD_LEVELS_MAX = 32  # of arrays and objects within each other

# No control characters: names are shown in terminals.
PRINTED = r"^[^\x00-\x1f\x7f]+(?![\s\S])"
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=PRINTED)]
TIME_MAX_MS = 2**43
BLOCKS_MAX = 2**53
TimeMs = Annotated[int, Meta(ge=0, lt=TIME_MAX_MS)]
BlockNumber = Annotated[int, Meta(ge=0, lt=BLOCKS_MAX)]
BlockHash = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{64}(?![\s\S])")]
PriceUsd9 = Annotated[int, Meta(gt=0, le=PRICE_MAX_USD9)]
Lots = Annotated[int, Meta(gt=-LOTS_MAX, lt=LOTS_MAX)]
OrderLots = Annotated[int, Meta(ge=0, lt=LOTS_MAX)]
CashUsd6 = Annotated[int, Meta(gt=-CASH_MAX_USD6, lt=CASH_MAX_USD6)]
Count = Annotated[int, Meta(ge=0, lt=2**31)]
Version1 = Literal[1]


class Event(Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """Common to all inputs."""

    version: Version1


# -- chain.blocks


class Block(Event, frozen=True, tag="block"):
    """A block of the chain, or of the venue. It closes when `event_count` events naming it (account events, and bids)
    have been accepted or quarantined. `tick_count` and `listing_count`, where given, make the closing independent of
    arrival: the ticks in (time of the block before, time of this block], and the number of listing events ever made,
    that it waits for. What is announced last is the head, whichever branch it is of; a repeated
    announcement changes nothing.
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
    """Deposit (positive), withdrawal or fee: cash of an account changes by `amount_usd6`."""

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


class Funding(Event, frozen=True, tag="funding"):
    """Funding of a perpetual, paid at once by all who are long to all who are short: `amount_usd9` nano-USD for one
    unit of the underlying (rate x mark; negative: the short pay). It names no account and counts once to its block.
    """

    id: Name
    block: BlockNumber
    time_ms: TimeMs
    instrument: Name
    amount_usd9: Annotated[int, Meta(ge=-PRICE_MAX_USD9, le=PRICE_MAX_USD9)]
    block_hash: BlockHash | UnsetType = UNSET


class Transfer(Event, frozen=True, tag="transfer"):
    """From `account` to another subaccount `to` of the same owner (OWNER or OWNER/SUB), both sides or none: either cash
    (`amount_usd6`), or `lots` of an instrument, with `price_usd9` (its mark) unless it is a coin.
    """

    id: Name
    block: BlockNumber
    time_ms: TimeMs
    account: Name
    to: Name
    amount_usd6: Annotated[int, Meta(ge=0, lt=CASH_MAX_USD6)] = 0
    instrument: Name | None = None
    lots: Lots = 0
    price_usd9: PriceUsd9 | None = None
    block_hash: BlockHash | UnsetType = UNSET


class OpenOrders(Event, frozen=True, tag="open_orders"):
    """What an account has open in an instrument, restated whole: lots left to be bought and to be sold (0: none), and
    the worst price of each side, the highest bid and the lowest offer. They count where new risk is judged, never in a
    margin. A fill does not take them down: say what is left in the same block. The fee of a side is what filling all of
    it will cost.
    """

    id: Name
    block: BlockNumber
    time_ms: TimeMs
    account: Name
    instrument: Name
    buy_lots: OrderLots = 0
    buy_price_usd9: PriceUsd9 | UnsetType = UNSET
    sell_lots: OrderLots = 0
    sell_price_usd9: PriceUsd9 | UnsetType = UNSET
    buy_fee_usd6: CashUsd6 | UnsetType = UNSET
    sell_fee_usd6: CashUsd6 | UnsetType = UNSET
    block_hash: BlockHash | UnsetType = UNSET


AccountEvent = Fill | CashMove | CollateralMove | Transfer | OpenOrders

# -- oracle.ticks


class SpotTick(Event, frozen=True, tag="spot"):
    """Index price of an underlying. Where `spot_reporters` are governed `source` is one of them, and the index is the
    median of what they tell (streams/engine/spot_reports.py); else the newest price counts, told by anyone.
    """

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
    """SVI slice of total variance, w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)), k = ln(strike/forward).

    `forward_usd9`: the forward that it is of; it counts where reporters are governed (else `forward` ticks tell it).
    """

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
    forward_usd9: PriceUsd9 | UnsetType = UNSET


Tick = SpotTick | ForwardTick | QuoteTick | SurfaceTick

# -- instruments


class Jumps(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Jumps of Merton's model: how many a year, mean and standard deviation of the logarithm of one."""

    intensity_e6: Annotated[int, Meta(gt=0, le=100_000_000)]
    mean_e9: Annotated[int, Meta(ge=-2_000_000_000, le=2_000_000_000)]
    stddev_e9: Annotated[int, Meta(ge=0, le=2_000_000_000)]


class UnderlyingListing(Event, frozen=True, tag="underlying"):
    """An underlying: a price index with a scenario factor. `stable` marks coins that the depeg stress row moves.

    With `jumps` its options are priced by Merton's model and its surfaces are those of the diffusion; without, by
    Black-76. With `parts` it moves as they do in every scenario and stress row: the logarithm of its price by the
    weighted sum of theirs (staked coin: its coin at 1,000,000; share of a pool of two: each at 500,000).
    """

    id: Name
    underlying: Name
    stable: bool = False
    jumps: Jumps | UnsetType = UNSET
    parts: (
        Annotated[dict[Name, Annotated[int, Meta(gt=0, le=1_000_000)]], Meta(min_length=1, max_length=8)] | UnsetType
    ) = UNSET


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
    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")]


class ParametersListing(Event, frozen=True, tag="parameters"):
    """From the next block on margins use this parameter document (see schemas/risk_parameters.py)."""

    id: Name
    document: dict


class HaltListing(Event, frozen=True, tag="halt"):
    """A partition stands still from here on: it says so in `blocks.done`, and enforcement goes on without it."""

    id: Name
    partition: Annotated[int, Meta(ge=0, lt=65_535)]
    reason: Annotated[str, Meta(min_length=1, max_length=200, pattern=PRINTED)]


class ModelFitListing(Event, frozen=True, tag="model_fit"):
    """GARCH parameters of an underlying, fitted to its bars up to the one that starts at `time_ms`, by the model worker
    (streams/engine/model_refits.py): h' = omega + (alpha + gamma [e < 0]) e**2 + beta h, per bar and without season.
    """

    id: Name
    underlying: Name
    kind: Literal["garch-t", "gjr-skew-t"]
    time_ms: TimeMs
    omega_e18: Annotated[int, Meta(ge=1, lt=2**62)]
    alpha_e12: Annotated[int, Meta(ge=0, le=2 * 10**12)]
    gamma_e12: Annotated[int, Meta(ge=-2 * 10**12, le=2 * 10**12)]
    beta_e12: Annotated[int, Meta(ge=0, lt=10**12)]


class OpenInterestListing(Event, frozen=True, tag="open_interest"):
    """What is open in the market of an underlying, as an oracle states it. The last statement counts."""

    id: Name
    underlying: Name
    time_ms: TimeMs
    open_usd6: Annotated[int, Meta(ge=0, lt=2**60)]


Listing = (
    UnderlyingListing
    | InstrumentListing
    | ScenarioSetListing
    | ParametersListing
    | HaltListing
    | ModelFitListing
    | OpenInterestListing
)


# -- auction.bids


class Bid(Event, frozen=True, tag="bid"):
    """An offer of `account` to take over a share of the portfolio of `target`, should it be auctioned: at most
    `fraction_e6` of it, and at most `price_usd6` for the whole (negative: it wants to be paid). `state_id`: the state
    of the auction that the bidder has seen. It is judged in its block, in the order of time and id.
    """

    id: Name
    block: BlockNumber
    time_ms: TimeMs
    account: Name
    target: Name
    fraction_e6: Annotated[int, Meta(ge=1, le=1_000_000)]
    price_usd6: CashUsd6
    state_id: Name | UnsetType = UNSET
    block_hash: BlockHash | UnsetType = UNSET


InputEvent = Block | BlockClose | AccountEvent | Funding | Tick | Listing | Bid
INPUT_TYPES: dict[str, object] = {
    "chain.blocks": Block | BlockClose,
    "account.fills": AccountEvent | Funding,
    "oracle.ticks": Tick,
    "instruments": Listing,
    "auction.bids": Bid,
}
