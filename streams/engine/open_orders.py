"""Open orders: what accounts have open, as their events last said, and what that can cost at its worst.

Orders count where new risk is judged (the gate: withdrawals and further orders), never in a margin: an order takes
nothing until it is filled, and nobody is called or liquidated for one.

**Bound.** Orders d_o may each be filled by any part f_o in [0, 1], in any combination. NLV less IM at its worst:

- Expected shortfall, stress, short-option minimum and add-ons are convex in the position, hence in f; NLV falls by at
  most f_o of what an order pays above its mark and of its fee. So NLV less IM is no lower than a concave function of f,
  whose minimum over the box lies at a corner: some orders filled whole, the others not at all. Up to ORDERS_EXACT
  orders every corner is margined exactly: orders that hedge each other or the account are seen as what they are.
- With more orders, or sums beyond the fast range: in scenario s the account loses L_s(q) + sum f_o L_s(d_o) <= L_s(q) +
  sum max(0, L_s(d_o)). Expected shortfall is monotone, so that of the right side, where every scenario has a worst set
  of its own, bounds that of every set chosen beforehand; so does each stress row. The net short position of an expiry
  is largest with every sale and no purchase filled, gross sizes with everything, and everything is paid for.

All is rounded against the account. A fee counts where the order states one; a rebate is not leant on.
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
from streams.engine.margin import Sums, account_sums, compute, empty_margins
from streams.engine.tables import Tables

SIDES = {records.BUY_ORDERS: 1, records.SELL_ORDERS: -1}
ORDERS_EXACT = 10  # a margin for each set of them: a thousand
CORNER_ROUNDING_USD6 = 1  # of terms between corners, nano-USD an expiry and leg
FILL_ROUNDING_USD6 = 2  # of an order, what rounding a partial fill and the counted share of a gain may add

Key = tuple[str, int, int]  # account, instrument, side


class OpenOrder(NamedTuple):
    """Signed lots of one instrument, the worst price of them, and the fee of filling them all."""

    instrument: int
    lots: int
    price_usd9: int
    fee_usd6: int = 0


class OpenOrders:
    """Orders by account, instrument and side; values are never changed in place."""

    def __init__(self) -> None:
        self.orders: dict[Key, tuple[int, ...]] = {}  # lots, price, and the fee where there is one
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
                fee_usd6 = -int(row["cash_usd6"])
                self.orders[key] = (int(row["lots"]), int(row["price_usd9"]), *([fee_usd6] if fee_usd6 else []))
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
        return [OpenOrder(i, side * lots, *prices) for (_, i, side), (lots, *prices) in mine]

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
            found.orders = {(a, i, side): tuple(rest) for a, i, side, *rest in msgspec.msgpack.decode(raw)}
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


def worst_excess_usd6(
    account: Book, orders: list[OpenOrder], lot_exponents: np.ndarray, tables: Tables, p: RiskParameters
) -> int:
    """NLV less IM is at least this, micro-USD, whichever of the orders are filled, for an account (a book of one row)
    whose instruments, and those of the orders, are rows of `tables`; `lot_exponents` int64[I].
    """
    legs = account.legs()
    nlv_usd6, _, _, _ = _values(account_sums(legs, account.cash(), account.entry_by_account(), tables, p))
    paid = [_paid_usd6(order, int(lot_exponents[order.instrument]), tables) for order in orders]
    nlv_usd6 -= FILL_ROUNDING_USD6 * len(orders)
    if len(orders) <= ORDERS_EXACT:
        needed = _needed_by_corner(legs, orders, paid, tables, p)
        if needed is not None:
            return nlv_usd6 - needed
    return nlv_usd6 - sum(paid) - _initial_bound_usd6(account, orders, tables, p)


def _needed_by_corner(
    legs: Legs, orders: list[OpenOrder], paid: list[int], tables: Tables, p: RiskParameters
) -> int | None:
    """Most that IM and what is paid come to over all sets of orders filled whole; None where one of them is wide."""
    count, instruments = 2 ** len(orders), len(tables.option_expiry)
    filled = (np.arange(count)[:, None] >> np.arange(len(orders))) & 1
    sizes = np.zeros((1 + len(orders), instruments), np.int64)
    np.add.at(sizes[0], legs.leg_instrument, legs.leg_lots)
    for place, order in enumerate(orders, 1):
        sizes[place, order.instrument] = order.lots
    lots = sizes[0] + filled @ sizes[1:]
    pointer = np.arange(count + 1, dtype=np.int64) * instruments
    corners = Legs(pointer, np.tile(np.arange(instruments, dtype=np.int32), count), lots.ravel())
    nothing = np.zeros(count, np.int64)  # neither cash nor entries have a part in IM
    sums = account_sums(corners, nothing, nothing, tables, p)
    if sums.wide.any():
        return None
    margins = empty_margins(count)
    compute(corners, np.arange(count), sums, tables, p, margins)
    if margins.wide.any():
        return None
    costs = [sum(cost for cost, is_filled in zip(paid, row, strict=True) if is_filled) for row in filled.tolist()]
    needed = max(map(sum, zip(costs, margins.initial_margin_usd6.tolist(), strict=True)))
    return needed + CORNER_ROUNDING_USD6


def _initial_bound_usd6(account: Book, orders: list[OpenOrder], tables: Tables, p: RiskParameters) -> int:
    """IM at most, every term by its own worst fills."""
    legs, cash, entry = account.legs(), account.cash(), account.entry_by_account()
    with_sales, with_all = (_with_orders(legs, [o for o in orders if o.lots < most]) for most in (0, np.inf))
    short_usd9 = _values(account_sums(with_sales, cash, entry, tables, p))[2]
    add_ons_usd9 = _values(account_sums(with_all, cash, entry, tables, p))[3]
    risk = max(_shortfall_usd9(legs, orders, tables), _stress_usd9(legs, orders, tables), short_usd9)
    return divide_up(divide_up(risk * p.initial_margin_multiplier_e6, ONE_E6) + add_ons_usd9, USD9_PER_USD6)


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


def _paid_usd6(order: OpenOrder, lot_exponent: int, tables: Tables) -> int:
    worth = order.lots * int(tables.columns_usd9[0, order.instrument]) // USD9_PER_USD6
    return max(0, notional_usd6(order.lots, order.price_usd9, lot_exponent) - worth) + max(0, order.fee_usd6)
