"""Changing an entry that rests: its new terms are held to the limits that a new order is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

import attrs
from msgspec.structs import replace

from execkit.errors import ConfigurationError, ExecKitError
from execkit.handlers.desk import Desk
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.room import room_of
from execkit.handlers.validation import ValidationHandler
from execkit.model.account import AccountView
from execkit.model.denial import Denial, DenialCode
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import OrderRequest, OrderRole, OrderState, OrderType
from execkit.numbers import ZERO, plain
from execkit.orders.changing import adds_exposure
from execkit.orders.manager import ManagedOrder
from execkit.orders.proofs import HARD_COLLAR_PCT
from execkit.protection.policy import mean_target
from execkit.risk.checks import (
    check_number,
    check_order,
    check_quote,
    check_risk_reward,
    check_stop_distance,
    check_stop_loss,
    check_take_profit,
    expected_price,
    worst_price,
)

_RESTING = (OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED)


async def amend(
    desk: Desk,
    handlers: Iterable[object],
    order: ManagedOrder,
    instrument: Instrument,
    account: Callable[[], AccountView],
    *,
    limit_price: Decimal | None,
    quantity: Decimal | None,
    reason: str,
) -> ManagedOrder:
    """Change a resting entry; see `ByHand.amend`. *handlers* are the chain, *account* tells how it stands."""
    quote = await desk.quotes.get(order.symbol)
    # From here to the record of the command nothing waits, so that no other signal or change is judged in between.
    wanted = _wanted(desk, order, limit_price, quantity)
    change = _Change(desk, tuple(handlers), order, wanted, instrument, quote)
    denial = change.deny(account())
    if denial is not None:
        raise ExecKitError(f"amend: {order.client_order_id} stays as it is: {denial}")
    if change.is_sooner and quote is not None:
        desk.ledger.reprice(
            order.reservation_id or order.parent,
            worst_price(wanted, quote, ZERO),
            price=quote.mid,
            fee_rate=ZERO if instrument.fee_in_base else max(instrument.taker_fee, ZERO),
        )
    done = await desk.gateway.amend(
        order,
        limit_price=limit_price,
        quantity=quantity,
        reason=reason,
        refuse=change.deny_now if change.is_sooner else None,
    )
    await desk.recorder.try_settle()
    if not done and order.state in _RESTING:
        raise ExecKitError(
            f"amend: {order.client_order_id} stays as it is: {order.reason or 'not sent'}"
        )
    return order


def _wanted(
    desk: Desk, order: ManagedOrder, limit_price: Decimal | None, quantity: Decimal | None
) -> OrderRequest:
    """Return the order's new terms; raise `ConfigurationError` or `ExecKitError` where it cannot have such."""
    key = order.client_order_id
    for name, value in (("limit_price", limit_price), ("quantity", quantity)):
        if value is not None and type(value) is not Decimal:
            raise ConfigurationError(f"{name}: {value!r} is not a Decimal")
        denial = None if value is None else check_number(name, value)
        if denial is not None:
            raise ExecKitError(f"amend: {key} stays as it is: {denial}")
    if limit_price is None and quantity is None:
        raise ConfigurationError("amend: state limit_price, quantity or both")
    if order.role is not OrderRole.ENTRY or order.intent.slice_of is not None:
        raise ExecKitError(
            f"amend: {key} is a {'slice' if order.intent.slice_of else order.role}; only entries are changed by hand"
        )
    if order.type is not OrderType.LIMIT:
        raise ExecKitError(f"amend: {key} is a {order.type} order; only limit orders are changed")
    if order.state not in _RESTING:
        raise ExecKitError(f"amend: {key} is {order.state}; only an order that rests is changed")
    if not desk.adapter.capabilities.amend:
        raise ExecKitError(
            f"amend: {desk.adapter.name} changes no resting orders; cancel it and send a new signal"
        )
    if quantity is not None and not order.filled < quantity <= order.quantity:
        raise ExecKitError(
            f"quantity: {plain(quantity)} must be above the {plain(order.filled)} that are executed and at most "
            f"{plain(order.quantity)}; for more send a new signal"
        )
    return replace(
        order.request,
        quantity=order.quantity if quantity is None else quantity,
        limit_price=order.limit_price if limit_price is None else limit_price,
    )


