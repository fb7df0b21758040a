"""Questions to TWS: what is kept of one, what their errors are, and who hears of what nobody asked for."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import attrs

from execkit.errors import ExchangeError, ExchangeUnavailableError
from execkit.exchanges.ibkr.codes import error_of
from execkit.exchanges.ibkr.seen import CommissionSeen, ExecutionSeen, OrderSeen, StatusSeen


class Listener(Protocol):
    """Hears what nobody asked for."""

    def on_order(self, seen: OrderSeen) -> None:
        """An order is open."""

    def on_status(self, seen: StatusSeen) -> None:
        """An order stands there."""

    def on_execution(self, seen: ExecutionSeen) -> None:
        """Something was executed, now or before."""

    def on_commission(self, seen: CommissionSeen) -> None:
        """That is what an execution cost."""

    def on_order_error(self, order_id: int, code: int, text: str) -> None:
        """An error or a warning that names an order."""

    def on_gap(self, reason: str) -> None:
        """News may have been missed."""

    def on_uplink(self, code: int) -> None:
        """TWS has lost, or found again, its own connection to IBKR."""


@attrs.define(eq=False)
class Request:
    """A question and the rows of its answer so far."""

    done: asyncio.Future[list[Any]]
    rows: list[Any] = attrs.field(factory=list)
    since: float = 0.0
    complete: asyncio.Event = attrs.field(factory=asyncio.Event)
    """The end of the answer has come, whether or not anybody still waits for it."""

    def finish(self, error: Exception | None = None) -> None:
        """Give whoever waits the answer, or what came in its place."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(self.rows)
        else:
            self.done.set_exception(error)
            self.done.exception()  # read or not, it is no news to the loop


def unavailable(text: str, code: str | None = None) -> ExchangeUnavailableError:
    """Return the error of a question that has no answer."""
    return ExchangeUnavailableError(text, venue="ibkr", code=code)


def refusal(code: int, text: str, client_id: int) -> ExchangeUnavailableError:
    """Return the error that ends a connection, or an attempt to make one."""
    fix = (
        f"; end the other program with client_id={client_id}, or choose another id"
        if code == 326
        else ""
    )
    return ExchangeUnavailableError(
        f"TWS {code}: {text}{fix}", venue="ibkr", code=str(code), raw=text
    )


def read_error(code: int, text: str) -> ExchangeError:
    """Return the error of a question. Only for a contract (200) does it say something about what was asked."""
    if code == 200:
        return error_of(code, text)
    return ExchangeUnavailableError(f"TWS {code}: {text}", venue="ibkr", code=str(code), raw=text)
