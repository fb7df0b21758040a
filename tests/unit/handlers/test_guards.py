"""Breaker, throttle, confirmation and market hours in the chain of a running engine."""

import asyncio
import io
from datetime import datetime, timedelta
from decimal import Decimal

import attrs
import pytest

from execkit.assembly import standard_pipeline
from execkit.engine import ExecutionEngine
from execkit.errors import (
    ConfigurationError,
    MarketClosedError,
    OrderRejectedError,
    RateLimitError,
    VirtualTimeError,
)
from execkit.exchanges.base import MarketPhase, MarketStatus
from execkit.handlers.breaker import CircuitBreakerHandler
from execkit.handlers.confirmation import ConfirmationHandler, TerminalPrompt, question
from execkit.handlers.market_hours import MarketHoursHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.throttle import RateLimitHandler
from execkit.model.denial import DenialCode
from execkit.model.order import OrderState, Side, TimeInForce
from execkit.model.result import Outcome
from execkit.model.signal import TradingSignal
from execkit.model.slicing import Twap
from execkit.protection.policy import HALF_AND_HALF, ProtectionPolicy
from execkit.risk.breaker import Circuit, CircuitBreaker
from execkit.risk.limits import RiskLimits
from execkit.testing import Fault, FaultScript, MockExchange
from execkit.virtual_time import run_virtual

BTC, ETH = "BTC/USDT", "ETH/USDT"
D = Decimal


def signal(symbol=BTC, **changes):
    price = {"BTC/USDT": D(42_000), "ETH/USDT": D(2_500)}[symbol]
    return TradingSignal(
        **{
            "symbol": symbol,
            "side": Side.BUY,
            "confluence": 4,
            "quantity": D(200) / price // D("0.001") * D("0.001"),
            **changes,
        }
    )


def play(
    body,
    link,
    *,
    before="OrderExecutorHandler",
    faults=(),
    venue_class=MockExchange,
    chain=None,
    protection=None,
    **options,
):
    """Run *body* with an engine whose chain has *link*."""

    async def main(clock):
        prices = {BTC: D(42_000), ETH: D(2_500)}
        venue = venue_class(clock=clock, prices=prices, balances={"USDT": D(100_000)}, **options)
        venue.connection.script = FaultScript(faults)
        pipeline = (chain or standard_pipeline()).insert(link, before=before)
        async with ExecutionEngine(
            venue, journal=None, clock=clock, pipeline=pipeline, protection=protection
        ) as engine:
            await body(engine, venue, clock)

    run_virtual(main)


# -- the breaker -----------------------------------------------------------------------------------------


def test_a_breaker_opens_after_failures_in_a_row_and_lets_one_trial_through():
    """Five, thirty seconds, one at a time; a success in between starts the count anew."""
    breaker = CircuitBreaker()
    for _ in range(4):
        assert breaker.admit(0)
        assert not breaker.fail(0)
    breaker.succeed()
    for _ in range(4):
        assert not breaker.fail(10)
    assert breaker.fail(10)
    assert (breaker.state, breaker.left(15)) == (Circuit.OPEN, 25)
    assert not breaker.admit(39.9)
    assert breaker.admit(40)
    assert not breaker.admit(40), "the trial is under way"
    assert breaker.left(40) == 0
    assert breaker.fail(41)
    assert not breaker.admit(70.9)
    assert breaker.admit(71)
    breaker.abandon()
    assert breaker.admit(71), "it came to nothing, so the next is the trial"
    breaker.succeed()
    assert breaker.state is Circuit.CLOSED
    breaker.abandon()
    assert breaker.admit(0)


def test_an_open_breaker_that_fails_again_stays_open_without_news():
    """Orders that were under way when it opened come in late."""
    breaker = CircuitBreaker(1, 10)
    assert breaker.fail(0)
    assert not breaker.fail(5)
    assert breaker.left(5) == 10


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"failures": 0}, "failures: 0"),
        ({"failures": True}, "failures: True"),
        ({"open_for": timedelta(0)}, "open_for: 0"),
    ],
)
def test_impossible_breakers_are_refused(options, text):
    """The error names the option."""
    with pytest.raises(ConfigurationError, match=text):
        CircuitBreakerHandler(**options)


