"""Calendars: holidays, half days, summer time, closures by hand, and what is said when they are missing."""

import sys
from datetime import UTC, date, datetime, timedelta

import pytest

from execkit.bars.sessions import AlwaysOpen, Session
from execkit.calendars import ExchangeHours, market_hours
from execkit.errors import ConfigurationError
from execkit.model.market import Timeframe

pytest.importorskip("exchange_calendars")


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def new_york():
    return ExchangeHours("XNYS")


@pytest.mark.parametrize(
    ("after", "close"),
    [
        ("2024-03-08T12:00", "2024-03-08T21:00"),  # winter
        ("2024-03-11T12:00", "2024-03-11T20:00"),  # summer, since Sunday
        ("2024-11-01T12:00", "2024-11-01T20:00"),
        ("2024-11-04T12:00", "2024-11-04T21:00"),
        ("2024-07-03T12:00", "2024-07-03T17:00"),  # half day
        ("2024-07-04T00:00", "2024-07-05T20:00"),  # holiday
        ("2024-11-29T12:00", "2024-11-29T18:00"),  # half day
    ],
)
def test_daily_closes_in_utc(new_york, after, close):
    """K7, K8: 16:00 in New York is 20:00 or 21:00 UTC, 13:00 on half days."""
    assert new_york.next_close(Timeframe.D1, at(after)) == at(close)


def test_a_week_ends_before_a_holiday(new_york):
    """Good Friday 2024: the week closed on Thursday."""
    assert new_york.next_close(Timeframe.W1, at("2024-03-25T00:00")) == at("2024-03-28T20:00")


def test_it_reaches_as_far_as_it_is_asked(new_york):
    """More is read around any moment, also years away."""
    assert new_york.next_close(Timeframe.D1, at("2031-06-02T12:00")) == at("2031-06-02T20:00")
    assert new_york.next_close(Timeframe.D1, at("2019-06-03T12:00")) == at("2019-06-03T20:00")
    with pytest.raises(ConfigurationError, match="XHKG"):
        ExchangeHours("XHKG").next_close(Timeframe.D1, at("2090-01-01T00:00"))


def test_a_closure_by_hand():
    """K9: a day of mourning, given beforehand or taken off later; it stays off when more is read."""
    mourning = date(2025, 1, 9)
    hours = ExchangeHours("XNYS", closed=[mourning])
    assert hours.next_close(Timeframe.D1, at("2025-01-08T22:00")) == at("2025-01-10T21:00")
    early = Session(date(2025, 1, 10), at("2025-01-10T14:30"), at("2025-01-10T18:00"))
    hours.amend(date(2025, 1, 10), early)
    hours.next_close(Timeframe.D1, at("2030-01-08T22:00"))
    assert hours.next_close(Timeframe.D1, at("2025-01-08T22:00")) == at("2025-01-10T18:00")
    assert not hours.is_open(at("2025-01-09T15:00"))


def test_breaks_of_hong_kong():
    """12:00 to 13:00 local."""
    hours = ExchangeHours("XHKG")
    assert not hours.is_open(at("2024-07-02T04:30"))
    assert hours.next_open(at("2024-07-02T04:30")) == at("2024-07-02T05:00")


def test_market_hours_by_options():
    """Crypto is 24/7 in UTC; a session market its sessions, or days of its zone."""
    assert market_hours().next_close(Timeframe.D1, at("2024-07-04T12:00")) == at("2024-07-05T00:00")
    assert isinstance(market_hours("XNYS"), ExchangeHours)
    around = market_hours("XNYS", market_hours_only=False)
    assert isinstance(around, AlwaysOpen)
    assert around.next_close(Timeframe.D1, at("2024-07-04T12:00")) == at("2024-07-05T04:00")
    with pytest.raises(ConfigurationError, match="timezone: 'Mars' is unknown"):
        market_hours("XNYS", timezone="Mars", market_hours_only=False)
    with pytest.raises(ConfigurationError, match="'NASDQ' is unknown; use the ISO 10383 code"):
        market_hours("NASDQ")


def test_it_says_what_is_missing(monkeypatch):
    """One clear sentence with the command."""
    monkeypatch.setitem(sys.modules, "exchange_calendars", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'execkit\[calendars\]'"):
        ExchangeHours("XNYS")


def test_every_close_of_a_year_lies_in_a_session(new_york):
    """13 half hours a full day, 7 on a half day, none else."""
    closes = list(new_york.closes(Timeframe.M30, at("2024-01-01T00:00"), at("2025-01-01T00:00")))
    days = {}
    for close in closes:
        days.setdefault((close - timedelta(hours=8)).date(), []).append(close)
    assert len(days) == 252
    assert sorted(d.isoformat() for d, found in days.items() if len(found) == 7) == [
        "2024-07-03", "2024-11-29", "2024-12-24",
    ]  # fmt: skip
    assert {len(found) for found in days.values()} == {7, 13}
