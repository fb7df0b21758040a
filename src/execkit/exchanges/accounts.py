"""The money of a simulated venue: what is owned, what resting orders hold of it, and what positions add up to.

Two kinds of account. Without short selling it is a spot account: a buy holds quote, a sell holds base, and nothing
can go below zero. With short selling a base asset may go negative: an order holds quote for the part of it that
opens a position, a short holds its proceeds and as much again as collateral, and every execution is checked once
more, because positions move while orders rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_UP, Context, Decimal
from typing import Final

import msgspec

from execkit.errors import InsufficientBalanceError
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.account import Balance, VenuePosition
from execkit.model.instrument import Instrument
from execkit.model.order import Fill, Side
from execkit.numbers import MONEY, ONE, ZERO, plain

_CENT: Final = Decimal("1e-8")
_AVERAGE: Final = Context(prec=28)
_COLLATERAL: Final = Decimal(2)


class Holding(msgspec.Struct):
    """Net quantity of one symbol; *cost* is the open quantity at its entry prices, in quote units."""

    quantity: Decimal = ZERO
    cost: Decimal = ZERO

    def move(self, change: Decimal, price: Decimal) -> None:
        """Add a signed quantity, by the average-cost method."""
        before = self.quantity
        self.quantity = before + change
        if before * change >= ZERO:
            self.cost += abs(change) * price
        elif before * self.quantity > ZERO:
            # Rounded, because a quotient has no end and the sum of all collateral must stay exact.
            share = MONEY.divide(self.cost * self.quantity, before)
            self.cost = share.quantize(_CENT, rounding=ROUND_UP, context=MONEY)
        else:
            self.cost = abs(self.quantity) * price

    @property
    def collateral(self) -> Decimal:
        """What a short holds in quote units: its proceeds and as much again."""
        return self.cost * _COLLATERAL if self.quantity < ZERO else ZERO


class Account:
    """Balances, holds and positions. Callers work under the context `MONEY`, so that sums are exact."""

    def __init__(self, balances: Mapping[str, Decimal], *, allow_short: bool) -> None:
        self.totals = dict(balances)
        self.fees: dict[str, Decimal] = {}
        """Fees paid so far by asset; rebates are negative."""
        self.holdings: dict[str, Holding] = {}
        self.allow_short = allow_short
        self._held: dict[str, Decimal] = {}

    def add_symbol(self, instrument: Instrument, others: Iterable[Instrument]) -> None:
        """Open the symbol's position: what is owned of its base and stands in no other position."""
        if instrument.symbol in self.holdings:
            return
        placed = [
            self.holdings[other.symbol].quantity
            for other in others
            if other.base == instrument.base and other.symbol in self.holdings
        ]
        owned = self.totals.get(instrument.base, ZERO) - sum(placed, ZERO)
        self.holdings[instrument.symbol] = Holding(owned)

    def rebuild_holds(
        self, orders: Iterable[VenueOrder], instruments: Mapping[str, Instrument]
    ) -> None:
        """Add up all holds anew, from open orders and shorts."""
        self._held = {}
        for order in orders:
            self._hold(order.lock_asset, order.locked)
        if self.allow_short:
            for symbol, holding in self.holdings.items():
                self._hold(instruments[symbol].quote, holding.collateral)

    def closable(self, symbol: str, side: Side) -> Decimal:
        """Return the quantity that an order of that side can close."""
        quantity = self.holdings[symbol].quantity
        return max(ZERO, -quantity if side is Side.BUY else quantity)

    def reserve(self, order: VenueOrder, instrument: Instrument, price: Decimal) -> None:
        """Hold what the order may cost at *price*, in place of what it holds already.

        Raises `InsufficientBalanceError`, and changes nothing, when that is not there.
        """
        request, rate = order.request, max(instrument.maker_fee, instrument.taker_fee, ZERO)
        if request.side is Side.SELL and not self.allow_short:
            asset, unit = instrument.base, ONE
        else:
            asset, unit = instrument.quote, self._unit_cost(request.side, instrument, price, rate)
        closing = self._closing(order)
        amount = max(ZERO, order.remaining - closing) * unit
        spare = self._spare(asset) + (order.locked if order.lock_asset == asset else ZERO)
        if amount > max(ZERO, spare):
            most = instrument.round_quantity(closing + MONEY.divide(max(ZERO, spare), unit))
            raise InsufficientBalanceError(
                f"{plain(order.remaining)} {instrument.symbol} needs {plain(amount)} {asset}, "
                f"free are {plain(max(ZERO, spare))}",
                available=most,
            )
        self.release(order)
        order.lock_asset, order.unit_lock, order.locked = asset, unit, amount
        self._hold(asset, amount)

    def release(self, order: VenueOrder) -> None:
        """Give back what the order holds."""
        self._hold(order.lock_asset, -order.locked)
        order.locked = ZERO

    def affordable(
        self, order: VenueOrder, quantity: Decimal, price: Decimal, instrument: Instrument
    ) -> Decimal:
        """Return how much of *quantity* the account can pay for at *price*, in whole lots.

        Less than all only where the price ran away after the order was accepted, or where a position that the
        order was to close is gone.
        """
        if order.request.side is Side.SELL and not self.allow_short:
            return quantity
        rate = max(instrument.maker_fee, instrument.taker_fee, ZERO)
        unit = self._unit_cost(order.request.side, instrument, price, rate)
        closing = min(quantity, self._closing(order))
        own = order.locked if order.lock_asset == instrument.quote else ZERO
        spare = max(ZERO, self._spare(instrument.quote) + own)
        if (quantity - closing) * unit <= spare:
            return quantity
        return instrument.round_quantity(closing + MONEY.divide(spare, unit))

    def settle(self, order: VenueOrder, fill: Fill, instrument: Instrument) -> None:
        """Book one execution, which the order's own numbers contain already."""
        self._hold(order.lock_asset, -order.locked)
        holding = self.holdings[fill.symbol]
        collateral = holding.collateral
        change = fill.quantity if fill.side is Side.BUY else -fill.quantity
        self._add(instrument.base, change)
        self._add(instrument.quote, -change * fill.price)
        self._add(fill.fee_asset, -fill.fee)
        self.fees[fill.fee_asset] = self.fees.get(fill.fee_asset, ZERO) + fill.fee
        holding.move(change, fill.price)
        if fill.fee_asset == instrument.base:
            # The fee comes off what was just received: same average price, less of it.
            holding.move(-fill.fee, fill.price)
        if self.allow_short:
            self._hold(instrument.quote, holding.collateral - collateral)
        # The rest of the order may hold only what is left, should the price have run away.
        left = max(ZERO, self._spare(order.lock_asset))
        order.locked = min(order.locked, order.unit_lock * order.remaining, left)
        self._hold(order.lock_asset, order.locked)

    def deposit(self, asset: str, quantity: Decimal, symbol: str | None) -> None:
        """Add to a balance from outside, or take away with a negative quantity; *symbol* is its position."""
        self._add(asset, quantity)
        if symbol is not None:
            holding = self.holdings[symbol]
            holding.move(quantity, ZERO)

    def balances(self) -> dict[str, Balance]:
        """Return all holdings by asset. Free is never negative, also when a short has lost its collateral."""
        return {
            asset: Balance(asset, total, max(ZERO, self._spare(asset)))
            for asset, total in self.totals.items()
        }

    def positions(self) -> list[VenuePosition]:
        """Return all net positions that are not flat."""
        return [
            VenuePosition(symbol, h.quantity, _AVERAGE.divide(h.cost, abs(h.quantity)))
            for symbol, h in self.holdings.items()
            if h.quantity
        ]

    def _closing(self, order: VenueOrder) -> Decimal:
        """Return the part of an order that costs nothing because it closes; a spot account pays for all."""
        if not self.allow_short:
            return ZERO
        if order.request.reduce_only:
            return order.remaining
        return self.closable(order.request.symbol, order.request.side)

    @staticmethod
    def _unit_cost(side: Side, instrument: Instrument, price: Decimal, rate: Decimal) -> Decimal:
        """Return what one unit needs in quote: a buy its price, a short as much collateral; and the fee."""
        return price if side is Side.BUY and instrument.fee_in_base else price * (ONE + rate)

    def _spare(self, asset: str) -> Decimal:
        return self.totals.get(asset, ZERO) - self._held.get(asset, ZERO)

    def _add(self, asset: str, quantity: Decimal) -> None:
        self.totals[asset] = self.totals.get(asset, ZERO) + quantity

    def _hold(self, asset: str, quantity: Decimal) -> None:
        if quantity:
            self._held[asset] = self._held.get(asset, ZERO) + quantity
