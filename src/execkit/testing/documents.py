"""Checks a run from two files alone: the journal, and the ledger of the paper venue.

Both are read as JSON with nothing of the library: no record type, no order book, no decoder. What the two show
together must hold whatever the objects in memory believed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import attrs

_OURS: Final = "xk"
_SINGLE: Final = ("entry", "exit")
_REPLACED_WITHIN: Final = timedelta(minutes=2)
"""For how long an order may rest beside the one that takes its place, where the venue lets no reduction flip."""
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_TERMS: Final = ("symbol", "side", "type")


@attrs.frozen
class Placed:
    """An order as the venue's file has it."""

    client_order_id: str
    terms: tuple[str, ...]
    quantity: Decimal
    filled: Decimal
    began: datetime
    ended: datetime | None
    """None while it is open."""
    group: str = ""
    """List that the venue keeps together, so that only one of its orders is executed."""


@attrs.frozen
class Execution:
    """An execution as the venue's file has it."""

    trade_id: str
    client_order_id: str
    symbol: str
    change: Decimal
    """Of the position, without fees."""
    at: datetime = _LONG_AGO


@attrs.frozen
class Ledger:
    """The venue's file: the account as it was when the venue started last, and the requests since."""

    orders: tuple[Placed, ...]
    """All orders until then, as they came."""
    executions: tuple[Execution, ...]
    placed: tuple[str, ...]
    """Client order ids of the requests since, whatever the venue said to them."""


def read_ledger(path: Path) -> Ledger:
    """Return what the file of a paper venue holds; a last line that was cut off is left out."""
    *lines, _torn = path.read_bytes().split(b"\n")
    rows = [json.loads(line[9:], parse_float=Decimal) for line in lines]
    state, inputs = rows[1], rows[2:]
    orders = tuple(_placed(order) for order in state["orders"])
    placed = [row["request"]["client_order_id"] for row in inputs if row["do"] == "place"]
    executions = tuple(
        Execution(
            fill["trade_id"],
            fill["client_order_id"],
            fill["symbol"],
            Decimal(fill["quantity"]) * (1 if fill["side"] == "buy" else -1),
            datetime.fromisoformat(fill["at"]),
        )
        for fill in state["fills"]
    )
    return Ledger(orders, executions, tuple(placed))


def _placed(order: dict[str, Any]) -> Placed:
    request = order["request"]
    is_open = order["status"] in ("accepted", "partially_filled", "held")
    return Placed(
        request["client_order_id"],
        tuple(str(request[term]) for term in _TERMS),
        Decimal(request["quantity"]),
        Decimal(order["filled"]),
        datetime.fromisoformat(order["since"]),
        None if is_open else datetime.fromisoformat(order["updated_at"]),
        order.get("group", ""),
    )