def test_rejections_in_a_row_open_the_breaker_and_a_success_closes_it():
    """Denied meanwhile, with the seconds left; an alarm tells a person; exits pass."""

    async def body(engine, venue, clock):
        await engine.submit(signal(ETH))
        await engine.desk.keeper.idle()
        venue.connection.script = FaultScript(
            [Fault(on="place", kind="error", error=OrderRejectedError("no"), nth=n) for n in (1, 2)]
        )
        for _ in range(2):
            assert (await engine.submit(signal())).outcome is Outcome.REJECTED
        denied = await engine.submit(signal())
        assert denied.denial.code is DenialCode.CIRCUIT_OPEN
        assert denied.denial.context == {
            "failures": "2",
            "limit": "2",
            "retry_after_seconds": "30.0",
        }
        assert [a.code for a in engine.book.alarms] == ["CIRCUIT_OPEN"]
        out = await engine.submit(signal(ETH, side=Side.SELL, quantity=None))
        assert out.outcome is Outcome.FILLED
        await clock.sleep_until(clock.now() + timedelta(seconds=30))
        assert (await engine.submit(signal())).outcome is Outcome.FILLED
        assert (await engine.submit(signal(ETH))).outcome is Outcome.FILLED

    play(body, CircuitBreakerHandler(failures=2))


def test_an_order_that_is_worked_in_slices_is_no_success_yet():
    """Nothing was sent so far: neither does it make the failures forgotten, nor is it the trial; its parts are."""
    twice = {"slicing": Twap(duration=timedelta(minutes=10), slices=2)}

    async def body(engine, venue, clock):
        refused = Fault(on="place", kind="error", error=OrderRejectedError("no"))
        venue.connection.script = FaultScript([refused])
        assert (await engine.submit(signal())).outcome is Outcome.REJECTED
        worked = await engine.submit(signal(ETH, quantity=D("0.1"), signal_id="big", **twice))
        assert worked.outcome is Outcome.WORKING
        await clock.sleep_until(clock.now() + timedelta(seconds=1))
        assert link.breaker.in_a_row == 2, "the first part failed as well"
        assert link.breaker.state is Circuit.OPEN
        await clock.sleep_until(clock.now() + timedelta(seconds=31))
        another = await engine.submit(signal(quantity=D("0.002"), signal_id="next", **twice))
        assert another.outcome is Outcome.WORKING
        await clock.sleep_until(clock.now() + timedelta(seconds=1))
        assert link.breaker.in_a_row == 3, "its first part was the trial"
        assert link.breaker.state is Circuit.OPEN

    link = CircuitBreakerHandler(failures=2)
    play(body, link)


def test_a_denial_by_others_is_no_trial():
    """A signal that the next handler refuses says nothing of the venue, and must not keep the breaker waiting."""
    link = CircuitBreakerHandler(failures=1)

    async def body(engine, _venue, clock):
        assert (await engine.submit(signal())).outcome is Outcome.REJECTED
        await clock.sleep_until(clock.now() + timedelta(seconds=30))
        weak = await engine.submit(signal(stop_loss=D(30_000)))
        assert weak.denial.code is DenialCode.STOP_TOO_FAR
        assert (await engine.submit(signal())).outcome is Outcome.FILLED
        assert link.breaker.state is Circuit.CLOSED

    refused = Fault(on="place", kind="error", error=OrderRejectedError("no"), nth=1)
    play(body, link, before="ValidationHandler", faults=[refused])


def test_a_chain_that_raises_counts_as_failure():
    """The error passes on."""
    link = CircuitBreakerHandler(failures=1)

    async def main(_clock):
        class Ticket:
            is_reduction = False

        async def fail(_ticket):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await link(Ticket(), fail)
        assert link.breaker.state is Circuit.OPEN
        assert repr(link) == "CircuitBreakerHandler(open)"

    run_virtual(main)


# -- the throttle ----------------------------------------------------------------------------------------


