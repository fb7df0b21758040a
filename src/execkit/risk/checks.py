"""Rules an order must pass, as plain functions of numbers.

Each returns the denial that names value and limit, or None. The chain runs `check_order` before and after sizing and
after each adjustment, and the gateway runs it once more, so there is one place where an order's legality is decided.
"""

from __future__ import annotations

from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Final, Protocol

from execkit.model.capabilities import Capabilities
from execkit.model.denial import Denial, DenialCode
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import OrderType, Side, TimeInForce
from execkit.model.ticket import OrderTicket
from execkit.numbers import HUNDRED, MAX_MAGNITUDE, MONEY, ZERO

_BUY: Final = Side.BUY
"""Looked up once: reading a member of an enumeration costs more than comparing it."""
_MARKET_TYPES: Final = (OrderType.MARKET, OrderType.STOP)
_RATIO: Final = Decimal("0.0001")


class OrderTerms(Protocol):
    """What is asked of a venue; tickets, requests and orders all have it."""

    @property
    def symbol(self) -> str:
        """The instrument's symbol."""
        ...

    @property
    def side(self) -> Side:
        """Buy or sell."""
        ...

    @property
    def type(self) -> OrderType:
        """Market, limit, stop or stop-limit."""
        ...

    @property
    def quantity(self) -> Decimal | None:
        """In base units; None while it is not sized."""
        ...

    @property
    def limit_price(self) -> Decimal | None:
        """In quote units."""
        ...

    @property
    def stop_price(self) -> Decimal | None:
        """In quote units."""
        ...

    @property
    def time_in_force(self) -> TimeInForce:
        """How long it rests."""
        ...


def check_order(
    terms: OrderTerms,
    instrument: Instrument,
    quote: Quote | None,
    capabilities: Capabilities,
    *,
    collar_pct: Decimal,
    is_reduction: bool,
) -> Denial | None:
    """Check numbers, venue abilities, tick, lot, quantity, notional and price collar; the first failure wins.

    *collar_pct* is the largest distance of a price from the quote's mid, in percent of it. A reduction skips
    the collar and may come without a quote; its numbers must be legal all the same, but for the largest quantity: what
    is larger leaves in parts. What is not sized yet is checked by its prices only.
    """
    quantity, limit, stop = terms.quantity, terms.limit_price, terms.stop_price
    if quantity is not None:
        denial = check_number("quantity", quantity)
        if denial is not None:
            return denial
    for name, price in (("limit_price", limit), ("stop_price", stop)):
        if price is not None:
            denial = check_number(name, price)
            if denial is not None:
                return denial
            if not instrument.on_tick(price):
                return Denial.of(
                    DenialCode.PRICE_OFF_TICK, **{name: price}, tick_size=instrument.tick_size
                )
    denial = _check_supported(terms, capabilities)
    if denial is not None:
        return denial
    if quantity is not None:
        denial = _check_quantity(quantity, terms.type, instrument, is_reduction=is_reduction)
        if denial is None:
            denial = _check_notional(quantity, terms, instrument, quote)
        if denial is not None:
            return denial
    if not is_reduction and quote is not None:
        for name, price in (("limit_price", limit), ("stop_price", stop)):
            if price is not None:
                denial = check_collar(name, price, quote.mid, collar_pct)
                if denial is not None:
                    return denial
    return None


def check_number(name: str, value: Decimal) -> Denial | None:
    """Refuse what is not an exact, finite number above zero and below 1e15."""
    # NaN first: every comparison with it would pass, or raise.
    if type(value) is Decimal and value.is_finite() and ZERO < value < MAX_MAGNITUDE:
        return None
    return Denial.of(DenialCode.NUMBER_INVALID, **{name: str(value)}, limit="above 0, below 1e15")


def check_quote(quote: Quote) -> Denial | None:
    """Refuse a quote whose bid or ask is no price."""
    return check_number("bid", quote.bid) or check_number("ask", quote.ask)


