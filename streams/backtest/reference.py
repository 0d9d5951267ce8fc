"""The recorded panel, and the figures of the model study that a backtest over it must reproduce or beat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from oracles.backtest import option_books, rules, spreads
from oracles.backtest.capital import Capital
from oracles.backtest.evaluation import Evaluation, Summary
from oracles.risk_model.forecasts import DEFAULT_MODEL
from streams.backtest.inputs import HOUR_MS, BacktestError, History, coarser, joined
from streams.backtest.run import Backtest
from streams.market_data.bar_checks import RawBars, interval_of
from streams.market_data.columns import MarketDataError
from streams.market_data.findings import Finding
from streams.market_data.importing import raw_bars, read_source

PANEL = {
    "BTC": ("BTCUSDT_1h_binance-perp_2020-10_2024-06.csv.gz", "BTCUSDT_1h_binance_2022-01_2025-12.csv.gz"),
    "ETH": ("ETHUSDT_1h_binance_2019-12_2025-11.csv.gz",),
    "SOL": ("SOLUSDT_1h_binance-perp_2020-10_2024-06.csv.gz", "SOLUSDT_30m_binance-perp_2022-10_2025-10.csv.gz"),
}
INDEX = "BTC_DVOL_1h_deribit_2021-03_2025-10.csv.gz"
ALTERNATIVES = ("historical", "ewma", "garch-t", "gjr-skew-t", "garch-fhs")


class Row(Struct, frozen=True):
    """One line of the table: what is wanted, what was found, and whether that is good enough."""

    name: str
    wanted: str
    found: str
    ok: bool


def read_panel(folder: Path) -> Iterator[History]:
    """BTC, ETH and SOL, hourly, from the recorded files below ``folder``; BacktestError where one is missing."""
    for asset, names in PANEL.items():
        parts: list[RawBars] = []
        findings: list[Finding] = []
        for name in names:
            path = folder / "prices" / name
            try:
                (series,) = read_source(path, asset)
            except MarketDataError as error:
                raise BacktestError(f"--reference {folder}: {error}") from error
            raw = raw_bars(series)
            parts.append(raw if interval_of(raw.time_ms) == HOUR_MS else coarser(raw, HOUR_MS))
            findings.extend(series.report.findings)
        yield joined(asset, parts, names, tuple(findings))


def reference_rows(backtests: Sequence[Backtest]) -> list[Row]:
    """The whole table of a run over the panel at one and 24 hours."""
    evaluations = {one.horizon_ms // HOUR_MS: one.evaluation for one in backtests}
    rows = list(spot_rows(evaluations))
    for one in backtests:
        rows.extend(month_rows(one))
        rows.extend(book_rows(one))
    return rows


def book_rows(backtest: Backtest) -> Iterator[Row]:
    """Rows about books of several assets and of options."""
    hours = backtest.horizon_ms // HOUR_MS
    if backtest.spreads is not None and hours == 24:
        own = backtest.spreads.summary(spreads.JOINT)
        good = 0.009 <= own.rate <= 0.0115 and abs(own.z2) <= 0.15
        found = f"{100 * own.rate:.2f} %, Z2 {own.z2:+.2f}"
        yield Row(f"{hours} h spread books, VaR99 exceeded", "0.9-1.15 %, |Z2| <= 0.15", found, good)
    if backtest.options is not None:
        own = backtest.options.summary(option_books.JOINT)
        good = 0.009 <= own.rate <= 0.0115 and own.z2 >= -0.1
        found = f"{100 * own.rate:.2f} % (standard error {100 * own.rate_error:.2f} %), Z2 {own.z2:+.2f}"
        yield Row(f"{hours} h option books, VaR99 exceeded", "0.9-1.15 %, Z2 >= -0.1", found, good)

        yield from capital_rows(hours, backtest.capital)


def capital_rows(hours: int, capital: Sequence[Capital]) -> Iterator[Row]:
    """Capital of other rules over the model's where they cover as much."""
    ratio = {(one.kind, one.rule): one.ratio for one in capital}
    groups = (option_books.DIRECTIONAL, option_books.VOLATILITY, option_books.SPREADS, option_books.MAKERS)
    paired = min(ratio[group, rules.ALONE] for group in (option_books.VOLATILITY, option_books.SPREADS))
    legs = ratio[option_books.MAKERS, rules.LEGS]
    grids = {name: min(ratio[group, name] for group in groups) for name in rules.GRIDS}
    least = min(grids, key=lambda name: grids[name])
    name = f"{hours} h capital at equal coverage:"
    yield Row(f"{name} isolated, spreads and straddles", ">= 5x", f"{paired:.1f}x", paired >= 5)
    yield Row(f"{name} single legs, market makers", ">= 20x", f"{legs:.1f}x", legs >= 20)
    yield Row(f"{name} grids, every kind of book", ">= 1.2x", f"{grids[least]:.2f}x ({least})", grids[least] >= 1.2)