def records(journal: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a journal's file, in order."""
    with journal.open("rb") as lines:
        for line in lines:
            row = json.loads(line, parse_float=Decimal) if line.endswith(b"\n") else {}
            if "record" in row:
                yield row


def check_files(journal: Path, ledger: Ledger) -> list[str]:
    """Return what is wrong between the two files of a run that has ended, in plain words; *ledger* has it all.

    I1: no two orders of one intent live at one time. I2: together they execute no more than was meant. I3: every
    order was journalled with its content; `unjournalled` tells whether that was before it came. I5: every execution
    is in the journal, once. I13: an exit or a stop never turns a position, and when one arrives, what rests closes no
    more together than is held. Of a list only one order counts, and an order may rest for a little beside the one that
    takes its place, because a paper venue lets no reduction flip a position.
    """
    intents: dict[str, dict[str, Any]] = {}
    fills: list[str] = []
    for row in records(journal):
        record = row["record"]
        if record["kind"] == "intent":
            intents.setdefault(record["request"]["client_order_id"], row)
        elif record["kind"] == "fill":
            fills.append(record["fill"]["trade_id"])
    ours = [order for order in ledger.orders if order.client_order_id.startswith(_OURS)]
    return [
        *_unjournalled(ours, intents),
        *_together(ours, intents),
        *_executions(ledger.executions, fills),
        *_turned(ledger.executions, intents),
        *_claimed(ours, ledger.executions, intents),
    ]


def unjournalled(journal: Path, ledger: Ledger) -> list[str]:
    """Return requests that the venue has received and that are not in the journal, at the moment of a death (I3)."""
    known = {
        row["record"]["request"]["client_order_id"]
        for row in records(journal)
        if row["record"]["kind"] == "intent"
    }
    return [f"I3: {key} came before its intent" for key in ledger.placed if key not in known]


def _unjournalled(ours: Sequence[Placed], intents: dict[str, dict[str, Any]]) -> Iterator[str]:
    for order in ours:
        row = intents.get(order.client_order_id)
        if row is None:
            yield f"I3: {order.client_order_id} has no intent"
            continue
        request = row["record"]["request"]
        if tuple(str(request[term]) for term in _TERMS) != order.terms:
            yield f"I3: {order.client_order_id} arrived with another content than was journalled"


def _together(ours: Sequence[Placed], intents: dict[str, dict[str, Any]]) -> Iterator[str]:
    groups: dict[tuple[str, str], list[Placed]] = {}
    for order in ours:
        record = intents.get(order.client_order_id, {}).get("record", {})
        if record.get("role") in _SINGLE:
            groups.setdefault((record["parent"], record["role"]), []).append(order)
    for (parent, role), orders in groups.items():
        for earlier, later in pairwise(orders):
            if earlier.ended is None or earlier.ended > later.began:
                yield f"I1: {role} of {parent}: two orders were live at {later.began}"
        done, meant = sum(order.filled for order in orders), max(o.quantity for o in orders)
        if done > meant:
            yield f"I2: {role} of {parent}: {done} executed of {meant}"


def _executions(executions: Sequence[Execution], fills: Sequence[str]) -> Iterator[str]:
    if len(fills) != len(set(fills)):
        yield "I5: an execution is in the journal twice"
    made = [each.trade_id for each in executions if each.client_order_id.startswith(_OURS)]
    if sorted(made) != sorted(set(fills)):
        yield f"I5: the venue executed {len(made)} times, the journal knows {len(set(fills))}"


def _turned(executions: Sequence[Execution], intents: dict[str, dict[str, Any]]) -> Iterator[str]:
    positions: dict[str, Decimal] = {}
    for each in executions:
        before = positions.get(each.symbol, Decimal(0))
        after = positions[each.symbol] = before + each.change
        role = intents.get(each.client_order_id, {}).get("record", {}).get("role", "entry")
        if role != "entry" and (abs(after) > abs(before) or before * after < 0):
            yield f"I13: {each.client_order_id} ({role}) took {each.symbol} from {before} to {after}"


def _claimed(
    ours: Sequence[Placed], executions: Sequence[Execution], intents: dict[str, dict[str, Any]]
) -> Iterator[str]:
    """Add up what may close a position whenever a reduction arrives."""
    resting: list[tuple[Placed, tuple[str, str]]] = []
    for each in ours:
        record = intents.get(each.client_order_id, {}).get("record", {})
        if record.get("role", "entry") == "entry":
            continue
        # A change may have made it larger or smaller since: this much was there all the time.
        least = min(each.quantity, Decimal(record["request"]["quantity"]))
        order = attrs.evolve(each, quantity=least)
        at, kind = order.began, (record["parent"], record["role"])
        claims = {_group(order): _left(order, executions, at)}
        for other, its_kind in resting:
            if other.terms[:2] == order.terms[:2] and _rests_on(other, at, is_new=kind != its_kind):
                group = _group(other)
                claims[group] = max(claims.get(group, Decimal(0)), _left(other, executions, at))
        resting.append((order, kind))
        claimed, held = sum(claims.values(), Decimal(0)), _closable(executions, order.terms, at)
        if claimed > held:
            yield f"I13: at {at} {claimed} of {order.terms[0]} could be closed, {held} were held"


def _group(order: Placed) -> str:
    return order.group or order.client_order_id


def _rests_on(order: Placed, at: datetime, *, is_new: bool) -> bool:
    """Tell whether an order lives beside one that arrives: another one, or one that does not take its place at once."""
    if order.ended is None:
        return True
    return order.ended > at if is_new else order.ended > at + _REPLACED_WITHIN


def _left(order: Placed, executions: Sequence[Execution], at: datetime) -> Decimal:
    """Return how much of an order was not executed at a moment."""
    key = order.client_order_id
    done = (abs(e.change) for e in executions if e.client_order_id == key and e.at <= at)
    return order.quantity - sum(done, Decimal(0))


def _closable(executions: Sequence[Execution], terms: tuple[str, ...], at: datetime) -> Decimal:
    """Return the most that an order of this symbol and side could close at a moment."""
    symbol, side, *_ = terms
    sign = 1 if side == "sell" else -1
    position = most = Decimal(0)
    for each in executions:
        if each.symbol == symbol and each.at <= at:
            position += each.change
            # Of what happened in one moment nobody knows what came first.
            most = max(most, sign * position) if each.at == at else sign * position
    return most
