"""Placing a stop: in a form that the venue takes, and in another one when it refuses."""

from __future__ import annotations

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import Final

import structlog
from msgspec.structs import replace

from execkit.errors import (
    DuplicateClientOrderIdError,
    ExchangeError,
    InsufficientBalanceError,
    MarketClosedError,
    OrderRejectedError,
)
from execkit.exchanges.base import MarketStatus
from execkit.model.events import ProtectionPlaced
from execkit.model.instrument import Instrument
from execkit.model.order import ListKind, OrderRole, OrderState, OrderType
from execkit.model.position import Position
from execkit.model.records import StopMoved
from execkit.numbers import ZERO, plain
from execkit.orders.commands import Reduction, Sent
from execkit.orders.gateway import OrderGateway
from execkit.orders.manager import ManagedOrder
from execkit.orders.waiting import Use
from execkit.protection.closing import Closer
from execkit.protection.plan import Plan, protective_side, stop_limit_price, stop_types
from execkit.protection.policy import ProtectionPolicy
from execkit.protection.prices import Touch
from execkit.redaction import redacted

log = structlog.get_logger("execkit")

_FOR_ENTRIES: Final = 0.8
"""Share of the time in which a stop is to rest that is waited for the end of an entry; then it is tried once more."""

LOOK_FOR_OPEN: Final = 4.0
"""Most seconds between two looks whether a closed market takes a stop again; less than one may take."""

_AT_THE_OPENING: Final = 0.5
"""The same when the venue has named a moment for it that is past."""

_RESTS: Final = frozenset(
    {OrderState.ACCEPTED, OrderState.HELD, OrderState.PARTIALLY_FILLED, OrderState.FILLED}
)
_NOT_ABOUT_TERMS: Final = (
    DuplicateClientOrderIdError,
    InsufficientBalanceError,
    MarketClosedError,
)
"""Refusals that another price or type would not change."""


