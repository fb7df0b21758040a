"""The paper exchange's own file: what was answered is kept, and damage is never traded on."""

import os
import random
import signal
import stat
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

from execkit.clock import ManualClock
from execkit.errors import (
    ConfigurationError,
    JournalAccountError,
    JournalCorruptedError,
    JournalLockedError,
    JournalVersionError,
    NotSentError,
)
from execkit.exchanges import paper_ledger
from execkit.exchanges.paper import PaperExchange
from execkit.exchanges.snapshots import snapshot
from execkit.model.instrument import Instrument
from execkit.model.market import Timeframe
from execkit.model.order import ListKind, OrderList, OrderState, Side
from execkit.testing.factories import START, SYMBOL, make_bar, make_quote, make_request


@pytest.fixture
def path(tmp_path):
    return tmp_path / "orders.db.paper"


def paper(path, **options):
    defaults = {
        "balances": {"USDT": 10_000},
        "prices": {SYMBOL: 100},
        "clock": ManualClock(START),
        "storage": path,
    }
    return PaperExchange(**(defaults | options))


async def trade_a_little(exchange):
    await exchange.place_order(make_request("a"))
    await exchange.place_order(make_request("b", limit=90))
    await exchange.place_order(make_request("c", limit=80))
    await exchange.cancel_order(SYMBOL, client_order_id="c")
    await exchange.amend_order(SYMBOL, client_order_id="b", quantity=Decimal(2))
    exchange.feed_quote(make_quote(100, 101, seconds=1, ask_size=5))
    exchange.feed_bar(make_bar(1, 100, 105, 85, 101))
    with pytest.raises(Exception, match="used before"):
        await exchange.place_order(make_request("a"))


async def test_a_list_survives_a_restart(path):
    """Whether it is in the journal of the account or in its snapshot: the target still ends the stop."""
    async with paper(path, native_oco=True) as first:
        await first.place_order(make_request("entry"))
        legs = (
            make_request("stop", side=Side.SELL, stop=90),
            make_request("target", side=Side.SELL, limit=110),
        )
        await first.place_list(OrderList(list_id="list", kind=ListKind.OCO, orders=legs))
        before = snapshot(first.core)
    for _ in range(2):
        async with paper(path, native_oco=True) as again:
            assert snapshot(again.core) == before
    async with paper(path, native_oco=True) as last:
        last.feed_quote(make_quote(111, 112, seconds=1))
        stop = await last.get_order(SYMBOL, client_order_id="stop")
        assert (stop.status, stop.filled) == (OrderState.CANCELLED, 0)
        assert (await last.positions()) == []


async def test_account_survives_a_restart(path):
    """Orders, fills, balances, positions, prices and the last bar are as they were, to the byte."""
    async with paper(path) as first:
        await trade_a_little(first)
    async with paper(path, balances={"USDT": 1}, prices={SYMBOL: 7}) as second:
        assert snapshot(second.core) == snapshot(first.core)
        assert (await second.balances())["BTC"].total == 3
        assert second.last_bar(SYMBOL, Timeframe.M1) == make_bar(1, 100, 105, 85, 101)
        assert (await second.get_order(SYMBOL, client_order_id="b")).status is OrderState.FILLED


async def test_account_survives_without_being_closed(path):
    """Nothing is written at the end only: another process that takes over knows everything."""
    first = paper(path)
    await first.connect()
    await trade_a_little(first)
    state = snapshot(first.core)
    first._ledger.close()
    async with paper(path) as second:
        assert snapshot(second.core) == state


async def test_reopening_compacts(path):
    """Inputs become a snapshot, so that starting does not get slower from day to day."""
    async with paper(path) as exchange:
        await trade_a_little(exchange)
        assert len(path.read_bytes().splitlines()) > 8
    async with paper(path):
        assert len(path.read_bytes().splitlines()) == 2


async def test_new_settings_hold_from_the_restart_on(path):
    """What happened is replayed under the old rules, what comes goes by the new ones."""
    async with paper(path) as first:
        await first.place_order(make_request("a"))
    rules = Instrument.default(SYMBOL, taker_fee=Decimal("0.01"))
    options = {"instruments": [rules], "spread_bps": 20, "allow_short": True}
    async with paper(path, prices={SYMBOL: 5, "ETH/USDT": 10}, **options) as second:
        assert second.core.fills[0].fee == Decimal("0.1")
        fill = (await second.place_order(make_request("b", side=Side.SELL, quantity=2))).fills[0]
        assert (fill.price, fill.fee) == (Decimal("99.90"), Decimal("1.998"))
        assert (await second.ticker("ETH/USDT")).last == 10


async def test_file_is_for_its_owner_only(path):
    """Mode 0600, for the ledger and its lock."""
    async with paper(path):
        for each in (path, Path(f"{path}.lock")):
            assert stat.S_IMODE(each.stat().st_mode) == 0o600


