"""The sequencer on chains that reorganise: which branch it follows, what waits, what is lost, and when it stops."""

from __future__ import annotations

import orjson
import pytest
from branching_worlds import branch_hash
from engine_worlds import Inputs, block, cash, event, genesis_ticks, hash_of, listings, spot, time_of

from schemas import log_records as records
from schemas.risk_parameters import RiskParameters, parameters_document
from schemas.topics import ACCOUNT_FILLS, ACCOUNT_LOG, BLOCKS_DONE, CHAIN_BLOCKS, ORACLE_TICKS, QUARANTINE
from streams.simulate.in_process import Pipeline

MAIN, RIVAL = 0, 1


def announced(number: int, branch: int, parent: int, events: int = 1) -> dict:
    """A live block: no counts of ticks or listings."""
    hashes = {"hash": branch_hash(number, branch), "parent_hash": branch_hash(number - 1, parent)}
    return block(number, time_of(number), events, None, None) | hashes


def money(number: int, branch: int, usd: int, name: str = "", **fields: object) -> dict:
    return cash(name or f"c{number}", number, "a", usd, block_hash=branch_hash(number, branch), **fields)


def genesis(depth: int = 64) -> Inputs:
    inputs = Inputs()
    document = parameters_document(RiskParameters(finality_depth_blocks=depth))
    inputs.add_listings([*listings(), event("parameters", "p-1", document=document)])
    for tick in genesis_ticks():
        inputs.add(ORACLE_TICKS, tick)
    inputs.add(ACCOUNT_FILLS, money(0, MAIN, 50))
    inputs.add(CHAIN_BLOCKS, announced(0, MAIN, MAIN))
    return inputs


def main_chain(upto: int, depth: int = 64) -> Inputs:
    """Blocks 0 to `upto` that bring account a 1 USD each, genesis 50."""
    inputs = genesis(depth)
    for number in range(1, upto + 1):
        inputs.add(ACCOUNT_FILLS, money(number, MAIN, 1))
        inputs.add(CHAIN_BLOCKS, announced(number, MAIN, MAIN))
    return inputs


def cash_of(run: Pipeline) -> int:
    return int(run.risks[0].book.cash_usd6[0]) // 10**6


def done_of(run: Pipeline) -> list[tuple[int, int]]:
    """(epoch, block) of every step; -block for a rollback to it."""
    found = [orjson.loads(value) for value in run.values(BLOCKS_DONE)]
    assert [d["halted"] for d in found] == [""] * len(found)
    return [(d.get("epoch", 0), -d["block"] if "rollback_from" in d else d["block"]) for d in found]


def reasons(run: Pipeline) -> list[str]:
    return [orjson.loads(value)["reason"] for value in run.values(QUARANTINE)]


def test_the_branch_announced_last_is_followed_though_it_is_shorter() -> None:
    inputs = main_chain(3)
    inputs.add(ACCOUNT_FILLS, money(2, RIVAL, 100))
    inputs.add(CHAIN_BLOCKS, announced(2, RIVAL, MAIN))
    run = inputs.pipeline(1)
    assert done_of(run) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, -1), (1, 2)]
    assert (cash_of(run), reasons(run)) == (151, [])


def test_announcements_of_a_branch_may_come_in_any_order() -> None:
    inputs = main_chain(3)
    for number in (4, 3, 2):
        inputs.add(ACCOUNT_FILLS, money(number, RIVAL, 100))
        inputs.add(CHAIN_BLOCKS, announced(number, RIVAL, MAIN if number == 2 else RIVAL))
    assert done_of(inputs.pipeline(1))[4:] == [(1, -1), (1, 2), (1, 3), (1, 4)]


def test_an_announcement_that_comes_again_changes_nothing() -> None:
    """Producers send again what they are not sure of: a dead branch is not revived by that."""
    inputs = main_chain(2)
    inputs.add(ACCOUNT_FILLS, money(2, RIVAL, 100))
    inputs.add(CHAIN_BLOCKS, announced(2, RIVAL, MAIN))
    inputs.add(CHAIN_BLOCKS, announced(2, MAIN, MAIN))
    inputs.add(CHAIN_BLOCKS, announced(1, MAIN, MAIN))
    run = inputs.pipeline(1)
    assert done_of(run)[3:] == [(1, -1), (1, 2)]
    assert run.sequencer.intake.repeats == 2


def test_back_to_the_first_branch_by_a_new_block_of_it_once_its_events_came_again() -> None:
    inputs = main_chain(2)
    inputs.add(ACCOUNT_FILLS, money(2, RIVAL, 100))
    inputs.add(CHAIN_BLOCKS, announced(2, RIVAL, MAIN))
    inputs.add(ACCOUNT_FILLS, money(2, MAIN, 1))  # again, before the chain is seen to be back
    inputs.add(ACCOUNT_FILLS, money(3, MAIN, 1))
    inputs.add(CHAIN_BLOCKS, announced(3, MAIN, MAIN))
    run = inputs.pipeline(1)
    assert done_of(run)[3:] == [(1, -1), (1, 2), (2, -1), (2, 2), (2, 3)]
    assert (cash_of(run), reasons(run)) == (53, [])


