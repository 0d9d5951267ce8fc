"""`python -m tests.bench SUITE [--json] [--small] [--only WORD]`: run a suite of benchmarks and print its rows."""

from __future__ import annotations

import argparse
import importlib
import sys

from tests.bench.rows import Row, as_json, table

SUITES = {
    "spine": ("spine_throughput", "spine_latency", "spine_recovery"),
    "kernels": (
        "pricing",
        "tables",
        "expected_shortfall",
        "screening",
        "screening_core",
        "scenarios",
        "merkle",
        "compilation",
    ),
    "lifecycle": ("lifecycle",),
    "model": ("model",),
    "surface": ("surface", "surface_factors"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--json", action="store_true", help="the last line of stdout is one JSON object {rows: [...]}")
    parser.add_argument("--small", action="store_true", help="small sizes, for tests: seconds instead of minutes")
    parser.add_argument("--broker", choices=("kafka", "dev"), default="kafka", help="of the spine suite")
    parser.add_argument("--only", default="", help="only the parts whose name contains this word")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for part in SUITES[arguments.suite]:
        if arguments.only not in part:
            continue
        module = importlib.import_module(f"tests.bench.{part}")
        options = {"broker": arguments.broker} if arguments.suite == "spine" else {}
        for row in module.rows(small=arguments.small, **options):
            rows.append(row)
            print(f"{part}: {row.name}: {row.value} {row.unit}", file=sys.stderr, flush=True)
    print(as_json(rows) if arguments.json else "\n".join(table(rows)))
    return 1 if any(row.ok is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
