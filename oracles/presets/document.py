"""What a preset is, as data: its scenario rows, how they are repriced, aggregated and charged.

All numbers of a rule stand in the document; the code knows no venue. Fields that a preset does not use are left out and
mean "no such rule". Ratios are plain numbers (0.25 = 25 %), amounts USD, `weight` multiplies a row's P&L (dampening).
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

NAMES = ("es", "stress", "derive-pm2", "deribit-pm", "span-scan", "greeks", "isolated")

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Multiplier = Annotated[float, Meta(ge=1e-6, le=1e6)]
Share = Annotated[float, Meta(ge=0, le=1)]
VolShock = Literal["none", "up", "down", "linear", "abs"]
Scope = Literal["all", "call", "put", "linear"]


class DocumentError(ValueError):
    """A preset is not known, or its document cannot be used; the message names the field."""


class Row(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One scenario. `vol_shock` names a rule of the document, `vol_multiplier` multiplies what it gives; legs out of
    `scope` stand still (linear: perpetuals, futures and coins). `dampener_usd`: so much of what a netting set gains or
    loses in the row does not count."""

    name: str
    reason: str
    spot_multiplier: Multiplier = 1.0
    vol_shock: VolShock = "none"
    vol_multiplier: Annotated[float, Meta(ge=0, le=1_000)] = 1.0
    rate_shift: Annotated[float, Meta(ge=-1, le=1)] = 0.0
    weight: Annotated[float, Meta(ge=0, le=1_000)] = 1.0
    dampener_usd: NotNegative = 0.0
    scope: Scope = "all"


