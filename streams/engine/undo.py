"""What the risk machine remembers to go back to an earlier barrier: reverse differences, back to the finality depth.

Only what cannot be had otherwise is kept: accounts, cash, positions (the rows that changed from one barrier to the
next), the market, which lines are armed, and what was said. Margins, Greeks and lines are functions of these, and are
computed again at the block gone back to: one barrier's work at a rollback, instead of some 40 bytes an account and
block at all times. A barrier that evaluated nothing, or left bounds standing, keeps them whole, packed (before the
first scenario set there are none).
"""

from __future__ import annotations

import zlib
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from kernels.account_sums import leg_changes
from schemas.risk_parameters import RiskParameters, parameters_digest, parameters_document, parse_parameters
from streams.engine.held import Held
from streams.engine.lines import IM, MM, Lines
from streams.engine.margin import Margins, account_sums, compute, empty_margins
from streams.engine.market import RecordedMarket
from streams.engine.open_orders import OpenOrders
from streams.engine.output import Fault

if TYPE_CHECKING:
    from streams.engine.risk import Risk

Arrays = dict[str, np.ndarray]
LEG_ARRAYS = ("lots", "entry_usd6")  # of the book, beside its keys
NARROWER = (np.int8, np.int16, np.int32)


class Context(NamedTuple):
    """What a barrier's margins follow from besides the book; `kept`: packed margins, where they do not."""

    block: int
    accounts: int
    instruments: int
    identity: tuple[str, str]
    market: dict
    residue_usd21: str
    parameters: RiskParameters
    kept: bytes
    orders: bytes = b""


class Kept(NamedTuple):
    """Margins and what goes with them, where they cannot be computed again."""

    margins: Margins
    lines: Lines
    keyframe: RecordedMarket
    pair_keys: np.ndarray
    pair_greeks_usd9: np.ndarray
    held: Held

    def pack(self) -> bytes:
        plain = {
            "margins": {n: [str(v.dtype), v.tobytes()] for n, v in self.margins._asdict().items()},
            "lines": self.lines.to_plain(),
            "keyframe": self.keyframe.to_plain(),
            "pair_keys": self.pair_keys.tobytes(),
            "pair_greeks_usd9": self.pair_greeks_usd9.tobytes(),
            "held": self.held.to_plain(),
        }
        return zlib.compress(msgspec.msgpack.encode(plain), 1)

    @classmethod
    def unpack(cls, raw: bytes) -> Kept:
        plain: dict[str, Any] = msgspec.msgpack.decode(zlib.decompress(raw))
        return cls(
            Margins(**{n: np.frombuffer(v, d).copy() for n, (d, v) in plain["margins"].items()}),
            Lines.from_plain(plain["lines"]),
            RecordedMarket.from_plain(plain["keyframe"]),
            np.frombuffer(plain["pair_keys"], np.int64).copy(),
            np.frombuffer(plain["pair_greeks_usd9"], np.int64).reshape(-1, 4).copy(),
            Held.from_plain(plain.get("held", [])),
        )


class Said(NamedTuple):
    """An event that went out."""

    topic: str
    block: int
    account: str
    event_id: str


class Point(NamedTuple):
    """The state at a barrier. `rows`: arrays over the accounts; `keys`, `legs`: the positions."""

    context: Context
    rows: Arrays
    keys: np.ndarray
    legs: Arrays


class Difference(NamedTuple):
    """What leads from a later state back to a point: rows to overwrite, by array; legs to drop, and to put there."""

    context: Context
    rows: dict[str, tuple[np.ndarray, np.ndarray]]
    dropped: np.ndarray
    keys: np.ndarray
    legs: Arrays


class Step(NamedTuple):
    """A difference as checkpoints have it: packed once, as nothing of it changes any more; parameters beside it."""

    packed: msgspec.Raw
    parameters: RiskParameters

    @classmethod
    def of(cls, difference: Difference) -> Step:
        return cls(msgspec.Raw(msgspec.msgpack.encode(_plain(difference))), difference.context.parameters)

    def difference(self) -> Difference:
        return _from_plain(msgspec.msgpack.decode(self.packed), self.parameters)