@attrs.frozen
class _Change:
    """New terms of an entry, and what they are judged by."""

    desk: Desk
    handlers: tuple[object, ...]
    order: ManagedOrder
    wanted: OrderRequest
    instrument: Instrument
    quote: Quote | None

    @property
    def is_sooner(self) -> bool:
        """Tell whether it would be executed sooner: then it is held to the limits of a new order."""
        return adds_exposure(self.order, self.wanted.limit_price)

    def deny(self, account: AccountView) -> Denial | None:
        """Return why the order may not have these terms, or None."""
        denial = self._deny_form() or self._deny_levels()
        if denial is not None or not self.is_sooner:
            return denial
        if self.quote is None:
            return Denial.of(DenialCode.QUOTE_STALE, symbol=self.order.symbol)
        denial = self.deny_now()
        for link in self.handlers:
            if denial is None and isinstance(link, ValidationHandler):
                denial = link.check_move(self.order.symbol, self.desk)
        if denial is not None or self.desk.unchecked:
            return denial
        for link in self.handlers:
            if isinstance(link, RiskManagementHandler):
                return self._deny_risk(link, self.quote, account)
        limit = self.order.limit_price
        return Denial.of(DenialCode.NOT_STAMPED, symbol=self.order.symbol, limit=limit)

    def deny_now(self) -> Denial | None:
        """Return why nothing that is executed sooner may leave in this moment, or None."""
        if self.desk.reconciler.is_blind:
            return Denial.of(DenialCode.NOT_RECONCILED, reason="the venue could not be read")
        return self.desk.gateway.refuse_exposure(self.order)

    def _deny_form(self) -> Denial | None:
        """Check numbers, tick, lot and notional, and a new price against the collar of now."""
        collars = [
            link.price_collar_pct
            for link in self.handlers
            if isinstance(link, (ValidationHandler, RiskManagementHandler))
        ]
        is_priced_anew = self.wanted.limit_price != self.order.limit_price
        quote = self.quote if is_priced_anew else None
        return (None if quote is None else check_quote(quote)) or check_order(
            self.wanted,
            self.instrument,
            quote,
            self.desk.adapter.capabilities,
            collar_pct=min(collars, default=HARD_COLLAR_PCT),
            is_reduction=False,
        )

    def _deny_levels(self) -> Denial | None:
        """Check that its stop-loss and target stay on their sides of the price, e.g. not above a lower buy."""
        price, stop, target = self.wanted.limit_price, self.order.intent.stop_loss, self._target
        if price is None or price == self.order.limit_price:
            return None
        side = self.order.side
        denial = None if stop is None else check_stop_loss(side, price, stop)
        return denial or (None if target is None else check_take_profit(side, price, target))

    @property
    def _target(self) -> Decimal | None:
        intent = self.order.intent
        return mean_target(intent.targets) if intent.targets else intent.take_profit

    def _deny_risk(
        self, risk: RiskManagementHandler, quote: Quote, account: AccountView
    ) -> Denial | None:
        """Check the day's loss, stop distance, ratio, and the room for what is not executed yet."""
        order, limits = self.order, risk.limits
        price, stop, target = (
            expected_price(self.wanted, quote.mid),
            order.intent.stop_loss,
            self._target,
        )
        denial = risk.loss.check(self.desk, account.equity)
        # Whoever stamps an entry without levels of its own has none to hold it to.
        if denial is None and stop is not None:
            denial = check_stop_distance(price, stop, limits.max_stop_distance_pct)
            if denial is None and target is not None:
                denial = check_risk_reward(price, stop, target, limits.min_risk_reward_ratio)
        if denial is not None:
            return denial
        room = room_of(
            order.reservation_id or order.parent,
            order.side,
            self.wanted.limit_price or price,
            instrument=self.instrument,
            account=account,
            desk=self.desk,
            mid=quote.mid,
            limits=limits,
        )
        return room.check(self.wanted.quantity - order.filled)