def test_open_block_that_was_begun_for_another_hash_is_begun_anew() -> None:
    """Its events went into the log before a market tick; then the node changes its mind about the same number."""
    inputs = main_chain(1)
    inputs.add(ACCOUNT_FILLS, cash("plain", 2, "a", 7, time_ms=time_of(1) + 100))
    inputs.add(ORACLE_TICKS, spot("t", "X", time_of(1) + 500, 101))
    assert records.read_header(inputs.pipeline(1).logs[ACCOUNT_LOG, 0][-1]).kind == records.MARKET
    inputs.add(ACCOUNT_FILLS, money(1, RIVAL, 100))
    inputs.add(CHAIN_BLOCKS, announced(1, RIVAL, MAIN))
    inputs.add(ACCOUNT_FILLS, money(2, RIVAL, 1))
    inputs.add(CHAIN_BLOCKS, announced(2, RIVAL, RIVAL))
    run = inputs.pipeline(1)
    assert done_of(run)[2:] == [(1, 0), (1, 1), (1, 2)]
    assert cash_of(run) == 151  # without the 7 of the open block on the branch that was left


def test_events_of_a_dead_branch_that_come_late_are_quarantined_once_it_is_dead_for_good() -> None:
    inputs = main_chain(2, depth=3)
    inputs.add(ACCOUNT_FILLS, money(2, RIVAL, 100))
    inputs.add(CHAIN_BLOCKS, announced(2, RIVAL, MAIN))
    inputs.add(ACCOUNT_FILLS, money(2, MAIN, 5, "late"))
    for number in range(3, 6):
        inputs.add(ACCOUNT_FILLS, money(number, RIVAL, 100))
        inputs.add(CHAIN_BLOCKS, announced(number, RIVAL, RIVAL))
        assert reasons(inputs.pipeline(1)) == ([] if number < 5 else ["block_retracted"])
    assert cash_of(inputs.pipeline(1)) == 451


def test_pending_events_that_name_no_branch_are_of_the_one_that_was_left() -> None:
    inputs = main_chain(2)
    inputs.add(ACCOUNT_FILLS, cash("plain", 3, "a", 7))
    inputs.add(ACCOUNT_FILLS, money(2, RIVAL, 100))
    inputs.add(CHAIN_BLOCKS, announced(2, RIVAL, MAIN))
    assert reasons(inputs.pipeline(1)) == ["block_retracted"]


def test_ticks_taken_for_retracted_blocks_are_taken_again() -> None:
    inputs = main_chain(1)
    inputs.add(ORACLE_TICKS, spot("t", "X", time_of(2) - 500, 123))
    inputs.add(ACCOUNT_FILLS, money(2, MAIN, 1))
    inputs.add(CHAIN_BLOCKS, announced(2, MAIN, MAIN))
    inputs.add(CHAIN_BLOCKS, announced(2, RIVAL, MAIN, 2))
    run = inputs.pipeline(1)
    assert done_of(run)[2:] == [(0, 2), (1, -1)]
    inputs.add(ACCOUNT_FILLS, [money(2, RIVAL, 1), money(2, RIVAL, 2, "x")])
    run = inputs.pipeline(1)
    assert done_of(run)[2:] == [(0, 2), (1, -1), (1, 2)]
    assert run.risks[0].market.spot_usd9[0] == 123 * 10**9


def test_block_whose_parent_is_unknown_waits_for_it() -> None:
    inputs = main_chain(2)
    inputs.add(ACCOUNT_FILLS, money(4, MAIN, 1))
    inputs.add(CHAIN_BLOCKS, announced(4, MAIN, MAIN))
    assert done_of(inputs.pipeline(1))[-1] == (0, 2)
    inputs.add(ACCOUNT_FILLS, money(3, MAIN, 1))
    inputs.add(CHAIN_BLOCKS, announced(3, MAIN, MAIN))
    assert done_of(inputs.pipeline(1))[-1] == (0, 4)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_branch_that_leaves_a_final_block_halts_every_partition(depth: int) -> None:
    """What was done stays, every partition says why it stands still, and nothing is done any more."""
    inputs, leaves = main_chain(6, depth), 6 - depth
    for number in range(leaves, 8):
        inputs.add(CHAIN_BLOCKS, announced(number, RIVAL, MAIN if number == leaves else RIVAL, 0))
    run = inputs.pipeline(2)
    halted = [d for d in map(orjson.loads, run.values(BLOCKS_DONE)) if d["halted"]]
    assert [d["partition"] for d in halted] == [0, 1]
    assert all("are final" in d["halted"] for d in halted)
    assert max(d["block"] for d in map(orjson.loads, run.values(BLOCKS_DONE)) if not d["halted"]) == 6


def test_another_block_with_the_number_of_a_final_one_is_a_conflict() -> None:
    inputs = main_chain(3, depth=2)
    inputs.add(CHAIN_BLOCKS, block(1, time_of(1), 0, None, None) | {"hash": hash_of(77)})
    assert reasons(inputs.pipeline(1)) == ["block_conflict"]
