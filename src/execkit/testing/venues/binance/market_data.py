"""Binance's market data: rules, tickers, klines, and the public streams, for spot and futures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Timeframe, Trade
from execkit.numbers import ONE, ZERO
from execkit.testing.venues.binance.base import BinanceBase
from execkit.testing.venues.binance.errors import refuse
from execkit.testing.venues.binance.params import Params
from execkit.testing.venues.binance.words import eight, from_ms, ms, short
from execkit.testing.venues.calls import Call, Handler
from execkit.testing.venues.klines import Kline, Klines
from execkit.testing.venues.sockets import Socket

_TIMEFRAMES: Final = {each.value: each for each in Timeframe}
_MILLISECOND: Final = timedelta(milliseconds=1)


class MarketData:
    """The part of the venue that needs no key. *prefix* is `/api/v3` or `/fapi/v1`."""

    def __init__(
        self, venue: BinanceBase, prefix: str, symbols: Callable[[], list[dict[str, Any]]]
    ) -> None:
        self.venue = venue
        self.klines = Klines()
        self._prefix = prefix
        self._symbols = symbols
        self._number = eight if prefix.startswith("/api") else short
        self._trades = 0

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield the requests about the market."""
        for path, operation, handler in (
            ("ping", "ping", lambda _: {}),
            ("time", "time", lambda _: {"serverTime": ms(self.venue.clock.now())}),
            ("exchangeInfo", "rules", self.rules),
            ("klines", "bars", self.history),
            ("ticker/24hr", "ticker", lambda call: self._tickers(call, self._day)),
            ("ticker/bookTicker", "ticker", lambda call: self._tickers(call, self._touch)),
            ("ticker/price", "ticker", lambda call: self._tickers(call, self._price)),
            ("depth", "depth", self.depth),
        ):
            yield "GET", f"{self._prefix}/{path}", operation, handler

    # --- REST -------------------------------------------------------------------------------------

    def rules(self, call: Call) -> Any:
        """Return the limits of pace and the rules of the symbols."""
        params = Params(call.params, self.venue.core)
        wanted = params.maybe("symbol")
        if wanted is not None:
            params.listed(wanted)
        return {
            "timezone": "UTC",
            "serverTime": ms(self.venue.clock.now()),
            "rateLimits": self.venue.limits.shown(),
            "exchangeFilters": [],
            "symbols": [row for row in self._symbols() if wanted in (None, row["symbol"])],
        }

    def history(self, call: Call) -> Any:
        """Return klines by their opening time."""
        params = Params(call.params, self.venue.core)
        symbol = params.instrument().symbol
        interval = params.text("interval")
        if interval not in _TIMEFRAMES:
            refuse(-1120, "Invalid interval.")
        since, until = params.integer("startTime"), params.integer("endTime")
        limit = params.integer("limit") or 500
        self.close_due()
        klines = self.klines.show(
            symbol,
            _TIMEFRAMES[interval],
            since=None if since is None else from_ms(since),
            until=None if until is None else from_ms(until),
            limit=min(limit, 1000),
        )
        return [self._row(kline.bar) for kline in klines]

    def _row(self, bar: BarData) -> list[Any]:
        number = self._number
        return [
            ms(bar.open_time),
            number(bar.open),
            number(bar.high),
            number(bar.low),
            number(bar.close),
            number(bar.volume),
            ms(bar.close_time) - 1,
            number(bar.volume * bar.close),
            1,
            number(ZERO),
            number(ZERO),
            "0",
        ]

    def _tickers(self, call: Call, show: Callable[[Instrument, Quote], dict[str, Any]]) -> Any:
        """Show one symbol, a list of symbols, or all that have a price."""
        params, core = Params(call.params, self.venue.core), self.venue.core
        now = self.venue.clock.now()
        if "symbol" in params:
            instrument = params.instrument()
            return show(instrument, core.quote(instrument.symbol, now))
        listed = list(core.instruments.values())
        if "symbols" in params:
            listed = [params.listed(name) for name in json.loads(params.text("symbols"))]
        return [
            show(each, core.quote(each.symbol, now)) for each in listed if each.symbol in core.books
        ]

    def _touch(self, instrument: Instrument, quote: Quote) -> dict[str, Any]:
        number = self._number
        return {
            "symbol": instrument.venue_symbol,
            "bidPrice": number(quote.bid),
            "bidQty": number(_size(quote.bid_size)),
            "askPrice": number(quote.ask),
            "askQty": number(_size(quote.ask_size)),
        } | ({} if self._number is eight else {"time": ms(quote.at), "lastUpdateId": self._trades})

    def _price(self, instrument: Instrument, quote: Quote) -> dict[str, Any]:
        return {"symbol": instrument.venue_symbol, "price": self._number(quote.last or quote.bid)}

    def _day(self, instrument: Instrument, quote: Quote) -> dict[str, Any]:
        number, last = self._number, quote.last or quote.bid
        days = self.klines.show(instrument.symbol, Timeframe.D1, limit=1)
        day = days[0].bar if days else None
        opened = last if day is None else day.open
        volume = ZERO if day is None else day.volume
        return {
            **self._touch(instrument, quote),
            "priceChange": number(last - opened),
            "priceChangePercent": f"{(last - opened) / opened * 100:.3f}",
            "weightedAvgPrice": number(last),
            "prevClosePrice": number(opened),
            "lastPrice": number(last),
            "lastQty": number(ONE),
            "openPrice": number(opened),
            "highPrice": number(last if day is None else day.high),
            "lowPrice": number(last if day is None else day.low),
            "volume": number(volume),
            "quoteVolume": number(volume * last),
            "openTime": ms(quote.at) - 86_400_000,
            "closeTime": ms(quote.at),
            "firstId": 0,
            "lastId": self._trades,
            "count": self._trades,
        }

    def depth(self, call: Call) -> Any:
        """Show the one level of the book that there is."""
        instrument = Params(call.params, self.venue.core).instrument()
        quote = self.venue.core.quote(instrument.symbol, self.venue.clock.now())
        return {
            "lastUpdateId": self._trades,
            "bids": [[self._number(quote.bid), self._number(_size(quote.bid_size))]],
            "asks": [[self._number(quote.ask), self._number(_size(quote.ask_size))]],
        }

    # --- streams ----------------------------------------------------------------------------------

    def on_message(self, socket: Socket, message: Any) -> None:
        """Subscribe or unsubscribe, as the client asks."""
        request = json.loads(message)
        topics = request.get("params") or []
        match request.get("method"):
            case "SUBSCRIBE":
                socket.topics.update(topics)
            case "UNSUBSCRIBE":
                socket.topics.difference_update(topics)
            case "LIST_SUBSCRIPTIONS":
                socket.push({"result": sorted(socket.topics), "id": request.get("id")})
                return
            case _:
                error = {"code": 2, "msg": "Invalid request: unknown variant"}
                socket.push({"error": error, "id": request.get("id")})
                return
        socket.push({"result": None, "id": request.get("id")})
        for topic in topics:
            self._greet(socket, topic)

    def _greet(self, socket: Socket, topic: str) -> None:
        """Show a new subscriber the present touch, as a lively market would within an instant."""
        name, _, kind = topic.partition("@")
        for instrument in self.venue.core.instruments.values():
            is_named = instrument.venue_symbol.lower() == name
            if is_named and kind == "bookTicker" and instrument.symbol in self.venue.core.books:
                quote = self.venue.core.quote(instrument.symbol, self.venue.clock.now())
                self._send(socket, topic, self._book_event(instrument, quote))

    def show_quote(self, quote: Quote) -> None:
        """Publish a quote, and its last price as a trade of no consequence to the klines' volume."""
        instrument = self.venue.core.instrument(quote.symbol)
        self._publish(instrument, "bookTicker", self._book_event(instrument, quote))
        if quote.last is not None:
            self.show_trade(Trade(quote.symbol, quote.last, instrument.lot_size, quote.at))

    def _book_event(self, instrument: Instrument, quote: Quote) -> dict[str, Any]:
        event: dict[str, Any] = {
            "u": self._trades,
            "s": instrument.venue_symbol,
            "b": self._number(quote.bid),
            "B": self._number(_size(quote.bid_size)),
            "a": self._number(quote.ask),
            "A": self._number(_size(quote.ask_size)),
        }
        if self._number is short:
            event |= {"e": "bookTicker", "E": ms(quote.at), "T": ms(quote.at)}
        return event

    def show_trade(self, trade: Trade) -> None:
        """Publish a public trade and the klines that it changes."""
        instrument = self.venue.core.instrument(trade.symbol)
        self._trades += 1
        common = {
            "E": ms(trade.at),
            "s": instrument.venue_symbol,
            "p": self._number(trade.price),
            "q": self._number(trade.quantity),
            "T": ms(trade.at),
            "m": False,
        }
        self._publish(instrument, "trade", {"e": "trade", "t": self._trades, **common, "M": True})
        ids = {"a": self._trades, "f": self._trades, "l": self._trades}
        self._publish(instrument, "aggTrade", {"e": "aggTrade", **ids, **common, "M": True})
        for kline in self.klines.trade(trade.symbol, trade.price, trade.quantity, trade.at):
            self.show_kline(kline)

    def show_kline(self, kline: Kline) -> None:
        """Publish a kline, closed or forming."""
        bar = kline.bar
        instrument = self.venue.core.instrument(bar.symbol)
        event = {
            "e": "kline",
            "E": ms(self.venue.clock.now()),
            "s": instrument.venue_symbol,
            "k": {
                "t": ms(bar.open_time),
                "T": ms(bar.close_time) - 1,
                "s": instrument.venue_symbol,
                "i": bar.timeframe.value,
                "f": 0,
                "L": self._trades,
                "o": self._number(bar.open),
                "c": self._number(bar.close),
                "h": self._number(bar.high),
                "l": self._number(bar.low),
                "v": self._number(bar.volume),
                "n": 1,
                "x": kline.is_closed,
                "q": self._number(bar.volume * bar.close),
                "V": self._number(ZERO),
                "Q": self._number(ZERO),
                "B": "0",
            },
        }
        self._publish(instrument, f"kline_{bar.timeframe.value}", event)

    def close_due(self) -> None:
        """Publish the klines that the clock has ended."""
        for kline in self.klines.close_due(self.venue.clock.now()):
            self.show_kline(kline)

    def _publish(self, instrument: Instrument, kind: str, event: dict[str, Any]) -> None:
        topic = f"{instrument.venue_symbol.lower()}@{kind}"
        for socket in self.venue.sockets:
            if topic in socket.topics:
                self._send(socket, topic, event)

    @staticmethod
    def _send(socket: Socket, topic: str, event: dict[str, Any]) -> None:
        is_combined = socket.path.startswith("/stream") and not socket.path.startswith("/stream/ws")
        socket.push({"stream": topic, "data": event} if is_combined else event)


def _size(quantity: Decimal | None) -> Decimal:
    """Return a size of the book; an unlimited one is shown as a plain number."""
    return Decimal(10) if quantity is None else quantity
