"""What an engine does when its disk, its journal or its store fails: one table, printed with the results.

How journal and store themselves behave, byte by byte, is under `tests/unit/journal` and `tests/unit/store`.
"""

import asyncio
import contextlib
import errno
import os
import shutil
import sqlite3
from decimal import Decimal as D

import pytest
from sqlalchemy.exc import OperationalError

from execkit.engine import ExecutionEngine
from execkit.errors import JournalCommitError, JournalCorruptedError
from execkit.journal.disk import Disk
from execkit.journal.file import FileJournal
from execkit.journal.segments import verify
from execkit.model.denial import DenialCode
from execkit.model.order import Side
from execkit.model.result import Outcome
from execkit.model.signal import TradingSignal
from execkit.store import projection
from execkit.testing import MockExchange
from execkit.testing.simulate import quiet
from execkit.virtual_time import run_virtual

BTC, ETH, SOL = "BTC/USDT", "ETH/USDT", "SOL/USDT"
FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")


class BreakingDisk(Disk):
    """Fails the operations it is told to; a write may have put down its first half."""

    def __init__(self):
        self.faults = {}
        self.tears = False
        self._apart = set()

    def write(self, fd, data):
        if self.tears and "write" in self.faults:
            os.write(fd, data[: len(data) // 2])
        self._check("write")
        super().write(fd, data)

    def write_at(self, fd, data, offset):
        self._apart.add(fd)  # only the emergency file is written so
        self._check("write_at")
        super().write_at(fd, data, offset)

    def sync(self, fd):
        self._check("sync apart" if fd in self._apart else "sync")
        super().sync(fd)

    def _check(self, name):
        if name in self.faults:
            raise self.faults[name]


def venue(clock):
    return MockExchange(clock=clock, prices={BTC: D(42_000), ETH: D(2_000), SOL: D(100)})


def signal(name, symbol=BTC, **terms):
    return TradingSignal(
        **{"symbol": symbol, "side": Side.BUY, "quantity": D("0.02"), "confluence": 4}
        | {"signal_id": name, **terms}
    )


def journal(path, clock, disk=None):
    return FileJournal.open(path, account="mock", clock=clock, disk=disk or Disk())


@contextlib.asynccontextmanager
async def running(exchange, clock, path, disk=None):
    """Run an engine that holds a protected position in BTC and an entry that rests in ETH."""
    engine = ExecutionEngine(exchange, journal=journal(path, clock, disk), clock=clock)
    async with engine:
        await engine.submit(signal("s1", stop_loss=D(41_500)))
        await engine.submit(signal("s2", ETH, quantity=D("0.5"), limit_price=D(1_960)))
        await asyncio.sleep(1)
        yield engine


async def agree(exchange, clock, path):
    """Start an engine again and check that its books are the venue's, protection included; return its position."""
    received = len(exchange.received)
    async with ExecutionEngine(exchange, journal=journal(path, clock), clock=clock) as engine:
        await asyncio.sleep(5)
        held = exchange.core.balances().get("BTC")
        total = D(0) if held is None else held.total
        position = engine.positions.get(BTC)
        assert (D(0) if position is None else position.quantity) == total
        ours = {o.client_order_id for o in engine.orders.active.values() if o.state.may_be_live}
        assert ours == {o.client_order_id for o in exchange.core.open_orders()}
        stops = [o for o in exchange.core.open_orders(BTC) if o.side is Side.SELL]
        assert sum((o.quantity - o.filled for o in stops), D(0)) == total
        assert len(exchange.received) == received, "a restart sends nothing new"
    verify(path)
    return total


# -- a disk that cannot be written (G11, G16) --------------------------------------------------------------


def unwritable(faults, *, tears=False, emergency=True):
    async def case(clock, folder):
        """Nothing that adds exposure leaves; cancels and reductions do, kept beside the journal."""
        path, disk, exchange = folder / "orders.db", BreakingDisk(), venue(clock)
        async with running(exchange, clock, path, disk) as engine:
            resting = next(o for o in engine.orders.active.values() if o.symbol == ETH)
            disk.faults, disk.tears = faults, tears
            received = len(exchange.received)
            with contextlib.suppress(JournalCommitError):
                result = await engine.submit(signal("s3", SOL, quantity=D(1)))
                assert result.outcome is Outcome.DENIED
                assert result.denial.code is DenialCode.JOURNAL_UNAVAILABLE
            assert len(exchange.received) == received
            with contextlib.suppress(JournalCommitError):
                await engine.cancel(resting)
            with contextlib.suppress(JournalCommitError):
                await engine.flatten(BTC)
            assert bool(exchange.core.open_orders(ETH)) is not emergency
            assert (exchange.core.balances()["BTC"].total == 0) is emergency
            with contextlib.suppress(JournalCommitError):
                await engine.stop()
        if not emergency:
            assert len(exchange.received) == received
            return "nothing was sent, not even a cancel: there was no place left for its record"
        total = await agree(exchange, clock, path)
        assert total == 0
        return "no entry was sent; the cancel and the closing order were, and are in the books after a restart"

    return case


# -- a journal that was changed or cut (G14, G15, S13) -----------------------------------------------------


async def crashed(clock, folder):
    """Return a venue, and the journal as a process that was killed leaves it."""
    exchange = venue(clock)
    async with running(exchange, clock, folder / "live.db"):
        (folder / "left").mkdir()
        shutil.copy(folder / "live.db", folder / "left" / "orders.db")
        orders = exchange.core.open_orders()
        assert len(orders) == 2
    return exchange, (folder / "left" / "orders.db").read_bytes()


async def flipped(clock, folder):
    """Damage is refused, with the place; nothing is sent."""
    exchange, data = await crashed(clock, folder)
    received, count = len(exchange.received), 0
    for offset in range(0, len(data), len(data) // 60):
        path = folder / f"flipped{offset}" / "orders.db"
        path.parent.mkdir(mode=0o700)
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        path.chmod(0o600)
        line = data.count(b"\n", 0, offset) + 1
        with pytest.raises(JournalCorruptedError, match=rf"orders\.db, line {line}: "):
            async with ExecutionEngine(exchange, journal=path, clock=clock):
                pass
        count += 1
    assert len(exchange.received) == received
    return f"{count} bytes, one at a time: refused with file and line, nothing sent"


async def torn(clock, folder):
    """A torn last line is cut; the venue tells what is missing."""
    exchange, data = await crashed(clock, folder)
    start, count = data.rindex(b"\n", 0, -1) + 1, 0
    for end in range(start, len(data), max((len(data) - start) // 24, 1)):
        path = folder / f"torn{end}" / "orders.db"
        path.parent.mkdir(mode=0o700)
        path.write_bytes(data[:end])
        path.chmod(0o600)
        assert await agree(exchange, clock, path) == D("0.02")
        count += 1
    return f"cut at {count} places of the last line: the rest stands, books and venue agree"


# -- a store that fails (G11, G12, G13, G14) ---------------------------------------------------------------


def store(trouble):
    async def case(clock, folder):
        """Trading goes on; the store catches up when it can."""
        path, exchange = folder / "orders.db", venue(clock)
        file = path.with_name("orders.db.sqlite")
        async with ExecutionEngine(exchange, journal=path, clock=clock):
            pass  # makes the store
        with trouble(file):
            async with ExecutionEngine(exchange, journal=path, clock=clock) as engine:
                result = await engine.submit(signal("s1", stop_loss=D(41_500)))
                assert result.outcome is Outcome.FILLED
                await asyncio.sleep(1)
            assert len(exchange.core.open_orders(BTC)) == 1
        async with ExecutionEngine(exchange, journal=path, clock=clock):
            pass
        with contextlib.closing(sqlite3.connect(file)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM orders").fetchone()
        assert count == 2
        return "the entry was executed and protected; the store has both orders once it works again"

    return case


@contextlib.contextmanager
def busy(file):
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("COMMIT")


@contextlib.contextmanager
def busy_snapshot(file):
    """Somebody reads from an old snapshot while somebody else has written since."""
    connect = contextlib.closing
    with connect(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM orders").fetchone()
        with connect(sqlite3.connect(file, isolation_level=None)) as writer:
            writer.execute("CREATE TABLE IF NOT EXISTS other (number INTEGER)")
        yield
        reader.execute("COMMIT")


@contextlib.contextmanager
def full(_file):
    def flush(_self):
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projection.Projection, "flush", flush)
        yield


@contextlib.contextmanager
def corrupt_page(file):
    data = bytearray(file.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    file.write_bytes(data)
    yield


CASES = {
    "full disk": unwritable({"write": FULL}),
    "full disk, half a line written": unwritable({"write": FULL}, tears=True),
    "I/O error on write": unwritable({"write": BROKEN}),
    "I/O error on write, half a line written": unwritable({"write": BROKEN}, tears=True),
    "fsync fails": unwritable({"sync": BROKEN}),
    "fsync fails, of the emergency file too": unwritable(
        {"sync": BROKEN, "sync apart": BROKEN}, emergency=False
    ),
    "full disk, and the emergency file fails too": unwritable(
        {"write": FULL, "write_at": FULL}, emergency=False
    ),
    "flipped bytes": flipped,
    "torn tail": torn,
    "store busy": store(busy),
    "store busy snapshot": store(busy_snapshot),
    "store full": store(full),
    "store page corrupt": store(corrupt_page),
}


def test_every_storage_fault_has_its_specified_effect(tmp_path, monkeypatch):
    """I3, I15-I18: no exposure without a durable record, damage refused with its place, the store never in the way."""
    monkeypatch.setattr(projection, "LOCK_SECONDS", 0.01)
    failed = []
    for number, (name, case) in enumerate(CASES.items()):
        folder = tmp_path / str(number)
        folder.mkdir(mode=0o700)
        try:
            with quiet():
                text = run_virtual(lambda clock, case=case, folder=folder: case(clock, folder))
        except AssertionError as error:
            failed.append(name)
            text = f"FAILED {error}"
        print(f"{name}: {text}")
    assert not failed