def _check_supported(terms: OrderTerms, capabilities: Capabilities) -> Denial | None:
    if terms.type not in capabilities.order_types:
        return Denial.of(
            DenialCode.ORDER_TYPE_UNSUPPORTED,
            type=terms.type,
            supported=" ".join(sorted(capabilities.order_types)),
        )
    if terms.time_in_force not in capabilities.times_in_force:
        return Denial.of(
            DenialCode.ORDER_TYPE_UNSUPPORTED,
            time_in_force=terms.time_in_force,
            supported=" ".join(sorted(capabilities.times_in_force)),
        )
    return None


def _check_quantity(
    quantity: Decimal, order_type: OrderType, instrument: Instrument, *, is_reduction: bool
) -> Denial | None:
    if quantity < instrument.min_quantity:
        return Denial.of(
            DenialCode.QUANTITY_TOO_SMALL, quantity=quantity, limit=instrument.min_quantity
        )
    largest = largest_quantity(instrument, order_type)
    if largest is not None and quantity > largest and not is_reduction:
        return Denial.of(DenialCode.QUANTITY_TOO_LARGE, quantity=quantity, limit=largest)
    if not instrument.on_lot(quantity):
        return Denial.of(
            DenialCode.QUANTITY_OFF_LOT, quantity=quantity, lot_size=instrument.lot_size
        )
    return None


def largest_quantity(instrument: Instrument, order_type: OrderType) -> Decimal | None:
    """Return the venue's largest quantity for an order type; orders that execute at market have their own."""
    largest = instrument.max_quantity
    market = instrument.market_max_quantity
    if market is not None and order_type in _MARKET_TYPES:
        return market if largest is None else min(market, largest)
    return largest


def _check_notional(
    quantity: Decimal, terms: OrderTerms, instrument: Instrument, quote: Quote | None
) -> Denial | None:
    if instrument.min_notional == ZERO and instrument.max_notional is None:
        return None
    price = reference_price(terms, quote)
    if price is None:
        return None
    notional = MONEY.multiply(quantity, price)
    if notional < instrument.min_notional:
        return Denial.of(
            DenialCode.NOTIONAL_TOO_SMALL, notional=notional, limit=instrument.min_notional
        )
    if instrument.max_notional is not None and notional > instrument.max_notional:
        return Denial.of(
            DenialCode.NOTIONAL_TOO_LARGE, notional=notional, limit=instrument.max_notional
        )
    return None


def reference_price(terms: OrderTerms, quote: Quote | None) -> Decimal | None:
    """Return the price that values an order: its limit, else its stop, else the touch it would take."""
    if terms.limit_price is not None:
        return terms.limit_price
    if terms.stop_price is not None:
        return terms.stop_price
    if quote is None:
        return None
    return quote.ask if terms.side is _BUY else quote.bid


def expected_price(terms: OrderTerms, mid: Decimal) -> Decimal:
    """Return the price an entry is expected to get: the mid, or its own price where that binds."""
    price, buys = mid, terms.side is _BUY
    if terms.stop_price is not None:
        price = max(terms.stop_price, price) if buys else min(terms.stop_price, price)
    if terms.limit_price is not None:
        price = min(terms.limit_price, price) if buys else max(terms.limit_price, price)
    return price


def worst_price(terms: OrderTerms, quote: Quote, collar_pct: Decimal) -> Decimal:
    """Return the price that bounds an entry's notional, in quote units.

    A limit bounds a buy. What executes at market may run *collar_pct* percent beyond its stop or the ask. A sale
    may always execute better, so its bound is no lower than the mid.
    """
    if terms.limit_price is not None:
        price = terms.limit_price
    elif terms.stop_price is not None or terms.side is _BUY:
        start = terms.stop_price or quote.ask
        price = MONEY.add(start, MONEY.multiply(start, collar_pct).scaleb(-2, MONEY))
    else:
        price = quote.mid
    return price if terms.side is _BUY else max(price, quote.mid)


def check_collar(name: str, price: Decimal, mid: Decimal, collar_pct: Decimal) -> Denial | None:
    """Refuse a price farther than *collar_pct* percent from the mid, on either side."""
    if MONEY.multiply(abs(price - mid), HUNDRED) <= MONEY.multiply(mid, collar_pct):
        return None
    return Denial.of(
        DenialCode.PRICE_OUTSIDE_COLLAR, **{name: price}, mid=mid, limit_pct=collar_pct
    )


