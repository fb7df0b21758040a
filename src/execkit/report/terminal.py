"""The summary as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from execkit.model.order import OrderState
from execkit.model.records import Alarm
from execkit.numbers import ZERO, plain
from execkit.orders.manager import ManagedOrder
from execkit.report.summary import Refusal, Summary, Trade

ROWS = 30
"""Rows that a table shows by default; the newest."""


def show(
    console: Console, summary: Summary, *, currency: str, title: str = "", rows: int = ROWS
) -> None:
    """Print orders, trades, refusals, alarms and the money made."""
    console.print(render(summary, currency=currency, title=title, rows=rows), crop=False)


def render(summary: Summary, *, currency: str, title: str = "", rows: int = ROWS) -> RenderableType:
    """Return everything that `show` prints. *currency* is the asset in which equity is counted."""
    parts: list[RenderableType] = []
    if title:
        parts.append(Text(title, style="bold"))
    parts.append(_orders(summary.orders, rows))
    if summary.trades:
        parts.append(_trades(summary.trades, rows))
    if summary.refusals:
        parts.append(_refusals(summary.refusals, rows))
    if summary.alarms:
        parts.append(_alarms(summary.alarms, rows))
    parts.append(_money(summary, currency))
    return Group(*parts)


def _table(name: str, shown: int, total: int) -> Table:
    left_out = f", the last {shown}" if shown < total else ""
    return Table(
        title=f"{name} ({total}{left_out})",
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def _orders(orders: list[ManagedOrder], rows: int) -> Table:
    shown = orders[-rows:]
    table = _table("Orders", len(shown), len(orders))
    for name in ("time", "symbol", "role", "order", "what became of it"):
        table.add_column(name, no_wrap=name not in ("order", "what became of it"))
    for order in shown:
        table.add_row(
            _time(order.created_at),
            order.symbol,
            order.role.value,
            f"{order.side.value} {_number(order.quantity)} {_terms(order)}",
            Text(_outcome(order), style=_STYLES.get(order.state, "")),
        )
    return table


_STYLES: Mapping[OrderState, str] = {
    OrderState.FILLED: "green",
    OrderState.REJECTED: "red",
    OrderState.FAILED: "red",
    OrderState.IN_DOUBT: "bold red",
    OrderState.CANCELLED: "dim",
    OrderState.EXPIRED: "dim",
}


def _terms(order: ManagedOrder) -> str:
    parts = []
    if order.stop_price is not None:
        parts.append(f"stop {_number(order.stop_price)}")
    if order.limit_price is not None:
        parts.append(f"limit {_number(order.limit_price)}")
    return " ".join(parts) or "market"


def _outcome(order: ManagedOrder) -> str:
    text = order.state.value
    if order.filled and order.filled < order.quantity:
        text += f", filled {_number(order.filled)}"
    if order.average_price is not None:
        text += f" @ {_number(round(order.average_price, 6))}"
    return f"{text}: {order.reason}" if order.reason else text


def _trades(trades: list[Trade], rows: int) -> Table:
    shown = trades[-rows:]
    table = _table("Trades", len(shown), len(trades))
    for name in ("opened", "closed", "symbol", "position"):
        table.add_column(name, no_wrap=True)
    for name in ("entry", "exit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("by", no_wrap=True)
    table.add_column("P&L", justify="right", no_wrap=True)
    for trade in shown:
        same_day = trade.opened_at.date() == trade.closed_at.date()
        table.add_row(
            _time(trade.opened_at),
            f"{trade.closed_at:%H:%M}" if same_day else _time(trade.closed_at),
            trade.symbol,
            f"{'long' if trade.side.sign > 0 else 'short'} {_number(trade.quantity)}",
            _number(round(trade.entry_price, 6)),
            _number(round(trade.exit_price, 6)),
            "outside" if trade.ended_by is None else trade.ended_by.value,
            _gain(trade.pnl),
        )
    return table


def _refusals(refusals: list[Refusal], rows: int) -> Table:
    """One row for each symbol and code, with the newest values: a rule that holds refuses all day."""
    found = _newest((r.at, r.symbol, r.denial.code.value, str(r.denial)) for r in refusals)
    return _counted("Refusals", "reason, with value and limit", found, len(refusals), rows)


def _alarms(alarms: list[tuple[datetime, Alarm]], rows: int) -> Table:
    found = _newest((at, a.symbol, a.code, f"{a.code}: {a.text}") for at, a in alarms)
    return _counted("Alarms", "what happened", found, len(alarms), rows)


class _Counted(NamedTuple):
    at: datetime
    symbol: str
    text: str
    times: int


def _newest(events: Iterable[tuple[datetime, str, str, str]]) -> list[_Counted]:
    """Return one row for each symbol and code, with the newest text and how often it came."""
    found: dict[tuple[str, str], _Counted] = {}
    for at, symbol, code, text in events:
        known = found.get((symbol, code))
        found[symbol, code] = _Counted(at, symbol, text, 1 if known is None else known.times + 1)
    return list(found.values())


def _counted(name: str, what: str, found: list[_Counted], total: int, rows: int) -> Table:
    table = _table(name, total, total)
    for column in ("last", "symbol"):
        table.add_column(column, no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column(what)
    for row in found[-rows:]:
        table.add_row(_time(row.at), row.symbol, str(row.times), row.text)
    return table


def _money(summary: Summary, currency: str) -> Table:
    table = _table("Result", 1, 1)
    table.title = "Result"
    table.add_column("", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.show_header = False
    for name, amounts in (
        ("realised P&L, after fees", summary.realised),
        ("unrealised P&L", summary.unrealised),
        ("fees paid", {asset: -fee for asset, fee in summary.fees.items()}),
    ):
        for asset, amount in sorted(amounts.items()) or [(currency, ZERO)]:
            # Fees may be in a base asset, of which hundredths are a lot.
            shown = _number(amount) if asset != currency else _gain(amount)
            table.add_row(name, Text.assemble(shown, f" {asset}"))
    if summary.opening_equity is not None:
        for name, equity in (
            ("equity at the start", summary.opening_equity),
            ("equity at the end", summary.equity(currency)),
        ):
            table.add_row(name, f"{equity:,.2f} {currency}")
    for position in summary.positions:
        table.add_row("still open", str(position))
    return table


def _time(at: datetime) -> str:
    return f"{at:%m-%d %H:%M}"


def _number(value: Decimal | None) -> str:
    """Write a number with its digits in groups and 8 decimals at most."""
    if value is None:
        return ""
    whole, dot, rest = plain(round(value, 8)).partition(".")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    return f"{sign}{int(digits):,}{dot}{rest}"


def _gain(value: Decimal) -> Text:
    amount = round(value, 2)
    style = "green" if amount > ZERO else "red" if amount < ZERO else ""
    return Text(f"{amount:+,.2f}", style=style)
