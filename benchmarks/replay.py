"""Replayed bars per second: the example plan over the real month, through the whole chain with a full journal.

python benchmarks/replay.py [PLAN BARS]
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLAN = ROOT / "examples/plans/breakout.yaml"
BARS = ROOT.parent / "shared/data/btc-perp-2022-01-1m.csv.gz"


def main() -> None:
    """Replay as a user would, and time the whole process."""
    plan, bars = (Path(a) for a in sys.argv[1:3]) if len(sys.argv) > 2 else (PLAN, BARS)
    if not bars.exists():
        print(f"replay: {bars} is not there")
        return
    with gzip.open(bars) as lines:
        count = sum(1 for _ in lines) - 1
    with tempfile.TemporaryDirectory() as folder:
        execkit = Path(sys.executable).with_name("execkit")
        command = [execkit, "replay", plan, "--bars", bars]
        start = time.perf_counter()
        subprocess.run(
            [*command, "--journal", f"{folder}/run.db", "--json"],
            check=True,
            capture_output=True,
        )
        seconds = time.perf_counter() - start
    print(
        f"replay: {count} bars in {seconds:.1f} s, {count / seconds:.0f} bars/s, start-up included"
    )


if __name__ == "__main__":
    main()
