"""`python tests/integration/bit_identity_world.py`: one JSON line, the digest of a seeded world for 1, 2 and 3 threads.

Scenario sets of every model, the risk model's state, a GARCH fit, P&L table, stress table, Greeks, every margin term.
The processor that is compiled for, and the cache, are the environment's (NUMBA_CPU_NAME, NUMBA_CACHE_DIR).
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import numpy as np  # noqa: E402
from engine_worlds import EXPIRY_MS, GENESIS_MS, listings, option, scenario_set  # noqa: E402
from risk_model_worlds import bar_at, implied  # noqa: E402
from risk_model_worlds import market as bars_of_assets  # noqa: E402

from kernels.garch import KIND_SKEW_T, fit  # noqa: E402
from oracles.risk_model.inputs import scenario_inputs  # noqa: E402
from oracles.risk_model.scenarios import Jumps, draw_fhs_set, draw_jump_set  # noqa: E402
from oracles.risk_model.state import ModelSpec, RiskModelState  # noqa: E402
from oracles.scenario_set import ScenarioSet  # noqa: E402
from schemas.catalogue import Catalogue  # noqa: E402
from schemas.log_records import EXPIRY_ROW, SPOT_ROW, Market  # noqa: E402
from schemas.risk_parameters import RiskParameters  # noqa: E402
from streams.engine.book import Legs  # noqa: E402
from streams.engine.margin import Margins, account_sums, compute, empty_margins  # noqa: E402
from streams.engine.market import RecordedMarket  # noqa: E402
from streams.engine.tables import Tables, build_tables, scenario_table_of  # noqa: E402

THREADS = (1, 2, 3)
ACCOUNTS = 300
ONE = 10**9
EXPIRIES_MS = (EXPIRY_MS, GENESIS_MS + 86_400_000, GENESIS_MS + 1_800_000)  # the last one within the horizon


def tables_of(drawn: ScenarioSet, parameters: RiskParameters) -> Tables:
    """X at 100 with three expiries and strikes far out on both sides, Y, a stablecoin."""
    strikes = (20, 60, 90, 97, 100, 103, 110, 150, 400)
    options = [option(k, kind, expiry) for expiry in EXPIRIES_MS for k in strikes for kind in ("call", "put")]
    known = {listing["id"] for listing in listings()}
    catalogue = Catalogue.from_listings([*listings(), *(o for o in options if o["id"] not in known)])
    market = RecordedMarket()
    market.fit_to(catalogue)
    spots = np.array([(0, 0, 100 * ONE + 7, 0), (1, 0, 10 * ONE + 3, 0), (2, 0, ONE - 1, 0)], SPOT_ROW)
    smiles = [
        (e, 0, (100 + e) * ONE, 0, 6_000_000 // (e + 1) ** 3, 30_000_000 // (e + 1) ** 3, -200_000_000, 0, 200_000_000)
        for e in range(len(catalogue.expiries))
    ]
    market.record(Market(spots, np.array(smiles, EXPIRY_ROW)), GENESIS_MS)
    return build_tables(catalogue, market, parameters, scenario_table_of(drawn, catalogue))


def seeded_legs(instruments: int) -> Legs:
    """Accounts of 1 to 12 legs of any size, and a few beyond the fast path."""
    rng = random.Random(11)
    legs = [sorted(rng.sample(range(instruments), rng.randint(1, 12))) for _ in range(ACCOUNTS)]
    sizes = [
        rng.choice([10, 10_000, 3_000_000_000 if a % 50 == 0 else 100]) for a, found in enumerate(legs) for _ in found
    ]
    pointer = np.cumsum([0, *map(len, legs)]).astype(np.int64)
    flat = [i for found in legs for i in found]
    return Legs(pointer, np.array(flat, np.int32), np.array([rng.randint(-n, n) or 1 for n in sizes], np.int64))


def margins_by_threads(legs: Legs, tables: Tables, parameters: RiskParameters, threads: int) -> Margins:
    """Margins with the accounts split over threads: by turns, so that threads write side by side."""
    zeros = np.zeros(ACCOUNTS, np.int64)
    sums, margins = account_sums(legs, zeros, zeros, tables, parameters), empty_margins(ACCOUNTS)

    def work(first: int) -> None:
        compute(legs, np.arange(first, ACCOUNTS, threads), sums, tables, parameters, margins)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return margins


def risk_model_bytes(number: int = 800) -> bytes:
    """State after a seeded history, the two sets drawn from it, and the parameters of a fit."""
    bars, volatility = bars_of_assets(number, 2), implied(number)
    state = RiskModelState(ModelSpec(("A0", "A1"), ("A0",), residuals=600))
    for t in range(number):
        level = float(volatility[t])
        shape = {"A0": (level - 1.0, 3.0 - level, 0.1 * level)}
        state.update(int(bars[0].time_ms[t]), {b.asset: bar_at(b, t) for b in bars}, {"A0": level}, shape)
    inputs = scenario_inputs(state, ("A0", "A1"), 3_600)
    common = (inputs.underlyings, inputs.option_underlyings, inputs.volatilities, inputs.correlation)
    drawn = draw_fhs_set(*common, inputs.bank, seed=1, scenarios=256)
    jumps = Jumps(20.0, np.full(12, 4.0), np.full((2, 12), -0.02), np.full((2, 12), 0.04))
    jumping = draw_jump_set(*common, jumps, seed=1, scenarios=256)
    theta = fit(bars[0].close[1:] / bars[0].close[:-1] - 1.0, KIND_SKEW_T, True, True)[0]
    return state.to_bytes() + drawn.to_bytes() + jumping.to_bytes() + theta.tobytes()


def digests() -> dict[str, str]:
    """Digest for each number of threads."""
    model = risk_model_bytes()
    parameters, drawn = RiskParameters(), scenario_set(3, 512, shaped=True)
    tables = tables_of(drawn, parameters)
    assert not (tables.pnl.exponent < 0).any(), "an instrument of this world has no price"
    common = [tables.pnl.values, tables.pnl.exponent, tables.stress, tables.columns_usd9, tables.greeks_usd9]
    legs = seeded_legs(len(tables.instruments.kind))
    found = {}
    for threads in THREADS:
        margins = margins_by_threads(legs, tables, parameters, threads)
        digest = hashlib.blake2b(drawn.to_bytes() + scenario_set(3, 512).to_bytes() + model, digest_size=32)
        for array in (*common, *margins):
            digest.update(np.ascontiguousarray(array).tobytes())
        found[str(threads)] = digest.hexdigest()
    return found


if __name__ == "__main__":
    print(json.dumps(digests()))
