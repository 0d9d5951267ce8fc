"""Import of small files of every kind: flaws by their names, and documented files that read back without a flaw."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from oracles.risk_model.bars import read_bars
from streams.cli.data import app
from streams.market_data.columns import MarketDataError
from streams.market_data.importing import import_source, read_source
from streams.market_data.recorded import instrument_of

QUOTES = (
    "timestamp,instrument_name,bid_price,ask_price,mark_price,futures_price,implied_volatility,open_interest,"
    "index_price\n"
)
TRADES = "ts,instrument,direction,price,iv,amount,trade_id\n"


def flaws(path: Path) -> dict[str, int]:
    return {finding.name: finding.count for series in read_source(path) for finding in series.report.findings}


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_bars_with_an_offset_are_converted(tmp_path: Path) -> None:
    rows = "".join(f"2020-10-23 {hour:02}:00:00+03:00,10.5,11,9,10.5,7\n" for hour in range(11, 14))
    path = tmp_path / "BTCUSDT_1h.csv.gz"
    path.write_bytes(gzip.compress(("open_time,open,high,low,close,volume\n" + rows).encode()))
    (report,) = import_source(path, tmp_path / "out", "BTC")
    assert (report.first, report.interval_ms, report.rows_kept) == ("2020-10-23T08:00:00Z", 3_600_000, 3)
    assert {finding.name for finding in report.findings} >= {"time with offset", "short history"}
    bars = read_bars(Path(report.output), "BTC")
    assert bars.close.tolist() == [10.5] * 3
    assert flaws(Path(report.output)) == {"short history": 1}


def test_a_documented_file_reads_back_to_itself(tmp_path: Path) -> None:
    rows = "".join(f"2020-10-23 {hour:02}:00:00,{10 + hour},{11 + hour},9,{10.1 + hour},7\n" for hour in range(11, 20))
    path = written(tmp_path, "a.csv", "time,open,high,low,close,volume\n" + rows)
    (first,) = import_source(path, tmp_path / "one")
    (second,) = import_source(Path(first.output), tmp_path / "two")
    assert Path(first.output).read_bytes() == Path(second.output).read_bytes()


def test_several_series_in_one_file(tmp_path: Path) -> None:
    text = "time,pair,open,high,low,close,volume\n"
    text += "".join(f"2024-01-0{day},{pair},1,2,1,1,1\n" for day in (1, 2, 3) for pair in ("BTC/USDT", "ETH/USDT"))
    reports = import_source(written(tmp_path, "all.csv", text), tmp_path)
    assert [(report.name, report.rows_kept) for report in reports] == [("BTCUSDT", 3), ("ETHUSDT", 3)]


def test_quotes(tmp_path: Path) -> None:
    def row(strike: int, bid: str, ask: str, mark: str, iv: str, index: str = "100", second: int = 0) -> str:
        return f"2026-01-28T04:00:{second:02}+00:00,BTC-6FEB26-{strike}-C,{bid},{ask},{mark},100,{iv},5,{index}\n"

    rows = [
        row(100, "0.01", "0.02", "0.015", "0.5"),
        row(100, "0.01", "0.02", "0.015", "0.5"),  # the same again
        row(110, "0.03", "0.02", "0.015", "0.5"),  # crossed
        row(120, "0", "0.02", "0", "0.5"),  # no mark
        row(130, "0", "0.02", "0.01", "5.0", "100.1", 2),  # boundary volatility, another index
    ]
    path = written(tmp_path, "deribit.csv", QUOTES + "".join(rows))
    (series,) = read_source(path)
    assert {finding.name: finding.count for finding in series.report.findings} == {
        "duplicate": 1, "mark not positive": 1, "crossed quote": 1, "boundary volatility": 1,
        "index varies in snapshot": 1, "too few strikes": 1,
    }  # fmt: skip
    quotes = series.columns
    assert quotes["strike"].tolist() == [100, 110, 130]
    assert quotes["bid"].tolist()[0] == 0.01
    assert [str(bid) for bid in quotes["bid"][1:]] == ["nan", "nan"]  # crossed, none
    assert str(quotes["iv"][2]) == "nan"
    assert len(set(quotes["time_ms"].tolist())) == len(set(quotes["index"].tolist())) == 1
    (report,) = import_source(path, tmp_path / "out")
    assert flaws(Path(report.output)) == {"too few strikes": 1}


def test_trades_at_boundary_volatilities_are_dropped(tmp_path: Path) -> None:
    text = TRADES + "".join(
        f"178277133270{place},SOL_USDC-25SEP26-78-C,buy,9.3,{iv},170.0,USDC-{place}\n"
        for place, iv in enumerate(("68.78", "1.0", "500.0", "499"))
    )
    (series,) = read_source(written(tmp_path, "trades.csv", text))
    assert series.columns["trade_id"].tolist() == ["USDC-0", "USDC-3"]
    assert {finding.name: finding.count for finding in series.report.findings} == {"boundary volatility": 2}


def test_funding_in_local_time_is_moved_back(tmp_path: Path) -> None:
    rows = "".join(f"BTC-USDT,2020-01-0{day} {hour:02}:00:00.000,-0.0001\n" for day in (1, 2) for hour in (3, 11, 19))
    (series,) = read_source(written(tmp_path, "f.csv", "Symbol,Date,Funding Rate\n" + rows))
    assert series.report.first == "2020-01-01T00:00:00Z"
    assert [finding.name for finding in series.report.findings] == ["local time"]


def test_positions_that_do_not_add_up(tmp_path: Path) -> None:
    def line(number: int, start: str) -> str:
        fill = {"coin": "BTC", "px": "1", "sz": "2", "side": "B", "time": 1, "startPosition": start, "fee": "0",
                "tid": number, "feeToken": "USDC"}  # fmt: skip
        block = {"block_time": f"2025-10-27T16:59:5{number}.5", "block_number": number, "events": [["0xa", fill]]}
        return json.dumps(block) + "\n"

    path = written(tmp_path, "fills.jsonl", line(1, "0") + line(2, "2") + line(3, "5"))
    assert flaws(path) == {"broken position": 1}
    (report,) = import_source(path, tmp_path / "out")
    assert flaws(Path(report.output)) == {"broken position": 1}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "x,y\n1,2\n", "no bars, quotes"),
        ("a.csv", "time,open,high,low,close\nnever,1,1,1,1\n", "'never' is no time"),
        ("a.csv", "time,open,high,low,close\n2020-01-01,0,0,0,0\n", "no bar with prices above zero"),
        ("a.txt", "hello", "is no table"),
        ("a.csv", "open,high,low,close\n1,1,1,1\n", "no column of times"),
    ],
)
def test_what_is_no_market_data_is_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(MarketDataError, match=says):
        list(read_source(written(tmp_path, name, text)))


@pytest.mark.parametrize("name", ["BTC-31FOO26-1-C", "BTC", "BTC-1JAN26-1-X"])
def test_names_that_are_no_options(name: str) -> None:
    with pytest.raises(MarketDataError, match="no option name"):
        instrument_of(name)


def test_names_of_options() -> None:
    option = instrument_of("XRP_USDC-3JUL26-2d1-P")
    assert (option.underlying, option.strike, option.kind) == ("XRP", 2.1, "put")
    assert option.expiry_ms == 1_783_065_600_000


@pytest.mark.parametrize(
    ("name", "times"),
    [("time", (86_400, 172_800)), ("time", (1_700_000_000, 1_700_086_400)), ("time_ms", (0, 86_400_000))],
)
def test_integers_are_seconds_or_what_their_name_says(tmp_path: Path, name: str, times: tuple[int, int]) -> None:
    rows = "".join(f"{time},1,2,1,1\n" for time in times)
    (series,) = read_source(written(tmp_path, "a.csv", f"{name},open,high,low,close\n{rows}"))
    assert series.report.interval_ms == 86_400_000


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    names = ("time_ms", "open", "high", "low", "close", "volume")
    pa.parquet.write_table(
        pa.table({name: [3_600_000 * k for k in (1, 2, 3)] for name in names}), tmp_path / "b.parquet"
    )
    (series,) = read_source(tmp_path / "b.parquet")
    assert series.report.rows_kept == 3


def test_the_command(tmp_path: Path) -> None:
    written(tmp_path, "readme.md", "no data")
    written(tmp_path, "BTC.csv", "time,open,high,low,close\n2020-01-01,1,1,1,1\n2020-01-02,2,2,2,2\n")
    run = CliRunner().invoke(app, ["import", str(tmp_path), "--out", str(tmp_path / "out"), "--json"])
    assert run.exit_code == 0
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["rows_kept"] == 2
    assert [entry["reason"].split(":")[0] for entry in told["skipped"]] == ["a .md file is no table"]
    checked = CliRunner().invoke(app, ["check", told["imported"][0]["output"], "--json"])
    assert json.loads(checked.stdout.splitlines()[-1])["findings"] == told["findings"]


def test_the_recorded_traps(recorded_data: Path, tmp_path: Path) -> None:
    prices, options = recorded_data / "prices", recorded_data / "options"
    assert flaws(recorded_data / "funding" / "BTC_binance_2020-01_2023-12.csv.gz") == {"local time": 4_383}
    assert flaws(prices / "SOLUSDT_1h_binance-perp_2020-10_2024-06.csv.gz") == {"time with offset": 31_973}
    assert flaws(prices / "USDCUSDT_1h_binance_2021-04_2023-12.csv.gz")["gap"] == 6
    assert flaws(options / "deribit_SOL_USDC_option_trades_2026-06-29_2026-07-31.csv.gz") == {
        "boundary volatility": 316
    }
    (fills,) = (recorded_data / "fills").iterdir()
    assert flaws(fills) == {}
