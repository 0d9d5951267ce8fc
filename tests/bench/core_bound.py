"""The core bound (A3) for large accounts: measured beside the product's screen, which does without it.

Setting as in infra/docs/screening.md: V_a the P&L table of a keyframe, V_b that of a block, q lots, L = -sum q V. D and W
are the changes of V_a for one bump of each spot and of the volatility; any integers would do. For multiples k_u, m of
the bumps, in units of 2**-14, let R_i = V_b,i - V_a,i - floor((k_u D_i + m W_i) / 2**14), exactly, by row and scenario,
G_u = -sum of u's q D and H = -sum q W. An account has |L_b - L_a| <= r_s = (K sum_u |G_u| + M |H|) / 2**14 + rho where
|k_u| <= K, |m| <= M and sum |q_i| (max |R_i| + 1) <= rho: all checked at each block.

**Theorem.** Let theta-, theta+ be t* of L_a - r and of L_a + r, C the scenarios with L_a - r > theta+ (core), and B
those neither in C nor with L_a + r < theta-. With Y the linear part, Y_s = (sum_u k_u G_u + m H) / 2**14,

    ES_b <= ES_a + sum_C w Y / P + (1 - w(C) / P) max_B Y + sum_i max(-q_i min R_i, -q_i max R_i) + sum_i |q_i|.

*Proof.* t* does not fall when losses rise, so t* of L_b is within [theta-, theta+]. A tail weighting lambda that attains
ES_b has the whole weight of losses above t* (all of C), none below it (nothing outside B and C), and so P - w(C) on B.
ES_b = sum lambda L_b / P <= ES_a + sum lambda (L_b - L_a) / P, and L_b - L_a is Y plus, leg by leg, -q_i R_i and at most
|q_i| for the floor. QED. If a check fails, or C weighs more than P, every scenario is boundary.

Here all of it is integers, rounded outwards: every bound is held against the exact expected shortfall.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numba import njit

from kernels.expected_shortfall import NO_TAIL_THRESHOLD
from kernels.instrument_greeks import instrument_greeks
from kernels.layout import PnlTable
from kernels.scenario_losses import accumulate, address_room, in_loss_order
from kernels.tail_selection import tail_threshold
from tests.bench import screening as world
from tests.bench.rows import Row, checksum, peak_memory_mb

UNIT_BITS, BUMP = 14, 1e-3
SLOTS = 3  # underlyings of an account
NO_BOUND = 2**61


class Basis(NamedTuple):
    """Changes of the keyframe's table for a bump of each spot and of the volatility, int32[I,S] in the row's unit."""

    table: PnlTable
    spot: np.ndarray
    volatility: np.ndarray
    log_spot: np.ndarray
    level: float


class CoreTerms(NamedTuple):
    """What an account's bound needs of its keyframe, int64. By factor (SLOTS underlyings, then the volatility), [A,F]:
    extremes of its exposure everywhere and on the boundary, and its core mean, rounded down. [A]: core weight, rho."""

    low: np.ndarray
    high: np.ndarray
    boundary_low: np.ndarray
    boundary_high: np.ndarray
    core_mean: np.ndarray
    core_weight: np.ndarray
    rho: np.ndarray
    underlyings: np.ndarray


@njit(cache=True, nogil=True, error_model="numpy")
def _weighted_mean_down(values, weights, chosen, tail_mass):  # type: ignore[no-untyped-def]
    """floor(sum of the chosen w x / P) with two limbs."""
    high, low = np.int64(0), np.int64(0)
    for s in range(values.shape[0]):
        weight = np.int64(weights[s]) if chosen[s] else np.int64(0)
        high += weight * (values[s] >> 32)
        low += weight * (values[s] & 0xFFFFFFFF)
    quotient = high // tail_mass
    return (quotient << 32) + (((high - quotient * tail_mass) << 32) + low) // tail_mass


@njit(cache=True, nogil=True, error_model="numpy")
def _keyframes(  # type: ignore[no-untyped-def]
    account_ptr, leg_instrument, leg_lots, accounts, values, exponent, absolute_maximum, spot, volatility, underlying,
    weights, tail_mass, box, remainder_share, out,
) -> None:  # fmt: skip
    size, factors = weights.shape[0], out.low.shape[1]
    ordered, losses, shifted_losses = in_loss_order(weights), np.empty(size, np.int64), np.empty(size, np.int64)
    exposure, radius = np.empty((factors, size), np.int64), np.empty(size, np.int64)
    core, boundary = np.empty(size, np.bool_), np.empty(size, np.bool_)
    for a in accounts:
        begin, end = account_ptr[a], account_ptr[a + 1]
        legs, rho = leg_instrument[begin:end], np.int64(0)
        shifted, addresses = np.empty(end - begin, np.int32), address_room(end - begin)
        for j in range(end - begin):
            shifted[j] = np.int32(leg_lots[begin + j] << np.int64(exponent[legs[j]]))
            rho += abs(np.int64(shifted[j])) * (absolute_maximum[legs[j]] // remainder_share + 1)
        accumulate(values, legs, shifted, addresses, losses)
        first = 0
        for u in range(factors - 1):  # legs are ascending, so each underlying's are together
            out.underlyings[a, u] = underlying[legs[first]] if first < end - begin else -1
            last = first
            while last < end - begin and underlying[legs[last]] == out.underlyings[a, u]:
                last += 1
            accumulate(spot, legs[first:last], shifted[first:last], addresses, exposure[u])
            first = last
        accumulate(volatility, legs, shifted, addresses, exposure[factors - 1])
        out.rho[a] = rho
        for s in range(size):
            linear = np.int64(0)
            for f in range(factors):
                linear += abs(exposure[f, s])
            radius[s] = linear * box + rho + 1
            shifted_losses[s] = losses[s] - radius[s]
        lower = tail_threshold(shifted_losses, ordered, size, tail_mass)
        for s in range(size):
            shifted_losses[s] = losses[s] + radius[s]
        upper, weight = tail_threshold(shifted_losses, ordered, size, tail_mass), np.int64(0)
        for s in range(size):
            core[s] = losses[s] - radius[s] > upper
            boundary[s] = not core[s] and losses[s] + radius[s] >= lower
            weight += np.int64(ordered[s]) if core[s] else np.int64(0)
        out.core_weight[a] = weight
        for f in range(factors):
            low, high, edge_low, edge_high = NO_BOUND, -NO_BOUND, NO_BOUND, -NO_BOUND
            for s in range(size):
                value = exposure[f, s]
                low, high = min(low, value), max(high, value)
                if boundary[s]:
                    edge_low, edge_high = min(edge_low, value), max(edge_high, value)
            out.low[a, f], out.high[a, f] = low, high
            out.boundary_low[a, f], out.boundary_high[a, f] = min(edge_low, edge_high), max(edge_low, edge_high)
            out.core_mean[a, f] = _weighted_mean_down(exposure[f], ordered, core, tail_mass)


@njit(cache=True, nogil=True, error_model="numpy")
def _remainders(  # type: ignore[no-untyped-def]
    now, now_exponent, then, exponent, spot, volatility, underlying, spot_units, volatility_units, low, high
) -> None:
    for i in range(now.shape[0]):
        k, e, e_now = spot_units[underlying[i]], np.int64(exponent[i]), np.int64(now_exponent[i])
        least, most = np.int64(2**62), np.int64(-(2**62))
        for s in range(now.shape[1]):
            linear = (np.int64(spot[i, s]) * k + np.int64(volatility[i, s]) * volatility_units) >> UNIT_BITS
            rest = (np.int64(now[i, s]) << e_now) - ((np.int64(then[i, s]) + linear) << e)
            least, most = min(least, rest), max(most, rest)
        low[i], high[i] = least, most


@njit(cache=True, nogil=True, error_model="numpy")
def _increases(  # type: ignore[no-untyped-def]
    account_ptr, leg_instrument, leg_lots, accounts, exponent, low, high, terms, tail_mass, box, spot_units,
    volatility_units, out,
) -> None:  # fmt: skip
    factors = terms.low.shape[1]
    for a in accounts:
        rest, size = np.int64(0), np.int64(0)
        for j in range(account_ptr[a], account_ptr[a + 1]):
            i, lots = leg_instrument[j], leg_lots[j]
            rounding = abs(lots) << np.int64(exponent[i])
            rest += max(-lots * low[i], -lots * high[i]) + rounding
            size += abs(lots) * max(abs(low[i]), abs(high[i])) + rounding
        netted, core, edge, fits = np.int64(0), np.int64(0), np.int64(0), size <= terms.rho[a]
        for f in range(factors):
            if f < factors - 1 and terms.underlyings[a, f] < 0:
                continue
            k = volatility_units if f == factors - 1 else spot_units[terms.underlyings[a, f]]
            fits = fits and abs(k) <= box << UNIT_BITS
            netted += max(k * terms.low[a, f], k * terms.high[a, f])
            core += max(k * terms.core_mean[a, f], k * (terms.core_mean[a, f] + 1))
            edge += max(k * terms.boundary_low[a, f], k * terms.boundary_high[a, f])
        left = tail_mass - terms.core_weight[a]
        if fits and left >= 0:
            whole = edge // tail_mass
            shared = core + whole * left - (-((edge - whole * tail_mass) * left) // tail_mass)
            netted = min(netted, shared)
        out[a] = -(-netted >> UNIT_BITS) + rest


def _basis(log_spot: np.ndarray, level: float, days: float, scenarios: world.ScenarioTable) -> Basis:
    """The keyframe's table, and two more pricings: every row depends on its own underlying alone."""
    table, spot, volatility = (
        world._tables(world._market(log_spot + bump, level * scale, days), scenarios).pnl
        for bump, scale in ((0.0, 1.0), (BUMP, 1.0), (0.0, 1.0 + BUMP))
    )
    shift = table.exponent[:, None].astype(np.int64)
    change = [((pnl.values.astype(np.int64) << pnl.exponent[:, None].astype(np.int64)) >> shift) - table.values
              for pnl in (spot, volatility)]  # fmt: skip
    return Basis(table, *(np.ascontiguousarray(c, np.int32) for c in change), log_spot, level)


def _makers(accounts: int, legs: int, tables: world.Tables) -> world.Book:
    """Market makers in SLOTS underlyings, vega balanced and delta hedged, with so many legs."""
    rng = np.random.default_rng(legs)
    delta, _, vega, _ = (column.astype(float) for column in instrument_greeks(world.INSTRUMENTS, tables.market)[:4])
    drawn = [world.market_maker(rng, SLOTS, legs // SLOTS - 1, delta, vega) for _ in range(accounts)]
    return world.book_of(drawn, 1, tables, rng)


def _new_terms(accounts: int) -> CoreTerms:
    by_factor = [np.zeros((accounts, SLOTS + 1), np.int64) for _ in range(5)]
    return CoreTerms(*by_factor, *np.zeros((2, accounts), np.int64), np.full((accounts, SLOTS), -1, np.int64))
