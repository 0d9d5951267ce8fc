"""An account of the engine as cases of a margin preset, one an underlying: what another venue's rules would ask of it.

Prices, forwards, rates and surfaces are those of the block's tables. An option's mark volatility is that of its slice
(under Merton's model: implied by its price). Coins move with their underlying, except stablecoins; what the collateral
factor takes becomes the case's haircut. Cash belongs to no underlying: balances add up, cash is added once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kernels.implied_vol import CONVERGED, implied_vol
from kernels.layout import CALL, FUTURE, PERPETUAL, SPOT, YEAR_SECONDS, InstrumentTable
from kernels.normal import exponential, logarithm
from kernels.option_rows import has_jumps
from kernels.reprice import price_now
from kernels.svi import total_variance
from oracles.presets.case import Case, Collateral, Expiry, Future, Market, Option, Positions
from schemas.catalogue import Catalogue
from schemas.quantities import USD6_PER_USD
from streams.engine.book import Book
from streams.engine.tables import Tables
from streams.engine.what_if import instrument_index


class Held(NamedTuple):
    """A leg: instrument index, signed units of the underlying, value that counts in USD (contracts: profit)."""

    instrument: int
    quantity: float
    value_usd: float


def shadow_cases(account: Book, catalogue: Catalogue, tables: Tables) -> list[Case]:
    """The account (a book of one row) as one case for each underlying it holds, without its cash.

    Raises:
        Refused: it holds an instrument that has no price now.
    """
    by_underlying: dict[int, list[Held]] = {}
    for at, (index, lots) in enumerate(zip(account.keys.tolist(), account.lots.tolist(), strict=True)):
        listed = catalogue.instruments[index]
        instrument_index(listed.symbol, catalogue, tables)
        quantity = lots * 10**listed.lot_exponent if listed.lot_exponent >= 0 else lots / 10**-listed.lot_exponent
        value = account.value_usd6(at, int(tables.columns_usd9[0, index])) / USD6_PER_USD
        by_underlying.setdefault(listed.underlying, []).append(Held(index, quantity, value))
    return [_case(account.accounts[0], u, held, catalogue, tables) for u, held in sorted(by_underlying.items())]


def _case(name: str, underlying: int, held: list[Held], catalogue: Catalogue, tables: Tables) -> Case:
    kinds = tables.instruments.kind
    spot = float(tables.market.spot[underlying])
    perpetuals = [leg for leg in held if kinds[leg.instrument] == PERPETUAL]
    stable = catalogue.underlyings[underlying].stable
    options = [leg for leg in held if kinds[leg.instrument] >= CALL]
    return Case(
        id=f"{name} {catalogue.underlyings[underlying].symbol}",
        positions=Positions(
            perp_quantity=sum(leg.quantity for leg in perpetuals),
            perp_unrealised_pnl=sum(leg.value_usd for leg in perpetuals),
            options=tuple(_option(leg, tables) for leg in options),
            futures=tuple(_future(leg, tables) for leg in held if kinds[leg.instrument] == FUTURE),
            collateral=tuple(_coin(leg, stable, catalogue, tables) for leg in held if kinds[leg.instrument] == SPOT),
        ),
        market=Market(spot=spot, perp_price=spot),
        expiries=_expiries(options, tables),
    )


def _seconds(expiry: int, tables: Tables) -> int:
    return round(float(tables.market.years[expiry]) * YEAR_SECONDS)


def _expiries(options: list[Held], tables: Tables) -> tuple[Expiry, ...]:
    market = tables.market
    found = dict.fromkeys(int(tables.instruments.expiry[leg.instrument]) for leg in options)
    return tuple(
        Expiry(seconds_to_expiry=_seconds(e, tables), forward=float(market.forward[e]), rate=float(market.rate[e]))
        for e in found
    )


def _option(leg: Held, tables: Tables) -> Option:
    instruments = tables.instruments
    is_call = bool(instruments.kind[leg.instrument] == CALL)
    return Option(
        seconds_to_expiry=_seconds(int(instruments.expiry[leg.instrument]), tables),
        strike=float(instruments.strike[leg.instrument]),
        type="call" if is_call else "put",
        quantity=leg.quantity,
        mark_vol=_mark_vol(leg.instrument, is_call, tables),
    )


def _mark_vol(index: int, is_call: bool, tables: Tables) -> float:
    instruments, market = tables.instruments, tables.market
    e, strike = int(instruments.expiry[index]), float(instruments.strike[index])
    years, forward = float(market.years[e]), float(market.forward[e])
    if years <= 0.0:
        return 0.0
    if has_jumps(market, int(instruments.underlying[index])):
        undiscounted = _price(index, tables) / exponential(-float(market.rate[e]) * years)
        vol, status = implied_vol(undiscounted, forward, strike, years, is_call)
        if status == CONVERGED:
            return float(vol)
    a, b, rho, m, sigma = market.svi[e].tolist()
    return float(np.sqrt(total_variance(a, b, rho, m, sigma, logarithm(strike / forward)) / years))


def _price(index: int, tables: Tables) -> float:
    columns: list[Any] = [np.ascontiguousarray(column[index : index + 1]) for column in tables.instruments]
    return float(price_now(InstrumentTable(*columns), tables.market)[0])


def _future(leg: Held, tables: Tables) -> Future:
    expiry = int(tables.instruments.expiry[leg.instrument])
    return Future(
        seconds_to_expiry=_seconds(expiry, tables),
        quantity=leg.quantity,
        price=float(tables.market.forward[expiry]),
        unrealised_pnl=leg.value_usd,
    )


def _coin(leg: Held, stable: bool, catalogue: Catalogue, tables: Tables) -> Collateral:
    listed = catalogue.instruments[leg.instrument]
    return Collateral(
        name=listed.symbol,
        quantity=leg.quantity,
        price=float(tables.market.spot[listed.underlying]),
        offsets_risk=not stable,
        mm_haircut=1.0 - float(tables.instruments.factor[leg.instrument]),
    )
