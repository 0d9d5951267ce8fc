"""What is said of the venue's fund under stress: parts by partition (`venue.parts`), figures of the whole
(`venue.stress`), version 1. Money is micro-USD; infra/docs/venue_stress.md explains the figures.

Both are said at the barrier at which a scenario set or a parameter document takes effect, where the parameter document
asks for it. `epoch`: the number of rollbacks before, left out where it is 0.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType


class VenueRow(Struct, frozen=True):
    """Name and reason of a stress row."""

    name: str
    reason: str


class VenueLossArrays(Struct, frozen=True):
    """Losses beyond one kind of resources ("equity", "margin"), little-endian in base64: int64 of every scenario, then
    of every stress row; accounts are int32 places in the part's `names`, -1 for nobody."""

    resources: str
    resources_usd6: int
    uncovered_now_usd6: int
    total_usd6: bytes
    largest_usd6: bytes
    largest_account: bytes
    second_usd6: bytes
    second_account: bytes


class VenuePart(Struct, frozen=True, tag="venue_part"):
    """One partition. `weights`: int32 of every scenario, their sum is 2^30. Parts of a block add up exactly: totals are
    sums, and the two largest of all are among the two largest of each."""

    version: int
    partition: int
    seq: int
    block: int
    time_ms: int
    scenario_digest: str
    parameter_version: int
    confidence_e6: int
    fund_usd6: int
    accounts: int
    unpriced_accounts: tuple[str, ...]
    names: tuple[str, ...]
    weights: bytes
    rows: tuple[VenueRow, ...]
    views: tuple[VenueLossArrays, ...]
    epoch: int | UnsetType = UNSET


class Cover(Struct, frozen=True):
    """The scenario in which `accounts` (one or two) leave most uncovered. `scenario`: an index, or a stress row."""

    uncovered_usd6: int
    scenario: str
    accounts: tuple[str, ...]


class StressedRow(Struct, frozen=True):
    """One stress row: what the venue leaves uncovered in it, at full size (a row's weight is for margins)."""

    name: str
    reason: str
    uncovered_usd6: int
    accounts: tuple[str, ...]


class View(Struct, frozen=True):
    """The venue under one view of the resources. The fund's sizes are by the scenario set, at the confidence asked for;
    `uncovered_now_usd6` is lost already, before anything moves (insolvent accounts)."""

    resources: str
    resources_usd6: int
    uncovered_now_usd6: int
    uncovered_mean_usd6: int
    fund_quantile_usd6: int
    fund_shortfall_usd6: int
    cover_1: Cover
    cover_2: Cover
    exhausted_probability_e6: int
    rows: tuple[StressedRow, ...]


class VenueStressRecord(Struct, frozen=True, tag="venue_stress"):
    """The venue as `dpme stress` shows it. `fund_given`: the parameter document states a fund; else it is cover 2
    beyond equity. `partitions`: how many have a share in it (one that is halted has none)."""

    version: int
    partition: int
    seq: int
    block: int
    time_ms: int
    partitions: int
    accounts: int
    scenarios: int
    scenario_digest: str
    parameter_version: int
    confidence_e6: int
    fund_usd6: int
    fund_given: bool
    unpriced_accounts: tuple[str, ...]
    views: tuple[View, ...]
    epoch: int | UnsetType = UNSET
