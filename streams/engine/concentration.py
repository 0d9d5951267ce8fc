"""The concentration charge: positions that are large beside what the market can take cost more margin.

A governed rule names an underlying and a scope (its derivatives, or its coins as collateral) with tiers of marginal
rates, like tax brackets: what an account's size exceeds a tier by costs that tier's rate. Size is gross, because every
leg has to be traded when the portfolio is closed:

    size   = sum |lots| x notional of a lot            derivatives
           = sum max(lots, 0) x mark of a lot          collateral
    charge = sum_k ceil( (rate_k - rate_{k-1}) x max(0, size - above_k) )

It is convex in the size, so splitting a position over accounts lowers it: tiers are set for one account alone.
`oracles.liquidity` makes tiers from depth and volume.
"""

from __future__ import annotations

import numpy as np

from kernels.layout import SPOT
from schemas.quantities import ONE_E6, USD9_PER_USD6, divide_up
from schemas.risk_parameters import COLLATERAL, Concentration, RiskParameters
from streams.engine.book import Legs
from streams.engine.tables import Tables, ratio_up_usd9

_BEYOND = 2**62  # no size of an account on the fast path reaches it


def concentration_usd9(legs: Legs, tables: Tables, p: RiskParameters) -> np.ndarray:
    """The charge of every account, int64[A] nano-USD; exact where sums of sizes fit int64."""
    count = len(legs.account_ptr) - 1
    charge = np.zeros(count, np.int64)
    if not p.concentration:
        return charge
    account = np.repeat(np.arange(count), np.diff(legs.account_ptr))
    rules = tables.concentration_rule[legs.leg_instrument]
    for place, rule in enumerate(p.concentration):
        at = np.flatnonzero(rules == place)
        size = np.zeros(count, np.int64)
        np.add.at(size, account[at], _sizes(legs.leg_lots[at], legs.leg_instrument[at], tables, rule))
        for above_usd9, rate_e6 in _increments(rule):
            charge += ratio_up_usd9(np.maximum(size - min(above_usd9, _BEYOND), 0), rate_e6)
    return charge


def concentration_of(legs: Legs, account: int, tables: Tables, p: RiskParameters) -> list[tuple[Concentration, int]]:
    """Each rule's charge of one account of any size, nano-USD."""
    leg = slice(int(legs.account_ptr[account]), int(legs.account_ptr[account + 1]))
    instruments, lots = legs.leg_instrument[leg], legs.leg_lots[leg].astype(object)
    found = []
    for place, rule in enumerate(p.concentration):
        at = np.flatnonzero(tables.concentration_rule[instruments] == place)
        size = sum(_sizes(lots[at], instruments[at], tables, rule).tolist())
        charges = [divide_up(max(0, size - above) * rate, ONE_E6) for above, rate in _increments(rule)]
        found.append((rule, sum(charges)))
    return found


def marginal_rate_usd9(tables: Tables, p: RiskParameters) -> np.ndarray:
    """Most that one more lot can add to the charge, float64[I] nano-USD."""
    if not p.concentration:
        return np.zeros(len(tables.concentration_rule))
    steepest = np.array([rule.tiers[-1].rate_e6 for rule in p.concentration] + [0]) / ONE_E6
    size = np.where(tables.instruments.kind == SPOT, tables.columns_usd9[0], tables.columns_usd9[2])
    return np.asarray(steepest[tables.concentration_rule] * size)


def _sizes(lots: np.ndarray, instruments: np.ndarray, tables: Tables, rule: Concentration) -> np.ndarray:
    """Size of each leg in nano-USD; lots may be Python integers."""
    if rule.scope == COLLATERAL:
        return np.maximum(lots, 0) * tables.columns_usd9[0, instruments]
    return np.abs(lots) * tables.columns_usd9[2, instruments]


def _increments(rule: Concentration) -> list[tuple[int, int]]:
    """(above in nano-USD, rise of the rate) of every tier."""
    rates = [0, *(tier.rate_e6 for tier in rule.tiers)]
    return [
        (tier.above_usd6 * USD9_PER_USD6, rate - before)
        for tier, rate, before in zip(rule.tiers, rates[1:], rates, strict=False)
    ]
