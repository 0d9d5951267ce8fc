"""Writes the generated samples beside itself: `python -m streams.replay.samples.generate [FOLDER]`.

Everything is a function of the seeds and of the recorded chain, so a second run writes the same text.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
from pathlib import Path

from streams.replay.samples import generate_chain, generate_fills, generate_rounds

HERE = Path(__file__).parent


def write(folder: Path, name: str, text: str) -> None:
    """Gzip without time and name, so that equal text gives equal bytes."""
    with (folder / name).open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
        packed.write(text.encode())


def csv_text(rows: list[dict[str, object]]) -> str:
    """Rows of equal keys as CSV text with a header."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def main(folder: Path) -> None:
    for stamp, rows in generate_chain.snapshots(HERE / generate_chain.RECORDED):
        write(folder, f"generated_deribit_options_snapshot_{stamp}.csv.gz", csv_text(rows))
    write(folder, "generated_hyperliquid_node_fills.jsonl.gz", generate_fills.lines())
    eth, staked = generate_rounds.rounds()
    write(folder, "generated_chainlink_ETHUSD_rounds.csv.gz", csv_text(eth))
    write(folder, "generated_chainlink_stETHETH_rounds.csv.gz", csv_text(staked))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
