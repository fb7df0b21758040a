"""D5 in the engine: a venue that takes its fee in kind leaves less than a lot at each exit, and trading goes on."""

import asyncio
from decimal import Decimal

from msgspec.structs import replace
from tests.integration.test_engine import buy, chain, sell

from execkit.engine import ExecutionEngine
from execkit.journal.base import MemoryJournal
from execkit.journal.fold import fold
from execkit.model.denial import DenialCode
from execkit.model.events import PositionClosed, PositionOpened
from execkit.model.instrument import Instrument
from execkit.model.order import OrderState, Side
from execkit.model.records import ExternalChange
from execkit.model.result import Outcome
from execkit.risk.limits import RiskLimits
from execkit.testing import Fault, FaultScript, MockExchange
from execkit.virtual_time import run_virtual

BTC, ETH = "BTC/USDT", "ETH/USDT"
D = Decimal
LOT = D("0.001")


def instrument(symbol, lot=LOT):
    return Instrument.default(
        symbol,
        lot_size=lot,
        min_quantity=lot,
        fee_in_base=True,
        taker_fee=D("0.001"),
        maker_fee=D("0.001"),
    )


def play(body, *faults, **mock):
    """Run *body* with what starts engines over one venue, each on the journal of the one before; return that."""

    async def main(clock):
        venue = MockExchange(
            script=FaultScript(faults),
            clock=clock,
            instruments=[instrument(BTC), instrument(ETH)],
            prices={BTC: D(42_000), ETH: D(42_000)},
            **mock,
        )
        kept = MemoryJournal(venue.account)

        def engine():
            return ExecutionEngine(
                venue,
                journal=kept,
                pipeline=chain(RiskLimits(max_concurrent_positions=1)),
                clock=clock,
                currency="USDT",
            )

        await body(engine, venue, clock)
        return kept

    return run_virtual(main)


async def held(venue):
    return (await venue.balances())["BTC"].total


def test_each_trade_is_a_position_of_its_own():
    """Its own signal, stop and events; the stop covers the dust of the one before with it, in whole lots."""

    async def body(make, venue, clock):
        events = []
        async with make() as engine:
            for kind in (PositionOpened, PositionClosed):
                engine.events.subscribe(kind, events.append)
            for number, (quantity, covered) in enumerate(
                [("0.011", "0.010"), ("0.010", "0.010"), ("0.010", "0.010")], 1
            ):
                stop_loss = D(41_500 + number)
                entry = buy(
                    signal_id=f"s{number}",
                    quantity=D(quantity),
                    stop_loss=stop_loss,
                )
                result = await engine.submit(entry)
                assert result.outcome is Outcome.FILLED, result.reason
                await engine.desk.keeper.idle()
                position, stop = engine.positions[BTC], engine.book.working_stop(BTC)
                assert (position.position_id, position.signal_id) == (
                    f"{BTC}#{number}",
                    f"s{number}",
                )
                assert (stop.stop_price, stop.quantity) == (stop_loss, D(covered))
                assert position.quantity == await held(venue)
                gone = await engine.submit(sell(signal_id=f"out {number}"))
                assert (gone.outcome, gone.filled) == (Outcome.FILLED, D(covered))
                await engine.desk.keeper.idle()
                assert engine.positions == {}
                assert engine.can_open(BTC) == (True, "")
                assert not engine.book.orders.active
                assert engine.book.positions.quantity(BTC) == await held(venue) < LOT
            denied = await engine.submit(sell(reduce_only=True))
            assert denied.denial.code is DenialCode.QUANTITY_TOO_SMALL
            # The comparison counts the dust on both sides, and it takes no place among the positions.
            await asyncio.sleep(300)
            other = await engine.submit(buy(symbol=ETH, quantity=D("0.02")))
            assert other.outcome is Outcome.FILLED, other.reason
            await engine.flatten()
            assert engine.book.alarms == type(engine.book.alarms)(maxlen=200)
        told = [(type(each), each.signal_id) for each in events if each.position.symbol == BTC]
        assert told == [
            (kind, f"s{number}")
            for number in (1, 2, 3)
            for kind in (PositionOpened, PositionClosed)
        ]
        dust = [each.position.dust for each in events if each.position.symbol == BTC][1::2]
        assert dust == [D("0.000989"), D("0.000979"), D("0.000969")]

    journal = play(body)
    assert not [e for e in journal.entries if isinstance(e.record, ExternalChange)]


