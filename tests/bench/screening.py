"""A block of 100,000 accounts computed by brute force and screened, side by side, every bound held against its margin.

Population: 85 % retail (1 to 5 legs, two underlyings), 10 % spreads and butterflies, 5 % market makers (three
underlyings, 58 options each, vega balanced, delta hedged); NLV is IM x (1.02 + exponential(0.8)) at the start. 10
underlyings with a perpetual and 60 options each, priced by the product's kernels. A block moves prices by 0.015 %
(calm) or falls by 0.5 % (crash); where a tenth trades, each of these trades up to as much of a leg as it held. Both
ways include sums, bounds of the change and the whole decision with 64 stress rows, in 2 threads; pricing of the tables
is the same for both and not included.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from kernels.instrument_greeks import instrument_greeks
from kernels.layout import (
    CALL,
    PERPETUAL,
    PUT,
    InstrumentTable,
    MarketTable,
    ScenarioTable,
    empty_pnl_table,
    scenario_table,
    tail_mass_of_level,
)
from kernels.reprice import marks, pnl_table
from kernels.stress import stress_table
from kernels.weights import integer_weights
from schemas.risk_parameters import RiskParameters
from streams.engine.book import INSTRUMENT_BITS, Legs
from streams.engine.held import Holdings
from streams.engine.margin import HEALTHY, Margins, account_sums, compute, empty_margins
from streams.engine.screen import Touched, screen
from streams.engine.tables import Tables
from tests.bench.rows import Row, checksum, peak_memory_mb

UNDERLYINGS, OPTIONS, STRESS_ROWS, THREADS = 10, 60, 64, 2
PER, TRADERS = OPTIONS + 1, 10
TAIL_MASS = tail_mass_of_level(990_000)
CALM_SHARE_MAX, CRASH_SHARE_MAX, MILLION_SECONDS_MAX, MILLION_MB_MAX = 0.25, 1.05, 2.0, 2_048
BRUTE, SCREENED = RiskParameters(), RiskParameters(bound_accounts_min=1)


class Book(NamedTuple):
    """Accounts: legs and cash."""

    legs: Legs
    cash_usd6: np.ndarray

    @property
    def count(self) -> int:
        return len(self.cash_usd6)

    def traded(self, rng: np.random.Generator) -> tuple[Book, Touched]:
        """The book after one account in TRADERS has traded up to as much of a leg as it held, and what it held."""
        pointer, instruments, lots = self.legs
        rows = np.sort(rng.choice(self.count, self.count // TRADERS, replace=False))
        of_leg = np.repeat(np.arange(self.count), np.diff(pointer))
        places = pointer[rows] + rng.integers(0, pointer[rows + 1] - pointer[rows])
        size, after = np.maximum(np.abs(lots[places]), 1), lots.copy()
        after[places] += rng.integers(1, size + 1) * rng.choice([-1, 1], len(rows))
        traded = np.zeros(self.count, np.bool_)
        traded[rows] = True
        held = Holdings(rows, (of_leg << INSTRUMENT_BITS | instruments)[traded[of_leg]], lots[traded[of_leg]])
        return self._replace(legs=self.legs._replace(leg_lots=after)), Touched(traded, held)


def _instruments() -> InstrumentTable:
    index = np.arange(UNDERLYINGS * PER)
    underlying, place = (index // PER).astype(np.int32), index % PER - 1
    strikes = np.array([80, 85, 90, 93, 96, 98, 100, 102, 104, 107, 110, 115, 120, 125, 130.0])
    strike = np.where(place >= 0, strikes[place % 15], 0.0)
    kind = np.where(place < 0, PERPETUAL, np.where(strike >= 100, CALL, PUT)).astype(np.int8)
    expiry = np.where(place < 0, -1, underlying * 4 + place // 15).astype(np.int32)
    ones = np.ones(len(index))
    return InstrumentTable(kind, underlying, expiry, strike, ones, ones, ones.astype(np.bool_))


INSTRUMENTS = _instruments()


def _market(log_move: np.ndarray, volatility: float, days: float) -> MarketTable:
    years = np.tile(np.array([3, 14, 60, 182.5]) - days, UNDERLYINGS) / 365
    level = (0.55 * volatility) ** 2 * years
    svi = np.stack([0.7 * level, 0.1 * level, np.full(40, -0.2), np.zeros(40), np.full(40, 0.2)], axis=1)
    of = np.repeat(np.arange(UNDERLYINGS, dtype=np.int32), 4)
    spot = 100 * np.exp(log_move)
    return MarketTable(spot, spot[of], svi, np.full(40, 0.03), years, of)


def _scenarios(size: int, seed: int) -> ScenarioTable:
    rng = np.random.default_rng(seed)
    radius = (rng.permutation(size) + rng.random(size)) / size
    scale = 0.028 * np.minimum(1 / np.sqrt(np.maximum(radius**2.5, 1e-5)), 12) ** 0.5
    common = rng.standard_normal(size)
    spot = np.clip(scale * (0.75 * common + 0.66 * rng.standard_normal((UNDERLYINGS, size))), -0.45, 0.45)
    level = np.clip(-0.6 * spot + 0.02 * rng.standard_normal(spot.shape), -0.15, 0.5)
    nano = [np.rint(x * 1e9).astype(np.int32) for x in (spot, level, 0 * spot, 0 * spot)]
    rows = np.arange(UNDERLYINGS, dtype=np.int32)
    return scenario_table(nano[0], rows, *nano[1:], integer_weights(2.5 * radius**1.5), TAIL_MASS, 3600)


def _tables(market: MarketTable, scenarios: ScenarioTable) -> Tables:
    pnl = empty_pnl_table(len(INSTRUMENTS.kind), len(scenarios.weights))
    pnl_table(INSTRUMENTS, market, scenarios, pnl)
    spot = np.repeat(np.linspace(0.7, 1.3, STRESS_ROWS // 2), 2)
    volatility = np.tile([0.8, 1.45], STRESS_ROWS // 2)
    stress = stress_table(INSTRUMENTS, market, np.tile(spot[:, None], UNDERLYINGS), volatility, np.zeros(STRESS_ROWS))
    mark, haircut = marks(INSTRUMENTS, market)
    notional = np.rint(market.spot[INSTRUMENTS.underlying] * 1e9).astype(np.int64)
    expiry = np.where(INSTRUMENTS.kind >= CALL, INSTRUMENTS.expiry, -1).astype(np.int32)
    weight = np.full(STRESS_ROWS, 250_000)
    columns = np.stack([mark, haircut, notional])
    return Tables(
        INSTRUMENTS, market, scenarios, TAIL_MASS, pnl, stress, weight, columns, np.zeros((len(mark), 4), np.int64),
        expiry, np.full(len(mark), -1, np.int32),
    )  # fmt: skip


def _positions(rng: np.random.Generator, delta: np.ndarray, vega: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(instruments, lots) of one seeded account."""
    draw = rng.random()
    if draw < 0.85:
        count, pair = rng.integers(1, 6), rng.integers(0, UNDERLYINGS, 2)
        option = np.where(rng.random(count) < 0.3, 0, rng.integers(1, PER, count))
        return pair[rng.integers(0, 2, count)] * PER + option, rng.integers(1, 10, count) * rng.choice([-1, 1], count)
    if draw < 0.95:
        first = rng.integers(UNDERLYINGS) * PER + 1 + rng.integers(4) * 15 + rng.integers(13)
        shape = np.array([1, -1] if rng.random() < 0.5 else [1, -2, 1])
        return first + np.arange(len(shape)), shape * rng.integers(1, 20) * rng.choice([-1, 1])
    return market_maker(rng, 3, 58, delta, vega)


