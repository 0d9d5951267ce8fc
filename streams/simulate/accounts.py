"""Accounts of the demo world: what retail, spread and market-maker accounts hold at the beginning, by the seed."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from schemas.quantities import USD9_PER_USD
from streams.simulate.venue import PRODUCTS, STABLE, Venue, perpetual

RETAIL, SPREAD, MAKER = "retail", "spread", "maker"
SPREAD_SHARE, MAKER_SHARE, MAKERS_MIN = 0.20, 0.04, 3
UNDERLYING_SHARES = (0.45, 0.40, 0.15)
PERPETUAL_SHARE = 0.5  # of retail accounts; the others hold one to three options
LONG_SHARE = 0.55
SIZE_MEDIAN_USD, SIZE_SIGMA = {RETAIL: 8_000.0, SPREAD: 20_000.0}, 1.0
COLLATERAL_MEDIAN_USD, COIN_HOLDERS, STABLE_HOLDERS = 4_000.0, 0.25, 0.30
NEAR_MONEY_WIDTH = 0.12  # options are drawn around the money with this standard deviation of log-moneyness
ACCOUNT_RULE = (
    "Drawn by the seed: 20 % spread accounts (vertical spreads, strangles and calendars, median 20,000 USD of "
    "notional), 4 % market makers, the rest retail (half of them in perpetuals, half in one to three options, 55 % "
    "bought, median 8,000 USD). Every position of a customer has a market maker on its other side; market makers hedge "
    "their delta in perpetuals against retail accounts. Everything is entered at its first mark. 25 % hold the coin "
    "they trade and 30 % hold USDC as collateral."
)

Book = dict[int, int]  # instrument -> lots


class Accounts(NamedTuple):
    """Books by account, and collateral in lots of a coin's instrument."""

    books: dict[str, Book]
    collateral: dict[str, Book]
    makers: list[str]
    customers: list[str]


class Ladder(NamedTuple):
    """Options of one underlying with what drawing needs: probability of each, notional of a lot in USD."""

    options: list[int]
    probability: np.ndarray
    lot_usd: float
    perpetual: int


def draw_accounts(venue: Venue, prices_usd9: np.ndarray, deltas_usd9: np.ndarray, count: int, seed: int) -> Accounts:
    """`count` accounts by ACCOUNT_RULE at these prices and deltas."""
    generator = np.random.default_rng([seed, 2, count])
    makers = _names(MAKER, max(MAKERS_MIN, round(MAKER_SHARE * count)))
    spreads = _names(SPREAD, round(SPREAD_SHARE * count))
    retail = _names(RETAIL, max(count - len(makers) - len(spreads), 1))
    ladders = [ladder(venue, underlying, prices_usd9) for underlying in range(len(PRODUCTS))]
    books: dict[str, Book] = {name: defaultdict(int) for name in (*makers, *spreads, *retail)}
    for name in (*spreads, *retail):
        drawn = ladders[generator.choice(len(ladders), p=UNDERLYING_SHARES)]
        for instrument, lots in _positions(name, drawn, venue, generator).items():
            _trade(books, name, makers[generator.integers(len(makers))], instrument, lots)
    speculators = [name for name in retail if any(instrument in books[name] for instrument in _perpetuals(ladders))]
    for underlying, drawn in enumerate(ladders):
        deltas = _deltas(books, makers, venue, underlying, deltas_usd9)
        _hedge(books, deltas, speculators or retail, drawn, generator)
    collateral = {name: _collateral(venue, books[name], prices_usd9, generator) for name in sorted(books)}
    opened = {name: _open(book) for name, book in sorted(books.items())}
    return Accounts(opened, collateral, makers, [*spreads, *retail])


def ladder(venue: Venue, underlying: int, prices_usd9: np.ndarray) -> Ladder:
    """The options of an underlying; those near the money are drawn most."""
    options = venue.options(underlying)
    at = venue.index_of(perpetual(PRODUCTS[underlying].symbol))
    spot = prices_usd9[at] / USD9_PER_USD
    strikes = np.array([venue.catalogue.instruments[i].strike_usd9 for i in options]) / USD9_PER_USD
    weight = np.exp(-0.5 * (np.log(strikes / spot) / NEAR_MONEY_WIDTH) ** 2)
    return Ladder(options, weight / weight.sum(), spot * 10.0 ** int(venue.lot_exponents[at]), at)


def draw_option(drawn: Ladder, generator: np.random.Generator) -> int:
    """An option of the ladder."""
    return drawn.options[generator.choice(len(drawn.options), p=drawn.probability)]


