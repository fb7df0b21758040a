"""One connection to TWS, from its handshake to its end: requests, their answers, and who hears of the rest.

Of ib_async this uses `Client` (socket, framing, request layouts) and its decoder, not `IB`: there a request that shares
a key with another hangs for ever, one that failed looks like an empty answer, and a client id in use is told only after
the whole time limit. A connection that is lost is not repaired; `Line` makes a new one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from zoneinfo import ZoneInfo

import structlog
from ib_async.client import Client

from execkit.errors import ExchangeError, NotSentError
from execkit.exchanges.ibkr.asking import Listener, Request, read_error, refusal, unavailable
from execkit.exchanges.ibkr.pace import WINDOW, Pace
from execkit.exchanges.ibkr.raw import RawDecoder
from execkit.exchanges.ibkr.seen import CommissionSeen, ExecutionSeen, OrderSeen, StatusSeen

log = structlog.get_logger("execkit")

REQUESTS_FROM: Final = 2_000_000_000
"""Ids of requests begin here, far from order ids, so that an error's id says which of the two it is about."""

_UPLINK_LOST: Final = frozenset({1100, 2110})
_UPLINK_BACK: Final = frozenset({1101, 1102})
_FATAL: Final = frozenset({326, 502, 503, 504, 507})
"""Codes that end a connection, or an attempt to make one."""


