"""`dpme stress` over the machines of a small demo run: sums, covers, wrong input, output that fits."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from demo_runs import PARTITIONS, small_demo_run
from rich.console import Console

from schemas.topics import ACCOUNT_LOG
from streams.cli.as_of import AsOf, machine_as_of
from streams.cli.errors import CommandError
from streams.cli.stress import _confidence_e6
from streams.cli.stress_tables import show_stress
from streams.cli.stress_views import stress_view


@lru_cache(maxsize=1)
def machines() -> tuple[AsOf, ...]:
    run = small_demo_run()
    sets = {run.world.scenario_set.digest: run.world.scenario_set}
    logs = (list(enumerate(run.pipeline.logs[ACCOUNT_LOG, partition])) for partition in range(PARTITIONS))
    return tuple(machine_as_of(log, partition, sets) for partition, log in enumerate(logs))


@lru_cache(maxsize=2)
def view(reverse: bool = False) -> dict[str, Any]:
    return stress_view(machines(), 999_000, None, reverse)


def test_every_account_is_there_and_the_fund_is_cover_two() -> None:
    told = view()
    assert told["accounts"] == sum(len(found.risk.book.accounts) for found in machines())
    equity, margin = told["views"]
    assert told["fund_usd6"] == equity["cover_2"]["uncovered_usd6"] > 0
    assert equity["resources_usd6"] == sum(int(found.risk.margins.equity_usd6.sum()) for found in machines())
    assert margin["resources_usd6"] == sum(
        int(found.risk.margins.maintenance_margin_usd6.sum()) for found in machines()
    )
    for side in (equity, margin):
        assert side["cover_1"]["uncovered_usd6"] <= side["cover_2"]["uncovered_usd6"]
        assert len(side["cover_2"]["accounts"]) == 2
        assert side["fund_quantile_usd6"] <= side["fund_shortfall_usd6"]


def test_uncovered_losses_of_a_stress_row_are_the_sum_over_single_accounts() -> None:
    """Row by row with nothing but marks: a second way to the same number."""
    row = next(r for r in view()["views"][0]["rows"] if r["name"] == "crash -40%")
    place = [r["name"] for r in view()["views"][0]["rows"]].index("crash -40%")
    total = 0
    for found in machines():
        book, tables = found.risk.book, found.tables
        factor = tables.instruments.factor
        stress = tables.stress[:, place] / factor  # the engine's rows have the factor in them
        for a in range(len(book.accounts)):
            leg = book.leg_slice(a)
            pnl = float((stress[book.legs().leg_instrument[leg]] * book.lots[leg]).sum()) / 1e3
            total += max(0.0, -pnl - float(found.risk.margins.equity_usd6[a]))
    assert row["uncovered_usd6"] == pytest.approx(total, rel=1e-6)


def test_reverse_finds_a_scenario_that_exhausts_the_fund() -> None:
    found = view(reverse=True)["reverse"]
    assert found["found"]
    assert found["uncovered_usd6"] > view()["fund_usd6"]
    assert 0 < found["odds"] < 0.5
    assert np.isfinite([move["move"] for move in found["moves"]]).all()


@pytest.mark.parametrize("percent", [100.0, 49.9, float("nan")])
def test_a_confidence_out_of_range_is_named(percent: float) -> None:
    with pytest.raises(CommandError, match="--confidence"):
        _confidence_e6(percent)


def test_people_see_funds_covers_rows_and_the_scenario_within_100_columns() -> None:
    text = io.StringIO()
    show_stress(Console(file=text, width=100), view(reverse=True))
    lines = text.getvalue().splitlines()
    assert all(len(line) <= 100 for line in lines)
    for word in ("cover 2", "fund at 99.9 %", "crash -40%", "Reverse:", "beyond equity"):
        assert word in text.getvalue()