def market_maker(
    rng: np.random.Generator, underlyings: int, options: int, delta: np.ndarray, vega: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(instruments, lots): so many options of each of some underlyings, vega balanced, delta hedged."""
    found, lots = [], []
    for u in rng.choice(UNDERLYINGS, underlyings, replace=False) * PER:
        held = u + 1 + rng.choice(OPTIONS, options, replace=False)
        size = (rng.integers(1, 30, options) * rng.choice([-1, 1], options)).astype(float)
        if abs(np.sign(size).sum()) == options:
            size[0] = -size[0]  # there must be something to balance with
        bought = size > 0
        ratio = (size * vega[held])[bought].sum() / max(-(size * vega[held])[~bought].sum(), 1.0)
        size[~bought] *= min(max(ratio, 0.01), 100.0)  # what is sold may have next to no vega
        size = np.rint(size)
        found.append(np.append(held, u))
        lots.append(np.append(size, -np.rint((size * delta[held]).sum() / delta[u])))
    return np.concatenate(found), np.concatenate(lots).astype(np.int64)


def _book(accounts: int, distinct: int, tables: Tables) -> Book:
    """`distinct` portfolios, repeated; every account has its own cash."""
    rng = np.random.default_rng(11)
    delta, _, vega, _ = (column.astype(float) for column in instrument_greeks(INSTRUMENTS, tables.market)[:4])
    return book_of([_positions(rng, delta, vega) for _ in range(distinct)], accounts // distinct, tables, rng)


def book_of(drawn: list[tuple[np.ndarray, np.ndarray]], repeats: int, tables: Tables, rng: np.random.Generator) -> Book:
    """Portfolios, repeated, with cash that makes NLV = IM x (1.02 + exponential(0.8))."""
    accounts = len(drawn) * repeats
    ordered = [np.argsort(instruments, kind="stable") for instruments, _ in drawn]
    sizes = np.tile([len(o) for o in ordered], repeats)
    pointer = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    held = np.concatenate([i[o] for (i, _), o in zip(drawn, ordered, strict=True)]).astype(np.int32)
    lots = np.concatenate([q[o] for (_, q), o in zip(drawn, ordered, strict=True)]).astype(np.int64)
    legs = Legs(pointer, np.tile(held, repeats), np.tile(lots, repeats))
    zeros = np.zeros(accounts, np.int64)
    margins, sums = empty_margins(accounts), account_sums(legs, zeros, zeros, tables, BRUTE)
    compute(legs, np.arange(accounts), sums, tables, BRUTE, margins)
    wanted = np.maximum(margins.initial_margin_usd6, 10**9) * (1.02 + rng.exponential(0.8, accounts))
    return Book(legs, wanted.astype(np.int64) - sums.nlv_usd6)


def untouched(book: Book) -> Touched:
    """Nobody has traded."""
    return Touched(np.zeros(book.count, np.bool_), Holdings())


class Machine:
    """One way of computing a block, with the margins it keeps."""

    def __init__(self, book: Book, parameters: RiskParameters, pool: ThreadPoolExecutor) -> None:
        self.parameters, self.pool = parameters, pool
        self.margins = empty_margins(book.count)
        self.stages: dict[str, int] = {}

    def block(self, number: int, book: Book, touched: Touched, before: Tables | None, now: Tables) -> float:
        """Compute a block; seconds. Brute force computes everyone and no bound."""
        began, p, m = time.perf_counter(), self.parameters, self.margins
        zeros = np.zeros(book.count, np.int64)
        sums = account_sums(book.legs, book.cash_usd6, zeros, now, p, self.pool.map)
        if not p.bound_accounts_min:
            compute(book.legs, np.arange(book.count), sums, now, p, m, number, spread=self.pool.map)
            return time.perf_counter() - began
        plan = screen(book.legs, sums, m, touched, before, now, p, number, self.pool.map)
        first, rest = np.flatnonzero(plan.first), np.flatnonzero(plan.rest)
        compute(book.legs, first, sums, now, p, m, number, plan.may_bound, self.pool.map)
        compute(book.legs, rest, sums, now, p, m, number, spread=self.pool.map)
        self.stages = plan.stages(m)
        return time.perf_counter() - began


def violations(block: int, exact: Margins, found: Margins) -> int:
    """Rows that say less than the exact margin, another state, or anything else of an exact row."""
    bound = found.keyframe_block != block
    wrong = found.state != exact.state
    wrong |= bound & (exact.state != HEALTHY)
    for name in ("es_usd9", "stress_usd9", "initial_margin_usd6", "maintenance_margin_usd6"):
        one, other = getattr(found, name), getattr(exact, name)
        wrong |= np.where(bound, one < other, one != other)
    return int(wrong.sum())


class Phase(NamedTuple):
    """Blocks of one kind: seconds of both ways, violations, the last stages, and what was computed."""

    brute: list[float]
    screened: list[float]
    violations: int
    stages: dict[str, int]
    digest: str


def path(kinds: list[str]) -> Iterator[tuple[np.ndarray, float]]:
    """(log moves since the start, multiple of the volatility) of blocks of these kinds."""
    rng, beta = np.random.default_rng(5), np.random.default_rng(6).uniform(0.8, 1.2, UNDERLYINGS)
    move = np.zeros(UNDERLYINGS)
    for kind in kinds:
        move = move + 1.5e-4 * (0.6 * rng.standard_normal() + 0.8 * rng.standard_normal(UNDERLYINGS))
        move = move - 0.005 * beta if kind.startswith("crash") else move
        yield move, 1.0 + 2e-4 * rng.standard_normal()


def _phases(book: Book, size: int, calm: int, crash: int, pool: ThreadPoolExecutor) -> dict[str, Phase]:
    rng, found = np.random.default_rng(7), {}
    brute, screened = Machine(book, BRUTE, pool), Machine(book, SCREENED, pool)
    scenarios, before = _scenarios(size, 1), None
    kinds = ["start"] * 2 + ["calm"] * calm + ["crash"] * crash + ["scenario-set change"]
    kinds += ["calm, a tenth trades"] * (calm // 2) + ["crash, a tenth trades"] * (crash // 2)
    for number, (kind, (move, level)) in enumerate(zip(kinds, path(kinds), strict=True)):
        book, touched = book.traded(rng) if "trades" in kind else (book, untouched(book))
        if kind == "scenario-set change":
            scenarios, before = _scenarios(size, 2), None
        now = _tables(_market(move, level, number * 12 / 86_400), scenarios)
        seconds = (
            brute.block(number, book, touched, None, now),
            screened.block(number, book, touched, before, now),
        )
        phase = found.setdefault(kind, Phase([], [], 0, {}, ""))
        phase.brute.append(seconds[0])
        phase.screened.append(seconds[1])
        wrong = phase.violations + violations(number, brute.margins, screened.margins)
        digest = checksum(*screened.margins[:8], screened.margins.state)
        found[kind] = phase._replace(violations=wrong, stages=screened.stages, digest=digest)
        before = now
    return found


def rows(small: bool) -> Iterator[Row]:
    """Every figure of the screen."""
    accounts, distinct = (600, 300) if small else (100_000, 20_000)
    with ThreadPoolExecutor(THREADS) as pool:
        for size in (128,) if small else (1024, 4096):
            book = _book(accounts, distinct, _tables(_market(np.zeros(UNDERLYINGS), 1.0, 0.0), _scenarios(size, 1)))
            phases = _phases(book, size, *((4, 2) if small else (24, 8)), pool)
            yield from (_row(kind, size, book, phases[kind], small) for kind in phases if kind != "start")
        yield _million(small, pool)


def _row(kind: str, size: int, book: Book, phase: Phase, small: bool) -> Row:
    brute, screened = float(np.median(phase.brute)), float(np.median(phase.screened))
    share = round(float(np.median(np.array(phase.screened) / np.array(phase.brute))), 3)
    limit = CALM_SHARE_MAX if kind.startswith("calm") else CRASH_SHARE_MAX
    stages = ", ".join(f"{count} {name}" for name, count in phase.stages.items())
    return Row(
        name=f"screened block, {kind}, S={size:,}", value=round(screened * 1e3, 2), unit="ms",
        peer=f"brute force: {brute * 1e3:.1f} ms", ratio=round(1 / share, 2),
        goal=f"<= {limit} of brute, no violation (found {phase.violations})",
        ok=phase.violations == 0 and (small or share <= limit),
        size=f"{book.count:,} accounts, {len(book.legs.leg_lots) / book.count:.1f} legs, {THREADS} threads; "
        f"last block: {stages}",
        memory_mb=peak_memory_mb(), checksum=phase.digest,
    )  # fmt: skip


def _million(small: bool, pool: ThreadPoolExecutor) -> Row:
    """A calm block of very many accounts."""
    accounts, distinct, size = (2_000, 200, 128) if small else (1_000_000, 20_000, 1024)
    market, scenarios = _market(np.zeros(UNDERLYINGS), 1.0, 0.0), _scenarios(size, 1)
    before = _tables(market, scenarios)
    book = _book(accounts, distinct, before)
    machine = Machine(book, SCREENED, pool)
    machine.block(0, book, untouched(book), None, before)
    taken = []
    for number in range(1, 2 if small else 4):
        now = _tables(_market(np.full(UNDERLYINGS, 1.5e-4 * number), 1.0, number * 12 / 86_400), scenarios)
        taken.append(machine.block(number, book, untouched(book), before, now))
        before = now
    seconds, memory = round(float(np.median(taken)), 3), peak_memory_mb()
    stages = ", ".join(f"{count} {name}" for name, count in machine.stages.items())
    return Row(
        name=f"screened block, calm, {accounts:,} accounts, S={size:,}", value=seconds, unit="s",
        goal=f"< {MILLION_SECONDS_MAX:g} s, < {MILLION_MB_MAX} MB",
        ok=small or (seconds < MILLION_SECONDS_MAX and memory < MILLION_MB_MAX),
        size=f"{len(book.legs.leg_lots) / accounts:.1f} legs, {THREADS} threads; {stages}", memory_mb=memory,
        checksum=checksum(*machine.margins[:8]),
    )  # fmt: skip
