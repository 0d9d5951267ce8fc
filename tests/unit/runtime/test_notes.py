"""Notes: JSON for machines, text for people, the worker's name in both."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from streams.runtime.notes import NoteHandler, introduce, note


@pytest.fixture(autouse=True)
def _nobody() -> Iterator[None]:
    yield
    introduce("json")


def test_json_lines_carry_who_speaks(capfd: pytest.CaptureFixture[str]) -> None:
    introduce("json", worker="risk-0", role="risk")
    note("block_done", block=7)
    said = json.loads(capfd.readouterr().err)
    assert said["event"] == "block_done"
    assert (said["worker"], said["role"], said["block"]) == ("risk-0", "risk", 7)


def test_text_is_one_line_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    introduce("text", worker="risk-0", role="risk")
    note("block_done", block=7)
    assert capfd.readouterr().err.rstrip().endswith("risk-0 block_done role=risk block=7")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_warnings_of_libraries_have_the_same_form(log_format, capfd: pytest.CaptureFixture[str]) -> None:
    introduce(log_format, worker="sink")
    logger = logging.Logger("library")
    logger.addHandler(NoteHandler())
    try:
        raise ValueError("inner")
    except ValueError:
        logger.exception("it is %s", "late")
    said = capfd.readouterr().err
    assert "it is late" in said
    assert "ValueError: inner" in said
    assert said.startswith("{") == (log_format == "json")
