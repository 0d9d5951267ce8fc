"""The risk model: GARCH fits beside the arch package, walk-forward, recalibration, epochs of scenarios."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np

from kernels.garch import KIND_NORMAL, KIND_SKEW_T, KIND_T, fit, mean_square
from kernels.layout import WEIGHT_TOTAL
from oracles.risk_model.forecasts import MODELS, WalkForward
from oracles.risk_model.refits import FitRequest, fitted
from oracles.risk_model.scenarios import (
    ResidualBank,
    all_vectors,
    draw_fhs_set,
    factor_names,
    sampling_errors,
    shortfalls,
)
from oracles.risk_model.state import ModelSpec, RiskModelState
from oracles.scenario_set import ScenarioSet
from tests.bench.rows import Row, Work, checksum, peak_memory_mb, side_by_side
from tests.bench.scenarios import FACTORS, NAMES, SURFACES, VOLATILITIES, correlation
from tests.risk_model_worlds import bar_at, closes, implied, market

DAYS_3_YEARS = 1_095
KINDS = {"GARCH normal": (KIND_NORMAL, False), "GARCH t": (KIND_T, False), "GJR skewed t": (KIND_SKEW_T, True)}


def rows(small: bool) -> Iterator[Row]:
    """Fits, then what is done once a month, once an epoch, and what selection costs in accuracy."""
    for name, (kind, asymmetric) in KINDS.items():
        yield _fit(name, kind, asymmetric, small)
    yield _refit(small)
    yield _walk_forward(small)
    yield _recalibration(small)
    bank = _bank(2_000 if small else 26_280)
    for scenarios in (256,) if small else (1024, 4096):
        yield _epoch(bank, scenarios, small)
    for scenarios in (256,) if small else (1024, 4096):
        yield _accuracy(bank, scenarios, small)


def _fit(name: str, kind: int, asymmetric: bool, small: bool) -> Row:
    """One maximum-likelihood fit, start to converged parameters, of 2,000 returns in per cent."""
    size = 500 if small else 2_000
    x = np.diff(np.log(closes(size + 1, 1, 7)[0])) * 100.0
    theta, likelihood, _ = fit(x, kind, True, asymmetric)
    works: list[Work] = [lambda: fit(x, kind, True, asymmetric)]
    peer, size_text, ratio = (
        "arch is not installed (pip install arch)",
        f"T={size}, log-likelihood {likelihood:.4f}",
        None,
    )
    if find_spec("arch"):
        works.append(lambda: _arch_fit(x, kind, asymmetric))
        size_text += f", arch {_arch_fit(x, kind, asymmetric):.4f}"
    timings = side_by_side(*works, repeats=3 if small else 31)
    if len(works) > 1:
        peer, ratio = f"arch ({timings.seconds[1] * 1e3:.1f} ms)", round(timings.ratios[1], 1)
    return Row(
        name=f"{name} fit",
        value=round(timings.seconds[0] * 1e3, 3),
        unit="ms",
        peer=peer,
        ratio=ratio,
        goal=">= 10x",
        ok=None if small or ratio is None else ratio >= 10.0,
        size=size_text,
        memory_mb=peak_memory_mb(),
        checksum=checksum(theta),
    )


def _arch_fit(x: np.ndarray, kind: int, asymmetric: bool) -> float:
    """The peer, from the same start of the variance; -> its log-likelihood."""
    from arch import arch_model

    density = {KIND_NORMAL: "normal", KIND_T: "t", KIND_SKEW_T: "skewt"}[kind]
    model = arch_model(x, mean="Constant", vol="GARCH", p=1, o=int(asymmetric), q=1, dist=density)
    return float(model.fit(disp="off", show_warning=False, backcast=mean_square(x, float(x.mean()))).loglikelihood)


def _refit(small: bool) -> Row:
    """What the model worker's thread does every 30 days for an asset: two years of hourly returns -> integers."""
    size = 1_000 if small else 17_520
    request = FitRequest("A0", "gjr-skew-t", 0, np.diff(np.log(closes(size + 1, 1, 7)[0])))
    timings = side_by_side(lambda: fitted(request), repeats=1 if small else 15)
    return Row(
        name="refit in the stream, GJR skewed t",
        value=round(timings.seconds[0] * 1e3, 1),
        unit="ms",
        goal="outside the block's path",
        size=f"{size} returns, to recorded integers",
        memory_mb=peak_memory_mb(),
        checksum=checksum(np.array(fitted(request))),
    )


def _walk_forward(small: bool) -> Row:
    bars = market(3_000 if small else 26_280, 1)[0]
    options = WalkForward(residuals_min=500)
    found = MODELS["multi-speed-stress"](bars, 24, options)
    timings = side_by_side(lambda: MODELS["multi-speed-stress"](bars, 24, options), repeats=1 if small else 5)
    return Row(
        name="walk-forward of the default model, 24 h",
        value=round(timings.seconds[0], 3),
        unit="s",
        goal="seconds for three years of hourly bars",
        ok=None if small else timings.seconds[0] < 10.0,
        size=f"{bars.size} bars, {found.time_ms.size} forecasts of two levels and sides",
        memory_mb=peak_memory_mb(),
        checksum=checksum(found.lower_es, found.upper_es),
    )


