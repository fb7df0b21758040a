"""Taking everything out by hand, in virtual time: no symbol waits for another, and nothing is entered anew."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import attrs

from execkit.engine import ExecutionEngine
from execkit.errors import ExchangeUnavailableError, NotSentError, OrderRejectedError
from execkit.journal.base import MemoryJournal
from execkit.model.order import OrderState, OrderType, Side
from execkit.model.signal import TradingSignal
from execkit.orders.commands import Entry
from execkit.orders.waiting import Throttle
from execkit.signals import make_ticket
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

D = Decimal
BTC, ETH, SOL, XRP = "BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT"
PRICES = {BTC: D(42_000), ETH: D(2_500), SOL: D(100), XRP: D(50)}


class Venue(MockExchange):
    """A mock that answers no cancel of some orders, and refuses to sell in some markets."""

    def __init__(self, **options):
        super().__init__(prices=PRICES, **options)
        self.hangs = set()
        self.refuses = set()

    async def cancel_order(self, symbol, *, client_order_id, venue_order_id=None):
        if client_order_id in self.hangs:
            await asyncio.Event().wait()
        return await super().cancel_order(
            symbol, client_order_id=client_order_id, venue_order_id=venue_order_id
        )

    async def place_order(self, request):
        if request.symbol in self.refuses and request.side is Side.SELL:
            raise OrderRejectedError("not now")
        return await super().place_order(request)

    def held(self):
        return {each.symbol: each.quantity for each in self.core.positions()}


def signal(symbol, **changes):
    values = {"side": Side.BUY, "confluence": 4, "quantity": D("0.1")}
    return TradingSignal(symbol=symbol, **(values | changes))


async def rest(engine, symbol, number, price):
    """Place an entry that rests, past the chain: it lets only one through."""
    desk = engine.desk
    one = signal(symbol, limit_price=price, signal_id=f"{symbol}-{number}")
    ticket = make_ticket(
        one,
        one.signal_id,
        instrument=await engine.instrument(symbol),
        quote=await desk.quotes.get(symbol),
        account=engine.account,
        position=None,
        now=desk.clock.now(),
    )
    sent = await desk.gateway.send(Entry(ticket, unchecked=True))
    assert sent.order.state is OrderState.ACCEPTED, sent
    return sent.order


def play(body, **options):
    async def main(clock):
        venue = Venue(clock=clock, **options)
        async with ExecutionEngine(venue, journal=MemoryJournal("acct"), clock=clock) as engine:
            await body(engine, venue, clock)

    run_virtual(main)


async def enter(engine, *symbols):
    for symbol in symbols:
        taken = await engine.submit(signal(symbol))
        assert taken.filled, taken
    await engine.desk.keeper.idle()


def test_flatten_lets_no_symbol_wait_for_another():
    """One cancel hangs, one market refuses, and the venue's pace is short: the others are flat within a second."""
    rate = (60, timedelta(minutes=1))
    counted = attrs.evolve(MockExchange().capabilities, order_rate=rate, rate_counts_cancels=True)

    async def body(engine, venue, clock):
        throttle, engine.desk.gateway.throttle = engine.desk.gateway.throttle, Throttle(None)
        await enter(engine, BTC, ETH, SOL)
        resting = [await rest(engine, XRP, number, D(45)) for number in range(100)]
        engine.desk.gateway.throttle = throttle
        venue.hangs.add(resting[0].client_order_id)
        venue.refuses.add(SOL)
        began = clock.now()
        flattening = asyncio.ensure_future(engine.flatten())
        while set(venue.held()) - {SOL}:
            await asyncio.sleep(0.1)
        assert clock.now() - began < timedelta(seconds=1)
        done = await flattening
        assert not done
        assert done.flat == (BTC, ETH)
        assert set(done.left) == {SOL, XRP}
        assert "0.1 open" in done.left[SOL]
        assert "entries not proven gone; it goes on" in done.left[XRP]

        venue.refuses.clear()
        venue.hangs.clear()
        await clock.sleep_until(clock.now() + timedelta(minutes=2))
        assert venue.held() == {}
        assert venue.core.open_orders() == []
        assert not engine.orders.active

    play(body, capabilities=counted)


def test_a_stop_that_makes_way_waits_behind_no_cancel_of_an_entry():
    """A hundred cancels use up the venue's pace; a position is closed meanwhile, in what is kept for that."""
    rate = (60, timedelta(minutes=1))
    counted = attrs.evolve(MockExchange().capabilities, order_rate=rate, rate_counts_cancels=True)

    async def body(engine, venue, clock):
        throttle, engine.desk.gateway.throttle = engine.desk.gateway.throttle, Throttle(None)
        await enter(engine, BTC, ETH)
        for number in range(100):
            await rest(engine, XRP, number, D(45))
        engine.desk.gateway.throttle = throttle
        cancelling = asyncio.ensure_future(engine.cancel_all())
        await asyncio.sleep(1)
        assert len(venue.core.open_orders(XRP)) == 46
        assert await engine.close_position(ETH)
        assert clock.now().second == 1
        assert venue.held() == {BTC: D("0.1")}
        assert len(await cancelling) == 100
        assert venue.core.open_orders(XRP) == []

    play(body, capabilities=counted)


