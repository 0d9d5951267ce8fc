"""Values of one unit of every leg in every row: the floats from which both the twin and the integer path start.

black-76     full repricing on the shocked forward with the shocked volatility, after the horizon
greeks       value + delta x change of forward + vega x change of volatility, first order
upper-bound  intrinsic value + bound(time to expiry) x min(strike, price), undiscounted (Opyn's naked margin)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.black76 import greeks, price, prices
from kernels.layout import YEAR_SECONDS
from kernels.normal import exponential, logarithm
from kernels.svi import raw_total_variance
from oracles.presets.case import Case, Expiry, Option, SviRaw
from oracles.presets.document import Parameters, PresetDocument
from oracles.presets.scenarios import SKEW_SHOCKS, FloatArray, OptionMoments, Shocks, shocked_vols


class OptionLeg(NamedTuple):
    """One option position: its place among the expiries, market, vol, and value and forward delta of one unit now."""

    option: Option
    expiry: int
    market: Expiry
    vol: float
    years: float
    rate: float
    value: float
    delta: float
    vega: float

    @property
    def is_call(self) -> bool:
        return self.option.type == "call"

    @property
    def log_moneyness(self) -> float:
        return float(logarithm(self.option.strike / self.market.forward))


class LinearLeg(NamedTuple):
    """A perpetual, future or coin: signed quantity, price of one unit, whether rows move it."""

    name: str
    quantity: float
    price: float
    moves: bool


def option_legs(case: Case) -> list[OptionLeg]:
    """The options, in the order of the case. Rates below zero count as zero."""
    places = {expiry.seconds_to_expiry: place for place, expiry in enumerate(case.expiries)}
    return [_option_leg(option, places[option.seconds_to_expiry], case) for option in case.positions.options]


def _option_leg(option: Option, place: int, case: Case) -> OptionLeg:
    market = case.expiries[place]
    years, rate = option.seconds_to_expiry / YEAR_SECONDS, max(market.rate, 0.0)
    vol = svi_vol(option.strike, market.svi_raw) if option.mark_vol is None else option.mark_vol
    arguments = (market.forward, option.strike, vol, years, rate, option.type == "call")
    _, delta, _, vega, _, _ = greeks(*arguments)
    return OptionLeg(option, place, market, vol, years, rate, price(*arguments), delta, vega)


def svi_vol(strike: float, slice_: SviRaw | None) -> float:
    """Volatility of a strike on an expiry's slice; total variance below zero counts as zero."""
    if slice_ is None:
        raise ValueError("an option without mark_vol needs its expiry's svi_raw")
    limit = 4.0 * float(np.sqrt(max(slice_.a + slice_.b * slice_.sigma, 0.0)))
    k = min(max(float(logarithm(strike / slice_.ref_forward)), -limit), limit)
    w = raw_total_variance(slice_.a, slice_.b, slice_.rho, slice_.m, slice_.sigma, k)
    return float(np.sqrt(max(w, 0.0) / slice_.ref_tau_years))


def linear_legs(case: Case, document: PresetDocument) -> list[LinearLeg]:
    """Perpetual, futures, risk-offsetting coins. Counted in coins, contracts are inverse: their size is in coins."""
    held, market, coin = case.positions, case.market, document.numeraire == "coin"
    legs = [LinearLeg("perpetual", held.perp_quantity, market.spot if coin else market.perp_price, True)]
    for future in held.futures:
        name = f"future {future.seconds_to_expiry} s"
        legs.append(LinearLeg(name, future.quantity, market.spot if coin else future.price, True))
    for coins in held.collateral:
        legs.append(
            LinearLeg(coins.name, coins.quantity, coins.price / market.stable_price, coins.offsets_risk and not coin)
        )
    return [leg for leg in legs if leg.quantity]


def shocked_forwards(leg: OptionLeg, spot_multiplier: FloatArray, window_seconds: int) -> FloatArray:
    """Forward in every row, [S]. Within the settlement window the part that is fixed already stands still."""
    forward, seconds = leg.market.forward, leg.option.seconds_to_expiry
    fixed = forward * (window_seconds - seconds) / window_seconds if seconds < window_seconds else 0.0
    return fixed + (forward - fixed) * spot_multiplier


def shocked_values(leg: OptionLeg, shocks: Shocks, document: PresetDocument, p: Parameters) -> FloatArray:
    """Value of one unit of the option in every row, [S], USD at that row's price; legs out of scope stand still."""
    out_of_spot = np.array([kind in SKEW_SHOCKS for kind in shocks.vol_shock])
    multiplier = np.where(out_of_spot, 1.0, shocks.spot_multiplier)
    moved = shocked_forwards(leg, multiplier, document.settlement_window_seconds)
    if document.repricing == "upper-bound":
        values = _upper_bounds(leg, moved, p)
    else:
        moments = OptionMoments(leg.vol, leg.years, leg.option.seconds_to_expiry, leg.log_moneyness)
        vols = shocked_vols(moments, shocks, p)
        first_order = document.repricing == "greeks"
        values = _first_order(leg, moved, vols) if first_order else _black76(leg, moved, vols, shocks)
    return np.where(in_scope(shocks, leg.option.type), values, leg.value)


def in_scope(shocks: Shocks, kind: str) -> np.ndarray:
    """Whether a row moves legs of this kind (call, put, linear), bool[S]."""
    return np.array([scope in ("all", kind) for scope in shocks.scope])


def _black76(leg: OptionLeg, moved: FloatArray, vols: FloatArray, shocks: Shocks) -> FloatArray:
    size = shocks.size
    years = max(leg.option.seconds_to_expiry - shocks.group.horizon_seconds, 0) / YEAR_SECONDS
    out = np.empty(size)
    prices(
        moved, np.full(size, leg.option.strike), vols, np.full(size, years), leg.rate + shocks.rate_shift,
        np.full(size, leg.is_call), out,
    )  # fmt: skip
    return out


def _first_order(leg: OptionLeg, moved: FloatArray, vols: FloatArray) -> FloatArray:
    return leg.value + leg.delta * (moved - leg.market.forward) + leg.vega * (vols - leg.vol)


def _upper_bounds(leg: OptionLeg, moved: FloatArray, p: Parameters) -> FloatArray:
    """The bound of the first entry that is not nearer than the option's expiry; beyond the last one the last."""
    days, bounds = leg.option.seconds_to_expiry / 86_400, p.time_value_bounds
    bound = next((entry.bound for entry in bounds if days <= entry.days), bounds[-1].bound)
    strike = leg.option.strike
    intrinsic = np.maximum(moved - strike if leg.is_call else strike - moved, 0.0)
    return intrinsic + bound * np.minimum(strike, moved)


def static_discounts(leg: OptionLeg, p: Parameters) -> tuple[float, float] | None:
    """(factor of a positive shocked value, of a negative one) of the leg's expiry; None where nothing is discounted."""
    rule = p.margin
    if rule.long_static_discount is None or rule.short_static_discount is None:
        return None
    years, rate = leg.years, leg.rate
    long = rule.long_static_discount * exponential(-years * (rate * rule.long_rate_mult + rule.long_rate_add))
    short = rule.short_static_discount / exponential(-years * (rate * rule.short_rate_mult + rule.short_rate_add))
    return float(long), float(min(1.0 / exponential(-years * rate), short))
