"""Reorganisations: whatever branches came and went, the state is that of a machine that never saw them."""

from __future__ import annotations

import random
import struct
from typing import Any

import msgspec
import pytest
from branching_worlds import Tree, add, branching_world
from engine_worlds import Inputs, LogStore, event, new_sequencer, option, scenario_set
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import log_records as records
from schemas.risk_parameters import RiskParameters, parameters_document
from schemas.topics import ACCOUNT_LOG, CHAIN_BLOCKS, MARKET_LOG
from streams.engine.risk import Risk
from streams.engine.sequence import Sequencer
from streams.engine.tables import TableCache
from streams.simulate.in_process import Pipeline

SEEDS = st.integers(0, 2**32)
CACHE = TableCache({s.digest: s for s in (scenario_set(), scenario_set(2))}.__getitem__, size=200)


def essence(machine: Risk) -> dict[str, Any]:
    """Everything that an output can depend on, but for counters, log numbers and the epoch."""
    return {
        "digest": machine.state_digest(),
        "book": machine.book.to_plain(),
        "lines": machine.lines.to_plain(),
        "held": machine.held.to_plain(),
        "margins": {name: values.tobytes() for name, values in machine.margins._asdict().items()},
        "market": machine.market.to_plain(),
        "keyframe": machine.keyframe.to_plain(),
        "catalogue": machine.catalogue.to_listings(),
    } | {n: getattr(machine, n) for n in ("keyframe_identity", "keyframe_instruments", "block", "events", "halted")}


def surviving(log: list[bytes]) -> list[bytes]:
    """The records of a log that no rollback retracts, numbered anew."""
    kept: list[tuple[records.Header, bytes]] = []
    for raw in log:
        header = records.read_header(raw)
        if header.kind == records.ROLLBACK:
            kept = [(h, r) for h, r in kept if h.block <= header.block or h.kind == records.LISTINGS]
        else:
            kept.append((header, raw))
    number = {old: n + 1 for n, old in enumerate(dict.fromkeys(h.number for h, _ in kept))}
    return [raw[:8] + struct.pack("<Q", number[h.number]) + raw[16:] for h, raw in kept]


def fed(log: list[bytes], rng: random.Random | None = None, keeps_bounds: bool = False) -> Risk:
    """A machine after the log; with `rng` dumped and loaded at some records."""
    machine = Risk(0, CACHE)
    for offset, raw in enumerate(log):
        if keeps_bounds:
            machine.parameters = msgspec.structs.replace(machine.parameters, bound_accounts_min=1)
        for _ in machine.steps(ACCOUNT_LOG, 0, offset, raw):
            pass
        if rng is not None and rng.random() < 0.2:
            dumped = machine.dump()
            machine = Risk.load(dumped, CACHE)
            assert machine.dump() == dumped
    return machine


def rollbacks(log: list[bytes]) -> list[int]:
    return [place for place, raw in enumerate(log) if raw[1] == records.ROLLBACK]


@given(SEEDS)
@settings(max_examples=10)
def test_after_every_rollback_the_state_is_that_of_a_straight_run(seed: int) -> None:
    """Checkpoints at any record, restored across the rollbacks."""
    inputs, _ = branching_world(seed)
    log, rng = inputs.pipeline(1).logs[ACCOUNT_LOG, 0], random.Random(seed)
    for place in [*rollbacks(log), len(log) - 1]:
        assert essence(fed(log[: place + 1], rng)) == essence(fed(surviving(log[: place + 1])))


@given(SEEDS)
@settings(max_examples=6)
def test_rollbacks_change_no_bound(seed: int) -> None:
    """Margins that are bounds, and what the bounds of trades begin from, are those of a straight run too."""
    inputs, _ = branching_world(seed)
    log, rng = inputs.pipeline(1).logs[ACCOUNT_LOG, 0], random.Random(seed)
    for place in [*rollbacks(log), len(log) - 1]:
        found = fed(log[: place + 1], rng, keeps_bounds=True)
        assert essence(found) == essence(fed(surviving(log[: place + 1]), keeps_bounds=True))


