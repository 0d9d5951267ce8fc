"""Reverse stress: the least unlikely scenario in which the venue's uncovered losses exhaust its fund.

A scenario is r * u in the whitened factors of the recorded set: x = r * volatility * C^(1/2) u, |u| = 1, so r is its
Mahalanobis distance and, all factors being elliptical, the smaller r the denser. The search takes the nearest point of
every direction on a list (the set's own worst scenarios, each factor alone with what usually comes with it, all spots
together up and down, the principal axes) and then turns the best direction step by step. It is a search: what it finds
exhausts the fund (that is computed, exactly), but a nearer scenario may exist.

Source: Breuer, Jandačka, Rheinberger, Summer, "How to find plausible, severe and useful stress scenarios" (2009).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from kernels.layout import NANO, WEIGHT_TOTAL
from oracles.scenario_set import DEGREES_OF_FREEDOM, ScenarioSet, principal_directions, within_limits

RADII = np.geomspace(0.25, 64.0, 41)
RADII_BETWEEN = 16
SET_DIRECTIONS = 96
TURNS = (0.8, 0.4, 0.2, 0.1, 0.05)
TURNS_EACH = 4
_NEAREST_DIGITS = 24  # halvings of the last interval

Losses = Callable[[ScenarioSet], np.ndarray]
"""Uncovered losses of the venue in every scenario of a set, int64[S] micro-USD: exact."""
Heard = Callable[[float], None]


@dataclass(frozen=True)
class Found:
    """The nearest exhausting scenario. `distance` in standard deviations; `odds`: probability of a move at least as far
    in this direction within the horizon (Student t, the set's degrees of freedom). Factor moves as recorded, 1e-9."""

    distance: float
    odds: float
    uncovered_usd6: int
    scenario: ScenarioSet


def reverse_stress(
    recorded: ScenarioSet, losses: Losses, fund_usd6: int, heard: Heard = lambda _: None
) -> Found | None:
    """The nearest scenario with uncovered losses above `fund_usd6`; None if none is found within the factors' limits.

    Args:
        losses: of a set with the names of `recorded`; it is called with a few thousand scenarios at a time.
        heard: hears of the progress, 0 to 1.

    Raises:
        ValueError: a set of version 1, which has no recorded parameters.
    """
    if not recorded.volatility_e9.size:
        raise ValueError("the scenario set has no recorded volatilities and correlations (version 1)")
    search = _Search(recorded, losses, fund_usd6)
    best, radius = search.nearest(search.directions(), RADII)
    heard(1 / (1 + len(TURNS)))
    if best is None:
        return None
    for done, turn in enumerate(TURNS):
        for _ in range(TURNS_EACH):
            turned, nearer = search.nearest(_turned(best, turn), np.linspace(0.7, 1.0, RADII_BETWEEN) * radius)
            if turned is None or nearer >= radius * (1 - 1e-6):
                break
            best, radius = turned, nearer
        heard((2 + done) / (1 + len(TURNS)))
    return search.found(best, radius)


class _Search:
    def __init__(self, recorded: ScenarioSet, losses: Losses, fund_usd6: int) -> None:
        self.recorded, self.losses, self.fund_usd6 = recorded, losses, fund_usd6
        self.scale = recorded.volatility_e9 / float(NANO)
        self.root = principal_directions(recorded.correlation_e9 / float(NANO))

    def directions(self) -> np.ndarray:
        """Unit vectors [N,D] to look along first."""
        whole = [self._of_set(), *self._together(), self.root, -self.root]
        size = self.root.shape[1]
        whole += [np.eye(size), -np.eye(size)]
        return _unit(np.concatenate(whole))

    def _of_set(self) -> np.ndarray:
        """Those of the set's own worst scenarios, whitened."""
        worst = np.argsort(-self.losses(self.recorded), kind="stable")[:SET_DIRECTIONS]
        moves = self.recorded.factors()[:, worst] / float(NANO)
        standard = moves / np.where(self.scale > 0, self.scale, np.inf)[:, None]
        lengths = (self.root**2).sum(axis=0)
        return (self.root.T @ standard / np.where(lengths > 1e-9, lengths, np.inf)[:, None]).T

    def _together(self) -> Iterator[np.ndarray]:
        """All spots down, and up: the sum of their rows."""
        spots = len(self.recorded.underlyings)
        together = self.root[:spots].sum(axis=0, keepdims=True)
        yield from (-together, together)

    def at(self, directions: np.ndarray, radii: np.ndarray) -> ScenarioSet:
        """Scenarios [N * R] of every direction [N,D] at every radius [R], direction by direction."""
        moves = np.repeat(directions, len(radii), axis=0) * np.tile(radii, len(directions))[:, None]
        factors = within_limits(self.recorded, (self.root @ moves.T) * self.scale[:, None])
        size = factors.shape[1]
        weights = np.full(size, WEIGHT_TOTAL // size, np.int32)
        weights[: WEIGHT_TOTAL % size] += 1
        return self.recorded.filled(factors, weights)

    def nearest(self, directions: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray | None, float]:
        """(direction, radius) of the nearest exhausting scenario among all, refined by halving."""
        totals = self.losses(self.at(directions, radii)).reshape(len(directions), len(radii))
        exhausts = totals > self.fund_usd6
        first = np.where(exhausts.any(axis=1), exhausts.argmax(axis=1), len(radii))
        if first.min() == len(radii):
            return None, math.inf
        candidates = np.flatnonzero(first == first.min())
        chosen = int(candidates[np.argmax(totals[candidates, first.min()])])
        place = int(first[chosen])
        low = radii[place - 1] if place else 0.0
        return directions[chosen], self._halved(directions[chosen], float(low), float(radii[place]))

    def _halved(self, direction: np.ndarray, low: float, high: float) -> float:
        """The smallest radius in (low, high] that exhausts, to a part in two to the power of `_NEAREST_DIGITS`."""
        for _ in range(_NEAREST_DIGITS // 4):
            radii = np.linspace(low, high, 17)[1:]
            exhausts = self.losses(self.at(direction[None], radii)) > self.fund_usd6
            place = int(exhausts.argmax()) if exhausts.any() else len(radii) - 1
            low, high = (radii[place - 1] if place else low), float(radii[place])
        return high

    def found(self, direction: np.ndarray, radius: float) -> Found:
        scenario = self.at(direction[None], np.array([radius]))
        return Found(radius, tail_probability(radius), int(self.losses(scenario)[0]), scenario)


def _turned(direction: np.ndarray, turn: float) -> np.ndarray:
    """The direction turned towards and away from every axis."""
    size = len(direction)
    return _unit(np.concatenate([direction + turn * np.eye(size), direction - turn * np.eye(size)]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.sqrt((vectors**2).sum(axis=1))
    return vectors[lengths > 1e-9] / lengths[lengths > 1e-9, None]


def tail_probability(distance: float) -> float:
    """P(X >= distance) of a Student t with 5 degrees of freedom scaled to unit variance (closed form)."""
    t = distance * math.sqrt(DEGREES_OF_FREEDOM / (DEGREES_OF_FREEDOM - 2.0))
    angle = math.atan(t / math.sqrt(DEGREES_OF_FREEDOM))
    cosine = math.cos(angle)
    between = (angle + math.sin(angle) * cosine * (1.0 + 2.0 / 3.0 * cosine**2)) * 2.0 / math.pi
    return 0.5 * (1.0 - between)