class Undo:
    """`head` is the last barrier, `steps` lead from each barrier to the one before it, the last step from the head."""

    def __init__(self) -> None:
        self.head: Point | None = None
        self.steps: deque[Step] = deque()
        self.said: dict[int, list[Said]] = {}  # by block

    def say(self, topic: str, block: int, account: str, event_id: str) -> None:
        self.said.setdefault(block, []).append(Said(topic, block, account, event_id))

    def close(self, state: Risk, is_exact: bool) -> None:
        """A barrier is over: `state` stands at it. is_exact: every margin is an exact one of this barrier."""
        depth = state.parameters.finality_depth_blocks
        if not depth:
            self.head, self.steps, self.said = None, deque(), {}
            return
        point = _point(state, is_exact)
        if self.head is not None:
            self.steps.append(Step.of(_difference(self.head, point.rows, point.keys, point.legs)))
        self.head = point
        while len(self.steps) > depth:
            self.steps.popleft()
        final = point.context.block - depth
        self.said = {block: said for block, said in self.said.items() if block > final}

    def points(self) -> list[Point]:
        """Every barrier remembered, the oldest first."""
        found = [self.head] if self.head is not None else []
        for step in reversed(self.steps):
            found.append(_before(found[-1], step.difference()))
        return found[::-1]

    @classmethod
    def of_points(cls, points: list[Point], said: dict[int, list[Said]]) -> Undo:
        """What remembers these barriers, the oldest first."""
        undo = cls()
        undo.head, undo.said = points[-1] if points else None, said
        undo.steps = deque(Step.of(_difference(old, new.rows, new.keys, new.legs)) for old, new in pairwise(points))
        return undo

    def go_back(self, state: Risk, block: int) -> list[Said]:
        """`state` as it was at the barrier of `block`, but for what is listed. Returns what was said since."""
        while self.head is not None and self.head.context.block > block and self.steps:
            self.head = _before(self.head, self.steps.pop().difference())
        if self.head is None or self.head.context.block != block:
            raise Fault(f"rollback to block {block}, which is not remembered")
        restore(state, self.head)
        gone = sorted(b for b in self.said if b > block)
        return [said for b in gone for said in self.said.pop(b)]

    # -- checkpoint

    def to_plain(self, state: Risk) -> dict:
        """The head as its difference from the present book."""
        rows, keys, legs = _arrays(state)
        first = [Step.of(_difference(self.head, rows, keys, legs))] if self.head is not None else []
        steps = [*self.steps, *first]
        documents = {parameters_digest(step.parameters): step.parameters for step in steps}
        return {
            "documents": {digest: parameters_document(p) for digest, p in sorted(documents.items())},
            "steps": [step.packed for step in steps],
            "said": sorted(self.said.items()),
        }

    @classmethod
    def from_plain(cls, plain: dict, state: Risk) -> Undo:
        undo = cls()
        documents = {digest: parse_parameters(document) for digest, document in plain["documents"].items()}
        of_step = [documents[context["parameters"]] for context, *_ in plain["steps"]]
        packed = (msgspec.Raw(msgspec.msgpack.encode(step)) for step in plain["steps"])
        undo.steps = deque(map(Step, packed, of_step))
        if undo.steps:
            last = undo.steps.pop().difference()
            undo.head = _before(Point(last.context, *_arrays(state)), last)
        undo.said = {block: [Said(*one) for one in said] for block, said in plain["said"]}
        return undo


# -- the state and its points


def _arrays(state: Risk) -> tuple[Arrays, np.ndarray, Arrays]:
    """(rows, keys, legs) of the present state; lines of accounts that are not yet in them are armed. Packed positions
    are shared with the book, which never changes them in place."""
    book = state.book
    count = len(book.accounts)
    armed = np.full(count, 3, np.uint8)
    known = min(count, len(state.lines.armed))
    armed[:known] = state.lines.armed[:known, IM] + 2 * state.lines.armed[:known, MM].astype(np.uint8)
    rows = {"cash_usd6": book.cash().copy(), "armed": armed}
    return rows, book.keys, {name: getattr(book, name) for name in LEG_ARRAYS}


def _point(state: Risk, is_exact: bool) -> Point:
    context = Context(
        block=state.block,
        accounts=len(state.book.accounts),
        instruments=state.keyframe_instruments,
        identity=state.keyframe_identity,
        market=state.market.to_plain(),
        residue_usd21=str(state.book.residue_usd21),  # of any size
        parameters=state.parameters,
        kept=b"" if is_exact else _kept(state),
        orders=state.orders.pack(),
    )
    return Point(context, *_arrays(state))


def _kept(state: Risk) -> bytes:
    book = state.book
    return Kept(state.margins, state.lines, state.keyframe, book.pair_keys, book.pair_greeks_usd9, state.held).pack()


