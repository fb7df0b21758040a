"""The wire-level TWS itself: who is connected, what they ask, what the account's owner and the faults do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC
from decimal import Decimal
from typing import Final, Self

import attrs

from execkit.clock import Clock, SystemClock
from execkit.exchanges.matching import MatchingCore
from execkit.model.market import Quote
from execkit.numbers import ZERO
from execkit.testing.venues.faults import FaultQueue, Mishap, WireFault
from execkit.testing.venues.tws import messages
from execkit.testing.venues.tws.answers import Answers
from execkit.testing.venues.tws.listing import Listing, defaults
from execkit.testing.venues.tws.messages import Executed, TwsOrder
from execkit.testing.venues.tws.orders import TwsOrders
from execkit.testing.venues.tws.refusals import Refused
from execkit.testing.venues.tws.session import TwsSession
from execkit.testing.venues.tws.wire import NEWEST, Fields, SentOrder, frame, read_order

BALANCES: Final = {"USD": Decimal(100_000)}
PRICES: Final = {
    "AAPL": Decimal(200),
    "MSFT": Decimal(400),
    "SAP/EUR:IBIS": Decimal(150),
    "SAP/EUR:FWB": Decimal(150),
    "ESZ6:CME": Decimal(6000),
    "EUR/USD": Decimal("1.1"),
    "BTC/USD:PAXOS": Decimal(42_000),
}


@attrs.define
class Received:
    """A placeOrder message that has reached the venue."""

    sent: SentOrder
    client_id: int
    taken: bool = False
    """It made an order; a change of one that exists does not count."""


class WireTws:
    """A Trader Workstation on 127.0.0.1, to be used with `async with`.

    Args:
        listings: What can be traded; by default one contract of each kind.
        balances: Cash of the account.
        prices: A first price by symbol.
        accounts: Account ids; the first one holds everything.
        clock: The venue's own wall clock.
        version: The newest protocol version that it speaks.
        first_id: What nextValidId says at least.
        read_only: The API is set to read-only.
        pace: Messages that a client may send in a second; those beyond are answered with error 100. TWS takes 50.
        port: Where to listen; 0 takes any free port.
    """

    name = "ibkr"

    def __init__(
        self,
        *,
        listings: Iterable[Listing] | None = None,
        balances: Mapping[str, Decimal] | None = None,
        prices: Mapping[str, Decimal] | None = None,
        accounts: tuple[str, ...] = ("DU1234567",),
        clock: Clock | None = None,
        version: int = NEWEST,
        first_id: int = 1,
        read_only: bool = False,
        pace: int | None = None,
        port: int = 0,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.accounts = accounts
        self.version = version
        self.first_id = first_id
        self.read_only = read_only
        self.pace = pace
        self.port = port
        self.listings = {
            each.symbol: each for each in (defaults() if listings is None else listings)
        }
        self.core = MatchingCore(
            dict(balances or BALANCES),
            instruments=[each.instrument for each in self.listings.values()],
            allow_short=True,
        )
        for symbol, price in (PRICES if prices is None else prices).items():
            if symbol in self.listings:
                self.core.on_quote(Quote(symbol, price, price, self.clock.now(), last=price))
        self.orders = TwsOrders(
            self.core,
            self.clock,
            on_change=self._show,
            on_warning=self._warn,
            on_execution=self._tell,
        )
        self.answers = Answers(self)
        self.received: list[Received] = []
        """Every placeOrder message, in the order of arrival."""
        self.messages: Counter[int] = Counter()
        """How many messages of each id have arrived."""
        self.sessions: list[TwsSession] = []
        self.connects = 0
        self.faults = FaultQueue()
        self.commission_delay: float | None = 0.0
        """Seconds by which commission reports follow their execution; None: they never come."""
        self.is_down = False
        """Connections are refused right after they are made."""
        self._placing: WireFault | None = None
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()

    # -- life ------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for timer in self._timers:
            timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = TwsSession(reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.sessions.append(session)
        self.connects += 1
        try:
            if not self.is_down:
                now = self.clock.now().astimezone(UTC)
                await session.shake_hands(self.version, now.strftime("%Y%m%d %H:%M:%S UTC"))
                await session.listen(lambda fields: self._on_message(session, fields))
        except (asyncio.IncompleteReadError, ConnectionError, ValueError, asyncio.CancelledError):
            pass  # one of the two sides is gone
        finally:
            self.sessions.remove(session)
            self._tasks.discard(task)
            session.cut()
            self._note()

    # -- what clients say ------------------------------------------------------------------------------

    def _on_message(self, session: TwsSession, fields: list[str]) -> None:
        number = int(fields[0])
        self.messages[number] += 1
        self._note()
        if self.pace is not None and session.is_too_fast(self.pace):
            text = "Max rate of messages per second has been exceeded"
            self.warn(session, int(fields[1]) if number == 3 else -1, 100, text)
        elif number == 71:
            self._start(session, int(fields[2]))
        elif number == 3:
            self._place(session, fields)
        elif number == 4:
            self._cancel(session, int(fields[2]))
        else:
            self.answers.answer(session, number, Fields(fields[1:]))

    def _start(self, session: TwsSession, client_id: int) -> None:
        fault = self.faults.take("start")
        taken = any(other.client_id == client_id for other in self.sessions)
        if taken or (fault is not None and fault.kind is Mishap.ERROR):
            text = "Unable to connect as the client id is already in use. Retry with a unique client id."
            session.send(messages.error(-1, 326, text, session.version))
            session.hang_up()
            return
        if fault is not None:
            return  # it says nothing more
        session.client_id = client_id
        session.is_ready = True
        used = [order_id for client, order_id in self.orders.by_id if client == client_id]
        next_id = max(self.first_id, *(each + 1 for each in used), 1)
        session.send(
            self.answers.accounts(),
            self.answers.next_id(self.first_id if self._rolls_back else next_id),
            messages.error(-1, 2104, "Market data farm connection is OK:usfarm", session.version),
        )
        session.greeting = self.answers.open_orders_of(session)

    _rolls_back = False

    def roll_back_ids(self) -> None:
        """Forget which order ids were used: nextValidId begins again at *first_id*."""
        self._rolls_back = True

    def _place(self, session: TwsSession, fields: list[str]) -> None:
        sent = read_order(fields, session.version)
        fault = self.faults.take("place", call=sent)
        if (
            fault is not None
            and not fault.reached
            and fault.kind in (Mishap.DROP_REQUEST, Mishap.HANG)
        ):
            self._drop(session, fault)
            return
        received = Received(sent, session.client_id)
        self.received.append(received)
        if fault is not None and fault.kind is Mishap.ERROR and not fault.reached:
            self.warn(session, sent.order_id, fault.code or 201, fault.text or "Order rejected")
            return
        was_mute = session.is_mute
        hides = fault is not None and fault.kind in (
            Mishap.DROP_ANSWER,
            Mishap.HANG,
            Mishap.OTHER_ORDER,
            Mishap.CUT_BODY,
        )
        session.is_mute = was_mute or hides
        self.orders.match_at_once = fault is None or fault.kind is not Mishap.UNFILLED
        try:
            is_new = (session.client_id, sent.order_id) not in self.orders.by_id
            order = self._take(session, sent)
            received.taken = is_new
        except Refused as refusal:
            self.warn(session, sent.order_id, refusal.code, refusal.text)
        else:
            if fault is not None and fault.kind is Mishap.OTHER_ORDER:
                session.is_mute = was_mute
                other = attrs.evolve(order, sent=attrs.evolve(sent, ref="manual-other"))
                session.send(
                    messages.open_order(other, session.version), messages.order_status(other)
                )
            if fault is not None and fault.kind is Mishap.CUT_BODY:
                session.is_mute = was_mute
                session.send(frame(5, sent.order_id, "half of it"))
            if fault is not None and fault.kind is Mishap.ERROR:
                self.warn(session, sent.order_id, fault.code or 504, fault.text)
        finally:
            session.is_mute = was_mute
            self.orders.match_at_once = True
        if fault is not None:
            self._drop(session, fault)

    def _take(self, session: TwsSession, sent: SentOrder) -> TwsOrder:
        if self.read_only:
            text = "Error validating request.-'bO' : cause - The API interface is currently in Read-Only mode."
            raise Refused(321, text)
        listing = self.answers.listing_of(sent.contract)
        return self.orders.place(session.client_id, sent, listing)

    @staticmethod
    def _drop(session: TwsSession, fault: WireFault) -> None:
        if fault.kind in (Mishap.DROP_REQUEST, Mishap.DROP_ANSWER):
            session.cut()

    def _cancel(self, session: TwsSession, order_id: int) -> None:
        fault = self.faults.take("cancel", call=order_id)
        if fault is not None and fault.kind is Mishap.ERROR:
            self.warn(session, order_id, fault.code or 161, fault.text)
            return
        if fault is not None and not fault.reached:
            self._drop(session, fault)
            return
        was_mute, session.is_mute = session.is_mute, session.is_mute or fault is not None
        try:
            order = self.orders.cancel(session.client_id, order_id)
        except Refused as refusal:
            self.warn(session, order_id, refusal.code, refusal.text)
        else:
            text = f"Order Canceled - reason:{order.reason}"
            self.warn(session, order_id, 202, text)
        finally:
            session.is_mute = was_mute
        if fault is not None:
            self._drop(session, fault)

    # -- what clients are told -------------------------------------------------------------------------

    def _event(self, session: TwsSession, kind: str, order: TwsOrder, *frames: bytes) -> None:
        """Send news of an order, unless a fault of the stream strikes."""
        fault = self.faults.take("stream", call=(kind, order))
        if fault is None:
            session.send(*frames)
        elif fault.kind is Mishap.DUPLICATE:
            session.send(*frames, *frames)
        elif fault.kind is Mishap.CUT:
            session.cut()
        elif fault.kind is Mishap.LATE:
            self.later(fault.after, lambda: session.send(*frames))

    def _of(self, order: TwsOrder) -> Iterable[TwsSession]:
        """Return the connection that hears of an order: its own client's."""
        return [s for s in self.sessions if s.is_ready and s.client_id == order.client_id]

    def _show(self, order: TwsOrder) -> None:
        for session in self._of(order):
            self._event(session, "openOrder", order, messages.open_order(order, session.version))
            self._event(session, "orderStatus", order, messages.order_status(order))
        self._note()

    def _warn(self, order: TwsOrder, code: int, text: str) -> None:
        for session in self._of(order):
            self.warn(session, order.sent.order_id, code, text)

    def _tell(self, executed: Executed) -> None:
        self._note()
        order = executed.order
        for session in self._of(order):
            details = messages.exec_details(-1, executed, session.version)
            self._event(session, "execDetails", order, details)
            self._commission(session, executed)
            listing = order.listing
            held, cost = self.answers.position_of(listing)
            session.send(messages.position(self.accounts[0], listing, held, cost))

    def _commission(self, session: TwsSession, executed: Executed) -> None:
        if self.commission_delay is None:
            return
        report = messages.commission(executed)
        if self.commission_delay:
            self.later(self.commission_delay, lambda: session.send(report))
        else:
            self._event(session, "commissionReport", executed.order, report)

    def warn(self, session: TwsSession, request_id: int, code: int, text: str) -> None:
        """Send an error or a warning about a request or an order."""
        session.send(messages.error(request_id, code, text, session.version))

    def announce(self, code: int, text: str = "") -> None:
        """Send a system message to everybody, e.g. 1100 when the uplink is lost."""
        for session in self.sessions:
            self.warn(session, -1, code, text or f"system message {code}")

    def later(self, seconds: float, step: Callable[[], None]) -> None:
        """Do something after a while."""
        self._timers.add(asyncio.get_running_loop().call_later(seconds, step))

    # -- what the owner of the venue does --------------------------------------------------------------

    def fault(self, on: str, kind: Mishap | str, **details: object) -> WireFault:
        """Let something go wrong; see `WireFault`. The operations are those of `Answers`, place, cancel and start."""
        fault = WireFault(on=on, kind=Mishap(kind), **details)  # type: ignore[arg-type]
        self.faults.waiting.append(fault)
        return fault

    def move_price(self, symbol: str, price: Decimal, *, size: Decimal | None = None) -> None:
        """Quote a price on both sides, to orders and to subscribers."""
        quote = Quote(symbol, price, price, self.clock.now(), price, size, size)
        self.orders.apply(self.core.on_quote(quote))
        self.orders.trail()
        self.answers.publish_quote(self.listings[symbol])

    def cut(self) -> None:
        """Break all connections."""
        for session in list(self.sessions):
            session.cut()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def go_mute(self) -> None:
        """Leave all links half open."""
        for session in self.sessions:
            session.is_mute = True

    def sends(self, ref: str) -> int:
        """Return how many placeOrder messages with an orderRef have arrived."""
        return sum(each.sent.ref == ref for each in self.received)

    def taken(self, ref: str) -> int:
        """Return how many orders these have made."""
        return sum(each.sent.ref == ref and each.taken for each in self.received)

    def held(self, symbol: str) -> Decimal:
        """Return the position in a symbol, in units."""
        return next((p.quantity for p in self.core.positions() if p.symbol == symbol), ZERO)

    def _note(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait for a message to make something true; raise `TimeoutError` when nothing does."""
        async with asyncio.timeout(seconds):
            while not condition():
                await self._changed.wait()
