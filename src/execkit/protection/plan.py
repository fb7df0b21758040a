"""What protection a position needs now. Pure: protective quantity is a function of the position."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from enum import Enum
from typing import Final

import msgspec

from execkit.model.capabilities import Capabilities
from execkit.model.instrument import Instrument
from execkit.model.order import OrderRole, OrderState, OrderType, Side
from execkit.model.position import Position
from execkit.numbers import HUNDRED, MONEY, ZERO, plain
from execkit.orders.book import Book
from execkit.orders.manager import ManagedOrder
from execkit.protection.prices import Touch, is_left_behind, is_through

_LATE: Final = timedelta(minutes=1)
"""An order that was refused after it had rested for longer is one that the venue ended."""


class Step(Enum):
    """The next thing to do for a symbol."""

    NOTHING = "nothing"
    PLACE = "place"
    RESIZE = "resize"
    CANCEL = "cancel"
    FLATTEN = "flatten"
    HOLD = "hold"
    """The venue takes no stops: the price is watched here."""
    WAIT = "wait"
    """Something is in doubt: what to do depends on what became of it."""
    COVERED = "covered"
    """What can be protected is; what became of other orders is to be seen before they are dealt with."""
    TOO_SMALL = "too small"
    """The venue takes no order for so little; a stop follows when there is more."""


class Plan(msgspec.Struct, frozen=True):
    """The next step, with what it needs."""

    step: Step
    quantity: Decimal = ZERO
    stop_price: Decimal = ZERO
    """Level of the stop, also of one in whose place the position is flattened."""
    target: Decimal | None = None
    """Price of the target that is to rest beside the stop, as one list."""
    orders: tuple[ManagedOrder, ...] = ()
    reason: str = ""
    by_price: bool = False
    """The price asks for it, which means something while the market is open."""


def protective_side(position: Position) -> Side:
    """Return the side that closes a position."""
    return Side.SELL if position.is_long else Side.BUY


def protective_quantity(
    position: Position, exits: list[ManagedOrder], instrument: Instrument
) -> Decimal:
    """Return what must be covered by a stop: the position less what live exits close, in whole lots."""
    leaving = sum((order.remaining for order in exits), ZERO)
    return instrument.round_quantity(max(abs(position.quantity) - leaving, ZERO))


def stop_trigger(position: Position, instrument: Instrument) -> Decimal | None:
    """Return the stop price on a tick, rounded towards the market so that it never triggers later than asked."""
    if position.stop_loss is None:
        return None
    if position.is_long:
        return instrument.round_price_up(position.stop_loss)
    return instrument.round_price_down(position.stop_loss)


def least_quantity(
    position: Position | None, instrument: Instrument, capabilities: Capabilities
) -> Decimal:
    """Return the smallest quantity that the venue takes a stop for; a reduce-only order may be worth little."""
    stop = None if position is None else position.stop_loss
    if stop is None or capabilities.reduce_only:
        return instrument.min_quantity
    return instrument.smallest_quantity(stop)


def stop_types(
    capabilities: Capabilities, instrument: Instrument | None = None
) -> tuple[OrderType, ...]:
    """Return the types of stop that a venue has, or that it takes in a market; the one that surely executes first."""
    known = [OrderType.STOP, OrderType.STOP_LIMIT]
    if instrument is not None and instrument.stop_limit_only:
        known.remove(OrderType.STOP)
    return tuple(each for each in known if each in capabilities.order_types)


def stop_limit_price(
    position: Position, trigger: Decimal, percent: Decimal, instrument: Instrument
) -> Decimal:
    """Return the limit of a stop-limit, *percent* of the trigger beyond it, on a tick and never nearer than that."""
    room = MONEY.multiply(trigger, percent) / HUNDRED
    if position.is_long:
        return max(instrument.round_price_down(trigger - room), instrument.tick_size)
    return instrument.round_price_up(trigger + room)


def plan_protection(
    position: Position | None,
    reductions: list[ManagedOrder],
    instrument: Instrument,
    *,
    touch: Touch | None,
    target: Decimal | None = None,
    can_rest: bool = True,
    turned: bool = False,
    least: Decimal = ZERO,
) -> Plan:
    """Return the next step that brings the live stops of a symbol in line with its position.

    *reductions* are the symbol's reductions that may be live. *touch* is where the market is; None: no price counts.
    *target* is the price of a target that may rest in one list with the stop; a stop that rests already can do without,
    and its target is watched from here. *can_rest* tells whether the venue takes stops at all; *turned*, whether the
    position is what a reduction has made of another one; *least* is the smallest quantity that the venue takes an order
    for, beside the instrument's own minimum.

    A position without a stop price is not protected by us (it came from outside); a rest below the venue's minimum
    cannot be, but what is left of a stop may stay.
    """
    stops = [order for order in reductions if order.role is OrderRole.STOP]
    resting = [order for order in reductions if is_protective(order)]
    if position is None:
        return Plan(Step.CANCEL, orders=tuple(reductions)) if reductions else Plan(Step.NOTHING)
    side = protective_side(position)
    # One that is asked to go, and of which the venue does not show what became, keeps no stop away.
    wrong = tuple(o for o in reductions if o.side is not side and not _is_going(o))
    if wrong:
        return Plan(Step.CANCEL, orders=wrong, reason="the position has turned")
    going = tuple(order for order in reductions if order.side is not side)
    stops = [order for order in stops if order.side is side]
    resting = [order for order in resting if order.side is side]
    exits = [o for o in reductions if o.side is side and not is_protective(o)]
    done = Plan(Step.COVERED, orders=going) if going else Plan(Step.NOTHING)
    left = tuple(order for order in exits if is_limit_exit(order))
    if left:
        # Whoever sent it sees to its end, unless the process did not live that long; a stop protects better.
        return Plan(Step.CANCEL, orders=left, reason="it was not executed at once")
    if sum((order.remaining for order in exits), ZERO) > abs(position.quantity):
        # A late fill elsewhere has left less than the exits would close.
        return Plan(
            Step.CANCEL, orders=tuple(exits[-1:]), reason="more would be closed than is open"
        )
    trigger = stop_trigger(position, instrument)
    needed = protective_quantity(position, exits, instrument)
    if turned and needed > ZERO and needed >= instrument.min_quantity:
        reason = "a reduction has turned the position around"
        return Plan(Step.FLATTEN, quantity=needed, reason=reason)
    if trigger is None:
        return done
    stops.sort(key=is_unproven)
    right = next(filter(None, (_good(o, resting, trigger, target, needed) for o in stops)), ())
    if (needed < max(instrument.min_quantity, least) or needed <= ZERO) and not right:
        if resting:
            return Plan(Step.CANCEL, orders=tuple(resting))
        if needed > ZERO and not going:
            return Plan(Step.TOO_SMALL, quantity=needed, stop_price=trigger)
        return done
    unproven = tuple(order for order in resting if is_unproven(order))
    is_covered = bool(right) and not is_unproven(right[0])
    if unproven and not is_covered:
        return Plan(Step.WAIT, orders=unproven)
    for order in stops:
        if touch is not None and not is_unproven(order) and is_left_behind(position, order, touch):
            limit = plain(order.limit_price or ZERO)
            reason = (
                f"the price {plain(touch.near(position))} has passed the limit {limit} of its stop"
            )
            return Plan(
                Step.FLATTEN, quantity=needed, stop_price=trigger, reason=reason, by_price=True
            )
    if right:
        others = tuple(o for o in resting if o not in right and not is_unproven(o))
        if others:
            return Plan(Step.CANCEL, orders=others)
        return Plan(Step.COVERED, orders=(*unproven, *going)) if unproven else done
    if resting:
        return Plan(
            Step.RESIZE,
            quantity=needed,
            stop_price=trigger,
            target=target,
            orders=tuple(resting),
        )
    if touch is not None:
        # A wide market of which one side is beyond the stop is for the venue to judge, where it takes the stop.
        price = touch.far(position) if can_rest else touch.near(position)
        if is_through(position, trigger, price):
            reason = f"the price {plain(price)} is beyond the stop {plain(trigger)}"
            return Plan(
                Step.FLATTEN, quantity=needed, stop_price=trigger, reason=reason, by_price=True
            )
    step = Step.PLACE if can_rest else Step.HOLD
    return Plan(step, quantity=needed, stop_price=trigger, target=target)


def is_protective(order: ManagedOrder) -> bool:
    """Tell whether an order is a stop, or the target that rests in one list with it."""
    return order.role is OrderRole.STOP or order.intent.list_id is not None


def is_limit_exit(order: ManagedOrder) -> bool:
    """Tell whether an order is an exit at its limit that was sent when the price had touched it."""
    is_target = order.role is OrderRole.TARGET and order.type is OrderType.LIMIT
    return is_target and order.intent.list_id is None


def amendable(plan: Plan, *, target: Decimal | None) -> ManagedOrder | None:
    """Return the stop that can be changed in place, where the venue does that; None: it has to go with what rests.

    *target* is the one that is to rest beside it from now on: a stop that rests alone cannot get one. In a list only
    the trigger is changed, because the venue would keep two sizes apart.
    """
    stop, *others = sorted(plan.orders, key=lambda order: order.role is not OrderRole.STOP)
    if stop.role is not OrderRole.STOP:
        return None
    if not others:
        return stop if target is None else None
    whole = (stop, *others)
    same_list = len({order.intent.list_id for order in whole}) == 1
    sized = all(order.remaining == plan.quantity for order in whole)
    return stop if same_list and sized and others[0].limit_price == plan.target else None


def _good(
    stop: ManagedOrder,
    resting: list[ManagedOrder],
    trigger: Decimal,
    target: Decimal | None,
    needed: Decimal,
) -> tuple[ManagedOrder, ...]:
    """Return a stop with the target of its list, when both are as they should be; else nothing."""
    if stop.stop_price != trigger or stop.remaining != needed:
        return ()
    name = stop.intent.list_id
    partners = [
        o for o in resting if name is not None and o.intent.list_id == name and o is not stop
    ]
    if any(o.limit_price != target or o.remaining != needed for o in partners):
        return ()
    return (stop, *partners)


def is_unproven(order: ManagedOrder) -> bool:
    """Tell whether the venue has yet to show what became of an order or its cancel."""
    return order.state in (OrderState.IN_DOUBT, OrderState.PENDING_CANCEL)


def _is_going(order: ManagedOrder) -> bool:
    return order.cancel_asked and is_unproven(order)


def refused_late(orders: list[ManagedOrder]) -> int:
    """Return how many of a position's last stops the venue took and refused soon after: accepted is not kept."""
    count = 0
    for order in reversed([order for order in orders if order.role is OrderRole.STOP]):
        began, ended = order.accepted_at, order.closed_at
        if order.state is not OrderState.REJECTED or began is None or ended is None:
            break
        if ended - began > _LATE:
            break
        count += 1
    return count


def is_turned(position: Position | None, book: Book) -> bool:
    """Tell whether a position was opened by a reduction that executed more than there was, so that nobody wants it."""
    if position is None or position.stop_loss is not None:
        return False
    side = protective_side(position).opposite
    fills = (execution.fill for execution in book.positions.executions(position.symbol))
    first = (fill for fill in fills if fill.at == position.opened_at and fill.side is side)
    orders = (book.orders.find(fill.client_order_id, fill.venue_order_id) for fill in first)
    return any(order is not None and order.role.is_reduction for order in orders)
