"""The risk machine of a partition as of a block: the newest checkpoint that is not later, and the log from there.

Pure: records and the bytes of a checkpoint in, a machine out. The numbers are those of the run to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from oracles.scenario_set import ScenarioSet
from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.risk_parameters import RiskParameters
from schemas.topics import ACCOUNT_LOG
from streams.cli.errors import CommandError
from streams.cli.recorded_run import Record
from streams.engine.risk import Risk
from streams.engine.tables import TableCache, Tables


class AsOf(NamedTuple):
    """A partition's machine right after a block, and the tables of that block's market."""

    risk: Risk
    tables: Tables

    @property
    def catalogue(self) -> Catalogue:
        return self.risk.catalogue

    @property
    def parameters(self) -> RiskParameters:
        return self.risk.parameters


def machine_as_of(
    log: Iterable[Record],
    partition: int,
    scenario_sets: Mapping[str, ScenarioSet],
    block: int | None = None,
    checkpoint: bytes | None = None,
    on_block: Callable[[int], None] = lambda _: None,
) -> AsOf:
    """Apply records until the barrier of `block`, or of the last block there is.

    Args:
        log: records of the partition's account.log from where `checkpoint` ends (without one: from its beginning).
        on_block: hears of every barrier that is applied.

    Raises:
        CommandError: the block is not there, the partition stands still, or nothing can be margined yet.
    """
    cache = TableCache(scenario_sets.__getitem__)
    risk = Risk(partition, cache) if checkpoint is None else Risk.load(checkpoint, cache)
    known = list(log)
    for offset, raw in known[: _records_to(known, block, risk.block)]:
        for _ in risk.steps(ACCOUNT_LOG, partition, offset, raw):
            pass
        if risk.halted:
            raise CommandError(f"partition {partition} stands still since block {risk.block + 1}: {risk.halted}")
        if records.read_header(raw).kind == records.BARRIER:
            on_block(risk.block)
    if not risk.scenario_digest:
        raise CommandError(f"no scenario set is listed at block {risk.block}: nothing can be margined yet")
    return AsOf(risk, cache.get(risk.catalogue, risk.market, risk.parameters, risk.scenario_digest))


def _records_to(log: list[Record], block: int | None, begun: int) -> int:
    """How many records to apply: up to the barrier of `block`, or the last barrier; `begun` is applied already."""
    barriers: dict[int, int] = {}
    for place, (_, raw) in enumerate(log):
        header = records.read_header(raw)
        if header.kind == records.BARRIER:
            barriers.setdefault(header.block, place + 1)
    if not barriers and begun < 0:
        raise CommandError("the run has no block yet: wait for the first one")
    last = max(barriers, default=begun)
    if block is None:
        return barriers.get(last, 0)
    if block == begun:
        return 0
    if block > last:
        raise CommandError(f"--block {block}: the newest block of the run is {last}")
    if block not in barriers:
        raise CommandError(f"--block {block}: the run begins with block {min(barriers)}")
    return barriers[block]
