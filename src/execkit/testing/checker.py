"""Checks a run from two documents alone: the venue's ledger and the journal's records.

It knows no order manager, no positions and no gateway, and adds up by itself, so a defect there cannot hide here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import accumulate
from typing import Protocol

import attrs

from execkit.model.order import Fill, OrderRequest
from execkit.model.records import CommandSent, Entry, ExternalChange, Filled, Intent


class Request(Protocol):
    """A line of the venue's ledger: a request that it received."""

    @property
    def at(self) -> float:
        """Moment, in seconds."""
        ...

    @property
    def kind(self) -> str:
        """`place`, `cancel` or `amend`."""
        ...

    @property
    def client_order_id(self) -> str:
        """The order's id."""
        ...

    @property
    def payload_hash(self) -> str:
        """Digest of what was asked for."""
        ...

    @property
    def request(self) -> OrderRequest | None:
        """What was asked for, of a place request."""
        ...

    @property
    def answer(self) -> str:
        """What the venue said."""
        ...


@attrs.frozen(kw_only=True)
class Evidence:
    """What the checker reads. *commits* are (moment, last durable record), *apart* is what was kept in emergencies."""

    ledger: Sequence[Request]
    fills: Sequence[Fill]
    positions: Mapping[str, Decimal]
    entries: Sequence[Entry]
    commits: Sequence[tuple[float, int]]
    apart: Iterable[Entry] = ()
    excused: frozenset[str] = frozenset()
    """Orders about which the venue broke its own promises."""
    ours: str = "xk"


def check(evidence: Evidence) -> list[str]:
    """Return what is wrong, in plain words; nothing when all is well."""
    return [
        *_unjournalled(evidence),
        *_executed_twice(evidence),
        *_invented_fills(evidence),
        *_positions(evidence),
    ]


def _unjournalled(evidence: Evidence) -> list[str]:
    """Every request the venue received was journalled, and durable, before."""
    intents: dict[str, tuple[int, str]] = {}
    commands: dict[str, int] = {}
    for entry in evidence.entries:
        if isinstance(entry.record, Intent):
            key = entry.record.request.client_order_id
            intents.setdefault(key, (entry.seq, entry.record.payload_hash))
        elif isinstance(entry.record, CommandSent):
            commands.setdefault(entry.record.client_order_id, entry.seq)
    apart = set()
    for entry in evidence.apart:
        record = entry.record
        if isinstance(record, Intent):
            apart.add(record.request.client_order_id)
        elif isinstance(record, CommandSent):
            apart.add(record.client_order_id)
    moments = [at for at, _ in evidence.commits]
    reached = list(accumulate((seq for _, seq in evidence.commits), max))
    wrong = []
    for line in evidence.ledger:
        key = line.client_order_id
        if key in apart or not key.startswith(evidence.ours):
            continue
        place = bisect_right(moments, line.at)
        durable = reached[place - 1] if place else 0
        seq, digest = intents.get(key, (0, ""))
        if line.kind != "place":
            seq = commands.get(key, 0)
        if not 0 < seq <= durable:
            wrong.append(f"{line.kind} of {key} came before its record was durable")
        elif line.kind == "place" and digest != line.payload_hash:
            wrong.append(f"{key} arrived with another content than was journalled")
    return wrong


def _executed_twice(evidence: Evidence) -> list[str]:
    """All orders of one signal together execute no more than the largest of them was meant to."""
    parents: dict[str, tuple[str, Decimal]] = {}
    meant: dict[str, Decimal] = {}
    for entry in evidence.entries:
        record = entry.record
        if isinstance(record, Intent) and record.role in ("entry", "exit"):
            parent = f"{record.parent}/{record.role}"
            parents[record.request.client_order_id] = (parent, record.request.quantity)
            meant[parent] = max(meant.get(parent, Decimal(0)), record.request.quantity)
    done: dict[str, Decimal] = {}
    excused = set()
    for fill in _standing(evidence.fills):
        parent, _ = parents.get(fill.client_order_id, ("", Decimal(0)))
        done[parent] = done.get(parent, Decimal(0)) + fill.quantity
        if fill.client_order_id in evidence.excused:
            excused.add(parent)
    for key in evidence.excused:
        excused.add(parents.get(key, ("", Decimal(0)))[0])
    return [
        f"{parent}: {quantity} executed of {meant[parent]}"
        for parent, quantity in done.items()
        if parent and parent not in excused and quantity > meant[parent]
    ]


def _standing(fills: Iterable[Fill]) -> list[Fill]:
    """Return the executions that stand: corrected ones in their last form, busted ones not at all."""
    standing: dict[str, Fill] = {}
    for fill in fills:
        if fill.replaces is not None:
            standing.pop(fill.replaces, None)
        if fill.quantity:
            standing[fill.trade_id] = fill
    return list(standing.values())


def _invented_fills(evidence: Evidence) -> list[str]:
    """Every execution in the journal was made by the venue, and is there once."""
    made = {fill.trade_id: fill for fill in evidence.fills}
    seen: set[str] = set()
    wrong = []
    for entry in evidence.entries:
        if isinstance(entry.record, Filled):
            fill = entry.record.fill
            twin = made.get(fill.trade_id)
            if twin is None or (twin.quantity, twin.price) != (fill.quantity, fill.price):
                wrong.append(f"record {entry.seq}: the venue made no such fill {fill.trade_id}")
            if fill.trade_id in seen:
                wrong.append(f"record {entry.seq}: fill {fill.trade_id} is there twice")
            seen.add(fill.trade_id)
    return wrong


def _positions(evidence: Evidence) -> list[str]:
    """Journalled fills, less base fees, and outside changes add up to what the venue holds."""
    sums: dict[str, Decimal] = {}
    fills = []
    outside: list[tuple[ExternalChange, Decimal]] = []
    for entry in evidence.entries:
        if isinstance(entry.record, Filled):
            fills.append(entry.record.fill)
            outside = _explained(outside, entry.record.fill)
        elif isinstance(entry.record, ExternalChange):
            outside.append((entry.record, entry.record.quantity))
    for record, rest in outside:
        sums[record.symbol] = sums.get(record.symbol, Decimal(0)) + rest
    for fill in _standing(fills):
        sums[fill.symbol] = sums.get(fill.symbol, Decimal(0)) + _change(fill)
    return [
        f"{symbol}: the journal adds up to {sums.get(symbol, Decimal(0))}, the venue holds {quantity}"
        for symbol, quantity in evidence.positions.items()
        if sums.get(symbol, Decimal(0)) != quantity
    ]


def _change(fill: Fill) -> Decimal:
    change = fill.quantity * fill.side.sign
    if fill.fee_asset and fill.symbol.startswith(f"{fill.fee_asset}/"):
        change -= fill.fee
    return change


def _explained(
    outside: list[tuple[ExternalChange, Decimal]], fill: Fill
) -> list[tuple[ExternalChange, Decimal]]:
    """Return what is left of outside changes, with their rests, when the first that held a fill is less it."""
    change = _change(fill)
    for place, (record, rest) in enumerate(outside):
        if (
            fill.replaces is None
            and record.symbol == fill.symbol
            and record.seen_at is not None
            and fill.at <= record.seen_at
            and rest * change > 0
            and abs(change) <= abs(rest)
        ):
            return [*outside[:place], (record, rest - change), *outside[place + 1 :]]
    return outside
