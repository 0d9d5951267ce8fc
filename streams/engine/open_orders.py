"""Open orders: what accounts have open, as their events last said, and what that can cost at its worst.

Orders count where new risk is judged (the gate: withdrawals and further orders), never in a margin: an order takes
nothing until it is filled, and nobody is called or liquidated for one.

**Bound.** Orders d_o may each be filled by any part f_o in [0, 1], in any combination. In scenario s the account then
loses L_s(q) + sum f_o L_s(d_o) <= L_s(q) + sum max(0, L_s(d_o)), and expected shortfall is monotone, so that of the
right side bounds them all; so does each stress row. The net short position of an expiry is largest with every sale and
no purchase filled, gross sizes with everything. NLV falls by at most what each order pays above its mark. All rounded
against the account. Fees are not known before a fill, and not in it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from kernels.expected_shortfall import account_losses, tail_scenarios
from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.quantities import ONE_E6, USD9_PER_USD6, divide_up, notional_usd6
from schemas.risk_parameters import RiskParameters
from streams.engine.book import Book, Legs
from streams.engine.margin import Sums, account_sums
from streams.engine.tables import Tables

SIDES = {records.BUY_ORDERS: 1, records.SELL_ORDERS: -1}
FILL_ROUNDING_USD6 = 2  # what rounding a partial fill and the counted share of a gain may add

Key = tuple[str, int, int]  # account, instrument, side


class OpenOrder(NamedTuple):
    """Signed lots of one instrument, and the worst price of them."""

    instrument: int
    lots: int
    price_usd9: int


class WorstFill(NamedTuple):
    """IM is at most, and NLV at least, this, whichever orders are filled; micro-USD."""

    initial_margin_usd6: int
    nlv_usd6: int


class OpenOrders:
    """Orders by account, instrument and side; values are never changed in place."""

    def __init__(self) -> None:
        self.orders: dict[Key, tuple[int, int]] = {}
        self._packed: bytes | None = b""

    def take(self, events: records.PackedEvents) -> records.PackedEvents:
        """Take what is said of orders; returns the other events."""
        kinds = events.rows["kind"]
        if not len(kinds) or int(kinds.max()) < min(SIDES):  # as in nearly every record
            return events
        is_order = np.logical_or.reduce([kinds == kind for kind in SIDES])
        if not is_order.any():
            return events
        names = events.decoded().names
        for row in events.rows[is_order]:
            key = (names[int(row["account"])], int(row["instrument"]), SIDES[int(row["kind"])])
            self.orders.pop(key, None)
            if row["lots"]:
                self.orders[key] = (int(row["lots"]), int(row["price_usd9"]))
        self._packed = None
        return events._replace(rows=events.rows[~is_order])

    def settle(self, expiry: int, catalogue: Catalogue) -> None:
        """Orders of what is over are over."""
        for key in [key for key in self.orders if catalogue.instruments[key[1]].expiry == expiry]:
            del self.orders[key]
            self._packed = None

    def of(self, account: str) -> list[OpenOrder]:
        """By instrument, sales first."""
        mine = sorted((key, value) for key, value in self.orders.items() if key[0] == account)
        return [OpenOrder(i, side * lots, price_usd9) for (_, i, side), (lots, price_usd9) in mine]

    def pack(self) -> bytes:
        """Equal for equal orders; empty for none."""
        if self._packed is None:
            plain = sorted((*key, *value) for key, value in self.orders.items())
            self._packed = msgspec.msgpack.encode(plain) if plain else b""
        return self._packed

    @classmethod
    def unpack(cls, raw: bytes) -> OpenOrders:
        found = cls()
        if raw:
            found.orders = {(a, i, side): (lots, price) for a, i, side, lots, price in msgspec.msgpack.decode(raw)}
            found._packed = raw
        return found


def merged(parts: list[bytes]) -> OpenOrders:
    """The packed orders of several partitions as one."""
    found = OpenOrders()
    for raw in parts:
        found.orders |= OpenOrders.unpack(raw).orders
    found._packed = None
    return found


def of_accounts(orders: OpenOrders, accounts: list[str]) -> OpenOrders:
    """Those of these accounts."""
    found, wanted = OpenOrders(), set(accounts)
    found.orders = {key: value for key, value in orders.orders.items() if key[0] in wanted}
    found._packed = None
    return found


def worst_fill(
    account: Book, orders: list[OpenOrder], lot_exponents: np.ndarray, tables: Tables, p: RiskParameters
) -> WorstFill:
    """The bound for an account (a book of one row) whose instruments, and those of the orders, are rows of `tables`;
    `lot_exponents` int64[I].
    """
    legs = account.legs()
    entry = account.entry_by_account()
    with_sales, with_all = (_with_orders(legs, [o for o in orders if o.lots < most]) for most in (0, np.inf))
    nlv_usd6, _, _, _ = _values(account_sums(legs, account.cash(), entry, tables, p))
    short_usd9 = _values(account_sums(with_sales, account.cash(), entry, tables, p))[2]
    add_ons_usd9 = _values(account_sums(with_all, account.cash(), entry, tables, p))[3]
    risk = max(_shortfall_usd9(legs, orders, tables), _stress_usd9(legs, orders, tables), short_usd9)
    initial = divide_up(divide_up(risk * p.initial_margin_multiplier_e6, ONE_E6) + add_ons_usd9, USD9_PER_USD6)
    paid = sum(_paid_above_mark_usd6(order, int(lot_exponents[order.instrument]), tables) for order in orders)
    return WorstFill(initial, nlv_usd6 - paid)


def _with_orders(legs: Legs, orders: list[OpenOrder]) -> Legs:
    """One account with its orders as further legs: gross sizes add up, nothing is netted but options of an expiry."""
    instruments = np.append(legs.leg_instrument, [o.instrument for o in orders]).astype(np.int32)
    lots = np.append(legs.leg_lots, np.array([o.lots for o in orders], np.int64))
    return Legs(np.array([0, len(lots)], np.int64), instruments, lots)


def _values(sums: Sums) -> tuple[int, int, int, int]:
    """NLV, equity, short-option minimum and add-ons of the one account, of any size."""
    nlv, equity, short, add_ons = (int(column[0]) for column in sums[:4])
    return sums.exact.get(0, (nlv, equity, short, add_ons))


def _shortfall_usd9(legs: Legs, orders: list[OpenOrder], tables: Tables) -> int:
    losses = account_losses(legs.leg_instrument, legs.leg_lots, tables.pnl)
    for order in orders:
        one = np.array([order.instrument], np.int32), np.array([order.lots], np.int64)
        losses += np.maximum(account_losses(*one, tables.pnl), 0)
    tail, weights = tail_scenarios(losses, tables.scenarios.weights, tables.tail_mass)
    total = sum(int(losses[s]) * w for s, w in zip(tail.tolist(), weights.tolist(), strict=True))
    return divide_up(total, int(tables.tail_mass))


def _stress_usd9(legs: Legs, orders: list[OpenOrder], tables: Tables) -> int:
    losses = np.zeros(tables.stress.shape[1], dtype=object)
    for i, lots in zip(legs.leg_instrument.tolist(), legs.leg_lots.tolist(), strict=True):
        losses -= tables.stress[i].astype(object) * lots
    for order in orders:
        losses += np.maximum(-tables.stress[order.instrument].astype(object) * order.lots, 0)
    rows = zip(losses.tolist(), tables.stress_weight_e6.tolist(), strict=True)
    return max(divide_up(max(loss, 0) * weight, ONE_E6) for loss, weight in rows)


def _paid_above_mark_usd6(order: OpenOrder, lot_exponent: int, tables: Tables) -> int:
    worth = order.lots * int(tables.columns_usd9[0, order.instrument]) // USD9_PER_USD6
    return max(0, notional_usd6(order.lots, order.price_usd9, lot_exponent) - worth) + FILL_ROUNDING_USD6