class StopPlacer:
    """Sends stops and counts, by symbol, how often in a row that failed.

    A venue that refuses the terms is asked for others: the trigger one tick away from the market each time, because
    most refuse a stop that would trigger at once, and the other type of stop, where it has both.
    """

    def __init__(self, gateway: OrderGateway, closer: Closer, policy: ProtectionPolicy) -> None:
        self._gateway = gateway
        self._closer = closer
        self._recorder = gateway.recorder
        self._limit_pct = policy.stop_limit_pct
        self._within = policy.place_within.total_seconds()
        self._failures: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self._without_lists: set[str] = set()
        """Symbols of which the venue has refused a list."""
        self._crowded: set[str] = set()
        """Symbols whose last stop was refused because something else holds what it would sell."""
        self._closed: set[str] = set()
        """Symbols whose market was closed at the last try."""

    def types_for(self, instrument: Instrument) -> tuple[OrderType, ...]:
        """Return the types of stop that a market takes, the preferred one first; none: it takes no stops."""
        return stop_types(self._gateway.adapter.capabilities, instrument)

    def failures(self, symbol: str) -> int:
        """Return how often in a row no stop could be placed."""
        return self._failures.get(symbol, 0)

    def found_crowded(self, symbol: str) -> bool:
        """Tell whether the last try has failed because what rests already holds the balance."""
        return symbol in self._crowded

    def found_closed(self, symbol: str) -> bool:
        """Tell whether the last try has failed because the market takes no orders now."""
        return symbol in self._closed

    def forget(self, symbol: str) -> None:
        """Begin to count anew."""
        self._failures.pop(symbol, None)
        self._refusals.pop(symbol, None)

    async def place(
        self,
        instrument: Instrument,
        position: Position,
        plan: Plan,
        replaces: tuple[str, ...] = (),
    ) -> bool:
        """Place a stop; return whether it is known to rest."""
        symbol = instrument.symbol
        self._closed.discard(symbol)
        self._crowded.discard(symbol)
        stop = self._stop(instrument, position, plan, replaces)
        price = self.target_beside(instrument, position, plan)
        if price is None:
            sent = await self._gateway.send(stop)
        else:
            sent = await self._send_list(stop, price)
        order = sent.order
        if order is not None and order.state in _RESTS:
            self.forget(symbol)
            await self._tell(position, order)
            return True
        if order is not None and order.state.may_be_live:
            if order.state is not OrderState.NEW:
                return False  # in doubt: the next plan says WAIT
            self._gateway.give_up(order, "not sent; a new stop follows")
        if price is not None and _is_about_terms(sent.error):
            self._without_lists.add(symbol)
            return False  # the stop follows at once, alone
        if _is_about_terms(sent.error) and await self._stop_entering(symbol):
            return False  # the stop follows at once, for what there is
        if isinstance(sent.error, InsufficientBalanceError):
            self._crowded.add(symbol)
        if isinstance(sent.error, MarketClosedError):
            self._closed.add(symbol)
            return False
        failures = self._failures[symbol] = self.failures(symbol) + 1
        reason = redacted(str(sent.error or sent.denial or "no reason given"))
        log.warning("protection.refused", symbol=symbol, failures=failures, reason=reason)
        if _is_about_terms(sent.error):
            self._change_terms(instrument, position, plan)
        await asyncio.sleep(min(0.2 * 2**failures, 2.0))
        return False

    def _stop(
        self,
        instrument: Instrument,
        position: Position,
        plan: Plan,
        replaces: tuple[str, ...],
    ) -> Reduction:
        # The second type only after the first was refused twice: a stop-limit may be left behind by the price.
        refusals = self._refusals.get(instrument.symbol, 0)
        types = self.types_for(instrument)
        type_ = types[max(refusals - 1, 0) % len(types)]
        return Reduction(
            instrument=instrument,
            side=protective_side(position),
            quantity=plan.quantity,
            role=OrderRole.STOP,
            parent=position.position_id,
            position_id=position.position_id,
            type=type_,
            stop_price=plan.stop_price,
            limit_price=self.limit_of(type_, instrument, position, plan),
            signal_id=position.signal_id or None,
            expected_price=plan.stop_price,
            replaces=replaces,
        )

    def limit_of(
        self, type_: OrderType, instrument: Instrument, position: Position, plan: Plan
    ) -> Decimal | None:
        """Return the limit price of a stop of a type; None: it has none."""
        if type_ is not OrderType.STOP_LIMIT:
            return None
        return stop_limit_price(position, plan.stop_price, self._limit_pct, instrument)

    def target_beside(
        self, instrument: Instrument, position: Position, plan: Plan
    ) -> Decimal | None:
        """Return the target that goes out in one list with the stop; None: the stop goes out alone.

        Alone too after a failure, and while the venue takes one command now and not two: it matters most, and a target
        can be watched from here. Alone while an entry may still make the position larger, because a list cannot grow
        with it, and where the market takes no list of that quantity.
        """
        symbol, target = position.symbol, plan.target
        book, capabilities = self._recorder.book, self._gateway.adapter.capabilities
        if not capabilities.takes_list(ListKind.OCO, instrument, plan.quantity):
            return None
        if target is None or self.failures(symbol) or symbol in self._without_lists:
            return None
        if self._gateway.throttle.wait(Use.REDUCTION, count=2) > 0:
            return None
        price = None if (touch := Touch.of(book, symbol)) is None else touch.near(position)
        touched = price is not None and (price >= target if position.is_long else price <= target)
        return None if touched or book.orders.open_entries(symbol) else target

    async def _send_list(self, stop: Reduction, price: Decimal) -> Sent:
        """Send a stop with its target; return what came of the stop."""
        target = replace(
            stop,
            role=OrderRole.TARGET,
            type=OrderType.LIMIT,
            stop_price=None,
            limit_price=price,
            expected_price=price,
        )
        sent, beside = await self._gateway.send_oco(stop, target)
        if beside.order is not None and beside.order.state is OrderState.NEW:
            self._gateway.give_up(beside.order, "not sent; a new stop follows")
        return sent

    async def _stop_entering(self, symbol: str) -> bool:
        """Cancel what is open of an entry; return whether there was something, and it is gone.

        Some venues take no stop beside an order of ours on the other side (Alpaca calls it a wash trade), and what
        cannot be protected must not grow.
        """
        entries = tuple(self._recorder.book.orders.open_entries(symbol))
        why, within = "the venue takes no stop beside it", self._within * _FOR_ENTRIES
        return bool(entries) and not await self._closer.cancel_entries(entries, why, within)

    def _change_terms(self, instrument: Instrument, position: Position, plan: Plan) -> None:
        """Move the trigger one tick away from the market."""
        symbol = instrument.symbol
        self._refusals[symbol] = self._refusals.get(symbol, 0) + 1
        moved = plan.stop_price - protective_side(position).opposite.sign * instrument.tick_size
        now = self._recorder.book.positions.open.get(symbol)
        if moved <= ZERO or now is None or now.position_id != position.position_id:
            return
        if now.stop_loss != position.stop_loss:
            return  # somebody has set another one meanwhile
        self._recorder.record(
            StopMoved(
                symbol=symbol,
                position_id=position.position_id,
                stop_loss=moved,
                take_profit=position.take_profit,
                reason=f"the venue has refused a stop at {plain(plan.stop_price)}",
            )
        )

    async def _tell(self, position: Position, order: ManagedOrder) -> None:
        assert order.stop_price is not None, "it is a stop"
        self._recorder.announce(
            ProtectionPlaced(
                at=self._recorder.clock.now(),
                signal_id=position.signal_id,
                symbol=order.symbol,
                quantity=order.quantity,
                stop_price=order.stop_price,
                client_order_id=order.client_order_id,
            )
        )
        await self._recorder.try_settle()


def _is_about_terms(error: ExchangeError | None) -> bool:
    """Tell whether an error says that the venue takes no order of these terms, so that others may pass."""
    return isinstance(error, OrderRejectedError) and not isinstance(error, _NOT_ABOUT_TERMS)


def opens_in(status: MarketStatus, now: datetime) -> float:
    """Return in how many seconds to look again for the opening of a closed market."""
    if status.next_open is None:
        return LOOK_FOR_OPEN
    return min(max((status.next_open - now).total_seconds(), _AT_THE_OPENING), LOOK_FOR_OPEN)
