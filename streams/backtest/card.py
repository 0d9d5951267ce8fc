"""The model card of a run: assumptions, data, limits and tests, under the headings of FRTB and the PFMI.

Its figures are those of the run it is made from; nothing in it is typed in by hand but the description of the model.
"""

from __future__ import annotations

from collections.abc import Iterator

from oracles.backtest.evaluation import Summary
from streams.backtest.inputs import HOUR_MS
from streams.backtest.reference import ALTERNATIVES
from streams.backtest.run import Backtest
from streams.market_data.findings import utc

DESCRIPTIONS = {
    "historical": "Quantiles of the returns of the last year; no model of volatility.",
    "ewma": "Normal law, variance an exponentially weighted mean of squared returns (0.94 a day).",
    "garch-t": "GARCH(1,1) with t innovations, refitted every 30 days on two years.",
    "gjr-skew-t": "GJR-GARCH(1,1) with skewed t innovations, refitted every 30 days on two years.",
    "garch-fhs": "Filtered historical simulation on the variance of GARCH-t.",
    "multi-speed": "Filtered historical simulation on a variance of five exponentially weighted means of range "
    "innovations, with seasons of hour and weekend.",
    "multi-speed-stress": "multi-speed, its variance mixed with a tenth (below six hours a twentieth) of a stressed "
    "one, the 95th percentile of three years, at most four times their median, against procyclicality; residuals of "
    "three years.",
}
ASSUMPTIONS = (
    "Residuals (returns over the whole horizon over their own forecast) of the last years are the law of the next.",
    "A position can be closed at the close of the horizon's last bar; liquidity add-ons are not part of this test.",
    "Forecasts use closed bars only; a loss is that of one linear unit over exactly the horizon, over whole bars.",
    "A return over a gap counts for the variance, and is not scored.",
)
LIMITS = (
    "No model holds 1 % in a month of crash; the stress floor, the speed of enforcement and the fund exist for that.",
    "Overlapping horizons: rates use every bar, tests of independence the median of the series that do not overlap.",
    "Weights, caps and the stress share from six hours on were chosen on samples that overlap this one, the share "
    "below six hours on its first half.",
    "Options, liquidity, stablecoin depegs and funding are not in the linear books of this run.",
)


def card(backtest: Backtest) -> str:
    """Markdown."""
    return "\n".join(_lines(backtest)) + "\n"


def _lines(backtest: Backtest) -> Iterator[str]:
    evaluation, hours = backtest.evaluation, backtest.horizon_ms / HOUR_MS
    yield f"# Model card: {backtest.chosen}, {hours:g} h"
    yield ""
    yield f"Run `{backtest.run_id}`; made by `dpme backtest` from that run alone."
    yield from ("", "## Model and assumptions", "", DESCRIPTIONS[backtest.chosen], "")
    yield from (f"- {text}" for text in ASSUMPTIONS)
    yield from (
        "",
        "## Data",
        "",
        "| asset | source | bars | from | to | found and treated |",
        "|---|---|---|---|---|---|",
    )
    for history in backtest.histories:
        found = ", ".join(f"{finding.count:,} {finding.name}" for finding in history.findings) or "nothing"
        bars = history.bars
        sources, span = " + ".join(history.sources), f"{utc(bars.time_ms[0])} | {utc(bars.time_ms[-1])}"
        yield f"| {bars.asset} | {sources} | {bars.size:,} | {span} | {found} |"
    scored = ", ".join(f"{asset} {count:,}" for asset, count in evaluation.observations.items())
    yield f"\nScored forecasts, made {utc(evaluation.first_ms)} to {utc(evaluation.last_ms)}: {scored}."
    yield from _frtb(backtest)
    yield from _pfmi(backtest)
    yield from ("", "## Limits", "")
    yield from (f"- {text}" for text in LIMITS)


