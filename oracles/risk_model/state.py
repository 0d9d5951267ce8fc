"""State of the risk model that follows the market bar by bar: O(1) per asset, a pure function of what came in.

``update`` takes one bar of every asset; a whole history is the fold of it, so that a stream, a batch and a state
restored from its bytes agree to the bit. Joint residuals: at each bar the forecast for every horizon is kept; when the
horizon is over, the move divided by that forecast and whitened by the correlations of that time enters the ring of its
horizon, from which scenarios are drawn (``oracles.risk_model.inputs``).

Bad input never enters: each finding is returned by name, the asset simply has no bar then. Names: ``missing``,
``not_a_number``, ``non_positive``, ``range_excludes_close``, ``boundary_value`` (of a volatility), ``gap`` (the bar
itself is used).

The state never fits anything: where a GARCH model is selected it filters with the parameters it was given
(``oracles.risk_model.refits``), and with the multi-speed variance until it has some.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernels.compiling import compiled
from kernels.dcc import DccSettings, DccState, empty_dcc, whiten
from kernels.dcc import step as step_dcc
from kernels.normal import exponential, logarithm
from kernels.variance import VarianceState, garman_klass, season_of_horizon, seasonal_cell, smoothed
from kernels.variance import step as step_variance
from oracles.risk_model.refits import EWMA, GARCH_KINDS, HISTORICAL, MULTI_SPEED, VARIANCE_MODELS
from oracles.risk_model.return_history import ReturnHistory
from oracles.risk_model.variance_model import (
    EWMA_DECAY_A_DAY,
    YEAR_HOURS,
    bars_of,
    default_settings,
    mixed,
    new_state,
    with_floor,
    with_implied,
)  # fmt: skip

FloatArray = npt.NDArray[np.float64]

STATE_MAGIC = b"DPMERMS3"
DCC_NEWS, DCC_MEMORY, DCC_CLIP = 0.01, 0.988, 6.0
VOL_OF_VOL_HOURS, VOL_OF_VOL_WEIGHTS = (48.0, 720.0), (0.6, 0.4)
OPEN_INTEREST_HOURS = 720.0
IMPLIED_FROM_MS = 6 * 3_600_000
SHAPES = ("skew", "curvature", "term")
"""What a surface has beside its level, as ``oracles.risk_model.smile_shape`` measures it."""
SURFACE_FACTORS = 1 + len(SHAPES)
"""Of each surface: the logarithm of its level, then its shapes."""
SHAPE_MAX = 100.0
WARM_UP_BARS = 24
"""Bars before an asset's first residual."""


NOTHING: Mapping[str, float] = MappingProxyType({})
NO_SHAPES: Mapping[str, Sequence[float | None]] = MappingProxyType({})


class Bar(NamedTuple):
    """High, low and close of one bar of one asset."""

    high: float
    low: float
    close: float


class Finding(NamedTuple):
    """What was wrong with an input, by name."""

    name: str
    asset: str


@dataclass(frozen=True)
class ModelSpec:
    """``option_underlyings``, a subset of ``underlyings``, also bring implied volatilities and shapes; ``horizons`` in
    bars.

    ``residuals`` bounds the joint residuals kept for each horizon (three years of hourly bars), ``returns`` those of
    each asset (what a fit sees, and as many as come until the next one); ``variance`` names the model of the spots.
    """

    underlyings: tuple[str, ...]
    option_underlyings: tuple[str, ...]
    interval_ms: int = 3_600_000
    horizons: tuple[int, ...] = (1, 24)
    residuals: int = 3 * YEAR_HOURS
    returns: int = 2 * YEAR_HOURS + 720
    variance: str = MULTI_SPEED

    @property
    def factors(self) -> int:
        """Spots, volatility levels, skews, curvatures, terms."""
        return len(self.underlyings) + SURFACE_FACTORS * len(self.option_underlyings)

    def header(self) -> bytes:
        """The spec as JSON, the head of a checkpoint."""
        lengths = [self.interval_ms, self.horizons, self.residuals, self.returns]
        fields = [self.underlyings, self.option_underlyings, *lengths, self.variance]
        return json.dumps(fields, separators=(",", ":")).encode()


