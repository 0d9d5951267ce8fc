#!/usr/bin/env python3
"""Writes demo.svg, the picture in README: `make picture` (half a minute). The demo's view at the end of its crash.

All but the latencies is the same on every run; for those take a quiet machine.
"""

from __future__ import annotations

import io
import itertools
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from streams.cli.live import LiveView
from streams.cli.running import tapped
from streams.pipeline.run import RunOptions, run_world
from streams.simulate.demo_world import demo_world

TARGET = Path(__file__).parent / "demo.svg"
SEED, BLOCKS, ACCOUNTS, SCENARIOS = 7, 60, 500, 4_096  # what `dpme demo` shows
LAST_BLOCK, BLOCK_MS = 28, 1_000
WIDTH, HEIGHT = 120, 44
# without the web fonts: a picture that asks no other host
FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace("Fira Code, ", "")


def picture() -> str:
    """The view after the crash, everything that followed from it included, as SVG."""
    world = demo_world(SEED, BLOCKS, ACCOUNTS, SCENARIOS)
    seen = replace(world, blocks=itertools.islice(world.blocks, LAST_BLOCK + 1))
    view = LiveView(Console(width=WIDTH, height=HEIGHT, file=io.StringIO(), color_system="truecolor"), world, 1)
    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(data=Path(folder), paced_ms=BLOCK_MS, sink=False, gateway=False)
        run_world(tapped(seen, view.on_block), options, view.listen)
    view.phase = ""
    console = Console(width=WIDTH, height=HEIGHT, file=io.StringIO(), record=True, force_terminal=True)
    console.print(view.render())
    return console.export_svg(title="dpme demo", code_format=FORMAT, unique_id="demo")


if __name__ == "__main__":
    TARGET.write_text(picture())
    print(f"wrote {TARGET}", file=sys.stderr)
