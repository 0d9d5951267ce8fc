"""The governed parameter document: one version, every number a margin depends on besides market and scenarios."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

FINALITY_DEPTH_MAX = 256
RatioE6 = Annotated[int, Meta(ge=0, le=1_000_000)]


class StressRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One deterministic stress scenario. Its loss times its weight is a floor of the requirement.

    `skew_e6`: relative change of volatility per unit of log-moneyness. `funding_e6`: of a perpetual's notional, paid by
    who is long. `crowded`: an underlying's spot move is larger by its factor in `crowding`.
    """

    name: str
    reason: str
    weight_e6: Annotated[int, Meta(ge=0, le=1_000_000)]
    spot_move_e6: Annotated[int, Meta(gt=-1_000_000, le=10_000_000)]
    volatility_move_e6: Annotated[int, Meta(gt=-1_000_000, le=10_000_000)] = 0
    rate_shift_e6: Annotated[int, Meta(ge=-100_000, le=100_000)] = 0
    skew_e6: Annotated[int, Meta(ge=-2_000_000, le=2_000_000)] = 0
    funding_e6: Annotated[int, Meta(ge=-1_000_000, le=1_000_000)] = 0
    scope: Literal["all", "stable"] = "all"
    crowded: bool = False


def default_stress_rows() -> tuple[StressRow, ...]:
    """Spot x volatility x rate grid (54 shapes; an adverse rate is the worse of two rows) and ten extremes."""
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
        *(StressRow(name=f"funding {sign:+d}%", reason="extreme: funding at its cap for a day; basis trades pay it",
                    weight_e6=250_000, spot_move_e6=0, funding_e6=sign * 10_000) for sign in (2, -2)),
        *(StressRow(name=f"surface twist {sign:+d}%", reason="extreme: the wings trade places at an unchanged spot",
                    weight_e6=250_000, spot_move_e6=0, skew_e6=sign * 10_000) for sign in (50, -50)),
        *(StressRow(name=f"crowded exit {sign:+d}%", reason="extreme: who holds too much of a market leaves it at once",
                    weight_e6=250_000, spot_move_e6=sign * 10_000, volatility_move_e6=450_000, crowded=True)
          for sign in (-20, 20)),
    ]  # fmt: skip
    return tuple(grid + extremes)


DERIVATIVES, COLLATERAL = "derivatives", "collateral"
SIZE_MAX_USD6 = 10**18


