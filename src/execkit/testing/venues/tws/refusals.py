"""What the wire-level TWS refuses of an order by itself, before any market sees it."""

from __future__ import annotations

from typing import Final

from execkit.model.order import OrderType
from execkit.numbers import is_multiple
from execkit.testing.venues.tws.listing import Listing
from execkit.testing.venues.tws.wire import SentOrder

TYPES: Final = {
    "MKT": OrderType.MARKET,
    "LMT": OrderType.LIMIT,
    "STP": OrderType.STOP,
    "STP LMT": OrderType.STOP_LIMIT,
    "TRAIL": OrderType.STOP,
}
TIMES: Final = {"GTC": "gtc", "DAY": "day", "IOC": "ioc", "FOK": "fok", "GTD": "gtd"}


class Refused(Exception):  # noqa: N818 - an answer, not a failure of this program
    """TWS answers with an error code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def check(sent: SentOrder, listing: Listing) -> None:
    """Raise `Refused` for an order that cannot be."""
    if not sent.quantity:
        raise Refused(434, "The order size cannot be zero.")
    if not is_multiple(sent.quantity, listing.size_increment):
        raise Refused(
            10243,
            "Fractional-sized order cannot be placed via API. Please use desktop version.",
        )
    if sent.order_type not in TYPES:
        raise Refused(
            387,
            f"Unsupported order type for this exchange and security type: {sent.order_type}",
        )
    if sent.tif and sent.tif not in TIMES:
        raise Refused(111, "The TIF (time-in-force) is invalid for this order type.")
    if listing.sec_type == "CRYPTO" and sent.order_type == "MKT" and sent.action == "BUY":
        raise Refused(10289, "You must set Cash Quantity for this order.")
    if not sent.account:
        raise Refused(435, "You must specify an account.")
    aux = sent.aux if sent.order_type in ("STP", "STP LMT") else None
    limit = sent.limit if sent.order_type in ("LMT", "STP LMT") else None
    for price in filter(None, (limit, aux)):
        if not is_multiple(price, listing.increment_at(price)):
            raise Refused(
                110,
                "The price does not conform to the minimum price variation for this contract.",
            )
