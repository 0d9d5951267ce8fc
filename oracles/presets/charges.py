"""What is charged beside the scenarios: contingencies, confidence, minimum, roll, and what counts as equity (float64).

Both paths read the same list of terms: the twin multiplies them out in floats, the integer path rounds each product
against the account.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kernels.layout import YEAR_SECONDS
from oracles.presets.case import Case, Collateral
from oracles.presets.document import Parameters
from oracles.presets.repricing import OptionLeg

CERTAIN = 1.0


class Charge(NamedTuple):
    """`quantity` x `price` x `rate`, USD: the quantity is exact, price and rate are floats."""

    name: str
    quantity: float
    price: float
    rate: float

    @property
    def usd(self) -> float:
        return self.quantity * self.price * self.rate


def maintenance_charges(case: Case, legs: list[OptionLeg], p: Parameters) -> list[Charge]:
    """What maintenance margin adds to the risk."""
    held, spot = case.positions, case.market.spot
    charges = [Charge("perpetual", abs(held.perp_quantity), spot, p.other.mm_perp)]
    charges.append(Charge("naked short options", naked_short_quantity(legs), spot, p.other.mm_short_option))
    charges += [Charge(f"haircut of {c.name}", c.quantity, coin_price(c, case), c.mm_haircut) for c in held.collateral]
    return charges + _gross_notional(case, legs, p)


def initial_charges(case: Case, legs: list[OptionLeg], p: Parameters) -> list[Charge]:
    """What initial margin adds to all of maintenance's."""
    held, spot = case.positions, case.market.spot
    charges = [Charge("perpetual", abs(held.perp_quantity), spot, p.other.im_extra_perp)]
    charges.append(Charge("naked short options", naked_short_quantity(legs), spot, p.other.im_extra_short_option))
    for coin in held.collateral:
        charges.append(Charge(f"haircut of {coin.name}", coin.quantity, coin_price(coin, case), coin.im_extra_haircut))
    charges += list(_low_confidence(case, legs, p))
    return [*charges, Charge("open orders and other", 1.0, held.other_initial_margin, 1.0)]


def coin_price(coin: Collateral, case: Case) -> float:
    """Price of a coin in units of cash."""
    return coin.price / case.market.stable_price


def naked_short_quantity(legs: Iterable[OptionLeg]) -> float:
    """Short options beyond the long ones of the same strike and expiry."""
    net: dict[tuple[int, float], float] = {}
    for leg in legs:
        key = (leg.expiry, leg.option.strike)
        net[key] = net.get(key, 0.0) + leg.option.quantity
    return sum(max(0.0, -quantity) for quantity in net.values())


def _low_confidence(case: Case, legs: list[OptionLeg], p: Parameters) -> Iterable[Charge]:
    """(1 - confidence) x confidence_margin of the notional wherever confidence is below the threshold."""
    held, market, threshold = case.positions, case.market, p.other.confidence_threshold
    perp = min(market.spot_confidence, market.perp_confidence)
    found = [("perpetual", abs(held.perp_quantity), market.spot, perp)]
    underlying = perp if held.perp_quantity else market.spot_confidence
    for place, expiry in enumerate(case.expiries):
        gross = sum(abs(leg.option.quantity) for leg in legs if leg.expiry == place)
        least = min(underlying, expiry.forward_confidence, expiry.rate_confidence, expiry.vol_confidence)
        found.append((f"options of {expiry.seconds_to_expiry} s", gross, market.spot, least))
    for coin in held.collateral:
        least = min(coin.confidence, market.spot_confidence)
        found.append((coin.name, coin.quantity, coin_price(coin, case), least))
    for name, quantity, unit, confidence in found:
        if confidence < threshold:
            yield Charge(f"low confidence of {name}", quantity, unit, (1.0 - confidence) * p.other.confidence_margin)


def _gross_notional(case: Case, legs: list[OptionLeg], p: Parameters) -> list[Charge]:
    rate, held = p.add_ons.gross_notional, case.positions
    charges = [Charge("notional of options", abs(leg.option.quantity), leg.market.forward, rate) for leg in legs]
    charges += [Charge("notional of futures", abs(future.quantity), future.price, rate) for future in held.futures]
    return [*charges, Charge("notional of perpetual", abs(held.perp_quantity), case.market.perp_price, rate)]


def short_option_minimum(case: Case, legs: list[OptionLeg], p: Parameters) -> list[Charge]:
    """Of the forward, for each net short contract of an expiry (calls and puts together): a floor of the risk."""
    rate, charges = p.add_ons.short_option_minimum, []
    for place, expiry in enumerate(case.expiries):
        net = sum(leg.option.quantity for leg in legs if leg.expiry == place)
        charges.append(Charge(f"short options of {expiry.seconds_to_expiry} s", max(0.0, -net), expiry.forward, rate))
    return charges


def roll_charges(case: Case, legs: list[OptionLeg], p: Parameters) -> list[Charge]:
    """|delta| of every expiry, the perpetual one of its own, x spot x max(roll_minimum, roll_annualised T)."""
    held, spot = case.positions, case.market.spot
    delta: dict[int, float] = {0: held.perp_quantity}
    for leg in legs:
        seconds = leg.option.seconds_to_expiry
        delta[seconds] = delta.get(seconds, 0.0) + leg.option.quantity * leg.delta
    for future in held.futures:
        delta[future.seconds_to_expiry] = delta.get(future.seconds_to_expiry, 0.0) + future.quantity
    charges = []
    for seconds, net in delta.items():
        rate = max(p.add_ons.roll_minimum, p.add_ons.roll_annualised * seconds / YEAR_SECONDS)
        charges.append(Charge(f"roll of {seconds} s", abs(net), spot, rate))
    return charges


def option_credit(leg: OptionLeg, p: Parameters) -> float:
    """Share of the option's value that is equity."""
    return p.add_ons.long_option_credit if leg.option.quantity > 0.0 else CERTAIN
