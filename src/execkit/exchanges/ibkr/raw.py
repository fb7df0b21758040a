"""TWS messages as they came, with exact numbers: what a message says and nothing that anybody concludes from it.

ib_async's own `Wrapper` draws conclusions that cost money: it marks live orders cancelled on 10349, 161 or 1100, adds a
corrected execution to the one it corrects, and loses a fill whose time zone it does not know. So only its `Decoder` is
used, for the three longest messages; the short ones are read here from their text.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from ib_async.contract import Contract
from ib_async.decoder import Decoder
from ib_async.util import UNSET_DOUBLE

from execkit.errors import ConfigurationError
from execkit.exchanges.ibkr.seen import (
    BarSeen,
    CommissionSeen,
    ExecutionSeen,
    HoldingSeen,
    OrderSeen,
    PositionSeen,
    Sink,
    StatusSeen,
    ValueSeen,
)
from execkit.numbers import to_decimal

_UNSET: Final = frozenset(
    {
        "",
        "None",
        "nan",
        repr(UNSET_DOUBLE),
        "1.7976931348623157E308",
        "1.7976931348623157E+308",
        str(2**127 - 1),
    }
)
"""How TWS, and ib_async's decoder, write that there is no number."""


class RawDecoder(Decoder):  # type: ignore[misc]
    """Takes the place of ib_async's decoder inside its `Client`. *zone* is for times that state none."""

    def __init__(self, sink: Sink, zone: ZoneInfo | None) -> None:
        super().__init__(_Rows(sink), 0)
        self._sink = sink
        self._zone = zone
        self.handlers = {
            1: self._tick_price,
            3: self._status,
            4: self._error,
            5: self.openOrder,
            6: self._value,
            7: self._holding,
            10: self.contractDetails,
            11: self._execution,
            17: self._history,
            49: lambda fields: self._row("time", "time", int(fields[2])),
            52: lambda fields: sink.on_end(int(fields[2])),
            53: lambda _fields: sink.on_end("open_orders"),
            54: lambda _fields: sink.on_end("account"),
            55: lambda fields: sink.on_end(int(fields[2])),
            57: lambda fields: sink.on_end(int(fields[2])),
            59: self._commission,
            71: self._position,
            72: lambda fields: sink.on_end(int(fields[2])),
            90: self._history_update,
            93: self._rule,
            101: self.completedOrder,
            102: lambda _fields: sink.on_end("completed_orders"),
        }

    def interpret(self, fields: list[str]) -> None:
        """Hand a message on; one that cannot be read is told of, never dropped."""
        number = 0
        try:
            number = int(fields[0])
            handler = self.handlers.get(number)
            if handler is not None:
                handler(list(fields))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the message's fault
            self._sink.on_unreadable(number, f"{type(error).__name__}: {error}"[:200])

    def _row(self, key: int | str, end: int | str, row: object) -> None:
        self._sink.on_row(key, row)
        self._sink.on_end(end)

    def _status(self, fields: list[str]) -> None:
        self._sink.on_status(
            StatusSeen(
                order_id=int(fields[1]),
                status=fields[2],
                filled=_amount(fields[3]),
                average=exact(fields[5]),
                perm_id=_id(fields[6]),
                client_id=int(fields[9]),
                why_held=fields[10],
            )
        )

    def _error(self, fields: list[str]) -> None:
        self._sink.on_error(int(fields[2]), int(fields[3]), fields[4])

    def _execution(self, fields: list[str]) -> None:
        contract = _contract(fields[3:])
        if not fields[14] or fields[18] not in ("BOT", "SLD"):
            raise ValueError(f"an execution {fields[14]!r} of side {fields[18]!r}")
        self._sink.on_execution(
            ExecutionSeen(
                request_id=int(fields[1]),
                order_id=int(fields[2]),
                contract=contract,
                exec_id=fields[14],
                at=moment(fields[15], self._zone),
                account=fields[16],
                side=fields[18],
                quantity=_amount(fields[19]),
                price=_amount(fields[20], zero=False),
                perm_id=_id(fields[21]),
                client_id=int(fields[22]),
                ref=fields[26],
            )
        )

    def _commission(self, fields: list[str]) -> None:
        amount = maybe(fields[3])
        self._sink.on_commission(
            # Some paths say -1 for "not known yet"; a real rebate of exactly -1 is the rarer thing.
            CommissionSeen(
                exec_id=fields[2], amount=None if amount == -1 else amount, currency=fields[4]
            )
        )

    def _position(self, fields: list[str]) -> None:
        seen = PositionSeen(
            account=fields[3],
            contract=_contract(fields[4:]),
            quantity=exact(fields[15]),
            cost=exact(fields[16]),
        )
        self._sink.on_row(int(fields[2]), seen)

    def _value(self, fields: list[str]) -> None:
        seen = ValueSeen(tag=fields[2], text=fields[3], currency=fields[4], account=fields[5])
        self._sink.on_row("account", seen)

    def _holding(self, fields: list[str]) -> None:
        seen = HoldingSeen(
            contract=_contract(fields[2:]),
            quantity=exact(fields[13]),
            worth=exact(fields[15]),
            account=fields[19],
        )
        self._sink.on_row("account", seen)

    def _tick_price(self, fields: list[str]) -> None:
        self._sink.on_row(int(fields[2]), (int(fields[3]), maybe(fields[4]), maybe(fields[5])))

    def _rule(self, fields: list[str]) -> None:
        edges = [
            (exact(edge), exact(step))
            for edge, step in zip(fields[3::2], fields[4::2], strict=True)
        ]
        self._row(f"rule-{fields[1]}", f"rule-{fields[1]}", edges)

    def _history(self, fields: list[str]) -> None:
        request_id, count = int(fields[1]), int(fields[4])
        rows = [fields[5 + 8 * at : 13 + 8 * at] for at in range(count)]
        for date, opened, high, low, close, volume, _average, _count in rows:
            self._sink.on_row(request_id, _bar(date, opened, high, low, close, volume))
        self._sink.on_end(request_id)

    def _history_update(self, fields: list[str]) -> None:
        _, request_id, _count, date, opened, close, high, low, _average, volume = fields
        self._sink.on_row(int(request_id), _bar(date, opened, high, low, close, volume))


