"""An adapter of your own, with every method that a venue must have, and an engine that trades on it."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import execkit as xk

PRICE, RESTS, DONE = Decimal(100), xk.OrderState.ACCEPTED, xk.OrderState.FILLED


class OnePriceVenue(xk.ExchangeAdapter):
    capabilities, orders, fills = xk.Capabilities(order_stream=False), {}, []

    async def place_order(self, request):
        same = {n: getattr(request, n) for n in ("client_order_id", "symbol", "side", "quantity")}
        same["venue_order_id"] = number = str(len(self.orders))
        if request.type is xk.OrderType.MARKET:
            self.fills.append(xk.Fill(trade_id=number, price=PRICE, at=datetime.now(UTC), **same))
            same |= {"status": DONE, "filled": request.quantity}
        self.orders[request.client_order_id] = {"type": request.type, "status": RESTS} | same
        return xk.OrderReport(**self.orders[request.client_order_id])

    async def get_order(self, symbol, *, client_order_id, venue_order_id=None):
        if client_order_id not in self.orders:
            raise xk.OrderNotFoundError(client_order_id)
        return xk.OrderReport(**self.orders[client_order_id])

    async def cancel_order(self, symbol, *, client_order_id, venue_order_id=None):
        self.orders[client_order_id]["status"] = xk.OrderState.CANCELLED
        return xk.OrderReport(**self.orders[client_order_id])

    async def open_orders(self, symbol=None):
        return [xk.OrderReport(**o) for o in self.orders.values() if o["status"] is RESTS]

    async def fills_since(self, since, symbol=None):
        return [fill for fill in self.fills if fill.at >= since]

    async def positions(self):
        held = Decimal(0) + sum(f.quantity * f.side.sign for f in self.fills)
        return [xk.VenuePosition("TOY", held)]

    async def balances(self):
        cash = Decimal(5_000) - sum(f.notional * f.side.sign for f in self.fills)
        return {"USD": xk.Balance("USD", cash, cash)}

    async def instrument(self, symbol):
        return xk.Instrument.default(symbol)

    async def ticker(self, symbol):
        return xk.Quote(symbol, PRICE, PRICE, datetime.now(UTC))


async def main():
    async with xk.ExecutionEngine(OnePriceVenue(), journal=None) as engine:
        print(await engine.submit(xk.TradingSignal(symbol="TOY", side=xk.Side.BUY)))


asyncio.run(main())
