"""What people write about trades and portfolios -> exact integers; every refusal names the field."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec
from msgspec import Struct

from schemas.catalogue import Catalogue
from streams.cli.errors import CommandError
from streams.cli.recorded_run import near_matches
from streams.engine.book import Book
from streams.engine.tables import Tables
from streams.engine.what_if import Position, Refused, Trade, portfolio

TRADE_FORM = "INSTRUMENT:LOTS or INSTRUMENT:LOTS@PRICE, such as BTC-PERP:-3@43000.5"


class FilePosition(Struct, frozen=True, forbid_unknown_fields=True):
    """A contract held."""

    instrument: str
    lots: int
    entry_price_usd: Decimal | None = None


class FileCollateral(Struct, frozen=True, forbid_unknown_fields=True):
    """A coin held."""

    instrument: str
    lots: int


class PortfolioFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A hypothetical portfolio: cash in USD, contracts and coins in lots."""

    cash_usd: Decimal = Decimal(0)
    positions: list[FilePosition] = []
    collateral: list[FileCollateral] = []


def parse_trade(text: str, field: str = "--trade") -> Trade:
    """Raises CommandError naming the part that is wrong."""
    name, colon, rest = text.rpartition(":")
    lots_text, at, price_text = rest.partition("@")
    if not colon or not name:
        raise CommandError(f"{field} {text!r}: instrument or lots are missing; write {TRADE_FORM}")
    try:
        lots = int(lots_text)
    except ValueError:
        raise CommandError(f"{field} {text!r}: lots must be a whole number other than 0, not {lots_text!r}") from None
    if lots == 0:
        raise CommandError(f"{field} {text!r}: lots must be a whole number other than 0")
    price = scaled(price_text, 9, f"{field} {text!r}: price") if at else None
    return Trade(name, lots, price)


def scaled(text: str | Decimal, digits: int, field: str) -> int:
    """USD as an integer of 10**-digits; exact, or refused."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise CommandError(f"{field} must be USD, such as 1234.5, not {text!r}") from None
    if not value.is_finite() or abs(value) > Decimal(10) ** 12:
        raise CommandError(f"{field} {text} is out of range")
    whole = value.scaleb(digits)
    if whole != int(whole):
        raise CommandError(f"{field} {text} has more than {digits} decimals")
    return int(whole)


def read_portfolio(path: Path) -> PortfolioFile:
    """Raises CommandError: the file cannot be read, or which of its fields is wrong."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=PortfolioFile)
    except OSError as error:
        raise CommandError(f"--portfolio {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:  # ValidationError is one
        raise CommandError(f"--portfolio {path}: {error}; `dpme margin what-if --help` shows an example") from error


def portfolio_of(found: PortfolioFile, catalogue: Catalogue, tables: Tables) -> Book:
    """The portfolio as an account of the engine.

    Raises:
        CommandError: an instrument is not listed, or a field cannot be taken.
    """
    coins = {listed.symbol for listed in catalogue.instruments if listed.kind == "spot"}
    positions = []
    for place, held in enumerate(found.positions):
        if held.instrument in coins:
            raise CommandError(f"positions[{place}].instrument: {held.instrument} is a coin: put it under collateral")
        entry, field = held.entry_price_usd, f"positions[{place}].entry_price_usd"
        positions.append(Position(held.instrument, held.lots, None if entry is None else scaled(entry, 9, field)))
    for place, coin in enumerate(found.collateral):
        if coin.instrument not in coins and coin.instrument in catalogue.instrument_index:
            raise CommandError(f"collateral[{place}].instrument: {coin.instrument} is no coin: put it under positions")
        positions.append(Position(coin.instrument, coin.lots))
    check_listed([position.instrument for position in positions], catalogue)
    try:
        return portfolio(scaled(found.cash_usd, 6, "cash_usd"), positions, catalogue, tables)
    except Refused as refused:
        raise CommandError(f"--portfolio: {refused}") from refused


def check_listed(names: list[str], catalogue: Catalogue) -> None:
    """Raises CommandError with near matches for the first instrument that is not listed."""
    for name in names:
        if name not in catalogue.instrument_index:
            near = near_matches(name, catalogue.instrument_index)
            raise CommandError(f"instrument {name!r} is not listed at this block; near: {near or 'none is'}")
