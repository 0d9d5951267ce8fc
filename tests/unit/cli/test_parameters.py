"""`dpme parameters`: the document that is printed is one that the engine takes; wrong input is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oracles.risk_model.bars import Bars, write_bars
from schemas.risk_parameters import RiskParameters, parse_parameters
from streams.cli.errors import CommandError
from streams.cli.parameters import show, suggest

HOUR_MS = 3_600_000


def history(folder: Path, name: str, days: int) -> str:
    close = 100.0 * np.exp(np.cumsum(np.random.default_rng(days).normal(0.0, 0.01, days * 24)))
    time_ms = HOUR_MS * np.arange(480_000, 480_000 + len(close))
    path = folder / f"{name}.csv"
    write_bars(Bars(name, HOUR_MS, time_ms, close, close, close, close, np.full(len(close), 1e4)), path)
    return f"{name}={path}"


def last_line(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_shown_document_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    show(as_json=True)
    assert parse_parameters(last_line(capsys)) == RiskParameters()
    show()
    assert "stress_rows" in capsys.readouterr().out


def test_a_suggested_document_is_one_that_the_engine_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bars = [history(tmp_path, "BTC", 40), history(tmp_path, "NEW", 3)]
    suggest(bars, ["BTC=5000000"], ["BTC=20000"], ["BTC"], as_json=True)
    told = last_line(capsys)
    document = parse_parameters(told["document"])
    assert [rule.underlying for rule in document.concentration] == ["BTC"]
    assert document.concentration[0].tiers[0].above_usd6 == 20_000 * 10**6
    factors = {given.instrument: given.factor_e6 for given in document.collateral_factors}
    assert factors["NEW"] == 500_000 < factors["BTC"]
    assert "NEW: 3 days" in told["too_short"][0]
    suggest(bars)
    assert "too short a history" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"bars": None}, "--bars"),
        ({"bars": ["BTC"]}, "--bars: 'BTC' is not ASSET=VALUE"),
        ({"bars": ["BTC=/nowhere.csv"]}, "No such file"),
        ({"bars": ["BTC=a", "BTC=b"]}, "BTC is given twice"),
        ({"bars": ["BTC=a"], "depth": ["BTC=-1"]}, "--depth: BTC=-1"),
        ({"bars": ["BTC=a"], "open_interest": ["BTC=nan"]}, "--open-interest: BTC=nan"),
        ({"bars": ["BTC=a"], "floor": 0.9, "cap": 0.8}, "--floor"),
        ({"bars": ["BTC=a"], "reference_usd": 0.0}, "--lot"),
    ],
)
def test_wrong_input_is_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        suggest(**arguments)
