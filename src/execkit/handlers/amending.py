"""Changing an entry that rests: its new terms are held to the limits that a new order is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

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
    wanted = _wanted(desk, order, limit_price, quantity)
    quote = await desk.quotes.get(order.symbol)
    links = list(handlers)
    risk = next((link for link in links if isinstance(link, RiskManagementHandler)), None)
    sooner = adds_exposure(order, limit_price)
    # From here to the record of the command nothing waits, so that no other signal is judged in between.
    denial = _deny(desk, risk, order, wanted, instrument, account(), quote)
    for link in links if sooner else ():
        if isinstance(link, ValidationHandler):
            denial = denial or link.check_move(order.symbol, desk)
    if denial is not None:
        raise ExecKitError(f"amend: {order.client_order_id} stays as it is: {denial}")
    if sooner and quote is not None:
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
        refuse=(lambda: desk.gateway.refuse_exposure(order)) if sooner else None,
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


def _deny(
    desk: Desk,
    risk: RiskManagementHandler | None,
    order: ManagedOrder,
    wanted: OrderRequest,
    instrument: Instrument,
    account: AccountView,
    quote: Quote | None,
) -> Denial | None:
    """Return why an order may not have these terms, or None. Smaller or executed later is checked for form only."""
    sooner = adds_exposure(order, wanted.limit_price)
    if sooner and quote is None:
        return Denial.of(DenialCode.QUOTE_STALE, symbol=order.symbol)
    denial = None if quote is None else check_quote(quote)
    denial = denial or check_order(
        wanted,
        instrument,
        quote if wanted.limit_price != order.limit_price else None,
        desk.adapter.capabilities,
        collar_pct=HARD_COLLAR_PCT if risk is None else risk.price_collar_pct,
        is_reduction=False,
    )
    if denial is not None or not sooner or quote is None:
        return denial
    denial = desk.gateway.refuse_exposure(order)
    if denial is not None or desk.unchecked:
        return denial
    if risk is None:
        return Denial.of(DenialCode.NOT_STAMPED, symbol=order.symbol, limit=order.limit_price)
    price, intent, limits = expected_price(wanted, quote.mid), order.intent, risk.limits
    target = mean_target(intent.targets) if intent.targets else intent.take_profit
    # Whoever stamps an entry without levels of its own has none to hold it to.
    stop = intent.stop_loss
    if stop is not None:
        denial = check_stop_loss(order.side, price, stop) or check_stop_distance(
            price, stop, limits.max_stop_distance_pct
        )
    if denial is None and stop is not None and target is not None:
        denial = check_take_profit(order.side, price, target) or check_risk_reward(
            price, stop, target, limits.min_risk_reward_ratio
        )
    if denial is not None:
        return denial
    room = room_of(
        order.reservation_id or order.parent,
        order.side,
        wanted.limit_price or price,
        instrument=instrument,
        account=account,
        desk=desk,
        mid=quote.mid,
        limits=limits,
    )
    return room.check(wanted.quantity - order.filled)