def test_entries_wait_their_turn_and_none_is_dropped():
    """Two in ten seconds: the third waits, with a new quote, and the trace says so; an exit does not wait."""

    async def body(engine, _venue, clock):
        loop = asyncio.get_running_loop()
        began = loop.time()
        done = await asyncio.gather(
            *(
                engine.submit(signal(symbol, limit_price=price, time_in_force=TimeInForce.IOC))
                for symbol, price in [(BTC, D(42_000)), (ETH, D(2_500))]
            )
        )
        assert loop.time() == began
        assert {r.outcome for r in done} == {Outcome.FILLED}
        out = await engine.submit(signal(ETH, side=Side.SELL, quantity=None))
        assert (out.outcome, loop.time()) == (Outcome.FILLED, began)
        again = await engine.submit(signal(ETH))
        assert (again.outcome, loop.time()) == (Outcome.FILLED, began + 10)
        assert "waited 10 s for its turn" in str(again)

    play(body, RateLimitHandler(2, timedelta(seconds=10)), before="ValidationHandler")


def test_a_wait_that_is_too_long_is_a_denial():
    """It says how long it would have been."""

    async def body(engine, _venue, _clock):
        await engine.submit(signal())
        denied = await engine.submit(signal(ETH))
        assert denied.denial.code is DenialCode.THROTTLED
        assert denied.denial.context["pace"] == "1 in 60 s"

    play(body, RateLimitHandler(1, timedelta(minutes=1)))


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((0,), {}, "count: 0"),
        ((True,), {}, "count: True"),
        ((1, timedelta(0)), {}, "per: "),
        ((1,), {"max_wait": timedelta(seconds=-1)}, "max_wait: "),
    ],
)
def test_impossible_paces_are_refused(arguments, options, text):
    """The error names the option."""
    with pytest.raises(ConfigurationError, match=text):
        RateLimitHandler(*arguments, **options)


# -- confirmation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "always", "required", "outcome"),
    [
        (True, True, None, Outcome.FILLED),
        (False, True, None, Outcome.DENIED),
        (False, False, None, Outcome.FILLED),
        (False, False, True, Outcome.DENIED),
        (False, True, False, Outcome.FILLED),
        ("yes", True, None, Outcome.DENIED),
    ],
)
def test_only_a_clear_yes_lets_an_entry_pass(answer, always, required, outcome):
    """Who is asked depends on the handler and the signal; anything but True is a no."""
    asked = []

    async def ask(ticket):
        asked.append(question(ticket))
        return answer

    async def body(engine, _venue, _clock):
        result = await engine.submit(signal(confirmation_required=required))
        assert result.outcome is outcome
        if outcome is Outcome.DENIED:
            assert result.denial.code is DenialCode.NOT_CONFIRMED
            assert asked == ["buy 0.004 BTC/USDT, market at about 42000, stop 41160, target 43680?"]
        exit_ = await engine.submit(signal(side=Side.SELL, quantity=None))
        assert exit_.outcome is (Outcome.FILLED if outcome is Outcome.FILLED else Outcome.DENIED)

    play(body, ConfirmationHandler(ask, always=always))


def moving(change, seconds=8):
    """A person who says yes when *change* has happened to the market."""

    async def ask(ticket):
        await asyncio.sleep(seconds)
        change(ticket)
        return True

    return ask


def to_price(price):
    return lambda venue: venue.set_price(BTC, D(price))


def no_quote(venue):
    venue.connection.script = FaultScript(
        [Fault(on="ticker", kind="error", error=RateLimitError("no"))]
    )


