"""Small worlds as plain JSON events, and a log store that feeds machines record by record in any order."""

from __future__ import annotations

import random
from collections import defaultdict
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from msgspec import UNSET, UnsetType

from oracles.scenario_set import FactorVolatilities, ScenarioSet, default_correlation, draw_scenario_set
from schemas import log_records as records
from schemas.risk_parameters import Concentration, ConcentrationTier, RiskParameters, VenueStress, parameters_document
from schemas.topics import ACCOUNT_FILLS, ACCOUNT_LOG, CHAIN_BLOCKS, INSTRUMENTS, MARKET_LOG, ORACLE_TICKS
from streams.engine.sequence import Sequencer, partition_of
from streams.simulate.in_process import INPUT_PARTITIONS, Pipeline

GENESIS_MS = 1_700_000_000_000
DAY_MS = 86_400_000
EXPIRY_MS = GENESIS_MS + 30 * DAY_MS
WHALES = {"whale": 2**31 + 12_345, "short whale": -(2**32)}  # lots of X-PERP, beyond the fast path
ACCOUNTS = tuple(f"account-{n}" for n in range(12))


@lru_cache(maxsize=4)
def scenario_set(seed: int = 1, scenarios: int = 128, shaped: bool = False) -> ScenarioSet:
    """X has options, Y has not, S is a stablecoin. `shaped`: version 4, its surface has curvature and term."""
    volatilities = FactorVolatilities(
        np.array([0.02, 0.03, 0.001]), np.array([0.05]), np.array([0.02]), np.array([0.001]),
        *((np.array([0.05]), np.array([0.01])) if shaped else ()),
    )  # fmt: skip
    spots = np.array([[1, 0.8, 0], [0.8, 1, 0], [0, 0, 1.0]])
    correlation = default_correlation(spots, [0], kinds=volatilities.kinds)
    return draw_scenario_set(("X", "Y", "S"), ("X",), volatilities, correlation, seed=seed, scenarios=scenarios)


def hash_of(number: int) -> str:
    return "0x" + (number + 1).to_bytes(32, "big").hex()


def event(kind: str, event_id: str, /, **fields: Any) -> dict:
    return {"type": kind, "version": 1, "id": event_id, **fields}


def underlying(symbol: str, **fields: Any) -> dict:
    return event("underlying", f"u-{symbol}", underlying=symbol, **fields)


def instrument(symbol: str, of: str, kind: str, exponent: int = -2, **fields: Any) -> dict:
    return event(
        "instrument", f"i-{symbol}", instrument=symbol, underlying=of, kind=kind, lot_exponent=exponent, **fields
    )


def option(strike_usd: int, kind: str, expiry_ms: int = EXPIRY_MS) -> dict:
    name = f"X-{expiry_ms}-{strike_usd}-{kind}"
    return instrument(name, "X", kind, expiry_ms=expiry_ms, strike_usd9=strike_usd * 10**9)


def option_name(strike_usd: int, kind: str, expiry_ms: int = EXPIRY_MS) -> str:
    return f"X-{expiry_ms}-{strike_usd}-{kind}"


def listings(parameters: RiskParameters | None = None) -> list[dict]:
    """Perpetuals, coins, a future and options on X at 100 and Y at 10."""
    found = [underlying("X"), underlying("Y"), underlying("S", stable=True)]
    if parameters is not None:
        found.append(event("parameters", "p-1", document=parameters_document(parameters)))
    found += [
        event("scenario_set", "s-1", digest=scenario_set().digest),
        instrument("X-PERP", "X", "perpetual"),
        instrument("Y-PERP", "Y", "perpetual"),
        instrument("X-FUT", "X", "future", expiry_ms=EXPIRY_MS),
        instrument("X", "X", "spot", collateral_factor_e6=900_000),
        instrument("S", "S", "spot", 0, collateral_factor_e6=980_000),
    ]
    return found + [option(strike, kind) for strike in (80, 100, 120) for kind in ("call", "put")]


def block(number: int, time_ms: int, events: int | None, ticks: int | None, listed: int | None) -> dict:
    found = {
        "type": "block", "version": 1, "number": number, "hash": hash_of(number), "parent_hash": hash_of(number - 1),
        "time_ms": time_ms, "event_count": events or 0,
    }  # fmt: skip
    if ticks is not None:
        found["tick_count"] = ticks
    if listed is not None:
        found["listing_count"] = listed
    return found


