"""Exits that the venue takes in smaller orders only, or has too little for: all leaves, or somebody is told."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import attrs
import pytest

from execkit.assembly import standard_pipeline
from execkit.engine import ExecutionEngine
from execkit.errors import (
    InsufficientBalanceError,
    NotSentError,
    OrderRejectedError,
    QuantityTooLargeError,
)
from execkit.handlers.risk import RiskManagementHandler
from execkit.journal.base import MemoryJournal
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.records import SignalResult
from execkit.model.result import Outcome
from execkit.model.signal import TradingSignal
from execkit.numbers import plain
from execkit.risk.limits import RiskLimits
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"
D = Decimal


class Small(MockExchange):
    """Takes at most *most* to sell at the market in one order; *says* whether it tells how much that is."""

    most = None
    says = True
    sales = 0

    async def place_order(self, request):
        if request.side is Side.SELL and request.stop_price is None:
            self.sales += 1
            self.before(self.sales)
            if self.most is not None and request.quantity > self.most:
                allowed = self.most if self.says else None
                raise QuantityTooLargeError("too large", allowed=allowed)
        return await super().place_order(request)

    stuck = None
    """Order whose cancel is never answered."""

    async def cancel_order(self, symbol, *, client_order_id, venue_order_id=None):
        if client_order_id == self.stuck:
            await asyncio.Event().wait()
        return await super().cancel_order(
            symbol, client_order_id=client_order_id, venue_order_id=venue_order_id
        )

    def before(self, sale):
        """Do what the test wants before the nth sale."""


def signal(signal_id, side=Side.BUY, **changes):
    options = {"symbol": BTC, "side": side, "confluence": 4, "signal_id": signal_id}
    return TradingSignal(**{**options, **changes})


def engine_on(venue, clock, journal):
    limits = RiskLimits(max_size_pct=D(20), max_position_pct=D(20))
    chain = standard_pipeline().replace(RiskManagementHandler, RiskManagementHandler(limits))
    return ExecutionEngine(venue, journal=journal, clock=clock, pipeline=chain, currency="USDT")


def play(body):
    """Run *body* with an engine that holds 0.4 BTC, bought at 42,000 and protected."""

    async def main(clock):
        venue = Small(clock=clock, prices={BTC: D(42_000)}, balances={"USDT": D(100_000)})
        journal = MemoryJournal(venue.account)
        async with engine_on(venue, clock, journal) as engine:
            await engine.submit(signal("in", quantity=D("0.4")))
            await engine.desk.keeper.idle()
            await body(engine, venue, clock, journal)

    run_virtual(main)


async def wait(clock, **delta):
    await clock.sleep_until(clock.now() + timedelta(**delta))


@pytest.mark.parametrize("fills", ["before the exit", "after the exit", "never"])
def test_an_exit_does_not_wait_for_an_entry_that_cannot_be_cancelled(fills):
    """It leaves within seconds; what the entry fills before or after it is closed as soon as that has ended."""

    async def body(engine, venue, clock, _journal):
        await engine.submit(signal("away", Side.SELL))
        await engine.desk.keeper.idle()
        first = await engine.submit(signal("rests", quantity=D("0.2"), limit_price=D(41_900)))
        entry = first.order
        venue.execute(entry.client_order_id, D("0.1"))
        await wait(clock, seconds=1)
        assert stop_of(engine) == D("0.1")
        venue.stuck = entry.client_order_id
        began = clock.now()
        if fills == "before the exit":
            venue.before = lambda _sale: venue.execute(entry.client_order_id, D("0.05"))
        result = await engine.submit(signal("out", Side.SELL))
        venue.before = lambda _sale: None
        assert (result.outcome, result.filled) == (Outcome.FILLED, D("0.1")), result
        assert clock.now() - began <= timedelta(seconds=6)
        assert entry.client_order_id in result.alerts[0]
        if fills == "after the exit":
            venue.execute(entry.client_order_id, D("0.05"))
            await wait(clock, seconds=3)
            assert engine.positions[BTC].quantity == stop_of(engine) == D("0.05")
        venue.stuck = None
        await wait(clock, minutes=2)
        assert not engine.book.orders.open_entries(BTC)
        assert engine.positions == {}
        assert venue.core.positions() == []
        assert venue.core.open_orders() == []

    play(body)


def test_what_an_entry_fills_after_an_exit_with_a_limit_keeps_its_stop():
    """The limit was a price to leave at; nobody asked for any other."""

    async def body(engine, venue, clock, _journal):
        await engine.submit(signal("away", Side.SELL))
        first = await engine.submit(signal("rests", quantity=D("0.2"), limit_price=D(41_900)))
        venue.execute(first.order.client_order_id, D("0.1"))
        await wait(clock, seconds=1)
        venue.stuck = first.order.client_order_id
        out = await engine.submit(signal("out", Side.SELL, limit_price=D(42_000)))
        assert (out.outcome, out.filled) == (Outcome.FILLED, D("0.1"))
        assert out.alerts[0].endswith("what they still fill is protected")
        venue.execute(first.order.client_order_id, D("0.1"))
        await wait(clock, minutes=1)
        assert engine.positions[BTC].quantity == stop_of(engine) == D("0.1")

    play(body)


def sales(engine):
    return [o.filled for o in engine.orders.values() if o.role is OrderRole.EXIT and o.filled]


def stop_of(engine):
    stop = engine.book.working_stop(BTC)
    return None if stop is None else stop.quantity


@pytest.mark.parametrize(
    ("most", "says", "parts"),
    [
        ("0.15", True, ["0.15", "0.15", "0.1"]),
        ("0.25", False, ["0.2", "0.2"]),
        ("0.06", False, 8 * ["0.05"]),
    ],
)
def test_an_exit_that_is_too_large_leaves_in_parts(most, says, parts):
    """None of them larger than what the venue takes; together they are the exit that was asked for."""

    async def body(engine, venue, _clock, _journal):
        venue.most, venue.says = D(most), says
        result = await engine.submit(signal("out", Side.SELL))
        assert (result.outcome, result.requested, result.filled) == (
            Outcome.FILLED,
            D("0.4"),
            D("0.4"),
        )
        assert sales(engine) == [D(each) for each in parts]
        assert len(result.fills) == len(parts)
        assert set(result.client_order_ids) >= {
            o.client_order_id
            for o in engine.orders.values()
            if o.role is OrderRole.EXIT and o.filled
        }
        assert result.alerts == ()
        assert not engine.book.alarms
        await engine.desk.keeper.idle()
        assert engine.positions == {}
        assert stop_of(engine) is None

    play(body)


def test_an_exit_above_the_largest_order_is_not_denied():
    """The venue's rules say how much one order may be, so nothing larger is tried."""

    async def body(engine, venue, _clock, _journal):
        rules = await engine.instrument(BTC)
        engine._rules._known[BTC] = attrs.evolve(rules, market_max_quantity=D("0.15"))
        venue.most = D("0.15")
        for number, asked in enumerate([D("0.16"), None]):
            out = await engine.submit(signal(f"out{number}", Side.SELL, quantity=asked))
            assert out.outcome is Outcome.FILLED
        assert sales(engine) == [D("0.15"), D("0.01"), D("0.15"), D("0.09")]
        assert venue.sales == 4
        assert engine.positions == {}
        assert not engine.book.alarms

    play(body)