@pytest.mark.parametrize(
    ("change", "side", "details", "code", "said"),
    [
        (to_price(40_000), Side.BUY, {}, DenialCode.STOP_LOSS_WRONG_SIDE, "price=40000"),
        (to_price(41_160), Side.BUY, {}, DenialCode.STOP_LOSS_WRONG_SIDE, "price=41160"),
        (to_price(43_700), Side.BUY, {}, DenialCode.TAKE_PROFIT_WRONG_SIDE, "price=43700"),
        (
            to_price(44_200),
            Side.BUY,
            {"take_profit": D(50_000)},
            DenialCode.PRICE_OUTSIDE_COLLAR,
            "ask=44200, limit=44100",
        ),
        (to_price(43_000), Side.SELL, {}, DenialCode.STOP_LOSS_WRONG_SIDE, "price=43000"),
        (
            to_price(39_800),
            Side.SELL,
            {"take_profit": D(30_000)},
            DenialCode.PRICE_OUTSIDE_COLLAR,
            "moved_to=39800",
        ),
        (no_quote, Side.BUY, {}, DenialCode.QUOTE_STALE, "age="),
        (
            lambda _venue: None,
            Side.BUY,
            {"max_age": timedelta(seconds=5)},
            DenialCode.SIGNAL_TOO_OLD,
            "age_seconds=8",
        ),
    ],
    ids=[
        "at its stop",
        "beyond its stop",
        "beyond its target",
        "above what was approved",
        "short beyond its stop",
        "short outside the collar",
        "no quote",
        "too old",
    ],
)
def test_what_was_confirmed_is_judged_at_the_price_of_then(change, side, details, code, said):
    """Eight seconds are long: what would be stopped out at once, or is dearer than approved, is not sent any more."""

    async def body(engine, venue, _clock):
        engine.parts.pipeline.handlers[2].ask = moving(lambda _ticket: change(venue))
        if "max_age" in details:
            details["created_at"] = engine.desk.clock.now()
        result = await engine.submit(signal(side=side, **details))
        assert result.denial.code is code
        assert said in result.reason
        assert venue.received == []
        assert engine.desk.ledger.reserved_cash == 0

    pipeline = standard_pipeline().replace(
        "RiskManagementHandler", RiskManagementHandler(RiskLimits(allow_short=True))
    )
    play(body, ConfirmationHandler(moving(change)), chain=pipeline, allow_short=True)


@pytest.mark.parametrize("waits", ["a person", "its turn"])
def test_slippage_shows_what_a_wait_has_cost(waits):
    """It is measured against the mid at arrival, in the result and in the journal."""

    async def body(engine, venue, clock):
        loop = asyncio.get_running_loop()
        if waits == "its turn":
            await engine.submit(signal(ETH))
        loop.call_later(5.5, venue.set_price, BTC, D(42_084))
        result = await engine.submit(signal())
        assert (result.average_price, result.expected_price) == (D(42_084), D(42_000))
        assert result.slippage_bps == D(20)
        assert result.order.intent.expected_price == D(42_000)

    link = ConfirmationHandler(moving(lambda _ticket: None))
    if waits == "its turn":
        link = RateLimitHandler(1, timedelta(seconds=8))
    play(body, link)


def test_who_waited_for_its_turn_is_judged_at_the_price_of_then():
    """Behind the risk handler, where nothing else would look at the price again."""

    async def body(engine, venue, _clock):
        await engine.submit(signal(ETH))
        asyncio.get_running_loop().call_later(5, venue.set_price, BTC, D(41_000))
        denied = await engine.submit(signal())
        assert denied.denial.code is DenialCode.STOP_LOSS_WRONG_SIDE
        assert engine.desk.ledger.reserved_cash == 0

    play(body, RateLimitHandler(1, timedelta(seconds=10)))


def test_a_limit_that_the_price_has_left_behind_is_sent_all_the_same():
    """It bounds itself: it rests, or executes at its price."""

    async def body(engine, venue, _clock):
        engine.parts.pipeline.handlers[2].ask = moving(
            lambda _ticket: venue.set_price(BTC, D(43_000))
        )
        result = await engine.submit(signal(limit_price=D(42_000), take_profit=D(44_000)))
        assert result.outcome is Outcome.WORKING

    play(body, ConfirmationHandler(moving(None)))


def test_partial_targets_are_judged_too():
    """A first target that the price has passed would take half of it out at once."""

    async def body(engine, venue, _clock):
        engine.parts.pipeline.handlers[2].ask = moving(
            lambda _ticket: venue.set_price(BTC, D(42_900))
        )
        result = await engine.submit(signal(stop_loss=D(41_160)))
        assert result.denial.code is DenialCode.TAKE_PROFIT_WRONG_SIDE
        assert result.denial.context["take_profit"] == "42840"

    targets = ProtectionPolicy(targets=HALF_AND_HALF)
    play(body, ConfirmationHandler(moving(None)), protection=targets)


