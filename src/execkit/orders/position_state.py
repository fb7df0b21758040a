"""Positions in a snapshot: its shape, and how one of an older version is read."""

from __future__ import annotations

import msgspec

from execkit.model.position import Position
from execkit.orders.day_trades import DayTrades
from execkit.orders.executions import Execution
from execkit.orders.levels import Levels, Placed
from execkit.orders.lives import Life


class PositionExport(msgspec.Struct):
    """The shape of `PositionBook.export`, for decoding."""

    lives: dict[str, Life]
    settled: dict[str, Life]
    window: dict[str, list[Execution]]
    seen: dict[str, list[str]]
    levels: dict[str, Levels]
    """Of an older version, by position id."""
    closed: list[Position]
    day_trades: dict[str, DayTrades] = {}
    levels_by_symbol: dict[str, list[Placed]] = {}


def count_day_trades(data: PositionExport) -> None:
    """Let the count of day trades of an older version, which has none, begin with what was held before the window.

    Of the day trades before it nothing is known, and of what was bought on a day only the first purchase.
    """
    for symbol, life in data.settled.items():
        if symbol not in data.day_trades:
            data.day_trades[symbol] = DayTrades.holding(life.quantity, life.opened_at)


def place_levels(data: PositionExport) -> None:
    """Give the levels of an older version a place among the executions.

    It knew for which position they were set, and not when. They hold from the last execution on, because the opening
    one may get another key when the sums are added up again.
    """
    for symbol, life in data.lives.items():
        numbered = data.levels.get(f"{symbol}#{life.number}")
        if numbered is not None and life.is_open:
            window = data.window.get(symbol)
            place = window[-1].key if window else life.begins
            data.levels_by_symbol[symbol] = [Placed(place, numbered)]
