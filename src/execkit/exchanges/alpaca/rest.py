"""Requests with their meaning: what an answer, or its absence, proves is decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from execkit.clock import Clock
from execkit.errors import (
    ExchangeError,
    ExchangeUnavailableError,
    InsufficientBalanceError,
    OrderRejectedError,
    OrderStatusUnknownError,
)
from execkit.exchanges.alpaca.account import read_account
from execkit.exchanges.alpaca.codes import PATTERN_DAY_TRADING, VENUE, allowance, error_of
from execkit.exchanges.alpaca.hosts import Addresses
from execkit.exchanges.alpaca.values import BadAnswerError, clean
from execkit.exchanges.alpaca.wire import RefusedError, Wire
from execkit.exchanges.headroom import Headroom
from execkit.model.instrument import Instrument
from execkit.model.order import OrderRequest

T = TypeVar("T")
Heads = Callable[[Mapping[str, str]], None]


class Rest:
    """Alpaca's two REST hosts: the one for orders and account, and the one for prices."""

    def __init__(self, wire: Wire, urls: Addresses, clock: Clock) -> None:
        self._wire = wire
        self._urls = urls
        self._clock = clock
        self.headroom = Headroom()
        """Of the 200 requests a minute of an account, questions and orders together; prices have their own."""

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Read from the trading host."""
        return await self._fetch(f"{self._urls.rest}{path}", params, heads=self._note)

    async def get_data(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Read from the data host."""
        return await self._fetch(f"{self._urls.data}{path}", params)

    async def _fetch(
        self, url: str, params: Mapping[str, str] | None, *, heads: Heads | None = None
    ) -> Any:
        try:
            return await self._wire.request("GET", url, params=params, heads=heads)
        except RefusedError as refused:
            failure = error_of(refused.refusal, write=False)
        except BadAnswerError as error:
            failure = unreadable(error)
        raise failure

    async def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        order: OrderRequest | None = None,
        rules: Instrument | None = None,
        is_new: bool = False,
    ) -> Any:
        """Send what changes something, once; everything that is not definite is `OrderStatusUnknownError`.

        *order* is what is placed, with its *rules*; *is_new*: something else that is placed. Otherwise the request is
        about an order that exists.
        """
        try:
            return await self._wire.request(
                method, f"{self._urls.rest}{path}", params=params, body=body, heads=self._note
            )
        except RefusedError as refused:
            refusal = refused.refusal
        except BadAnswerError as error:
            raise unknown(error) from None
        quantity = None if order is None else order.quantity
        failure = error_of(
            refusal, write=True, about_order=not (is_new or order), quantity=quantity
        )
        if isinstance(failure, InsufficientBalanceError) and failure.available is not None:
            allowed = failure.available
            failure.available = allowed if rules is None else rules.round_quantity(allowed)
        if type(failure) is OrderRejectedError and PATTERN_DAY_TRADING in refusal.text.lower():
            failure = await self._with_numbers(failure)
        raise failure

    def _note(self, headers: Mapping[str, str]) -> None:
        told = allowance(headers, self._clock.now())
        if told is not None:
            self.headroom.note_used(*told)

    async def _with_numbers(self, failure: ExchangeError) -> ExchangeError:
        """Add the account's numbers to a refusal that states none."""
        try:
            state = read_account(await self.get("/v2/account"))
        except (ExchangeError, BadAnswerError):
            return failure
        text = f"{failure}; {state}"
        return OrderRejectedError(text, venue=VENUE, code=failure.code, raw=failure.raw)


async def understood(work: Awaitable[T]) -> T:
    """Wait for reads; an answer that cannot be understood is no answer."""
    try:
        return await work
    except BadAnswerError as error:
        failure = unreadable(error)
    raise failure


def understand(body: Any, read: Callable[[Any], T]) -> T:
    """Return what *read* makes of an answer; one that cannot be understood is no answer."""
    try:
        return read(body)
    except BadAnswerError as error:
        failure = unreadable(error)
    raise failure


def unreadable(error: BadAnswerError) -> ExchangeUnavailableError:
    """Return the error of a read whose answer cannot be understood."""
    text = f"{VENUE}: an answer that cannot be read ({clean(error)})"
    return ExchangeUnavailableError(text, venue=VENUE)


def unknown(error: object) -> OrderStatusUnknownError:
    """Return the error of a request that changes something, and whose answer cannot be trusted."""
    text = f"{VENUE}: an answer that cannot be trusted ({clean(error)})"
    return OrderStatusUnknownError(text, venue=VENUE)


def about_another() -> OrderStatusUnknownError:
    """Return the error of a request that was answered with another order: whoever answers is not to be trusted."""
    failure = unknown("the answer is about another order")
    failure.is_about_another = True
    return failure
