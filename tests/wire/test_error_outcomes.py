"""What becomes of each kind of error, played through on every venue on the wire; the page of it must be fresh.

Run `.venv/bin/python -m tests.wire.test_error_outcomes` to write `docs/reference/error-outcomes.md` anew.
"""

import asyncio
import contextlib
import re
import socket
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import attrs
import pytest
from tests.support import alpaca, binance, ibkr

from execkit.engine import ExecutionEngine
from execkit.errors import ExchangeError
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.events import Event, SignalDenied
from execkit.model.order import OrderEvent, OrderRole, Side
from execkit.model.records import OrderChanged, Source
from execkit.model.signal import TradingSignal
from execkit.notify.messages import Severity, message_of
from execkit.pipeline import ExecutionPipeline
from execkit.testing.venues.faults import Mishap

D = Decimal
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "error-outcomes.md"
COMMAND = ".venv/bin/python -m tests.wire.test_error_outcomes"
PRICE = D(200)
PATIENT = timedelta(seconds=20)
HUNG = 1.0
"""Seconds after which a venue that does not answer counts as silent, where that is what is played."""
PAUSE, DOUBT, WAIT = 0.02, 6, 5
"""Seconds: the first pause of a backoff, until a doubt is given up, until a result is given."""
SOON = timedelta(seconds=0.05)
LONG = timedelta(seconds=120)


# -- the venues ------------------------------------------------------------------------------------------


@attrs.frozen
class Place:
    """A venue with an adapter that is not connected yet."""

    name: str
    venue: object
    adapter: object
    symbol: str

    def fail(self, on, kind, **details):
        strike = self.venue.fault if self.name == "ibkr" else self.venue.fail_next
        strike(on, kind, **details)

    def heal(self):
        self.venue.faults.waiting.clear()

    def sends(self, key):
        return self.venue.sends(key)

    def accepted(self, key):
        return self.venue.taken(key) if self.name == "ibkr" else self.venue.accepted(key)

    def hurry(self):
        """Wait no longer for answers."""
        match self.name:
            case "binance":
                self.adapter._client.limit = HUNG
            case "alpaca":
                self.adapter._wire._limit = HUNG
            case "ibkr":
                self.adapter._trading._order_timeout = HUNG

    @contextlib.asynccontextmanager
    async def gone(self):
        """Send requests where nobody listens: a port that is taken and not open. The streams go on.

        TWS itself goes on to listen; it says that its own line to the brokerage is gone.
        """
        if self.name == "ibkr":
            self.venue.announce(1100, "Connectivity between IBKR and TWS has been lost")
            await self.venue.until(lambda: self.adapter._line.link.uplink_lost)
            yield
            self.venue.announce(1102, "Connectivity has been restored, data maintained")
            return
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            there = f"http://127.0.0.1:{taken.getsockname()[1]}"
            if self.name == "alpaca":
                rest = self.adapter._rest
                rest._urls = attrs.evolve(rest._urls, rest=there, data=there)
            else:
                urls = self.adapter._client.urls
                urls["api"] |= dict.fromkeys(("public", "private"), f"{there}/api/v3")
            yield


@contextlib.asynccontextmanager
async def on_binance():
    async with binance.BinanceVenue(prices={"BTC/USDT": PRICE}) as venue:
        yield Place("binance", venue, binance.adapter_of(venue, timeout=PATIENT), "BTC/USDT")


@contextlib.asynccontextmanager
async def on_alpaca():
    async with alpaca.venue_on_the_wire(prices={"AAPL": PRICE}) as venue:
        yield Place("alpaca", venue, alpaca.adapter_of(venue, timeout=PATIENT), "AAPL")


@contextlib.asynccontextmanager
async def on_ibkr():
    async with ibkr.WireTws(prices={"AAPL": PRICE}, balances={"USD": D(100_000)}) as venue:
        options = {"order_timeout": PATIENT, "read_timeout": PATIENT}
        options["absence_window"] = timedelta(seconds=0.2)
        yield Place("ibkr", venue, ibkr.adapter_of(venue, **options), "AAPL")


VENUES = {"binance": on_binance, "alpaca": on_alpaca, "ibkr": on_ibkr}
TITLES = {"binance": "Binance", "alpaca": "Alpaca", "ibkr": "Interactive Brokers"}


