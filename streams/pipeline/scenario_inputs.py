"""What a scenario set is drawn from, as people say it: names with annual volatilities, in a file or in options.

Whatever is left out has the constants of `streams.replay.volatility`: history of BTC, ETH and SOL, other coins with
beta 1 to BTC and noise of their own, stablecoins with a little noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from kernels.layout import YEAR_SECONDS
from oracles.scenario_set import (
    SURFACE_KINDS,
    FactorVolatilities,
    ScenarioSet,
    default_correlation,
    draw_scenario_set,
)  # fmt: skip
from schemas.catalogue import Catalogue
from streams.replay import volatility as defaults

Annual = Annotated[float, Meta(gt=0, le=100)]  # 0.6: 60 % a year
HOURS_A_YEAR = YEAR_SECONDS / 3600


class UnderlyingInput(Struct, frozen=True, forbid_unknown_fields=True):
    """volatility: of the spot, annual; stable: a coin that should not move; options: it has a volatility surface."""

    volatility: Annual | None = None
    stable: bool = False
    options: bool = False


class ScenarioInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The file. correlations: of spots, by "A/B". The other volatilities are of all surfaces, annual: of the log of the
    level, of the skew and the curvature per unit and squared unit of log-moneyness, of the term, of the rate."""

    underlyings: Annotated[dict[str, UnderlyingInput], Meta(min_length=1)]
    correlations: dict[str, Annotated[float, Meta(ge=-1, le=1)]] = {}
    level_volatility: Annual | None = None
    skew_volatility: Annual | None = None
    curvature_volatility: Annual | None = None
    term_volatility: Annual | None = None
    rate_volatility: Annual | None = None
    horizon_seconds: Annotated[int, Meta(ge=300, le=86_400)] = 3_600
    level_e6: Annotated[int, Meta(ge=900_000, lt=1_000_000)] = 990_000


def inputs_of_listings(listings: Iterable[dict]) -> ScenarioInputs | None:
    """Every listed underlying, those with an option listed with a surface; None where nothing is listed."""
    catalogue = Catalogue()
    for listing in listings:
        if listing["type"] in ("underlying", "instrument") and catalogue.refusal(listing) is None:
            catalogue.apply(listing)
    of_options = {i.underlying for i in catalogue.instruments if i.kind in ("call", "put")}
    found = {u.symbol: UnderlyingInput(None, u.stable, n in of_options) for n, u in enumerate(catalogue.underlyings)}
    return ScenarioInputs(found) if found else None


def read_inputs(raw: bytes) -> ScenarioInputs:
    """The JSON file. Raises ValueError naming the field."""
    return msgspec.json.decode(raw, type=ScenarioInputs)


def draw(inputs: ScenarioInputs, seed: int, scenarios: int) -> ScenarioSet:
    """The set; a function of its arguments alone. Raises ValueError for correlations of names that are not there."""
    names = list(inputs.underlyings)
    spots = [defaults.coin_volatilities([n], [n] if u.stable else []).spots[0] for n, u in inputs.underlyings.items()]
    hourly, correlation = defaults.spot_moments(spots)
    given = [inputs.underlyings[name].volatility for name in names]
    annual = np.array([v or h * math.sqrt(HOURS_A_YEAR) for v, h in zip(given, hourly, strict=True)])
    for pair, value in inputs.correlations.items():
        first, _, second = pair.partition("/")
        if first not in names or second not in names or first == second:
            raise ValueError(f'correlations: "{pair}" is no pair "A/B" of two of the underlyings')
        row, column = names.index(first), names.index(second)
        correlation[row, column] = correlation[column, row] = value
    surfaces = [name for name in names if inputs.underlyings[name].options]
    level, skew, rate, *shape = (np.full(len(surfaces), value) for value in _of_surfaces(inputs))
    volatilities = FactorVolatilities.from_annual(annual, level, skew, rate, inputs.horizon_seconds, *shape)
    joint = default_correlation(correlation, [names.index(name) for name in surfaces], kinds=SURFACE_KINDS)
    return draw_scenario_set(
        names, surfaces, volatilities, joint, seed=seed, scenarios=scenarios,
        horizon_seconds=inputs.horizon_seconds, level_e6=inputs.level_e6,
    )  # fmt: skip


def _of_surfaces(inputs: ScenarioInputs) -> tuple[float, ...]:
    """Annual volatilities of level, skew, rate, curvature and term."""
    year = math.sqrt(HOURS_A_YEAR)
    return (
        inputs.level_volatility or defaults.LEVEL_VOLATILITY * year,
        inputs.skew_volatility or defaults.SKEW_VOLATILITY * year,
        inputs.rate_volatility or defaults.RATE_VOLATILITY * year,
        inputs.curvature_volatility or defaults.CURVATURE_VOLATILITY * year,
        inputs.term_volatility or defaults.TERM_VOLATILITY * year,
    )
