"""The reader's rule for dense sequences."""

import random

import pytest

from streams.runtime.once import Once


@pytest.mark.parametrize(
    ("records", "verdicts"),
    [
        ([(1, b"a"), (2, b"b")], ["new", "new"]),
        ([(1, b"a"), (1, b"a"), (2, b"b"), (1, b"a")], ["new", "repeat", "new", "repeat"]),
        ([(1, b"a"), (3, b"c")], ["new", "loss"]),
        ([(2, b"b")], ["loss"]),
        ([(1, b"a"), (2, b"b"), (1, b"z")], ["new", "new", "conflict"]),
        ([(1, b"a"), (3, b"c"), (2, b"b"), (3, b"c")], ["new", "loss", "new", "new"]),
    ],
)
def test_verdicts(records, verdicts):
    rule = Once()
    assert [rule.take(*record) for record in records] == verdicts


def test_starts_after_the_last_number_in_the_readers_database():
    rule = Once(last=41)
    assert rule.take(41, b"known from the database, not compared") == "repeat"
    assert rule.take(42, b"next") == "new"


def test_conflicts_are_seen_within_the_window_only():
    rule = Once(window=2)
    assert [rule.take(number, b"x") for number in (1, 2, 3)] == ["new"] * 3
    assert rule.take(2, b"y") == "conflict"
    assert rule.take(1, b"y") == "repeat"
    assert len(rule._recent) == 2


def test_any_interleaving_of_writers_that_start_at_or_below_the_log_gives_the_plain_stream():
    draw = random.Random(5)
    values = [b"%d" % number for number in range(1, 200)]
    log: list[tuple[int, bytes]] = []
    while not log or log[-1][0] < len(values):
        reached = max((number for number, _ in log), default=0)
        start = draw.randint(max(0, reached - 20), reached)
        log += [(number + 1, values[number]) for number in range(start, min(len(values), start + draw.randint(1, 30)))]
    rule = Once()
    taken = [value for number, value in log if rule.take(number, value) == "new"]
    assert taken == values