# -- the cases -------------------------------------------------------------------------------------------


def error(status, code, text, **details):
    """Return how a request is answered with an error: the HTTP status where there is one, code and text."""
    shown = " ".join(str(each) for each in (status, code) if each is not None)
    given = {"code": code, "text": text, **details}
    return (
        f"{shown} {text}".strip(),
        Mishap.ERROR,
        given if status is None else {"status": status, **given},
    )


@attrs.frozen
class Case:
    """An error class, and how each venue causes it; what a venue does not have is left out."""

    kind: str
    what: str
    faults: dict
    """By venue: what is shown of the answer, the mishap, its details."""
    act: str = "entry"
    """What fails: an `entry`, a `cancel`, a `read`, or the `line` itself."""
    quiet: bool = False
    """The account's stream is late, so that a look-up tells first."""


def everywhere(shown, kind, **details):
    return dict.fromkeys(VENUES, (shown, kind, details))


CASES = [
    Case(
        "NotSentError",
        "nobody listens",
        {name: ("no connection", None, {}) for name in ("binance", "alpaca")}
        | {"ibkr": ("1100 Connectivity between IBKR and TWS has been lost", None, {})},
        act="line",
    ),
    Case(
        "RateLimitError",
        "too many requests, for a moment",
        {
            "binance": error(429, -1015, "Too many new orders.", retry_after=SOON),
            "alpaca": error(429, 42910000, "rate limit exceeded", retry_after=SOON),
            "ibkr": error(None, 100, "Max rate of messages per second has been exceeded"),
        },
    ),
    Case(
        "RateLimitError",
        "a ban for minutes",
        {
            "binance": error(418, -1003, "Way too many requests.", retry_after=LONG),
            "alpaca": error(429, 42910000, "rate limit exceeded", retry_after=LONG),
        },
    ),
    Case(
        "AuthenticationError",
        "the key is refused",
        {
            "binance": error(401, -2015, "Invalid API-key, IP, or permissions for action."),
            "alpaca": error(401, 40110000, "request is not authorized"),
        },
    ),
    Case(
        "InsufficientBalanceError",
        "not enough money",
        {
            "binance": error(400, -2010, "Account has insufficient balance for requested action."),
            "alpaca": error(403, 40310000, "insufficient buying power"),
            "ibkr": error(None, 201, "Order rejected - reason:insufficient margin"),
        },
    ),
    Case(
        "QuantityTooLargeError",
        "more than the venue takes at once",
        {
            "binance": error(400, -1013, "Filter failure: MARKET_LOT_SIZE"),
            "ibkr": error(None, 201, "Order rejected - reason:size exceeds the maximum order size"),
        },
    ),
    Case(
        "InvalidOrderError",
        "the venue takes no such order",
        {
            "binance": error(400, -1013, "Filter failure: LOT_SIZE"),
            "alpaca": error(422, 40010001, "qty is required"),
            "ibkr": error(None, 321, "Server error when validating an API client request"),
        },
    ),
    Case(
        "MarketOrderRefusedError",
        "no market orders here and now",
        {
            "binance": error(400, -2010, "Market orders are not supported for this symbol."),
            "ibkr": error(None, 10289, "You must set Cash Quantity for this order"),
        },
    ),
    Case(
        "MarketClosedError",
        "the market is closed",
        {
            "binance": error(400, -1013, "Market is closed."),
            "alpaca": error(422, 42210000, "asset AAPL is not tradable"),
            "ibkr": ("its hours say CLOSED", None, {}),
        },
    ),
    Case(
        "OrderRejectedError",
        "refused for another reason",
        {
            "binance": error(400, -2010, "A reason that nobody has heard of."),
            "alpaca": error(403, 40310000, "something new"),
            "ibkr": error(None, 201, "Order rejected - reason:no such luck"),
        },
    ),
    Case(
        "DuplicateClientOrderIdError",
        "the id is in use; the order is there",
        {
            "binance": error(400, -2010, "Duplicate order sent.", reached=True),
            "alpaca": error(422, 40010001, "client_order_id must be unique", reached=True),
        },
        quiet=True,
    ),
    Case(
        "DuplicateClientOrderIdError",
        "the id is in use; the order does not show",
        {
            "binance": error(400, -2010, "Duplicate order sent."),
            "alpaca": error(422, 40010001, "client_order_id must be unique"),
            "ibkr": error(None, 103, "Duplicate order id"),
        },
    ),
    Case(
        "OrderStatusUnknownError",
        "no answer; the order was taken",
        everywhere("silence", Mishap.HANG, reached=True),
    ),
    Case(
        "OrderStatusUnknownError",
        "no answer; the order never arrived",
        everywhere("silence", Mishap.HANG, reached=False),
    ),
    Case(
        "OrderStatusUnknownError",
        "the connection breaks; the order was taken",
        {
            "binance": ("hangs up", Mishap.DROP_ANSWER, {}),
            "alpaca": ("hangs up", Mishap.DROP_ANSWER, {}),
            "ibkr": ("hangs up", Mishap.DROP_ANSWER, {"reached": True}),
        },
        quiet=True,
    ),
    Case(
        "OrderStatusUnknownError",
        "the venue's own error; the order was taken",
        {
            "binance": error(503, -1007, "Timeout waiting for response.", reached=True),
            "alpaca": error(500, 50010000, "internal server error occurred", reached=True),
            "ibkr": error(None, 10999, "A code that nobody has heard of", reached=True),
        },
        quiet=True,
    ),
    Case(
        "OrderStatusUnknownError",
        "the answer is about another order",
        {name: ("another order", Mishap.OTHER_ORDER, {}) for name in ("binance", "alpaca")},
        quiet=True,
    ),
    Case(
        "OrderNotFoundError",
        "a cancel finds no order, and it is there",
        {
            "binance": error(400, -2011, "Unknown order sent."),
            "alpaca": error(404, 40410000, "order not found"),
            "ibkr": error(None, 10147, "OrderId that needs to be cancelled is not found"),
        },
        "cancel",
    ),
    Case(
        "ExchangeUnavailableError",
        "the account cannot be read",
        {
            "binance": error(502, None, ""),
            "alpaca": error(503, None, ""),
            "ibkr": error(None, 322, "Error processing request."),
        },
        "read",
    ),
]


