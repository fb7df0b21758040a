"""The account's stream on Binance USD-M futures: listen keys, and the events that go to who has one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from execkit.exchanges.accounts import Holding
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.order import Fill, OrderReport, OrderState, OrderUpdate, Side
from execkit.numbers import MONEY, ZERO
from execkit.testing.venues.binance.base import BinanceBase
from execkit.testing.venues.binance.errors import refuse
from execkit.testing.venues.binance.futures_account import CENTS, entry_of
from execkit.testing.venues.binance.words import Notes, ms, reported_status, short
from execkit.testing.venues.calls import Call, Handler
from execkit.testing.venues.sockets import Socket

_LASTS: Final = timedelta(minutes=60)
"""Life of a listen key after its last renewal."""


class FuturesStream:
    """ORDER_TRADE_UPDATE and ACCOUNT_UPDATE events; *wallet* tells the balance of an asset."""

    def __init__(self, venue: BinanceBase, wallet: Callable[[str], Decimal]) -> None:
        self.venue = venue
        self.listen_key = ""
        self.listen_until: datetime | None = None
        self._wallet = wallet
        self._fill: Fill | None = None
        self._told: dict[str, Holding] = {}
        """Positions as the stream has told of them."""
        venue.on_updates = self.publish

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield the requests about listen keys."""
        path = "/fapi/v1/listenKey"
        yield "POST", path, "listen", self.open_key
        yield "PUT", path, "listen", self.renew_key
        yield "DELETE", path, "listen", self.close_key

    # --- listen keys ------------------------------------------------------------------------------

    def open_key(self, call: Call) -> Any:
        """Give the key of the stream, a new one only where the last has expired."""
        if not self._key_is_valid():
            self.listen_key = "".join(self.venue.new_client_id() for _ in range(3))[:64]
        self.listen_until = self.venue.clock.now() + _LASTS
        return {"listenKey": self.listen_key}

    def renew_key(self, call: Call) -> Any:
        """Let the key live for another hour."""
        if not self._key_is_valid():
            refuse(-1125)
        return self.open_key(call)

    def close_key(self, call: Call) -> Any:
        """End the stream."""
        self.listen_until = None
        for socket in self.venue.listeners():
            socket.is_private = False
        return {}

    def _key_is_valid(self) -> bool:
        return self.listen_until is not None and self.venue.clock.now() < self.listen_until

    def on_open(self, socket: Socket) -> None:
        """Let a socket that names the key listen."""
        named = socket.query.get("listenKey") or socket.path.rpartition("/")[2]
        socket.is_private = bool(named) and named == self.listen_key and self._key_is_valid()

    def expire_key(self) -> None:
        """End the key, and tell so."""
        self.listen_until = None
        event = {
            "e": "listenKeyExpired",
            "E": ms(self.venue.clock.now()),
            "listenKey": self.listen_key,
        }
        for socket in self.venue.listeners():
            socket.push(event)
            socket.is_private = False

    def may_deliver(self) -> bool:
        """Tell whether the key is alive; expire it where its time is over."""
        if not self._key_is_valid() and self.venue.listeners():
            self.expire_key()
        return self._key_is_valid()

    # --- events -----------------------------------------------------------------------------------

    def publish(self, updates: Iterable[OrderUpdate]) -> None:
        """Turn what happened to orders into events, each execution with the order as it was then."""
        for update in updates:
            if isinstance(update, Fill):
                self._fill = update
            elif isinstance(update, OrderReport):
                fill, self._fill = self._fill, None
                self._tell(update, fill)

    def _tell(self, report: OrderReport, fill: Fill | None) -> None:
        order = self.venue.core.orders[report.venue_order_id]
        notes = self.venue.state.notes(order)
        profit = ZERO if fill is None else self._realize(fill)
        if fill is not None:
            self.venue.push_private(self._account_event(fill))
        self.venue.push_private(self._order_event(report, fill, order, notes, profit))
        notes.announced = True

    def _realize(self, fill: Fill) -> Decimal:
        """Move the position as told, and return the profit that the execution made."""
        held = self._told.setdefault(fill.symbol, Holding())
        change = fill.quantity if fill.side is Side.BUY else -fill.quantity
        closed = min(abs(change), abs(held.quantity)) if change * held.quantity < ZERO else ZERO
        profit = (fill.price - entry_of(held)) * closed.copy_sign(held.quantity)
        held.move(change, fill.price)
        return MONEY.plus(profit).quantize(CENTS, context=MONEY)

    def _account_event(self, fill: Fill) -> dict[str, Any]:
        now = ms(self.venue.clock.now())
        instrument = self.venue.core.instrument(fill.symbol)
        wallet, held = short(self._wallet(instrument.quote)), self._told[fill.symbol]
        return {
            "e": "ACCOUNT_UPDATE",
            "E": now,
            "T": ms(fill.at),
            "a": {
                "m": "ORDER",
                "B": [{"a": instrument.quote, "wb": wallet, "cw": wallet, "bc": "0"}],
                "P": [
                    {
                        "s": instrument.venue_symbol,
                        "pa": short(held.quantity),
                        "ep": short(entry_of(held)),
                        "bep": short(entry_of(held)),
                        "cr": "0",
                        "up": "0",
                        "mt": "cross",
                        "iw": "0",
                        "ps": "BOTH",
                    }
                ],
            },
        }

    def _order_event(
        self,
        report: OrderReport,
        fill: Fill | None,
        order: VenueOrder,
        notes: Notes,
        profit: Decimal,
    ) -> dict[str, Any]:
        request, status = order.request, reported_status(report, order, notes)
        execution = "TRADE" if fill else status
        if fill is None and report.status in (OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED):
            execution = "AMENDMENT" if notes.announced else "NEW"
        at = ms(fill.at if fill else report.updated_at or self.venue.clock.now())
        body: dict[str, Any] = {
            "s": self.venue.symbol_of(report.symbol),
            "c": request.client_order_id,
            "S": request.side.value.upper(),
            "o": notes.word,
            "f": notes.time_in_force,
            "q": short(report.quantity),
            "p": short(report.limit_price),
            "ap": short(_rounded(report.average_price)),
            "sp": short(report.stop_price),
            "x": execution,
            "X": status,
            "i": int(report.venue_order_id),
            "l": short(fill.quantity if fill else None),
            "z": short(report.filled),
            "L": short(fill.price if fill else None),
            "T": at,
            "t": int(fill.trade_id) if fill else 0,
            "b": "0",
            "a": "0",
            "m": bool(fill and fill.maker),
            "R": request.reduce_only,
            "wt": "CONTRACT_PRICE",
            "ot": notes.word,
            "ps": "BOTH",
            "cp": False,
            "rp": short(profit),
            "pP": False,
            "si": 0,
            "ss": 0,
            "V": "NONE",
            "pm": "NONE",
            "gtd": 0,
        }
        if fill is not None:
            body |= {"n": short(fill.fee), "N": fill.fee_asset}
        return {"e": "ORDER_TRADE_UPDATE", "E": ms(self.venue.clock.now()), "T": at, "o": body}


def _rounded(price: Decimal | None) -> Decimal | None:
    return None if price is None else price.quantize(CENTS, context=MONEY)