def recalibrated(bars_number: int) -> RiskModelState:
    """Everything from nothing: the state of three underlyings and one volatility, and a GARCH-t fit of each."""
    bars, volatility = market(bars_number, 3), implied(bars_number)
    state = RiskModelState(ModelSpec(("A0", "A1", "A2"), ("A0",)))
    for t in range(bars_number):
        state.update(int(bars[0].time_ms[t]), {b.asset: bar_at(b, t) for b in bars}, {"A0": float(volatility[t])})
    for b in bars:
        fit(np.diff(np.log(b.close[-17_521:])), KIND_T, False, False)
    return state


def _recalibration(small: bool) -> Row:
    number = 1_500 if small else DAYS_3_YEARS * 24
    recalibrated(200)  # compiles
    states: list[RiskModelState] = []
    timings = side_by_side(lambda: states.append(recalibrated(number)), repeats=1, warm_up=0)
    return Row(
        name="full recalibration",
        value=round(timings.seconds[0], 2),
        unit="s",
        goal="< 30 s",
        ok=None if small else timings.seconds[0] < 30.0,
        size=f"3 underlyings and a volatility, {number} hourly bars, state and GARCH-t fits",
        memory_mb=peak_memory_mb(),
        checksum=checksum(states[0].dcc.root, states[0].value),
    )


def _bank(number: int) -> ResidualBank:
    """Fat-tailed residuals of the factors of the scenario benchmark whose scale is shared within a vector."""
    rng = np.random.Generator(np.random.Philox(21))
    scale = np.sqrt(5.0 / rng.chisquare(5.0, number)) * 0.7746
    whitened = rng.standard_normal((FACTORS, number)) * scale
    return ResidualBank(factor_names(NAMES, NAMES[:SURFACES]), 3_600, np.rint(whitened * 1e6).astype(np.int32))


def _draw(bank: ResidualBank, scenarios: int) -> ScenarioSet:
    return draw_fhs_set(NAMES, NAMES[:SURFACES], VOLATILITIES, correlation(), bank, seed=1, scenarios=scenarios)


def _epoch(bank: ResidualBank, scenarios: int, small: bool) -> Row:
    """Bank to recorded set with its digest; the volatilities and correlations are the state's at any bar."""
    found = _draw(bank, scenarios)
    timings = side_by_side(lambda: _draw(bank, scenarios).digest, repeats=3 if small else 15)
    return Row(
        name=f"scenario epoch {scenarios} x {FACTORS}",
        value=round(timings.seconds[0] * 1e3, 1),
        unit="ms",
        goal="< 200 ms",
        ok=None if small else timings.seconds[0] < 0.2,
        size=f"{bank.whitened_e6.shape[1]} joint residuals -> {scenarios} weighted scenarios of {FACTORS} factors",
        memory_mb=peak_memory_mb(),
        checksum=checksum(found.factors(), found.weights),
    )


def _accuracy(bank: ResidualBank, scenarios: int, small: bool) -> Row:
    """Root mean square error of expected shortfall against all vectors, over long, short, spread and random books."""
    rng = np.random.Generator(np.random.Philox(5))
    pairs = np.eye(18, FACTORS)[:-1] - np.eye(18, FACTORS)[1:]
    scale = VOLATILITIES.stacked()
    books = np.concatenate([np.eye(FACTORS), -np.eye(FACTORS), pairs, rng.standard_normal((20, FACTORS)) / scale])
    made = _draw(bank, scenarios)
    errors = sampling_errors(made, bank, books)
    whole = all_vectors(made, bank)
    truth, plain = shortfalls(whole, books), []
    for _ in range(4):
        kept = np.sort(rng.choice(whole.size, scenarios, replace=False))
        weights = np.full(scenarios, WEIGHT_TOTAL // scenarios, np.int32)
        plain.append(shortfalls(whole.filled(whole.factors()[:, kept], weights), books) / truth - 1.0)
    ours, peer = (float(np.sqrt(np.mean(np.square(e)))) for e in (errors, plain))
    return Row(
        name=f"expected shortfall of selected vectors, S={scenarios}",
        value=round(100 * ours, 2),
        unit="% rms error against all vectors",
        peer=f"plain sample of the same size ({100 * peer:.2f} %)",
        ratio=round(peer / ours, 2),
        goal=">= 1.5x smaller",
        ok=None if small else peer >= 1.5 * ours,
        size=f"{len(books)} linear books of {FACTORS} factors, level 99 %, worst {100 * np.abs(errors).max():.1f} %",
        memory_mb=peak_memory_mb(),
        checksum=checksum(made.weights),
    )