ABSENT = {
    "AuthenticationError": {
        "ibkr": "TWS is logged in by a person; an API that may only read answers 321"
    },
    "QuantityTooLargeError": {
        "alpaca": "no answer of that meaning is documented; `40010001` is `InvalidOrderError`"
    },
    "MarketOrderRefusedError": {"alpaca": "no answer of that meaning is documented"},
    "UnsupportedFeatureError": dict.fromkeys(
        VENUES, "raised before anything is sent, see the capabilities of the adapter"
    ),
}
"""Why a venue has no case of an error class."""


# -- playing one -----------------------------------------------------------------------------------------


def chain():
    return ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(),
            OrderExecutorHandler(base_delay=PAUSE, doubt_timeout=DOUBT),
            ReconciliationHandler(max_wait_time=WAIT, poll_interval=0.1),
        ]
    )


@attrs.frozen
class Outcome:
    """What was seen: on the server, in the journal, and by the trader."""

    did: str
    after: str
    seconds: float
    """From `submit`, or `cancel`, to the result."""
    result: str
    told: tuple[str, ...]


async def play(case, name):
    """Return what one venue's answer led to."""
    async with VENUES[name]() as place:
        venue = place.venue
        engine = ExecutionEngine(
            place.adapter, journal=None, pipeline=chain(), clock=venue.clock, store=False
        )
        events = []
        engine.events.subscribe(Event, events.append)
        async with engine:
            _, kind, details = case.faults[name]
            signal = buy(place.symbol)
            if case.kind == "MarketClosedError" and kind is None:
                venue.core.set_halted(place.symbol, halted=True)
            await engine.instrument(place.symbol)
            engine.desk.quotes.see(await place.adapter.ticker(place.symbol))
            if case.quiet and name != "ibkr":
                place.fail("stream", Mishap.LATE, times=20, after=0.5)
            loop = asyncio.get_running_loop()
            began = loop.time()
            if case.act == "line":
                async with place.gone():
                    began = loop.time()
                    said = shown_result(await engine.submit(signal))
            elif case.act == "entry":
                if kind is Mishap.HANG:
                    place.hurry()
                if kind is not None:
                    place.fail("place", kind, **details)
                said = shown_result(await engine.submit(signal))
            elif case.act == "cancel":
                signal = buy(place.symbol, limit_price=D(195), stop_loss=D(193))
                resting = await engine.submit(signal)
                assert resting.ok, str(resting)
                place.fail("cancel", kind, **details)
                began = loop.time()
                order = await engine.cancel(resting.order, "a test")
                async with asyncio.timeout(20):
                    await order.done()
                said = f"{order.state.value}"
            else:
                on = "executions" if name == "ibkr" else "read"
                place.fail(on, kind, times=50, **details)
                assert not await engine.desk.reconciler.try_run()
                said = shown_result(await engine.submit(signal))
            seconds = loop.time() - began
            place.heal()
            await engine.desk.keeper.idle()
            await engine.events.idle()
            return Outcome(did(engine, place, case), after(engine), seconds, said, told(events))


