"""The governed parameter document: one version, every number a margin depends on besides market and scenarios."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

FINALITY_DEPTH_MAX = 256
RatioE6 = Annotated[int, Meta(ge=0, le=1_000_000)]


class StressRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One deterministic stress scenario. Its loss times its weight is a floor of the requirement."""

    name: str
    reason: str
    weight_e6: Annotated[int, Meta(ge=0, le=1_000_000)]
    spot_move_e6: Annotated[int, Meta(gt=-1_000_000, le=10_000_000)]
    volatility_move_e6: Annotated[int, Meta(gt=-1_000_000, le=10_000_000)] = 0
    rate_shift_e6: Annotated[int, Meta(ge=-100_000, le=100_000)] = 0
    scope: Literal["all", "stable"] = "all"


def default_stress_rows() -> tuple[StressRow, ...]:
    """Spot x volatility x rate grid (54 shapes; an adverse rate is the worse of two rows) and four extremes."""
    grid = [
        StressRow(
            name=f"spot{spot:+d}% vol{vol:+d}% rate{rate:+d}bp",
            reason="grid: joint moves of a bad day",
            weight_e6=250_000,
            spot_move_e6=spot * 10_000,
            volatility_move_e6=vol * 10_000,
            rate_shift_e6=rate * 100,
        )
        for spot in range(-20, 21, 5)
        for vol in (-25, 0, 45)
        for rate in (0, 100, -100)
    ]
    extremes = [
        StressRow(name="crash -40%", reason="extreme: March 2020 within a day", weight_e6=150_000,
                  spot_move_e6=-400_000, volatility_move_e6=450_000),
        StressRow(name="squeeze +40%", reason="extreme: short squeeze", weight_e6=150_000,
                  spot_move_e6=400_000, volatility_move_e6=450_000),
        StressRow(name="all correlations one -35%", reason="extreme: every underlying falls together",
                  weight_e6=150_000, spot_move_e6=-350_000, volatility_move_e6=800_000),
        StressRow(name="stablecoins -10%", reason="extreme: depeg as in March 2023", weight_e6=150_000,
                  spot_move_e6=-100_000, scope="stable"),
    ]  # fmt: skip
    return tuple(grid + extremes)


class RiskParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Version document; the defaults are those of the design (margin section)."""

    version: Annotated[int, Meta(ge=1, lt=2**31)] = 1
    expected_shortfall_level_e6: Annotated[int, Meta(ge=900_000, lt=1_000_000)] = 990_000
    initial_margin_multiplier_e6: Annotated[int, Meta(ge=1_000_000, le=2_000_000)] = 1_250_000
    stress_rows: Annotated[tuple[StressRow, ...], Meta(min_length=1, max_length=1_000)] = msgspec.field(
        default_factory=default_stress_rows
    )
    short_option_minimum_e6: RatioE6 = 10_000
    gross_notional_charge_e6: RatioE6 = 500
    rearm_ratio_e6: Annotated[int, Meta(ge=1_000_000, le=10_000_000)] = 1_050_000
    market_tick_interval_ms: Annotated[int, Meta(ge=0)] = 100
    market_tick_move_e6: Annotated[int, Meta(ge=0)] = 500
    tick_lateness_max_ms: Annotated[int, Meta(ge=0)] = 2_000
    identity_memory_blocks: Annotated[int, Meta(ge=1)] = 64
    block_close_grace_ms: Annotated[int, Meta(ge=0)] = 60_000
    bound_accounts_min: Annotated[int, Meta(ge=0)] = 0
    """From this many accounts of a partition on, those certain to be healthy may keep a bound; 0: every margin is exact
    in every block."""
    exact_interval_blocks: Annotated[int, Meta(ge=1, le=100_000)] = 64
    """At least every so many blocks each account's margin is exact."""
    settlement_window_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 1_800_000
    unrealised_gain_share_e6: RatioE6 = 1_000_000
    finality_depth_blocks: Annotated[int, Meta(ge=0, le=FINALITY_DEPTH_MAX)] = 64
    liquidation_depth_blocks: Annotated[int, Meta(ge=0, le=FINALITY_DEPTH_MAX)] = 0
    surface_move_max_e6: Annotated[int, Meta(ge=0, le=10_000_000)] = 500_000
    """Relative change of volatility beyond which a new surface is held back and its expiry degraded; 0: none is."""
    degraded_volatility_e6: Annotated[int, Meta(ge=0, le=10_000_000)] = 100_000
    """Add-on of options of a degraded expiry: so much volatility (0.10: ten vol points) on the gross vega."""


def parse_parameters(document: dict) -> RiskParameters:
    """Document -> parameters; raises msgspec.ValidationError naming the field."""
    return msgspec.convert(document, RiskParameters)


@lru_cache(maxsize=16)
def parameters_digest(parameters: RiskParameters) -> str:
    """Identity of a document by its content: a version number alone proves nothing."""
    return hashlib.blake2b(msgspec.json.encode(parameters), digest_size=16).hexdigest()


def parameters_document(parameters: RiskParameters) -> dict:
    """Parameters -> plain document (JSON types only)."""
    return msgspec.to_builtins(parameters)
