"""A person at a command line, in another process."""

import asyncio
import json
import sys

OTHER = """
import json, sys
from datetime import timedelta
from execkit.cli import main
from execkit.clock import SystemClock
now, offset = SystemClock.now, timedelta(seconds=float(sys.argv[1]))
SystemClock.now = lambda clock: now(clock) + offset
for line in sys.stdin:
    try:
        main(json.loads(line), standalone_mode=False)
    except Exception as error:
        print(f"error: {error}")
    print("done", flush=True)
"""
"""Another process, which runs the commands that it is told: starting one for each would take most of the time.

Its clock is that of the stage, because requests are good for some seconds only.
"""


class Terminal:
    """A person at a command line, whose clock is *offset* seconds ahead of the machine's."""

    def __init__(self, journal, offset):
        self.journal = journal
        self.offset = offset

    async def __aenter__(self):
        pipes = dict.fromkeys(("stdin", "stdout"), asyncio.subprocess.PIPE)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", OTHER, str(self.offset)), **pipes
        )
        return self

    async def __aexit__(self, *exc):
        self._process.stdin.close()
        await self._process.wait()

    async def run(self, *command):
        """Run a command; return what it prints."""
        words = [*command, "--journal", str(self.journal)]
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        said = ""
        while True:
            line = (await self._process.stdout.readline()).decode()
            if line == "done\n":
                return said
            assert line, "the other process is gone"
            said += line
