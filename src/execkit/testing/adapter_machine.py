"""A state machine for adapters."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from execkit.exchanges.base import ExchangeAdapter
from execkit.model.order import OrderState, OrderType
from execkit.numbers import ZERO
from execkit.testing.bench import Bench
from execkit.testing.contract import default_control
from execkit.testing.control import VenueControl
from execkit.testing.machine import Machine


class AdapterMachine(Machine):
    """Places, fills and cancels orders through an adapter, beside a model of what the venue should say.

    For adapters without sockets and threads; what the control cannot do is left out.
    """

    symbol = "BTC/USDT"

    def make_adapter(self) -> ExchangeAdapter:
        """Return a new adapter with the clock `self.time.clock`."""
        raise NotImplementedError(f"{type(self).__name__} needs make_adapter()")

    def make_control(self, adapter: ExchangeAdapter) -> VenueControl:
        """Return what can be done with the venue."""
        return default_control(adapter)

    def __init__(self) -> None:
        super().__init__()
        adapter = self.make_adapter()
        self.bench = Bench(
            adapter,
            self.make_control(adapter),
            self.symbol,
            rng=random.Random(0),
            clock=self.time.clock,
        )
        self.wait(self.bench.open())
        self.model: dict[str, dict[str, Any]] = {}
        """By client order id: the request, what is filled, and the state."""

    @rule()
    def place(self) -> None:
        """Place an order that rests."""
        request = self.wait(self.bench.request(OrderType.LIMIT))
        self.wait(self.bench.place(request))
        self.model[request.client_order_id] = {
            "request": request,
            "filled": ZERO,
            "state": OrderState.ACCEPTED,
        }

    @precondition(lambda self: bool(self._open()))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel an open order."""
        order = data.draw(st.sampled_from(self._open()))
        self.wait(self.bench.cancel(order["request"]))
        order["state"] = OrderState.CANCELLED

    @precondition(lambda self: bool(self._open()) and self.bench.control.can("fill"))
    @rule(whole=st.booleans())
    def fill(self, whole: bool) -> None:
        """Execute the oldest open order, whole or half of what is left; all stand at one price."""
        order = self._open()[0]
        left = order["request"].quantity - order["filled"]
        part = left if whole else self.bench.instrument.round_quantity(left / 2)
        if not part:
            return
        self.wait(self.bench.control.fill(order["request"].client_order_id, part))
        order["filled"] += part
        done = order["filled"] == order["request"].quantity
        order["state"] = OrderState.FILLED if done else OrderState.PARTIALLY_FILLED

    def _open(self) -> list[dict[str, Any]]:
        return [order for order in self.model.values() if not order["state"].is_closed]

    @invariant()
    def look_ups_agree_with_the_model(self) -> None:
        """Each order stands as the model has it."""
        for order in self.model.values():
            seen = self.wait(self.bench.get(order["request"]))
            said = (seen.status, seen.filled)
            assert said == (order["state"], order["filled"]), f"{said}, the model has {order}"

    @invariant()
    def open_orders_agree_with_the_model(self) -> None:
        """Exactly the open orders are listed."""
        listed = {o.client_order_id for o in self.wait(self.bench.adapter.open_orders(self.symbol))}
        expected = {order["request"].client_order_id for order in self._open()}
        assert listed == expected, f"listed {listed}, open are {expected}"

    @invariant()
    def fills_agree_with_the_model(self) -> None:
        """The executions add up."""
        since = self.bench.started_at - timedelta(days=1)
        fills = self.wait(self.bench.adapter.fills_since(since, self.symbol))
        total = sum((fill.quantity for fill in fills), ZERO)
        expected = sum((order["filled"] for order in self.model.values()), ZERO)
        assert total == expected, f"fills of {total}, the model has {expected}"

    def at_the_end(self) -> None:
        """Close the adapter."""
        self.wait(self.bench.clean_up())
