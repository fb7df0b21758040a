"""What came of a send: only definite evidence makes an order accepted or rejected, all else leaves it in doubt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from execkit.errors import (
    AuthenticationError,
    ExchangeError,
    NotSentError,
    OrderRejectedError,
    OrderStatusUnknownError,
    RateLimitError,
)
from execkit.model.order import OrderEvent, OrderReport, OrderState
from execkit.model.records import Source
from execkit.orders.commands import Sent
from execkit.orders.intake import Intake
from execkit.orders.manager import ManagedOrder
from execkit.orders.reconcile import problem_with
from execkit.orders.shape import malformed_report
from execkit.orders.waiting import Pace
from execkit.redaction import redacted, words_of

log = structlog.get_logger("execkit")

_DEFINITE: Final = (NotSentError, OrderRejectedError, RateLimitError, AuthenticationError)


class Answers:
    """Reads the answer to a send, one order at a time. *doubt* is told of what has to be proven."""

    def __init__(
        self,
        intake: Intake,
        pace: Pace,
        *,
        doubt: Callable[[ManagedOrder], None],
        halt: Callable[[str], None],
    ) -> None:
        self._intake = intake
        self._recorder = intake.recorder
        self._pace = pace
        self._doubt = doubt
        self._halt = halt

    async def take(self, order: ManagedOrder, report: OrderReport) -> Sent:
        """Take in what the venue says of an order, if it is about that."""
        malformed = malformed_report(report)
        problem = malformed or problem_with(order, report)
        if problem is None:
            await self._intake.absorb(report, Source.ACK)
            return Sent(order)
        # Of one order of a list the adapter may say that it knows nothing; everything else should not happen.
        is_unknown = malformed is None and report.status is OrderState.IN_DOUBT
        if order.intent.list_id is None or not is_unknown:
            self._distrust(order, problem)
        return self.lost(order, OrderStatusUnknownError(f"the venue's answer {problem}"))

    def failed(self, order: ManagedOrder, error: Exception) -> Sent:
        """Take in an error: a refusal, or whatever it is, bytes may have left."""
        if isinstance(error, ExchangeError) and error.is_about_another:
            self._distrust(order, f"names another order: {error}")
        return (
            self._refused(order, error) if isinstance(error, _DEFINITE) else self.lost(order, error)
        )

    def _refused(self, order: ManagedOrder, error: ExchangeError) -> Sent:
        """The venue said no, or nothing left; unless the order has been seen there meanwhile."""
        if isinstance(error, RateLimitError):
            self._pace.note(error)
        elif isinstance(error, AuthenticationError):
            self._halt(f"the venue refused our key: {error}")
        if not error.outcome_known:
            return self.lost(order, error)
        if order.state is not OrderState.SUBMITTED:
            self._recorder.anomaly_hook(order.symbol, order.client_order_id)
            return self.lost(order, error)
        event = OrderEvent.UNSENT if isinstance(error, NotSentError) else OrderEvent.REJECT
        self._recorder.record(order.record_of(event, Source.ACK, redacted(str(error)), error.code))
        return Sent(order, error)

    def lost(self, order: ManagedOrder, error: BaseException) -> Sent:
        """Nobody knows what became of the order."""
        text = words_of(error)
        if order.state is OrderState.SUBMITTED:
            # The stream may have told us meanwhile; then there is no doubt.
            code = getattr(error, "code", None)
            self._recorder.record(order.record_of(OrderEvent.LOSE, Source.ACK, text, code))
            log.warning("order.in_doubt", client_order_id=order.client_order_id, reason=text)
            self._doubt(order)
        if isinstance(error, ExchangeError) and not error.outcome_known:
            return Sent(order, error)
        return Sent(order, OrderStatusUnknownError(text))

    def _distrust(self, order: ManagedOrder, problem: str) -> None:
        """The venue answered about something else: stop adding exposure until a person has looked."""
        text = f"the answer to {order.client_order_id} {problem}"
        self._recorder.alarm(
            "ANSWER_NOT_OURS", text, symbol=order.symbol, client_order_id=order.client_order_id
        )
        if "names" in problem:
            self._halt(text)