@pytest.mark.parametrize("price", [42_000, 41_000])
def test_what_waits_for_the_venue_is_judged_at_the_price_of_then(price):
    """A retry after the pause that a venue wanted: longer than a quote is good for, so its price counts anew."""

    async def body(engine, venue, _clock):
        asyncio.get_running_loop().call_later(5, venue.set_price, BTC, D(price))
        error = RateLimitError("slowly", retry_after=timedelta(seconds=10))
        venue.connection.script = FaultScript([Fault(on="place", kind="error", error=error, nth=1)])
        result = await engine.submit(signal())
        if price == 42_000:
            assert result.outcome is Outcome.FILLED
            return
        assert result.denial.code is DenialCode.STOP_LOSS_WRONG_SIDE
        assert not engine.orders.active
        assert len(venue.received) == 1

    play(body, ConfirmationHandler(moving(None), always=False))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda _venue: None, None),
        (to_price(41_000), DenialCode.STOP_LOSS_WRONG_SIDE),
        (no_quote, DenialCode.QUOTE_STALE),
    ],
    ids=["same price", "beyond its stop", "no quote"],
)
def test_what_waits_in_the_venue_s_line_is_judged_at_the_price_of_then(change, code):
    """Ten seconds for two commands: an entry and its stop take them all, and the next entry comes with an old quote."""

    async def body(engine, venue, _clock):
        loop = asyncio.get_running_loop()
        began = loop.time()
        await engine.submit(signal(ETH))
        await engine.desk.keeper.idle()
        loop.call_later(8, change, venue)
        result = await engine.submit(signal())
        assert loop.time() == began + 10
        assert (None if result.denial is None else result.denial.code) is code
        assert len(venue.received) == (2 if code else 3)
        if code is None:
            assert result.outcome is Outcome.FILLED
            assert (await engine.submit(signal(ETH, side=Side.SELL))).outcome is Outcome.FILLED

    slow = attrs.evolve(MockExchange().capabilities, order_rate=(2, timedelta(seconds=10)))
    play(body, ConfirmationHandler(moving(None), always=False), capabilities=slow)


def test_the_time_to_answer_begins_when_the_question_is_shown():
    """Two signals at once, a terminal that shows one question after the other: each has its ten seconds."""
    shown = []

    class Terminal:
        one_at_a_time = True

        async def __call__(self, ticket):
            shown.append((asyncio.get_running_loop().time(), ticket.symbol))
            await asyncio.sleep(8)
            return True

    async def body(engine, _venue, _clock):
        began = asyncio.get_running_loop().time()
        done = await asyncio.gather(engine.submit(signal()), engine.submit(signal(ETH)))
        assert [each.outcome for each in done] == 2 * [Outcome.FILLED]
        assert shown == [(began, BTC), (began + 8, ETH)]

    play(body, ConfirmationHandler(Terminal()))
    assert TerminalPrompt.one_at_a_time


def test_nobody_is_asked_about_what_can_no_longer_be_sent():
    """Its price had passed its stop while another question was shown."""
    shown = []

    class Terminal:
        one_at_a_time = True

        async def __call__(self, ticket):
            shown.append(ticket.symbol)
            await asyncio.sleep(8)
            return False

    async def body(engine, venue, _clock):
        asyncio.get_running_loop().call_later(5, venue.set_price, ETH, D(2_400))
        first, second = await asyncio.gather(engine.submit(signal()), engine.submit(signal(ETH)))
        assert first.denial.code is DenialCode.NOT_CONFIRMED
        assert second.denial.code is DenialCode.STOP_LOSS_WRONG_SIDE
        assert shown == [BTC]

    play(body, ConfirmationHandler(Terminal()))


def test_silence_is_a_no():
    """After ten seconds by default; nothing is sent, and the question is called off."""
    called_off = []

    async def ask(_ticket):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            called_off.append(True)
            raise

    async def body(engine, venue, _clock):
        began = asyncio.get_running_loop().time()
        result = await engine.submit(signal())
        assert asyncio.get_running_loop().time() - began == 10
        assert result.denial.context == {"no_answer_within_seconds": "10.0"}
        assert not engine.orders.active
        assert venue.core.open_orders() == []

    play(body, ConfirmationHandler(ask))
    assert called_off == [True]


class Lines:
    """A terminal: gives a line when it is told to, then ends."""

    def __init__(self):
        self.lines = asyncio.Queue()
        self.loop = asyncio.get_running_loop()

    def __iter__(self):
        return self

    def __next__(self):
        line = asyncio.run_coroutine_threadsafe(self.lines.get(), self.loop).result()
        if line is None:
            raise StopIteration
        return line


