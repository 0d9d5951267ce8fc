"""The live view, as a terminal of 80 and of 120 columns shows it."""

from __future__ import annotations

import io
from typing import Any

import orjson
import pytest
from demo_runs import PARTITIONS, DemoRun
from rich.cells import cell_len
from rich.console import Console

from schemas.margin_batch import decode_batch
from streams.cli.live import LinePrinter, LiveView, bar, count, event_line, nearest
from streams.cli.output import sparkline, usd

KINDS = {"margin.warnings": "margin_warning", "margin.calls": "margin_call", "liquidations": "liquidation"}


def terminal(width: int, height: int) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)


def heard(run: DemoRun, until: int) -> list[tuple[str, dict[str, Any]]]:
    """What the runner tells until a block, in order."""
    found: list[tuple[int, str, dict[str, Any]]] = []
    for topic, kind in KINDS.items():
        for raw in run.pipeline.values(topic):
            found += [(event["block"], kind, event) for event in orjson.loads(raw)["events"]]
    for (topic, partition), log in run.pipeline.logs.items():
        if topic == "margin.batches":
            decoded = [decode_batch(raw) for raw in log]
            found += [(h.block, "batch", {"partition": partition, "table": t, "block": h.block}) for h, t in decoded]
    for block in range(until + 1):
        parts = [d for raw in run.pipeline.values("blocks.done") if (d := orjson.loads(raw))["block"] == block]
        states = {state: sum(part["states"][state] for part in parts) for state in parts[0]["states"]}
        what = {"block": block, "time_ms": parts[0]["time_ms"], "accounts": 60, "states": states}
        found.append((block, "block_done", {**what, "block_ms": 12, "first_ms": 4}))
    return [(kind, what) for block, kind, what in sorted(found, key=lambda f: f[0]) if block <= until]


def shown(run: DemoRun, until: int, width: int, height: int) -> list[str]:
    console = terminal(width, height)
    view = LiveView(console, run.world, workers=3)
    for inputs in run.inputs[: until + 1]:
        view.on_block(inputs)
    for kind, what in heard(run, until):
        view.listen(kind, what)
    with console.capture() as capture:
        console.print(view.render())
    return capture.get().rstrip("\n").split("\n")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 20), (200, 60)])
def test_frame_fits_the_terminal(demo_run: DemoRun, width: int, height: int) -> None:
    lines = shown(demo_run, 30, width, height)
    assert max(map(cell_len, lines)) <= width
    assert len(lines) < height or height < 24


def test_frame_tells_prices_states_counts_and_events(demo_run: DemoRun) -> None:
    text = "\n".join(shown(demo_run, 30, 120, 40))
    fills = sum(type(event).__name__ == "Fill" for inputs in demo_run.inputs[:31] for event in inputs.events)
    for expected in ("block 30/44", "UTC", "BTC ", "ETH ", "SOL ", f"{fills:,} fills", "60 accounts", "3 risk workers"):
        assert expected in text
    for expected in ("4 ms median", "LIQUIDATE", "healthy", "near their line", "█"):
        assert expected in text
    assert "USDC" not in text  # it stands at one dollar


def test_before_the_first_block_the_phase_is_shown(demo_run: DemoRun) -> None:
    console = terminal(80, 24)
    view = LiveView(console, demo_run.world, 1)
    view.listen("phase", {"name": "starting the broker"})
    with console.capture() as capture:
        console.print(view.render())
    assert "starting the broker ..." in capture.get()


def test_nearest_are_those_least_above_their_next_line(demo_run: DemoRun) -> None:
    _, table = decode_batch(demo_run.pipeline.logs["margin.batches", 0][30])
    rows = table.to_pylist()
    expected = []
    for row in rows:
        line = row["initial_margin_usd6"] if row["state"] == 0 else row["maintenance_margin_usd6"]
        if row["state"] in (0, 1) and line > 0:
            expected.append((row["nlv_usd6"] / line - 1, row["account"], "MM" if row["state"] else "IM"))
    found = [(near.distance, near.account, near.line) for near in nearest(table, 5)]
    assert found == sorted(expected)[:5]
    assert all(distance >= 0 for distance, _, _ in found)
    assert len(nearest(table, 1_000)) == len(expected)


def test_counts_agree_with_the_engine(demo_run: DemoRun) -> None:
    counts = dict.fromkeys(("warnings", "calls", "releases", "liquidations"), 0)
    for kind, what in heard(demo_run, 44):
        count(counts, kind, what)
    done = [orjson.loads(raw) for raw in demo_run.pipeline.values("blocks.done")]
    assert counts["warnings"] == sum(record["warnings"] for record in done)
    assert sum(record["calls"] for record in done) == counts["calls"] + counts["releases"] + counts["liquidations"]
    assert min(counts.values()) > 0


def test_events_in_one_line(demo_run: DemoRun) -> None:
    for kind, what in heard(demo_run, 44):
        if kind in KINDS.values():
            line = event_line(kind, what).plain
            assert "\n" not in line
            assert what["account"] in line


def test_plain_lines_where_there_is_no_terminal(demo_run: DemoRun) -> None:
    file = io.StringIO()
    printer = LinePrinter(Console(file=file, width=80), demo_run.world)
    printer.on_block(demo_run.inputs[0])
    printer.on_block(demo_run.inputs[1])
    for kind, what in heard(demo_run, 1):
        printer.listen(kind, what)
    lines = file.getvalue().splitlines()
    assert sum("done" in line for line in lines) == 2
    assert "\x1b" not in file.getvalue()
    assert any(line.strip().startswith("0 CALL") for line in lines)
    assert len(demo_run.pipeline.risks) == PARTITIONS


@pytest.mark.parametrize(
    ("distance", "filled"), [(-0.1, 1), (0.0, 1), (0.05, 5), (0.1, 10), (7.0, 10)]
)  # fmt: skip
def test_bar_is_full_at_its_reach(distance: float, filled: int) -> None:
    assert bar(distance, 10) == "█" * filled + "░" * (10 - filled)


def test_sparkline_spans_its_values() -> None:
    assert sparkline([1.0, 2.0, 3.0, 2.0, 1.0], 3) == "▁█▁"
    assert sparkline([float(n) for n in range(100)], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([5.0, 5.0], 10) == "▁▁"


@pytest.mark.parametrize(
    ("amount_usd6", "said"),
    [(0, "0.00"), (-4_000, "0.00"), (12_345_678, "12.35"), (-99_500_000, "-99.50"), (1_234_567_890_000, "1,234,568")],
)
def test_money_for_people(amount_usd6: int, said: str) -> None:
    assert usd(amount_usd6) == said