def spot_rows(evaluations: dict[int, Evaluation]) -> Iterator[Row]:
    """Rows about single assets, by horizon in hours."""
    hour, day = evaluations[1], evaluations[24]
    yield _score_row("1 h FZ without stress", hour, "multi-speed", -3.79)
    yield _score_row("1 h FZ with stress", hour, DEFAULT_MODEL, -3.765)
    yield _score_row("24 h FZ with stress", day, DEFAULT_MODEL, -2.15)
    for hours, evaluation, limit in ((1, hour, 0.05), (24, day, 0.15)):
        default = evaluation.summary(DEFAULT_MODEL)
        yield Row(f"{hours} h |Z2|", f"<= {limit}", f"{default.z2:+.3f}", abs(default.z2) <= limit)
        passed, tests = default.kupiec_passed, default.kupiec_tests
        yield Row(f"{hours} h Kupiec", "10 of 12", f"{passed} of {tests}", 12 * passed >= 10 * tests)
    default = day.summary(DEFAULT_MODEL)
    yield _at_most("24 h ES99 p99/p1", default.p99_to_p1, 5.6)
    yield _at_most("24 h ES99 1-day rise, %", 100 * default.rise_1_day, 240)
    yield _at_most("24 h ES99 5-day rise, %", 100 * default.rise_5_day, 420)
    for hours, evaluation in evaluations.items():
        yield from ahead_rows(hours, evaluation)
    for hours, evaluation in evaluations.items():
        yield _month_row(hours, evaluation.summary(DEFAULT_MODEL))


def month_rows(backtest: Backtest) -> Iterator[Row]:
    """Is the worst month worse than that of a forecast without any error?"""
    perfect = backtest.months.perfect
    if perfect is not None:
        worst = backtest.evaluation.summary(DEFAULT_MODEL).worst_month
        wanted = f"<= {100 * perfect.worst_high:.1f} %, as of a forecast that knows the law in 95 of 100 samples"
        reached = f"1.8 % for 10 % more margin: reached by it in {100 * perfect.reached:.0f} of 100"
        found = f"{100 * worst.rate:.1f} % in {worst.name} (its median {100 * perfect.worst_median:.1f} %; {reached})"
        name = f"{backtest.horizon_ms // HOUR_MS} h VaR99 worst month against chance"
        yield Row(name, wanted, found, worst.rate <= perfect.worst_high)


def _score_row(name: str, evaluation: Evaluation, model: str, limit: float) -> Row:
    """A score depends on the dates: where they are not the study's, to be ahead of every alternative is as good."""
    own = evaluation.summary(model).fissler_ziegel
    best = min(ALTERNATIVES, key=lambda other: evaluation.summary(other).fissler_ziegel)
    lead = evaluation.summary(best).fissler_ziegel
    wanted = f"<= {limit:g}; on other dates: below every alternative"
    return Row(name, wanted, f"{own:.4f}; best alternative {best} {lead:.4f}", own <= limit or own < lead)


def _month_row(hours: int, summary: Summary) -> Row:
    worst, more = summary.worst_month, 100 * (summary.month_scale - 1)
    found = f"{more:.0f} % more (without: {100 * worst.rate:.1f} % in {worst.name})"
    wanted = "no month above 1.8 % for at most 10 % more margin"
    return Row(f"{hours} h VaR99 of {summary.model} in its worst month", wanted, found, more <= 10)


def ahead_rows(hours: int, evaluation: Evaluation) -> Iterator[Row]:
    """The better of the two multi-speed models against every alternative, on the same observations."""
    ours = min(("multi-speed", DEFAULT_MODEL), key=lambda name: evaluation.summary(name).fissler_ziegel)
    summary = evaluation.summary(ours)
    for other in ALTERNATIVES:
        if other in summary.against:
            test = summary.against[other]
            found = f"{test.mean_difference:+.4f}, DM {test.statistic:+.2f} ({p_value(test.p_value)})"
            yield Row(f"{hours} h FZ of {ours} ahead of {other}", "< 0", found, test.mean_difference < 0)


def p_value(p: float) -> str:
    """p 0.034, or p < 0.001."""
    return f"p {p:.3f}" if p >= 0.001 else "p < 0.001"


def _at_most(name: str, value: float, limit: float) -> Row:
    return Row(name, f"<= {limit:g}", f"{value:.3f}" if abs(limit) < 10 else f"{value:.0f}", value <= limit)
