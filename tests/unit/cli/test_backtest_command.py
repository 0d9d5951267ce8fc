"""`dpme backtest` on the sample that ships: report, card, store, JSON; and input that cannot be tested."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from streams.backtest.inputs import BacktestError, coarser, horizon_ms_of, joined, read_history, read_index
from streams.backtest.reference import read_panel
from streams.cli.backtest import app
from streams.cli.errors import CommandError
from streams.market_data.bar_checks import RawBars
from streams.sink.store import ChdbStore

FAST = "historical,multi-speed-stress"
DAY_MS = 86_400_000


def bars_file(folder: Path, days: int, price: float | None = None) -> Path:
    draw = np.random.default_rng(days)
    close = np.full(days, price) if price else 100 * np.exp(np.cumsum(draw.normal(0, 0.03, days)))
    opened = np.r_[close[0], close[:-1]]
    rows = [f"{DAY_MS * day},{o},{max(o, c)},{min(o, c)},{c},1" for day, (o, c) in enumerate(zip(opened, close))]
    path = folder / f"{days}.csv"
    path.write_text("time_ms,open,high,low,close,volume\n" + "\n".join(rows) + "\n")
    return path


def test_the_sample(tmp_path: Path) -> None:
    report, card, data = tmp_path / "r" / "report.html", tmp_path / "card.md", tmp_path / "data"
    arguments = ["--models", FAST, "--report", str(report), "--card", str(card), "--data", str(data), "--json"]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout.splitlines()[-1])
    (run,) = told["runs"]
    assert run["first"] < run["last"]
    assert {model["model"] for model in run["models"]} == set(FAST.split(","))
    assert run["observations"]["BTC"] > 2_000
    assert "NaN" not in ran.stdout

    page = report.read_text()
    checker = HTMLParser()
    checker.feed(page)
    assert page.count("<svg") == page.count("</svg>") == 3
    assert not re.search(r"<script|<link|src=|https?://", page)  # it needs nothing beside it
    assert "nan" not in page
    text = card.read_text()
    assert all(heading in text for heading in ("FRTB", "PFMI", "## Data", "## Limits", run["run_id"]))

    assert told["stored"] == [run["run_id"]]
    again = CliRunner().invoke(app, [*arguments[:2], "--data", str(data), "--json"])
    assert json.loads(again.stdout.splitlines()[-1])["stored"] == [run["run_id"]]
    store = ChdbStore(data / "store")
    try:
        rows = store.query("SELECT model, kupiec_tests FROM dpme.backtest_models ORDER BY model")
        tails = store.query("SELECT count() AS n FROM dpme.backtest_tails")
    finally:
        store.close()
    assert [row["model"] for row in rows] == sorted(FAST.split(","))
    assert int(tails[0]["n"]) == 2 * 4


def test_two_assets_have_spread_books(tmp_path: Path) -> None:
    first, second = bars_file(tmp_path, 800), bars_file(tmp_path, 801)
    arguments = ["--bars", f"A={first}", "--bars", f"B={second}", "--models", "historical", "--no-store", "--json"]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    (run,) = json.loads(ran.stdout.splitlines()[-1])["runs"]
    assert set(run["spread_books"]["observations"]) == {"all long", "A - B"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--horizon", "soon"], "--horizon 'soon'"),
        (["--horizon", "1h"], "bars of 24 h"),
        (["--models", "crystal-ball"], "crystal-ball"),
        (["--bars", "A=no-such-file.csv"], "no-such-file.csv"),
        (["--reference", "no-such-folder"], "no-such-folder"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], says: str) -> None:
    ran = CliRunner().invoke(app, [*arguments, "--no-store"])
    assert isinstance(ran.exception, CommandError)
    assert says in str(ran.exception)


def test_a_week_of_history_and_a_constant_price_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BacktestError, match=r"X: 7 days of history.*conservative floor"):
        read_history("X", bars_file(tmp_path, 7))
    with pytest.raises(BacktestError, match="X: constant price"):
        read_history("X", bars_file(tmp_path, 400, price=1.0))


def test_an_index_that_is_no_per_cent_is_refused(tmp_path: Path) -> None:
    path = bars_file(tmp_path, 402)
    head, *rows = path.read_text().splitlines()
    fractions = [
        ",".join([time_ms, *(repr(float(value) / 1_000) for value in values)])
        for time_ms, *values in (row.split(",") for row in rows)
    ]
    path.write_text("\n".join([head, *fractions]) + "\n")
    with pytest.raises(BacktestError, match="between 1 and 500"):
        read_index(path)


def test_horizons() -> None:
    assert [horizon_ms_of(text) for text in ("30m", "1h", "7d")] == [1_800_000, 3_600_000, 7 * DAY_MS]


def test_half_hours_make_hours() -> None:
    half = 1_800_000
    raw = RawBars(half * np.arange(1, 6), np.array([[k, k + 2.0, k - 1.0, k + 1.0, 1.0] for k in range(10, 15)]))
    whole = coarser(raw, 2 * half)  # 00:30 alone is no whole hour
    assert whole.time_ms.tolist() == [2 * half, 4 * half]
    assert whole.ohlcv.tolist() == [[11, 14, 10, 13, 2], [13, 16, 12, 15, 2]]


def test_joined_parts_end_where_the_next_begins() -> None:
    def part(first: int, count: int, price: float) -> RawBars:
        wave = price * (1 + 0.01 * np.sin(np.arange(count)))
        return RawBars(DAY_MS * (first + np.arange(count)), np.column_stack([wave] * 4 + [np.ones(count)]))

    history = joined("A", [part(0, 300, 100.0), part(200, 200, 150.0)], ("a", "b"), ())
    assert history.bars.size == 400
    assert "splice" in {finding.name for finding in history.findings}


def test_the_recorded_panel(recorded_data: Path) -> None:
    found = {history.bars.asset: history for history in read_panel(recorded_data)}
    assert list(found) == ["BTC", "ETH", "SOL"]
    assert all(history.bars.interval_ms == 3_600_000 for history in found.values())
    assert {"gap", "time with offset"} <= {finding.name for finding in found["BTC"].findings}