async def test_torn_last_line_is_cut(path):
    """Half a line was never answered; everything before it holds."""
    async with paper(path) as first:
        await first.place_order(make_request("a"))
        state = snapshot(first.core)
        await first.place_order(make_request("b"))
    whole = path.read_bytes()
    last = len(whole) - len(whole.splitlines(keepends=True)[-1])
    for cut in (1, len(whole) - last - 1):
        path.write_bytes(whole[:-cut])
        async with paper(path) as second:
            assert snapshot(second.core) == state


@pytest.mark.parametrize("damage", ["flip", "drop", "swap", "no snapshot", "empty", "not ours"])
async def test_damage_is_refused_with_its_place(path, damage):
    """Any other damage refuses to trade and names file and line."""
    async with paper(path) as exchange:
        await trade_a_little(exchange)
    lines = path.read_bytes().splitlines(keepends=True)
    if damage == "flip":
        lines[3] = lines[3].replace(b'"1"', b'"2"')
    elif damage == "drop":
        del lines[3]
    elif damage == "swap":
        lines[3], lines[4] = lines[4], lines[3]
    elif damage == "no snapshot":
        del lines[1:]
    elif damage == "not ours":
        lines = [b"SQLite format 3\n"]
    else:
        lines = []
    path.write_bytes(b"".join(lines))
    place = "line 4" if damage in ("flip", "drop", "swap") else str(path)
    with pytest.raises(JournalCorruptedError, match=place):
        await paper(path).connect()
    assert path.read_bytes() == b"".join(lines), "damaged evidence is left as it is"


def sealed(*payloads):
    """Return file content with right checksums."""
    from zlib import crc32

    checksum, lines = 0, []
    for payload in payloads:
        checksum = crc32(payload, checksum)
        lines.append(b"%08x %b\n" % (checksum, payload))
    return b"".join(lines)


@pytest.mark.parametrize(
    ("payloads", "error"),
    [
        (
            [b'{"format":"execkit-paper","version":99,"account":"paper"}', b"{}"],
            JournalVersionError,
        ),
        ([b'{"format":"other","version":1,"account":"paper"}', b"{}"], JournalVersionError),
        ([b'{"format":"execkit-paper","version":1,"account":"x"}', b"{}"], JournalAccountError),
        (
            [b'{"format":"execkit-paper","version":1,"account":"paper"}', b"{}"],
            JournalCorruptedError,
        ),
        ([b"[]", b"{}"], JournalCorruptedError),
        (
            [b'{"format":"execkit-paper","version":1,"account":"paper"}', b"{}", b'{"do":"fly"}'],
            JournalCorruptedError,
        ),
    ],
)
async def test_foreign_content_is_refused(path, payloads, error):
    """Another version, another account, or lines that say nothing we know."""
    path.write_bytes(sealed(*payloads))
    with pytest.raises(error):
        await paper(path).connect()


async def test_one_writer_at_a_time(path):
    """A second one is refused while the first is open, and served afterwards."""
    async with paper(path):
        with pytest.raises(JournalLockedError, match="in use"):
            await paper(path).connect()
    await (second := paper(path)).connect()
    await second.close()


async def test_nothing_is_accepted_that_cannot_be_written(path, monkeypatch):
    """A full disk refuses the order for certain, leaves no half line, and the next one goes through."""
    async with paper(path) as exchange:
        await exchange.place_order(make_request("a"))
        before = path.read_bytes()
        real = os.write

        def half(file, data):
            if len(data) > 20:
                return real(file, data[:20])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda f, d: half(f, d[:21]) if len(d) > 20 else half(f, d))
            with pytest.raises(NotSentError, match="No space"):
                await exchange.place_order(make_request("b"))
        assert path.read_bytes() == before
        assert len(exchange.core.orders) == 1
        await exchange.place_order(make_request("b"))
    async with paper(path) as again:
        assert set(again.core.by_client) == {"a", "b"}


async def test_ledger_that_cannot_be_repaired_stays_refused(path, monkeypatch):
    """When the half line cannot be cut off either, nothing is written behind it."""
    async with paper(path) as exchange:
        with monkeypatch.context() as patch:

            def fail(*_args):
                raise OSError(5, "Input/output error")

            patch.setattr(os, "write", fail)
            patch.setattr(os, "ftruncate", fail)
            with pytest.raises(NotSentError):
                await exchange.place_order(make_request("a"))
        with pytest.raises(NotSentError, match="earlier failure"):
            await exchange.place_order(make_request("a"))