class HorizonState(NamedTuple):
    """Forecasts under way, rings of H: ``stddev``, ``value`` (logs) [H,D], ``root`` [H,D,D], ``made_ms`` int64[H]; and
    the whitened residuals ``ring`` [N,D], NaN where a factor had none, with their number so far ``seen`` int64[1]."""

    stddev: FloatArray
    value: FloatArray
    root: FloatArray
    made_ms: npt.NDArray[np.int64]
    ring: FloatArray
    seen: npt.NDArray[np.int64]


def default_dcc(interval_ms: int) -> DccSettings:
    """The default correlations for bars of this length; their target's half-life is a year."""
    return DccSettings(DCC_NEWS, DCC_MEMORY, DCC_CLIP, 0.5 ** (1.0 / bars_of(YEAR_HOURS, interval_ms)))


class RiskModelState:
    """Variances, seasons, vol-of-vol, correlations and joint residuals of all factors of a spec."""

    def __init__(self, spec: ModelSpec) -> None:
        """State before the first bar.

        Raises:
            ValueError: no underlying, an option underlying that is none, or a horizon below one bar.
        """
        if not spec.underlyings or not set(spec.option_underlyings) <= set(spec.underlyings):
            raise ValueError("a risk model needs underlyings, and option underlyings must be among them")
        if not spec.horizons or min(spec.horizons) < 1:
            raise ValueError(f"horizons must be bars from 1 on, not {spec.horizons}")
        if spec.variance not in VARIANCE_MODELS or spec.returns < 1:
            raise ValueError(f"variance must be one of {', '.join(VARIANCE_MODELS)}, and returns above 0")
        self.spec = spec
        surfaces, factors = SURFACE_FACTORS * len(spec.option_underlyings), spec.factors
        self._settings = default_settings(spec.interval_ms)
        bar_hours = spec.interval_ms / 3_600_000
        self._vol_decays = [0.5 ** (bar_hours / hours) for hours in VOL_OF_VOL_HOURS]
        self._open_gain = 1.0 - 0.5 ** (bar_hours / OPEN_INTEREST_HOURS)
        self._dcc_settings = default_dcc(spec.interval_ms)
        self._year_bars = bars_of(YEAR_HOURS, spec.interval_ms)
        self._ewma_decay = EWMA_DECAY_A_DAY ** (1.0 / bars_of(24, spec.interval_ms))
        self.variances: list[VarianceState] = [new_state() for _ in spec.underlyings]
        self.returns: list[ReturnHistory] = [ReturnHistory.empty(spec.returns) for _ in spec.underlyings]
        self.dcc: DccState = empty_dcc(factors)
        position = {asset: len(spec.underlyings) + o for o, asset in enumerate(spec.option_underlyings)}
        self._level_factor = [position.get(asset, -1) for asset in spec.underlyings]
        self.close = np.full(len(spec.underlyings), np.nan)
        self.value = np.full(factors, np.nan)
        """Log price of each spot, log implied volatility of each level, each shape: the last known."""
        self.value_ms = np.zeros(factors, np.int64)
        self.bar_stddev = np.full(factors, np.nan)
        """Standard deviation of each factor's move over the next bar."""
        self.vol_of_vol = np.zeros((surfaces, 2))
        """Variances of the surfaces' factors, [4 O, 2] by ``VOL_OF_VOL_HOURS``: levels, then each of ``SHAPES``."""
        self.vol_bars = np.zeros(surfaces, np.int64)
        self.unchanged = np.zeros(len(spec.underlyings), np.int64)
        """Bars in a row without any move of the price."""
        self.open_interest = np.zeros((len(spec.underlyings), 2))
        """USD [U,2]: the last known and its mean (half-life ``OPEN_INTEREST_HOURS``); zeros where nobody states any."""
        self.time_ms = np.zeros(1, np.int64)
        self.horizons: list[HorizonState] = [self._empty_horizon(bars) for bars in spec.horizons]

    def _empty_horizon(self, bars: int) -> HorizonState:
        factors = self.spec.factors
        made = (np.full((bars, factors), np.nan), np.full((bars, factors), np.nan), np.zeros((bars, factors, factors)))
        ring = np.full((self.spec.residuals, factors), np.nan)
        return HorizonState(*made, np.full(bars, -1, np.int64), ring, np.zeros(1, np.int64))

    def update(
        self,
        time_ms: int,
        bars: Mapping[str, Bar],
        implied: Mapping[str, float],
        shapes: Mapping[str, Sequence[float | None]] = NO_SHAPES,
        open_usd: Mapping[str, float] = NOTHING,
    ) -> list[Finding]:
        """Move by the bar that starts at ``time_ms``; at its close: ``implied`` volatilities (0.6 = 60 %), ``shapes``,
        those of their surfaces in the order of ``SHAPES``, ``open_usd``, what is open in each market.

        -> what was wrong, by name; what was wrong is left out. A shape that nobody states (None) is nothing wrong.

        Raises:
            ValueError: a time at or before the last bar's, or off the grid of bars.
        """
        interval = self.spec.interval_ms
        if time_ms % interval or time_ms <= self.time_ms[0]:
            raise ValueError(f"bar at {time_ms}: times ascend in steps of {interval} ms")
        findings: list[Finding] = []
        z = np.full(self.spec.factors, np.nan)
        for u, asset in enumerate(self.spec.underlyings):
            bar = bars.get(asset)
            found = bar_finding(bar)
            if found:
                findings.append(Finding(found, asset))
            elif bar is not None and self._take_bar(u, time_ms, bar, z):
                findings.append(Finding("gap", asset))
        for o, asset in enumerate(self.spec.option_underlyings):
            volatility = implied.get(asset)
            found = volatility_finding(volatility)
            if found:
                findings.append(Finding(found, f"{asset} volatility"))
            elif volatility is not None:
                self._take_surface(o, time_ms, logarithm_of(volatility), z)
            findings += self._take_shapes(o, time_ms, shapes.get(asset, ()), z)
        for u, asset in enumerate(self.spec.underlyings):
            if asset in open_usd:
                self._take_open_interest(u, open_usd[asset])
        step_dcc(self.dcc, self._dcc_settings, z)
        self.time_ms[0] = time_ms
        for horizon, state in zip(self.spec.horizons, self.horizons, strict=True):
            self._close_and_open(horizon, state)
        return findings

    def _take_bar(self, u: int, time_ms: int, bar: Bar, z: FloatArray) -> bool:
        """Step one asset's variance; -> whether bars are missing before this one."""
        before, previous, interval = float(self.close[u]), float(self.value[u]), self.spec.interval_ms
        span = (time_ms - int(self.value_ms[u])) // interval
        self.close[u], self.value[u], self.value_ms[u] = bar.close, logarithm_of(bar.close), time_ms
        if math.isnan(before):
            return False
        move, state = logarithm_of(bar.close / before), self.variances[u]
        if span == 1 and state.bars[0] >= WARM_UP_BARS and self.bar_stddev[u] > 0.0:
            z[u] = (self.value[u] - previous) / self.bar_stddev[u]
        cell = seasonal_cell(time_ms)
        self.returns[u].add(move / math.sqrt(float(state.factors[cell]) * span), self._ewma_decay)
        step_variance(state, self._settings, cell, span, move, range_variance(before, *bar))
        self.unchanged[u] = self.unchanged[u] + 1 if move == 0.0 and bar.high == bar.low else 0
        self.bar_stddev[u] = self.spot_stddev(u, time_ms, 1)
        return span > 1

    def _take_shapes(self, o: int, time_ms: int, given: Sequence[float | None], z: FloatArray) -> Iterator[Finding]:
        """Step what is stated of a surface's shape; -> what was wrong."""
        surfaces = self.spec.option_underlyings
        for kind, (name, value) in enumerate(zip(SHAPES, given, strict=False), 1):
            if value is not None and not abs(value) <= SHAPE_MAX:
                wrong = "boundary_value" if math.isfinite(value) else "not_a_number"
                yield Finding(wrong, f"{surfaces[o]} {name}")
            elif value is not None:
                self._take_surface(kind * len(surfaces) + o, time_ms, value, z)

    def _take_surface(self, f: int, time_ms: int, value: float, z: FloatArray) -> None:
        """Step the variance of one of the surfaces' factors; a move over a gap is shared out over its bars."""
        factor = len(self.spec.underlyings) + f
        before = self.value[factor]
        span = (time_ms - int(self.value_ms[factor])) // self.spec.interval_ms
        self.value[factor], self.value_ms[factor] = value, time_ms
        if math.isnan(before):
            return
        move = value - before
        if span == 1 and self.vol_bars[f] >= WARM_UP_BARS and self.bar_stddev[factor] > 0.0:
            z[factor] = move / self.bar_stddev[factor]
        self.vol_bars[f] += 1
        for k, decay in enumerate(self._vol_decays):
            self.vol_of_vol[f, k] = smoothed(self.vol_of_vol[f, k], move * move / span, decay, int(self.vol_bars[f]))
        self.bar_stddev[factor] = self.surface_stddev(f, 1)

    def _take_open_interest(self, u: int, usd: float) -> None:
        last, mean = self.open_interest[u]
        self.open_interest[u] = usd, mean + self._open_gain * (usd - mean) if last else usd

    def spot_stddev(self, u: int, time_ms: int, horizon: int) -> float:
        """Standard deviation of an asset's log return over ``horizon`` bars after the bar that starts at ``time_ms``,
        by the selected model."""
        selected = self._selected_variance(u, horizon)
        if selected > 0.0:
            return math.sqrt(selected * self._season(u, time_ms, horizon))
        return self.floored_stddev(u, time_ms, horizon)

    def floored_stddev(self, u: int, time_ms: int, horizon: int) -> float:
        """The same by the multi-speed variance: from six hours on an option market has its say, where its volatility is
        at most six bars old; and the stress floor."""
        state, interval = self.variances[u], self.spec.interval_ms
        variance = mixed(state.speeds)
        factor = self._level_factor[u]
        if factor >= 0 and horizon * interval >= IMPLIED_FROM_MS and time_ms - self.value_ms[factor] <= 6 * interval:
            variance = with_implied(variance, exponential_of(self.value[factor]), interval)
        variance = with_floor(variance, state.floor[0], horizon * interval)
        return math.sqrt(float(variance) * self._season(u, time_ms, horizon))

    def _season(self, u: int, time_ms: int, horizon: int) -> float:
        interval = self.spec.interval_ms
        return season_of_horizon(self.variances[u].factors, time_ms + interval, interval, horizon)

    def _selected_variance(self, u: int, horizon: int) -> float:
        """Mean variance per bar without season by another model than the multi-speed one; 0: it has nothing to say."""
        history = self.returns[u]
        if self.spec.variance == EWMA:
            return float(history.ewma[0])
        if self.spec.variance == HISTORICAL:
            return history.historical(self._year_bars)
        return history.garch_variance(horizon) if self.spec.variance in GARCH_KINDS else 0.0

    def surface_stddev(self, f: int, horizon: int) -> float:
        """Standard deviation of the move of a surfaces' factor (levels, then each shape) over ``horizon`` bars."""
        variance = VOL_OF_VOL_WEIGHTS[0] * self.vol_of_vol[f, 0] + VOL_OF_VOL_WEIGHTS[1] * self.vol_of_vol[f, 1]
        return math.sqrt(variance * horizon)

    def stddev(self, horizon: int) -> FloatArray:
        """Standard deviations [D] over the next ``horizon`` bars; NaN for a factor without a bar at present."""
        out, now, spots = np.full(self.spec.factors, np.nan), int(self.time_ms[0]), len(self.spec.underlyings)
        for u in range(spots):
            if self.value_ms[u] == now and self.variances[u].bars[0] >= WARM_UP_BARS:
                out[u] = self.spot_stddev(u, now, horizon)
        for f in range(len(self.vol_bars)):
            if self.value_ms[spots + f] == now and self.vol_bars[f] >= WARM_UP_BARS:
                out[spots + f] = self.surface_stddev(f, horizon)
        return out

    def _close_and_open(self, horizon: int, state: HorizonState) -> None:
        """The forecast made ``horizon`` bars ago becomes a residual; its place takes the one made now."""
        now = int(self.time_ms[0])
        slot = now // self.spec.interval_ms % horizon
        fresh = self.value_ms == now
        if state.made_ms[slot] == now - horizon * self.spec.interval_ms:
            moves = np.where(fresh, self.value - state.value[slot], np.nan)
            with np.errstate(divide="ignore", invalid="ignore"):
                z = moves / state.stddev[slot]
            known = np.isfinite(z)
            if known.any():
                row = state.ring[int(state.seen[0]) % self.spec.residuals]
                whiten(state.root[slot], np.where(known, z, 0.0), row)
                row[~known] = np.nan
                state.seen[0] += 1
        state.stddev[slot], state.root[slot], state.made_ms[slot] = self.stddev(horizon), self.dcc.root, now
        state.value[slot] = np.where(fresh, self.value, np.nan)

    def residuals(self, horizon: int) -> FloatArray:
        """Whitened joint residuals [N,D] of a horizon of the spec, oldest first; NaN where a factor had none."""
        state = self.horizons[self.spec.horizons.index(horizon)]
        seen, size = int(state.seen[0]), self.spec.residuals
        if seen <= size:
            return state.ring[:seen].copy()
        return np.roll(state.ring, -(seen % size), axis=0)

    def _arrays(self) -> list[np.ndarray]:
        """Every array of the state, in the order of a checkpoint."""
        own = [
            self.close, self.value, self.value_ms, self.bar_stddev, self.vol_of_vol, self.vol_bars, self.unchanged,
            self.open_interest, self.time_ms,
        ]  # fmt: skip
        for part in (*self.variances, *self.returns, self.dcc, *self.horizons):
            own.extend(part)
        return own

    def to_bytes(self) -> bytes:
        """Checkpoint: magic, length of the JSON header, header, all arrays; little-endian."""
        header = self.spec.header()
        body = b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in self._arrays())
        return STATE_MAGIC + len(header).to_bytes(4, "little") + header + body

    @staticmethod
    def from_bytes(data: bytes) -> RiskModelState:
        """Inverse of ``to_bytes``.

        Raises:
            ValueError: not a checkpoint, or of a length that its header does not say.
        """
        start = len(STATE_MAGIC) + 4
        end = start + int.from_bytes(data[len(STATE_MAGIC) : start], "little")
        if data[: len(STATE_MAGIC)] != STATE_MAGIC:
            raise ValueError("not a checkpoint of the risk model")
        try:
            underlyings, surfaces, interval_ms, horizons, *rest = json.loads(data[start:end])
            spec = ModelSpec(tuple(underlyings), tuple(surfaces), interval_ms, tuple(horizons), *rest)
        except (ValueError, TypeError) as error:
            raise ValueError("checkpoint of the risk model with an unreadable header") from error
        state = RiskModelState(spec)
        arrays = state._arrays()
        if len(data) != end + sum(array.nbytes for array in arrays):
            raise ValueError(f"checkpoint of {len(data)} bytes, its header says otherwise")
        for array in arrays:
            array[...] = np.frombuffer(data, array.dtype.newbyteorder("<"), array.size, end).reshape(array.shape)
            end += array.nbytes
        return state


def bar_finding(bar: Bar | None) -> str:
    """Name of what is wrong with a bar, or nothing."""
    if bar is None:
        return "missing"
    if not all(math.isfinite(price) for price in bar):
        return "not_a_number"
    if min(bar) <= 0.0:
        return "non_positive"
    return "" if bar.low <= bar.close <= bar.high else "range_excludes_close"


def volatility_finding(volatility: float | None) -> str:
    """Name of what is wrong with an implied volatility, or nothing; Deribit's boundary values are 0.01 and 5."""
    if volatility is None:
        return "missing"
    if not math.isfinite(volatility):
        return "not_a_number"
    if volatility <= 0.0:
        return "non_positive"
    return "" if 0.01 < volatility < 5.0 else "boundary_value"


@compiled
def logarithm_of(x: float) -> float:
    """The kernels' logarithm, callable from Python."""
    return logarithm(x)


@compiled
def exponential_of(x: float) -> float:
    """The kernels' exponential, callable from Python."""
    return exponential(x)


@compiled
def range_variance(previous_close: float, high: float, low: float, close: float) -> float:
    """The kernels' Garman-Klass variance, callable from Python."""
    return garman_klass(previous_close, high, low, close)
