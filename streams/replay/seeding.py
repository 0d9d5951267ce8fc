"""Cash of the genesis block: every account begins at a drawn multiple of its initial margin.

The book without cash goes through the real pure pipeline once; from the margins it computes follows the cash that makes
net liquidation value = k x initial margin, k drawn by a seeded, printed rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
from msgspec import Struct

from oracles.scenario_set import ScenarioSet
from schemas.codec import encode
from schemas.events import AccountEvent, CashMove
from schemas.margin_batch import decode_batch
from schemas.quantities import ONE_E6
from schemas.topics import ACCOUNT_FILLS, CHAIN_BLOCKS, INSTRUMENTS, MARGIN_BATCHES, ORACLE_TICKS, QUARANTINE
from streams.replay.blocks import BlockChain
from streams.simulate.in_process import Pipeline


class Band(NamedTuple):
    """This share of the accounts (rounded up) gets k uniform in [low, high)."""

    share: float
    low: float
    high: float


BANDS = (Band(0.03, 0.60, 0.80), Band(0.04, 0.80, 1.00), Band(0.06, 1.00, 1.02))
EVENTS_PER_RECORD = 1_000  # far below what one input record may hold
REST_FLOOR, REST_MEDIAN, REST_SIGMA = 1.02, 1.50, 1.00
BUFFER_RULE = (
    "Cash makes net liquidation value = k x initial margin at the first barrier, for accounts with a margin at all. k, "
    "drawn by the seed: 3 % of the accounts uniform in 0.60-0.80 (flagged at once), 4 % in 0.80-1.00 (called at once), "
    "6 % in 1.00-1.02 (near the line), the rest 1.02 + lognormal(median 1.50, sigma 1.00)."
)


class SeededCash(NamedTuple):
    """k (in 1e-6) and cash of each account that has an initial margin, in order of account."""

    ratio_e6: dict[str, int]
    amount_usd6: dict[str, int]
    time_ms: int

    def moves(self, number: int) -> list[CashMove]:
        """The cash as events of the genesis block."""
        return [
            CashMove(
                version=1, id=f"{number}-cash-{i:05d}", block=number, time_ms=self.time_ms, account=a, amount_usd6=c
            )
            for i, (a, c) in enumerate(self.amount_usd6.items())
            if c != 0
        ]


def seed_cash(
    listings: Sequence[Struct],
    scenario_set: ScenarioSet,
    time_ms: int,
    events: Sequence[AccountEvent],
    ticks: Sequence[Struct],
    seed: int,
) -> SeededCash:
    """Cash for the accounts of `events`, all taken as one trial block at `time_ms` with the marks in `ticks`."""
    margins = trial_margins(listings, scenario_set, time_ms, events, ticks)
    accounts = [account for account, (_, initial) in sorted(margins.items()) if initial > 0]
    ratio_e6 = draw_ratios_e6(accounts, seed)
    amounts = {a: ratio_e6[a] * margins[a][1] // ONE_E6 - margins[a][0] for a in accounts}
    return SeededCash(ratio_e6, amounts, time_ms)


def draw_ratios_e6(accounts: Sequence[str], seed: int) -> dict[str, int]:
    """Account -> k in 1e-6 by BUFFER_RULE; band sizes are exact (rounded up), who is in them is drawn."""
    generator = np.random.default_rng([seed, len(accounts)])
    order = generator.permutation(len(accounts))
    ratios = REST_FLOOR + REST_MEDIAN * np.exp(REST_SIGMA * generator.standard_normal(len(accounts)))
    at = 0
    for band in BANDS:
        chosen = order[at : at + int(np.ceil(band.share * len(accounts)))]
        ratios[chosen] = generator.uniform(band.low, band.high, len(chosen))
        at += len(chosen)
    return {account: round(float(ratio) * ONE_E6) for account, ratio in zip(accounts, ratios)}


def trial_margins(
    listings: Sequence[Struct],
    scenario_set: ScenarioSet,
    time_ms: int,
    events: Sequence[AccountEvent],
    ticks: Sequence[Struct],
) -> dict[str, tuple[int, int]]:
    """Account -> (net liquidation value, initial margin) in micro-USD after one block with all `events`."""
    stamped = [msgspec.structs.replace(event, block=0, time_ms=time_ms) for event in events]
    block = BlockChain("trial", len(listings)).block(0, time_ms, stamped, ticks)
    pipeline = Pipeline({scenario_set.digest: scenario_set}, partitions=1)
    for topic, inputs in (
        (INSTRUMENTS, listings),
        (ACCOUNT_FILLS, block.events),
        (ORACLE_TICKS, block.ticks),
        (CHAIN_BLOCKS, [block.block]),
    ):
        for begin in range(0, len(inputs), EVENTS_PER_RECORD):
            pipeline.push(topic, 0, encode_all(inputs[begin : begin + EVENTS_PER_RECORD]))
    refused = [raw for raw in pipeline.values(QUARANTINE) if orjson.loads(raw)["topic"] == ACCOUNT_FILLS]
    if refused:  # ticks may be: recorded marks of zero are
        raise ValueError(f"the seeded book is refused: {refused[0].decode()[:300]}")
    margins: dict[str, tuple[int, int]] = {}
    for raw in pipeline.values(MARGIN_BATCHES):
        table = decode_batch(raw)[1]
        columns = [table.column(name).to_pylist() for name in ("account", "nlv_usd6", "initial_margin_usd6")]
        margins.update({account: (nlv, initial) for account, nlv, initial in zip(*columns)})
    return margins


def encode_all(events: Sequence[Struct | dict]) -> bytes:
    """Events as one record: a JSON array."""
    return encode([event if isinstance(event, dict) else msgspec.to_builtins(event) for event in events])


def buffer_facts(cash: SeededCash) -> dict[str, Any]:
    """The k that were drawn, for the report."""
    ratios = np.array(sorted(cash.ratio_e6.values())) / ONE_E6
    marks = (0, 5, 25, 50, 75, 95, 100)
    percentiles: Sequence[float] = list(np.percentile(ratios, marks)) if len(ratios) else []
    return {
        "margined_accounts": len(ratios),
        "k_percentiles": {f"p{mark}": round(float(k), 3) for mark, k in zip(marks, percentiles)},
        "k_below_0.8": int((ratios < 0.8).sum()),
        "k_0.8_to_1": int(((ratios >= 0.8) & (ratios < 1)).sum()),
    }
