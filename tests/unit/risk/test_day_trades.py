"""The day-trade limit: the last business days, what may have to be closed today, and who is free of it."""

import itertools
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from tests.support.orders import fill

from execkit.model.denial import Denial, DenialCode
from execkit.model.order import Side
from execkit.orders.executions import Origin
from execkit.orders.positions import PositionBook
from execkit.risk.day_trades import check_day_trades, day_trades, weekdays_back
from execkit.risk.limits import RiskLimits

D = Decimal
NOW = datetime(2024, 3, 8, 20, tzinfo=UTC)
"""A Friday afternoon in New York."""
LIMITS = RiskLimits(max_day_trades=3)
BUY, SELL = Side.BUY, Side.SELL


def on(day, month=3):
    return datetime(2024, month, day, 15, tzinfo=UTC)


class Account:
    """Executions of an account, each a minute after the one before it on the same day."""

    def __init__(self):
        self.book = PositionBook()
        self._numbers = itertools.count()

    def trade(self, symbol, at, *changes):
        for minute, change in enumerate(changes):
            self.book.apply(
                fill(
                    f"t{next(self._numbers)}",
                    symbol=symbol,
                    side=BUY if change > 0 else SELL,
                    quantity=abs(change),
                    price=100,
                    at=at + timedelta(minutes=minute),
                ),
                Origin(),
            )
        return self

    def done(self):
        return day_trades(map(self.book.day_trades, self.book.traded), NOW)

    def check(self, *entering, equity=1_000, limits=LIMITS):
        return check_day_trades(self.book, entering or ("NEW",), NOW, D(equity), limits)


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


def test_the_last_business_days_count_of_all_symbols_together():
    """Six weekdays are looked back on, because one of the five before may be a holiday."""
    account = Account()
    account.trade("AAPL", on(29, month=2), 5, -5)
    assert account.done() == 0
    account.trade("AAPL", on(1), 5, -5).trade("AAPL", on(8), 5, -5).trade("MSFT", on(4), -5, 5)
    assert account.done() == 3
    account.trade("IBM", on(6), 5).trade("IBM", on(7), -5)
    assert account.done() == 3, "overnight"


def test_an_exit_in_part_is_a_day_trade_already():
    """Half of what was bought today is sold, the position is still open."""
    account = Account().trade("AAPL", on(8), 10, -5)
    assert account.done() == 1
    assert account.check(limits=RiskLimits(max_day_trades=1)).context["to_come"] == "1"
    assert account.check(limits=RiskLimits(max_day_trades=2)) is None, "the rest goes with the half"


def test_what_is_added_to_an_old_position_and_sold_is_a_day_trade():
    """A purchase makes all sales after it count; without it, closing the old one is free."""
    old = Account().trade("AAPL", on(7), 10)
    assert old.trade("AAPL", on(8), -4).done() == 0
    assert Account().trade("AAPL", on(7), 10).trade("AAPL", on(8), 5, -15).done() == 1
    closed_and_opened_again = Account().trade("AAPL", on(7), 10).trade("AAPL", on(8), -10, 10, -10)
    assert closed_and_opened_again.done() == 1


def test_a_fourth_day_trade_is_not_begun():
    """Three are allowed below 25,000; at 25,000 and without a limit nobody counts."""
    account = Account()
    for day in (6, 7, 8):
        account.trade("AAPL", on(day), 5, -5)
    assert account.check(equity=24_999) == Denial.of(
        DenialCode.DAY_TRADES_REACHED,
        day_trades=3,
        to_come=1,
        limit=3,
        equity=D(24_999),
        free_above=D(25_000),
    )
    assert account.check(equity=25_000) is None
    assert account.check(limits=RiskLimits()) is None
    assert Account().trade("AAPL", on(8), 5, -5, 5, -5).check() is None, "the third one"


def test_what_was_opened_today_may_have_to_be_closed_today():
    """Also what is on its way, each symbol once; a position of yesterday is free."""
    account = Account().trade("AAPL", on(7), 5, -5)
    account.trade("MSFT", on(8), 5).trade("IBM", on(7), 5)
    assert account.check() is None
    assert account.check("NEW", "OTHER").context["to_come"] == "3"
    assert account.check("NEW", "MSFT") is None, "an entry under way in what is held"
    assert account.check("NEW", "IBM").context["to_come"] == "3", "it makes the old one new"
    three = Account().trade("A", on(8), 1).trade("B", on(8), 1).trade("C", on(8), -1)
    assert three.check().context["day_trades"] == "0"
    assert three.check("A") is None, "adding to one of the three begins no other"
