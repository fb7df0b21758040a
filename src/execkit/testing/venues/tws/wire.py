"""The TWS socket protocol below its messages: frames, fields, and the placeOrder message taken apart.

Frames are a 4-byte big-endian length and NUL-terminated text fields. Layouts follow ib_async 2.1.0 (client.py and
decoder.py), which speaks the versions 157 to 178.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

import attrs

from execkit.numbers import plain

OLDEST, NEWEST = 157, 178
"""Protocol versions that ib_async offers."""

_LONGEST: Final = 1 << 20


def frame(*fields: object) -> bytes:
    """Return one message on the wire."""
    body = "".join(f"{_text(field)}\0" for field in fields).encode()
    return struct.pack(">I", len(body)) + body


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    return plain(value) if isinstance(value, Decimal) else str(value)


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Return the next message's body; raise `asyncio.IncompleteReadError` at the end of the stream."""
    (length,) = struct.unpack(">I", await reader.readexactly(4))
    if length > _LONGEST:
        raise ValueError(f"a frame of {length} bytes is no TWS message")
    return await reader.readexactly(length)


def split(body: bytes) -> list[str]:
    """Return the fields of a message."""
    return body.decode(errors="backslashreplace").split("\0")[:-1]


class Fields:
    """Takes the fields of a message one after the other."""

    def __init__(self, fields: Iterable[str]) -> None:
        self._rest = iter(fields)

    def text(self) -> str:
        """Return the next field."""
        return next(self._rest)

    def integer(self) -> int:
        """Return the next field as an int; unset is 0."""
        return int(self.text() or 0)

    def number(self) -> Decimal | None:
        """Return the next field exactly; None where it is unset."""
        text = self.text()
        return Decimal(text) if text else None

    def flag(self) -> bool:
        """Return the next field as a bool."""
        return self.text() == "1"

    def skip(self, count: int) -> None:
        """Pass over fields."""
        for _ in range(count):
            next(self._rest)


@attrs.frozen
class SentContract:
    """How a client names a contract."""

    con_id: int
    ticker: str
    sec_type: str
    expiry: str
    exchange: str
    primary_exchange: str
    currency: str
    local_symbol: str


def read_contract(fields: Fields) -> SentContract:
    """Take the twelve fields of a contract."""
    con_id, ticker, sec_type, expiry = (
        fields.integer(),
        fields.text(),
        fields.text(),
        fields.text(),
    )
    fields.skip(3)  # strike, right, multiplier
    exchange, primary, currency, local = (fields.text() for _ in range(4))
    fields.skip(1)  # trading class
    return SentContract(con_id, ticker, sec_type, expiry, exchange, primary, currency, local)


@attrs.frozen(kw_only=True)
class SentOrder:
    """What a placeOrder message asks for."""

    order_id: int
    contract: SentContract
    action: str
    quantity: Decimal
    order_type: str
    limit: Decimal | None
    aux: Decimal | None
    tif: str
    oca_group: str
    account: str
    ref: str
    transmit: bool
    parent_id: int
    outside_rth: bool
    good_till: str
    oca_type: int
    trail_stop: Decimal | None
    trail_percent: Decimal | None
    what_if: bool
    cash: Decimal | None


def read_order(message: Sequence[str], version: int) -> SentOrder:
    """Take a placeOrder message apart. Combos, algos and conditions are not among what this venue trades."""
    fields = Fields(message)
    fields.skip(1)
    order_id = fields.integer()
    contract = read_contract(fields)
    fields.skip(2)  # secIdType, secId
    action, quantity, order_type = fields.text(), fields.number(), fields.text()
    limit, aux, tif = fields.number(), fields.number(), fields.text()
    oca_group, account = fields.text(), fields.text()
    fields.skip(2)  # openClose, origin
    ref, transmit, parent_id = fields.text(), fields.flag(), fields.integer()
    fields.skip(4)  # blockOrder .. triggerMethod
    outside_rth = fields.flag()
    fields.skip(4)  # hidden, "", discretionaryAmt, goodAfterTime
    good_till = fields.text()
    fields.skip(3 if version >= 177 else 4)  # faGroup, faMethod, faPercentage (, faProfile)
    fields.skip(4)  # modelCode .. exemptCode
    oca_type = fields.integer()
    fields.skip(19)  # rule80A .. deltaNeutralAuxPrice
    fields.skip(2)  # continuousUpdate, referencePriceType
    trail_stop, trail_percent = fields.number(), fields.number()
    fields.skip(6)  # scaleInitLevelSize .. activeStopTime
    hedge = fields.text()
    fields.skip(1 if hedge else 0)
    fields.skip(5)  # optOutSmartRouting .. deltaNeutralContract
    fields.skip(2)  # algoStrategy, algoId
    what_if = fields.flag()
    fields.skip(4)  # orderMiscOptions .. randomizePrice
    fields.skip(1)  # number of conditions
    fields.skip(10)  # adjustedOrderType .. softDollarTier
    cash = fields.number()
    return SentOrder(
        order_id=order_id,
        contract=contract,
        action=action,
        quantity=quantity or Decimal(0),
        order_type=order_type,
        limit=limit,
        aux=aux,
        tif=tif,
        oca_group=oca_group,
        account=account,
        ref=ref,
        transmit=transmit,
        parent_id=parent_id,
        outside_rth=outside_rth,
        good_till=good_till,
        oca_type=oca_type,
        trail_stop=trail_stop,
        trail_percent=trail_percent,
        what_if=what_if,
        cash=cash,
    )
