"""What every replay and the demo are: a world that yields listings once, then blocks with their events and ticks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from msgspec import Struct

from oracles.scenario_set import ScenarioSet
from schemas.events import AccountEvent, Block
from schemas.risk_parameters import RiskParameters


class BlockInputs(NamedTuple):
    """One block; its events and ticks may be plain dicts where a recorded row is bad (it goes to quarantine).

    `block.event_count` and `block.tick_count` count them all; ticks have times in (time of the block before, its time].
    """

    block: Block
    events: list[AccountEvent | dict]
    ticks: list[Struct | dict]


@dataclass(frozen=True)
class World:
    """A named source of inputs. `blocks` begins with the genesis block, which seeds the book and cash."""

    name: str
    listings: list[Struct]
    scenario_set: ScenarioSet
    parameters: RiskParameters
    block_count: int
    blocks: Iterator[BlockInputs]
    facts: dict[str, Any] = field(default_factory=dict)  # for the report: source, seeding rule, distribution of k
