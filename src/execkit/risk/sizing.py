"""How much to buy or sell: what a method wants, cut down to what the limits leave, rounded down to the lot."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_DOWN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from typing import Final, Protocol, runtime_checkable

import attrs
import msgspec

from execkit.bars.cache import BarHistory
from execkit.errors import ConfigurationError
from execkit.functions.measures import average_true_range
from execkit.model.denial import Denial
from execkit.model.instrument import Instrument
from execkit.model.market import Timeframe
from execkit.model.order import OrderType, Side
from execkit.numbers import MONEY, ZERO, percent, positive
from execkit.risk.checks import (
    check_buying_power,
    check_exposure,
    check_order_size,
    check_position_size,
    largest_quantity,
)
from execkit.risk.groups import GroupRoom, check_groups

_DOWN: Final = Context(
    prec=60, rounding=ROUND_DOWN, traps=[InvalidOperation, DivisionByZero, Overflow]
)
"""For quotients that become quantities: never more than exact."""


class SizingInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What a sizing method may look at. Money in quote units."""

    symbol: str
    side: Side
    equity: Decimal
    price: Decimal
    """Expected entry price: the mid, or the order's own price where that binds."""
    stop_distance: Decimal
    """Entry price to stop-loss, above zero."""
    strength: Decimal
    """Of the signal, 0-100."""
    bars: BarHistory = BarHistory()
    """Of the timeframe that the method names in an attribute *timeframe*; else none."""


@runtime_checkable
class Sizing(Protocol):
    """A sizing method. A plain function of the same signature works as well."""

    def quantity(self, inputs: SizingInputs) -> Decimal:
        """Return the wanted quantity in base units, above zero; limits and lot come afterwards."""
        ...


SizingFunction = Callable[[SizingInputs], Decimal]


@attrs.frozen
class PercentOfEquity:
    """Notional of *pct* percent of the equity."""

    pct: Decimal = Decimal(2)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "pct", percent("pct", self.pct))

    def quantity(self, inputs: SizingInputs) -> Decimal:
        """Return equity x pct / 100 / price."""
        return _DOWN.divide(MONEY.multiply(inputs.equity, self.pct).scaleb(-2, MONEY), inputs.price)


@attrs.frozen
class FixedNotional:
    """The same notional each time, in quote units."""

    notional: Decimal

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "notional", positive("notional", self.notional))

    def quantity(self, inputs: SizingInputs) -> Decimal:
        """Return notional / price."""
        return _DOWN.divide(self.notional, inputs.price)


@attrs.frozen
class FixedQuantity:
    """The same quantity each time, in base units."""

    amount: Decimal

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "amount", positive("amount", self.amount))

    def quantity(self, inputs: SizingInputs) -> Decimal:
        """Return the amount."""
        return self.amount


@attrs.frozen
class RiskPerTrade:
    """The quantity that loses *pct* percent of the equity when the stop-loss is hit, fees not counted."""

    pct: Decimal = Decimal(1)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "pct", percent("pct", self.pct))

    def quantity(self, inputs: SizingInputs) -> Decimal:
        """Return equity x pct / 100 / stop distance."""
        return _DOWN.divide(
            MONEY.multiply(inputs.equity, self.pct).scaleb(-2, MONEY), inputs.stop_distance
        )


def _timeframe(value: Timeframe | str) -> Timeframe:
    return Timeframe.parse(value)


