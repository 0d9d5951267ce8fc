"""What a check of `dpme doctor` finds."""

from __future__ import annotations

from typing import NamedTuple

OK, OPTIONAL, BAD = "ok", "optional", "bad"


class Finding(NamedTuple):
    """One check: "ok", "optional" (something works without it) or "bad"; what was found, what to do."""

    name: str
    verdict: str
    found: str
    advice: str = ""
