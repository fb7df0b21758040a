"""The summary as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from execkit.model.order import OrderState
from execkit.numbers import ZERO, plain
from execkit.orders.manager import ManagedOrder
from execkit.report.summary import Refusal, Summary, Trade

ROWS = 30
"""Rows that a table shows by default; the newest."""


def show(
    console: Console, summary: Summary, *, currency: str, title: str = "", rows: int = ROWS
) -> None:
    """Print orders, trades, refusals, alarms and the money made."""
    console.print(render(summary, currency=currency, title=title, rows=rows))


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
        parts.append(_alarms(summary, rows))
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
        padding=(0, 2, 0, 0),
    )


def _orders(orders: list[ManagedOrder], rows: int) -> Table:
    shown = orders[-rows:]
    table = _table("Orders", len(shown), len(orders))
    for name in ("time", "symbol", "role", "side"):
        table.add_column(name, no_wrap=True)
    for name in ("quantity", "price", "filled", "average"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("remark")
    for order in shown:
        table.add_row(
            _time(order.created_at),
            order.symbol,
            order.role.value,
            order.side.value,
            _number(order.quantity),
            _price(order),
            _number(order.filled),
            _number(order.average_price),
            Text(order.state.value, style=_STYLES.get(order.state, "")),
            order.reason,
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


def _price(order: ManagedOrder) -> str:
    parts = []
    if order.stop_price is not None:
        parts.append(f"stop {_number(order.stop_price)}")
    if order.limit_price is not None:
        parts.append(f"limit {_number(order.limit_price)}")
    return " ".join(parts) or "market"


def _trades(trades: list[Trade], rows: int) -> Table:
    shown = trades[-rows:]
    table = _table("Trades", len(shown), len(trades))
    for name in ("opened", "closed", "symbol", "side"):
        table.add_column(name, no_wrap=True)
    for name in ("quantity", "entry", "exit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ended by", no_wrap=True)
    table.add_column("P&L after fees", justify="right", no_wrap=True)
    for trade in shown:
        table.add_row(
            _time(trade.opened_at),
            _time(trade.closed_at),
            trade.symbol,
            "long" if trade.side.sign > 0 else "short",
            _number(trade.quantity),
            _number(trade.entry_price),
            _number(trade.exit_price),
            "outside" if trade.ended_by is None else trade.ended_by.value,
            _gain(trade.pnl),
        )
    return table


def _refusals(refusals: list[Refusal], rows: int) -> Table:
    """One row for each symbol and code, with the newest values: a rule that holds refuses all day."""
    newest: dict[tuple[str, str], Refusal] = {}
    counts: dict[tuple[str, str], int] = {}
    for refusal in refusals:
        key = (refusal.symbol, refusal.denial.code.value)
        newest[key] = refusal
        counts[key] = counts.get(key, 0) + 1
    shown = list(newest)[-rows:]
    table = _table("Refusals", len(refusals), len(refusals))
    for name in ("last", "symbol", "side"):
        table.add_column(name, no_wrap=True)
    table.add_column("times", justify="right", no_wrap=True)
    table.add_column("reason: value, limit")
    for key in shown:
        refusal = newest[key]
        table.add_row(
            _time(refusal.at),
            refusal.symbol,
            refusal.side.value,
            str(counts[key]),
            str(refusal.denial),
        )
    return table


def _alarms(summary: Summary, rows: int) -> Table:
    shown = summary.alarms[-rows:]
    table = _table("Alarms", len(shown), len(summary.alarms))
    for name in ("time", "code"):
        table.add_column(name, no_wrap=True)
    table.add_column("text")
    for at, alarm in shown:
        table.add_row(_time(at), Text(alarm.code, style="red"), alarm.text)
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
        ("fees paid", summary.fees),
    ):
        for asset, amount in sorted(amounts.items()) or [(currency, ZERO)]:
            shown = _number(amount) if name == "fees paid" else _gain(amount)
            table.add_row(name, Text.assemble(shown, f" {asset}"))
    if summary.opening_equity is not None:
        table.add_row("equity at the start", f"{_number(summary.opening_equity)} {currency}")
        table.add_row("equity at the end", f"{_number(summary.equity(currency))} {currency}")
    for position in summary.positions:
        table.add_row("still open", str(position))
    return table


def _time(at: datetime) -> str:
    return f"{at:%m-%d %H:%M:%S}"


def _number(value: Decimal | None) -> str:
    """Write a number with its digits in groups; prices and money keep 8 decimals at most."""
    if value is None:
        return ""
    text = plain(round(value, 8))
    whole, dot, rest = text.partition(".")
    return f"{int(whole):,}{dot}{rest}" if whole.lstrip("-").isdigit() and whole != "-0" else text


def _gain(value: Decimal) -> Text:
    amount = round(value, 2)
    style = "green" if amount > ZERO else "red" if amount < ZERO else ""
    return Text(f"{amount:+,.2f}", style=style)
