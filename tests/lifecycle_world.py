"""A small venue through its life, seeded: listings and expiries, matched trades, funding, deposits, withdrawals,
transfers, a crash. It keeps account of what came in from outside, so that conservation can be checked to the unit.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from engine_worlds import (
    DAY_MS,
    GENESIS_MS,
    block,
    event,
    instrument,
    scenario_set,
    spot,
    surface,
    underlying,
)

from schemas.codec import encode
from schemas.quantities import USD21_PER_USD6
from schemas.risk_parameters import RiskParameters, parameters_document
from schemas.topics import ACCOUNT_FILLS, CHAIN_BLOCKS, FILL_PARTITIONS, INSTRUMENTS, ORACLE_TICKS
from streams.engine.book import INSTRUMENT_MASK
from streams.engine.sequence import partition_of
from streams.simulate.in_process import Pipeline

HOUR_MS = DAY_MS // 24
OWNERS = ("ann", "bob", "cem", "dia", "eve")
ACCOUNTS = tuple(owner + sub for owner in OWNERS for sub in ("", "/options"))
PERPETUALS = {"X-PERP": "X", "Y-PERP": "Y"}
FUNDING_EVERY_MS = 8 * HOUR_MS
TERMS_DAYS = {1: 1, 7: 7, 30: 28}  # every so many days one is listed that expires after so many


class Record(NamedTuple):
    """One record of an input topic."""

    topic: str
    partition: int
    raw: bytes


class Contract(NamedTuple):
    """A dated contract that may be traded until it expires."""

    name: str
    kind: str
    strike_usd: float
    expiry_ms: int


class Venue:
    """Makes the inputs block by block. `came_in_usd6`: deposits - withdrawals - fees so far; `coins`: the same in lots
    of each coin.
    """

    def __init__(self, seed: int, days: int, block_ms: int, scenarios: int = 128, crash_day: int | None = None) -> None:
        self.rng = random.Random(seed)
        self.days, self.block_ms, self.crash_day = days, block_ms, crash_day
        self.scenario_set = scenario_set(1, scenarios)
        self.share_e6 = self.rng.choice([1_000_000, 600_000])
        self.price = {"X": 100.0, "Y": 10.0, "S": 1.0}
        self.contracts: list[Contract] = []
        self.expired = 0
        self.listed = 0
        self.serial = 0
        self.came_in_usd6 = 0
        self.coins: dict[str, int] = defaultdict(int)

    def pipeline(self, partitions: int) -> Pipeline:
        return Pipeline({self.scenario_set.digest: self.scenario_set}, partitions)

    def blocks(self) -> Iterator[list[Record]]:
        """Records of each block: listings, ticks, account events, the block."""
        for number in range(self.days * DAY_MS // self.block_ms):
            time_ms = GENESIS_MS + number * self.block_ms
            listings, ticks = self._listings(number, time_ms), self._ticks(number, time_ms)
            events = self._events(number, time_ms)
            self.listed += len(listings)
            closing = block(number, time_ms, len(events), len(ticks), self.listed)
            yield [
                *(Record(INSTRUMENTS, 0, encode(x)) for x in listings),
                *(Record(ORACLE_TICKS, 0, encode(x)) for x in ticks),
                *(
                    Record(ACCOUNT_FILLS, partition_of(x.get("account", ""), FILL_PARTITIONS), encode(x))
                    for x in events
                ),
                Record(CHAIN_BLOCKS, 0, encode(closing)),
            ]

    # -- what is listed

    def _listings(self, number: int, time_ms: int) -> list[dict]:
        self.expired += sum(c.expiry_ms <= time_ms for c in self.contracts)
        self.contracts = [c for c in self.contracts if c.expiry_ms > time_ms]
        found = self._first_listings() if number == 0 else []
        day, since_ms = divmod(time_ms - GENESIS_MS, DAY_MS)
        if since_ms:
            return found
        listed_ms = {c.expiry_ms for c in self.contracts}
        for every, term in TERMS_DAYS.items():
            expiry_ms = time_ms + term * DAY_MS - HOUR_MS // 3  # in the middle of a block
            if day % every == 0 and expiry_ms not in listed_ms:
                listed_ms.add(expiry_ms)
                found += self._series(expiry_ms)
        return found

    def _first_listings(self) -> list[dict]:
        document = parameters_document(RiskParameters(unrealised_gain_share_e6=self.share_e6))
        return [
            underlying("X"), underlying("Y"), underlying("S", stable=True), event("parameters", "p", document=document),
            event("scenario_set", "s", digest=self.scenario_set.digest),
            instrument("X-PERP", "X", "perpetual", -3), instrument("Y-PERP", "Y", "perpetual", -1),
            instrument("X", "X", "spot", -4, collateral_factor_e6=900_000), instrument("S", "S", "spot", -2),
        ]  # fmt: skip

    def _series(self, expiry_ms: int) -> list[dict]:
        """A future, and a call and a put at three strikes."""
        terms = [("future", 0.0)] + [
            (kind, float(round(self.price["X"] * ratio))) for ratio in (0.9, 1.0, 1.1) for kind in ("call", "put")
        ]
        made = [Contract(f"X-{expiry_ms}-{kind}-{strike:g}", kind, strike, expiry_ms) for kind, strike in terms]
        self.contracts += made
        strikes = {c.name: {"strike_usd9": round(c.strike_usd * 10**9)} if c.strike_usd else {} for c in made}
        return [instrument(c.name, "X", c.kind, -3, expiry_ms=expiry_ms, **strikes[c.name]) for c in made]

    # -- prices

    def _ticks(self, number: int, time_ms: int) -> list[dict]:
        falling = self.crash_day is not None and 0 <= time_ms - GENESIS_MS - self.crash_day * DAY_MS < 6 * HOUR_MS
        ticks = [spot(f"s{number}", "S", time_ms - 3, 1.0)] if number == 0 else []
        for symbol, share in (("X", 1.0), ("Y", 0.9)):
            for part in (1, 2):
                hours = self.block_ms / HOUR_MS / 2
                move = self.rng.gauss(0, 0.006) * hours**0.5 - (0.05 * hours if falling else 0.0)
                self.price[symbol] = max(self.price[symbol] * (1 + share * move), 0.5)
                when = time_ms - 2 - (2 - part) * self.block_ms // 2
                ticks.append(spot(f"{symbol}{number}-{part}", symbol, when, self.price[symbol]))
        expiries = sorted({c.expiry_ms for c in self.contracts})
        due = expiries if (time_ms - GENESIS_MS) % DAY_MS == 0 or falling else []
        level = 3.0 if falling else 1.0
        return ticks + [surface(f"v{number}-{e}", time_ms - 700, e, level * (e - time_ms) / (30 * DAY_MS)) for e in due]

    # -- accounts

    def _event(self, kind: str, number: int, time_ms: int, **fields: Any) -> dict:
        self.serial += 1
        return event(kind, f"{kind}{self.serial}", block=number, time_ms=time_ms, **fields)

    def _events(self, number: int, time_ms: int) -> list[dict]:
        events = self._opening(number, time_ms) if number == 0 else []
        if number and (time_ms - GENESIS_MS) % FUNDING_EVERY_MS < self.block_ms:
            rates = {name: self.rng.gauss(0, 0.0005) for name in PERPETUALS}
            events += [
                self._event("funding", number, time_ms - self.rng.randrange(1, 500), instrument=name,
                            amount_usd9=round(rates[name] * self.price[of] * 10**9))
                for name, of in PERPETUALS.items()
            ]  # fmt: skip
        if number:
            for _ in range(self.rng.randrange(3)):
                events += self._trade(number, time_ms - self.rng.randrange(1, 500))
            if self.rng.random() < 0.3:
                events.append(self._outside(number, time_ms))
            if self.rng.random() < 0.2:
                events.append(self._transfer(number, time_ms))
        return events

    def _opening(self, number: int, time_ms: int) -> list[dict]:
        return [self._cash(number, time_ms, account, 250_000_000) for account in ACCOUNTS] + [
            self._coins(number, time_ms, account, "X", 20_000) for account in ACCOUNTS[:4]
        ]

    def _cash(self, number: int, time_ms: int, account: str, amount_usd6: int) -> dict:
        self.came_in_usd6 += amount_usd6
        return self._event("cash_move", number, time_ms - 600, account=account, amount_usd6=amount_usd6)

    def _coins(self, number: int, time_ms: int, account: str, coin: str, lots: int) -> dict:
        self.coins[coin] += lots
        return self._event("collateral_move", number, time_ms - 600, account=account, instrument=coin, lots=lots)

    def _outside(self, number: int, time_ms: int) -> dict:
        """A deposit or withdrawal."""
        account, sign = self.rng.choice(ACCOUNTS), self.rng.choice([1, -1])
        if self.rng.random() < 0.5:
            return self._cash(number, time_ms, account, sign * self.rng.randrange(1, 90_000_001))
        return self._coins(number, time_ms, account, self.rng.choice("XS"), sign * self.rng.randrange(1, 3_000))

    def _transfer(self, number: int, time_ms: int) -> dict:
        owner = self.rng.choice(OWNERS)
        sides = [owner, f"{owner}/options"]
        self.rng.shuffle(sides)
        name, price = self._something()
        what = self.rng.choice(
            [
                {"amount_usd6": self.rng.randrange(1, 50_000_001)},
                {"instrument": "X", "lots": self.rng.choice([-1, 1]) * self.rng.randrange(1, 999)},
                {
                    "instrument": name,
                    "lots": self.rng.choice([-1, 1]) * self.rng.randrange(1, 999),
                    "price_usd9": price,
                },
            ]
        )
        when = time_ms - self.rng.randrange(1, 500)
        return self._event("transfer", number, when, account=sides[0], to=sides[1], **what)

    def _trade(self, number: int, time_ms: int) -> list[dict]:
        """One buyer, and up to three sellers of what it buys (or the other way round), each with a fee."""
        if self.rng.random() < 0.1:
            name, price = "X", round(self.price["X"] * self.rng.uniform(0.999, 1.001) * 10**9)
        else:
            name, price = self._something()
        lots, side = self.rng.randrange(1, 900), self.rng.choice([1, -1])
        cuts = sorted(self.rng.randrange(lots + 1) for _ in range(self.rng.randrange(3)))
        parts = [b - a for a, b in zip([0, *cuts], [*cuts, lots], strict=True) if b > a]
        fills = [(side * lots), *(-side * part for part in parts)]
        found = []
        for signed in fills:
            fee = self.rng.randrange(3_000)
            self.came_in_usd6 -= fee
            found.append(
                self._event("fill", number, time_ms, account=self.rng.choice(ACCOUNTS), instrument=name, lots=signed,
                            price_usd9=price, fee_usd6=fee)
            )  # fmt: skip
        return found

    def _something(self) -> tuple[str, int]:
        """A contract to trade and its price, nano-USD: odd enough that every notional is rounded."""
        contract = self.rng.choice(self.contracts) if self.rng.random() < 0.7 else None
        wobble = self.rng.uniform(0.999, 1.001)
        if contract is None:
            name = self.rng.choice(list(PERPETUALS))
            return name, round(self.price[PERPETUALS[name]] * wobble * 10**9)
        x = self.price["X"]
        worth = {"future": x, "call": max(x - contract.strike_usd, 0), "put": max(contract.strike_usd - x, 0)}
        usd = worth[contract.kind] + (0 if contract.kind == "future" else self.rng.uniform(0.1, 3))
        return contract.name, round(usd * wobble * 10**9)


def money_usd21(run: Pipeline) -> int:
    """All cash less what open perpetuals and futures cost, and what rounding took: exact."""
    money_usd6 = sum(int(r.book.cash().sum()) - int(r.book.entry_usd6.sum()) for r in run.risks)
    return money_usd6 * USD21_PER_USD6 + sum(r.book.residue_usd21 for r in run.risks)


def open_lots(run: Pipeline) -> dict[str, int]:
    """Sum over all accounts of the lots of each instrument that anybody holds."""
    found: dict[str, int] = defaultdict(int)
    for risk in run.risks:
        for key, lots in zip(risk.book.keys.tolist(), risk.book.lots.tolist(), strict=True):
            found[risk.catalogue.instruments[key & INSTRUMENT_MASK].symbol] += lots
    return dict(found)


def check_conservation(run: Pipeline, venue: Venue) -> None:
    """Money to the unit; every contract bought is a contract sold; coins only come and go through the doors."""
    assert money_usd21(run) == venue.came_in_usd6 * USD21_PER_USD6
    lots = open_lots(run)
    assert {coin: lots.pop(coin, 0) for coin in list(venue.coins)} == venue.coins
    assert set(lots.values()) <= {0}
    traded = {c.name for c in venue.contracts} | set(PERPETUALS)
    assert set(lots) <= traded  # nobody holds what has expired