class Draw(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows drawn by `oracles.scenario_set` instead of written: annual volatilities of the factors, and the seed.

    Without both curvature and term, skews are the same at every time to expiry, as in sets up to version 3."""

    scenarios: Annotated[int, Meta(ge=2, le=65_536)]
    seed: int
    spot_volatility: NotNegative
    level_volatility: NotNegative
    skew_volatility: NotNegative
    rate_volatility: NotNegative
    curvature_volatility: NotNegative = 0.0
    term_volatility: NotNegative = 0.0
    level_to_spot_correlation: Annotated[float, Meta(ge=-1, le=1)]


class Group(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows that are aggregated together: the worst loss, or the expected shortfall at `level` of drawn rows.

    Options are repriced with the time to expiry that is left after `horizon_seconds`."""

    name: str
    aggregation: Literal["worst", "expected-shortfall"] = "worst"
    level: Annotated[float, Meta(ge=0.5, lt=1)] | None = None
    horizon_seconds: Annotated[int, Meta(ge=0)] = 0
    rows: tuple[Row, ...] = ()
    draw: Draw | None = None


class VolRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """up: vol (1 + range_up m), at least min_vol_when_shocked_up; down: vol max(0, 1 - range_down m);
    m = (30 d / max(time to expiry, dte_floor_days))^power, short_term_power up to 30 days, else long_term_power."""

    range_up: NotNegative
    range_down: NotNegative
    short_term_power: float
    long_term_power: float
    dte_floor_days: NotNegative
    min_vol_when_shocked_up: NotNegative = 0.0


class SkewRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """linear, abs: vol max(0, 1 + clip(k c / k*, -c, c)), k = ln(K/F) (abs: |k|), spot unshocked, P&L -|change|;
    c = cap + slope sqrt(T), k* = max(min_k_star, sqrt(T) width_scale (vol_param_static + sqrt(T) vol_param_scale))."""

    linear_cap: float
    linear_cap_slope_sqrt_tau: float
    abs_cap: float
    abs_cap_slope_sqrt_tau: float
    min_k_star: Positive
    width_scale: float
    vol_param_static: float
    vol_param_scale: float


class MarginRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Risk times these factors. An expiry's shocked value is discounted where `long_static_discount` is given: times
    long_static_discount exp(-T (r long_rate_mult + long_rate_add)) if it is positive, else times
    min(1/df, short_static_discount / exp(-T (r short_rate_mult + short_rate_add)))."""

    im_loss_factor: NotNegative = 1.0
    mm_loss_factor: NotNegative = 1.0
    short_rate_mult: float = 0.0
    long_rate_mult: float = 0.0
    short_rate_add: float = 0.0
    long_rate_add: float = 0.0
    long_static_discount: NotNegative | None = None
    short_static_discount: NotNegative | None = None


class BasisRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sum over expiries of min(P&L at spot_up, P&L at spot_down, 0) (add + mult T): a candidate for the worst."""

    spot_up: Positive
    spot_down: Positive
    add: NotNegative
    mult: NotNegative


class OtherRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Contingencies of maintenance (mm_*), what initial adds (im_extra_*), low confidence, a falling stablecoin.

    Short options: naked ones per strike and expiry. Rates are of spot x quantity."""

    peg_threshold: NotNegative = 0.0
    peg_factor: NotNegative = 0.0
    confidence_threshold: NotNegative = 0.0
    confidence_margin: NotNegative = 0.0
    mm_perp: NotNegative = 0.0
    im_extra_perp: NotNegative = 0.0
    mm_short_option: NotNegative = 0.0
    im_extra_short_option: NotNegative = 0.0


class AddOnRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """short_option_minimum: of the forward, per net short contract of an expiry, a floor of the risk. gross_notional:
    charged on |quantity| x price of every contract. roll: |delta| of every expiry x spot x max(roll_minimum,
    roll_annualised T), inside the risk. gain_share, gain_limit_usd: what of a scenario's gain counts.
    long_option_credit: share of a long option's value that is equity."""

    short_option_minimum: NotNegative = 0.0
    gross_notional: NotNegative = 0.0
    roll_annualised: NotNegative = 0.0
    roll_minimum: NotNegative = 0.0
    gain_share: Share = 1.0
    gain_limit_usd: NotNegative | None = None
    long_option_credit: Share = 1.0


class TimeValueBound(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Repricing "upper-bound": an option up to `days` from expiry is worth intrinsic + bound x min(strike, price)."""

    days: Positive
    bound: NotNegative


class Parameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules; the first five groups are those that a case may carry."""

    skew: SkewRule | None = None
    vol: VolRule | None = None
    margin: MarginRule = MarginRule()
    basis: BasisRule | None = None
    other: OtherRule = OtherRule()
    add_ons: AddOnRule = AddOnRule()
    time_value_bounds: tuple[TimeValueBound, ...] = ()


class PresetDocument(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A margin preset.

    `numeraire` coin: P&L is counted in coins of the underlying, shown at today's price; cash and collateral are then
    coins and stand still. `netting` position: every position stands alone and the losses add. `combine`: of the groups'
    risks. `case_rules`: a case's own scenarios and parameters take the place of the document's.
    """

    preset: str
    version: Annotated[int, Meta(ge=1)]
    summary: str
    source: str
    groups: Annotated[tuple[Group, ...], Meta(min_length=1)]
    parameters: Parameters = Parameters()
    repricing: Literal["black-76", "greeks", "upper-bound"] = "black-76"
    netting: Literal["account", "position"] = "account"
    combine: Literal["max", "sum"] = "max"
    numeraire: Literal["usd", "coin"] = "usd"
    settlement_window_seconds: Annotated[int, Meta(ge=0)] = 0
    case_rules: bool = False


def parse_document(raw: bytes) -> PresetDocument:
    """Raises DocumentError naming the field that is wrong."""
    try:
        document = msgspec.json.decode(raw, type=PresetDocument)
    except msgspec.DecodeError as error:  # ValidationError is one
        raise DocumentError(str(error)) from error
    check_document(document)
    return document


@cache
def preset(name: str) -> PresetDocument:
    """The document that ships with DPME. Raises DocumentError: no such preset."""
    if name not in NAMES:
        raise DocumentError(f"there is no preset {name!r}; there are {', '.join(NAMES)}")
    return parse_document(files("oracles.presets.documents").joinpath(f"{name}.json").read_bytes())


def document_digest(document: PresetDocument) -> str:
    """Identity of a document by its content."""
    return hashlib.blake2b(msgspec.json.encode(document), digest_size=16).hexdigest()


def check_document(document: PresetDocument) -> None:
    """What types cannot say. Raises DocumentError naming the field."""
    for place, group in enumerate(document.groups):
        _check_group(f"groups[{place}]", group, document)
    p = document.parameters
    if document.repricing == "upper-bound" and not p.time_value_bounds:
        raise DocumentError("parameters.time_value_bounds: repricing upper-bound needs them")
    if [b.days for b in p.time_value_bounds] != sorted({b.days for b in p.time_value_bounds}):
        raise DocumentError("parameters.time_value_bounds: days must rise")
    if (p.margin.long_static_discount is None) != (p.margin.short_static_discount is None):
        raise DocumentError("parameters.margin: long_static_discount and short_static_discount come together")
    if document.netting == "position" and p.basis is not None:
        raise DocumentError("parameters.basis: positions that stand alone have no basis between them")
    _check_finite("", msgspec.to_builtins(document))


def _check_group(where: str, group: Group, document: PresetDocument) -> None:
    if (group.draw is None) == (not group.rows):
        raise DocumentError(f"{where}: give either rows or draw")
    drawn = group.aggregation == "expected-shortfall"
    if drawn != (group.draw is not None) or drawn != (group.level is not None):
        raise DocumentError(f"{where}: expected-shortfall, draw and level come together")
    if drawn and not is_additive(document):
        raise DocumentError(f"{where}.aggregation: expected-shortfall needs netting account and no static discount")
    if group.draw is not None and group.draw.scenarios & (group.draw.scenarios - 1):
        raise DocumentError(f"{where}.draw.scenarios: {group.draw.scenarios} is no power of two")
    for at, row in enumerate(group.rows):
        check_rule(f"{where}.rows[{at}]", row.vol_shock, document.parameters)


def is_additive(document: PresetDocument) -> bool:
    """Whether the account's P&L in a scenario is the sum of its legs'."""
    return document.netting == "account" and document.parameters.margin.long_static_discount is None


def check_rule(where: str, vol_shock: VolShock, parameters: Parameters) -> None:
    """The rule that a row's vol_shock names must be there. Raises DocumentError."""
    needed = {"up": "vol", "down": "vol", "linear": "skew", "abs": "skew"}.get(vol_shock)
    if needed is not None and getattr(parameters, needed) is None:
        raise DocumentError(f"{where}.vol_shock: {vol_shock} needs parameters.{needed}")


def _check_finite(where: str, value: object) -> None:
    if isinstance(value, dict):
        for name, entry in value.items():
            _check_finite(f"{where}.{name}" if where else name, entry)
    elif isinstance(value, list | tuple):
        for place, entry in enumerate(value):
            _check_finite(f"{where}[{place}]", entry)
    elif isinstance(value, float) and not math.isfinite(value):
        raise DocumentError(f"{where}: {value} is no number")
