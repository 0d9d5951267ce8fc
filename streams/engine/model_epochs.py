"""Scenario sets that follow the market: market.log -> bars -> risk model -> a new set every epoch, named in-band.

Blocks wait until they are final, then their prices make bars of event time; every finished bar moves the risk model
(`oracles.risk_model`); a bar that ends an epoch draws a set, whose bytes go to `scenario.sets` together with the
residual bank it was drawn from, and `delay_blocks` blocks later its listing goes to `instruments`. The sequencer
records where it takes effect. All of it is a function of the log, so that a restarted worker writes the same bytes
again; listings are recognised by their id, sets by their digest.

Where a GARCH model is selected its fits are asked for here and made by whoever runs the machine
(``streams.engine.model_refits``): `requests` are the fits under way, `answer` makes a listing of one.

Standard deviations move within the governed bounds and speeds of `RiskParameters.scenario_model`; correlations are
those of the model. Until there are `residuals_min` joint residuals the set is a t copula of the same volatilities.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import numpy as np

from kernels.layout import YEAR_SECONDS
from oracles.risk_model.growth import extended
from oracles.risk_model.inputs import ScenarioInputs, scenario_inputs
from oracles.risk_model.refits import FitRequest, GarchParameters
from oracles.risk_model.scenarios import draw_fhs_set, factor_names
from oracles.risk_model.smile_shape import Shape, shape_of
from oracles.risk_model.state import SURFACE_FACTORS, Bar, ModelSpec, RiskModelState
from oracles.scenario_set import SURFACE_KINDS, FactorVolatilities, ScenarioSet, draw_scenario_set
from oracles.surface_fit import Slice
from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.codec import encode
from schemas.events import ScenarioSetListing
from schemas.quantities import ONE_E6, ONE_E9
from schemas.risk_parameters import RiskParameters, ScenarioModel, parameters_document, parse_parameters
from schemas.topics import INSTRUMENTS, MARKET_LOG
from streams.engine.decision_log import DecisionLog
from streams.engine.market import RecordedMarket
from streams.engine.model_refits import Refits
from streams.engine.output import Output, check_dump_version
from streams.engine.scenario_records import set_records

DUMP_VERSION = 3
Prices = dict[str, tuple[int, int, Shape]]
"""By underlying: spot in nano-USD, implied volatility in 1e-9 (0 for none), shape of the surface."""


class ModelEpochs:
    """State and transition; a machine of the shell."""

    def __init__(self, checkpoint_every: int = 16) -> None:
        self.checkpoint_every = checkpoint_every
        self.next_offset = 0
        self.decisions = DecisionLog()
        self.block = -1
        self.parameters = RiskParameters()
        self.catalogue = Catalogue()
        self.market = RecordedMarket()
        self.waiting: deque[tuple[int, int, Prices]] = deque()  # blocks that are not final: number, time, prices
        self.bar_ms = -1  # start of the open bar
        self.bar: dict[str, list[Any]] = {}  # underlying -> high, low, close, implied volatility, shape
        self.open_usd6: dict[str, int] = {}  # open interest of underlyings, as last stated
        self.model: RiskModelState | None = None
        self.refits = Refits()
        self.last_stddev: dict[str, float] = {}  # of each factor in the last set
        self.listings: list[tuple[int, str, str]] = []  # that wait for their block: block, id, digest
        self.marked = -1
        self._mark: int | None = None

    # -- machine

    def positions(self) -> dict[tuple[str, int], int]:
        return {(MARKET_LOG, 0): self.next_offset}

    def start(self) -> list[Output]:
        return []

    def is_long(self, topic: str, value: bytes | None) -> bool:
        return bool(value) and value[1] == records.BARRIER  # type: ignore[index]

    def checkpoint_mark(self) -> int | None:
        mark, self._mark = self._mark, None
        return mark

    def steps(
        self, topic: str, partition: int, offset: int, value: bytes | None, headers: Any = ()
    ) -> Iterator[list[Output]]:
        """Apply one record of market.log."""
        raw = value or b""
        self.next_offset = offset + 1
        header = self.decisions.take(raw, dict(headers))
        if header is None:
            return
        if header.kind == records.LISTINGS:
            self._list(records.read_listings(raw))
        elif header.kind == records.MARKET:
            self.market.record(records.read_market(raw, header), header.time_ms)
        elif header.kind == records.BARRIER:
            self.market.record(records.read_barrier(raw, header).market, header.time_ms)
            yield self._block(header)
        elif header.kind == records.ROLLBACK:
            self._go_back(header.block)

    def begin_log(self) -> None:
        """Go on in a log that continues this one's numbers (another generation: infra/docs/partitions.md)."""
        self.next_offset, self.decisions.holder = 0, b""

    def _list(self, listings: list[dict]) -> None:
        for listing in listings:
            if self.catalogue.refusal(listing) is not None:
                continue
            self.catalogue.apply(listing)
            if listing["type"] == "parameters":
                self._govern(parse_parameters(listing["document"]))
            elif listing["type"] == "model_fit":
                self.refits.take(listing, self.parameters.scenario_model.variances, self.block)
            elif listing["type"] == "open_interest":
                self.open_usd6[listing["underlying"]] = listing["open_usd6"]
        self.market.fit_to(self.catalogue)

    def _govern(self, parameters: RiskParameters) -> None:
        """A model of other bars or lengths begins anew; one of another variance goes on without a fit."""
        before, self.parameters = self.parameters.scenario_model, parameters
        after = parameters.scenario_model
        if any(getattr(before, f) != getattr(after, f) for f in ("bar_ms", "horizon_seconds", "residuals")):
            self.model, self.bar, self.bar_ms = None, {}, -1
            self.refits.begin(None)
        elif before.variances.kind != after.variances.kind:
            self.refits.begin(self.model)

    def requests(self) -> list[FitRequest]:
        """The fits under way."""
        return self.refits.requests(self.model)

    def answer(self, request: FitRequest, found: GarchParameters) -> list[Output]:
        """The listing of a fit that was made."""
        event = self.refits.listing(request, found)
        return [] if event is None else [Output(INSTRUMENTS, 0, event.id.encode(), encode(event))]

    def _block(self, header: records.Header) -> list[Output]:
        self.block = header.block
        self.waiting.append((header.block, header.time_ms, self._prices(header.time_ms)))
        self.refits.in_force(self.model, self.parameters.scenario_model.variances, self.block)
        out: list[Output] = []
        while self.waiting and self.waiting[0][0] <= self.block - self.parameters.finality_depth_blocks:
            _, time_ms, prices = self.waiting.popleft()
            out += self._take(time_ms, prices)
        due = [listing for listing in self.listings if listing[0] <= self.block]
        self.listings = [listing for listing in self.listings if listing[0] > self.block]
        out += [_listing(identity, digest) for _, identity, digest in due]
        if self.block % self.checkpoint_every == 0 and self.block > self.marked:
            self._mark = self.marked = self.block
        return out

    def _go_back(self, block: int) -> None:
        """The chain went back to `block`: what came after it was not final, so no bar has seen it."""
        while self.waiting and self.waiting[-1][0] > block:
            self.waiting.pop()
        self.block = block

    def _prices(self, time_ms: int) -> Prices:
        if not self.parameters.scenario_model.epoch_bars:
            return {}
        slices: dict[int, list[Slice]] = {}
        rows = zip(self.catalogue.expiries, self.market.expiries.tolist(), self.market.settled.tolist(), strict=False)
        for expiry, (_, _, *values), settled in rows:
            if not settled:
                slices.setdefault(expiry.underlying, []).append(Slice(expiry.expiry_ms, *values))
        market = zip(self.market.spot_usd9.tolist(), self.market.volatility_e9.tolist(), strict=True)
        return {
            listed.symbol: (spot, volatility, shape_of(slices.get(place, ()), time_ms))
            for place, (listed, (spot, volatility)) in enumerate(zip(self.catalogue.underlyings, market, strict=False))
            if spot and not listed.parts
        }

    # -- bars

    def _take(self, time_ms: int, prices: Prices) -> list[Output]:
        """A final block's prices; -> a new set, where they begin another epoch."""
        model = self.parameters.scenario_model
        if not model.epoch_bars:
            return []
        start = time_ms // model.bar_ms * model.bar_ms
        out = self._close_bar(start, model) if self.bar and start > self.bar_ms else []
        self.bar_ms = max(self.bar_ms, start)
        for name, (spot, volatility, shape) in prices.items():
            bar = self.bar.setdefault(name, [spot, spot, spot, 0, ()])
            bar[:] = max(bar[0], spot), min(bar[1], spot), spot, volatility, shape
        return out

    def _close_bar(self, next_start: int, model: ScenarioModel) -> list[Output]:
        state = self._fitting_state(model)
        bars = {name: Bar(*(price / ONE_E9 for price in bar[:3])) for name, bar in self.bar.items()}
        levels = {name: bar[3] / ONE_E9 for name, bar in self.bar.items() if bar[3]}
        shapes = {
            name: [None if value is None else value / ONE_E9 for value in bar[4]] for name, bar in self.bar.items()
        }
        open_usd = {name: value / ONE_E6 for name, value in self.open_usd6.items()}
        state.update(self.bar_ms, bars, levels, shapes, open_usd)
        self.refits.ask(state, model.variances, self.block)
        self.bar = {}
        length = model.epoch_bars * model.bar_ms
        epoch = next_start // length
        return self._epoch(state, epoch, model) if epoch > self.bar_ms // length else []

    def _fitting_state(self, model: ScenarioModel) -> RiskModelState:
        """The state with room for everything that has a price by now."""
        known = self.model.spec if self.model is not None else ModelSpec(("",), ())
        names = known.underlyings if self.model is not None else ()
        surfaces = known.option_underlyings
        spec = ModelSpec(
            (*names, *(name for name in self.bar if name not in names)),
            (*surfaces, *(name for name, bar in self.bar.items() if bar[3] and name not in surfaces)),
            model.bar_ms,
            tuple(sorted({1, max(1, model.horizon_seconds * 1_000 // model.bar_ms)})),
            model.residuals,
            model.variances.fit_bars + model.variances.refit_bars,
            model.variances.kind,
        )
        if self.model is None:
            self.model = RiskModelState(spec)
        elif spec != self.model.spec:
            self.model = extended(self.model, spec)
        return self.model

    # -- epochs

    def _epoch(self, state: RiskModelState, epoch: int, model: ScenarioModel) -> list[Output]:
        inputs = scenario_inputs(state, state.spec.option_underlyings, model.horizon_seconds)
        inputs = inputs._replace(volatilities=self._governed(inputs, model))
        drawn = self._draw(inputs, epoch, model)
        out = [] if not drawn.source else set_records(inputs.bank.to_bytes(), inputs.bank.digest)
        self.listings.append((self.block + model.delay_blocks, f"scenario-epoch-{epoch}", drawn.digest))
        return [*out, *set_records(drawn.to_bytes(), drawn.digest)]

    def _governed(self, inputs: ScenarioInputs, model: ScenarioModel) -> FactorVolatilities:
        """Spots, levels and shapes within bounds and speeds; remembered for the next epoch."""
        root_years = math.sqrt(model.horizon_seconds / YEAR_SECONDS)
        low, high = (bound / ONE_E6 * root_years for bound in (model.volatility_min_e6, model.volatility_max_e6))
        names = factor_names(inputs.underlyings, inputs.option_underlyings)
        stddev = np.array(inputs.volatilities.stacked())
        moving = len(inputs.underlyings) + SURFACE_FACTORS * len(inputs.option_underlyings)  # rates are not
        for f, name in enumerate(names[:moving]):
            last = self.last_stddev.get(name)
            if last is not None:
                slowest, fastest = 1.0 - model.fall_max_e6 / ONE_E6, 1.0 + model.rise_max_e6 / ONE_E6
                stddev[f] = min(max(stddev[f], last * slowest), last * fastest)
            stddev[f] = min(max(stddev[f], low), high)
            self.last_stddev[name] = float(stddev[f])
        return FactorVolatilities.unstacked(stddev, len(inputs.underlyings), SURFACE_KINDS)

    def _draw(self, inputs: ScenarioInputs, epoch: int, model: ScenarioModel) -> ScenarioSet:
        draw: Callable[..., ScenarioSet] = draw_scenario_set
        if inputs.bank.whitened_e6.shape[1] >= model.residuals_min:
            draw = partial(draw_fhs_set, bank=inputs.bank)
        return draw(
            inputs.underlyings,
            inputs.option_underlyings,
            inputs.volatilities,
            inputs.correlation,
            seed=epoch,
            scenarios=model.scenarios,
            horizon_seconds=model.horizon_seconds,
            level_e6=self.parameters.expected_shortfall_level_e6,
        )

    # -- checkpoint

    def dump(self) -> bytes:
        plain = {name: value for name, value in vars(self).items() if name not in ("_mark", *_SPECIAL)}
        plain |= {
            "dump_version": DUMP_VERSION,
            "parameters": parameters_document(self.parameters),
            "catalogue": self.catalogue.to_listings(),
            "market": self.market.to_plain(),
            "waiting": list(self.waiting),
            "decisions": [self.decisions.holder, self.decisions.number],
            "model": b"" if self.model is None else self.model.to_bytes(),
            "refits": self.refits.to_plain(),
        }
        return msgspec.msgpack.encode(plain)

    @classmethod
    def load(cls, raw: bytes) -> ModelEpochs:
        plain = msgspec.msgpack.decode(raw)
        check_dump_version("model", plain.pop("dump_version"), DUMP_VERSION)
        state = cls()
        state.parameters = parse_parameters(plain.pop("parameters"))
        state.catalogue = Catalogue.from_listings(plain.pop("catalogue"))
        state.market = RecordedMarket.from_plain(plain.pop("market"))
        pairs = [
            (block, time_ms, {n: tuple(p) for n, p in prices.items()})
            for block, time_ms, prices in plain.pop("waiting")
        ]
        state.waiting = deque(pairs)
        model = plain.pop("model")
        state.model = RiskModelState.from_bytes(model) if model else None
        state.refits = Refits.from_plain(plain.pop("refits"))
        state.decisions = DecisionLog(*plain.pop("decisions"))
        state.listings = [tuple(listing) for listing in plain.pop("listings")]
        for name, value in plain.items():
            setattr(state, name, value)
        return state


_SPECIAL = ("parameters", "catalogue", "market", "waiting", "model", "refits", "decisions")


def _listing(identity: str, digest: str) -> Output:
    event = ScenarioSetListing(version=1, id=identity, digest=digest)
    return Output(INSTRUMENTS, 0, identity.encode(), encode(event))
