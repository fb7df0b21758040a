"""The adapter of a simulated run: the unreliable way between one process and the venue."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NoReturn, TypeVar

import msgspec

from execkit.errors import (
    AuthenticationError,
    DuplicateClientOrderIdError,
    ExchangeError,
    ExchangeUnavailableError,
    InsufficientBalanceError,
    InvalidOrderError,
    MarketClosedError,
    MarketOrderRefusedError,
    NotSentError,
    OrderNotFoundError,
    OrderStatusUnknownError,
    RateLimitError,
)
from execkit.exchanges.base import ExchangeAdapter
from execkit.model.account import Balance, VenuePosition
from execkit.model.capabilities import Capabilities
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import Fill, OrderReport, OrderRequest, OrderState, OrderUpdate
from execkit.testing.simulation.chaos import Chaos, Kind
from execkit.testing.simulation.venue import SimVenue
from execkit.testing.simulation.wire import Wire
from execkit.testing.simulation.witness import Witness

T = TypeVar("T")

_HANG: Final = 100.0
"""Seconds after which a hanging call would answer; every caller's limit is shorter."""


class SimLink(ExchangeAdapter):
    """One process's connection. *is_down* tells whether nothing gets through; *ban_ends* when a ban is over."""

    name = "simulated"

    def __init__(self, venue: SimVenue, chaos: Chaos, rng: random.Random, witness: Witness) -> None:
        self.venue = venue
        self.chaos = chaos
        self.is_dead = False
        self.is_down: Callable[[], bool] = lambda: False
        self.ban_ends: Callable[[], float] = lambda: 0.0
        self.told_until = 0.0
        """Until when the process knows that it may not ask for anything."""
        self.outbound: list[OrderRequest] = []
        """Requests that have left and not yet arrived."""
        self._rng = rng
        self._witness = witness
        self._stream: Wire | None = None
        rules = venue.rules
        self._capabilities = Capabilities(
            short_selling=rules.short_selling,
            reduce_only=rules.reduce_only,
            amend=rules.amend,
            order_stream=rules.order_stream,
            absence_window=rules.absence_window,
        )

    @property
    def capabilities(self) -> Capabilities:
        """What the venue's rules allow."""
        return self._capabilities

    def now(self) -> float:
        """Return the moment on the loop."""
        return asyncio.get_running_loop().time()

    async def _travel(self) -> None:
        """Take as long as a message takes; whoever is dead by then waits for ever."""
        await asyncio.sleep(0.002 + self._rng.random() * 0.08)
        await self._gate()

    async def _gate(self) -> None:
        if self.is_dead:
            await asyncio.get_running_loop().create_future()

    def _check_ban(self) -> None:
        left = self.ban_ends() - self.now()
        if left > 0:
            self.told_until = self.ban_ends()
            raise RateLimitError("banned", retry_after=timedelta(seconds=left))

    # -- placing ---------------------------------------------------------------------------------------

    async def place_order(self, request: OrderRequest) -> OrderReport:
        """Send an order, or fail in one of many ways."""
        await self._gate()
        client_id = request.client_order_id
        self._witness.leaves(self, "place", client_id, request)
        answer = "unknown"
        try:
            report = await self._place(request)
            answer = "report"
        except NotSentError:
            answer = "unsent"
            raise
        except (RateLimitError, AuthenticationError):
            answer = "refused"
            raise
        except DuplicateClientOrderIdError:
            raise
        except (
            InvalidOrderError,
            InsufficientBalanceError,
            MarketClosedError,
            MarketOrderRefusedError,
        ):
            answer = "refused"
            raise
        else:
            return report
        finally:
            if not self.is_dead:
                self._witness.answered(client_id, answer)

    async def _place(self, request: OrderRequest) -> OrderReport:
        fault = self.chaos.pick("place")
        if self.is_down():
            fault = self._rng.choice((Kind.PLACE_LOST, Kind.PLACE_UNSENT))
        if fault is Kind.PLACE_UNSENT:
            raise NotSentError("no route to the venue")
        self.outbound.append(request)
        await self._witness.call_point(self)
        await self._travel()
        if request in self.outbound:
            self.outbound.remove(request)
        if fault is Kind.PLACE_LOST:
            await self._broken()
        self._check_ban()
        self._refuse(fault)
        if fault is Kind.PLACE_LATE:
            self._later(self._rng.uniform(16, 50), self.deliver, request)
            await self._broken()
        if fault is Kind.PLACE_LIE:
            self._witness.lied(request.client_order_id)
            self.deliver(request)
            lie = self._rng.choice((InvalidOrderError, NotSentError))
            raise lie("says the venue, wrongly")
        report = self.venue.place(request, hold=fault is Kind.PLACE_HELD)
        await self._witness.call_point(self)
        await self._travel()
        if fault is Kind.PLACE_ANSWER_LOST:
            await self._broken()
        if fault is Kind.PLACE_HELD:
            self._later(self._rng.uniform(1, 20), self.venue.release, request.client_order_id)
        if fault is Kind.PLACE_REJECT_LATER:
            self._later(self._rng.uniform(0, 3), self._reject, request)
        return self._spoil(fault, report)

    @staticmethod
    def _later(delay: float, what: Callable[..., None], *args: object) -> None:
        """Have something happen at the venue, even when the process has died by then."""
        loop = asyncio.get_running_loop()
        loop.call_later(delay, what, *args, context=contextvars.Context())

    def deliver(self, request: OrderRequest) -> None:
        """Let a request arrive whose answer nobody waits for."""
        try:
            self.venue.place(request)
        except ExchangeError:
            return

    def _reject(self, request: OrderRequest) -> None:
        order = self.venue.core.by_client.get(request.client_order_id)
        if order is not None and order.is_open and not order.filled:
            self.venue.end(order, OrderState.REJECTED, "refused after all")

    def _refuse(self, fault: Kind | None) -> None:
        match fault:
            case Kind.PLACE_REFUSED:
                raise InvalidOrderError("refused", code="-1013")
            case Kind.PLACE_LIMITED:
                self._limit(self._rng.choice((None, 0.5, 3.0, 45.0)))
            case Kind.PLACE_NO_MONEY:
                raise InsufficientBalanceError("no money", available=None)
            case Kind.PLACE_NO_MARKET:
                raise MarketOrderRefusedError("no market orders now")
            case Kind.PLACE_CLOSED:
                raise MarketClosedError("closed")
            case Kind.PLACE_AUTH:
                raise AuthenticationError("the key is not valid")
            case _:
                return

    def _limit(self, seconds: float | None) -> None:
        if seconds is None:
            raise RateLimitError("too many requests")
        self.told_until = max(self.told_until, self.now() + seconds)
        raise RateLimitError("too many requests", retry_after=timedelta(seconds=seconds))

    def _spoil(self, fault: Kind | None, report: OrderReport) -> OrderReport:
        match fault:
            case Kind.PLACE_GARBAGE:
                return self._rng.choice(  # type: ignore[return-value]
                    (
                        None,
                        {"id": None},
                        msgspec.structs.replace(report, venue_order_id=""),
                        msgspec.structs.replace(report, status=OrderState.IN_DOUBT, raw_status="?"),
                        msgspec.structs.replace(report, filled=Decimal("NaN")),
                        msgspec.structs.replace(report, filled=Decimal(-5)),
                    )
                )
            case Kind.PLACE_OTHER:
                return msgspec.structs.replace(report, client_order_id="xkaaaaaaaaaaaaaaaaaaaaaaaa")
            case Kind.PLACE_ERROR_TAKEN:
                error = (
                    ExchangeUnavailableError("503"),
                    OrderStatusUnknownError("-1007"),
                    ValueError("NaN"),
                )
                raise self._rng.choice(error)
            case Kind.PLACE_DUPLICATE:
                raise DuplicateClientOrderIdError("duplicate order sent")
            case _:
                return report

    async def _broken(self) -> NoReturn:
        """Fail as lost messages do: by an error at once, or by silence."""
        if self._rng.random() < 0.3:
            await asyncio.sleep(_HANG)
        raise self._rng.choice(
            (ConnectionError("reset by peer"), TimeoutError(), OSError("broken pipe"))
        )

    # -- cancelling and amending -----------------------------------------------------------------------

    async def cancel_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Ask for a cancel, or fail in one of many ways."""
        await self._gate()
        self._witness.leaves(self, "cancel", client_order_id, None)
        fault = self.chaos.pick("cancel")
        if self.is_down():
            fault = self._rng.choice((Kind.CANCEL_LOST, Kind.CANCEL_UNSENT))
        if fault is Kind.CANCEL_UNSENT:
            raise NotSentError("no route to the venue")
        await self._witness.call_point(self)
        await self._travel()
        if fault is Kind.CANCEL_LOST:
            await self._broken()
        self._check_ban()
        if fault is Kind.CANCEL_LIMITED:
            self._limit(self._rng.choice((None, 0.5, 3.0)))
        if fault is Kind.CANCEL_UNKNOWN:
            raise OrderNotFoundError("unknown order sent")
        if fault is Kind.CANCEL_IGNORED:
            report = self.venue.order(client_order_id, venue_order_id)
        else:
            report = self.venue.cancel(symbol, client_order_id, venue_order_id)
        if fault is Kind.CANCEL_LATE_FILL:
            self._later(self._rng.uniform(0, 5), self._late_fill, client_order_id)
        await self._travel()
        if fault is Kind.CANCEL_ANSWER_LOST:
            await self._broken()
        return report

    def _late_fill(self, client_order_id: str) -> None:
        order = self.venue.core.by_client[client_order_id]
        if order.is_open or order.remaining <= 0:
            return
        instrument = self.venue.core.instruments[order.request.symbol]
        quantity = instrument.round_quantity(
            order.remaining * Decimal(self._rng.randint(1, 10)) / 10
        )
        if order.request.side.value == "sell" or order.request.reduce_only:
            # A venue does not sell what the account does not have.
            room = self.venue.core.account.closable(order.request.symbol, order.request.side)
            quantity = min(quantity, instrument.round_quantity(room))
        if quantity > 0:
            self._witness.shaken(order.request.symbol)
            price = self.venue.core.quote(order.request.symbol).mid
            self.venue.execute(order, quantity, instrument.round_price(price))

    async def amend_order(
        self,
        symbol: str,
        *,
        client_order_id: str,
        venue_order_id: str | None = None,
        quantity: Decimal | None = None,
        limit_price: Decimal | None = None,
        stop_price: Decimal | None = None,
    ) -> OrderReport:
        """Ask for a change, or fail in one of many ways."""
        await self._gate()
        self._witness.leaves(self, "amend", client_order_id, None)
        fault = self.chaos.pick("amend")
        if self.is_down() or fault is Kind.AMEND_LOST:
            await self._broken()
        await self._travel()
        self._check_ban()
        if fault is Kind.AMEND_REFUSED:
            raise InvalidOrderError("cannot be changed now")
        report = self.venue.amend(symbol, client_order_id, quantity, limit_price, stop_price)
        await self._travel()
        if fault is Kind.AMEND_ANSWER_LOST:
            await self._broken()
        return report

    # -- queries ---------------------------------------------------------------------------------------

    async def _read(self, answer: Callable[[], T]) -> T:
        await self._gate()
        self._witness.leaves(self, "read", "", None)
        fault = self.chaos.pick("read")
        if self.is_down():
            fault = Kind.READ_ERROR
        await self._travel()
        if fault is Kind.READ_ERROR:
            raise ExchangeUnavailableError("502")
        self._check_ban()
        if fault is Kind.READ_HANGS:
            await asyncio.sleep(_HANG)
        if fault is Kind.READ_GARBAGE:
            return None  # type: ignore[return-value]
        if fault is Kind.READ_STALE:
            return await self._stale(answer)
        return answer()

    async def _stale(self, answer: Callable[[], T]) -> T:
        """Answer as of now, and let the answer travel for a while."""
        found = answer()
        await asyncio.sleep(self._rng.uniform(0.5, 8))
        await self._gate()
        return found

    async def instrument(self, symbol: str) -> Instrument:
        """Return a symbol's rules."""
        await self._gate()
        return self.venue.core.instrument(symbol)

    async def get_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Return one order."""
        return await self._read(lambda: self.venue.order(client_order_id, venue_order_id))

    async def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """Return the open orders."""
        return await self._read(lambda: self.venue.open_orders(symbol))

    async def fills_since(self, since: datetime, symbol: str | None = None) -> Sequence[Fill]:
        """Return executions."""
        return await self._read(lambda: self.venue.fills_since(since, symbol))

    async def balances(self) -> dict[str, Balance]:
        """Return holdings."""
        return await self._read(self.venue.balances)

    async def positions(self) -> Sequence[VenuePosition]:
        """Return positions."""
        return await self._read(self.venue.positions)

    async def ticker(self, symbol: str) -> Quote:
        """Return the quote, dated by the venue."""
        return await self._read(lambda: self.venue.core.quote(symbol, self.venue.now()))

    # -- the stream ------------------------------------------------------------------------------------

    def order_updates(self) -> AsyncIterator[OrderUpdate]:
        """Open the stream."""
        if not self.venue.rules.order_stream:
            return super().order_updates()
        if self.is_dead or self.is_down():
            raise ConnectionError("no route to the venue")
        self._stream = Wire(self.chaos, self._rng)
        return self._stream.subscriber

    def hear(self, updates: list[OrderUpdate]) -> None:
        """Take updates from the venue towards the process."""
        if self._stream is not None and not self.is_down():
            self._stream.carry(updates)

    async def close(self) -> None:
        """End the stream."""
        if self._stream is not None:
            self._stream.subscriber.end()
            self._stream = None