def buy(symbol, **changes):
    values = {"confluence": 4, "strength": 80, "quantity": D(10), "stop_loss": D(198)}
    return TradingSignal(signal_id="s", symbol=symbol, side=Side.BUY, **(values | changes))


def shown_result(result):
    text = result.outcome.value
    if result.filled:
        text += f" {result.filled.normalize():f}"
    if result.reason or result.denial:
        text += f": {result.reason or result.denial}"
    return clean(text)


def entries(engine):
    return [order for order in engine.book.orders.values() if order.role is OrderRole.ENTRY]


def changes(engine):
    keys = {order.client_order_id for order in entries(engine)}
    records = [entry.record for entry in engine.parts.journal.entries]
    return [r for r in records if isinstance(r, OrderChanged) and r.client_order_id in keys]


def did(engine, place, case):
    """Say how often the server was asked to place what, and how many orders it took."""
    orders = entries(engine)
    sends = [place.sends(order.client_order_id) for order in orders]
    taken = [place.accepted(order.client_order_id) for order in orders]
    assert all(each <= 1 for each in taken), "one order was taken twice"
    assert sum(taken) <= 1, "two orders were taken for one signal"
    if not orders:
        return "nothing sent"
    quantities = list(dict.fromkeys(f"{order.quantity.normalize():f}" for order in orders))
    kinds = list(dict.fromkeys(order.request.type.value for order in orders))
    if len(kinds) > 1:
        parts = [f"sent as {' then '.join(kinds)}"]
    elif len(quantities) > 1:
        parts = [f"sent {' then '.join(quantities)}"]
    elif len(orders) > 1:
        parts = [f"sent {len(orders)} times, the second under a new id"]
    elif orders[0].attempts > 1:
        parts = [f"tried {orders[0].attempts} times, {sum(sends) or 'none'} arrived"]
    else:
        parts = ["sent once" if sum(sends) else "sent once, never arrived"]
    if case.act == "cancel":
        asked = sum(change.event is OrderEvent.ASK_CANCEL for change in changes(engine))
        parts.append(f"cancel asked {asked} times" if asked > 1 else "cancel asked once")
    parts.append(f"{sum(taken) or 'none'} taken")
    return ", ".join(parts)


def after(engine):
    """Say what was waited for."""
    events = {change.event for change in changes(engine)}
    if OrderEvent.LOSE in events or OrderEvent.ASK_CANCEL in events:
        return "after a look-up"
    sources = {change.source for change in changes(engine) if change.event is OrderEvent.ACCEPT}
    if sources == {Source.STREAM}:
        return "when the stream tells"
    if sum(change.event is OrderEvent.SUBMIT for change in changes(engine)) > 1:
        return "after another try"
    return "at once"


def told(events):
    """Return what the notifications would say, from warnings on, each once."""
    messages = []
    for event in events:
        message = None if isinstance(event, SignalDenied) else message_of(event)
        if message is not None and message.severity >= Severity.WARNING:
            messages.append(f"{message.severity.name.lower()}: {message.title}")
    return tuple(sorted(set(messages)))