def test_the_average_price_is_that_of_all_parts():
    """0.3 at 42,000 and 0.1 at 41,600 are 41,900 on average, 100 below the arrival mid: 23.81 bps."""

    async def body(engine, venue, _clock, _journal):
        venue.most = D("0.3")
        venue.before = lambda sale: sale == 3 and venue.set_price(BTC, D(41_600))
        result = await engine.submit(signal("out", Side.SELL))
        assert result.average_price == D(41_900)
        assert round(result.slippage_bps, 2) == D("23.81")
        assert [each.price for each in result.fills] == [D(42_000), D(41_600)]

    play(body)


def test_a_part_of_a_position_leaves_in_parts_too():
    """Not more than was asked for; what stays has its stop."""

    async def body(engine, venue, _clock, _journal):
        venue.most = D("0.12")
        result = await engine.submit(signal("out", Side.SELL, quantity=D("0.3")))
        assert (result.outcome, result.filled) == (Outcome.FILLED, D("0.3"))
        assert sales(engine) == [D("0.12"), D("0.12"), D("0.06")]
        await engine.desk.keeper.idle()
        assert stop_of(engine) == D("0.1")

    play(body)


@pytest.mark.parametrize("problem", ["refused", "raises"])
def test_a_part_that_does_not_leave_is_told(problem, monkeypatch):
    """The result says what was asked for and what was executed; what stays open is protected."""

    def refuse(sale):
        if sale == 3:
            raise OrderRejectedError("not now")

    async def body(engine, venue, _clock, _journal):
        venue.most = D("0.2")
        venue.before = refuse
        if problem == "raises":
            venue.before = lambda _sale: None
            executor = engine.parts.pipeline.handlers[2]
            works, tries = executor._with_retries, []

            async def fails(ticket):
                tries.append(ticket)
                if len(tries) == 3:
                    raise ZeroDivisionError
                return await works(ticket)

            monkeypatch.setattr(executor, "_with_retries", fails)
        result = await engine.submit(signal("out", Side.SELL))
        assert (result.outcome, result.requested, result.filled) == (
            Outcome.PARTIALLY_FILLED,
            D("0.4"),
            D("0.2"),
        )
        (alarm,) = engine.book.alarms
        why = "not now" if problem == "refused" else "ZeroDivisionError()"
        assert (alarm.code, alarm.symbol) == ("CLOSED_IN_PART", BTC)
        assert alarm.text == f"{BTC}: 0.2 of 0.4 stay open: {why}"
        assert result.alerts == (f"0.2 of 0.4 stay open: {why}",)
        await engine.desk.keeper.idle()
        assert engine.positions[BTC].quantity == D("0.2")
        assert stop_of(engine) == D("0.2")

    play(body)


