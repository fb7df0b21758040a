"""Run every benchmark, one after the other; each prints its own figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = ("journal.py", "orders.py", "replay.py", "bar_close.py", "binance.py", "emergency.py")


def main() -> None:
    """Run them; the first that fails ends the run."""
    for script in SCRIPTS:
        print(f"== {script}", flush=True)
        subprocess.run([sys.executable, str(Path(__file__).with_name(script))], check=True)


if __name__ == "__main__":
    main()