async def test_the_terminal_answers_one_question_at_a_time(make_ticket, desk):
    """In the order in which they were asked; a terminal that is gone says no."""
    terminal, screen = Lines(), io.StringIO()
    prompt = TerminalPrompt(terminal, screen)
    ticket = make_ticket(desk, quantity=Decimal("0.1"), stop_loss=Decimal(98))
    first = asyncio.ensure_future(prompt(ticket))
    second = asyncio.ensure_future(prompt(ticket))
    await asyncio.sleep(0)
    assert screen.getvalue().count("?") == 1
    terminal.lines.put_nowait("Y1\n")
    assert await first is True
    terminal.lines.put_nowait("nope\n")
    assert await second is False
    third = asyncio.ensure_future(prompt(ticket))
    terminal.lines.put_nowait(None)
    assert await third is False
    asked = "buy 0.1 BTC/USDT, market at about 100.1, stop 98? [y{}/N] "
    assert screen.getvalue() == "".join(asked.format(number) for number in (1, 2, 3))


def test_a_person_cannot_answer_in_virtual_time(make_ticket, desk):
    """It says what to do instead."""

    async def main(_clock):
        with pytest.raises(VirtualTimeError, match="ask="):
            await TerminalPrompt()(make_ticket(desk))

    run_virtual(main)


def test_a_confirmation_needs_time():
    """Zero seconds would refuse everything."""
    with pytest.raises(ConfigurationError, match="timeout"):
        ConfirmationHandler(timeout=timedelta(0))


# -- market hours ----------------------------------------------------------------------------------------


class Sessions(MockExchange):
    """A mock with hours."""

    state = MarketStatus(is_open=True)
    asked = 0
    is_down = False

    async def market_status(self, symbol):
        self.asked += 1
        if self.is_down:
            raise ConnectionError("no route")
        return self.state


def in_a_while(clock, **delta):
    return clock.now() + timedelta(**delta)


def test_entries_wait_for_the_open_and_rest_no_longer_than_to_the_close():
    """Queued while closed, sent when it opens, cancelled at the close although the time-out is later."""

    async def body(engine, venue, clock):
        venue.state = MarketStatus(is_open=False, next_open=in_a_while(clock, minutes=10))
        result = await engine.submit(signal(limit_price=D(41_900), signal_id="q"))
        assert result.outcome is Outcome.QUEUED
        assert "MARKET_CLOSED" in result.reason
        assert venue.state.next_open.isoformat() in result.reason
        assert await engine.market.next_open(BTC) == venue.state.next_open
        await clock.sleep_until(venue.state.next_open)
        venue.state = MarketStatus(is_open=True, next_close=in_a_while(clock, seconds=30))
        await clock.sleep_until(in_a_while(clock, seconds=5))
        (order,) = engine.orders.open_entries(BTC)
        assert order.intent.timeout_at == venue.state.next_close
        assert await engine.market.next_open(BTC) is None
        await clock.sleep_until(in_a_while(clock, seconds=26))
        assert order.state is OrderState.CANCELLED

    play(body, MarketHoursHandler(), venue_class=Sessions)


class SlowHours(MarketHoursHandler):
    """Goes on for two seconds after it has queued a signal."""

    async def __call__(self, ticket, call_next, /):
        result = await super().__call__(ticket, call_next)
        await asyncio.sleep(2)
        return result


@pytest.mark.parametrize("command", ["cancel_all", "flatten"])
def test_what_has_just_been_queued_keeps_no_emergency_up(command):
    """Its chain has not ended, so no result is known of it yet; the command does its work all the same."""

    async def body(engine, venue, clock):
        bought = await engine.submit(signal())
        assert bought.outcome is Outcome.FILLED
        venue.state = MarketStatus(is_open=False, next_open=in_a_while(clock, minutes=10))
        queueing = asyncio.ensure_future(engine.submit(signal(ETH, signal_id="q")))
        await clock.sleep_until(in_a_while(clock, seconds=1))
        assert list(engine.book.queued) == ["q"]
        assert "q" not in engine.book.signals, "nobody was told of it yet"
        await getattr(engine, command)()
        await queueing
        assert not engine.book.queued
        if command == "flatten":
            await clock.sleep_until(in_a_while(clock, seconds=5))
            assert BTC not in engine.positions

    play(body, SlowHours(), venue_class=Sessions)


