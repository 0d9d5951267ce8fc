"""The gate: may this withdrawal or order be done now? A pure reading of the state of an account's partition.

The request is applied, as the account event that it would become, to a copy of the account's own book, and the account
is margined exactly, before and after, at the present market (the last tick or barrier). Allowed is

- anything after which NLV >= IM, while the account is healthy (at the last block, and now);
- an order that reduces risk, always: IM does not rise, and the missing margin IM - NLV does not grow. The second half
  keeps an account in call from giving itself away through a bad limit price.

Open orders of the account (streams/engine/open_orders.py) count in the first at their worst: the request passes if
NLV >= IM whichever of them are filled, with and without the order that is asked for.

Coins that are halted (a stablecoin too far from its peg, streams/engine/collateral_guard.py) count for nothing in the
first: no withdrawal and no new risk may lean on them.

An order is judged as if filled whole at its limit, without fees. IM is convex in the lots filled and NLV concave, so an
account that is above its margin before and after a whole fill is so after every partial one. A withdrawal that the
chain has executed is a fact and never passes here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from msgspec import Struct

from kernels.layout import SPOT
from schemas import log_records as records
from schemas import refusals
from schemas.decisions import Margin
from schemas.quantities import USD9_PER_USD6, divide_up
from schemas.refusals import Refusal
from streams.engine.account_events import event_rows
from streams.engine.book import Book
from streams.engine.margin import HEALTHY, Margins, account_sums, compute, empty_margins
from streams.engine.open_orders import OpenOrder, worst_excess_usd6
from streams.engine.reports import margin_of
from streams.engine.tables import Tables, build_tables

if TYPE_CHECKING:
    from streams.engine.risk import Risk

MARGIN, IN_CALL, NO_MARGIN = "initial_margin", "in_margin_call", "no_margin_yet"
HALTED = "collateral_halted"


class CashWithdrawal(Struct, frozen=True):
    """`amount_usd6` > 0 of cash leaves."""

    account: str
    amount_usd6: int


class CollateralWithdrawal(Struct, frozen=True):
    """`lots` > 0 of a collateral coin leave."""

    account: str
    instrument: str
    lots: int


class Order(Struct, frozen=True):
    """Signed lots (positive bought) at a limit price, nano-USD a unit."""

    account: str
    instrument: str
    lots: int
    limit_price_usd9: int


Request = CashWithdrawal | CollateralWithdrawal | Order


class Answer(Struct, frozen=True):
    """`reason` is empty where allowed, else MARGIN, IN_CALL, HALTED, NO_MARGIN or one of refusals.REASONS.
    `missing_usd6` is what must be deposited first for NLV to reach IM after the request (0: nothing is missing),
    `open_orders_usd6` what of it open orders may take at their worst.
    """

    allowed: bool
    reason: str
    detail: str
    block: int
    time_ms: int
    before: Margin | None = None
    after: Margin | None = None
    missing_usd6: int = 0
    open_orders_usd6: int = 0


def gate(state: Risk, request: Request) -> Answer:
    """The answer at the present market. `state` is of the account's partition; it is not changed."""
    refusal = _refusal(state, request)
    if refusal is None and not (state.scenario_digest and state.block >= 0):
        refusal = Refusal(NO_MARGIN, "no block has been margined yet")
    if refusal is not None:
        return Answer(False, refusal.reason, refusal.detail, state.block, state.market.time_ms)
    before = state.book.copy_of(request.account)
    after = before.copy_of(request.account)
    after.apply_events(_as_events(state, request), state.catalogue, np.zeros((0, 4), np.int64))
    after.drop_closed()
    orders = state.orders.of(request.account)
    tables, exponents, priced = _tables(state, (before, after), orders)
    if not priced:
        detail = "an instrument of the account or the request has no price, or is settled"
        return Answer(False, refusals.INSTRUMENT_UNPRICED, detail, state.block, state.market.time_ms)
    names = tuple(row.name for row in state.parameters.stress_rows)
    now, then = (margin_of(_margins(state, book, tables), 0, names) for book in (before, after))
    at_worst_usd6 = 0
    if orders:
        books = (before, after) if isinstance(request, Order) else (after,)
        worst = min(worst_excess_usd6(book, orders, exponents, tables, state.parameters) for book in books)
        at_worst_usd6 = max(0, then.nlv_usd6 - then.initial_margin_usd6 - worst)
    return _judged(state, request, now, then, SetAside(at_worst_usd6, _halted_usd6(state, after, tables)))


def _halted_usd6(state: Risk, book: Book, tables: Tables) -> int:
    """What halted coins contribute to the NLV of a book whose instruments are rows of `tables`, rounded up."""
    halted = (tables.instruments.kind == SPOT) & state.market.halted[tables.instruments.underlying]
    held = zip(book.keys.tolist(), book.lots.tolist(), strict=True)
    usd9 = sum(lots * int(tables.columns_usd9[1, i]) for i, lots in held if halted[i] and lots > 0)
    return divide_up(usd9, USD9_PER_USD6)


