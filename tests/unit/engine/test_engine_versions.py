"""Two versions of the engine over one log: the older one applies nothing of the newer one, the newer one reads both."""

from __future__ import annotations

import msgspec
import orjson
import pytest
from engine_worlds import Inputs, cash, genesis_ticks, listings, scenario_set, spot, time_of

from schemas import log_records as records
from schemas.topics import ACCOUNT_LOG, BLOCKS_DONE, MARKET_LOG
from streams.engine.enforcement import Enforcement
from streams.engine.output import OlderState, check_dump_version
from streams.engine.risk import Risk
from streams.engine.sequence import Sequencer
from streams.engine.tables import TableCache
from streams.runtime import exits
from streams.simulate.in_process import INPUT_PARTITIONS, Pipeline

CACHE = TableCache({scenario_set().digest: scenario_set()}.__getitem__)


def run() -> Pipeline:
    inputs = Inputs()
    inputs.add_listings(listings())
    for number in range(3):
        ticks = genesis_ticks() if number == 0 else [spot(f"x{number}", "X", time_of(number) - 300, 100.0)]
        inputs.add_block(number, [cash(f"c{number}", number, "ann", 9)], ticks, len(listings()))
    return inputs.pipeline(1)


def as_newer(raw: bytes) -> bytes:
    return bytes([records.VERSION + 1]) + raw[1:]


def test_an_older_engine_applies_nothing_of_a_newer_record_and_calls_nothing_wrong() -> None:
    log = run().logs[ACCOUNT_LOG, 0]
    machine = Risk(0, CACHE)
    for offset, raw in enumerate(log[:-1]):
        list(machine.steps(ACCOUNT_LOG, 0, offset, raw))
    before = machine.dump()
    with pytest.raises(records.NewerEngine, match="upgrade"):
        list(machine.steps(ACCOUNT_LOG, 0, len(log) - 1, as_newer(log[-1])))
    assert not machine.halted
    assert machine.dump() == before


def test_what_follows_from_a_decision_has_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer sequencer carries an older one's decisions out once more: the same bytes."""
    old = run()
    monkeypatch.setattr(records, "VERSION", records.VERSION + 1)
    assert {raw[0] for raw in run().logs[ACCOUNT_LOG, 0]} == {records.VERSION}
    newer, made = Sequencer(1, INPUT_PARTITIONS, b"newer"), []
    for (topic, partition), log in old.logs.items():
        if topic in INPUT_PARTITIONS:
            for offset, raw in enumerate(log):
                list(newer.steps(topic, partition, offset, raw))
    vector = orjson.dumps([[*tp, offset] for tp, offset in newer.read.items()])
    for offset, raw in enumerate(old.logs[MARKET_LOG, 0]):
        for outputs in newer.steps(MARKET_LOG, 0, offset, raw, (("positions", vector),)):
            made += [output.value for output in outputs if output.topic == ACCOUNT_LOG]
    assert made == old.logs[ACCOUNT_LOG, 0]


def test_enforcement_leaves_newer_outputs_alone() -> None:
    done = orjson.loads(run().logs[BLOCKS_DONE, 0][0])
    with pytest.raises(records.NewerEngine, match="upgrade"):
        list(Enforcement(1).steps(BLOCKS_DONE, 0, 0, orjson.dumps(done | {"version": 2})))


def test_checkpoints_of_newer_engines_are_told_from_forgotten_ones() -> None:
    dumped = msgspec.msgpack.decode(Enforcement(1).dump())
    with pytest.raises(records.NewerEngine):
        Enforcement.load(msgspec.msgpack.encode(dumped | {"dump_version": 99}))
    with pytest.raises(OlderState, match="version 1"):
        check_dump_version("risk", 1, 2)


def test_such_a_worker_ends_with_a_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(exits.os, "_exit", codes.append)
    exits.die("unit 0", records.NewerEngine("upgrade it"))
    assert codes == [exits.OUTDATED]
    assert "upgrade it" in capfd.readouterr().err
