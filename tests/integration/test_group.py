"""Several engines as one, in virtual time: routing, emergencies, and a venue that is down."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from execkit.engine import ExecutionEngine
from execkit.errors import (
    AuthenticationError,
    ConfigurationError,
    ExchangeUnavailableError,
    ExecKitError,
    JournalLockedError,
)
from execkit.group import EngineGroup
from execkit.model.denial import DenialCode
from execkit.model.events import SystemError  # noqa: A004 - promised name
from execkit.model.order import Side
from execkit.model.records import TradingState
from execkit.model.signal import TradingSignal
from execkit.notify.notifier import Notifier
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"
D = Decimal


class Venue(MockExchange):
    """A mock that may be down at the start, or hang."""

    refusals = 0
    hangs = False
    dials = 0
    key_error = None

    async def connect(self):
        self.dials += 1
        if self.refusals:
            self.refusals -= 1
            raise ExchangeUnavailableError("down")
        if self.key_error is not None:
            raise self.key_error
        await super().connect()

    async def cancel_order(self, symbol, **names):
        if self.hangs:
            await asyncio.Event().wait()
        return await super().cancel_order(symbol, **names)


def signal(exchange, **changes):
    return TradingSignal(
        **{
            "symbol": BTC,
            "side": Side.BUY,
            "confluence": 4,
            "quantity": D("0.01"),
            "exchange": exchange,
            **changes,
        }
    )


def play(body):
    async def main(clock):
        venues = {
            name: Venue(name=name, clock=clock, prices={BTC: D(42_000)}) for name in ("one", "two")
        }
        engines = [ExecutionEngine(v, journal=None, clock=clock) for v in venues.values()]
        await body(venues, engines, clock)

    run_virtual(main)


def test_signals_go_to_the_exchange_that_they_name():
    """And to no other; positions are seen side by side."""

    async def body(venues, engines, _clock):
        async with EngineGroup(engines) as group:
            assert (await group.submit(signal("two"))).filled == D("0.01")
            await group["two"].desk.keeper.idle()
            assert set(group.positions) == {("two", BTC)}
            assert venues["one"].core.positions() == []
            for name in (None, "three"):
                with pytest.raises(ConfigurationError, match="here are one, two"):
                    await group.submit(signal(name))
            assert repr(group) == "EngineGroup(one, two)"
            assert len(group) == 2

    play(body)


def test_one_engine_needs_no_name():
    """There is nothing to choose."""

    async def body(_venues, engines, _clock):
        async with EngineGroup(engines[:1]) as group:
            assert (await group.submit(signal(None))).filled

    play(body)


def test_emergencies_reach_all_and_wait_for_none():
    """One venue hangs: the other is flat at once, and the answer says which is not."""

    async def body(venues, engines, _clock):
        async with EngineGroup(engines) as group:
            for name in group:
                await group.submit(signal(name, limit_price=D(41_900)))
            venues["one"].hangs = True
            left = await group.cancel_all(within=timedelta(seconds=1))
            assert "not everything has ended within 1 s" in left["one"].error
            assert left["two"].is_flat
            venues["one"].hangs = False
            assert all(each.is_flat for each in (await group.flatten()).values())
            await group.resume()
            await group.halt("the news")
            denied = await group.submit(signal("two"))
            assert denied.denial.code is DenialCode.TRADING_HALTED
            await group.resume()
            assert {e.trading_state for e in engines} == {TradingState.ACTIVE}

    play(body)


def test_a_venue_that_is_down_at_the_start_is_tried_again():
    """The other trades meanwhile."""

    async def body(venues, engines, clock):
        venues["one"].refusals = 4
        async with EngineGroup(engines) as group:
            assert (await group.submit(signal("two"))).filled
            assert set(group.positions) == {("two", BTC)}
            await clock.sleep_until(clock.now() + timedelta(seconds=20))
            assert (await group.submit(signal("one"))).filled

    play(body)


def test_a_start_that_cannot_work_ends_all():
    """A wrong setting is no outage; whatever was started is stopped again."""

    async def body(_venues, engines, _clock):
        async def start():
            raise JournalLockedError("in use")

        engines[1].start = start
        with pytest.raises(JournalLockedError):
            async with EngineGroup(engines):
                raise AssertionError("it does not start")
        assert repr(engines[0]).endswith("stopped)")

    play(body)


def test_a_wrong_key_is_no_outage():
    """It does not become right by trying again, so the start fails and says why."""

    async def body(venues, engines, _clock):
        venues["one"].key_error = AuthenticationError("no such key")
        with pytest.raises(AuthenticationError, match="no such key"):
            async with EngineGroup(engines):
                raise AssertionError("it does not start")
        assert venues["one"].dials == 1
        assert repr(engines[1]).endswith("stopped)")

    play(body)


@pytest.mark.parametrize(
    ("error", "dials"), [(AuthenticationError("revoked"), 3), (JournalLockedError("in use"), 15)]
)
def test_what_is_wrong_at_a_late_start_is_told(error, dials):
    """Once; a key that is refused is not tried again, everything else is, and the others trade on."""

    async def body(venues, engines, clock):
        venues["one"].refusals = 2
        venues["one"].key_error = error
        told = []
        engines[0].events.subscribe(SystemError, told.append)
        async with EngineGroup(engines) as group:
            await clock.sleep_until(clock.now() + timedelta(minutes=10))
            assert venues["one"].dials == dials
            assert [each.code for each in told] == ["START_FAILED"]
            assert str(error) in told[0].text
            assert (await group.submit(signal("two"))).filled
            with pytest.raises(ExecKitError, match="not running"):
                await group.submit(signal("one"))
            venues["one"].key_error = None
            await clock.sleep_until(clock.now() + timedelta(minutes=2))
            if dials > 3:
                assert (await group.submit(signal("one"))).filled

    play(body)


@pytest.mark.parametrize("seconds", [0, 5], ids=["quick service", "slow service"])
def test_what_is_wrong_at_a_late_start_reaches_a_person(seconds):
    """Through what the engine was given to tell: once, though it is tried on, and a halt cuts the telling short."""

    async def body(venues, _engines, clock):
        sent = []

        class Service:
            async def async_notify(self, *, title, body, notify_type):
                await asyncio.sleep(seconds)
                sent.append(body)
                return True

        def notifier(bus):
            made = Notifier(bus, ["json://127.0.0.1/"])
            made._service = Service()
            return made

        venues["one"].refusals = 1
        venues["one"].key_error = JournalLockedError("in use")
        engine = ExecutionEngine(venues["one"], journal=None, clock=clock, notify=notifier)
        async with EngineGroup([engine]) as group:
            await clock.sleep_until(clock.now() + timedelta(seconds=2))
            await group.halt("the news")
            await clock.sleep_until(clock.now() + timedelta(minutes=10))
            assert ["in use" in text for text in sent] == [True]
            venues["one"].key_error = None
            await clock.sleep_until(clock.now() + timedelta(minutes=2))
            sent.clear()
            engine.desk.recorder.alarm("FAILED", "once")
            await engine.desk.recorder.settle()
        assert ["once" in text for text in sent] == [True]

    play(body)


def test_a_teller_that_fails_keeps_no_engine_down():
    """It is foreign code; the start is tried on."""

    async def body(venues, _engines, clock):
        class Teller:
            async def __aenter__(self):
                return self

            async def __aexit__(self, *exc):
                if venues["one"].key_error is not None:
                    raise RuntimeError("no line")

        venues["one"].refusals = 1
        engine = ExecutionEngine(
            venues["one"], journal=None, clock=clock, notify=lambda _bus: Teller()
        )
        async with EngineGroup([engine]) as group:
            venues["one"].key_error = JournalLockedError("in use")
            await clock.sleep_until(clock.now() + timedelta(minutes=10))
            venues["one"].key_error = None
            await clock.sleep_until(clock.now() + timedelta(minutes=2))
            assert (await group.submit(signal("one"))).filled

    play(body)


def test_a_stop_that_fails_keeps_none_from_it():
    """The group goes on to the others."""

    async def body(_venues, engines, _clock):
        async with EngineGroup(engines):
            real = engines[0].stop

            async def stop():
                await real()
                raise OSError("disk")

            engines[0].stop = stop
        assert repr(engines[1]).endswith("stopped)")

    play(body)


def test_names_are_unique_and_there_is_one():
    """Otherwise a signal could not be routed."""
    venue = MockExchange()
    with pytest.raises(ConfigurationError, match="two trade on 'mock'"):
        EngineGroup([ExecutionEngine(venue, journal=None), ExecutionEngine(venue, journal=None)])
    with pytest.raises(ConfigurationError, match="there are none"):
        EngineGroup([])
