"""The day-trade counter: New York days, the last business days, and who is free of it."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace

from execkit.model.denial import Denial, DenialCode
from execkit.model.position import Position
from execkit.orders.positions import PositionBook
from execkit.risk.day_trades import check_day_trades, day_trades, weekdays_back
from execkit.risk.limits import RiskLimits

D = Decimal
NOW = datetime(2024, 3, 8, 20, tzinfo=UTC)
"""A Friday afternoon in New York."""


def closed(opened, ended):
    return Position(
        position_id="p",
        symbol="AAPL",
        quantity=D(0),
        average_price=D(0),
        opened_at=opened,
        closed_at=ended,
    )


def on(day, *, hours=1):
    start = datetime(2024, 3, day, 15, tzinfo=UTC)
    return closed(start, start + timedelta(hours=hours))


@pytest.mark.parametrize(
    ("today", "days", "first"),
    [
        (date(2024, 3, 8), 1, date(2024, 3, 8)),
        (date(2024, 3, 8), 5, date(2024, 3, 4)),
        (date(2024, 3, 8), 6, date(2024, 3, 1)),
        (date(2024, 3, 10), 1, date(2024, 3, 8)),
        (date(2024, 3, 11), 2, date(2024, 3, 8)),
    ],
)
def test_weekends_do_not_count(today, days, first):
    """Back from a Friday, a Sunday and a Monday."""
    assert weekdays_back(today, days) == first


def test_only_round_trips_within_one_new_york_day_count():
    """Six weekdays are looked back on, because one of the last five business days' neighbours may be a holiday."""
    late = closed(datetime(2024, 3, 6, 20, tzinfo=UTC), datetime(2024, 3, 7, 1, tzinfo=UTC))
    overnight = closed(datetime(2024, 3, 6, 20, tzinfo=UTC), datetime(2024, 3, 7, 15, tzinfo=UTC))
    assert day_trades([on(8), on(4), on(1), late], NOW) == 4
    assert day_trades([overnight, on(7, hours=24)], NOW) == 0
    old = closed(datetime(2024, 2, 29, 15, tzinfo=UTC), datetime(2024, 2, 29, 16, tzinfo=UTC))
    assert day_trades([old], NOW) == 0


def held(*opened, closed=()):
    book = PositionBook()
    book.closed = list(closed)
    book.open = {str(n): opened_at for n, opened_at in enumerate(opened)}
    return book


def open_since(day, hour=15):
    start = datetime(2024, 3, day, hour, tzinfo=UTC)
    return replace(closed(start, None), quantity=D(1))


def test_a_fourth_day_trade_is_not_begun():
    """Three are allowed below 25,000; at 25,000 and without a limit nobody counts."""
    limits = RiskLimits(max_day_trades=3)
    done = held(closed=[on(8), on(7), on(6)])
    denial = check_day_trades(done, 0, NOW, D(24_999), limits)
    assert denial == Denial.of(
        DenialCode.DAY_TRADES_REACHED,
        day_trades=3,
        limit=3,
        equity=D(24_999),
        free_above=D(25_000),
    )
    assert check_day_trades(held(closed=[on(8), on(7)]), 0, NOW, D(24_999), limits) is None
    assert check_day_trades(done, 0, NOW, D(25_000), limits) is None
    assert check_day_trades(done, 0, NOW, D(1), RiskLimits()) is None


def test_what_was_opened_today_may_have_to_be_closed_today():
    """Also what is on its way; a position of yesterday is free."""
    limits = RiskLimits(max_day_trades=3)
    book = held(open_since(8), open_since(7), closed=[on(7)])
    assert check_day_trades(book, 0, NOW, D(1), limits) is None
    assert check_day_trades(book, 1, NOW, D(1), limits) is not None
    assert check_day_trades(held(*[open_since(8)] * 3), 0, NOW, D(1), limits) is not None
