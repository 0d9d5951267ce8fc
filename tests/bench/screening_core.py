"""The core bound (A3) for large accounts: measured beside the product's screen, which does without it.

Setting as in infra/docs/screening.md: V_a the P&L table of a keyframe, V_b that of a block, q lots in units of the rows
of V_a, L = -sum q V. D and W are the changes of V_a for one bump of each spot and of the volatility; any integers would
do. For multiples k_u, m of the bumps, in units of 2**-14, let R_i = V_b,i - V_a,i - floor((k_u D_i + m W_i) / 2**14),
exactly, by row and scenario, G_u = -sum of u's q D and H = -sum q W. Then |L_b - L_a| <= r_s = K sum_u |G_u| + M |H| +
rho where |k_u| <= 2**14 K, |m| <= 2**14 M and sum |q_i| (max |R_i| + 1) <= rho: all checked at each block.

**Theorem.** Let theta-, theta+ be t* of L_a - r and of L_a + r, C the scenarios with L_a - r > theta+ (core), and B
those neither in C nor with L_a + r < theta-. With Y the linear part, Y_s = (sum_u k_u G_u + m H) / 2**14,

    ES_b <= ES_a + sum_C w Y / P + (1 - w(C) / P) max_B Y + sum_i max(-q_i min R_i, -q_i max R_i) + sum_i |q_i|.

*Proof.* t* does not fall when losses rise, so t* of L_b is within [theta-, theta+]. A tail weighting lambda that
attains ES_b has the whole weight of losses above t* (all of C), none below it (nothing outside B and C), and so
P - w(C) on B. ES_b = sum lambda L_b / P <= ES_a + sum lambda (L_b - L_a) / P, and L_b - L_a is Y plus, leg by leg,
-q_i R_i and at most |q_i| for the floor. QED. If a check fails every scenario is boundary.

Here all of it is integers, rounded outwards: every bound is held against the exact expected shortfall. All that can
favour the core bound does: keyframes only of those who turn out to need one, the two pricings of a keyframe not
counted, one just before the crash, hedged market makers in few underlyings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numba import njit

from kernels.instrument_greeks import instrument_greeks
from kernels.layout import PnlTable, ScenarioTable
from kernels.scenario_losses import accumulate, address_room, in_loss_order
from kernels.tail_selection import tail_threshold
from streams.engine.margin import HEALTHY, Margins, Sums, account_sums, compute, empty_margins
from streams.engine.screen import Plan, screen
from streams.engine.tables import Tables
from tests.bench import screening as world
from tests.bench.rows import Row, checksum, peak_memory_mb

UNIT_BITS, BUMP = 14, 1e-3
SLOTS, SIZES = 3, (21, 42, 99)  # underlyings of an account; legs
BOXES = {"calm": 1, "crash": 12}  # bumps: a tenth of a percent; larger boxes leave no core
REMAINDER_SHARE = 5_000  # rho: gross over this
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
def _exposures(legs, shifted, spot, volatility, underlying, addresses, of_slot, exposure) -> None:  # type: ignore[no-untyped-def]
    """-sum q D of each underlying, then -sum q W of all; legs are ascending, so an underlying's are together."""
    first, size = 0, legs.shape[0]
    for u in range(of_slot.shape[0]):
        of_slot[u] = underlying[legs[first]] if first < size else -1
        last = first
        while last < size and underlying[legs[last]] == of_slot[u]:
            last += 1
        accumulate(spot, legs[first:last], shifted[first:last], addresses, exposure[u])
        first = last
    accumulate(volatility, legs, shifted, addresses, exposure[of_slot.shape[0]])


@njit(cache=True, nogil=True, error_model="numpy")
def _split(losses, exposure, weights, tail_mass, box, rho, core, boundary):  # type: ignore[no-untyped-def]
    """Fill core and boundary; weight of the core."""
    size, radius, moved = losses.shape[0], np.empty(losses.shape[0], np.int64), np.empty(losses.shape[0], np.int64)
    for s in range(size):
        linear = np.int64(0)
        for f in range(exposure.shape[0]):
            linear += abs(exposure[f, s])
        radius[s] = linear * box + rho + 1
        moved[s] = losses[s] - radius[s]
    lower = tail_threshold(moved, weights, size, tail_mass)
    for s in range(size):
        moved[s] = losses[s] + radius[s]
    upper, weight = tail_threshold(moved, weights, size, tail_mass), np.int64(0)
    for s in range(size):
        core[s] = losses[s] - radius[s] > upper
        boundary[s] = not core[s] and losses[s] + radius[s] >= lower
        weight += np.int64(weights[s]) if core[s] else np.int64(0)
    return weight