class _Rows:
    """What ib_async's decoder calls for the messages that it reads for us."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def openOrder(self, order_id: int, contract: Any, order: Any, state: Any) -> None:  # noqa: N802
        self._sink.on_order(_order(contract, order, state, order_id=order_id, filled=None))

    def completedOrder(self, contract: Any, order: Any, state: Any) -> None:  # noqa: N802
        seen = _order(
            contract, order, state, order_id=0, filled=maybe(order.filledQuantity) or Decimal(0)
        )
        self._sink.on_row("completed_orders", seen)

    def contractDetails(self, request_id: int, details: Any) -> None:  # noqa: N802
        self._sink.on_row(request_id, details)


def _order(
    contract: Any, order: Any, state: Any, *, order_id: int, filled: Decimal | None
) -> OrderSeen:
    if order.action not in ("BUY", "SELL", "SSHORT"):
        raise ValueError(f"an order to {order.action!r}")
    return OrderSeen(
        order_id=order_id,
        client_id=order.clientId,
        perm_id=_id(order.permId),
        ref=order.orderRef,
        account=order.account,
        contract=contract,
        action=order.action,
        quantity=_amount(order.totalQuantity),
        order_type=order.orderType,
        limit=maybe(order.lmtPrice),
        aux=maybe(order.auxPrice),
        trail_stop=maybe(order.trailStopPrice),
        oca_group=order.ocaGroup,
        status=state.status,
        filled=filled,
        reason=state.completedStatus or state.warningText,
        is_completed=filled is not None,
        raw=order,
    )


def _contract(fields: list[str]) -> Any:
    """Read the eleven fields by which messages name a contract."""
    return Contract(
        conId=int(fields[0] or 0),
        symbol=fields[1],
        secType=fields[2],
        lastTradeDateOrContractMonth=fields[3],
        multiplier=fields[6],
        exchange=fields[7],
        currency=fields[8],
        localSymbol=fields[9],
    )


def _bar(date: str, opened: str, high: str, low: str, close: str, volume: str) -> BarSeen:
    return BarSeen(
        date=date,
        open=exact(opened),
        high=exact(high),
        low=exact(low),
        close=exact(close),
        volume=max(exact(volume), Decimal(0)),  # -1 where the venue counts none, as in forex
    )


def _id(value: str | int) -> int:
    number = int(value)
    if number < 0:
        raise ValueError(f"{number} is no permId")
    return number


def _amount(value: str | float, *, zero: bool = True) -> Decimal:
    number = exact(value)
    if number < 0 or (not zero and not number):
        raise ValueError(f"{value} is no amount")
    return number


def exact(value: str | float) -> Decimal:
    """Return a number as TWS wrote it.

    ib_async's decoder makes doubles; the shortest text of one is the text that it was made from, up to 15 digits.
    Raises `ValueError` for what is no finite number of a possible size.
    """
    number = maybe(value)
    if number is None:
        raise ValueError(f"{value!r} is no number")
    return number


def maybe(value: str | float | None) -> Decimal | None:
    """Return a number as TWS wrote it; None for what it calls unset."""
    text = repr(value) if isinstance(value, float) else str("" if value is None else value)
    if text in _UNSET:
        return None
    try:
        return to_decimal("number", text)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


def moment(text: str, zone: ZoneInfo | None) -> datetime | None:
    """Return a time of TWS in UTC; None when its zone is not known.

    It writes `20260102-15:00:00` for UTC, `20260102 10:00:00 US/Eastern` with a zone, `20260102  10:00:00` in its own
    zone, seconds since 1970, and `20260102` for a day.
    """
    if text.isdigit() and len(text) != 8:
        return datetime.fromtimestamp(int(text), UTC)
    if text.isdigit():
        return datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC)
    if "-" in text:
        return datetime.strptime(text, "%Y%m%d-%H:%M:%S").replace(tzinfo=UTC)
    day, time, *name = text.split(maxsplit=2)
    at = datetime.strptime(f"{day} {time}", "%Y%m%d %H:%M:%S")  # noqa: DTZ007 - its zone follows
    if name:
        try:
            zone = ZoneInfo(name[0])
        except (KeyError, ValueError, OSError):
            return None
    return None if zone is None else at.replace(tzinfo=zone).astimezone(UTC)
