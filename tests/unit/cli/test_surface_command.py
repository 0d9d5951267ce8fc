"""`dpme surface`: files of each format, a run's log, pictures that parse, errors that name the file and the field."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from demo_runs import DemoRun
from typer.testing import CliRunner

from schemas.topics import MARKET_LOG
from streams.cli.errors import CommandError
from streams.cli.surface import app, show
from streams.cli.surface_plot import text_plot
from streams.cli.surface_source import Surface, _living, follow, of_file
from streams.cli.surface_svg import page_of, svg_of
from streams.replay.files import SAMPLES, ReplayError
from streams.replay.option_chains import QUOTE_COLUMNS, read_markets

NOW = 1_700_000_000_000
EXPIRY = NOW + 30 * 86_400_000
SNAPSHOT = SAMPLES / "generated_deribit_options_snapshot_20240108T111941Z.csv.gz"


@pytest.fixture(scope="module")
def shipped() -> Surface:
    return of_file(None, None)


def quotes_file(folder: Path, *rows: str, header: str = ",".join(QUOTE_COLUMNS)) -> Path:
    path = folder / "quotes.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def row(strike: float, kind: str, bid: str, ask: str, mark: str, time_ms: int = NOW, expiry_ms: int = EXPIRY) -> str:
    return f"{time_ms},X,{expiry_ms},{kind},{strike},{bid},{ask},{mark}"


def chain_rows() -> list[str]:
    """Forward 100, volatility about 60 %: straddles that parity can be read from, and wings."""
    prices = {80: (20.6, 0.6), 90: (12.5, 2.5), 95: (9.2, 4.2), 100: (6.8, 6.8), 105: (4.8, 9.8), 110: (3.3, 13.3)}
    return [
        row(strike, kind, f"{p * 0.98:.3f}", f"{p * 1.02:.3f}", str(p))
        for strike, pair in prices.items()
        for kind, p in zip(("call", "put"), pair, strict=True)
    ]


def test_shipped_chain_is_free_of_arbitrage_and_near_its_market(shipped: Surface) -> None:
    assert (shipped.underlying, len(shipped.expiries)) == ("ETH", 11)
    for expiry in shipped.expiries:
        assert expiry.verdict is not None
        assert expiry.verdict.free
        assert expiry.quality.core_points < 1.0
        assert expiry.chain.parity is None  # all rows of an expiry tell one forward: parity knows it no better


def test_pictures_are_well_formed_and_hold_every_expiry(shipped: Surface) -> None:
    root = ElementTree.fromstring(svg_of("a <title>", shipped.expiries))
    curves = list(root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(curves) == 2 * len(shipped.expiries)
    page = page_of("a <title>", shipped.expiries)
    assert "a &lt;title&gt;" in page
    assert "nan" not in page.replace("finance", "").lower().split("<svg")[1]
    for line in text_plot(shipped.expiries[5]):
        assert len(line) <= 80


def test_json_has_no_nan_and_names_what_was_found(tmp_path: Path) -> None:
    picture = tmp_path / "s.svg"
    found = CliRunner().invoke(app, ["--json", "--svg", str(picture)])
    assert found.exit_code == 0
    told = json.loads(found.stdout.splitlines()[-1])
    assert {e["method"] for e in told["expiries"]} == {"svi"}
    assert all(e["arbitrage_free"] for e in told["expiries"])
    assert told["expiries"][0]["findings"]["one side only"] > 0
    assert picture.exists()


def test_a_quotes_file_in_usd_with_its_forward_from_parity(tmp_path: Path) -> None:
    (market,) = read_markets(quotes_file(tmp_path, *chain_rows()))
    assert market.chains[0].forward_usd9 == pytest.approx(100 * 10**9, rel=1e-6)
    found = of_file(quotes_file(tmp_path, *chain_rows()), "X")
    assert found.expiries[0].verdict is not None
    assert found.expiries[0].quality.inside_share == 1.0


@pytest.mark.parametrize(
    ("told", "expected_usd"),
    [
        ([100.02] * 12, 100.02),  # parity is 100, no better known than its strikes' spreads
        ([99.9, 100.1] * 6, 100.0),  # seconds apart: pairs of one strike are not
        ([101.0] * 12, 100.0),  # what is told cannot be
    ],
)
def test_the_forward_that_agrees_better_with_itself_counts(
    tmp_path: Path, told: list[float], expected_usd: float
) -> None:
    rows = [f"{line},{usd}" for line, usd in zip(chain_rows(), told, strict=True)]
    header = ",".join((*QUOTE_COLUMNS, "forward"))
    (market,) = read_markets(quotes_file(tmp_path, *rows, header=header))
    (chain,) = market.chains
    assert chain.forward_usd9 == pytest.approx(expected_usd * 10**9, rel=1e-6)
    assert (chain.parity is None) == (expected_usd == told[0])


def test_bad_quotes_of_a_file_are_told_and_cost_nothing_else(tmp_path: Path) -> None:
    bad = (row(70, "put", "", "0.2", "0.1"), row(120, "call", "3", "2", "2"), row(130, "call", "", "", "-1"))
    rows = [*chain_rows(), *bad]
    (expiry,) = of_file(quotes_file(tmp_path, *rows), None).expiries
    names = {str(f.defect) for f in expiry.smile.findings}
    assert names == {"one side only", "bid above ask", "mark not above zero"}
    assert expiry.verdict is not None
    assert expiry.verdict.free


def test_a_deribit_snapshot() -> None:
    assert [market.underlying for market in read_markets(SNAPSHOT)] == ["ETH"]


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        ([row(100, "call", "1", "2", "x")], None, "line 2: 'x' is no number"),
        ([row(100, "future", "1", "2", "1")], None, "kind 'future' is neither call nor put"),
        ([row(100, "call", "1", "2", "1"), row(90, "put", "1", "2", "1", NOW + 1)], None, "2 values of time_ms"),
        ([row(100, "call", "1", "2", "1", expiry_ms=NOW)], None, "no option that is alive"),
        (["1,2"], "a,b", "has no column time_ms"),
        ([], None, "0 values of time_ms"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path: Path, rows: list[str], header: str | None, said: str) -> None:
    path = quotes_file(tmp_path, *rows, header=header or ",".join(QUOTE_COLUMNS))
    with pytest.raises(ReplayError, match=said) as caught:
        read_markets(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_and_an_underlying_that_is_not_in_it() -> None:
    with pytest.raises(ReplayError, match="is no file"):
        read_markets(Path("nothing.csv"))
    with pytest.raises(CommandError, match="no surface of 'BTC': there is ETH"):
        of_file(None, "BTC")


def test_recorded_surfaces_of_a_run(demo_run: DemoRun) -> None:
    log = list(enumerate(demo_run.pipeline.logs[MARKET_LOG, 0]))
    catalogue, market, last = follow(log, None)
    assert last > 0
    assert len(_living(market)) > 1
    assert follow(log, 1)[2] == 1
    assert catalogue.underlyings
    with pytest.raises(CommandError, match="has not reached block 9999"):
        follow(log, 9_999)


def test_the_terminal_view(shipped: Surface, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    show(Console(width=80, highlight=False), "title", shipped, shipped.expiries[5])
    told = capsys.readouterr().out
    assert "repaired" in told
    assert "2024-01-26" in told
    assert "…" not in told