class ConcentrationTier(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an account's size exceeds `above_usd6` by costs this rate."""

    above_usd6: Annotated[int, Meta(ge=0, le=SIZE_MAX_USD6)]
    rate_e6: RatioE6


class Concentration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Charge on large positions of an underlying: its derivatives, or its coins as collateral. Tiers are marginal and
    rise in size and rate."""

    underlying: str
    scope: Literal["derivatives", "collateral"] = "derivatives"
    tiers: Annotated[tuple[ConcentrationTier, ...], Meta(min_length=1, max_length=32)]

    def __post_init__(self) -> None:
        for lower, upper in pairwise(self.tiers):
            if not (lower.above_usd6 < upper.above_usd6 and lower.rate_e6 <= upper.rate_e6):
                raise ValueError(f"concentration of {self.underlying}: tiers must rise in above_usd6 and rate_e6")


class CollateralFactor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The factor of a collateral coin from now on, in place of the one it was listed with."""

    instrument: str
    factor_e6: RatioE6


class VarianceModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the risk model estimates the variances of spots (infra/docs/risk_model.md).

    The GARCH kinds are fitted every `refit_bars` bars to the last `fit_bars` returns, first when there are
    `fit_bars_min`. A fit takes effect `refit_delay_blocks` blocks after the block that ended its last bar; one that is
    recorded later, with the block after.
    """

    kind: Literal["multi-speed", "ewma", "historical", "garch-t", "gjr-skew-t"] = "multi-speed"
    refit_bars: Annotated[int, Meta(ge=1, le=100_000)] = 720
    fit_bars: Annotated[int, Meta(ge=30, le=100_000)] = 17_520
    fit_bars_min: Annotated[int, Meta(ge=30, le=100_000)] = 2_160
    refit_delay_blocks: Annotated[int, Meta(ge=1, le=100_000)] = 64

    def __post_init__(self) -> None:
        if self.fit_bars_min > self.fit_bars:
            raise ValueError("fit_bars_min is above fit_bars")


class ScenarioModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How scenario sets follow the market (`dpme run model`): every `epoch_bars` bars a new set, off while that is 0.

    The standard deviations of spots and of the levels, skews, curvatures and terms of surfaces follow the risk model
    within bounds (annual) and speeds (at most so much of the last epoch's up, or down). A set takes effect
    `delay_blocks` blocks after the block whose market ended its last bar, once that block is final.
    """

    epoch_bars: Annotated[int, Meta(ge=0, le=100_000)] = 0
    bar_ms: Annotated[int, Meta(ge=1_000, le=86_400_000)] = 3_600_000
    horizon_seconds: Annotated[int, Meta(ge=1, le=864_000)] = 3_600
    scenarios: Annotated[int, Meta(ge=256, le=16_384)] = 4_096
    residuals: Annotated[int, Meta(ge=256, le=100_000)] = 26_280
    residuals_min: Annotated[int, Meta(ge=1, le=100_000)] = 2_000
    volatility_min_e6: Annotated[int, Meta(ge=0, le=100_000_000)] = 100_000
    volatility_max_e6: Annotated[int, Meta(ge=1, le=100_000_000)] = 10_000_000
    rise_max_e6: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 1_000_000
    fall_max_e6: Annotated[int, Meta(ge=0, le=1_000_000)] = 50_000
    delay_blocks: Annotated[int, Meta(ge=1, le=100_000)] = 1
    variance: VarianceModel | UnsetType = UNSET
    """Left out: the defaults. So documents from before it keep their digests."""

    @property
    def variances(self) -> VarianceModel:
        return self.variance if isinstance(self.variance, VarianceModel) else VarianceModel()

    def __post_init__(self) -> None:
        if self.scenarios & (self.scenarios - 1):
            raise ValueError(f"scenarios: {self.scenarios} is no power of two")
        if self.volatility_min_e6 > self.volatility_max_e6:
            raise ValueError("volatility_min_e6 is above volatility_max_e6")
        if self.horizon_seconds * 1_000 > self.bar_ms and self.horizon_seconds * 1_000 % self.bar_ms:
            raise ValueError(f"horizon_seconds: {self.horizon_seconds} s are not whole bars of {self.bar_ms} ms")


class Crowding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much further crowded rows move an underlying, e.g. by recorded open interest over volume a day."""

    underlying: str
    factor_e6: Annotated[int, Meta(ge=0, le=5_000_000)]


def _refuse_rising(steps: tuple[DepegStep, ...]) -> None:
    for upper, lower in pairwise(steps):
        falls = lower.below_usd6 < upper.below_usd6 and lower.factor_share_e6 <= upper.factor_share_e6
        if not falls or lower.halted < upper.halted:
            raise ValueError("depeg: steps must fall in below_usd6 and factor_share_e6, and stay halted")


def _refuse_twice(field: str, names: list) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{field}: {next(name for name in names if names.count(name) > 1)} is named twice")


class VenueStress(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stress of the venue with every scenario set and parameter document that takes effect: confidence of the fund's
    size, and the fund that there is (0: cover 2 stands for it)."""

    confidence_e6: Annotated[int, Meta(ge=500_000, lt=1_000_000)] = 999_000
    fund_usd6: Annotated[int, Meta(ge=0, le=SIZE_MAX_USD6)] = 0


REPORTERS_MAX = 64  # a bit each in the log


class Reporter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may speak (`source` of the ticks), and how much of the whole it weighs."""

    source: Annotated[str, Meta(min_length=1, max_length=64)]
    weight: Annotated[int, Meta(ge=1, le=1_000_000)] = 1


class SpotReporters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may speak of index prices (`source` of `spot` ticks; nobody else is heard): the median by weight of those
    heard since `report_age_max_ms` is the price, if they are `quorum` with more than half of all weight.

    Without a quorum the last price stays and the underlying is degraded: its instruments add `degraded_move_e6` of
    their delta, gross.
    """

    reporters: Annotated[tuple[Reporter, ...], Meta(min_length=1, max_length=REPORTERS_MAX)]
    quorum: Annotated[int, Meta(ge=1, le=REPORTERS_MAX)] = 1
    report_age_max_ms: Annotated[int, Meta(ge=1, le=86_400_000)] = 60_000
    degraded_move_e6: RatioE6 = 50_000

    def __post_init__(self) -> None:
        _refuse_twice("spot_reporters", [reporter.source for reporter in self.reporters])
        if self.quorum > len(self.reporters):
            raise ValueError(f"spot_reporters: quorum {self.quorum} of {len(self.reporters)} reporters")


class DepegStep(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Below this price (1e-6 of its peg) this share of a pegged coin's collateral factor is left; `halted`: nothing new
    may lean on it."""

    below_usd6: Annotated[int, Meta(ge=1, le=1_000_000)]
    factor_share_e6: RatioE6
    halted: bool = False


DepegSteps = Annotated[tuple[DepegStep, ...], Meta(max_length=16)]


class PegTo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A coin whose peg is not one USD but `worth_e6` of the index of another underlying: a staked coin to its coin, a
    coin of another currency to its rate. `steps`: its own, in place of those of all."""

    underlying: str
    to: str
    worth_e6: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 1_000_000
    steps: DepegSteps | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.underlying == self.to:
            raise ValueError(f"depeg: {self.underlying} is pegged to itself")
        _refuse_rising(self.steps or ())


class Depeg(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of pegged coins as collateral when they leave their peg (stablecoins: one USD, unless `pegs` name
    another; no other coins but those that `pegs` name); no steps: nothing.

    One step down after `fall_after_ms` below its price, one step back after `recover_after_ms` above it by
    `hysteresis_usd6`; all prices in units of the peg.
    """

    steps: DepegSteps = ()
    hysteresis_usd6: Annotated[int, Meta(ge=0, le=1_000_000)] = 2_000
    fall_after_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 60_000
    recover_after_ms: Annotated[int, Meta(ge=0, le=30 * 86_400_000)] = 3_600_000
    pegs: Annotated[tuple[PegTo, ...], Meta(max_length=1_000)] | UnsetType = UNSET

    def __post_init__(self) -> None:
        _refuse_rising(self.steps)
        _refuse_twice("depeg", [peg.underlying for peg in self.pegs or ()])

    @property
    def has_steps(self) -> bool:
        """Of any coin."""
        return bool(self.steps) or any(peg.steps for peg in self.pegs or ())


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
    concentration: Annotated[tuple[Concentration, ...], Meta(max_length=1_000)] = ()
    crowding: Annotated[tuple[Crowding, ...], Meta(max_length=1_000)] = ()
    collateral_factors: Annotated[tuple[CollateralFactor, ...], Meta(max_length=1_000)] = ()
    scenario_model: ScenarioModel = ScenarioModel()
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
    surface_reporters: Annotated[tuple[Reporter, ...], Meta(max_length=REPORTERS_MAX)] = ()
    """Whose forwards, quotes and surfaces are combined, nobody else's taken; empty: the last one told, by anyone."""
    surface_quorum: Annotated[int, Meta(ge=1, le=REPORTERS_MAX)] = 1
    """Reporters needed at least, beside more than half of all weight."""
    surface_report_age_max_ms: Annotated[int, Meta(ge=1, le=86_400_000)] = 60_000
    """What a reporter said longer ago than this does not count."""
    collateral_average_window_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 0
    """Collateral counts at no more than its average price over at least this long; 0: at its price."""
    depeg: Depeg = Depeg()
    spot_reporters: SpotReporters | UnsetType = UNSET
    """Left out: the newest index price counts, told by anyone."""

    venue_stress: VenueStress | UnsetType = UNSET
    """Left out: nothing is said of the venue as a whole. So documents from before it keep their digests."""

    def __post_init__(self) -> None:
        _refuse_twice("surface_reporters", [reporter.source for reporter in self.surface_reporters])
        if self.surface_quorum > max(len(self.surface_reporters), 1):
            raise ValueError(f"surface_quorum: {self.surface_quorum} of {len(self.surface_reporters)} reporters")
        _refuse_twice("concentration", [(rule.underlying, rule.scope) for rule in self.concentration])
        _refuse_twice("crowding", [given.underlying for given in self.crowding])
        _refuse_twice("collateral_factors", [given.instrument for given in self.collateral_factors])


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