async def test_ledger_is_compacted_while_running(path, monkeypatch):
    """A file that grew large is replaced by its snapshot, and nothing is lost by that."""
    monkeypatch.setattr(paper_ledger, "_COMPACT_BYTES", 5000)
    async with paper(path) as exchange:
        sizes = []
        for minute in range(200):
            exchange.feed_bar(make_bar(minute, 100, 100, 100, 100))
            sizes.append(path.stat().st_size)
        await exchange.place_order(make_request("a"))
        assert max(sizes) < 10_000
        assert sizes != sorted(sizes)
    async with paper(path) as again:
        assert snapshot(again.core) == snapshot(exchange.core)


async def test_failed_compacting_costs_nothing_but_room(path, monkeypatch):
    """The old file goes on, and the next try waits for as much growth again."""
    monkeypatch.setattr(paper_ledger, "_COMPACT_BYTES", 5000)
    tries = []

    def fail(*args):
        tries.append(args)
        raise OSError(28, "No space left on device")

    async with paper(path) as exchange:
        monkeypatch.setattr(os, "replace", fail)
        for minute in range(150):
            exchange.feed_bar(make_bar(minute, 100, 100, 100, 100))
        monkeypatch.undo()
    assert 1 <= len(tries) <= 5
    async with paper(path) as again:
        assert (
            again.last_bar(SYMBOL, Timeframe.M1).close_time == make_bar(149, 1, 1, 1, 1).close_time
        )


async def test_power_durability_syncs_each_line(path, monkeypatch):
    """One disk sync before each answer, and none with `process`."""
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    async with paper(path, durability="power") as exchange:
        await exchange.place_order(make_request("a"))
        assert len(synced) == 1
    async with paper(path) as exchange:
        await exchange.place_order(make_request("b"))
        assert len(synced) == 1


async def test_storage_is_opened_before_anything_is_done(path):
    """A ledger that nobody opened takes nothing; the constructor's path wins over the engine's."""
    exchange = paper(path)
    with pytest.raises(ConfigurationError, match="connect"):
        await exchange.place_order(make_request())
    exchange.use_storage(path.with_name("other"))
    await exchange.connect()
    await exchange.connect()
    with pytest.raises(ConfigurationError, match="connected"):
        exchange.use_storage(path)
    await exchange.close()
    assert path.exists()
    assert not path.with_name("other").exists()
    offered = paper(None)
    offered.use_storage(path)
    async with offered:
        assert offered._ledger.path == path


async def test_missing_directory_is_named(tmp_path):
    """The message names the file and the fix."""
    with pytest.raises(ConfigurationError, match="storage"):
        await paper(tmp_path / "no" / "where").connect()


CHILD = """
import asyncio, sys
from execkit.clock import ManualClock
from execkit.exchanges.paper import PaperExchange
from execkit.testing.factories import START, SYMBOL, make_bar, make_request
from execkit.model.order import Side
from execkit.exchanges import paper_ledger
from execkit.model.market import Timeframe

paper_ledger._COMPACT_BYTES = 3000

async def main():
    exchange = PaperExchange(
        balances={"USDT": 10**9}, prices={SYMBOL: 100}, clock=ManualClock(START), storage=sys.argv[1]
    )
    await exchange.connect()
    minute = int(sys.argv[2])
    while True:
        report = await exchange.place_order(make_request(f"o{minute}", side=Side.BUY, limit=99))
        print("order", report.client_order_id, report.venue_order_id, flush=True)
        exchange.feed_bar(make_bar(minute, 100, 101, 98, 100))
        print("bar", minute, flush=True)
        minute += 1

asyncio.run(main())
"""


@pytest.mark.slow
async def test_kill_at_any_moment_keeps_what_was_answered(path):
    """Killed 12 times at random moments: every accepted id and every bar that was told of is still there."""
    rng = random.Random(7)
    told, bar, minute = {}, None, 0
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, path, str(minute)], stdout=subprocess.PIPE, text=True
        )
        first = child.stdout.readline()
        time.sleep(rng.random() * 0.05)
        child.send_signal(signal.SIGKILL)
        # What was printed before the kill is what somebody may have relied on.
        lines = [first, *child.stdout.read().splitlines(keepends=True)]
        child.wait()
        child.stdout.close()
        for line in lines:
            words = line.split()
            if not line.endswith("\n"):
                continue
            if words[0] == "order":
                assert words[1] not in told, "an id is accepted once"
                told[words[1]] = words[2]
            elif words[0] == "bar":
                bar = int(words[1])
        async with paper(path, balances={"USDT": 10**9}) as exchange:
            kept = {
                o.request.client_order_id: o.venue_order_id for o in exchange.core.orders.values()
            }
            assert told.items() <= kept.items()
            assert len(kept) <= len(told) + 1
            last = exchange.last_bar(SYMBOL, Timeframe.M1)
            if bar is not None:
                assert last.close_time >= make_bar(bar, 1, 1, 1, 1).close_time
            told = kept
            # The next child goes on behind everything that was taken in.
            minute = len(kept)
    assert len(told) > 100