class Link:
    """A connection with one fixed client id. *zone* is for times that TWS states without one."""

    def __init__(
        self,
        listener: Listener,
        *,
        client_id: int,
        read_timeout: float,
        pace: Pace,
        zone: ZoneInfo | None = None,
    ) -> None:
        self._listener = listener
        self._client_id = client_id
        self._read_timeout = read_timeout
        self._pace = pace
        self._client: Any = Client(self)
        # Its own queue would hide waiting orders; see `Pace`.
        self._client.MaxRequests = 0
        self._client.decoder = RawDecoder(self, zone)
        self._client.conn.disconnected += self._on_closed
        self._client.conn.hasData += self._on_data
        self._requests: dict[int | str, Request] = {}
        self._subscribers: dict[int, Callable[[Any], None]] = {}
        self._next_request = REQUESTS_FROM
        self._endings: set[asyncio.Task[None]] = set()
        self._refusal: ExchangeError | None = None
        self._is_over = asyncio.Event()
        self.greeting = b""
        """The first bytes of TWS: its version, and its own time of day, which ib_async reads and forgets."""
        self.uplink_lost = False
        """TWS itself is cut off from IBKR (1100): what it says is old, and an order may hang in it."""

    # -- beginning and end -----------------------------------------------------------------------------

    async def open(self, host: str, port: int) -> tuple[list[str], int]:
        """Connect; return the account ids and the next order id. Raises `ExchangeUnavailableError`."""
        where = f"{host}:{port}"
        connecting = asyncio.ensure_future(
            self._client.connectAsync(host, port, self._client_id, timeout=self._read_timeout)
        )
        over = asyncio.ensure_future(self._is_over.wait())
        try:
            await asyncio.wait({connecting, over}, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                await connecting
            elif self._refusal is None:
                raise unavailable(
                    f"{where} closed the connection; is the API enabled for this address?"
                )
            if self._refusal is not None:
                raise self._refusal
            return list(self._client.getAccounts()), int(self._client.getReqId())
        except TimeoutError:
            raise unavailable(
                f"{where} does not answer within {self._read_timeout:g} s; does TWS show a dialog that asks whether "
                f"to accept the connection?"
            ) from None
        except OSError as error:
            raise unavailable(
                f"nothing listens on {where} ({error.strerror or type(error).__name__}); start TWS or the gateway, "
                "log in, and enable 'ActiveX and Socket Clients' in its API settings"
            ) from None
        finally:
            for task in (connecting, over):
                task.cancel()
            await asyncio.gather(connecting, over, return_exceptions=True)

    @property
    def is_open(self) -> bool:
        """Tell whether messages can be exchanged, as far as the socket knows."""
        return bool(self._client.isReady()) and not self._is_over.is_set()

    async def over(self) -> None:
        """Wait for the end of the connection."""
        await self._is_over.wait()

    async def close(self) -> None:
        """End the connection; what was sent still leaves, unless the other side takes nothing more."""
        transport = self._client.conn.transport
        if transport is not None:
            self._client.disconnect()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._read_timeout):
                    await self._is_over.wait()
            transport.abort()
        self._end()

    def drop(self) -> None:
        """Give the connection up at once."""
        if self._client.conn.transport is not None:
            self._client.conn.transport.abort()
        self._end()

    def _on_data(self, data: bytes) -> None:
        self.greeting = self.greeting or bytes(data[:200])

    def _on_closed(self, _message: str) -> None:
        self._end()

    def _end(self) -> None:
        self._is_over.set()
        for request in self._requests.values():
            request.complete.set()
            request.finish(unavailable("the connection to TWS was lost"))
        self._requests.clear()
        self._subscribers.clear()
        for ending in self._endings:
            ending.cancel()

    # -- sending ---------------------------------------------------------------------------------------

    async def turns(self, patience: float, count: int) -> None:
        """Wait for the turn of so many order messages; raise `NotSentError` when it does not come in time."""
        for _ in range(count):
            await self._pace.turn(patience, is_order=True)

    def send(self, send: Callable[[Any], Any]) -> None:
        """Let *send* write order messages; raise `NotSentError` when they provably stay here."""
        self.check_may_send()
        try:
            send(self._client)
        except ConnectionError as error:
            raise NotSentError(f"not sent: {error}", venue="ibkr") from None

    def check_may_send(self) -> None:
        """Raise `NotSentError` where an order could not leave, or would hang in TWS."""
        if not self.is_open:
            raise NotSentError("not sent: there is no connection to TWS", venue="ibkr")
        if self.uplink_lost:
            text = (
                "not sent: TWS has lost its connection to IBKR (1100) and an order could hang in it"
            )
            raise NotSentError(text, venue="ibkr", code="1100")

    async def ask(
        self, send: Callable[[Any, int], None], *, end: Callable[[Any, int], None] | None = None
    ) -> list[Any]:
        """Send a request that has an id and return the rows of its answer; *end* ends what it subscribed to.

        Raises `ExchangeUnavailableError` when the answer does not come, is not complete, or cannot be read.
        """
        request_id = self._new_id()
        request = self._new_request(request_id)
        try:
            async with asyncio.timeout(self._read_timeout):
                await self._read_turn()
                send(self._client, request_id)
                return await request.done
        except TimeoutError:
            raise unavailable("TWS does not answer") from None
        except ConnectionError as error:
            raise unavailable(str(error)) from None
        finally:
            self._requests.pop(request_id, None)
            if end is not None:
                self._end_later(request_id, end)

    async def ask_shared(
        self,
        key: str,
        send: Callable[[Any], None],
        *,
        end: Callable[[Any], None] | None = None,
        has_turn: bool = False,
    ) -> list[Any]:
        """Send a request without an id of its own and return the rows of its answer; *end* ends what it subscribed to.

        Two such at once could not be told apart, so the second waits until the answer to the first is complete, also
        where the first gave up: a late answer must not pass for that of a later question.
        """
        try:
            async with asyncio.timeout(self._read_timeout):
                while (earlier := self._requests.get(key)) is not None:
                    await earlier.complete.wait()
                for _ in range((not has_turn) + (end is not None)):
                    await self._read_turn()
                request = self._new_request(key)
                if end is not None:
                    # Not later: a next question would be ended in its place.
                    request.done.add_done_callback(lambda _done: self._end_now(end))
                send(self._client)
                return await asyncio.shield(request.done)
        except TimeoutError:
            if key.startswith("rule-"):
                self._requests.pop(key, None)  # it never changes, so a late answer would be as good
            raise unavailable(f"TWS does not answer ({key})") from None
        except ConnectionError as error:
            raise unavailable(str(error)) from None

    def _end_now(self, send: Callable[[Any], None]) -> None:
        if self.is_open:
            self._pace.count()
            with suppress(ConnectionError):
                send(self._client)

    def owed_for(self, now: float) -> float:
        """Return for how many seconds the oldest answer without an id has been due."""
        owed = [r.since for k, r in self._requests.items() if isinstance(k, str)]
        return now - min(owed, default=now)

    async def subscribe(
        self, send: Callable[[Any, int], None], on_row: Callable[[Any], None]
    ) -> int:
        """Start a subscription; every row goes to *on_row*. Return its id."""
        await self._read_turn()
        request_id = self._new_id()
        self._subscribers[request_id] = on_row
        try:
            send(self._client, request_id)
        except ConnectionError as error:
            raise unavailable(str(error)) from None
        return request_id

    def unsubscribe(self, request_id: int, send: Callable[[Any, int], None]) -> None:
        """End a subscription."""
        if self._subscribers.pop(request_id, None) is not None:
            self._end_later(request_id, send)

    def _end_later(self, request_id: int, send: Callable[[Any, int], None]) -> None:
        """Send in its turn what ends a request; many may end at once."""

        async def in_turn() -> None:
            await self._pace.turn(math.inf, is_order=False)
            with suppress(ConnectionError):
                send(self._client, request_id)

        if self.is_open:
            task = asyncio.get_running_loop().create_task(in_turn())
            self._endings.add(task)
            task.add_done_callback(self._endings.discard)

    async def _read_turn(self) -> None:
        if self.uplink_lost:
            text = "TWS has lost its connection to IBKR (1100): what it says is old"
            raise unavailable(text, "1100")
        if not self.is_open:
            raise unavailable("there is no connection to TWS")
        try:
            await self._pace.turn(self._read_timeout, is_order=False)
        except NotSentError as error:
            raise unavailable(str(error)) from None

    async def beat(self) -> None:
        """Ask TWS for its time, to know that it hears us, also while it is cut off from IBKR."""
        try:
            await self._pace.turn(2 * WINDOW, is_order=True)
        except NotSentError:
            return  # so much is leaving that there is no room: no reason to call the link dead
        await self.ask_shared("time", lambda client: client.reqCurrentTime(), has_turn=True)

    def _new_id(self) -> int:
        self._next_request += 1
        return self._next_request

    def _new_request(self, key: int | str) -> Request:
        loop = asyncio.get_running_loop()
        request = Request(loop.create_future(), since=loop.time())
        self._requests[key] = request
        return request

    # -- what comes in: ib_async's wrapper, and the sink of its decoder --------------------------------

    def connectAck(self) -> None:  # noqa: N802
        """Nothing is to be done, as in the next two; `_on_closed` hears of the end."""

    setEventsDone = connectionClosed = connectAck  # noqa: N815 - ib_async's names

    def on_row(self, key: int | str, row: Any) -> None:
        """Keep a part of an answer."""
        request = self._requests.get(key)
        if request is not None:
            request.rows.append(row)
        elif isinstance(key, int) and key in self._subscribers:
            self._subscribers[key](row)

    def on_end(self, key: int | str) -> None:
        """An answer is complete."""
        request = self._requests.get(key)
        if request is not None:
            if isinstance(key, str):
                del self._requests[key]
            request.complete.set()
            request.finish()

    def on_order(self, seen: OrderSeen) -> None:
        """Keep it where it answers a question, and tell in any case."""
        self.on_row("open_orders", seen)
        self._listener.on_order(seen)

    def on_status(self, seen: StatusSeen) -> None:
        """Tell."""
        self._listener.on_status(seen)

    def on_execution(self, seen: ExecutionSeen) -> None:
        """Keep it where it answers a question, and tell in any case."""
        self.on_row(seen.request_id, seen)
        self._listener.on_execution(seen)

    def on_commission(self, seen: CommissionSeen) -> None:
        """Tell."""
        self._listener.on_commission(seen)

    def on_error(self, request_id: int, code: int, text: str) -> None:
        """Find out what an error is about."""
        if code in _UPLINK_LOST or code in _UPLINK_BACK:
            self.uplink_lost = code in _UPLINK_LOST
            self._listener.on_uplink(code)
        elif request_id in self._requests:
            if not 2100 <= code < 2200 and code != 10167:
                self._requests[request_id].finish(read_error(code, text))
        elif request_id in self._subscribers:
            if not 2100 <= code < 2200 and code != 10167:
                self._subscribers[request_id](read_error(code, text))
        elif 0 < request_id < REQUESTS_FROM:
            self._listener.on_order_error(request_id, code, text)
        elif code in _FATAL:
            self._refusal = refusal(code, text, self._client_id)
            self.drop()
        else:
            log.info("ibkr.message", request_id=request_id, code=code, text=text)

    def on_unreadable(self, message: int, problem: str) -> None:
        """Nothing follows from a message that cannot be read: all questions fail, and news may be missing."""
        error = unavailable(f"TWS sent a message {message} that cannot be read: {problem}")
        for request in list(self._requests.values()):
            request.finish(error)
        self._listener.on_gap(f"a message {message} could not be read")