def check_stop_loss(side: Side, price: Decimal, stop_loss: Decimal) -> Denial | None:
    """Refuse a stop-loss that is not on the losing side of the entry price."""
    if ZERO < stop_loss < price if side is _BUY else stop_loss > price:
        return None
    return Denial.of(DenialCode.STOP_LOSS_WRONG_SIDE, stop_loss=stop_loss, price=price)


def check_take_profit(side: Side, price: Decimal, take_profit: Decimal) -> Denial | None:
    """Refuse a take-profit that is not on the winning side of the entry price."""
    if take_profit > price if side is _BUY else ZERO < take_profit < price:
        return None
    return Denial.of(DenialCode.TAKE_PROFIT_WRONG_SIDE, take_profit=take_profit, price=price)


def check_stop_distance(price: Decimal, stop_loss: Decimal, limit_pct: Decimal) -> Denial | None:
    """Refuse a stop-loss farther than *limit_pct* percent of the entry price away from it."""
    distance = abs(price - stop_loss)
    limit = MONEY.multiply(price, limit_pct).scaleb(-2, MONEY)
    if distance <= limit:
        return None
    return Denial.of(DenialCode.STOP_TOO_FAR, distance=distance, limit=limit, limit_pct=limit_pct)


def check_risk_reward(
    price: Decimal, stop_loss: Decimal, take_profit: Decimal, minimum: Decimal
) -> Denial | None:
    """Refuse a gain to the target below *minimum* times the loss to the stop; gross, before fees."""
    risk, reward = abs(price - stop_loss), abs(take_profit - price)
    if reward >= MONEY.multiply(risk, minimum):
        return None
    ratio = MONEY.divide(reward, risk).quantize(_RATIO, ROUND_FLOOR)
    return Denial.of(DenialCode.RISK_REWARD_TOO_LOW, ratio=ratio, limit=minimum)


def check_position_count(positions: int, limit: int) -> Denial | None:
    """Refuse one position more than *limit*; *positions* counts the new one."""
    if positions <= limit:
        return None
    return Denial.of(DenialCode.TOO_MANY_POSITIONS, positions=positions, limit=limit)


def check_order_size(notional: Decimal, limit: Decimal) -> Denial | None:
    """Refuse one order above its share of the equity."""
    if notional <= limit:
        return None
    return Denial.of(DenialCode.NOTIONAL_TOO_LARGE, notional=notional, limit=limit)


def check_position_size(position: Decimal, limit: Decimal) -> Denial | None:
    """Refuse a position, with what is on its way and the new order, above its share of the equity."""
    if position <= limit:
        return None
    return Denial.of(DenialCode.POSITION_TOO_LARGE, position=position, limit=limit)


def check_age(ticket: OrderTicket, now: datetime) -> Denial | None:
    """Refuse a signal that is older than it allows itself to be."""
    signal = ticket.signal
    if signal.max_age is None:
        return None
    age = now - (signal.created_at or ticket.created_at)
    if age <= signal.max_age:
        return None
    return Denial.of(
        DenialCode.SIGNAL_TOO_OLD,
        age_seconds=age.total_seconds(),
        limit_seconds=signal.max_age.total_seconds(),
    )


def check_exposure(exposure: Decimal, limit: Decimal) -> Denial | None:
    """Refuse a sum of all positions and live orders, the new one included, above its share of the equity."""
    if exposure <= limit:
        return None
    return Denial.of(DenialCode.EXPOSURE_TOO_LARGE, exposure=exposure, limit=limit)


def check_buying_power(cost: Decimal, available: Decimal) -> Denial | None:
    """Refuse a cost, fee included, above the cash that no other order has claimed."""
    if cost <= available:
        return None
    return Denial.of(DenialCode.NOT_ENOUGH_BUYING_POWER, cost=cost, available=available)


def unit_cost(price: Decimal, instrument: Instrument) -> Decimal:
    """Return the cash that a buyer needs per unit at *price*, with the taker fee where it is paid in quote."""
    if instrument.fee_in_base or instrument.taker_fee <= ZERO:
        return price
    return MONEY.multiply(price, 1 + instrument.taker_fee)
