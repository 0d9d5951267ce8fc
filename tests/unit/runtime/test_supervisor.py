"""The supervisor with real forks: it runs in a process of its own, driven by signals and watched by its files."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from streams.runtime.exits import DRAIN_SIGNAL, DRAINED, FAULT, MEMBERSHIP_LOST, OUTDATED
from streams.runtime.supervisor import BackOff, Supervisor, WorkerSpec
from tests.waiting import block_until

LIMIT_S = 20


def test_back_off_grows_with_short_lives_and_is_forgotten_after_a_long_one():
    back_off = BackOff(session_s=6)
    assert [back_off.after(0.1, -9) for _ in range(8)] == [0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert back_off.after(60, -9) == 0.0
    assert [back_off.after(0.1, FAULT) for _ in range(3)] == [0.0, 0.2, 0.4]


def test_a_lost_membership_waits_for_one_to_two_sessions():
    assert BackOff(6, draw=lambda low, high: low).after(100, MEMBERSHIP_LOST) == 6
    assert BackOff(6, draw=lambda low, high: high).after(100, MEMBERSHIP_LOST) == 12


def test_names_must_differ(tmp_path):
    spec = WorkerSpec("risk-0", lambda: 0)
    with pytest.raises(ValueError, match="differ"):
        Supervisor([spec, spec], tmp_path)


@pytest.fixture
def supervise(tmp_path):
    """Starts a supervisor over workers given as Python source; ends it after the test."""
    started = []

    def start(*, grace_s=10.0, **targets: str):
        program = [
            "import os, signal, sys, time",
            "from streams.runtime.supervisor import Supervisor, WorkerSpec",
            f"sys.path.insert(0, {str(tmp_path)!r})",
        ]
        for name, body in targets.items():
            program += [f"def {name}():", textwrap.indent(textwrap.dedent(body), "    ")]
        specs = ", ".join(f"WorkerSpec({name!r}, {name}, warm=('warmed',))" for name in targets)
        program.append(f"sys.exit(Supervisor([{specs}], {str(tmp_path)!r}, session_s=0.05, grace_s={grace_s}).run())")
        (tmp_path / "warmed.py").write_text("calls = []\ndef warm():\n    calls.append(1)\n")
        process = subprocess.Popen([sys.executable, "-c", "\n".join(program)], stderr=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def pid_of(tmp_path, name):
    path = tmp_path / f"{name}.pid"
    return int(path.read_text()) if path.exists() else None


def said(tmp_path, name):
    path = tmp_path / f"{name}.log"
    return path.read_text().split() if path.exists() else []


def ended(process):
    """The supervisor's notes about lives, after it has ended."""
    notes = [json.loads(line) for line in process.communicate(timeout=LIMIT_S)[1].splitlines()]
    return [(one["worker"], one["code"]) for one in notes if one["event"] == "ended"]


SLEEP = """
    print("born", flush=True)
    signal.pause()
"""


def test_a_killed_worker_lives_again_and_the_other_one_is_not_disturbed(supervise, tmp_path):
    process = supervise(one=SLEEP, two=SLEEP)
    block_until(lambda: said(tmp_path, "one") == ["born"] and said(tmp_path, "two") == ["born"])
    first, other = (block_until(lambda name=name: pid_of(tmp_path, name)) for name in ("one", "two"))
    os.kill(first, signal.SIGKILL)
    block_until(lambda: said(tmp_path, "one") == ["born", "born"])
    block_until(lambda: pid_of(tmp_path, "one") not in (None, first))
    assert pid_of(tmp_path, "two") == other
    process.terminate()
    assert sorted(ended(process)) == [("one", -15), ("one", -9), ("two", -15)]
    assert process.returncode == 0
    assert not list(tmp_path.glob("*.pid"))


def test_each_life_is_forked_from_a_parent_that_has_warmed_once(supervise, tmp_path):
    process = supervise(
        one="""
        import warmed
        print(len(warmed.calls), flush=True)
        warmed.calls.append("in the child only")
        if len(open(os.path.join(sys.path[0], "one.log")).read().split()) < 3:
            return 1
        signal.pause()
        """
    )
    block_until(lambda: said(tmp_path, "one") == ["1", "1", "1"])
    process.terminate()
    assert ended(process) == [("one", 1), ("one", 1), ("one", -15)]


def test_an_exception_is_written_to_the_log_and_the_worker_lives_again(supervise, tmp_path):
    process = supervise(one="raise RuntimeError('broken')")
    block_until(lambda: " ".join(said(tmp_path, "one")).count("RuntimeError: broken") >= 2)
    process.terminate()
    assert set(ended(process)) == {("one", FAULT)}


def test_a_worker_that_ignores_the_signal_is_killed_after_the_grace(supervise, tmp_path):
    process = supervise(one="signal.signal(signal.SIGTERM, signal.SIG_IGN)" + SLEEP.replace("    ", ""), grace_s=0.2)
    block_until(lambda: said(tmp_path, "one"))
    process.terminate()
    assert ended(process) == [("one", -9)]
    assert process.returncode == 1


def test_a_frozen_worker_hears_the_signal_to_stop(supervise, tmp_path):
    process = supervise(one=SLEEP)
    os.kill(block_until(lambda: said(tmp_path, "one") and pid_of(tmp_path, "one")), signal.SIGSTOP)
    process.terminate()
    assert ended(process) == [("one", -15)]


def test_drain_reaches_all_workers_and_a_drained_worker_stays_away(supervise, tmp_path):
    body = f"""
    signal.signal({int(DRAIN_SIGNAL)}, lambda *_: os._exit({DRAINED}))
    print("born", flush=True)
    while True:
        signal.pause()
    """
    process = supervise(one=body, two=body)
    block_until(lambda: said(tmp_path, "one") and said(tmp_path, "two"))
    os.kill(block_until(lambda: pid_of(tmp_path, "one")), DRAIN_SIGNAL)
    block_until(lambda: pid_of(tmp_path, "one") is None)
    process.send_signal(DRAIN_SIGNAL)
    assert ended(process) == [("one", DRAINED), ("two", DRAINED)]
    assert process.returncode == 0


def test_an_outdated_worker_is_not_started_again(supervise, tmp_path):
    process = supervise(one=f"os._exit({OUTDATED})")
    assert ended(process) == [("one", OUTDATED)]


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_workers_die_with_the_supervisor(supervise, tmp_path):
    process = supervise(one=SLEEP)
    block_until(lambda: said(tmp_path, "one"))
    pid = pid_of(tmp_path, "one")
    process.kill()
    process.wait()

    def gone():
        try:
            return "State:\tZ" in open(f"/proc/{pid}/status").read()
        except FileNotFoundError:
            return True

    block_until(gone)
