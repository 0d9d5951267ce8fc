"""Exact expected shortfall and the whole decision: microseconds an account on one core, against scipy and numpy.

Population: seeded books of `nnz` legs over 600 option-like rows of 20 underlyings, heavy-tailed scenarios, weighted
(importance-sampled radius) or equal; warm thresholds off by up to 10 % of the tail, as from the last block.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
from scipy.sparse import csr_matrix
from scipy.special import gammaincinv

from kernels.account_sums import portfolio_sums
from kernels.decision import Margins, PlainTerms, decisions
from kernels.expected_shortfall import FAST, account_terms, account_terms_wide
from kernels.layout import WEIGHT_TOTAL, PnlTable, tail_mass_of_level
from kernels.weights import integer_weights
from kernels.wide_shortfall import account_terms_two_limb
from streams.engine.margin import empty_margins
from tests.bench.rows import Row, checksum, peak_memory_mb, side_by_side

INSTRUMENTS, UNDERLYINGS, STRESS_ROWS = 600, 20, 64
TAIL_MASS = tail_mass_of_level(990_000)
AVX2_RATIO_MAX, DECISION_RATIO_MAX, PEER_RATIO_MIN = 2.0, 1.2, 9.0
CASES = ((4096, 10, False), (4096, 40, False), (1024, 10, True), (1024, 40, True))


class Population(NamedTuple):
    """Accounts and the tables they are margined on."""

    name: str
    pointer: np.ndarray
    legs: np.ndarray
    lots: np.ndarray
    pnl: PnlTable
    weights: np.ndarray
    stress: np.ndarray
    stress_weight_e6: np.ndarray
    columns_usd9: np.ndarray
    option_expiry: np.ndarray


def population(scenarios: int, legs: int, weighted: bool, accounts: int, stress_rows: int = STRESS_ROWS) -> Population:
    """A seeded world; see the module's head."""
    rng = np.random.default_rng(3)
    radius = (rng.permutation(scenarios) + rng.random(scenarios)) / scenarios
    likelihood = 2.5 * radius**1.5 if weighted else np.ones(scenarios)
    radius = radius**2.5 if weighted else radius
    scale = 0.03 * np.sqrt(2 / gammaincinv(2.0, np.clip(radius, 1e-12, 1)))
    common, own = rng.standard_normal(scenarios), rng.standard_normal((UNDERLYINGS, scenarios))
    returns = np.clip(scale * (0.75 * common + 0.66 * own), -0.5, 0.5)
    price, underlying = 10 ** rng.uniform(0, 4, UNDERLYINGS), np.arange(INSTRUMENTS) % UNDERLYINGS
    strike, sign = np.exp(rng.normal(0, 0.15, INSTRUMENTS)), rng.choice([-1, 1], INSTRUMENTS)
    lot_usd = price[underlying] * 10.0 ** rng.integers(-3, 0, INSTRUMENTS)
    pnl = _quantised(lot_usd, _gain(returns[underlying], strike, sign))
    shocks = np.tile(np.linspace(-0.4, 0.4, stress_rows), (INSTRUMENTS, 1))
    stress = np.rint(_gain(shocks, strike, sign) * lot_usd[:, None] * 1e9).astype(np.int64)
    mark = np.rint(lot_usd * 5e7).astype(np.int64)
    held = np.sort(rng.integers(0, INSTRUMENTS, (accounts, legs)), axis=1).astype(np.int32)
    size = np.maximum(1, np.rint(rng.uniform(0.1, 1, held.shape) * 3e4 / lot_usd[held])).astype(np.int64)
    weights = integer_weights(likelihood) if weighted else np.full(scenarios, WEIGHT_TOTAL // scenarios, np.int32)
    return Population(
        f"S={scenarios:,} {'weighted' if weighted else 'equal'}, {legs} legs",
        np.arange(accounts + 1, dtype=np.int64) * legs, held.ravel(), (size * rng.choice([-1, 1], held.shape)).ravel(),
        pnl, weights, stress, np.full(stress_rows, 250_000),
        np.stack([mark, mark * 9 // 10, np.rint(lot_usd * 1e9).astype(np.int64)]),
        (np.arange(INSTRUMENTS) % 4).astype(np.int32),
    )  # fmt: skip


def _gain(returns: np.ndarray, strike: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """P&L of an option-like row per unit of its price, float64[I, N]."""

    def value(log_return: np.ndarray) -> np.ndarray:
        bump = 0.05 * np.exp(-(((log_return - np.log(strike)[:, None]) / 0.2) ** 2))
        return np.maximum(sign[:, None] * (np.exp(log_return) - strike[:, None]), 0) + bump

    return value(returns) - value(np.zeros((len(strike), 1)))


def _quantised(lot_usd: np.ndarray, gain: np.ndarray) -> PnlTable:
    nano = gain * lot_usd[:, None] * 1e9
    exponent = np.maximum(0, np.ceil(np.log2((np.abs(nano).max(axis=1) + 1) / (2**31 - 1)))).astype(np.int8)
    values = np.rint(nano / 2.0 ** exponent[:, None]).astype(np.int32)
    full = values.astype(np.int64) << exponent[:, None].astype(np.int64)
    return PnlTable(values, exponent, full.min(axis=1), full.max(axis=1), np.abs(values.astype(np.int64)).max(axis=1))


class Runner:
    """The two works on a population: expected shortfall alone, and the whole decision."""

    def __init__(self, found: Population) -> None:
        self.found, count = found, len(found.pointer) - 1
        self.accounts = np.arange(count)
        self.margins = empty_margins(count)
        self.status = np.zeros(count, np.int8)
        self.no_stress = np.zeros((INSTRUMENTS, 0), np.int64), np.zeros(0, np.int64)
        self.shortfall()
        noise = np.random.default_rng(1).uniform(-0.1, 0.1, count)
        scale = np.maximum(self.margins.es_usd9 - self.margins.tail_threshold, 1)
        self.warm = self.margins.tail_threshold + (scale * noise).astype(np.int64)

    def shortfall(self) -> np.ndarray:
        """Expected shortfall alone: no stress row."""
        f, m = self.found, self.margins
        if hasattr(self, "warm"):
            m.tail_threshold[:] = self.warm
        account_terms(
            f.pointer, f.legs, f.lots, self.accounts, f.pnl, f.weights, TAIL_MASS, *self.no_stress, m.es_usd9,
            m.stress_usd9, m.stress_row, m.tail_threshold, self.status,
        )  # fmt: skip
        return m.es_usd9

    def decision(self) -> Margins:
        """NLV, equity, MM, IM, every term, state and what binds."""
        f, m = self.found, self.margins
        m.tail_threshold[:] = self.warm
        sums, magnitude = np.zeros((len(self.accounts), 4), np.int64), np.zeros(len(self.accounts))
        portfolio_sums(f.pointer, f.legs, f.lots, f.columns_usd9, f.option_expiry, 4, sums, magnitude)
        plain = PlainTerms(sums[:, 1] // 1_000, sums[:, 0] // 1_000, sums[:, 3] // 100, sums[:, 2] // 2_000)
        decisions(
            f.pointer, f.legs, f.lots, self.accounts, f.pnl, f.weights, TAIL_MASS, f.stress, f.stress_weight_e6, plain,
            1_250_000, np.zeros(len(self.accounts), np.bool_), 0, m, self.status,
        )  # fmt: skip
        assert (self.status == FAST).all()
        return m


def peer(found: Population) -> np.ndarray:
    """What numpy users write: sparse positions @ dense float64 scenarios, np.partition, mean of the tail."""
    accounts, scenarios = len(found.pointer) - 1, len(found.weights)
    values = found.pnl.values * 2.0 ** found.pnl.exponent[:, None].astype(np.float64)
    positions = csr_matrix((found.lots.astype(np.float64), found.legs, found.pointer), (accounts, INSTRUMENTS))
    out, tail, block = np.empty(accounts), TAIL_MASS * scenarios / WEIGHT_TOTAL, 512
    whole = int(tail)
    for begin in range(0, accounts, block):
        losses = np.asarray(-(positions[begin : begin + block] @ values))
        ordered = np.partition(losses, (scenarios - whole - 1, scenarios - whole), axis=1)
        top, edge = ordered[:, scenarios - whole :].sum(axis=1), ordered[:, scenarios - whole - 1]
        out[begin : begin + block] = (top + (tail - whole) * edge) / tail
    return out


def rows(small: bool) -> Iterator[Row]:
    """Every figure of the exact path."""
    accounts = 200 if small else 10_000
    for scenarios, legs, weighted in ((256, 10, False), (128, 5, True)) if small else CASES:
        yield from _case(population(scenarios, legs, weighted, accounts), weighted, small)
    yield _wide(small)
    yield _avx2(small)


def _case(found: Population, weighted: bool, small: bool) -> Iterator[Row]:
    runner, accounts = Runner(found), len(found.pointer) - 1
    exact = runner.shortfall().copy()
    equal = True
    if not weighted:
        equal = bool(np.allclose(peer(found), exact, rtol=1e-9, atol=2))
    works = (runner.shortfall, runner.decision, lambda: peer(found))
    timed = side_by_side(*works, repeats=1 if small else 9, clock=time.process_time)
    shortfall, decision, numpy_peer = (round(s * 1e6 / accounts, 3) for s in timed.seconds)
    size = f"{accounts:,} accounts, {found.name}"
    against = "scipy.sparse @ dense + np.partition, equal weights" + ("" if equal else ": OTHER RESULT")
    ratio = round(timed.ratios[2], 1)
    yield Row(
        name=f"exact ES, {found.name}", value=shortfall, unit="us/account", peer=f"{against}: {numpy_peer} us",
        ratio=ratio, goal=f">= {PEER_RATIO_MIN:g}x", ok=equal and (small or ratio >= PEER_RATIO_MIN), size=size,
        memory_mb=peak_memory_mb(), checksum=checksum(exact),
    )  # fmt: skip
    margins = runner.decision()
    over = round(timed.ratios[1], 3)
    yield Row(
        name=f"whole decision, {STRESS_ROWS} stress rows, {found.name}", value=decision, unit="us/account",
        peer=f"ES alone: {over} times its time", ratio=round(1 / over, 3), goal=f"<= {DECISION_RATIO_MAX}x ES alone",
        ok=bool((margins.es_usd9 == exact).all()) and (small or over <= DECISION_RATIO_MAX), size=size,
        memory_mb=peak_memory_mb(), checksum=checksum(*margins[:11]),
    )  # fmt: skip


def _wide(small: bool) -> Row:
    """An account of 100 billion USD gross: two limbs against Python integers, which must agree."""
    f = population(256 if small else 4096, 40, True, 3)
    lots = f.lots * 2**30
    cases = [(f.legs[40 * a : 40 * a + 40], lots[40 * a : 40 * a + 40]) for a in range(3)]
    rest = (f.pnl, f.weights, TAIL_MASS, f.stress, f.stress_weight_e6)

    def compiled() -> list:
        return [account_terms_two_limb(*case, *rest) for case in cases]

    def python() -> list:
        return [account_terms_wide(*case, *rest) for case in cases]

    timed = side_by_side(compiled, python, repeats=1 if small else 3)
    equal = compiled() == python()
    digits = np.array([str(term) for terms in compiled() for term in terms or ()])
    return Row(
        name="wide account, 40 legs, two limbs", value=round(timed.seconds[0] * 1e6 / 3, 1), unit="us/account",
        peer=f"Python integers: {timed.seconds[1] * 1e6 / 3:.0f} us", ratio=round(timed.ratios[1], 1),
        goal="equal to Python integers", ok=equal, size=f"S={len(f.weights):,}", memory_mb=peak_memory_mb(),
        checksum=checksum(digits),
    )  # fmt: skip


PROBE = """
import sys, orjson
from tests.bench.expected_shortfall import probe
sys.stdout.write(orjson.dumps(probe()).decode())
"""


def probe() -> dict:
    """Microseconds of ES alone and a checksum, on whatever target this process compiles for."""
    found = population(1024, 10, True, 10_000)
    runner = Runner(found)
    timed = side_by_side(runner.shortfall, repeats=9, clock=time.process_time)
    return {"us": timed.seconds[0] * 1e6 / (len(found.pointer) - 1), "checksum": checksum(runner.shortfall())}


def _avx2(small: bool) -> Row:
    """The same work compiled for an AVX2 machine, in a process of its own (a minute of compilation: not when small)."""
    name = "AVX2 (haswell) against this machine, ES S=1,024 weighted, 10 legs"
    if small:
        return Row(name=name, value=None, unit="times as long", goal="not run at small size: compiles twice")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for target in ("host", "haswell"):
            environment = {**os.environ, "NUMBA_CACHE_DIR": str(Path(folder) / target)}
            if target != "host":
                environment |= {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": ""}
            command = [sys.executable, "-c", PROBE]
            done = subprocess.run(
                command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, check=True
            )
            found[target] = orjson.loads(done.stdout)
    slower = round(found["haswell"]["us"] / found["host"]["us"], 2)
    equal = found["haswell"]["checksum"] == found["host"]["checksum"]
    return Row(
        name=name, value=slower, unit="times as long",
        peer=f"host {found['host']['us']:.2f} us, haswell {found['haswell']['us']:.2f} us",
        goal=f"<= {AVX2_RATIO_MAX:g}, same result", ok=equal and slower <= AVX2_RATIO_MAX,
        size="10,000 accounts", memory_mb=peak_memory_mb(), checksum=found["host"]["checksum"],
    )  # fmt: skip