class SetAside(NamedTuple):
    """What of NLV less IM after a request is not there to lean on."""

    orders_usd6: int
    halted_usd6: int


def _judged(state: Risk, request: Request, before: Margin, after: Margin, aside: SetAside) -> Answer:
    row = state.book.row_of.get(request.account, -1)
    in_call = 0 <= row < len(state.margins.state) and int(state.margins.state[row]) != HEALTHY
    excess, excess_after = (m.nlv_usd6 - m.initial_margin_usd6 for m in (before, after))
    reduces = after.initial_margin_usd6 <= before.initial_margin_usd6 and excess_after >= excess
    reason, detail, needed = "", "", 0
    if not (isinstance(request, Order) and reduces):
        if in_call or excess < 0:
            reason, detail = IN_CALL, "only orders that reduce risk are taken in a margin call"
        elif excess_after < 0:
            reason, detail = MARGIN, f"NLV {after.nlv_usd6} would be below IM {after.initial_margin_usd6} (micro-USD)"
        elif excess_after < aside.orders_usd6:
            reason, needed = MARGIN, aside.orders_usd6
            detail = f"open orders may take {needed} (micro-USD) at their worst, {excess_after} would be left"
        elif excess_after < sum(aside):
            reason, needed = HALTED, sum(aside)
            detail = f"halted coins are {aside.halted_usd6} (micro-USD) of NLV, {excess_after} above IM would be left"
    missing, at_worst = max(0, needed - excess_after), aside.orders_usd6
    return Answer(not reason, reason, detail, state.block, state.market.time_ms, before, after, missing, at_worst)


def _refusal(state: Risk, request: Request) -> Refusal | None:
    """What is wrong with the request itself."""
    size = request.amount_usd6 if isinstance(request, CashWithdrawal) else request.lots
    if size == 0 or (size < 0 and not isinstance(request, Order)):
        return Refusal(refusals.OUT_OF_RANGE, "the size must be positive (an order: not zero)")
    if isinstance(request, CashWithdrawal):
        return None
    if request.instrument not in state.catalogue.instrument_index:
        return Refusal(refusals.UNKNOWN_INSTRUMENT, f"instrument {request.instrument} is not listed", "instrument")
    listed = state.catalogue.instruments[state.catalogue.instrument_index[request.instrument]]
    if isinstance(request, CollateralWithdrawal) and listed.kind != "spot":
        return Refusal(refusals.WRONG_KIND, f"{listed.symbol} is a {listed.kind}, no collateral", "instrument")
    return None


def _as_events(state: Risk, request: Request) -> records.Events:
    """The request as the row of account.log that its account event would be."""
    event: dict = {"account": request.account}
    if isinstance(request, CashWithdrawal):
        event |= {"type": "cash_move", "amount_usd6": -request.amount_usd6}
    elif isinstance(request, CollateralWithdrawal):
        event |= {"type": "collateral_move", "instrument": request.instrument, "lots": -request.lots}
    else:
        limit = {"lots": request.lots, "price_usd9": request.limit_price_usd9}
        event |= {"type": "fill", "instrument": request.instrument, **limit}
    ((_, (kind, instrument, lots, price_usd9, cash_usd6)),) = event_rows(event, state.catalogue)
    rows = np.zeros(1, records.EVENT_ROW)
    rows["kind"], rows["instrument"], rows["lots"] = kind, instrument, lots
    rows["price_usd9"], rows["cash_usd6"] = price_usd9, cash_usd6
    return records.Events([request.account], rows)


def _tables(state: Risk, books: tuple[Book, ...], orders: list[OpenOrder]) -> tuple[Tables, np.ndarray, bool]:
    """Tables of the present market over what the books hold and orders name, and lot exponents by their rows; False
    where one of it has no price. Books and orders are renumbered."""
    ordered = np.array([order.instrument for order in orders], np.int64)
    held = np.unique(np.concatenate([*(book.keys for book in books), ordered]))
    scenarios = state.cache.scenarios(state.scenario_digest, state.catalogue)
    tables = build_tables(state.catalogue, state.market, state.parameters, scenarios, held)
    for book in books:
        book.keys = np.searchsorted(held, book.keys)
    orders[:] = [order._replace(instrument=int(np.searchsorted(held, order.instrument))) for order in orders]
    return tables, state.catalogue.columns().lot_exponent[held], bool(tables.instruments.alive.all())


def _margins(state: Risk, book: Book, tables: Tables) -> Margins:
    """Exact margin of the one account of a book whose instruments are rows of `tables`."""
    legs, margins = book.legs(), empty_margins(1)
    sums = account_sums(legs, book.cash(), book.entry_by_account(), tables, state.parameters)
    compute(legs, np.arange(1), sums, tables, state.parameters, margins)
    return margins
