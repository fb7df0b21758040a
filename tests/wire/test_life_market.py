"""Hours and halts at each venue on the wire, and positions that can have no stop for now: somebody is told, once."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tests.support.life import STOP, chain, living, on
from tests.support.stages import OPEN

from execkit.exchanges.base import MarketPhase, MarketStatus
from execkit.exchanges.binance import adapter as binance
from execkit.model.order import Side
from execkit.model.result import Outcome
from execkit.protection import keeper, placing

D = Decimal
ROUND_THE_CLOCK = dict.fromkeys(("binance", "usdm"), "its markets never close")


@on(ibkr="its hours are those that the contract states", **ROUND_THE_CLOCK)
async def test_parts_of_the_day(name):
    """Pre-market, session, after-market, night, half day and holiday, each with the next opening."""
    async with living(name) as life:
        life.venue.hours.early[OPEN.date()] = datetime(2024, 3, 12, 13, 0).time()
        life.venue.hours.holidays.add(OPEN.date() + timedelta(days=1))
        seen = []
        for hour in (12, 15, 18, 1 + 24, 15 + 24):
            life.stage.clock.set(OPEN.replace(hour=0) + timedelta(hours=hour))
            life.forget_hours()
            seen.append(await life.engine.market.status(life.symbol))
        phases = [MarketPhase.PRE, MarketPhase.REGULAR, MarketPhase.AFTER]
        assert [each.phase for each in seen] == [*phases, MarketPhase.CLOSED, MarketPhase.CLOSED]
        assert seen[1].next_close == datetime(2024, 3, 12, 17, 0, tzinfo=UTC), "a half day"
        assert seen[3].next_open == datetime(2024, 3, 14, 13, 30, tzinfo=UTC), "after a holiday"


@on()
async def test_the_venue_knows_better_than_the_calendar(name, monkeypatch):
    """What a venue says of its hours wins over the calendar."""
    monkeypatch.setattr(binance, "_STATUS_LASTS", 0.0)

    def always(_symbol, _at):
        return MarketStatus(is_open=True)

    async with living(name, calendar=always) as life:
        assert (await life.engine.market.status(life.symbol)).is_open
        life.shut()
        status = await life.engine.market.status(life.symbol)
        assert not status.is_open


@on(
    "binance",
    **dict.fromkeys(("usdm", "alpaca", "ibkr"), "it takes stops in a market that is closed"),
)
async def test_a_stop_that_its_market_does_not_take(name, monkeypatch):
    """A halt comes before the stop: a person is told once, and the stop is placed when the market opens."""
    monkeypatch.setattr(binance, "_STATUS_LASTS", 0.0)
    for room in (keeper, placing):
        monkeypatch.setattr(room, "LOOK_FOR_OPEN", 0.1)
    async with living(name, make_chain=lambda: chain(waits=0.02)) as life:
        result = await life.submit(quantity=D(10), limit_price=D(199), stop_loss=STOP)
        assert result.outcome is Outcome.WORKING, result
        with life.no_news():
            await life.fill(10, 199)
            life.shut()
        await life.engine.desk.reconciler.try_run()
        await life.until(lambda: life.alarms() != [], "told")
        seen = len(life.venue.requests)
        await life.until(lambda: len(life.venue.requests) > seen + 3, "looked again")
        assert life.alarms() == ["NOT_PROTECTING"]
        assert life.executed(Side.SELL) == []
        life.shut(is_shut=False)
        await life.until(life.is_protected, "protected")
        assert life.alarms() == ["NOT_PROTECTING"]


@on(
    usdm="its reduce-only stops may be worth as little as they like",
    alpaca="its least order is worth a dollar, and one share is more",
    ibkr="it has no least value of an order",
)
async def test_too_little_for_a_stop(name):
    """A part of an entry is worth less than the least order: told once, and protected whole when there is more."""
    async with living(name, make_chain=lambda: chain(waits=0.02)) as life:
        rests = {"limit_price": D(199), "stop_loss": STOP}
        first = await life.submit(quantity=D("0.1"), **rests)
        await life.fill("0.02", 199)
        await life.until(lambda: life.engine.positions.get(life.symbol) is not None, "a part")
        await life.engine.desk.keeper.idle()
        assert (life.stops(), life.alarms()) == ([], []), "more of it may come"
        await life.fill("0.03", 199)
        await life.until(life.is_protected, "protected")
        await life.engine.cancel(first.client_order_ids[-1])
        await life.leave()
        last = await life.submit(quantity=D("0.1"), **rests)
        await life.fill("0.02", 199)
        await life.until(lambda: life.held() > D("0.019"), "a part is bought")
        await life.engine.cancel(last.client_order_ids[-1])
        life.engine.desk.keeper.check(life.symbol)
        await life.until(lambda: life.alarms() == ["NOT_PROTECTING"], "told")
        life.engine.desk.keeper.check(life.symbol)
        await life.engine.desk.keeper.idle()
        assert life.stops() == []
        assert life.alarms() == ["NOT_PROTECTING"]
