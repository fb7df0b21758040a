"""The life of an order at each venue on the wire: time-out, change, cancel and its races, hours, the dead man."""

from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.life import STOP, chain, living, on, seconds
from tests.support.stages import let_clock_be_set

from execkit import clockwatch
from execkit.errors import ConfigurationError, ExecKitError
from execkit.exchanges.binance import adapter as binance
from execkit.handlers.market_hours import MarketHoursHandler
from execkit.model.order import OrderState, Side
from execkit.model.result import Outcome
from execkit.testing.venues.faults import Mishap

D = Decimal


async def rest(life, price=192, **changes):
    """Rest an entry below the market, and return its order."""
    values = {"limit_price": D(price), "stop_loss": D(price) - 3} | changes
    result = await life.submit(quantity=D(10), **values)
    assert result.outcome is Outcome.WORKING, result
    assert life.entries() == [(10, D(price))]
    return life.engine.orders[result.client_order_ids[-1]]


def impatient():
    return chain(executor={"order_timeout": seconds(0.2)}, waits=0.02)


@on()
async def test_a_time_out(name):
    """An entry that rests longer than its time-out is cancelled at the venue."""
    async with living(name, make_chain=impatient) as life:
        order = await rest(life)
        await life.until(lambda: order.state is OrderState.CANCELLED, "cancelled")
        assert not life.entries()
        assert "time-out" in order.reason


@on(binance="spot changes no price of an order that rests")
async def test_a_change(name):
    """A resting entry gets another price and a smaller size in place."""
    async with living(name, make_chain=lambda: chain(waits=0.02)) as life:
        order = await rest(life)
        with pytest.raises(ExecKitError, match="STOP_TOO_FAR"):
            await life.engine.amend(order, limit_price=D(193))
        assert await life.engine.amend(order, limit_price=D("192.5"), quantity=D(8)) is order
        assert life.entries() == [(8, D("192.5"))]
        assert (order.limit_price, order.quantity) == (D("192.5"), 8)
        assert life.executed(Side.BUY) == []


@on()
async def test_a_cancel_that_loses_to_a_fill(name):
    """An entry was executed before its cancel, and no news came: the fill counts, and is protected."""
    async with living(name, make_chain=lambda: chain(waits=0.02)) as life:
        order = await rest(life, 199)
        with life.no_news():
            await life.fill(10, 199)
        await life.engine.cancel(order)
        await life.until(lambda: order.state is OrderState.FILLED, "filled")
        await life.until(life.is_protected, "protected")
        assert life.executed(Side.BUY) == [10]


@on(
    binance="its markets never close",
    usdm="its markets never close",
)
async def test_what_rests_at_the_close_is_cancelled(name, monkeypatch):
    """An entry that rests is cancelled when the session of a half day ends; a stop stays."""
    monkeypatch.setattr(clockwatch, "_LOOK_EVERY", 0.02)
    hours = MarketHoursHandler()
    async with living(
        name,
        make_chain=lambda: chain(guards=(hours,), executor={"order_timeout": None}, waits=0.02),
    ) as life:
        end = life.close_early()
        await life.enter()
        stops = life.stops()
        result = await life.submit(
            symbol=life.stage.other, quantity=D(1), limit_price=D(192), stop_loss=D(189)
        )
        order = life.engine.orders[result.client_order_ids[-1]]
        assert order.intent.timeout_at == end
        life.stage.clock.set(end)
        await life.until(lambda: order.state is OrderState.CANCELLED, "cancelled")
        assert life.stops() == stops


@on()
async def test_an_entry_waits_for_the_open(name, monkeypatch):
    """An entry for a market that is closed or halted is queued, and sent once when it opens."""
    let_clock_be_set(monkeypatch)
    monkeypatch.setattr(binance, "_STATUS_LASTS", 0.0)
    hours = MarketHoursHandler()
    async with living(
        name, make_chain=lambda: chain(guards=(hours,)), reconcile_every=seconds(0.2)
    ) as life:
        life.shut()
        queued = await life.submit(quantity=D(10), stop_loss=STOP)
        assert queued.outcome is Outcome.QUEUED, queued
        assert life.stage.taken() == 0
        life.shut(is_shut=False)
        await life.until(life.is_protected, "entered and protected")
        assert life.executed(Side.BUY) == [10]
        assert not life.engine.book.queued


@on("usdm", **dict.fromkeys(("binance", "alpaca", "ibkr"), "it has no such timer"))
async def test_the_dead_man(name):
    """The venue's own timer is renewed while the engine lives, and cancels what rests when nothing is heard of it."""
    async with living(
        name, make_chain=lambda: chain(waits=0.02), dead_man=timedelta(seconds=1)
    ) as life:
        order = await rest(life)
        await life.venue.until(lambda: len(life.venue.calls("countdown")) >= 3)
        assert life.entries(), "it is renewed"
        life.fail("countdown", Mishap.DROP_REQUEST, times=1_000)
        await life.until(lambda: order.state is OrderState.CANCELLED, "cancelled by the venue")
        assert life.venue.calls("cancel") == []
        assert "DEAD_MAN_FAILED" in life.alarms()


@pytest.mark.parametrize("name", ["binance", "alpaca", "ibkr"])
async def test_no_dead_man(name):
    """Where the venue has no timer the engine does not start with one."""
    with pytest.raises(ConfigurationError, match="has no dead man's switch"):
        async with living(name, dead_man=timedelta(seconds=1)):
            pass