def clean(text):
    """Return a text without what differs from run to run, fit for a cell of a table."""
    text = re.sub(r"xk[a-z2-7]{24}", "xk…", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "…", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT?[\d:. ]*", "…", text)
    return text.replace("|", "/")


def span(seconds):
    """Return a duration as text."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.995 else f"{seconds:.1f} s"


def without_times(text):
    """Return the page without the measured durations, which differ from run to run."""
    return re.sub(r"\| [\d.]+ m?s \|", "| |", text)


# -- the page --------------------------------------------------------------------------------------------


async def outcomes():
    """Return what was seen, by case and venue; they mostly wait, so some are played at once."""
    turn = asyncio.Semaphore(10)

    async def one(case, name):
        async with turn:
            return await play(case, name)

    pairs = [(case, name) for case in CASES for name in VENUES if name in case.faults]
    seen = await asyncio.gather(*(one(*pair) for pair in pairs))
    return list(zip(pairs, seen, strict=True))


def page(seen):
    """Return the page as text."""
    usual = OrderExecutorHandler()
    lines = [
        "# What becomes of each error",
        "",
        f"<!-- generated by {COMMAND} -->",
        "",
        "Each row was played with the real engine and adapter against a venue on the wire: a market buy of 10 whose",
        "first request is answered so. What was sent and taken is counted at the venue. *Told* is what `Notifier`",
        "would send, from warnings on. *After a look-up*: the venue was asked what became of the order until there was",
        "proof; no order is sent a second time before that.",
        "",
        "*Took* is from `submit` (or `cancel`) to the result, as measured when this page was written. The waits",
        f"in it are set short for this page: {HUNG:g} s without an answer count as silence, a doubt is given up",
        f"after {DOUBT:g} s (`doubt_timeout`, default {usual.doubt_timeout:g} s), the first pause before another try",
        f"is {PAUSE:g} s (`base_delay`, default {usual.base_delay:g} s), and a result is waited for {WAIT:g} s",
        f"(`max_wait_time`, default {ReconciliationHandler().max_wait_time:g} s). A test holds each row to the sum of",
        "its waits.",
        "",
    ]
    for name in VENUES:
        rows = [(case, outcome) for (case, where), outcome in seen if where == name]
        lines += [
            f"## {TITLES[name]}",
            "",
            "| error | the venue answers | execkit | when | took | result | told |",
            "|---|---|---|---|---|---|---|",
        ]
        for case, outcome in rows:
            shown = clean(case.faults[name][0])
            messages = "; ".join(outcome.told) or "-"
            cells = [f"`{case.kind}`: {case.what}", shown, outcome.did, outcome.after]
            cells += [span(outcome.seconds), outcome.result, messages]
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", f"Not at {TITLES[name]}:", ""]
        lines += [f"- `{kind}`: {why[name]}" for kind, why in ABSENT.items() if name in why]
        lines.append("")
    return "\n".join(lines)


async def test_the_page_says_what_happens():
    """Every error class on every venue that has it: sends, order count, result and notifications are as documented."""
    seen = await outcomes()
    made = page(seen)
    if without_times(made) != without_times(PAGE.read_text(encoding="utf-8")):
        pytest.fail(f"{PAGE.name} is stale; run {COMMAND}\n\n{made}")
    limit = HUNG + DOUBT + WAIT + PATIENT.total_seconds()
    assert all(outcome.seconds < limit for _, outcome in seen)


def test_every_error_class_has_a_row_at_every_venue_or_a_reason():
    """The page is complete: a new error class needs a case, or a word on why a venue does not have it."""
    missing = [
        f"{kind} at {name}"
        for kind in sorted(kinds_of(ExchangeError))
        for name in VENUES
        if name not in ABSENT.get(kind, {})
        and not any(case.kind == kind and name in case.faults for case in CASES)
    ]
    assert missing == []


def kinds_of(error):
    """Return the names of all classes below an error."""
    below = error.__subclasses__()
    ours = {each.__name__ for each in below if each.__module__.startswith("execkit.")}
    return ours.union(*(kinds_of(each) for each in below))


def written(made, before):
    """Return the page, each row that says nothing new with the duration that it had."""
    known = {without_times(line): line for line in before.splitlines()}
    return "\n".join(known.get(without_times(line), line) for line in made.split("\n"))


if __name__ == "__main__":
    made = page(asyncio.run(outcomes()))
    PAGE.write_text(written(made, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