def test_a_restart_knows_the_dust_without_the_venue():
    """The journal alone says what is a position; the first comparison finds no difference, and trading goes on."""

    async def body(make, venue, clock):
        async with make() as engine:
            await engine.submit(buy(signal_id="s1", quantity=D("0.011")))
            await engine.submit(sell(signal_id="out"))
            await engine.desk.keeper.idle()
            left = engine.book.positions.dust
        again = fold(engine.desk.recorder.journal.entries)
        assert (again.positions.open, again.positions.dust) == ({}, left)
        async with make() as engine:
            assert engine.book.positions.dust == left
            result = await engine.submit(buy(signal_id="s2", quantity=D("0.011")))
            assert result.outcome is Outcome.FILLED, result.reason
            assert engine.positions[BTC].signal_id == "s2"
            assert not engine.book.alarms

    play(body)


def test_dust_that_was_there_before_is_no_position():
    """An account that somebody has traded by hand with is no reason not to enter."""

    async def body(make, venue, clock):
        async with make() as engine:
            assert engine.positions == {}
            assert engine.book.positions.quantity(BTC) == D("0.0004")
            result = await engine.submit(buy(quantity=D("0.011"), signal_id="s1"))
            assert result.outcome is Outcome.FILLED, result.reason
            await engine.desk.keeper.idle()
            position = engine.positions[BTC]
            assert (position.quantity, position.signal_id) == (D("0.011389"), "s1")
            assert engine.book.working_stop(BTC).quantity == D("0.011")

    play(body, balances={"USDT": D(10_000), "BTC": D("0.0004")})


def test_an_older_journal_without_lots_goes_on():
    """Dust that blocked its symbol under an older version blocks it no more after a start."""

    async def body(make, venue, clock):
        async with make() as engine:
            await engine.submit(buy(signal_id="s1", quantity=D("0.011")))
            await engine.submit(sell(signal_id="out"))
            await engine.desk.keeper.idle()
        journal = engine.desk.recorder.journal
        for number, entry in enumerate(journal.entries):
            if getattr(entry.record, "lot_size", None) is not None:
                journal.entries[number] = replace(
                    entry, record=replace(entry.record, lot_size=None)
                )
        assert fold(journal.entries).position(BTC).quantity == D("0.000989")
        async with make() as engine:
            assert engine.positions == {}
            assert [p.signal_id for p in engine.book.positions.closed] == ["s1"]
            result = await engine.submit(buy(signal_id="s2", quantity=D("0.011")))
            assert result.outcome is Outcome.FILLED, result.reason
            assert engine.positions[BTC].quantity == D("0.011978")
            assert engine.positions[BTC].signal_id == "s2"
            assert not engine.book.alarms

    play(body)


def test_a_whole_exit_ends_what_is_left_of_its_entry_though_dust_stays():
    """What would open the position again is cancelled, also where a part of a lot cannot be sold."""

    async def body(make, venue, clock):
        async with make() as engine:
            await engine.submit(buy(quantity=D("0.011"), limit_price=D(42_100), signal_id="s1"))
            (entry,) = engine.book.orders.open_entries(BTC)
            assert entry.filled == D("0.005")
            gone = await engine.submit(sell(signal_id="out"))
            assert (gone.outcome, gone.filled) == (Outcome.FILLED, D("0.004"))
            assert entry.state is OrderState.CANCELLED
            assert engine.positions == {}

    play(body, Fault(on="place", kind="partial", only=lambda request: request.side is Side.BUY))
