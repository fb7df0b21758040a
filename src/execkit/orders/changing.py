"""Cancelling and amending: the gateway's other two commands.

A command is journalled before it leaves and proven by what the venue shows afterwards. An error of a cancel proves
nothing: the order may have been filled, or never have arrived. The wish to cancel therefore stays with the order, and
the resolver carries it through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Final

import structlog

from execkit.errors import (
    AuthenticationError,
    ExchangeError,
    JournalCommitError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    RateLimitError,
    UnsupportedFeatureError,
)
from execkit.exchanges.base import ExchangeAdapter
from execkit.ids import content_digest
from execkit.model.denial import Denial
from execkit.model.order import OrderEvent, OrderReport, OrderState, Side
from execkit.model.records import CommandSent, OrderChanged, Source
from execkit.numbers import ZERO, plain
from execkit.orders.intake import Intake
from execkit.orders.manager import ManagedOrder
from execkit.orders.reconcile import problem_with
from execkit.orders.shape import malformed_report
from execkit.orders.waiting import Pace
from execkit.redaction import redacted, shown

log = structlog.get_logger("execkit")

_NOT_YET: Final = frozenset({OrderState.NEW, OrderState.SUBMITTED, OrderState.PRESUMED_ABSENT})
"""There is nothing that the venue could cancel, as far as we know."""

_AMENDABLE: Final = frozenset({OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED})


class OrderChanger:
    """Sends cancels and amendments. *turn* waits until one may leave, *doubt* is told of what has to be proven."""

    def __init__(
        self,
        adapter: ExchangeAdapter,
        intake: Intake,
        pace: Pace,
        *,
        timeout: float,
        turn: Callable[[ManagedOrder, str], Awaitable[None]],
        doubt: Callable[[ManagedOrder], None],
        halt: Callable[[str], None],
    ) -> None:
        self.adapter = adapter
        self.intake = intake
        self.recorder = intake.recorder
        self.pace = pace
        self._timeout = timeout
        self._turn = turn
        self._doubt = doubt
        self._halt = halt

    async def cancel(self, order: ManagedOrder, reason: str) -> ManagedOrder:
        """Ask the venue to cancel an order. On return it is closed, or its cancel is still to be proven.

        An order that was not sent yet is not sent any more. One that is in flight or presumed absent is cancelled as
        soon as it shows.
        """
        if order.is_closed:
            return order
        asked = order.record_of(OrderEvent.ASK_CANCEL, Source.CHAIN, reason)
        command = _command(order, "cancel", reason)
        if order.state in _NOT_YET:
            self.recorder.record(asked)
            if order.state is OrderState.NEW:
                text = f"cancelled before it was sent: {reason}"
                self.recorder.record(order.record_of(OrderEvent.FAIL, Source.CHAIN, text))
            await self.recorder.try_settle()
            return order
        try:
            if not await self._announce(command, order, asked):
                return order
            async with asyncio.timeout(self._timeout):
                report = await self.adapter.cancel_order(
                    order.symbol,
                    client_order_id=order.client_order_id,
                    venue_order_id=order.venue_order_id,
                )
            await self._take(order, report)
        except (RateLimitError, NotSentError) as error:
            self._note(error)
            self._refuse(order, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it proves nothing
            self._note(error)
            log.warning(
                "order.cancel_unknown", client_order_id=order.client_order_id, error=shown(error)
            )
        finally:
            if not order.is_closed:
                self._doubt(order)
        return order

    async def cancel_closed(self, order: ManagedOrder, venue_order_id: str) -> bool:
        """Ask the venue to cancel what it has open of an order that is closed here; return whether it answered."""
        command = _command(order, "cancel", "closed here, open at the venue")
        try:
            if not await self._announce(command, order):
                return False
            async with asyncio.timeout(self._timeout):
                report = await self.adapter.cancel_order(
                    order.symbol,
                    client_order_id=order.client_order_id,
                    venue_order_id=venue_order_id,
                )
            await self._take(order, report)
        except OrderNotFoundError:
            return True
        except Exception as error:  # noqa: BLE001 - it is tried again in the next pass
            self._note(error)
            log.warning(
                "order.cancel_unknown", client_order_id=order.client_order_id, error=shown(error)
            )
            return False
        return True

    async def amend(
        self,
        order: ManagedOrder,
        *,
        quantity: Decimal | None = None,
        limit_price: Decimal | None = None,
        stop_price: Decimal | None = None,
        reason: str = "",
        refuse: Callable[[], Denial | None] | None = None,
    ) -> bool:
        """Change a resting order in place; return whether the venue has confirmed it.

        A larger quantity of an entry is refused. A limit price at which it is executed sooner needs *refuse*, which
        says, when the change is about to leave, why it may not.
        """
        if quantity is not None and quantity > order.quantity and not order.role.is_reduction:
            raise OrderRejectedError(
                f"quantity {plain(quantity)} is above {plain(order.quantity)}: send a new signal instead"
            )
        if refuse is None and adds_exposure(order, limit_price):
            raise OrderRejectedError(
                f"limit_price {plain(limit_price or ZERO)} is executed sooner than the approved "
                f"{plain(order.limit_price or ZERO)}: it needs an approval of its own"
            )
        if order.state not in _AMENDABLE:
            return False
        asked = order.record_of(OrderEvent.ASK_AMEND, Source.CHAIN, reason)
        command = _command(order, "amend", reason, quantity, limit_price, stop_price)
        try:
            if not await self._announce(command, order, asked):
                return False
            denial = None if refuse is None else refuse()
            if denial is not None:
                # E.g. halted while it waited for its turn.
                self._refuse(order, OrderRejectedError(str(denial)))
                return False
            async with asyncio.timeout(self._timeout):
                report = await self.adapter.amend_order(
                    order.symbol,
                    client_order_id=order.client_order_id,
                    venue_order_id=order.venue_order_id,
                    quantity=quantity,
                    limit_price=limit_price,
                    stop_price=stop_price,
                )
            await self._take(order, report)
        except ExchangeError as error:
            self._note(error)
            if _is_definite(error):
                self._refuse(order, error)
                return False
        except Exception as error:  # noqa: BLE001 - which of the two orders is live is unknown
            log.warning(
                "order.amend_unknown", client_order_id=order.client_order_id, error=shown(error)
            )
        finally:
            if order.state is OrderState.PENDING_AMEND:
                text = "the venue has not confirmed the change"
                self.recorder.record(order.record_of(OrderEvent.LOSE, Source.CHAIN, text))
                self._doubt(order)
        return order.asked is None and order.state in _AMENDABLE

    async def _announce(
        self, command: CommandSent, order: ManagedOrder, asked: OrderChanged | None = None
    ) -> bool:
        """Make a command durable, somewhere, and wait for the venue's pause to end; return whether it may leave."""
        recorder = self.recorder
        if not recorder.journal.is_current:
            return False
        was_closed = order.is_closed
        recorder.record(command)
        if asked is not None:
            recorder.record(asked)
        try:
            await recorder.settle()
        except JournalCommitError as error:
            if not recorder.keep_apart(command):
                self._refuse(order, error)
                return False
        await self._turn(order, command.command)
        return recorder.journal.is_current and order.is_closed is was_closed

    async def _take(self, order: ManagedOrder, report: OrderReport) -> None:
        """Take in the answer to a command, if it is one."""
        problem = malformed_report(report) or problem_with(order, report)
        if problem is None:
            await self.intake.absorb(report, Source.ACK)
            return
        self.recorder.alarm(
            "ANSWER_NOT_OURS",
            f"the answer about {order.client_order_id} {problem}",
            symbol=order.symbol,
            client_order_id=order.client_order_id,
        )

    def _refuse(self, order: ManagedOrder, error: Exception) -> None:
        """The command provably had no effect."""
        event = {
            OrderState.PENDING_CANCEL: OrderEvent.REFUSE_CANCEL,
            OrderState.PENDING_AMEND: OrderEvent.REFUSE_AMEND,
        }.get(order.state)
        if event is not None:
            code = getattr(error, "code", None)
            text = redacted(str(error))
            self.recorder.record(order.record_of(event, Source.ACK, text, code))

    def _note(self, error: Exception) -> None:
        if isinstance(error, RateLimitError):
            self.pace.note(error)
        elif isinstance(error, AuthenticationError):
            self._halt(f"the venue refused our key: {error}")


def adds_exposure(order: ManagedOrder, limit_price: Decimal | None) -> bool:
    """Tell whether an entry would be executed sooner with another limit price."""
    known = order.limit_price
    if limit_price is None or known is None or order.role.is_reduction:
        return False
    return limit_price > known if order.side is Side.BUY else limit_price < known


def _command(
    order: ManagedOrder,
    command: str,
    reason: str,
    quantity: Decimal | None = None,
    limit_price: Decimal | None = None,
    stop_price: Decimal | None = None,
) -> CommandSent:
    """Return the record of a command, with everything that it asks for."""
    key, venue_id = order.client_order_id, order.venue_order_id
    return CommandSent(
        client_order_id=key,
        command=command,
        reason=reason,
        command_hash=content_digest(command, key, venue_id, quantity, limit_price, stop_price),
        quantity=quantity,
        limit_price=limit_price,
        stop_price=stop_price,
    )


def _is_definite(error: ExchangeError) -> bool:
    """Tell whether an error of an amendment proves that nothing was changed."""
    return error.outcome_known and isinstance(
        error,
        (
            OrderRejectedError,
            NotSentError,
            RateLimitError,
            AuthenticationError,
            UnsupportedFeatureError,
        ),
    )
