"""`python -m tests.bench.spine_workers CONFIG`: the risk workers alone, supervised, over a log made for measuring."""

from __future__ import annotations

import sys
from pathlib import Path

from streams.pipeline.config import read_config
from streams.pipeline.workers import worker_specs
from streams.runtime.notes import introduce
from streams.runtime.supervisor import Supervisor


def main() -> int:
    config = read_config(Path(sys.argv[1]))
    introduce(config.log_format, role="supervisor")
    specs = [spec for spec in worker_specs(config) if spec.name.startswith("risk")]
    return Supervisor(specs, config.folder, session_s=config.session_s).run()


if __name__ == "__main__":
    sys.exit(main())
