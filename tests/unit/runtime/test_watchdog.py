"""When a worker counts as standing still."""

import asyncio

import pytest

from streams.runtime import watchdog as watchdog_module
from streams.runtime.watchdog import StallDetector, Watchdog

A, B = ("a", 0), ("b", 1)


def verdicts(detector: StallDetector, *ticks):
    return [detector.observe(now_s, positions, behind) for now_s, positions, behind in ticks]


def test_standing_below_the_end_beyond_the_limit():
    found = verdicts(StallDetector(10, 20), *((now_s, {A: 5}, {A}) for now_s in (0, 1, 11, 12)))
    assert found == [None, None, None, "a/0 stands at 5 below the log's end"]


def test_one_of_two_logs_suffices():
    detector = StallDetector(10, 20)
    found = verdicts(detector, *((now_s, {A: now_s, B: 3}, {A, B}) for now_s in range(13)))
    assert found[:12] == [None] * 12
    assert found[12].startswith("b/1 stands at 3")


@pytest.mark.parametrize("moves", [lambda now_s: now_s, lambda now_s: now_s // 9])
def test_progress_however_slow_is_no_stall(moves):
    assert set(verdicts(StallDetector(10, 20), *((t, {A: moves(t)}, {A}) for t in range(100)))) == {None}


def test_standing_at_the_end_of_a_quiet_log_is_no_stall():
    assert set(verdicts(StallDetector(10, 20), *((t, {A: 5}, set()) for t in range(100)))) == {None}


def test_a_log_that_is_never_restored_is_a_stall():
    assert verdicts(StallDetector(10, 20), *((t, {A: -1}, {A}) for t in (0, 1, 12)))[-1] is not None


def test_a_broker_that_is_away_is_no_stall():
    detector = StallDetector(10, 20)
    verdicts(detector, (0, {A: 5}, {A}), (1, {A: 5}, {A}))
    detector.forget()
    assert verdicts(detector, (30, {A: 5}, {A}), (39, {A: 5}, {A}), (41, {A: 5}, {A})) == [
        None,
        None,
        detector_says(A, 5),
    ]


def detector_says(log, at):
    return f"{log[0]}/{log[1]} stands at {at} below the log's end"


def test_no_assignment_has_its_own_limit_and_can_be_allowed():
    ticks = [(0, {}, set()), (19, {}, set()), (21, {}, set())]
    assert verdicts(StallDetector(10, 20), *ticks) == [None, None, "no assignment"]
    assert verdicts(StallDetector(10, None), *ticks) == [None, None, None]


@pytest.fixture
def deaths(monkeypatch):
    found = []

    def die(reason, exception=None, code=70):
        found.append(reason)
        raise RuntimeError(reason)

    monkeypatch.setattr(watchdog_module, "die", die)
    return found


def test_a_silent_loop_is_noticed_by_the_thread(deaths):
    watchdog = Watchdog(limit_s=0.01, period_s=0.001)
    watchdog.beat_s -= 1
    with pytest.raises(RuntimeError):
        watchdog.run()
    assert deaths == ["event loop silent for 0.01 s"]


async def test_the_loop_reports_and_asks_the_broker(deaths):
    watchdog = Watchdog(limit_s=0.0, period_s=0.001)
    asked = []

    async def behind(positions):
        asked.append(positions)
        if len(asked) == 1:
            raise OSError("away")
        return {A}

    with pytest.raises(RuntimeError):
        await asyncio.wait_for(watchdog.watch(lambda: {A: 7}, behind), 10)
    assert asked[0] == {A: 7}
    assert deaths == [detector_says(A, 7)]
