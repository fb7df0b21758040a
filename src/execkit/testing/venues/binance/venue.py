"""The wire-level Binance: one account of a spot or a USD-M venue behind a port on loopback."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, Literal

from execkit.clock import Clock
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Trade
from execkit.model.order import OrderRequest, OrderUpdate
from execkit.numbers import ZERO
from execkit.testing.venues.binance.base import KEY, SECRET, BinanceBase
from execkit.testing.venues.binance.core import BinanceCore
from execkit.testing.venues.binance.limits import Rules
from execkit.testing.venues.binance.market_data import MarketData
from execkit.testing.venues.binance.spot import SpotOrders
from execkit.testing.venues.binance.spot_account import SpotAccount
from execkit.testing.venues.binance.spot_lists import SpotLists
from execkit.testing.venues.binance.symbols import spot_instrument, spot_symbols
from execkit.testing.venues.binance.words import BinanceState
from execkit.testing.venues.calls import Handler
from execkit.testing.venues.control import WireControl
from execkit.testing.venues.klines import Kline
from execkit.testing.venues.sockets import Socket

_RIGHTS: Final = {
    "enableReading": True,
    "enableSpotAndMarginTrading": True,
    "enableFutures": True,
    "enableWithdrawals": False,
    "enableInternalTransfer": False,
    "enableMargin": False,
    "permitsUniversalTransfer": False,
    "enableVanillaOptions": False,
    "enablePortfolioMarginTrading": False,
    "enableFixApiTrade": False,
    "enableFixReadOnly": False,
}


class BinanceVenue(BinanceBase):
    """A Binance for tests: `async with BinanceVenue() as venue`, then point a client at `rest_url` and `stream_url`.

    Args:
        market: `spot`, or `usdm` for perpetual futures margined in the quote asset.
        prices: First prices by symbol (BTC/USDT, or BTC/USDT:USDT); by default bitcoin at 42,000.
        balances: What the account owns; by default 100,000 USDT.
        instruments: Rules of symbols that are to differ from what Binance has for bitcoin.
        key: API key that is let in.
        secret: Its secret, which signs.
        permissions: Rights of the key that differ from: read and trade, no withdrawals.
        rules: Filters and limits of pace.
        bnb_price: Price of a BNB in quote; fees are paid in BNB then, while there is some.
        clock: The venue's wall clock.
        port: Where to listen; 0 takes any free port.
        seed: Of the client order ids that the venue makes up.
    """

    def __init__(
        self,
        *,
        market: Literal["spot", "usdm"] = "spot",
        prices: Mapping[str, Decimal] | None = None,
        balances: Mapping[str, Decimal] | None = None,
        instruments: Iterable[Instrument] = (),
        key: str = KEY,
        secret: str = SECRET,
        permissions: Mapping[str, Any] | None = None,
        rules: Rules | None = None,
        bnb_price: Decimal | None = None,
        clock: Clock | None = None,
        port: int = 0,
        seed: int = 0,
    ) -> None:
        prices = prices or {"BTC/USDT": Decimal(42_000)}
        rules = rules or Rules()
        known = {each.symbol: each for each in instruments}
        core = BinanceCore(
            {"USDT": Decimal(100_000)} if balances is None else balances,
            instruments=[known.get(each) or spot_instrument(each) for each in prices],
            ids_unique_for_ever=False,
            bnb_price=bnb_price,
        )
        super().__init__(
            BinanceState(core),
            key=key,
            secret=secret,
            rules=rules,
            permissions=_RIGHTS | dict(permissions or {}),
            clock=clock,
            port=port,
            rng=random.Random(seed),
        )
        self.market = market
        self.data = MarketData(self, "/api/v3", lambda: spot_symbols(core, rules))
        """Klines and public streams."""
        self.account = SpotAccount(self)
        self.orders = SpotOrders(self)
        self.lists = SpotLists(self, self.orders)
        for symbol, price in prices.items():
            now = self.clock.now()
            tick = core.instrument(symbol).tick_size
            core.on_quote(Quote(symbol, price, price + tick, now, last=price))
            self.data.klines.trade(symbol, price, ZERO, now)

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield all requests of the venue."""
        yield from self.data.routes()
        yield from self.account.routes()
        yield from self.orders.routes()
        yield from self.lists.routes()

    def sockets_at(self) -> Iterable[str]:
        """Yield the paths of streams and of the WebSocket API."""
        yield from ("/ws-api/v3", "/ws", "/stream")
        yield from ("/ws/{topic}", "/stream/ws", "/stream/ws/{topic}")

    def control(self, _adapter: object = None) -> WireControl:
        """Return what a conformance test can make this venue do."""
        return WireControl(self)

    # --- the market -------------------------------------------------------------------------------

    def show_quote(self, quote: Quote) -> None:
        """Publish a quote on the market streams."""
        self.data.show_quote(quote)

    async def trade(self, trade: Trade) -> None:
        """Match the orders with a public trade, and publish it."""
        self.do(lambda: self.core.on_trade(trade.checked()))
        self.data.show_trade(trade)

    async def bar(self, bar: BarData, *, is_closed: bool = True) -> None:
        """Publish a kline; a closed one is part of the history from now on."""
        if is_closed:
            self.data.klines.load([bar.checked()])
        self.data.show_kline(Kline(bar, is_closed))

    def publish(self, updates: Iterable[OrderUpdate]) -> None:
        """Turn what happened to orders and to lists into events."""
        super().publish(updates)
        self.lists.note_ends()

    def place_foreign(self, request: OrderRequest) -> None:
        """Place an order of somebody else in the same account."""
        self.tell(self.core.place(request, self.clock.now()))

    # --- sockets ----------------------------------------------------------------------------------

    async def on_open(self, socket: Socket) -> None:
        """Subscribe to the topics that the address names."""
        socket.topics.update(filter(None, socket.query.get("streams", "").split("/")))
        last = socket.path.rpartition("/")[2]
        if "@" in last:
            socket.topics.add(last)

    async def on_message(self, socket: Socket, message: Any) -> None:
        """Hand a message to the WebSocket API or to the market streams."""
        if socket.path.startswith("/ws-api"):
            self.account.on_message(socket, message)
        else:
            self.data.on_message(socket, message)

    def deliver(self, event: Any) -> None:
        """Wrap an event of the account as the WebSocket API does."""
        super().deliver({"subscriptionId": 0, "event": event})

    def terminate(self) -> None:
        """End the subscriptions to the account's events."""
        event = {"e": "eventStreamTerminated", "E": int(self.clock.now().timestamp() * 1000)}
        for socket in self.listeners():
            socket.push({"subscriptionId": 0, "event": event})
            socket.is_private = False
