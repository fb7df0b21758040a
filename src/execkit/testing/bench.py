"""What the conformance cases stand on: the control of a venue, the bench around one adapter, and the list of cases."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any, Final, Literal

import attrs

from execkit.clock import Clock
from execkit.errors import (
    AuthenticationError,
    ExchangeError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    RateLimitError,
)
from execkit.exchanges.base import ExchangeAdapter
from execkit.ids import client_order_id, random_id
from execkit.model.instrument import Instrument
from execkit.model.order import (
    Fill,
    OrderReport,
    OrderRequest,
    OrderRole,
    OrderState,
    OrderType,
    OrderUpdate,
    Side,
    TimeInForce,
)
from execkit.model.records import Intent
from execkit.orders.manager import ManagedOrder
from execkit.orders.reconcile import problem_with
from execkit.testing.control import VenueControl
from execkit.testing.verdict import fail

AWAY: Final = Decimal("0.1")
"""How far from the market a resting order stands, as a fraction of the price."""

_POLL: Final = 0.02
_DEFINITE: Final = (OrderRejectedError, RateLimitError, AuthenticationError)


@attrs.frozen
class Attempt:
    """What became of a place request, read as strictly as the gateway reads it."""

    kind: Literal["accepted", "refused", "unsent", "unknown"]
    report: OrderReport | None = None
    error: BaseException | None = None

    def __str__(self) -> str:
        what = f": {self.error!r}" if self.error else f": {self.report}" if self.report else ""
        return f"{self.kind}{what}"


class Watch:
    """Reads the order stream from the moment it is made."""

    def __init__(self, updates: AsyncIterator[OrderUpdate]) -> None:
        self.seen: list[OrderUpdate] = []
        self.broken: str | None = None
        self.task = asyncio.get_running_loop().create_task(self._read(updates))

    async def _read(self, updates: AsyncIterator[OrderUpdate]) -> None:
        try:
            async for update in updates:
                self.seen.append(update)
            self.broken = "ended"
        except Exception as error:  # noqa: BLE001 - every way to break is allowed
            self.broken = repr(error)

    def reports(self, request: OrderRequest) -> list[OrderReport]:
        """Return what the stream said of an order."""
        wanted = request.client_order_id
        return [u for u in self.seen if isinstance(u, OrderReport) and u.client_order_id == wanted]

    def fills(self, request: OrderRequest) -> list[Fill]:
        """Return an order's executions, from reports and by themselves, each once."""
        wanted = request.client_order_id
        alone = [u for u in self.seen if isinstance(u, Fill) and u.client_order_id == wanted]
        inside = [fill for report in self.reports(request) for fill in report.fills]
        return list({fill.trade_id: fill for fill in [*alone, *inside]}.values())

    async def stop(self) -> None:
        """Read no more."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Bench:
    """One adapter, connected, with what the cases need around it.

    *patience* is how many seconds a venue may take until its news are seen.
    """

    def __init__(
        self,
        adapter: ExchangeAdapter,
        control: VenueControl,
        symbol: str,
        *,
        rng: random.Random,
        clock: Clock,
        patience: float = 5.0,
    ) -> None:
        self.adapter = adapter
        self.control = control
        self.symbol = symbol
        self.clock = clock
        self.patience = patience
        self.instrument = Instrument.default(symbol)
        self.started_at = self.clock.now()
        self._rng = rng
        self._placed: list[OrderRequest] = []
        self._watches: list[Watch] = []

    async def open(self) -> None:
        """Connect, and read the symbol's rules."""
        await self.adapter.connect()
        self.instrument = await self.adapter.instrument(self.symbol)

    async def clean_up(self) -> None:
        """Cancel what still rests of this case and close; what was bought stays."""
        for watch in self._watches:
            await watch.stop()
        for request in self._placed:
            with contextlib.suppress(Exception):
                await self.cancel(request)
        await self.adapter.close()

    # -- requests --------------------------------------------------------------------------------------

    def new_id(self) -> str:
        """Return a client order id that was never used."""
        return client_order_id("conformance", random_id(self._rng), OrderRole.ENTRY)

    async def request(
        self,
        type: OrderType = OrderType.MARKET,
        side: Side = Side.BUY,
        *,
        away: Decimal = AWAY,
        **changes: Any,
    ) -> OrderRequest:
        """Return a legal order. A limit stands *away* from the market on the resting side, a stop on the other.

        The quantity is four times the least that the venue takes, so that it can be filled in parts.
        """
        quote = await self.adapter.ticker(self.symbol)
        rules = self.instrument
        below = rules.round_price_down(quote.bid * (1 - away))
        above = rules.round_price_up(quote.ask * (1 + away))
        buys = side is Side.BUY
        values: dict[str, Any] = {
            "client_order_id": self.new_id(),
            "symbol": self.symbol,
            "side": side,
            "type": type,
            "quantity": rules.smallest_quantity(below) * 4,
            "time_in_force": self._time_in_force(type),
        }
        if type is OrderType.LIMIT:
            values["limit_price"] = below if buys else above
        elif type in (OrderType.STOP, OrderType.STOP_LIMIT):
            values["stop_price"] = above if buys else below
        if type is OrderType.STOP_LIMIT:
            slack = rules.round_price(quote.mid * away / 10)
            values["limit_price"] = above + slack if buys else below - slack
        return OrderRequest(**(values | changes))

    def _time_in_force(self, type: OrderType) -> TimeInForce:
        known = self.adapter.capabilities.times_in_force
        return TimeInForce.GTC if TimeInForce.GTC in known else TimeInForce.DAY

    # -- calls -----------------------------------------------------------------------------------------

    async def attempt(self, request: OrderRequest) -> Attempt:
        """Place an order once, and read the answer as the gateway does."""
        self._placed.append(request)
        try:
            async with asyncio.timeout(max(30.0, self.patience)):
                report = await self.adapter.place_order(request)
        except NotSentError as error:
            return Attempt("unsent", error=error)
        except ExchangeError as error:
            definite = isinstance(error, _DEFINITE) and error.outcome_known
            return Attempt("refused" if definite else "unknown", error=error)
        except Exception as error:  # noqa: BLE001 - whatever it is, bytes may have left
            return Attempt("unknown", error=error)
        problem = self.problem(request, report)
        return Attempt("unknown" if problem else "accepted", report)

    def problem(self, request: OrderRequest, report: object) -> str | None:
        """Return why an answer cannot be taken for this order, or None."""
        if not isinstance(report, OrderReport):
            return f"is {type(report).__name__}, not an OrderReport"
        intent = Intent(
            request=request, payload_hash=request.payload_hash, role=OrderRole.ENTRY, parent="case"
        )
        order = ManagedOrder.of(intent, self.clock.now())
        # Of what was just sent, so that it has to be repeated as it was.
        order.state = OrderState.SUBMITTED
        return problem_with(order, report)

    async def place(self, request: OrderRequest) -> OrderReport:
        """Place an order that has to be accepted, and return the answer."""
        attempt = await self.attempt(request)
        if attempt.report is not None and attempt.kind == "unknown":
            fail(f"the answer {self.problem(request, attempt.report)}: {attempt.report}")
        if attempt.report is None:
            fail(f"a legal {request.type} order was not accepted: {attempt}")
        return attempt.report

    async def get(self, request: OrderRequest, venue_order_id: str | None = None) -> OrderReport:
        """Look an order up."""
        return await self.adapter.get_order(
            request.symbol, client_order_id=request.client_order_id, venue_order_id=venue_order_id
        )

    async def find(self, request: OrderRequest) -> OrderReport | None:
        """Look an order up by client id or among the open ones; None: the venue does not have it."""
        if self.adapter.capabilities.lookup_by_client_id:
            try:
                return await self.get(request)
            except OrderNotFoundError:
                return None
        for report in await self.adapter.open_orders(self.symbol):
            if report.client_order_id == request.client_order_id:
                return report
        return None

    async def cancel(self, request: OrderRequest, venue_order_id: str | None = None) -> OrderReport:
        """Ask to cancel an order."""
        return await self.adapter.cancel_order(
            request.symbol, client_order_id=request.client_order_id, venue_order_id=venue_order_id
        )

    async def reach(
        self, request: OrderRequest, state: OrderState, venue_order_id: str | None = None
    ) -> OrderReport:
        """Wait until the venue reports an order in *state*."""
        last: list[OrderReport] = []

        async def arrived() -> bool:
            last[:] = [await self.get(request, venue_order_id)]
            return last[0].status is state

        await self.eventually(arrived, lambda: f"the order is {state}; last seen {last}")
        return last[0]

    async def bought(self) -> OrderReport:
        """Buy at the market and return the filled order."""
        request = await self.request(OrderType.MARKET)
        report = await self.place(request)
        return await self.reach(request, OrderState.FILLED, report.venue_order_id)

    async def owned(self, quantity: Decimal) -> Decimal:
        """Return how much of the base asset is free, at most *quantity*, in whole lots."""
        balance = (await self.adapter.balances()).get(self.instrument.base)
        free = quantity if balance is None else min(balance.free, quantity)
        return self.instrument.round_quantity(free)

    def watch(self) -> Watch:
        """Read the order stream from now on."""
        watch = Watch(self.adapter.order_updates())
        self._watches.append(watch)
        return watch

    async def eventually(
        self, condition: Callable[[], bool | Awaitable[bool]], what: Callable[[], str]
    ) -> None:
        """Wait until a condition holds; fail with *what* was waited for when patience ends."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.patience
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            if loop.time() > deadline:
                fail(f"not within {self.patience} s: {what()}")
            await asyncio.sleep(_POLL)
