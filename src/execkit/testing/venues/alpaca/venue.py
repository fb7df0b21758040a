"""Alpaca on loopback: trading and market data over REST and WebSocket, as its own clients speak to them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from execkit.clock import Clock
from execkit.exchanges.base import MarketPhase
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Trade
from execkit.model.order import OrderRequest, OrderUpdate
from execkit.numbers import ONE, ZERO
from execkit.testing.venues.alpaca.answers import Answers
from execkit.testing.venues.alpaca.base import AlpacaBase
from execkit.testing.venues.alpaca.desk import Desk
from execkit.testing.venues.alpaca.hours import TradingHours
from execkit.testing.venues.alpaca.reading import Wanted
from execkit.testing.venues.alpaca.rows import bar_row, quote_row, trade_row
from execkit.testing.venues.alpaca.state import AlpacaState, Asset, Core
from execkit.testing.venues.calls import Handler
from execkit.testing.venues.control import WireControl
from execkit.testing.venues.sockets import Socket

KEY: Final = "PKWIRELEVELKEY000001"
SECRET: Final = "wireLevelSecret" + "s" * 25
"""Credentials of the account, as long as real ones."""

_STREAM: Final = "/stream"
_DATA_PATHS: Final = ("/v2/iex", "/v2/sip", "/v1beta3/crypto/us")
_CHANNELS: Final = {"quotes": "q", "trades": "t", "bars": "b", "updatedBars": "u"}


class AlpacaVenue(AlpacaBase):
    """One account at Alpaca, on loopback, to be used with `async with`.

    Args:
        cash: USD in the account.
        assets: What is traded; by default AAPL, MSFT, BTC/USD and whatever has a price.
        prices: What they cost.
        hours: The stock market's days; by default every weekday.
        clock: The venue's wall clock; by default the machine's, so that stocks are closed at night.
        key: The one key that is taken.
        secret: Its secret.
        port: Where to listen; 0 takes any free port.
        rng: Makes ids.
    """

    def __init__(
        self,
        *,
        cash: Decimal = Decimal(100_000),
        assets: Iterable[Asset] | None = None,
        prices: Mapping[str, Decimal] | None = None,
        hours: TradingHours | None = None,
        clock: Clock | None = None,
        key: str = KEY,
        secret: str = SECRET,
        port: int = 0,
        rng: random.Random | None = None,
    ) -> None:
        prices = _PRICES if prices is None else prices
        listed = _listed(prices) if assets is None else tuple(assets)
        core = Core({"USD": cash}, instruments=map(_rules, listed), allow_short=True)
        super().__init__(
            AlpacaState(core, {each.symbol: each for each in listed}),
            hours=hours or TradingHours(),
            clock=clock,
            key=key,
            secret=secret,
            port=port,
            rng=rng or random.Random(7),
        )
        self.desk = Desk(self)
        self._answers = Answers(self, self.desk)
        for symbol, price in prices.items():
            if symbol in self.state.assets:
                tick = _tick(price)
                core.on_quote(Quote(symbol, price, price + tick, self.clock.now(), last=price))

    def let_time_pass(self) -> datetime:
        """Let orders end whose time is over, and queued ones begin when the market opens."""
        at = super().let_time_pass()
        waiting = {o.request.symbol for o in self.state.live.values() if o.is_queued}
        for symbol in sorted(waiting):
            if self.phase(symbol) is MarketPhase.REGULAR and symbol not in self.core.halted:
                self.desk.match(symbol)
        return at

    def control(self, _adapter: object = None) -> WireControl:
        """Return what a conformance test can make this venue do."""
        return WireControl(self)

    # --- what tests do ------------------------------------------------------------------------------

    async def move_price(self, symbol: str, price: Decimal) -> None:
        """Trade the market at *price*, and quote it with a spread of one step."""
        now = self.clock.now()
        await self.quote(Quote(symbol, price, price + _tick(price), now, last=price))

    async def quote(self, quote: Quote) -> None:
        """Match the orders with a quote, as far as the hours allow, and publish it."""
        self.let_time_pass()
        self.desk.on_quote(quote.checked())
        self.show_quote(self.core.quote(quote.symbol, quote.at))
        self.note_change()

    def place_foreign(self, request: OrderRequest) -> None:
        """Place an order of somebody else in the same account, past the protocol."""
        self.desk.enter(Wanted(request, "simple", None, None, None, None))

    def set_day_trades(self, count: int) -> None:
        """Let the account have made so many day trades in five days."""
        self.state.day_trades = [date(2000, 1, 1)] * count

    # --- requests -----------------------------------------------------------------------------------

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield the requests of the trading and the data hosts."""
        return self._answers.routes()

    def sockets_at(self) -> Iterable[str]:
        """Yield the streams' paths."""
        return (_STREAM, *_DATA_PATHS)

    # --- streams ------------------------------------------------------------------------------------

    def publish(self, updates: Iterable[OrderUpdate]) -> None:
        """Turn what happened to orders into events."""
        self.desk.publish(updates)

    async def on_open(self, socket: Socket) -> None:
        """Greet the clients of the data streams; the trading stream waits to be spoken to."""
        if socket.path != _STREAM:
            socket.push([{"T": "success", "msg": "connected"}])

    async def on_message(self, socket: Socket, message: Any) -> None:
        """Authenticate, and take subscriptions."""
        said = json.loads(message)
        if socket.path == _STREAM:
            self._trading_message(socket, said)
        else:
            self._data_message(socket, said)

    def _trading_message(self, socket: Socket, said: dict[str, Any]) -> None:
        action, data = said.get("action"), said.get("data") or {}
        if action in ("authenticate", "auth"):
            pair = (data.get("key_id", said.get("key")), data.get("secret_key", said.get("secret")))
            is_right = pair == (self.key, self.secret)
            status = "authorized" if is_right else "unauthorized"
            socket.session["authorized"] = is_right
            answer = {"status": status, "action": "authenticate"}
            socket.push({"stream": "authorization", "data": answer})
        elif action == "listen" and socket.session.get("authorized"):
            socket.is_private = "trade_updates" in data.get("streams", [])
            socket.push({"stream": "listening", "data": {"streams": data.get("streams", [])}})

    def _data_message(self, socket: Socket, said: dict[str, Any]) -> None:
        if said.get("action") == "auth":
            if (said.get("key"), said.get("secret")) != (self.key, self.secret):
                socket.push([{"T": "error", "code": 402, "msg": "auth failed"}])
                return
            socket.session["authorized"] = True
            socket.push([{"T": "success", "msg": "authenticated"}])
        elif said.get("action") == "subscribe" and socket.session.get("authorized"):
            for channel, kind in _CHANNELS.items():
                socket.topics.update(f"{kind}:{symbol}" for symbol in said.get(channel, []))
            listed = {
                channel: sorted(t[2:] for t in socket.topics if t[0] == kind)
                for channel, kind in _CHANNELS.items()
            }
            socket.push([{"T": "subscription", **listed}])
            for symbol in said.get("quotes", []):
                if symbol in self.core.books:  # the market never rests: the next quote is not far
                    self._show("q", symbol, quote_row(self.core.quote(symbol, self.clock.now())))

    def _show(self, kind: str, symbol: str, row: dict[str, Any]) -> None:
        for socket in self.sockets:
            if f"{kind}:{symbol}" in socket.topics:
                socket.push([{"T": kind, "S": symbol, **row}])

    def show_quote(self, quote: Quote) -> None:
        """Tell the data streams of a quote, and of the trade at its last price."""
        self._show("q", quote.symbol, quote_row(quote))
        if quote.last is not None:
            self._show("t", quote.symbol, trade_row(quote.last, ONE, quote.at))

    def show_trade(self, trade: Trade) -> None:
        """Tell the data streams of a trade."""
        self._show("t", trade.symbol, trade_row(trade.price, trade.quantity, trade.at))

    def show_bar(self, bar: BarData, *, late: bool = False) -> None:
        """Tell the data streams of a bar of one minute; *late*: of one that late trades have changed."""
        self._show("u" if late else "b", bar.symbol, bar_row(bar))


_PRICES: Final = {
    "AAPL": Decimal(150),
    "MSFT": Decimal(300),
    "BTC/USD": Decimal(60_000),
}


def _listed(prices: Mapping[str, Decimal]) -> tuple[Asset, ...]:
    symbols = dict.fromkeys([*_PRICES, *prices])
    return tuple(Asset.coin(each) if "/" in each else Asset.stock(each) for each in symbols)


def _tick(price: Decimal) -> Decimal:
    return Decimal("0.01") if price >= ONE else Decimal("0.0001")


def _rules(asset: Asset) -> Instrument:
    """Return the rules for the core, which are wide: the venue checks its own before."""
    base, _, quote = asset.symbol.partition("/")
    return Instrument(
        symbol=asset.symbol,
        base=base,
        quote=quote or "USD",
        tick_size=asset.price_increment or Decimal("0.0001"),
        lot_size=Decimal("1e-9"),
        maker_fee=Decimal("0.0015") if asset.is_crypto else ZERO,
        taker_fee=Decimal("0.0025") if asset.is_crypto else ZERO,
        fee_in_base=asset.is_crypto,
    )
