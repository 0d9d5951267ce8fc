"""The sequencer over every order of arrival and over restarts at any moment: one account.log."""

from __future__ import annotations

import random

import pytest
from engine_worlds import Inputs, LogStore, interleaved, new_sequencer, random_world
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.topics import ACCOUNT_LOG, MARKET_LOG, QUARANTINE
from streams.engine.output import Fault
from streams.engine.sequence import Sequencer
from streams.simulate.in_process import INPUT_PARTITIONS

SEEDS = st.integers(0, 2**32)


@given(SEEDS, SEEDS)
@settings(max_examples=15)
def test_declared_logs_are_independent_of_arrival(world_seed: int, order_seed: int) -> None:
    inputs = random_world(world_seed % 20)
    calm = inputs.pipeline()
    shuffled = inputs.pipeline(order=interleaved(inputs, random.Random(order_seed)))
    assert shuffled.logs[MARKET_LOG, 0][1:] == calm.logs[MARKET_LOG, 0][1:]
    for partition in range(4):
        assert shuffled.logs[ACCOUNT_LOG, partition] == calm.logs[ACCOUNT_LOG, partition]
    assert sorted(shuffled.values(QUARANTINE)) == sorted(calm.values(QUARANTINE))


@given(SEEDS, SEEDS, st.booleans())
@settings(max_examples=25)
def test_restarts_at_any_moment_write_one_account_log(world_seed: int, seed: int, declared: bool) -> None:
    """Kills between proposal and read-back, with proposals outstanding, with a step's outputs half sent, while caught
    up or catching up; the next life begins with the last checkpoint, or with nothing."""
    inputs, rng = random_world(world_seed % 20, declared=declared), random.Random(seed)
    store = LogStore(inputs)
    restarted = _run_with_kills(store, rng)
    logs = store.account_logs(4)
    if declared:
        calm = inputs.pipeline()
        assert logs == [calm.logs[ACCOUNT_LOG, partition] for partition in range(4)]
        assert store.decisions() == calm.logs[MARKET_LOG, 0][1:]
    else:
        assert len(store.decisions()) >= restarted.number > 0
        closed = [_all_closed(log) for log in logs]
        assert closed == [closed[0]] * 4


def _all_closed(log: list[bytes]) -> list[bytes]:
    return [value for value in log if value[1] == 3]


def _run_with_kills(store: LogStore, rng: random.Random) -> Sequencer:
    machine, checkpoint, kills = _born(store, None, 0), None, 0
    while logs := store.readable(machine):
        outputs = store.feed(machine, rng.choice(logs))
        if kills < 8 and rng.random() < 0.06:
            store.append(outputs[: rng.randrange(len(outputs) + 1)])
            kills += 1
            machine = _born(store, checkpoint, kills)
            continue
        store.append(outputs)
        if rng.random() < 0.15:
            checkpoint = machine.dump()
            assert Sequencer.load(checkpoint, b"x").dump() == checkpoint
    return machine


def _born(store: LogStore, checkpoint: bytes | None, life: int) -> Sequencer:
    token = f"life {life}".encode()
    machine = Sequencer.load(checkpoint, token) if checkpoint is not None else new_sequencer(token)
    store.append(machine.start())
    return machine


@given(SEEDS)
@settings(max_examples=10)
def test_two_sequencers_at_once_write_one_account_log(seed: int) -> None:
    """Each fences the other out in turn; the one that was fenced out stops, and what it still sends is void."""
    rng, inputs = random.Random(seed), random_world(seed % 20)
    store, lives = LogStore(inputs), 2
    machines = [_born(store, None, 0), _born(store, None, 1)]
    while any(store.readable(m) for m in machines):
        n = rng.choice([n for n, m in enumerate(machines) if store.readable(m)])
        try:
            store.append(store.feed(machines[n], rng.choice(store.readable(machines[n]))))
        except Fault:
            if lives == 6:  # they would go on for ever
                machines.pop(n)
                continue
            machines[n] = _born(store, None, lives)
            lives += 1
    calm = inputs.pipeline()
    assert store.account_logs(4) == [calm.logs[ACCOUNT_LOG, partition] for partition in range(4)]


