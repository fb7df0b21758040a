"""What all venues on the wire share: a loopback server, its record of every request, and faults on demand.

A venue names its routes; each belongs to an operation, which is what a fault strikes at. The orders live in the
matching core that paper trading uses too, inside a *state* that can be copied, so that stale reads are real ones.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Final, Self, cast

from aiohttp import WSMsgType, web

from execkit.clock import Clock
from execkit.errors import ConfigurationError
from execkit.testing.venues.calls import Answer, Call, Handler, Refusal
from execkit.testing.venues.faults import OF_ORDERS, SPOILS, Mishap, WireFault
from execkit.testing.venues.ledger import Ledger, VenueState
from execkit.testing.venues.sockets import Socket
from execkit.testing.venues.spoils import spoil

PAGE: Final = "<html><head><title>Error</title></head><body><h1>The request could not be satisfied</h1></body></html>"


class WireVenue(Ledger):
    """A venue on 127.0.0.1, to be used with `async with`.

    Args:
        state: Orders, balances and prices.
        clock: The venue's own wall clock.
        port: Where to listen; 0 takes any free port.
    """

    def __init__(self, state: VenueState, *, clock: Clock | None = None, port: int = 0) -> None:
        super().__init__(state, clock=clock)
        self.port = port
        self._held_back: Any = None
        self._late: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    # --- life -------------------------------------------------------------------------------------

    @property
    def rest_url(self) -> str:
        """Where REST requests go: scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def stream_url(self) -> str:
        """Where WebSockets go: scheme, host and port."""
        return f"ws://127.0.0.1:{self.port}"

    @abstractmethod
    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield method, path, operation and handler of each request; a path may have `{parts}`."""

    def sockets_at(self) -> Iterable[str]:
        """Yield the paths where WebSockets are taken."""
        return ()

    async def start(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=4 * 1024 * 1024)
        for method, path, operation, handler in self.routes():
            app.router.add_route(method, path, self._http(operation, handler))
        for path in self.sockets_at():
            app.router.add_get(path, self._websocket)
        app.router.add_route("*", "/{rest:.*}", self._http("unknown", self.unknown_path))
        # A client that hangs up ends its handler, and closing does not wait for answers that hang on purpose.
        self._runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=0.2, access_log=None
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Cut all connections and stop listening; safe to call twice."""
        self._closing.set()
        for task in list(self._late):
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)
        for socket in list(self.sockets):
            socket.cut()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # --- HTTP -------------------------------------------------------------------------------------

    def is_read(self, call: Call) -> bool:
        """Tell whether a request changes nothing."""
        return call.method == "GET"

    def _http(self, operation: str, handler: Handler) -> Callable[..., Any]:
        async def serve(request: web.Request) -> web.StreamResponse:
            body = await request.text()
            call = self.read_call(operation, request, body)
            return await self._serve(request, call, handler)

        return serve

    @abstractmethod
    def read_call(self, operation: str, request: web.Request, body: str) -> Call:
        """Return the request as a call."""

    async def _serve(
        self, request: web.Request, call: Call, handler: Handler
    ) -> web.StreamResponse:
        self.requests.append(call)
        self.note_change()
        self.let_time_pass()
        fault = self.faults.take(call.operation, is_read=self.is_read(call), call=call)
        call.fault = fault
        if self.is_dark or (fault is not None and fault.kind is Mishap.DROP_REQUEST):
            call.lost = True
            return _hang_up(request)
        if fault is None or fault.kind in OF_ORDERS:
            return self._respond(call, self.answer(call, handler))
        if fault.kind is Mishap.HANG:
            if fault.reached:
                self.answer(call, handler)
            await self._closing.wait()
            return _hang_up(request)
        if fault.kind in (Mishap.ERROR, Mishap.HTML):
            if fault.reached:
                self.answer(call, handler)
            return self._respond(call, self._failure(call, fault))
        answer = self._stale(call, handler, fault)
        match fault.kind:
            case Mishap.DROP_ANSWER:
                return _hang_up(request)
            case Mishap.CUT_BODY:
                return await self._cut(request, answer)
            case Mishap.DELAY:
                await self.wait(fault)
        return self._respond(call, answer)

    def _stale(self, call: Call, handler: Handler, fault: WireFault) -> Answer:
        """Answer from an old state, or without the orders, where the fault wants that."""
        if fault.kind is Mishap.NOT_FOUND:
            return self.answer(call, self.not_found)
        if fault.kind is not Mishap.STALE:
            return self.answer(call, handler)
        live, self.state = self.state, fault.frozen
        try:
            return self.answer(call, handler)
        finally:
            self.state = live

    async def wait(self, fault: WireFault) -> None:
        """Wait as long as a delay lasts."""
        if fault.until is not None:
            await fault.until.wait()
        else:
            await asyncio.sleep(fault.after)

    def answer(self, call: Call, handler: Handler) -> Answer:
        """Do what a request wants."""
        try:
            self.admit(call)
            answer = Answer(200, handler(call))
        except Refusal as refusal:
            answer = Answer(refusal.status, refusal.payload, refusal.headers)
        if isinstance(answer.payload, Answer):
            answer = answer.payload
        answer.headers = self.headers(call) | answer.headers
        return answer

    def _failure(self, call: Call, fault: WireFault) -> Answer:
        headers = self.headers(call)
        if fault.retry_after is not None:
            headers["Retry-After"] = str(int(fault.retry_after.total_seconds()))
        if fault.kind is Mishap.HTML:
            return Answer(fault.status, PAGE, headers | {"Content-Type": "text/html"})
        return Answer(fault.status, self.error(fault), headers)

    def _respond(self, call: Call, answer: Answer) -> web.Response:
        call.status = answer.status
        self.note_change()
        text, fault = answer.text, call.fault
        if fault is not None and fault.kind in SPOILS and answer.status < 300:
            text = spoil(fault, answer, self.order_in, self.order_fields)
        return web.Response(
            status=answer.status,
            body=text.encode(),
            headers={"Content-Type": "application/json;charset=UTF-8"} | answer.headers,
        )

    async def _cut(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        body = answer.text.encode()
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length, response.content_type = len(body), "application/json"
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        return _hang_up(request)

    # --- WebSockets -------------------------------------------------------------------------------

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if self.is_dark:
            return _hang_up(request)
        connection = web.WebSocketResponse(autoping=True)
        await connection.prepare(request)
        socket = Socket(connection, request.path, dict(request.query))
        socket.transport = cast("asyncio.WriteTransport | None", request.transport)
        self.sockets.append(socket)
        try:
            await self.on_open(socket)
            self.note_change()
            async for message in connection:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    await self.on_message(socket, message.data)
                    self.note_change()
        except ConnectionError:
            pass  # the client went away in the middle of an answer
        finally:
            self.sockets.remove(socket)
            self.note_change()
            await socket.stop()
        return connection

    async def on_open(self, socket: Socket) -> None:
        """A client has connected."""

    async def on_message(self, socket: Socket, message: Any) -> None:
        """A client says something."""

    def push_private(self, event: Any) -> None:
        """Send an event of the account to all that listen, or do what a fault of the stream wants."""
        fault = self.faults.take("stream")
        held, self._held_back = self._held_back, None
        match None if fault is None else fault.kind:
            case None:
                self.deliver(event)
            case Mishap.DUPLICATE:
                self.deliver(event)
                self.deliver(event)
            case Mishap.REORDER:
                self._held_back = event
            case Mishap.LATE:
                assert fault is not None
                task = asyncio.get_running_loop().create_task(self._deliver_late(fault, event))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
            case Mishap.CUT:
                for socket in self.listeners():
                    socket.cut()
            case Mishap.TERMINATE:
                self.terminate()
        if held is not None:
            self.deliver(held)

    async def _deliver_late(self, fault: WireFault, event: Any) -> None:
        await self.wait(fault)
        self.deliver(event)

    def listeners(self) -> list[Socket]:
        """Return the sockets that get the events of the account."""
        return [socket for socket in self.sockets if socket.is_private]

    def deliver(self, event: Any) -> None:
        """Send an event of the account to all that listen."""
        for socket in self.listeners():
            socket.push(event)

    def terminate(self) -> None:
        """End the subscriptions to the account's events; the connections stay."""
        raise ConfigurationError(f"{self.name} has no way to end a subscription and keep the line")


def _hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.close()
    return web.Response()