def test_what_an_entry_executes_before_its_cancel_goes_too():
    """Its cancel hangs, and it is executed meanwhile: the position is closed as soon as it shows."""

    async def body(engine, venue, clock):
        resting = await rest(engine, XRP, 1, D(45))
        venue.hangs.add(resting.client_order_id)
        flattening = asyncio.ensure_future(engine.flatten())
        await asyncio.sleep(1)
        venue.execute(resting.client_order_id, D("0.04"))
        assert "1 entry not proven gone; it goes on" in (await flattening).left[XRP]
        venue.hangs.clear()
        await clock.sleep_until(clock.now() + timedelta(minutes=1))
        assert resting.state is OrderState.CANCELLED
        assert (resting.filled, venue.held()) == (D("0.04"), {})
        assert venue.core.open_orders() == []

    play(body)


def test_a_market_that_refuses_is_asked_again_and_then_left_with_its_stop():
    """Five times; then the position has its stop as before, and a person has to see to it."""

    async def body(engine, venue, clock):
        await enter(engine, SOL)
        place, refused = venue.place_order, []

        async def place_order(request):
            if request.type is OrderType.MARKET:
                refused.append(clock.now())
                raise OrderRejectedError("not now")
            return await place(request)

        venue.place_order = place_order
        done = await engine.flatten()
        assert done.left == {SOL: "0.1 open; the venue says: not now; it goes on"}
        await clock.sleep_until(clock.now() + timedelta(minutes=10))
        assert len(refused) == 5
        (stop,) = venue.core.open_orders()
        assert (stop.quantity, engine.book.working_stop(SOL) is None) == (D("0.1"), False)
        assert "flatten" in engine.book.blocked[SOL]

    play(body)


def test_what_is_entered_afterwards_is_left_alone():
    """A flatten that goes on ends with its position; the next one, entered after `resume`, is somebody else's."""

    async def body(engine, venue, clock):
        await enter(engine, SOL)
        venue.refuses.add(SOL)
        assert "it goes on" in (await engine.flatten()).left[SOL]
        venue.refuses.clear()
        await clock.sleep_until(clock.now() + timedelta(seconds=0.5))
        assert await engine.close_position(SOL)
        await engine.resume()
        await enter(engine, SOL)
        await clock.sleep_until(clock.now() + timedelta(minutes=5))
        assert venue.held() == {SOL: D("0.1")}
        assert engine.book.working_stop(SOL) is not None

    play(body)


def test_what_could_not_leave_for_a_moment_is_closed_after_it():
    """The venue does not take the closing order, and nobody knows: its stop comes back, and it is tried again."""

    async def body(engine, venue, clock):
        await enter(engine, SOL)
        place, lost = venue.place_order, []

        async def place_order(request):
            if request.type is OrderType.MARKET and len(lost) < 3:
                lost.append(request)
                raise NotSentError("no connection")
            return await place(request)

        venue.place_order = place_order
        assert "it goes on" in (await engine.flatten()).left[SOL]
        await clock.sleep_until(clock.now() + timedelta(minutes=1))
        assert (len(lost), venue.held(), venue.core.open_orders()) == (3, {}, [])

    play(body)


def test_rules_that_cannot_be_read_hold_a_closing_up_and_do_not_end_it():
    """After a restart the venue's rules are asked for anew, and it may not answer yet."""

    async def body(engine, venue, clock):
        await enter(engine, SOL)
        keeper = engine.desk.keeper
        instrument_of, asked = keeper._instrument_of, []

        async def unread(symbol):
            asked.append(symbol)
            if len(asked) <= 3:
                raise ExchangeUnavailableError("down")
            return await instrument_of(symbol)

        keeper._instrument_of = unread
        assert (await engine.flatten()).left == {SOL: "0.1 open; it goes on"}
        await clock.sleep_until(clock.now() + timedelta(minutes=1))
        assert (venue.held(), venue.core.open_orders()) == ({}, [])

    play(body)


def test_a_stop_that_is_executed_in_place_of_the_closing_order_leaves_nothing_to_see_to():
    """Its cancel hangs, and the venue keeps the two from executing both: it refuses the second, rightly."""
    keeps = attrs.evolve(MockExchange().capabilities, reduce_only=True)

    async def body(engine, venue, clock):
        await enter(engine, SOL)
        stop = engine.book.working_stop(SOL)
        venue.hangs.add(stop.client_order_id)
        place = venue.place_order

        async def place_order(request):
            if request.type is OrderType.MARKET:
                venue.execute(stop.client_order_id)
                await asyncio.sleep(0.1)
                raise OrderRejectedError("there is nothing to reduce")
            return await place(request)

        venue.place_order = place_order
        assert (await engine.flatten(halt=False)).flat == (SOL,)
        await clock.sleep_until(clock.now() + timedelta(minutes=1))
        assert stop.state is OrderState.FILLED
        assert (venue.held(), engine.positions, engine.book.blocked) == ({}, {}, {})
        assert "TASK_FAILED" not in [alarm.code for alarm in engine.book.alarms]

    play(body, capabilities=keeps)
