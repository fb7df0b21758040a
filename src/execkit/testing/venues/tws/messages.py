"""What the wire-level TWS says: one function per message, fields in the order in which ib_async reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

import attrs

from execkit.model.order import Fill
from execkit.numbers import ZERO, plain
from execkit.testing.venues.tws.listing import Listing
from execkit.testing.venues.tws.wire import SentOrder, frame

UNSET = "1.7976931348623157E308"


@attrs.define(kw_only=True)
class TwsOrder:
    """One order as TWS shows it, with modifications applied to *sent*."""

    sent: SentOrder
    listing: Listing
    client_id: int
    perm_id: int
    tif: str
    status: str = "PendingSubmit"
    filled: Decimal = ZERO
    """In contracts."""
    notional: Decimal = ZERO
    last_price: Decimal = ZERO
    why_held: str = ""
    stop: Decimal | None = None
    """Where a trailing stop stands now."""
    in_core: bool = False
    completed_at: str = ""
    reason: str = ""

    @property
    def key(self) -> str:
        """Its client order id inside the matching core."""
        return str(self.perm_id)

    @property
    def is_open(self) -> bool:
        """Tell whether it may still be executed."""
        return self.status not in ("Filled", "Cancelled", "ApiCancelled", "Inactive")

    @property
    def remaining(self) -> Decimal:
        """What is not executed."""
        return self.sent.quantity - self.filled

    @property
    def average(self) -> Decimal:
        """Mean price of what is executed."""
        return round(self.notional / self.filled, 8) if self.filled else ZERO


def error(request_id: int, code: int, text: str, version: int) -> bytes:
    """Say that something is wrong, or merely worth knowing."""
    return frame(4, 2, request_id, code, text, *([""] if version >= 166 else []))


def order_status(order: TwsOrder, status: str | None = None) -> bytes:
    """Say where an order stands; it does not name the orderRef."""
    sent = order.sent
    return frame(
        3,
        sent.order_id,
        status or order.status,
        order.filled,
        order.remaining,
        order.average,
        order.perm_id,
        sent.parent_id,
        order.last_price,
        order.client_id,
        order.why_held,
        0,
    )


def _contract(listing: Listing, *, exchange: str | None = None) -> list[object]:
    return [
        listing.con_id,
        listing.ticker,
        listing.sec_type,
        listing.expiry,
        0,
        "?" if listing.sec_type == "STK" else "",
        listing.multiplier if listing.multiplier != 1 else "",
        listing.exchange if exchange is None else exchange,
        listing.currency,
        listing.local_symbol,
        listing.trading_class,
    ]


def open_order(order: TwsOrder, version: int, status: str | None = None) -> bytes:
    """Show an order that is open, or was a moment ago."""
    sent = order.sent
    fields: list[object] = [
        *(5, sent.order_id),
        *_contract(order.listing),
        *(sent.action, sent.quantity, sent.order_type),
        _zero(sent.limit),
        _zero(sent.aux),
        *(order.tif, sent.oca_group, sent.account, "", 0, sent.ref, order.client_id),
        order.perm_id,
        *(sent.outside_rth, False, 0, "", "", "", "", ""),
    ]
    fields += [""] if version < 177 else []
    fields += ["", sent.good_till, "", "", "", 0, "", -1, 0, "", "", "", "", "", 0]
    fields += [False, False, False, "", sent.oca_type, False, False, "", sent.parent_id, 0]
    fields += ["", 0, "None", "", *([0, "", "", "", "?", 0, 0, ""])]  # deltaNeutral*
    fields += [False, 0, _unset(order.stop), _unset(sent.trail_percent), "", "", ""]
    fields += [0, 0, 0, "", "", ""]  # legs, order legs, routing parameters, scale*
    fields += ["", False, "", "", False, False, ""]  # hedgeType .. algoStrategy
    fields += [False, sent.what_if, status or order.status, *[UNSET] * 9, "", "", "", "", ""]
    fields += [False, False, 0]  # randomizeSize, randomizePrice, conditions
    fields += ["None", UNSET, _unset(order.stop), UNSET, UNSET, UNSET, UNSET, 0, "", "", ""]
    fields += [_zero(sent.cash), False, False, False, ""]
    fields += [""] if version >= 159 else []
    fields += [""] if version >= 160 else []
    fields += [False] if version >= 162 else []
    fields += ["", "", "", "", ""] if version >= 170 else []
    return frame(*fields)


def completed_order(order: TwsOrder, version: int) -> bytes:
    """Show an order that has ended: without order id, client id and fills."""
    sent = order.sent
    fields: list[object] = [
        101,
        *_contract(order.listing),
        *(sent.action, sent.quantity, sent.order_type),
        _zero(sent.limit),
        _zero(sent.aux),
        *(order.tif, sent.oca_group, sent.account, "", 0, sent.ref),
        order.perm_id,
        *(sent.outside_rth, False, 0, "", "", "", ""),
    ]
    fields += [""] if version < 177 else []
    fields += ["", sent.good_till, "", "", "", 0, "", -1, "", "", "", "", "", 0]
    fields += [False, False, "", sent.oca_type, 0, "", 0, "None", "", *([0, "", 0, ""])]
    fields += [False, 0, _unset(order.stop), _unset(sent.trail_percent), ""]
    fields += [0, 0, 0, "", "", ""]  # legs, order legs, routing parameters, scale*
    fields += ["", "", "", False, False, ""]  # hedgeType .. algoStrategy
    fields += [False, order.status, False, False, 0]
    fields += [_unset(order.stop), UNSET, _zero(sent.cash), False, False, "", order.filled, 0]
    fields += [False, "", False, False, 0, order.completed_at, order.reason or order.status]
    fields += ["", "", "", "", ""] if version >= 170 else []
    return frame(*fields)


def _zero(value: Decimal | None) -> object:
    return ZERO if value is None else value


def _unset(value: Decimal | None) -> object:
    return UNSET if value is None else value


@attrs.frozen(kw_only=True)
class Executed:
    """One execution as TWS keeps it; quantities in contracts."""

    exec_id: str
    order: TwsOrder
    fill: Fill
    quantity: Decimal
    price: Decimal
    cumulated: Decimal
    at: str
    """As it is written on the wire."""


def exec_details(request_id: int, executed: Executed, version: int) -> bytes:
    """Tell of an execution: live with request id -1, or in answer to a request."""
    order, listing = executed.order, executed.order.listing
    side = "BOT" if order.sent.action == "BUY" else "SLD"
    return frame(
        11,
        request_id,
        order.sent.order_id,
        *_contract(listing, exchange=listing.exchange)[:7],
        *(listing.exchange, listing.currency, listing.local_symbol, listing.trading_class),
        executed.exec_id,
        executed.at,
        order.sent.account,
        listing.primary_exchange or listing.exchange,
        side,
        executed.quantity,
        executed.price,
        order.perm_id,
        order.client_id,
        0,
        executed.cumulated,
        order.average,
        order.sent.ref,
        "",
        "",
        "",
        2,
        *([False] if version >= 178 else []),
    )


def commission(executed: Executed) -> bytes:
    """Tell what an execution cost; its gain is not stated."""
    return frame(
        59, 1, executed.exec_id, executed.fill.fee, executed.order.listing.currency, UNSET, "", ""
    )


def contract_details(request_id: int, listing: Listing, version: int) -> bytes:
    """Describe a contract."""
    fields: list[object] = [10, *([8] if version < 164 else []), request_id]
    fields += [listing.ticker, listing.sec_type, listing.expiry, 0, "", listing.exchange]
    fields += [listing.currency, listing.local_symbol, listing.ticker, listing.trading_class]
    fields += [listing.con_id, listing.min_tick, *([""] if version < 164 else [])]
    fields += [listing.multiplier if listing.multiplier != 1 else "", listing.order_types]
    exchanges = ",".join(filter(None, (listing.exchange, listing.primary_exchange)))
    fields += [
        exchanges,
        listing.magnifier,
        0,
        listing.ticker,
        listing.primary_exchange,
        "",
        "",
        "",
        "",
    ]
    fields += [listing.time_zone, listing.trading_hours, listing.liquid_hours, "", 0, 0]
    rules = ",".join([str(listing.con_id % 10_000)] * (1 + exchanges.count(",")))
    fields += [1, "", "", rules, listing.expiry, "COMMON" if listing.sec_type == "STK" else ""]
    sizes = [listing.min_size, listing.size_increment, listing.size_increment]
    fields += sizes if version >= 164 else sizes[2:] if version == 163 else []
    return frame(*fields)


def market_rule(rule_id: int, bands: Iterable[tuple[Decimal, Decimal]]) -> bytes:
    """Tell the price bands of a market rule."""
    bands = list(bands)
    return frame(93, rule_id, len(bands), *(value for band in bands for value in band))


def position(
    account: str, listing: Listing, held: Decimal, cost: Decimal, request_id: int | None = None
) -> bytes:
    """Tell of a position, to all or in answer to one request."""
    head: list[object] = [61, 3] if request_id is None else [71, 1, request_id]
    cost = round(cost, 8)
    tail = [held, cost] if request_id is None else [held, cost, ""]
    contract = _contract(listing, exchange="")
    return frame(*head, account, *contract, *tail)


def portfolio(account: str, listing: Listing, held: Decimal, cost: Decimal, mark: Decimal) -> bytes:
    """Tell what a position is worth at the market."""
    worth = held * listing.units * mark
    contract = _contract(listing, exchange="")
    gain = worth - held * cost
    return frame(7, 8, *contract, held, mark, worth, round(cost, 8), round(gain, 8), 0, account)


def account_values(
    request_id: int, account: str, values: Mapping[tuple[str, str], Decimal]
) -> list[bytes]:
    """Tell the account's values by (tag, currency) in answer to a request."""
    rows = [
        frame(73, 1, request_id, account, "", tag, plain(value), currency)
        for (tag, currency), value in values.items()
    ]
    return [*rows, frame(74, 1, request_id)]
