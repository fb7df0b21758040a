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
from execkit.testing.venues.binance.sides import FuturesSide, SpotSide
from execkit.testing.venues.binance.symbols import (
    futures_instrument,
    futures_symbols,
    spot_instrument,
    spot_symbols,
)
from execkit.testing.venues.binance.words import BinanceState, futures_word, spot_word
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
        is_spot = market == "spot"
        prices = prices or {"BTC/USDT" if is_spot else "BTC/USDT:USDT": Decimal(42_000)}
        rules = rules or Rules()
        known = {each.symbol: each for each in instruments}
        make = spot_instrument if is_spot else futures_instrument
        core = BinanceCore(
            {"USDT": Decimal(100_000)} if balances is None else balances,
            instruments=[known.get(each) or make(each) for each in prices],
            ids_unique_for_ever=False,
            allow_short=not is_spot,
            bnb_price=bnb_price,
        )
        super().__init__(
            BinanceState(core, spot_word if is_spot else futures_word),
            key=key,
            secret=secret,
            rules=rules,
            permissions=_RIGHTS | dict(permissions or {}),
            clock=clock,
            port=port,
            rng=random.Random(seed),
            right_to_trade="enableSpotAndMarginTrading" if is_spot else "enableFutures",
        )
        self.market = market
        self.data: MarketData
        """Klines and public streams."""
        self.side: SpotSide | FuturesSide
        """What spot and futures do not share: orders, account, and the account's stream."""
        if is_spot:
            self.data = MarketData(self, "/api/v3", lambda: spot_symbols(core, rules))
            self.side = SpotSide(self)
        else:
            self.data = MarketData(self, "/fapi/v1", lambda: futures_symbols(core, rules))
            self.side = FuturesSide(self)
        for symbol, price in prices.items():
            now = self.clock.now()
            tick = core.instrument(symbol).tick_size
            core.on_quote(Quote(symbol, price, price + tick, now, last=price))
            self.data.klines.trade(symbol, price, ZERO, now)

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield all requests of the venue."""
        yield from self.data.routes()
        yield from self.side.routes()

    def sockets_at(self) -> Iterable[str]:
        """Yield the paths of streams and of the WebSocket API."""
        yield "/ws-api/v3"
        for path in ("/ws", "/stream", "/stream/ws", "/public/ws", "/market/ws", "/private/ws"):
            yield path
            yield f"{path}/{{topic}}"

    def control(self, _adapter: object = None) -> WireControl:
        """Return what a conformance test can make this venue do."""
        return WireControl(self)

    # --- the market -------------------------------------------------------------------------------

    def show_quote(self, quote: Quote) -> None:
        """Publish a quote on the market streams, and let it trigger what waits outside of the book."""
        self.data.show_quote(quote)
        self.side.on_price(quote.symbol)

    async def trade(self, trade: Trade) -> None:
        """Match the orders with a public trade, and publish it."""
        self.do(lambda: self.core.on_trade(trade.checked()))
        self.data.show_trade(trade)
        self.side.on_price(trade.symbol)

    async def bar(self, bar: BarData, *, is_closed: bool = True) -> None:
        """Publish a kline; a closed one is part of the history from now on."""
        if is_closed:
            self.data.klines.load([bar.checked()])
        self.data.show_kline(Kline(bar, is_closed))

    def publish(self, updates: Iterable[OrderUpdate]) -> None:
        """Turn what happened to orders, and to lists of them, into events."""
        super().publish(updates)
        self.side.note_ends()

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
        self.side.on_open(socket)

    async def on_message(self, socket: Socket, message: Any) -> None:
        """Hand a message to the WebSocket API or to the market streams."""
        if socket.path.startswith("/ws-api"):
            self.side.on_message(socket, message)
        else:
            self.data.on_message(socket, message)

    def deliver(self, event: Any) -> None:
        """Send an event of the account as the market's stream does."""
        for wrapped in self.side.wrap(event):
            super().deliver(wrapped)

    def terminate(self) -> None:
        """End the subscriptions to the account's events; the connections stay."""
        self.side.terminate()
