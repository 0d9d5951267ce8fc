"""Which model prices the options of a world: Black-76, or Merton's with one set of jumps for all underlyings."""

from __future__ import annotations

from enum import StrEnum

from msgspec import UNSET, UnsetType

from schemas.events import Jumps


class Pricing(StrEnum):
    """The pricing models there are."""

    BLACK76 = "black76"
    MERTON = "merton"


MERTON_JUMPS = Jumps(intensity_e6=4_000_000, mean_e9=-50_000_000, stddev_e9=80_000_000)
"""Four jumps a year of -5 % +- 8 %: an example to run with, calibrated to nothing."""


def jumps_of(pricing: str) -> Jumps | UnsetType:
    """What an underlying's listing says under a model."""
    return MERTON_JUMPS if pricing == Pricing.MERTON else UNSET


def jump_terms_of(jumps: Jumps | UnsetType) -> tuple[int, int, int]:
    """The same as the catalogue and `oracles.surface_fit` have it; zeros without jumps."""
    return (0, 0, 0) if jumps is UNSET else (jumps.intensity_e6, jumps.mean_e9, jumps.stddev_e9)