def test_what_the_venue_does_not_have_is_not_asked_for_again():
    """Less of it passes, so that leaves; the rest is a person's to find."""

    def short(sale):
        if sale == 1:
            raise InsufficientBalanceError("not enough", available=D("0.3"))

    async def body(engine, venue, _clock, _journal):
        venue.before = short
        result = await engine.submit(signal("out", Side.SELL))
        assert (result.outcome, result.requested, result.filled) == (
            Outcome.PARTIALLY_FILLED,
            D("0.4"),
            D("0.3"),
        )
        assert venue.sales == 2
        assert [a.code for a in engine.book.alarms] == ["CLOSED_IN_PART"]
        assert "0.1 of 0.4 stay open: not enough" in str(result)
        await engine.desk.keeper.idle()
        assert stop_of(engine) == D("0.1")

    play(body)


def test_an_exit_that_is_refused_at_every_size_says_what_it_was_for():
    """Three tries with less, then the refusal stands; the stop is back."""

    async def body(engine, venue, _clock, _journal):
        venue.most, venue.says = D("0.01"), False
        result = await engine.submit(signal("out", Side.SELL))
        assert (result.outcome, result.requested) == (Outcome.REJECTED, D("0.4"))
        assert venue.sales == 4
        await engine.desk.keeper.idle()
        assert stop_of(engine) == D("0.4")

    play(body)


def test_what_has_closed_meanwhile_is_not_sold_again():
    """The rest was closed by hand between two parts: the gateway refuses the next one, and nothing stays open."""

    async def body(engine, venue, _clock, _journal):
        venue.most = D("0.2")
        works = engine.desk.keeper.exiting
        sent = []

        def exiting(symbol, quantity, side):
            sent.append(quantity)
            if len(sent) == 3:
                held = engine.book.positions.quantity(BTC)
                order = next(o for o in engine.orders.values() if o.role is OrderRole.EXIT)
                assert (held, order.state) == (D("0.2"), OrderState.REJECTED)
                engine.book.positions.adjust(
                    BTC, -held, D(42_000), engine.desk.clock.now(), None, lot_size=D(0)
                )
            return works(symbol, quantity, side)

        engine.desk.keeper.exiting = exiting
        result = await engine.submit(signal("out", Side.SELL))
        assert (result.outcome, result.filled) == (Outcome.PARTIALLY_FILLED, D("0.2"))
        assert sales(engine) == [D("0.2")]
        assert not engine.book.alarms
        assert result.alerts == ()

    play(body)