@pytest.mark.parametrize("depth", [1, 17, 63, 64])
def test_down_to_the_finality_depth(depth: int) -> None:
    tree, inputs = Tree(depth), Inputs()
    inputs.add_listings(tree.listed)
    for _ in range(68):
        add(inputs, *tree.grow())
    tree.reorganise(depth)
    for _ in range(3):
        add(inputs, *tree.grow())
    run = inputs.pipeline(1)
    log = run.logs[ACCOUNT_LOG, 0]
    (place,) = rollbacks(log)
    assert essence(fed(log[: place + 1], random.Random(depth))) == essence(fed(surviving(log[: place + 1])))
    assert essence(run.risks[0]) == essence(fed(surviving(log)))


def test_one_deeper_halts_everything_loudly() -> None:
    tree, inputs = Tree(5, depth=3), Inputs()
    inputs.add_listings(tree.listed)
    for _ in range(6):
        add(inputs, *tree.grow())
    tree.reorganise(4)
    for _ in range(5):
        add(inputs, *tree.grow())
    run = inputs.pipeline(2)
    assert run.sequencer.halted
    for machine in run.risks:
        assert "are final" in machine.halted
        assert machine.block == 5


@given(SEEDS, SEEDS)
@settings(max_examples=15)
def test_kills_and_any_arrival_end_in_the_state_of_the_straight_run(world_seed: int, seed: int) -> None:
    """A sequencer killed at any moment, before or behind a rollback that is decided or carried out in part."""
    inputs, tree = branching_world(world_seed % 40)
    rng, store = random.Random(seed), LogStore(inputs)
    machine, checkpoint, kills = new_sequencer(b"life 0", 1), None, 0
    store.append(machine.start())
    while logs := store.readable(machine):
        outputs = store.feed(machine, rng.choice(_favoured(logs, rng)))
        if kills < 8 and rng.random() < 0.05:
            store.append(outputs[: rng.randrange(len(outputs) + 1)])
            kills += 1
            token = f"life {kills}".encode()
            machine = Sequencer.load(checkpoint, token) if checkpoint is not None else new_sequencer(token, 1)
            store.append(machine.start())
            continue
        store.append(outputs)
        if rng.random() < 0.15:
            checkpoint = machine.dump()
            assert Sequencer.load(checkpoint, b"x").dump() == checkpoint
    straight: Pipeline = tree.straight().pipeline(1)
    found = fed(store.account_logs(1)[0])
    assert essence(found) == essence(straight.risks[0])


def _favoured(logs: list[tuple[str, int]], rng: random.Random) -> list[tuple[str, int]]:
    """Blocks come late more often than not, so that branches are closed before they are left."""
    late = [log for log in logs if log[0] != CHAIN_BLOCKS]
    return late if late and rng.random() < 0.8 else logs


def test_the_worlds_do_reorganise() -> None:
    inputs, _ = branching_world(3)
    found = [records.read_header(raw).kind for raw in inputs.pipeline(1).logs[MARKET_LOG, 0]]
    assert found.count(records.ROLLBACK) >= 2


def test_what_was_listed_meanwhile_stays_and_margins_are_those_of_the_old_parameters() -> None:
    """Parameters, a scenario set and an instrument come while blocks are done that are retracted afterwards."""
    tree, inputs = Tree(8), Inputs()
    inputs.add_listings(tree.listed)
    for _ in range(5):
        add(inputs, *tree.grow())
    document = parameters_document(RiskParameters(version=2, initial_margin_multiplier_e6=1_900_000))
    late = [event("parameters", "p-2", document=document), event("scenario_set", "s-2", digest=scenario_set(2).digest)]
    late.append(option(95, "put"))
    inputs.add_listings(late)
    tree.listed += late
    for _ in range(2):
        add(inputs, *tree.grow())
    tree.reorganise(4)
    for _ in range(3):
        add(inputs, *tree.grow())
    log = inputs.pipeline(1).logs[ACCOUNT_LOG, 0]
    (place,) = rollbacks(log)
    for end in (place + 1, len(log)):
        assert essence(fed(log[:end], random.Random(end))) == essence(fed(surviving(log[:end])))


def test_a_machine_that_ignores_a_rollback_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It halts at the next block of the new branch, whose number does not follow."""
    inputs, _ = branching_world(3)
    log = inputs.pipeline(1).logs[ACCOUNT_LOG, 0]
    monkeypatch.setattr(Risk, "_go_back", lambda self, header, rollback: [])
    assert "after block" in fed(log).halted
