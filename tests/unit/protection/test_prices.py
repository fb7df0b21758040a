"""What prices say of a position: the side on which it would be closed, and since when a level counts."""

from decimal import Decimal

import pytest
from tests.support import orders as make
from tests.support.orders import AT, BTC, later

from execkit.model.market import Quote
from execkit.model.order import OrderRole, OrderType, Side
from execkit.model.position import Position
from execkit.orders.book import Book
from execkit.protection.prices import Range, Touch, is_left_behind, is_through

D = Decimal


def position(quantity="1", stop="95", **details):
    return Position(
        position_id=f"{BTC}#1",
        symbol=BTC,
        quantity=D(quantity),
        average_price=D(100),
        opened_at=AT,
        stop_loss=None if stop is None else D(stop),
        **details,
    )


SHORT = {"quantity": "-1", "stop": "105"}


def prices(low, high, last, since=None):
    return Range(D(low), D(high), D(last), since)


def test_a_long_is_closed_at_the_bid_and_a_short_at_the_ask():
    """What is on the other side is the far price."""
    touch = Touch(D(99), D(101))
    assert (touch.near(position()), touch.far(position())) == (99, 101)
    assert (touch.near(position(**SHORT)), touch.far(position(**SHORT))) == (101, 99)


def test_the_last_news_of_a_price_counts():
    """A quote has two sides; a bar that closed since has one price, and before either nothing is known."""
    book = Book()
    assert Touch.of(book, BTC) is None
    book.marks[BTC] = D(97)
    assert Touch.of(book, BTC) == (97, 97)
    book.see_quote(Quote(BTC, D(90), D(110), AT))
    assert Touch.of(book, BTC) == (90, 110)
    book.marks[BTC] = D("99.5")
    assert Touch.of(book, BTC) == (D("99.5"), D("99.5"))
    assert Touch.of(book, "ETH/USDT") is None


def test_is_through():
    """On the level counts as through."""
    assert is_through(position(), D(95), D(95))
    assert not is_through(position(), D(95), D("95.1"))
    assert is_through(position(**SHORT), D(105), D(105))
    assert not is_through(position(**SHORT), D(105), D("104.9"))


@pytest.mark.parametrize(
    ("bid", "ask", "behind"),
    [
        ("93.9", "93.9", True),
        ("93.9", "94", True),  # it is itself the best offer
        ("94", "94", False),  # it is being executed
        ("90", "94.1", False),  # wide, and not triggered
        ("10", "101", False),
        ("94", "95", False),
    ],
)
def test_a_stop_limit_is_left_behind_when_all_of_the_market_is_beyond_it(bid, ask, behind):
    """Its limit is 94; for a short the mirror image, with its limit at 106."""
    sell = make.order(
        order_id="s",
        type=OrderType.STOP_LIMIT,
        stop="95",
        limit="94",
        side=Side.SELL,
        role=OrderRole.STOP,
    )
    assert is_left_behind(position(), sell, Touch(D(bid), D(ask))) is behind
    buy = make.order(
        order_id="b", type=OrderType.STOP_LIMIT, stop="105", limit="106", role=OrderRole.STOP
    )
    mirror = Touch(200 - D(ask), 200 - D(bid))
    assert is_left_behind(position(**SHORT), buy, mirror) is behind
    plain = make.order(order_id="m", stop="95", side=Side.SELL, role=OrderRole.STOP)
    assert not is_left_behind(position(), plain, Touch(D(1), D(1)))


# -- since when ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("details", "since", "best"),
    [
        ({}, None, 110),
        ({}, later(0), 110),
        ({}, later(-1), 100),
        ({"target_since": later(60)}, None, 110),
        ({"target_since": later(60)}, later(60), 110),
        ({"target_since": later(60)}, later(59), 100),
    ],
)
def test_a_target_counts_from_when_it_was_set(details, since, best):
    """A bar that began before may have its high from then: of it only the close is known to be later."""
    assert prices(90, 110, 100, since).best(position(**details)) == best
    short = prices(90, 110, 100, since).best(position(**SHORT, **details))
    assert short == (90 if best == 110 else 100)


STOPPED = [
    # Set with the entry: the low of a bar that began with it counts, an earlier one's does not, its close does.
    ({}, 94, 100, None, True),
    ({}, 94, 100, later(0), True),
    ({}, 94, 100, later(-1), False),
    ({}, 94, 95, later(-1), True),
    ({}, 96, 100, later(0), False),
    # Tightened from 95 to 98 at 60 s: a bar that holds the moment may have come to 96 before.
    ({"stop": "98", "stop_since": later(60), "earlier_stop": D(95)}, 96, 100, later(60), True),
    ({"stop": "98", "stop_since": later(60), "earlier_stop": D(95)}, 96, 100, later(30), False),
    ({"stop": "98", "stop_since": later(60), "earlier_stop": D(95)}, 96, 98, later(30), True),
    # At 95 it has come to the one that was in force, whenever that was.
    ({"stop": "98", "stop_since": later(60), "earlier_stop": D(95)}, 95, 100, later(30), True),
    ({"stop": "98", "stop_since": later(60), "earlier_stop": D(95)}, 95, 100, later(-1), False),
    # Loosened from 95 to 92: 94 may be from after, 92 is beyond both.
    ({"stop": "92", "stop_since": later(60), "earlier_stop": D(95)}, 94, 100, later(30), False),
    ({"stop": "92", "stop_since": later(60), "earlier_stop": D(95)}, 92, 100, later(30), True),
    # Set twice within the bar, or for the first time: nothing is known of what came before.
    (
        {
            "stop": "98",
            "stop_since": later(60),
            "earlier_stop": D(95),
            "earlier_stop_since": later(50),
        },
        90,
        100,
        later(30),
        False,
    ),
    (
        {
            "stop": "98",
            "stop_since": later(60),
            "earlier_stop": D(95),
            "earlier_stop_since": later(20),
        },
        95,
        100,
        later(30),
        True,
    ),
    ({"stop": "98", "stop_since": later(60)}, 90, 100, later(30), False),
    ({"stop": "98", "stop_since": later(60)}, 97, 100, None, True),
    ({"stop": None}, 1, 1, None, False),
]


@pytest.mark.parametrize(("details", "low", "last", "since", "reached"), STOPPED)
def test_a_stop_counts_from_when_it_was_set(details, low, last, since, reached):
    """The low of a long's bar; the high of a short's, mirrored at 100."""
    assert prices(low, 101, last, since).reaches_stop(position(**details)) is reached
    mirrored = {
        name: 200 - value if isinstance(value, Decimal) else value
        for name, value in ({"stop": "95"} | details).items()
    }
    if mirrored["stop"] is not None:
        mirrored["stop"] = str(200 - D(mirrored["stop"]))
    short = position("-1", **mirrored)
    assert prices(99, 200 - low, 200 - last, since).reaches_stop(short) is reached
