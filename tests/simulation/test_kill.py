"""Real SIGKILLs on a file journal, at seeded points, from a parent that has imported everything."""

import contextlib
import re
import subprocess
import sys

import pytest

from execkit.errors import ExchangeError
from execkit.exchanges.paper import PaperExchange
from execkit.testing.kill import differences, kill_many

KILLS = 300


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_replays_come_to_the_same_end(tmp_path):
    """G1-G10: the same executions and result, no id sent twice, files that agree, and every journal verifies."""
    command = [sys.executable, "-m", "execkit.testing.kill", "--kills", str(KILLS)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=350, check=False, cwd=tmp_path
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = re.match(
        r"(\d+) kills in (\d+) replays, (\d+) in recovery: (\d+) .*, (\d+) ids accepted twice, "
        r"(\d+) sent twice, (\d+) faults in the files",
        done.stdout,
    )
    kills, _, again, *wrong = map(int, figures.groups())
    assert kills >= KILLS
    assert again > KILLS / 10
    assert wrong == [0, 0, 0, 0]


def test_a_resend_is_counted(tmp_path, monkeypatch):
    """A library that sends an order again without looking is found by the venue's file."""
    place = PaperExchange.place_order

    async def twice(self, request):
        report = await place(self, request)
        with contextlib.suppress(ExchangeError):
            await place(self, request)
        return report

    monkeypatch.setattr(PaperExchange, "place_order", twice)
    report = kill_many(1, tmp_path, count=120)
    assert report.resent > 0
    assert report.failures


def test_another_end_is_told():
    """The comparison can fail: other executions, a missing order, and one too many that was no stop."""
    row = ["a", "entry", "buy", "limit", "1", "9", None]
    expected = {"executed": [1], "others": {"a": [row, "cancelled"]}, "positions": [], "pnl": "1"}
    assert differences(expected, expected) == ([], 0)
    found, extra = differences(
        expected,
        {"executed": [], "others": {"b": [row, "cancelled"]}, "positions": [], "pnl": "1"},
    )
    assert extra == 1
    assert [each.split()[0] for each in found] == ["executed", "missing", "unexpected"]
    again = {"s": [["s", "stop", "sell", "stop", "1", None, "8"], "cancelled"]}
    assert differences(expected, expected | {"others": expected["others"] | again}) == ([], 1)
