"""`dpme margin`: the machine as of a block says what the run said; input is exact or refused by field; output fits."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from demo_runs import PARTITIONS, DemoRun, small_demo_run
from rich.console import Console

from schemas import log_records as records
from schemas.decisions import BINDING_TERMS
from schemas.margin_batch import decode_batch
from schemas.topics import ACCOUNT_LOG, MARGIN_BATCHES
from streams.cli.as_of import AsOf, machine_as_of
from streams.cli.errors import CommandError
from streams.cli.margin import plain
from streams.cli.margin_input import check_listed, parse_trade, portfolio_of, read_portfolio, scaled
from streams.cli.margin_tables import show_explanation, show_margin, show_what_if
from streams.cli.margin_views import account_alone, explanation_view, margin_view, what_if_view
from streams.cli.recorded_run import Record
from streams.engine.risk import Risk
from streams.engine.sequence import partition_of
from streams.engine.tables import TableCache
from streams.engine.what_if import Trade

FIELDS = ("nlv_usd6", "equity_usd6", "initial_margin_usd6", "maintenance_margin_usd6", "expected_shortfall_usd6",
          "stress_loss_usd6", "short_option_minimum_usd6", "add_ons_usd6")  # fmt: skip
LAST = 44


def log_of(partition: int) -> list[Record]:
    return list(enumerate(small_demo_run().pipeline.logs[ACCOUNT_LOG, partition]))


def sets_of(run: DemoRun) -> dict[str, Any]:
    return {run.world.scenario_set.digest: run.world.scenario_set}


@lru_cache(maxsize=8)
def as_of(partition: int, block: int | None = None) -> AsOf:
    return machine_as_of(log_of(partition), partition, sets_of(small_demo_run()), block)


def batch_rows(partition: int, block: int) -> dict[str, dict[str, Any]]:
    """The margins that the run told of a block."""
    for raw in small_demo_run().pipeline.logs[MARGIN_BATCHES, partition]:
        head, table = decode_batch(raw)
        if head.block == block:
            return {row["account"]: row for row in table.to_pylist()}
    raise AssertionError(f"no batch of block {block}")


# -- as of a block


@pytest.mark.parametrize(("block", "named"), [(LAST, None), (20, 20), (0, 0)])
def test_margins_are_those_the_run_told_of_that_block(block: int, named: int | None) -> None:
    for partition in range(PARTITIONS):
        found = as_of(partition, named)
        assert (found.risk.block, found.risk.partition) == (block, partition)
        rows = batch_rows(partition, block)
        assert rows
        for account, row in rows.items():
            view = margin_view(found, account)
            assert {name: view["margin"][name] for name in FIELDS} == {name: row[name] for name in FIELDS}
            assert view["block"] == block


def test_explanations_sum_to_what_the_run_told() -> None:
    found = as_of(0)
    for account, row in batch_rows(0, LAST).items():
        told = explanation_view(found, account, [])
        rows = told["contributions"]
        assert sum(r["maintenance_usd6"] for r in rows) == row["maintenance_margin_usd6"]
        assert sum(r["initial_usd6"] for r in rows) == row["initial_margin_usd6"]


@pytest.mark.parametrize("mark", [0, 19, 20])
def test_from_a_checkpoint_it_is_the_same(mark: int) -> None:
    sets = sets_of(small_demo_run())
    machine = Risk(0, TableCache(sets.__getitem__))
    for offset, raw in log_of(0):
        for _ in machine.steps(ACCOUNT_LOG, 0, offset, raw):
            pass
        if machine.block == mark:
            break
    rest = [record for record in log_of(0) if record[0] >= machine.next_offset]
    found = machine_as_of(rest, 0, sets, 20, machine.dump())
    assert found.risk.dump() == as_of(0, 20).risk.dump()


def test_blocks_that_are_not_there_are_named() -> None:
    sets, log = sets_of(small_demo_run()), log_of(0)
    with pytest.raises(CommandError, match="--block 45: the newest block of the run is 44"):
        machine_as_of(log, 0, sets, 45)
    with pytest.raises(CommandError, match="no block yet"):
        machine_as_of([], 0, sets)
    from_one = [r for r in log if records.read_header(r[1]).block >= 1]
    with pytest.raises(CommandError, match="--block 0: the run begins with block 1"):
        machine_as_of(from_one, 0, sets, 0)
    with pytest.raises(CommandError, match="partition 0 stands still since block 0: offset"):
        machine_as_of(from_one[1:], 0, sets, 44)


# -- what people write


@pytest.mark.parametrize(
    ("text", "trade"),
    [
        ("BTC-PERP:-3", Trade("BTC-PERP", -3)),
        ("BTC-PERP:+1_000@43000.5", Trade("BTC-PERP", 1000, 43_000_500_000_000)),
        ("a:b:2@0.000000001", Trade("a:b", 2, 1)),
    ],
)
def test_trades_are_read_exactly(text: str, trade: Trade) -> None:
    assert parse_trade(text) == trade


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("BTC-PERP", "instrument or lots are missing"),
        (":3", "instrument or lots are missing"),
        ("BTC-PERP:", "lots must be a whole number"),
        ("BTC-PERP:1.5", "lots must be a whole number other than 0, not '1.5'"),
        ("BTC-PERP:0", "lots must be a whole number other than 0"),
        ("BTC-PERP:1@", "price must be USD"),
        ("BTC-PERP:1@nan", "price nan is out of range"),
        ("BTC-PERP:1@0.0000000001", "more than 9 decimals"),
    ],
)
def test_bad_trades_are_refused_by_part(text: str, said: str) -> None:
    with pytest.raises(CommandError, match=f"--trade '.*{said}"):
        parse_trade(text)


def test_money_is_exact_or_refused() -> None:
    assert scaled("-12.345678", 6, "--deposit") == -12_345_678
    for text, said in (("1e20", "out of range"), ("0.0000001", "more than 6 decimals"), ("ten", "must be USD")):
        with pytest.raises(CommandError, match=f"--deposit .*{said}"):
            scaled(text, 6, "--deposit")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ('{"cash": 1}', "unknown field `cash`"),
        ('{"positions": [{"instrument": "BTC-PERP", "lots": 1.5}]}', r"\$.positions\[0\].lots"),
        (
            '{"positions": [{"instrument": "BTC-PREP", "lots": 1}]}',
            "'BTC-PREP' is not listed at this block; near: BTC-",
        ),
        ('{"positions": [{"instrument": "BTC", "lots": 1}]}', r"positions\[0\].instrument: BTC is a coin"),
        ('{"collateral": [{"instrument": "BTC-PERP", "lots": 1}]}', r"collateral\[0\].instrument: BTC-PERP is no coin"),
        ('{"cash_usd": "0.0000001"}', "cash_usd 1E-7 has more than 6 decimals"),
        ('{"positions": [{"instrument": "BTC-PERP", "lots": 0}]}', "lots: BTC-PERP needs a number other than 0"),
        ("[", "--portfolio"),
    ],
)
def test_bad_portfolios_are_refused_by_field(tmp_path: Path, document: str, said: str) -> None:
    path = tmp_path / "portfolio.json"
    path.write_text(document)
    found = as_of(0)
    with pytest.raises(CommandError, match=said):
        portfolio_of(read_portfolio(path), found.catalogue, found.tables)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(CommandError, match=r"--portfolio nowhere.json: No such file"):
        read_portfolio(Path("nowhere.json"))


def test_unknown_instruments_have_near_matches() -> None:
    with pytest.raises(CommandError, match="instrument 'ETH-PREP' is not listed at this block; near: ETH-PERP"):
        check_listed(["BTC-PERP", "ETH-PREP"], as_of(0).catalogue)


def test_an_instrument_without_a_price_is_refused() -> None:
    """As of a machine in which the underlying has no price: one more lot would look free."""
    found = as_of(0)
    alive = found.tables.instruments.alive.copy()
    alive[found.catalogue.instrument_index["BTC-PERP"]] = False
    settled = replace(found.tables, instruments=found.tables.instruments._replace(alive=alive))
    with pytest.raises(CommandError, match="--instrument: BTC-PERP has no price at this block"):
        explanation_view(found._replace(tables=settled), any_account(), ["BTC-PERP"])


# -- what people see


def any_account(wanted: Callable[[dict[str, Any]], bool] = lambda row: True) -> str:
    rows = [row for row in batch_rows(0, LAST).values() if wanted(row)]
    return max(rows, key=lambda row: row["initial_margin_usd6"])["account"]


def printed(show: Callable[[Console], None], width: int) -> str:
    file = io.StringIO()
    show(Console(file=file, width=width, highlight=False))
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    return text


@pytest.mark.parametrize("width", [80, 100, 140])
def test_an_explanation_is_printed_whole(width: int) -> None:
    found = as_of(0)
    assert partition_of(any_account(), PARTITIONS) == 0
    view = explanation_view(found, any_account(), ["BTC-PERP"])
    text = printed(lambda console: show_explanation(console, view, 5), width)
    for word in ("headroom over IM", "← binds", "What the margin is made of", "charge on gross notional", "rounding",
                 "What equity and NLV are made of", "that weigh most", "One more lot", "BTC-PERP"):  # fmt: skip
        assert word in text
    assert "…" not in text
    margin = view["assessment"]["margin"]["maintenance_margin_usd6"]
    assert f"{margin // 10**6:,}.{margin % 10**6:06d}" in text


@pytest.mark.parametrize(
    ("binding", "title"),
    [("expected_shortfall", "expected shortfall"), ("stress", "worst stress row"),
     ("short_option_minimum", "short-option minimum")],
)  # fmt: skip
def test_every_binding_term_can_be_printed(binding: str, title: str) -> None:
    """Somebody has it in each: as of blocks at the beginning, in the middle and at the end of the run."""
    code = BINDING_TERMS.index(binding)
    partition, block, account = next(
        (partition, block, account)
        for block in (LAST, 20, 0)
        for partition in range(PARTITIONS)
        for account, row in batch_rows(partition, block).items()
        if row["binding"] == code and row["maintenance_margin_usd6"] > row["add_ons_usd6"]
    )
    view = explanation_view(as_of(partition, block), account, [])
    assert f"made of: {title} and add-ons" in printed(lambda console: show_explanation(console, view, 3), 100)


def test_margins_and_what_ifs_are_printed() -> None:
    found, account = as_of(0), any_account()
    text = printed(lambda console: show_margin(console, margin_view(found, account)), 80)
    assert account in text
    assert ": delta" in text
    start = account_alone(found, account)
    view = what_if_view(found, start, [Trade("BTC-PERP", -3), Trade("ETH-PERP", 10, 2_000 * 10**9)], 500 * 10**6)
    text = printed(lambda console: show_what_if(console, view), 100)
    for word in ("sells 0.003 BTC-PERP (3 lots) at", "buys 0.1 ETH-PERP (10 lots) at 2,000.00", "deposit 500",
                 "Headroom over IM", "pre-trade bound, without any scenario: IM at most"):  # fmt: skip
        assert word in " ".join(text.split())
    unchanged = what_if_view(found, start, [], 0)
    assert "headroom over IM" in printed(lambda console: show_what_if(console, unchanged), 80)


def test_views_are_json() -> None:
    found, account = as_of(0), any_account()
    views = [margin_view(found, account), explanation_view(found, account, ["BTC-PERP"]),
             what_if_view(found, account_alone(found, account), [Trade("BTC-PERP", 1)], 0)]  # fmt: skip
    for view in views:
        assert json.loads(orjson.dumps(plain(view))) == plain(view)
    assert plain({"huge": [2**70, -(2**70), 2**62]}) == {"huge": [str(2**70), str(-(2**70)), 2**62]}