class Pair:
    """A sequencer that decides and one that follows, each fed in any order, killed, and told to claim the log at any
    moment, whether the other lives or not; the next life begins with the newest checkpoint of either and follows."""

    def __init__(self, inputs: Inputs, rng: random.Random) -> None:
        self.store, self.rng, self.lives, self.faults = LogStore(inputs), rng, 0, 0
        self.checkpoint: bytes | None = None
        self.machines = [self._born(), self._born()]

    def _born(self) -> Sequencer:
        self.lives += 1
        token = f"life {self.lives}".encode()
        if self.checkpoint is None:
            return Sequencer(4, INPUT_PARTITIONS, token, checkpoint_every=1, follows=True)
        return Sequencer.load(self.checkpoint, token, follows=True)

    def run(self, chance: float) -> None:
        """Until nothing is left to read, and nothing to decide."""
        while True:
            n = self.rng.randrange(2)
            try:
                if not self._step(n, chance) and not self._step(1 - n, chance) and not self._claims(n):
                    return
            except Fault:
                self.faults += 1
                self.machines[n] = self._born()

    def _step(self, n: int, chance: float) -> bool:
        machine = self.machines[n]
        if not (logs := self.store.readable(machine)):
            return False
        if self.rng.random() < chance and self.lives < 30:
            if self.rng.random() < 0.5:
                self.machines[n] = self._born()
                return True
            self._claims(n)
        outputs = self.store.feed(machine, self.rng.choice(logs))
        if machine.checkpoint_mark() is not None and self.rng.random() < 0.5:
            self.checkpoint = machine.dump()
            assert Sequencer.load(self.checkpoint, b"x").positions() == machine.positions()
        self.store.append(outputs)
        return True

    def _claims(self, n: int) -> bool:
        machine = self.machines[n]
        until = machine.read if self.rng.random() < 0.5 else dict.fromkeys(machine.read, self.rng.randrange(9))
        until = {log: min(offset, machine.read[log]) for log, offset in until.items()}
        due, refused = machine.would_decide(until)
        self.store.append(refused)
        if due:
            self.store.append(machine.claim())
        return not machine.settled and not machine.fenced


@given(SEEDS, SEEDS, st.sampled_from([0.0, 0.02, 0.2]))
@settings(max_examples=40)
def test_one_that_decides_and_one_that_follows_write_one_account_log(world: int, seed: int, chance: float) -> None:
    inputs = random_world(world % 20)
    pair = Pair(inputs, random.Random(seed))
    pair.run(chance)
    calm = inputs.pipeline()
    assert pair.store.account_logs(4) == [calm.logs[ACCOUNT_LOG, partition] for partition in range(4)]
    assert pair.store.decisions() == calm.logs[MARKET_LOG, 0][1:]
    assert max(machine.number for machine in pair.machines) == len(pair.store.decisions())


@pytest.mark.parametrize("seed", range(6))
def test_a_follower_decides_nothing_while_the_other_does(seed: int) -> None:
    """And each decision is carried out by both: no partition of account.log waits for one of them."""
    inputs, rng = random_world(seed, declared=False), random.Random(seed)
    store = LogStore(inputs)
    leader = new_sequencer(b"leader")
    follower = Sequencer(4, INPUT_PARTITIONS, b"follower", 1, follows=True)
    store.append(leader.start())
    assert follower.start() == []
    carried = 0
    while any(map(store.readable, (leader, follower))):
        machine = rng.choice([m for m in (leader, follower) if store.readable(m)])
        outputs = store.feed(machine, rng.choice(store.readable(machine)))
        if machine is follower:
            assert MARKET_LOG not in {output.topic for output in outputs}
            carried += sum(output.topic == ACCOUNT_LOG for output in outputs)
        store.append(outputs)
    assert follower.number == leader.number > 0
    assert carried == sum(map(len, store.account_logs(4)))


@pytest.mark.parametrize("sent", range(5))
def test_restart_between_the_decisions_of_one_plan(sent: int) -> None:
    """Only the first `sent` of a block's decisions reached the log: what they took out counts towards the block."""
    inputs = random_world(3)
    store, machine = LogStore(inputs), new_sequencer()
    store.append(machine.start())
    while logs := store.readable(machine):
        outputs = store.feed(machine, logs[0])
        proposed = [o for o in outputs if o.topic == MARKET_LOG]
        if len(proposed) > 4:
            store.append(proposed[:sent])
            break
        store.append(outputs)
    assert len(proposed) > 4
    store.run(_born(store, None, 1), random.Random(1))
    assert store.account_logs(4) == [inputs.pipeline().logs[ACCOUNT_LOG, p] for p in range(4)]


def test_late_record_of_a_replaced_writer_is_void() -> None:
    """A frozen sequencer's proposal arrives behind the fence of its successor, which has a checkpoint by then."""
    inputs = random_world(1)
    store = LogStore(inputs)
    frozen = _born(store, None, 0)
    held: list = []
    while logs := store.readable(frozen):
        outputs = store.feed(frozen, logs[0])
        if frozen.number >= 2 and (found := [o for o in outputs if o.topic == MARKET_LOG]):
            held = found
            break
        store.append(outputs)
    assert held
    successor = _born(store, frozen.dump(), 1)
    while logs := [log for log in store.readable(successor) if log != (MARKET_LOG, 0)]:
        store.append(store.feed(successor, logs[0]))
    outputs: list = []
    while not successor.proposed:
        store.append(outputs)
        outputs = store.feed(successor, (MARKET_LOG, 0))
    checkpoint = successor.dump()  # it has judged more than the frozen one had
    store.append(held + outputs)
    store.run(successor, random.Random(1))
    again = _born(store, checkpoint, 2)
    store.run(again, random.Random(2))
    assert store.account_logs(4) == [inputs.pipeline().logs[ACCOUNT_LOG, p] for p in range(4)]


def test_fence_of_another_ends_a_sequencer() -> None:
    store = LogStore(Inputs())
    first = _born(store, None, 0)
    store.run(first, random.Random(0))
    store.append(new_sequencer(b"other").start())
    with pytest.raises(Fault, match="taken over"):
        store.run(first, random.Random(0))
