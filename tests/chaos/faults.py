"""The faults by name: what `--acts` takes and `--acts list` prints. Modules that do them register them here."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.chaos.acts import Tormentor

Doing = Callable[["Tormentor", str], Awaitable[None]]
WORKERS = ("risk", "sequencer", "enforcement", "sink")
Script = tuple[tuple[str, str], ...]  # (name of a fault, whom it befalls), in their order


class Fault(NamedTuple):
    """roles: whom it may befall, the first one where a script names nobody. needs: what a run must have for it
    ("" for nothing). always: whom it befalls once in every run by chance; weight: how often it is drawn after that.
    takes_s: how long until the next one begins, about.
    """

    name: str
    help: str
    do: Doing
    roles: tuple[str, ...]
    needs: str = ""
    always: tuple[str, ...] = ()
    weight: int = 0
    takes_s: float = 2.8


FAULTS: dict[str, Fault] = {}


def fault(name: str, help: str, *roles: str, **options: Any) -> Callable[[Doing], Doing]:
    """Registers what the decorated coroutine does under a name; `options` are the other fields of Fault."""

    def register(do: Doing) -> Doing:
        FAULTS[name] = Fault(name, help, do, roles, **options)
        return do

    return register


def span_s(script: Iterable[tuple[str, str]]) -> float:
    """How long the faults take one after the other."""
    return sum(FAULTS[name].takes_s for name, _ in script)


def parse(text: str) -> Script:
    """NAME[:ROLE],... as pairs. Raises ValueError that says what is wrong, and what was probably meant."""
    return tuple(_parsed(part.strip()) for part in text.split(","))


def _parsed(part: str) -> tuple[str, str]:
    name, _, role = part.partition(":")
    if name not in FAULTS:
        near = difflib.get_close_matches(name, FAULTS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"there is no fault {name!r}: {hint}`--acts list` prints all names")
    found = FAULTS[name]
    if role and role not in found.roles:
        raise ValueError(f"the fault {name!r} cannot befall {role!r}, only {', '.join(found.roles)}")
    return name, role or found.roles[0]


def listing() -> str:
    """A line for every fault."""
    names = {one.name: f"{one.name}:{'|'.join(one.roles)}" for one in FAULTS.values()}
    width = max(map(len, names.values()))
    return "\n".join(
        f"{names[one.name]:<{width}}  {one.help}{f' (needs {one.needs})' if one.needs else ''}"
        for one in FAULTS.values()
    )
