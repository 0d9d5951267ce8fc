"""What `dpme margin` says, as plain values: the engine's answers with the block they hold for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from streams.cli.as_of import AsOf
from streams.cli.errors import CommandError
from streams.engine.book import Book
from streams.engine.explain import explain
from streams.engine.output import Fault
from streams.engine.portfolio import alone, assessment_of, margins_of
from streams.engine.reports import greeks_of
from streams.engine.what_if import Refused, Trade, instrument_index, mark_price_usd9, what_if


def account_alone(found: AsOf, account: str) -> Book:
    """The account as it is at the block."""
    return alone(found.risk.book, found.risk.book.row_of[account])


def margin_view(found: AsOf, account: str) -> dict[str, Any]:
    """The numbers of an account: assessment, cash, positions, Greeks."""
    single = account_alone(found, account)
    assessment = assessment_of(margins_of([single], found.tables, found.parameters), 0, found.parameters)
    greeks = greeks_of(found.risk, found.risk.book.row_of[account])
    return {
        **_head(found, account),
        **msgspec.to_builtins(assessment),
        "cash_usd6": int(single.cash_usd6[0]),
        "positions": _positions(found, single),
        "greeks": msgspec.to_builtins(greeks),
    }


def explanation_view(found: AsOf, account: str, instruments: Sequence[str]) -> dict[str, Any]:
    """The explanation, with the units and marks of what is held."""
    single = account_alone(found, account)
    try:
        also = [instrument_index(name, found.catalogue, found.tables) for name in instruments]
        told = explain(single, found.catalogue, found.tables, found.parameters, also)
    except Refused as refused:
        raise CommandError(f"--instrument: {refused.why}") from refused
    except Fault as fault:
        raise CommandError(f"{account} cannot be explained: {fault}") from fault
    lots_of = {listed.symbol: listed.lot_exponent for listed in found.catalogue.instruments}
    view = {**_head(found, account), **_plain(told)}
    view["one_more_lot"] = [{**_plain(row), "lot_exponent": lots_of[row.instrument]} for row in told.one_more_lot]
    return view


def what_if_view(found: AsOf, start: Book, trades: Sequence[Trade], deposit_usd6: int) -> dict[str, Any]:
    """Before and after, with the positions after the trades."""
    try:
        told = what_if(start, trades, deposit_usd6, found.catalogue, found.tables, found.parameters)
    except Refused as refused:
        raise CommandError(f"--deposit: {refused.why}" if refused.field == "deposit" else str(refused)) from refused
    lots_of = {listed.symbol: listed.lot_exponent for listed in found.catalogue.instruments}
    view = {**_head(found, start.accounts[0]), **_plain(told), "positions_before": _positions(found, start)}
    view["trades"] = [{**_plain(trade), "lot_exponent": lots_of[trade.instrument]} for trade in told.trades]
    return view


def _plain(value: Any) -> Any:
    """Structs as dictionaries, integers of any size."""
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _head(found: AsOf, account: str) -> dict[str, Any]:
    risk = found.risk
    return {"account": account, "partition": risk.partition, "block": risk.block, "time_ms": risk.market.time_ms}


def _positions(found: AsOf, account: Book) -> list[dict[str, Any]]:
    """What is held: lots, their size, mark per unit and value (of perpetuals and futures: profit since entry)."""
    rows = []
    for at, i in enumerate(account.keys.tolist()):
        listed = found.catalogue.instruments[i]
        rows.append(
            {
                "instrument": listed.symbol,
                "kind": listed.kind,
                "lots": int(account.lots[at]),
                "lot_exponent": listed.lot_exponent,
                "mark_price_usd9": mark_price_usd9(i, found.catalogue, found.tables),
                "value_usd6": account.value_usd6(at, int(found.tables.columns_usd9[0, i])),
            }
        )
    return rows
