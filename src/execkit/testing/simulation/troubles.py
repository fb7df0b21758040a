"""What a venue does by itself: it ends and corrects orders, executes too much, and lets others trade the account."""

from __future__ import annotations

import random
from decimal import Decimal

from execkit.errors import ExchangeError
from execkit.model.order import Fill, OrderState, Side
from execkit.numbers import ZERO
from execkit.testing.simulation.chaos import Kind
from execkit.testing.simulation.rules import SYMBOLS
from execkit.testing.simulation.world import World


class Troubles:
    """Makes the venue do such things."""

    def __init__(self, world: World) -> None:
        self.world = world

    def strike(self, rng: random.Random) -> None:
        """Let one of them happen, if this run has any."""
        world, chaos, venue = self.world, self.world.chaos, self.world.venue
        fault = chaos.pick("venue") if rng.random() < 0.5 else chaos.pick("foreign")
        fault = fault or None
        ours = venue.open_of_ours(world.is_ours)
        try:
            if fault is Kind.VENUE_CANCELS and ours:
                venue.end(rng.choice(ours), OrderState.CANCELLED, "maintenance")
            elif fault is Kind.VENUE_EXPIRES and ours:
                venue.end(rng.choice(ours), OrderState.EXPIRED, "end of day")
            elif fault in (Kind.VENUE_CORRECTS, Kind.VENUE_BUSTS):
                self._correct(rng, bust=fault is Kind.VENUE_BUSTS)
            elif fault is Kind.VENUE_OVERFILLS:
                self._overfill(rng)
            elif fault in (Kind.FOREIGN_ORDER, Kind.FOREIGN_TRADE):
                symbol = rng.choice(SYMBOLS)
                instrument = venue.core.instruments[symbol]
                price = world.prices[symbol]
                quantity = instrument.round_quantity(Decimal(300) / price)
                rests = fault is Kind.FOREIGN_ORDER
                world.watch.shaken.add(symbol)
                venue.foreign_order(
                    symbol,
                    rng.choice(tuple(Side)),
                    quantity,
                    instrument.round_price(price * Decimal("0.9")) if rests else None,
                )
        except ExchangeError as error:
            world.tell(f"the venue refused somebody else: {error!r}")

    def _fills_of_ours(self) -> list[Fill]:
        venue = self.world.venue
        gone = {fill.replaces for fill in venue.fills}
        return [
            fill
            for fill in venue.fills[-20:]
            if self.world.is_ours(fill.client_order_id)
            and fill.quantity
            and fill.trade_id not in gone
        ]

    def _correct(self, rng: random.Random, *, bust: bool) -> None:
        fills = self._fills_of_ours()
        if not fills:
            return
        venue, fill = self.world.venue, rng.choice(fills)
        instrument = venue.core.instruments[fill.symbol]
        if bust or rng.random() < 0.3:
            quantity = ZERO if bust else instrument.round_quantity(fill.quantity / 2)
            left = venue.quantity(fill.symbol) - fill.side.sign * (fill.quantity - quantity)
            if not venue.rules.short_selling and left < ZERO:
                return
            self.world.watch.shaken.add(fill.symbol)
            self.world.watch.lied.add(fill.client_order_id)
        else:
            quantity = fill.quantity
        price = instrument.round_price(fill.price * Decimal("1.001"))
        venue.correct(fill, quantity=quantity, price=price)

    def _overfill(self, rng: random.Random) -> None:
        fills = self._fills_of_ours()
        if not fills:
            return
        venue, fill = self.world.venue, rng.choice(fills)
        if fill.side is Side.SELL and venue.quantity(fill.symbol) < fill.quantity:
            return
        order = venue.core.orders[fill.venue_order_id]
        if order.is_open:
            return
        self.world.watch.shaken.add(fill.symbol)
        self.world.watch.lied.add(fill.client_order_id)
        venue.execute(order, fill.quantity, fill.price)
