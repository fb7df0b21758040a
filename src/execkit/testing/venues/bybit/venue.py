"""The wire-level Bybit: one unified account's spot market behind a port on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from execkit.clock import Clock
from execkit.exchanges.matching import MatchingCore
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Timeframe, Trade
from execkit.model.order import OrderRequest, OrderUpdate
from execkit.numbers import ZERO, plain
from execkit.testing.venues.bybit.base import KEY, SECRET, BybitBase, ms, refuse
from execkit.testing.venues.bybit.orders import BybitOrders
from execkit.testing.venues.calls import Call, Handler
from execkit.testing.venues.control import WireControl
from execkit.testing.venues.klines import Kline, Klines
from execkit.testing.venues.ledger import VenueState
from execkit.testing.venues.sockets import Socket

_INTERVALS: Final = {
    "1": Timeframe.M1,
    "5": Timeframe.M5,
    "15": Timeframe.M15,
    "30": Timeframe.M30,
    "60": Timeframe.H1,
    "240": Timeframe.H4,
    "D": Timeframe.D1,
    "W": Timeframe.W1,
}
_WORDS: Final = {timeframe: word for word, timeframe in _INTERVALS.items()}
_FEE: Final = Decimal("0.001")


class BybitVenue(BybitBase):
    """A Bybit for tests: `async with BybitVenue() as venue`, then point a client at `rest_url` and `stream_url`.

    Args:
        prices: First prices by symbol; by default BTC/USDT at 42,000.
        balances: What the account owns; by default 100,000 USDT.
        instruments: Rules of symbols that are to differ from what Bybit has for bitcoin.
        key: API key that is let in.
        secret: Its secret, which signs.
        clock: The venue's wall clock.
        port: Where to listen; 0 takes any free port.
    """

    def __init__(
        self,
        *,
        prices: Mapping[str, Decimal] | None = None,
        balances: Mapping[str, Decimal] | None = None,
        instruments: Iterable[Instrument] = (),
        key: str = KEY,
        secret: str = SECRET,
        clock: Clock | None = None,
        port: int = 0,
    ) -> None:
        prices = prices or {"BTC/USDT": Decimal(42_000)}
        known = {each.symbol: each for each in instruments}
        core = MatchingCore(
            {"USDT": Decimal(100_000)} if balances is None else balances,
            instruments=[known.get(each) or _instrument(each) for each in prices],
            ids_unique_for_ever=False,
        )
        super().__init__(VenueState(core), key=key, secret=secret, clock=clock, port=port)
        self.orders = BybitOrders(self)
        self.klines = Klines()
        for symbol, price in prices.items():
            now, tick = self.clock.now(), core.instrument(symbol).tick_size
            core.on_quote(Quote(symbol, price, price + tick, now, last=price))
            self.klines.trade(symbol, price, ZERO, now)

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield all requests of the venue."""
        yield from self.orders.routes()
        yield "GET", "/v5/market/time", "time", self._time
        yield "GET", "/v5/market/instruments-info", "rules", self._rules
        yield "GET", "/v5/market/tickers", "ticker", self._tickers
        yield "GET", "/v5/market/kline", "bars", self._bars
        yield "GET", "/v5/user/query-api", "permissions", self._key
        yield "GET", "/v5/account/info", "permissions", self._account
        yield "GET", "/v5/account/wallet-balance", "balances", self._balances
        yield "GET", "/v5/asset/coin/query-info", "coins", lambda _: self.wrap({"rows": []})

    def sockets_at(self) -> Iterable[str]:
        """Yield the paths of the streams."""
        return ("/v5/private", "/v5/public/spot")

    def control(self, _adapter: object = None) -> WireControl:
        """Return what a conformance test can make this venue do."""
        return WireControl(self)

    # --- REST -------------------------------------------------------------------------------------

    def _time(self, call: Call) -> Any:
        now = ms(self.clock.now())
        return self.wrap({"timeSecond": now[:-3], "timeNano": now + "000000"})

    def _rules(self, call: Call) -> Any:
        category, wanted = call.params.get("category"), call.params.get("symbol")
        listed = self.core.instruments.values() if category == "spot" else ()
        rows = [
            {
                "symbol": each.venue_symbol,
                "baseCoin": each.base,
                "quoteCoin": each.quote,
                "innovation": "0",
                "status": "Closed" if each.symbol in self.core.halted else "Trading",
                "marginTrading": "none",
                "lotSizeFilter": {
                    "basePrecision": plain(each.lot_size),
                    "quotePrecision": "0.00000001",
                    "minOrderQty": plain(each.min_quantity),
                    "maxOrderQty": plain(each.max_quantity or Decimal(10**6)),
                    "minOrderAmt": plain(each.min_notional),
                    "maxOrderAmt": plain(each.max_notional or Decimal(10**7)),
                },
                "priceFilter": {"tickSize": plain(each.tick_size)},
            }
            for each in listed
            if wanted in (None, each.venue_symbol)
        ]
        return self.wrap({"category": category, "list": rows, "nextPageCursor": ""})

    def _tickers(self, call: Call) -> Any:
        wanted = call.params.get("symbol")
        rows = [
            self._ticker(self.core.quote(each.symbol, self.clock.now()))
            for each in self.core.instruments.values()
            if wanted in (None, each.venue_symbol) and each.symbol in self.core.books
        ]
        return self.wrap({"category": "spot", "list": rows})

    def _ticker(self, quote: Quote) -> dict[str, Any]:
        last = plain(quote.last or quote.bid)
        return {
            "symbol": self.core.instrument(quote.symbol).venue_symbol,
            "bid1Price": plain(quote.bid),
            "bid1Size": "10",
            "ask1Price": plain(quote.ask),
            "ask1Size": "10",
            "lastPrice": last,
            "prevPrice24h": last,
            "price24hPcnt": "0",
            "highPrice24h": last,
            "lowPrice24h": last,
            "turnover24h": "0",
            "volume24h": "0",
            "usdIndexPrice": last,
        }

    def _bars(self, call: Call) -> Any:
        timeframe, name = _INTERVALS.get(call.params.get("interval", "")), call.params.get("symbol")
        symbol = next((s for s, i in self.core.instruments.items() if i.venue_symbol == name), None)
        if timeframe is None or symbol is None:
            refuse(10001 if timeframe is None else 170121)
        since = int(call.params.get("start", "0"))
        for kline in self.klines.close_due(self.clock.now()):
            self._show_kline(kline)
        klines = [
            kline
            for kline in self.klines.show(symbol, timeframe, limit=10_000)
            if int(ms(kline.bar.open_time)) >= since
        ][: int(call.params.get("limit", "200"))]
        rows = [
            [
                ms(bar.open_time),
                *map(plain, (bar.open, bar.high, bar.low, bar.close, bar.volume)),
                "0",
            ]
            for bar, _ in reversed(klines)
        ]
        return self.wrap({"category": "spot", "symbol": name, "list": rows})

    def _key(self, call: Call) -> Any:
        rights = {"Spot": ["SpotTrade"], "Wallet": [], "ContractTrade": []}
        return self.wrap(
            {"apiKey": self.key, "readOnly": 0, "permissions": rights, "uta": 1, "unified": 0}
        )

    def _account(self, call: Call) -> Any:
        return self.wrap(
            {"unifiedMarginStatus": 6, "marginMode": "REGULAR_MARGIN", "spotHedgingStatus": "OFF"}
        )

    def _balances(self, call: Call) -> Any:
        coins = [
            {
                "coin": asset,
                "walletBalance": plain(each.total),
                "equity": plain(each.total),
                "locked": plain(each.locked),
                "totalPositionIM": "0",
                "totalOrderIM": "0",
            }
            for asset, each in self.core.balances().items()
        ]
        return self.wrap({"list": [{"accountType": "UNIFIED", "coin": coins}]})

    # --- the market -------------------------------------------------------------------------------

    def show_quote(self, quote: Quote) -> None:
        """Publish a quote, and its last price as a trade."""
        self._push(f"orderbook.1.{self._name(quote.symbol)}", self._book(quote), "snapshot")
        self._push(f"tickers.{self._name(quote.symbol)}", self._ticker(quote), "snapshot")
        if quote.last is not None:
            lot = self.core.instrument(quote.symbol).lot_size
            self._show_trade(Trade(quote.symbol, quote.last, lot, quote.at))

    async def trade(self, trade: Trade) -> None:
        """Match the orders with a public trade, and publish it."""
        self.do(lambda: self.core.on_trade(trade.checked()))
        self._show_trade(trade)

    async def bar(self, bar: BarData, *, is_closed: bool = True) -> None:
        """Publish a kline; a closed one is part of the history from now on."""
        if is_closed:
            self.klines.load([bar.checked()])
        self._show_kline(Kline(bar, is_closed))

    def _show_trade(self, trade: Trade) -> None:
        name = self._name(trade.symbol)
        row = {
            "i": ms(trade.at),
            "T": int(ms(trade.at)),
            "p": plain(trade.price),
            "v": plain(trade.quantity),
            "S": "Buy",
            "s": name,
        }
        self._push(f"publicTrade.{name}", [row], "snapshot")
        for kline in self.klines.trade(trade.symbol, trade.price, trade.quantity, trade.at):
            self._show_kline(kline)

    def _show_kline(self, kline: Kline) -> None:
        bar, word = kline.bar, _WORDS[kline.bar.timeframe]
        row = {
            "start": int(ms(bar.open_time)),
            "end": int(ms(bar.close_time)) - 1,
            "interval": word,
            **{
                name: plain(getattr(bar, name))
                for name in ("open", "close", "high", "low", "volume")
            },
            "turnover": "0",
            "confirm": kline.is_closed,
            "timestamp": int(ms(self.clock.now())),
        }
        self._push(f"kline.{word}.{self._name(bar.symbol)}", [row], "snapshot")

    def _book(self, quote: Quote) -> dict[str, Any]:
        rows = {"b": [[plain(quote.bid), "10"]], "a": [[plain(quote.ask), "10"]]}
        return {"s": self._name(quote.symbol), **rows, "u": 1, "seq": 1}

    def _name(self, symbol: str) -> str:
        return self.core.instrument(symbol).venue_symbol

    def _push(self, topic: str, data: Any, kind: str) -> None:
        now = int(ms(self.clock.now()))
        for socket in self.sockets:
            if topic in socket.topics and not socket.is_private:
                socket.push({"topic": topic, "type": kind, "ts": now, "data": data, "cts": now})

    # --- the account's stream ---------------------------------------------------------------------

    def publish(self, updates: Iterable[OrderUpdate]) -> None:
        """Turn what happened to orders into events."""
        self.orders.publish(updates)
        self.note_change()

    def place_foreign(self, request: OrderRequest) -> None:
        """Place an order of somebody else in the same account."""
        self.publish(self.core.place(request, self.clock.now()))

    def deliver(self, event: Any) -> None:
        """Send an event of the account to those that subscribed to its topic."""
        for socket in self.listeners():
            if event["topic"] in socket.topics:
                socket.push(event)

    async def on_message(self, socket: Socket, message: Any) -> None:
        """Authenticate, subscribe, or answer a ping."""
        request = json.loads(message)
        op, args = request.get("op"), request.get("args") or []
        answer = {"success": True, "ret_msg": "", "conn_id": "wire", "op": op}
        answer |= {"req_id": request["req_id"]} if "req_id" in request else {}
        match op:
            case "ping":
                answer["ret_msg"] = "pong"
            case "auth":
                is_right = args[0] == self.key and self.is_signed(f"GET/realtime{args[1]}", args[2])
                socket.is_private = is_right
                if not is_right:
                    answer |= {"success": False, "ret_msg": "Params Error", "retCode": 10004}
            case "subscribe":
                socket.topics.update(args)
            case "unsubscribe":
                socket.topics.difference_update(args)
        socket.push(answer)
        for topic in args if op == "subscribe" else ():
            self._greet(socket, topic)

    def _greet(self, socket: Socket, topic: str) -> None:
        """Show a new subscriber of a book or a ticker the present touch."""
        kind, _, rest = topic.partition(".")
        name = rest.rpartition(".")[2]
        for symbol, each in self.core.instruments.items():
            if each.venue_symbol == name and kind in ("orderbook", "tickers"):
                quote, now = self.core.quote(symbol, self.clock.now()), int(ms(self.clock.now()))
                data = self._book(quote) if kind == "orderbook" else self._ticker(quote)
                socket.push(
                    {"topic": topic, "type": "snapshot", "ts": now, "data": data, "cts": now}
                )


def _instrument(symbol: str) -> Instrument:
    base, _, quote = symbol.partition("/")
    return Instrument.default(
        symbol,
        lot_size=Decimal("0.000001"),
        min_quantity=Decimal("0.000001"),
        max_quantity=Decimal(500),
        min_notional=Decimal(5),
        maker_fee=_FEE,
        taker_fee=_FEE,
        fee_in_base=True,
        venue_symbol=base + quote,
    )
