"""A real month of minutes: every close of five timeframes fires once, and each bar is what pandas makes of the file."""

import gzip
import os
from datetime import UTC, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from tests.support.recorded import RecordedVenue

from execkit.bars import detector as detector_module
from execkit.bars.detector import BarCloseDetector
from execkit.bars.feed import BarFeed
from execkit.bars.reader import BarFileSpec, read_bars
from execkit.bars.sessions import AlwaysOpen
from execkit.model.market import Timeframe
from execkit.virtual_time import run_virtual

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("EXECKIT_SHARED_DATA", ROOT.parent / "shared" / "data"))
FILE = SHARED / "btc-perp-2022-01-1m.csv.gz"
FRAMES = [Timeframe.M1, Timeframe.M5, Timeframe.M15, Timeframe.H1, Timeframe.D1]
RULES = {"1m": "1min", "5m": "5min", "15m": "15min", "1h": "1h", "1d": "1D"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FILE.exists(), reason=f"{FILE} is not there; set EXECKIT_SHARED_DATA to its directory"
    ),
]


def by_pandas(pandas, rule):
    """Resample the file, with nothing of execkit: exact decimals in columns of objects."""
    with gzip.open(FILE, "rt") as file:
        frame = pandas.read_csv(file, dtype=str)
    index = pandas.to_datetime(frame["timestamp"], utc=True)
    table = frame[["open", "high", "low", "close", "volume"]].map(Decimal)
    table["volume"] = [v / c for v, c in zip(table["volume"], table["close"], strict=True)]
    table["volume"] = table["volume"].map(lambda v: v.quantize(Decimal("1e-8")))
    table.index = pandas.DatetimeIndex(index)
    ways = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    made = table if rule == "1min" else table.groupby(table.index.ceil(rule)).agg(ways)
    # The first window began before the file and the last ends after it, unless they fit.
    step = pandas.Timedelta(rule)
    whole = (made.index - step >= index.iloc[0] - pandas.Timedelta("1min")) & (
        made.index <= index.iloc[-1]
    )
    return [
        (at.to_pydatetime(), *row)
        for at, row in zip(made.index[whole], made[whole].itertuples(index=False), strict=True)
    ]


def test_every_close_of_the_month_fires_once_with_the_right_bar(monkeypatch):
    """45,031 minutes through feed and detector: each close once, in order, equal to the last digit."""
    pandas = pytest.importorskip("pandas")
    monkeypatch.setattr(detector_module, "_HEARTBEAT", 60.0)  # no clock is set in this month
    spec = BarFileSpec(symbol="BTC/USDT", label="close", timezone="UTC", volume_unit="quote")
    recorded = list(read_bars(FILE, spec))
    events = []

    async def main(clock):
        venue = RecordedVenue(clock, recorded, delay=0.02)
        feed = BarFeed(venue, ["BTC/USDT"], timeframes=FRAMES, clock=clock, backfill=0)
        detector = BarCloseDetector(feed, clock=clock)
        feed.on_data = detector.deliver
        detector.watch("BTC/USDT", FRAMES, events.append)
        await feed.start()
        await detector.start()
        await clock.sleep_until(recorded[-1].close_time + timedelta(seconds=1))
        await detector.stop()
        await feed.stop()
        assert feed.findings == 0
        return detector.stats

    start = recorded[0].open_time + timedelta(seconds=1)
    stats = run_virtual(main, start=start)
    assert (stats.skipped, stats.failures, stats.late) == (0, 0, 0)
    assert stats.max <= timedelta(milliseconds=21)
    hours, end = AlwaysOpen(), recorded[-1].close_time
    for frame in FRAMES:
        mine = [event for event in events if event.timeframe is frame]
        assert [e.close_time for e in mine] == list(hours.closes(frame, start, end))
        seen = [
            (b.close_time, b.open, b.high, b.low, b.close, b.volume)
            for b in (event.bar for event in mine)
            if b is not None
        ]
        wanted = by_pandas(pandas, RULES[str(frame)])
        assert len(wanted) > 25
        assert seen == wanted
        digits = [str(row[5]) for row in seen]
        assert digits == [str(row[5]) for row in wanted]
    assert all(event.close_time.tzinfo is UTC for event in events)
