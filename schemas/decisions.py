"""What the engine says: JSON outputs, version 1. Money is micro-USD.

`seq` is dense per topic and partition (record) or per topic, partition and event (events inside a record), so a reader
drops repeats and sees losses with one counter.

Last come the fields of reorganisations. They are left out where they would be 0, as for a chain that never reorganises:
`epoch`, the number of rollbacks before; `confirmations`, the blocks done behind the event's own when it was said.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType, field

HEALTHY, MARGIN_CALL, LIQUIDATABLE, INSOLVENT = "healthy", "margin_call", "liquidatable", "insolvent"
STATES = (HEALTHY, MARGIN_CALL, LIQUIDATABLE, INSOLVENT)
BINDING_TERMS = ("expected_shortfall", "stress", "short_option_minimum")


class Position(Struct, frozen=True):
    """`lots` of an instrument and their mark value (profit since entry for perpetuals and futures)."""

    instrument: str
    lots: int
    value_usd6: int


class Margin(Struct, frozen=True):
    """The numbers of one account at one market. `binding` names the largest risk term, `stress` its worst row."""

    nlv_usd6: int
    equity_usd6: int
    initial_margin_usd6: int
    maintenance_margin_usd6: int
    expected_shortfall_usd6: int
    stress_loss_usd6: int
    short_option_minimum_usd6: int
    add_ons_usd6: int
    binding: str
    stress: str


class Greeks(Struct, frozen=True):
    """Of one account in one underlying: per +100 % spot (delta), squared (gamma), per 1.00 volatility, per day."""

    underlying: str
    delta_usd6: int
    gamma_usd6: int
    vega_usd6: int
    theta_usd6: int


class Cure(Struct, frozen=True):
    """What ends a call: a deposit, or closing this share of every position at its mark."""

    deposit_usd6: int
    close_fraction_e6: int


class MarginWarning(Struct, frozen=True, tag="margin_warning"):
    """Between barriers an account's Greeks estimate crossed its line, and the full expected shortfall confirmed it."""

    seq: int
    id: str
    account: str
    block: int
    time_ms: int
    line: str
    trigger: str
    estimate_usd6: int
    margin: Margin
    greeks: tuple[Greeks, ...]
    epoch: int | UnsetType = UNSET
    confirmations: int | UnsetType = UNSET


class Call(Struct, frozen=True, tag="margin_call"):
    """An account changed its state at a block: call, flag for liquidation, insolvency, release."""

    seq: int
    id: str
    account: str
    block: int
    time_ms: int
    from_state: str = field(name="from")
    to_state: str = field(name="to")
    margin: Margin
    cure: Cure | None = None
    positions: tuple[Position, ...] = ()
    cash_usd6: int = 0
    epoch: int | UnsetType = UNSET
    confirmations: int | UnsetType = UNSET


class Liquidation(Struct, frozen=True, tag="liquidation"):
    """What enforcement does with a flagged account; until the tiers exist: flagged, with the whole portfolio."""

    seq: int
    id: str
    account: str
    block: int
    time_ms: int
    state: str
    shortfall_usd6: int
    margin: Margin
    positions: tuple[Position, ...]
    cash_usd6: int
    epoch: int | UnsetType = UNSET
    confirmations: int | UnsetType = UNSET


class Retraction(Struct, frozen=True, tag="retraction"):
    """An event of a block that the chain has left counts no more; `retracts` is its id, `block` its block.

    It stands in the topic of the event that it retracts. `epoch` is the one that the rollback began.
    """

    seq: int
    id: str
    account: str
    block: int
    retracts: str
    epoch: int


class WarningRecord(Struct, frozen=True, tag="margin_warnings"):
    """Warnings of one market tick and partition."""

    version: int
    partition: int
    seq: int
    block: int
    events: tuple[MarginWarning | Retraction, ...]
    epoch: int | UnsetType = UNSET


class CallRecord(Struct, frozen=True, tag="margin_calls"):
    """Changes of state of one block and partition: one or two records a block (those near their line first)."""

    version: int
    partition: int
    seq: int
    block: int
    events: tuple[Call | Retraction, ...]
    epoch: int | UnsetType = UNSET


class RecordedBid(Struct, frozen=True):
    """A bid as market.log has it."""

    id: str
    time_ms: int
    account: str
    target: str
    fraction_e6: int
    price_usd6: int
    state_id: str


class LiquidationRecord(Struct, frozen=True, tag="liquidations"):
    """Liquidation events of one block, by severity and account. `bids`: those of the block, in their order."""

    version: int
    partition: int
    seq: int
    block: int
    events: tuple[Liquidation | Retraction, ...]
    epoch: int | UnsetType = UNSET
    bids: tuple[RecordedBid, ...] | UnsetType = UNSET


class BlockDone(Struct, frozen=True, tag="block_done"):
    """A partition has computed a block. Digests are hex; `halted` says why the partition stands still, if it does.

    With `rollback_from` it is the mark of a rollback: the partition is back at `block`, as the other fields show it;
    the blocks from there to `rollback_from` are retracted, and `warnings` and `calls` count the retractions.
    `liquidation_depth_blocks`: how many blocks must follow one before its flags are acted on.
    `stages`: how many accounts each stage of the screen took and why (streams/engine/screen.py); names without any are
    left out. `bound`: rows of this block's margins that are certified bounds (schemas/margin_batch.py).
    `bids`: how many bids of the block market.log has.
    """

    version: int
    partition: int
    seq: int
    block: int
    block_hash: str
    time_ms: int
    accounts: int
    events: int
    evaluated: bool
    first: int
    wide: int
    warnings: int
    calls: int
    states: dict[str, int]
    state_digest: str
    table_digest: str
    scenario_digest: str
    parameter_version: int
    halted: str = ""
    stages: dict[str, int] = {}
    bound: int = 0
    epoch: int | UnsetType = UNSET
    rollback_from: int | UnsetType = UNSET
    liquidation_depth_blocks: int | UnsetType = UNSET
    bids: int | UnsetType = UNSET


class Quarantined(Struct, frozen=True, tag="quarantined", omit_defaults=True):
    """An input that was not taken, with its origin and its own bytes (`bytes_total` where those are cut short)."""

    version: int
    reason: str
    field: str
    detail: str
    topic: str
    partition: int
    offset: int
    index: int
    bytes_base64: str
    bytes_total: int | None = None
