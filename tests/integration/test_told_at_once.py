"""What a person has to know now is durable and told at once, whether or not anything else happens in the engine."""

import asyncio
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal

from execkit.engine import ExecutionEngine
from execkit.errors import JournalCommitError, RateLimitError
from execkit.journal.segments import read_entries
from execkit.model.events import SystemError, TradingStateSet  # noqa: A004 - promised name
from execkit.model.order import OrderEvent, Side
from execkit.model.records import Alarm, OrderChanged, Source, SymbolBlocked, TradingState
from execkit.model.signal import TradingSignal
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"
D = Decimal


def lived(body, journal=None):
    """Run *body* with an engine and the list in which what observers were told is noted, with its second."""

    async def main(clock):
        venue = MockExchange(prices={BTC: D(42_000)}, clock=clock)
        async with ExecutionEngine(venue, journal=journal, store=False, clock=clock) as engine:
            told = []

            def note(event):
                what = event.code if isinstance(event, SystemError) else event.state
                told.append((asyncio.get_running_loop().time(), what))

            engine.events.subscribe((SystemError, TradingStateSet), note)
            await body(engine, told)

    run_virtual(main)


def test_an_alarm_of_an_idle_engine_is_told_and_in_the_file(tmp_path):
    """Nothing settles anything here, and nothing has to: the file has the record before the engine does more."""
    path = tmp_path / "orders.db"

    async def body(engine, told):
        recorder = engine.desk.recorder
        began = asyncio.get_running_loop().time()
        recorder.alarm("FIRST", "one")
        recorder.alarm("SECOND", "two")
        engine.desk.gateway.halt("tried", actor="test")
        assert told == []
        await asyncio.sleep(0.001)
        assert [what for _, what in told] == ["FIRST", "SECOND", "halted"]
        assert all(at - began <= 0.001 for at, _ in told)
        kept = [entry.record for entry in read_entries(path)]
        assert [r.code for r in kept if isinstance(r, Alarm)] == ["FIRST", "SECOND"]
        recorder.record(SymbolBlocked(symbol=BTC, blocked=True, cause="test"))
        await asyncio.sleep(0.001)
        assert [
            r.symbol for r in (e.record for e in read_entries(path)) if isinstance(r, SymbolBlocked)
        ]

    lived(body, path)


def test_many_alarms_at_once_are_one_commit():
    """One task serves all that was recorded before it runs."""

    async def body(engine, told):
        journal, commits = engine.desk.recorder.journal, []
        commit = journal.commit

        async def counted():
            commits.append(journal.last_seq)
            await commit()

        journal.commit = counted
        tasks = len(asyncio.all_tasks())
        for number in range(50):
            engine.desk.recorder.alarm("STORM", str(number))
        assert len(asyncio.all_tasks()) == tasks
        await asyncio.sleep(0.001)
        assert len(commits) == 1
        assert len(told) == 50

    lived(body)


def test_a_pause_of_the_venue_is_told_when_it_begins():
    """Who waits out a ban with an exit in hand hears of it while something can still be done elsewhere."""

    async def body(engine, told):
        buy = TradingSignal(symbol=BTC, side=Side.BUY, confluence=4, quantity=D("0.02"))
        assert (await engine.submit(buy)).filled
        engine.desk.gateway.pace.note(RateLimitError("ban", retry_after=timedelta(seconds=170)))
        began = asyncio.get_running_loop().time()
        closing = asyncio.ensure_future(engine.close_position(BTC))
        await asyncio.sleep(1)
        assert "VENUE_PAUSE" in [what for at, what in told if at - began < 1]
        await closing

    lived(body)


def test_an_alarm_is_told_although_the_journal_cannot_commit():
    """For a person's attention a broken disk is one reason more."""

    async def body(engine, told):
        journal = engine.desk.recorder.journal

        async def fail():
            raise JournalCommitError("disk full")

        journal.commit = fail
        engine.desk.recorder.alarm("TRIED", "one")
        await asyncio.sleep(0.001)
        assert [what for _, what in told] == ["JOURNAL_UNAVAILABLE", "TRIED"]
        del journal.commit

    lived(body)


def test_an_event_that_cannot_be_is_told_too():
    """An alarm is an event also where it takes the place of a record that the table refuses."""

    async def body(engine, told):
        buy = TradingSignal(symbol=BTC, side=Side.BUY, confluence=4, quantity=D("0.02"))
        order = (await engine.submit(buy)).order
        wrong = OrderChanged(
            client_order_id=order.client_order_id, event=OrderEvent.ABSENT, source=Source.STREAM
        )
        assert engine.desk.recorder.record(wrong) is False
        await asyncio.sleep(0.001)
        assert "IMPOSSIBLE_EVENT" in [what for _, what in told]

    lived(body)


_HALTED_BY_FILE = """
import asyncio, os, pathlib, signal, sys
from decimal import Decimal
from execkit import kill_switch
from execkit.engine import ExecutionEngine
from execkit.model.events import TradingStateSet
from execkit.testing import MockExchange

kill_switch._LOOK_EVERY = 0.01
path = pathlib.Path(sys.argv[1])

async def main():
    venue = MockExchange(prices={"BTC/USDT": Decimal(42_000)})
    engine = ExecutionEngine(venue, journal=path, store=False, control=False)
    engine.events.subscribe(TradingStateSet, lambda event: os.kill(os.getpid(), signal.SIGKILL))
    async with engine:
        pathlib.Path(f"{path}.halt").touch()
        await asyncio.sleep(10)
        os._exit(1)

asyncio.run(main())
"""


async def test_a_halt_by_file_survives_kill_9(tmp_path):
    """I15, I18: as soon as anybody could hear of the halt it is in the file; the file that halted may be gone then."""
    path = tmp_path / "orders.db"
    child = subprocess.run(
        [sys.executable, "-c", _HALTED_BY_FILE, str(path)],
        timeout=60, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert child.returncode == -9, child.stderr[-2000:]
    (tmp_path / "orders.db.halt").unlink()
    venue = MockExchange(prices={BTC: D(42_000)})
    async with ExecutionEngine(venue, journal=path, store=False, control=False) as engine:
        assert engine.trading_state is TradingState.HALTED
        assert engine.book.state_record.actor == "file"
