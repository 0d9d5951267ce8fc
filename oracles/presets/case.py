"""A case: one account's positions in one underlying, its market, and what is expected of it.

The format is that of the published Derive PM2 portfolio cases, as
tests/reference/vectors/derive_pmrm2_portfolio_cases.json re-keys them.
Quantities are signed, long positive; prices USD; ratios plain numbers. Fields that no rule reads are ignored.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from kernels.layout import YEAR_SECONDS
from oracles.presets.document import (
    BasisRule,
    MarginRule,
    Multiplier,
    OtherRule,
    SkewRule,
    VolRule,
    VolShock,
)

AMOUNT_MAX, YEARS_MAX, RATE_MAX, VOLATILITY_MAX = 1e12, 20, 5.0, 100.0
"""Beyond these a figure is a mistake; within them no margin can overflow."""

Seconds = Annotated[int, Meta(ge=0, le=YEARS_MAX * YEAR_SECONDS)]
Amount = Annotated[float, Meta(ge=-AMOUNT_MAX, le=AMOUNT_MAX)]
Price = Annotated[float, Meta(gt=0, le=AMOUNT_MAX)]
NotNegativeAmount = Annotated[float, Meta(ge=0, le=AMOUNT_MAX)]
Factor = Annotated[float, Meta(ge=0, le=1_000)]


class CaseError(ValueError):
    """A file of cases cannot be used; the message names the case and the field."""


class Option(Struct, frozen=True, kw_only=True):
    """An option position; its expiry stands in the case's `expiries`. Without a `mark_vol` that of the expiry's SVI."""

    seconds_to_expiry: Seconds
    strike: Price
    type: Literal["call", "put"]
    quantity: Amount
    mark_vol: Annotated[float, Meta(ge=0, le=VOLATILITY_MAX)] | None = None


class Future(Struct, frozen=True, kw_only=True):
    """A dated future at its price; what it has gained since entry is `unrealised_pnl`."""

    seconds_to_expiry: Seconds
    quantity: Amount
    price: Price
    unrealised_pnl: Amount = 0.0


class Collateral(Struct, frozen=True, kw_only=True):
    """A coin held. `offsets_risk`: it moves with the underlying in the scenarios."""

    name: str
    quantity: NotNegativeAmount
    price: NotNegativeAmount
    confidence: Factor = 1.0
    offsets_risk: bool = False
    mm_haircut: Factor = 0.0
    im_extra_haircut: Factor = 0.0


class Positions(Struct, frozen=True, kw_only=True):
    """What the account holds. `other_initial_margin`: what the venue asks beside, for open orders and the like."""

    cash: Amount = 0.0
    perp_quantity: Amount = 0.0
    perp_unrealised_pnl: Amount = 0.0
    perp_unrealised_funding: Amount = 0.0
    options: tuple[Option, ...] = ()
    futures: tuple[Future, ...] = ()
    collateral: tuple[Collateral, ...] = ()
    other_initial_margin: NotNegativeAmount = 0.0


class Market(Struct, frozen=True, kw_only=True):
    """Prices of the underlying, its perpetual and the stablecoin that is the cash."""

    spot: Price
    spot_confidence: Factor = 1.0
    stable_price: Annotated[float, Meta(ge=1e-6, le=1e6)] = 1.0
    stable_confidence: Factor = 1.0
    perp_price: NotNegativeAmount = 0.0
    perp_confidence: Factor = 1.0


class SviRaw(Struct, frozen=True, kw_only=True):
    """w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)), k = ln(K/ref_forward) within +-4 sqrt(a + b sigma);
    vol = sqrt(w / ref_tau_years)."""

    a: Annotated[float, Meta(ge=-1_000, le=1_000)]
    b: Factor
    rho: Annotated[float, Meta(ge=-1, le=1)]
    m: Annotated[float, Meta(ge=-1_000, le=1_000)]
    sigma: Factor
    ref_forward: Price
    ref_tau_years: Annotated[float, Meta(ge=1e-6, le=YEARS_MAX)]


class Expiry(Struct, frozen=True, kw_only=True):
    """Forward, rate and, for options without a mark vol, the volatility slice of one expiry."""

    seconds_to_expiry: Seconds
    forward: Price
    rate: Annotated[float, Meta(ge=-RATE_MAX, le=RATE_MAX)] = 0.0
    forward_confidence: Factor = 1.0
    rate_confidence: Factor = 1.0
    vol_confidence: Factor = 1.0
    svi_raw: SviRaw | None = None


class CaseRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scenario that a case brings itself."""

    spot_multiplier: Multiplier
    vol_shock: VolShock
    dampening: Factor = 1.0


class CaseParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters that a case brings itself: all five groups."""

    skew: SkewRule
    vol: VolRule
    margin: MarginRule
    basis: BasisRule
    other: OtherRule


class Expected(Struct, frozen=True, kw_only=True):
    """What the source of the case says."""

    initial_margin_balance: float
    maintenance_margin_balance: float
    option_mtm: float | None = None
    collateral_mtm: float | None = None
    basis_contingency: float | None = None
    scenario_pnl: tuple[float, ...] = ()


class Case(Struct, frozen=True, kw_only=True):
    """One account in one market."""

    id: str
    positions: Positions
    market: Market
    expiries: tuple[Expiry, ...] = ()
    scenarios: tuple[CaseRow, ...] | None = None
    parameters: CaseParameters | None = None
    expected: Expected | None = None


class CaseFile(Struct, frozen=True, kw_only=True):
    """A file of cases."""

    cases: Annotated[tuple[Case, ...], Meta(min_length=1)]


def parse_cases(raw: bytes) -> tuple[Case, ...]:
    """Raises CaseError naming the field that is missing or wrong."""
    try:
        cases = msgspec.json.decode(raw, type=CaseFile).cases
    except msgspec.DecodeError as error:  # ValidationError is one
        raise CaseError(str(error)) from error
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise CaseError(f"case {case.id}: id stands twice")
        seen.add(case.id)
        check_case(case)
    return cases


def check_case(case: Case) -> None:
    """What types cannot say. Raises CaseError naming case and field."""
    listed = [expiry.seconds_to_expiry for expiry in case.expiries]
    if len(set(listed)) != len(listed):
        raise CaseError(f"case {case.id}: expiries: one of seconds_to_expiry stands twice")
    with_svi = {expiry.seconds_to_expiry for expiry in case.expiries if expiry.svi_raw is not None}
    for place, option in enumerate(case.positions.options):
        where, seconds = f"case {case.id}: positions.options[{place}]", option.seconds_to_expiry
        if seconds not in listed:
            raise CaseError(f"{where}.seconds_to_expiry: {seconds} is not among the expiries")
        if option.mark_vol is None and seconds not in with_svi:
            raise CaseError(f"{where}.mark_vol is missing, and the expiry has no svi_raw")
    if case.positions.perp_quantity and not case.market.perp_price:
        raise CaseError(f"case {case.id}: market.perp_price: a perpetual is held, so it must be above 0")