@attrs.frozen
class VolatilityTarget:
    """The quantity whose average true range over *period* bars of *timeframe* is *pct* percent of the equity.

    With daily bars: a usual day moves the account by *pct* percent. Raises `ConfigurationError`, which denies the
    signal, while there are fewer bars.
    """

    pct: Decimal = Decimal(1)
    period: int = 14
    timeframe: Timeframe = attrs.field(default=Timeframe.D1, converter=_timeframe)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "pct", percent("pct", self.pct))
        if type(self.period) is not int or self.period < 1:
            raise ConfigurationError(
                f"period: {self.period!r} must be a whole number of bars from 1"
            )

    def quantity(self, inputs: SizingInputs) -> Decimal:
        """Return equity x pct / 100 / ATR."""
        if len(inputs.bars) < self.period:
            raise ConfigurationError(
                f"sizing: {inputs.symbol} has {len(inputs.bars)} bars of {self.timeframe}, and "
                f"VolatilityTarget needs {self.period}; let more come in first"
            )
        atr = average_true_range(inputs.bars, self.period)
        if not atr:
            raise ConfigurationError(f"sizing: {inputs.symbol} has not moved, so its ATR is zero")
        return _DOWN.divide(MONEY.multiply(inputs.equity, self.pct).scaleb(-2, MONEY), atr)


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What the limits leave for one order. Money in quote units; each limit is inclusive."""

    price: Decimal
    """The arrival mid, which values the order against the three notional limits."""
    size_limit: Decimal
    """Of the order alone."""
    position: Decimal
    """Notional of the symbol's position and of everything on its way."""
    position_limit: Decimal
    exposure: Decimal
    """The same over all symbols."""
    exposure_limit: Decimal
    groups: tuple[GroupRoom, ...] = ()
    """Of the correlation groups that the symbol is in."""
    cost: Decimal | None
    """Cash per unit, fee included; None for an order that needs none."""
    cash: Decimal
    """Cash that no other order has claimed."""

    def check(self, quantity: Decimal) -> Denial | None:
        """Return the first limit that *quantity* passes, or None."""
        notional = MONEY.multiply(quantity, self.price)
        denial = (
            check_order_size(notional, self.size_limit)
            or check_position_size(MONEY.add(self.position, notional), self.position_limit)
            or check_exposure(MONEY.add(self.exposure, notional), self.exposure_limit)
            or check_groups(self.groups, notional)
        )
        if denial is None and self.cost is not None:
            return check_buying_power(MONEY.multiply(quantity, self.cost), self.cash)
        return denial

    def largest(self) -> tuple[Decimal, str]:
        """Return the largest quantity that passes `check`, not rounded, and what sets it; at least zero."""
        notional, cause = self.size_limit, "max_size_pct"
        left = MONEY.subtract(self.position_limit, self.position)
        if left < notional:
            notional, cause = left, "max_position_pct"
        left = MONEY.subtract(self.exposure_limit, self.exposure)
        if left < notional:
            notional, cause = left, "max_exposure_pct"
        for group in self.groups:
            left = MONEY.subtract(group.limit, group.notional)
            if left < notional:
                notional, cause = left, f"max_group_pct of {group.name}"
        quantity = _DOWN.divide(notional, self.price)
        if self.cost is not None:
            affordable = _DOWN.divide(self.cash, self.cost)
            if affordable < quantity:
                quantity, cause = affordable, "buying power"
        return max(quantity, ZERO), cause


def fit(
    wanted: Decimal,
    room: Room,
    instrument: Instrument,
    *,
    order_type: OrderType,
    reference_price: Decimal,
) -> tuple[Decimal, str]:
    """Return *wanted*, cut to the limits and the venue's maxima and rounded down to the lot, and what cut it.

    *reference_price* values the order against the venue's largest notional. Nothing left is a quantity of zero.
    """
    quantity, cause = wanted, ""
    largest, limit = room.largest()
    if largest < quantity:
        quantity, cause = largest, limit
    maximum = largest_quantity(instrument, order_type)
    if maximum is not None and maximum < quantity:
        quantity, cause = maximum, "the venue's largest quantity"
    if instrument.max_notional is not None:
        maximum = _DOWN.divide(instrument.max_notional, reference_price)
        if maximum < quantity:
            quantity, cause = maximum, "the venue's largest notional"
    return max(instrument.round_quantity(quantity), ZERO), cause
