"""Names of the topics, without the prefix of an installation, and how each is laid out."""

from __future__ import annotations

from typing import NamedTuple

CHAIN_BLOCKS = "chain.blocks"
ACCOUNT_FILLS = "account.fills"
ORACLE_TICKS = "oracle.ticks"
INSTRUMENTS = "instruments"
AUCTION_BIDS = "auction.bids"
MARKET_LOG = "market.log"
ACCOUNT_LOG = "account.log"
MARGIN_WARNINGS = "margin.warnings"
MARGIN_CALLS = "margin.calls"
MARGIN_BATCHES = "margin.batches"
BLOCKS_DONE = "blocks.done"
LIQUIDATIONS = "liquidations"
VENUE_PARTS = "venue.parts"
VENUE_STRESS = "venue.stress"
QUARANTINE = "quarantine"
SCENARIO_SETS = "scenario.sets"
CHECKPOINTS = "checkpoints"
CHECKPOINTS_SEQUENCER = "checkpoints.sequencer"
CHECKPOINTS_ENFORCEMENT = "checkpoints.enforcement"
CHECKPOINTS_MODEL = "checkpoints.model"
GENESIS = "genesis"

INPUTS = (INSTRUMENTS, CHAIN_BLOCKS, ORACLE_TICKS, ACCOUNT_FILLS, AUCTION_BIDS)
OF_BLOCKS = (ACCOUNT_FILLS, AUCTION_BIDS)  # whose events name their block, and count in it
RISK_OUTPUTS = (MARGIN_WARNINGS, MARGIN_CALLS, MARGIN_BATCHES, BLOCKS_DONE, VENUE_PARTS)
ENFORCEMENT_OUTPUTS = (LIQUIDATIONS, VENUE_STRESS)  # of one partition
PUBLIC_OUTPUTS = (*RISK_OUTPUTS, *ENFORCEMENT_OUTPUTS)

ALL_CHECKPOINTS = (CHECKPOINTS, CHECKPOINTS_SEQUENCER, CHECKPOINTS_ENFORCEMENT, CHECKPOINTS_MODEL)
# Topics that begin anew with another number of partitions (infra/docs/partitions.md)
OF_A_GENERATION = frozenset((MARKET_LOG, ACCOUNT_LOG, *PUBLIC_OUTPUTS, *ALL_CHECKPOINTS, GENESIS))

FILL_PARTITIONS = 4  # of the input topic; producers key it by account
COMPACTED = {"cleanup.policy": "compact", "segment.ms": "60000", "min.cleanable.dirty.ratio": "0.1"}
KEPT = {"cleanup.policy": "delete", "retention.ms": "-1"}
RECORD_BYTES_MAX = 16 << 20  # a batch of 100,000 accounts, or a block of 100,000 events, is one record
INPUT_BYTES_MAX = 4 << 20  # of an input record, also of what quarantine keeps: in base64 it fits an output record
LARGE = {**KEPT, "max.message.bytes": str(RECORD_BYTES_MAX)}


class TopicSpec(NamedTuple):
    """How a topic is created: `configs` are Kafka's own names."""

    name: str
    partitions: int
    configs: dict[str, str]


def topic_specs(risk_partitions: int) -> list[TopicSpec]:
    """Every topic of an installation whose accounts are spread over `risk_partitions`."""
    inputs = (INSTRUMENTS, CHAIN_BLOCKS, ORACLE_TICKS, AUCTION_BIDS)
    single = (MARKET_LOG, *ENFORCEMENT_OUTPUTS, QUARANTINE)
    spread = (ACCOUNT_LOG, *RISK_OUTPUTS)
    single_units = (CHECKPOINTS_SEQUENCER, CHECKPOINTS_ENFORCEMENT, CHECKPOINTS_MODEL, SCENARIO_SETS)
    compacted = {CHECKPOINTS: risk_partitions, **dict.fromkeys(single_units, 1)}
    return [
        TopicSpec(ACCOUNT_FILLS, FILL_PARTITIONS, KEPT),
        *(TopicSpec(name, 1, KEPT) for name in inputs),
        *(TopicSpec(name, 1, LARGE) for name in single),
        *(TopicSpec(name, risk_partitions, LARGE) for name in spread),
        *(TopicSpec(name, count, COMPACTED) for name, count in compacted.items()),
    ]


def generation_specs(risk_partitions: int) -> list[TopicSpec]:
    """Topics of a generation after the first: those that begin anew, and the states that they begin with (a partition
    for each of the risk machines, then the sequencer's and enforcement's).
    """
    derived = [spec for spec in topic_specs(risk_partitions) if spec.name in OF_A_GENERATION]
    return [*derived, TopicSpec(GENESIS, risk_partitions + len(ALL_CHECKPOINTS) - 1, KEPT)]