@pytest.mark.parametrize("how", ["by its rules", "as it answers"])
@pytest.mark.parametrize("done", [1, 2])
def test_a_process_that_ends_between_two_parts_hides_nothing(how, done, monkeypatch):
    """After the restart the rest is not sent unasked: the caller and a person hear that it stays open, protected."""

    async def body(engine, venue, clock, journal):
        venue.most = D("0.15")
        if how == "by its rules":
            rules = await engine.instrument(BTC)
            engine._rules._known[BTC] = attrs.evolve(rules, market_max_quantity=D("0.15"))
        executor = engine.parts.pipeline.handlers[2]
        works = executor._with_retries

        async def ends(ticket):
            if len(sales(engine)) == done:
                raise asyncio.CancelledError
            return await works(ticket)

        monkeypatch.setattr(executor, "_with_retries", ends)
        with pytest.raises(asyncio.CancelledError):
            await engine.submit(signal("out", Side.SELL))
        await engine.stop()
        sold, left = venue.sales, D("0.4") - done * D("0.15")
        async with engine_on(venue, clock, copy_of(journal)) as second:
            told = await second.submit(signal("out", Side.SELL))
            assert (told.outcome, told.requested, told.filled) == (
                Outcome.PARTIALLY_FILLED,
                D("0.4"),
                D("0.4") - left,
            )
            text = f"{plain(left)} of 0.4 stay open: the process ended meanwhile"
            assert told.alerts == (text,)
            assert [(a.code, a.symbol, a.text) for a in second.book.alarms] == [
                ("CLOSED_IN_PART", BTC, f"{BTC}: {text}")
            ]
            await second.desk.keeper.idle()
            assert (venue.sales, second.positions[BTC].quantity) == (sold, left)
            assert stop_of(second) == left
            assert (await second.submit(signal("out", Side.SELL))).alerts == (text,)
            assert len(second.book.alarms) == 1

    play(body)


def test_what_has_closed_since_the_process_ended_is_no_alarm(monkeypatch):
    """The stop was executed meanwhile, and another position is open: nothing of the exit is left to be done."""

    async def body(engine, venue, clock, journal):
        venue.most = D("0.15")
        executor = engine.parts.pipeline.handlers[2]
        works = executor._with_retries

        async def ends(ticket):
            if sales(engine):
                raise asyncio.CancelledError
            return await works(ticket)

        monkeypatch.setattr(executor, "_with_retries", ends)
        with pytest.raises(asyncio.CancelledError):
            await engine.submit(signal("out", Side.SELL))
        monkeypatch.setattr(executor, "_with_retries", works)
        venue.most = None
        await engine.submit(signal("away", Side.SELL))
        assert engine.positions == {}
        await engine.submit(signal("in again", quantity=D("0.1")))
        await engine.stop()
        async with engine_on(venue, clock, copy_of(journal)) as second:
            told = await second.submit(signal("out", Side.SELL))
            assert (told.outcome, told.requested, told.filled, told.alerts) == (
                Outcome.PARTIALLY_FILLED,
                D("0.4"),
                D("0.15"),
                (),
            )
            assert not second.book.alarms

    play(body)


def copy_of(journal, *, without=None):
    """Return what a journal holds as another process finds it, perhaps without what a signal's caller was told."""
    again = MemoryJournal(journal.account)
    for entry in journal.entries:
        record = entry.record
        if not (isinstance(record, SignalResult) and record.signal_id == without):
            again.append(record, entry.at)
    return again


def test_a_part_of_a_position_that_has_left_in_parts_is_whole():
    """What was never to be sold is not what stays open of the exit."""

    async def body(engine, venue, clock, journal):
        venue.most = D("0.15")
        result = await engine.submit(signal("out", Side.SELL, quantity=D("0.3")))
        assert sales(engine) == [D("0.15"), D("0.15")]
        await engine.stop()
        async with engine_on(venue, clock, copy_of(journal, without="out")) as second:
            told = await second.submit(signal("out", Side.SELL, quantity=D("0.3")))
            assert (told.outcome, told.filled, told.alerts) == (Outcome.FILLED, D("0.3"), ())
            assert told.requested == result.requested == D("0.3")
            assert not second.book.alarms
            assert second.positions[BTC].quantity == D("0.1")

    play(body)


@pytest.mark.parametrize("last", ["executed", "never sent"])
def test_after_a_restart_the_parts_count_together_and_none_is_sent_twice(last):
    """The process ended before the caller was told: he hears what was executed of what he asked for."""

    def unsent(sale):
        if sale > 3 and last == "never sent":
            raise NotSentError("no route")

    async def body(engine, venue, clock, journal):
        venue.most, venue.before = D("0.15"), unsent
        result = await engine.submit(signal("out", Side.SELL))
        await engine.stop()
        again = copy_of(journal, without="out")
        venue.before = lambda _sale: None
        sold = venue.sales
        async with engine_on(venue, clock, again) as second:
            told = await second.submit(signal("out", Side.SELL))
            assert venue.sales == sold
            assert told.filled == result.filled == D("0.4" if last == "executed" else "0.3")
            assert (told.outcome, told.requested) == (result.outcome, D("0.4"))
            assert told.average_price == result.average_price
            assert set(told.client_order_ids) >= set(result.client_order_ids)

    play(body)