def test_without_a_queue_a_closed_market_denies_and_exits_pass():
    """The denial says in which phase the market is."""

    async def body(engine, venue, clock):
        await engine.submit(signal())
        await clock.sleep_until(in_a_while(clock, seconds=20))
        venue.state = MarketStatus(is_open=False, phase=MarketPhase.HALTED, reason="news")
        denied = await engine.submit(signal(ETH))
        assert denied.denial.context == {
            "phase": "halted",
            "reason": "news",
            "next_open": "unknown",
        }
        exit_ = await engine.submit(signal(side=Side.SELL, quantity=None))
        assert exit_.outcome is Outcome.FILLED

    play(body, MarketHoursHandler(queue_when_closed=False), venue_class=Sessions)


@pytest.mark.parametrize("phase", [MarketPhase.PRE, MarketPhase.AFTER])
def test_extended_hours_take_limit_orders_only(phase):
    """And only where they are switched on; the order says so to the venue."""
    link = MarketHoursHandler(
        trade_premarket=phase is MarketPhase.PRE, trade_afterhours=phase is MarketPhase.AFTER
    )

    async def body(engine, venue, _clock):
        venue.state = MarketStatus(is_open=False, phase=phase)
        refused = await engine.submit(signal())
        assert refused.denial.code is DenialCode.ORDER_TYPE_UNSUPPORTED
        seen = []

        async def ask(ticket, call_next):
            seen.append(ticket.extended_hours)
            return ticket.deny(DenialCode.REFUSED_BY_HANDLER)

        engine.parts.pipeline = engine.parts.pipeline.insert(ask, before="OrderExecutorHandler")
        engine.parts.pipeline.bind(engine.desk)
        await engine.submit(signal(limit_price=D(41_900)))
        assert seen == [True]

    play(body, link, venue_class=Sessions)


def test_a_calendar_helps_where_the_venue_is_silent():
    """The venue wins while it answers; the calendar fills what it leaves out; with neither the venue decides."""

    async def body(engine, venue, clock):
        opens, closes = in_a_while(clock, hours=1), in_a_while(clock, hours=8)

        def calendar(symbol, _now):
            if symbol == ETH:
                return None
            return MarketStatus(is_open=False, next_open=opens, next_close=closes)

        engine.market.calendar = calendar
        said = await engine.market.status(BTC)
        assert (said.is_open, said.next_close) == (True, closes)
        asked = venue.asked
        assert await engine.market.status(BTC) is said
        assert venue.asked == asked, "fifteen seconds are not over"
        await clock.sleep_until(in_a_while(clock, seconds=16))
        venue.is_down = True
        assert (await engine.market.status(BTC)).is_open is False
        assert await engine.market.status(ETH) is None
        passed = await engine.submit(signal(ETH))
        assert passed.outcome is Outcome.FILLED
        assert "the market's state is not known" in str(passed)

    play(body, MarketHoursHandler(), venue_class=Sessions)


def test_a_venue_that_wants_a_pause_is_not_asked_for_its_hours():
    """Retry-After holds for this query too; what a calendar says is used meanwhile, and the venue's word after it."""

    async def body(engine, venue, clock):
        await engine.instrument(BTC)
        venue.asked = 0
        engine.desk.gateway.pace.note(RateLimitError("slowly", retry_after=timedelta(seconds=20)))
        assert await engine.market.status(BTC) is None
        assert venue.asked == 0
        await clock.sleep_until(in_a_while(clock, seconds=20.1))
        assert await engine.market.status(BTC) is venue.state
        assert venue.asked == 1

    play(body, MarketHoursHandler(), venue_class=Sessions)