def fill(event_id: str, number: int, account: str, name: str, lots: int, price_usd: float, **fields: Any) -> dict:
    rest = {"time_ms": GENESIS_MS + 1_000 * number - 400, "price_usd9": round(price_usd * 10**9), **fields}
    return event("fill", event_id, block=number, account=account, instrument=name, lots=lots, **rest)


def cash(event_id: str, number: int, account: str, amount_usd: float, **fields: Any) -> dict:
    rest = {"time_ms": GENESIS_MS + 1_000 * number - 900, **fields}
    return event("cash_move", event_id, block=number, account=account, amount_usd6=round(amount_usd * 10**6), **rest)


def coins(event_id: str, number: int, account: str, name: str, lots: int, mode: str = "add") -> dict:
    time_ms = GENESIS_MS + 1_000 * number - 800
    return event(
        "collateral_move",
        event_id,
        block=number,
        time_ms=time_ms,
        account=account,
        instrument=name,
        lots=lots,
        mode=mode,
    )


def funding(event_id: str, number: int, name: str, amount_usd: float, **fields: Any) -> dict:
    rest = {"time_ms": GENESIS_MS + 1_000 * number - 300, **fields}
    return event("funding", event_id, block=number, instrument=name, amount_usd9=round(amount_usd * 10**9), **rest)


def transfer(event_id: str, number: int, account: str, to: str, **what: Any) -> dict:
    rest = {"time_ms": GENESIS_MS + 1_000 * number - 200, **what}
    return event("transfer", event_id, block=number, account=account, to=to, **rest)


def spot(event_id: str, of: str, time_ms: int, price_usd: float, source: str = "a") -> dict:
    return event("spot", event_id, source=source, time_ms=time_ms, underlying=of, price_usd9=round(price_usd * 10**9))


def surface(event_id: str, time_ms: int, expiry_ms: int = EXPIRY_MS, level: float = 1.0) -> dict:
    return event(
        "surface", event_id, source="a", time_ms=time_ms, underlying="X", expiry_ms=expiry_ms,
        a_e9=round(10_000_000 * level), b_e9=30_000_000, rho_e9=-200_000_000, m_e9=0, sigma_e9=200_000_000,
    )  # fmt: skip


def quote(event_id: str, time_ms: int, name: str, mark_usd: float) -> dict:
    return event("quote", event_id, source="a", time_ms=time_ms, instrument=name, mark_usd9=round(mark_usd * 10**9))


def time_of(number: int) -> int:
    return GENESIS_MS + 1_000 * number


def genesis_ticks(number: int = 0) -> list[dict]:
    time_ms = time_of(number)
    return [
        spot(f"gx{number}", "X", time_ms - 500, 100), spot(f"gy{number}", "Y", time_ms - 500, 10),
        spot(f"gs{number}", "S", time_ms - 500, 1), surface(f"gv{number}", time_ms - 100),
    ]  # fmt: skip


class Inputs:
    """Records of the input topics, in the order in which each partition has them."""

    def __init__(self) -> None:
        self.logs: dict[tuple[str, int], list[bytes]] = defaultdict(list)
        self.order: list[tuple[str, int]] = []

    def add(self, topic: str, raw: bytes | dict | list, partition: int = 0) -> None:
        self.logs[topic, partition].append(raw if isinstance(raw, bytes) else orjson.dumps(raw))
        self.order.append((topic, partition))

    def add_listings(self, found: list[dict]) -> None:
        for one in found:
            self.add(INSTRUMENTS, one)

    def add_block(
        self,
        number: int,
        events: list[dict],
        ticks: list[dict],
        listed: int | None,
        declared: bool = True,
        count: int | None = None,
        time_ms: int | None = None,
    ) -> None:
        for tick in ticks:
            self.add(ORACLE_TICKS, tick)
        for one in events:
            self.add(ACCOUNT_FILLS, one, partition_of(str(one.get("account", "")), INPUT_PARTITIONS[ACCOUNT_FILLS]))
        when = time_of(number) if time_ms is None else time_ms
        amount = len(events) if count is None else count
        self.add(CHAIN_BLOCKS, block(number, when, amount, len(ticks) if declared else None, listed))

    def pipeline(self, partitions: int = 4, order: list[tuple[str, int]] | None = None) -> Pipeline:
        """The whole pure pipeline over these records, by default in the order in which they were added."""
        found = Pipeline({s.digest: s for s in (scenario_set(), scenario_set(2))}, partitions)
        position: dict[tuple[str, int], int] = defaultdict(int)
        for log in order or self.order:
            found.push(*log, self.logs[log][position[log]])
            position[log] += 1
        return found


