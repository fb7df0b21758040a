"""What the wire-level TWS answers to questions: orders, executions, contracts, the account, prices and bars."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, timedelta
from decimal import Decimal
from typing import Final, Protocol

import attrs

from execkit.clock import Clock
from execkit.exchanges.matching import MatchingCore
from execkit.model.market import BarData, Timeframe
from execkit.numbers import ONE, ZERO
from execkit.testing.venues.faults import FaultQueue, Mishap
from execkit.testing.venues.klines import Klines
from execkit.testing.venues.tws import messages
from execkit.testing.venues.tws.listing import ALWAYS, Listing
from execkit.testing.venues.tws.messages import TwsOrder
from execkit.testing.venues.tws.orders import TwsOrders
from execkit.testing.venues.tws.refusals import Refused
from execkit.testing.venues.tws.session import TwsSession
from execkit.testing.venues.tws.wire import Fields, SentContract, frame, read_contract

BAR_SIZES: Final = {
    "1 min": Timeframe.M1,
    "5 mins": Timeframe.M5,
    "15 mins": Timeframe.M15,
    "30 mins": Timeframe.M30,
    "1 hour": Timeframe.H1,
    "4 hours": Timeframe.H4,
    "1 day": Timeframe.D1,
    "1 week": Timeframe.W1,
}


class Office(Protocol):
    """The venue, as far as answers need it."""

    accounts: tuple[str, ...]
    clock: Clock
    commission_delay: float | None
    core: MatchingCore
    faults: FaultQueue
    listings: dict[str, Listing]
    orders: TwsOrders
    sessions: list[TwsSession]

    def warn(self, session: TwsSession, request_id: int, code: int, text: str) -> None:
        """Send an error about a request."""

    def later(self, seconds: float, step: Callable[[], None]) -> None:
        """Do something after a while."""


class Answers:
    """Answers by message id; each belongs to an operation at which a fault can strike."""

    def __init__(self, venue: Office) -> None:
        self._venue = venue
        self._handlers: dict[int, tuple[str, Callable[[TwsSession, Fields], None]]] = {
            1: ("quote", self._market_data),
            2: ("", self._cancel_market_data),
            5: ("open_orders", self._open_orders),
            6: ("account", self._account_updates),
            7: ("executions", self._executions),
            9: ("contract", self._contract_details),
            16: ("open_orders", self._all_open_orders),
            17: ("", lambda session, _fields: session.send(self.accounts())),
            20: ("bars", self._bars),
            25: ("", self._cancel_bars),
            49: ("time", self._time),
            61: ("positions", self._positions),
            74: ("positions", self._positions_multi),
            76: ("account", self._account_multi),
            91: ("rule", self._market_rule),
            99: ("completed_orders", self._completed_orders),
        }
        self.klines = Klines()
        """Bars, finished and forming; `load` adds to the history."""

    def answer(self, session: TwsSession, number: int, fields: Fields) -> None:
        """Answer one message; those that nobody needs an answer to are ignored."""
        operation, handler = self._handlers.get(number, ("", None))
        if handler is None:
            return
        venue = self._venue
        is_read = operation not in ("", "time")
        fault = venue.faults.take(operation, is_read=is_read, call=number) if operation else None
        if fault is None:
            handler(session, fields)
        elif fault.kind is Mishap.DELAY:
            venue.later(fault.after, lambda: handler(session, fields))
        elif fault.kind is Mishap.ERROR and number in (1, 7, 9, 20, 74, 76):
            fields.skip(1 if number in (1, 7, 9, 74, 76) else 0)
            request_id = fields.integer()
            text = fault.text or "Error processing request."
            venue.warn(session, request_id, fault.code or 322, text)
        elif fault.kind is Mishap.CHANGE:
            self._all_open_orders(session, fields, status=str(fault.changes["status"]))
        elif fault.kind is Mishap.DROP_ANSWER:
            session.cut()

    # -- who, and what time it is ----------------------------------------------------------------------

    def accounts(self) -> bytes:
        """List the accounts."""
        return frame(15, 1, ",".join(self._venue.accounts))

    def next_id(self, number: int) -> bytes:
        """Tell the next order id."""
        return frame(9, 1, number)

    def _time(self, session: TwsSession, _fields: Fields) -> None:
        session.send(frame(49, 1, int(self._venue.clock.now().timestamp())))

    # -- orders ----------------------------------------------------------------------------------------

    def _open_orders(self, session: TwsSession, _fields: Fields) -> None:
        self._list(session, lambda order: order.client_id == session.client_id)

    def open_orders_of(self, session: TwsSession) -> list[bytes]:
        """Return what a client is told of its open orders when it connects, which it has not asked for."""
        own = [o for o in self._venue.orders.by_perm.values() if o.client_id == session.client_id]
        shown = [
            each
            for order in own
            if order.is_open
            for each in (messages.open_order(order, session.version), messages.order_status(order))
        ]
        return [*shown, frame(53, 1)]

    def _all_open_orders(
        self, session: TwsSession, _fields: Fields, status: str | None = None
    ) -> None:
        self._list(session, lambda _order: True, status)

    def _list(
        self, session: TwsSession, wanted: Callable[[TwsOrder], bool], status: str | None = None
    ) -> None:
        for order in self._venue.orders.by_perm.values():
            if order.is_open and wanted(order):
                session.send(messages.open_order(order, session.version, status))
                session.send(messages.order_status(order, status))
        session.send(frame(53, 1))

    def _completed_orders(self, session: TwsSession, _fields: Fields) -> None:
        for order in self._venue.orders.by_perm.values():
            if not order.is_open:
                session.send(messages.completed_order(order, session.version))
        session.send(frame(102))

    def _executions(self, session: TwsSession, fields: Fields) -> None:
        fields.skip(1)
        request_id = fields.integer()
        for executed in self._venue.orders.executions:
            session.send(messages.exec_details(request_id, executed, session.version))
        session.send(frame(55, 1, request_id))
        if self._venue.commission_delay is not None:
            for executed in self._venue.orders.executions:
                session.send(messages.commission(executed))

    # -- contracts -------------------------------------------------------------------------------------

    def listing_of(self, asked: SentContract) -> Listing:
        """Return the one contract that is meant; raise `Refused`."""
        found = [each for each in self._venue.listings.values() if each.matches(asked)]
        if len(found) != 1:
            raise Refused(200, "No security definition has been found for the request")
        return found[0]

    def _contract_details(self, session: TwsSession, fields: Fields) -> None:
        fields.skip(1)
        request_id = fields.integer()
        asked = read_contract(fields)
        found = [each for each in self._venue.listings.values() if each.matches(asked)]
        if not found:
            text = "No security definition has been found for the request"
            self._venue.warn(session, request_id, 200, text)
            return
        for listing in found:
            shown = self._with_hours(listing)
            session.send(messages.contract_details(request_id, shown, session.version))
        session.send(frame(52, 1, request_id))

    def _with_hours(self, listing: Listing) -> Listing:
        """Spell out the hours of the coming days."""
        today = self._venue.clock.now().astimezone(UTC).date()
        days = [today + timedelta(days=offset) for offset in range(-1, 6)]
        if listing.symbol in self._venue.core.halted:
            hours = ";".join(f"{day:%Y%m%d}:CLOSED" for day in days)
            return attrs.evolve(listing, trading_hours=hours, liquid_hours=hours)
        whole = ";".join(f"{day:%Y%m%d}:0000-{day + timedelta(days=1):%Y%m%d}:0000" for day in days)
        return attrs.evolve(
            listing,
            trading_hours=whole if listing.trading_hours == ALWAYS else listing.trading_hours,
            liquid_hours=whole if listing.liquid_hours == ALWAYS else listing.liquid_hours,
        )

    def _market_rule(self, session: TwsSession, fields: Fields) -> None:
        rule_id = fields.integer()
        for listing in self._venue.listings.values():
            if listing.con_id % 10_000 == rule_id:
                session.send(messages.market_rule(rule_id, listing.bands))
                return

    # -- the account -----------------------------------------------------------------------------------

    def position_of(self, listing: Listing) -> tuple[Decimal, Decimal]:
        """Return what is held of a contract, and its average cost with the multiplier in it."""
        for each in self._venue.core.positions():
            if each.symbol == listing.symbol:
                units = listing.units
                return each.quantity / units, each.average_price * units
        return ZERO, ZERO

    def _positions(self, session: TwsSession, _fields: Fields) -> None:
        for listing in self._venue.listings.values():
            held, cost = self.position_of(listing)
            if held:
                session.send(messages.position(self._venue.accounts[0], listing, held, cost))
        session.send(frame(62, 1))

    def _positions_multi(self, session: TwsSession, fields: Fields) -> None:
        fields.skip(1)
        request_id, account = fields.integer(), fields.text()
        for listing in self._venue.listings.values():
            held, cost = self.position_of(listing)
            if held and account == self._venue.accounts[0]:
                session.send(messages.position(account, listing, held, cost, request_id))
        session.send(frame(72, 1, request_id))

    def _held(self) -> list[tuple[Listing, Decimal, Decimal, Decimal]]:
        """Return what is held: contract, quantity, average cost, price."""
        found = []
        for listing in self._venue.listings.values():
            held, cost = self.position_of(listing)
            if held:
                found.append((listing, held, cost, self._venue.core.quote(listing.symbol).mid))
        return found

    def _values(self) -> dict[tuple[str, str], Decimal]:
        """Return cash and funds. The core pays futures in full; TWS keeps their gains and losses in the cash."""
        core = self._venue.core
        currencies = {each.currency for each in self._venue.listings.values()}
        balances = core.balances()
        cash = {asset: each.total for asset, each in balances.items() if asset in currencies}
        stocks = ZERO
        for listing, held, _cost, mark in self._held():
            worth = held * listing.units * mark
            if listing.sec_type == "FUT":
                cash[listing.currency] = cash.get(listing.currency, ZERO) + worth
            elif listing.sec_type == "STK" and listing.currency == "USD":
                stocks += worth
        values = {("CashBalance", currency): total for currency, total in cash.items()}
        values["CashBalance", "BASE"] = cash["USD"]
        values["AvailableFunds", "USD"] = balances["USD"].free
        values["NetLiquidation", "USD"] = cash["USD"] + stocks
        return values

    def _account_multi(self, session: TwsSession, fields: Fields) -> None:
        fields.skip(1)
        request_id, account = fields.integer(), fields.text()
        values = self._values() if account == self._venue.accounts[0] else {}
        session.send(*messages.account_values(request_id, account, values))

    def _account_updates(self, session: TwsSession, fields: Fields) -> None:
        fields.skip(1)
        wanted, account = fields.flag(), fields.text()
        if not wanted:
            return
        if account == self._venue.accounts[0]:
            for (tag, currency), value in self._values().items():
                session.send(frame(6, 2, tag, value, currency, account))
            for row in self._held():
                session.send(messages.portfolio(account, *row))
        session.send(frame(54, 1, account))

    # -- prices ----------------------------------------------------------------------------------------

    def _market_data(self, session: TwsSession, fields: Fields) -> None:
        fields.skip(1)
        request_id = fields.integer()
        try:
            listing = self.listing_of(read_contract(fields))
        except Refused as refusal:
            self._venue.warn(session, request_id, refusal.code, refusal.text)
            return
        fields.skip(2)  # delta neutral, generic ticks
        is_snapshot = fields.flag()
        session.send(*self._ticks(request_id, listing))
        if is_snapshot:
            session.send(frame(57, 1, request_id))
        else:
            session.quotes[request_id] = listing

    def _ticks(self, request_id: int, listing: Listing) -> list[bytes]:
        quote = self._venue.core.quote(listing.symbol)
        sizes = (quote.bid_size, quote.ask_size)
        bid_size, ask_size = (Decimal(100) if size is None else size for size in sizes)
        return [
            frame(1, 6, request_id, 1, quote.bid, bid_size, 0),
            frame(1, 6, request_id, 2, quote.ask, ask_size, 0),
            frame(1, 6, request_id, 4, quote.last or quote.bid, 1, 0),
            frame(46, 6, request_id, 45, int(quote.at.timestamp())),
        ]

    def publish_quote(self, listing: Listing) -> None:
        """Tell subscribers the price, and what it does to the bars."""
        quote = self._venue.core.quote(listing.symbol)
        now = self._venue.clock.now()
        for kline in self.klines.trade(listing.symbol, quote.last or quote.bid, ONE, now):
            self.publish_bar(kline.bar)
        for session in self._venue.sessions:
            for request_id, wanted in session.quotes.items():
                if wanted is listing:
                    session.send(*self._ticks(request_id, listing))

    def _cancel_market_data(self, session: TwsSession, fields: Fields) -> None:
        fields.skip(1)
        session.quotes.pop(fields.integer(), None)

    # -- bars ------------------------------------------------------------------------------------------

    def _bars(self, session: TwsSession, fields: Fields) -> None:
        request_id = fields.integer()
        listing = self.listing_of(read_contract(fields))
        fields.skip(2)  # includeExpired, endDateTime
        size = fields.text()
        fields.skip(4)  # duration .. formatDate
        if fields.flag():
            session.bars[request_id] = (listing, size)
        self.klines.close_due(self._venue.clock.now())
        shown = self.klines.show(listing.symbol, BAR_SIZES[size], limit=10_000)
        wanted = [kline.bar for kline in shown]
        rows = [value for bar in wanted for value in self._row(bar)]
        session.send(frame(17, request_id, "", "", len(wanted), *rows))

    @staticmethod
    def _row(bar: BarData) -> list[object]:
        opened = bar.open_time
        date = f"{opened:%Y%m%d}" if bar.timeframe.seconds >= 86400 else int(opened.timestamp())
        return [date, bar.open, bar.high, bar.low, bar.close, bar.volume, bar.close, 1]

    def publish_bar(self, bar: BarData) -> None:
        """Show a bar that may still change to those who keep theirs up to date."""
        for session in self._venue.sessions:
            for request_id, (listing, size) in session.bars.items():
                if listing.symbol == bar.symbol and bar.timeframe is BAR_SIZES[size]:
                    date, opened, high, low, close, volume, average, count = self._row(bar)
                    session.send(
                        frame(
                            90, request_id, count, date, opened, close, high, low, average, volume
                        )
                    )

    def _cancel_bars(self, session: TwsSession, fields: Fields) -> None:
        fields.skip(1)
        session.bars.pop(fields.integer(), None)