def draw_lots(drawn: Ladder, kind: str, generator: np.random.Generator) -> int:
    """A size, lognormal in notional."""
    notional_usd = SIZE_MEDIAN_USD[kind] * np.exp(SIZE_SIGMA * generator.standard_normal())
    return max(1, round(float(notional_usd) / drawn.lot_usd))


def _names(kind: str, count: int) -> list[str]:
    return [f"{kind}-{i:04d}" for i in range(count)]


def _perpetuals(ladders: list[Ladder]) -> set[int]:
    return {drawn.perpetual for drawn in ladders}


def _positions(name: str, drawn: Ladder, venue: Venue, generator: np.random.Generator) -> Book:
    if name.startswith(SPREAD):
        return _combination(drawn, venue, generator)
    if generator.random() < PERPETUAL_SHARE:
        return {drawn.perpetual: draw_lots(drawn, RETAIL, generator) * _side(generator)}
    book: Book = defaultdict(int)
    for _ in range(generator.integers(1, 4)):
        book[draw_option(drawn, generator)] += draw_lots(drawn, RETAIL, generator) * _side(generator)
    return book


def _side(generator: np.random.Generator) -> int:
    return 1 if generator.random() < LONG_SHARE else -1


def _combination(drawn: Ladder, venue: Venue, generator: np.random.Generator) -> Book:
    """A vertical spread, a strangle or a calendar."""
    lots, side = draw_lots(drawn, SPREAD, generator), _side(generator)
    first = draw_option(drawn, generator)
    shape = ("vertical", "strangle", "calendar")[generator.integers(3)]
    partners = [i for i in drawn.options if i != first and _fits(shape, venue, first, i)]
    if not partners:
        return {first: side * lots}
    second = partners[generator.integers(len(partners))]
    return {first: side * lots, second: side * lots if shape == "strangle" else -side * lots}


def _fits(shape: str, venue: Venue, first: int, second: int) -> bool:
    one, two = venue.catalogue.instruments[first], venue.catalogue.instruments[second]
    if shape == "calendar":
        return one.kind == two.kind and one.strike_usd9 == two.strike_usd9
    return one.expiry == two.expiry and (one.kind == two.kind) == (shape == "vertical")


def _trade(books: dict[str, Book], buyer: str, seller: str, instrument: int, lots: int) -> None:
    books[buyer][instrument] += lots
    books[seller][instrument] -= lots


def _deltas(
    books: dict[str, Book], makers: list[str], venue: Venue, underlying: int, deltas_usd9: np.ndarray
) -> dict[str, float]:
    """Delta of each maker in an underlying, in lots of its perpetual."""
    instruments = venue.catalogue.instruments
    per_lot = float(deltas_usd9[venue.index_of(perpetual(PRODUCTS[underlying].symbol))])
    return {
        maker: sum(int(deltas_usd9[i]) * n for i, n in books[maker].items() if instruments[i].underlying == underlying)
        / per_lot
        for maker in makers
    }


def _hedge(
    books: dict[str, Book],
    deltas: dict[str, float],
    speculators: list[str],
    drawn: Ladder,
    generator: np.random.Generator,
) -> None:
    """Makers become delta-neutral against retail accounts, in pieces of retail size."""
    for maker, delta in deltas.items():
        rest = -round(delta)
        while rest != 0:
            lots = min(abs(rest), draw_lots(drawn, RETAIL, generator)) * (1 if rest > 0 else -1)
            _trade(books, maker, speculators[generator.integers(len(speculators))], drawn.perpetual, lots)
            rest -= lots


def _collateral(venue: Venue, book: Book, prices_usd9: np.ndarray, generator: np.random.Generator) -> Book:
    """Coins of the underlying traded most, and USDC."""
    values_usd = COLLATERAL_MEDIAN_USD * np.exp(generator.standard_normal(2))
    holds_coin, holds_stable = generator.random(2) < (COIN_HOLDERS, STABLE_HOLDERS)
    held = []
    if holds_coin and book:
        underlying = venue.catalogue.instruments[min(book)].underlying
        if PRODUCTS[underlying].coin_lot_exponent:
            held.append((venue.index_of(PRODUCTS[underlying].symbol), values_usd[0]))
    if holds_stable:
        held.append((venue.index_of(STABLE), values_usd[1]))
    lot_usd = prices_usd9 / USD9_PER_USD * 10.0**venue.lot_exponents
    return {coin: max(1, round(float(value / lot_usd[coin]))) for coin, value in held}


def _open(book: Book) -> Book:
    return {instrument: lots for instrument, lots in sorted(book.items()) if lots != 0}
