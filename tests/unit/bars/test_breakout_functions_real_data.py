"""A month of real bars: when the three built-in functions must fire, worked out a second time in plain code.

Nothing below the line "plain code" uses execkit: the file is read by `csv`, times are whole minutes, and every number
is a `Fraction`.
"""

import csv
import gzip
import os
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from execkit.bars.reader import BarFileSpec, read_bars
from execkit.virtual_time import run_virtual

ROOT = Path(__file__).parents[3]
SHARED = Path(os.environ.get("EXECKIT_SHARED_DATA", ROOT.parent / "shared" / "data"))
FILE = SHARED / "btc-perp-2022-01-1m.csv.gz"

pytestmark = pytest.mark.skipif(
    not FILE.exists(), reason=f"{FILE} is not there; set EXECKIT_SHARED_DATA to its directory"
)

ENTRY = [
    ("close_above", "15m", {"threshold_price": 44000, "min_volume": 600}),
    ("close_above", "1h", {"threshold_price": 42500, "min_volume": 2500}),
    ("close_below", "4h", {"threshold_price": 36500}),
]
EXIT = [
    ("trailing_stop", "1m", {"trail_percentage": Decimal("1.2")}),
    ("trailing_stop", "5m", {"trail_percentage": Decimal("0.8"), "activation_price": 45000}),
    ("close_below", "15m", {"threshold_price": 42300}),
    ("close_above", "1h", {"threshold_price": 35600}),
]


def test_functions_fire_exactly_when_they_must(desk, plan):
    """Every evaluation, action, confidence and order over 45,031 bars equals the independent computation."""
    spec = BarFileSpec(
        symbol="BTC/USDT", label="close", timezone="UTC", timeframe="1m", volume_unit="quote"
    )
    runner = desk.runner(plan(ENTRY, EXIT))

    async def replay(_clock):
        await desk.feed(runner, *read_bars(FILE, spec))

    run_virtual(replay)
    seen = [
        (minute_of(close.close_time), d.function, close.timeframe, d.action, Fraction(d.confidence))
        for close in desk.closes
        for d in close.decisions
        if not d.skipped
    ]
    wanted = Plain().run()
    assert len(wanted) > 20_000
    assert seen == wanted
    fired = Counter((function, frame) for _, function, frame, action, _ in seen if action != "none")
    assert set(fired) == {(function, frame) for function, frame, _ in ENTRY + EXIT}
    orders = [row for row in wanted if row[3] != "none"]
    assert [signal.signal_id.split("|")[1:4:2] for signal in desk.submitted] == [
        [function, frame] for _, function, frame, _, _ in orders
    ]
    assert [signal.strength for signal in desk.submitted] == [100 * row[4] for row in orders]


def minute_of(at):
    """Minutes since 1970."""
    return int(at.timestamp()) // 60


# --- plain code ---------------------------------------------------------------------------------------

MINUTES = {"1m": 1, "5m": 5, "15m": 15, "1h": 60, "4h": 240}


class Bar:
    def __init__(self, opens, closes, o, h, low, c, v):
        self.opens, self.closes = opens, closes
        self.o, self.h, self.low, self.c, self.v = o, h, low, c, v


def read_minutes():
    """Yield minute bars; volumes become base units, rounded to 8 places."""
    with gzip.open(FILE, "rt", newline="") as file:
        for row in csv.DictReader(file):
            at = datetime.strptime(row["timestamp"], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
            o, h, low, c, v = (Fraction(row[k]) for k in ("open", "high", "low", "close", "volume"))
            closes = minute_of(at)
            yield Bar(closes - 1, closes, o, h, low, c, round(v / c, 8))


class Plain:
    """The plan's rules, spelled out."""

    def __init__(self):
        self.bars = {frame: [] for frame in MINUTES}
        self.parts = {frame: [] for frame in MINUTES}
        self.started = False
        self.rows = []
        self.side = 0
        self.entry = None
        self.opened = None
        self.best = None

    def run(self):
        for minute in read_minutes():
            closed = self.grow(minute)
            if self.side:
                # Opened at a close, so every later minute lies wholly after the entry.
                self.best = (
                    max(self.best, minute.h) if self.side > 0 else min(self.best, minute.low)
                )
            rules = EXIT if self.side else ENTRY
            held = self.side
            for frame in closed:
                for function, rule_frame, parameters in rules:
                    if rule_frame == frame and self.side == held:
                        self.ask(function, frame, parameters, held)
        return self.rows

    def grow(self, minute):
        """Add a minute to all frames; return those that it finishes, shortest first."""
        closed = []
        for frame, length in MINUTES.items():
            parts = self.parts[frame]
            parts.append(minute)
            if minute.closes % length == 0:
                if parts[0].opens % length == 0:
                    volume = sum(p.v for p in parts)
                    self.bars[frame].append(
                        Bar(
                            parts[0].opens,
                            minute.closes,
                            parts[0].o,
                            max(p.h for p in parts),
                            min(p.low for p in parts),
                            minute.c,
                            volume,
                        )
                    )
                    closed.append(frame)
                self.parts[frame] = []
        return closed

    def ask(self, function, frame, parameters, held):
        bars = self.bars[frame]
        bar = bars[-1]
        action, confidence = "none", Fraction(0)
        if function == "trailing_stop":
            trail = Fraction(parameters["trail_percentage"]) / 100
            start = parameters.get("activation_price")
            active = start is None or (self.best >= start if held > 0 else self.best <= start)
            hit = bar.c <= self.best * (1 - trail) if held > 0 else bar.c >= self.best * (1 + trail)
            if active and hit:
                action, confidence = "exit", Fraction(1)
        else:
            sign = 1 if function == "close_above" else -1
            beyond = sign * (bar.c - parameters["threshold_price"])
            if beyond > 0 and bar.v >= parameters.get("min_volume", 0):
                if not held:
                    action = "enter_long" if sign > 0 else "enter_short"
                elif held != sign:
                    action = "exit"
                if action != "none":
                    confidence = self.confidence(bars, beyond)
        self.rows.append((bar.closes, function, frame, action, confidence))
        if action == "exit":
            self.side, self.best = 0, None
        elif action != "none":
            self.side = 1 if action == "enter_long" else -1
            self.best = bar.c

    @staticmethod
    def confidence(bars, beyond):
        """0.5 + up to 0.25 for volume over its 20-bar mean + up to 0.25 for the distance in ATR(14)."""
        total, quarter = Fraction(1, 2), Fraction(1, 4)
        before = [b.v for b in bars[-21:-1]]
        if before and sum(before):
            total += min(1, max(0, bars[-1].v / (sum(before) / len(before)) - 1)) * quarter
        ranges = []
        for place in range(max(0, len(bars) - 14), len(bars)):
            b = bars[place]
            if place == 0:
                ranges.append(b.h - b.low)
            else:
                c = bars[place - 1].c
                ranges.append(max(b.h - b.low, abs(b.h - c), abs(b.low - c)))
        if sum(ranges):
            total += min(1, beyond / (sum(ranges) / len(ranges))) * quarter
        return round(total, 4)