@njit(cache=True, nogil=True, error_model="numpy")
def _extremes(values, chosen):  # type: ignore[no-untyped-def]
    """(low, high, low of the chosen, high of the chosen), some being chosen."""
    low, high, chosen_low, chosen_high = NO_BOUND, -NO_BOUND, NO_BOUND, -NO_BOUND
    for s in range(values.shape[0]):
        low, high = min(low, values[s]), max(high, values[s])
        if chosen[s]:
            chosen_low, chosen_high = min(chosen_low, values[s]), max(chosen_high, values[s])
    return low, high, chosen_low, chosen_high


@njit(cache=True, nogil=True, error_model="numpy")
def _keyframes(  # type: ignore[no-untyped-def]
    account_ptr, leg_instrument, leg_lots, accounts, table, spot, volatility, underlying, weights, tail_mass, box, out
) -> None:
    size, factors = weights.shape[0], out.low.shape[1]
    ordered, losses, exposure = in_loss_order(weights), np.empty(size, np.int64), np.empty((factors, size), np.int64)
    core, boundary = np.empty(size, np.bool_), np.empty(size, np.bool_)
    for a in accounts:
        legs, lots = leg_instrument[account_ptr[a] : account_ptr[a + 1]], leg_lots[account_ptr[a] : account_ptr[a + 1]]
        shifted, addresses, rho = np.empty(legs.shape[0], np.int32), address_room(legs.shape[0]), np.int64(0)
        for j in range(legs.shape[0]):
            shifted[j] = np.int32(lots[j] << np.int64(table.exponent[legs[j]]))
            rho += abs(np.int64(shifted[j])) * (table.absolute_maximum[legs[j]] // REMAINDER_SHARE + 1)
        accumulate(table.values, legs, shifted, addresses, losses)
        _exposures(legs, shifted, spot, volatility, underlying, addresses, out.underlyings[a], exposure)
        out.rho[a] = rho
        out.core_weight[a] = _split(losses, exposure, ordered, tail_mass, box, rho, core, boundary)
        for f in range(factors):
            found = _extremes(exposure[f], boundary)
            out.low[a, f], out.high[a, f], out.boundary_low[a, f], out.boundary_high[a, f] = found
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


class CoreScreen:
    """The core bounds of a book from one keyframe: `shortfall_usd9` are its exact expected shortfalls."""

    def __init__(self, book: world.Book, basis: Basis, scenarios: ScenarioTable, box: int, margins: Margins) -> None:
        self.book, self.basis, self.scenarios, self.box = book, basis, scenarios, np.int64(box)
        self.shortfall_usd9 = margins.es_usd9.copy()
        self.terms = _new_terms(book.count)
        self.underlying = world.INSTRUMENTS.underlying
        self.low, self.high = np.zeros((2, len(self.underlying)), np.int64)

    def take_keyframes(self, accounts: np.ndarray) -> None:
        basis = self.basis
        _keyframes(
            *self.book.legs, accounts, basis.table, basis.spot, basis.volatility, self.underlying,
            self.scenarios.weights, np.int64(world.TAIL_MASS), self.box, self.terms,
        )  # fmt: skip

    def bounds(self, accounts: np.ndarray, now: Tables, move: np.ndarray, level: float) -> np.ndarray:
        """Upper bounds of expected shortfall, int64[A] nano-USD, of the given accounts."""
        basis, unit = self.basis, (1 << UNIT_BITS) / BUMP
        spot_units = np.rint((move - basis.log_spot) * unit).astype(np.int64)
        level_units = np.int64(round((level / basis.level - 1) * unit))
        _remainders(
            now.pnl.values, now.pnl.exponent, basis.table.values, basis.table.exponent, basis.spot, basis.volatility,
            self.underlying, spot_units, level_units, self.low, self.high,
        )  # fmt: skip
        out = np.zeros(self.book.count, np.int64)
        _increases(
            *self.book.legs, accounts, basis.table.exponent, self.low, self.high, self.terms,
            np.int64(world.TAIL_MASS), self.box, spot_units, level_units, out,
        )  # fmt: skip
        return self.shortfall_usd9 + out


class Taken:
    """CPU seconds of one thread and counts, over the blocks of a phase."""

    def __init__(self) -> None:
        self.hinge = self.core = self.brute = 0.0
        self.candidates = self.cleared = self.violations = 0
        self.ever: set[int] = set()


def _cpu_seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def _block(
    screen_of: CoreScreen, margins: Margins, sums: Sums, now: Tables, at: tuple[np.ndarray, float], plan: Plan,
    taken: Taken,
) -> None:  # fmt: skip
    """One block both ways: the hinge for everyone whom the sup bound does not clear, or for whom the core does not."""
    book, p, number = screen_of.book, world.SCREENED, plan.block
    candidates, everyone = np.flatnonzero(plan.may_bound), np.arange(screen_of.book.count)
    exact = empty_margins(book.count)
    taken.brute += _cpu_seconds(lambda: compute(book.legs, everyone, sums, now, p, exact, number))
    found = screen_of.bounds(everyone, now, *at)
    taken.violations += int((found < exact.es_usd9).sum())
    # Stress is taken as exact at no cost: in favour of the core bound.
    risk = np.maximum(np.maximum(found, exact.stress_usd9), sums.short_minimum_usd9).astype(object)
    initial_usd9 = (risk * p.initial_margin_multiplier_e6) // 10**6 + 1 + sums.add_ons_usd9
    cleared = (sums.nlv_usd6.astype(object) * 1000 >= initial_usd9).astype(np.bool_)
    taken.violations += int((cleared & (exact.state != HEALTHY)).sum())
    left = candidates[~cleared[candidates]]
    copies = [Margins(*(column.copy() for column in margins)) for _ in range(2)]
    if len(candidates):
        taken.hinge += _cpu_seconds(
            lambda: compute(book.legs, candidates, sums, now, p, copies[0], number, plan.may_bound)
        )
        taken.core += _cpu_seconds(lambda: screen_of.bounds(candidates, now, *at))
        taken.core += _cpu_seconds(lambda: compute(book.legs, left, sums, now, p, copies[1], number, plan.may_bound))
    taken.candidates += len(candidates)
    taken.cleared += len(candidates) - len(left)
    taken.ever |= set(candidates.tolist())


def _phase(accounts: int, legs: int, size: int, kind: str, blocks: int) -> tuple[Taken, str]:
    """Blocks after one keyframe of everybody; afterwards the keyframes of those who needed one are timed."""
    scenarios, move = world._scenarios(size, 1), np.zeros(world.UNDERLYINGS)
    before = world._tables(world._market(move, 1.0, 0.0), scenarios)
    book, p, margins = _makers(accounts, legs, before), world.SCREENED, empty_margins(accounts)
    cash, entry, taken = book.cash_usd6, np.zeros(accounts, np.int64), Taken()
    sums = account_sums(book.legs, cash, entry, before, p)
    compute(book.legs, np.arange(accounts), sums, before, p, margins, 0)
    core = CoreScreen(book, _basis(move, 1.0, 0.0, scenarios), scenarios, BOXES[kind], margins)
    core.take_keyframes(np.arange(accounts))
    for number, (move, level) in enumerate(world.path([kind] * blocks), start=1):
        now = world._tables(world._market(move, level, number * 12 / 86_400), scenarios)
        sums = account_sums(book.legs, cash, entry, now, p)
        plan = screen(book.legs, sums, margins, world.untouched(book), before, now, p, number)
        _block(core, margins, sums, now, (move, level), plan, taken)
        compute(book.legs, np.flatnonzero(plan.first), sums, now, p, margins, number, plan.may_bound)
        compute(book.legs, np.flatnonzero(plan.rest), sums, now, p, margins, number)
        before = now
    needed = np.array(sorted(taken.ever), np.int64)
    taken.core += _cpu_seconds(lambda: core.take_keyframes(needed))
    return taken, checksum(*core.terms, *margins[:8])


def rows(small: bool) -> Iterator[Row]:
    """Large accounts, calm and in a crash: what follows the sup bound, with and without the core bound."""
    accounts = 40 if small else 1_000
    for size in (128,) if small else (1024, 4096):
        for legs in SIZES:
            for kind, blocks in (("calm", 3 if small else 24), ("crash", 2 if small else 8)):
                taken, digest = _phase(accounts, legs, size, kind, blocks)
                yield _row(kind, legs, size, accounts, blocks, taken, digest)


def _row(kind: str, legs: int, size: int, accounts: int, blocks: int, taken: Taken, digest: str) -> Row:
    milliseconds = 1e3 / blocks
    return Row(
        name=f"core bound, {kind}, {legs} legs, S={size:,}", value=round(taken.core * milliseconds, 3), unit="ms",
        peer=f"hinge alone: {taken.hinge * milliseconds:.3f} ms (everyone exact: {taken.brute * milliseconds:.1f} ms)",
        ratio=round(taken.hinge / taken.core, 2) if taken.core else None,
        goal=f"no violation (found {taken.violations}); pays above ratio 1",
        ok=taken.violations == 0,
        size=f"{accounts:,} accounts, CPU of a thread a block; sup bound fails for {taken.candidates / blocks:.1f}, "
        f"core clears {taken.cleared / blocks:.1f}; {len(taken.ever)} keyframes over {blocks} blocks",
        memory_mb=peak_memory_mb(), checksum=digest,
    )  # fmt: skip