def restore(state: Risk, point: Point) -> None:
    """`state` as it was at a barrier, but for what is listed since."""
    book, context = state.book, point.context
    book.forget_accounts(context.accounts)
    book.cash_usd6, book.keys = point.rows["cash_usd6"].copy(), point.keys
    for name in LEG_ARRAYS:
        setattr(book, name, point.legs[name])
    book.residue_usd21 = int(context.residue_usd21)
    state.orders = OpenOrders.unpack(context.orders)
    state.market = RecordedMarket.from_plain(context.market)
    state.market.fit_to(state.catalogue)
    state.keyframe_instruments, state.keyframe_identity = context.instruments, context.identity
    if context.kept:
        _unpack_kept(state, context.kept)
    else:
        _compute_again(state, point)
    if state.parameters != context.parameters:  # listed since, and they stay
        state.lines.unsettled[:] = True
    state.block, state.events, state.warned = context.block, 0, 0


def _unpack_kept(state: Risk, raw: bytes) -> None:
    kept = Kept.unpack(raw)
    state.margins, state.lines, state.keyframe = kept.margins, kept.lines, kept.keyframe
    state.keyframe.fit_to(state.catalogue)
    state.held = kept.held
    state.book.pair_keys, state.book.pair_greeks_usd9 = kept.pair_keys, kept.pair_greeks_usd9


def _compute_again(state: Risk, point: Point) -> None:
    """Margins, Greeks and lines from the book, the market, and the scenarios and parameters of then."""
    book, parameters = state.book, point.context.parameters
    tables = state.cache.get(state.catalogue, state.market, parameters, point.context.identity[0])
    legs, count = book.legs(), point.context.accounts
    sums = account_sums(legs, book.cash(), book.entry_by_account(), tables, parameters)
    state.margins = empty_margins(count)
    compute(legs, np.arange(count), sums, tables, parameters, state.margins, point.context.block)
    state.keyframe, state.held = state.market.copy(), Held()
    book.rebuild_greeks(state.catalogue, tables.greeks_usd9)
    state.lines = Lines()
    state.lines.at_barrier(state.margins, np.ones(count, np.bool_), parameters)
    armed = point.rows["armed"]
    state.lines.armed = np.stack([armed & 1, armed >> 1], axis=1).astype(np.bool_)


# -- differences


def _difference(old: Point, rows: Arrays, keys: np.ndarray, legs: Arrays) -> Difference:
    """What leads from the later (rows, keys, legs) back to `old`. Accounts only come, legs come and go."""
    found = {}
    for name, values in old.rows.items():
        index = np.flatnonzero(values != rows[name][: len(values)])
        found[name] = (index, values[index])
    gone, other = leg_changes(
        old.keys, old.legs["lots"], old.legs["entry_usd6"], keys, legs["lots"], legs["entry_usd6"]
    )
    return Difference(old.context, found, keys[gone], old.keys[other], {n: old.legs[n][other] for n in LEG_ARRAYS})


def _before(later: Point, step: Difference) -> Point:
    count, rows = step.context.accounts, {}
    for name, (index, values) in step.rows.items():
        rows[name] = later.rows[name][:count].copy()
        rows[name][index] = values
    stays = ~np.isin(later.keys, np.concatenate([step.dropped, step.keys]))
    keys = np.concatenate([later.keys[stays], step.keys])
    order = np.argsort(keys, kind="stable")
    legs = {n: np.concatenate([later.legs[n][stays], step.legs[n]])[order] for n in LEG_ARRAYS}
    return Point(step.context, rows, keys[order], legs)


def _plain(step: Difference) -> list:
    context = step.context._asdict() | {"parameters": parameters_digest(step.context.parameters)}
    rows = {name: [_raw(index), _raw(values)] for name, (index, values) in step.rows.items()}
    return [context, rows, _raw(step.dropped), _raw(step.keys), {n: _raw(v) for n, v in step.legs.items()}]


def _from_plain(plain: list, parameters: RiskParameters) -> Difference:
    context, rows, dropped, keys, legs = plain
    identity = (context["identity"][0], context["identity"][1])
    whole = Context(**context | {"parameters": parameters, "identity": identity})
    arrays = {name: (_array(index), _array(values)) for name, (index, values) in rows.items()}
    return Difference(whole, arrays, _array(dropped), _array(keys), {n: _array(v) for n, v in legs.items()})


def _raw(values: np.ndarray) -> list:
    """Integers in as few bytes as the largest of them needs."""
    if values.dtype == np.int64 and len(values):
        low, high = int(values.min()), int(values.max())
        fitting = (kind for kind in NARROWER if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
        values = values.astype(next(fitting, np.int64))
    return [values.dtype.str, values.tobytes()]


def _array(plain: list) -> np.ndarray:
    found = np.frombuffer(plain[1], plain[0])
    return found.astype(np.int64) if found.dtype.kind == "i" else found.copy()