def _frtb(backtest: Backtest) -> Iterator[str]:
    """MAR32: backtesting and P&L attribution; MAR33: expected shortfall at 97.5 %."""
    yield from ("", "## Tests: FRTB (BCBS MAR32, MAR33)", "")
    yield "| asset | side | level | exceeded | zone | Kupiec p | Christoffersen p | Z1 | Z2 |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for score in backtest.evaluation.scores:
        if score.model == backtest.chosen:
            for tail in score.tails:
                yield (
                    f"| {score.asset} | {tail.side} | {100 * tail.level:g} % | {100 * tail.rate:.2f} % | {tail.zone} | "
                    f"{tail.kupiec_p:.3f} | {tail.conditional_p:.3f} | {tail.z1:+.3f} | {tail.z2:+.3f} |"
                )
    own = backtest.evaluation.summary(backtest.chosen)
    yield ""
    yield f"FZ0 {own.fissler_ziegel:.4f}; Kupiec passed {own.kupiec_passed} of {own.kupiec_tests}. " + _compared(own)


def perfect_text(backtest: Backtest) -> str:
    """What the worst month would be if nothing but chance were in it."""
    perfect = backtest.months.perfect
    if perfect is None:
        return "The sample has no whole month."
    return (
        f"A forecast that knows the law exactly, over as many months and assets: {100 * perfect.worst_median:.1f} % in "
        f"its worst month ({100 * perfect.worst_low:.1f} to {100 * perfect.worst_high:.1f} % in nine samples of ten), "
        f"{100 * (perfect.scale_median - 1):.0f} % more margin for 1.8 %; 10 % more is enough in "
        f"{100 * perfect.reached:.0f} of 100 samples."
    )


def _compared(own: Summary) -> str:
    others = [name for name in ALTERNATIVES if name in own.against]
    if not others:
        return "No alternative was run beside it."
    tests = (f"{name} {own.against[name].statistic:+.2f}" for name in others)
    return f"Diebold-Mariano against alternatives (negative: better): {', '.join(tests)}."


def _pfmi(backtest: Backtest) -> Iterator[str]:
    """Principle 6 (margin): coverage, procyclicality, stress; EMIR Art. 28 measures."""
    own = backtest.evaluation.summary(backtest.chosen)
    worst = own.worst_month
    yield from ("", "## Tests: PFMI Principle 6, EMIR Article 28 (margin and procyclicality)", "")
    yield f"- Single-tailed coverage at 99 %: {100 * (1 - own.rate):.2f} % of long losses were below VaR."
    yield f"- Worst month: {worst.name} with {100 * worst.rate:.2f} % exceedances, worst loss {worst.worst:.1f} x ES."
    yield f"- No month above 1.8 % would have taken {100 * (own.month_scale - 1):.0f} % more margin at all times."
    yield f"- {perfect_text(backtest)}"
    yield (
        f"- ES99: p99/p1 {own.p99_to_p1:.1f}, greatest rise {100 * own.rise_1_day:+.0f} % in a day, "
        f"{100 * own.rise_5_day:+.0f} % in five."
    )
    yield "\n| asset | side | requirement | mean | exceeded | worst loss / it | p99/p1 | 1-day rise |"
    yield "|---|---|---|---|---|---|---|---|"
    for stack in backtest.stacks:
        for term in stack.terms:
            moves = term.procyclicality
            yield (
                f"| {stack.asset} | {stack.side} | {term.name} | {100 * term.mean:.2f} % | "
                f"{100 * term.exceeded:.3f} % | {term.worst:.2f} | {moves.p99_to_p1:.1f} | "
                f"{100 * moves.rise_1_day:+.0f} % |"
            )
    yield (
        "\nMM = max(ES99, stress loss) + 5 bp, IM = 1.25 max(ES99, stress loss) + 5 bp, with default parameters; the "
        f"worst weighted stress loss of one unit is {100 * backtest.stacks[0].stress_loss:g} %."
    )