CONCENTRATION = tuple(
    Concentration(
        underlying=underlying,
        scope=scope,
        tiers=(
            ConcentrationTier(above_usd6=above_usd * 10**6, rate_e6=2_000),
            ConcentrationTier(above_usd6=3 * above_usd * 10**6, rate_e6=17_003),
        ),
    )
    for underlying, scope, above_usd in (("X", "derivatives", 50), ("Y", "derivatives", 7), ("X", "collateral", 20))
)


def random_world(
    seed: int, blocks: int = 6, declared: bool = True, first: int = 0, whales: bool = False,
    venue: VenueStress | UnsetType = UNSET,
) -> Inputs:  # fmt: skip
    """Seeded trades and prices, a crash at the end; an expiry, a listing, duplicates and bad input on the way.

    `venue`: as a governed group; another scenario set then takes effect before the last block."""
    rng = random.Random(seed)
    share_e6 = 700_000 if seed % 2 else 1_000_000
    large = CONCENTRATION if seed % 4 < 2 else ()
    inputs, listed = (
        Inputs(),
        listings(RiskParameters(unrealised_gain_share_e6=share_e6, concentration=large, venue_stress=venue)),
    )
    near = time_of(first + 3) - 200
    listed += [option(100, kind, near) for kind in ("call", "put")]
    inputs.add_listings(listed)
    names = [x["instrument"] for x in listed if x["type"] == "instrument" and x["kind"] != "spot"]
    price = {"X": 100.0, "Y": 10.0}
    for number in range(first, first + blocks):
        if number == first + 2:
            late = option(90, "put")
            inputs.add_listings([late])
            listed.append(late)
            names.append(late["instrument"])
        if venue is not UNSET and number == first + blocks - 1:
            other = event("scenario_set", "s-2", digest=scenario_set(2).digest)
            inputs.add_listings([other])
            listed.append(other)
        ticks = genesis_ticks(number) if number == first else []
        if number == first:
            ticks.append(surface(f"gn{number}", time_of(number) - 100, near, 0.01))
        for n in range(rng.randrange(4)):
            of = rng.choice(["X", "Y"])
            price[of] *= 1 + rng.gauss(0, 0.004) - (0.03 if number >= first + blocks - 2 else 0)
            when = time_of(number) - rng.randrange(1, 999)
            ticks.append(spot(f"t{number}-{n}", of, when, price[of], rng.choice("ab")))
        ticks.append(quote(f"q{number}", time_of(number) - 50, option_name(100, "call"), rng.uniform(2, 6)))
        events = [coins(f"r{number}", number, rng.choice(ACCOUNTS), "X", rng.randrange(300), "set")]
        events += _random_events(rng, number, number == first, names, price)
        if whales and number == first:
            events += [fill(f"w{n}", number, w, "X-PERP", n, 100) for w, n in WHALES.items()]
        events += _lifecycle_events(number, number - first)
        inputs.add_block(number, events, ticks, len(listed), declared)
        if rng.random() < 0.5:  # the same again, and something that is no event
            inputs.add(ACCOUNT_FILLS, events[0], partition_of(events[0]["account"], 4))
            inputs.add(ORACLE_TICKS, b"{not json")
    return inputs


