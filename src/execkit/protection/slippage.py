"""Tells when what protects or closes a position is executed worse than it should have been."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from execkit.model.events import SlippageAlert
from execkit.model.order import OrderRole, Side
from execkit.model.records import Filled, Record
from execkit.numbers import HUNDRED, plain
from execkit.orders.manager import ManagedOrder
from execkit.orders.recorder import Recorder

ALARM: Final = "SLIPPAGE"

_WATCHED: Final = (OrderRole.STOP, OrderRole.TARGET, OrderRole.FLATTEN)
"""Entries and exits that went through a chain are its `ReconciliationHandler`'s."""


class SlippageWatch:
    """Compares each execution of the keeper's orders with the price that the order should have brought.

    More than *alert_pct* percent worse, on the average of what was executed of it so far, a person is told: once for an
    order, also across a restart, because the alarm is journalled.
    """

    def __init__(self, recorder: Recorder, alert_pct: Decimal) -> None:
        self._recorder = recorder
        self._alert_pct = alert_pct
        recorder.listen(self._on_record)

    def _on_record(self, record: Record, order: ManagedOrder | None) -> None:
        if not isinstance(record, Filled) or order is None or order.role not in _WATCHED:
            return
        expected, average = should_bring(order), order.average_price
        if expected is None or average is None:
            return
        worse = slippage_pct(order.side, expected, average)
        if worse > self._alert_pct and not self._is_told(order.client_order_id):
            self._tell(order, expected, average, worse)

    def _is_told(self, key: str) -> bool:
        alarms = self._recorder.book.alarms
        return any(each.code == ALARM and each.client_order_id == key for each in alarms)

    def _tell(
        self, order: ManagedOrder, expected: Decimal, average: Decimal, worse: Decimal
    ) -> None:
        recorder = self._recorder
        verb = "sold" if order.side is Side.SELL else "bought"
        recorder.alarm(
            ALARM,
            f"{order.symbol}: the {order.role} {verb} {plain(order.filled)} of {plain(order.quantity)} at "
            f"{plain(round(average, 8))}, {plain(round(worse, 4))} % worse than {plain(expected)}",
            symbol=order.symbol,
            client_order_id=order.client_order_id,
        )
        recorder.announce(
            SlippageAlert(
                at=recorder.clock.now(),
                signal_id=order.signal_id or "",
                symbol=order.symbol,
                client_order_id=order.client_order_id,
                slippage_pct=worse,
                role=order.role,
                side=order.side,
                quantity=order.filled,
                expected_price=expected,
                average_price=average,
            )
        )


def should_bring(order: ManagedOrder) -> Decimal | None:
    """Return the price that an order should bring: of a stop the level at which it rests now; None: nobody knows."""
    return order.stop_price if order.role is OrderRole.STOP else order.expected_price


def slippage_pct(side: Side, expected: Decimal, average: Decimal) -> Decimal:
    """Return how much worse *average* is than *expected*, in percent of it; negative: it is better."""
    return side.sign * (average - expected) / expected * HUNDRED
