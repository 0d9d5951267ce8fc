"""The live view of a run: a header with prices and latency, accounts near their line, events as they happen.

Where stdout is no terminal the same comes as plain lines.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from streams.cli.output import moment, percent, plural, price, short_name, sparkline, state_text, usd

if TYPE_CHECKING:
    from streams.replay.world import BlockInputs, World

REFRESH_PER_SECOND = 8
PRICES_KEPT = 240
EVENTS_KEPT, EVENTS_SHOWN_MIN = 100, 3
FRAME_LINES = 9  # header with its frame, headings, and the last line, which stays free
ACCOUNTS_SHOWN = (5, 12)
BAR_REACH, BAR_WIDTHS = 0.10, (10, 30)  # the bar is full at 10 % above the line; narrow and wide terminals
PRICE_WIDTH, SPARK_MINIMUM = 24, 5
WIDE = 100
HEALTHY, MARGIN_CALL = 0, 1
INDICES_SHOWN = 4
EVENT_KINDS = {"margin_warning": "warnings", "margin_call": "calls", "liquidation": "liquidations"}
COUNTED = ("warnings", "calls", "releases", "liquidations")


class Near(NamedTuple):
    """An account above its next line: IM for healthy ones, MM for those called."""

    account: str
    state: str
    line: str
    distance: float
    nlv_usd6: int
    line_usd6: int


class Prices:
    """Index prices of a world, from its own ticks."""

    def __init__(self) -> None:
        self.first: dict[str, int] = {}
        self.history: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=PRICES_KEPT))

    def take(self, inputs: BlockInputs) -> None:
        for tick in inputs.ticks:
            if not isinstance(tick, dict) and type(tick).__name__ == "SpotTick":
                name, usd9 = tick.underlying, tick.price_usd9  # type: ignore[attr-defined]
                self.first.setdefault(name, usd9)
                self.history[name].append(usd9)

    def changes(self) -> dict[str, float]:
        """Change of every index since the beginning."""
        return {name: prices[-1] / self.first[name] - 1 for name, prices in self.history.items()}

    def shown(self) -> dict[str, float]:
        """Changes of those that a line has room for; a stablecoin only when it has left one dollar."""
        moved = {n: c for n, c in self.changes().items() if abs(c) >= 0.005 or not 0.9 < self.first[n] / 1e9 < 1.1}
        return dict(list(moved.items())[:INDICES_SHOWN])

    def line(self, width: int) -> Text:
        """Indices with their change since the beginning, and their path where there is room."""
        text = Text(no_wrap=True, overflow="ellipsis")
        shown = self.shown()
        spark_width = min(width // max(len(shown), 1) - PRICE_WIDTH, PRICES_KEPT)
        for name, change in shown.items():
            prices = self.history[name]
            style = "green" if change >= 0 else "red"
            text.append(f"{name} ", "bold").append(price(prices[-1])).append(f" {percent(change)} ", style)
            if spark_width >= SPARK_MINIMUM:
                text.append(sparkline([float(p) for p in prices], spark_width), style)
            text.append("  ")
        return text


def nearest(table: Any, count: int) -> list[Near]:
    """The `count` accounts of a margin batch (Arrow table) that stand least above their next line, by share of it."""
    state = table.column("state").to_numpy()
    nlv = table.column("nlv_usd6").to_numpy()
    initial, maintenance = (table.column(f"{n}_margin_usd6").to_numpy() for n in ("initial", "maintenance"))
    line = np.where(state == HEALTHY, initial, maintenance)
    chosen = (state <= MARGIN_CALL) & (line > 0)
    distance = np.divide(nlv, line, out=np.full(len(nlv), np.inf), where=chosen) - 1.0
    found = []
    for at in np.argsort(distance, kind="stable")[:count].tolist():
        if chosen[at]:
            state_name, line_name = (("healthy", "IM"), ("margin_call", "MM"))[state[at]]
            account = table.column("account")[at].as_py()
            found.append(Near(account, state_name, line_name, float(distance[at]), int(nlv[at]), int(line[at])))
    return found


def event_line(kind: str, event: dict[str, Any], width: int = WIDE) -> Text:
    """One event for people, in one line."""
    text = Text(f"{event['block']:>6} ", "dim", no_wrap=True, overflow="ellipsis")
    if kind == "retraction":
        return text.append("retracted ", "dim").append(event["retracts"], "dim")
    margin, name = event["margin"], f"{short_name(event['account']):<12} "
    if kind == "margin_warning":
        text.append("warning   ", "yellow").append(name, "bold")
        text.append(f"crossed {event['line']} on a {event['trigger']}: NLV {usd(margin['nlv_usd6'])}")
        line = "initial" if event["line"] == "IM" else "maintenance"
        return text.append(f" < {usd(margin[f'{line}_margin_usd6'])}")
    if kind == "liquidation":
        text.append("LIQUIDATE ", "bold red").append(name, "bold")
        return text.append(f"shortfall {usd(event['shortfall_usd6'])}, {plural(len(event['positions']), 'position')}")
    return _call_line(text, name, event, width)


def _call_line(text: Text, name: str, event: dict[str, Any], width: int) -> Text:
    margin, to_state = event["margin"], event["to"]
    if to_state == "healthy":
        text.append("released  ", "green").append(name, "bold")
        return text.append(f"NLV {usd(margin['nlv_usd6'])} ≥ IM {usd(margin['initial_margin_usd6'])}")
    text.append({"margin_call": "CALL      "}.get(to_state, "flagged   "), "red").append(name, "bold")
    text.append_text(state_text(to_state)).append(f": NLV {usd(margin['nlv_usd6'])}")
    cure = event.get("cure")
    if to_state == "margin_call" and cure:
        text.append(f", deposit {usd(cure['deposit_usd6'])}")
        if width >= WIDE:
            text.append(f" or close {cure['close_fraction_e6'] / 10_000:.1f} %")
    return text


class LiveView:
    """A rich Live display; enter it, then feed `on_block` and `listen`."""

    def __init__(self, console: Console, world: World, workers: int) -> None:
        self.console, self.world, self.workers = console, world, workers
        self.prices = Prices()
        self.phase = "starting"
        self.done: dict[str, Any] = {}
        self.blocks = 0
        self.fills = 0
        self.counts = dict.fromkeys(COUNTED, 0)
        self.events: deque[tuple[str, dict[str, Any]]] = deque(maxlen=EVENTS_KEPT)
        self.tables: dict[int, Any] = {}
        self.call_ms: deque[int] = deque(maxlen=600)
        self.live = Live(
            get_renderable=self.render, console=console, refresh_per_second=REFRESH_PER_SECOND, transient=True
        )

    def __enter__(self) -> LiveView:
        self.live.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.live.__exit__(*raised)
        if self.done:
            self.console.print(self._header())

    # -- what happens

    def on_block(self, inputs: BlockInputs) -> None:
        """The inputs of a block are being sent."""
        self.prices.take(inputs)
        self.fills += sum(type(event).__name__ == "Fill" for event in inputs.events)

    def listen(self, kind: str, what: dict[str, Any]) -> None:
        """Something came out of the pipeline."""
        if count(self.counts, kind, what) or kind == "retraction":
            self.events.append((kind, what))
        elif kind == "phase":
            self.phase = what["name"]
        elif kind == "batch":
            self.tables[what["partition"]] = what["table"]
        elif kind == "block_done":
            self.done, self.phase = what, ""
            self.blocks += 1
            if what["first_ms"] is not None:
                self.call_ms.append(what["first_ms"])

    # -- what is seen

    def render(self) -> RenderableType:
        """Everything, in the room there is."""
        if not self.done:
            return Text.assemble(("DPME demo  ", "bold"), f"{self.phase} ...")
        room = self.console.height - FRAME_LINES
        accounts = min(max(room // 3, ACCOUNTS_SHOWN[0]), ACCOUNTS_SHOWN[1])
        return Group(self._header(), self._accounts(accounts), self._happened(max(room - accounts, EVENTS_SHOWN_MIN)))

    def _header(self) -> RenderableType:
        done = self.done
        of = f"/{self.world.block_count - 1}" if self.world.block_count < 10**6 else ""
        title = Text.assemble(("DPME demo", "bold"), f"  block {done['block']}{of}  {moment(done['time_ms'])} UTC")
        states = done["states"]
        line = Text(no_wrap=True, overflow="ellipsis")
        for state, count in states.items():
            line.append_text(state_text(state)).append(f" {count:,}  ")
        counters = f"{self.fills:,} fills  " + "  ".join(f"{n:,} {name}" for name, n in self.counts.items())
        body = Group(self.prices.line(self.console.width - 4), line, Text(counters), self._latency())
        return Panel(body, title=title, title_align="left", border_style="blue")

    def _latency(self) -> Text:
        size = f"{self.done['accounts']:,} accounts, {self.world.scenario_set.size:,} scenarios"
        text = Text(size, no_wrap=True, overflow="ellipsis")
        if self.console.width >= WIDE:
            text.append(f", {plural(self.workers, 'risk worker')}")
        if self.call_ms:
            median = sorted(self.call_ms)[len(self.call_ms) // 2]
            text.append("  barrier to call ").append(f"{median} ms", "bold cyan").append(" median, block ")
            text.append(f"{self.done['block_ms']} ms", "bold cyan")
        return text if not self.phase else text.append(f"  {self.phase} ...")

    def _accounts(self, count: int) -> RenderableType:
        """Distance of the nearest accounts to their next line."""
        width = BAR_WIDTHS[self.console.width >= WIDE]
        table = Table(box=None, pad_edge=False, expand=False, header_style="dim")
        table.add_column("near their line", no_wrap=True)
        table.add_column("state", no_wrap=True, min_width=11)
        for name in ("NLV", "line"):
            table.add_column(name, justify="right", no_wrap=True, min_width=8)
        table.add_column("", no_wrap=True)
        table.add_column("above", justify="right", no_wrap=True, min_width=8)
        table.add_column("", no_wrap=True)
        near = [found for part in self.tables.values() for found in nearest(part, count)]
        for found in sorted(near, key=lambda n: (n.distance, n.account))[:count]:
            style = "yellow" if found.state == "margin_call" else "green"
            table.add_row(
                short_name(found.account), state_text(found.state), usd(found.nlv_usd6), usd(found.line_usd6),
                found.line, percent(found.distance, 2), Text(bar(found.distance, width), style),
            )  # fmt: skip
        return table

    def _happened(self, count: int) -> RenderableType:
        shown = list(self.events)[-count:]
        lines = [event_line(kind, event, self.console.width) for kind, event in shown]
        return Group(Text(" block  what happened", "dim"), *lines)


def count(counts: dict[str, int], kind: str, event: dict[str, Any]) -> bool:
    """Count an event of the pipeline under its name (flags are counted as the liquidations they become)."""
    if kind not in EVENT_KINDS:
        return False
    if kind != "margin_call":
        counts[EVENT_KINDS[kind]] += 1
    elif event["to"] in ("margin_call", "healthy"):
        counts["calls" if event["to"] == "margin_call" else "releases"] += 1
    return True


def bar(distance: float, width: int) -> str:
    """Filled in proportion to the distance; full at BAR_REACH, one cell at least."""
    filled = max(1, min(width, round(distance / BAR_REACH * width)))
    return "█" * filled + "░" * (width - filled)


class LinePrinter:
    """The same as plain lines, for pipes and logs."""

    def __init__(self, console: Console, world: World) -> None:
        self.console, self.world = console, world
        self.prices = Prices()
        self.counts = dict.fromkeys(COUNTED, 0)

    def on_block(self, inputs: BlockInputs) -> None:
        self.prices.take(inputs)

    def listen(self, kind: str, what: dict[str, Any]) -> None:
        if count(self.counts, kind, what) or kind == "retraction":
            self._say(event_line(kind, what).plain)
        elif kind == "phase":
            self._say(what["name"])
        elif kind == "block_done":
            changes = ", ".join(f"{name} {percent(change)}" for name, change in self.prices.changes().items())
            counts = ", ".join(f"{n} {name}" for name, n in self.counts.items())
            self._say(f"{what['block']:>6} done      {changes}; {counts}; block {what['block_ms']} ms")

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)