def _lifecycle_events(number: int, place: int) -> list[dict]:
    """Funding of both perpetuals amid the fills, and transfers to a subaccount: cash, coins, a position."""
    if place not in (1, 3):
        return []
    account, sub = ACCOUNTS[place], f"{ACCOUNTS[place]}/hedge"
    return [
        funding(f"nx{number}", number, "X-PERP", 0.123456789, time_ms=time_of(number) - 500),
        funding(f"ny{number}", number, "Y-PERP", -0.01, time_ms=time_of(number) - 400),
        transfer(f"mc{number}", number, account, sub, amount_usd6=5_000_001),
        transfer(f"mk{number}", number, account, sub, instrument="X", lots=7),
        transfer(f"mp{number}", number, sub, account, instrument="X-PERP", lots=-333, price_usd9=99_123_456_789),
    ]


def _random_events(rng: random.Random, number: int, seeding: bool, names: list[str], price: dict) -> list[dict]:
    events = []
    if seeding:
        events += [cash(f"c{a}", number, a, rng.choice([20, 60, 400])) for a in ACCOUNTS]
        events += [coins(f"k{a}", number, a, "X", rng.randrange(0, 100)) for a in ACCOUNTS[:6]]
    for n in range(24 if seeding else rng.randrange(1, 8)):
        name = rng.choice(names)
        of = "Y" if name.startswith("Y") else "X"
        paid = price[of] if name.endswith(("PERP", "FUT")) else rng.uniform(0.5, 8)
        when = time_of(number) - rng.randrange(1, 999)
        lots = rng.randrange(-2_000, 2_000)
        events.append(fill(f"f{number}-{n}", number, rng.choice(ACCOUNTS), name, lots, paid, time_ms=when))
    return events


def interleaved(inputs: Inputs, rng: random.Random) -> list[tuple[str, int]]:
    """A random order of the records that keeps the order within each partition."""
    left = {log: len(values) for log, values in inputs.logs.items()}
    order = []
    while left:
        log = rng.choice(sorted(left))
        order.append(log)
        left[log] -= 1
        if not left[log]:
            del left[log]
    return order


class LogStore:
    """Logs with headers, as a broker would hold them: what the sequencer reads, and what it has written."""

    def __init__(self, inputs: Inputs) -> None:
        self.logs: dict[tuple[str, int], list[tuple[bytes, tuple]]] = defaultdict(list)
        for log, values in inputs.logs.items():
            self.logs[log] = [(value, ()) for value in values]

    def append(self, outputs: list) -> None:
        for output in outputs:
            self.logs[output.topic, output.partition].append((output.value, output.headers))

    def readable(self, machine: Sequencer) -> list[tuple[str, int]]:
        """Logs that have a record which the machine has not read."""
        return [log for log, offset in sorted(machine.positions().items()) if offset < len(self.logs[log])]

    def feed(self, machine: Sequencer, log: tuple[str, int]) -> list:
        """Give the machine the next record of a log; its outputs, not yet appended."""
        offset = machine.positions()[log]
        value, headers = self.logs[log][offset]
        return [output for found in machine.steps(*log, offset, value, headers) for output in found]

    def run(self, machine: Sequencer, rng: random.Random) -> None:
        """To the end of all logs, in a random order of topics."""
        while logs := self.readable(machine):
            self.append(self.feed(machine, rng.choice(logs)))

    def account_logs(self, partitions: int) -> list[list[bytes]]:
        """account.log without repeats; one number with two contents fails."""
        found = []
        for partition in range(partitions):
            seen: dict[tuple[int, bool], bytes] = {}
            for value, _ in self.logs[ACCOUNT_LOG, partition]:
                header = records.read_header(value)
                key = (header.number, header.kind != records.EVENTS)
                assert seen.setdefault(key, value) == value, f"number {header.number} has two contents"
            found.append([seen[key] for key in sorted(seen)])
        return found

    def decisions(self) -> list[bytes]:
        """Valid decisions of market.log: of the holder of the last fence, the first of every number."""
        found: dict[int, bytes] = {}
        holder = b""
        for value, headers in self.logs[MARKET_LOG, 0]:
            header = records.read_header(value)
            if header.kind == records.FENCE:
                holder = value[records.HEADER.size :]
            elif dict(headers)["token"] == holder:
                found.setdefault(header.number, value)
        return [found[number] for number in sorted(found)]


def new_sequencer(token: bytes = b"first", partitions: int = 4) -> Sequencer:
    return Sequencer(partitions, INPUT_PARTITIONS, token, checkpoint_every=1)
