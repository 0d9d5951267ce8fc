"""A whole volatility surface: every expiry's forward and slice, in order of expiry, and what they are worth.

Expiries are fitted from the nearest on; each is held above the one before (total variance in forward moneyness may not
fall with time). The verdict is measured on the recorded integers, not on the fit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from kernels.svi import butterfly_minimum, durrleman_g, total_variances
from kernels.svi_fit import lowest_above
from oracles.forward import Forward
from oracles.option_quotes import NO_JUMPS, Finding, JumpsE, Quote, Terms, implied_volatility
from oracles.surface_fit import NO_FLOOR, Method, SliceE9, Smile, fit_smile, floor_of, parameters_of
from schemas.quantities import MILLISECONDS_PER_YEAR, USD9_PER_USD

CORE_STDDEVS, MARKET_STDDEVS = 1.5, 2.5
ROUNDING_VOLATILITY = 1e-4  # a price rounded to its tick moves volatility by as much
ROOT_STEPS = 400


class Chain(NamedTuple):
    """Quotes of one expiry with the forward they are fitted to. `parity` says how that forward was found (None: told
    by the source)."""

    expiry_ms: int
    forward_usd9: int
    rate_e9: int
    quotes: list[Quote]
    parity: Forward | None = None


class MarketBar(NamedTuple):
    """A quote as volatilities; bid and ask NaN where there is no two-sided market."""

    strike_usd: float
    log_moneyness: float
    bid: float
    mark: float
    ask: float


class Verdict(NamedTuple):
    """Arbitrage of a recorded slice: the smallest g and where, the interval in which g < 0 (NaN: none), and the least
    w minus the expiry before (infinite for the first), within four standard deviations."""

    butterfly_g: float
    butterfly_k: float
    negative_from: float
    negative_to: float
    calendar_gap: float

    @property
    def free(self) -> bool:
        return self.butterfly_g >= 0.0 and self.calendar_gap >= 0.0


class Quality(NamedTuple):
    """Distance of a slice from its market, in vol points (1 = 0.01 of volatility): root mean square over all marks and
    over the core (1.5 standard deviations), median half spread, and the share of two-sided quotes within 2.5 standard
    deviations whose bid and ask hold the slice between them. NaN without quotes of that kind."""

    rms_points: float
    core_points: float
    half_spread_points: float
    inside_share: float
    two_sided: int


class FittedExpiry(NamedTuple):
    """One expiry of a surface."""

    chain: Chain
    years: float
    smile: Smile
    bars: list[MarketBar]
    verdict: Verdict | None
    quality: Quality


def fit_surface(chains: list[Chain], time_ms: int, jumps: JumpsE = NO_JUMPS) -> list[FittedExpiry]:
    """Slices of all expiries, free of arbitrage among each other; those that cannot be had have no slice."""
    floor, fitted = NO_FLOOR, []
    for chain in sorted(chains, key=lambda c: c.expiry_ms):
        terms = Terms(chain.forward_usd9, chain.rate_e9, chain.expiry_ms - time_ms, jumps)
        smile = fit_smile(chain.quotes, terms, floor)
        bars = market_bars(chain.quotes, terms)
        verdict = None if smile.slice_e9 is None else judge(smile.slice_e9, floor)
        quality = measure(smile.slice_e9, bars, terms.years)
        fitted.append(FittedExpiry(chain, max(terms.years, 0.0), smile, bars, verdict, quality))
        floor = floor if smile.slice_e9 is None else floor_of(smile.slice_e9)
    return fitted


def judged(slices: list[tuple[int, SliceE9]], time_ms: int) -> list[FittedExpiry]:
    """The same for slices that are there already, (expiry, slice) in any order: verdicts without quotes."""
    found, floor = [], NO_FLOOR
    for expiry_ms, slice_e9 in sorted(slices):
        verdict, years = judge(slice_e9, floor), (expiry_ms - time_ms) / MILLISECONDS_PER_YEAR
        smile = Smile(slice_e9, Method.RECORDED, False, fit_smile([], Terms(0, 0, 0)).points, [])
        quality = Quality(math.nan, math.nan, math.nan, math.nan, 0)
        found.append(FittedExpiry(Chain(expiry_ms, 0, 0, []), max(years, 0.0), smile, [], verdict, quality))
        floor = floor_of(slice_e9)
    return found


def judge(slice_e9: SliceE9, floor: tuple[np.ndarray, np.ndarray] = NO_FLOOR) -> Verdict:
    """Butterfly and calendar verdict of one slice."""
    values = parameters_of(slice_e9)
    g, k = butterfly_minimum(values)
    low, high = (math.nan, math.nan) if g >= 0 else (_root(values, k, -1.0), _root(values, k, 1.0))
    return Verdict(g, k, low, high, lowest_above(values, *floor))


def _root(values: np.ndarray, inside: float, direction: float) -> float:
    """The end of the interval around `inside` where g < 0: steps outwards, then bisection. 8 where there is none."""
    a, b, rho, m, sigma = values.tolist()
    step = direction * 8.0 / ROOT_STEPS
    low = high = inside
    while abs(high) < 8.0 and durrleman_g(a, b, rho, m, sigma, high) < 0.0:
        low, high = high, high + step
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if durrleman_g(a, b, rho, m, sigma, middle) < 0.0 else (low, middle)
    return max(-8.0, min(8.0, high))


def market_bars(quotes: list[Quote], terms: Terms) -> list[MarketBar]:
    """Out-of-the-money quotes as volatilities, by strike."""
    found = []
    if terms.forward_usd9 <= 0 or terms.remaining_ms <= 0:
        return []
    for q in sorted(quotes, key=lambda quote: quote.strike_usd9):
        if q.strike_usd9 <= 0 or q.mark_usd9 <= 0 or q.is_call != (q.strike_usd9 >= terms.forward_usd9):
            continue
        two_sided = 0 < q.bid_usd9 <= q.ask_usd9
        bid, ask = ((implied_volatility(p, q, terms) if two_sided else math.nan) for p in (q.bid_usd9, q.ask_usd9))
        k = math.log(q.strike_usd9 / terms.forward_usd9)
        found.append(MarketBar(q.strike_usd9 / USD9_PER_USD, k, bid, implied_volatility(q.mark_usd9, q, terms), ask))
    return found


def volatilities(slice_e9: SliceE9, log_moneyness: np.ndarray, years: float) -> np.ndarray:
    """Implied volatility of a slice at log-moneynesses."""
    variance = np.empty(len(log_moneyness))
    total_variances(parameters_of(slice_e9), np.ascontiguousarray(log_moneyness), variance)
    return np.sqrt(variance / years)


def measure(slice_e9: SliceE9 | None, bars: list[MarketBar], years: float) -> Quality:
    """How near a slice is to its market."""
    if slice_e9 is None or not bars:
        return Quality(math.nan, math.nan, math.nan, math.nan, 0)
    _, k, bid, mark, ask = (np.array(column) for column in zip(*bars, strict=True))
    fitted, stddev = volatilities(slice_e9, k, years), float(volatilities(slice_e9, np.zeros(1), years)[0]) * years**0.5
    error, core = 100 * (fitted - mark), (np.abs(k) <= CORE_STDDEVS * stddev) & np.isfinite(mark)
    market = np.isfinite(bid) & np.isfinite(ask) & (ask > bid) & (np.abs(k) <= MARKET_STDDEVS * stddev)
    inside = (fitted >= bid - ROUNDING_VOLATILITY) & (fitted <= ask + ROUNDING_VOLATILITY)
    return Quality(
        _root_mean_square(error[np.isfinite(mark)]),
        _root_mean_square(error[core]),
        float(np.median(50 * (ask - bid)[market])) if market.any() else math.nan,
        float(inside[market].mean()) if market.any() else math.nan,
        int(market.sum()),
    )


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values * values))) if len(values) else math.nan


def findings_by_name(findings: list[Finding]) -> dict[str, int]:
    """Defect -> how many, in order of first sight."""
    counts: dict[str, int] = {}
    for finding in findings:
        counts[str(finding.defect)] = counts.get(str(finding.defect), 0) + 1
    return counts
