"""Accounts for a recorded option chain: who holds what is drawn in proportion to the recorded open interest."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from streams.replay.deribit_records import ChainRow

SHARES = {"directional": 0.30, "spread": 0.25, "strangle": 0.20, "market-maker": 0.15, "futures": 0.10}
NOTIONAL_MEDIAN_USD, NOTIONAL_SIGMA = 150_000.0, 1.0
COLLATERAL_MEDIAN_USD, COLLATERAL_SIGMA = 40_000.0, 1.0
COIN_HOLDERS, STABLE_HOLDERS = 0.35, 0.15
LONG_SHARE, SHORT_STRANGLE_SHARE = 0.55, 0.70
LEGS_MAX = 3
ACCOUNT_RULE = (
    "Accounts are drawn by the seed from the first snapshot: 30 % directional (1-3 options, 55 % of them bought), 25 % "
    "vertical spreads, 20 % strangles (70 % sold), 15 % market makers, 10 % futures traders. Options are drawn in "
    "proportion to their recorded open interest, sizes are lognormal in notional (median 150,000 USD, sigma 1). Market "
    "makers take the other side of everything and hedge their recorded delta in the future with most open interest, "
    "against the futures traders: every instrument's longs equal its shorts. 35 % hold the coin they trade and 15 % "
    "hold USDC as collateral (lognormal, median 40,000 USD, sigma 1)."
)

Books = dict[str, dict[str, int]]


class Chain(NamedTuple):
    """Options of one currency that can be drawn, with what drawing needs. `lot` is in coin."""

    rows: list[ChainRow]
    probability: np.ndarray
    index_usd: float
    lot: float
    future: str


def draw_books(chains: dict[str, Chain], account_count: int, seed: int) -> tuple[Books, dict[str, dict[str, float]]]:
    """-> (account -> instrument -> lots, account -> coin -> collateral in USD), by ACCOUNT_RULE."""
    generator = np.random.default_rng([seed, account_count])
    books: Books = {}
    deltas: dict[str, dict[str, float]] = {}
    accounts = {kind: _names(kind, share, account_count) for kind, share in SHARES.items()}
    currencies = sorted(chains)
    for kind, legs_of in (("directional", _directional), ("spread", _spread), ("strangle", _strangle)):
        for account in accounts[kind]:
            chain = chains[currencies[generator.integers(len(currencies))]]
            books[account] = _nonzero(legs_of(chain, _lots(chain, generator), generator))
    makers, traders = accounts["market-maker"], accounts["futures"]
    books |= {account: {} for account in (*makers, *traders)}
    _take_other_side(books, makers, generator)
    for currency in currencies:
        deltas[currency] = {maker: _delta_lots(books[maker], chains[currency]) for maker in makers}
        _hedge(books, deltas[currency], traders, chains[currency].future, generator)
    collateral = {account: _collateral(books[account], chains, generator) for account in sorted(books)}
    return {account: _nonzero(book) for account, book in sorted(books.items())}, collateral


def _names(kind: str, share: float, count: int) -> list[str]:
    return [f"{kind}-{i:04d}" for i in range(max(1, round(share * count)))]


def _lots(chain: Chain, generator: np.random.Generator) -> int:
    notional_usd = NOTIONAL_MEDIAN_USD * np.exp(NOTIONAL_SIGMA * generator.standard_normal())
    return max(1, round(notional_usd / chain.index_usd / chain.lot))


def _draw(chain: Chain, generator: np.random.Generator) -> ChainRow:
    return chain.rows[generator.choice(len(chain.rows), p=chain.probability)]


def _directional(chain: Chain, lots: int, generator: np.random.Generator) -> dict[str, int]:
    book: dict[str, int] = defaultdict(int)
    for _ in range(generator.integers(1, LEGS_MAX + 1)):
        side = 1 if generator.random() < LONG_SHARE else -1
        book[_draw(chain, generator).instrument] += side * lots
    return book


def _spread(chain: Chain, lots: int, generator: np.random.Generator) -> dict[str, int]:
    """One option bought and another of the same kind and expiry sold."""
    first = _draw(chain, generator)
    second = _partner(chain, first, first.kind, generator)
    return {first.instrument: lots} if second is None else {first.instrument: lots, second.instrument: -lots}


def _strangle(chain: Chain, lots: int, generator: np.random.Generator) -> dict[str, int]:
    """A put and a call of one expiry, both sold or both bought."""
    side = -1 if generator.random() < SHORT_STRANGLE_SHARE else 1
    first = _draw(chain, generator)
    second = _partner(chain, first, "put" if first.kind == "call" else "call", generator)
    return {row.instrument: side * lots for row in (first, second) if row is not None}


def _partner(chain: Chain, first: ChainRow, kind: str, generator: np.random.Generator) -> ChainRow | None:
    """Another option of the same expiry and of `kind`, in proportion to open interest."""
    found = [
        i
        for i, row in enumerate(chain.rows)
        if row.expiry_ms == first.expiry_ms and row.kind == kind and row.instrument != first.instrument
    ]
    weights = chain.probability[found]
    if weights.sum() <= 0:
        return None
    return chain.rows[found[generator.choice(len(found), p=weights / weights.sum())]]


def _take_other_side(books: Books, makers: list[str], generator: np.random.Generator) -> None:
    """Each instrument's net position, with the other sign, is spread over the market makers."""
    net: dict[str, int] = defaultdict(int)
    for book in books.values():
        for instrument, lots in book.items():
            net[instrument] += lots
    for instrument in sorted(net):
        for maker, lots in _split(-net[instrument], makers, generator):
            books[maker][instrument] = books[maker].get(instrument, 0) + lots


def _split(lots: int, accounts: list[str], generator: np.random.Generator) -> list[tuple[str, int]]:
    """`lots` in up to three shares, to accounts drawn at random; the last takes the remainder."""
    chosen = generator.choice(len(accounts), size=min(3, len(accounts)), replace=False)
    first = round(lots * float(generator.random()))
    second = round((lots - first) * float(generator.random())) if len(chosen) > 2 else 0
    shares = [first, second, lots - first - second][: len(chosen)]
    shares[-1] = lots - sum(shares[:-1])
    return [(accounts[i], share) for i, share in zip(chosen, shares)]


def _delta_lots(book: dict[str, int], chain: Chain) -> float:
    return sum(book.get(row.instrument, 0) * float(row.delta) for row in chain.rows)


def _hedge(
    books: Books, deltas: dict[str, float], traders: list[str], future: str, generator: np.random.Generator
) -> None:
    for maker, delta in deltas.items():
        hedge = -round(delta)
        books[maker][future] = hedge
        for trader, lots in _split(-hedge, traders, generator):
            books[trader][future] = books[trader].get(future, 0) + lots


def _collateral(book: dict[str, int], chains: dict[str, Chain], generator: np.random.Generator) -> dict[str, float]:
    """Coin -> USD; the coin is the one whose contracts the account holds."""
    values = COLLATERAL_MEDIAN_USD * np.exp(COLLATERAL_SIGMA * generator.standard_normal(2))
    holds_coin, holds_stable = generator.random(2) < (COIN_HOLDERS, STABLE_HOLDERS)
    traded = [currency for currency in sorted(chains) if any(name.startswith(f"{currency}-") for name in book)]
    found = {}
    if holds_coin and traded:
        found[traded[0]] = float(values[0])
    if holds_stable:
        found["USDC"] = float(values[1])
    return found


def _nonzero(book: dict[str, int]) -> dict[str, int]:
    return {instrument: lots for instrument, lots in sorted(book.items()) if lots != 0}
