"""Orders on the unreliable way from one process to a simulated venue."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
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
    OrderStatusUnknownError,
    RateLimitError,
)
from execkit.exchanges.base import ExchangeAdapter
from execkit.model.capabilities import Capabilities
from execkit.model.order import (
    ListKind,
    OrderList,
    OrderReport,
    OrderRequest,
    OrderState,
    OrderType,
)
from execkit.testing.simulation.chaos import Chaos, Kind
from execkit.testing.simulation.venue import SimVenue
from execkit.testing.simulation.witness import Witness

T = TypeVar("T")

_HANG: Final = 100.0
"""Seconds after which a hanging call would answer; every caller's limit is shorter."""


class SendingLink(ExchangeAdapter):
    """Places orders, alone or in lists. *is_down* tells whether nothing gets through, *ban_ends* when a ban is over."""

    def __init__(self, venue: SimVenue, chaos: Chaos, rng: random.Random, witness: Witness) -> None:
        self.venue = venue
        self.chaos = chaos
        self.is_dead = False
        self.is_down: Callable[[], bool] = lambda: False
        self.ban_ends: Callable[[], float] = lambda: 0.0
        self.told_until = 0.0
        """Until when the process knows that it may not ask for anything."""
        self.outbound: list[OrderRequest | OrderList] = []
        """Requests that have left and not yet arrived."""
        self._rng = rng
        self._witness = witness
        rules = venue.rules
        missing = {OrderType.TRAILING_STOP} | (set() if rules.stop_market else {OrderType.STOP})
        self._capabilities = Capabilities(
            order_types=frozenset(OrderType) - missing,
            short_selling=rules.short_selling,
            reduce_only=rules.reduce_only,
            amend=rules.amend,
            lists=frozenset({ListKind.OCO} if rules.native_oco else ()),
            order_stream=rules.order_stream,
            absence_window=rules.absence_window,
            order_rate=rules.order_rate,
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
        (report,) = await self._send(request, (request,))
        return report

    async def place_list(self, orders: OrderList) -> Sequence[OrderReport]:
        """Send several orders that the venue keeps together, or fail in one of many ways."""
        return await self._send(orders, orders.orders)

    async def _send(
        self, wanted: OrderRequest | OrderList, requests: tuple[OrderRequest, ...]
    ) -> Sequence[OrderReport]:
        await self._gate()
        for request in requests:
            self._witness.leaves(self, "place", request.client_order_id, request)
        answer = "unknown"
        fault = self.chaos.pick("place")
        if self.is_down():
            fault = self._rng.choice((Kind.PLACE_LOST, Kind.PLACE_UNSENT))
        if fault is not None:
            self._witness.fails(self, requests[0].symbol)
        try:
            reports = await self._place(wanted, requests, fault)
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
            return reports
        finally:
            if not self.is_dead:
                if fault is not None:
                    self._witness.failed(self, requests[0].symbol)
                for request in requests:
                    self._witness.answered(request.client_order_id, answer)

    async def _place(
        self,
        wanted: OrderRequest | OrderList,
        requests: tuple[OrderRequest, ...],
        fault: Kind | None,
    ) -> Sequence[OrderReport]:
        if fault is Kind.PLACE_UNSENT:
            raise NotSentError("no route to the venue")
        self.outbound.append(wanted)
        await self._witness.call_point(self)
        await self._travel()
        if wanted in self.outbound:
            self.outbound.remove(wanted)
        if fault is Kind.PLACE_LOST:
            await self._broken()
        self._check_ban()
        self._refuse(fault)
        hours = self.venue.hours
        if hours is not None and hours.closed_for() and not requests[0].reduce_only:
            raise MarketClosedError("the market is closed")
        if fault is Kind.PLACE_LATE:
            if self.venue.rules.absence_window:
                self._later(self._rng.uniform(16, 50), self.deliver, wanted)
            else:  # what it says is final at once: nothing arrives after its next answer
                self.deliver(wanted)
            await self._broken()
        if fault is Kind.PLACE_LIE:
            for request in requests:
                self._witness.lied(request.client_order_id)
            self.deliver(wanted)
            lie = self._rng.choice((InvalidOrderError, NotSentError))
            raise lie("says the venue, wrongly")
        first = requests[0]
        reports = self._arrive(wanted, hold=fault is Kind.PLACE_HELD)
        await self._witness.call_point(self)
        await self._travel()
        if fault is Kind.PLACE_ANSWER_LOST:
            await self._broken()
        if fault is Kind.PLACE_HELD:
            self._later(self._rng.uniform(1, 20), self.venue.release, first.client_order_id)
        if fault is Kind.PLACE_REJECT_LATER:
            self._later(self._rng.uniform(0, 3), self._reject, self._rng.choice(requests))
        return [self._spoil(fault, reports[0]), *reports[1:]]

    def _arrive(self, wanted: OrderRequest | OrderList, *, hold: bool = False) -> list[OrderReport]:
        if isinstance(wanted, OrderList):
            return self.venue.place_list(wanted)
        return [self.venue.place(wanted, hold=hold)]

    @staticmethod
    def _later(delay: float, what: Callable[..., None], *args: object) -> None:
        """Have something happen at the venue, even when the process has died by then."""
        loop = asyncio.get_running_loop()
        loop.call_later(delay, what, *args, context=contextvars.Context())

    def deliver(self, wanted: OrderRequest | OrderList) -> None:
        """Let a request arrive whose answer nobody waits for."""
        try:
            self._arrive(wanted)
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
