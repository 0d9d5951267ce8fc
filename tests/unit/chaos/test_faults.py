"""Faults by name: what a script may say, and what is said of one that may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import acts
from tests.chaos.faults import FAULTS, listing, parse
from tests.chaos.notes import tracebacks


def test_every_fault_has_a_line_of_help() -> None:
    lines = listing().splitlines()
    assert len(lines) == len(FAULTS)
    for line, one in zip(lines, FAULTS.values(), strict=True):
        assert line.startswith(f"{one.name}:{one.roles[0]}")
        assert one.help in line


def test_a_script_names_faults_and_whom_they_befall() -> None:
    assert parse("kill:sequencer, freeze long") == (("kill", "sequencer"), ("freeze long", "risk"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("kil:risk", "did you mean 'kill'"), ("kill:nobody", "cannot befall 'nobody', only risk"), ("", "no fault ''")],
)
def test_unknown_names_are_errors(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


def test_what_a_run_lacks_is_said() -> None:
    from streams.pipeline.config import PipelineConfig

    config = PipelineConfig(bootstrap="127.0.0.1:1", prefix="p.", folder="nowhere")
    tormentor = acts.Tormentor(config, ["risk-0", "sequencer"], 1)
    assert tormentor.impossible(parse("kill:risk")) == ""
    assert "kill:sink: it needs such a worker" in tormentor.impossible(parse("kill:sink"))
    assert "kill broker:broker: it needs a broker of its own" in tormentor.impossible(parse("kill broker"))


def test_a_printed_traceback_is_a_crash(tmp_path: Path) -> None:
    log = tmp_path / "risk-0.log"
    log.write_text(
        '{"event": "die", "exception": "Traceback"}\nTraceback (most recent call last):\n  File "x"\nTypeError: y\nz\n'
    )
    assert tracebacks(log) == ["TypeError: y"]
    assert tracebacks(tmp_path / "none.log") == []