def test_without_a_queue_the_venue_s_own_closure_queues_nothing():
    """No calendar knew of it; hours later nothing is sent. An exit waits all the same: the option is for entries."""

    async def body(engine, venue, clock):
        fault = Fault(on="place", kind="error", error=MarketClosedError("is closed"), nth=1)
        venue.connection.script = FaultScript([fault])
        result = await engine.submit(signal())
        assert result.outcome is Outcome.REJECTED
        assert "is closed" in result.reason
        await clock.sleep_until(in_a_while(clock, hours=1))
        assert not engine.book.queued
        assert len(venue.received) == 1
        assert (await engine.submit(signal(ETH))).outcome is Outcome.FILLED
        venue.connection.script = FaultScript([fault])
        out = await engine.submit(signal(ETH, side=Side.SELL, quantity=None, signal_id="out"))
        assert out.outcome is Outcome.QUEUED
        await clock.sleep_until(in_a_while(clock, minutes=2))
        assert ETH not in engine.positions

    play(body, MarketHoursHandler(queue_when_closed=False), venue_class=Sessions)


def test_a_calendar_that_raises_counts_as_none_and_ends_nothing():
    """It is the application's code: told once, then the period goes on and what was queued is sent at the open."""

    async def body(engine, venue, clock):
        broken = []

        def calendar(_symbol, _now):
            if broken:
                raise ValueError("out of bounds")

        engine.market.calendar = calendar
        venue.state = MarketStatus(is_open=False)
        assert (await engine.submit(signal(signal_id="q"))).outcome is Outcome.QUEUED
        broken.append(True)
        passes = engine.desk.reconciler.passes
        await clock.sleep_until(in_a_while(clock, minutes=5))
        assert engine.desk.reconciler.passes >= passes + 4
        (alarm,) = engine.book.alarms
        assert alarm.code == "CALENDAR_FAILED"
        assert "out of bounds" in alarm.text
        venue.state = MarketStatus(is_open=True)
        await clock.sleep_until(in_a_while(clock, minutes=2))
        assert BTC in engine.positions
        assert not engine.book.queued
        broken.clear()
        await clock.sleep_until(in_a_while(clock, minutes=2))
        await engine.market.status(BTC)
        broken.append(True)
        await clock.sleep_until(in_a_while(clock, minutes=2))
        await engine.market.status(BTC)
        assert [each.code for each in engine.book.alarms] == 2 * ["CALENDAR_FAILED"]

    play(body, MarketHoursHandler(), venue_class=Sessions)


@pytest.mark.parametrize(
    "rubbish",
    [
        None,
        "open",
        MarketStatus(is_open="no"),
        MarketStatus(is_open=True, next_close="soon"),
        MarketStatus(is_open=False, next_open=datetime(2024, 3, 12)),
    ],
)
def test_rubbish_about_a_market_says_nothing(rubbish):
    """I29 I30: from the venue's adapter the calendar is left, from the calendar the venue; nothing ends."""

    async def body(engine, venue, clock):
        closed = MarketStatus(is_open=False, next_open=in_a_while(clock, hours=1))
        engine.market.calendar = lambda _symbol, _now: closed
        venue.state = rubbish
        assert await engine.market.status(BTC, anew=True) == closed
        venue.state = MarketStatus(is_open=True)
        if rubbish is None:
            return  # from a calendar: it does not know the symbol
        engine.market.calendar = lambda _symbol, _now: rubbish
        assert await engine.market.status(BTC, anew=True) == venue.state
        assert [each.code for each in engine.book.alarms] == ["CALENDAR_FAILED"]

    play(body, MarketHoursHandler(), venue_class=Sessions)


def test_whatever_one_pass_of_the_period_raises_the_next_one_comes():
    """It is told once, until a pass has come to its end again."""

    async def body(engine, venue, clock):
        venue.state = MarketStatus(is_open=False)
        assert (await engine.submit(signal(signal_id="q"))).outcome is Outcome.QUEUED
        venue.state = MarketStatus(is_open=True)
        works = engine.market.status
        engine.desk.market.status = None  # cannot be called
        await clock.sleep_until(in_a_while(clock, minutes=5))
        assert [each.code for each in engine.book.alarms] == ["TASK_FAILED"]
        assert "period: TypeError" in engine.book.alarms[0].text
        assert list(engine.book.queued) == ["q"]
        engine.desk.market.status = works
        await clock.sleep_until(in_a_while(clock, minutes=2))
        assert BTC in engine.positions
        assert len(engine.book.alarms) == 1

    play(body, MarketHoursHandler(), venue_class=Sessions)
