"""Capital at equal coverage: what other rules tie up once each covers as much as the model does.

A rule's margins are multiplied by the least factor with which losses exceed them no more often than they exceed the
model's, counted over all books and times, after the fact: the rule has the best multiplier it could have had. A venue
has one rule for all books, so the factor is one for all; ``tuned`` figures are those of a factor that each kind of
books has to itself. The ratio of capital is the factor times the rule's mean margin over the model's, the mean over the
books of a kind.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from oracles.backtest.evaluation import LONG, SHORT, side_of
from oracles.risk_model.forecasts import Forecasts

FloatArray = npt.NDArray[np.float64]
LEAST = 1e-9
FIXED_RATIO, UNITS = "fixed ratio", "units long and short"


class Capital(Struct, frozen=True):
    """One rule on books of one kind. ``exceeded``: share of losses above the model's margin; ``as_asked``: above the
    rule's own before any factor; ``ratio`` of capital at equal coverage, above 1: the model ties up less.
    """

    kind: str
    rule: str
    books: int
    observations: int
    exceeded: float
    as_asked: float
    factor: float
    ratio: float
    tuned_factor: float
    tuned_ratio: float


def at_equal_coverage(
    rule: str, kinds: Sequence[str], losses: Sequence[FloatArray], model: Sequence[FloatArray],
    other: Sequence[FloatArray],
) -> list[Capital]:  # fmt: skip
    """By kind, of books with ``losses`` under the margins of the ``model`` and of an ``other`` rule, f64[n] a book."""
    asked = [np.maximum(margin, LEAST) for margin in other]
    factor = least_factor(losses, model, asked)
    found = []
    for kind in dict.fromkeys(kinds):
        places = [place for place, one in enumerate(kinds) if one == kind]
        own, theirs, lost = ([series[place] for place in places] for series in (model, asked, losses))
        tuned = least_factor(lost, own, theirs)
        ratio = float(np.mean([a.mean() / b.mean() for a, b in zip(theirs, own, strict=True)]))
        loss = np.concatenate(lost)
        found.append(
            Capital(
                kind=kind,
                rule=rule,
                books=len(places),
                observations=len(loss),
                exceeded=float((loss > np.concatenate(own)).mean()),
                as_asked=float((loss > np.concatenate(theirs)).mean()),
                factor=factor,
                ratio=factor * ratio,
                tuned_factor=tuned,
                tuned_ratio=tuned * ratio,
            )
        )
    return found


def least_factor(losses: Sequence[FloatArray], model: Sequence[FloatArray], other: Sequence[FloatArray]) -> float:
    """On the ``other`` margins, with which no more losses exceed them than exceed the ``model``'s."""
    loss, own, asked = (np.concatenate(parts) for parts in (losses, model, other))
    return float(np.sort(loss / asked)[-1 - int((loss > own).sum())])


def of_units(by_asset: dict[str, list[Forecasts]], chosen: str) -> list[Capital]:
    """Every other model, and a fixed share of the price, against the chosen one: units long and short of all assets."""
    first = next(iter(by_asset.values()))
    own = _sides(by_asset, chosen)
    losses, margins, kinds = [loss for loss, _ in own], [es for _, es in own], [UNITS] * len(own)
    rules = {one.model: [es for _, es in _sides(by_asset, one.model)] for one in first if one.model != chosen}
    rules[FIXED_RATIO] = [np.ones(len(loss)) for loss in losses]
    return [one for rule, asked in rules.items() for one in at_equal_coverage(rule, kinds, losses, margins, asked)]


def _sides(by_asset: dict[str, list[Forecasts]], model: str) -> list[tuple[FloatArray, FloatArray]]:
    """(loss, ES at the highest level) of each asset and side."""
    found = []
    for group in by_asset.values():
        one = next(forecasts for forecasts in group if forecasts.model == model)
        for side in (LONG, SHORT):
            loss, _, es = side_of(one, side, int(np.argmax(one.levels)))
            found.append((loss, es))
    return found
