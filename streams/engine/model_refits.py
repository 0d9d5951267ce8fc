"""GARCH fits in the stream: asked for at a bar, made beside the stream, recorded as integers, in force at a block.

A fit is due by the number of returns. It is asked for (`requests`), and whoever runs the machine makes it and hands the
integers back (`listing`), from where they go to `instruments` and so into market.log. Only what is recorded there
counts (`take`); it is in force from the first block on that is `refit_delay_blocks` or more behind the one that ended
its last bar (`in_force`). So the sets do not depend on how long a fit took, and a replay never fits.

Late: recorded when that block is over; in force with the next one, which the log says. Lost (refused, or never
answered): the next one that is due takes its place, and until then the fit before stays. A worker that dies with a fit
under way finds it among the requests of its checkpoint, and makes it again to the same integers.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

from oracles.risk_model.refits import GARCH_KINDS, FitRequest, GarchParameters, has_variance
from oracles.risk_model.state import RiskModelState
from schemas.events import ModelFitListing
from schemas.risk_parameters import VarianceModel


class Asked(NamedTuple):
    """A fit to the last `fitted` of the first `seen` returns; their last bar starts at `time_ms`, `block` ended it."""

    kind: str
    time_ms: int
    block: int
    seen: int
    fitted: int


class Refits:
    """By underlying: fits asked for, fits recorded but not yet in force, returns seen when the last one was due."""

    def __init__(self) -> None:
        self.asked: dict[str, Asked] = {}
        self.recorded: dict[str, tuple[Asked, GarchParameters]] = {}
        self.due_at: dict[str, int] = {}
        self.late = self.lost = 0  # so far

    def begin(self, state: RiskModelState | None) -> None:
        """Another model: nothing is under way, nothing fitted."""
        self.asked, self.recorded, self.due_at = {}, {}, {}
        for history in state.returns if state is not None else ():
            history.forget_fit()

    def ask(self, state: RiskModelState, model: VarianceModel, block: int) -> None:
        """After a bar: ask for the fits that are due."""
        if model.kind not in GARCH_KINDS:
            return
        for name, history in zip(state.spec.underlyings, state.returns, strict=True):
            seen = int(history.seen[0])
            if seen < model.fit_bars_min or seen - self.due_at.get(name, -model.refit_bars) < model.refit_bars:
                continue
            self.due_at[name] = seen
            returns = history.last(model.fit_bars)
            self.lost += self.asked.pop(name, None) is not None
            if has_variance(returns):
                self.asked[name] = Asked(model.kind, int(state.time_ms[0]), block, seen, returns.size)

    def requests(self, state: RiskModelState | None) -> list[FitRequest]:
        """What to fit."""
        if state is None:
            return []
        histories = dict(zip(state.spec.underlyings, state.returns, strict=True))
        return [
            FitRequest(name, one.kind, one.time_ms, histories[name].last(one.fitted, one.seen))
            for name, one in self.asked.items()
        ]

    def listing(self, request: FitRequest, found: GarchParameters) -> ModelFitListing | None:
        """A fit as it is listed; None where nobody waits for it any more."""
        if not self._waits_for(request.underlying, request.kind, request.time_ms):
            return None
        place = list(self.due_at).index(request.underlying)  # a name may be as long as an id
        return ModelFitListing(
            version=1,
            id=f"model-fit-{request.time_ms}-{place}",
            underlying=request.underlying,
            kind=cast(Literal["garch-t", "gjr-skew-t"], request.kind),
            time_ms=request.time_ms,
            **found._asdict(),
        )

    def _waits_for(self, name: str, kind: str, time_ms: int) -> bool:
        one = self.asked.get(name)
        return one is not None and (one.kind, one.time_ms) == (kind, time_ms)

    def take(self, listing: dict, model: VarianceModel, block: int) -> None:
        """A fit that the log has; the first answer to what was asked counts."""
        name = listing["underlying"]
        if not self._waits_for(name, listing["kind"], listing["time_ms"]):
            return
        asked = self.asked.pop(name)
        self.late += block >= asked.block + model.refit_delay_blocks
        self.recorded[name] = asked, GarchParameters(*(listing[field] for field in GarchParameters._fields))

    def in_force(self, state: RiskModelState | None, model: VarianceModel, block: int) -> None:
        """At a block: what was recorded and is due by it filters from now on."""
        due = [n for n, (asked, _) in self.recorded.items() if asked.block + model.refit_delay_blocks <= block]
        for name in due:
            asked, parameters = self.recorded.pop(name)
            if state is not None:
                state.returns[state.spec.underlyings.index(name)].take(parameters, asked.fitted, asked.seen)

    # -- checkpoint

    def to_plain(self) -> dict:
        return dict(vars(self))

    @classmethod
    def from_plain(cls, plain: dict) -> Refits:
        refits = cls()
        vars(refits).update(plain)
        refits.asked = {name: Asked(*one) for name, one in plain["asked"].items()}
        refits.recorded = {n: (Asked(*asked), GarchParameters(*p)) for n, (asked, p) in plain["recorded"].items()}
        return refits
