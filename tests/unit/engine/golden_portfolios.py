"""The portfolios the field always names, margined by the engine's own functions at one market.

`PYTHONPATH=tests python tests/unit/engine/golden_portfolios.py` writes the golden numbers anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from engine_worlds import option_name
from portfolio_worlds import market_and_tables

from schemas.catalogue import Catalogue
from streams.engine.book import Legs
from streams.engine.margin import account_sums, compute, empty_margins, isolated_maintenance_usd6

SCENARIOS = 1_024
GOLDEN = Path(__file__).parents[2] / "golden" / "portfolios.json"
CALL, PUT = option_name(100, "call"), option_name(100, "put")
CALL_HIGH, PUT_HIGH = option_name(120, "call"), option_name(120, "put")
CALL_LOW, PUT_LOW = option_name(80, "call"), option_name(80, "put")
TERMS = (
    "nlv_usd6", "initial_margin_usd6", "maintenance_margin_usd6", "expected_shortfall_usd6", "stress_loss_usd6",
    "short_option_minimum_usd6", "add_ons_usd6", "binding", "stress_row",
)  # fmt: skip

PORTFOLIOS: dict[str, dict[str, int]] = {
    "long call, short put, one strike": {CALL: 1_000, PUT: -1_000},
    "long put, short call, one strike": {CALL: -1_000, PUT: 1_000},
    "long future": {"X-FUT": 1_000},
    "short straddle hedged with the perpetual": {CALL: -1_000, PUT: -1_000, "X-PERP": 67},
    "long straddle hedged with the perpetual": {CALL: 1_000, PUT: 1_000, "X-PERP": -67},
    "conversion: long future, long put, short call": {"X-FUT": 1_000, PUT: 1_000, CALL: -1_000},
    "reversal: short future, short put, long call": {"X-FUT": -1_000, PUT: -1_000, CALL: 1_000},
    "long box": {CALL_LOW: 1_000, PUT_LOW: -1_000, CALL_HIGH: -1_000, PUT_HIGH: 1_000},
    "short box": {CALL_LOW: -1_000, PUT_LOW: 1_000, CALL_HIGH: 1_000, PUT_HIGH: -1_000},
    "covered call": {"X": 1_000, CALL_HIGH: -1_000},
    "call spread": {CALL: 1_000, CALL_HIGH: -1_000},
    "naked short put": {PUT_LOW: -1_000},
    "pair of perpetuals": {"X-PERP": 1_000, "Y-PERP": -10_000},
}


def legs_of(catalogue: Catalogue, portfolios: list[dict[str, int]]) -> Legs:
    """CSR legs, instruments ascending within an account."""
    sorted_legs = [sorted((catalogue.instrument_index[n], q) for n, q in p.items()) for p in portfolios]
    pointer = np.concatenate([[0], np.cumsum([len(p) for p in sorted_legs])]).astype(np.int64)
    flat = [leg for p in sorted_legs for leg in p]
    return Legs(pointer, np.array([i for i, _ in flat], np.int32), np.array([q for _, q in flat], np.int64))


def margined() -> dict[str, dict[str, int]]:
    """Terms of every portfolio, with isolated maintenance margin beside; perpetuals and futures entered at the mark."""
    catalogue, tables, parameters = market_and_tables(scenarios=SCENARIOS)
    legs = legs_of(catalogue, list(PORTFOLIOS.values()))
    count = len(PORTFOLIOS)
    linear = np.isin(tables.instruments.kind[legs.leg_instrument], (1, 2))
    marks = np.where(linear, legs.leg_lots * tables.columns_usd9[0, legs.leg_instrument] // 1_000, 0)
    entry = np.add.reduceat(marks, legs.account_ptr[:-1])
    margins = empty_margins(count)
    sums = account_sums(legs, np.zeros(count, np.int64), entry, tables, parameters)
    compute(legs, np.arange(count), sums, tables, parameters, margins)
    found = {}
    for n, name in enumerate(PORTFOLIOS):
        found[name] = {term: int(getattr(margins, term)[n]) for term in TERMS}
        found[name]["isolated_maintenance_usd6"] = isolated_maintenance_usd6(legs, n, tables, parameters)
    return found


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(margined(), indent=1) + "\n")
