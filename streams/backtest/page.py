"""The report of a backtest: one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

import numpy as np

from oracles.backtest.evaluation import LONG, Evaluation, side_of
from oracles.risk_model.forecasts import Forecasts
from streams.backtest.card import card, perfect_text
from streams.backtest.inputs import HOUR_MS
from streams.backtest.plots import Line, month_bars, over_time, ranked
from streams.backtest.reference import Row
from streams.backtest.run import Backtest
from streams.market_data.findings import utc

STYLE = """
:root{color-scheme:light}body{font:15px/1.5 system-ui,sans-serif;color:#0f172a;background:#f8fafc;margin:0}
main{max-width:1120px;margin:0 auto;padding:28px 20px 60px}h1{font-size:26px;margin:0 0 2px}
h2{font-size:19px;margin:38px 0 6px;padding-top:14px;border-top:1px solid #e2e8f0}h3{font-size:16px;margin:22px 0 4px}
p{margin:6px 0;max-width:78ch}.quiet{color:#475569}
table{border-collapse:collapse;margin:10px 0;background:#fff;width:100%}
.wide{overflow-x:auto}th,td{padding:5px 7px;font-size:14px;text-align:right;white-space:nowrap}
th,td{border-bottom:1px solid #e2e8f0}
th{font-weight:600;color:#334155;background:#f1f5f9;white-space:normal;vertical-align:bottom}
td:first-child,th:first-child,.text td,.text th{text-align:left}
.text td{white-space:normal}
tr.chosen td{background:#eff6ff;font-weight:600}.ok{color:#047857;font-weight:600}.no{color:#dc2626;font-weight:600}
figure{background:#fff;border:1px solid #e2e8f0;border-radius:6px;margin:14px 0;padding:12px}
figcaption{font-weight:600}.legend{font-size:13px;color:#334155;min-height:2px}.legend span{margin-right:16px}
.legend i{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:5px;vertical-align:-1px}
svg{width:100%;height:auto;display:block}svg text{font:12px system-ui,sans-serif;fill:#475569}
.grid{stroke:#e2e8f0}.expected{stroke:#0f172a;stroke-dasharray:5 4}
pre{white-space:pre-wrap;background:#fff;border:1px solid #e2e8f0;border-radius:6px;padding:14px;font-size:13px}
"""
POINTS_MAX = 1_500
TIMES_MAX = 1_000


def page(backtests: Sequence[Backtest], rows: Sequence[Row] = ()) -> str:
    """All horizons of a run, and the table of the reference where there is one."""
    body = [*_head(backtests)]
    if rows:
        body += ["<h2>Reproduce or beat</h2>", _reference(rows)]
    for backtest in backtests:
        body.extend(_horizon(backtest))
    body += ["<h2>Data</h2>", _data(backtests[0])]
    for backtest in backtests:
        body.append(f"<h2>Model card, {_hours(backtest)}</h2><pre>{escape(card(backtest))}</pre>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>DPME backtest</title><style>{STYLE}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _hours(backtest: Backtest) -> str:
    return f"{backtest.horizon_ms / HOUR_MS:g} h"


def _head(backtests: Sequence[Backtest]) -> Iterator[str]:
    first = backtests[0]
    assets = ", ".join(history.bars.asset for history in first.histories)
    span = f"{utc(first.evaluation.first_ms)[:10]} to {utc(first.evaluation.last_ms)[:10]}"
    yield f"<h1>Backtest of {escape(assets)}</h1>"
    runs = ", ".join(f"{_hours(one)} run {one.run_id}" for one in backtests)
    yield f'<p class="quiet">Forecasts made {span}, walked forward, out of sample. {runs}.</p>'


def _reference(rows: Sequence[Row]) -> str:
    cells = [
        (row.name, row.wanted, row.found, f'<span class="{"ok" if row.ok else "no"}">{"ok" if row.ok else "no"}</span>')
        for row in rows
    ]
    good = sum(row.ok for row in rows)
    told = f"<p>{good} of {len(rows)} rows are ok.</p>"
    return told + _table(("row", "wanted", "found", ""), cells, raw_last=True, text=True)


def _horizon(backtest: Backtest) -> Iterator[str]:
    evaluation = backtest.evaluation
    yield f"<h2>Horizon {_hours(backtest)}</h2>"
    yield from _verdict(backtest)
    yield ranked(
        "Fissler-Ziegel score, mean over assets, both sides, all levels (lower is better; the bar is the lead)",
        [(summary.model, summary.fissler_ziegel) for summary in evaluation.summaries],
        backtest.chosen,
    )
    yield _models(backtest)
    own = evaluation.summary(backtest.chosen)
    yield month_bars(
        f"Months: share of long losses above VaR{_level(evaluation)}, {backtest.chosen}, all assets",
        [month.name for month in own.months], [month.rate for month in own.months], 1 - max(evaluation.levels),
    )  # fmt: skip
    yield "<h3>Fewer exceedances for more margin</h3>" + _frontier(backtest)
    for group in backtest.forecasts.values():
        yield _margin_plot(backtest, group)
    yield "<h3>Coverage</h3>" + _tails(backtest)
    yield "<h3>The whole requirement: ES alone, MM and IM with the stress floor</h3>" + _stacks(backtest)
    for name, books in (("Spread books", backtest.spreads), ("Option books", backtest.options)):
        if books is not None:
            span = f"{utc(books.first_ms)[:10]} to {utc(books.last_ms)[:10]}"
            yield f"<h3>{name}, {span}</h3>" + _models_table(books, "") + _books(books)
    yield "<h3>Capital at equal coverage</h3>" + _capital(backtest)
    if backtest.attributions:
        yield "<h3>P&amp;L attribution of option books: Greeks against full revaluation</h3>" + _attributions(backtest)


def _verdict(backtest: Backtest) -> Iterator[str]:
    own = backtest.evaluation.summary(backtest.chosen)
    better = [name for name, test in own.against.items() if test.mean_difference < 0]
    worst = own.worst_month
    yield (
        f"<p><b>{escape(backtest.chosen)}</b> passes {own.kupiec_passed} of {own.kupiec_tests} Kupiec tests, Z2 "
        f"{own.z2:+.3f}, and scores better than {len(better)} of {len(own.against)} other models. Its worst month is "
        f"{worst.name} with {100 * worst.rate:.2f} % of losses above VaR; keeping every month at 1.8 % or less would "
        f"take {100 * (own.month_scale - 1):.0f} % more margin at all times.</p>"
    )


def _frontier(backtest: Backtest) -> str:
    level = _level(backtest.evaluation)
    head = (
        "margins times", f"above VaR{level}", "in its worst month", f"above ES{level}", "in its worst month",
    )  # fmt: skip
    cells = [
        (
            f"{step.multiplier_e6 / 1e6:.2f}", _percent(step.rate, 2), _percent(step.worst_month, 2),
            _percent(step.shortfall_rate, 2), _percent(step.shortfall_worst_month, 2),
        )
        for step in backtest.months.steps
    ]  # fmt: skip
    note = (
        "Share of long losses above the multiple of VaR and of ES; initial_margin_multiplier_e6 is such a multiplier."
    )
    return f'<p class="quiet">{escape(note)} {escape(perfect_text(backtest))}</p>' + _table(head, cells)


def _level(evaluation: Evaluation) -> str:
    return f"{100 * max(evaluation.levels):g}"


def _books(evaluation: Evaluation) -> str:
    """The first model on every book, long side of the highest level, and the other models' rates beside it."""
    names = [summary.model for summary in evaluation.summaries]
    by_book = {book: [one for one in evaluation.scores if one.asset == book] for book in evaluation.observations}
    level = _level(evaluation)
    head = ["book", "n", *(f"{name} exceeded {level} %" for name in names), *(f"Z2 {name}" for name in names), "ES"]
    cells = []
    for book, scores in by_book.items():
        tails = [max((t for t in one.tails if t.side == LONG), key=lambda tail: tail.level) for one in scores]
        cells.append((
            book, f"{evaluation.observations[book]:,}", *(_percent(tail.rate, 2) for tail in tails),
            *(f"{tail.z2:+.2f}" for tail in tails), _percent(tails[0].mean_expected_shortfall, 2),
        ))  # fmt: skip
    return _table(head, cells)


def _attributions(backtest: Backtest) -> str:
    cells = [
        (name, f"{found.spearman:.3f}", f"{found.kolmogorov_smirnov:.3f}", found.zone)
        for name, found in backtest.attributions.items()
    ]
    return _table(("book", "Spearman", "Kolmogorov-Smirnov", "zone (MAR32)"), cells)


def _models(backtest: Backtest) -> str:
    return _models_table(backtest.evaluation, backtest.chosen)


def _models_table(evaluation: Evaluation, chosen: str) -> str:
    level, first = _level(evaluation), chosen or evaluation.summaries[0].model
    head = (
        "model", "FZ0", f"exceeded {level} %", "Z2", "Kupiec", "mean ES", "p99/p1", "1-day rise", "5-day rise",
        "worst month", f"DM of {first}",
    )  # fmt: skip
    own = evaluation.summary(first)
    cells = []
    for one in evaluation.summaries:
        against = own.against.get(one.model)
        cells.append((
            one.model, f"{one.fissler_ziegel:.4f}", _percent(one.rate, 2), f"{one.z2:+.3f}",
            f"{one.kupiec_passed}/{one.kupiec_tests}", _percent(one.mean_margin, 2), f"{one.p99_to_p1:.1f}",
            f"{100 * one.rise_1_day:+.0f} %", f"{100 * one.rise_5_day:+.0f} %",
            f"{one.worst_month.name} {_percent(one.worst_month.rate, 1)}",
            "" if against is None else f"{against.statistic:+.2f}",
        ))  # fmt: skip
    return _table(head, cells, chosen=chosen)


def _margin_plot(backtest: Backtest, group: list[Forecasts]) -> str:
    own = group[backtest.models.index(backtest.chosen)]
    place = int(np.argmax(own.levels))
    loss, var, es = side_of(own, LONG, place)
    beside = next((one for one in group if one.model in ("garch-t", "historical")), None)
    lines = [Line(f"ES, {own.model}", own.time_ms, es)]
    if beside is not None:
        lines.append(Line(f"ES, {beside.model}", beside.time_ms, side_of(beside, LONG, place)[2]))
    over = np.flatnonzero(loss > var)
    over = over[np.linspace(0, len(over) - 1, min(len(over), POINTS_MAX)).astype(np.int64)] if len(over) else over
    points = Line("losses above VaR", own.time_ms[over], loss[over])
    return over_time(f"{own.asset}: margin of one long unit at {_level(backtest.evaluation)} %", lines, points)


def _tails(backtest: Backtest) -> str:
    head = (
        "asset", "side", "level", "n", "exceeded", "zone", "Kupiec p", "independence p", "both p", "Z1", "Z2", "FZ0",
    )  # fmt: skip
    cells = [
        (
            score.asset, tail.side, f"{100 * tail.level:g} %", f"{tail.observations:,}", _percent(tail.rate, 2),
            tail.zone, f"{tail.kupiec_p:.3f}", f"{tail.independence_p:.3f}", f"{tail.conditional_p:.3f}",
            f"{tail.z1:+.3f}", f"{tail.z2:+.3f}", f"{tail.fissler_ziegel:.4f}",
        )
        for score in backtest.evaluation.scores
        if score.model == backtest.chosen
        for tail in score.tails
    ]  # fmt: skip
    return _table(head, cells)


def _stacks(backtest: Backtest) -> str:
    head = ("asset", "side", "requirement", "mean", "exceeded", "worst / it", "p99/p1", "1-day rise", "worst month")
    cells = [
        (
            stack.asset, stack.side, term.name, _percent(term.mean, 2), _percent(term.exceeded, 3), f"{term.worst:.2f}",
            f"{term.procyclicality.p99_to_p1:.1f}", f"{100 * term.procyclicality.rise_1_day:+.0f} %",
            f"{term.worst_month.name} {_percent(term.worst_month.rate, 2)}",
        )
        for stack in backtest.stacks
        for term in stack.terms
    ]  # fmt: skip
    return _table(head, cells)


def _capital(backtest: Backtest) -> str:
    """What each rule ties up once losses exceed it no more often than they exceed the model's margin."""
    head = (
        "books", "rule", "number", "n", "model exceeded", "rule exceeded as asked", "factor", "capital over model's",
        "with a factor of its own",
    )  # fmt: skip
    cells = [
        (
            one.kind, one.rule, str(one.books), f"{one.observations:,}", _percent(one.exceeded, 2),
            _percent(one.as_asked, 2), f"{one.factor:.3g}", _times(one.ratio), _times(one.tuned_ratio),
        )
        for one in backtest.capital
    ]  # fmt: skip
    note = (
        f"Against ES of {backtest.chosen}: each rule is multiplied by the least factor with which it covers as much "
        "over all books, found after the fact; the last column gives each kind of books its own. Above 1x the rule "
        "ties up more. Of a preset the rows count, without contingencies."
    )
    return f'<p class="quiet">{escape(note)}</p>' + _table(head, cells)


def _data(backtest: Backtest) -> str:
    head = ("asset", "bars", "from", "to", "found and treated", "sources")
    cells = [
        (
            history.bars.asset, f"{history.bars.size:,}", utc(history.bars.time_ms[0]), utc(history.bars.time_ms[-1]),
            ", ".join(f"{finding.count:,} {finding.name}" for finding in history.findings) or "nothing",
            " + ".join(history.sources),
        )
        for history in backtest.histories
    ]  # fmt: skip
    return _table(head, cells, text=True)


def _times(ratio: float) -> str:
    """A rule that at times asks nothing of a book that loses would need any factor."""
    return f"{ratio:.2f}x" if ratio < TIMES_MAX else f"above {TIMES_MAX:,}x"


def _percent(value: float, digits: int) -> str:
    return f"{100 * value:.{digits}f} %"


def _table(
    head: Iterable[str], rows: Iterable[Sequence[str]], chosen: str = "", raw_last: bool = False, text: bool = False
) -> str:
    """Cells are escaped, but for the last of each row where that is markup of our own; ``text`` is set to the left."""
    out = [
        f"<div class='wide'><table{' class=text' if text else ''}><tr>",
        *(f"<th>{escape(name)}</th>" for name in head),
        "</tr>",
    ]
    for row in rows:
        cells = [escape(cell) for cell in row]
        if raw_last:
            cells[-1] = row[-1]
        out.append(f"<tr{' class=chosen' if row[0] == chosen else ''}>")
        out.extend(f"<td>{cell}</td>" for cell in cells)
        out.append("</tr>")
    return "".join([*out, "</table></div>"])
